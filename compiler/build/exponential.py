"""Exponentials and hyperbolic functions as formulas; see `mathlib`."""

from __future__ import annotations

from dualgrad.compiler.build.doubleword import DoubleWord
from dualgrad.compiler.build.formats import FORMATS, Format
from dualgrad.compiler.build.tables import TANH, odd
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.runtime.dtype import float32

# (tanh(x)/x - 1) / x**2 in x**2 on |x| <= 0.6, for float64, highest power first
_TANH = (
    6.507044547518135e-06,
    -3.1186541348153956e-05,
    9.249704117904393e-05,
    -0.0002375170104077834,
    0.0005896237990033565,
    -0.0014557644810747593,
    0.003592119731423892,
    -0.008863234870132061,
    0.021869488502762716,
    -0.05396825396726518,
    0.13333333333331873,
    -0.33333333333333326,
)


class Exponential(DoubleWord):
    """The builder with exponentials."""

    def exp(self, x: Scalar) -> Scalar:
        """e**x.  Error: at most 1 ulp.

        x = n ln(2) + r with |r| <= ln(2)/2; the result is 2**n * exp(r).
        """
        f = FORMATS[x.dtype]
        gone, x = self._bounded(x, f.underflow, f.overflow)
        _, count, r, _ = self._reduce_exp(x, f)
        return self.select(gone, 0.0, self.scale(self.poly(r, *f.exp, 1.0, 1.0), count, f))

    def exp_to_normal(self, x: Scalar) -> Scalar:
        """e**x where that is a normal number; else anything.  Error: at most 1 ulp."""
        f = FORMATS[x.dtype]
        _, count, r, _ = self._reduce_exp(x, f)
        one = f.bias << f.fraction_bits
        power = self.bitcast((count << f.fraction_bits) + one, x.dtype)
        return self.poly(r, *f.exp, 1.0, 1.0) * power

    def exp_times(self, x: Scalar, x_low: Scalar, factor: Scalar) -> Scalar:
        """factor * e**(x + x_low), where x is between `underflow` and `overflow` if not NaN.

        For a factor near 1; the result is rounded only once where it is below the normal range.
        """
        f = FORMATS[x.dtype]
        _, count, r, r_low = self._reduce_exp(x, f)
        r = r + (r_low + x_low)
        power = self.poly(r, *f.exp, 1.0)
        return self.scale(self.fma(power * r, factor, factor), count, f)

    def exp2(self, x: Scalar) -> Scalar:
        """2**x.  Error: at most 1 ulp.

        x = n + r with |r| <= 1/2; the result is 2**n * exp(r ln(2)), and exact for integers.
        """
        f = FORMATS[x.dtype]
        gone, x = self._bounded(x, -float(f.bias + f.fraction_bits + 1), f.bias + 1.0)
        magic = 1.5 * 2.0**f.fraction_bits
        shifted = x + magic
        r = x - (shifted - magic)
        high = r * f.whole_ln2[0]
        low = self.fma(r, f.whole_ln2[1], self.fma(r, f.whole_ln2[0], -high))
        power = 1.0 + (high + self.fma(high * high, self.poly(high, *f.exp), low))
        return self.select(gone, 0.0, self.scale(power, self.bitcast(shifted, f.integer), f))

    def expm1(self, x: Scalar) -> Scalar:
        """e**x - 1.  Error: at most 1.5 ulp.

        With x = n ln(2) + r and p = exp(r) - 1 = r + tail: 2**n * p + (2**n - 1), halved on the
        way so that n = 128 (1024) does not overflow.
        """
        f = FORMATS[x.dtype]
        n, count, r, r_low = self._reduce_exp(self._clamp(x, f.minus_one, f.overflow), f)
        tail = (r * r) * self.poly(r, *f.exp)
        power = self.bitcast(
            (count << f.fraction_bits) + ((f.bias - 1) << f.fraction_bits), x.dtype
        )
        whole = self.fma(power, r, power - 0.5)
        scaled = self.fma(power, tail + r_low, whole) * 2.0
        return self.copysign(self.select(self.eq(n, 0.0), x + tail, scaled), x)

    def sigmoid(self, x: Scalar) -> Scalar:
        """1 / (1 + e**-x).  Error: at most 1.5 ulp.

        With z = e**-|x|, which cannot overflow: 1 / (1 + z), and z / (1 + z) for negative x.
        One Newton step corrects the quotient, also for the rounding error of 1 + z.
        """
        z = self.exp(-self.abs(x))
        top = self.select(x < 0.0, z, 1.0)
        d = z + 1.0
        d_low = z - (d - 1.0)
        inverse = 1.0 / d
        q = top * inverse
        rest = self.fma(-q, d_low, self.fma(-q, d, top))
        return self.fma(rest, inverse, q)

    def tanh(self, x: Scalar) -> Scalar:
        """Hyperbolic tangent.  Error: at most 1.5 ulp.

        Polynomials on segments for float32; for float64 one for |x| < 0.6, else
        1 - 2 / (e**(2 |x|) + 1).
        """
        if x.dtype is float32:
            return odd(self, x, TANH)
        f = FORMATS[x.dtype]
        size, z = self.abs(x), x * x
        near = self.fma(self.poly(z, *_TANH) * z, x, x)
        bounded = self.select(size > -f.minus_one, -f.minus_one, size)
        _, count, r, _ = self._reduce_exp(bounded + bounded, f)
        exponent = (count << f.fraction_bits) + (f.bias << f.fraction_bits)
        square = self.poly(r, *f.exp, 1.0, 1.0) * self.bitcast(exponent, x.dtype)
        far = 1.0 - 2.0 / (square + 1.0)
        return self.copysign(self.select(size < 0.6, near, far), x)

    def sinh(self, x: Scalar) -> Scalar:
        """Hyperbolic sine.  Error: at most 1.5 ulp.

        With |x| = n ln(2) + r, a = 2**n / 2 and b = 2**-n / 2:
        (a - b) cosh(r) + (a + b) sinh(r).
        """
        n, grows, falls, r, sine, cosine = self._hyperbolic(x)
        less, more = grows - falls, grows + falls
        far = self._joined(less, more, r, self.fma(less, cosine, more * sine))
        return self.copysign(self.select(self.eq(n, 0.0), r + sine, far), x)

    def cosh(self, x: Scalar) -> Scalar:
        """Hyperbolic cosine.  Error: at most 1.5 ulp.

        (a + b) cosh(r) + (a - b) sinh(r), see `sinh`.
        """
        _, grows, falls, r, sine, cosine = self._hyperbolic(x)
        less, (more, more_low) = grows - falls, self.fast_two_sum(grows, falls)
        return self._joined(more, less, r, self.fma(more, cosine, self.fma(less, sine, more_low)))

    def _hyperbolic(self, x: Scalar) -> tuple[Scalar, ...]:
        """(n, a / 2, b / 2, r, sinh(r) - r, cosh(r) - 1) of |x|, see `sinh`."""
        f = FORMATS[x.dtype]
        size = self.abs(x)
        size = self.select(size > f.hyperbolic_overflow, f.hyperbolic_overflow, size)
        n, count, r, r_low = self._reduce_exp(size, f)
        exponent = count << f.fraction_bits
        quarter = (f.bias - 2) << f.fraction_bits
        grows = self.bitcast(exponent + quarter, x.dtype)
        falls = self.bitcast(quarter - exponent, x.dtype)
        falls = self.select(n > 64.0, 0.0, falls)
        z = r * r
        sine = self.fma(r * z, self.poly(z, *f.sinh), r_low)
        return n, grows, falls, r, sine, z * self.poly(z, *f.cosh)

    def _joined(self, u: Scalar, v: Scalar, r: Scalar, tail: Scalar) -> Scalar:
        """2 * (u + v * r + tail), summed from large to small."""
        high = self.fma(v, r, u)
        low = self.fma(v, r, u - high)
        return 2.0 * (high + (low + tail))

    def _clamp(self, x: Scalar, low: float, high: float) -> Scalar:
        """x between low and high; NaN stays."""
        x = self.select(x > high, high, x)
        return self.select(x < low, low, x)

    def _bounded(self, x: Scalar, low: float, high: float) -> tuple[Scalar, Scalar]:
        """Whether x is below what has a power other than zero, and x up to high, 0 if it is; NaN
        stays.

        A power that underflows takes a processor a hundred times as long as another one, and where
        a mask hides scores all do.
        """
        x = self.select(x > high, high, x)
        gone = x < low
        return gone, self.select(gone, 0.0, x)

    def _reduce_exp(self, x: Scalar, f: Format) -> tuple[Scalar, Scalar, Scalar, Scalar]:
        """(n, n as an integer, r, error of r) with x = n ln(2) + r; NaN gives r = NaN.

        Adding 1.5 * 2**fraction_bits rounds to an integer and leaves it in the low bits.
        Cody and Waite's reduction: the product with the first part of ln(2) is exact.
        """
        magic = 1.5 * 2.0**f.fraction_bits
        shifted = self.fma(x, 1.4426950408889634, magic)
        n = shifted - magic
        count = self.bitcast(shifted, f.integer)
        first = self.fma(n, -f.ln2[0], x)
        r = self.fma(n, -f.ln2[1], first)
        return n, count, r, self.fma(n, -f.ln2[1], first - r)

    def scale(self, y: Scalar, count: Scalar, f: Format) -> Scalar:
        """y * 2**n, rounded once, for the count of `_reduce_exp`.

        By two powers of half the exponent: one alone would not reach the ends of the range, and
        the first product is exact.  Shifts drop the bits of the magic number.
        """
        one = f.bias << f.fraction_bits
        exponent = count << f.fraction_bits
        half = (count << (f.fraction_bits - 1)) & -(1 << f.fraction_bits)
        first = self.bitcast(half + one, y.dtype)
        second = self.bitcast(exponent - half + one, y.dtype)
        return y * first * second
