"""Reductions over a run of adjacent axes, in the one canonical order (see `kernel.ir`).

A run that reaches the last axis (axes of size 1 aside) is reduced over lanes, its elements taken
row-major; any other run is reduced as a chain over rows, for all inner elements side by side.  A
run longer than a block becomes two reductions: one number per block, then the blocks by the same
rule.  So the order of additions depends on the logical shape alone, and the error stays small:
at most 64 additions follow one another in a lane or chain per level.

Public functions take `axis` (an int, several ints, or None for all axes; () for none of them) and
`keepdims`, also as `dim` and `keepdim`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from dualgrad.compiler.ir.dims import Dim, at_most, ceil_div, product
from dualgrad.compiler.ir.node import Node
from dualgrad.compiler.ir.refusal import not_a_tensor
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import apply, public
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.compiler.ops.arithmetic import maximum
from dualgrad.compiler.ops.base import Op, axes_of, axis_argument, keep_argument
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.create import Size
from dualgrad.compiler.ops.elementwise import Copy, cast_node
from dualgrad.compiler.ops.precision import SINGLE, kept, single
from dualgrad.compiler.ops.sample import SPECIAL, Arg, Sample, samples_of
from dualgrad.compiler.ops.view import View, flatten_index
from dualgrad.runtime.dtype import DEFAULT_FLOAT, DType, as_dtype, bool_, float64, int64, uint64
from dualgrad.runtime.errors import DTypeError

if TYPE_CHECKING:
    from dualgrad.compiler.build.builder import Builder

LANES = 64
LANE_BLOCK = 4096  # elements of a trailing run that are reduced in one go
CHAIN_BLOCK = 64  # rows of a leading run
State = tuple[Scalar, ...]


class Reduction(Op, abstract=True):
    """out[..., ...] = finish(combine over the axes start..stop of element(x))."""

    start: int
    stop: int
    block: int = 0  # 0: the whole run gives one number; else one number per block

    required = (*Op.required, "init", "step", "combine", "finish")
    lanes: ClassVar[int] = LANES
    blocked: ClassVar[bool] = False  # whether long runs are split, by threads too

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


class Sum(Reduction):
    """The sum of the elements; integers are summed as 64-bit integers by the caller."""

    precision = SINGLE

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
        cases += [((2, 3), (), False), ((2, 3, 4), (), True), ((), -1, False), ((3, 0), 1, True)]
        out = [reduction_case(reduce_sum, "sum", *c, relative=1e-6) for c in cases]
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
            Sample(reduce_sum, (Arg((0,)),), lambda np, x: x.sum(), gradient=False),
            reduction_case(reduce_sum, "sum", (3, 40), 1, False, dtype=int64),
            reduction_case(reduce_sum, "sum", (3, 40), 0, False, dtype=bool_),
            Sample(
                lambda x: reduce_sum(x, 0, dtype=float64),
                (Arg((9, 3)),),
                lambda np, x: x.sum(0, dtype=np.float64),
                relative=1e-15,
            ),
            bad,
            twice,
        ]


def reduction_case(
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
        lambda np, x: getattr(np, name)(
            x.reshape(-1) if axis == -1 and not shape else x, axis=axis, keepdims=keep
        ),
        relative=relative,
        gradient=gradient and dtype.is_float,
    )


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


def block_of(shape: tuple[Dim, ...], stop: int) -> int:
    """The longest part of a run of axes ending at `stop` that is reduced in one go."""
    return LANE_BLOCK if is_trailing(shape, stop) else CHAIN_BLOCK


def reduce_run(op: type[Reduction], x: Node, start: int, stop: int) -> Node:
    """x reduced over the axes start..stop-1, by blocks if the run is long."""
    run = product(x.shape[start:stop])
    block = block_of(x.shape, stop)
    if not op.blocked or at_most(run, block):
        return op.of(start, stop).on(x)
    return reduce_run(op, op.of(start, stop, block).on(x), start, start + 1)


def reduce_axes(op: type[Reduction], x: Node, axes: tuple[int, ...], keepdims: bool) -> Node:
    """x reduced over axes (ascending): adjacent ones together, the last run first."""
    if not axes:
        return Copy.of().on(x)
    shape = x.shape
    stop = None
    for k in reversed(range(len(axes))):
        stop = axes[k] + 1 if stop is None else stop
        if k == 0 or axes[k - 1] != axes[k] - 1:
            x = reduce_run(op, x, axes[k], stop)
            stop = None
    return keep_axes(x, shape, axes) if keepdims else x


def keep_axes(x: Node, shape: tuple[Dim, ...], axes: tuple[int, ...]) -> Node:
    """A result of reducing axes of `shape`, with sizes of 1 in their places."""
    kept: Node = x.reshape(tuple(1 if k in axes else n for k, n in enumerate(shape)))
    return kept


def limits(dtype: DType) -> tuple[int, int]:
    """Smallest and largest number of an integer dtype."""
    if dtype.kind == "b":
        return 0, 1
    if not dtype.is_signed:
        return 0, (1 << dtype.bits) - 1
    return -(1 << (dtype.bits - 1)), (1 << (dtype.bits - 1)) - 1


def wide(dtype: DType) -> DType:
    """The dtype that sums of `dtype` have: 64 bits for integers and bools."""
    if dtype.is_float:
        return dtype
    return uint64 if dtype.kind == "u" else int64


def counted(x: Node, axes: tuple[int, ...], less: float = 0) -> Any:
    """The number of elements along `axes`, minus `less` but never below 0, in the dtype of x."""
    count = product(x.shape[a] for a in axes)
    if isinstance(count, int):
        return float(max(count - less, 0))
    number: Any = cast_node(Size.of(count).on(), float64)
    return cast_node(maximum(number - less, 0.0) if less else number, x.dtype)


def as_float(x: Node, dtype: DType | None = None) -> Node:
    """x in `dtype`, else in its own float dtype or the default one."""
    return cast_node(x, dtype or (x.dtype if x.dtype.is_float else DEFAULT_FLOAT))


@composite
@single
def _sum(x: Node, *, axes: tuple[int, ...], keepdims: bool, dtype: DType | None) -> Any:
    total: Any = reduce_axes(Sum, cast_node(x, dtype or wide(x.dtype)), axes, keepdims)
    # The identity of float sums is -0.0; the sum of nothing is 0.
    return total + 0 if any(x.shape[a] == 0 for a in axes) else total


@composite
@kept
def _mean(x: Node, *, axes: tuple[int, ...], keepdims: bool, dtype: DType | None) -> Any:
    x = as_float(x, dtype)
    total: Any = reduce_axes(Sum, x, axes, keepdims)
    return total / counted(x, axes)


def reduced(
    op: str, x: Any, axis: Any, keepdims: bool, names: dict[str, Any]
) -> tuple[tuple[int, ...], bool]:
    """The axes to reduce in ascending order, and whether to keep them; by both frameworks' names.

    A tensor of no dimensions may be reduced along its axis 0 or -1.
    """
    keep = keep_argument(op, axis, keepdims, names)
    axis = axis_argument(op, axis, names)
    try:
        rank = x.ndim
    except AttributeError:
        raise not_a_tensor(op, x) from None
    if axis is None or (rank == 0 and axis in (0, -1)):
        return tuple(range(rank)), keep
    return axes_of(op, axis, rank), keep


def dtype_argument(dtype: Any) -> DType | None:
    return None if dtype is None else as_dtype(dtype)


def float_argument(op: str, dtype: Any) -> DType | None:
    """A dtype to compute in, which must be a float."""
    target = dtype_argument(dtype)
    if target is not None and not target.is_float:
        raise DTypeError(
            "the result is a float",
            op=op,
            expect="a float",
            actual=target.name,
            hint="convert the result with .astype(...)",
        )
    return target


@public("sum")
def reduce_sum(
    x: Any, axis: Any = None, keepdims: bool = False, *, dtype: Any = None, **dim: Any
) -> Any:
    """Return the sum over `axis`; 0 for an empty run.

    x is converted to `dtype` first, if given; else integers and bools are summed in 64 bits.
    Raises ShapeError for an axis that x does not have or that is named twice.
    """
    axes, keep = reduced("sum", x, axis, keepdims, dim)
    return _sum(x, axes=axes, keepdims=keep, dtype=dtype_argument(dtype))


@public("mean")
def mean(x: Any, axis: Any = None, keepdims: bool = False, *, dtype: Any = None, **dim: Any) -> Any:
    """Return the mean over `axis`; integers become the default float; NaN for an empty run.

    Raises DTypeError if `dtype` is given and no float.
    """
    axes, keep = reduced("mean", x, axis, keepdims, dim)
    return _mean(x, axes=axes, keepdims=keep, dtype=float_argument("mean", dtype))


@samples_of(mean)
def _mean_samples() -> list[Sample]:
    cases: list[tuple[tuple[int, ...], Any, bool]]
    cases = [((5, 67), None, False), ((5, 67), 1, True), ((70, 5), 0, False), ((), None, False)]
    cases += [((2, 3, 4), (0, -1), True), ((2, 3), (), False)]
    empty = Sample(mean, (Arg((0, 3)),), lambda np, x: x.mean(), gradient=False)
    refused = Sample(
        lambda x: mean(x, dtype=int64), (Arg((3,)),), error=TypeError, match="result is a float"
    )
    return [
        *(reduction_case(mean, "mean", *c, relative=1e-6) for c in cases),
        reduction_case(mean, "mean", (3, 4), 0, False, dtype=int64, relative=1e-6),
        empty,
        refused,
    ]
