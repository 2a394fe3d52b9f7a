"""Scans: one pass along an axis that carries a state and gives one element per step.

out[..., i, ...] = emit(state after element i), the elements taken one after another in index
order, from the last to the first if `reverse`; an `exclusive` scan gives the state before element
i instead.  States of floats are float64, so each result is rounded once.

Gradients are scans themselves and divide by nothing: those of products and of cumulative extrema
come from `LinearRecurrence`, whose own gradient is a recurrence in the other direction.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from dualgrad.compiler.ir.node import Node
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import apply, public
from dualgrad.compiler.kernel.scalar import Number, Scalar, cast
from dualgrad.compiler.ops.base import (
    Op,
    axis_argument,
    axis_of,
    broadcast_shapes,
    normalize_axis,
    result_dtype,
)
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.elementwise import cast_node, to
from dualgrad.compiler.ops.logical import where
from dualgrad.compiler.ops.operands import check_tensors
from dualgrad.compiler.ops.precision import SINGLE, single
from dualgrad.compiler.ops.reduce import State, limits, wide
from dualgrad.compiler.ops.sample import SPECIAL, Arg, Sample
from dualgrad.compiler.ops.view import expand_to
from dualgrad.runtime.dtype import DEFAULT_FLOAT, DType, as_dtype, bool_, float64, int64, uint8

if TYPE_CHECKING:
    from dualgrad.compiler.build.builder import Builder

INF = float("inf")


class Scan(Op, abstract=True):
    """out[..., i, ...] = emit(state after element i of x along `axis`)."""

    axis: int
    reverse: bool = False
    exclusive: bool = False

    required = (*Op.required, "init", "step")

    @abstractmethod
    def init(self, b: Builder, dtype: DType) -> State:
        """The state before the first element."""

    @abstractmethod
    def step(self, b: Builder, state: State, *xs: Scalar, position: Scalar) -> State:
        """The state after one more element; `position` is its int64 index along the axis."""

    def emit(self, b: Builder, state: State, dtype: DType) -> Scalar:
        """The result that a state stands for, of operands of `dtype`."""
        return cast(state[0], dtype)

    def result_dtype(self, dtype: DType) -> DType:
        return dtype

    def infer(self, *types: TensorType) -> TensorType:
        dtype = self.result_dtype(types[0].dtype)
        return TensorType(types[0].shape, dtype, False, types[0].device)

    @property
    def back(self) -> bool:
        """The direction in which gradients flow."""
        return not self.reverse


def state_dtype(dtype: DType) -> DType:
    """The dtype in which sums and products of `dtype` are carried."""
    return float64 if dtype.is_float else dtype


class CumSum(Scan):
    """Sums of all elements up to each one."""

    precision = SINGLE

    def init(self, b: Builder, dtype: DType) -> State:
        # -0.0 leaves every element as it is, also a first one of -0.0.
        zero = -0.0 if dtype.is_float and not self.exclusive else 0
        return (b.const(zero, state_dtype(dtype)),)

    def step(self, b: Builder, state: State, *xs: Scalar, position: Scalar) -> State:
        return (state[0] + cast(xs[0], state[0].dtype),)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return apply(CumSum.of(self.axis, self.back, self.exclusive), g)

    @staticmethod
    def samples() -> list[Sample]:
        def case(arg: Arg, axis: int | None, **ways: bool) -> Sample:
            return Sample(
                lambda x: cumsum(x, axis, **ways),
                (arg,),
                lambda np, x: accumulated(np, np.add, 0, x, axis, **ways),
                gradient=arg.values is None and arg.dtype.is_float,
            )

        plain = [(Arg(s), axis) for s in SHAPES for axis in (None, *range(len(s)))]
        bad = Sample(lambda x: cumsum(x, 2), (Arg((2, 3)),), error=ValueError, match="cumsum")
        return [
            *(case(*c) for c in plain),
            *(case(a, k, **w) for a, k in _directed() for w in WAYS),
            case(Arg((3, 10), values=SPECIAL), 0),
            case(Arg((4, 6), layout="transposed"), 1),
            case(Arg((4, 6), layout="broadcast"), 0),
            case(Arg((5, 7), layout="strided"), 0),
            case(Arg((3, 40), int64, -9, 9), 1),
            case(Arg((4, 5), uint8, 0, 250), 0),
            case(Arg((9,), bool_), 0),
            bad,
        ]


SHAPES: tuple[tuple[int, ...], ...]
SHAPES = ((), (1,), (7,), (0,), (3, 0), (0, 3), (5, 67), (70, 40), (2, 3, 4), (3, 1, 5), (1, 300))
WAYS: tuple[dict[str, bool], ...]
WAYS = ({"reverse": True}, {"exclusive": True}, {"reverse": True, "exclusive": True})


def _directed() -> list[tuple[Arg, int]]:
    return [(Arg((2, 5, 3)), 1), (Arg((4, 9)), 1), (Arg((6, 1)), 1)]


def accumulated(
    np: Any,
    function: Any,
    first: float,
    x: Any,
    axis: int | None,
    reverse: bool = False,
    exclusive: bool = False,
) -> Any:
    """NumPy's accumulation as a reference, in both directions and forms."""
    x = np.asarray(x)
    if x.dtype.kind in "bu":
        x = x.astype(np.uint64 if x.dtype.kind == "u" else np.int64)
    x, axis = (x.reshape(-1), 0) if axis is None else (x, axis)
    x = np.flip(x, axis) if reverse else x
    out = function.accumulate(x, axis) if x.size else x.copy()
    if exclusive and x.size:
        edge = np.full_like(np.take(out, [0], axis), first)
        out = np.concatenate([edge, np.take(out, range(x.shape[axis] - 1), axis)], axis)
    return np.flip(out, axis) if reverse else out


class LinearRecurrence(Scan):
    """h[i] = a[i] * h[i-1] + b[i] along the axis, from h = 0; each step is one fma."""

    precision = SINGLE

    def init(self, b: Builder, dtype: DType) -> State:
        return (b.const(0, state_dtype(dtype)),)

    def step(self, b: Builder, state: State, *xs: Scalar, position: Scalar) -> State:
        (h,) = state
        factor, term = (cast(x, h.dtype) for x in xs)
        return (b.fma(factor, h, term) if h.dtype.is_float else factor * h + term,)

    def vjp(self, g: Any, out: Any, a: Any, b: Any) -> tuple[Any, ...]:
        # What h[i] gets from later steps is a recurrence too, run from the end: with the
        # gradients of results shifted by one in the exclusive form.
        back = LinearRecurrence.of(self.axis, self.back, True)
        if self.exclusive:
            (total,) = apply(back, a, g)
            return (total * out, total)
        total = g + apply(back, a, a * g)[0]
        (before,) = apply(LinearRecurrence.of(self.axis, self.reverse, True), a, b)
        return (total * before, total)

    @staticmethod
    def samples() -> list[Sample]:
        def reference(np: Any, a: Any, b: Any, axis: int, reverse: bool, exclusive: bool) -> Any:
            a, b = (np.moveaxis(x, axis, 0) for x in np.broadcast_arrays(a, b))
            out = np.zeros_like(b)
            order = range(len(a))
            h = np.zeros_like(b[0])
            for i in reversed(order) if reverse else order:
                following = a[i] * h + b[i]
                out[i] = h if exclusive else following
                h = following
            return np.moveaxis(out, 0, axis)

        def case(
            shapes: tuple[tuple[int, ...], tuple[int, ...]],
            axis: int,
            reverse: bool = False,
            exclusive: bool = False,
            dtype: DType = DEFAULT_FLOAT,
        ) -> Sample:
            size = 1 if dtype.is_float else 4
            return Sample(
                lambda a, b: linear_recurrence(a, b, axis, reverse=reverse, exclusive=exclusive),
                tuple(Arg(s, dtype, -size, size) for s in shapes),
                lambda np, a, b: reference(np, a, b, axis, reverse, exclusive),
                relative=1e-7,
                gradient=dtype.is_float,
            )

        both = ((2, 5, 3), (2, 5, 3))
        ways = [(r, e) for r in (False, True) for e in (False, True)]
        return [
            *(case(both, axis, *way) for axis in (0, 1, 2) for way in ways),
            case(((40, 70), (40, 70)), 0),
            case(((3, 1), (4,)), 0),
            case(((7,), (7,)), 0, dtype=int64),
        ]


class CumProd(Scan):
    """Products of all elements up to each one."""

    precision = SINGLE

    def init(self, b: Builder, dtype: DType) -> State:
        return (b.const(1, state_dtype(dtype)),)

    def step(self, b: Builder, state: State, *xs: Scalar, position: Scalar) -> State:
        return (state[0] * cast(xs[0], state[0].dtype),)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        back = LinearRecurrence.of(self.axis, self.back, True)
        if self.exclusive:
            return (out * apply(back, x, g)[0],)
        (before,) = apply(CumProd.of(self.axis, self.reverse, True), x)
        return (before * (g + apply(back, x, x * g)[0]),)

    @staticmethod
    def samples() -> list[Sample]:
        def case(arg: Arg, axis: int | None, **ways: bool) -> Sample:
            return Sample(
                lambda x: cumprod(x, axis, **ways),
                (arg,),
                lambda np, x: accumulated(np, np.multiply, 1, x, axis, **ways),
                gradient=arg.dtype.is_float and (arg.values is None or arg.values != SPECIAL),
            )

        zeros = Arg((3, 5), values=(1.5, 0.0, -2.0, 0.5, 0.0, 0.0, 1.25))
        return [
            case(Arg((3, 4)), 1),
            case(Arg((3, 4)), None),
            case(Arg((0, 4)), 0),
            *(case(a, k, **w) for a, k in _directed() for w in WAYS),
            *(case(zeros, k, **w) for k in (0, 1) for w in ({}, *WAYS)),
            case(Arg((3, 10), values=SPECIAL), 0),
            case(Arg((3, 6), int64, -3, 3), 1),
        ]


class CumExtremum(Scan, abstract=True):
    """The largest or smallest element up to each one: its "value", its "place" along the axis, or
    whether it is the element itself ("fresh").

    Of equal elements it is the last; NaN beats everything.  The gradient of a value belongs to
    the element that it came from.
    """

    gives: str = "value"

    def limit(self, dtype: DType) -> Number:
        """The value that no element loses to."""
        raise NotImplementedError

    def reaches(self, b: Builder, x: Scalar, y: Scalar) -> Scalar:
        """Whether x is as good as y; not if one of them is NaN."""
        raise NotImplementedError

    def init(self, b: Builder, dtype: DType) -> State:
        best = b.const(self.limit(dtype), dtype)
        second = {"value": (), "place": (b.const(0, int64),), "fresh": (b.const(False, bool_),)}
        return (best, *second[self.gives])

    def step(self, b: Builder, state: State, *xs: Scalar, position: Scalar) -> State:
        best, x = state[0], xs[0]
        new = self.reaches(b, x, best) | b.isnan(x)
        following = b.select(new, x, best)
        if self.gives == "value":
            return (following,)
        return (following, b.select(new, position, state[1]) if self.gives == "place" else new)

    def emit(self, b: Builder, state: State, dtype: DType) -> Scalar:
        return state[-1]

    def result_dtype(self, dtype: DType) -> DType:
        return {"value": dtype, "place": int64, "fresh": bool_}[self.gives]

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        if self.gives != "value":
            return (None,)
        (fresh,) = apply(type(self).of(self.axis, self.reverse, False, "fresh"), x)
        passed = to(~fresh, x.dtype)
        back = LinearRecurrence.of(self.axis, self.back, True)
        later = apply(back, passed, g if self.exclusive else passed * g)[0]
        return (where(fresh, later if self.exclusive else g + later, 0.0),)


class CumMax(CumExtremum):
    """The largest element up to each one."""

    def limit(self, dtype: DType) -> Number:
        return -INF if dtype.is_float else limits(dtype)[0]

    def reaches(self, b: Builder, x: Scalar, y: Scalar) -> Scalar:
        return x >= y

    @staticmethod
    def samples() -> list[Sample]:
        return _extremum_samples(cummax, "maximum")


class CumMin(CumExtremum):
    """The smallest element up to each one."""

    def limit(self, dtype: DType) -> Number:
        return INF if dtype.is_float else limits(dtype)[1]

    def reaches(self, b: Builder, x: Scalar, y: Scalar) -> Scalar:
        return x <= y

    @staticmethod
    def samples() -> list[Sample]:
        return _extremum_samples(cummin, "minimum")


def _extremum_samples(function: Any, name: str) -> list[Sample]:
    def place(np: Any, x: Any, axis: int) -> Any:
        x = np.moveaxis(np.asarray(x), axis, 0)
        best = getattr(np, name).accumulate(x, 0)
        fresh = (x == best) | np.isnan(x)
        index = np.arange(len(x)).reshape((-1,) + (1,) * (x.ndim - 1))
        return np.moveaxis(np.maximum.accumulate(np.where(fresh, index, 0), 0), 0, axis)

    def case(arg: Arg, axis: int | None) -> list[Sample]:
        smooth = arg.values is None and arg.dtype.is_float
        value = Sample(
            lambda x: function(x, axis)[0],
            (arg,),
            lambda np, x: accumulated(np, getattr(np, name), 0, x, axis),
            gradient=smooth,
        )
        where_from = Sample(
            lambda x: function(x, axis)[1],
            (arg,),
            lambda np, x: place(np, x if axis is not None else np.ravel(x), axis or 0),
            gradient=False,
        )
        return [value, where_from]

    ties = Arg((4, 8), values=(1.0, 3.0, 3.0, -1.0, -1.0, 2.0))
    special = Arg((3, 10), values=SPECIAL)
    zeros = Arg((6,), values=(-0.0, 0.0, -0.0))
    cases: list[tuple[Arg, int | None]]
    cases = [(Arg((5, 67)), 1), (Arg((70, 5)), 0), (Arg((2, 3, 4)), 1), (Arg((3, 4)), None)]
    cases += [(ties, 1), (special, 1), (special, 0), (zeros, 0), (Arg((3, 40), int64, -9, 9), 1)]
    return [sample for c in cases for sample in case(*c)]


def row_and_axis(op: str, x: Any, axis: Any, dim: dict[str, Any]) -> tuple[Any, int]:
    """x and the axis to scan; without an axis all elements in one row."""
    axis = axis_argument(op, axis, dim)
    check_tensors(op, x)
    if axis is None:
        return x.reshape((x.size,)), 0
    return x, axis_of(op, axis, x.ndim)


@composite
@single
def _accumulated(
    x: Node, *, op: type[Scan], axis: int, reverse: bool, exclusive: bool, dtype: DType | None
) -> Any:
    x = cast_node(x, dtype or wide(x.dtype))
    row = x if x.ndim else x.reshape((1,))
    return op.of(axis, reverse, exclusive).on(row).reshape(x.shape)


@public("cumsum")
def cumsum(
    x: Any,
    axis: Any = None,
    dtype: Any = None,
    *,
    reverse: bool = False,
    exclusive: bool = False,
    **dim: Any,
) -> Any:
    """Return the sums of the elements up to each one along `axis` (None: of all, flattened).

    `reverse` sums from the end, `exclusive` leaves the element itself out.  x is converted to
    `dtype` first, if given; else integers and bools are summed in 64 bits.  Float sums are carried
    in float64.  Raises ShapeError for an axis that x does not have.
    """
    x, axis = row_and_axis("cumsum", x, axis, dim)
    target = None if dtype is None else as_dtype(dtype)
    return _accumulated(x, op=CumSum, axis=axis, reverse=reverse, exclusive=exclusive, dtype=target)


@public("cumprod")
def cumprod(
    x: Any,
    axis: Any = None,
    dtype: Any = None,
    *,
    reverse: bool = False,
    exclusive: bool = False,
    **dim: Any,
) -> Any:
    """Return the products of the elements up to each one along `axis`; see `cumsum`.

    Gradients are right at zeros as well.
    """
    x, axis = row_and_axis("cumprod", x, axis, dim)
    target = None if dtype is None else as_dtype(dtype)
    return _accumulated(
        x, op=CumProd, axis=axis, reverse=reverse, exclusive=exclusive, dtype=target
    )


@composite
@single
def _linear_recurrence(a: Node, b: Node, *, axis: int, reverse: bool, exclusive: bool) -> Node:
    dtype = wide(result_dtype("linear_recurrence", [a.type, b.type]))
    shape = broadcast_shapes("linear_recurrence", [a.shape, b.shape])
    operands = (expand_to(cast_node(x, dtype), shape) for x in (a, b))
    return LinearRecurrence.of(axis, reverse, exclusive).on(*operands)


def linear_recurrence(
    a: Any, b: Any, axis: int = 0, *, reverse: bool = False, exclusive: bool = False
) -> Any:
    """Return h with h[i] = a[i] * h[i-1] + b[i] along `axis` of the broadcast shape, from h = 0.

    `reverse` starts at the end, `exclusive` gives h[i-1] in place of h[i].  Each step is rounded
    once, floats are carried in float64.
    """
    ndim = max(getattr(x, "ndim", 0) for x in (a, b))
    axis = normalize_axis("linear_recurrence", axis, ndim)
    return _linear_recurrence(a, b, axis=axis, reverse=reverse, exclusive=exclusive)


@composite
def _cumulative_extremum(x: Node, *, op: type[CumExtremum], axis: int) -> tuple[Node, Node]:
    narrow = cast_node(x, uint8) if x.dtype is bool_ else x
    row = narrow if x.ndim else narrow.reshape((1,))
    found = (op.of(axis, False, False, gives).on(row) for gives in ("value", "place"))
    values, places = (y.reshape(x.shape) for y in found)
    return cast_node(values, x.dtype) if x.dtype is not bool_ else values.ne(0), places


@public("cummax")
def cummax(x: Any, axis: Any = None, **dim: Any) -> tuple[Any, Any]:
    """Return the largest elements up to each one along `axis` (None: flattened), and their int64
    indices along it: of equal ones the last.  NaN beats everything.

    The gradient of a value goes to the element with that index.
    """
    x, axis = row_and_axis("cummax", x, axis, dim)
    values, places = _cumulative_extremum(x, op=CumMax, axis=axis)
    return values, places


@public("cummin")
def cummin(x: Any, axis: Any = None, **dim: Any) -> tuple[Any, Any]:
    """Return the smallest elements up to each one along `axis`, and their indices; see `cummax`."""
    x, axis = row_and_axis("cummin", x, axis, dim)
    values, places = _cumulative_extremum(x, op=CumMin, axis=axis)
    return values, places
