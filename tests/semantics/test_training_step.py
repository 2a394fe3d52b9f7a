"""The eager training step, decorated unchanged: one program, with schedule and clipping.

Rows 7, 8, 9 and 15, needs 7 and 9.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dualgrad as dg
from dualgrad import functional as F
from dualgrad import nn, optim
from dualgrad.jit import function
from dualgrad.nn.utils import clip_grad_norm_, clip_grad_value_
from dualgrad.optim import lr_scheduler
from dualgrad.runtime.errors import ArgumentError
from semantics.support import bits, compare

OPTIMIZERS: dict[str, Callable[[Any], optim.Optimizer]] = {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "sgd_decay": lambda p: optim.SGD(p, lr=0.1, weight_decay=1e-3),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.1, weight_decay=1e-3),
    "nesterov": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: optim.Adam(p, lr=0.01),
    "adam_decay": lambda p: optim.Adam(p, lr=0.01, weight_decay=0.01),
    "adamw": lambda p: optim.AdamW(p, lr=0.01),
    "amsgrad": lambda p: optim.AdamW(p, lr=0.01, amsgrad=True),
    "adagrad": lambda p: optim.Adagrad(p, lr=0.1, lr_decay=0.1),
    "adadelta": lambda p: optim.Adadelta(p),
    "adamax": lambda p: optim.Adamax(p, lr=0.01),
    "nadam": lambda p: optim.NAdam(p, lr=0.01),
    "radam": lambda p: optim.RAdam(p, lr=0.01, betas=(0.9, 0.95)),
    "lion": lambda p: optim.Lion(p, lr=0.01, weight_decay=0.1),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.01),
    "rmsprop_all": lambda p: optim.RMSprop(
        p, lr=0.01, momentum=0.9, centered=True, weight_decay=1e-3
    ),
}
SCHEDULES: dict[str, Callable[[Any], Any]] = {
    "one_cycle": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=40, cycle_momentum=False),
    "cycle_momentum": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=40, three_phase=True),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 15, 1e-4),
    "restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 7, 2),
    "step": lambda o: lr_scheduler.StepLR(o, 4, 0.5),
    "multi_step": lambda o: lr_scheduler.MultiStepLR(o, [3, 8, 8, 20], 0.5),
    "exponential": lambda o: lr_scheduler.ExponentialLR(o, 0.95),
    "linear": lambda o: lr_scheduler.LinearLR(o, 0.1, 1.0, 12),
    "constant": lambda o: lr_scheduler.ConstantLR(o, 0.1, 6),
    "polynomial": lambda o: lr_scheduler.PolynomialLR(o, 20, 2.0),
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda n: 0.95**n),
    "multiplicative": lambda o: lr_scheduler.MultiplicativeLR(o, lambda n: 1 - 1 / (n + 5)),
    "warm_up": lambda o: lr_scheduler.LambdaLR(o, lambda n: min(1.0, (n + 1) / 10)),
    "chained": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.LinearLR(o, 0.1, 1.0, 8), lr_scheduler.ExponentialLR(o, 0.95)]
    ),
    "cyclic": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, 5, 7, mode="triangular2"),
    "sequence": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, 0.1, 1.0, 8), lr_scheduler.CosineAnnealingLR(o, 24)], [8]
    ),
}
# Retraces: one where counters and rate become inputs, one more where the rate stays the same at
# first, and one for each way through the code of a schedule that chooses, in Python, what to do.
RETRACES = {"step": 2, "multi_step": 2, "constant": 2, "restarts": 4, "warm_up": 2, "sequence": 4}

x = dg.tensor(np.random.default_rng(1).standard_normal((16, 6)).astype(np.float32))
y = dg.tensor(np.arange(16) % 3)


def training(
    optimizer: Any, schedule: Any, inside: bool = True, clip: Any = clip_grad_norm_
) -> Callable[[], Any]:
    def make() -> Any:
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
        opt = optimizer(model.parameters())
        sched = schedule(opt)
        loss_of = nn.CrossEntropyLoss()

        def step(x: Any, y: Any) -> Any:
            opt.zero_grad()
            loss = loss_of(model(x), y)
            loss.backward()
            norm = clip(model.parameters(), 0.5)
            opt.step()
            if inside:
                sched.step()
            return loss, norm

        return step, model, opt, sched

    return make


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_row07_steps_of_each_optimizer(name: str) -> None:
    """100 steps of a schedule with clipping, the state compared bit by bit after each."""
    schedule = lr_scheduler.OneCycleLR
    cycles = name not in ("sgd", "sgd_decay", "rmsprop", "adagrad", "adadelta")
    make = training(
        OPTIMIZERS[name], lambda o: schedule(o, 0.1, total_steps=100, cycle_momentum=cycles)
    )
    f = compare(make, [(x, y)] * 100)
    assert f.n_traces <= 2


@pytest.mark.parametrize("name", SCHEDULES)
def test_row08_schedules_inside_of_the_step(name: str) -> None:
    f = compare(training(OPTIMIZERS["momentum"], SCHEDULES[name]), [(x, y)] * 30)
    assert f.n_traces <= 1 + RETRACES.get(name, 1)


@pytest.mark.parametrize("name", ["one_cycle", "sequence", "restarts", "step"])
def test_row08_schedules_outside_of_the_step(name: str) -> None:
    def call(f: Any, model: Any, opt: Any, sched: Any) -> Any:
        loss = f(x, y)
        sched.step()
        return loss

    f = compare(training(OPTIMIZERS["adamw"], SCHEDULES[name], inside=False), [call] * 30)
    assert f.n_traces <= 2


def test_row08_rate_set_by_hand_and_by_plateau() -> None:
    def plateau(opt: Any) -> Any:
        return lr_scheduler.ReduceLROnPlateau(opt, factor=0.5, patience=1, threshold=0.5)

    def call(f: Any, model: Any, opt: Any, sched: Any) -> Any:
        loss, norm = f(x, y)
        sched.step(loss)
        opt.param_groups[0]["momentum"] = min(0.95, opt.param_groups[0]["momentum"] * 1.01)
        return loss, norm

    f = compare(training(OPTIMIZERS["nesterov"], plateau, inside=False), [call] * 25)
    assert f.n_traces <= 3


def test_row08_rate_as_argument_and_as_global() -> None:
    def make() -> Any:
        w = dg.tensor([1.0, 2.0], requires_grad=True)
        settings = {"lr": 0.5}

        def step(lr: float) -> Any:
            loss = (w * w).sum()
            loss.backward()
            with dg.no_grad():
                w.sub_(w.grad * lr * settings["lr"])
            w.grad = None
            return loss.detach()

        def change(f: Any, lr: float) -> Any:
            settings["lr"] = 1 / (1 + lr)
            return f(lr)

        return step, w, change

    calls = [lambda f, w, change, k=k: change(f, 0.01 * k) for k in range(12)]
    f = compare(make, calls)
    assert f.n_traces <= 2


def test_need07_a_thousand_steps_are_one_program() -> None:
    make = training(
        OPTIMIZERS["adam"], lambda o: lr_scheduler.OneCycleLR(o, 0.05, total_steps=1000)
    )
    dg.seed(3)
    want, model, _, sched = make()
    expected = [want(x, y)[0].item() for _ in range(1000)]
    parameters = [bits(p) for p in model.parameters()]
    dg.seed(3)
    step, other, _, again = make()
    f = dg.function(step, strict=True)
    losses = [f(x, y)[0].item() for _ in range(1000)]
    assert losses == expected
    assert [bits(p) for p in other.parameters()] == parameters
    assert again.state_dict() == sched.state_dict()
    assert f.n_traces == 2
    with pytest.raises(ArgumentError, match="the cycle is over"):
        f(x, y)


def test_need07_gradients_are_clipped_by_value_too() -> None:
    make = training(OPTIMIZERS["rmsprop"], SCHEDULES["cosine"], clip=clip_grad_value_)
    compare(make, [(x, y)] * 12, traces=2)


def test_need07_parameter_groups_with_rates_of_their_own() -> None:
    def make() -> Any:
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
        first, last = model[0], model[2]
        groups = [{"params": first.parameters(), "lr": 0.01}, {"params": last.parameters()}]
        opt = optim.AdamW(groups, lr=0.1)
        sched = lr_scheduler.LambdaLR(opt, [lambda n: 1 / (n + 1), lambda n: math.cos(n / 30)])

        def step(x: Any) -> Any:
            opt.zero_grad(set_to_none=False)
            loss = (model(x) ** 2).mean()
            loss.backward()
            opt.step()
            sched.step()
            return loss.detach(), sched.get_last_lr()

        return step, model, opt, sched

    f = compare(make, [(x,)] * 15)
    assert f.n_traces <= 3


def test_row09_running_statistics_and_their_counter() -> None:
    """Batch norm with a momentum, and with the mean of all batches (momentum=None)."""

    class Norm:
        def __init__(self, momentum: float | None) -> None:
            self.mean, self.var = dg.zeros(6), dg.ones(6)
            self.num_batches_tracked = 0
            self.momentum = momentum

        def __call__(self, x: Any, training: bool) -> Any:
            momentum = self.momentum
            if training:
                self.num_batches_tracked += 1
                if momentum is None:
                    momentum = 1.0 / self.num_batches_tracked
            return F.batch_norm(x, self.mean, self.var, training=training, momentum=momentum or 0.0)

    def make() -> Any:
        norms = [Norm(0.1), Norm(None)]

        def f(x: Any, training: bool) -> Any:
            return norms[1](norms[0](x * 2, training) + x, training)

        return f, norms

    calls = [(x * (k + 1), k % 5 != 4) for k in range(20)]
    f = compare(make, calls)
    assert f.n_traces <= 4


def test_row09_counter_kept_in_a_tensor() -> None:
    def make() -> Any:
        count, mean = dg.tensor(0), dg.zeros(6)

        def f(x: Any) -> Any:
            count.add_(1)
            mean.add_((x.mean(0) - mean) / count)
            return x - mean, count.clone()

        return f, count, mean

    compare(make, [(x * k,) for k in range(6)], traces=1)


def test_row15_dropout_in_a_training_step() -> None:
    """The masks are those of eager mode; the stream goes on equally."""

    def make() -> Any:
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
        opt = optim.Adam(model.parameters(), lr=0.01)
        sched = lr_scheduler.ExponentialLR(opt, 0.97)

        def step(x: Any, y: Any, p: float) -> Any:
            opt.zero_grad()
            hidden = F.dropout(model(x) + 0.1 * dg.randn(16, 3), p)
            loss = F.cross_entropy(hidden, y)
            loss.backward()
            opt.step()
            sched.step()
            return loss

        return step, model, opt, sched

    f = compare(make, [(x, y, 0.25)] * 50)
    assert f.n_traces <= 2


def test_row15_rates_of_dropout_that_change() -> None:
    def make() -> Any:
        def f(x: Any, p: float) -> Any:
            return F.dropout(x, p), dg.rand(3)

        return f

    compare(make, [(x, 0.1 * k) for k in range(11)], eager=None)


def test_row15_seeding_between_calls() -> None:
    def make() -> Any:
        def f(scale: float) -> Any:
            return dg.randn(4) * scale, dg.randint(0, 10, (3,))

        return f

    def seeded(f: Any) -> Any:
        dg.seed(11)
        return f(2.0)

    compare(make, [(1.0,), (3.0,), seeded, (1.5,), seeded, (2.0,)], traces=1)


def test_need07_a_step_that_goes_on_is_not_surveyed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a step leaves behind is what the check of the next call expects."""
    surveys = []
    real = function.survey

    def counted(*args: Any, **how: Any) -> Any:
        surveys.append(1)
        return real(*args, **how)

    monkeypatch.setattr(function, "survey", counted)
    step, *_ = training(OPTIMIZERS["adam"], SCHEDULES["cycle_momentum"])()
    f = dg.function(step)
    for _ in range(5):
        f(x, y)
    surveys.clear()
    for _ in range(10):
        f(x, y)
    assert not surveys
