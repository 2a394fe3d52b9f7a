"""Division as Python does it, and its remainders, as formulas.

Integers: by zero gives 0, as in NumPy; the smallest number by -1 wraps.  Floats: `fmod` is exact
for all operands (IEEE 754 has it as the exact remainder of the truncated quotient); `remainder`
and `floor_divide` correct it as Python's `float_divmod` (Objects/floatobject.c) does, but for a
division by zero, which gives what x / 0 and the remainder of IEEE 754 are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.runtime.dtype import float32, float64, int64

if TYPE_CHECKING:
    from dualgrad.compiler.build.builder import Builder

STEP = 50  # bits of the quotient that one step of a reduction removes
PHASE = 14 * STEP - 1  # the largest quotient of one phase, as a power of two
FRACTION = (1 << 52) - 1
ONE = 1023 << 52


def fmod(b: Builder, x: Scalar, y: Scalar) -> Scalar:
    """The remainder of truncated division, with the sign of x; exact."""
    if not x.dtype.is_float:
        return b.rem(x, _divisor(b, x, y))
    if x.dtype is float32:
        top, bottom = (b.cast(b.abs(v), float64) for v in (x, y))
        rest = b.cast(_positive(b, _reduce(b, top, bottom, 6), bottom), float32)
    else:
        rest = _fmod64(b, b.abs(x), b.abs(y))
    return b.select(b.abs(x) < b.abs(y), x, b.copysign(rest, x))


def remainder(b: Builder, x: Scalar, y: Scalar) -> Scalar:
    """The remainder of floored division, with the sign of y."""
    rest = fmod(b, x, y)
    if not x.dtype.is_signed:
        return rest
    moved = b.select(_opposite(b, rest, y), rest + y, rest)
    if not x.dtype.is_float:
        return moved
    return b.select(b.eq(rest, 0.0), b.copysign(rest, y), moved)


def floor_divide(b: Builder, x: Scalar, y: Scalar) -> Scalar:
    """The quotient rounded down."""
    if not x.dtype.is_float:
        whole = trunc_divide(b, x, y)
        if not x.dtype.is_signed:
            return whole
        return b.select(_opposite(b, fmod(b, x, y), y), whole - 1, whole)
    rest = fmod(b, x, y)
    quotient = (x - rest) / y
    quotient = b.select(_opposite(b, rest, y), quotient - 1.0, quotient)
    down = b.floor(quotient)
    down = b.select(quotient - down > 0.5, down + 1.0, down)
    plain = x / y
    down = b.select(b.eq(quotient, 0.0), b.copysign(b.abs(quotient), plain), down)
    return b.select(b.eq(y, 0.0), plain, down)


def trunc_divide(b: Builder, x: Scalar, y: Scalar) -> Scalar:
    """The quotient of integers rounded towards zero."""
    return b.select(b.eq(y, 0), 0, x / _divisor(b, x, y))


def _divisor(b: Builder, x: Scalar, y: Scalar) -> Scalar:
    """y, or 1 where the division of integers by y is undefined: x / 1 is what x / -1 wraps to."""
    undefined = b.eq(y, 0)
    if x.dtype.is_signed:
        undefined = undefined | (b.eq(x, -(1 << (x.dtype.bits - 1))) & b.eq(y, -1))
    return b.select(undefined, 1, y)


def _opposite(b: Builder, rest: Scalar, y: Scalar) -> Scalar:
    return b.ne(rest, 0) & ((rest < 0) ^ (y < 0))


def _reduce(b: Builder, x: Scalar, y: Scalar, steps: int) -> Scalar:
    """x minus a multiple of y, between -5/8 y and 5/8 y, for 0 < |x / y| < 2**(50 * steps).

    Each step takes away y times a quotient of at most 50 bits: a multiple of a power of two, to
    which adding 1.5 * 2**52 times that power rounds.  What is left is smaller than the power
    times y and a multiple of the power times the last bit of y, so every fma is exact.
    """
    inverse = 1.0 / y
    for k in reversed(range(steps)):
        magic = 1.5 * 2.0 ** (52 + STEP * k)
        quotient = b.fma(x, inverse, magic) - magic
        x = b.fma(-quotient, y, x)
    return x


def _positive(b: Builder, rest: Scalar, y: Scalar) -> Scalar:
    return b.select(rest < 0.0, rest + y, rest)


def _fmod64(b: Builder, x: Scalar, y: Scalar) -> Scalar:
    """fmod of non-negative float64, x >= y: their mantissas first, then powers of two, at most
    2**699 at once, that what is left is multiplied by and reduced again."""
    x_exponent, top = _split(b, x)
    y_exponent, bottom = _split(b, y)
    power = x_exponent - y_exponent
    rest = top
    for _ in range(3):
        part = b.select(power < PHASE, power, PHASE)
        part = b.select(part < 0, 0, part)
        rest = _reduce(b, rest * _power(b, part), bottom, 14)
        power = power - part
    rest = _positive(b, rest, bottom)
    tiny = y_exponent < -1022
    low = b.select(tiny, y_exponent + 54, y_exponent)
    result = rest * _power(b, low) * b.select(tiny, 2.0**-54, b.const(1.0, float64))
    nan = b.eq(y, 0.0) | b.ne(y, y) | ~(x < float("inf"))
    return b.select(nan, float("nan"), result)


def _split(b: Builder, x: Scalar) -> tuple[Scalar, Scalar]:
    """(n, m) with x = 2**n * m and 1 <= m < 2, x > 0."""
    small = x < 2.0**-1022
    bits = b.bitcast(b.select(small, x * 2.0**54, x), int64)
    shift = b.select(small, b.const(-1023 - 54, int64), -1023)
    return (bits >> 52) + shift, b.bitcast((bits & FRACTION) | ONE, float64)


def _power(b: Builder, n: Scalar) -> Scalar:
    """2**n for -1022 <= n <= 1023."""
    return b.bitcast((n + 1023) << 52, float64)
