"""The formulas of mathlib with two operands against mpmath and NumPy, and integer powers."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from dualgrad.compiler.build.mathlib import Math
from dualgrad.compiler.kernel import scalar as s
from dualgrad.compiler.lower.reference_scalar import evaluate
from dualgrad.runtime.dtype import DType, float32, float64, int8, int32, int64, uint8

mpmath = pytest.importorskip("mpmath")
mp = mpmath.mp

INF, NAN = math.inf, math.nan
Pairs = tuple[np.ndarray, np.ndarray]
EACH = pytest.mark.parametrize("dtype", [float32, float64], ids=lambda t: t.name)
NAMES = pytest.mark.parametrize("name", ["pow", "atan2", "hypot"])
EXACT = {"pow": mp.power, "atan2": mp.atan2, "hypot": mp.hypot}
NUMPY = {"pow": np.power, "atan2": np.arctan2, "hypot": np.hypot}
FORMATS = {float32: (24, -149, 128), float64: (53, -1074, 1024)}


def compute(name: str, x: np.ndarray, y: np.ndarray, dtype: DType) -> np.ndarray:
    e = getattr(Math(), name)(s.reg("x", dtype), s.reg("y", dtype))
    return evaluate((e,), lambda leaf: x if leaf.attr == "x" else y, {})[0]


def bound(name: str) -> float:
    text = getattr(Math, name).__doc__.split("Error:")[1]
    return float(re.search(r"([\d.]+) ulp", text).group(1))


def error_in_ulp(y: float, exact: mpmath.mpf, dtype: DType) -> float:
    digits, lowest, top = FORMATS[dtype]
    if abs(exact) >= mp.mpf(2) ** top * (1 - mp.mpf(2) ** (-digits - 1)):
        return 0.0 if y == math.copysign(INF, exact) else INF
    if not math.isfinite(y):
        return INF
    exponent = mp.frexp(exact)[1] if exact else lowest
    return float(abs(mp.mpf(y) - exact) / mp.mpf(2) ** max(exponent - digits, lowest))


def in_range(rng: np.random.Generator, x: np.ndarray, dtype: DType) -> np.ndarray:
    """Exponents y so that x**y covers the range of the dtype and a little more."""
    limit = -FORMATS[dtype][1] * math.log(2)
    with np.errstate(divide="ignore"):
        return rng.uniform(-1, 1, x.size) * limit / np.log(x.astype(np.float64))


def power_pairs(rng: np.random.Generator, dtype: DType, count: int) -> list[Pairs]:
    anywhere = np.abs(np.frombuffer(rng.bytes(count * dtype.itemsize), dtype.numpy))
    near_one = 1 + rng.standard_normal(count) * 10.0 ** rng.integers(-12, 0, count)
    near_one = np.abs(near_one.astype(dtype.numpy))
    whole = rng.integers(-20, 20, count)
    return [
        (anywhere, in_range(rng, anywhere, dtype)),
        (near_one, in_range(rng, near_one, dtype)),
        (rng.uniform(0, 10, count), rng.uniform(-10, 10, count)),
        (-rng.uniform(0, 10, count), whole),
        (whole, whole[::-1]),
    ]


def plane_pairs(rng: np.random.Generator, dtype: DType, count: int) -> list[Pairs]:
    first, second = np.frombuffer(rng.bytes(2 * count * dtype.itemsize), dtype.numpy).reshape(2, -1)
    z, w = rng.standard_normal((2, count))
    spread = 10.0 ** rng.integers(-20, 20, count)
    tiny = float(np.finfo(dtype.numpy).tiny)
    return [
        (first, second),
        (first, first * z.astype(dtype.numpy)),
        (z, w),
        (z, w * spread),
        (w * spread, z),
        (z * tiny, w * tiny),
        (z * tiny, w),
    ]


def arguments(name: str, dtype: DType, count: int) -> Pairs:
    """Pairs of all sizes with a finite result or an overflow, no zeros."""
    rng = np.random.default_rng(5)
    with np.errstate(all="ignore"):
        pairs = (power_pairs if name == "pow" else plane_pairs)(rng, dtype, count)
        x, y = (np.concatenate([p[k].astype(dtype.numpy) for p in pairs]) for k in (0, 1))
    keep = np.isfinite(x) & np.isfinite(y) & (x != 0) & (y != 0)
    if name == "pow":
        keep &= (x > 0) | (y == np.floor(y))
    return x[keep], y[keep]


@EACH
@NAMES
def test_error_is_below_the_stated_bound(name: str, dtype: DType) -> None:
    x, y = arguments(name, dtype, 400)
    got = compute(name, x, y, dtype)
    worst = (0.0, NAN, NAN)
    with mpmath.workprec(250):
        for a, b, z in zip(x.tolist(), y.tolist(), got.tolist(), strict=True):
            exact = EXACT[name](mp.mpf(a), mp.mpf(b)).real
            worst = max(worst, (error_in_ulp(z, exact, dtype), a, b))
    assert worst[0] <= bound(name), worst


@NAMES
def test_error_of_float32_on_many_arguments(name: str) -> None:
    """Against NumPy in float64, whose own error does not count in float32."""
    x, y = arguments(name, float32, 40_000)
    with np.errstate(all="ignore"):
        exact = NUMPY[name](x.astype(np.float64), y.astype(np.float64))
        near = exact.astype(np.float32)
    got = compute(name, x, y, float32)
    finite = np.isfinite(near)
    np.testing.assert_array_equal(got[~finite], near[~finite])
    error = np.abs(got - exact)[finite] / np.spacing(np.abs(near[finite])).astype(np.float64)
    assert error.max() <= bound(name), (x[finite][error.argmax()], y[finite][error.argmax()])


@EACH
@NAMES
def test_special_values_are_those_of_c(name: str, dtype: DType) -> None:
    """Signed zeros, infinities, NaN, odd and even integers of all sizes, in all pairs."""
    digits = FORMATS[dtype][0]
    sizes = [0.0, 1e-40, 0.5, 1 - 2.0**-digits, 1.0, 1.5, 2.0, 3.0, 1e30, INF]
    sizes += [2.0 ** (digits - 1) + 1, 2.0**digits - 1, 2.0**digits + 2]
    values = np.array([*sizes, *(-v for v in sizes), NAN], dtype.numpy)
    x, y = (v.ravel() for v in np.meshgrid(values, values))
    with np.errstate(all="ignore"):
        want = NUMPY[name](x.astype(np.float64), y.astype(np.float64)).astype(dtype.numpy)
    got = compute(name, x, y, dtype)
    np.testing.assert_array_max_ulp(got[np.isfinite(want)], want[np.isfinite(want)], 1)
    special = ~np.isfinite(want) | (want == 0)
    if name == "pow":
        special |= (np.abs(x) == 1) | (y == 0)
    np.testing.assert_array_equal(got[special], want[special])
    numbers = ~np.isnan(want)
    np.testing.assert_array_equal(np.signbit(got[numbers]), np.signbit(want[numbers]))


@EACH
def test_small_integer_powers_are_exact(dtype: DType) -> None:
    x, y = (v.ravel() for v in np.meshgrid(np.arange(-12.0, 13), np.arange(6.0)))
    got = compute("pow", x.astype(dtype.numpy), y.astype(dtype.numpy), dtype)
    np.testing.assert_array_equal(got, x**y)


INTEGERS = pytest.mark.parametrize("dtype", [int8, uint8, int32, int64], ids=lambda t: t.name)


def wrapped(value: int, dtype: DType) -> int:
    value %= 2**dtype.bits
    return value - 2**dtype.bits if dtype.is_signed and value >> (dtype.bits - 1) else value


@INTEGERS
def test_integer_power_wraps(dtype: DType) -> None:
    rng = np.random.default_rng(3)
    limits = np.iinfo(dtype.numpy)
    x = rng.integers(limits.min, limits.max, 600, dtype.numpy, endpoint=True)
    y = rng.integers(0, limits.max, 600, dtype.numpy, endpoint=True)
    x[:200] %= 6
    y[:300] %= 10
    pairs = list(zip(x.tolist(), y.tolist(), strict=True))
    want = [wrapped(pow(a, b, 2**dtype.bits), dtype) for a, b in pairs]
    np.testing.assert_array_equal(compute("ipow", x, y, dtype), want)


@pytest.mark.parametrize("y", [-3, -2, -1, 0, 1, 2, 5, 10])
def test_integer_power_of_a_constant_exponent(y: int) -> None:
    """As with an exponent per element; negative ones truncate the quotient."""
    x = np.arange(-4, 5, dtype=np.int32)
    e = Math().ipow(s.reg("x", int32), y)
    got = evaluate((e,), lambda _: x, {})[0]
    np.testing.assert_array_equal(got, compute("ipow", x, np.full_like(x, y), int32))
    want = [v**y if y >= 0 else (int(1 / v**-y) if v else 0) for v in x.tolist()]
    np.testing.assert_array_equal(got, want)
