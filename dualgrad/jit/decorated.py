"""What `@function` does not take, and what to decorate instead."""

from __future__ import annotations

import inspect
from typing import Any

from dualgrad.runtime.errors import ArgumentError


def check_decorated(fn: Any) -> None:
    """Raise ArgumentError, with a hint, unless `fn` is a callable that returns its result."""
    if isinstance(fn, type):
        raise _refused("a class", f"the class {fn.__name__}", "decorate one of its methods")
    if isinstance(fn, staticmethod | classmethod | property):
        kind = type(fn).__name__
        raise _refused(f"a {kind}", f"a {kind}", f"write @{kind} above @function")
    if not callable(fn):
        raise _refused("a value", type(fn).__name__, "pass the function itself")
    name = getattr(fn, "__qualname__", type(fn).__name__)
    for code in (fn, type(fn).__call__):
        if inspect.isgeneratorfunction(code):
            hint = "decorate the function that makes one step, and yield its results"
            raise _refused("a generator", f"{name}, which yields", hint)
        if inspect.iscoroutinefunction(code) or inspect.isasyncgenfunction(code):
            hint = "decorate a plain function, and await what surrounds it"
            raise _refused("an async function", f"{name}, which is awaited", hint)


def _refused(what: str, actual: str, hint: str) -> ArgumentError:
    return ArgumentError(
        f"{what} cannot be compiled",
        op="function",
        expect="a function that returns its result",
        actual=actual,
        hint=hint,
    )
