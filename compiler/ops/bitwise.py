"""Bitwise logic on integers, which on bools is logic, and shifts."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dualgrad.compiler.ir.value import Operand, apply, public
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.compiler.ops.elementwise import Elementwise, operator_reference
from dualgrad.compiler.ops.sample import Arg, Sample
from dualgrad.runtime.dtype import bool_, int8, int64, uint8

if TYPE_CHECKING:
    from dualgrad.compiler.build.mathlib import Math


class Logical(Elementwise, abstract=True):
    """Bitwise on integers, logical on bools."""

    accepts = "biu"
    vjp = None


class BitAnd(Logical):
    """x & y."""

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:
        return x & y

    @staticmethod
    def samples() -> list[Sample]:
        return bit_samples(bit_and, operator.and_)


class BitOr(Logical):
    """x | y."""

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:
        return x | y

    @staticmethod
    def samples() -> list[Sample]:
        return bit_samples(bit_or, operator.or_)


class BitXor(Logical):
    """x ^ y."""

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:
        return x ^ y

    @staticmethod
    def samples() -> list[Sample]:
        return bit_samples(bit_xor, operator.xor)


class Invert(Logical):
    """~x: `not` on bools, all bits flipped on integers."""

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return ~x

    @staticmethod
    def samples() -> list[Sample]:
        arg = Arg((7,), int64, -9, 9)
        flags = Arg((7,), bool_, values=(1, 0, 0))
        return [Sample(invert, (a,), lambda np, x: ~x, gradient=False) for a in (arg, flags)]


class Shift(Elementwise, abstract=True):
    """A shift of integers; counts outside of [0, bits) shift everything out."""

    accepts = "iu"
    vjp = None

    def counted(self, b: Math, count: Scalar) -> tuple[Scalar, Scalar]:
        """Whether a count is in range, and one that is."""
        inside = (count >= 0) & (count < count.dtype.bits)
        return inside, b.select(inside, count, 0)


class LeftShift(Shift):
    """x << y; 0 where all bits are shifted out."""

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:
        inside, count = self.counted(b, y)
        return b.select(inside, x << count, 0)

    @staticmethod
    def samples() -> list[Sample]:
        return shift_samples(left_shift, "left_shift")


class RightShift(Shift):
    """x >> y, rounding down; 0 or -1, as the sign is, where all bits are shifted out."""

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:
        inside, count = self.counted(b, y)
        rest = b.select(x < 0, b.const(-1, x.dtype), 0) if x.dtype.is_signed else 0
        return b.select(inside, x >> count, rest)

    @staticmethod
    def samples() -> list[Sample]:
        return shift_samples(right_shift, "right_shift")


def shift_samples(function: Callable[..., Any], name: str) -> list[Sample]:
    counts = (0, 1, 5, 7, 8, 63, 64, 100)
    out = []
    for dtype in (int8, uint8, int64):
        low = -99 if dtype.is_signed else 0
        args = (Arg((9, 1), dtype, low, 99), Arg((8,), dtype, values=counts))
        out.append(Sample(function, args, operator_reference(name)))
    out.append(Sample(function, (Arg((5,), int64, -99, 99), 3), operator_reference(name)))
    bad = Sample(function, (Arg((2,)), 1), error=TypeError, match="does not take float32")
    return [*out, bad]


_BITAND = BitAnd.of()
_BITOR = BitOr.of()
_BITXOR = BitXor.of()
_INVERT = Invert.of()
_LEFT_SHIFT = LeftShift.of()
_RIGHT_SHIFT = RightShift.of()


def bit_samples(function: Callable[..., Any], reference: Any) -> list[Sample]:
    def on_arrays(np: Any, x: Any, y: Any) -> Any:
        return reference(x, y)

    flags = (Arg((4,), bool_, values=(0, 0, 1, 1)), Arg((4,), bool_, values=(0, 1)))
    numbers = (Arg((3, 5), int64, -99, 99), Arg((5,), int64, -99, 99))
    bad = Sample(function, (Arg((2,)), Arg((2,))), error=TypeError, match="does not take float32")
    good = [Sample(function, a, on_arrays, gradient=False) for a in (flags, numbers)]
    return [*good, bad]


@public("__and__", "bitwise_and")
def bit_and(x: Operand, y: Operand) -> Any:
    """Return x & y: logical on bools, bitwise on integers."""
    return apply(_BITAND, x, y)[0]


@public("__or__", "bitwise_or")
def bit_or(x: Operand, y: Operand) -> Any:
    """Return x | y: logical on bools, bitwise on integers."""
    return apply(_BITOR, x, y)[0]


@public("__xor__", "bitwise_xor")
def bit_xor(x: Operand, y: Operand) -> Any:
    """Return x ^ y: logical on bools, bitwise on integers."""
    return apply(_BITXOR, x, y)[0]


@public("__invert__", "bitwise_not", "bitwise_invert", "invert")
def invert(x: Operand) -> Any:
    """Return ~x: logical on bools, bitwise on integers."""
    return apply(_INVERT, x)[0]


@public("__rand__")
def rbit_and(x: Operand, y: Operand) -> Any:
    """Return y & x."""
    return apply(_BITAND, y, x)[0]


@public("__ror__")
def rbit_or(x: Operand, y: Operand) -> Any:
    """Return y | x."""
    return apply(_BITOR, y, x)[0]


@public("__rxor__")
def rbit_xor(x: Operand, y: Operand) -> Any:
    """Return y ^ x."""
    return apply(_BITXOR, y, x)[0]


@public("__lshift__", "bitwise_left_shift")
def left_shift(x: Operand, y: Operand) -> Any:
    """Return x << y of integers; 0 for counts below 0 or beyond the dtype's bits."""
    return apply(_LEFT_SHIFT, x, y)[0]


@public("__rlshift__")
def rleft_shift(x: Operand, y: Operand) -> Any:
    """Return y << x."""
    return apply(_LEFT_SHIFT, y, x)[0]


@public("__rshift__", "bitwise_right_shift")
def right_shift(x: Operand, y: Operand) -> Any:
    """Return x >> y of integers, rounding down; for counts below 0 or beyond the dtype's bits 0,
    or -1 if x is negative."""
    return apply(_RIGHT_SHIFT, x, y)[0]


@public("__rrshift__")
def rright_shift(x: Operand, y: Operand) -> Any:
    """Return y >> x."""
    return apply(_RIGHT_SHIFT, y, x)[0]


bitwise_and = bit_and
bitwise_or = bit_or
bitwise_xor = bit_xor
bitwise_not = bitwise_invert = invert
bitwise_left_shift = left_shift
bitwise_right_shift = right_shift
