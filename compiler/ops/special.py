"""Special functions, element by element: the error function, gamma's logarithm, their relatives."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dualgrad.compiler.ir.value import Operand, apply, public
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.compiler.ops.elementwise import FloatFunction
from dualgrad.compiler.ops.precision import SINGLE
from dualgrad.compiler.ops.sample import Arg, Sample, unary
from dualgrad.runtime.errors import ArgumentError

if TYPE_CHECKING:
    from dualgrad.compiler.build.mathlib import Math

_SLOPE = 2 / math.sqrt(math.pi)  # of erf at 0
LARGEST_ORDER = 30  # of a polygamma function


class Erf(FloatFunction):
    """The error function; error bound: see `Math.erf`."""

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return b.erf(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g * ((-x * x).exp() * _SLOPE),)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(erf, _each(math.erf), low=-3, high=3, ulps=2)


class Erfc(FloatFunction):
    """1 - erf(x); error bound: see `Math.erfc`."""

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return b.erfc(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g * ((-x * x).exp() * -_SLOPE),)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(erfc, _each(math.erfc), low=-4, high=9, ulps=4)


class Erfinv(FloatFunction):
    """The inverse of erf; error bound: see `Math.erfinv`."""

    precision = SINGLE

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return b.erfinv(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g * ((out * out).exp() * (1 / _SLOPE)),)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(erfinv, _each(_inverse_of_erf), low=-0.95, high=0.95, ulps=3)


class Lgamma(FloatFunction):
    """log |gamma(x)|; error bound: see `Math.lgamma`."""

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return b.lgamma(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g * digamma(x),)

    @staticmethod
    def samples() -> list[Sample]:
        def reference(v: float) -> float:
            return math.inf if v in (-math.inf, -1, 0) else math.lgamma(v)

        return unary(lgamma, _each(reference), low=0.1, high=9, ulps=8)


class Digamma(FloatFunction):
    """The derivative of log(gamma(x)); error bound: see `Math.digamma`."""

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return b.digamma(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g * polygamma(1, x),)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(digamma, _each(_by_recurrence(0)), low=0.1, high=9, ulps=8)


class Polygamma(FloatFunction):
    """The derivative of order n >= 1 of digamma; error bound: see `Math.polygamma`."""

    n: int

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return b.polygamma(self.n, x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g * polygamma(self.n + 1, x),)

    @staticmethod
    def samples() -> list[Sample]:
        def trigamma(x: Any) -> Any:
            return polygamma(1, x)

        def second(x: Any) -> Any:
            return polygamma(2, x)

        return [
            *unary(trigamma, _each(_by_recurrence(1)), low=0.5, high=9, ulps=8),
            *unary(second, _each(_by_recurrence(2)), low=0.5, high=9, ulps=12, few=True),
            *(
                Sample(
                    polygamma,
                    (n, Arg((2,))),
                    error=ArgumentError,
                    match=rf"expect: an integer 0 <= n <= {LARGEST_ORDER}\n  actual: {n}",
                )
                for n in (-1, LARGEST_ORDER + 1, 1.5)
            ),
        ]


# -- references of samples, in Python's floats ----------------------------------------------------


def _each(function: Callable[[float], float]) -> Callable[..., Any]:
    """A function of one float as the reference of a sample."""

    def reference(np: Any, x: Any) -> Any:
        return np.vectorize(function, otypes="d")(x).astype(x.dtype)

    return reference


def _inverse_of_erf(x: float) -> float:
    """By Newton's method on the C library's erf."""
    if not -1 < x < 1:
        return x * math.inf if abs(x) == 1 else math.nan
    y = x / _SLOPE
    for _ in range(100):
        y -= (math.erf(y) - x) / (_SLOPE * math.exp(-y * y))
    return y


def _by_recurrence(n: int) -> Callable[[float], float]:
    """Digamma, or its derivative of order n: terms up to 30 and an asymptotic series from there on
    (M. Abramowitz and I. Stegun, "Handbook of Mathematical Functions", 6.3.18 and 6.4.11)."""
    bernoulli = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66)
    sign = 1.0 if n % 2 else -1.0

    def series(x: float) -> list[float]:
        w = 1 / x
        first = math.factorial(n - 1) * w**n if n else -math.log(x)
        factors = [math.factorial(2 * k + n - 1) / math.factorial(2 * k) for k in range(1, 6)]
        pairs = zip(factors, bernoulli, strict=True)
        later = [f * b * w ** (2 * k + n) for k, (f, b) in enumerate(pairs, 1)]
        return [first, math.factorial(n) / 2 * w ** (n + 1), *later]

    def function(x: float) -> float:
        if x == -math.inf:
            return math.nan
        if x <= 0 and x == math.floor(x):
            even = math.copysign(math.inf, -x) if x == 0 else math.nan
            return math.inf if n % 2 else even
        terms = []
        while x < 30:
            terms.append(math.factorial(n) / x ** (n + 1))
            x += 1
        return sign * math.fsum([*terms, *series(x)])

    return function


# -- public functions -----------------------------------------------------------------------------

_ERF = Erf.of()
_ERFC = Erfc.of()
_ERFINV = Erfinv.of()
_LGAMMA = Lgamma.of()
_DIGAMMA = Digamma.of()


@public("erf")
def erf(x: Operand) -> Any:
    """Return the error function, 2 / sqrt(pi) times the integral of exp(-t**2) from 0 to x."""
    return apply(_ERF, x)[0]


@public("erfc")
def erfc(x: Operand) -> Any:
    """Return 1 - erf(x), accurate also where that is small."""
    return apply(_ERFC, x)[0]


@public("erfinv")
def erfinv(x: Operand) -> Any:
    """Return the number whose erf is x; NaN outside of [-1, 1]."""
    return apply(_ERFINV, x)[0]


@public("lgamma")
def lgamma(x: Operand) -> Any:
    """Return log |gamma(x)|; infinite at 0, -1, -2, ...."""
    return apply(_LGAMMA, x)[0]


@public("digamma")
def digamma(x: Operand) -> Any:
    """Return the derivative of lgamma; infinite at 0, NaN at -1, -2, ...."""
    return apply(_DIGAMMA, x)[0]


def polygamma(n: int, x: Operand) -> Any:
    """Return the derivative of order n of digamma, 0 <= n <= 30.

    At -1, -2, ... infinite for odd n, NaN for even n.  Raises ArgumentError for another n.
    """
    if not isinstance(n, int) or not 0 <= n <= LARGEST_ORDER:
        raise ArgumentError(
            "no order of a derivative",
            op="polygamma",
            expect=f"an integer 0 <= n <= {LARGEST_ORDER}",
            actual=repr(n),
            hint="0 is digamma, 1 its derivative",
        )
    return apply(Polygamma.of(int(n)) if n else _DIGAMMA, x)[0]


@public("polygamma")
def _polygamma(x: Operand, n: int) -> Any:
    """Return the derivative of order n of digamma, see `dualgrad.polygamma`."""
    return polygamma(n, x)
