"""Statistics of memory, and what a limit does to eager ops, gradients and compiled functions."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import dualgrad as dg
from dualgrad.errors import ArgumentError, OutOfMemory

MiB = 1 << 20


@pytest.fixture(autouse=True)
def no_limit() -> Iterator[None]:
    dg.ones(2) + 1  # native code is there from the first op on
    gc.collect()
    yield
    dg.set_memory_limit(None)


def test_statistics_follow_tensors() -> None:
    dg.reset_peak_memory_stats()
    before = dg.memory_stats()
    assert before.peak_bytes == before.live_bytes
    x = dg.zeros(MiB)  # of float32
    y = x + x
    held = dg.memory_stats()
    assert held.live_bytes - before.live_bytes == 8 * MiB
    assert held.allocations - before.allocations >= 2
    del x, y
    after = dg.memory_stats()
    assert after.live_bytes == before.live_bytes
    assert after.peak_bytes >= before.live_bytes + 8 * MiB
    assert after.pooled_bytes >= 8 * MiB
    dg.release_memory()
    assert dg.memory_stats().pooled_bytes <= after.pooled_bytes - 8 * MiB
    assert after.limit_bytes is None


def limit_to(nbytes: int) -> int:
    """Let so many bytes more be used than now."""
    limit = dg.memory_stats().live_bytes + nbytes
    dg.set_memory_limit(limit)
    assert dg.memory_stats().limit_bytes == limit
    return limit


def test_a_limit_holds_for_eager_ops() -> None:
    x = dg.ones(MiB)
    limit = limit_to(6 * MiB)
    y = x + x
    with pytest.raises(OutOfMemory, match="no more memory") as caught:
        x * y
    assert f"limit of {limit} bytes" in str(caught.value)
    assert f"{4 * MiB} bytes requested" in str(caught.value)
    with pytest.raises(OutOfMemory):
        dg.empty(2 * MiB)
    assert y.sum().item() == 2 * MiB
    del y, caught  # whose frames have y
    assert (x * 3).sum().item() == 3 * MiB


def test_memory_kept_for_reuse_makes_room() -> None:
    dg.release_memory()
    start = dg.memory_stats()
    kept = [dg.empty(n * MiB) for n in (1, 2, 3)]
    del kept
    assert dg.memory_stats().pooled_bytes >= start.pooled_bytes + 24 * MiB
    limit_to(20 * MiB)
    x = dg.empty(4 * MiB)
    now = dg.memory_stats()
    assert now.live_bytes == start.live_bytes + 16 * MiB
    assert now.pooled_bytes <= start.pooled_bytes + 4 * MiB
    del x


def test_cycles_make_room() -> None:
    class Holder:
        def __init__(self) -> None:
            self.x, self.itself = dg.ones(MiB), self

    thresholds = gc.get_threshold()
    gc.set_threshold(0)  # the collector runs when it is asked for alone
    try:
        limit_to(6 * MiB)
        Holder()
        assert dg.ones(MiB).sum().item() == MiB
    finally:
        gc.set_threshold(*thresholds)


def test_values_are_as_before_when_memory_is_out() -> None:
    x = dg.ones(MiB, requires_grad=True)
    y = (x * x).exp()
    limit_to(MiB)
    with pytest.raises(OutOfMemory):
        y.sum().backward()
    assert x.grad is None
    with pytest.raises(OutOfMemory), dg.no_grad():
        x += x.exp()
    with dg.no_grad():
        x *= 3  # needs no memory
    dg.set_memory_limit(None)
    np.testing.assert_array_equal(x.detach().numpy(), np.full(MiB, 3, np.float32))


def trainer() -> tuple[Any, Any]:
    """A compiled training step, and what it changes."""
    dg.seed(0)
    net = dg.nn.Linear(512, 512)
    opt = dg.optim.Adam(net.parameters())
    x = dg.randn(1024, 512)

    @dg.function
    def step() -> Any:
        opt.zero_grad()
        loss = (net(x).tanh() ** 2).mean()
        loss.backward()
        opt.step()
        return loss, net(x)

    return step, net


@pytest.mark.parametrize("warm", [0, 3])
def test_a_compiled_step_changes_nothing_when_memory_is_out(warm: int) -> None:
    undisturbed, twin = trainer()
    for _ in range(warm + 2):
        undisturbed()
    step, net = trainer()
    for _ in range(warm):
        step()
    limit_to(64 << 10)
    for _ in range(2):
        with pytest.raises(OutOfMemory):
            step()
    dg.set_memory_limit(None)
    for _ in range(2):
        step()
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        np.testing.assert_array_equal(p.detach().numpy(), q.detach().numpy())


def test_a_limit_holds_for_all_threads() -> None:
    limit = limit_to(8 * MiB)
    failures, most = [], []

    def work() -> None:
        for _ in range(50):
            try:
                x = dg.empty(MiB)
                most.append(dg.memory_stats().live_bytes)
                del x
            except OutOfMemory as error:
                failures.append(error)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert most
    assert max(most) <= limit


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "1 GB", True, np.int64(3)])
def test_limits_are_numbers_of_bytes(wrong: Any) -> None:
    with pytest.raises(ArgumentError, match="not a limit of memory"):
        dg.set_memory_limit(wrong)
    assert dg.memory_stats().limit_bytes is None


def test_a_limit_below_what_is_live_lets_it_live() -> None:
    x = dg.ones(MiB)
    dg.set_memory_limit(1)
    with pytest.raises(OutOfMemory):
        dg.ones(1)
    dg.set_memory_limit(None)
    assert (x + 1).sum().item() == 2 * MiB


def test_compiled_functions_that_ask_run_eagerly() -> None:
    @dg.function
    def f(x: Any) -> Any:
        return x + dg.memory_stats().allocations

    with pytest.warns(dg.EagerFallback, match="memory_stats"):
        first = f(dg.zeros(1)).item()
    assert f(dg.zeros(1)).item() > first
