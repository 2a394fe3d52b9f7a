"""States of optimizers and schedules in files: they come back, and others change nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dualgrad as dg
from dualgrad import nn, optim
from dualgrad.runtime.errors import ArgumentError

Schedule = Callable[[Any], Any]


def rates(optimizer: Any) -> list[float]:
    return [group["lr"] for group in optimizer.param_groups]


def make(optim: Any, nn: Any) -> dict[str, tuple[Any, Any]]:
    """An optimizer with each schedule, from our modules or from torch's."""
    s = optim.lr_scheduler
    schedules: dict[str, Schedule] = {
        "lambda": lambda o: s.LambdaLR(o, lambda step: 0.9**step),
        "step": lambda o: s.StepLR(o, 2, 0.5),
        "multistep": lambda o: s.MultiStepLR(o, [3, 5, 5], 0.5),
        "constant": lambda o: s.ConstantLR(o, 0.5, 4),
        "linear": lambda o: s.LinearLR(o, 0.2, 1.0, 6),
        "exponential": lambda o: s.ExponentialLR(o, 0.9),
        "polynomial": lambda o: s.PolynomialLR(o, 8, 2.0),
        "cosine": lambda o: s.CosineAnnealingLR(o, 6, 0.01),
        "restarts": lambda o: s.CosineAnnealingWarmRestarts(o, 3, 2),
        "onecycle": lambda o: s.OneCycleLR(o, 0.2, total_steps=12),
        "plateau": lambda o: s.ReduceLROnPlateau(o, patience=1),
        "sequential": lambda o: s.SequentialLR(
            o, [s.ConstantLR(o, 0.1, 9), s.ExponentialLR(o, 0.9)], [5]
        ),
        "chained": lambda o: s.ChainedScheduler([s.ConstantLR(o, 0.1, 3), s.ExponentialLR(o, 0.9)]),
    }
    made = {}
    for name, schedule in schedules.items():
        first, second = nn.Linear(2, 2), nn.Linear(2, 1)
        groups = [{"params": first.parameters(), "lr": 0.1}, {"params": second.parameters()}]
        optimizer = optim.SGD(groups, lr=0.05, momentum=0.9)
        made[name] = optimizer, schedule(optimizer)
    return made


NAMES = sorted(make(optim, nn))


def go(name: str, schedule: Any, steps: range) -> list[list[float]]:
    seen = []
    for step in steps:
        schedule.optimizer.step() if hasattr(schedule, "optimizer") else None
        schedule.step(1.0 + step % 3) if name == "plateau" else schedule.step()
        seen.append(rates(schedule.optimizer))
    return seen


@pytest.mark.parametrize("name", NAMES)
def test_schedules_go_on_from_a_file(name, tmp_path):
    optimizer, schedule = make(optim, nn)[name]
    go(name, schedule, range(4))
    dg.save_checkpoint(tmp_path / "run", optimizer=optimizer, schedule=schedule)
    expected = go(name, schedule, range(4, 10))
    optimizer, schedule = make(optim, nn)[name]
    dg.load_checkpoint(tmp_path / "run", optimizer=optimizer, schedule=schedule)
    assert go(name, schedule, range(4, 10)) == expected


def more_groups(state: dict[str, Any]) -> None:
    for name in ("base_lrs", "min_lrs"):
        if name in state:
            state[name] = [*state[name], 0.1]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.update(last_epoch="soon"),
        lambda s: s.update(last_epoch=None),
        lambda s: s.update(last_epoch=[1]),
        lambda s: s.pop("last_epoch"),
        more_groups,
        lambda s: s.update(dict.fromkeys(s, "text")),
    ],
)
def test_states_that_are_none_change_nothing(name, change, tmp_path):
    _, schedule = make(optim, nn)[name]
    go(name, schedule, range(4))
    state = schedule.state_dict()
    change(state["_schedulers"][1] if "_schedulers" in state else state)  # the first one would fit
    refuse_state(schedule, state, tmp_path)


@pytest.mark.parametrize(
    ("name", "key"),
    [("chained", "_schedulers"), ("sequential", "_schedulers"), ("sequential", "last_epoch")],
)
@pytest.mark.parametrize("value", [None, "text", [1], [], [{}, {}]])
def test_states_of_several_schedules_change_nothing(name, key, value, tmp_path):
    _, schedule = make(optim, nn)[name]
    go(name, schedule, range(4))
    refuse_state(schedule, {**schedule.state_dict(), key: value}, tmp_path)


def refuse_state(schedule: Any, state: dict[str, Any], folder: Path) -> None:
    dg.save({"schedule": state}, folder / "run")
    before = repr(schedule.state_dict())
    with pytest.raises(ArgumentError):
        dg.load_checkpoint(folder / "run", schedule=schedule, restore_rng=False)
    with pytest.raises(ArgumentError):
        schedule.load_state_dict(dg.load(folder / "run")["schedule"])
    assert repr(schedule.state_dict()) == before


def test_names_that_are_no_state_do_not_get_in(tmp_path):
    _, schedule = make(optim, nn)["step"]
    step = schedule.step
    schedule.load_state_dict({**schedule.state_dict(), "step": 1, "optimizer": 2, "__class__": 3})
    assert schedule.step == step
    assert isinstance(schedule.optimizer, optim.SGD)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: None,
        lambda s: 3,
        lambda s: "text",
        lambda s: [],
        lambda s: {},
        lambda s: {**s, "state": 1},
        lambda s: {**s, "state": {0: 1}},
        lambda s: {**s, "state": {0: {"momentum_buffer": "text"}}},
        lambda s: {**s, "param_groups": None},
        lambda s: {**s, "param_groups": [1, 2]},
        lambda s: {**s, "param_groups": [{**g, "params": 0} for g in s["param_groups"]]},
        lambda s: {**s, "param_groups": [{**g, "lr": None} for g in s["param_groups"]]},
    ],
)
def test_states_of_optimizers_that_are_none_change_nothing(change, tmp_path):
    layer = nn.Linear(2, 2)
    optimizer = optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    layer(dg.ones(1, 2)).sum().backward()
    optimizer.step()
    before = repr(optimizer.state_dict())
    given = change(optimizer.state_dict())
    with pytest.raises(ArgumentError) as error:
        optimizer.load_state_dict(given)
    assert error.value.actual
    dg.save({"optimizer": given}, tmp_path / "run")
    with pytest.raises(ArgumentError):
        dg.load_checkpoint(tmp_path / "run", optimizer=optimizer, restore_rng=False)
    assert repr(optimizer.state_dict()) == before


@pytest.mark.parametrize("use_buffers", [False, True])
def test_averaged_models_go_on_from_a_file(use_buffers, tmp_path):
    swa = optim.swa_utils

    def begin() -> tuple[nn.Module, Any]:
        model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        average = swa.AveragedModel(
            model, multi_avg_fn=swa.get_ema_multi_avg_fn(0.9), use_buffers=use_buffers
        )
        return model, average

    def step(model: Any, average: Any) -> None:
        with dg.no_grad():
            model(dg.randn(4, 2))
            for p in model.parameters():
                p.add_(dg.randn(*p.shape))
        average.update_parameters(model)

    model, average = begin()
    step(model, average)
    step(model, average)
    dg.save_checkpoint(tmp_path / "run", model=model, average=average)
    step(model, average)
    expected = repr(average.state_dict())
    model, average = begin()
    dg.load_checkpoint(tmp_path / "run", model=model, average=average)
    step(model, average)
    assert repr(average.state_dict()) == expected
