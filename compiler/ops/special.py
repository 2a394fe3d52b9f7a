"""Special functions, element by element."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dualgrad.compiler.build.mathlib import Math
from dualgrad.compiler.ir.value import Operand, apply, public
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.compiler.ops.elementwise import Elementwise
from dualgrad.compiler.ops.sample import Sample, unary

_SLOPE = 2 / math.sqrt(math.pi)  # of erf at 0


def _each(function: Callable[[float], float]) -> Callable[..., Any]:
    """A function of one float as the reference of a sample."""

    def reference(np: Any, x: Any) -> Any:
        return np.vectorize(function, otypes="d")(x).astype(x.dtype)

    return reference


@dataclass(frozen=True, eq=False)
class Erf(Elementwise):
    """The error function; error bound: see `Math.erf`."""

    accepts = "f"
    floats = True

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return b.erf(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g * ((-x * x).exp() * _SLOPE),)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(erf, _each(math.erf), low=-3, high=3, ulps=2)


_ERF = Erf.of()


@public("erf")
def erf(x: Operand) -> Any:
    """Return the error function, 2 / sqrt(pi) times the integral of exp(-t**2) from 0 to x."""
    return apply(_ERF, x)[0]
