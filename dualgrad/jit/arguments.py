"""The one form in which a call's arguments are known, however they were spelled.

`f(x, 2.0)`, `f(x, scale=2.0)` and `f(x)` with that default are the same call: what has a place in
the parameter list comes by position, defaults filled in; keyword-only parameters come by keyword,
in the order of the definition.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

from dualgrad.entries.calls import MOST
from dualgrad.entries.guards import CONTENTS, Words

Call = tuple[tuple[Any, ...], dict[str, Any]]

_VARARGS, _VARKEYWORDS = 0x04, 0x08  # flags of code objects


class Binder:
    """The parameters of a Python function; of any other callable nothing is known.

    `count` is the number of positional arguments of a call that is in its one form already, if
    it has no keyword arguments; -1 where there is always something to do.
    """

    def __init__(self, fn: Callable[..., Any]) -> None:
        plain = isinstance(fn, types.FunctionType | types.MethodType)
        code: types.CodeType | None = getattr(fn, "__code__", None) if plain else None
        self.known = code is not None
        self.names: tuple[str, ...] = ()
        self.count = -1
        if code is None:
            return
        function = fn.__func__ if isinstance(fn, types.MethodType) else fn
        self.function: Any = function
        first = int(isinstance(fn, types.MethodType))  # the object is bound already
        total, named = code.co_argcount, code.co_kwonlyargcount
        self.names = code.co_varnames[first:total]
        self.only = max(0, code.co_posonlyargcount - first)
        self.keywords = code.co_varnames[total : total + named]
        self.takes_more = bool(code.co_flags & _VARARGS)
        self.takes_names = bool(code.co_flags & _VARKEYWORDS)
        if not self.keywords:
            self.count = len(self.names)

    def entry(self, tables: list[Words]) -> Words | None:
        """What native code needs of the function; see `dualgrad.entries.calls`."""
        if not tables or not 0 <= self.count <= MOST:
            return None
        head = [self.count, self.only, len(tables), id(self.function)]
        at = [id(t.words) + 8 * CONTENTS for t in tables]
        return Words([*head, *at, *map(id, self.names)], self.function, tables, self.names)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call | None:
        """The call in its one form; None if Python will refuse it."""
        if not self.known:
            return args, kwargs
        given, names = len(args), self.names
        if given > len(names) and not self.takes_more:
            return None
        rest = dict(kwargs)
        filled = list(args)
        if given < len(names):
            defaults: tuple[Any, ...] = self.function.__defaults__ or ()
            first = len(names) - len(defaults)
            for k in range(given, len(names)):
                if k >= self.only and names[k] in rest:
                    filled.append(rest.pop(names[k]))
                elif k >= first:
                    filled.append(defaults[k - first])
                else:
                    return None
        if any(n in rest for n in names[self.only :]):
            return None  # given twice
        ordered: dict[str, Any] = {}
        fallback = self.function.__kwdefaults__ or {}
        for name in self.keywords:
            if name in rest:
                ordered[name] = rest.pop(name)
            elif name in fallback:
                ordered[name] = fallback[name]
            else:
                return None
        if rest and not self.takes_names:
            return None
        ordered.update(rest)
        return tuple(filled), ordered
