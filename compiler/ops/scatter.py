"""Writing at computed positions: new tensors in which some elements are replaced or added to.

Updates of one element are applied in their order along the axis, whatever the number of threads.
Gradients: see `take_put.Put`.  Tensors have most of these in place too: `x.index_add_(...)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dualgrad.compiler.ir.dims import same
from dualgrad.compiler.ir.node import Node
from dualgrad.compiler.ir.value import Value, dim_text, public
from dualgrad.compiler.kernel.scalar import Number
from dualgrad.compiler.ops.arguments import check_choice, refuse_bools
from dualgrad.compiler.ops.arithmetic import maximum
from dualgrad.compiler.ops.base import axis_of, normalize_axis, result_dtype
from dualgrad.compiler.ops.composite import composite, raw
from dualgrad.compiler.ops.elementwise import cast_node
from dualgrad.compiler.ops.gather import (
    along,
    check_index,
    check_inside,
    check_rank,
    corner_of,
    split_at,
)
from dualgrad.compiler.ops.operands import check_tensors
from dualgrad.compiler.ops.region import Overwrite
from dualgrad.compiler.ops.sample import Arg, Sample, samples_of
from dualgrad.compiler.ops.take_put import Put, constant_like
from dualgrad.compiler.ops.view import expand_to
from dualgrad.runtime.dtype import DType, bool_, float32, int32, int64, uint8
from dualgrad.runtime.errors import DTypeError, ShapeError

REDUCES = {"sum": "add", "prod": "mul", "mean": "add", "amax": "max", "amin": "min"}


# what sums and products of bools are, for bools as uint8
OF_BOOLS = {"add": "max", "mul": "min"}


def check_updates(op: str, x: Any, source: Any, how: str = "set") -> None:
    """Refuse updates of a wider dtype than that of the tensor, and `scatter_reduce` of bools."""
    if how != "set" and op == "scatter_reduce":
        refuse_bools(op, x.dtype)
    if not isinstance(source, bool | int | float):
        check_tensors(op, source)
    if isinstance(source, Value) and result_dtype(op, [x.type, source.type]) is not x.dtype:
        raise DTypeError(
            "the source does not fit the tensor",
            op=op,
            expect=f"{x.dtype.name}, or a dtype that it holds",
            actual=source.dtype.name,
            hint="convert it with source.to(x.dtype)",
        )


def _fitted(x: Node, idx: Node, source: Node) -> Any:
    """What is written: of the dtype of x and the shape of the index."""
    source = cast_node(source, x.dtype)
    if not source.ndim:
        return expand_to(source, idx.shape)
    corner = corner_of(source, idx, None)
    return source if corner is None else corner.on(source)


def _inside(x: Node, idx: Node, axis: int, change: Callable[[Any], Any]) -> Any:
    """x with the part that an index can reach changed."""
    corner = corner_of(x, idx, axis)
    return change(x) if corner is None else Overwrite.of(corner).on(x, change(corner.on(x)))


def _put(x: Any, idx: Any, source: Any, axis: int, how: str) -> Any:
    """Updates at an index of all of x's sizes but along the axis."""
    where_ = along(idx, axis, x.shape)
    return Put.of(axis, how).on(split_at(x, axis), where_, split_at(source, axis)).reshape(x.shape)


@composite
def _scatter(x: Node, idx: Node, source: Node, *, axis: int, how: str) -> Any:
    if x.dtype is bool_ and how != "set":
        x, source = cast_node(x, uint8), cast_node(cast_node(source, bool_), uint8)
        return _scatter(x, idx, source, axis=axis, how=OF_BOOLS[how]).ne(0)
    updates = _fitted(x, idx, source)
    return _inside(x, idx, axis, lambda part: _put(part, idx, updates, axis, how))


def _scattered(op: str, x: Any, dim: int, index: Any, source: Any, how: str) -> Any:
    check_tensors(op, x)
    if x.ndim == 0 and getattr(index, "ndim", 2) < 2:  # a number is a row of one element
        row = source.reshape((1,)) if getattr(source, "ndim", 1) == 0 else source
        x, index = x.reshape((1,)), index.reshape((index.size,))
        return _scattered(op, x, dim, index, row, how).reshape(())
    axis = _checked(op, x, dim, index, source, how)
    return _scatter(x, index, source, axis=axis, how=how)


def _checked(op: str, x: Any, dim: int, index: Any, source: Any, how: str) -> int:
    """The axis of a scatter, its arguments checked."""
    check_index(op, index)
    check_rank(op, x, index)
    axis = axis_of(op, dim, x.ndim)
    check_inside(op, "tensor", index, x, axis)
    if getattr(source, "ndim", 0):
        check_rank(op, source, index)
        check_inside(op, "source", index, source, None)
    check_updates(op, x, source, how)
    return axis


@public("scatter")
def scatter(x: Any, dim: int, index: Any, src: Any, *, reduce: str | None = None) -> Any:
    """Return x in which out[index[i, j], j] = src[i, j] for dim=0, and so on (PyTorch's).

    `index` has as many dimensions as x and may be smaller than x and `src` (a tensor or number);
    only that corner is used.  Of several values for one element the last one stays, and gets all
    of the gradient.  With `reduce` "add" or "multiply" all of them are added to x or multiplied.
    Raises IndexOutOfBounds for positions outside of [-n, n).
    """
    check_choice("scatter", "reduction", reduce or "add", ("add", "multiply"))
    how = {"add": "add", "multiply": "mul"}[reduce] if reduce else "set"
    return _scattered("scatter", x, dim, index, src, how)


@public("scatter_add")
def scatter_add(x: Any, dim: int, index: Any, src: Any) -> Any:
    """Return x to which `src` is added at `index`; see `scatter`."""
    return _scattered("scatter_add", x, dim, index, src, "add")


def _identity(dtype: DType, how: str) -> Number:
    """The number that changes nothing."""
    if how in ("add", "mul"):
        return 0 if how == "add" else 1
    if dtype.is_float:
        return float("-inf" if how == "max" else "inf")
    low = -(1 << (dtype.bits - 1)) if dtype.is_signed else 0
    return low if how == "max" else low + (1 << dtype.bits) - 1


@composite
def _scatter_reduce(
    x: Node, idx: Node, source: Node, *, axis: int, reduce: str, include_self: bool
) -> Any:
    updates, how = _fitted(x, idx, source), REDUCES[reduce]

    def change(part: Any) -> Any:
        base = part
        if not include_self:
            nothing = constant_like(updates, _identity(x.dtype, how))
            base = _put(part, idx, nothing, axis, "set")
        out = _put(base, idx, updates, axis, how)
        if reduce != "mean":
            return out
        counts = _put(
            constant_like(part, include_self), idx, constant_like(updates, 1), axis, "add"
        )
        return out / (counts if include_self else maximum(counts, 1.0))

    return _inside(x, idx, axis, change)


@public("scatter_reduce")
def scatter_reduce(
    x: Any, dim: int, index: Any, src: Any, reduce: str, include_self: bool = True
) -> Any:
    """Return x in which elements are reduced with those of `src` that `index` sends to them.

    `reduce` is "sum", "prod", "mean" (floats only), "amax" or "amin"; without `include_self` the
    old value of an element that is written to does not count.  Equal largest or smallest values
    share the gradient.  The rest as in `scatter`.
    """
    op = "scatter_reduce"
    check_choice(op, "reduce", reduce, tuple(REDUCES))
    axis = _checked(op, x, dim, index, src, REDUCES[reduce])
    if reduce == "mean" and not x.dtype.is_float:
        raise DTypeError(
            "a mean needs floats",
            op=op,
            expect="floats",
            actual=x.dtype.name,
            hint="convert with .astype(dg.float32)",
        )
    return _scatter_reduce(x, index, src, axis=axis, reduce=reduce, include_self=bool(include_self))


@composite
@raw
def _put_along_axis(x: Node, idx: Node, values: Node, *, axis: int) -> Any:
    shape = (*x.shape[:axis], idx.shape[axis], *x.shape[axis + 1 :])
    return _put(x, idx, expand_to(cast_node(values, x.dtype), shape), axis, "set")


@public("put_along_axis")
def put_along_axis(x: Any, indices: Any, values: Any, axis: int = -1) -> Any:
    """Return x in which out[..., indices[..., k, ...], ...] = values[..., k, ...] along `axis`.

    `indices` and `values` broadcast to x's other axes.  Unlike NumPy's it leaves x alone.
    """
    op = "put_along_axis"
    check_index(op, indices)
    check_rank(op, x, indices)
    check_updates(op, x, values)
    place = normalize_axis(op, axis, x.ndim)
    pairs = enumerate(zip(indices.shape, x.shape, strict=True))
    if not all(k == place or n == 1 or same(n, m) for k, (n, m) in pairs):
        raise ShapeError(
            "the index does not fit",
            op=op,
            expect=f"sizes that broadcast to {dim_text(x.shape)}, except along {place}",
            actual=dim_text(indices.shape),
            hint="reshape or expand the index",
        )
    given = getattr(values, "shape", ())
    full = (*x.shape[:place], indices.shape[place], *x.shape[place + 1 :])
    if len(given) > x.ndim or not all(
        n == 1 or same(n, m) for n, m in zip(reversed(given), reversed(full), strict=False)
    ):
        raise ShapeError(
            "the values do not fit",
            op=op,
            expect=f"a shape that broadcasts to {dim_text(full)}",
            actual=dim_text(given),
            hint="reshape the values, or give one number",
        )
    return _put_along_axis(x, indices, values, axis=place)


# -- slices at positions --------------------------------------------------------------------------


@composite
def _index_put(x: Any, idx: Any, source: Any, scale: Any, *, axis: int, how: str) -> Any:
    if x.dtype is bool_ and how != "set":
        x, added = cast_node(x, uint8), cast_node(source & cast_node(scale, bool_), uint8)
        return _index_put(x, idx, added, 1, axis=axis, how=OF_BOOLS[how]).ne(0)
    count = idx.shape[0]
    shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
    updates = cast_node(source, x.dtype)
    updates = updates if how == "set" else updates * cast_node(scale, x.dtype)
    parts = split_at(x, axis), idx.reshape((1, count, 1)), split_at(expand_to(updates, shape), axis)
    return Put.of(axis, how).on(*parts).reshape(x.shape)


def _index_checked(op: str, x: Any, dim: int, index: Any, source: Any, how: str) -> int:
    check_index(op, index)
    axis = normalize_axis(op, dim, x.ndim)
    if getattr(index, "ndim", 0) != 1:
        raise ShapeError(
            "positions stand in one dimension",
            op=op,
            expect="an index of shape (k,)",
            actual=dim_text(getattr(index, "shape", ())),
            hint="flatten the index; dg.scatter takes one of any shape",
        )
    shape = (*x.shape[:axis], index.shape[0], *x.shape[axis + 1 :])
    given = getattr(source, "shape", ())
    if given and not (
        len(given) == x.ndim and all(same(n, m) for n, m in zip(given, shape, strict=True))
    ):
        raise ShapeError(
            "the source does not fit",
            op=op,
            expect=dim_text(shape),
            actual=dim_text(given),
            hint="reshape the source",
        )
    check_updates(op, x, source, how)
    return axis


def _index_changed(op: str, x: Any, dim: int, index: Any, source: Any, scale: Any, how: str) -> Any:
    check_tensors(op, x)
    if x.ndim == 0:  # a number is a row of one element
        row = source.reshape((1,)) if getattr(source, "ndim", 1) == 0 else source
        return _index_changed(op, x.reshape((1,)), dim, index, row, scale, how).reshape(())
    axis = _index_checked(op, x, dim, index, source, how)
    return _index_put(x, index, source, scale, axis=axis, how=how)


@public("index_add")
def index_add(x: Any, dim: int, index: Any, source: Any, alpha: Any = 1) -> Any:
    """Return x to whose slices at positions `index` [k] along `dim` those of alpha * source are
    added, one after another.  Raises IndexOutOfBounds for positions outside of [-n, n)."""
    return _index_changed("index_add", x, dim, index, source, alpha, "add")


@public("index_copy")
def index_copy(x: Any, dim: int, index: Any, source: Any) -> Any:
    """Return x whose slices at positions `index` [k] along `dim` are those of `source`; of
    several for one position the last one.  Errors as in `index_add`."""
    return _index_changed("index_copy", x, dim, index, source, 1, "set")


@public("index_fill")
def index_fill(x: Any, dim: int, index: Any, value: Any) -> Any:
    """Return x whose slices at positions `index` [k] along `dim` hold one value (a number or a
    tensor without dimensions).  Errors as in `index_add`."""
    check_scalar("index_fill", value)
    return _index_changed("index_fill", x, dim, index, value, 1, "set")


def check_scalar(op: str, value: Any) -> None:
    if getattr(value, "ndim", 0):
        raise ShapeError(
            "one value is written",
            op=op,
            expect="a number or a tensor without dimensions",
            actual=dim_text(value.shape),
            hint="use masked_scatter or index_copy for several",
        )


# -- samples --------------------------------------------------------------------------------------

STEPS = {"set": None, "add": "add", "mul": "multiply", "max": "maximum", "min": "minimum"}


def _scatter_reference(how: str, dim: int) -> Any:
    def reference(np: Any, x: Any, index: Any, source: Any) -> Any:
        out, step = x.copy(), STEPS[how]
        for at in np.ndindex(*index.shape):
            place = list(at)
            place[dim] = index[at] % x.shape[dim]
            new = source[at] if np.ndim(source) else source
            out[tuple(place)] = new if step is None else getattr(np, step)(out[tuple(place)], new)
        return out

    return reference


def _scatter_samples(function: Any, how: str) -> list[Sample]:
    index = Arg((3, 4), int64, values=(0, -1, 2, 1, 1))
    cases: list[tuple[int, tuple[Any, ...]]] = [
        (0, (Arg((3, 4)), index, Arg((3, 4)))),
        (1, (Arg((5, 6)), Arg((2, 9), int32, values=tuple(range(-6, 6))), Arg((3, 10)))),
        (-1, (Arg((4,), layout="strided"), Arg((7,), int64, values=(3, 1, 1)), Arg((7,)))),
        (0, (Arg((6, 2)), Arg((4, 2), int64, values=(5, 0)), 0.5)),
    ]
    good = [
        Sample(
            lambda x, i, s, d=d: function(x, d, i, s),
            args,
            _scatter_reference(how, d),
            relative=1e-6,
        )
        for d, args in cases
    ]
    return [*good, *_scatter_refused(lambda x, i, s: function(x, 0, i, s))]


def _scatter_refused(call: Any) -> list[Sample]:
    x, index = Arg((3, 4)), Arg((2, 4), int64, values=(0, 1))
    far = Arg((2, 4), int64, values=(0, 3))
    cases: list[tuple[tuple[Any, ...], type[Exception], str]] = [
        ((x, far, x), IndexError, r"index along axis 0 out of range\n.*\n  actual: 3\n"),
        ((x, x, x), TypeError, "positions are integers"),
        ((x, Arg((2,), int64), x), ValueError, "different numbers of dimensions"),
        ((x, Arg((2, 5), int64), x), ValueError, "larger than the tensor"),
        ((x, index, Arg((1, 4))), ValueError, "larger than the source"),
        ((Arg((3, 4), int64), index, x), TypeError, "does not fit the tensor"),
    ]
    return [Sample(call, args, error=error, match=text) for args, error, text in cases]


@samples_of(scatter)
def _scatter_cases() -> list[Sample]:
    return _scatter_samples(scatter, "set")


@samples_of(scatter_add)
def _scatter_add_cases() -> list[Sample]:
    return _scatter_samples(scatter_add, "add")


@samples_of(scatter_reduce)
def _scatter_reduce_cases() -> list[Sample]:
    def reference(np: Any, x: Any, index: Any, source: Any, reduce: str, own: bool) -> Any:
        cells: dict[Any, list[Any]] = {}
        for at in np.ndindex(*index.shape):
            place = (at[0], index[at] % x.shape[1])
            cells.setdefault(place, [x[place]] if own else []).append(source[at])
        out = x.copy()
        for place, values in cells.items():
            out[place] = getattr(np, reduce)(np.array(values, x.dtype))
        return out

    args = (Arg((3, 5)), Arg((2, 7), int64, values=(0, 4, -2, 0, 0, 1)), Arg((2, 7)))
    good = [
        Sample(
            lambda x, i, s, r=r, own=own: scatter_reduce(x, 1, i, s, r, own),
            args,
            lambda np, x, i, s, r=r, own=own: reference(np, x, i, s, r, own),
            relative=1e-6,
        )
        for r in REDUCES
        for own in (True, False)
    ]
    whole = tuple(Arg(a.shape, int32, -9, 9) if a.dtype is float32 else a for a in args)
    good += [
        Sample(
            lambda x, i, s, r=r: scatter_reduce(x, 1, i, s, r, False),
            whole,
            lambda np, x, i, s, r=r: reference(np, x, i, s, r, False),
            gradient=False,
        )
        for r in REDUCES
        if r != "mean"
    ]
    bad = [
        (lambda x, i, s: scatter_reduce(x, 1, i, s, "median"), args, ValueError, "reduce"),
        (lambda x, i, s: scatter_reduce(x, 1, i, s, "mean"), whole, TypeError, "needs floats"),
    ]
    return [*good, *(Sample(f, a, error=e, match=m) for f, a, e, m in bad)]


@samples_of(put_along_axis)
def _put_along_axis_cases() -> list[Sample]:
    def reference(np: Any, x: Any, index: Any, values: Any) -> Any:
        out = x.copy()
        np.put_along_axis(out, index % x.shape[1], values, 1)
        return out

    index = Arg((1, 3), int64, values=(0, -1, 2))
    cases: list[tuple[Any, ...]] = [
        (Arg((4, 5)), index, Arg((4, 3))),
        (Arg((4, 5)), index, Arg((3,))),
    ]
    cases += [(Arg((2, 5)), Arg((2, 2), int32, values=(0, 4, 2, 1)), 1.5)]
    bad = (Arg((4, 5)), Arg((3, 1), int64), 0.0)
    return [
        *(Sample(lambda x, i, v: put_along_axis(x, i, v, 1), c, reference) for c in cases),
        Sample(put_along_axis, bad, error=ValueError, match="the index does not fit"),
    ]


def _index_samples(function: Any, how: str) -> list[Sample]:
    def reference(np: Any, x: Any, index: Any, source: Any, dim: int) -> Any:
        out = np.moveaxis(x.copy(), dim, 0)
        parts = np.moveaxis(source, dim, 0) if np.ndim(source) else [source] * len(index)
        for k, part in zip(index, parts, strict=True):
            out[k % len(out)] = out[k % len(out)] + part if how == "add" else part
        return np.moveaxis(out, 0, dim)

    index = Arg((4,), int64, values=(1, -1, 1, 0))
    cases: list[tuple[int, tuple[Any, ...]]] = [
        (0, (Arg((3, 5)), index, Arg((4, 5)))),
        (1, (Arg((2, 3, 4), layout="transposed"), index, Arg((2, 4, 4), layout="strided"))),
        (-1, (Arg((600,)), Arg((70,), int32, -600, 600), Arg((70,)))),
        (0, (Arg((3, 2)), index, 2.0)),
    ]
    if function is index_fill:
        cases = [cases[-1], (1, (Arg((3, 5)), index, Arg(())))]
    good = [
        Sample(
            lambda x, i, s, d=d: function(x, d, i, s),
            args,
            lambda np, x, i, s, d=d: reference(np, x, i, s, d),
            relative=1e-6,
        )
        for d, args in cases
    ]
    far = (Arg((3, 2)), Arg((2,), int64, values=(0, -4)), 1.0)
    bad = [(far, IndexError, "actual: -4"), ((far[0], far[0], 1.0), TypeError, "are integers")]
    bad += [((far[0], Arg((1, 1), int64), 1.0), ValueError, "one dimension")]

    def call(x: Any, i: Any, s: Any) -> Any:
        return function(x, 0, i, s)

    return [*good, *(Sample(call, a, error=e, match=m) for a, e, m in bad)]


@samples_of(index_add)
def _index_add_cases() -> list[Sample]:
    scaled = Sample(
        lambda x, i, s: index_add(x, 0, i, s, alpha=-2),
        (Arg((3, 2)), Arg((2,), int64, values=(1,)), Arg((2, 2))),
        lambda np, x, i, s: x + np.array([[0.0], [-2.0], [0.0]], x.dtype) * s.sum(0),
        relative=1e-6,
    )
    return [*_index_samples(index_add, "add"), scaled]


@samples_of(index_copy)
def _index_copy_cases() -> list[Sample]:
    return _index_samples(index_copy, "set")


@samples_of(index_fill)
def _index_fill_cases() -> list[Sample]:
    return _index_samples(index_fill, "set")
