"""Schedules: PyTorch's sequences bit for bit, resuming, and argument checks."""

from __future__ import annotations

import copy
import importlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dualgrad import optim
from dualgrad.creation import zeros
from dualgrad.optim import lr_scheduler
from dualgrad.runtime.errors import ArgumentError

STORED = json.loads(
    (Path(__file__).parents[1] / "references" / "schedules.json").read_text(encoding="utf-8")
)
STEPS = 100
STORED_STEPS = 40


def sequence(m: Any, o: Any) -> Any:
    parts = [m.LinearLR(o, 0.1, 1.0, 5), m.CosineAnnealingLR(o, 20), m.ExponentialLR(o, 0.9)]
    return m.SequentialLR(o, parts, [5, 25])


def averaging(m: Any) -> Any:
    """The module in which SWALR is."""
    return importlib.import_module(m.__name__.replace("lr_scheduler", "swa_utils"))


# (module of schedules, optimizer) -> schedule; the two modules have the same names.
CASES: dict[str, Callable[[Any, Any], Any]] = {
    "LambdaLR": lambda m, o: m.LambdaLR(o, lambda n: 0.95**n),
    "LambdaLR, two": lambda m, o: m.LambdaLR(o, [lambda n: 1 / (n + 1), lambda n: n / 10]),
    "MultiplicativeLR": lambda m, o: m.MultiplicativeLR(o, lambda n: 0.95),
    "StepLR": lambda m, o: m.StepLR(o, 7, 0.3),
    "MultiStepLR": lambda m, o: m.MultiStepLR(o, [3, 8, 8, 20], 0.3),
    "ConstantLR": lambda m, o: m.ConstantLR(o, 0.3, 6),
    "LinearLR": lambda m, o: m.LinearLR(o, 0.2, 0.9, 11),
    "ExponentialLR": lambda m, o: m.ExponentialLR(o, 0.93),
    "PolynomialLR": lambda m, o: m.PolynomialLR(o, 20, 1.7),
    "CosineAnnealingLR": lambda m, o: m.CosineAnnealingLR(o, 13, 1e-4),
    "CosineAnnealingWarmRestarts": lambda m, o: m.CosineAnnealingWarmRestarts(o, 5, 2, 1e-4),
    "OneCycleLR": lambda m, o: m.OneCycleLR(o, [0.5, 0.2], total_steps=130),
    "OneCycleLR, three phases": lambda m, o: m.OneCycleLR(
        o, 0.5, epochs=12, steps_per_epoch=10, three_phase=True, anneal_strategy="linear"
    ),
    "OneCycleLR, no momentum": lambda m, o: m.OneCycleLR(
        o, 0.5, total_steps=101, pct_start=0.1, cycle_momentum=False
    ),
    "SequentialLR": sequence,
    "SequentialLR, warm-up": lambda m, o: m.SequentialLR(
        o, [m.LinearLR(o, 0.01, 1.0, 10), m.CosineAnnealingLR(o, 90)], [10]
    ),
    "ChainedScheduler": lambda m, o: m.ChainedScheduler(
        [m.ConstantLR(o, 0.1, 20), m.ExponentialLR(o, 0.97), m.StepLR(o, 30, 0.5)]
    ),
    "CyclicLR": lambda m, o: m.CyclicLR(o, [0.01, 0.002], [0.1, 0.05], 7, 13),
    "CyclicLR, halved": lambda m, o: m.CyclicLR(
        o, 0.01, 0.1, 6, mode="triangular2", base_momentum=0.5, max_momentum=0.95
    ),
    "CyclicLR, exponential": lambda m, o: m.CyclicLR(
        o, 0.01, 0.1, 9, mode="exp_range", gamma=0.98, cycle_momentum=False
    ),
    "CyclicLR, own": lambda m, o: m.CyclicLR(
        o, 0.01, 0.1, 9, scale_fn=lambda n: 1 / (1 + n / 10), scale_mode="iterations"
    ),
    "SWALR": lambda m, o: averaging(m).SWALR(o, [0.05, 0.001], 30),
    "SWALR, line": lambda m, o: averaging(m).SWALR(o, 0.05, 12, "linear"),
    "SWALR, at once": lambda m, o: averaging(m).SWALR(o, 0.05, 0),
}


def optimizer(name: str = "SGD") -> optim.Optimizer:
    groups = [{"params": [zeros(2)]}, {"params": [zeros(3)], "lr": 0.02}]
    if name == "SGD":
        return optim.SGD(groups, lr=0.1, momentum=0.9)
    return optim.Adam(groups, lr=0.1)


def rates(o: Any) -> list[Any]:
    return [[g["lr"], g.get("momentum", g.get("betas"))] for g in o.param_groups]


@pytest.mark.parametrize("name", CASES)
def test_stored_sequences(name: str) -> None:
    o = optimizer()
    schedule = CASES[name](lr_scheduler, o)
    found = []
    for _ in range(STORED_STEPS):
        found.append([[rate.hex(), momentum.hex()] for rate, momentum in rates(o)])
        assert schedule.get_last_lr() == [rate for rate, _ in rates(o)]
        schedule.step()
    assert found == STORED[name]


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
@pytest.mark.parametrize("name", CASES)
def test_as_pytorch(name: str, kind: str) -> None:
    torch = pytest.importorskip("torch")
    groups = [{"params": [torch.zeros(2)]}, {"params": [torch.zeros(3)], "lr": 0.02}]
    more = {"momentum": 0.9} if kind == "SGD" else {}
    theirs = getattr(torch.optim, kind)(groups, lr=0.1, **more)
    ours = optimizer(kind)
    expected = CASES[name](torch.optim.lr_scheduler, theirs)
    schedule = CASES[name](lr_scheduler, ours)
    for _ in range(STEPS):
        assert rates(ours) == rates(theirs)
        assert schedule.get_last_lr() == expected.get_last_lr()
        theirs.step()
        schedule.step()
        expected.step()


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("threshold_mode", ["rel", "abs"])
def test_plateau_as_pytorch(mode: str, threshold_mode: str) -> None:
    torch = pytest.importorskip("torch")
    theirs = torch.optim.SGD([torch.zeros(2)], lr=0.1)
    ours = optim.SGD([zeros(2)], lr=0.1)
    how = {"mode": mode, "factor": 0.3, "patience": 2, "threshold": 0.05, "cooldown": 2,
           "threshold_mode": threshold_mode, "min_lr": 1e-3}  # fmt: skip
    expected = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, **how)
    schedule = lr_scheduler.ReduceLROnPlateau(ours, **how)
    for k in range(60):
        metric = math.cos(k / 5) / (1 + k / 20) + 1.5
        schedule.step(metric)
        expected.step(metric)
        assert rates(ours)[0][0] == rates(theirs)[0][0]
        assert schedule.get_last_lr() == [rates(ours)[0][0]]
    assert rates(ours)[0][0] < 0.1


@pytest.mark.parametrize("name", CASES)
def test_a_schedule_goes_on_from_its_state(name: str) -> None:
    first = optimizer()
    schedule = CASES[name](lr_scheduler, first)
    for _ in range(7):
        schedule.step()
    saved, groups = schedule.state_dict(), first.state_dict()
    text, groups = json.dumps(saved), copy.deepcopy(groups)
    schedule.step()
    assert json.dumps(saved) == text  # a copy
    first.load_state_dict(groups)
    schedule.load_state_dict(saved)
    again = optimizer()
    resumed = CASES[name](lr_scheduler, again)
    again.load_state_dict(groups)
    resumed.load_state_dict(json.loads(json.dumps(saved)))
    for _ in range(20):
        assert rates(again) == rates(first)
        schedule.step()
        resumed.step()


@pytest.mark.parametrize("name", ["ExponentialLR", "CosineAnnealingLR", "LinearLR", "OneCycleLR"])
def test_a_schedule_goes_on_from_a_step(name: str) -> None:
    """With last_epoch, as PyTorch does it."""
    first = optimizer()
    schedule = CASES[name](lr_scheduler, first)
    for _ in range(7):
        schedule.step()
    kind = getattr(lr_scheduler, name)
    arguments = {
        "ExponentialLR": (0.93,),
        "CosineAnnealingLR": (13, 1e-4),
        "LinearLR": (0.2, 0.9, 11),
        "OneCycleLR": ([0.5, 0.2], 130),
    }[name]
    again = optimizer()
    again.load_state_dict(first.state_dict())
    resumed = kind(again, *arguments, last_epoch=6)
    for _ in range(20):
        assert rates(again) == rates(first)
        schedule.step()
        resumed.step()


def test_state_of_an_optimizer_fits_one_without_a_schedule() -> None:
    first = optimizer()
    lr_scheduler.OneCycleLR(first, 0.5, total_steps=10).step()
    again = optimizer()
    again.load_state_dict(first.state_dict())
    assert rates(again) == rates(first)


@pytest.mark.parametrize(
    "make",
    [
        lambda o: lr_scheduler.StepLR("no optimizer", 3),
        lambda o: lr_scheduler.StepLR(o, 0),
        lambda o: lr_scheduler.LambdaLR(o, [lambda n: 1.0]),
        lambda o: lr_scheduler.LinearLR(o, 0.0),
        lambda o: lr_scheduler.LinearLR(o, 1.5),
        lambda o: lr_scheduler.ConstantLR(o, -0.1),
        lambda o: lr_scheduler.ExponentialLR(o, 0.9, last_epoch=3),
        lambda o: lr_scheduler.OneCycleLR(o, 0.1),
        lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=-1),
        lambda o: lr_scheduler.OneCycleLR(o, [0.1, 0.2, 0.3], total_steps=10),
        lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=10, anneal_strategy="x"),
        lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=10, pct_start=2.0),
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 5, 0),
        lambda o: lr_scheduler.ReduceLROnPlateau(o, factor=1.0),
        lambda o: lr_scheduler.ReduceLROnPlateau(o, mode="best"),
        lambda o: lr_scheduler.SequentialLR(o, [lr_scheduler.StepLR(o, 3)], [4]),
        lambda o: lr_scheduler.SequentialLR(
            o, [lr_scheduler.StepLR(o, 3), lr_scheduler.StepLR(optimizer(), 3)], [4]
        ),
    ],
)
def test_impossible_arguments_are_refused(make: Callable[[Any], Any]) -> None:
    with pytest.raises(ArgumentError):
        make(optimizer())


def test_a_step_after_the_last_of_a_cycle_is_refused() -> None:
    schedule = lr_scheduler.OneCycleLR(optimizer(), 0.1, total_steps=3)
    for _ in range(3):
        schedule.step()
    with pytest.raises(ArgumentError, match="the cycle is over"):
        schedule.step()


def test_an_optimizer_without_momentum_cannot_cycle_it() -> None:
    class Plain(optim.SGD):
        def __init__(self) -> None:
            super().__init__([zeros(2)])
            del self.param_groups[0]["momentum"]

    with pytest.raises(ArgumentError, match="no momentum to cycle"):
        lr_scheduler.OneCycleLR(Plain(), 0.1, total_steps=3)


@pytest.mark.parametrize("name", [name for name in CASES if "own" not in name])
def test_a_state_of_pytorch_goes_on_here(name: str) -> None:
    torch = pytest.importorskip("torch")
    groups = [{"params": [torch.zeros(2)]}, {"params": [torch.zeros(3)], "lr": 0.02}]
    theirs = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    expected = CASES[name](torch.optim.lr_scheduler, theirs)
    for _ in range(13):
        theirs.step()
        expected.step()
    ours = optimizer()
    schedule = CASES[name](lr_scheduler, ours)
    ours.load_state_dict(theirs.state_dict())
    schedule.load_state_dict(expected.state_dict())
    for _ in range(30):
        assert rates(ours) == rates(theirs)
        assert schedule.get_last_lr() == expected.get_last_lr()
        theirs.step()
        schedule.step()
        expected.step()


def test_a_plateau_goes_on_from_a_state_of_pytorch() -> None:
    torch = pytest.importorskip("torch")
    theirs = torch.optim.SGD([torch.zeros(2)], lr=0.1)
    ours = optim.SGD([zeros(2)], lr=0.1)
    expected = torch.optim.lr_scheduler.ReduceLROnPlateau(theirs, factor=0.3, patience=2)
    schedule = lr_scheduler.ReduceLROnPlateau(ours)
    metrics = [math.cos(k / 5) / (1 + k / 20) + 1.5 for k in range(60)]
    for metric in metrics[:20]:
        expected.step(metric)
    ours.load_state_dict(theirs.state_dict())
    schedule.load_state_dict(expected.state_dict())
    for metric in metrics[20:]:
        schedule.step(metric)
        expected.step(metric)
        assert rates(ours)[0][0] == rates(theirs)[0][0]


@pytest.mark.parametrize("given", [{}, {"state": {}}, 3])
def test_what_is_no_state_is_refused(given: Any) -> None:
    o = optimizer()
    for schedule in (lr_scheduler.StepLR(o, 3), sequence(lr_scheduler, o)):
        with pytest.raises(ArgumentError):
            schedule.load_state_dict(given)


def test_a_plateau_is_not_one_of_several() -> None:
    o = optimizer()
    plateau = lr_scheduler.ReduceLROnPlateau(o)
    with pytest.raises(ArgumentError, match="not a schedule that goes by steps"):
        lr_scheduler.ChainedScheduler([lr_scheduler.StepLR(o, 3), plateau])
    with pytest.raises(ArgumentError, match="no optimizer"):
        lr_scheduler.ChainedScheduler([])


def test_several_at_once_after_a_warm_up() -> None:
    o = optim.SGD([zeros(2)], lr=0.1)
    chain = [lr_scheduler.ConstantLR(o, 0.5, 3), lr_scheduler.ExponentialLR(o, 0.9)]
    parts = [lr_scheduler.LinearLR(o, 0.2, 1.0, 4), lr_scheduler.ChainedScheduler(chain)]
    schedule = lr_scheduler.SequentialLR(o, parts, [4])
    found = []
    for _ in range(10):
        found.append(o.param_groups[0]["lr"])
        schedule.step()
    halves = [0.05 * 0.9**k if k < 3 else 0.1 * 0.9**k for k in range(6)]
    assert found == pytest.approx([0.02, 0.04, 0.06, 0.08, *halves], rel=1e-14)
