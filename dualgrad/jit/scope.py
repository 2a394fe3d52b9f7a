"""What code ran in a trace, and so which names and globals a call can depend on."""

from __future__ import annotations

import dis
import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from dualgrad.jit.kinds import OWN, TEXTS, UNSEEN, UNSEEN_ATTRIBUTES, is_foreign, root_name
from dualgrad.runtime.records import dataclass, field

Globals = dict[str, Any]
Ran = tuple[types.CodeType, Globals]

# Names that reach attributes in ways that their own names do not tell.
_COMPUTED = frozenset({"__dict__", "vars", "dir", "attrgetter", "methodcaller", "__getattribute__"})
# Memory, devices, native code: what runs there tells nothing, and differs between a process that
# has native code and one that waits for it.
_BELOW = f"{OWN}.runtime."
_LOOKS_UP = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "DELETE_GLOBAL", "IMPORT_NAME"})


@dataclass(eq=False)
class Scope:
    """Code objects that ran, with their globals, and the names that occur in them.

    Code of foreign modules (the standard library, NumPy, this package) counts for the names of
    attributes only: its own globals are taken to be constant.  This package's runtime sees no
    objects of users: its code does not count.  Where attributes are read by computed names the
    scope is `wide`: everything counts.
    """

    ran: list[Ran] = field(default_factory=list)
    codes: set[types.CodeType] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    wide: bool = False
    appended: set[str] = field(default_factory=set)  # names that are used as in x.append(...)
    used: set[str] = field(default_factory=set)  # names that are used in any other way
    guess: bool = False  # nothing ran yet: this is the code that may run, as far as one can see
    # by identity: the hash of a code object takes a microsecond
    _known: dict[tuple[int, int], Ran] = field(default_factory=dict)

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
            {**self._known},
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
            key = (id(code), id(space))
            if key in self._known:
                continue
            self._known[key] = (code, space)
            module = space.get("__name__")
            if is_foreign(module):
                own = root_name(module) == OWN
                if own and str(module).startswith(_BELOW):
                    continue
                self.names |= {*code.co_names} - TEXTS if own else {*code.co_names}
                self.used.update(code.co_names)
                self.wide = self.wide or (not own and read_by(code)[1])
            elif not self._has(code, space):
                self._add_users(code, space)

    def _has(self, code: types.CodeType, space: Globals) -> bool:
        """Whether equal code ran there, which another compilation of one text may have made."""
        return code in self.codes and any(s is space and c == code for c, s in self.ran)

    def _add_users(self, code: types.CodeType, space: Globals) -> None:
        names, computed = read_by(code)
        self.names |= names
        self.wide = self.wide or computed
        appended, used = uses_of(code)
        self.appended |= appended
        self.used |= used
        self.ran.append((code, space))
        self.codes.add(code)


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


def unseen_by(code: types.CodeType, space: Globals) -> Iterator[str]:
    """What a code object reads that a walk would not find."""
    attributes = code.co_names
    yield from UNSEEN_ATTRIBUTES.intersection(attributes)
    for name in globals_of(code):
        held = space.get(name)
        if name not in space and name in UNSEEN:
            yield name
        elif held is np and "random" in attributes:
            yield "numpy.random"
        elif held is sys.modules or ("modules" in attributes and (held is sys or name == "sys")):
            yield "sys.modules"


_read: WeakKeyDictionary[types.CodeType, tuple[set[str], bool]] = WeakKeyDictionary()


def read_by(code: types.CodeType) -> tuple[set[str], bool]:
    """Names of attributes that a code object may read, and whether it computes others.

    Among them are the code's own name, by which C code may have called it, and EQUALS, SHOWS and
    TRIES for what needs no names.
    """
    found = _read.get(code)
    if found is None:
        names, computed = {*code.co_names, code.co_name}, not _COMPUTED.isdisjoint(code.co_names)
        if code.co_exceptiontable or not _DEFAULTS.isdisjoint(code.co_names):
            names.add(TRIES)
        names |= {m for n, m in _SHOWING.items() if n in code.co_names}
        before = None
        for step in dis.get_instructions(code):
            names |= _MARKS.get(step.opname, _NOTHING)
            if step.opname == "LOAD_GLOBAL" and step.argval in _BY_TEXT:
                computed = computed or not (step.arg or 0) & _CALLED
            elif step.opname == "MATCH_CLASS":
                known = before is not None and before.opname == "LOAD_CONST"
                names |= {"__match_args__", *(before.argval if known and before else ())}
                computed = computed or not known
            elif step.opname == "BINARY_OP" and step.argrepr in ("%", "%="):
                names.add(SHOWS)
            before = step
        found = _read[code] = (names, computed)
    return found


# Not names of attributes, but what code does with whole objects.
EQUALS, SHOWS, TRIES = "==", "!r", "try"
_NOTHING: frozenset[str] = frozenset()
_MARKS = {
    "COMPARE_OP": frozenset({EQUALS}),
    "CONTAINS_OP": frozenset({EQUALS}),
    "FORMAT_VALUE": frozenset({SHOWS}),
    "FORMAT_SIMPLE": frozenset({SHOWS}),
    "FORMAT_WITH_SPEC": frozenset({SHOWS}),
    "CONVERT_VALUE": frozenset({SHOWS}),
    "MATCH_KEYS": frozenset({"get"}),
}
WHOLE = frozenset({EQUALS, SHOWS})
_SHOWING = {
    **dict.fromkeys(("repr", "str", "format", "ascii"), SHOWS),
    **dict.fromkeys(("index", "count", "remove"), EQUALS),
}
_BY_TEXT = frozenset({"getattr", "hasattr", "setattr", "delattr"})
_DEFAULTS = frozenset({"getattr", "hasattr"})
_CALLED = 1  # flag of LOAD_GLOBAL: the object is called

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
