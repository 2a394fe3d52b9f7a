"""Hyperbolic functions and their inverses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dualgrad.compiler.ir.value import Operand, apply, public
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.compiler.ops.elementwise import FloatFunction
from dualgrad.compiler.ops.powers import hypot, sqrt
from dualgrad.compiler.ops.precision import SINGLE
from dualgrad.compiler.ops.sample import Sample, unary

if TYPE_CHECKING:
    from dualgrad.compiler.build.mathlib import Math


class Tanh(FloatFunction):
    """Hyperbolic tangent; error bound: see `Math.tanh`."""

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return b.tanh(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g * (1.0 - out * out),)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(tanh, lambda np, x: np.tanh(x), low=-4, high=4, ulps=2, few=True)


class Sinh(FloatFunction):
    """Hyperbolic sine; error bound: see `Math.sinh`."""

    precision = SINGLE

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return b.sinh(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g * cosh(x),)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(sinh, lambda np, x: np.sinh(x), low=-4, high=4, ulps=1, few=True)


class Cosh(FloatFunction):
    """Hyperbolic cosine; error bound: see `Math.cosh`."""

    precision = SINGLE

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return b.cosh(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g * sinh(x),)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(cosh, lambda np, x: np.cosh(x), low=-4, high=4, ulps=1, few=True)


class Asinh(FloatFunction):
    """Inverse hyperbolic sine; error bound: see `Math.asinh`."""

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return b.asinh(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g / hypot(x, 1.0),)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(asinh, lambda np, x: np.arcsinh(x), ulps=1, few=True)


class Acosh(FloatFunction):
    """Inverse hyperbolic cosine; error bound: see `Math.acosh`."""

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return b.acosh(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g / (sqrt(x - 1.0) * sqrt(x + 1.0)),)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(acosh, lambda np, x: np.arccosh(x), low=1.2, high=4, ulps=1, few=True)


class Atanh(FloatFunction):
    """Inverse hyperbolic tangent; error bound: see `Math.atanh`."""

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return b.atanh(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g / ((1.0 - x) * (1.0 + x)),)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(atanh, lambda np, x: np.arctanh(x), low=-0.9, high=0.9, ulps=1, few=True)


_TANH = Tanh.of()
_SINH = Sinh.of()
_COSH = Cosh.of()
_ASINH = Asinh.of()
_ACOSH = Acosh.of()
_ATANH = Atanh.of()


@public("tanh")
def tanh(x: Operand) -> Any:
    """Return the hyperbolic tangent, within 1.5 ulp."""
    return apply(_TANH, x)[0]


@public("sinh")
def sinh(x: Operand) -> Any:
    """Return the hyperbolic sine, within 1.5 ulp."""
    return apply(_SINH, x)[0]


@public("cosh")
def cosh(x: Operand) -> Any:
    """Return the hyperbolic cosine, within 1.5 ulp."""
    return apply(_COSH, x)[0]


@public("asinh", "arcsinh")
def asinh(x: Operand) -> Any:
    """Return the inverse hyperbolic sine, within 1.5 ulp."""
    return apply(_ASINH, x)[0]


@public("acosh", "arccosh")
def acosh(x: Operand) -> Any:
    """Return the inverse hyperbolic cosine, within 1.5 ulp; NaN below 1."""
    return apply(_ACOSH, x)[0]


@public("atanh", "arctanh")
def atanh(x: Operand) -> Any:
    """Return the inverse hyperbolic tangent, within 1.5 ulp; NaN beyond 1."""
    return apply(_ATANH, x)[0]


arcsinh = asinh
arccosh = acosh
arctanh = atanh
