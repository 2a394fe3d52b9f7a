"""Reductions to an extreme element or its place: max, min, argmax, argmin, any, all.

PyTorch's `max(dim)` gives values and indices; here `max` gives the values alone, as in NumPy,
under the name `amax` too, and `argmax` the indices.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from dualgrad.compiler.ir.dims import at_most, product
from dualgrad.compiler.ir.node import Node
from dualgrad.compiler.ir.value import apply, public
from dualgrad.compiler.kernel.scalar import Number, Scalar
from dualgrad.compiler.ops.base import axis_argument, keep_argument
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.elementwise import cast_node, to
from dualgrad.compiler.ops.logical import where
from dualgrad.compiler.ops.operands import check_tensors
from dualgrad.compiler.ops.reduce import (
    Reduction,
    State,
    Sum,
    block_of,
    keep_axes,
    limits,
    reduce_axes,
    reduced,
    reduction_case,
    spread,
)
from dualgrad.compiler.ops.sample import SPECIAL, Arg, Sample, samples_of
from dualgrad.runtime.dtype import DType, bool_, int64, uint8
from dualgrad.runtime.errors import ShapeError

if TYPE_CHECKING:
    from dualgrad.compiler.build.builder import Builder

INF = float("inf")
NOWHERE = limits(int64)[1]


class Extremum(Reduction, abstract=True):
    """The largest or smallest element, NaN if there is one; ties share the gradient evenly."""

    blocked = True

    def limit(self, dtype: DType) -> Number:
        """The value that every other beats."""
        raise NotImplementedError

    def step(self, b: Builder, state: State, *xs: Scalar, position: Scalar) -> State:
        return self.combine(b, state, xs)

    def init(self, b: Builder, dtype: DType) -> State:
        return (b.const(self.limit(dtype), dtype),)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        hit = x.eq(spread(out, self, x.shape)) | x.ne(x)
        (count,) = apply(Sum.of(self.start, self.stop, self.block), to(hit, x.dtype))
        return (where(hit, spread(g / count, self, x.shape), 0.0),)


class Max(Extremum):
    """The largest element."""

    def limit(self, dtype: DType) -> Number:
        return -INF if dtype.is_float else limits(dtype)[0]

    def combine(self, b: Builder, left: State, right: State) -> State:
        return (b.maximum(left[0], right[0]),)

    @staticmethod
    def samples() -> list[Sample]:
        return _extremum_samples(reduce_max, "max")


class Min(Extremum):
    """The smallest element."""

    def limit(self, dtype: DType) -> Number:
        return INF if dtype.is_float else limits(dtype)[1]

    def combine(self, b: Builder, left: State, right: State) -> State:
        return (b.minimum(left[0], right[0]),)

    @staticmethod
    def samples() -> list[Sample]:
        return _extremum_samples(reduce_min, "min")


def _extremum_samples(function: Any, name: str) -> list[Sample]:
    cases: list[tuple[tuple[int, ...], Any, bool]] = [((3, 4), None, False), ((5, 67), 1, True)]
    cases += [((70, 5), 0, False), ((2, 3, 4), (0, 2), False), ((9000,), 0, False)]
    cases += [((2, 3), (), False), ((), None, False), ((0, 3), 1, False)]
    special = Arg((2, 10), values=SPECIAL[:6])
    with_nan = Arg((2, 10), values=SPECIAL)
    along_rows = [
        Sample(
            lambda x: function(x, 1), (arg,), lambda np, x: getattr(np, name)(x, 1), gradient=False
        )
        for arg in (special, with_nan)
    ]
    empty = Sample(
        function, (Arg((0, 3)),), error=ValueError, match=rf"\[{name}\] an empty run has no {name}"
    )
    return [
        *(reduction_case(function, name, *c) for c in cases),
        *(reduction_case(function, name, (3, 40), 1, False, dtype=d) for d in (int64, bool_)),
        *along_rows,
        empty,
    ]


def first_of_best(
    b: Builder, best: Any, left: tuple[Scalar, Scalar], right: tuple[Scalar, Scalar]
) -> State:
    """The better of two (value, place); of equal ones the first.  NaN beats everything."""
    (x, i), (y, j) = left, right
    nan_x, nan_y = b.isnan(x), b.isnan(y)
    better = (best(x, y) & ~nan_y) | (nan_x & ~nan_y)
    tie = b.eq(x, y) | (nan_x & nan_y)
    keep = better | (tie & (i < j))
    return (b.select(keep, x, y), b.select(keep, i, j))


class ArgExtremum(Reduction, abstract=True):
    """The place in the run of the first largest or smallest element; NaN beats everything.

    With a second operand, places are those that it holds for the elements of the first: so the
    places of blocks become the place in the whole.
    """

    vjp = None

    @abstractmethod
    def limit(self, dtype: DType) -> Number:
        """The value that every other beats."""

    @abstractmethod
    def beats(self, x: Scalar, y: Scalar) -> Scalar:
        """Whether x is strictly better than y; neither is NaN."""

    def init(self, b: Builder, dtype: DType) -> State:
        # Nothing beats the limit but other values: with no place in the end, all are the limit.
        return (b.const(self.limit(dtype), dtype), b.const(NOWHERE, int64))

    def step(self, b: Builder, state: State, *xs: Scalar, position: Scalar) -> State:
        best, x = state[0], xs[0]
        new = self.beats(x, best) | (b.isnan(x) & ~b.isnan(best))
        place = xs[1] if len(xs) > 1 else position
        return (b.select(new, x, best), b.select(new, place, state[1]))

    def combine(self, b: Builder, left: State, right: State) -> State:
        return first_of_best(b, self.beats, (left[0], left[1]), (right[0], right[1]))

    def finish(self, b: Builder, state: State) -> Scalar:
        return b.select(b.eq(state[1], NOWHERE), 0, state[1])

    def result_dtype(self, dtype: DType) -> DType:
        return int64


class Argmax(ArgExtremum):
    """The place of the first largest element."""

    def limit(self, dtype: DType) -> Number:
        return -INF if dtype.is_float else limits(dtype)[0]

    def beats(self, x: Scalar, y: Scalar) -> Scalar:
        return x > y

    @staticmethod
    def samples() -> list[Sample]:
        return _arg_samples(argmax, "argmax", -INF)


class Argmin(ArgExtremum):
    """The place of the first smallest element."""

    def limit(self, dtype: DType) -> Number:
        return INF if dtype.is_float else limits(dtype)[1]

    def beats(self, x: Scalar, y: Scalar) -> Scalar:
        return x < y

    @staticmethod
    def samples() -> list[Sample]:
        return _arg_samples(argmin, "argmin", INF)


def _arg_samples(function: Any, name: str, worst: float) -> list[Sample]:
    def along(arg: Arg, axis: int | None) -> Sample:
        return Sample(
            lambda x: function(x, axis),
            (arg,),
            lambda np, x: getattr(np, name)(x, axis=axis),
            gradient=False,
        )

    cases: list[tuple[tuple[int, ...], Any, bool]] = [((3, 4), None, False), ((5, 67), 1, True)]
    cases += [((70, 5), 0, False), ((9000,), 0, False), ((300, 200), None, True)]
    ties = Arg((4, 30), values=(1.0, 3.0, 3.0, -1.0, -1.0))
    long_ties = Arg((20_000,), values=(*(1.0,) * 4095, 3.0, -1.0, 3.0))
    late_nan = Arg((20_000,), values=(*(1.0,) * 9000, float("nan"), 2.0))
    limit = (Arg((9000,), values=(worst,)), Arg((2, 70), values=(worst, worst, worst)))
    return [
        *(reduction_case(function, name, *c, gradient=False) for c in cases),
        reduction_case(function, name, (3, 40), 1, False, dtype=uint8, gradient=False),
        reduction_case(function, name, (3, 40), 0, False, dtype=bool_, gradient=False),
        along(ties, 1),
        *(along(Arg((3, 10), values=SPECIAL), axis) for axis in (0, 1)),
        *(along(a, None) for a in (long_ties, late_nan, *limit)),
        along(Arg((6, 5), layout="transposed"), None),
    ]


@composite
def _extremum(x: Node, *, op: type[Extremum], axes: tuple[int, ...], keepdims: bool) -> Any:
    if x.dtype is not bool_:
        return reduce_axes(op, x, axes, keepdims)
    return cast_node(reduce_axes(op, cast_node(x, uint8), axes, keepdims), bool_)


def check_nonempty(name: str, x: Any, axes: tuple[int, ...]) -> None:
    if any(x.shape[a] == 0 for a in axes):
        raise ShapeError(
            f"an empty run has no {name}",
            op=name,
            expect="at least one element along each reduced axis",
            actual=f"shape {tuple(x.shape)}, axes {axes}",
            hint="check that the tensor has elements",
        )


@public("max", "amax")
def reduce_max(x: Any, axis: Any = None, keepdims: bool = False, **dim: Any) -> Any:
    """Return the largest element over `axis`, NaN if there is one; the values only, as NumPy does.

    Raises ShapeError for an empty run.  Ties share the gradient evenly.
    """
    axes, keep = reduced("max", x, axis, keepdims, dim)
    check_nonempty("max", x, axes)
    return _extremum(x, op=Max, axes=axes, keepdims=keep)


@public("min", "amin")
def reduce_min(x: Any, axis: Any = None, keepdims: bool = False, **dim: Any) -> Any:
    """Return the smallest element over `axis`; see `max`."""
    axes, keep = reduced("min", x, axis, keepdims, dim)
    check_nonempty("min", x, axes)
    return _extremum(x, op=Min, axes=axes, keepdims=keep)


@composite
def _without_nan(x: Node, *, op: type[Extremum], axes: tuple[int, ...], keepdims: bool) -> Any:
    value: Any = x
    missing = value.ne(value)
    limit = op.of(0, 0).limit(x.dtype)
    found: Any = reduce_axes(op, where(missing, limit, value), axes, keepdims)
    nothing: Any = reduce_axes(Min, cast_node(missing, uint8), axes, keepdims)
    return where(nothing.ne(0), float("nan"), found)


def _nan_extremum(name: str, op: type[Extremum], x: Any, axes: tuple[int, ...], keep: bool) -> Any:
    check_nonempty(name, x, axes)
    body = _without_nan if x.dtype.is_float else _extremum
    return body(x, op=op, axes=axes, keepdims=keep)


@public("nanmax")
def nanmax(x: Any, axis: Any = None, keepdims: bool = False, **dim: Any) -> Any:
    """Return the largest element over `axis` that is not NaN; NaN where there is none.

    Raises ShapeError for an empty run.
    """
    axes, keep = reduced("nanmax", x, axis, keepdims, dim)
    return _nan_extremum("nanmax", Max, x, axes, keep)


@public("nanmin")
def nanmin(x: Any, axis: Any = None, keepdims: bool = False, **dim: Any) -> Any:
    """Return the smallest element over `axis` that is not NaN; see `nanmax`."""
    axes, keep = reduced("nanmin", x, axis, keepdims, dim)
    return _nan_extremum("nanmin", Min, x, axes, keep)


def arg_run(op: type[ArgExtremum], best: type[Extremum], x: Node, start: int, stop: int) -> Node:
    """The place of the best element of a run of axes; by blocks if it is long."""
    block = block_of(x.shape, stop)
    if at_most(product(x.shape[start:stop]), block):
        return op.of(start, stop).on(x)
    places = op.of(start, stop, block).on(x)
    values = best.of(start, stop, block).on(x)
    while not at_most(values.shape[start], block_of(values.shape, start + 1)):
        block = block_of(values.shape, start + 1)
        places = op.of(start, start + 1, block).on(values, places)
        values = best.of(start, start + 1, block).on(values)
    return op.of(start, start + 1).on(values, places)


@composite
def _place(
    x: Node, *, op: type[ArgExtremum], best: type[Extremum], axes: tuple[int, ...], keepdims: bool
) -> Node:
    narrow = cast_node(x, uint8) if x.dtype is bool_ else x
    found = arg_run(op, best, narrow, axes[0], axes[-1] + 1)
    return keep_axes(found, x.shape, axes) if keepdims else found


def _arg(
    name: str,
    op: type[ArgExtremum],
    best: type[Extremum],
    x: Any,
    axis: Any,
    keepdims: Any,
    names: dict[str, Any],
) -> Any:
    check_tensors(name, x)
    keep = keep_argument(name, axis, keepdims, names)
    axis = axis_argument(name, axis, names)
    if x.ndim == 0:
        return _arg(name, op, best, x.reshape((1,)), None, False, {})
    axes, keep = reduced(name, x, axis, keep, {})
    if axis is not None and len(axes) != 1:
        raise ShapeError(
            "takes one axis",
            op=name,
            expect="an int or None",
            actual=repr(axis),
            hint="flatten the axes into one with flatten(first, last)",
        )
    check_nonempty(name, x, axes)
    return _place(x, op=op, best=best, axes=axes, keepdims=keep)


@public("argmax")
def argmax(x: Any, axis: Any = None, keepdims: bool = False, **dim: Any) -> Any:
    """Return the int64 place of the first largest element along `axis` (None: row-major).

    NaN counts as largest.  Raises ShapeError for an empty run.
    """
    return _arg("argmax", Argmax, Max, x, axis, keepdims, dim)


@public("argmin")
def argmin(x: Any, axis: Any = None, keepdims: bool = False, **dim: Any) -> Any:
    """Return the int64 place of the first smallest element along `axis`; see `argmax`."""
    return _arg("argmin", Argmin, Min, x, axis, keepdims, dim)


@composite
def _truth(x: Any, *, op: type[Extremum], axes: tuple[int, ...], keepdims: bool) -> Any:
    truth = cast_node(x if x.dtype is bool_ else x.ne(0), uint8)
    return cast_node(reduce_axes(op, truth, axes, keepdims), bool_)


@public("any")
def reduce_any(x: Any, axis: Any = None, keepdims: bool = False, **dim: Any) -> Any:
    """Return whether some element over `axis` is not 0 (NaN is not); False for an empty run."""
    axes, keep = reduced("any", x, axis, keepdims, dim)
    return _truth(x, op=Max, axes=axes, keepdims=keep)


@public("all")
def reduce_all(x: Any, axis: Any = None, keepdims: bool = False, **dim: Any) -> Any:
    """Return whether every element over `axis` is not 0; True for an empty run."""
    axes, keep = reduced("all", x, axis, keepdims, dim)
    return _truth(x, op=Min, axes=axes, keepdims=keep)


def _truth_samples(function: Any, name: str) -> list[Sample]:
    def case(arg: Arg, axis: Any) -> Sample:
        return Sample(
            lambda x: function(x, axis),
            (arg,),
            lambda np, x: np.asarray(getattr(np, name)(x, axis)),
            gradient=False,
        )

    mixed = Arg((3, 4), bool_, values=(1, 1, 1, 1, 0, 0, 0, 0, 1, 0, 1, 0))
    floats = Arg((2, 5), values=(0.0, -0.0, 0.0, 0.0, 0.0, float("nan")))
    return [
        *(case(mixed, axis) for axis in (0, 1, None, (0, 1))),
        *(case(floats, axis) for axis in (0, 1, None)),
        *(case(Arg((0, 3)), axis) for axis in (0, 1, None)),
        case(Arg((5000,), int64, values=(0.0,)), 0),
        case(Arg((70, 3), uint8, 0, 9), 0),
    ]


@samples_of(reduce_any)
def _any_samples() -> list[Sample]:
    return _truth_samples(reduce_any, "any")


@samples_of(reduce_all)
def _all_samples() -> list[Sample]:
    return _truth_samples(reduce_all, "all")


@samples_of(nanmax)
def _nanmax_samples() -> list[Sample]:
    return _nan_samples(nanmax, "nanmax")


@samples_of(nanmin)
def _nanmin_samples() -> list[Sample]:
    return _nan_samples(nanmin, "nanmin")


def _nan_samples(function: Any, name: str) -> list[Sample]:
    nan = float("nan")
    some = Arg((4, 3), values=(1.0, nan, nan, 2.0, nan, -1.0, nan))
    infinite = Arg((2, 3), values=(-INF, nan, -INF, INF, nan, INF))
    return [
        *(reduction_case(function, name, *c, gradient=True) for c in [((5, 7), 1, True)]),
        reduction_case(function, name, (5, 7), 0, False, dtype=int64),
        *(
            Sample(
                lambda x, k=k: function(x, k),
                (arg,),
                lambda np, x, k=k: getattr(np, name)(x, axis=k),
                gradient=False,
            )
            for arg in (some, infinite)
            for k in (0, 1, None)
        ),
    ]
