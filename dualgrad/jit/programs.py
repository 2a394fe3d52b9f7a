"""The programs of one piece of code, shared by all functions that are made of it.

A lambda that is decorated anew in each round of a loop is another function each time, of one code
object.  What it holds in its closure is part of what a call depends on, so its programs serve the
next one as well.  They live as long as one of the functions does.
"""

from __future__ import annotations

import threading
import types
from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

from dualgrad.jit.entry import Entry
from dualgrad.jit.explain import History
from dualgrad.jit.scope import Scope

MAX_AROUND = 16  # functions around others that are looked into, with their globals
Entries = dict[tuple[Any, ...], Entry]  # by structure and grad mode


class Programs:
    """What is known about calls of one piece of code."""

    __slots__ = ("__weakref__", "attempts", "history", "lock", "n_traces", "owner", "scopes")

    def __init__(self, owner: object) -> None:
        self.owner = owner  # by whose identity these are known
        self.scopes: list[tuple[Scope, Entries]] = []  # newest first
        self.n_traces = 0
        self.attempts = 0  # to trace; tells whether another thread has made one meanwhile
        self.lock = threading.RLock()
        self.history = History()


_known: WeakValueDictionary[tuple[Any, ...], Programs] = WeakValueDictionary()


def programs_of(fn: Callable[..., Any], options: tuple[Any, ...]) -> Programs:
    """The programs of this function's code in its module, decorated with these options.

    A function around another (`functools.wraps`) goes by the code of both.
    """
    if not isinstance(fn, types.FunctionType):
        return Programs(fn)
    owner: tuple[Any, ...] = ()
    inner: Any = fn
    while isinstance(inner, types.FunctionType) and len(owner) < MAX_AROUND:
        owner += (inner.__code__, inner.__globals__)
        inner = inner.__dict__.get("__wrapped__")
    owner += (inner,)  # None, or a callable of another kind
    key = (*map(id, owner), repr(options))
    found = _known.get(key)
    return found if found is not None else _known.setdefault(key, Programs(owner))


def forget() -> None:
    """Let functions that are decorated from now on share nothing with earlier ones."""
    _known.clear()
