"""The polynomials of compiler/build/{formats,exponential,power,trigonometry}.py, printed as Python.

Each is a weighted least-squares fit with mpmath on Chebyshev nodes, which is close to the
minimax fit; the coefficients are rounded to the dtype one after another, the lowest power first,
and the rest is fitted again each time.  Also printed: constants in two parts, and the error of
each fit in units of the last place of the function.   Run: python fit_mathlib.py
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from mpmath import mp, mpf

mp.dps = 60
BITS = {np.float32: 24, np.float64: 53}


def rounded(x: mpf, dtype: type) -> mpf:
    """x to the precision of the dtype (the exponents here are small)."""
    with mp.workprec(BITS[dtype]):
        return +mpf(x)


def coefficients(
    f: Callable[[mpf], mpf],
    low: mpf,
    high: mpf,
    degree: int,
    dtype: type,
    weight: Callable[[mpf], mpf],
) -> list[mpf]:
    """Coefficients, lowest power first, of p(x) = f(x) with error * weight small."""
    nodes, target, weights = samples(f, low, high, degree, weight)
    count = len(nodes)
    known: list[mpf] = []
    while len(known) <= degree:
        left = degree + 1 - len(known)
        rows = mp.matrix(count, left)
        right = mp.matrix(count, 1)
        for i, x in enumerate(nodes):
            right[i] = weights[i] * (target[i] - mp.polyval(known[::-1] or [0], x))
            for k in range(left):
                rows[i, k] = weights[i] * x ** (len(known) + k)
        solution = mp.qr_solve(rows, right)[0]
        known.append(rounded(solution[0], dtype))
    return known


def samples(
    f: Callable[[mpf], mpf], low: mpf, high: mpf, degree: int, weight: Callable[[mpf], mpf]
) -> tuple[list[mpf], list[mpf], list[mpf]]:
    """Chebyshev nodes, and the function and the weight there."""
    count = 6 * (degree + 1)
    angles = [mp.pi * (2 * i + 1) / (2 * count) for i in range(count)]
    nodes = [(low + high) / 2 + (high - low) / 2 * mp.cos(a) for a in angles]
    return nodes, [f(x) for x in nodes], [weight(x) for x in nodes]


def fit(
    name: str,
    f: Callable[[mpf], mpf],
    low: mpf,
    high: mpf,
    degree: int,
    dtype: type,
    weight: Callable[[mpf], mpf],
) -> None:
    """Print coefficients, highest power first, of p(x) = f(x) with error * weight small."""
    known = coefficients(f, low, high, degree, dtype, weight)
    nodes, target, weights = samples(f, low, high, degree, weight)
    points = zip(nodes, weights, target, strict=True)
    error = max(abs(w * (mp.polyval(known[::-1], x) - t)) for x, w, t in points)
    print(f"# {name}: error {float(error * 2 ** BITS[dtype]):.4f} ulp")
    print(f"{name} = (")
    for c in reversed(known):
        print(f"    {dtype(float(c))!s},")
    print(")")


def exponential(x: mpf) -> mpf:
    return (mp.exp(x) - 1 - x) / x**2


def logarithm(x: mpf) -> mpf:
    return (mp.log1p(x) - x + x**2 / 2) / x**3


def area_tangent(z: mpf) -> mpf:
    s = mp.sqrt(z)
    return (mp.log((1 + s) / (1 - s)) / s - 2) / z


def tangent(z: mpf) -> mpf:
    x = mp.sqrt(z)
    return (mp.tanh(x) / x - 1) / z


def sine(z: mpf) -> mpf:
    x = mp.sqrt(z)
    return (mp.sin(x) / x - 1) / z


def cosine(z: mpf) -> mpf:
    return (mp.cos(mp.sqrt(z)) - 1 + z / 2) / z**2


def hyperbolic_sine(z: mpf) -> mpf:
    x = mp.sqrt(z)
    return (mp.sinh(x) / x - 1) / z


def hyperbolic_cosine(z: mpf) -> mpf:
    return (mp.cosh(mp.sqrt(z)) - 1) / z


def arc_sine(z: mpf) -> mpf:
    x = mp.sqrt(z)
    return (mp.asin(x) / x - 1) / z


def arc_tangent(z: mpf) -> mpf:
    x = mp.sqrt(z)
    return (mp.atan(x) / x - 1) / z


def log2_slope(m: mpf) -> mpf:
    return mp.log1p(m) / m / mp.ln2


def area_tangent_tail(z: mpf) -> mpf:
    return (area_tangent(z) - mpf(2) / 3) / z


def exp2_slope(r: mpf) -> mpf:
    return (2**r - 1) / r


@dataclass(frozen=True)
class Degrees:
    """Degrees of the polynomials of one dtype; those of float64 have a logarithm by area_tangent.

    `angle` is the largest reduced angle in units of pi/4.
    """

    exp: int
    log: int
    sin: int
    cos: int
    sinh: int
    cosh: int
    asin: int
    atan: int
    angle: str


def fits(dtype: type, d: Degrees) -> None:
    tag = {24: "32", 53: "64"}[BITS[dtype]]
    half = mp.log(2) / 2 * mpf("1.001")
    fit(f"EXP{tag}", exponential, -half, half, d.exp, dtype, lambda x: x**2)
    third = mpf(1) / 3
    if dtype is np.float32:
        fit(f"LOG{tag}", logarithm, -third, third, d.log, dtype, lambda x: x**3 / mp.log1p(x))
    else:
        fit(f"LOG{tag}", area_tangent, mpf(0), LARGEST_S**2, d.log, dtype, lambda z: z)
    even: list[tuple[str, Callable[[mpf], mpf], mpf, int]] = [
        ("SIN", sine, mp.pi / 4 * mpf(d.angle), d.sin),
        ("SINH", hyperbolic_sine, half, d.sinh),
        ("COSH", hyperbolic_cosine, half, d.cosh),
        ("ASIN", arc_sine, mpf("0.5"), d.asin),
        ("ATAN", arc_tangent, mpf(1), d.atan),
    ]
    for name, f, top, degree in even:
        fit(name + tag, f, mpf(0), top**2, degree, dtype, lambda z: z)
    if dtype is np.float64:
        fit("TANH64", tangent, mpf(0), mpf("0.6") ** 2, 11, dtype, lambda z: z)
    widest = mp.pi / 4 * mpf(d.angle)
    fit(f"COS{tag}", cosine, mpf(0), widest**2, d.cos, dtype, lambda z: z**2)


LARGEST_S = (mp.sqrt(2) - 1) / (mp.sqrt(2) + 1)  # of m / (2 + m) in the logarithm


def powers() -> None:
    """For float32 in float64, and the tail of the logarithm in two words."""
    low, high = mp.sqrt(mpf(1) / 2) - 1, mp.sqrt(2) - 1
    fit("POW32_LOG2", log2_slope, low, high, 12, np.float64, lambda m: m / mp.log1p(m))
    fit("POW32_EXP2", exp2_slope, -mpf(1) / 2, mpf(1) / 2, 5, np.float64, lambda r: r)
    fit("POW64_LOG", area_tangent_tail, mpf(0), LARGEST_S**2, 6, np.float64, lambda z: z**2)


def parts(name: str, x: mpf, dtype: type, bits: int) -> None:
    """Print x as a number of some bits and the rest, rounded."""
    with mp.workprec(bits):
        high = +x
    print(f"{name} = ({dtype(float(high))!s}, {dtype(float(rounded(x - high, dtype)))!s})")


def constants() -> None:
    """What is multiplied with an exponent has zeros at the end of its first part."""
    for tag, dtype, short in (("32", np.float32, 15), ("64", np.float64, 41)):
        parts(f"LN2_{tag}", mp.log(2), dtype, short)
        parts(f"LOG10_2_{tag}", mp.log10(2), dtype, short)
        exact = {"WHOLE_LN2": mp.log(2), "LOG2_E": 1 / mp.log(2), "LOG10_E": 1 / mp.log(10)}
        exact["HALF_PI"] = mp.pi / 2
        for name, value in exact.items():
            parts(f"{name}_{tag}", value, dtype, BITS[dtype])
    parts("TWO_THIRDS", mpf(2) / 3, np.float64, 53)


if __name__ == "__main__":
    fits(np.float32, Degrees(4, 7, 3, 2, 2, 2, 4, 8, "1.25"))
    fits(np.float64, Degrees(9, 6, 5, 5, 5, 5, 12, 19, "1.001"))
    powers()
    constants()
