"""Tensors that share memory: which inputs of a call overlap, and one flat base behind them.

A path that overwrites inputs holds for calls in which the same inputs overlap at the same
distances.  Inputs that overlap with one that is overwritten are traced as views of one flat
input, their family's base: each change of a member is a change of the base, seen by all.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from dualgrad.compiler.ir.node import Node, input_node, replace
from dualgrad.compiler.ir.types import TensorType, contiguous_strides
from dualgrad.compiler.ops.region import Overwrite
from dualgrad.compiler.ops.slicing import Strided
from dualgrad.compiler.ops.view import Reshape, View
from dualgrad.jit.errors import UnsupportedMemory
from dualgrad.runtime import memory
from dualgrad.tensor import Tensor

if TYPE_CHECKING:
    from dualgrad.jit.survey import Survey
    from dualgrad.jit.trace import Trace

Array = np.ndarray[Any, Any]
Pattern = tuple[tuple[tuple[int, int], ...], ...]  # families: (number, offset in bytes) each
MAX_PATTERNS = 8  # programs of one signature that differ in how inputs overlap
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
    """Whether arrays lie in blocks of the pool, each in one of its own; a quick test."""
    blocks = [a.base for a in arrays]
    return len(set(map(id, blocks))) == len(blocks) and memory.BLOCK_TYPES.issuperset(
        map(type, blocks)
    )


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
    low = array.__array_interface__["data"][0]
    steps = zip(array.shape, array.strides, strict=True)
    return low, low + array.itemsize + sum((n - 1) * s for n, s in steps)


def _meet(a: list[int], b: list[int], arrays: list[Array]) -> bool:
    """Whether two groups whose spans overlap belong together: single arrays may interleave."""
    return len(a) > 1 or len(b) > 1 or _share(arrays[a[0]], arrays[b[0]])


def _share(a: Array, b: Array) -> bool:
    try:
        return np.shares_memory(a, b, max_work=_EFFORT)
    except np.exceptions.TooHardError:
        return True


def pattern_of(arrays: list[Array], written: Iterable[int]) -> Pattern:
    """How arrays overlap with those that are overwritten."""
    found = families(arrays)
    if not found:
        return ()
    out = []
    changed = set(written)
    for family in found:
        if not changed.isdisjoint(family):
            at = [arrays[k].__array_interface__["data"][0] for k in family]
            out.append(tuple((k, a - at[0]) for k, a in zip(family, at, strict=True)))
    return tuple(out)


def overlaps_itself(x: Tensor) -> bool:
    """Whether two elements of a tensor may lie at one place."""
    shape, steps = x.array.shape, x.strides_in_elements  # type: ignore[union-attr]
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
    """

    sources: tuple[Source, ...]
    written: tuple[int, ...]
    pattern: Pattern

    def holds(self, tensors: list[Tensor]) -> bool:
        arrays: list[Any] = [tensor_at(s, tensors).array for s in self.sources]
        if not all(arrays[k].flags.writeable for k in self.written):
            return False
        if not self.pattern and apart(arrays):
            return True
        return pattern_of(arrays, self.written) == self.pattern


    def note_changes(self, tensors: list[Tensor]) -> None:
        """Count a change of everything that has been overwritten."""
        for k in self.written:
            tensor_at(self.sources[k], tensors).changed()


@dataclass(frozen=True)
class Base:
    """The memory of a family, seen as one row of elements: where it starts, and its type."""

    first: Source  # the member with the lowest address
    type: TensorType

    def array(self, tensors: list[Tensor]) -> Array:
        a = tensor_at(self.first, tensors).array
        assert a is not None
        return np.lib.stride_tricks.as_strided(a, self.type.shape, (a.itemsize,))  # type: ignore[arg-type]


def tensor_at(source: Source, tensors: list[Tensor]) -> Tensor:
    """A tensor of a call, or the gradient of one."""
    found = tensors[source.number]
    if source.kind == "leaf":
        return found
    assert source.kind == "grad"
    assert found._grad is not None
    return found._grad


def overlaps(found: Survey) -> Pattern:
    """How all the tensors of a call and their gradients overlap."""
    tensors = [t for _, t in _reachable(found.tensors)]
    return pattern_of([t.array for t in tensors], range(len(tensors)))  # type: ignore[misc]


def _reachable(leaves: list[Tensor]) -> list[tuple[Source, Tensor]]:
    """The tensors of a call and their gradients, each once."""
    out = {id(t): (Source("leaf", k), t) for k, t in enumerate(leaves)}
    for k, t in enumerate(leaves):
        if t._grad is not None:
            out.setdefault(id(t._grad), (Source("grad", k), t._grad))
    return list(out.values())


# -- tracing over a common base ------------------------------------------------------------------


@dataclass
class Family:
    """Tensors that overlap in memory, as views of one flat base."""

    base: Tensor
    first: Source
    members: list[tuple[Tensor, Source, View]]


@dataclass
class Sharing:
    """The memory that tensors of a trace share; families appear when a member is overwritten."""

    trace: Trace
    known: dict[int, list[tuple[Source, Tensor]]] | None = None  # by id, tensors that overlap
    families: list[Family] = field(default_factory=list)
    of: dict[int, Family] = field(default_factory=dict)  # by id of a member

    def write(self, target: Tensor, node: Node) -> list[Tensor]:
        """Let a tensor from outside have another value; returns all that show it."""
        trace = self.trace
        family = self._family(target)
        trace.node_of(target)
        trace.written[id(target)] = target
        if family is None:
            trace.values[id(target)] = node
            return [target]
        base = family.base
        view = next(v for t, _, v in family.members if t is target)
        if isinstance(view, Reshape):
            whole = Reshape.of(base.type.shape).on(node) if node.shape != base.type.shape else node
        else:
            whole = Overwrite.of(view).on(trace.values[id(base)], node)
        trace.values[id(base)] = whole
        trace.written[id(base)] = base
        self._show(family)
        return [t for t, _, _ in family.members]

    def _show(self, family: Family) -> None:
        """Let every member show what the base holds now."""
        node = self.trace.values[id(family.base)]
        for t, _, view in family.members:
            self.trace.values[id(t)] = view.trace(node)[0]

    def _family(self, target: Tensor) -> Family | None:
        if overlaps_itself(target):
            raise UnsupportedMemory(
                "a tensor is changed in place whose elements may share memory",
                actual=f"{target.type!r}, strides {target.strides_in_elements}",
            )
        if id(target) in self.of:
            return self.of[id(target)]
        if self.known is None:
            self.known = {}
            reachable = _reachable(self.trace.leaves)
            for group in families([t.array for _, t in reachable]):  # type: ignore[misc]
                self.known.update(
                    dict.fromkeys(
                        (id(reachable[k][1]) for k in group), [reachable[k] for k in group]
                    )
                )
        found = self.known.get(id(target))
        return None if found is None else self._join(found)

    def _join(self, found: list[tuple[Source, Tensor]]) -> Family:
        """Trace overlapping tensors as views of one base from now on."""
        trace = self.trace
        first_source, first = found[0]
        assert first.array is not None
        itemsize, start = first.array.itemsize, _address(first)
        ends = []
        places = []
        for _, t in found:
            offset, rest = divmod(_address(t) - start, itemsize)
            if t.type.dtype is not first.type.dtype or rest:
                raise UnsupportedMemory(
                    "tensors of different dtypes that overlap in memory are changed in place",
                    actual=f"{first.type!r} and {t.type!r}",
                )
            places.append((offset, t.strides_in_elements))
            steps = zip(t.type.shape, t.strides_in_elements, strict=True)
            ends.append(offset + 1 + sum((n - 1) * s for n, s in steps))  # type: ignore[operator]
        size = max(ends)
        type_ = TensorType((size,), first.type.dtype)
        array = np.lib.stride_tricks.as_strided(first.array, (size,), (itemsize,))
        base = Tensor.of_array(array, type_, None)
        members = [
            (t, s, _view(size, t.type.shape, *place))
            for (s, t), place in zip(found, places, strict=True)
        ]
        family = Family(base, first_source, members)
        trace.add_input(base, Source("base", len(self.families)))
        self.families.append(family)
        for t, source, _ in members:
            self.of[id(t)] = family
            if source.kind == "grad" and source.number not in trace.grads_read:
                trace.grads_read.append(source.number)
        self._show(family)
        return family

    # -- at the end of the trace --------------------------------------------------------------

    def settle(self, roots: tuple[Node, ...]) -> tuple[Node, ...]:
        """The roots of the trace's graph with members read through their bases; members that
        were inputs by themselves are none any more."""
        trace = self.trace
        if not self.families:
            return roots
        kept = [k for k, t in enumerate(trace.tensors) if id(t) not in self.of]
        number = {k: n for n, k in enumerate(kept)}
        change = {trace.inputs[k]: input_node(n, trace.tensors[k].type) for k, n in number.items()}
        for k, t in enumerate(trace.tensors):
            if id(t) in self.of:
                family = self.of[id(t)]
                base = change[trace.inputs[_position(trace.tensors, family.base)]]
                view = next(v for m, _, v in family.members if m is t)
                change[trace.inputs[k]] = view.trace(base)[0]
        roots = replace(roots, change)
        trace.inputs = [change[trace.inputs[k]] for k in kept]
        trace.tensors = [trace.tensors[k] for k in kept]
        trace.sources = [trace.sources[k] for k in kept]
        return roots

    def bases(self) -> list[Base]:
        return [Base(f.first, f.base.type) for f in self.families]

    def aliasing(self) -> Aliasing | None:
        """What a path needs of the memory of a call; None if it overwrites nothing."""
        trace = self.trace
        met = dict(
            (id(t), s)
            for t, s in zip(trace.tensors, trace.sources, strict=True)
            if s.kind in ("leaf", "grad")
        )
        for family in self.families:
            met.update((id(t), s) for t, s, _ in family.members)
        places = list(met)
        written = tuple(places.index(key) for key in trace.written if key in met)
        if not written:
            return None
        sources = tuple(met.values())
        arrays: list[Any] = [tensor_at(s, trace.leaves).array for s in sources]
        return Aliasing(sources, written, pattern_of(arrays, written))


def _view(size: int, shape: tuple[Any, ...], offset: int, strides: tuple[int, ...]) -> View:
    """A member as a view of its base; one that is all of it, in order, as a reshape."""
    if offset == 0 and strides == contiguous_strides(shape) and np.prod(shape) == size:
        return Reshape.of(shape)
    return Strided.of(offset, strides, shape)


def _position(tensors: list[Tensor], x: Tensor) -> int:
    return next(k for k, t in enumerate(tensors) if t is x)


def _address(x: Tensor) -> int:
    assert x.array is not None
    return int(x.array.__array_interface__["data"][0])
