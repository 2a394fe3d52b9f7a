"""Trigonometric functions and their inverses, on radians."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from dualgrad.compiler.ir.value import Operand, apply, public
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.elementwise import FloatFunction, operator_reference
from dualgrad.compiler.ops.logical import where
from dualgrad.compiler.ops.powers import hypot, sqrt
from dualgrad.compiler.ops.precision import SINGLE
from dualgrad.compiler.ops.sample import Sample, binary, unary, unary_samples_of

if TYPE_CHECKING:
    from dualgrad.compiler.build.mathlib import Math


class Sin(FloatFunction):
    """Sine; error bound: see `Math.sin`."""

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return b.sin(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g * cos(x),)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(sin, lambda np, x: np.sin(x), ulps=1, few=True)


class Cos(FloatFunction):
    """Cosine; error bound: see `Math.cos`."""

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return b.cos(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (-g * sin(x),)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(cos, lambda np, x: np.cos(x), ulps=1, few=True)


class Tan(FloatFunction):
    """Tangent; error bound: see `Math.tan`."""

    precision = SINGLE

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return b.tan(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g * (1.0 + out * out),)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(tan, lambda np, x: np.tan(x), low=-1.2, high=1.2, ulps=1.5, few=True)


class Asin(FloatFunction):
    """Arc sine; error bound: see `Math.asin`."""

    precision = SINGLE

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return b.asin(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g / sqrt((1.0 - x) * (1.0 + x)),)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(asin, lambda np, x: np.arcsin(x), low=-0.9, high=0.9, ulps=1, few=True)


class Acos(FloatFunction):
    """Arc cosine; error bound: see `Math.acos`."""

    precision = SINGLE

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return b.acos(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (-g / sqrt((1.0 - x) * (1.0 + x)),)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(acos, lambda np, x: np.arccos(x), low=-0.9, high=0.9, ulps=1, few=True)


class Atan(FloatFunction):
    """Arc tangent; error bound: see `Math.atan`."""

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return b.atan(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g / (1.0 + x * x),)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(atan, lambda np, x: np.arctan(x), ulps=1, few=True)


class Atan2(FloatFunction):
    """The angle of the point (x, y); error bound: see `Math.atan2`."""

    def scalar(self, b: Math, y: Scalar, x: Scalar) -> Scalar:
        return b.atan2(y, x)

    def vjp(self, g: Any, out: Any, y: Any, x: Any) -> tuple[Any, ...]:
        # divided twice, as the square of the distance would overflow; no gradient at the origin
        distance = hypot(x, y)
        distance = where(distance.eq(0), 1.0, distance)
        return (g * (x / distance / distance), -g * (y / distance / distance))

    @staticmethod
    def samples() -> list[Sample]:
        return binary(atan2, operator_reference("arctan2"), ulps=1, few=True)


_SIN = Sin.of()
_COS = Cos.of()
_TAN = Tan.of()
_ASIN = Asin.of()
_ACOS = Acos.of()
_ATAN = Atan.of()
_ATAN2 = Atan2.of()


@public("sin")
def sin(x: Operand) -> Any:
    """Return the sine of radians, within 1 ulp for arguments of any size."""
    return apply(_SIN, x)[0]


@public("cos")
def cos(x: Operand) -> Any:
    """Return the cosine of radians, within 1 ulp for arguments of any size."""
    return apply(_COS, x)[0]


@public("tan")
def tan(x: Operand) -> Any:
    """Return the tangent of radians, within 1.5 ulp for arguments of any size."""
    return apply(_TAN, x)[0]


@public("asin", "arcsin")
def asin(x: Operand) -> Any:
    """Return the arc sine in [-pi/2, pi/2], within 1 ulp; NaN beyond 1."""
    return apply(_ASIN, x)[0]


@public("acos", "arccos")
def acos(x: Operand) -> Any:
    """Return the arc cosine in [0, pi], within 1 ulp; NaN beyond 1."""
    return apply(_ACOS, x)[0]


@public("atan", "arctan")
def atan(x: Operand) -> Any:
    """Return the arc tangent in [-pi/2, pi/2], within 1 ulp."""
    return apply(_ATAN, x)[0]


@public("atan2", "arctan2")
def atan2(y: Operand, x: Operand) -> Any:
    """Return the angle of the point (x, y) in [-pi, pi], within 1 ulp, signs of zeros as in C.

    The gradient at the origin is 0.
    """
    return apply(_ATAN2, y, x)[0]


@composite
def _deg2rad(x: Any) -> Any:
    return x * (math.pi / 180)


@public("deg2rad")
def deg2rad(x: Any) -> Any:
    """Return degrees as radians: x times pi / 180, rounded."""
    return _deg2rad(x)


@composite
def _rad2deg(x: Any) -> Any:
    return x * (180 / math.pi)


@public("rad2deg")
def rad2deg(x: Any) -> Any:
    """Return radians as degrees: x times 180 / pi, rounded."""
    return _rad2deg(x)


@composite
def _sinc(x: Any) -> Any:
    turned = where(x.eq(0), 1.0, math.pi * x)
    return where(x.eq(0), 1.0, sin(turned) / turned)


@public("sinc")
def sinc(x: Any) -> Any:
    """Return sin(pi x) / (pi x), 1 at 0, where the gradient is 0."""
    return _sinc(x)


arcsin = asin
arccos = acos
arctan = atan
arctan2 = atan2
radians = deg2rad
degrees = rad2deg

unary_samples_of(deg2rad, lambda np, x: np.deg2rad(x), ulps=1)
unary_samples_of(rad2deg, lambda np, x: np.rad2deg(x), ulps=1)
unary_samples_of(sinc, lambda np, x: np.sinc(x), relative=3e-7, special=False)
