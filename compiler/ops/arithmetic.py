"""Arithmetic: sums, products, signs, extrema, and what is made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dualgrad.compiler.ir.value import Operand, apply, public
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.elementwise import Elementwise, copy, operator_reference
from dualgrad.compiler.ops.logical import where
from dualgrad.compiler.ops.sample import Arg, Sample, binary, binary_samples_of, samples_of, unary
from dualgrad.runtime.dtype import (
    bool_,
    int64,
)

if TYPE_CHECKING:
    from dualgrad.compiler.build.mathlib import Math


class Add(Elementwise):
    """x + y; integers wrap, of bools it is `or`."""

    accepts = "biuf"

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:
        return x | y if x.dtype is bool_ else x + y

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


class Sub(Elementwise):
    """x - y; integers wrap."""

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:
        return x - y

    def vjp(self, g: Any, out: Any, x: Any, y: Any) -> tuple[Any, ...]:
        return (g, -g)

    @staticmethod
    def samples() -> list[Sample]:
        return binary(sub, operator_reference("subtract"), few=True)


class Mul(Elementwise):
    """x * y; integers wrap, of bools it is `and`."""

    accepts = "biuf"

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:
        return x & y if x.dtype is bool_ else x * y

    def vjp(self, g: Any, out: Any, x: Any, y: Any) -> tuple[Any, ...]:
        return (g * y, g * x)

    @staticmethod
    def samples() -> list[Sample]:
        return binary(mul, operator_reference("multiply"))


class Neg(Elementwise):
    """-x; unsigned integers wrap."""

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return -x if x.dtype.is_signed else b.const(0, x.dtype) - x

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (-g,)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(neg, lambda np, x: -x, few=True)


class Abs(Elementwise):
    """|x|; the gradient at 0 is 0."""

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return b.abs(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (where(x > 0, g, where(x < 0, -g, 0.0)),)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(absolute, lambda np, x: np.abs(x), few=True)


class Sign(Elementwise):
    """-1, 0 or 1; NaN for NaN; of a bool itself."""

    accepts = "biuf"
    vjp = None

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        if x.dtype is bool_:
            return x
        one = b.const(1, x.dtype)
        found = b.select(x > 0, one, b.select(b.eq(x, 0), 0, x))
        return b.select(x < 0, -one, found) if x.dtype.is_signed else found

    @staticmethod
    def samples() -> list[Sample]:
        whole = unary(sign, lambda np, x: np.sign(x), dtype=int64, low=-9, high=9, few=True)
        plain = unary(sign, lambda np, x: x if x.dtype == bool else np.sign(x), few=True)
        return [*plain, *whole]


class Maximum(Elementwise):
    """The larger of two; NaN if either is.  Equal operands share the gradient by halves."""

    accepts = "biuf"

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:
        return x | y if x.dtype is bool_ else b.maximum(x, y)

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

        return binary(maximum, reference, few=True)


class Minimum(Elementwise):
    """The smaller of two; NaN if either is.  Equal operands share the gradient by halves."""

    accepts = "biuf"

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:
        return x & y if x.dtype is bool_ else b.minimum(x, y)

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

        return binary(minimum, reference, few=True)


# Ops without parameters, made once: the functions below are on the path of every eager call.
_ADD = Add.of()
_SUB = Sub.of()
_MUL = Mul.of()
_NEG = Neg.of()
_ABS = Abs.of()
_SIGN = Sign.of()
_MAXIMUM = Maximum.of()
_MINIMUM = Minimum.of()


@public("__add__", "add")
def add(x: Operand, y: Operand, *, alpha: Operand | None = None) -> Any:
    """Return x + y, or x + alpha * y; operands promote and broadcast.

    Integers wrap; the sum of bools is true where one of them is.
    """
    return apply(_ADD, x, y)[0] if alpha is None else _add_scaled(x, y, alpha)


@composite
def _add_scaled(x: Any, y: Any, alpha: Any) -> Any:
    return x + alpha * y


@public("__radd__")
def radd(x: Operand, y: Operand) -> Any:
    """Return y + x."""
    return apply(_ADD, y, x)[0]


@public("__sub__", "sub", "subtract")
def sub(x: Operand, y: Operand, *, alpha: Operand | None = None) -> Any:
    """Return x - y, or x - alpha * y; operands promote and broadcast, integers wrap."""
    return apply(_SUB, x, y)[0] if alpha is None else _sub_scaled(x, y, alpha)


@composite
def _sub_scaled(x: Any, y: Any, alpha: Any) -> Any:
    return x - alpha * y


@public("__rsub__")
def rsub(x: Operand, y: Operand) -> Any:
    """Return y - x."""
    return apply(_SUB, y, x)[0]


@public("__mul__", "mul", "multiply")
def mul(x: Operand, y: Operand) -> Any:
    """Return x * y; operands promote and broadcast, integers wrap, of bools it is `and`."""
    return apply(_MUL, x, y)[0]


@public("__rmul__")
def rmul(x: Operand, y: Operand) -> Any:
    """Return y * x."""
    return apply(_MUL, y, x)[0]


@public("__neg__", "neg", "negative")
def neg(x: Operand) -> Any:
    """Return -x."""
    return apply(_NEG, x)[0]


@public("__abs__", "abs", "absolute")
def absolute(x: Operand) -> Any:
    """Return |x|."""
    return apply(_ABS, x)[0]


@public("maximum")
def maximum(x: Operand, y: Operand) -> Any:
    """Return the larger of x and y element by element; NaN where either is NaN."""
    return apply(_MAXIMUM, x, y)[0]


@public("minimum")
def minimum(x: Operand, y: Operand) -> Any:
    """Return the smaller of x and y element by element; NaN where either is NaN."""
    return apply(_MINIMUM, x, y)[0]


@public("sign")
def sign(x: Operand) -> Any:
    """Return -1, 0 or 1 as x is negative, zero or positive; NaN for NaN.  Its gradient is 0."""
    return apply(_SIGN, x)[0]


@public("__pos__", "positive")
def positive(x: Any) -> Any:
    """Return +x: a copy."""
    return copy(x)


@public("square")
def square(x: Any) -> Any:
    """Return x * x."""
    return apply(_MUL, x, x)[0]


@composite
def _fmax(x: Any, y: Any) -> Any:
    return where((x >= y) | y.ne(y), x, y)


@public("fmax")
def fmax(x: Operand, y: Operand) -> Any:
    """Return the larger of x and y; where one is NaN the other.  Equal operands: the gradient
    goes to x."""
    return _fmax(x, y)


@composite
def _fmin(x: Any, y: Any) -> Any:
    return where((x <= y) | y.ne(y), x, y)


@public("fmin")
def fmin(x: Operand, y: Operand) -> Any:
    """Return the smaller of x and y; where one is NaN the other.  Equal operands: the gradient
    goes to x."""
    return _fmin(x, y)


@composite
def _clip_low(x: Any, low: Any) -> Any:
    return where((x < low) | low.ne(low), low, x)


@composite
def _clip_high(x: Any, high: Any) -> Any:
    return where((x > high) | high.ne(high), high, x)


@composite
def _clip(x: Any, low: Any, high: Any) -> Any:
    raised = where((x < low) | low.ne(low), low, x)
    return where((raised > high) | high.ne(high), high, raised)


@public("clip", "clamp")
def clip(x: Any, min: Operand | None = None, max: Operand | None = None) -> Any:
    """Return min where x < min, max where that is larger than max, else x.

    Bounds are tensors (that broadcast with x), numbers or None for no bound; a bound larger than
    `max` gives `max`; NaN, of x or a bound, stays.  The gradient goes to what the result is; to x
    where it equals a bound.
    """
    if min is None:
        return copy(x) if max is None else _clip_high(x, max)
    return _clip_low(x, min) if max is None else _clip(x, min, max)


@public("clamp_min")
def clamp_min(x: Any, min: Operand) -> Any:
    """Return clip(x, min)."""
    return _clip_low(x, min)


@public("clamp_max")
def clamp_max(x: Any, max: Operand) -> Any:
    """Return clip(x, None, max)."""
    return _clip_high(x, max)


@composite
def _lerp(x: Any, end: Any, weight: Any) -> Any:
    step = end - x
    return where(absolute(weight) < 0.5, x + weight * step, end - step * (1.0 - weight))


@public("lerp")
def lerp(x: Operand, end: Operand, weight: Operand) -> Any:
    """Return x + weight * (end - x), computed from the nearer end: exact for weight 0 and 1."""
    return _lerp(x, end, weight)


@composite
def _addcmul(x: Any, a: Any, b: Any, value: Any) -> Any:
    return x + value * a * b


@public("addcmul")
def addcmul(x: Any, tensor1: Operand, tensor2: Operand, value: float = 1) -> Any:
    """Return x + value * tensor1 * tensor2."""
    return _addcmul(x, tensor1, tensor2, value)


@composite
def _addcdiv(x: Any, a: Any, b: Any, value: Any) -> Any:
    return x + value * (a / b)


@public("addcdiv")
def addcdiv(x: Any, tensor1: Operand, tensor2: Operand, value: float = 1) -> Any:
    """Return x + value * (tensor1 / tensor2)."""
    return _addcdiv(x, tensor1, tensor2, value)


@composite
def _heaviside(x: Any, values: Any) -> Any:
    if x.dtype is bool_:
        return where(x, True, values)
    return where(x > 0, 1, where(x.eq(0), values, where(x < 0, 0, x)))


@public("heaviside")
def heaviside(x: Operand, values: Operand) -> Any:
    """Return 0 for x < 0, `values` at 0, 1 for x > 0; NaN for NaN.  Of bools it is `or`."""
    return _heaviside(x, values)


subtract = sub
multiply = mul
negative = neg
clamp = clip
sgn = sign

binary_samples_of(fmax, lambda np, x, y: np.where((x >= y) | np.isnan(y), x, y))
binary_samples_of(fmin, lambda np, x, y: np.where((x <= y) | np.isnan(y), x, y))
binary_samples_of(heaviside, operator_reference("heaviside"))


@samples_of(clip)
def _clip_samples() -> list[Sample]:
    def reference(np: Any, x: Any, low: Any, high: Any) -> Any:
        return np.clip(x, low, high)

    x, low = Arg((4, 6), low=-3, high=3), Arg((6,), low=-1, high=0)
    whole = Arg((9,), int64, -9, 9)
    nan = Arg((3,), values=(0.0, float("nan"), 9.0))
    return [
        Sample(clip, (x, -0.5, 1.5), reference),
        Sample(clip, (x, low, Arg((4, 1), low=0.5, high=1)), reference),
        Sample(clip, (x, Arg((6,)), Arg((6,))), reference),
        Sample(clip, (x, low, 0.5), reference),
        Sample(clip, (x, 0.5), lambda np, x, low: np.maximum(x, low)),
        Sample(clip, (x, None, 0.5), lambda np, x, low, high: np.minimum(x, high)),
        Sample(clip, (x,), lambda np, x: x),
        Sample(clip, (whole, -3, 4), reference),
        Sample(clip, (nan, -1.0, 1.0), reference, gradient=False),
        Sample(clip, (Arg((3,)), nan, 1.0), reference, gradient=False),
    ]


@samples_of(lerp)
def _lerp_samples() -> list[Sample]:
    def reference(np: Any, x: Any, end: Any, weight: Any) -> Any:
        return x + weight * (end - x)

    ends = (Arg((3, 4), low=1, high=2), Arg((4,), low=3, high=4))
    return [
        Sample(lerp, (*ends, weight), reference, relative=3e-7)
        for weight in (0.25, 0.75, Arg((3, 1), low=0, high=1))
    ]


@samples_of(addcmul)
def _addcmul_samples() -> list[Sample]:
    x = Arg((3, 4), low=1, high=2)
    return [
        Sample(addcmul, (x, x, Arg((4,), low=1)), lambda np, x, a, b: x + a * b, relative=3e-7),
        Sample(
            lambda x, a: addcmul(x, a, a, value=0.5),
            (x, x),
            lambda np, x, a: x + 0.5 * a * a,
            relative=3e-7,
        ),
    ]


@samples_of(addcdiv)
def _addcdiv_samples() -> list[Sample]:
    x = Arg((3, 4), low=1, high=2)
    return [
        Sample(addcdiv, (x, x, Arg((4,), low=1)), lambda np, x, a, b: x + a / b, relative=3e-7),
        Sample(
            lambda x, a: addcdiv(x, x, a, value=-2),
            (x, x),
            lambda np, x, a: x - 2 * (x / a),
            relative=3e-7,
        ),
    ]


@samples_of(clamp_min)
def _scaled_samples() -> list[Sample]:
    x = Arg((3, 4))
    return [
        Sample(lambda x, y: add(x, y, alpha=0.5), (x, Arg((4,))), lambda np, x, y: x + y / 2),
        Sample(lambda x, y: sub(x, y, alpha=2), (x, Arg((4,))), lambda np, x, y: x - 2 * y),
        Sample(clamp_min, (x, 0.5), lambda np, x, y: np.maximum(x, y)),
        Sample(clamp_max, (x, Arg((4,))), lambda np, x, y: np.minimum(x, y)),
    ]


@samples_of(positive)
def _positive_samples() -> list[Sample]:
    return [Sample(positive, (Arg((2, 3)),), lambda np, x: +x)]
