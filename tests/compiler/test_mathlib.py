"""The formulas of mathlib against mpmath: errors below the stated bounds, special values."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import numpy as np
import pytest

from dualgrad.compiler.build.mathlib import Math
from dualgrad.compiler.kernel import scalar as s
from dualgrad.compiler.lower.reference_scalar import evaluate
from dualgrad.runtime.dtype import DType, float32, float64

mpmath = pytest.importorskip("mpmath")
mp = mpmath.mp

FUNCTIONS: dict[str, tuple[Callable, tuple[float, float]]] = {
    # the exact function, and the interval of float32 where something happens
    "exp": (mp.exp, (-105, 90)),
    "expm1": (mp.expm1, (-20, 90)),
    "log": (mp.log, (0, 3)),
    "log1p": (mp.log1p, (-1, 3)),
    "tanh": (mp.tanh, (-10, 10)),
    "sigmoid": (lambda x: 1 / (1 + mp.exp(-x)), (-105, 20)),
    "sin": (mp.sin, (-1000, 1000)),
    "cos": (mp.cos, (-1000, 1000)),
    "tan": (mp.tan, (-1000, 1000)),
    "exp2": (lambda x: mp.mpf(2) ** x, (-151, 129)),
    "log2": (lambda x: mp.log(x, 2), (0, 3)),
    "log10": (mp.log10, (0, 3)),
    "sinh": (mp.sinh, (-90, 90)),
    "cosh": (mp.cosh, (-90, 90)),
    "asinh": (mp.asinh, (-10, 10)),
    "acosh": (mp.acosh, (1, 10)),
    "atanh": (mp.atanh, (-1, 1)),
    "asin": (mp.asin, (-1, 1)),
    "acos": (mp.acos, (-1, 1)),
    "atan": (mp.atan, (-10, 10)),
    "cbrt": (lambda x: mp.sign(x) * mp.cbrt(abs(x)), (-10, 10)),
}
# the interval for float64
WIDENED = {"exp": 7.2, "expm1": 8, "sigmoid": 7.2, "exp2": 8, "sinh": 7.9, "cosh": 7.9}
# where the result is a finite number
DOMAINS: dict[str, Callable] = {
    "log": lambda x: x > 0,
    "log2": lambda x: x > 0,
    "log10": lambda x: x > 0,
    "log1p": lambda x: x > -1,
    "asin": lambda x: abs(x) <= 1,
    "acos": lambda x: abs(x) <= 1,
    "acosh": lambda x: x >= 1,
    "atanh": lambda x: abs(x) < 1,
}
NUMPY = {f"a{name}": f"arc{name}" for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh")}
FORMATS = {float32: (24, -149, 128), float64: (53, -1074, 1024)}
EACH = pytest.mark.parametrize("dtype", [float32, float64], ids=lambda t: t.name)
NAMES = pytest.mark.parametrize("name", FUNCTIONS)


def compute(name: str, x: np.ndarray, dtype: DType) -> np.ndarray:
    e = getattr(Math(), name)(s.reg("x", dtype))
    return evaluate((e,), lambda _: x, {})[0]


def bound(name: str, dtype: DType) -> float:
    """The bound that the docstring states: the first one, or the one for this dtype."""
    text = getattr(Math, name).__doc__.split("Error:")[1].split("\n\n")[0]
    special = re.search(rf"([\d.]+) ulp \({dtype.name}\)", text)
    return float((special or re.search(r"([\d.]+) ulp", text)).group(1))


def error_in_ulp(y: float, exact: mpmath.mpf, dtype: DType) -> float:
    digits, lowest, top = FORMATS[dtype]
    if abs(exact) >= mp.mpf(2) ** top * (1 - mp.mpf(2) ** (-digits - 1)):
        return 0.0 if y == math.copysign(math.inf, exact) else math.inf
    if not math.isfinite(y):
        return math.inf
    exponent = mp.frexp(exact)[1] if exact else lowest
    return float(abs(mp.mpf(y) - exact) / mp.mpf(2) ** max(exponent - digits, lowest))


def arguments(name: str, dtype: DType, count: int) -> np.ndarray:
    """Random bits, the interval where the function is neither constant nor linear, and its
    neighbourhoods of 0 and 1."""
    rng = np.random.default_rng(11)
    low, high = (v * WIDENED.get(name, 1) ** (dtype is float64) for v in FUNCTIONS[name][1])
    width = rng.integers(-12, 1, count).astype(float)
    parts = [
        rng.bytes(count * dtype.itemsize),
        rng.uniform(low, high, count).astype(dtype.numpy),
        rng.uniform(-2, 2, count).astype(dtype.numpy),
        (rng.standard_normal(count) * 10**width).astype(dtype.numpy),
        (1 + rng.standard_normal(count) * 10**width).astype(dtype.numpy),
    ]
    x = np.frombuffer(b"".join(np.asarray(p).tobytes() for p in parts), dtype.numpy)
    return in_domain(name, x[np.isfinite(x)])


def in_domain(name: str, x: np.ndarray) -> np.ndarray:
    return x[DOMAINS[name](x)] if name in DOMAINS else x


def digits_for(name: str, v: float) -> int:
    """Bits of precision for mpmath, which needs those of a whole period to reduce an angle."""
    return 160 + (max(0, math.frexp(v)[1]) if name in ("sin", "cos", "tan") else 0)


@EACH
@NAMES
def test_error_is_below_the_stated_bound(name: str, dtype: DType) -> None:
    exact = FUNCTIONS[name][0]
    x = arguments(name, dtype, 700)
    worst = (0.0, math.nan)
    for v, y in zip(x.tolist(), compute(name, x, dtype).tolist(), strict=True):
        with mpmath.workprec(digits_for(name, v)):
            worst = max(worst, (error_in_ulp(y, exact(mp.mpf(v)), dtype), v))
    assert worst[0] <= bound(name, dtype), worst


@NAMES
def test_error_of_float32_on_many_arguments(name: str) -> None:
    """Against NumPy in float64, whose own error does not count in float32."""
    oracles = {"sigmoid": lambda v: 1 / (1 + np.exp(-v))}
    x = arguments(name, float32, 60_000)
    with np.errstate(all="ignore"):
        exact = oracles.get(name, getattr(np, NUMPY.get(name, name), None))(x.astype(np.float64))
        near = exact.astype(np.float32)
        got = compute(name, x, float32)
        error = np.abs(got - exact) / np.spacing(np.abs(near)).astype(np.float64)
    finite = np.isfinite(near)
    np.testing.assert_array_equal(got[~finite], near[~finite])
    assert error[finite].max() <= bound(name, float32), x[finite][error[finite].argmax()]


INF, NAN = math.inf, math.nan
WHOLE = (-126, -3, -1, 1, 2, 10, 100, 127)
POLES = [(-INF, NAN), (INF, INF), (0.0, -INF), (-0.0, -INF), (1.0, 0.0)]
UNITS = [(0.0, 0.0), (-0.0, -0.0), (1.5, NAN), (-1.5, NAN), (INF, NAN), (-INF, NAN)]
SPECIAL = {
    "exp": [(-INF, 0.0), (INF, INF), (0.0, 1.0), (-0.0, 1.0)],
    "expm1": [(-INF, -1.0), (INF, INF), (0.0, 0.0), (-0.0, -0.0)],
    "log": [(-INF, NAN), (INF, INF), (0.0, -INF), (-0.0, -INF), (1.0, 0.0), (-1e-40, NAN)],
    "log1p": [(-INF, NAN), (INF, INF), (0.0, 0.0), (-0.0, -0.0), (-1.0, -INF), (-1.5, NAN)],
    "tanh": [(-INF, -1.0), (INF, 1.0), (0.0, 0.0), (-0.0, -0.0)],
    "sigmoid": [(-INF, 0.0), (INF, 1.0), (0.0, 0.5), (-0.0, 0.5)],
    "sin": [(-INF, NAN), (INF, NAN), (0.0, 0.0), (-0.0, -0.0)],
    "cos": [(-INF, NAN), (INF, NAN), (0.0, 1.0), (-0.0, 1.0)],
    "tan": [(-INF, NAN), (INF, NAN), (0.0, 0.0), (-0.0, -0.0)],
    "exp2": [(-INF, 0.0), (INF, INF), (0.0, 1.0), (-0.0, 1.0), *((k, 2.0**k) for k in WHOLE)],
    "log2": [*POLES, (-1e-40, NAN), *((2.0**k, k) for k in WHOLE)],
    "log10": [*POLES, (-1e-40, NAN), *((10.0**k, k) for k in range(11))],
    "sinh": [(-INF, -INF), (INF, INF), (0.0, 0.0), (-0.0, -0.0)],
    "cosh": [(-INF, INF), (INF, INF), (0.0, 1.0), (-0.0, 1.0)],
    "asinh": [(-INF, -INF), (INF, INF), (0.0, 0.0), (-0.0, -0.0)],
    "acosh": [(1.0, 0.0), (INF, INF), (0.5, NAN), (0.0, NAN), (-3.0, NAN), (-INF, NAN)],
    "atanh": [*UNITS, (1.0, INF), (-1.0, -INF)],
    "asin": [*UNITS],
    "acos": [(1.0, 0.0), (1.5, NAN), (-1.5, NAN), (INF, NAN), (-INF, NAN)],
    "atan": [(0.0, 0.0), (-0.0, -0.0)],
    "cbrt": [(-INF, -INF), (INF, INF), (0.0, 0.0), (-0.0, -0.0), (27.0, 3.0), (-8.0, -2.0)],
}


@EACH
@NAMES
def test_special_values(name: str, dtype: DType) -> None:
    pairs = [*SPECIAL[name], (NAN, NAN)]
    x, want = (np.array(v, dtype.numpy) for v in zip(*pairs, strict=True))
    got = compute(name, x, dtype)
    np.testing.assert_array_equal(got, want)
    numbers = ~np.isnan(want)
    np.testing.assert_array_equal(np.signbit(got[numbers]), np.signbit(want[numbers]))


@EACH
@NAMES
def test_range_ends(name: str, dtype: DType) -> None:
    """The smallest and largest numbers, and both sides of overflow and underflow."""
    info = np.finfo(dtype.numpy)
    tiny = [float(info.smallest_subnormal * k) for k in (1, 2, 3, 1000)]
    tiny += [float(info.tiny * v) for v in (0.75, 1, 1.5)]
    logs = [math.log(float(info.max)), math.log(float(info.tiny))]
    logs.append(math.log(float(info.smallest_subnormal)))
    edges = [float(np.nextafter(dtype.numpy.type(v), np.inf * d)) for v in logs for d in (1, -1)]
    edges += [*logs, *(v / math.log(2) for v in logs), logs[0] + math.log(2)]
    numbers = [*tiny, *edges, float(info.max), 1 - float(info.epsneg), 1 + float(info.eps)]
    x = np.array([*numbers, *(-v for v in numbers)], dtype.numpy)
    x = in_domain(name, x)
    exact = FUNCTIONS[name][0]
    with mpmath.workprec(1200):
        for v, y in zip(x.tolist(), compute(name, x, dtype).tolist(), strict=True):
            assert error_in_ulp(y, exact(mp.mpf(v)), dtype) <= bound(name, dtype), v


@EACH
@pytest.mark.parametrize(("name", "base"), [("exp", math.e), ("exp2", 2.0)])
def test_powers_are_zero_where_they_round_to_it(name: str, base: float, dtype: DType) -> None:
    half = math.log(float(np.finfo(dtype.numpy).smallest_subnormal)) - math.log(2)
    x = (half / math.log(base) - np.array([0.01, 0.2, 0.4, 1, 2, 100, 1e9])).astype(dtype.numpy)
    got = compute(name, x, dtype)
    assert not got.any()
    assert not np.signbit(got).any()
    above = (half / math.log(base) + np.array([0.01, 0.2, 0.4, 0.6])).astype(dtype.numpy)
    assert (compute(name, above, dtype) == np.finfo(dtype.numpy).smallest_subnormal).all()


@EACH
def test_arc_functions_of_infinity_and_one(dtype: DType) -> None:
    """Multiples of pi, rounded."""
    half = dtype.numpy.type(math.pi / 2)
    for name, x, want in (("atan", math.inf, half), ("asin", 1.0, half), ("acos", 0.0, half)):
        assert compute(name, np.array([x], dtype.numpy), dtype)[0] == want
    assert compute("atan", np.array([-math.inf], dtype.numpy), dtype)[0] == -half
    assert compute("acos", np.array([-1.0], dtype.numpy), dtype)[0] == 2 * half


def test_log10_of_powers_of_ten() -> None:
    x = 10.0 ** np.arange(23)
    np.testing.assert_array_equal(compute("log10", x, float64), np.arange(23))


@EACH
@pytest.mark.parametrize("name", ["sin", "cos", "tan"])
def test_arguments_next_to_multiples_of_half_pi(name: str, dtype: DType) -> None:
    """Where nearly all bits cancel; the last one is the worst case of float64 (J.-M. Muller,
    "Elementary Functions", chapter on range reduction), before it those of float32, which a
    search of all its numbers finds."""
    with mpmath.workprec(1300):
        near = [float(k * mp.pi / 2) for k in [*range(1, 200), *(2**j for j in range(8, 100))]]
        near += [7.729178919452902e28, 1.5458357838905804e29, 21999384576.0, 3.069222456225956e17]
        if dtype is float64:
            near.append(math.ldexp(6381956970095103.0, 797))
        x = np.array(near, dtype.numpy)
        exact = FUNCTIONS[name][0]
        for v, y in zip(x.tolist(), compute(name, x, dtype).tolist(), strict=True):
            assert error_in_ulp(y, exact(mp.mpf(v)), dtype) <= bound(name, dtype), v
