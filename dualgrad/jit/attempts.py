"""Which numbers and sizes a trace makes inputs: all that change, or, if that fails, fewer."""

from __future__ import annotations

from typing import Any

from dualgrad.jit.entry import Entry
from dualgrad.jit.places import SIZE, STRIDE, Place
from dualgrad.jit.survey import Survey

Way = tuple[bool, bool]  # whether sizes, and whether numbers are inputs
_WAYS: tuple[Way, ...] = ((True, True), (False, True), (True, False), (False, False))


class Attempts:
    """The attempts to trace one call.

    places  what differs from earlier calls: a new path should have it as inputs
    basis   where that is known from, and to be noted if it does not do
    """

    def __init__(self, places: list[Place], basis: tuple[Survey, Entry] | None) -> None:
        self.sizes = [p for p in places if p.kind in (SIZE, STRIDE)]
        self.numbers = [p for p in places if p.kind not in (SIZE, STRIDE)]
        self.basis = basis
        self._some_numbers = True  # or among the arguments; known after the first attempt
        self._failed: set[Way] = set()
        self._tried: set[Way] = set()  # with these sizes
        self._way: Way = _WAYS[0]

    def next(self) -> tuple[list[Place], bool] | None:
        """Places of what is to be an input, and whether numbers among the arguments are to be
        as well; None if everything has failed."""
        for way in _WAYS:
            if way not in self._tried and self._effective(way) not in self._failed:
                self._way = way
                self._tried.add(way)
                sizes, numbers = way
                chosen = (self.sizes if sizes else []) + (self.numbers if numbers else [])
                return chosen, numbers
        return None

    def _effective(self, way: Way) -> Way:
        return way[0] and bool(self.sizes), way[1] and self._some_numbers

    def failed(self, with_numbers: bool) -> None:
        """The last attempt failed; it had numbers as inputs or none."""
        if self._way[1]:
            self._some_numbers = with_numbers
        self._failed.add(self._effective(self._way))

    def pinned(self, identities: set[Any]) -> None:
        """The last attempt asked for the values of these sizes: they are no inputs this time."""
        self._refuse([p for p in self.sizes if p.identity in identities], certain=False)
        left = [p for p in self.sizes if p.identity not in identities]
        if len(left) < len(self.sizes):
            self._tried.clear()
        self.sizes = left

    def succeeded(self) -> None:
        """The last attempt made a path: what it had to leave out is not tried again."""
        sizes, numbers = self._way
        self._refuse(
            ([] if sizes else self.sizes) + ([] if numbers else self.numbers), certain=True
        )

    def _refuse(self, places: list[Place], certain: bool) -> None:
        if self.basis is not None:
            found, entry = self.basis
            identities = {p.identity for p in places}
            facts = (k for k, p in enumerate(found.places) if p.identity in identities)
            entry.refuse(set(facts), certain)
