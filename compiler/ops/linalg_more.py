"""Least squares, and functions of linear algebra that are formulas of others."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any

from dualgrad.compiler.ir.dims import Dim, at_most, product, same
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import dim_text
from dualgrad.compiler.ops.axes import movedim
from dualgrad.compiler.ops.base import (
    LAST,
    axis_argument,
    broadcast_shapes,
    no_more_names,
    normalize_axis,
    other_name,
)
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.contract import matmul
from dualgrad.compiler.ops.elementwise import cast_node
from dualgrad.compiler.ops.joining import cat
from dualgrad.compiler.ops.library import Library
from dualgrad.compiler.ops.linalg_base import (
    as_floats,
    case,
    common_batch,
    need_matrix,
    np_shifted,
    part,
    product_of,
    refused,
    shifted,
    shorter,
    turned,
)
from dualgrad.compiler.ops.linalg_solve import inv, solve
from dualgrad.compiler.ops.linalg_spectral import Pinv
from dualgrad.compiler.ops.operands import check_tensors
from dualgrad.compiler.ops.precision import low, single
from dualgrad.compiler.ops.sample import Sample, samples_of
from dualgrad.compiler.ops.slicing import narrow
from dualgrad.runtime.dtype import int64
from dualgrad.runtime.errors import ArgumentError, ShapeError


class Lstsq(Library):
    """In one row: the solution x [n, k] of least norm that minimizes |a x - b|, the rank of a,
    and its singular values, for a [..., m, n] and b [..., m, k]."""

    rcond: float
    routine = "lstsq"

    def infer(self, *types: TensorType) -> TensorType:
        *batch, m, n = types[0].shape
        return types[0].with_shape((*batch, n * types[1].shape[-1] + 1 + shorter(m, n)))

    def parts(self, packed: Any, a: Any, b: Any) -> tuple[Any, Any, Any]:
        m, n = a.shape[-2:]
        k = b.shape[-1]
        return (
            part(packed, 0, n, k),
            part(packed, n * k),
            part(packed, n * k + 1, shorter(m, n)),
        )

    def vjp(self, g: Any, out: Any, a: Any, b: Any) -> tuple[Any, ...]:
        """Through x = pinv(a) b (Golub and Pereyra, 1973); a must keep its rank.  The singular
        values have no gradient here: `svdvals` has it."""
        x, gx = self.parts(out, a, b)[0], self.parts(g, a, b)[0]
        p = Pinv.of(0.0, self.rcond, 0).on(a)
        gb = matmul(turned(p), gx)
        rest = matmul(b - matmul(a, x), turned(matmul(p, gb)))
        across = gx - product_of(p, a, gx)
        across = product_of(turned(p), x, turned(across))
        return (rest + across - matmul(gb, turned(x)), gb)

    @staticmethod
    def samples() -> list[Sample]:
        def good(k: int, *shapes: tuple[int, ...], gradient: bool = True, **more: Any) -> Sample:
            def reference(np: Any, a: Any, b: Any) -> Any:
                if a.ndim == 2:
                    x, _, rank, s = np.linalg.lstsq(a, b)
                    return (x, ((a @ x - b) ** 2).sum(0), rank, s)[k]
                return np.stack([reference(np, u, v) for u, v in zip(a, b, strict=True)])

            sample = case(
                lambda a, b: lstsq(a, b)[k], reference, *shapes, gradient=gradient, **more
            )
            return sample

        return [
            good(0, (5, 3), (5, 2)),
            good(0, (5, 3), (5,)),
            good(0, (2, 4), (2, 3), layout="transposed"),
            good(0, (2, 4, 2), (2, 4, 1)),
            good(1, (5, 3), (5, 2)),
            good(3, (5, 3), (5, 2), gradient=False),
            refused(lstsq, r"\[lstsq\] the right-hand side does not fit", (3, 2), (2, 1)),
        ]


@composite
@single
def _lstsq(a: Any, b: Any, *, rcond: float) -> Any:
    return Lstsq.of(rcond).on(*common_batch("lstsq", *as_floats("lstsq", a, b)))


@composite
@single
def _rank_of(x: Any) -> Any:
    return cast_node(x, int64)


def lstsq(
    a: Any, b: Any, rcond: float | None = None, *, driver: str | None = None
) -> tuple[Any, Any, Any, Any]:
    """Return (x, residuals, rank, singular values of a): x of least norm minimizes |a x - b|.

    a [..., M, N], b [..., M, K] (or [M]); x [..., N, K].  Singular values up to `rcond` times the
    largest count as zero (None: max(M, N) * epsilon).  residuals [..., K] are always the sums of
    squares of a x - b, where NumPy has none for some shapes and ranks.  The gradient holds where
    the rank is constant.

    The algorithm is LAPACK's gelsd whatever `driver` says.  If it says something, results that
    PyTorch does not give for it are empty (0,): residuals unless M > N, singular values but for
    "gelsd" and "gelss", the rank for "gels".
    """
    check_tensors("lstsq", b)
    if driver not in (None, "gels", "gelsy", "gelsd", "gelss"):
        raise ArgumentError(
            "no such driver",
            op="lstsq",
            expect="gels, gelsy, gelsd or gelss",
            actual=f"{driver!r}",
            hint="leave driver out: all give the same result here",
        )
    need_matrix("lstsq", a)
    column = b.reshape((*b.shape, 1)) if b.ndim == 1 else b
    if b.ndim == 0 or not same(column.shape[-2], a.shape[-2]):
        raise ShapeError(
            "the right-hand side does not fit",
            op="lstsq",
            expect=f"[..., {a.shape[-2]}, K] or [{a.shape[-2]}]",
            actual=dim_text(b.shape),
            hint="it has as many rows as the matrix",
        )
    limit = float(-1.0 if rcond is None else rcond)
    packed = _lstsq(a, column, rcond=limit)
    x, rank, s = Lstsq.of(limit).parts(packed, a, column)
    miss = matmul(a, x) - column
    residuals, rank = (miss * miss).sum(-2), _rank_of(rank)
    if b.ndim == 1:
        x, residuals = x.reshape(x.shape[:-1]), residuals.reshape(residuals.shape[:-1])
    if driver is not None:
        residuals = residuals if not at_most(a.shape[-2] - a.shape[-1], 0) else _nothing(s)
        rank = _nothing(rank) if driver == "gels" else rank
        s = s if driver in ("gelsd", "gelss") else _nothing(s)
    return x, residuals, rank, s


def _nothing(x: Any) -> Any:
    """A tensor (0,) of the dtype of x."""
    return narrow(x.reshape((x.size,)), 0, 0, 0)


@composite
def _cross(a: Any, b: Any, *, axis: int) -> Any:
    def turn(x: Any, k: int) -> Any:
        """x_(k + i) for i = 0, 1, 2."""
        return cat([narrow(x, axis, k, 3 - k), narrow(x, axis, 0, k)], axis)

    return turn(a, 1) * turn(b, 2) - turn(a, 2) * turn(b, 1)


def cross(a: Any, b: Any, axis: int = LAST, **dim: Any) -> Any:
    """Return the cross products of vectors of 3 elements along `axis`; other axes broadcast."""
    check_tensors("cross", a, b)
    axis = axis_argument("cross", axis, dim)
    shape = broadcast_shapes("cross", [a.shape, b.shape])
    axis = normalize_axis("cross", axis, len(shape)) - len(shape)
    if not all(x.ndim >= -axis and same(x.shape[axis], 3) for x in (a, b)):
        raise ShapeError(
            "vectors need 3 elements",
            op="cross",
            expect=f"size 3 along axis {axis}",
            actual=f"{dim_text(a.shape)} and {dim_text(b.shape)}",
            hint="name the axis that holds the coordinates: axis=...",
        )
    return _cross(a.expand(shape), b.expand(shape), axis=axis + len(shape))


Order = int | tuple["Order", "Order"]  # which operand, or the product of two


@cache
def chain_order(sizes: tuple[int, ...]) -> Order:
    """The cheapest order to multiply matrices of sizes[k] x sizes[k + 1]; Cormen et al.,
    "Introduction to Algorithms", section 15.2."""

    @cache
    def best(i: int, j: int) -> tuple[int, Order]:
        if i == j:
            return 0, i
        found: tuple[int, Order] | None = None
        for k in range(i, j):
            (left, a), (right, b) = best(i, k), best(k + 1, j)
            cost = left + right + sizes[i] * sizes[k + 1] * sizes[j + 1]
            if found is None or cost < found[0]:
                found = cost, (a, b)
        assert found is not None
        return found

    return best(0, len(sizes) - 2)[1]


@composite
@low
def _chain(*xs: Any, order: Any) -> Any:
    if isinstance(order, int):
        return xs[order]
    left, right = (_chain(*xs, order=o) for o in order)
    return matmul(left, right)


def multi_dot(arrays: Sequence[Any]) -> Any:
    """Return the product of matrices, in the order that needs the fewest multiplications.

    The first may be a vector (a row), and the last (a column).  Raises ShapeError if sizes do not
    fit.
    """
    xs = list(arrays)
    check_tensors("multi_dot", *xs)
    if len(xs) < 2:
        raise ArgumentError(
            "nothing to multiply",
            op="multi_dot",
            expect="two or more",
            actual=str(len(xs)),
            hint="pass the matrices in a list: multi_dot([a, b, c])",
        )
    row, column = xs[0].ndim == 1, xs[-1].ndim == 1
    xs[0] = xs[0].reshape((1, xs[0].shape[0])) if row else xs[0]
    xs[-1] = xs[-1].reshape((xs[-1].shape[0], 1)) if column else xs[-1]
    fits = all(x.ndim == 2 for x in xs) and all(
        same(a.shape[1], b.shape[0]) for a, b in pairwise(xs)
    )
    if not fits:
        raise ShapeError(
            "matrices do not fit",
            op="multi_dot",
            expect="[a, b], [b, c], [c, d], ...",
            actual=", ".join(dim_text(x.shape) for x in xs),
            hint="each has as many rows as the one before has columns",
        )
    sizes = (*(x.shape[0] for x in xs), xs[-1].shape[1])
    out = _chain(*xs, order=chain_order(sizes))
    kept = tuple(n for n, gone in zip(out.shape, (row, column), strict=True) if not gone)
    return out.reshape(kept)


def tensorsolve(a: Any, b: Any, axes: Any = None, **dims: Any) -> Any:
    """Return x with tensordot(a, x, x.ndim) = b; the product of b's sizes is that of x's.

    `axes` of a are moved to its end first.
    """
    check_tensors("tensorsolve", b)
    axes = other_name("tensorsolve", "axes", axes, "dims", dims)
    no_more_names("tensorsolve", dims)
    if axes is not None:
        axes = tuple(axes)
        a = movedim(a, axes, tuple(range(a.ndim - len(axes), a.ndim)))
    rest = a.shape[b.ndim :]
    _need_equal("tensorsolve", product(rest), b.size, a)
    return solve(a.reshape((b.size, b.size)), b.reshape((b.size,))).reshape(rest)


def tensorinv(a: Any, ind: int = 2) -> Any:
    """Return the inverse of a for tensordot over its last a.ndim - ind axes."""
    if ind < 1:
        raise ArgumentError(
            "no such axis",
            op="tensorinv",
            expect="ind > 0",
            actual=str(ind),
            hint="ind is how many axes come first",
        )
    first, rest = a.shape[:ind], a.shape[ind:]
    n = product(rest)
    _need_equal("tensorinv", product(first), n, a)
    return inv(a.reshape((n, n))).reshape((*rest, *first))


def _need_equal(op: str, a: Dim, b: Dim, x: Any) -> None:
    if not same(a, b):
        raise ShapeError(
            "the tensor is no square matrix",
            op=op,
            expect=f"{a} == {b}",
            actual=dim_text(x.shape),
            hint="the first axes and the others must have as many elements",
        )


# -- samples --------------------------------------------------------------------------------------


@samples_of(cross)
def _cross_samples() -> list[Sample]:
    def good(a: tuple[int, ...], b: tuple[int, ...], axis: int = -1) -> Sample:
        return case(
            lambda x, y: cross(x, y, axis), lambda np, x, y: np.cross(x, y, axis=axis), a, b
        )

    return [
        good((3,), (3,)),
        good((2, 3), (3,)),
        good((3, 4), (3, 4), 0),
        good((0, 3), (0, 3)),
        refused(cross, "vectors need 3 elements", (2,), (2,)),
    ]


@samples_of(multi_dot)
def _multi_dot_samples() -> list[Sample]:
    def good(*shapes: tuple[int, ...]) -> Sample:
        return case(
            lambda *xs: multi_dot(xs),
            lambda np, *xs: np.linalg.multi_dot(xs),
            *shapes,
            relative=1e-5,
        )

    return [
        good((3, 4), (4, 2)),
        good((3, 4), (4, 2), (2, 5)),
        good((2, 9), (9, 2), (2, 7), (7, 3)),
        good((4,), (4, 5), (5, 3), (3,)),
        good((4,), (4,)),
        refused(lambda x, y: multi_dot([x, y]), "matrices do not fit", (2, 3), (2, 3)),
    ]


@samples_of(tensorsolve)
def _tensorsolve_samples() -> list[Sample]:
    def put(x: Any) -> Any:
        return shifted(x.reshape((6, 6))).reshape((2, 3, 6))

    def np_put(np: Any, x: Any) -> Any:
        return np_shifted(np, x.reshape(6, 6)).reshape(2, 3, 6)

    return [
        case(
            lambda a, b: tensorsolve(put(a), b),
            lambda np, a, b: np.linalg.tensorsolve(np_put(np, a), b),
            (6, 6),
            (2, 3),
        ),
        case(
            lambda a, b: tensorsolve(put(a).permute(2, 0, 1), b, (0,)),
            lambda np, a, b: np.linalg.tensorsolve(np_put(np, a).transpose(2, 0, 1), b, (0,)),
            (6, 6),
            (2, 3),
        ),
        case(lambda a: tensorinv(put(a)), lambda np, a: np.linalg.tensorinv(np_put(np, a)), (6, 6)),
        refused(tensorinv, "no square matrix", (2, 3, 4)),
    ]
