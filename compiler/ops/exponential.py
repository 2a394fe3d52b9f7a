"""Exponentials and logarithms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dualgrad.compiler.build.mathlib import Math
from dualgrad.compiler.ir.value import Operand, apply, public
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.compiler.ops.elementwise import FloatFunction
from dualgrad.compiler.ops.sample import Sample, unary


@dataclass(frozen=True, eq=False)
class Exp(FloatFunction):
    """e**x; error bound: see `Math.exp`."""

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return b.exp(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g * out,)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(exp, lambda np, x: np.exp(x), low=-4, high=4, ulps=2)


@dataclass(frozen=True, eq=False)
class Log(FloatFunction):
    """Natural logarithm; -inf at 0, NaN below.  Error bound: see `Math.log`."""

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return b.log(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g / x,)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(log, lambda np, x: np.log(x), low=0.1, high=4, ulps=2)


@dataclass(frozen=True, eq=False)
class Sigmoid(FloatFunction):
    """1 / (1 + exp(-x)); error bound: see `Math.sigmoid`."""

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return b.sigmoid(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g * (out * (1.0 - out)),)

    @staticmethod
    def samples() -> list[Sample]:
        def reference(np: Any, x: Any) -> Any:
            return 1 / (1 + np.exp(-x))

        return unary(sigmoid, reference, low=-6, high=6, ulps=3)


_EXP = Exp.of()
_LOG = Log.of()
_SIGMOID = Sigmoid.of()


@public("exp")
def exp(x: Operand) -> Any:
    """Return e**x, within 1.5 ulp in float32 and 2 ulp in float64."""
    return apply(_EXP, x)[0]


@public("log")
def log(x: Operand) -> Any:
    """Return the natural logarithm, within 1.5 ulp in float32 and 2 ulp in float64."""
    return apply(_LOG, x)[0]


@public("sigmoid")
def sigmoid(x: Operand) -> Any:
    """Return 1 / (1 + exp(-x))."""
    return apply(_SIGMOID, x)[0]
