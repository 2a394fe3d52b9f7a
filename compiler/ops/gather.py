"""Reading at computed positions: take, gather and their kin."""

from __future__ import annotations

from typing import Any

from dualgrad.compiler.ir.dims import product, same
from dualgrad.compiler.ir.node import Node
from dualgrad.compiler.ir.refusal import not_a_tensor
from dualgrad.compiler.ir.value import Value, dim_text, public
from dualgrad.compiler.ops.base import (
    LAST,
    axis_argument,
    axis_of,
    broadcast_shapes,
    normalize_axis,
)
from dualgrad.compiler.ops.composite import composite, raw
from dualgrad.compiler.ops.operands import check_tensors
from dualgrad.compiler.ops.sample import Arg, Sample, samples_of
from dualgrad.compiler.ops.slicing import Slice
from dualgrad.compiler.ops.take_put import Take
from dualgrad.compiler.ops.view import expand_to
from dualgrad.runtime.dtype import int64
from dualgrad.runtime.errors import DTypeError, ShapeError


def check_index(op: str, idx: Any) -> None:
    """Refuse an index that holds no integers (a Python int is one)."""
    if isinstance(idx, int) and not isinstance(idx, bool):
        return
    if not isinstance(idx, Value):
        raise not_a_tensor(op, idx, "int or Tensor of integers")
    if not idx.dtype.is_int:
        raise DTypeError(
            "positions are integers",
            op=op,
            expect="a tensor of an integer dtype",
            actual=idx.dtype.name,
            hint="a bool mask goes into x[mask] or masked_select",
        )


def split_at(x: Any, axis: int) -> Any:
    """x as [outer, n, inner] around an axis."""
    shape = x.shape
    return x.reshape((product(shape[:axis]), shape[axis], product(shape[axis + 1 :])))


def along(idx: Any, axis: int, shape: tuple[Any, ...]) -> Any:
    """An index broadcast to `shape` beside its axis, as [outer or 1, k, inner or 1]."""
    own = idx.shape
    before = (1,) * axis if all(n == 1 for n in own[:axis]) else shape[:axis]
    after = own[axis + 1 :]
    after = (1,) * len(after) if all(n == 1 for n in after) else shape[axis + 1 :]
    return split_at(expand_to(idx, (*before, own[axis], *after)), axis)


@composite
@raw
def _take(x: Node, idx: Node, *, axis: int) -> Any:
    positions = idx.reshape((1, idx.size, 1))
    out = Take.of(axis).on(split_at(x, axis), positions)
    return out.reshape((*x.shape[:axis], *idx.shape, *x.shape[axis + 1 :]))


@public("take")
def take(x: Any, indices: Any, axis: Any = None, **dim: Any) -> Any:
    """Return the elements of x at positions `indices` (integers of any shape) along `axis`.

    x [..., n, ...] and indices [...] give x's shape with `axis` replaced by the shape of
    `indices`; without an axis x is taken flat.  Negative positions count from the end.  Raises
    DTypeError for other than integers, IndexOutOfBounds for positions outside of [-n, n).  The
    gradient of an element is the sum over the places it went to, in their order.
    """
    check_tensors("take", x)
    chosen = axis_argument("take", axis, dim)
    check_index("take", indices)
    if chosen is None:
        x, chosen = x.reshape((x.size,)), 0
    return _take(x, indices, axis=normalize_axis("take", chosen, x.ndim))


@public("index_select")
def index_select(x: Any, dim: int, index: Any) -> Any:
    """Return the slices of x at positions `index` [k] along `dim`; see `take`."""
    check_tensors("index_select", x)
    check_index("index_select", index)
    if getattr(index, "ndim", 0) != 1:
        raise ShapeError(
            "positions stand in one dimension",
            op="index_select",
            expect="an index of shape (k,)",
            actual=dim_text(getattr(index, "shape", ())),
            hint="flatten the index with .reshape(-1)",
        )
    axis = axis_of("index_select", dim, x.ndim)
    if x.ndim == 0:
        return _take(x.reshape((1,)), index, axis=axis).reshape(())
    return _take(x, index, axis=axis)


@composite
@raw
def _take_along_axis(x: Node, idx: Node, *, axis: int) -> Any:
    shapes = [(*s[:axis], 1, *s[axis + 1 :]) for s in (x.shape, idx.shape)]
    full = broadcast_shapes("take_along_axis", shapes)
    out = (*full[:axis], idx.shape[axis], *full[axis + 1 :])
    x = expand_to(x, (*full[:axis], x.shape[axis], *full[axis + 1 :]))
    return Take.of(axis).on(split_at(x, axis), along(idx, axis, full)).reshape(out)


@public("take_along_axis")
def take_along_axis(x: Any, indices: Any, axis: Any = LAST, **dim: Any) -> Any:
    """Return out[..., k, ...] = x[..., indices[..., k, ...], ...] along `axis`.

    Both have the same number of dimensions and broadcast against each other in all others; with
    axis=None both are taken flat.  Errors and gradient as in `take`.
    """
    chosen = axis_argument("take_along_axis", axis, dim)
    check_index("take_along_axis", indices)
    if chosen is None:
        x, indices, chosen = x.reshape((x.size,)), indices.reshape((indices.size,)), 0
    check_rank("take_along_axis", x, indices)
    return _take_along_axis(x, indices, axis=normalize_axis("take_along_axis", chosen, x.ndim))


def check_rank(op: str, x: Any, idx: Any) -> None:
    check_tensors(op, x)
    if getattr(idx, "ndim", 0) != x.ndim:
        raise ShapeError(
            "tensor and index have different numbers of dimensions",
            op=op,
            expect=f"an index of {x.ndim} dimensions",
            actual=dim_text(getattr(idx, "shape", ())),
            hint="add dimensions to the index with unsqueeze",
        )


@public("gather")
def gather(x: Any, dim: int, index: Any) -> Any:
    """Return out[i, j, ...] = x[index[i, j, ...], j, ...] for dim=0, and so on (PyTorch's
    `gather`): the shape is that of `index`, whose other sizes may be smaller than x's.  Nothing is
    read for an index without elements, of any shape; a number is read as a row of one.

    Errors and gradient as in `take`.
    """
    check_tensors("gather", x)
    check_index("gather", index)
    axis = axis_of("gather", dim, x.ndim)
    if index.size == 0 or (x.ndim == 0 and index.ndim < 2):
        return _take(x.reshape((x.size,)), index, axis=0)
    check_rank("gather", x, index)
    check_inside("gather", "tensor", index, x, axis)
    return _gather(x, index, axis=axis)


@composite
@raw
def _gather(x: Node, idx: Node, *, axis: int) -> Any:
    corner = corner_of(x, idx, axis)
    if corner is not None:
        x = corner.on(x)
    return Take.of(axis).on(split_at(x, axis), split_at(idx, axis)).reshape(idx.shape)


def check_inside(op: str, what: str, index: Any, x: Any, axis: int | None) -> None:
    """Refuse an index that is longer than a tensor along another axis than the one it indexes."""
    sizes = [p for k, p in enumerate(zip(index.shape, x.shape, strict=True)) if k != axis]
    if any(isinstance(n, int) and isinstance(m, int) and n > m for n, m in sizes):
        raise ShapeError(
            f"the index is larger than the {what}",
            op=op,
            expect=f"at most {dim_text(x.shape)}" + ("" if axis is None else f", but along {axis}"),
            actual=dim_text(index.shape),
            hint="take a part of the index, or expand the tensor first",
        )


def corner_of(x: Any, idx: Any, axis: int | None) -> Slice | None:
    """The first elements of x, as many as an index has along each axis but `axis`; None if these
    are all."""
    pairs = enumerate(zip(x.shape, idx.shape, strict=True))
    sizes = tuple(n if k == axis else m for k, (n, m) in pairs)
    if all(same(n, m) for n, m in zip(sizes, x.shape, strict=True)):
        return None
    return Slice.of((0,) * x.ndim, (1,) * x.ndim, sizes)


@samples_of(take)
def _take_cases() -> list[Sample]:
    where = Arg((2, 3), int64, values=(0, -1, 2, 1))
    cases: list[tuple[tuple[int, ...], Any]] = [((5,), 0), ((4, 5), 1), ((3, 4, 2), -2)]
    good = [
        Sample(
            lambda x, i, a=a: take(x, i, a),
            (Arg(s, layout=way), where),
            lambda np, x, i, a=a: np.take(x, i % (x.size if a is None else x.shape[a]), a),
        )
        for s, a in [*cases, ((3, 4), None)]
        for way in ("contiguous", "strided")
    ]
    number = Sample(lambda x: take(x, -2, 1), (Arg((3, 4)),), lambda np, x: np.take(x, -2, 1))
    bad = [
        ((Arg((3,)), Arg((2,), int64, values=(0, 3))), IndexError, r"expect: -3 <= .* < 3"),
        ((Arg((3,)), Arg((2,))), TypeError, r"positions are integers"),
    ]
    return [*good, number, *(Sample(take, a, error=e, match=m) for a, e, m in bad)]


@samples_of(index_select)
def _index_select_cases() -> list[Sample]:
    args = (Arg((3, 4)), Arg((5,), int64, values=(3, 0, 1)))
    good = Sample(lambda x, i: index_select(x, 1, i), args, lambda np, x, i: x[:, i])
    bad = (Arg((3, 4)), Arg((5, 1), int64))
    return [
        good,
        Sample(lambda x, i: index_select(x, 1, i), bad, error=ValueError, match="one dimension"),
    ]


@samples_of(take_along_axis)
def _take_along_axis_cases() -> list[Sample]:
    where = Arg((3, 2), int64, values=(0, -1, 2, 1))
    cases = [
        (Arg((3, 4)), where, 1),
        (Arg((1, 4)), where, 1),
        (Arg((3, 4)), Arg((1, 4), int64, values=(2, 0)), 0),
    ]
    bad = (Arg((3, 4)), Arg((2,), int64))
    return [
        *(
            Sample(
                lambda x, i, a=a: take_along_axis(x, i, a),
                (x, i),
                lambda np, x, i, a=a: np.take_along_axis(x, i % x.shape[a], a),
            )
            for x, i, a in cases
        ),
        Sample(take_along_axis, bad, error=ValueError, match="different numbers of dimensions"),
    ]


@samples_of(gather)
def _gather_cases() -> list[Sample]:
    def reference(np: Any, x: Any, index: Any, dim: int) -> Any:
        out = np.empty(index.shape, x.dtype)
        for at in np.ndindex(*index.shape):
            place = list(at)
            place[dim] = index[at] % x.shape[dim]
            out[at] = x[tuple(place)]
        return out

    cases = [(Arg((3, 4)), Arg((5, 4), int64, values=(2, 0, 1)), 0)]
    cases += [(Arg((3, 4)), Arg((2, 7), int64, values=(3, 0, -1)), 1)]
    cases += [(Arg((6,), layout="strided"), Arg((9,), int64, -6, 6), 0)]
    bad = (Arg((3, 4)), Arg((4, 4), int64))
    return [
        *(
            Sample(
                lambda x, i, d=d: gather(x, d, i),
                (x, i),
                lambda np, x, i, d=d: reference(np, x, i, d),
            )
            for x, i, d in cases
        ),
        Sample(lambda x, i: gather(x, 1, i), bad, error=ValueError, match="larger than the tensor"),
    ]
