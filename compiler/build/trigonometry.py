"""Sine, cosine and tangent for arguments of any size.

Up to `_NEAR`, multiples of pi/2 in three parts are taken away from x (W. Cody and W. Waite,
"Software Manual for the Elementary Functions", 1980): the first product and difference are exact.
Beyond, x * 2/pi is computed modulo 4 (M. Payne and R. Hanek, "Radian reduction for trigonometric
functions", ACM SIGNUM Newsletter 18, 1983): only the bits of 2/pi count that meet the exponent
of x.  The integer gives the quadrant, the rest is the reduced argument.  float64 arguments are
multiplied in fixed point, float32 ones in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise

from dualgrad.compiler.build.builder import Builder
from dualgrad.compiler.build.doubleword import DoubleWord
from dualgrad.compiler.build.formats import FORMATS
from dualgrad.compiler.kernel.scalar import Formula, Scalar, reg
from dualgrad.runtime.dtype import float32, float64, int32, int64, uint64
from dualgrad.runtime.records import dataclass

_LOW = 0xFFFFFFFF
# (sin(r)/r - 1) / r**2 and (cos(r) - 1 + r**2/2) / r**4 in r**2 on |r| <= pi/4 (float64) and
# 1.25 pi/4 (float32), from tests/references/fit_mathlib.py
_POLYNOMIALS = {
    float32: (
        (2.7247715e-06, -0.00019842022, 0.008333352, -0.16666667),
        (2.423324e-05, -0.0013885144, 0.04166659),
    ),
    float64: (
        (
            1.5896000046150026e-10,
            -2.5050743528454354e-08,
            2.755731359108751e-06,
            -0.00019841269829484602,
            0.008333333333321945,
            -0.1666666666666663,
        ),
        (
            -1.1358979878585515e-11,
            2.087570973642429e-09,
            -2.7557314246727625e-07,
            2.4801587289088995e-05,
            -0.0013888888888873433,
            0.041666666666666595,
        ),
    ),
}
_HALF_PI = (1.5707963267948966, 6.123233995736766e-17)
_PARTS = {
    float32: (1.5707964, -4.371139e-08, -1.7151245e-15),
    float64: (*_HALF_PI, -1.4973849048591698e-33),
}
_NEAR = 2.0**20


_BITS = 1344


@cache
def _two_over_pi() -> int:
    """floor(2/pi * 2**_BITS), by Machin's formula for pi."""
    one = 1 << (_BITS + 64)

    def arctan_of_inverse(k: int) -> int:
        total, term, n = 0, one // k, 1
        while term:
            total += term // n if n % 4 == 1 else -(term // n)
            term //= k * k
            n += 2
        return total

    pi = 4 * (4 * arctan_of_inverse(5) - arctan_of_inverse(239))
    return (2 * one << _BITS) // pi


def _word(end: int) -> int:
    """The 64 bits of 2/pi that end with the bit of weight 2**-end."""
    return (_two_over_pi() >> (_BITS - end)) % 2**64 if end > 0 else 0


_BLOCK = 26  # as many exponents share their parts of 2/pi


def _parts(block: int) -> tuple[float, float]:
    """2/pi in two parts for float32 arguments M * 2**E, E >= 26 * block, M an integer.

    Multiples of 2**(2 - 26 * block) are left out.
    """
    period = 1 << (_BITS + 2 - _BLOCK * block)
    left = _two_over_pi()
    if block:
        left = (left + period // 2) % period - period // 2
    first = left / 2**_BITS
    top, bottom = first.as_integer_ratio()
    return first, (left - (top << _BITS) // bottom) / 2**_BITS


@dataclass(frozen=True)
class _Reduced:
    """x = quadrant * pi/2 + r + r_low (for |x|, that is)."""

    quadrant: Scalar  # an integer as wide as r, modulo 4
    r: Scalar
    r_low: Scalar


def sin(b: DoubleWord, x: Scalar) -> Scalar:
    """Sine of a float32 or float64."""

    def of(x: Scalar, reduced: _Reduced) -> Scalar:
        return _signed(b, _wave(b, reduced, reduced.quadrant), reduced.quadrant, x)

    return _by_size(b, "sin", x, of, roughly=x.dtype is float32)


def cos(b: DoubleWord, x: Scalar) -> Scalar:
    """Cosine of a float32 or float64."""

    def of(x: Scalar, reduced: _Reduced) -> Scalar:
        quadrant = reduced.quadrant + 1
        return _signed(b, _wave(b, reduced, quadrant), quadrant, None)

    return _by_size(b, "cos", x, of, roughly=x.dtype is float32)


def tan(b: DoubleWord, x: Scalar) -> Scalar:
    """Tangent of a float32 or float64: sin(r) / cos(r), or -cos(r) / sin(r) in odd quadrants.

    Both in two words; one Newton step corrects the quotient.
    """

    def of(x: Scalar, reduced: _Reduced) -> Scalar:
        return _quotient(b, x, reduced)

    return _by_size(b, "tan", x, of)


def _by_size(
    b: DoubleWord,
    name: str,
    x: Scalar,
    function: Callable[[Scalar, _Reduced], Scalar],
    roughly: bool = False,
) -> Scalar:
    """A function of x and its reduced argument, by a detour for large x."""
    far = reg("x", x.dtype)
    formula = Formula(f"{name}_far", (far,), function(far, _reduce(b, b.abs(far))))
    size = b.abs(x)
    near = function(x, _reduce_near(b, size, roughly))
    return formula.where(size >= _NEAR, near, x)


def _reduce_near(b: DoubleWord, size: Scalar, roughly: bool) -> _Reduced:
    """For size up to `_NEAR`.

    Adding 1.5 * 2**23 (2**52) rounds size * 2/pi to an integer n and leaves it in the low bits.
    n times the first part of pi/2 is a multiple of the last place of 1, and so is size, from pi/4
    on: their difference, below 1, is exact.  So is the error of the next one even where the second
    part is larger: then both are multiples of the last place of that.  `roughly` leaves it out.
    """
    f, parts = FORMATS[size.dtype], _PARTS[size.dtype]
    magic = 1.5 * 2.0**f.fraction_bits
    shifted = b.fma(size, 1.0 / _HALF_PI[0], magic)
    n = shifted - magic
    first = b.fma(n, -parts[0], size)
    quadrant = b.bitcast(shifted, f.integer)
    if roughly:
        return _Reduced(quadrant, b.fma(n, -parts[1], first), n * -parts[2])
    product, product_low = b.two_product(n, parts[1])
    r, r_low = b.fast_two_sum(first, -product)
    return _Reduced(quadrant, r, b.fma(n, -parts[2], r_low - product_low))


def _quotient(b: DoubleWord, x: Scalar, reduced: _Reduced) -> Scalar:
    """The tangent from the reduced argument of |x|."""
    sine = b.fast_two_sum(*_sine(b, reduced))
    cosine = b.fast_two_sum(*_cosine(b, reduced))
    odd = b.ne(reduced.quadrant & 1, 0)
    top, top_low = (b.select(odd, c, s) for s, c in zip(sine, cosine, strict=True))
    bottom, bottom_low = (b.select(odd, s, c) for s, c in zip(sine, cosine, strict=True))
    inverse = 1.0 / bottom
    q = top * inverse
    rest = b.fma(-q, bottom, top) + b.fma(-q, bottom_low, top_low)
    return _signed(b, b.fma(rest, inverse, q), reduced.quadrant << 1, x)


def eighth(b: Builder, r: Scalar) -> tuple[Scalar, Scalar]:
    """(sin(r), cos(r)) for |r| <= pi/4.  Error: at most 1 ulp."""
    reduced = _Reduced(r, r, b.const(0.0, r.dtype))
    (sine, sine_low), (cosine, cosine_low) = _sine(b, reduced), _cosine(b, reduced)
    return sine + sine_low, cosine + cosine_low


def half_turns(b: Builder, x: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """(sine, cosine, odd) of pi r where x = q / 2 + r, q an integer, |r| <= 1/4; whether q is odd.

    The tangent of pi x is sine / cosine, or -cosine / sine if q is odd; the sine of pi x has the
    size of sine, or of cosine if q is odd.
    """
    count = b.rint(x + x)
    r = b.fma(count, -0.5, x)
    high, low = (2.0 * v for v in _HALF_PI)
    angle = r * high
    reduced = _Reduced(count, angle, b.fma(r, low, b.fma(r, high, -angle)))
    half = count * 0.5
    (sine, sine_low), (cosine, cosine_low) = _sine(b, reduced), _cosine(b, reduced)
    return sine + sine_low, cosine + cosine_low, b.ne(half, b.floor(half))


def _signed(b: Builder, y: Scalar, quadrant: Scalar, x: Scalar | None) -> Scalar:
    """y with its sign changed in quadrants 2 and 3, and if x is negative."""
    top = y.dtype.bits - 1
    sign = quadrant << (top - 1)
    if x is not None:
        sign = sign ^ b.bitcast(x, quadrant.dtype)
    bits = b.bitcast(y, quadrant.dtype) ^ (sign & (1 << top))
    return b.bitcast(bits, y.dtype)


def _wave(b: Builder, reduced: _Reduced, quadrant: Scalar) -> Scalar:
    """sin(r) in even quadrants, cos(r) in odd ones."""
    sine, sine_low = _sine(b, reduced)
    if reduced.r.dtype is float32:
        z = reduced.r * reduced.r
        cosine = b.poly(z, *_POLYNOMIALS[float32][1], -0.5, 1.0)  # r_low is below the error
    else:
        cosine, cosine_low = _cosine(b, reduced)
        cosine = cosine + cosine_low
    return b.select(b.eq(quadrant & 1, 0), sine + sine_low, cosine)


def _sine(b: Builder, reduced: _Reduced) -> tuple[Scalar, Scalar]:
    """sin(r) as a sum, the larger part first."""
    r, z = reduced.r, reduced.r * reduced.r
    return r, b.fma(r * z, b.poly(z, *_POLYNOMIALS[r.dtype][0]), reduced.r_low)


def _cosine(b: Builder, reduced: _Reduced) -> tuple[Scalar, Scalar]:
    """cos(r) as a sum, the larger part first."""
    r, z = reduced.r, reduced.r * reduced.r
    half = z * 0.5
    most = 1.0 - half
    rest = b.fma(z * z, b.poly(z, *_POLYNOMIALS[r.dtype][1]), -(r * reduced.r_low))
    return most, ((1.0 - most) - half) + rest


def _reduce(b: Builder, size: Scalar) -> _Reduced:
    return _reduce32(b, size) if size.dtype is float32 else _reduce64(b, size)


def _reduce32(b: Builder, size: Scalar) -> _Reduced:
    """size * 2/pi modulo 4 in float64; what of 2/pi makes a multiple of 4 is left out.

    Adding 1.5 * 2**52 rounds to an integer and leaves it in the low bits.  The product with the
    second part, up to 1/8, is not rounded with it, so |r| may exceed pi/4.
    """
    x = b.cast(size, float64)
    first, second = (b.const(part, float64) for part in _parts(0))
    for block in range(1, 4):
        far = size >= 2.0 ** (24 + _BLOCK * block)
        first, second = (
            b.select(far, new, old) for new, old in zip(_parts(block), (first, second), strict=True)
        )
    magic = 1.5 * 2.0**52
    shifted = b.fma(x, first, magic)
    fraction = b.fma(x, second, b.fma(x, first, -(shifted - magic)))
    exact = fraction * _HALF_PI[0]
    r = b.cast(exact, float32)
    r_low = b.cast(exact - b.cast(r, float64), float32)
    return _Reduced(b.cast(b.bitcast(shifted, int64), int32), r, r_low)


def _reduce64(b: Builder, size: Scalar) -> _Reduced:
    """size * 2/pi modulo 4 in units of 2**-126, from 53 bits times a window of 192."""
    bits = b.bitcast(size, uint64)
    significand = (bits & (2**52 - 1)) | 2**52
    exponent = bits >> 52
    start = b.select(exponent < 949, 949, exponent) - 949
    top, middle, last = _shifted(b, _window64(b, start >> 6), start & 63)
    high, low = _wide_product(significand, middle)
    carried, _ = _wide_product(significand, last)
    low = low + carried
    high = high + significand * top + b.select(low < carried, b.const(1, uint64), 0)
    quadrant, fraction = _split(b, high)
    # two parts that are exact in float64; the second is below 2**10
    first = b.cast(fraction & -1024, float64)
    second = b.fma(b.cast(low, float64), 2.0**-64, b.cast(fraction & 1023, float64))
    whole = first + second
    error = second - (whole - first)
    unit = _HALF_PI[0] * 2.0**-62
    r = b.fma(whole, unit, size - size)  # NaN for infinity
    r_low = b.fma(whole, unit, -r) + b.fma(whole, _HALF_PI[1] * 2.0**-62, error * unit)
    return _Reduced(quadrant, r, r_low)


def _window64(b: Builder, place: Scalar) -> list[Scalar]:
    """Four consecutive words of 2/pi, from word `place` - 1 on: a shift by 16, 8, 4, 2, 1 words."""
    words = [b.const(_word(64 * k), uint64) for k in range(-1, 20)]
    far = b.ne(place & 16, 0)  # then place is 16 or 17: the first five words will do
    words[:5] = [b.select(far, words[k + 16], words[k]) for k in range(5)]
    for step, needed in ((8, 11), (4, 7), (2, 5), (1, 4)):
        far = b.ne(place & step, 0)
        words = [b.select(far, words[k + step], words[k]) for k in range(needed)]
    return words


def _shifted(b: Builder, words: Sequence[Scalar], count: Scalar) -> list[Scalar]:
    """A long number, highest word first, shifted left by less than a word.

    Of the last word only the bits that leave it are used, if there are more than two.
    """
    rest = 63 - count
    out = [(high << count) | ((low >> 1) >> rest) for high, low in pairwise(words)]
    return out if len(words) > 2 else [*out, words[-1] << count]


def _split(b: Builder, product: Scalar) -> tuple[Scalar, Scalar]:
    """The nearest multiple of 2**62 as a number from 0 to 3, and the signed difference."""
    quadrant = (product + 2**61) >> 62
    return quadrant, b.bitcast(product - (quadrant << 62), int64)


def _wide_product(x: Scalar, y: Scalar) -> tuple[Scalar, Scalar]:
    """High and low 64 bits of x * y for uint64, x below 2**63."""
    x_high, x_low, y_high, y_low = x >> 32, x & _LOW, y >> 32, y & _LOW
    cross = x_low * y_high
    middle = ((x_low * y_low) >> 32) + (cross & _LOW) + x_high * y_low
    return x_high * y_high + (cross >> 32) + (middle >> 32), x * y
