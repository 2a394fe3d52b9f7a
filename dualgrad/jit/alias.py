"""Tensors that share memory: which inputs of a call overlap, and where.

A path that overwrites inputs holds for calls in which the same inputs overlap at the same
distances.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np

from dualgrad.compiler.ir.types import TensorType
from dualgrad.runtime import memory
from dualgrad.runtime.device_array import DeviceArray, ForeignMemory, address_of
from dualgrad.runtime.records import dataclass
from dualgrad.runtime.srcinfo import Place
from dualgrad.tensor import Tensor

Array = Any  # np.ndarray or DeviceArray
Pattern = tuple[tuple[tuple[int, int], ...], ...]  # families: (number, offset in bytes) each
_EFFORT = 10_000  # how long NumPy may search for an element that two arrays share


@dataclass(frozen=True)
class Source:
    """Where an input comes from at each call.

    kind: "leaf" (a tensor found among arguments and state), "grad" (the gradient of one),
    "constant" (a tensor that the function itself makes from numbers), or "base" (of a family).
    """

    kind: str
    number: int


# -- which tensors overlap -----------------------------------------------------------------------


def apart(arrays: list[Array]) -> bool:
    """Whether each array lies in memory that has one owner, and another; a quick test."""
    owners = [_owner(a) for a in arrays]
    return len({id(o) for o in owners if o is not None}) == len(owners)


def _owner(array: Array) -> Any:
    if type(array) is not DeviceArray:
        return memory.block_below(array)
    return None if type(array.base) is ForeignMemory else array.base


def families(arrays: list[Array]) -> list[list[int]]:
    """Arrays that overlap, directly or through others, by number, lowest address first.

    The memory from the first to the last element of a family overlaps with that of no other.
    """
    if apart(arrays):
        return []
    groups = sorted((*_span(a), [k]) for k, a in enumerate(arrays) if a.size)
    joined = True
    while joined:
        joined = False
        out: list[tuple[int, int, list[int]]] = []
        for group in groups:
            near = [g for g in out if g[1] > group[0] and _meet(g[2], group[2], arrays)]
            for g in near:
                out.remove(g)
                joined = True
            low, high = min(g[0] for g in (*near, group)), max(g[1] for g in (*near, group))
            out.append((low, high, sorted(k for g in (*near, group) for k in g[2])))
        groups = out
    at = [0 if a.size == 0 else _span(a)[0] for a in arrays]
    return [sorted(g, key=lambda k: (at[k], k)) for _, _, g in groups if len(g) > 1]


def _span(array: Array) -> tuple[int, int]:
    """The addresses of the first byte of an array, and behind its last one."""
    low = address_of(array)
    steps = zip(array.shape, array.strides, strict=True)
    return low, low + array.itemsize + sum((n - 1) * s for n, s in steps)


def _meet(a: list[int], b: list[int], arrays: list[Array]) -> bool:
    """Whether two groups whose spans overlap belong together: single arrays may interleave."""
    return len(a) > 1 or len(b) > 1 or _share(arrays[a[0]], arrays[b[0]])


def _share(a: Array, b: Array) -> bool:
    try:
        return np.shares_memory(_seen(a), _seen(b), max_work=_EFFORT)  # type: ignore[arg-type]
    except np.exceptions.TooHardError:
        return True


class _Seen:
    """A place in the memory of a device as NumPy sees arrays; nobody may look at the values."""

    def __init__(self, a: DeviceArray) -> None:
        self.__array_interface__ = {
            "version": 3, "shape": a.shape, "strides": a.strides, "typestr": a.dtype.str,
            "data": (a.address, True),
        }  # fmt: skip


def _seen(a: Array | DeviceArray) -> Array:
    return np.asarray(_Seen(a)) if isinstance(a, DeviceArray) else a


def pattern_of(arrays: list[Array], written: Iterable[int]) -> Pattern:
    """How arrays overlap with those that are overwritten."""
    found = families(arrays)
    if not found:
        return ()
    out = []
    changed = set(written)
    for family in found:
        if not changed.isdisjoint(family):
            at = [address_of(arrays[k]) for k in family]
            out.append(tuple((k, a - at[0]) for k, a in zip(family, at, strict=True)))
    return tuple(out)


def overlaps_itself(x: Tensor) -> bool:
    """Whether two elements of a tensor may lie at one place."""
    shape, steps = x.array.shape, x.strides_in_elements  # type: ignore[union-attr]
    if 0 in shape:
        return False
    reach = 0
    for step, n in sorted((s, n) for s, n in zip(steps, shape, strict=True) if n > 1):
        if step <= reach:
            return True
        reach += step * (n - 1)
    return False


# -- what a path needs of the memory of a call ---------------------------------------------------


@dataclass(frozen=True)
class Aliasing:
    """What a path that overwrites inputs needs to know about the memory of a call.

    sources  the tensors that may meet
    written  the positions among them of those that are overwritten
    pattern  how these overlap with others
    changes  position, number of changes in place, and the line of the last one
    """

    sources: tuple[Source, ...]
    written: tuple[int, ...]
    pattern: Pattern
    changes: tuple[tuple[int, int, Place | None], ...] = ()

    def holds(self, tensors: list[Tensor]) -> bool:
        arrays: list[Any] = [
            (tensors[n] if kind == "leaf" else tensors[n]._grad).array  # type: ignore[union-attr]
            for kind, n in self.places
        ]
        if not all(arrays[k].flags.writeable for k in self.written):
            return False
        if not self.pattern and apart(arrays):
            return True
        return pattern_of(arrays, self.written) == self.pattern

    @cached_property
    def places(self) -> list[tuple[str, int]]:
        """The sources as pairs: this is looked at in every call."""
        return [(s.kind, s.number) for s in self.sources]

    def note_changes(self, tensors: list[Tensor]) -> None:
        """Count the changes of what has been overwritten."""
        for k, times, place in self.changes:
            version = tensor_at(self.sources[k], tensors)._version
            version[0] += times
            version[2] = place


@dataclass(frozen=True)
class Base:
    """The memory of a family, seen as one row of elements: where it starts, and its type."""

    first: Source  # the member with the lowest address
    type: TensorType

    def array(self, tensors: list[Tensor]) -> Array:
        a = tensor_at(self.first, tensors).array
        assert a is not None
        if isinstance(a, DeviceArray):
            return a.view(self.type.shape, (a.itemsize,))  # type: ignore[arg-type]
        return np.lib.stride_tricks.as_strided(a, self.type.shape, (a.itemsize,))  # type: ignore[arg-type]


def tensor_at(source: Source, tensors: list[Tensor]) -> Tensor:
    """A tensor of a call, or the gradient of one."""
    found = tensors[source.number]
    if source.kind == "leaf":
        return found
    assert source.kind == "grad"
    assert found._grad is not None
    return found._grad


def memory_of(leaves: list[Tensor]) -> tuple[Any, ...]:
    """How all the tensors of a call and their gradients overlap, and which cannot be written."""
    arrays: list[Any] = [t.array for t in reachable(leaves)]
    fixed = tuple(k for k, a in enumerate(arrays) if not a.flags.writeable)
    return (pattern_of(arrays, range(len(arrays))), fixed)


def reachable(leaves: list[Tensor]) -> list[Tensor]:
    """The tensors of a call and their gradients, each once."""
    grads = (t._grad for t in leaves)
    return list({id(t): t for t in (*leaves, *grads) if t is not None}.values())
