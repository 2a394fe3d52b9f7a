"""`dg.checkpoint`: the bits of a plain call, less memory, in both modes."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import as_array, peak

import dualgrad as dg
from dualgrad.runtime import memory
from dualgrad.runtime.errors import GradientError

Plain = Callable[..., Any]


def plainly(f: Plain, *args: Any, **kwargs: Any) -> Any:
    return f(*args, **kwargs)


def block(x: dg.Tensor, w: dg.Tensor, b: dg.Tensor | None = None, scale: float = 1.5) -> Any:
    for _ in range(3):
        x = (x @ w).tanh() * scale
        if b is not None:
            x = x + b
    return x * (dg.rand_like(x) > 0.3)


def chain(call: Plain, x: Any, ws: list[Any], b: Any) -> Any:
    for w in ws:
        x = call(block, x, w, b=b, scale=1.25)
    return x.sum()


def nested(call: Plain, x: Any, ws: list[Any], b: Any) -> Any:
    def inner(x: dg.Tensor) -> dg.Tensor:
        return call(block, x, ws[1], b) * call(block, x, ws[2])

    return call(lambda y: inner(call(block, y, ws[0])).sum(), x)


def closed_over(call: Plain, x: Any, ws: list[Any], b: Any) -> Any:
    h = x @ ws[0]
    y = call(lambda: (h @ ws[1]).exp().sin() * h + b)
    return call(lambda: {"out": [y.cos().sum(), (y * h).mean()]})["out"][0] + h.sum()


def with_views(call: Plain, x: Any, ws: list[Any], b: Any) -> Any:
    def f(x: dg.Tensor) -> dg.Tensor:
        y = x.T.exp() * 2
        y[0] = y[1] * 3
        y += x.T
        return y.reshape(-1)[::2].softmax(0) * y.max()

    return call(f, x * ws[0].sum()).square().sum()


def in_compiled(call: Plain, x: Any, ws: list[Any], b: Any) -> Any:
    f = dg.function(lambda x, w: (x @ w).exp().sin())
    return call(lambda x: f(x, ws[0]) * f(x.tanh(), ws[1]), x).sum()


PROGRAMS = [chain, nested, closed_over, with_views, in_compiled]


def tensors() -> tuple[Any, list[Any], Any]:
    dg.manual_seed(3)
    x = dg.randn(5, 4, dtype=dg.float64, requires_grad=True)
    ws = [dg.randn(4, 4, dtype=dg.float64, requires_grad=True) for _ in range(3)]
    return x, ws, dg.randn(4, dtype=dg.float64, requires_grad=True)


def bits(loss: Any, x: Any, ws: list[Any], b: Any) -> list[bytes]:
    found = [loss, dg.rand(2), x.grad, b.grad, *[w.grad for w in ws]]
    return [b"" if t is None else as_array(t).tobytes() for t in found]


def eager(program: Plain, call: Plain) -> list[bytes]:
    x, ws, b = tensors()
    loss = program(call, x, ws, b)
    loss.backward()
    return bits(loss, x, ws, b)


def inside(program: Plain, call: Plain) -> list[bytes]:
    x, ws, b = tensors()

    @dg.function(strict=True)
    def step(x: dg.Tensor, ws: list[dg.Tensor], b: dg.Tensor) -> dg.Tensor:
        loss = program(call, x, ws, b)
        loss.backward()
        return loss.detach()

    return bits(step(x, ws, b), x, ws, b)


def outside(program: Plain, call: Plain) -> list[bytes]:
    x, ws, b = tensors()

    @dg.function(strict=True)
    def forward(x: dg.Tensor, ws: list[dg.Tensor], b: dg.Tensor) -> dg.Tensor:
        return program(call, x, ws, b)

    loss = forward(x, ws, b)
    dg.rand(3)
    loss.backward()
    dg.manual_seed(3)
    dg.randn(5 * 4 + 3 * 16 + 4, dtype=dg.float64)
    return bits(loss, x, ws, b)[:1] + bits(loss, x, ws, b)[2:]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("run", [eager, inside, outside], ids=lambda f: f.__name__)
def test_bits_of_a_plain_call(run: Plain, program: Plain) -> None:
    assert run(program, dg.checkpoint) == run(program, plainly)


@pytest.mark.parametrize("program", [chain, closed_over, nested], ids=lambda f: f.__name__)
@pytest.mark.parametrize("compiled", [False, True])
def test_derivatives_of_gradients(program: Plain, compiled: bool) -> None:
    def penalty(call: Plain, x: Any, ws: list[Any], b: Any) -> Any:
        loss = program(call, x, ws, b)
        (g,) = dg.autograd.grad(loss, x, create_graph=True)
        (h,) = dg.autograd.grad((g * g).sum() + loss, ws[0])
        return g.detach(), h

    results = []
    for call in (plainly, dg.checkpoint):
        x, ws, b = tensors()
        f = dg.function(penalty, strict=True) if compiled else penalty
        results.append([as_array(t) for t in f(call, x, ws, b)])
    for got, want in zip(results[1], results[0], strict=True):
        np.testing.assert_array_equal(got, want)


def wide(call: Plain, x: Any, ws: list[Any]) -> Any:
    for w in ws:
        x = call(lambda x, w: ((x @ w).tanh() @ w).tanh().exp().sin() @ w, x, w)
    return x.sum()


def test_less_memory_in_eager_mode() -> None:
    ws = [dg.randn(32, 32, requires_grad=True) for _ in range(8)]
    x = dg.randn(1000, 32)
    used = [peak(lambda c=c: wide(c, x, ws).backward()) for c in (plainly, dg.checkpoint)]
    assert used[1] < 0.5 * used[0]


def test_less_memory_in_compiled_functions() -> None:
    ws = [dg.randn(32, 32, requires_grad=True) for _ in range(8)]
    x = dg.randn(1000, 32)
    arenas, kept = [], []
    for call in (plainly, dg.checkpoint):
        step = dg.function(lambda x, ws, call=call: wide(call, x, ws).backward(), strict=True)
        step(x, ws)
        arenas.append(step.paths[0].sizes.bound.arena)
        forward = dg.function(lambda x, ws, call=call: wide(call, x, ws), strict=True)
        before = memory.stats().live_bytes
        loss = forward(x, ws)
        kept.append(memory.stats().live_bytes - before)
        del loss
    assert arenas[1] < 0.7 * arenas[0]
    assert kept[1] < 0.5 * kept[0]


def test_what_is_computed_inside_is_not_kept() -> None:
    seen: list[Any] = []

    def f(x: dg.Tensor) -> dg.Tensor:
        y = x.exp()
        seen.append(weakref.ref(y))
        return y.sin()

    x = dg.ones(3, requires_grad=True)
    out = dg.checkpoint(f, x)
    assert seen[0]() is None
    out.sum().backward(retain_graph=True)
    assert len(seen) == 2
    assert seen[1]() is None
    out.sum().backward()
    assert len(seen) == 3
    with pytest.raises(GradientError, match="freed"):
        out.sum().backward()
    gone = weakref.ref(out)
    del out
    assert gone() is None


def test_without_gradients_it_is_a_call() -> None:
    x = dg.ones(3, requires_grad=True)
    with dg.no_grad():
        assert not dg.checkpoint(dg.exp, x).requires_grad
    assert dg.checkpoint(lambda: 3) == 3


def test_second_run_that_differs_is_an_error() -> None:
    flags = iter([True, False])

    def f(x: dg.Tensor) -> dg.Tensor:
        return x.exp().sin() if next(flags) else x.exp().cos()

    y = dg.checkpoint(f, dg.ones(3, requires_grad=True))
    with pytest.raises(GradientError, match="something else when it ran again"):
        y.sum().backward()


@pytest.mark.parametrize("which", ["x", "b"])
def test_changes_in_between_are_an_error(which: str) -> None:
    x, b = dg.ones(3, requires_grad=True), dg.ones(3, requires_grad=True)
    y = dg.checkpoint(lambda x: (x + b).exp().sin(), x)
    with dg.no_grad():
        {"x": x, "b": b}[which].mul_(2.0)
    with pytest.raises(GradientError, match="changed in place"):
        y.sum().backward()


@pytest.mark.parametrize("call", [plainly, dg.checkpoint])
def test_changes_inside_are_an_error_as_in_a_plain_call(call: Plain) -> None:
    def f(x: dg.Tensor) -> dg.Tensor:
        y = x.exp()
        y *= 2
        return y

    with pytest.raises(GradientError, match="changed in place"):
        call(f, dg.ones(3, requires_grad=True)).sum().backward()


def test_only_one_of_several_gradients() -> None:
    x, ws, b = tensors()
    want = dg.autograd.grad(chain(plainly, x, ws, b), ws[1])
    x, ws, b = tensors()
    got = dg.autograd.grad(chain(dg.checkpoint, x, ws, b), ws[1])
    np.testing.assert_array_equal(as_array(got[0]), as_array(want[0]))
