"""Joining and splitting: cat, stack, split, and what is made of them: roll, tile."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from dualgrad.compiler.ir.dims import Dim, Offset, same
from dualgrad.compiler.ir.node import Node
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import Value, apply, dim_text, public
from dualgrad.compiler.ops.base import (
    FIRST,
    axis_argument,
    normalize_axis,
    other_name,
    result_dtype,
)
from dualgrad.compiler.ops.composite import composite, raw
from dualgrad.compiler.ops.create import Iota
from dualgrad.compiler.ops.elementwise import cast_node, copy
from dualgrad.compiler.ops.gather import take
from dualgrad.compiler.ops.operands import check_tensors
from dualgrad.compiler.ops.region import Part, Region
from dualgrad.compiler.ops.sample import Arg, Sample, samples_of
from dualgrad.compiler.ops.search import searchsorted
from dualgrad.compiler.ops.slicing import narrow, select
from dualgrad.compiler.ops.view import expand, expand_to
from dualgrad.runtime.dtype import int8, int64
from dualgrad.runtime.errors import ArgumentError, ShapeError


class Concat(Region):
    """Tensors one after another along an axis; their dtypes promote."""

    axis: int

    def prepare(self, *nodes: Node) -> tuple[Node, ...]:
        dtype = result_dtype(self.name, [n.type for n in nodes])
        return tuple(cast_node(n, dtype) for n in nodes)

    def infer(self, *types: TensorType) -> TensorType:
        shape = list(types[0].shape)
        for t in types[1:]:
            shape[self.axis] = shape[self.axis] + t.shape[self.axis]
        return types[0].with_shape(tuple(shape))

    def parts(self, *shapes: tuple[Dim, ...]) -> tuple[Part, ...]:
        def moved(offset: Dim) -> Any:
            return lambda i: (*i[: self.axis], offset + i[self.axis], *i[self.axis + 1 :])

        sizes = [s[self.axis] for s in shapes]
        starts = accumulate(sizes, initial=0)
        return tuple(
            Part(k, s, moved(o)) for k, (s, o) in enumerate(zip(shapes, starts, strict=False))
        )

    def vjp(self, g: Any, out: Any, *xs: Any) -> tuple[Any, ...]:
        sizes = [x.shape[self.axis] for x in xs]
        starts = accumulate(sizes, initial=0)
        return tuple(narrow(g, self.axis, o, n) for o, n in zip(starts, sizes, strict=False))

    @staticmethod
    def samples() -> list[Sample]:
        def case(axis: int, *args: Arg) -> Sample:
            return Sample(lambda *xs: cat(xs, axis), args, lambda np, *xs: np.concatenate(xs, axis))

        bad = Sample(
            lambda x, y: cat([x, y], 1),
            (Arg((2, 3)), Arg((3, 3))),
            error=ValueError,
            match=r"\[cat\] shapes differ outside of the axis",
        )
        return [
            case(0, Arg((3,)), Arg((4,)), Arg((1,))),
            case(1, Arg((2, 3, 4)), Arg((2, 1, 4)), Arg((2, 0, 4))),
            case(-1, Arg((4, 6), layout="transposed"), Arg((4, 2), layout="strided")),
            case(0, Arg((2, 3), int64, values=(1, 2, 3))),
            case(0, Arg((2, 3)), Arg((1, 3), int8, values=(1, 2, 3))),
            bad,
        ]


def _tensors(op: str, tensors: Any) -> list[Any]:
    xs = list(tensors) if isinstance(tensors, Sequence) else [tensors]
    if not xs:
        raise ArgumentError(
            "nothing to join",
            op=op,
            expect="at least one tensor",
            actual="none",
            hint="check that the list is not empty",
        )
    check_tensors(op, *xs)
    return xs


def cat(tensors: Any, axis: Any = FIRST, **dim: Any) -> Any:
    """Return tensors [..., n_k, ...] joined along `axis`: [..., sum of n_k, ...], dtypes promoted.

    Raises ShapeError if other sizes or the numbers of dimensions differ.
    """
    xs = _tensors("cat", tensors)
    axis = axis_argument("cat", axis, dim)
    if axis is None:
        xs, axis = [x.reshape((x.size,)) for x in xs], 0
    axis = normalize_axis("cat", axis, xs[0].ndim)
    first = xs[0].shape
    for x in xs[1:]:
        fits = x.ndim == len(first) and all(
            k == axis or same(n, m) for k, (n, m) in enumerate(zip(x.shape, first, strict=False))
        )
        if not fits:
            raise ShapeError(
                "shapes differ outside of the axis",
                op="cat",
                expect=f"{dim_text(first)} but for axis {axis}",
                actual=dim_text(x.shape),
                hint="reshape or pad the others, or join along the axis that differs",
            )
    return apply(Concat.of(axis), *xs)[0]


def stack(tensors: Any, axis: Any = FIRST, **dim: Any) -> Any:
    """Return tensors of one shape side by side along a new axis.

    Raises ShapeError if their shapes differ.
    """
    xs = _tensors("stack", tensors)
    axis = normalize_axis("stack", axis_argument("stack", axis, dim), xs[0].ndim + 1)
    for x in xs[1:]:
        if x.shape != xs[0].shape:
            raise ShapeError(
                "shapes differ",
                op="stack",
                expect=dim_text(xs[0].shape),
                actual=dim_text(x.shape),
                hint="reshape them to one shape, or join them with dg.cat",
            )
    return cat([x.unsqueeze(axis) for x in xs], axis)


def hstack(tensors: Any) -> Any:
    """Return tensors joined along axis 1; those of one dimension along axis 0."""
    xs = [x.reshape((1,)) if x.ndim == 0 else x for x in _tensors("hstack", tensors)]
    return cat(xs, 0 if xs[0].ndim == 1 else 1)


def vstack(tensors: Any) -> Any:
    """Return tensors joined along axis 0; those of one dimension become rows."""
    xs = _tensors("vstack", tensors)
    return cat([x.reshape((1, x.size)) if x.ndim < 2 else x for x in xs], 0)


@public("split")
def split(x: Any, parts: Any, axis: Any = FIRST, **dim: Any) -> tuple[Any, ...]:
    """Return views of x along `axis`: each of `parts` elements (the last may have fewer), or
    of the sizes in `parts`.

    Raises ShapeError if sizes do not add up to the axis.
    """
    check_tensors("split", x)
    axis = normalize_axis("split", axis_argument("split", axis, dim), x.ndim)
    return _several(x, _split(x, parts, axis))


def _several(x: Any, parts: tuple[Any, ...]) -> tuple[Any, ...]:
    """Views of x that one function makes."""
    return tuple(part if part is x else part.one_of_several() for part in parts)


def _split(x: Any, parts: Any, axis: int) -> tuple[Any, ...]:
    n = x.shape[axis]
    if isinstance(parts, int):
        if parts < 1:
            raise ArgumentError(
                "parts have elements",
                op="split",
                expect="a size >= 1",
                actual=str(parts),
                hint="give the size of a part; chunk takes the number of parts",
            )
        sizes = [min(parts, n - start) for start in range(0, n, parts)] or [0]
    else:
        sizes = list(parts)
    if sum(sizes) != n or any(s < 0 for s in sizes):
        raise ShapeError(
            "the sizes do not cover the axis",
            op="split",
            expect=f"sizes that add up to {n}",
            actual=str(sizes),
            hint="give one int for parts of equal size",
        )
    starts = accumulate(sizes, initial=0)
    return tuple(narrow(x, axis, o, s) for o, s in zip(starts, sizes, strict=False))


@public("chunk")
def chunk(x: Any, chunks: int, axis: Any = FIRST, **dim: Any) -> tuple[Any, ...]:
    """Return at most `chunks` views of equal size along `axis`; the last may be smaller."""
    check_tensors("chunk", x)
    axis = normalize_axis("chunk", axis_argument("chunk", axis, dim), x.ndim)
    if chunks < 1:
        raise ArgumentError(
            "no chunks",
            op="chunk",
            expect="chunks >= 1",
            actual=str(chunks),
            hint="chunks is how many parts there should be",
        )
    return split(x, max(1, -(-x.shape[axis] // chunks)), axis)


@public("tensor_split")
def tensor_split(x: Any, parts: Any, axis: Any = FIRST, **dim: Any) -> tuple[Any, ...]:
    """Return views of x along `axis`, cut into `parts` of nearly equal size, or before the
    positions in `parts`, as NumPy's array_split."""
    check_tensors("tensor_split", x)
    axis = normalize_axis("tensor_split", axis_argument("tensor_split", axis, dim), x.ndim)
    n = x.shape[axis]
    parts = parts.tolist() if isinstance(parts, Value) else parts
    if isinstance(parts, int):
        if parts < 1:
            raise ArgumentError(
                "no parts",
                op="tensor_split",
                expect="parts >= 1",
                actual=str(parts),
                hint="give how many parts there should be, or the places to cut at",
            )
        size, rest = divmod(n, parts)
        return _split(x, [size + (k < rest) for k in range(parts)], axis)
    cuts = [0, *(slice(p).indices(n)[1] for p in parts), n]
    return tuple(
        narrow(x, axis, start, max(0, stop - start)) for start, stop in itertools.pairwise(cuts)
    )


@public("unbind")
def unbind(x: Any, axis: Any = FIRST, **dim: Any) -> tuple[Any, ...]:
    """Return a view of x for each index of `axis`, without that axis."""
    check_tensors("unbind", x)
    axis = normalize_axis("unbind", axis_argument("unbind", axis, dim), x.ndim)
    return _several(x, tuple(select(x, axis, k) for k in range(x.shape[axis])))


@composite
@raw
def _roll(x: Any, *, axes: tuple[int, ...], shifts: tuple[Offset, ...]) -> Any:
    for axis, shift in zip(axes, shifts, strict=True):
        rest = x.shape[axis] - shift
        x = cat([narrow(x, axis, rest, shift), narrow(x, axis, 0, rest)], axis)
    return x


@public("roll")
def roll(x: Any, shifts: Any, axis: Any = None, **dims: Any) -> Any:
    """Return x with elements moved up by `shifts` along `axis`, those pushed out coming in at the
    other end; without axes x is rolled as if flat.

    Raises ArgumentError unless there is one shift per axis.
    """
    check_tensors("roll", x)
    axis = axis_argument("roll", other_name("roll", "axis", axis, "dims", dims), dims)
    if axis is None:
        return roll(x.reshape((x.size,)), shifts, 0).reshape(x.shape)
    named = axis if isinstance(axis, tuple | list) else (axis,)
    amounts = shifts if isinstance(shifts, tuple | list) else (shifts,) * len(named)
    if len(amounts) != len(named):
        raise ArgumentError(
            "shifts and axes do not fit",
            op="roll",
            expect="one shift per axis",
            actual=f"shifts={shifts}, axis={axis}",
            hint="give as many axes as shifts",
        )
    axes = [normalize_axis("roll", a, x.ndim) for a in named]
    pairs = zip(axes, amounts, strict=True)
    moves = [(a, s % n) for a, s in pairs if (n := x.shape[a]) and s % n]
    if not moves:
        return copy(x)
    return _roll(x, axes=tuple(a for a, _ in moves), shifts=tuple(s for _, s in moves))


@composite
@raw
def _tile(x: Any, *, counts: tuple[Dim, ...]) -> Any:
    between = tuple(n for size in x.shape for n in (1, size))
    full = tuple(n for count, size in zip(counts, x.shape, strict=True) for n in (count, size))
    merged = tuple(c * n for c, n in zip(counts, x.shape, strict=True))
    return copy(expand_to(x.reshape(between), full)).reshape(merged)


@public("tile", "repeat")
def tile(x: Any, *counts: Any) -> Any:
    """Return x repeated counts[k] times along axis k; missing counts on the left are 1, and so
    are missing axes of x, as in NumPy."""
    check_tensors("tile", x)
    repeats = tuple(counts[0]) if counts and isinstance(counts[0], tuple | list) else counts
    if any(isinstance(c, bool) or not isinstance(c, int) or c < 0 for c in repeats):
        raise ArgumentError(
            "counts are natural",
            op="tile",
            expect="ints >= 0",
            actual=f"{counts}",
            hint="a count says how often to repeat along its axis",
        )
    x = x.reshape((*(1,) * (len(repeats) - x.ndim), *x.shape))
    return _tile(x, counts=(*(1,) * (x.ndim - len(repeats)), *repeats))


@composite
@raw
def _repeat_interleave(x: Any, *, count: Dim, axis: int) -> Any:
    n = x.shape[axis]
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    one = x.reshape((*before, n, 1, *after))
    return copy(expand_to(one, (*before, n, count, *after))).reshape((*before, n * count, *after))


@composite
@raw
def _repeat_each(x: Any, repeats: Any, *, total: Dim, axis: int) -> Any:
    n = x.shape[axis]
    ends = expand_to(cast_node(repeats, int64), (n,)).cumsum(0)
    return take(x, searchsorted(ends, Iota.of((total,), 0).on(), right=True), axis)


@public("repeat_interleave")
def repeat_interleave(
    x: Any, repeats: Any, axis: Any = None, *, output_size: int | None = None, **dim: Any
) -> Any:
    """Return x with each element repeated `repeats` times along `axis` (None: of flat x).

    `repeats` is a number or a tensor of integers, [1] or one for each element of the axis.  For a
    tensor the size of the result is `output_size`, which must be the sum of all repeats; without
    it the sum is asked for its value.
    """
    check_tensors("repeat_interleave", x)
    axis = axis_argument("repeat_interleave", axis, dim)
    if isinstance(repeats, Value):
        return _repeated_each(x, repeats, axis, output_size)
    if isinstance(repeats, bool) or not isinstance(repeats, int) or repeats < 0:
        raise ArgumentError(
            "the count is no natural number",
            op="repeat_interleave",
            expect="an int >= 0",
            actual=repr(repeats),
            hint="give an int, or a tensor with one count per element",
        )
    if axis is None:
        x, axis = x.reshape((x.size,)), 0
    axis = normalize_axis("repeat_interleave", axis, x.ndim)
    return _repeat_interleave(x, count=repeats, axis=axis)


def _repeated_each(x: Any, repeats: Any, axis: Any, total: int | None) -> Any:
    if axis is None or x.ndim == 0:
        x, axis = x.reshape((x.size,)), 0
    axis = normalize_axis("repeat_interleave", axis, x.ndim)
    n = x.shape[axis]
    if (
        repeats.ndim > 1
        or not repeats.dtype.is_int
        or not (repeats.size == 1 or same(repeats.size, n))
    ):
        raise ArgumentError(
            "the counts do not fit",
            op="repeat_interleave",
            expect=f"integers ({n},) or (1,)",
            actual=f"{repeats.dtype.name} {dim_text(repeats.shape)}",
            hint="give one count per element of the axis",
        )
    if total is None:
        total = int(expand(repeats, (n,)).sum().item())
    return _repeat_each(x, repeats, total=total, axis=axis)


def _over(function: Any, *cases: tuple[Any, ...]) -> list[Sample]:
    """Samples of functions whose parameters NumPy's function of that name takes as well."""

    def case(shape: tuple[int, ...], name: str, *rest: Any) -> Sample:
        return Sample(
            lambda x: function(x, *rest), (Arg(shape),), lambda np, x: getattr(np, name)(x, *rest)
        )

    return [case(*c) for c in cases]


@samples_of(stack)
def _stack_samples() -> list[Sample]:
    bad = Sample(
        lambda x, y: stack([x, y]), (Arg((2,)), Arg((3,))), error=ValueError, match="shapes differ"
    )
    pair = (Arg((2, 3)), Arg((2, 3)))
    good = [
        Sample(lambda x, y, k=k: stack([x, y], k), pair, lambda np, x, y, k=k: np.stack([x, y], k))
        for k in (0, 1, -1)
    ]
    return [*good, bad]


@samples_of(roll)
def _roll_samples() -> list[Sample]:
    bad = Sample(
        lambda x: roll(x, (1, 2), 0), (Arg((2, 3)),), error=ValueError, match="one shift per axis"
    )
    cases = [((7,), "roll", 2), ((3, 5), "roll", -1, 1), ((3, 5), "roll", (4, -7), (0, 1))]
    return [*_over(roll, *cases, ((3, 5), "roll", 8), ((0, 3), "roll", 1, 0)), bad]


@samples_of(tile)
def _tile_samples() -> list[Sample]:
    cases = [((3,), "tile", (2,)), ((2, 3), "tile", (2, 1, 3)), ((2, 3), "tile", (2,))]
    bad = Sample(lambda x: tile(x, -1), (Arg((2,)),), error=ValueError, match="counts are natural")
    return [*_over(tile, *cases, ((2, 3), "tile", (0, 2)), ((), "tile", (3,))), bad]


@samples_of(repeat_interleave)
def _repeat_interleave_samples() -> list[Sample]:
    cases = [((3,), "repeat", 2, 0), ((2, 3), "repeat", 3, 1), ((2, 3), "repeat", 2)]

    def each(counts: tuple[int, ...], **size: int) -> Sample:
        return Sample(
            lambda x, n: repeat_interleave(x, n, 1, **size),
            (Arg((2, 3)), Arg((len(counts),), int64, values=counts)),
            lambda np, x, n: np.repeat(x, n, 1),
        )

    bad = Sample(
        lambda x, n: repeat_interleave(x, n, 0),
        (Arg((3,)), Arg((2,), int64)),
        error=ValueError,
        match="counts do not fit",
    )
    return [
        *_over(repeat_interleave, *cases, ((2, 0), "repeat", 2, 0)),
        each((0, 1, 2), output_size=3),
        each((2,), output_size=6),
        bad,
    ]


def _pieces(function: Any, parts: Any, reference: Any) -> list[Sample]:
    """Each of the pieces of [2, 5], split along its last axis."""
    return [
        Sample(
            lambda x, k=k: function(x, parts, 1)[k],
            (Arg((2, 5)),),
            lambda np, x, k=k: reference(np, x)[k],
        )
        for k in (0, -1)
    ]


@samples_of(split)
def _split_samples() -> list[Sample]:
    bad = Sample(
        lambda x: split(x, (2, 2))[0], (Arg((5,)),), error=ValueError, match="do not cover the axis"
    )
    even = _pieces(split, 2, lambda np, x: np.split(x, (2, 4), 1))
    return [*even, *_pieces(split, (1, 4), lambda np, x: np.split(x, (1,), 1)), bad]


@samples_of(chunk)
def _chunk_samples() -> list[Sample]:
    bad = Sample(lambda x: chunk(x, 0)[0], (Arg((5,)),), error=ValueError, match="chunk")
    return [*_pieces(chunk, 3, lambda np, x: np.split(x, (2, 4), 1)), bad]


@samples_of(tensor_split)
def _tensor_split_samples() -> list[Sample]:
    even = _pieces(tensor_split, 3, lambda np, x: np.array_split(x, 3, 1))
    return [*even, *_pieces(tensor_split, (1, 2), lambda np, x: np.array_split(x, (1, 2), 1))]


@samples_of(unbind)
def _unbind_samples() -> list[Sample]:
    good = [
        Sample(lambda x, k=k: unbind(x, 1)[k], (Arg((2, 3)),), lambda np, x, k=k: x[:, k])
        for k in (0, -1)
    ]
    bad = Sample(lambda x: unbind(x, 2)[0], (Arg((2, 3)),), error=ValueError, match="out of range")
    return [*good, bad]
