"""Row 52: a function that is interrupted leaves everything as it was, and can be called again."""

from __future__ import annotations

import builtins
import contextlib
import gc
import logging
import signal
import sys
import time
from typing import Any

import pytest

import dualgrad as dg
from dualgrad.jit.tracing import Tracing
from dualgrad.state import state

X = dg.tensor([1.0, 2.0])


def intact() -> None:
    assert state.trace is None
    assert sys.getprofile() is None
    assert gc.isenabled()
    assert builtins.print.__module__ == "builtins"
    assert logging.Logger._log.__module__ == "logging"


def test_row52_interrupted_in_the_function() -> None:
    events = ["stop"]
    w = dg.tensor([1.0, 1.0])
    history = [1]

    def callee() -> None:
        if events:
            events.pop()
            raise KeyboardInterrupt

    @dg.function
    def f(x: Any) -> Any:
        print("never twice")
        history.append(2)
        w.add_(x)
        callee()
        return w * 2

    version = w.version
    with pytest.raises(KeyboardInterrupt):
        f(X)
    intact()
    assert w.version == version
    assert w.tolist() == [1.0, 1.0]
    assert history == [1]
    events.clear()
    assert f(X).tolist() == [4.0, 6.0]
    assert f(X).tolist() == [6.0, 10.0]
    assert history == [1, 2, 2]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers")
# Python itself loses an interrupt that comes while a weak reference is being cleared.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::dualgrad.EagerFallback")
@pytest.mark.parametrize("delay", [0.001, 0.004, 0.01, 0.03, 0.06])
def test_row52_interrupted_at_any_time(delay: float) -> None:
    w = dg.tensor([1.0, 1.0])
    seen: list[Any] = []

    def f(x: Any) -> Any:
        y = x
        for k in range(60):
            y = dg.tanh(y * 1.01 + k)
        w.add_(y)
        seen.append(y.sum())
        return y

    want = f(X).tolist()
    w.fill_(1.0)
    seen.clear()
    compiled = dg.function(f)
    inside = False

    def stop(*_: object) -> None:
        if inside:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, delay)
    try:
        for _ in range(3):
            with contextlib.suppress(KeyboardInterrupt):
                inside = True
                compiled(X)
                inside = False
            inside = False
            intact()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    calls = len(seen)
    w.fill_(1.0)
    assert compiled(X).tolist() == want
    assert len(seen) == calls + 1
    assert w.tolist() == [1 + v for v in want]


def test_row52_interrupted_before_it_is_traced(monkeypatch: pytest.MonkeyPatch) -> None:
    f = dg.function(lambda x: x * 2.0)

    def stop(generation: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(gc, "collect", stop)
        with pytest.raises(KeyboardInterrupt):
            f(X)
    intact()
    assert f(X).tolist() == [2.0 * v for v in X.tolist()]


@pytest.mark.parametrize("action", ["undo", "_leave"])
def test_row52_interrupted_as_state_is_put_back(
    monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    w = dg.tensor([1.0, 1.0])
    once = [KeyboardInterrupt]
    timed = [True]

    @dg.function
    def f(x: Any) -> Any:
        w.mul_(2.0)
        if timed:
            time.time()  # stops the trace
        return (x * w).sum()

    act = getattr(Tracing, action)

    def stop(self: Tracing) -> None:
        if once:
            raise once.pop()
        act(self)

    with monkeypatch.context() as patch:
        patch.setattr(Tracing, action, stop)
        with pytest.raises(KeyboardInterrupt):
            f(X)
    intact()
    assert w.tolist() == [1.0, 1.0]
    timed.clear()
    assert f(X).item() == 2.0 * sum(X.tolist())


def test_row52_interrupted_while_it_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    w = dg.tensor([1.0, 1.0])

    @dg.function
    def f(x: Any) -> Any:
        w.mul_(2.0)
        return (x * w).sum()

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("dualgrad.jit.finish.compile_traced", stop)
        with pytest.raises(KeyboardInterrupt):
            f(X)
    intact()
    assert w.tolist() == [1.0, 1.0]
    assert f(X).item() == 6.0
    assert f(X).item() == 12.0


def test_row52_exits_pass_through() -> None:
    @dg.function
    def f(x: Any) -> Any:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        f(X)
    intact()
