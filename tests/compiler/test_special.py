"""Special functions against mpmath: errors below the stated bounds, special values."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from test_mathlib import bound, compute, error_in_ulp

from dualgrad.runtime.dtype import DType, float32, float64

mpmath = pytest.importorskip("mpmath")
mp = mpmath.mp

INF, NAN = math.inf, math.nan
EACH = pytest.mark.parametrize("dtype", [float32, float64], ids=lambda t: t.name)
EXACT: dict[str, Callable] = {
    "erf": mp.erf,
    "erfc": lambda x: mp.erfc(min(x, mp.mpf(1000))),
    "erfinv": mp.erfinv,
}
SLOW = {"erfinv"}  # in mpmath
# where each function is neither constant nor linear, and where its formula changes
INTERVALS = {
    "erf": [(-1e-3, 1e-3), (-1.01, 1.01), (0.8, 1.6), (-7, 7)],
    "erfc": [(-1.01, 1.01), (0.4, 1.5), (-7, 7), (7, 10.3), (7, 28)],
    "erfinv": [(-1e-3, 1e-3), (-1, 1), (0.9, 1), (-1, -0.999)],
}
DOMAIN = {"erfinv": (-1, 1)}
SPECIAL = {
    "erf": [(-INF, -1.0), (INF, 1.0), (0.0, 0.0), (-0.0, -0.0), (7.0, 1.0), (-1e30, -1.0)],
    "erfc": [(-INF, 2.0), (INF, 0.0), (0.0, 1.0), (-0.0, 1.0), (28.0, 0.0), (-1e30, 2.0)],
    "erfinv": [(1.0, INF), (-1.0, -INF), (0.0, 0.0), (-0.0, -0.0), (1.5, NAN), (-INF, NAN)],
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
            worst = max(worst, (error_in_ulp(y, EXACT[name](mp.mpf(v)), dtype), v))
    assert worst[0] <= bound(name, dtype), worst


@EACH
@NAMES
def test_special_values(name: str, dtype: DType) -> None:
    x, want = (np.array(v, dtype.numpy) for v in zip(*SPECIAL[name], (NAN, NAN), strict=True))
    got = compute(name, x, dtype)
    np.testing.assert_array_equal(got, want)
    numbers = ~np.isnan(want)
    np.testing.assert_array_equal(np.signbit(got[numbers]), np.signbit(want[numbers]))


ORACLES = {"erf": math.erf, "erfc": math.erfc}


@pytest.mark.parametrize("name", ORACLES)
def test_error_of_float32_on_many_arguments(name: str) -> None:
    """Against the C library in float64, whose own error does not count in float32."""
    x = arguments(name, float32, 20_000)
    exact = np.vectorize(ORACLES[name])(x.astype(np.float64))
    got = compute(name, x, float32)
    error = np.abs(got - exact) / np.spacing(np.abs(exact.astype(np.float32))).astype(np.float64)
    assert error.max() <= bound(name, float32), x[error.argmax()]
