"""Hyperbolic functions and their inverses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dualgrad.compiler.build.mathlib import Math
from dualgrad.compiler.ir.value import Operand, apply, public
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.compiler.ops.elementwise import FloatFunction
from dualgrad.compiler.ops.sample import Sample, unary


@dataclass(frozen=True, eq=False)
class Tanh(FloatFunction):
    """Hyperbolic tangent; error bound: see `Math.tanh`."""

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return b.tanh(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g * (1.0 - out * out),)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(tanh, lambda np, x: np.tanh(x), low=-4, high=4, ulps=2)


_TANH = Tanh.of()


@public("tanh")
def tanh(x: Operand) -> Any:
    """Return the hyperbolic tangent, within 1.5 ulp in float32 and 2 ulp in float64."""
    return apply(_TANH, x)[0]
