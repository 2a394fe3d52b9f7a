"""Reductions over a run of adjacent axes, in the one canonical order (see `kernel.ir`).

A run that reaches the last axis (axes of size 1 aside) is reduced over lanes, its elements taken
row-major; any other run is reduced as a chain over rows, for all inner elements side by side.  A
run longer than a block becomes two reductions: one number per block, then the blocks by the same
rule.  So the order of additions depends on the logical shape alone, and the error stays small:
at most 64 additions follow one another in a lane or chain per level.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from dualgrad.compiler.build.builder import Builder
from dualgrad.compiler.ir.dims import Dim, at_most, ceil_div, product
from dualgrad.compiler.ir.node import Node
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import apply, public
from dualgrad.compiler.kernel.scalar import Number, Scalar
from dualgrad.compiler.ops.base import Op, axes_of, axis_argument
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.create import Size
from dualgrad.compiler.ops.elementwise import cast_node, to
from dualgrad.compiler.ops.logical import where
from dualgrad.compiler.ops.sample import SPECIAL, Arg, Sample
from dualgrad.compiler.ops.view import View, flatten_index
from dualgrad.runtime.dtype import DEFAULT_FLOAT, DType, bool_, int64, uint8, uint64
from dualgrad.runtime.errors import ShapeError

LANES = 64
LANE_BLOCK = 4096  # elements of a trailing run that are reduced in one go
CHAIN_BLOCK = 64  # rows of a leading run
State = tuple[Scalar, ...]


@dataclass(frozen=True, eq=False)
class Reduction(Op, abstract=True):
    """out[..., ...] = finish(combine over the axes start..stop of element(x))."""

    start: int
    stop: int
    block: int = 0  # 0: the whole run gives one number; else one number per block

    required = (*Op.required, "init", "step", "combine", "finish")
    lanes: ClassVar[int] = LANES
    blocked: ClassVar[bool] = False  # whether long runs are split; exact reductions need not be

    @abstractmethod
    def init(self, b: Builder, dtype: DType) -> State:
        """The state before the first element; combining with it changes nothing."""

    @abstractmethod
    def step(self, b: Builder, state: State, *xs: Scalar, position: Scalar) -> State:
        """The state after one more element; `position` is its int64 place in the run."""

    @abstractmethod
    def combine(self, b: Builder, left: State, right: State) -> State:
        """Two states as one; elements of `left` came earlier."""

    def finish(self, b: Builder, state: State) -> Scalar:
        """The result of a final state."""
        return state[0]

    def result_dtype(self, dtype: DType) -> DType:
        return dtype

    def infer(self, *types: TensorType) -> TensorType:
        shape = types[0].shape
        run = product(shape[self.start : self.stop])
        blocks = (ceil_div(run, self.block),) if self.block else ()
        out = (*shape[: self.start], *blocks, *shape[self.stop :])
        return TensorType(out, self.result_dtype(types[0].dtype), False, types[0].device)


def is_trailing(shape: tuple[Dim, ...], stop: int) -> bool:
    """Whether a run of axes ending at `stop` reaches the last axis (size-1 axes aside)."""
    return all(n == 1 for n in shape[stop:])


@dataclass(frozen=True, eq=False)
class Sum(Reduction):
    """The sum of the elements; integers are summed as 64-bit integers by the caller."""

    blocked = True

    def init(self, b: Builder, dtype: DType) -> State:
        return (b.const(-0.0 if dtype.is_float else 0, dtype),)

    def step(self, b: Builder, state: State, *xs: Scalar, position: Scalar) -> State:
        return (state[0] + xs[0],)

    def combine(self, b: Builder, left: State, right: State) -> State:
        return (left[0] + right[0],)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (spread(g, self, x.shape),)

    @staticmethod
    def samples() -> list[Sample]:
        shapes = [(3, 4), (5, 67), (2, 3, 70), (130, 9), (1, 5000), (0, 3), (3, 0), ()]
        cases: list[tuple[tuple[int, ...], Any, bool]] = [(s, None, False) for s in shapes]
        cases += [((3, 4), 0, False), ((3, 4), -1, True), ((2, 3, 4), (0, 2), False)]
        cases += [((70, 5), 0, True), ((4, 130, 6), 1, False), ((9000,), 0, False)]
        cases += [((5000, 3), 0, False), ((2, 3, 4), (0, 1), False), ((3, 1), 0, False)]
        out = [_case(reduce_sum, "sum", *c, relative=1e-6) for c in cases]
        special = Arg((10,), values=SPECIAL[:5])
        bad = Sample(
            lambda x: reduce_sum(x, 2),
            (Arg((2, 3)),),
            error=ValueError,
            match=r"\[sum\] axis out of range",
        )
        twice = Sample(
            lambda x: reduce_sum(x, (0, -2)),
            (Arg((2, 3)),),
            error=ValueError,
            match="named twice",
        )
        return [
            *out,
            Sample(reduce_sum, (special,), lambda np, x: x.sum(), gradient=False),
            _case(reduce_sum, "sum", (3, 40), 1, False, dtype=int64),
            bad,
            twice,
        ]


def _case(
    function: Any,
    name: str,
    shape: tuple[int, ...],
    axis: Any,
    keep: bool,
    dtype: DType = DEFAULT_FLOAT,
    relative: float = 0.0,
    gradient: bool = True,
) -> Sample:
    return Sample(
        lambda x: function(x, axis, keep),
        (Arg(shape, dtype, -9 if dtype.is_int else -2, 9 if dtype.is_int else 2),),
        lambda np, x: getattr(np, name)(x, axis=axis, keepdims=keep),
        relative=relative,
        gradient=gradient and dtype.is_float,
    )


@dataclass(frozen=True, eq=False)
class Extremum(Reduction, abstract=True):
    """The largest or smallest element, NaN if there is one; ties share the gradient evenly."""

    def limit(self, dtype: DType) -> Number:
        """The value that every other beats."""
        raise NotImplementedError

    def step(self, b: Builder, state: State, *xs: Scalar, position: Scalar) -> State:
        return self.combine(b, state, xs)

    def init(self, b: Builder, dtype: DType) -> State:
        return (b.const(self.limit(dtype), dtype),)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        hit = x.eq(spread(out, self, x.shape))
        share = to(hit, x.dtype)
        count = spread(share.sum(axis=tuple(range(self.start, self.stop))), self, x.shape)
        return (where(hit, spread(g, self, x.shape) / count, 0.0),)


@dataclass(frozen=True, eq=False)
class Max(Extremum):
    """The largest element."""

    def limit(self, dtype: DType) -> Number:
        return -float("inf") if dtype.is_float else _range(dtype)[0]

    def combine(self, b: Builder, left: State, right: State) -> State:
        return (b.maximum(left[0], right[0]),)

    @staticmethod
    def samples() -> list[Sample]:
        return _extremum_samples(reduce_max, "max")


@dataclass(frozen=True, eq=False)
class Min(Extremum):
    """The smallest element."""

    def limit(self, dtype: DType) -> Number:
        return float("inf") if dtype.is_float else _range(dtype)[1]

    def combine(self, b: Builder, left: State, right: State) -> State:
        return (b.minimum(left[0], right[0]),)

    @staticmethod
    def samples() -> list[Sample]:
        return _extremum_samples(reduce_min, "min")


def _range(dtype: DType) -> tuple[int, int]:
    """Smallest and largest number of an integer dtype."""
    if dtype.kind == "b":
        return 0, 1
    if not dtype.is_signed:
        return 0, (1 << dtype.bits) - 1
    return -(1 << (dtype.bits - 1)), (1 << (dtype.bits - 1)) - 1


def _extremum_samples(function: Any, name: str) -> list[Sample]:
    cases: list[tuple[tuple[int, ...], Any, bool]] = [((3, 4), None, False), ((5, 67), 1, True)]
    cases += [((70, 5), 0, False), ((2, 3, 4), (0, 2), False), ((9000,), 0, False)]
    special = Arg((2, 10), values=SPECIAL[:6])
    with_nan = Arg((2, 10), values=SPECIAL)
    empty = Sample(
        function, (Arg((0, 3)),), error=ValueError, match=rf"\[{name}\] an empty run has no {name}"
    )
    return [
        *(_case(function, name, *c) for c in cases),
        _case(function, name, (3, 40), 1, False, dtype=int64),
        Sample(
            lambda x: function(x, 1),
            (special,),
            lambda np, x: getattr(np, name)(x, axis=1),
            gradient=False,
        ),
        Sample(
            lambda x: function(x, 1),
            (with_nan,),
            lambda np, x: getattr(np, name)(x, axis=1),
            gradient=False,
        ),
        empty,
    ]


@dataclass(frozen=True, eq=False)
class ArgExtremum(Reduction, abstract=True):
    """The position of the first largest or smallest element; NaN beats everything."""

    vjp = None

    @abstractmethod
    def beats(self, b: Builder, x: Scalar, y: Scalar) -> Scalar:
        """Whether x is strictly better than y."""

    def init(self, b: Builder, dtype: DType) -> State:
        # A position beyond every run marks the state that holds no element yet.
        return (b.const(0, dtype), b.const(_range(int64)[1], int64))

    def step(self, b: Builder, state: State, *xs: Scalar, position: Scalar) -> State:
        return self.combine(b, state, (xs[0], position))

    def combine(self, b: Builder, left: State, right: State) -> State:
        (x, i), (y, j) = left, right
        none = _range(int64)[1]
        nan_x, nan_y = b.isnan(x), b.isnan(y)
        better = (self.beats(b, x, y) & ~nan_y) | (nan_x & ~nan_y)
        tie = b.eq(x, y) | (nan_x & nan_y)
        keep = (b.ne(i, none) & (better | (tie & (i < j)))) | b.eq(j, none)
        return (b.select(keep, x, y), b.select(keep, i, j))

    def finish(self, b: Builder, state: State) -> Scalar:
        return state[1]

    def result_dtype(self, dtype: DType) -> DType:
        return int64


@dataclass(frozen=True, eq=False)
class Argmax(ArgExtremum):
    """The position of the first largest element."""

    def beats(self, b: Builder, x: Scalar, y: Scalar) -> Scalar:
        return x > y

    @staticmethod
    def samples() -> list[Sample]:
        return _arg_samples(argmax, "argmax")


@dataclass(frozen=True, eq=False)
class Argmin(ArgExtremum):
    """The position of the first smallest element."""

    def beats(self, b: Builder, x: Scalar, y: Scalar) -> Scalar:
        return x < y

    @staticmethod
    def samples() -> list[Sample]:
        return _arg_samples(argmin, "argmin")


def _arg_samples(function: Any, name: str) -> list[Sample]:
    cases: list[tuple[tuple[int, ...], Any, bool]] = [((3, 4), None, False), ((5, 67), 1, True)]
    cases += [((70, 5), 0, False), ((9000,), 0, False)]
    out = [_case(function, name, *c, gradient=False) for c in cases]
    ties = Arg((4, 30), values=(1.0, 3.0, 3.0, -1.0, -1.0))
    special = Arg((3, 10), values=SPECIAL)
    for arg in (ties, special):
        out.append(
            Sample(
                lambda x: function(x, 1),
                (arg,),
                lambda np, x: getattr(np, name)(x, axis=1),
                gradient=False,
            )
        )
    return out


@dataclass(frozen=True, eq=False)
class BlockSpread(View):
    """The number of a block repeated for every element of the block (see `Reduction.block`)."""

    start: int
    stop: int
    block: int
    shape: tuple[Dim, ...]
    exact = True

    def infer(self, *types: TensorType) -> TensorType:
        return types[0].with_shape(self.shape)

    def source(self, index: tuple[Dim, ...], shape: tuple[Dim, ...]) -> tuple[Dim, ...]:
        run = flatten_index(index[self.start : self.stop], self.shape[self.start : self.stop])
        return (*index[: self.start], run // self.block, *index[self.stop :])

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return apply(Sum.of(self.start, self.stop, self.block), g)

    @staticmethod
    def samples() -> list[Sample]:
        def case(shape: tuple[int, ...], run: int, full: tuple[int, ...]) -> Sample:
            unit = BlockSpread.of(0, 1, 4, full)
            return Sample(
                lambda x: apply(unit, x)[0],
                (Arg(shape),),
                lambda np, x: np.repeat(x, 4, axis=0)[:run],
            )

        return [case((3,), 10, (10,)), case((2, 3), 8, (8, 3))]


def spread(y: Any, op: Reduction, shape: tuple[Dim, ...]) -> Any:
    """A result of a reduction repeated over the run of axes that it came from."""
    if op.block:
        return apply(BlockSpread.of(op.start, op.stop, op.block, shape), y)[0]
    kept = (*shape[: op.start], *(1,) * (op.stop - op.start), *shape[op.stop :])
    return y.reshape(kept).expand(shape)


def reduce_run(op: type[Reduction], x: Node, start: int, stop: int) -> Node:
    """x reduced over the axes start..stop-1, by blocks if the run is long."""
    run = product(x.shape[start:stop])
    block = LANE_BLOCK if is_trailing(x.shape, stop) else CHAIN_BLOCK
    if not op.blocked or at_most(run, block):
        return op.of(start, stop).on(x)
    return reduce_run(op, op.of(start, stop, block).on(x), start, start + 1)


def reduce_axes(op: type[Reduction], x: Node, axes: tuple[int, ...], keepdims: bool) -> Node:
    """x reduced over axes (ascending): adjacent ones together, the last run first."""
    shape = x.shape
    stop = None
    for k in reversed(range(len(axes))):
        stop = axes[k] + 1 if stop is None else stop
        if k == 0 or axes[k - 1] != axes[k] - 1:
            x = reduce_run(op, x, axes[k], stop)
            stop = None
    if keepdims:
        x = x.reshape(tuple(1 if k in axes else n for k, n in enumerate(shape)))
    return x


def wide(dtype: DType) -> DType:
    """The dtype that sums of `dtype` have: 64 bits for integers and bools."""
    if dtype.is_float:
        return dtype
    return uint64 if dtype.kind == "u" else int64


@composite
def _sum(x: Node, *, axes: tuple[int, ...], keepdims: bool) -> Node:
    return reduce_axes(Sum, cast_node(x, wide(x.dtype)), axes, keepdims)


@composite
def _mean(x: Node, *, axes: tuple[int, ...], keepdims: bool) -> Any:
    x = x if x.dtype.is_float else cast_node(x, DEFAULT_FLOAT)
    count = product(x.shape[a] for a in axes)
    total: Any = reduce_axes(Sum, x, axes, keepdims)
    return total / (count if isinstance(count, int) else Size.of(count).on())


@composite
def _extremum(x: Node, *, op: type[Reduction], axes: tuple[int, ...], keepdims: bool) -> Node:
    if x.dtype is not bool_:
        return reduce_axes(op, x, axes, keepdims)
    found = reduce_axes(op, cast_node(x, uint8), axes, keepdims)
    return cast_node(found, bool_) if found.dtype is uint8 else found


def _axes(op: str, x: Any, axis: Any, dim: dict[str, Any]) -> tuple[int, ...]:
    axis = axis_argument(op, axis, dim)
    return tuple(range(x.ndim)) if axis is None else axes_of(op, axis, x.ndim)


def _keep(op: str, keepdims: bool, dim: dict[str, Any]) -> bool:
    return bool(dim.pop("keepdim", keepdims))


@public("sum")
def reduce_sum(x: Any, axis: Any = None, keepdims: bool = False, **dim: Any) -> Any:
    """Return the sum over `axis` (an int, several, or None for all); 0 for an empty run.

    Integers and bools are summed in 64 bits.  `dim`/`keepdim` are accepted as names too.
    """
    keep = _keep("sum", keepdims, dim)
    return _sum(x, axes=_axes("sum", x, axis, dim), keepdims=keep)


@public("mean")
def mean(x: Any, axis: Any = None, keepdims: bool = False, **dim: Any) -> Any:
    """Return the mean over `axis`; integers become the default float; NaN for an empty run."""
    keep = _keep("mean", keepdims, dim)
    return _mean(x, axes=_axes("mean", x, axis, dim), keepdims=keep)


def _nonempty(name: str, x: Any, axes: tuple[int, ...]) -> None:
    if any(x.shape[a] == 0 for a in axes):
        raise ShapeError(
            f"an empty run has no {name}",
            op=name,
            expect="at least one element along each reduced axis",
            actual=f"shape {tuple(x.shape)}, axes {axes}",
        )


@public("max")
def reduce_max(x: Any, axis: Any = None, keepdims: bool = False, **dim: Any) -> Any:
    """Return the largest element over `axis`, NaN if there is one.

    Raises ShapeError for an empty run.  Ties share the gradient evenly.
    """
    keep = _keep("max", keepdims, dim)
    axes = _axes("max", x, axis, dim)
    _nonempty("max", x, axes)
    return _extremum(x, op=Max, axes=axes, keepdims=keep)


@public("min")
def reduce_min(x: Any, axis: Any = None, keepdims: bool = False, **dim: Any) -> Any:
    """Return the smallest element over `axis`; see `max`."""
    keep = _keep("min", keepdims, dim)
    axes = _axes("min", x, axis, dim)
    _nonempty("min", x, axes)
    return _extremum(x, op=Min, axes=axes, keepdims=keep)


def _arg(name: str, op: type[Reduction], x: Any, axis: Any, keep: bool) -> Any:
    x = x if x.ndim else x.reshape((1,))
    axes = tuple(range(x.ndim)) if axis is None else axes_of(name, axis, x.ndim)
    if axis is not None and len(axes) != 1:
        raise ShapeError("takes one axis", op=name, expect="an int or None", actual=repr(axis))
    _nonempty(name, x, axes)
    return _extremum(x, op=op, axes=axes, keepdims=keep)


@public("argmax")
def argmax(x: Any, axis: Any = None, keepdims: bool = False, **dim: Any) -> Any:
    """Return the int64 position of the first largest element along `axis` (None: row-major).

    NaN counts as largest.  Raises ShapeError for an empty run.
    """
    keep = _keep("argmax", keepdims, dim)
    return _arg("argmax", Argmax, x, axis_argument("argmax", axis, dim), keep)


@public("argmin")
def argmin(x: Any, axis: Any = None, keepdims: bool = False, **dim: Any) -> Any:
    """Return the int64 position of the first smallest element along `axis`; see `argmax`."""
    keep = _keep("argmin", keepdims, dim)
    return _arg("argmin", Argmin, x, axis_argument("argmin", axis, dim), keep)
