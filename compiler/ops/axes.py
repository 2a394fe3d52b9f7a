"""Functions that move, add and merge axes: views made of reshape, permute and expand."""

from __future__ import annotations

from typing import Any

from dualgrad.compiler.ir.dims import product
from dualgrad.compiler.ir.node import as_node
from dualgrad.compiler.ir.value import dim_text, public
from dualgrad.compiler.ops.base import (
    LAST,
    LAST_BUT_ONE,
    axis_pair,
    broadcast_shapes,
    normalize_axis,
)
from dualgrad.compiler.ops.composite import composite, raw
from dualgrad.compiler.ops.elementwise import cast_node, copy
from dualgrad.compiler.ops.operands import check_tensors
from dualgrad.compiler.ops.region import Overwrite
from dualgrad.compiler.ops.sample import Arg, Sample, samples_of
from dualgrad.compiler.ops.slicing import Diagonal, diagonal, flip
from dualgrad.compiler.ops.view import expand, expand_to, permute, reshape
from dualgrad.runtime.errors import ShapeError


def _axes(op: str, axes: Any, ndim: int) -> list[int]:
    named = axes if isinstance(axes, tuple | list) else (axes,)
    found = [normalize_axis(op, a, ndim) for a in named]
    if len(set(found)) != len(found):
        raise ShapeError(
            "an axis is named twice",
            op=op,
            expect="distinct axes",
            actual=f"{axes}",
            hint="name each axis once; -1 is the last one",
        )
    return found


@public("ravel")
def ravel(x: Any) -> Any:
    """Return x as one dimension, elements in row-major order; shares memory where it can."""
    check_tensors("ravel", x)
    return reshape(x, (x.size,))


@public("unflatten")
def unflatten(x: Any, axis: int, sizes: tuple[int, ...]) -> Any:
    """Return x with one dimension split into several; one of `sizes` may be -1."""
    check_tensors("unflatten", x)
    axis = normalize_axis("unflatten", axis, x.ndim)
    sizes, n = tuple(sizes), x.shape[axis]
    if sizes.count(-1) == 1:
        rest = product(s for s in sizes if s != -1)
        sizes = tuple(n // rest if s == -1 else s for s in sizes)
    if product(sizes) != n:
        raise ShapeError(
            "sizes differ",
            op="unflatten",
            expect=f"sizes whose product is {n}",
            actual=dim_text(sizes),
            hint="give -1 for one size, to have it worked out",
        )
    return reshape(x, (*x.shape[:axis], *sizes, *x.shape[axis + 1 :]))


@public("movedim", "moveaxis")
def movedim(x: Any, source: Any, destination: Any) -> Any:
    """Return x with the axes `source` moved to the places `destination`, the others in order.

    Raises ShapeError unless both name equally many distinct axes.
    """
    check_tensors("movedim", x)
    old, new = _axes("movedim", source, x.ndim), _axes("movedim", destination, x.ndim)
    if len(old) != len(new):
        raise ShapeError(
            "places and axes do not fit",
            op="movedim",
            expect=f"{len(old)} places",
            actual=f"{destination}",
            hint="give as many destinations as sources",
        )
    order = [a for a in range(x.ndim) if a not in old]
    for place, axis in sorted(zip(new, old, strict=True)):
        order.insert(place, axis)
    return permute(x, tuple(order))


@public("matrix_transpose", "adjoint")
def matrix_transpose(x: Any) -> Any:
    """Return x [..., M, N] with its last two axes swapped, sharing memory."""
    check_tensors("matrix_transpose", x)
    if x.ndim < 2:
        raise ShapeError(
            "no matrix",
            op="matrix_transpose",
            expect="at least two dimensions",
            actual=dim_text(x.shape),
            hint="make a row with x.unsqueeze(0), a column with x.unsqueeze(1)",
        )
    return permute(x, (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


@public("t")
def _t(x: Any) -> Any:
    """Return a matrix with its axes swapped, a vector or a number as it is; shares memory.

    Raises ShapeError for more than two dimensions.
    """
    if x.ndim > 2:
        raise ShapeError(
            "no matrix",
            op="t",
            expect="at most two dimensions",
            actual=dim_text(x.shape),
            hint="use matrix_transpose() for the last two axes, transpose(a, b) for two others",
        )
    return permute(x, tuple(reversed(range(x.ndim))))


def broadcast_shape(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape that shapes broadcast to.  Raises ShapeError if they do not."""
    return broadcast_shapes("broadcast_shapes", [tuple(s) for s in shapes])  # type: ignore[return-value]


def broadcast_tensors(*tensors: Any) -> tuple[Any, ...]:
    """Return the tensors expanded to their common shape, sharing memory."""
    check_tensors("broadcast_tensors", *tensors)
    shape = broadcast_shapes("broadcast_tensors", [x.shape for x in tensors])
    return tuple(expand(x, shape) for x in tensors)


@public("rot90")
def rot90(x: Any, k: int = 1, axes: tuple[int, int] = (0, 1)) -> Any:
    """Return x turned by k times 90 degrees from the first of two axes towards the second, as a
    copy."""
    check_tensors("rot90", x)
    first, second = _axes("rot90", axes, x.ndim)
    order = list(range(x.ndim))
    order[first], order[second] = second, first
    if k % 4 == 0:
        return copy(x)
    if k % 4 == 2:
        return flip(x, (first, second))
    return (
        permute(flip(x, second), tuple(order))
        if k % 4 == 1
        else flip(permute(x, tuple(order)), second)
    )


@composite
@raw
def _diag_embed(x: Any, *, offset: int, first: int, second: int) -> Any:
    n = x.shape[-1] + abs(offset)
    row, column = (-offset, 0) if offset < 0 else (0, offset)
    shape = list(x.shape[:-1])
    for axis in sorted((first, second)):
        shape.insert(axis, n)
    base = expand_to(cast_node(as_node(0), x.dtype), tuple(shape))
    return Overwrite.of(Diagonal.of(first, second, row, column, x.shape[-1])).on(base, x)


@public("diag_embed")
def diag_embed(
    x: Any, offset: int = 0, axis1: int = LAST_BUT_ONE, axis2: int = LAST, **dims: Any
) -> Any:
    """Return zeros with the last axis of x on the diagonal of two new axes."""
    check_tensors("diag_embed", x)
    axes = axis_pair("diag_embed", axis1, axis2, dims)
    first, second = _axes("diag_embed", axes, x.ndim + 1)
    return _diag_embed(x, offset=offset, first=first, second=second)


@public("diag")
def diag(x: Any, offset: int = 0) -> Any:
    """Return the diagonal of a matrix (a view), or the matrix with a vector on its diagonal.

    Raises ShapeError for other numbers of dimensions.
    """
    check_tensors("diag", x)
    if x.ndim not in (1, 2):
        raise ShapeError(
            "no vector and no matrix",
            op="diag",
            expect="one or two dimensions",
            actual=dim_text(x.shape),
            hint="dg.diagonal takes the diagonals of a batch of matrices, dg.diag_embed makes them",
        )
    return diagonal(x, offset) if x.ndim == 2 else diag_embed(x, offset)


@samples_of(movedim)
def _movedim_samples() -> list[Sample]:
    def case(source: Any, place: Any) -> Sample:
        return Sample(
            lambda x: movedim(x, source, place),
            (Arg((2, 3, 4)),),
            lambda np, x: np.moveaxis(x, source, place),
        )

    bad = Sample(
        lambda x: movedim(x, (0, 1), 0), (Arg((2, 3)),), error=ValueError, match="expect: 2 places"
    )
    return [case(0, -1), case((0, 1), (2, 0)), case(-1, 0), bad]


@samples_of(rot90)
def _rot90_samples() -> list[Sample]:
    return [
        Sample(lambda x, k=k: rot90(x, k), (Arg((2, 3)),), lambda np, x, k=k: np.rot90(x, k))
        for k in (0, 1, 2, 3, -1)
    ]


@samples_of(diag_embed)
def _diag_embed_samples() -> list[Sample]:
    def case(shape: tuple[int, ...], offset: int) -> Sample:
        def reference(np: Any, x: Any) -> Any:
            n = x.shape[-1] + abs(offset)
            out = np.zeros((*x.shape[:-1], n, n), x.dtype)
            i = np.arange(x.shape[-1])
            out[..., i + max(-offset, 0), i + max(offset, 0)] = x
            return out

        return Sample(lambda x: diag_embed(x, offset), (Arg(shape),), reference)

    return [case((3,), 0), case((2, 3), 1), case((2, 3), -2), case((1,), 0), case((0,), 0)]


@samples_of(diag)
def _diag_samples() -> list[Sample]:
    bad = Sample(diag, (Arg((2, 2, 2)),), error=ValueError, match="one or two dimensions")
    good = [
        Sample(lambda x, k=k: diag(x, k), (Arg(s),), lambda np, x, k=k: np.diag(x, k))
        for s, k in (((3,), 0), ((3,), 1), ((3, 4), 0), ((3, 4), -1))
    ]
    return [*good, bad]


@samples_of(ravel)
def _ravel_samples() -> list[Sample]:
    args = (Arg((2, 3)), Arg((3, 2), layout="transposed"), Arg(()))
    return [Sample(ravel, (a,), lambda np, x: np.ravel(x)) for a in args]


@samples_of(unflatten)
def _unflatten_samples() -> list[Sample]:
    bad = Sample(
        lambda x: unflatten(x, 0, (4, 2)), (Arg((6,)),), error=ValueError, match="sizes differ"
    )
    good = Sample(
        lambda x: unflatten(x, 1, (-1, 2)), (Arg((2, 6)),), lambda np, x: x.reshape(2, 3, 2)
    )
    return [good, bad]


@samples_of(matrix_transpose)
def _matrix_transpose_samples() -> list[Sample]:
    return [
        Sample(matrix_transpose, (Arg((2, 3, 4)),), lambda np, x: np.swapaxes(x, -1, -2)),
        Sample(matrix_transpose, (Arg((3,)),), error=ValueError, match="dimensions"),
    ]


@samples_of(broadcast_tensors)
def _broadcast_tensors_samples() -> list[Sample]:
    good = [
        Sample(
            lambda x, y, k=k: broadcast_tensors(x, y)[k],
            (Arg((3, 1)), Arg((2,))),
            lambda np, x, y, k=k: np.broadcast_arrays(x, y)[k],
            gradient=False,
        )
        for k in (0, 1)
    ]
    bad = Sample(
        lambda x, y: broadcast_tensors(x, y)[0],
        (Arg((3,)), Arg((2,))),
        error=ValueError,
        match="broadcast",
    )
    return [*good, bad]
