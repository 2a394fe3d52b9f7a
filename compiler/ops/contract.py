"""Contractions: sums of products, lowered to the packed GEMM; matrix-vector ones to lanes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dualgrad.compiler.ir.dims import Dim, product, same
from dualgrad.compiler.ir.node import Node
from dualgrad.compiler.ir.refusal import not_a_tensor
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import Unit, Value, dim_text, public
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.compiler.ops.base import Op, broadcast_shapes, result_dtype
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.elementwise import cast_node
from dualgrad.compiler.ops.hints import product_hint
from dualgrad.compiler.ops.precision import LOW, low
from dualgrad.compiler.ops.reduce import Reduction, State, spread
from dualgrad.compiler.ops.sample import Arg, Sample
from dualgrad.compiler.ops.view import expand_to
from dualgrad.runtime.dtype import DType, int64
from dualgrad.runtime.errors import DTypeError, ShapeError

if TYPE_CHECKING:
    from dualgrad.compiler.build.builder import Builder

DOT_LANES = 16


class Contraction(Op, abstract=True):
    """A sum of products over a shared index, in the canonical order of `kernel.ir.Contract`."""

    precision = LOW

    required = Op.required


class MatMul(Contraction):
    """c[b, i, j] = sum over k of a[b, i, k] * b[b, k, j]; both operands have three dimensions.

    Of 16-bit floats, which only lowering makes operands, it is the sum of their float32 values."""

    def infer(self, *types: TensorType) -> TensorType:
        a, b = types
        shape = a.shape[0], a.shape[1], b.shape[2]
        return TensorType(shape, a.dtype.compute, False, a.device)

    def vjp(self, g: Any, out: Any, a: Any, b: Any) -> tuple[Any, ...]:
        return (matmul(g, b.transpose(1, 2)), matmul(a.transpose(1, 2), g))

    @staticmethod
    def samples() -> list[Sample]:
        shapes: list[tuple[tuple[int, ...], tuple[int, ...]]]
        shapes = [((3, 4), (4, 5)), ((1, 7), (7, 5)), ((5, 7), (7, 1)), ((7,), (7,))]
        shapes += [((4,), (4, 5)), ((3, 4), (4,)), ((2, 3, 4), (2, 4, 5)), ((2, 1, 3, 4), (4, 2))]
        shapes += [((0, 4), (4, 5)), ((3, 0), (0, 5)), ((17, 33), (33, 19)), ((2, 600), (600, 3))]
        good = [_matmul_case(a, b) for a, b in shapes]
        good.append(_matmul_case((4, 6), (6, 5), layout="transposed"))
        good.append(_matmul_case((4, 6), (6, 5), dtype=int64))
        bad = Sample(
            matmul,
            (Arg((8, 64)), Arg((32, 10))),
            error=ValueError,
            match=r"\[matmul\] inner dimensions differ\n  expect: .*\n  actual: 64 != 32",
        )
        scalar = Sample(
            matmul, (Arg(()), Arg((3,))), error=ValueError, match="at least one dimension"
        )
        return [*good, bad, scalar]


def _matmul_case(
    a: tuple[int, ...], b: tuple[int, ...], layout: str = "contiguous", dtype: DType | None = None
) -> Sample:
    kind = {} if dtype is None else {"dtype": dtype, "low": -9.0, "high": 9.0}
    args = (Arg(a, layout=layout, **kind), Arg(b, layout=layout, **kind))  # type: ignore[arg-type]
    return Sample(
        matmul, args, lambda np, x, y: np.matmul(x, y), relative=1e-6, gradient=dtype is None
    )


class Dot(Reduction):
    """Sums of products over the last axis by chains of fma in 16 lanes (matrix-vector)."""

    precision = LOW

    lanes = DOT_LANES

    def init(self, b: Builder, dtype: DType) -> State:
        return (b.const(0, dtype),)

    def step(self, b: Builder, state: State, *xs: Scalar, position: Scalar) -> State:
        x, y = xs
        return (b.fma(x, y, state[0]) if x.dtype.is_float else x * y + state[0],)

    def combine(self, b: Builder, left: State, right: State) -> State:
        return (left[0] + right[0],)

    def vjp(self, g: Any, out: Any, x: Any, y: Any) -> tuple[Any, ...]:
        g = spread(g, self, x.shape)
        return (g * y, g * x)

    @staticmethod
    def samples() -> list[Sample]:
        return [_matmul_case((1, n), (n, 3)) for n in (1, 5, 16, 100, 5000)]


@composite
@low
def _matmul(a: Node, b: Node) -> Any:
    dtype = result_dtype("matmul", [a.type, b.type])
    a, b = cast_node(a, dtype), cast_node(b, dtype)
    rows, columns = a.ndim > 1, b.ndim > 1
    a = a if rows else a.reshape((1, *a.shape))
    b = b if columns else b.reshape((*b.shape, 1))
    batch = broadcast_shapes("matmul", [a.shape[:-2], b.shape[:-2]])
    m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
    if b.ndim == 2 and batch and m != 1 and n != 1:  # the gradient of b is one product, too
        stacked = _matmul(a.reshape((product(batch) * m, k)), b)
        return stacked.reshape((*batch, *((m,) if rows else ()), n))
    a = expand_to(a, (*batch, m, k)).reshape((product(batch), m, k))
    b = expand_to(b, (*batch, k, n)).reshape((product(batch), k, n))
    if m == 1 or n == 1:
        full: tuple[Dim, ...] = (product(batch), m, n, k)
        left = expand_to(a.reshape((product(batch), m, 1, k)), full)
        right = expand_to(b.transpose(1, 2).reshape((product(batch), 1, n, k)), full)
        c: Any = Dot.of(3, 4).on(left, right)
    else:
        c = MatMul.of().on(a, b)
    return c.reshape((*batch, *((m,) if rows else ()), *((n,) if columns else ())))


MATMUL: Unit = _matmul.unit  # type: ignore[attr-defined]


@public("__matmul__", "matmul")
def matmul(a: Any, b: Any) -> Any:
    """Return the matrix product of a [..., M, K] and b [..., K, N], batched by broadcasting.

    A 1-d operand counts as a row (a) or a column (b).  The order of the sum over K depends on K,
    the dtype and whether M or N is 1, on nothing else.  All rows of a meet one matrix b [K, N] in
    one product, whose gradient for b sums over all of them.  Raises ShapeError if inner dimensions
    differ, DTypeError for bools.
    """
    try:
        ranks, kinds = (a.ndim, b.ndim), (a.dtype.kind, b.dtype.kind)
    except AttributeError:
        raise not_a_tensor("matmul", b if isinstance(a, Value) else a) from None
    if 0 in ranks:
        raise ShapeError(
            "operands need at least one dimension",
            op="matmul",
            expect="a [..., M, K] and b [..., K, N]",
            actual=f"{dim_text(a.shape)} and {dim_text(b.shape)}",
            hint="use * to multiply by a number",
        )
    inner = b.shape[-2] if b.ndim > 1 else b.shape[0]
    if not same(a.shape[-1], inner):
        raise ShapeError(
            "inner dimensions differ",
            op="matmul",
            expect=f"a.shape[-1] == b.shape[{-2 if b.ndim > 1 else 0}]",
            actual=f"{a.shape[-1]} != {inner}        (a: {a.type!r}, b: {b.type!r})",
            hint=product_hint(a, b),
        )
    if "b" in kinds:
        raise DTypeError(
            "does not take bools",
            op="matmul",
            expect="numbers",
            actual=f"{a.dtype.name} and {b.dtype.name}",
            hint="convert with x.to(dg.int64)",
        )
    return _matmul(a, b)
