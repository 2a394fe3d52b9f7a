"""Exponentials and logarithms."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from dualgrad.compiler.ir.value import Operand, apply, public
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.compiler.ops.classify import isinf
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.elementwise import FloatFunction
from dualgrad.compiler.ops.logical import where
from dualgrad.compiler.ops.precision import SINGLE
from dualgrad.compiler.ops.sample import (
    Arg,
    Sample,
    binary,
    binary_samples_of,
    samples_of,
    unary,
)

if TYPE_CHECKING:
    from dualgrad.compiler.build.mathlib import Math

LN2 = math.log(2.0)
LN10 = math.log(10.0)


class Exp(FloatFunction):
    """e**x; error bound: see `Math.exp`."""

    precision = SINGLE

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return b.exp(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g * out,)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(exp, lambda np, x: np.exp(x), low=-4, high=4, ulps=2)


class Log(FloatFunction):
    """Natural logarithm; -inf at 0, NaN below.  Error bound: see `Math.log`."""

    precision = SINGLE

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return b.log(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g / x,)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(log, lambda np, x: np.log(x), low=0.1, high=4, ulps=2, few=True)


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

        return unary(sigmoid, reference, low=-6, high=6, ulps=3, few=True)


class Exp2(FloatFunction):
    """2**x; error bound: see `Math.exp2`."""

    precision = SINGLE

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return b.exp2(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g * (out * LN2),)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(exp2, lambda np, x: np.exp2(x), low=-4, high=4, ulps=1, few=True)


class Expm1(FloatFunction):
    """e**x - 1; error bound: see `Math.expm1`."""

    precision = SINGLE

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return b.expm1(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g * (out + 1.0),)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(expm1, lambda np, x: np.expm1(x), ulps=1, few=True)


class Log1p(FloatFunction):
    """log(1 + x); error bound: see `Math.log1p`."""

    precision = SINGLE

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return b.log1p(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g / (1.0 + x),)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(log1p, lambda np, x: np.log1p(x), low=-0.9, high=4, ulps=1, few=True)


class Log2(FloatFunction):
    """Logarithm to base 2; error bound: see `Math.log2`."""

    precision = SINGLE

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return b.log2(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g / (x * LN2),)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(log2, lambda np, x: np.log2(x), low=0.1, high=4, ulps=1, few=True)


class Log10(FloatFunction):
    """Logarithm to base 10; error bound: see `Math.log10`."""

    precision = SINGLE

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return b.log10(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g / (x * LN10),)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(log10, lambda np, x: np.log10(x), low=0.1, high=4, ulps=1, few=True)


class LogSigmoid(FloatFunction):
    """log(sigmoid(x)) = min(x, 0) - log(1 + exp(-|x|)), within 2 ulp."""

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        low = b.select(x > 0.0, 0.0, x)
        return low - b.log1p(b.exp(-b.abs(x)))

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g * sigmoid(-x),)

    @staticmethod
    def samples() -> list[Sample]:
        def reference(np: Any, x: Any) -> Any:
            return -np.logaddexp(0, -x)

        return unary(log_sigmoid, reference, low=-6, high=6, ulps=2, few=True)


class LogAddExp(FloatFunction):
    """log(e**x + e**y) = max + log(1 + exp(-|x - y|)), within 2 ulp of the larger operand."""

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:
        apart = b.select(b.eq(x, y), 0.0, b.abs(x - y))
        return b.maximum(x, y) + b.log1p(b.exp(-apart))

    def vjp(self, g: Any, out: Any, x: Any, y: Any) -> tuple[Any, ...]:
        difference = where(x.eq(y) & isinf(x), 0.0, x - y)
        return (g * sigmoid(difference), g * sigmoid(-difference))

    @staticmethod
    def samples() -> list[Sample]:
        def reference(np: Any, x: Any, y: Any) -> Any:
            return np.logaddexp(x, y)

        return binary(logaddexp, reference, low=0.5, high=4, ulps=2, few=True)


_EXP = Exp.of()
_LOG = Log.of()
_SIGMOID = Sigmoid.of()
_EXP2 = Exp2.of()
_EXPM1 = Expm1.of()
_LOG1P = Log1p.of()
_LOG2 = Log2.of()
_LOG10 = Log10.of()
_LOG_SIGMOID = LogSigmoid.of()
_LOGADDEXP = LogAddExp.of()


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


@public("exp2")
def exp2(x: Operand) -> Any:
    """Return 2**x, within 1 ulp."""
    return apply(_EXP2, x)[0]


@public("expm1")
def expm1(x: Operand) -> Any:
    """Return e**x - 1 without cancellation near 0, within 1.5 ulp."""
    return apply(_EXPM1, x)[0]


@public("log1p")
def log1p(x: Operand) -> Any:
    """Return log(1 + x) without cancellation near 0, within 1.5 ulp."""
    return apply(_LOG1P, x)[0]


@public("log2")
def log2(x: Operand) -> Any:
    """Return the logarithm to base 2, within 1 ulp; exact for powers of 2."""
    return apply(_LOG2, x)[0]


@public("log10")
def log10(x: Operand) -> Any:
    """Return the logarithm to base 10, within 1 ulp; exact for powers of 10."""
    return apply(_LOG10, x)[0]


def log_sigmoid(x: Operand) -> Any:
    """Return log(sigmoid(x)), within 2 ulp, without overflow."""
    return apply(_LOG_SIGMOID, x)[0]


@public("logaddexp")
def logaddexp(x: Operand, y: Operand) -> Any:
    """Return log(e**x + e**y) without overflow, within 2 ulp of the larger operand."""
    return apply(_LOGADDEXP, x, y)[0]


@composite
def _logaddexp2(x: Any, y: Any) -> Any:
    return logaddexp(x * LN2, y * LN2) / LN2


@public("logaddexp2")
def logaddexp2(x: Operand, y: Operand) -> Any:
    """Return log2(2**x + 2**y) without overflow, within 4 ulp of the larger operand."""
    return _logaddexp2(x, y)


@composite
def _xlogy(x: Any, y: Any) -> Any:
    none = x.eq(0) & ((y <= 0) | y.eq(float("inf")))
    return x * log(where(none, 1, y))


@public("xlogy")
def xlogy(x: Operand, y: Operand) -> Any:
    """Return x * log(y), 0 where x is 0 and y no NaN; the gradients there are log(y) and 0."""
    return _xlogy(x, y)


@composite
def _xlog1py(x: Any, y: Any) -> Any:
    none = x.eq(0) & ((y <= -1) | y.eq(float("inf")))
    return x * log1p(where(none, 0, y))


@public("xlog1py")
def xlog1py(x: Operand, y: Operand) -> Any:
    """Return x * log(1 + y), 0 where x is 0 and y no NaN."""
    return _xlog1py(x, y)


@composite
def _logit(x: Any) -> Any:
    return log(x) - log1p(0.0 - x)


@composite
def _logit_clamped(x: Any, eps: Any) -> Any:
    low = where(x < eps, eps, x)
    return _logit(where(low > 1.0 - eps, 1.0 - eps, low))


@public("logit")
def logit(x: Any, eps: float | None = None) -> Any:
    """Return log(x / (1 - x)), the inverse of `sigmoid`; NaN outside of [0, 1].

    With `eps`, x is first brought into [eps, 1 - eps], where alone it has a gradient then.
    """
    return _logit(x) if eps is None else _logit_clamped(x, eps)


@samples_of(logit)
def _logit_samples() -> list[Sample]:
    def reference(np: Any, x: Any) -> Any:
        return np.log(x) - np.log1p(-x)

    def clamped(np: Any, x: Any) -> Any:
        x = np.clip(x, 0.25, 0.75)
        return np.log(x / (1 - x))

    return [
        *unary(logit, reference, low=0.05, high=0.95, relative=3e-7, special=False, few=True),
        Sample(logit, (Arg((4,), values=(0.0, 1.0, -0.5, 2.0)),), reference, gradient=False),
        Sample(lambda x: logit(x, 0.25), (Arg((9,), low=-1, high=2),), clamped, relative=3e-7),
    ]


def _times_log(function: str) -> Any:
    def reference(np: Any, x: Any, y: Any) -> Any:
        dtype = np.result_type(x, y)
        x, y = np.asarray(x, dtype), np.asarray(y, dtype)
        zero = (x == 0) & ~np.isnan(y)
        return np.where(zero, 0.0 * x, x * getattr(np, function)(np.where(zero, 1.0, y)))

    return reference


binary_samples_of(xlogy, _times_log("log"), low=0.5, high=2.0, ulps=2)
binary_samples_of(xlog1py, _times_log("log1p"), low=0.5, high=2.0, ulps=2)
binary_samples_of(logaddexp2, lambda np, x, y: np.logaddexp2(x, y), low=0.5, high=4, ulps=4)
