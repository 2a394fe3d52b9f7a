"""What the functions of linear algebra share: checks of operands, masks, packed results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dualgrad.compiler.ir.dims import Dim, Offset, at_most, same
from dualgrad.compiler.ir.node import Node
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import apply, dim_text
from dualgrad.compiler.ops.base import broadcast_shapes, result_dtype
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.contract import matmul
from dualgrad.compiler.ops.create import Iota
from dualgrad.compiler.ops.elementwise import cast_node
from dualgrad.compiler.ops.logical import where
from dualgrad.compiler.ops.operands import check_tensors
from dualgrad.compiler.ops.region import accumulate
from dualgrad.compiler.ops.sample import Arg, Sample
from dualgrad.compiler.ops.view import Index, View, expand_to, flatten_index
from dualgrad.runtime.dtype import DEFAULT_FLOAT, DType, float64
from dualgrad.runtime.errors import ShapeError


def need_matrix(op: str, x: Any) -> None:
    """Refuse what is no matrix or batch of matrices."""
    check_tensors(op, x)
    if x.ndim < 2:
        raise ShapeError(
            "takes a matrix or a batch of matrices",
            op=op,
            expect="[..., M, N]",
            actual=dim_text(x.shape),
            hint="make a row with x.unsqueeze(0), a column with x.unsqueeze(1)",
        )


def need_square(op: str, x: Any) -> None:
    """Refuse what is no square matrix or batch of them."""
    need_matrix(op, x)
    if not same(x.shape[-1], x.shape[-2]):
        raise ShapeError(
            "takes square matrices",
            op=op,
            expect="[..., N, N]",
            actual=dim_text(x.shape),
            hint="use lstsq or pinv for other matrices",
        )


def as_floats(op: str, *xs: Node) -> tuple[Node, ...]:
    """Operands in their common float dtype; integers become the default float."""
    dtype = result_dtype(op, [x.type for x in xs])
    dtype = dtype if dtype.is_float else DEFAULT_FLOAT
    return tuple(cast_node(x, dtype) for x in xs)


def common_batch(op: str, *xs: Node) -> tuple[Node, ...]:
    """Matrices with their leading dimensions broadcast to the same shape."""
    batch = broadcast_shapes(op, [x.shape[:-2] for x in xs])
    return tuple(expand_to(x, (*batch, *x.shape[-2:])) for x in xs)


def shorter(m: Dim, n: Dim) -> Dim:
    """The smaller of two sizes."""
    return m if at_most(m - n, 0) else n


def epsilon(dtype: DType) -> float:
    """The distance from 1 to the next number of a float dtype (the default one for integers)."""
    return 2.0**-52 if dtype is float64 else 2.0**-23


def turned(x: Any) -> Any:
    """The transposes of matrices."""
    return x.transpose(-2, -1)


def product_of(*factors: Any) -> Any:
    """The product of matrices, from left to right."""
    total = factors[0]
    for x in factors[1:]:
        total = matmul(total, x)
    return total


def identity(n: Dim, dtype: DType) -> Any:
    """The unit matrix [n, n], as a node."""
    return cast_node(Iota.of((n, n), 0).on().eq(Iota.of((n, n), 1).on()), dtype)


def triangle(x: Any, lower: bool = True, strict: bool = False) -> Any:
    """Matrices with the elements above (or below) the diagonal set to zero; `strict`: the
    diagonal too."""
    m, n = x.shape[-2:]
    rows, columns = Iota.of((m, n), 0).on(), Iota.of((m, n), 1).on()
    low, high = (columns, rows) if lower else (rows, columns)
    return where(low < high if strict else low <= high, x, 0.0)


def diagonal_matrix(x: Any) -> Any:
    """Square matrices [..., n, n] with x [..., n] on their diagonals."""
    n = x.shape[-1]
    hit = Iota.of((n, n), 0).on().eq(Iota.of((n, n), 1).on())
    return where(hit, x.reshape((*x.shape[:-1], 1, n)), 0.0)


def symmetric(x: Any) -> Any:
    """The symmetric part of matrices."""
    return (x + turned(x)) * 0.5


class Packed(View):
    """One of the arrays that stand one after another in the last dimension, by its place there
    and its shape."""

    start: Offset
    shape: tuple[Dim, ...]

    def infer(self, *types: TensorType) -> TensorType:
        return types[0].with_shape((*types[0].shape[:-1], *self.shape))

    def source(self, index: Index, shape: tuple[Dim, ...]) -> Index:
        batch = len(shape) - 1
        return (*index[:batch], self.start + flatten_index(index[batch:], self.shape))

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (accumulate(g, self, x.shape),)

    @staticmethod
    def samples() -> list[Sample]:
        def good(start: int, shape: tuple[int, ...], of: tuple[int, ...]) -> Sample:
            def reference(np: Any, x: Any) -> Any:
                stop = start + int(np.prod(shape))
                return x[..., start:stop].reshape((*x.shape[:-1], *shape))

            return Sample(lambda x: part(x, start, *shape), (Arg(of),), reference)

        cases = [(2, (2, 3), (9,)), (0, (4,), (3, 5)), (4, (), (2, 5)), (1, (2, 1), (2, 3, 4))]
        return [good(*c) for c in (*cases, (1, (0, 3), (2, 4)))]


def part(x: Any, start: Dim, *shape: Dim) -> Any:
    """One of the arrays that stand one after another in the last dimension of x, sharing memory."""
    return apply(Packed.of(start, shape), x)[0]


# -- samples --------------------------------------------------------------------------------------


@composite
def _shifted(x: Any, *, by: float) -> Any:
    return x + identity(x.shape[-1], x.dtype) * by


@composite
def _gram(x: Any) -> Any:
    return matmul(x, turned(x)) + identity(x.shape[-2], x.dtype) * 3.0


def shifted(x: Any, by: float = 9.0) -> Any:
    """Square matrices with a number added to their diagonals: well conditioned."""
    return _shifted(x, by=by)


def gram(x: Any) -> Any:
    """x x^T + 3: symmetric and positive definite."""
    return _gram(x)


def np_shifted(np: Any, x: Any, by: float = 9.0) -> Any:
    return x + by * np.eye(x.shape[-1])


def np_gram(np: Any, x: Any) -> Any:
    return x @ np.swapaxes(x, -1, -2) + 3 * np.eye(x.shape[-2])


def wide(function: Callable[..., Any]) -> Callable[..., Any]:
    """A reference that computes in float64 and gives the dtype of its operands."""

    def reference(np: Any, *xs: Any) -> Any:
        dtype = np.result_type(*xs)
        small = dtype if dtype in (np.float32, np.float64) else np.float64
        return np.asarray(function(np, *(np.asarray(x, np.float64) for x in xs))).astype(small)

    return reference


def case(
    function: Callable[..., Any],
    reference: Callable[..., Any],
    *shapes: tuple[int, ...],
    relative: float = 3e-6,
    gradient: bool = True,
    **more: Any,
) -> Sample:
    """A sample whose reference NumPy computes in float64."""
    args = tuple(Arg(s, **more) for s in shapes)
    return Sample(function, args, wide(reference), relative=relative, gradient=gradient)


def refused(function: Callable[..., Any], match: str, *shapes: tuple[int, ...]) -> Sample:
    return Sample(function, tuple(map(Arg, shapes)), error=ValueError, match=match)
