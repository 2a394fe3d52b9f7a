"""Telling what native code does from what Python does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from dualgrad.entries import state
from dualgrad.runtime.profile import counters


@contextmanager
def in_python() -> Iterator[None]:
    """Ops are run by Python in this context."""
    state.watch(1)
    try:
        yield
    finally:
        state.watch(-1)


def ran_natively(run: Callable[[], Any]) -> bool:
    """Whether all programs of a call are run by native code, once Python has run them and native
    code has learnt the call."""
    for _ in range(3):
        run()
    before, native = counters.snapshot(), counters.native[0]
    run()
    return counters.since(before).launches == counters.native[0] - native > 0
