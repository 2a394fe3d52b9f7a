"""Powers and roots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dualgrad.compiler.ir.value import Operand, Value, apply, public
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.elementwise import (
    Elementwise,
    FloatFunction,
    copy,
    operator_reference,
)
from dualgrad.compiler.ops.exponential import log
from dualgrad.compiler.ops.logical import where
from dualgrad.compiler.ops.precision import SINGLE, single
from dualgrad.compiler.ops.sample import Arg, Sample, binary, unary
from dualgrad.runtime.dtype import bool_, int64, uint8
from dualgrad.runtime.errors import DTypeError

if TYPE_CHECKING:
    from dualgrad.compiler.build.mathlib import Math


class Sqrt(FloatFunction):
    """Square root, correctly rounded; NaN below 0."""

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return b.sqrt(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g / (2.0 * out),)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(sqrt, lambda np, x: np.sqrt(x), low=0.1, high=4, few=True)


class Rsqrt(FloatFunction):
    """1 / sqrt(x), two roundings: within 1 ulp."""

    precision = SINGLE

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return 1.0 / b.sqrt(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (-0.5 * g * out / x,)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(rsqrt, lambda np, x: 1 / np.sqrt(x), low=0.1, high=4, ulps=1, few=True)


class Cbrt(FloatFunction):
    """Cube root, of negative numbers too; error bound: see `Math.cbrt`."""

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return b.cbrt(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g / (3.0 * out * out),)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(cbrt, lambda np, x: np.cbrt(x), low=0.1, high=4, ulps=0.5, few=True)


class Hypot(FloatFunction):
    """sqrt(x**2 + y**2) without overflow on the way; error bound: see `Math.hypot`."""

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:
        return b.hypot(x, y)

    def vjp(self, g: Any, out: Any, x: Any, y: Any) -> tuple[Any, ...]:
        length = where(out.eq(0), 1.0, out)
        return (g * (x / length), g * (y / length))

    @staticmethod
    def samples() -> list[Sample]:
        return binary(hypot, operator_reference("hypot"), ulps=0.5, few=True)


class Pow(Elementwise):
    """x**y; see `Math.pow` and, for integers, `Math.ipow`."""

    precision = SINGLE

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:
        return b.pow(x, y) if x.dtype.is_float else b.ipow(x, y)

    def vjp(self, g: Any, out: Any, x: Any, y: Any) -> tuple[Any, ...]:
        # Where both are 0 the slope is 0, and so is that of y wherever x is 0 and the power not
        # infinite: constants stand there in place of what would be infinite times 0.
        base = x.eq(0)
        slope = y * pow_(x, where(base & y.eq(0), 1.0, y) - 1.0)
        return (g * slope, g * (out * log(where(base & (y >= 0), 1.0, x))))

    @staticmethod
    def samples() -> list[Sample]:
        powers = operator_reference("power")
        exponents = Arg((5,), values=(0.0, 1.0, 2.0, 3.0, 0.5))
        zeros = Sample(
            pow_, (Arg((5,), values=(0.0,)), exponents), operator_reference("power"), gradient=False
        )
        whole = (Arg((9, 1), int64, -9, 9), Arg((7,), int64, values=(0, 1, 2, 3, 40, 62, 63)))
        small = (Arg((9, 1), uint8, 0, 250), Arg((6,), uint8, values=(0, 1, 2, 3, 7, 255)))
        return [
            *binary(pow_, powers, low=0.5, high=2.0, ulps=1, few=True),
            zeros,
            Sample(pow_, whole, powers),
            Sample(pow_, small, powers),
            *(_to_number(n) for n in (2, 3, 1, 0, -1, -2, 0.5, -0.5, 4, 2.5)),
            Sample(lambda x: pow_(x, 5), (Arg((7,), int64, -9, 9),), lambda np, x: x**5),
            Sample(
                lambda x: pow_(x, -1),
                (Arg((2,), int64),),
                error=TypeError,
                match="no negative powers",
            ),
        ]


def _to_number(n: float) -> Sample:
    return Sample(lambda x: pow_(x, n), (Arg((4, 3), low=0.5),), lambda np, x: x**n, ulps=1)


_SQRT = Sqrt.of()
_RSQRT = Rsqrt.of()
_CBRT = Cbrt.of()
_HYPOT = Hypot.of()
_POW = Pow.of()


@public("sqrt")
def sqrt(x: Operand) -> Any:
    """Return the square root, correctly rounded."""
    return apply(_SQRT, x)[0]


@public("rsqrt")
def rsqrt(x: Operand) -> Any:
    """Return 1 / sqrt(x), within 1 ulp; inf at 0."""
    return apply(_RSQRT, x)[0]


@public("cbrt")
def cbrt(x: Operand) -> Any:
    """Return the cube root, of negative numbers too, within 1 ulp."""
    return apply(_CBRT, x)[0]


@public("hypot")
def hypot(x: Operand, y: Operand) -> Any:
    """Return sqrt(x**2 + y**2) without overflow on the way, within 1 ulp; the gradient at the
    origin is 0."""
    return apply(_HYPOT, x, y)[0]


@public("__pow__", "pow", "power")
def pow_(x: Any, y: Any) -> Any:
    """Return x**y: floats within 1.5 ulp, integers wrap.

    The numbers 2, 3, -1, -2, 0.5 and -0.5 as exponents mean products, quotients and square roots.
    Integers to negative powers are those of the reciprocal, truncated; to a negative number they
    raise DTypeError.  Gradients at x = 0 are 0 where the power is constant, never NaN.
    """
    if isinstance(x, Value) and x.dtype is not bool_ and y.__class__ in (int, float):
        if isinstance(y, int) and x.dtype.is_int:
            return _whole_power(x, y)
        if y in SHORT:
            return _short_power(x, exponent=y)
    return apply(_POW, x, y)[0]


@public("__rpow__")
def rpow(x: Any, y: Any) -> Any:
    """Return y**x."""
    return apply(_POW, y, x)[0]


SHORT = (2, 3, -1, -2, 0.5, -0.5)


@composite
@single
def _short_power(x: Any, *, exponent: float) -> Any:
    if exponent in (0.5, -0.5):
        return sqrt(x) if exponent > 0 else rsqrt(x)
    product = x
    for _ in range(int(abs(exponent)) - 1):
        product = product * x
    return product if exponent > 0 else 1.0 / product


def _whole_power(x: Any, exponent: int) -> Any:
    if exponent < 0:
        raise DTypeError(
            "integers have no negative powers",
            op="pow",
            expect="an exponent >= 0, or floats",
            actual=f"{x.dtype.name} ** {exponent}",
            hint="convert the base with .astype(dg.float32)",
        )
    return _constant_power(x, exponent=exponent)


@composite
@single
def _constant_power(x: Any, *, exponent: int) -> Any:
    """x**exponent by repeated squaring."""
    result, square = None, x
    while exponent:
        if exponent % 2:
            result = square if result is None else result * square
        square, exponent = square * square, exponent // 2
    return x * 0 + 1 if result is None else copy(result)


power = pow_
