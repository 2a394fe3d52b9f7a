"""Elementary functions as formulas: exp, expm1, log, log1p, tanh, sigmoid, sin, cos.

Each is a scalar expression without branches, for a float32 or float64 argument: the argument is
reduced, a polynomial is evaluated, special cases are selected.  NaN gives NaN, the results for
infinities, zeros and arguments outside of the domain are those of IEEE 754-2019, section 9.2.1;
small arguments and results below the normal range are right as well.

The polynomials and their errors come from tests/references/fit_mathlib.py.  The bounds stated
here are asserted by tests/compiler/test_mathlib.py on random and special arguments.
"""

from __future__ import annotations

from dataclasses import dataclass

from dualgrad.compiler.build import trigonometry
from dualgrad.compiler.build.error_functions import ErrorFunctions
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.runtime.dtype import DType, float32, float64, int32, int64

INF = float("inf")
NAN = float("nan")


@dataclass(frozen=True)
class _Format:
    """Constants of one float format, and the polynomials fitted for it, highest power first."""

    integer: DType  # of the same width
    fraction_bits: int
    bias: int
    smallest_normal: float
    ln2: tuple[float, float]  # the first with zeros at its end: times any exponent it is exact
    overflow: float  # exp is infinite from here on
    underflow: float  # exp is zero up to here
    minus_one: float  # expm1 is -1 up to here
    mantissa_low: int  # bits of the low end of the interval of mantissas for log
    exp: tuple[float, ...]  # (exp(x) - 1 - x) / x**2 on |x| <= ln(2)/2
    log: tuple[float, ...]  # see log
    tanh: tuple[float, ...]  # (tanh(x)/x - 1) / x**2 in x**2 on |x| <= 0.6


_FORMATS = {
    float32: _Format(
        integer=int32,
        fraction_bits=23,
        bias=127,
        smallest_normal=2.0**-126,
        ln2=(0.69314575, 1.4286068e-06),
        overflow=89.0,
        underflow=-104.0,
        minus_one=-18.0,
        mantissa_low=0x3F2AAAAB,  # 2/3
        exp=(0.0013935775, 0.008369243, 0.041666456, 0.16666515, 0.5),
        log=(
            -0.12647147,
            0.14008816,
            -0.122408405,
            0.14000104,
            -0.16676389,
            0.20010835,
            -0.24999888,
            0.33333206,
        ),
        tanh=(-0.005899897, 0.020800143, -0.053785097, 0.1333194, -0.333333),
    ),
    float64: _Format(
        integer=int64,
        fraction_bits=52,
        bias=1023,
        smallest_normal=2.0**-1022,
        ln2=(0.6931471805601177, -1.7239444525614835e-13),
        overflow=710.0,
        underflow=-746.0,
        minus_one=-40.0,
        mantissa_low=0x3FE6A09E667F3BCD,  # sqrt(1/2)
        exp=(
            2.5112716818963076e-08,
            2.7631608497480306e-07,
            2.7557232721531858e-06,
            2.48014889797183e-05,
            0.00019841269898777635,
            0.0013888888948007572,
            0.008333333333315925,
            0.041666666666511254,
            0.16666666666666685,
            0.5000000000000013,
        ),
        log=(
            0.1479736350587642,
            0.15313895728652202,
            0.18183571057432849,
            0.22222198426151224,
            0.28571428744061894,
            0.39999999999405483,
            0.6666666666666736,
        ),
        tanh=(
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
        ),
    ),
}


class Math(ErrorFunctions):
    """The builder with elementary functions."""

    def sin(self, x: Scalar) -> Scalar:
        """Sine, for finite arguments of any size.  Error: at most 1 ulp."""
        return trigonometry.sin(self, x)

    def cos(self, x: Scalar) -> Scalar:
        """Cosine, for finite arguments of any size.  Error: at most 1 ulp."""
        return trigonometry.cos(self, x)

    # -- exponentials ------------------------------------------------------------------------

    def exp(self, x: Scalar) -> Scalar:
        """e**x.  Error: at most 1 ulp.

        x = n ln(2) + r with |r| <= ln(2)/2; the result is 2**n * exp(r).
        """
        f = _FORMATS[x.dtype]
        x = self._clamp(x, f.underflow, f.overflow)
        _, count, r, _ = self._reduce_exp(x, f)
        return self._scale(self.poly(r, *f.exp, 1.0, 1.0), count, f)

    def exp_to_normal(self, x: Scalar) -> Scalar:
        """e**x where that is a normal number; else anything.  Error: at most 1 ulp."""
        f = _FORMATS[x.dtype]
        _, count, r, _ = self._reduce_exp(x, f)
        one = f.bias << f.fraction_bits
        power = self.bitcast((count << f.fraction_bits) + one, x.dtype)
        return self.poly(r, *f.exp, 1.0, 1.0) * power

    def expm1(self, x: Scalar) -> Scalar:
        """e**x - 1.  Error: at most 1.5 ulp.

        With x = n ln(2) + r and p = exp(r) - 1 = r + tail: 2**n * p + (2**n - 1), halved on the
        way so that n = 128 (1024) does not overflow.
        """
        f = _FORMATS[x.dtype]
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

        A polynomial for |x| < 0.6, else 1 - 2 / (e**(2 |x|) + 1).
        """
        f = _FORMATS[x.dtype]
        size, z = self.abs(x), x * x
        near = self.fma(self.poly(z, *f.tanh) * z, x, x)
        far = 1.0 - 2.0 / (self.exp(size + size) + 1.0)
        return self.copysign(self.select(size < 0.6, near, far), x)

    def _clamp(self, x: Scalar, low: float, high: float) -> Scalar:
        """x between low and high; NaN stays."""
        x = self.select(x > high, high, x)
        return self.select(x < low, low, x)

    def _reduce_exp(self, x: Scalar, f: _Format) -> tuple[Scalar, Scalar, Scalar, Scalar]:
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

    def _scale(self, y: Scalar, count: Scalar, f: _Format) -> Scalar:
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

    # -- logarithms --------------------------------------------------------------------------

    def log(self, x: Scalar) -> Scalar:
        """Natural logarithm.  Error: at most 1 ulp.

        x = 2**n * (1 + m) with 1 + m in [2/3, 4/3) or [sqrt(1/2), sqrt(2)).
        """
        f = _FORMATS[x.dtype]
        small = x < f.smallest_normal
        normal = self.select(small, x * 2.0**f.fraction_bits, x)
        shift = self.select(small, x._coerce(-f.fraction_bits), 0.0)
        n, m = self._split_log(normal, f)
        n = n + shift
        result = self._log1p(n, m, None, f)
        result = self.select(x < INF, result, x + x)
        result = self.select(x < 0.0, NAN, result)
        return self.select(self.eq(x, 0.0), -INF, result)

    def log1p(self, x: Scalar) -> Scalar:
        """log(1 + x).  Error: at most 1.5 ulp.

        The logarithm of u = 1 + x rounded, and the rounding error of u, which is exact (Knuth),
        over u.  Where u needs no scaling, m = x itself.
        """
        f = _FORMATS[x.dtype]
        u = x + 1.0
        part = u - x
        error = (1.0 - part) + (x - (u - part))
        n, m = self._split_log(u, f)
        plain = self.eq(n, 0.0)
        m = self.select(plain, x, m)
        error = self.select(plain, 0.0, error / u)
        result = self._log1p(n, m, error, f)
        result = self.select(u < INF, result, x)
        result = self.select(x < -1.0, NAN, result)
        result = self.select(self.eq(x, -1.0), -INF, result)
        return self.select(self.eq(x, 0.0), x, result)

    def _split_log(self, x: Scalar, f: _Format) -> tuple[Scalar, Scalar]:
        """(n, m) with x = 2**n * (1 + m), x positive and normal; m is exact."""
        bits = self.bitcast(x, f.integer)
        exponent = (bits - f.mantissa_low) & -(1 << f.fraction_bits)
        m = self.bitcast(bits - exponent, x.dtype) - 1.0
        return self.cast(exponent >> f.fraction_bits, x.dtype), m

    def _log1p(self, n: Scalar, m: Scalar, extra: Scalar | None, f: _Format) -> Scalar:
        """n ln(2) + log(1 + m) + extra."""
        square = m * m
        if f.integer is int32:
            # log(1 + m) = m - m**2 / 2 + m**3 * polynomial
            log = self.fma(self.poly(m, *f.log, -0.5), square, m)
            return self.fma(n, f.ln2[0] + f.ln2[1], log if extra is None else log + extra)
        # with s = m / (2 + m): log(1 + m) = m - m**2/2 + s * (m**2/2 + s**2 * polynomial),
        # summed from small to large (K. C. Ng, 1986, as FDLIBM's e_log.c explains it)
        s = m / (m + 2.0)
        z, half = s * s, square * 0.5
        low = n * f.ln2[1] if extra is None else self.fma(n, f.ln2[1], extra)
        tail = self.fma(s, self.fma(z, self.poly(z, *f.log), half), low)
        return self.fma(n, f.ln2[0], m - (half - tail))
