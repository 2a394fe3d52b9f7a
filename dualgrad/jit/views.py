"""Which traced tensors are views of which."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from dualgrad.compiler.ops.view import View

if TYPE_CHECKING:
    from dualgrad.tensor import Tensor

Shown = tuple["Tensor", View | None]  # what a tensor is a view of; without a view: the same


class Views:
    """Views by what they are and by what they show; the views themselves may die."""

    def __init__(self) -> None:
        self._of: dict[int, tuple[weakref.ref[Tensor], Shown]] = {}
        self._by_source: dict[int, list[tuple[weakref.ref[Tensor], Shown]]] = {}

    def add(self, view: Tensor, source: Tensor, unit: View | None) -> None:
        entry = (weakref.ref(view), (source, unit))
        self._of[id(view)] = entry
        self._by_source.setdefault(id(source), []).append(entry)

    def source_of(self, view: Tensor) -> Shown | None:
        """What a tensor is a view of."""
        found = self._of.get(id(view))
        return found[1] if found is not None and found[0]() is view else None

    def above(self, bases: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor, View | None]]:
        """The views of some tensors, and the views of these: (view, source, unit), each after
        its source."""
        waiting = [*bases]
        seen = set(map(id, waiting))
        for source in waiting:
            for ref, (_, unit) in self._by_source.get(id(source), ()):
                view = ref()
                if view is not None and id(view) not in seen:
                    seen.add(id(view))
                    waiting.append(view)
                    yield view, source, unit

    def alive(self) -> list[Tensor]:
        """All views that are still alive."""
        return [view for ref, _ in self._of.values() if (view := ref()) is not None]

    def clear(self) -> None:
        self._of.clear()
        self._by_source.clear()
