"""The polynomials of compiler/build/mathlib.py: fitted with mpmath, printed as Python.

Each is a weighted least-squares fit on Chebyshev nodes, which is close to the minimax fit; the
coefficients are rounded to the dtype one after another, the lowest power first, and the rest is
fitted again each time.  Also printed: constants for argument reduction, and the error of each
fit in units of the last place of the function.   Run: python fit_mathlib.py
"""

from collections.abc import Callable

import numpy as np
from mpmath import mp, mpf

mp.dps = 60
BITS = {np.float32: 24, np.float64: 53}


def rounded(x: mpf, dtype: type) -> mpf:
    """x to the precision of the dtype (the exponents here are small)."""
    with mp.workprec(BITS[dtype]):
        return +mpf(x)


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
    count = 6 * (degree + 1)
    angles = [mp.pi * (2 * i + 1) / (2 * count) for i in range(count)]
    nodes = [(low + high) / 2 + (high - low) / 2 * mp.cos(a) for a in angles]
    target = [f(x) for x in nodes]
    weights = [weight(x) for x in nodes]
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


def fits(dtype: type, degrees: tuple[int, ...]) -> None:
    tag = BITS[dtype]
    suffix = {24: "32", 53: "64"}[tag]
    exp, log, atanh, tanh, sin, cos = degrees
    half = mp.log(2) / 2 * mpf("1.001")
    fit(f"EXP{suffix}", exponential, -half, half, exp, dtype, lambda x: x**2)
    third = mpf(1) / 3
    if log:
        fit(f"LOG{suffix}", logarithm, -third, third, log, dtype, lambda x: x**3 / mp.log1p(x))
    if atanh:
        top = ((mp.sqrt(2) - 1) / (mp.sqrt(2) + 1)) ** 2
        fit(f"LOG{suffix}", area_tangent, mpf(0), top, atanh, dtype, lambda z: z)
    fit(f"TANH{suffix}", tangent, mpf(0), mpf("0.36"), tanh, dtype, lambda z: z)
    eighth = (mp.pi / 4 * mpf("1.001")) ** 2
    fit(f"SIN{suffix}", sine, mpf(0), eighth, sin, dtype, lambda z: z)
    fit(f"COS{suffix}", cosine, mpf(0), eighth, cos, dtype, lambda z: z**2)


def constants() -> None:
    """ln 2 in two parts (the first with zeros at its end) and 2 / pi in parts of some bits."""
    for suffix, dtype, bits in (("32", np.float32, 15), ("64", np.float64, 41)):
        with mp.workprec(bits):
            high = +mp.ln2
        low = rounded(mp.log(2) - high, dtype)
        print(f"LN2_{suffix} = ({float(high)!r}, {float(low)!r})")


if __name__ == "__main__":
    fits(np.float32, (4, 7, 0, 4, 2, 2))
    fits(np.float64, (9, 0, 6, 11, 5, 5))
    constants()
