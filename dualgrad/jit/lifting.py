"""Numbers put where a function reads its own: into dicts, lists, attributes, cells, tuples.

For the time of a trace, places in Python state that hold an int or float hold a `Number`
instead.  Tuples are rebuilt where they stand.  Afterwards every place that still holds what was
put there gets its own object back; any other has been written by the function.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable
from typing import Any

from dualgrad.compiler.ir.size import TracedSize, number_of
from dualgrad.jit.ledger import Ledger
from dualgrad.jit.notes import all_same
from dualgrad.jit.numbers import Number
from dualgrad.jit.places import DEFAULT, ELEMENT, ROOT, Part, Place, is_writeable, read, write
from dualgrad.jit.survey import Survey
from dualgrad.jit.trace import Unsupported

Identity = tuple[str, int, Any]


class Lifting:
    """The numbers of one trace, and where they stand."""

    def __init__(self, ledger: Ledger, places: Iterable[Place]) -> None:
        self.ledger = ledger
        self.written: set[tuple[int, Any]] = set()  # storage that the function has written
        self.numbers: dict[Identity, int] = {}  # which number of the ledger stands where
        self._put: list[tuple[Place, Any, Any]] = []  # place, what it held, what it holds
        self._defaults: dict[int, tuple[Any, Any]] = {}  # functions and theirs
        self._tuples: dict[int, tuple[Place, dict[int, Any]]] = {}
        self._places = [p for p in places if is_writeable(p)]

    def place(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Put numbers everywhere; returns the positional arguments with theirs."""
        for place in self._places:
            if place.identity in self.numbers:
                continue
            number = len(self.numbers)
            self.numbers[place.identity] = number
            value = self.ledger.fact(number, read(place))
            if place.kind == ELEMENT:
                self._note_element(place, value)
            else:
                self._write(place, value)
        while self._tuples:
            deepest = max(self._tuples, key=lambda k: _depth(self._tuples[k][0]))
            place, changes = self._tuples.pop(deepest)
            old = args if place.kind == ROOT else read(place)
            parts = [changes.get(k, x) for k, x in enumerate(old)]
            new = type(old)(*parts) if hasattr(old, "_fields") else tuple(parts)
            if place.kind == ROOT:
                args = new
            elif place.kind == ELEMENT:
                self._note_element(place, new)
            else:
                self._write(place, new)
        return args

    def _note_element(self, place: Place, value: Any) -> None:
        assert place.parent is not None
        _, changes = self._tuples.setdefault(id(place.owner), (place.parent, {}))
        changes[place.key] = value

    def _write(self, place: Place, value: Any) -> None:
        if place.kind == DEFAULT:
            self._defaults.setdefault(id(place.owner), (place.owner, place.owner.__defaults__))
        self._put.append((place, read(place), value))
        write(place, value)

    def facts(self, found: Survey) -> dict[int, int]:
        """For each number, which fact of a survey it is.

        Raises Unsupported for one that is not among them, or that may stand elsewhere as well.
        """
        places = {}
        for k, part in enumerate(found.fact_parts):
            number = self.numbers.get((part[1], 0 if part[3] is None else id(part[3][0]), part[2]))
            if number is not None and not _is_shared(part, found.shared):
                places[number] = k
        if not self.ledger.facts <= places.keys():
            raise Unsupported("a number was reached in a way that cannot be followed")
        return places

    def lifted(self, found: Survey) -> tuple[int, ...]:
        """The facts that are inputs."""
        known = self.facts(found).keys()
        return tuple(
            k
            for k, p in enumerate(found.places)
            if p.identity in self.numbers and self.numbers[p.identity] in known
        )

    def restore(self) -> None:
        """Give every place its own object back, except where the function has written."""
        for place, old, new in reversed(self._put):
            try:
                untouched = read(place) is new
            except (LookupError, AttributeError, ValueError):  # deleted
                untouched = False
            if untouched:
                write(place, old)
            else:
                self.written.add(place.storage)
        self._put.clear()
        for function, defaults in self._defaults.values():
            now = function.__defaults__ or ()
            if defaults is not None and len(now) == len(defaults) and all_same(now, defaults):
                function.__defaults__ = defaults  # the very tuple
        self._defaults.clear()


def _depth(place: Place) -> int:
    return 0 if place.parent is None else 1 + _depth(place.parent)


def settled(x: Any, known: dict[int, Any] | None = None) -> Any:
    """x with plain numbers in place of those of a trace, in new containers as well."""
    if isinstance(x, Number):
        return x._value
    if type(x) is TracedSize:
        return number_of(x)
    known = {} if known is None else known
    kind = type(x)
    if kind is list or kind is dict:
        if id(x) not in known:
            known[id(x)] = x
            for key, value in list(enumerate(x) if kind is list else x.items()):
                new = settled(value, known)
                if new is not value:
                    x[key] = new
    elif isinstance(x, tuple):
        parts = [settled(v, known) for v in x]
        if any(a is not b for a, b in zip(parts, x, strict=True)):
            return kind(*parts) if hasattr(x, "_fields") else kind(parts)
    return x


def check_held(ledger: Ledger) -> None:
    """Refuse numbers that outlive their trace in places that cannot be followed."""
    if ledger.held():
        gc.collect()  # what only a reference cycle holds does not count
    if ledger.held():
        raise Unsupported(
            "a number that changes from call to call is kept in a place that cannot be followed",
            hint="return it, or store it in an attribute, list or dict that existed before",
        )


def _is_shared(part: Part, shared: set[int]) -> bool:
    """Whether a part stands in a tuple that stands in several places."""
    while part[1] == ELEMENT and part[3] is not None:
        part = part[3]
        if id(part[0]) in shared:
            return True
    return False
