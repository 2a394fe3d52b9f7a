"""The logarithm of the gamma function and its derivatives as formulas; see `mathlib`.

The formulas are in float64 for both dtypes, with fewer terms for float32: near its zeros a result
is then still good to the last bits of a float32.  The polynomials and their errors come from
tests/references/fit_special.py.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from dualgrad.compiler.build import trigonometry
from dualgrad.compiler.build.formats import INF, NAN
from dualgrad.compiler.build.logarithm import Logarithm
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.runtime.dtype import float32, float64
from dualgrad.runtime.lazy import LazyModule
from dualgrad.runtime.records import dataclass

if TYPE_CHECKING:
    import fractions
else:  # as long to import as ten modules of the compiler, and hardly ever needed
    fractions = LazyModule("fractions")

_LOG_PI = 1.1447298858494002
_STIRLING = 0.41893853320467274  # (log(2 pi) - 1) / 2
_SPLIT = 7  # log(gamma(1 + a)) is a product's logarithm below, Stirling's formula from here on


@dataclass(frozen=True)
class _Terms:
    """Polynomials, highest power first, and what `polygamma` sums."""

    lgamma: tuple[float, ...]  # log(gamma(1 + f)) / (f (f - 1)) in f - 1/2 on [0, 1]
    stirling: tuple[float, ...]  # the series of Stirling's formula times x in 1 / x**2
    digamma: tuple[float, ...]  # see digamma
    shift: int  # terms of the sum before the series
    series: int  # terms of the series


_TERMS = {
    float32: _Terms(
        lgamma=(
            -0.000592586298916016,
            0.0009585749006286443,
            -0.0011180305274334009,
            0.0018491469930186368,
            -0.0032183012487860254,
            0.0054562937634136,
            -0.009425247629373286,
            0.01679651358203828,
            -0.031308495814314594,
            0.06291141370734334,
            -0.14595989588157218,
            0.48312895049702237,
        ),
        stirling=(
            0.0007800459236137269,
            -0.0027776987206170316,
            0.08333333326498232,
        ),
        digamma=(
            0.00934430439090285,
            -0.025748517662946044,
            0.028256556702145143,
            -0.012395767759527823,
            -0.004409334296758842,
            0.010252275777808097,
            -0.006407179953936716,
            7.890955788049298e-05,
            0.0036996846418417186,
            -0.004366476007850157,
            -0.0016136001197438294,
            -0.00012495166209318048,
            -0.0073967624816028334,
            -0.0018831089678498386,
            0.025027037673209348,
            0.05357396198623951,
            0.06378733552625566,
            0.054656318440434205,
        ),
        shift=5,
        series=5,
    ),
    float64: _Terms(
        lgamma=(
            1.096326787907266e-05,
            -1.8524589957611742e-05,
            1.4711243310369128e-05,
            -2.149181254242388e-05,
            4.218174324541173e-05,
            -6.793509432828842e-05,
            0.00010561722798226374,
            -0.00016857246847309365,
            0.00027126406030324044,
            -0.0004380350385268914,
            0.0007115249966253987,
            -0.0011644113910561824,
            0.0019229158707757211,
            -0.0032120742196612103,
            0.005446457858847995,
            -0.009425622444866466,
            0.01679709863079318,
            -0.03130848750105256,
            0.06291140107456973,
            -0.14595989591430594,
            0.4831289505409809,
        ),
        stirling=(
            -0.0016533361193635388,
            0.0008373138644785626,
            -0.0005952030468971802,
            0.0007936506678291204,
            -0.002777777777613502,
            0.0833333333333333,
        ),
        digamma=(
            -0.058704310240507054,
            0.16896002972988108,
            -0.19901004394454194,
            0.10744048657858368,
            0.0016160584980831336,
            -0.046767901829052716,
            0.037164351485126264,
            -0.011959293952987967,
            -0.005467615213022265,
            0.010391120740634096,
            -0.006353431180167217,
            6.602564550762944e-05,
            0.0036984330427725235,
            -0.004365978924192171,
            -0.0016135913411074983,
            -0.00012496131024592797,
            -0.007396762369508491,
            -0.0018831088774852035,
            0.025027037671557454,
            0.053573961985914395,
            0.06378733552625962,
            0.0546563184404344,
        ),
        shift=10,
        series=10,
    ),
}


class GammaFunctions(Logarithm):
    """The builder with the gamma function's logarithm and the derivatives of that."""

    def lgamma(self, x: Scalar) -> Scalar:
        """log |gamma(x)|, infinite at the poles 0, -1, -2, ....

        Error: at most 5 ulp (float64), 1 ulp (float32) for x > 0.  For x < 0, where there are
        zeros between poles, ulp of the largest of 1, the result and lgamma(1 - x).

        For x >= 1 the logarithm of gamma(1 + a) with a = x - 1.  For a < 7: f = a - floor(a),
        log(a (a - 1) ... (f + 1)) plus a polynomial times f (f - 1), which has the zeros of the
        function.  Else Stirling's formula.  For 0 <= x < 1, log(gamma(1 + x)) - log(x); for
        x < 0, log(pi / |sin(pi x)|) - log(gamma(1 - x)).
        """
        dtype, terms = x.dtype, _TERMS[x.dtype]
        x = self.cast(x, float64)
        size = self.abs(x)
        large = x >= 1.0
        a = self.select(large, x - 1.0, size)
        near = a < float(_SPLIT)
        floor = self.floor(a)
        f = a - floor
        product = self.const(1.0, float64)
        for k in range(_SPLIT - 1):
            product = product * self.select(floor > float(k), a - float(k), 1.0)
        fraction = self.poly(f - 0.5, *terms.lgamma)
        y = self.select(large, x, size + 1.0)
        log = self.log(self.select(near, product, y))
        w = 1.0 / y
        series = self.fma(w, self.poly(w * w, *terms.stirling), _STIRLING)
        value = self.select(
            near, self.fma(f * (f - 1.0), fraction, log), self.fma(y - 0.5, log - 1.0, series)
        )
        sine, cosine, odd = trigonometry.half_turns(self, x)
        negative = x < 0.0
        log = self.log(self.select(negative, self.abs(self.select(odd, cosine, sine)), x))
        small = self.select(negative, (_LOG_PI - log) - value, value - log)
        result = self.select(large, value, small)
        return self.cast(self.select(self.eq(size, INF), INF, result), dtype)

    def digamma(self, x: Scalar) -> Scalar:
        """The derivative of log(gamma(x)); NaN at the poles -1, -2, ..., infinite at 0.

        Error: at most 3 ulp (float64), 1 ulp (float32) for x > 0, or 2**-56 next to the zero at
        1.46.  For x < 0, where there are zeros between poles, ulp of the larger of digamma(1 - x)
        and pi / tan(pi x).

        log(u - 1/2 + g(u)) for u >= 1, where the correction g is a polynomial in v = 1 / (u + 1/2)
        times v: near the zero at 1.46 the logarithm's argument is near 1 and known exactly.  For
        0 <= x < 1, the value at 1 + x minus 1/x; for x < 0, that at 1 - x minus pi / tan(pi x).
        """
        dtype, terms = x.dtype, _TERMS[x.dtype]
        x = self.cast(x, float64)
        size = self.abs(x)
        large = x >= 1.0
        v = 1.0 / self.select(large, x + 0.5, size + 1.5)
        rest = self.select(large, x - 1.5, size - 0.5)  # u - 3/2
        value = self.log1p(self.fma(v, self.poly(v - 0.25, *terms.digamma), rest))
        cotangent, pole = self._cotangent(x)
        negative = x < 0.0
        value = value - self.select(negative, cotangent * math.pi, self.select(large, 0.0, 1.0 / x))
        return self.cast(self.select(negative & pole, NAN, value), dtype)

    def trigamma(self, x: Scalar) -> Scalar:
        """The second derivative of log(gamma(x)); infinite at 0, -1, -2, ....

        Error: at most 3 ulp (float64), 1 ulp (float32) for x > 0; see `polygamma` for x < 0.
        """
        return self.polygamma(1, x)

    def polygamma(self, n: int, x: Scalar) -> Scalar:
        """The derivative of order n >= 1 of digamma.

        Error: at most 4 n + 2 ulp (float64), 1 ulp (float32) for n <= 4.  For x < 0 and even n,
        where there are zeros between poles, ulp of the larger of the result and
        polygamma(n, 1 - x).  At -1, -2, ... it is infinite for odd n, NaN for even n.

        (-1)**(n + 1) n! times the sum of (x + k)**-(n + 1) over k >= 0: some terms are added, the
        rest is Euler and Maclaurin's series.  For x < 0 the derivative of order n of
        -pi / tan(pi x), a polynomial in 1 / tan(pi x), minus n! times the sum at 1 - x.
        """
        dtype, terms = x.dtype, _TERMS[x.dtype]
        x = self.cast(x, float64)
        negative = x < 0.0
        y = self.select(negative, 1.0 - x, x)
        total = self._zeta(n + 1, y, terms) * float(math.factorial(n))
        cotangent, pole = self._cotangent(x)
        slope = self.poly(cotangent * cotangent, *_cotangent_slope(n))
        if n % 2:
            slope, value = self.select(pole, INF, slope), total
        else:
            slope, value = self.select(pole, NAN, slope * cotangent), -total
        return self.cast(self.select(negative, slope - total, value), dtype)

    def _zeta(self, s: int, y: Scalar, terms: _Terms) -> Scalar:
        """The sum of (y + k)**-s over k >= 0 for y >= 0 (Hurwitz's zeta function), s >= 2."""
        shift = terms.shift + s
        inverse = 1.0 / (y + float(shift))
        series = self.poly(inverse * inverse, *_maclaurin(s, terms.series))
        head = self.fma(inverse, self.fma(inverse, series, 0.5), 1.0 / (s - 1))
        rest = self._power(1.0 / (y + float(shift - 1)), s)
        for k in range(shift - 2, 0, -1):
            rest = rest + self._power(1.0 / (y + float(k)), s)
        return self._power(1.0 / y, s) + (head * self._power(inverse, s - 1) + rest)

    def _power(self, x: Scalar, n: int) -> Scalar:
        """x**n for n >= 1 by squaring."""
        if n == 1:
            return x
        root = self._power(x, n // 2)
        return root * root * x if n % 2 else root * root

    def _cotangent(self, x: Scalar) -> tuple[Scalar, Scalar]:
        """(1 / tan(pi x), whether x is an integer)."""
        sine, cosine, odd = trigonometry.half_turns(self, x)
        bottom = self.select(odd, cosine, sine)
        return self.select(odd, -sine, cosine) / bottom, self.eq(bottom, 0.0)


def _bernoulli(count: int) -> list[fractions.Fraction]:
    """B(0) to B(count), by their recurrence."""
    numbers = [fractions.Fraction(1)]
    for m in range(1, count + 1):
        total = sum((math.comb(m + 1, k) * b for k, b in enumerate(numbers)), fractions.Fraction(0))
        numbers.append(-total / (m + 1))
    return numbers


def _maclaurin(s: int, count: int) -> tuple[float, ...]:
    """B(2k) s (s + 1) ... (s + 2k - 2) / (2k)! for k = count, ..., 1."""
    numbers = _bernoulli(2 * count)
    return tuple(
        float(numbers[2 * k] * math.prod(range(s, s + 2 * k - 1)) / math.factorial(2 * k))
        for k in range(count, 0, -1)
    )


def _cotangent_slope(n: int) -> tuple[float, ...]:
    """The derivative of order n of -pi / tan(pi x) as a polynomial in c = 1 / tan(pi x).

    In c**2, the highest power first, after division by c for even n.  The derivative of c is
    -pi (1 + c**2).
    """
    powers = [0, -1]  # coefficients of 1, c, c**2, ..., without the powers of pi
    for _ in range(n):
        slope = [k * p for k, p in enumerate(powers)][1:]
        powers = [-(a + b) for a, b in zip([*slope, 0, 0], [0, 0, *slope], strict=True)]
    return tuple(p * math.pi ** (n + 1) for p in powers[(n + 1) % 2 :: 2][::-1])
