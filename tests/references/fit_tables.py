"""The tables of compiler/build/tables.py: polynomials on segments, see fit_mathlib.py.

Segment k lies around k * step; there the function is p(x - k * step), and x more for k = 0 and 1.
The steps were found by a search: all constant terms for k > 1 are within 0.3 ulp of a float32.
Run: python fit_tables.py
"""

from collections.abc import Callable

import numpy as np
from fit_mathlib import coefficients
from mpmath import mp, mpf

SEGMENTS = 16


def table(name: str, f: Callable[[mpf], mpf], step: mpf, degree: int) -> None:
    """Print the coefficients of all segments, highest power first, for float32."""
    rows = [near_zero(f, step, degree)]
    for k in range(1, SEGMENTS):
        start = k * step

        def g(t: mpf, start: mpf = start) -> mpf:
            return f(start + t) - (start + t if start == step else 0)

        def weight(t: mpf, start: mpf = start) -> mpf:
            return 1 / f(start + t)

        rows.append(coefficients(g, -step / 2, step / 2, degree, np.float32, weight)[::-1])
    print(f"{name} = (")
    for column in zip(*rows, strict=True):
        print(f"    ({', '.join(str(np.float32(float(c))) for c in column)}),")
    print(")")


def near_zero(f: Callable[[mpf], mpf], step: mpf, degree: int) -> list[mpf]:
    """Coefficients of f(x) - x, an odd polynomial: those of even powers are 0."""

    def g(z: mpf) -> mpf:
        x = mp.sqrt(z)
        return f(x) / x - 1

    top = (step / 2) ** 2
    row = [mpf(0)] * (degree + 1)
    for k, c in enumerate(coefficients(g, mpf(0), top, (degree - 1) // 2, np.float32, one)):
        row[degree - 1 - 2 * k] = c
    return row


def one(_: mpf) -> mpf:
    return mpf(1)


if __name__ == "__main__":
    table("ERF", mp.erf, mpf(269613) / 2**20, 5)
    table("TANH", mp.tanh, mpf(611423) / 2**20, 7)
