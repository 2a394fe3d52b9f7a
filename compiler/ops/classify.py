"""What kind of number it is, how close two are, and the floats beside one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dualgrad.compiler.ir.value import Operand, apply, public
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.compiler.ops.arithmetic import absolute
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.elementwise import (
    Elementwise,
    FloatFunction,
    cast_node,
    copy,
    operator_reference,
)
from dualgrad.compiler.ops.logical import where
from dualgrad.compiler.ops.operands import check_tensors
from dualgrad.compiler.ops.sample import SPECIAL, Arg, Sample, binary, samples_of, unary
from dualgrad.runtime.dtype import DType, bool_, float64, int8, int16, int32, int64
from dualgrad.runtime.errors import DTypeError

if TYPE_CHECKING:
    from dualgrad.compiler.build.mathlib import Math

INF = float("inf")
INTEGERS = {t.bits: t for t in (int8, int16, int32, int64)}
FRACTION_BITS = {"bfloat16": 7, "float16": 10, "float32": 23, "float64": 52}


class Question(Elementwise, abstract=True):
    """A question about a number, answered with a bool."""

    accepts = "biuf"
    result = bool_
    vjp = None


class IsNan(Question):
    """x is not a number."""

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return b.isnan(x)

    @staticmethod
    def samples() -> list[Sample]:
        return question_samples(isnan, "isnan")


class IsInf(Question):
    """x is infinite."""

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return b.eq(b.abs(x), INF) if x.dtype.is_float else b.const(False, bool_)

    @staticmethod
    def samples() -> list[Sample]:
        return question_samples(isinf, "isinf")


class IsFinite(Question):
    """x is neither infinite nor NaN."""

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return b.abs(x) < INF if x.dtype.is_float else b.const(True, bool_)

    @staticmethod
    def samples() -> list[Sample]:
        return question_samples(isfinite, "isfinite")


class SignBit(Question):
    """x is negative or -0; of a NaN, what its sign bit is."""

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        if x.dtype is bool_:
            return b.const(False, bool_)
        if x.dtype.is_float:
            x = b.bitcast(x, INTEGERS[x.dtype.bits])
        return x < 0

    @staticmethod
    def samples() -> list[Sample]:
        whole = Sample(signbit, (Arg((7,), int64, -9, 9),), lambda np, x: x < 0)
        return [*unary(signbit, operator_reference("signbit"), few=True), whole]


def question_samples(function: Any, name: str) -> list[Sample]:
    whole = Sample(function, (Arg((7,), int64, -9, 9),), operator_reference(name))
    flags = Sample(function, (Arg((3,), bool_, values=(0, 1)),), operator_reference(name))
    return [*unary(function, operator_reference(name), few=True), whole, flags]


class CopySign(FloatFunction):
    """x with the sign of y."""

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:
        return b.copysign(x, y)

    def vjp(self, g: Any, out: Any, x: Any, y: Any) -> tuple[Any, ...]:
        turned = where(signbit(x).eq(signbit(y)), g, -g)
        return (where(x.eq(0), 0.0, turned), None)

    @staticmethod
    def samples() -> list[Sample]:
        return binary(copysign, operator_reference("copysign"), few=True)


class NextAfter(FloatFunction):
    """The float beside x on the way to y.

    On bits: those of sign and magnitude are turned into integers in the order of the floats.
    """

    raw = True

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:
        whole = INTEGERS[x.dtype.bits]
        fraction = FRACTION_BITS[x.dtype.name]
        infinity = (1 << (whole.bits - 1)) - (1 << fraction)
        first, last = (b.bitcast(v, whole) for v in (x, y))
        nan = (self.size(first) > infinity) | (self.size(last) > infinity)
        start, stop = (b.select(v < 0, -self.size(v), v) for v in (first, last))
        moved = b.select(start < stop, start + 1, start - 1)
        # past zero the sign stays: below the smallest negative number comes -0
        negative = (moved < 0) | (b.eq(moved, 0) & (first < 0))
        sign = b.const(-(1 << (whole.bits - 1)), whole)
        found = b.select(negative, b.abs(moved) | sign, moved)
        found = b.select(b.eq(start, stop), last, found)
        found = b.select(nan, infinity | 1 << (fraction - 1), found)
        return b.bitcast(found, x.dtype)

    def vjp(self, g: Any, out: Any, x: Any, y: Any) -> tuple[Any, ...]:
        return (where(x.eq(y), 0.0, g), None)

    @staticmethod
    def size(bits: Scalar) -> Scalar:
        return bits & ((1 << (bits.dtype.bits - 1)) - 1)

    @staticmethod
    def samples() -> list[Sample]:
        def reference(np: Any, x: Any, y: Any) -> Any:  # x and y may come widened
            return np.nextafter(x.astype(np.float32), y.astype(np.float32))

        low = Arg((10, 1), values=(0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 3e38, 2.0, -4.0, 5e-39))
        towards = Arg((5,), values=(0.0, -0.0, 7.0, float("inf"), float("-inf")))
        nan = Arg((3,), values=(float("nan"), 1.0, float("inf")))
        double = Arg((9,), float64)
        return [
            Sample(nextafter, (double, double), operator_reference("nextafter")),
            Sample(nextafter, (low, towards), reference, gradient=False),
            Sample(nextafter, (nan, Arg((3,))), reference, gradient=False),
            Sample(nextafter, (Arg((3,)), nan), reference, gradient=False),
        ]


_ISNAN = IsNan.of()
_ISINF = IsInf.of()
_ISFINITE = IsFinite.of()
_SIGNBIT = SignBit.of()
_COPYSIGN = CopySign.of()
_NEXTAFTER = NextAfter.of()


@public("isnan")
def isnan(x: Operand) -> Any:
    """Return whether x is not a number, as bool."""
    return apply(_ISNAN, x)[0]


@public("isinf")
def isinf(x: Operand) -> Any:
    """Return whether x is inf or -inf, as bool."""
    return apply(_ISINF, x)[0]


@public("isfinite")
def isfinite(x: Operand) -> Any:
    """Return whether x is neither infinite nor NaN, as bool."""
    return apply(_ISFINITE, x)[0]


@public("signbit")
def signbit(x: Operand) -> Any:
    """Return whether x is negative or -0, as bool; for NaN whether its sign bit is set."""
    return apply(_SIGNBIT, x)[0]


@public("copysign")
def copysign(x: Operand, y: Operand) -> Any:
    """Return |x| with the sign of y, -0 and NaN included; integers become the default float.

    The gradient of x is 1 or -1, at x = 0 it is 0; that of y is 0.
    """
    return apply(_COPYSIGN, x, y)[0]


@public("nextafter")
def nextafter(x: Operand, y: Operand) -> Any:
    """Return the float next to x in the direction of y, y itself where they are equal; NaN where
    either is NaN.  The gradient of x is 1, where they are equal 0."""
    return apply(_NEXTAFTER, x, y)[0]


def real(x: Any) -> Any:
    """Return x: there are no complex numbers."""
    return x


def imag(x: Any) -> Any:
    """Raise DTypeError: there are no complex numbers."""
    raise DTypeError(
        "there are no complex numbers",
        op="imag",
        expect="a complex dtype, which dualgrad does not have",
        actual="real numbers",
        hint="dg.fft.imag takes pairs (real, imaginary) in the last dimension",
    )


def conj(x: Any) -> Any:
    """Return x: there are no complex numbers."""
    return x


def limit(dtype: DType) -> float:
    """The largest finite number of a float dtype."""
    fraction = FRACTION_BITS[dtype.name]
    bias = (1 << (dtype.bits - 2 - fraction)) - 1
    return float((2.0 - 2.0**-fraction) * 2.0**bias)


@composite
def _nan_to_num(x: Any, nan: Any, posinf: Any, neginf: Any) -> Any:
    finite = where(x.eq(INF), posinf, where(x.eq(-INF), neginf, x))
    return where(x.ne(x), nan, finite)


@public("nan_to_num")
def nan_to_num(
    x: Any, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None
) -> Any:
    """Return x with NaN and the infinities replaced, those by default with the largest and the
    smallest number of the dtype; integers are what they are.  The gradient there is 0."""
    check_tensors("nan_to_num", x)
    if not x.dtype.is_float:
        return copy(x)
    largest = limit(x.dtype)
    return _nan_to_num(
        x, nan, largest if posinf is None else posinf, -largest if neginf is None else neginf
    )


@composite
def _isclose(x: Any, y: Any, rtol: Any, atol: Any, *, equal_nan: bool) -> Any:
    same = x.eq(y)
    if equal_nan:
        same = same | (x.ne(x) & y.ne(y))
    x, y = (v if v.dtype.is_float else cast_node(v, float64) for v in (x, y))
    near = (absolute(x - y) <= atol + absolute(rtol * y)) & (absolute(y) < INF)
    return same | (near & (absolute(x) < INF))


@public("isclose")
def isclose(
    x: Operand, y: Operand, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Any:
    """Return whether |x - y| <= atol + rtol |y|, as bool; integers are compared in float64.

    Infinities are close to themselves only, NaN to nothing, or with `equal_nan` to NaN.
    """
    return _isclose(x, y, rtol, atol, equal_nan=equal_nan)


@composite
def _allclose(x: Any, y: Any, rtol: Any, atol: Any, *, equal_nan: bool) -> Any:
    far = ~_isclose(x, y, rtol, atol, equal_nan=equal_nan)
    return cast_node(far, int64).sum().eq(0)


@public("allclose")
def allclose(
    x: Operand, y: Operand, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Any:
    """Return whether all elements are close, as a bool tensor without dimensions; see `isclose`."""
    return _allclose(x, y, rtol, atol, equal_nan=equal_nan)


@samples_of(nan_to_num)
def _nan_to_num_samples() -> list[Sample]:
    def reference(np: Any, x: Any) -> Any:  # x may come widened
        return np.nan_to_num(x.astype(np.float32))

    special = Arg((10,), values=SPECIAL)
    return [
        Sample(nan_to_num, (Arg((5,), float64),), lambda np, x: x),
        Sample(nan_to_num, (special,), reference, gradient=False),
        Sample(
            lambda x: nan_to_num(x, 1.5, 2.5, -3.5),
            (special,),
            lambda np, x: np.nan_to_num(x, nan=1.5, posinf=2.5, neginf=-3.5),
            gradient=False,
        ),
        Sample(nan_to_num, (Arg((3,), int64),), lambda np, x: x),
    ]


@samples_of(isclose)
def _isclose_samples() -> list[Sample]:
    def reference(np: Any, x: Any, y: Any) -> Any:
        return np.isclose(x, y)

    near = Arg((4,), values=(1.0, 1.0001, 0.0, -2.0))
    beside = Arg((4,), values=(1.000001, 1.0, 1e-9, 2.0))
    x, y = Arg((10, 1), values=SPECIAL), Arg((10,), values=SPECIAL)
    whole = (Arg((3,), int64, values=(100001, 5, 0)), Arg((3,), int64, values=(100000, 6, 0)))
    return [
        Sample(isclose, (near, beside), reference, gradient=False),
        Sample(isclose, (x, y), reference, gradient=False),
        Sample(isclose, whole, reference),
        Sample(
            lambda x, y: isclose(x, y, 0.5, 0.25, equal_nan=True),
            (x, y),
            lambda np, x, y: np.isclose(x, y, 0.5, 0.25, equal_nan=True),
            gradient=False,
        ),
    ]


@samples_of(allclose)
def _allclose_samples() -> list[Sample]:
    def reference(np: Any, x: Any, y: Any) -> Any:
        return np.asarray(np.allclose(x, y))

    near = Arg((2,), values=(1.0, 2.0))
    return [
        Sample(allclose, (near, Arg((2,), values=values)), reference, gradient=False)
        for values in ((1.000001, 2.0), (1.0, 2.1))
    ]


@samples_of(real)
def _real_samples() -> list[Sample]:
    return [Sample(real, (Arg((2, 3)),), lambda np, x: np.real(x))]


@samples_of(conj)
def _conj_samples() -> list[Sample]:
    return [Sample(conj, (Arg((2, 3)),), lambda np, x: np.conj(x))]


@samples_of(imag)
def _imag_samples() -> list[Sample]:
    return [Sample(imag, (Arg((2, 3)),), error=DTypeError, match="no complex numbers")]
