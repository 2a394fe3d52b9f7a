"""Systems of equations, inverses and determinants.

Gradients: Giles, "An extended collection of matrix derivative results for forward and reverse
mode algorithmic differentiation" (2008), section 2.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from dualgrad.compiler.ir.dims import same
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import dim_text
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.contract import matmul
from dualgrad.compiler.ops.library import Library
from dualgrad.compiler.ops.linalg_base import (
    as_floats,
    case,
    common_batch,
    identity,
    need_matrix,
    need_square,
    np_shifted,
    part,
    refused,
    shifted,
    triangle,
    turned,
)
from dualgrad.compiler.ops.logical import where
from dualgrad.compiler.ops.operands import check_tensors
from dualgrad.compiler.ops.precision import single
from dualgrad.compiler.ops.sample import Arg, Sample, samples_of
from dualgrad.compiler.ops.view import expand_to
from dualgrad.runtime.errors import ShapeError


class Solve(Library):
    """x with a x = b, for a [..., n, n] and b [..., n, k]."""

    routine = "solve"

    def infer(self, *types: TensorType) -> TensorType:
        return types[1]

    def vjp(self, g: Any, out: Any, a: Any, b: Any) -> tuple[Any, ...]:
        gb = Solve.of().on(turned(a), g)
        return (-matmul(gb, turned(out)), gb)

    @staticmethod
    def samples() -> list[Sample]:
        def good(a: tuple[int, ...], b: tuple[int, ...], **more: Any) -> Sample:
            return case(
                lambda x, y: solve(shifted(x), y),
                lambda np, x, y: np.linalg.solve(np_shifted(np, x), y),
                a,
                b,
                **more,
            )

        singular = Sample(
            solve, (Arg((2, 2), values=(0.0,)), Arg((2,))), error=ValueError, match="[Ss]ingular"
        )
        return [
            good((3, 3), (3, 2)),
            good((3, 3), (3,)),
            good((2, 3, 3), (3, 1), layout="transposed"),
            good((4, 4), (2, 4, 3)),
            good((1, 1), (1, 1)),
            good((0, 0), (0, 2)),
            singular,
            refused(solve, r"\[solve\] takes square matrices", (2, 3), (2, 1)),
            refused(solve, r"\[solve\] the right-hand side does not fit", (3, 3), (2, 1)),
        ]


@composite
@single
def _solve(a: Any, b: Any) -> Any:
    return Solve.of().on(*common_batch("solve", *as_floats("solve", a, b)))


def solve(a: Any, b: Any) -> Any:
    """Return x with a x = b, for a [..., N, N] and b [..., N, K] (or [N]), batched.

    Raises LinAlgError if a matrix is singular, ShapeError if operands do not fit.
    """
    check_tensors("solve", b)
    need_square("solve", a)
    column = b.reshape((*b.shape, 1)) if b.ndim == 1 else b
    if b.ndim == 0 or not same(column.shape[-2], a.shape[-1]):
        raise ShapeError(
            "the right-hand side does not fit",
            op="solve",
            expect=f"[..., {a.shape[-1]}, K] or [{a.shape[-1]}]",
            actual=dim_text(b.shape),
            hint="it has as many rows as the matrix; solve takes one vector as [N]",
        )
    x = _solve(a, column)
    return x.reshape(x.shape[:-1]) if b.ndim == 1 else x


@composite
@single
def _solve_triangular(a: Any, b: Any, *, upper: bool, unit: bool) -> Any:
    a, b = as_floats("solve_triangular", a, b)
    part = triangle(a, not upper, strict=unit)
    part = part + identity(a.shape[-1], a.dtype) if unit else part
    return Solve.of().on(*common_batch("solve_triangular", part, b))


def solve_triangular(
    a: Any, b: Any, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Any:
    """Return x with a x = b (or x a = b unless `left`), where only one triangle of a counts.

    a [..., N, N], b [..., N, K].  With `unitriangular` the diagonal counts as ones.  Raises
    LinAlgError if a is singular.
    """
    need_square("solve_triangular", a)
    need_matrix("solve_triangular", b)
    if not left:
        flipped = solve_triangular(
            turned(a), turned(b), upper=not upper, unitriangular=unitriangular
        )
        return turned(flipped)
    if not same(b.shape[-2], a.shape[-1]):
        raise ShapeError(
            "the right-hand side does not fit",
            op="solve_triangular",
            expect=f"[..., {a.shape[-1]}, K]",
            actual=dim_text(b.shape),
            hint="it has as many rows as the matrix; solve takes one vector as [N]",
        )
    return _solve_triangular(a, b, upper=bool(upper), unit=bool(unitriangular))


class Inv(Library):
    """The inverse of each matrix [..., n, n]."""

    routine = "inv"

    def infer(self, *types: TensorType) -> TensorType:
        return types[0]

    def vjp(self, g: Any, out: Any, a: Any) -> tuple[Any, ...]:
        return (-matmul(turned(out), matmul(g, turned(out))),)

    @staticmethod
    def samples() -> list[Sample]:
        def good(shape: tuple[int, ...], **more: Any) -> Sample:
            return case(
                lambda x: inv(shifted(x)),
                lambda np, x: np.linalg.inv(np_shifted(np, x)),
                shape,
                **more,
            )

        singular = Sample(
            inv,
            (Arg((2, 2), values=(1.0,)),),
            error=ValueError,
            match=r"\[inv\] singular matrix",
        )
        return [
            good((3, 3)),
            good((2, 2, 4, 4), layout="strided"),
            good((0, 0)),
            singular,
            refused(inv, "takes square", (3, 2)),
            refused(inv, "takes a matrix", (3,)),
        ]


@composite
@single
def _inv(x: Any) -> Any:
    return Inv.of().on(*as_floats("inv", x))


def inv(x: Any) -> Any:
    """Return the inverses of matrices [..., N, N].  Raises LinAlgError if one is singular."""
    need_square("inv", x)
    return _inv(x)


class Det(Library):
    """The determinant of each matrix [..., n, n]."""

    routine = "det"

    def infer(self, *types: TensorType) -> TensorType:
        return types[0].with_shape(types[0].shape[:-2])

    def vjp(self, g: Any, out: Any, a: Any) -> tuple[Any, ...]:
        scale = (g * out).reshape((*g.shape, 1, 1))
        return (turned(Inv.of().on(a)) * scale,)

    @staticmethod
    def samples() -> list[Sample]:
        def good(shape: tuple[int, ...], **more: Any) -> Sample:
            return case(
                lambda x: det(shifted(x, 4.0)),
                lambda np, x: np.linalg.det(np_shifted(np, x, 4.0)),
                shape,
                **more,
            )

        flat = case(det, lambda np, x: np.linalg.det(x), (2, 2), gradient=False, values=(2.0,))
        empty = case(det, lambda np, x: np.linalg.det(x), (3, 0, 0))
        return [
            good((3, 3)),
            good((2, 4, 4), layout="transposed"),
            good((1, 1)),
            flat,
            empty,
            refused(det, r"\[det\] takes square", (3, 2)),
        ]


@composite
@single
def _det(x: Any) -> Any:
    return Det.of().on(*as_floats("det", x))


def det(x: Any) -> Any:
    """Return the determinants [...] of matrices [..., N, N].

    The gradient is det(x) times the transposed inverse: of a singular matrix it is a LinAlgError.
    """
    need_square("det", x)
    return _det(x)


class Slogdet(Library):
    """Sign and logarithm of the magnitude of each determinant, as [..., 2]."""

    routine = "slogdet"

    def infer(self, *types: TensorType) -> TensorType:
        return types[0].with_shape((*types[0].shape[:-2], 2))

    def vjp(self, g: Any, out: Any, a: Any) -> tuple[Any, ...]:
        return (turned(Inv.of().on(a)) * part(g, 1, 1, 1),)

    @staticmethod
    def samples() -> list[Sample]:
        def good(number: int, shape: tuple[int, ...], **more: Any) -> Sample:
            return case(
                lambda x: slogdet(shifted(x, -4.0))[number],
                lambda np, x: np.linalg.slogdet(np_shifted(np, x, -4.0))[number],
                shape,
                gradient=number == 1,
                **more,
            )

        flat = case(
            lambda x: slogdet(x)[1],
            lambda np, x: np.linalg.slogdet(x)[1],
            (2, 2),
            gradient=False,
            values=(2.0,),
        )
        return [good(0, (3, 3)), good(1, (3, 3)), good(1, (2, 4, 4)), good(1, (0, 0)), flat]


@composite
@single
def _slogdet(x: Any) -> Any:
    return Slogdet.of().on(*as_floats("slogdet", x))


class SlogdetResult(NamedTuple):
    """The result of `slogdet`."""

    sign: Any
    logabsdet: Any


def slogdet(x: Any) -> SlogdetResult:
    """Return (sign, logabsdet), each [...], of matrices [..., N, N]; (0, -inf) if singular.

    The gradient of a singular matrix is a LinAlgError.
    """
    need_square("slogdet", x)
    both = _slogdet(x)
    return SlogdetResult(part(both, 0), part(both, 1))


def logdet(x: Any) -> Any:
    """Return log det [...] of matrices [..., N, N]: NaN where the determinant is negative."""
    sign, size = slogdet(x)
    return where(sign < 0.0, float("nan"), size)


@composite
@single
def _matrix_power(x: Any, *, n: int) -> Any:
    if n == 0:
        return expand_to(identity(x.shape[-1], x.dtype), x.shape)
    total, square = None, x
    while n:
        if n & 1:
            total = square if total is None else matmul(total, square)
        n >>= 1
        square = matmul(square, square) if n else square
    return total


def matrix_power(x: Any, n: int) -> Any:
    """Return x [..., N, N] to the integer power n, by repeated squaring; n < 0 inverts first."""
    need_square("matrix_power", x)
    return _matrix_power(inv(x) if n < 0 else x, n=abs(n))


@samples_of(logdet)
def _logdet_samples() -> list[Sample]:
    def good(by: float, shape: tuple[int, ...]) -> Sample:
        return case(
            lambda x: logdet(shifted(x, by)),
            lambda np, x: np.log(np.linalg.det(np_shifted(np, x, by))),
            shape,
            relative=3e-6 if by > 0 else 0.0,
            gradient=by > 0,
        )

    return [good(9.0, (3, 3)), good(-9.0, (3, 3)), good(9.0, (2, 4, 4))]


@samples_of(matrix_power)
def _matrix_power_samples() -> list[Sample]:
    def good(n: int, shape: tuple[int, ...]) -> Sample:
        return case(
            lambda x: matrix_power(shifted(x), n),
            lambda np, x: np.linalg.matrix_power(np_shifted(np, x), n),
            shape,
        )

    bad = refused(lambda x: matrix_power(x, 2), "takes square matrices", (2, 3))
    return [*(good(n, (3, 3)) for n in (0, 1, 2, 5, -1, -2)), good(3, (2, 2, 2)), bad]


@samples_of(solve_triangular)
def _solve_triangular_samples() -> list[Sample]:
    def good(upper: bool, unit: bool, left: bool, *shapes: tuple[int, ...]) -> Sample:
        def reference(np: Any, a: Any, b: Any) -> Any:
            a = np.triu(np_shifted(np, a)) if upper else np.tril(np_shifted(np, a))
            if unit:
                a = a * (1 - np.eye(a.shape[-1])) + np.eye(a.shape[-1])
            if left:
                return np.linalg.solve(a, b)
            return np.swapaxes(np.linalg.solve(a.swapaxes(-1, -2), b.swapaxes(-1, -2)), -1, -2)

        return case(
            lambda a, b: solve_triangular(
                shifted(a), b, upper=upper, left=left, unitriangular=unit
            ),
            reference,
            *shapes,
            relative=1e-5,
        )

    return [
        good(True, False, True, (3, 3), (3, 2)),
        good(False, False, True, (2, 3, 3), (3, 1)),
        good(True, True, True, (3, 3), (3, 2)),
        good(False, False, False, (3, 3), (2, 3)),
        refused(lambda a, b: solve_triangular(a, b, upper=True), "does not fit", (3, 3), (2, 2)),
    ]
