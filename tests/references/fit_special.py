"""The polynomials of error_functions.py and gamma.py in compiler/build: see fit_mathlib.py.

Run: python fit_special.py
"""

from collections.abc import Callable

import numpy as np
from fit_mathlib import fit
from mpmath import mp, mpf


def erf_near(z: mpf) -> mpf:
    x = mp.sqrt(z)
    return mp.erf(x) / x - 1


def erf_far(u: mpf) -> mpf:
    return mp.log(mp.erfc(1 + u))


def erfc_in_erf(u: mpf) -> mpf:
    """What an error of log(erfc) makes of erf."""
    return mp.erfc(1 + u) / mp.erf(1 + u)


def error_function() -> None:
    fit("ERF_NEAR32", erf_near, mpf(0), mpf(1), 6, np.float32, lambda z: mpf(1))
    fit("ERF_NEAR64", erf_near, mpf(0), mpf(1), 11, np.float64, lambda z: mpf(1))
    fit("ERF_FAR64", erf_far, mpf(0), mpf(5), 19, np.float64, erfc_in_erf)


def scaled_erfc(shift: int, center: mpf) -> Callable[[mpf], mpf]:
    """(x + shift) * e**(x**2) * erfc(x) as a function of 1 / (x + shift) - center."""

    def f(v: mpf) -> mpf:
        x = 1 / (center + v) - shift
        return (x + shift) * mp.exp(x * x) * mp.erfc(x)

    return f


def complement() -> None:
    for suffix, dtype, shift, center, top, degree in (
        ("32", np.float32, 2, mpf("0.25"), mpf("10.1"), 8),
        ("64", np.float64, 3, mpf("0.15234375"), mpf("27.3"), 20),
    ):
        low, high = 1 / (top + shift) - center, 1 / (mpf("0.5") + shift) - center
        f = scaled_erfc(shift, center)
        fit(f"ERFC{suffix}", f, low, high, degree, dtype, lambda v, f=f: 1 / f(v))


def inverse(w: mpf) -> mpf:
    """erfinv(x) / x where w = -log(1 - x**2), by a secant method from Winitzki's formula."""
    x = mp.sqrt(-mp.expm1(-w))
    target = -w - mp.log1p(x)  # the logarithm of 1 - x
    a = mpf("0.147")
    b = 2 / (mp.pi * a) - w / 2
    start = mp.sqrt(mp.sqrt(b * b + w / a) - b)
    return mp.findroot(lambda y: mp.log(mp.erfc(y)) - target, (start, start * 1.001)) / x


def inverses() -> None:
    for suffix, dtype, near, far, split, end in (
        ("32", np.float32, 9, 9, mpf(5), mpf(16)),
        ("64", np.float64, 23, 27, mpf("6.25"), mpf("36.1")),
    ):
        half = split / 2
        ways = (
            ("NEAR", lambda v, c=half: inverse(v + c), -half, half, near),
            ("FAR", lambda v: inverse((v + 4) ** 2), mp.sqrt(split) - 4, mp.sqrt(end) - 4, far),
        )
        for name, f, low, high, degree in ways:
            weight = lambda v, f=f: 1 / f(v)  # noqa: E731
            fit(f"ERFINV_{name}{suffix}", f, low, high, degree, dtype, weight)


def gamma_fraction(u: mpf) -> mpf:
    """log(gamma(1 + f)) / (f (f - 1)) where f = 1/2 + u."""
    f = mpf("0.5") + u
    return mp.loggamma(1 + f) / (f * (f - 1))


def stirling(z: mpf) -> mpf:
    """The series of Stirling's formula for log(gamma(x)), times x, where z = 1 / x**2."""
    x = 1 / mp.sqrt(z)
    half = mpf("0.5")
    return (mp.loggamma(x) - (x - half) * mp.log(x) + x - mp.log(2 * mp.pi) * half) * x


def digamma_offset(u: mpf) -> mpf:
    """(e**digamma(x) - (x - 1/2)) (x + 1/2), where 1 / (x + 1/2) = 1/4 + u."""
    v = mpf("0.25") + u
    x = 1 / v - mpf("0.5")
    return (mp.exp(mp.digamma(x)) - x + mpf("0.5")) / v


def gammas() -> None:
    """All in float64; for results in float32 fewer terms will do."""
    tiny = mpf(10) ** -8
    for suffix, degrees in (("32", (11, 2, 17)), ("64", (20, 5, 21))):
        names = ("LGAMMA", "STIRLING", "DIGAMMA")
        lgamma, series, digamma = zip(names, degrees, strict=True)
        half = mpf("0.5")
        for (name, degree), f, low, high in (
            (lgamma, gamma_fraction, tiny - half, half - tiny),
            (series, stirling, tiny, mpf(1) / 64),
            (digamma, digamma_offset, tiny - half / 2, mpf(2) / 3 - half / 2),
        ):
            weight = lambda u, f=f: 1 / f(u)  # noqa: E731
            fit(name + suffix, f, low, high, degree, np.float64, weight)


if __name__ == "__main__":
    gammas()
    error_function()
    complement()
    inverses()
