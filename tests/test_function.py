"""`@function`: arguments, results, what a function reads, and its effects."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
from support import as_array, same_bits, tensors_in, values

import dualgrad as dg
from dualgrad import nn
from dualgrad.jit.function import EagerFallback

SCALE = 2.0


def ones(*shape: int) -> dg.Tensor:
    return dg.ones(*shape)


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


def test_a_function_may_be_called_run() -> None:
    def run(x: Any) -> Any:
        return (x * 2).sum(0) + 1

    assert values(dg.function(run, strict=True)(dg.ones(2, 3))) == [5.0, 5.0, 5.0]


def test_reshape_to_computed_sizes_keeps_symbols() -> None:
    f = dg.function(lambda x: x.reshape(x.shape[0] * x.shape[1]) * 2.0, strict=True)
    for n in (3, 4, 5, 6):
        assert f(dg.ones(n, n + 1)).shape == (n * (n + 1),)
    assert f.n_traces == 2
