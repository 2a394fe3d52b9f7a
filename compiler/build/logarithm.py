"""Logarithms and inverse hyperbolic functions as formulas; see `mathlib`."""

from __future__ import annotations

from dualgrad.compiler.build.doubleword import DoubleWord
from dualgrad.compiler.build.formats import FORMATS, INF, NAN, Format
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.runtime.dtype import int32


class Logarithm(DoubleWord):
    """The builder with logarithms."""

    def log(self, x: Scalar) -> Scalar:
        """Natural logarithm.  Error: at most 1 ulp.

        x = 2**n * (1 + m) with 1 + m in [2/3, 4/3) or [sqrt(1/2), sqrt(2)).
        """
        f = FORMATS[x.dtype]
        n, m = self._split_any(x, f)
        return self._log_domain(x, self._log1p(n, m, None, f))

    def log2(self, x: Scalar) -> Scalar:
        """Logarithm to base 2, exact for powers of 2.  Error: at most 1.5 ulp."""
        return self._log_to_base(x, FORMATS[x.dtype].log2_e, (1.0, 0.0))

    def log10(self, x: Scalar) -> Scalar:
        """Logarithm to base 10, exact for powers of 10.  Error: at most 1.5 ulp."""
        f = FORMATS[x.dtype]
        return self._log_to_base(x, f.log10_e, f.log10_2)

    def _log_to_base(
        self, x: Scalar, log_e: tuple[float, float], log_2: tuple[float, float]
    ) -> Scalar:
        """n log(2) + m log(e) + tail log(e) for logarithms to some base, from large to small."""
        f = FORMATS[x.dtype]
        n, m = self._split_any(x, f)
        first = n * log_2[0]
        high = self.fma(m, log_e[0], first)
        error = self.fma(m, log_e[0], first - high)
        rest = self.fma(self._log_tail(m, f), log_e[0], self.fma(m, log_e[1], n * log_2[1]))
        return self._log_domain(x, high + (error + rest))

    def log1p(self, x: Scalar) -> Scalar:
        """log(1 + x).  Error: at most 1.5 ulp."""
        result = self._log1p_wide(x, None)
        result = self.select(x < -1.0, NAN, result)
        result = self.select(self.eq(x, -1.0), -INF, result)
        return self.select(self.eq(x, 0.0), x, result)

    def asinh(self, x: Scalar) -> Scalar:
        """Inverse hyperbolic sine.  Error: at most 1.5 ulp.

        log1p(|x| + x**2 / (1 + sqrt(1 + x**2))), the argument in two words.
        """
        size = self.abs(x)
        square, square_low = self.two_product(size, size)
        inner, inner_low = self.two_sum(square, 1.0)
        root, root_low = self.wide_sqrt(inner, inner_low + square_low)
        divisor, divisor_low = self.two_sum(root, 1.0)
        q = square / divisor
        rest = self.fma(-q, divisor, square) + square_low - q * (divisor_low + root_low)
        u, u_low = self.fast_two_sum(size, q)
        return self.copysign(self._log_doubled(size, u, u_low + rest / divisor), x)

    def acosh(self, x: Scalar) -> Scalar:
        """Inverse hyperbolic cosine, NaN below 1.  Error: at most 1.5 ulp.

        log1p(t + sqrt(t * (t + 2))) with t = x - 1, the argument in two words.
        """
        t = x - 1.0
        other, other_low = self.two_sum(t, 2.0)
        square, square_low = self.two_product(t, other)
        root, root_low = self.wide_sqrt(square, self.fma(t, other_low, square_low))
        u, u_low = self.fast_two_sum(root, t)
        result = self._log_doubled(x, u, u_low + root_low)
        return self.select(x < 1.0, NAN, result)

    def atanh(self, x: Scalar) -> Scalar:
        """Inverse hyperbolic tangent, NaN beyond 1.  Error: at most 1.5 ulp.

        log1p(2 |x| / (1 - |x|)) / 2, the argument in two words.
        """
        size = self.abs(x)
        divisor = 1.0 - size
        divisor_low = (1.0 - divisor) - size
        top = size + size
        q = top / divisor
        rest = (self.fma(-q, divisor, top) - q * divisor_low) / divisor
        result = self._log1p_wide(q, self.select(self.eq(divisor, 0.0), 0.0, rest)) * 0.5
        return self.copysign(self.select(size > 1.0, NAN, result), x)

    def _log_doubled(self, x: Scalar, u: Scalar, u_low: Scalar) -> Scalar:
        """log1p(u + u_low), or log(2 x) where x is so large that its square may overflow."""
        f = FORMATS[x.dtype]
        big = x > 2.0 ** (f.fraction_bits + 6)
        u, u_low = self.select(big, x, u), self.select(big, 0.0, u_low)
        return self._log1p_wide(u, u_low, self.select(big, x._coerce(1.0), 0.0))

    def _log1p_wide(
        self, x: Scalar, x_low: Scalar | None, doublings: Scalar | None = None
    ) -> Scalar:
        """log(1 + x + x_low) + doublings * ln(2).

        The logarithm of u = 1 + x rounded, and the rounding error of u over u.
        Where u needs no scaling, m = x itself.
        """
        f = FORMATS[x.dtype]
        u, error = self.two_sum(x, 1.0)
        n, m = self._split_log(u, f)
        plain = self.eq(n, 0.0)
        m = self.select(plain, x, m)
        error = self.select(plain, 0.0, error)
        extra = (error if x_low is None else error + x_low) / u
        if doublings is not None:
            n = n + doublings
        return self.select(u < INF, self._log1p(n, m, extra, f), x)

    def _split_any(self, x: Scalar, f: Format) -> tuple[Scalar, Scalar]:
        """`_split_log` also for numbers below the normal range."""
        small = x < f.smallest_normal
        normal = self.select(small, x * 2.0**f.fraction_bits, x)
        shift = self.select(small, x._coerce(-f.fraction_bits), 0.0)
        n, m = self._split_log(normal, f)
        return n + shift, m

    def _log_domain(self, x: Scalar, result: Scalar) -> Scalar:
        """A logarithm with its values for infinity, zeros and negative numbers."""
        result = self.select(x < INF, result, x + x)
        result = self.select(x < 0.0, NAN, result)
        return self.select(self.eq(x, 0.0), -INF, result)

    def _split_log(self, x: Scalar, f: Format) -> tuple[Scalar, Scalar]:
        """(n, m) with x = 2**n * (1 + m), x positive and normal; m is exact."""
        bits = self.bitcast(x, f.integer)
        exponent = (bits - f.mantissa_low) & -(1 << f.fraction_bits)
        m = self.bitcast(bits - exponent, x.dtype) - 1.0
        return self.cast(exponent >> f.fraction_bits, x.dtype), m

    def _log1p(self, n: Scalar, m: Scalar, extra: Scalar | None, f: Format) -> Scalar:
        """n ln(2) + log(1 + m) + extra."""
        if f.integer is int32:
            log = self._log_tail(m, f, m) if extra is None else m + self._log_tail(m, f, extra)
            return self.fma(n, f.ln2[0] + f.ln2[1], log)
        low = n * f.ln2[1] if extra is None else self.fma(n, f.ln2[1], extra)
        return self.fma(n, f.ln2[0], m + self._log_tail(m, f, low))

    def _log_tail(self, m: Scalar, f: Format, extra: Scalar | None = None) -> Scalar:
        """log(1 + m) - m + extra."""
        square = m * m
        if f.integer is int32:
            # -m**2 / 2 + m**3 * polynomial
            polynomial = self.poly(m, *f.log, -0.5)
            return square * polynomial if extra is None else self.fma(polynomial, square, extra)
        # with s = m / (2 + m): -m**2/2 + s * (m**2/2 + s**2 * polynomial)
        # (K. C. Ng, 1986, as FDLIBM's e_log.c explains it)
        s = m / (m + 2.0)
        z, half = s * s, square * 0.5
        inner = self.fma(z, self.poly(z, *f.log), half)
        return (s * inner if extra is None else self.fma(s, inner, extra)) - half
