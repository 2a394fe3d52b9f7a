"""Eigenvalues and singular values, and what is made of them."""

from __future__ import annotations

from typing import Any, NamedTuple

from dualgrad.compiler.ir.dims import Dim, at_most
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.contract import matmul
from dualgrad.compiler.ops.library import Library
from dualgrad.compiler.ops.linalg_base import (
    as_floats,
    case,
    diagonal_matrix,
    need_matrix,
    need_square,
    part,
    product_of,
    refused,
    shorter,
    turned,
)
from dualgrad.compiler.ops.logical import where
from dualgrad.compiler.ops.precision import single
from dualgrad.compiler.ops.sample import Sample
from dualgrad.compiler.ops.slicing import narrow
from dualgrad.runtime.errors import ArgumentError


class EighResult(NamedTuple):
    """The result of `eigh`."""

    eigenvalues: Any
    eigenvectors: Any


class SVDResult(NamedTuple):
    """The result of `svd`."""

    U: Any
    S: Any
    Vh: Any


def ratio(x: Any, y: Any) -> Any:
    """x / y, but 0 where x is 0, whatever y is."""
    none = x.eq(0.0)
    return where(none, x, x / where(none, 1.0, y))


def over_gaps(x: Any, w: Any) -> Any:
    """(x_ij - x_ji) / (w_j - w_i) for x [..., n, n], w [..., n]: infinite where values are equal
    but the derivative depends on the choice of their vectors, 0 where nothing asks for them."""
    n = w.shape[-1]
    columns, rows = w.reshape((*w.shape[:-1], 1, n)), w.reshape((*w.shape[:-1], n, 1))
    return ratio(x - turned(x), columns - rows)


def scaled(columns: Any, x: Any) -> Any:
    """Matrices [..., m, n] with column j multiplied by x_j."""
    return columns * x.reshape((*x.shape[:-1], 1, x.shape[-1]))


class Eigh(Library):
    """Eigenvalues and then eigenvectors in one row: a v = v w for symmetric a [..., n, n]."""

    triangle: str
    routine = "eigh"

    def infer(self, *types: TensorType) -> TensorType:
        *batch, _, n = types[0].shape
        return types[0].with_shape((*batch, n + n * n))

    def parts(self, packed: Any, a: Any) -> tuple[Any, Any]:
        n = a.shape[-1]
        return part(packed, 0, n), part(packed, n, n, n)

    def vjp(self, g: Any, out: Any, a: Any) -> tuple[Any, ...]:
        """Giles (2008), section 3.1, the symmetric part."""
        (w, v), (gw, gv) = self.parts(out, a), self.parts(g, a)
        inner = over_gaps(matmul(turned(v), gv), w) * 0.5 + diagonal_matrix(gw)
        return (product_of(v, inner, turned(v)),)

    @staticmethod
    def samples() -> list[Sample]:
        def values(np: Any, x: Any) -> Any:
            return np.linalg.eigh(x + np.swapaxes(x, -1, -2))[0]

        def squares(np: Any, x: Any) -> Any:
            return np.linalg.eigh(x + np.swapaxes(x, -1, -2))[1] ** 2

        def of_sum(k: int) -> Any:
            return lambda x: eigh(x + turned(x))[k] * (eigh(x + turned(x))[k] if k else 1.0)

        def one_triangle(name: str) -> Sample:
            return case(
                lambda x: eigh(x, name)[0],
                lambda np, x: np.linalg.eigh(x, name)[0],
                (3, 3),
                gradient=False,
            )

        return [
            case(of_sum(0), values, (3, 3)),
            case(of_sum(1), squares, (3, 3), relative=1e-5),
            case(of_sum(1), squares, (2, 4, 4), relative=1e-5, layout="strided"),
            case(of_sum(0), values, (1, 1)),
            case(of_sum(0), values, (0, 0)),
            one_triangle("L"),
            one_triangle("U"),
            refused(lambda x: eigh(x, "X"), r"\[eigh\] no such triangle", (2, 2)),
            refused(eigh, "takes square", (2, 3)),
        ]


@composite
@single
def _eigh(x: Any, *, triangle: str) -> Any:
    return Eigh.of(triangle).on(*as_floats("eigh", x))


def _triangle(op: str, name: str) -> str:
    if name not in ("L", "U", "l", "u"):
        raise ArgumentError(
            "no such triangle",
            op=op,
            expect="'L' or 'U'",
            actual=repr(name),
            hint="'L' reads the lower triangle, 'U' the upper",
        )
    return name.upper()


def eigh(x: Any, UPLO: str = "L") -> EighResult:
    """Return (eigenvalues, eigenvectors): ascending w [..., N], columns v [..., N, N], x v = v w.

    x [..., N, N] is symmetric; only its lower ("L") or upper ("U") triangle is read, the gradient
    is symmetric.  The sign of each eigenvector is LAPACK's choice; a gradient through vectors of
    equal eigenvalues is infinite or NaN, through eigenvalues alone it is not.
    """
    need_square("eigh", x)
    triangle = _triangle("eigh", UPLO)
    return EighResult(*Eigh.of(triangle).parts(_eigh(x, triangle=triangle), x))


class Eigvalsh(Library):
    """The ascending eigenvalues of symmetric matrices [..., n, n]."""

    triangle: str
    routine = "eigvalsh"

    def infer(self, *types: TensorType) -> TensorType:
        return types[0].with_shape(types[0].shape[:-1])

    def vjp(self, g: Any, out: Any, a: Any) -> tuple[Any, ...]:
        op = Eigh.of(self.triangle)
        _, v = op.parts(op.on(a), a)
        return (matmul(scaled(v, g), turned(v)),)

    @staticmethod
    def samples() -> list[Sample]:
        def good(shape: tuple[int, ...]) -> Sample:
            return case(
                lambda x: eigvalsh(x + turned(x), "U"),
                lambda np, x: np.linalg.eigvalsh(x + np.swapaxes(x, -1, -2)),
                shape,
            )

        return [good((3, 3)), good((2, 4, 4)), good((0, 0))]


@composite
@single
def _eigvalsh(x: Any, *, triangle: str) -> Any:
    return Eigvalsh.of(triangle).on(*as_floats("eigvalsh", x))


def eigvalsh(x: Any, UPLO: str = "L") -> Any:
    """Return the ascending eigenvalues [..., N] of symmetric x [..., N, N]; see `eigh`."""
    need_square("eigvalsh", x)
    return _eigvalsh(x, triangle=_triangle("eigvalsh", UPLO))


class Svd(Library):
    """u, s and then v^T in one row: a = u s v^T for a [..., m, n]; `full`: square u and v."""

    full: int
    routine = "svd"

    def shapes(self, m: Dim, n: Dim) -> tuple[tuple[Dim, ...], ...]:
        k = shorter(m, n)
        return ((m, m), (k,), (n, n)) if self.full else ((m, k), (k,), (k, n))

    def infer(self, *types: TensorType) -> TensorType:
        *batch, m, n = types[0].shape
        (a, b), (k,), (c, d) = self.shapes(m, n)
        return types[0].with_shape((*batch, a * b + k + c * d))

    def parts(self, packed: Any, a: Any) -> tuple[Any, Any, Any]:
        u, s, v = self.shapes(*a.shape[-2:])
        first = u[0] * u[1]
        return part(packed, 0, *u), part(packed, first, *s), part(packed, first + s[0], *v)

    def vjp(self, g: Any, out: Any, a: Any) -> tuple[Any, ...]:
        """Townsend, "Differentiating the singular value decomposition" (2016)."""
        m, n = a.shape[-2:]
        (u, s, vt), (gu, gs, gvt) = self.parts(out, a), self.parts(g, a)
        if self.full:
            k = s.shape[-1]
            u, gu = narrow(u, -1, 0, k), narrow(gu, -1, 0, k)
            vt, gvt = narrow(vt, -2, 0, k), narrow(gvt, -2, 0, k)
        v, gv, squares = turned(vt), turned(gvt), s * s
        left = over_gaps(matmul(turned(u), gu), squares)
        right = over_gaps(matmul(vt, gv), squares)
        inner = scaled(left, s) + right * s.reshape((*s.shape, 1)) + diagonal_matrix(gs)
        total = product_of(u, inner, vt)
        columns = s.reshape((*s.shape[:-1], 1, s.shape[-1]))
        if not at_most(m - n, 0):
            beside = gu - matmul(u, matmul(turned(u), gu))
            total = total + matmul(ratio(beside, columns), vt)
        if not at_most(n - m, 0):
            beside = gv - matmul(v, matmul(vt, gv))
            total = total + matmul(u, turned(ratio(beside, columns)))
        return (total,)

    @staticmethod
    def samples() -> list[Sample]:
        def good(
            shape: tuple[int, ...], k: int, full: bool = False, gradient: bool = True, **more: Any
        ) -> Sample:
            return case(
                lambda x: svd(x, full_matrices=full)[k] * svd(x, full_matrices=full)[k],
                lambda np, x: np.linalg.svd(x, full_matrices=full)[k] ** 2,
                shape,
                relative=1e-5,
                gradient=gradient,
                **more,
            )

        def again(shape: tuple[int, ...]) -> Sample:
            def function(x: Any) -> Any:
                u, s, vt = svd(x, full_matrices=False)
                return matmul(u * s.reshape((*s.shape[:-1], 1, s.shape[-1])), vt)

            return case(function, lambda np, x: x, shape, relative=1e-5)

        square = [good((3, 3), k) for k in range(3)]
        tall = [good((4, 2), k, layout="transposed") for k in range(3)]
        wide_ = [good((2, 2, 3), k) for k in range(3)]
        full = [good((3, 2), k, True, False) for k in (0, 1, 2)]
        return [
            *square,
            *tall,
            *wide_,
            *full,
            good((3, 3), 0, True),
            good((0, 3), 2, True, False),
            again((3, 2)),
            again((2, 2, 4)),
            refused(svd, "takes a matrix", (3,)),
        ]


@composite
@single
def _svd(x: Any, *, full: bool) -> Any:
    return Svd.of(int(full)).on(*as_floats("svd", x))


def svd(x: Any, full_matrices: bool = True) -> SVDResult:
    """Return (U, S, Vh) with x = U S Vh, S [..., K] descending, K = min(M, N), x [..., M, N].

    U [..., M, M] and Vh [..., N, N], or [..., M, K] and [..., K, N] without `full_matrices`.
    The sign of each pair of vectors is LAPACK's choice; a gradient through vectors of equal
    singular values is infinite or NaN, through singular values alone it is not.  The vectors that
    `full_matrices` adds count as constants.
    """
    need_matrix("svd", x)
    full = bool(full_matrices)
    return SVDResult(*Svd.of(int(full)).parts(_svd(x, full=full), x))


class Svdvals(Library):
    """The descending singular values of matrices [..., m, n]."""

    routine = "svdvals"

    def infer(self, *types: TensorType) -> TensorType:
        *batch, m, n = types[0].shape
        return types[0].with_shape((*batch, shorter(m, n)))

    def vjp(self, g: Any, out: Any, a: Any) -> tuple[Any, ...]:
        u, _, vt = Svd.of(0).parts(Svd.of(0).on(a), a)
        return (matmul(scaled(u, g), vt),)

    @staticmethod
    def samples() -> list[Sample]:
        def good(shape: tuple[int, ...], **more: Any) -> Sample:
            return case(svdvals, lambda np, x: np.linalg.svd(x, compute_uv=False), shape, **more)

        return [good((3, 3)), good((2, 2, 4)), good((4, 2), layout="transposed"), good((3, 0))]


@composite
@single
def _svdvals(x: Any) -> Any:
    return Svdvals.of().on(*as_floats("svdvals", x))


def svdvals(x: Any) -> Any:
    """Return the descending singular values [..., min(M, N)] of x [..., M, N]."""
    need_matrix("svdvals", x)
    return _svdvals(x)


class Pinv(Library):
    """The Moore-Penrose inverse of each matrix [..., m, n]."""

    atol: float
    rtol: float
    hermitian: int
    routine = "pinv"

    def infer(self, *types: TensorType) -> TensorType:
        *batch, m, n = types[0].shape
        return types[0].with_shape((*batch, n, m))

    def vjp(self, g: Any, out: Any, a: Any) -> tuple[Any, ...]:
        """Golub and Pereyra, "The differentiation of pseudo-inverses and nonlinear least squares
        problems" (1973), for matrices whose rank does not change nearby."""
        p, pt, gt = out, turned(out), turned(g)
        left = gt - product_of(a, p, gt)
        right = gt - product_of(gt, p, a)
        return (product_of(left, p, pt) + product_of(pt, p, right) - product_of(pt, g, pt),)

    @staticmethod
    def samples() -> list[Sample]:
        def good(shape: tuple[int, ...], **more: Any) -> Sample:
            return case(pinv, lambda np, x: np.linalg.pinv(x), shape, relative=1e-5, **more)

        low_rank = case(
            lambda x: pinv(matmul(x, turned(x)), 1e-4),
            lambda np, x: np.linalg.pinv(x @ np.swapaxes(x, -1, -2), rcond=1e-4),
            (3, 2),
            relative=1e-4,
        )
        hermitian = case(
            lambda x: pinv(x + turned(x), hermitian=True),
            lambda np, x: np.linalg.pinv(x + x.T, hermitian=True),
            (3, 3),
            relative=1e-5,
        )
        absolute = case(
            lambda x: pinv(x, atol=1.0),
            lambda np, x: np.diag([0.5, 0]),
            (2, 2),
            gradient=False,
            values=(2, 0, 0, 0.9),
        )
        full = [good((3, 3)), good((2, 4, 2)), good((2, 3)), good((0, 2))]
        return [*full, low_rank, hermitian, absolute]


@composite
@single
def _pinv(x: Any, *, atol: float, rtol: float, hermitian: bool) -> Any:
    return Pinv.of(atol, rtol, int(hermitian)).on(*as_floats("pinv", x))


def pinv(
    x: Any,
    rcond: float | None = None,
    hermitian: bool = False,
    *,
    atol: float | None = None,
    rtol: float | None = None,
) -> Any:
    """Return the Moore-Penrose inverses [..., N, M] of x [..., M, N].

    Singular values up to max(atol, rtol * the largest) count as zero; unless one of them is
    given, rtol is max(M, N) * epsilon of the dtype.  `rcond` is another name of `rtol`.  The
    gradient holds where the rank is constant.
    """
    need_matrix("pinv", x)
    relative = rcond if rtol is None else rtol
    if relative is None:
        relative = 0.0 if atol else -1.0
    return _pinv(x, atol=float(atol or 0.0), rtol=float(relative), hermitian=bool(hermitian))
