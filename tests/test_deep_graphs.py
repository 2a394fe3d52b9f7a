"""Deep and wide graphs: no recursion, nothing that grows faster than the graph, no leaks."""

from __future__ import annotations

import gc
import sys
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import peak

import dualgrad as dg
from dualgrad.runtime import memory

DEEP = 100_000


@pytest.fixture(autouse=True)
def _shallow_stack() -> Iterator[None]:
    """Far fewer frames than there are ops."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    yield
    sys.setrecursionlimit(before)


def chain(x: dg.Tensor, n: int) -> dg.Tensor:
    for _ in range(n):
        x = x + 1.0
    return x


def calls_in(run: Callable[[], Any]) -> int:
    """How many Python and C functions are called: work that no other process disturbs."""
    count = 0

    def note(frame: Any, event: str, arg: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count


def test_chain_of_100000_ops() -> None:
    x = dg.ones(2, requires_grad=True)
    y = chain(x, DEEP)
    y.sum().backward()
    assert x.grad.tolist() == [1.0, 1.0]


def test_chain_is_freed_without_backward() -> None:
    x = dg.ones(2, requires_grad=True)
    y = chain(x, DEEP)
    first = weakref.ref(y.grad_fn.edges[0][0])
    gc.disable()
    try:
        del y
        assert first() is None
    finally:
        gc.enable()


def test_second_derivative_of_a_chain() -> None:
    x = dg.ones(2, dtype=dg.float64, requires_grad=True)
    y = x
    for _ in range(3000):
        y = y * 1.0001
    (g,) = dg.autograd.grad((y * y).sum(), x, create_graph=True)
    (h,) = dg.autograd.grad(g.sum(), x)
    assert h.tolist() == pytest.approx([2 * 1.0001**6000] * 2, rel=1e-9)


@pytest.mark.parametrize("kind", ["chain", "consumers of a leaf", "consumers of a result"])
def test_work_grows_as_the_graph(kind: str) -> None:
    def build(n: int) -> dg.Tensor:
        x = dg.ones(2, requires_grad=True)
        if kind == "chain":
            return chain(x, n).sum()
        x = x if kind == "consumers of a leaf" else x * 1.0
        parts = [x * 2.0 for _ in range(n)]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total.sum()

    build(50).backward()
    forward, back = [], []
    for n in (500, 2000):
        forward.append(calls_in(lambda n=n: build(n)))
        back.append(calls_in(build(n).backward))
    assert forward[1] < 4.2 * forward[0]
    assert back[1] < 4.2 * back[0]


def test_sums_of_contributions_are_not_kept() -> None:
    """Of 64 gradients that are added up, a few exist at a time."""
    x = dg.ones(1 << 16, requires_grad=True)
    y = x * 1.0
    total = (y * 2.0).sum()
    for _ in range(63):
        total = total + (y * 2.0).sum()
    assert peak(total.backward) < 8 * x.size * 4


def test_gradients_on_their_way_are_not_kept() -> None:
    x = dg.ones(1 << 16, requires_grad=True)
    y = x
    for _ in range(64):
        y = y * 2.0
    loss = y.sum()
    assert peak(loss.backward) < 8 * x.size * 4


class Twice(dg.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: dg.Tensor) -> dg.Tensor:
        ctx.save_for_backward(x)
        return x * 2

    @staticmethod
    def backward(ctx: Any, g: dg.Tensor) -> dg.Tensor:
        return g * 2 + ctx.saved_tensors[0] * 0


def plain_step(x: dg.Tensor) -> None:
    (x.exp() * x).sum().backward()


def higher(x: dg.Tensor) -> None:
    (g,) = dg.autograd.grad((x.exp() * x).sum(), x, create_graph=True)
    dg.autograd.grad((g * g).sum(), x)


def retained(x: dg.Tensor) -> None:
    loss = (x.exp() * x).sum()
    loss.backward(retain_graph=True)
    dg.autograd.grad(loss, x, retain_graph=True)


def hooked(x: dg.Tensor) -> None:
    y = x.exp()
    y.register_hook(lambda g: g * 2)
    with x.register_hook(lambda g: None), x.register_post_accumulate_grad_hook(lambda t: None):
        (y * x).sum().backward()


def own_function(x: dg.Tensor) -> None:
    Twice.apply(x.exp()).sum().backward()
    Twice.apply(x.exp())


def checkpointed(x: dg.Tensor) -> None:
    dg.checkpoint(lambda x: x.exp() * x, x).sum().backward()
    dg.checkpoint(lambda x: x.exp() * x, x)


def refused(x: dg.Tensor) -> None:
    loss = x.exp().sum()
    loss.backward()
    with pytest.raises(RuntimeError):
        loss.backward()


def looked_at(x: dg.Tensor) -> None:
    with dg.detect_nan(), pytest.raises(FloatingPointError):
        (x * 0).log().sum().backward(dg.tensor(float("inf")) * 0)


@pytest.mark.parametrize(
    "step",
    [plain_step, higher, retained, hooked, own_function, checkpointed, refused, looked_at],
    ids=lambda f: f.__name__,
)
def test_nothing_is_left_behind(step: Callable[[dg.Tensor], None]) -> None:
    x = dg.ones(1000, requires_grad=True)

    def run(n: int) -> tuple[int, int]:
        for _ in range(n):
            step(x)
            x.grad = None
        gc.collect()
        return memory.stats().live_bytes, tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        run(5)
        first = run(5)
        second = run(50)
    finally:
        tracemalloc.stop()
    assert second[0] <= first[0]
    assert second[1] - first[1] < 50 * 200  # bytes: less than a tensor per step


def test_graphs_need_no_collector() -> None:
    x = dg.ones(10, requires_grad=True)
    gc.disable()
    try:
        before = memory.stats().live_bytes
        for step in (plain_step, retained, own_function, checkpointed):
            step(x)
            x.grad = None
        assert memory.stats().live_bytes == before
    finally:
        gc.enable()
