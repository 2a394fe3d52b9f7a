"""Objects that a function returns or keeps: passed through, or made anew by each call.

An object that the call's survey met is the one in that place at later calls.  One that the
function has made is made again at each call: of the same class, without calling it, with parts of
the new results.  Which ones it has made the garbage collector tells: while it rests during a
trace, they are the objects of its youngest generation.
"""

from __future__ import annotations

import collections
import enum
import functools
import gc
import types
from collections.abc import Callable
from typing import Any

from dualgrad.jit.kinds import INERT, PLAIN, is_foreign, is_value, slots_of
from dualgrad.jit.path import Results
from dualgrad.jit.rebuild import Rebuild

Fill = Callable[[Any, Results], None]
_VALUES = (tuple, frozenset, int, float, complex, str, bytes)  # bases whose instances are fixed
_OPEN = (types.SimpleNamespace,)  # of foreign modules, but no more than their attributes


def _young() -> set[int]:
    """Identities of the objects that were made since the collector rests."""
    try:
        return {id(x) for x in gc.get_objects(generation=0)}
    except TypeError:  # an interpreter without generations
        return set()


class Objects:
    """Says how to make objects again; `spec` does for their parts what `rebuild` does for them."""

    def __init__(self, met: list[object], spec: Callable[[Any], Rebuild]) -> None:
        self.spec = spec
        self.met = {id(x): k for k, x in enumerate(met)}
        self.young: set[int] | None = None
        self.made: dict[int, Rebuild] = {}
        self.new: list[Any] = []

    def rebuild(self, x: Any) -> Rebuild | None:
        """How to get, at a later call, what x is now; None if it cannot be told."""
        known = self.made.get(id(x))
        if known is not None:
            return known
        k = self.met.get(id(x))
        if k is not None:
            return lambda r: r.found.objects[k]
        if isinstance(x, enum.Enum) or type(x) in (complex, *PLAIN) or is_value(x):
            return lambda r: x
        if isinstance(x, slice):
            parts = [self.spec(p) for p in (x.start, x.stop, x.step)]
            return lambda r: slice(*(p(r) for p in parts))
        if isinstance(x, types.MethodType):
            owner, function = self.spec(x.__self__), self.spec(x.__func__)
            return lambda r: types.MethodType(function(r), owner(r))
        if not self._is_new(x):
            constant = isinstance(x, (types.FunctionType, type, types.ModuleType, *INERT))
            return (lambda r: x) if constant else None
        return self._once(x)

    def _is_new(self, x: Any) -> bool:
        if self.young is None:
            self.young = _young()
        return id(x) in self.young or isinstance(x, set | frozenset | collections.deque)

    def _once(self, x: Any) -> Rebuild | None:
        """A new object, made once for each time the function runs.

        It is there before its parts are, so that these may refer to it.
        """
        key, kind = id(x), type(x)
        make = self._maker(x)
        if make is None:
            return None
        fills: list[Fill] = []

        def rebuild(r: Results) -> Any:
            found = r.memo.get(key)
            if found is None:
                found = r.memo[key] = make(r)
                for fill in fills:
                    fill(found, r)
            return found

        self.made[key] = rebuild
        self.new.append(x)
        if isinstance(x, dict):
            fills.append(self._entries(x))
        elif isinstance(x, list | set | collections.deque):
            fills.append(self._elements(x))
        if kind.__module__ not in ("builtins", "collections"):
            fills.append(self._attributes(x))
        return rebuild

    def _maker(self, x: Any) -> Callable[[Results], Any] | None:
        """Makes an empty object of the class of x, or one with its fixed value."""
        kind: Any = type(x)
        if isinstance(x, functools.partial):
            return self._partial(x)
        if isinstance(x, collections.defaultdict):
            factory = self.spec(x.default_factory)
            return lambda r: kind(factory(r))
        if isinstance(x, collections.deque):
            return lambda r: kind((), x.maxlen)
        if isinstance(x, tuple):
            parts = [self.spec(e) for e in x]
            return lambda r: tuple.__new__(kind, [p(r) for p in parts])
        if isinstance(x, _VALUES):
            base: Any = next(b for b in _VALUES if isinstance(x, b))
            return lambda r: base.__new__(kind, x)
        if isinstance(x, dict | list | set) or kind in _OPEN:
            return lambda r: kind.__new__(kind)
        outside = is_foreign(kind.__module__) and not _is_record(kind)
        if outside or isinstance(x, BaseException | types.FunctionType | types.GeneratorType):
            return None
        try:
            object.__new__(kind)
        except TypeError:  # its memory is not laid out by Python
            return None
        return lambda r: object.__new__(kind)

    def _partial(self, x: functools.partial[Any]) -> Rebuild:
        function, args = self.spec(x.func), [self.spec(a) for a in x.args]
        named = {k: self.spec(v) for k, v in x.keywords.items()}
        return lambda r: functools.partial(
            function(r), *(a(r) for a in args), **{k: v(r) for k, v in named.items()}
        )

    def _entries(self, x: dict[Any, Any]) -> Fill:
        items = [(self.spec(k), self.spec(v)) for k, v in x.items()]
        ordered = isinstance(x, collections.OrderedDict)
        store: Any = collections.OrderedDict.__setitem__ if ordered else dict.__setitem__

        def fill(made: Any, r: Results) -> None:
            for key, value in items:
                store(made, key(r), value(r))

        return fill

    def _elements(self, x: Any) -> Fill:
        parts = [self.spec(e) for e in x]
        base: Any = next(b for b in (list, set, collections.deque) if isinstance(x, b))
        add: Any = set.add if base is set else base.append

        def fill(made: Any, r: Results) -> None:
            for part in parts:
                add(made, part(r))

        return fill

    def _attributes(self, x: Any) -> Fill:
        held = {n: getattr(x, n) for n in slots_of(type(x)) if hasattr(x, n)}
        slots = {n: self.spec(v) for n, v in held.items()}
        attributes = {n: self.spec(v) for n, v in getattr(x, "__dict__", {}).items()}

        def fill(made: Any, r: Results) -> None:
            for name, value in slots.items():
                object.__setattr__(made, name, value(r))
            if attributes:
                made.__dict__.update({n: value(r) for n, value in attributes.items()})

        return fill

    def settle(self, settled: Callable[[Any], Any]) -> None:
        """Replace the parts of the new objects by what `settled` makes of them, and let go."""
        for x in self.new:
            for name in slots_of(type(x)):
                if hasattr(x, name):
                    object.__setattr__(x, name, settled(getattr(x, name)))
            own = getattr(x, "__dict__", {})
            for held in (own, x) if isinstance(x, dict) else (own,):
                for name, value in [*held.items()]:
                    if (new := settled(value)) is not value:
                        dict.__setitem__(held, name, new)
            if isinstance(x, list | collections.deque):
                for k, value in enumerate(x):
                    x[k] = settled(value)
            elif isinstance(x, set):
                elements = [settled(e) for e in x]
                x.clear()
                x.update(elements)
        self.new.clear()


def _is_record(kind: type) -> bool:
    """Whether a class says of itself that it is no more than its fields."""
    return hasattr(kind, "__dataclass_fields__") or hasattr(kind, "__attrs_attrs__")
