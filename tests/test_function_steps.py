"""`@function`: gradients, random numbers, training steps, and how often a function is traced."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import as_array, both, same_bits, tensors_in, values

import dualgrad as dg
from dualgrad import nn, optim
from dualgrad.data import DataLoader, TensorDataset
from dualgrad.functional import cross_entropy, mse_loss
from dualgrad.jit.function import EagerFallback
from dualgrad.runtime.config import config


def ones(*shape: int) -> dg.Tensor:
    return dg.ones(*shape)


# -- gradients ------------------------------------------------------------------------------------


def test_grad_is_set_added_to_and_cleared() -> None:
    w = dg.tensor([1.0, 2.0], requires_grad=True)

    @dg.function(strict=True)
    def add(x: dg.Tensor) -> None:
        (w * x).sum().backward()

    @dg.function(strict=True)
    def fresh(x: dg.Tensor) -> Any:
        w.grad = None
        (w * x).sum().backward()
        return w.grad

    x = dg.tensor([3.0, 4.0])
    for k in range(1, 5):
        add(x)
        assert values(w.grad) == [3.0 * k, 4.0 * k]
    assert add.n_traces == 2  # without and with an old gradient
    for _ in range(3):
        assert fresh(x) is w.grad
        assert values(w.grad) == [3.0, 4.0]
    w.grad = None
    add(x)
    assert values(w.grad) == [3.0, 4.0]
    assert add.n_traces == 2


def test_gradients_of_calls_are_not_one_memory() -> None:
    w = ones(3).requires_grad_()

    @dg.function(strict=True)
    def f(x: dg.Tensor) -> None:
        w.grad = None
        (w * x).sum().backward()

    f(ones(3))
    first = w.grad
    f(ones(3) * 2)
    assert values(first) == [1.0] * 3
    assert values(w.grad) == [2.0] * 3


def test_no_grad_inside_and_outside() -> None:
    w = ones(2).requires_grad_()

    @dg.function(strict=True)
    def inside(x: dg.Tensor) -> dg.Tensor:
        with dg.no_grad():
            return x * w

    f = dg.function(lambda x: x * w)
    assert not inside(ones(2)).requires_grad
    assert not inside(ones(2)).requires_grad
    assert dg.is_grad_enabled()
    with dg.no_grad():
        assert not f(ones(2)).requires_grad
        assert not f(ones(2)).requires_grad
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EagerFallback)
        y = f(ones(2))
    assert y.requires_grad
    y.sum().backward()
    assert values(w.grad) == [1.0, 1.0]


def test_no_grad_is_left_as_it_was_after_an_exception() -> None:
    @dg.function
    def f(x: dg.Tensor) -> dg.Tensor:
        with dg.no_grad():
            raise ValueError("stop")

    for _ in range(3):
        with pytest.raises(ValueError, match="stop"):
            f(ones(1))
        assert dg.is_grad_enabled()


def test_second_order_inside() -> None:
    def penalty(x: dg.Tensor) -> Any:
        w = (x * 0.5).requires_grad_()
        (w * w * w).sum().backward(create_graph=True)
        g, w.grad = w.grad, None
        (g * g).sum().backward()
        return w.grad

    eager, static = both(penalty, lambda: (dg.tensor([1.0, -2.0, 3.0], dtype=dg.float64),))
    same_bits(static, eager)
    np.testing.assert_allclose(as_array(eager), 36 * (np.array([1.0, -2.0, 3.0]) / 2) ** 3)


def test_gradient_flows_through_a_compiled_function() -> None:
    w = ones(3).requires_grad_()
    compiled = dg.function(lambda x: (x * w).sum())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EagerFallback)
        compiled(ones(3)).backward()
        compiled(ones(3) * 2).backward()
    assert values(w.grad) == [3.0] * 3


# -- random numbers -------------------------------------------------------------------------------


def test_random_numbers_are_those_of_eager_mode() -> None:
    def draw(x: dg.Tensor) -> Any:
        return dg.rand(5) + x, dg.randn(2, 3), dg.uniform((4,), -1.0, 2.0)

    compiled = dg.function(draw, strict=True)
    results = []
    for function in (draw, compiled):
        dg.seed(42)
        results.append([function(ones(1)) for _ in range(4)] + [dg.rand(3)])
    for one, two in zip(*map(tensors_in, results), strict=True):
        same_bits(two, one)
    first, second = results[1][0], results[1][1]
    assert values(first[0]) != values(second[0])
    assert compiled.n_traces == 1


def test_seed_between_calls_is_seen() -> None:
    f = dg.function(lambda: dg.rand(4), strict=True)
    dg.seed(1)
    one, two = f(), f()
    dg.seed(1)
    same_bits(f(), one)
    same_bits(f(), two)
    dg.seed(2)
    assert values(f()) != values(one)
    assert f.n_traces == 1


def test_generator_as_an_argument() -> None:
    f = dg.function(lambda g: dg.randn(3, generator=g), strict=True)
    a, b = dg.Generator(5), dg.Generator(5)
    same_bits(f(a), f(b))
    same_bits(f(a), dg.randn(3, generator=b))
    assert values(f(dg.Generator(6))) != values(f(dg.Generator(5)))


# -- traces ---------------------------------------------------------------------------------------


def test_one_trace_per_shape_and_dtype() -> None:
    f = dg.function(lambda x: (x * 2).sum(axis=0), strict=True)
    for _ in range(3):
        f(ones(4, 3))
    assert f.n_traces == 1
    for _ in range(3):
        f(ones(5, 3))
        f(ones(4, 3))
    assert f.n_traces == 2
    f(dg.ones(4, 3, dtype=dg.float64))
    assert f.n_traces == 3


def test_last_short_batch_of_a_loader() -> None:
    images, labels = dg.rand(50, 6), dg.tensor(np.arange(50) % 3)
    model = nn.Linear(6, 3)
    optimizer = optim.SGD(model.parameters(), lr=0.1)

    @dg.function(strict=True)
    def step(x: dg.Tensor, y: dg.Tensor) -> dg.Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    loader = DataLoader(TensorDataset(images, labels), batch_size=16, shuffle=True, seed=0)
    for _ in range(3):
        for x, y in loader:
            step(x, y)
    # the very first call finds no gradients, all later ones of that shape those of the step before
    assert step.n_traces <= 3
    before = step.n_traces
    for x, y in loader:
        step(x, y)
    assert step.n_traces == before


def train(make: Callable[[Any], Any], compiled: bool, steps: int = 20) -> tuple[Any, Any, Any]:
    """Losses, the model and the optimizer after some steps on fixed numbers."""
    dg.seed(7)
    model = nn.Sequential(nn.Linear(13, 32), nn.ReLU(), nn.Linear(32, 5))
    optimizer = make(model.parameters())

    def step(x: dg.Tensor, y: dg.Tensor) -> dg.Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    run: Any = dg.function(step, strict=True) if compiled else step
    batches = [(dg.randn(17, 13), dg.tensor((np.arange(17) + k) % 5)) for k in range(4)]
    losses = [run(*batches[k % 4]).detach() for k in range(steps)]
    if compiled:
        assert run.n_traces <= 2
    return losses, model, optimizer


OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "momentum": lambda p: optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "rmsprop": lambda p: optim.RMSprop(p, lr=0.01),
    "adam": lambda p: optim.Adam(p, lr=0.01, weight_decay=0.1),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_training_step(make: Callable[[Any], Any], threads: int) -> None:
    eager, static = (train(make, compiled) for compiled in (False, True))
    for one, two in zip(eager[0], static[0], strict=True):
        same_bits(two, one, "loss")
    for one, two in zip(eager[1].parameters(), static[1].parameters(), strict=True):
        same_bits(two, one, "parameter")
        same_bits(two.grad, one.grad, "gradient")
    for one, two in zip(tensors_in(eager[2].state), tensors_in(static[2].state), strict=True):
        same_bits(two, one, "state")
    assert eager[0][-1].item() < eager[0][0].item()


def test_no_retrace_over_100_steps() -> None:
    losses, _, _ = train(OPTIMIZERS["adam"], True, steps=100)
    assert len({v.item() for v in losses}) == 100


def test_learning_rate_schedule() -> None:
    results = []
    for compiled in (False, True):
        dg.seed(0)
        w = dg.randn(4).requires_grad_()
        optimizer = optim.SGD([w], lr=0.1)

        def step(x: dg.Tensor) -> dg.Tensor:
            optimizer.zero_grad()  # noqa: B023
            loss = mse_loss(w * x, x)  # noqa: B023
            loss.backward()
            optimizer.step()  # noqa: B023
            return loss

        run = dg.function(step, strict=True) if compiled else step
        for k in range(6):
            optimizer.param_groups[0]["lr"] = 0.1 * 0.5**k
            run(dg.arange(4, dtype=dg.float32))
        results.append(w)
    same_bits(results[1], results[0])


def test_bounds_checks_find_nothing_in_a_training_step() -> None:
    with config.scope(check=True):
        checked = train(OPTIMIZERS["momentum"], True, steps=4)
    plain = train(OPTIMIZERS["momentum"], True, steps=4)
    for one, two in zip(checked[1].parameters(), plain[1].parameters(), strict=True):
        same_bits(two, one)
