"""The ledger: every known difference between a decorated function and the plain one.

Each test shows one difference and states its reason; it fails when the difference is gone.
`seen(f, ...)` gives what the plain and the decorated function answer to the same calls.
"""

from __future__ import annotations

import collections
import gc
import inspect
import sys
import types
from collections.abc import Callable
from typing import Any

import dualgrad as dg

X = dg.ones(2)


def seen(f: Callable[..., Any], *calls: tuple[Any, ...]) -> tuple[list[Any], list[Any]]:
    compiled = dg.function(f)
    plain = [f(*c) for c in calls]
    out = [compiled(*c) for c in calls]
    assert compiled.eager_reason is None
    return plain, out


# -- numbers that are inputs of the program are objects of another class while it is traced -------


def test_ledger_the_exact_type_of_a_number() -> None:
    """`type(k) is float` is False where k stands for the number of any call; `isinstance` and
    `k.__class__` answer as for a float."""
    plain, compiled = seen(
        lambda x, k: (type(k) is float, isinstance(k, float)), (X, 1.5), (X, 2.5)
    )
    assert plain == [(True, True)] * 2
    assert compiled == [(False, True)] * 2


def test_ledger_tables_by_exact_type() -> None:
    """The same difference, by way of a table of types."""
    plain, compiled = seen(lambda x, k: {float: "found"}.get(type(k)), (X, 1.5))
    assert plain == ["found"]
    assert compiled == [None]


def test_ledger_the_identity_of_a_number() -> None:
    """Whether two numbers are one object is no part of their value."""
    number = 1234.5
    plain, compiled = seen(lambda x, k: k is number, (X, number))
    assert plain == [True]
    assert compiled == [False]


# -- the function's Python code runs while it is traced, later calls run a program ----------------


def test_ledger_debuggers_and_coverage_see_the_first_call() -> None:
    """A trace function is called for Python code that runs.  `dg.disable()` shows every call."""
    events: collections.Counter[str] = collections.Counter()

    def f(x: Any) -> Any:
        return x * 2

    compiled = dg.function(f)

    def trace(frame: types.FrameType, event: str, arg: Any) -> None:
        events[frame.f_code.co_name] += frame.f_code is f.__code__

    def count(g: Callable[..., Any]) -> int:
        events.clear()
        before = sys.gettrace()
        sys.settrace(trace)
        try:
            for _ in range(3):
                g(X)
        finally:
            sys.settrace(before)
        return events["f"]

    assert count(f) == 3
    assert count(compiled) == 1
    with dg.disable():
        assert count(compiled) == 3


def test_ledger_frames_above_the_function() -> None:
    """Between the caller and the function stand frames of the tracer."""

    def caller(g: Callable[..., Any]) -> Any:
        return g(X)

    def f(x: Any) -> Any:
        return sys._getframe(1).f_code.co_name

    assert caller(f) == "caller"
    assert caller(dg.function(f)) != "caller"


def test_ledger_the_profile_hook() -> None:
    """The tracer uses the profile hook of its thread to see which code runs; a profiler that is
    active does not see the traced call."""
    plain, compiled = seen(lambda x: sys.getprofile() is None, (X,))
    assert plain == [True]
    assert compiled == [False]


def test_ledger_the_garbage_collector_rests_during_a_trace() -> None:
    """It could call anything at any time, and new objects are told from old ones by their age."""
    plain, compiled = seen(lambda x: gc.isenabled(), (X,))
    assert plain == [True]
    assert compiled == [False]


def test_ledger_reference_counts() -> None:
    """The tracer holds what the function can reach."""
    x = dg.ones(2)
    plain, compiled = seen(lambda x: sys.getrefcount(x), (x,))
    assert plain < compiled


def test_ledger_tensors_have_no_memory_while_traced() -> None:
    """`array` is no public attribute: it is None where values do not exist yet."""
    plain, compiled = seen(lambda x: (x + 1).array is None, (X,))
    assert plain == [False]
    assert compiled == [True]


# -- objects that are something else ---------------------------------------------------------------


def test_ledger_a_decorated_function_is_no_python_function() -> None:
    """It is an object with a program; `f.eager` is the Python function."""
    f = dg.function(lambda x: x)
    assert not isinstance(f, types.FunctionType)
    assert not inspect.isfunction(f)
    assert inspect.isfunction(f.eager)


def test_ledger_the_name_of_a_results_history() -> None:
    """Gradients of a compiled function's results flow through one node, named after it."""

    def loss(w: Any) -> Any:
        return (w * w).sum()

    w = dg.ones(2).requires_grad_()
    plain, compiled = loss(w).grad_fn, dg.function(loss)(w).grad_fn
    assert plain is not None
    assert compiled is not None
    assert (plain.name, compiled.name) == ("sum", "loss")
