"""Powers and roots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dualgrad.compiler.build.mathlib import Math
from dualgrad.compiler.ir.value import Operand, apply, public
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.compiler.ops.elementwise import FloatFunction
from dualgrad.compiler.ops.sample import Sample, unary


@dataclass(frozen=True, eq=False)
class Sqrt(FloatFunction):
    """Square root, correctly rounded; NaN below 0."""

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return b.sqrt(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g / (2.0 * out),)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(sqrt, lambda np, x: np.sqrt(x), low=0.1, high=4)


@dataclass(frozen=True, eq=False)
class Rsqrt(FloatFunction):
    """1 / sqrt(x), two roundings: within 1 ulp."""

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return 1.0 / b.sqrt(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (-0.5 * g * out / x,)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(rsqrt, lambda np, x: 1 / np.sqrt(x), low=0.1, high=4, ulps=1, few=True)


_SQRT = Sqrt.of()
_RSQRT = Rsqrt.of()


@public("sqrt")
def sqrt(x: Operand) -> Any:
    """Return the square root, correctly rounded."""
    return apply(_SQRT, x)[0]


@public("rsqrt")
def rsqrt(x: Operand) -> Any:
    """Return 1 / sqrt(x), within 1 ulp; inf at 0."""
    return apply(_RSQRT, x)[0]
