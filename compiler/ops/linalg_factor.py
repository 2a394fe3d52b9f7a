"""Cholesky and QR factorizations."""

from __future__ import annotations

from typing import Any, NamedTuple

from dualgrad.compiler.ir.dims import Dim, at_most
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.contract import matmul
from dualgrad.compiler.ops.joining import Concat
from dualgrad.compiler.ops.library import Library
from dualgrad.compiler.ops.linalg_base import (
    as_floats,
    case,
    diagonal_matrix,
    gram,
    need_matrix,
    need_square,
    np_gram,
    part,
    product_of,
    refused,
    shorter,
    symmetric,
    triangle,
    turned,
)
from dualgrad.compiler.ops.linalg_solve import Solve
from dualgrad.compiler.ops.precision import single
from dualgrad.compiler.ops.sample import Arg, Sample
from dualgrad.compiler.ops.slicing import diagonal, narrow
from dualgrad.runtime.errors import ArgumentError, GradientError


class Cholesky(Library):
    """The triangular l with a = l l^T (0), or u with a = u^T u (1), of symmetric a [..., n, n]."""

    upper: int
    routine = "cholesky"

    def infer(self, *types: TensorType) -> TensorType:
        return types[0]

    def vjp(self, g: Any, out: Any, a: Any) -> tuple[Any, ...]:
        """Murray, "Differentiation of the Cholesky decomposition" (2016), equation 10."""
        low, g = (turned(out), turned(g)) if self.upper else (out, g)
        inner = triangle(matmul(turned(low), g))
        inner = inner - diagonal_matrix(diagonal(inner, 0, -2, -1)) * 0.5
        left = Solve.of().on(turned(low), inner)
        return (symmetric(turned(Solve.of().on(turned(low), turned(left)))),)

    @staticmethod
    def samples() -> list[Sample]:
        def good(shape: tuple[int, ...], upper: bool = False, **more: Any) -> Sample:
            def reference(np: Any, x: Any) -> Any:
                low = np.linalg.cholesky(np_gram(np, x))
                return np.swapaxes(low, -1, -2) if upper else low

            return case(lambda x: cholesky(gram(x), upper=upper), reference, shape, **more)

        indefinite = Sample(
            cholesky,
            (Arg((2, 2), values=(1.0, 2.0, 2.0, 1.0)),),
            error=ValueError,
            match=r"\[cholesky\] matrix is not positive definite",
        )
        return [
            good((3, 3)),
            good((3, 2), True),
            good((2, 4, 2), layout="transposed"),
            good((2, 1, 1)),
            good((0, 0)),
            indefinite,
            refused(cholesky, "takes square", (2, 3)),
        ]


@composite
@single
def _cholesky(x: Any, *, upper: bool) -> Any:
    return Cholesky.of(int(upper)).on(*as_floats("cholesky", x))


def cholesky(x: Any, *, upper: bool = False) -> Any:
    """Return lower triangular l with x = l l^T (or upper u with x = u^T u), x [..., N, N].

    Only the lower (or upper) triangle of x is read; the gradient is symmetric, as x must be.
    Raises LinAlgError if x is not positive definite.
    """
    need_square("cholesky", x)
    return _cholesky(x, upper=bool(upper))


class Qr(Library):
    """q and then r in one row: a = q r for a [..., m, n].

    "reduced": q [m, k], r [k, n] with k = min(m, n); "complete": q [m, m], r [m, n].
    """

    mode: str
    routine = "qr"

    def inner(self, m: Dim, n: Dim) -> Dim:
        """Columns of q and rows of r."""
        return m if self.mode == "complete" else shorter(m, n)

    def infer(self, *types: TensorType) -> TensorType:
        *batch, m, n = types[0].shape
        return types[0].with_shape((*batch, (m + n) * self.inner(m, n)))

    def parts(self, packed: Any, a: Any) -> tuple[Any, Any]:
        m, n = a.shape[-2:]
        k = self.inner(m, n)
        return part(packed, 0, m, k), part(packed, m * k, k, n)

    def vjp(self, g: Any, out: Any, a: Any) -> tuple[Any, ...]:
        """Walter and Lehmann, "Algorithmic differentiation of linear algebra functions with
        application in optimum experimental design" (2010); wide matrices as Roberts and Roberts,
        "QR and LQ decomposition matrix backpropagation algorithms" (2020)."""
        (q, r), (gq, gr) = self.parts(out, a), self.parts(g, a)
        m, n = a.shape[-2:]
        if at_most(n - m, 0):
            if self.mode == "complete" and not at_most(m - n, 0):
                raise GradientError(
                    "the columns of q beyond those of x are arbitrary and have no gradient",
                    op="qr",
                    expect="mode='reduced'",
                    actual=f"mode='complete' of a matrix {m} x {n}",
                    hint="use mode='reduced', or detach x",
                )
            return (_qr_vjp(q, r, gq, gr),)
        beyond = 1 if at_most(n - m, 1) else n - m  # a size that is 1 must be known as such
        square, rest = (narrow(r, -1, 0, m), narrow(gr, -1, m, beyond))
        gq = gq + matmul(narrow(a, -1, m, beyond), turned(rest))
        first = _qr_vjp(q, square, gq, narrow(gr, -1, 0, m))
        return (Concat.of(a.ndim - 1).on(first, matmul(q, rest)),)

    @staticmethod
    def samples() -> list[Sample]:
        def good(
            shape: tuple[int, ...],
            k: int,
            mode: str = "reduced",
            gradient: bool = True,
            **more: Any,
        ) -> Sample:
            return case(
                lambda x: qr(x, mode)[k],
                lambda np, x: np.linalg.qr(x, mode)[k],
                shape,
                gradient=gradient,
                **more,
            )

        again = case(
            lambda x: product_of(*qr(x)), lambda np, x: x, (5, 3), relative=1e-5, layout="strided"
        )
        return [
            good((3, 3), 0),
            good((3, 3), 1),
            good((5, 3), 0),
            good((2, 4, 2), 1, layout="transposed"),
            good((2, 4), 0),
            good((2, 2, 3), 1),
            good((2, 4), 1, "complete"),
            good((4, 2), 0, "complete", False),
            good((4, 2), 1, "complete", False),
            good((0, 3), 1, "complete", False),
            again,
            refused(lambda x: qr(x, "raw"), r"\[qr\] no such mode", (2, 2)),
        ]


def _qr_vjp(q: Any, r: Any, gq: Any, gr: Any) -> Any:
    """The gradient of a matrix that is at least as long as wide."""
    m = matmul(r, turned(gr)) - matmul(turned(gq), q)
    mirrored = triangle(m) + turned(triangle(m, strict=True))
    right = gq + matmul(q, mirrored)
    return turned(Solve.of().on(r, turned(right)))


class QRResult(NamedTuple):
    """The result of `qr`."""

    Q: Any
    R: Any


@composite
@single
def _qr(x: Any, *, mode: str) -> Any:
    return Qr.of(mode).on(*as_floats("qr", x))


def qr(x: Any, mode: str = "reduced") -> Any | QRResult:
    """Return (Q, R) with x = Q R, x [..., M, N], Q orthonormal, R upper triangular; K = min(M, N).

    "reduced": Q [..., M, K], R [..., K, N]; "complete": Q [..., M, M], R [..., M, N]; "r": R of
    the reduced form alone.  Gradients need the first K columns of x to be independent, and in
    "complete" mode M <= N (else GradientError).
    """
    need_matrix("qr", x)
    if mode not in ("reduced", "complete", "r"):
        raise ArgumentError(
            "no such mode",
            op="qr",
            expect="'reduced', 'complete' or 'r'",
            actual=repr(mode),
            hint="leave mode out for 'reduced'",
        )
    form = "reduced" if mode == "r" else mode
    q, r = Qr.of(form).parts(_qr(x, mode=form), x)
    return r if mode == "r" else QRResult(q, r)
