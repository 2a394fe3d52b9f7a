"""Functions called and compiled by many threads at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import dualgrad as dg
from dualgrad.jit.tracing import Tracing


def at_once(work: Callable[[int], None], count: int) -> None:
    """Run in threads that start together; raises what one of them raised."""
    barrier, errors = threading.Barrier(count), []

    def run(k: int) -> None:
        try:
            barrier.wait(60)
            work(k)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(k,)) for k in range(count)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(120)
    assert not any(t.is_alive() for t in threads)
    if errors:
        raise errors[0]


def test_row40_one_compile_per_signature() -> None:
    f = dg.function(lambda x, mode: (x * 3 + len(mode)).sum(0), static="x")
    modes = ("a", "bb", "ccc")

    def work(k: int) -> None:
        for n in range(60):
            shape = (2 + (k + n) % 2, 3)
            mode = modes[(k + n // 2) % 3]
            out = f(dg.ones(*shape), mode)
            assert out.tolist() == [shape[0] * (3.0 + len(mode))] * 3

    at_once(work, 16)
    assert f.n_traces == 6
    assert len(f.paths) == 6
    assert f.eager_reason is None


def test_row40_many_calls_of_known_signatures() -> None:
    f = dg.function(lambda x: x * 2 + 1)
    sizes = range(2, 10)
    for n in sizes:
        f(dg.ones(n))
    traces = f.n_traces

    def work(k: int) -> None:
        for n in range(625):
            size = 2 + (k + n) % 8
            assert f(dg.full((size,), float(k))).tolist() == [2.0 * k + 1] * size

    at_once(work, 16)
    assert f.n_traces == traces


def test_row40_known_signatures_run_while_another_compiles(monkeypatch: Any) -> None:
    """One thread is held inside of its trace until the others have made their calls."""
    entered, done = threading.Event(), threading.Event()

    compile_it = Tracing.finish
    f = dg.function(lambda x: x * 2)

    f(dg.ones(3))
    f(dg.ones(3))

    def held(*args: Any) -> Any:
        entered.set()
        assert done.wait(60)
        return compile_it(*args)

    monkeypatch.setattr(Tracing, "finish", held)

    def work(k: int) -> None:
        if k == 0:
            assert f(dg.ones(2, 2)).tolist() == [[2.0, 2.0]] * 2
            return
        assert entered.wait(60)
        try:
            assert f(dg.ones(3)).tolist() == [2.0] * 3
            y = dg.ones(2).requires_grad_()  # eager code is none of the trace's business
            (y * y).sum().backward()
            assert y.grad is not None
            assert y.grad.tolist() == [2.0, 2.0]
        finally:
            done.set()

    at_once(work, 2)


def test_row40_functions_of_their_own_in_each_thread() -> None:
    def work(k: int) -> None:
        f = dg.function(lambda x: x * k + k)
        for n in (2, 3, 4):
            assert f(dg.ones(n)).tolist() == [2.0 * k] * n

    at_once(work, 16)
