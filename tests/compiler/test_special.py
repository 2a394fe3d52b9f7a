"""Special functions against mpmath: errors below the stated bounds, special values."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from test_mathlib import bound, compute, error_in_ulp

from dualgrad.compiler.build.mathlib import Math
from dualgrad.compiler.kernel import scalar as s
from dualgrad.compiler.lower.reference_scalar import evaluate
from dualgrad.runtime.dtype import DType, float32, float64

mpmath = pytest.importorskip("mpmath")
mp = mpmath.mp

INF, NAN = math.inf, math.nan
EACH = pytest.mark.parametrize("dtype", [float32, float64], ids=lambda t: t.name)
EXACT: dict[str, Callable] = {
    "erf": mp.erf,
    "erfc": lambda x: mp.erfc(min(x, mp.mpf(1000))),
    "erfinv": mp.erfinv,
    "lgamma": mp.loggamma,
    "digamma": mp.digamma,
    "trigamma": lambda x: mp.psi(1, x),
}
SLOW = {"erfinv", "lgamma", "digamma", "trigamma"}  # in mpmath
# where each function is neither constant nor linear, and where its formula changes
INTERVALS = {
    "erf": [(-1e-3, 1e-3), (-1.01, 1.01), (0.8, 1.6), (-7, 7)],
    "erfc": [(-1.01, 1.01), (0.4, 1.5), (-7, 7), (7, 10.3), (7, 28)],
    "erfinv": [(-1e-3, 1e-3), (-1, 1), (0.9, 1), (-1, -0.999)],
    "lgamma": [(0, 1), (0.9, 1.1), (1.9, 2.1), (1, 9), (0, 1000)],
    "digamma": [(0, 1), (1.461, 1.462), (1, 2), (1, 9), (0, 1000)],
    "trigamma": [(0, 1), (1, 9), (9, 40), (0, 1000)],
}
SMALLEST = 5e-324
DOMAIN = {
    "erfinv": (-1, 1),
    "lgamma": (SMALLEST, INF),
    "digamma": (SMALLEST, INF),
    "trigamma": (SMALLEST, INF),
}
FLOOR = {"digamma": 2.0**-56}  # the error allowed next to a zero
SPECIAL = {
    "erf": [(-INF, -1.0), (INF, 1.0), (0.0, 0.0), (-0.0, -0.0), (7.0, 1.0), (-1e30, -1.0)],
    "erfc": [(-INF, 2.0), (INF, 0.0), (0.0, 1.0), (-0.0, 1.0), (28.0, 0.0), (-1e30, 2.0)],
    "erfinv": [(1.0, INF), (-1.0, -INF), (0.0, 0.0), (-0.0, -0.0), (1.5, NAN), (-INF, NAN)],
    "lgamma": [
        (INF, INF),
        (-INF, INF),
        (0.0, INF),
        (-0.0, INF),
        (-2.0, INF),
        (-1e30, INF),
        (1.0, 0.0),
        (2.0, 0.0),
    ],
    "digamma": [(INF, INF), (-INF, NAN), (0.0, -INF), (-0.0, INF), (-2.0, NAN), (-1e30, NAN)],
    "trigamma": [(INF, 0.0), (-INF, NAN), (0.0, INF), (-0.0, INF), (-2.0, INF), (-1e30, INF)],
}
NAMES = pytest.mark.parametrize("name", EXACT)


def arguments(name: str, dtype: DType, count: int) -> np.ndarray:
    """Random bits, numbers of all small sizes, and the intervals of the function."""
    rng = np.random.default_rng(12)
    parts = [
        np.frombuffer(rng.bytes(count * dtype.itemsize), dtype.numpy),
        rng.standard_normal(count) * 2.0 ** rng.integers(-40, 4, count),
        *(rng.uniform(low, high, count) for low, high in INTERVALS[name]),
    ]
    x = np.concatenate([p.astype(dtype.numpy) for p in parts])
    x = np.concatenate([x, np.array(ends(dtype), dtype.numpy)])
    low, high = DOMAIN.get(name, (-INF, INF))
    return x[np.isfinite(x) & (x >= low) & (x <= high)]


def ends(dtype: DType) -> list[float]:
    """The smallest and largest numbers, and the neighbours of 1."""
    info = np.finfo(dtype.numpy)
    sizes = [float(info.smallest_subnormal * k) for k in (1, 2, 3, 1000)]
    sizes += [float(info.tiny * v) for v in (0.75, 1, 1.5)]
    sizes += [1 - float(info.epsneg), 1.0, 1 + float(info.eps), float(info.max)]
    return [*sizes, *(-v for v in sizes)]


@EACH
@NAMES
def test_error_is_below_the_stated_bound(name: str, dtype: DType) -> None:
    x = arguments(name, dtype, 100 if name in SLOW else 400)
    worst = (0.0, NAN)
    with mpmath.workprec(160):
        for v, y in zip(x.tolist(), compute(name, x, dtype).tolist(), strict=True):
            exact = EXACT[name](mp.mpf(v))
            if not abs(mp.mpf(y) - exact) <= FLOOR.get(name, 0):
                worst = max(worst, (error_in_ulp(y, exact, dtype), v))
    assert worst[0] <= bound(name, dtype), worst


@EACH
@NAMES
def test_special_values(name: str, dtype: DType) -> None:
    x, want = (np.array(v, dtype.numpy) for v in zip(*SPECIAL[name], (NAN, NAN), strict=True))
    got = compute(name, x, dtype)
    np.testing.assert_array_equal(got, want)
    numbers = ~np.isnan(want)
    np.testing.assert_array_equal(np.signbit(got[numbers]), np.signbit(want[numbers]))


ORACLES = {"erf": math.erf, "erfc": math.erfc, "lgamma": math.lgamma}


@pytest.mark.parametrize("name", ORACLES)
def test_error_of_float32_on_many_arguments(name: str) -> None:
    """Against the C library in float64, whose own error does not count in float32."""
    x = arguments(name, float32, 20_000)
    exact = np.vectorize(ORACLES[name])(x.astype(np.float64))
    got = compute(name, x, float32)
    with np.errstate(over="ignore", invalid="ignore"):
        near = exact.astype(np.float32)
        error = np.abs(got - exact) / np.spacing(np.abs(near)).astype(np.float64)
    error[np.isinf(near)] = 0
    np.testing.assert_array_equal(got[np.isinf(near)], near[np.isinf(near)])
    assert error.max() <= bound(name, float32), x[error.argmax()]


# -- gamma functions between their poles on the negative axis, and of higher order ----------------

NEGATIVE = [(-0.9999, -1e-9), (-2, -1), (-4, -2), (-30, -4), (-1000, -100)]
POSITIVE = [(1e-3, 0.5), (0.5, 3), (3, 20), (20, 1e4)]


def larger(name: str, x: mpmath.mpf, exact: mpmath.mpf) -> mpmath.mpf:
    """What the stated error of a negative argument is relative to."""
    if name == "lgamma":
        return max(1, abs(exact), mp.loggamma(1 - x))
    return max(mp.digamma(1 - x), abs(mp.pi * mp.cot(mp.pi * x)))


@EACH
@pytest.mark.parametrize("name", ["lgamma", "digamma"])
def test_negative_arguments(name: str, dtype: DType) -> None:
    rng = np.random.default_rng(13)
    x = np.concatenate([rng.uniform(*ends, 60) for ends in NEGATIVE]).astype(dtype.numpy)
    with mpmath.workprec(160):
        for v, y in zip(x.tolist(), compute(name, x, dtype).tolist(), strict=True):
            exact = mp.re(EXACT[name](mp.mpf(v)))
            scale = larger(name, mp.mpf(v), exact)
            assert error_in_ulp(scale + (y - exact), scale, dtype) <= bound(name, dtype), v


@EACH
@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_polygamma(n: int, dtype: DType) -> None:
    rng = np.random.default_rng(14)
    x = np.concatenate([rng.uniform(*ends, 40) for ends in NEGATIVE + POSITIVE])
    x = x.astype(dtype.numpy)
    formula = Math().polygamma(n, s.reg("x", dtype))
    allowed = 1 if dtype is float32 else 4 * n + 2
    with mpmath.workprec(160):
        for v, y in zip(x.tolist(), evaluate((formula,), lambda _: x, {})[0].tolist(), strict=True):
            exact = mp.psi(n, mp.mpf(v))
            scale = abs(exact)
            if v < 0 and n % 2 == 0:
                scale = max(scale, abs(mp.psi(n, 1 - mp.mpf(v))))
            assert error_in_ulp(scale + (y - exact), scale, dtype) <= allowed, v


@EACH
def test_polygamma_of_special_values(dtype: DType) -> None:
    x = np.array([INF, 0.0, -0.0, -1.0, -1e30, -INF, NAN], dtype.numpy)
    for n, want in (
        (2, [0.0, -INF, INF, NAN, NAN, NAN, NAN]),
        (3, [0.0, INF, INF, INF, INF, NAN, NAN]),
    ):
        formula = Math().polygamma(n, s.reg("x", dtype))
        got = evaluate((formula,), lambda _: x, {})[0]
        np.testing.assert_array_equal(got, np.array(want, dtype.numpy))
