"""Arithmetic and elementary functions, element by element."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dualgrad.compiler.build.mathlib import Math
from dualgrad.compiler.ir.value import Operand, apply, public
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.compiler.ops.elementwise import (
    Elementwise,
    operator_reference,
)
from dualgrad.compiler.ops.logical import where
from dualgrad.compiler.ops.sample import Arg, Sample, binary, unary
from dualgrad.runtime.dtype import (
    int64,
)


@dataclass(frozen=True, eq=False)
class Add(Elementwise):
    """x + y; integers wrap."""

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:  # type: ignore[override]
        return x + y

    def vjp(self, g: Any, out: Any, x: Any, y: Any) -> tuple[Any, ...]:
        return (g, g)

    @staticmethod
    def samples() -> list[Sample]:
        bad = Sample(
            add,
            (Arg((3,)), Arg((4,))),
            error=ValueError,
            match=r"\[add\] shapes do not broadcast\n  expect: .*\n  actual: \(3,\) and \(4,\)",
        )
        whole = binary(add, operator_reference("add"), dtype=int64, low=-9, high=9, gradient=False)
        return [*binary(add, operator_reference("add")), *whole, bad]


@dataclass(frozen=True, eq=False)
class Sub(Elementwise):
    """x - y; integers wrap."""

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:  # type: ignore[override]
        return x - y

    def vjp(self, g: Any, out: Any, x: Any, y: Any) -> tuple[Any, ...]:
        return (g, -g)

    @staticmethod
    def samples() -> list[Sample]:
        return binary(sub, operator_reference("subtract"))


@dataclass(frozen=True, eq=False)
class Mul(Elementwise):
    """x * y; integers wrap."""

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:  # type: ignore[override]
        return x * y

    def vjp(self, g: Any, out: Any, x: Any, y: Any) -> tuple[Any, ...]:
        return (g * y, g * x)

    @staticmethod
    def samples() -> list[Sample]:
        return binary(mul, operator_reference("multiply"))


@dataclass(frozen=True, eq=False)
class Div(Elementwise):
    """x / y of floats; integers are converted to the default float."""

    accepts = "f"
    floats = True

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:  # type: ignore[override]
        return x / y

    def vjp(self, g: Any, out: Any, x: Any, y: Any) -> tuple[Any, ...]:
        return (g / y, -g * out / y)

    @staticmethod
    def samples() -> list[Sample]:
        return binary(div, operator_reference("divide"), low=0.5, high=2.0)


@dataclass(frozen=True, eq=False)
class Neg(Elementwise):
    """-x."""

    accepts = "if"

    def scalar(self, b: Math, x: Scalar) -> Scalar:  # type: ignore[override]
        return -x

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (-g,)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(neg, lambda np, x: -x)


@dataclass(frozen=True, eq=False)
class Abs(Elementwise):
    """|x|; the gradient at 0 is 0."""

    def scalar(self, b: Math, x: Scalar) -> Scalar:  # type: ignore[override]
        return b.abs(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (where(x > 0, g, where(x < 0, -g, 0.0)),)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(absolute, lambda np, x: np.abs(x))


@dataclass(frozen=True, eq=False)
class Exp(Elementwise):
    """e**x; error bound: see `Math.exp`."""

    accepts = "f"
    floats = True

    def scalar(self, b: Math, x: Scalar) -> Scalar:  # type: ignore[override]
        return b.exp(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g * out,)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(exp, lambda np, x: np.exp(x), low=-4, high=4, ulps=2)


@dataclass(frozen=True, eq=False)
class Log(Elementwise):
    """Natural logarithm; -inf at 0, NaN below.  Error bound: see `Math.log`."""

    accepts = "f"
    floats = True

    def scalar(self, b: Math, x: Scalar) -> Scalar:  # type: ignore[override]
        return b.log(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g / x,)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(log, lambda np, x: np.log(x), low=0.1, high=4, ulps=2)


@dataclass(frozen=True, eq=False)
class Tanh(Elementwise):
    """Hyperbolic tangent; error bound: see `Math.tanh`."""

    accepts = "f"
    floats = True

    def scalar(self, b: Math, x: Scalar) -> Scalar:  # type: ignore[override]
        return b.tanh(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g * (1.0 - out * out),)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(tanh, lambda np, x: np.tanh(x), low=-4, high=4, ulps=2)


@dataclass(frozen=True, eq=False)
class Sigmoid(Elementwise):
    """1 / (1 + exp(-x)); error bound: see `Math.sigmoid`."""

    accepts = "f"
    floats = True

    def scalar(self, b: Math, x: Scalar) -> Scalar:  # type: ignore[override]
        return b.sigmoid(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g * (out * (1.0 - out)),)

    @staticmethod
    def samples() -> list[Sample]:
        def reference(np: Any, x: Any) -> Any:
            return 1 / (1 + np.exp(-x))

        return unary(sigmoid, reference, low=-6, high=6, ulps=3)


@dataclass(frozen=True, eq=False)
class Sqrt(Elementwise):
    """Square root, correctly rounded; NaN below 0."""

    accepts = "f"
    floats = True

    def scalar(self, b: Math, x: Scalar) -> Scalar:  # type: ignore[override]
        return b.sqrt(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g / (2.0 * out),)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(sqrt, lambda np, x: np.sqrt(x), low=0.1, high=4)


@dataclass(frozen=True, eq=False)
class Maximum(Elementwise):
    """The larger of two; NaN if either is.  Equal operands share the gradient by halves."""

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:  # type: ignore[override]
        return b.maximum(x, y)

    def vjp(self, g: Any, out: Any, x: Any, y: Any) -> tuple[Any, ...]:
        half = 0.5 * g
        return (
            where(x > y, g, where(x.eq(y), half, 0.0)),
            where(y > x, g, where(x.eq(y), half, 0.0)),
        )

    @staticmethod
    def samples() -> list[Sample]:
        def reference(np: Any, x: Any, y: Any) -> Any:
            return np.where(x == y, x, np.maximum(x, y))  # of +0 and -0 the first

        return binary(maximum, reference)


@dataclass(frozen=True, eq=False)
class Minimum(Elementwise):
    """The smaller of two; NaN if either is.  Equal operands share the gradient by halves."""

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:  # type: ignore[override]
        return b.minimum(x, y)

    def vjp(self, g: Any, out: Any, x: Any, y: Any) -> tuple[Any, ...]:
        half = 0.5 * g
        return (
            where(x < y, g, where(x.eq(y), half, 0.0)),
            where(y < x, g, where(x.eq(y), half, 0.0)),
        )

    @staticmethod
    def samples() -> list[Sample]:
        def reference(np: Any, x: Any, y: Any) -> Any:
            return np.where(x == y, x, np.minimum(x, y))  # of +0 and -0 the first

        return binary(minimum, reference)


# Ops without parameters, made once: the functions below are on the path of every eager call.
_ADD = Add.of()
_SUB = Sub.of()
_MUL = Mul.of()
_DIV = Div.of()
_NEG = Neg.of()
_ABS = Abs.of()
_EXP = Exp.of()
_LOG = Log.of()
_TANH = Tanh.of()
_SIGMOID = Sigmoid.of()
_SQRT = Sqrt.of()
_MAXIMUM = Maximum.of()
_MINIMUM = Minimum.of()


@public("__add__", "add")
def add(x: Operand, y: Operand) -> Any:
    """Return x + y element by element; operands promote and broadcast, integers wrap."""
    return apply(_ADD, x, y)[0]


@public("__radd__")
def radd(x: Operand, y: Operand) -> Any:
    """Return y + x."""
    return apply(_ADD, y, x)[0]


@public("__sub__", "sub")
def sub(x: Operand, y: Operand) -> Any:
    """Return x - y element by element."""
    return apply(_SUB, x, y)[0]


@public("__rsub__")
def rsub(x: Operand, y: Operand) -> Any:
    """Return y - x."""
    return apply(_SUB, y, x)[0]


@public("__mul__", "mul")
def mul(x: Operand, y: Operand) -> Any:
    """Return x * y element by element."""
    return apply(_MUL, x, y)[0]


@public("__rmul__")
def rmul(x: Operand, y: Operand) -> Any:
    """Return y * x."""
    return apply(_MUL, y, x)[0]


@public("__truediv__", "div")
def div(x: Operand, y: Operand) -> Any:
    """Return x / y element by element; integers become the default float first."""
    return apply(_DIV, x, y)[0]


@public("__rtruediv__")
def rdiv(x: Operand, y: Operand) -> Any:
    """Return y / x."""
    return apply(_DIV, y, x)[0]


@public("__neg__", "neg")
def neg(x: Operand) -> Any:
    """Return -x."""
    return apply(_NEG, x)[0]


@public("__abs__", "abs")
def absolute(x: Operand) -> Any:
    """Return |x|."""
    return apply(_ABS, x)[0]


@public("exp")
def exp(x: Operand) -> Any:
    """Return e**x, within 1.5 ulp in float32 and 2 ulp in float64."""
    return apply(_EXP, x)[0]


@public("log")
def log(x: Operand) -> Any:
    """Return the natural logarithm, within 1.5 ulp in float32 and 2 ulp in float64."""
    return apply(_LOG, x)[0]


@public("tanh")
def tanh(x: Operand) -> Any:
    """Return the hyperbolic tangent, within 1.5 ulp in float32 and 2 ulp in float64."""
    return apply(_TANH, x)[0]


@public("sigmoid")
def sigmoid(x: Operand) -> Any:
    """Return 1 / (1 + exp(-x))."""
    return apply(_SIGMOID, x)[0]


@public("sqrt")
def sqrt(x: Operand) -> Any:
    """Return the square root, correctly rounded."""
    return apply(_SQRT, x)[0]


@public("square")
def square(x: Any) -> Any:
    """Return x * x."""
    return apply(_MUL, x, x)[0]


@public("maximum")
def maximum(x: Operand, y: Operand) -> Any:
    """Return the larger of x and y element by element; NaN where either is NaN."""
    return apply(_MAXIMUM, x, y)[0]


@public("minimum")
def minimum(x: Operand, y: Operand) -> Any:
    """Return the smaller of x and y element by element; NaN where either is NaN."""
    return apply(_MINIMUM, x, y)[0]
