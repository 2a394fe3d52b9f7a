"""`@function`: a decorated function does what the undecorated one does, and says what it did."""

from __future__ import annotations

import random
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
from support import as_array, both, same_bits, tensors_in

import dualgrad as dg
from dualgrad import nn, optim
from dualgrad.data import DataLoader, TensorDataset
from dualgrad.function import EagerFallback
from dualgrad.functional import cross_entropy, mse_loss
from dualgrad.runtime.config import config
from dualgrad.runtime.errors import ArgumentError, GradientError, TraceError

SCALE = 2.0


def ones(*shape: int) -> dg.Tensor:
    return dg.ones(*shape)


def values(x: Any) -> Any:
    return as_array(x).tolist()


# -- arguments and results ------------------------------------------------------------------------


class Pair(NamedTuple):
    first: Any
    second: Any


@dataclass
class Box:
    content: Any


def test_nested_containers_in_and_out() -> None:
    def f(a: dict[str, Any], b: list[Any], *, c: Pair) -> Any:
        total = a["x"] + b[0][1] * c.first
        return {
            "sum": total,
            "parts": [total * 2, (c.second, None, "text", 3)],
            "pair": Pair(total, 1.5),
        }

    def make() -> tuple[dict[str, Any], list[Any], Pair]:
        return {"x": ones(3), "n": 4}, [(None, ones(3) * 2)], Pair(ones(1) * 3, ones(2))

    compiled = dg.function(f, strict=True)
    for _ in range(3):
        a, b, c = make()
        want, got = f(a, b, c=c), compiled(a, b, c=c)
        assert type(got["pair"]) is Pair
        assert got["pair"].second == 1.5
        assert got["parts"][1][1:] == (None, "text", 3)
        assert list(got) == list(want)
        for x, y in zip(tensors_in(got), tensors_in(want), strict=True):
            same_bits(x, y)
    assert compiled.n_traces == 1


def test_defaults_and_keywords() -> None:
    @dg.function(strict=True)
    def f(x: dg.Tensor, scale: float = 2.0, *rest: Any, shift: float = 1.0, **more: Any) -> Any:
        return x * scale + shift + sum(rest) + more.get("last", 0.0)

    x = ones(2)
    assert values(f(x)) == [3.0, 3.0]
    assert values(f(x, 3.0)) == [4.0, 4.0]
    assert values(f(x, 3.0, 1.0, shift=0.0, last=5.0)) == [9.0, 9.0]
    assert values(f(x, shift=2.0)) == [4.0, 4.0]
    assert values(f(x)) == [3.0, 3.0]


def test_python_results_without_tensors() -> None:
    f = dg.function(lambda x: (x.shape, x.ndim, "done"), strict=True)
    assert f(ones(2, 3)) == ((2, 3), 2, "done")
    assert f(ones(2, 3)) == ((2, 3), 2, "done")


def test_returned_input_is_the_same_object() -> None:
    f = dg.function(lambda x, y: (x, [y, y], x + y), strict=True)
    for _ in range(3):
        x, y = ones(2), ones(2)
        a, (b, c), total = f(x, y)
        assert a is x
        assert b is y
        assert c is y
        assert values(total) == [2.0, 2.0]


def test_one_result_returned_twice_is_one_object() -> None:
    def f(x: dg.Tensor) -> tuple[dg.Tensor, dg.Tensor]:
        y = x * 2
        return y, y

    compiled = dg.function(f, strict=True)
    for _ in range(3):
        a, b = compiled(ones(2))
        assert a is b


def test_returned_views_share_memory() -> None:
    def f(x: dg.Tensor) -> tuple[dg.Tensor, ...]:
        y = x * 2
        return y, y.reshape(3, 2), y.transpose(0, 1), x.reshape(6), x.transpose(0, 1)

    compiled = dg.function(f)
    for _ in range(3):
        x = ones(2, 3)
        y, flat, turned, same, other = compiled(x)
        for one, two in ((y, flat), (y, turned), (x, same), (x, other)):
            assert np.shares_memory(as_array(one), as_array(two))
        y.zero_()
        x.add_(4.0)
        assert values(flat) == [[0.0] * 2] * 3
        assert values(same) == [5.0] * 6


def test_earlier_results_are_kept() -> None:
    f = dg.function(lambda x: (x * 2, x.sum()), strict=True)
    kept = [f(dg.full((5,), float(k))) for k in range(20)]
    for k, (double, total) in enumerate(kept):
        assert values(double) == [2.0 * k] * 5
        assert values(total) == 5.0 * k
    chained = f(f(f(ones(5))[0])[0])[0]
    assert values(chained) == [8.0] * 5


def test_arguments_of_all_layouts() -> None:
    @dg.function(strict=True)
    def f(x: dg.Tensor, y: dg.Tensor) -> dg.Tensor:
        return (x + y).sum(axis=0) @ y.transpose(0, 1)

    base = np.arange(48, dtype=np.float32).reshape(6, 8)
    layouts = (
        base,
        base[::1, ::2].repeat(2, axis=1),
        base.T.copy().T,
        np.broadcast_to(base[:1], (6, 8)),
    )
    eager = f.__wrapped_function__
    for a in layouts:
        for b in layouts:
            x, y = dg.from_numpy(a), dg.from_numpy(b)
            same_bits(f(x, y), eager(x, y))


# -- what a function reads ------------------------------------------------------------------------


class Counter:
    factor = 2.0

    def __init__(self, weight: dg.Tensor) -> None:
        self.weight = weight
        self.bias = 1.0
        self.history: list[Any] = []
        self.options = {"sign": 1.0, "nested": {"power": 1}}


def linear(model: Counter, x: dg.Tensor) -> dg.Tensor:
    y = x * model.weight * model.factor + model.bias
    if model.options["nested"]["power"] == 2:
        y = y * y
    return y * model.options["sign"]


CHANGES: dict[str, Callable[[Counter], None]] = {
    "number": lambda m: setattr(m, "bias", m.bias + 1.0),
    "number of a dict": lambda m: m.options.update(sign=-m.options["sign"]),
    "nested number": lambda m: m.options["nested"].update(power=3 - m.options["nested"]["power"]),
    "attribute that hides a class attribute": lambda m: setattr(m, "factor", 7.0),
    "tensor rebound": lambda m: setattr(m, "weight", m.weight + 1.0),
    "tensor changed": lambda m: m.weight.add_(1.0),
    "tensor of another dtype": lambda m: setattr(m, "weight", m.weight.to(dg.float64)),
    "tensor of another shape": lambda m: setattr(m, "weight", ones(1) * 5.0),
    "tensor of another layout": lambda m: setattr(
        m, "weight", dg.from_numpy(np.arange(8.0)[::2].astype("f4"))
    ),
    "dict replaced": lambda m: setattr(m, "options", {"sign": 3.0, "nested": {"power": 2}}),
    "sign of zero": lambda m: setattr(m, "bias", -0.0 if m.bias == 0 else 0.0),
    "int for float": lambda m: setattr(m, "bias", int(m.bias)),
    "bool for int": lambda m: m.options["nested"].update(power=True),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_changed_state_is_seen(change: Callable[[Counter], None]) -> None:
    model = Counter(ones(4))
    compiled = dg.function(lambda x: linear(model, x), strict=True)
    x = dg.arange(4, dtype=dg.float32)
    for _ in range(3):
        for _ in range(3):
            same_bits(compiled(x), linear(model, x))
        change(model)
        same_bits(compiled(x), linear(model, x))


def test_changed_class_attribute_is_seen() -> None:
    model = Counter(ones(2))
    compiled = dg.function(linear, strict=True)
    before = Counter.factor
    try:
        for value in (2.0, 2.0, 5.0, 5.0, 2.0):
            Counter.factor = value
            assert values(compiled(model, ones(2))) == [value + 1.0] * 2
    finally:
        Counter.factor = before


def test_changed_global_is_seen() -> None:
    compiled = dg.function(lambda x: x * SCALE, strict=True)
    for value in (2.0, 2.0, 4.0, 4.0, 8.0):
        globals()["SCALE"] = value
        assert values(compiled(ones(1))) == [value]
    globals()["SCALE"] = 2.0


def test_changed_closure_is_seen() -> None:
    scale = 1.0

    @dg.function(strict=True)
    def f(x: dg.Tensor) -> dg.Tensor:
        return x * scale

    for value in (1.0, 1.0, 3.0, 3.0, 1.0):
        scale = value
        assert values(f(ones(1))) == [value]
    assert f.n_traces == 2


def test_changed_list_is_seen() -> None:
    parts = [ones(2), ones(2)]
    f = dg.function(lambda: sum(parts[1:], parts[0]), strict=True)
    assert values(f()) == [2.0, 2.0]
    assert values(f()) == [2.0, 2.0]
    parts.append(ones(2) * 5)
    assert values(f()) == [7.0, 7.0]
    parts[0] = ones(2) * 10
    assert values(f()) == [16.0, 16.0]
    del parts[1:]
    assert values(f()) == [10.0, 10.0]


def test_changed_function_is_seen() -> None:
    def helper(x: dg.Tensor) -> dg.Tensor:
        return x + 1.0

    f = dg.function(lambda x: helper(x), strict=True)
    assert values(f(ones(1))) == [2.0]
    assert values(f(ones(1))) == [2.0]

    def helper(x: dg.Tensor) -> dg.Tensor:  # noqa: F811
        return x - 1.0

    assert values(f(ones(1))) == [0.0]


def test_deep_state() -> None:
    box = Box([Box({"a": (Box(2.0),)})])
    f = dg.function(lambda x: x * box.content[0].content["a"][0].content, strict=True)
    assert values(f(ones(1))) == [2.0]
    assert values(f(ones(1))) == [2.0]
    box.content[0].content["a"][0].content = 5.0
    assert values(f(ones(1))) == [5.0]
    box.content = [Box({"a": (Box(7.0),)})]
    assert values(f(ones(1))) == [7.0]


def test_requires_grad_is_part_of_the_state() -> None:
    w = ones(2).requires_grad_()

    @dg.function(strict=True)
    def f(x: dg.Tensor) -> Any:
        loss = (x * w).sum()
        if loss.requires_grad:
            loss.backward()
        return loss.detach()

    for _ in range(2):
        f(ones(2))
    assert values(w.grad) == [2.0, 2.0]
    w.requires_grad_(False)
    for _ in range(2):
        f(ones(2))
    assert values(w.grad) == [2.0, 2.0]


def test_methods_keep_to_their_instance() -> None:
    class Model:
        def __init__(self, scale: float) -> None:
            self.scale, self.weight = scale, ones(2) * scale

        @dg.function(strict=True)
        def forward(self, x: dg.Tensor) -> dg.Tensor:
            return x * self.weight + self.scale

    one, two = Model(1.0), Model(10.0)
    for _ in range(3):
        assert values(one.forward(ones(2))) == [2.0, 2.0]
        assert values(two.forward(ones(2))) == [20.0, 20.0]
    one.weight = ones(2) * 5
    assert values(one.forward(ones(2))) == [6.0, 6.0]


def test_nested_functions_and_compiled_inside_compiled() -> None:
    inner = dg.function(lambda x: x * 2.0)

    @dg.function(strict=True)
    def outer(x: dg.Tensor) -> dg.Tensor:
        def add(y: dg.Tensor) -> dg.Tensor:
            return y + x

        return add(inner(x)) + sum(inner(x) for _ in range(2))

    assert values(outer(ones(1))) == [7.0]
    assert values(outer(ones(1))) == [7.0]
    assert inner.n_traces == 0


# -- effects --------------------------------------------------------------------------------------


class Cell(nn.Module):
    """A recurrent cell that keeps its state."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(3, 3)
        self.h = dg.zeros(2, 3)
        self.steps = dg.zeros((), dtype=dg.int64)

    def forward(self, x: dg.Tensor) -> dg.Tensor:
        self.h = dg.tanh(self.mix(x) + self.h)
        self.steps.add_(1)
        return self.h * 1.0


def test_rebound_and_updated_state() -> None:
    results = []
    for compiled in (False, True):
        dg.seed(3)
        cell = Cell()
        with dg.no_grad():
            step = dg.function(lambda x: cell(x), strict=True) if compiled else cell  # noqa: B023
            out = [step(ones(2, 3) * k) for k in range(5)]
        results.append((out, cell.h, cell.steps))
        if compiled:
            assert step.n_traces == 1
    for one, two in zip(*map(tensors_in, results), strict=True):
        same_bits(two, one)
    assert results[1][2].item() == 5


def test_updates_of_arguments_are_seen_outside() -> None:
    @dg.function(strict=True)
    def f(x: dg.Tensor, y: dg.Tensor) -> dg.Tensor:
        old = x * 1.0
        x.add_(y)
        y.copy_(old)
        return x * y

    for _ in range(3):
        x, y = dg.tensor([1.0, 2.0]), dg.tensor([10.0, 20.0])
        version = x.version
        product = f(x, y)
        assert (values(x), values(y)) == ([11.0, 22.0], [1.0, 2.0])
        assert values(product) == [11.0, 44.0]
        assert x.version > version


def test_swap_by_updates() -> None:
    @dg.function(strict=True)
    def swap(x: dg.Tensor, y: dg.Tensor) -> None:
        old = x.clone()
        x.copy_(y)
        y.copy_(old)

    x, y = dg.arange(5000, dtype=dg.float32), dg.zeros(5000)
    for k in range(4):
        swap(x, y)
        assert values((x if k % 2 else y).sum()) == 5000 * 4999 / 2


def test_shifted_update_reads_before_it_writes() -> None:
    def f(x: dg.Tensor) -> None:
        x.copy_(x.transpose(0, 1) * 2.0)

    start = np.arange(3600, dtype=np.float32).reshape(60, 60)
    eager, static = dg.tensor(start), dg.tensor(start)
    compiled = dg.function(f, strict=True)
    for _ in range(3):
        f(eager)
        compiled(static)
        same_bits(static, eager)


def test_same_tensor_twice_as_argument() -> None:
    def f(x: dg.Tensor, y: dg.Tensor) -> dg.Tensor:
        x.add_(1.0)
        return x * y

    compiled = dg.function(f)
    for different in (True, False, True, False):
        results = []
        for function in (f, compiled):
            x = ones(3)
            y = ones(3) * 2 if different else x
            results += [(function(x, y), x, y)]
        for one, two in zip(*results, strict=True):
            same_bits(two, one)


def test_overlapping_arguments() -> None:
    def f(x: dg.Tensor, y: dg.Tensor) -> dg.Tensor:
        x.add_(1.0)
        return x + y

    compiled = dg.function(f)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EagerFallback)
        for shared in (False, True, False, True):
            results = []
            for function in (f, compiled):
                memory = np.arange(8, dtype=np.float32)
                x = dg.from_numpy(memory[:6])
                y = dg.from_numpy(memory[2:] if shared else memory[2:].copy())
                results.append((function(x, y), dg.from_numpy(memory)))
            for one, two in zip(*results, strict=True):
                same_bits(two, one)


def test_python_effects_are_not_lost() -> None:
    seen: list[int] = []

    def f(x: dg.Tensor) -> dg.Tensor:
        seen.append(len(seen))
        return x * 2.0

    compiled = dg.function(f)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EagerFallback)
        for _ in range(4):
            assert values(compiled(ones(1))) == [2.0]
    assert seen == [0, 1, 2, 3]


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


# -- falling back ---------------------------------------------------------------------------------


CALLS: dict[str, Callable[[dg.Tensor], Any]] = {
    "print": lambda x: (print("value"), x * 2)[1],
    "time": lambda x: (x * 2, time.time())[0],
    "random": lambda x: (x * 2, random.random())[0],
    "numpy.random": lambda x: (x * 2, np.random.default_rng(0).random())[0],
    "item": lambda x: x * x.sum().item(),
    "bool": lambda x: x * 2 if x.sum() > 0 else x,
    "float": lambda x: x * float(x.max()),
    "tolist": lambda x: dg.tensor([v + 1.0 for v in x.tolist()]),
    "numpy": lambda x: dg.from_numpy(np.cumsum(x.numpy(), dtype=np.float32)),
    "array": lambda x: x * np.arange(3, dtype=np.float32),
    "iteration": lambda x: [float(v) for v in x.tolist()],
    "open": lambda x: (open(__file__).close(), x + 1)[1],
}


@pytest.mark.parametrize("f", CALLS.values(), ids=CALLS.keys())
def test_fallback_gives_the_eager_result_and_one_warning(f: Callable[..., Any]) -> None:
    compiled = dg.function(f)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        results = [compiled(dg.tensor([1.0, 2.0, 3.0])) for _ in range(3)]
        results.append(compiled(dg.tensor([-1.0, -2.0, -3.0])))
    notes = [w for w in caught if issubclass(w.category, EagerFallback)]
    assert len(notes) == 1
    assert "runs eagerly" in str(notes[0].message)
    assert "test_function.py" in str(notes[0].message)
    assert notes[0].filename.endswith("test_function.py")
    for got, start in zip(results, ([1.0, 2.0, 3.0],) * 3 + ([-1.0, -2.0, -3.0],), strict=True):
        want = f(dg.tensor(start))
        for a, b in zip(tensors_in(got), tensors_in(want), strict=True):
            same_bits(a, b)
        if not tensors_in(want):
            assert got == want
    assert compiled.eager_reason is not None
    assert "runs eagerly" in compiled.report()


@pytest.mark.parametrize("f", CALLS.values(), ids=CALLS.keys())
def test_strict_refuses_instead(f: Callable[..., Any]) -> None:
    with pytest.raises(TraceError) as caught:
        dg.function(f, strict=True)(dg.tensor([1.0, 2.0, 3.0]))
    assert "cannot be compiled" in str(caught.value)
    assert "test_function.py" in str(caught.value)


def test_printing_happens_at_each_call(capsys: pytest.CaptureFixture[str]) -> None:
    @dg.function
    def f(x: dg.Tensor) -> dg.Tensor:
        print("sum", x.sum().item())
        return x

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EagerFallback)
        for k in range(3):
            f(dg.full((2,), float(k)))
    assert capsys.readouterr().out.split("\n") == ["sum 0.0", "sum 2.0", "sum 4.0", ""]


def test_no_state_is_left_changed_by_a_trace_that_fails() -> None:
    total, w = dg.zeros(2), ones(2).requires_grad_()
    log: list[float] = []

    def f(x: dg.Tensor) -> dg.Tensor:
        total.add_(x)
        (w * x).sum().backward()
        log.append(total.sum().item())
        return total * 1.0

    compiled = dg.function(f)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EagerFallback)
        for k in range(1, 4):
            assert values(compiled(ones(2))) == [k, k]
            assert values(w.grad) == [k, k]
    assert log == [2.0, 4.0, 6.0]
    assert total.version == 3


# -- exceptions -----------------------------------------------------------------------------------


def test_exceptions_of_the_user() -> None:
    state = dg.zeros(2)

    @dg.function(strict=True)
    def f(x: dg.Tensor, fail: bool) -> dg.Tensor:
        state.add_(x)
        if fail:
            raise KeyError("mine")
        return state * 2.0

    for k in range(1, 4):
        f(ones(2), False)
        assert values(state) == [2.0 * k - 1] * 2
        with pytest.raises(KeyError, match="mine"):
            f(ones(2), True)
        assert values(state) == [2.0 * k] * 2


def test_shape_errors_have_the_same_text() -> None:
    def f(x: dg.Tensor, y: dg.Tensor) -> dg.Tensor:
        return (x * 2) @ y

    texts = []
    for function in (f, dg.function(f)):
        with pytest.raises(ValueError, match="inner dimensions differ") as caught:
            function(ones(2, 3), ones(4, 2))
        texts.append(str(caught.value))
    assert texts[0] == texts[1]
    assert "return (x * 2) @ y" in texts[0]


def test_gradient_errors_have_the_same_text() -> None:
    def f(x: dg.Tensor) -> None:
        y = (x * x).sum()
        y.backward()
        y.backward()

    texts = []
    for function in (f, dg.function(f)):
        with pytest.raises(GradientError) as caught:
            function(ones(2).requires_grad_())
        texts.append(str(caught.value))
    assert texts[0] == texts[1]


def test_index_error_leaves_the_state_intact() -> None:
    results = []
    for compiled in (False, True):
        count, labels = dg.zeros((), dtype=dg.int64), dg.zeros(3)

        def f(target: dg.Tensor) -> dg.Tensor:
            hot = dg.one_hot(target, 3).to(dg.float32)
            labels.add_(hot.sum(axis=0))  # noqa: B023
            count.add_(1)  # noqa: B023
            return hot

        function = dg.function(f, strict=True) if compiled else f
        function(dg.tensor([0, 1, 1]))
        with pytest.raises(IndexError, match=r"\[one_hot\] class out of range") as caught:
            function(dg.tensor([0, 7, 1]))
        assert "actual: 7" in str(caught.value)
        assert "hot = dg.one_hot(target, 3)" in str(caught.value)
        with pytest.raises(IndexError, match="actual: -1"):
            function(dg.tensor([0, 2, -1]))
        assert (values(count), values(labels)) == (1, [1.0, 2.0, 0.0])
        results.append((function(dg.tensor([2, 2, 2])), count, labels))
    for one, two in zip(*results, strict=True):
        same_bits(two, one)
    assert values(results[1][2]) == [1.0, 2.0, 3.0]


def test_index_error_on_the_first_call() -> None:
    @dg.function
    def f(x: dg.Tensor, target: dg.Tensor) -> dg.Tensor:
        x.add_(1.0)
        return cross_entropy(x, target)

    x = dg.zeros(2, 3)
    with pytest.raises(IndexError, match="class out of range"):
        f(x, dg.tensor([0, 3]))
    assert f(x, dg.tensor([0, 2])).item() > 1.0


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


# -- explaining -----------------------------------------------------------------------------------


def test_explanations() -> None:
    @dg.function(strict=True)
    def explained(x: dg.Tensor, y: dg.Tensor) -> dg.Tensor:
        z = dg.tanh(x @ y)
        return z.sum(axis=0)

    with pytest.raises(ArgumentError, match="has not been compiled"):
        explained.ir()
    explained(ones(20, 30), ones(30, 40))
    line = explained.__wrapped_function__.__code__.co_firstlineno + 2
    report = explained.report()
    assert "@function explained: 1 trace(s)" in report
    assert "contract" in report
    assert f"test_function.py:{line}" in report
    assert "kernel explained_0" in explained.ir()
    assert "tanh" in explained.graph()
    assert "define" in explained.llvm()
    assert "explained_0" in explained.llvm()
    assert "explained" in explained.asm()
    assert explained.__name__ == "explained"


def test_reports_name_the_lines_of_their_own_function() -> None:
    first = dg.function(lambda x: x * 3.25, strict=True)
    second = dg.function(lambda x: x * 3.25, strict=True)
    for f in (first, second):
        f(ones(3))
        assert f"test_function.py:{f.__wrapped_function__.__code__.co_firstlineno}" in f.report()


def test_eager_setting() -> None:
    f = dg.function(lambda x: x * 2)
    with config.scope(eager=True):
        assert values(f(ones(1))) == [2.0]
    assert f.n_traces == 0
    f(ones(1))
    assert f.n_traces == 1


def test_what_cannot_be_decorated() -> None:
    def steps(x: dg.Tensor) -> Any:
        yield x

    with pytest.raises(ArgumentError, match="generator"):
        dg.function(steps)
    with pytest.raises(ArgumentError, match="only functions"):
        dg.function(3)  # type: ignore[call-overload]
    with pytest.raises(ArgumentError, match="only functions"):
        dg.function(Counter)


def test_names_of_functions_are_any_identifiers() -> None:
    def größe(x: dg.Tensor) -> dg.Tensor:
        return x * 2.0

    assert values(dg.function(größe, strict=True)(ones(2))) == [2.0, 2.0]
    assert values(dg.function(lambda x: x + 1.0, strict=True)(ones(2))) == [2.0, 2.0]
