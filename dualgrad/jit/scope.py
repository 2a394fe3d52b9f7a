"""What code ran in a trace, and so which names and globals a call can depend on."""

from __future__ import annotations

import dis
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from dualgrad.jit.kinds import is_foreign

Globals = dict[str, Any]
Ran = tuple[types.CodeType, Globals]

# Names that reach attributes in ways that their own names do not tell.
_COMPUTED = frozenset({"__dict__", "vars", "dir", "attrgetter", "methodcaller", "__getattribute__"})
_LOOKS_UP = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "DELETE_GLOBAL", "IMPORT_NAME"})


@dataclass(eq=False)
class Scope:
    """Code objects that ran, with their globals, and the names that occur in them.

    Code of foreign modules (the standard library, NumPy, this package) counts for the names of
    attributes only: its own globals are taken to be constant.  Where attributes are read by
    computed names the scope is `wide`: everything counts.
    """

    ran: list[Ran] = field(default_factory=list)
    codes: set[types.CodeType] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    wide: bool = False
    appended: set[str] = field(default_factory=set)  # names that are used as in x.append(...)
    used: set[str] = field(default_factory=set)  # names that are used in any other way
    guess: bool = False  # nothing ran yet: this is the code that may run, as far as one can see
    _known: set[tuple[types.CodeType, int]] = field(default_factory=set)

    def joined(self, ran: Iterable[Ran], names: Iterable[str], computed: bool) -> Scope:
        """The scope with what ran in another trace; itself, if that is nothing new."""
        out = Scope(
            [*self.ran],
            {*self.codes},
            {*self.names},
            self.wide,
            {*self.appended},
            {*self.used},
            self.guess,
            {*self._known},
        )
        out._add(ran, names, computed)
        return self if out._size == self._size else out

    @property
    def _size(self) -> tuple[int, int, int, bool]:
        return (len(self.ran), len(self.names), len(self.used), self.wide)

    def _add(self, ran: Iterable[Ran], names: Iterable[str], computed: bool) -> None:
        self.wide = self.wide or computed
        self.names.update(names)
        self.used.update(names)
        for code, space in ran:
            if (code, id(space)) in self._known:
                continue
            self._known.add((code, id(space)))
            self.names.update(code.co_names)
            if is_foreign(space.get("__name__")):
                self.used.update(code.co_names)
                continue
            appended, used = uses_of(code)
            self.appended |= appended
            self.used |= used
            self.ran.append((code, space))
            self.codes.add(code)
            self.wide = self.wide or not _COMPUTED.isdisjoint(code.co_names)


def codes_of(code: types.CodeType) -> Iterator[types.CodeType]:
    """A code object and all that are defined inside."""
    yield code
    for c in code.co_consts:
        if isinstance(c, types.CodeType):
            yield from codes_of(c)


_globals: WeakKeyDictionary[types.CodeType, tuple[str, ...]] = WeakKeyDictionary()


def globals_of(code: types.CodeType) -> tuple[str, ...]:
    """The names that a code object looks up in its globals, or imports."""
    found = _globals.get(code)
    if found is None:
        names = (i.argval for i in dis.get_instructions(code) if i.opname in _LOOKS_UP)
        found = _globals[code] = tuple(dict.fromkeys(names))
    return found


_uses: WeakKeyDictionary[types.CodeType, tuple[set[str], set[str]]] = WeakKeyDictionary()


def uses_of(code: types.CodeType) -> tuple[set[str], set[str]]:
    """Names whose objects are only told to append something, and names that are used otherwise."""
    found = _uses.get(code)
    if found is None:
        appended: set[str] = set()
        used: set[str] = set()
        names = {*code.co_names, *code.co_freevars, *code.co_cellvars}
        steps = [i for i in dis.get_instructions(code) if i.opname != "CACHE"]
        for step, after in zip(steps, [*steps[1:], steps[0]], strict=True):
            if step.argval not in names or step.opname in _PASSED_ON:
                continue
            method = after.opname in ("LOAD_METHOD", "LOAD_ATTR")
            appends = method and after.argval in ("append", "extend")
            (appended if appends and step.opname in _LOADS else used).add(step.argval)
        found = _uses[code] = (appended, used)
    return found


_LOADS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_ATTR"})
_PASSED_ON = frozenset({"LOAD_CLOSURE", "MAKE_CELL"})  # inner functions are looked at themselves
