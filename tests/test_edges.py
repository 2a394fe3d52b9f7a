"""Every number of elements around the edges of vectors, at every place in memory, with the
corners of a dtype: eager and compiled code against NumPy, bit for bit.

Elements beside those at hand keep their bits too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import Array, same_bits

import dualgrad as dg
from dualgrad.runtime.config import config
from dualgrad.runtime.dtype import DType, float32, float64, int8, int64, uint16

SIZES = (*range(1, 36), 63, 64, 65, 127, 128, 129, 257)
PLACES = range(16)
ROOM = 400

EXACT: dict[str, tuple[Callable[..., Any], Callable[..., Array]]] = {
    "add": (lambda x, y: x + y, np.add),
    "sub": (lambda x, y: x - y, np.subtract),
    "mul": (lambda x, y: x * y, np.multiply),
    "maximum": (dg.maximum, lambda x, y: np.where((x >= y) | (x != x), x, y)),
    "chosen": (lambda x, y: dg.where(x < y, x, y), lambda x, y: np.where(x < y, x, y)),
    "negated": (lambda x, y: dg.abs(-x) * y, lambda x, y: np.abs(-x) * y),
    "repeated": (lambda x, y: dg.stack([x, y]).sum(0), lambda x, y: np.stack([x, y]).sum(0)),
}
FLOATS: dict[str, tuple[Callable[..., Any], Callable[..., Array]]] = {
    "div": (lambda x, y: x / y, np.divide),
    "sqrt": (lambda x, y: dg.sqrt(dg.abs(x)) - y, lambda x, y: np.sqrt(np.abs(x)) - y),
    "floor": (lambda x, y: dg.floor(x) + y, lambda x, y: np.floor(x) + y),
    "rounded": (lambda x, y: dg.round(x) * y, lambda x, y: np.rint(x) * y),
}


def corners(dtype: DType, count: int, seed: int) -> Array:
    """Ordinary numbers with zeros of both signs, the largest and least, infinities and NaNs of
    several payloads among them."""
    rng = np.random.default_rng(seed)
    if not dtype.is_float:
        info = np.iinfo(dtype.numpy)
        special = np.array([0, 1, info.min, info.max], dtype.numpy)
        out = rng.integers(0, 50, count).astype(dtype.numpy)
    else:
        info = np.finfo(dtype.numpy)
        values = [0.0, -0.0, info.max, info.tiny, info.smallest_subnormal, np.inf, -np.inf, np.nan]
        special = np.array(values, dtype.numpy)
        bits = special[-1:].view(f"u{special.itemsize}") + np.arange(3, dtype=np.uint8)
        special = np.concatenate([special, -special, bits.view(special.dtype)])
        out = rng.standard_normal(count).astype(dtype.numpy)
    at = rng.integers(0, 3, count) == 0
    out[at] = rng.choice(special, int(at.sum()))
    return out


def sweep(
    dtype: DType, name: str, function: Callable[..., Any], want: Callable[..., Array]
) -> None:
    compiled = dg.function(lambda x, y: function(x, y), strict=True, dynamic=["x", "y"])
    x, y = (corners(dtype, ROOM, seed) for seed in (1, 2))
    for k, n in enumerate(SIZES):
        for place in (PLACES[k % 16], PLACES[(5 * k + 3) % 16]):
            a, b = x[place : place + n], y[3 : 3 + n]
            with np.errstate(all="ignore"):
                expected = want(a, b)
            for f in (function, compiled):
                got = f(dg.from_numpy(a), dg.from_numpy(b))
                same_bits(got, expected, f"{name} of {n} elements at {place}")
    assert compiled.n_traces <= 2  # a single element broadcasts


@pytest.mark.parametrize("dtype", [float32, float64, int8, int64, uint16], ids=str)
def test_exact_ops(dtype: DType) -> None:
    for name, (function, want) in EXACT.items():
        if name == "negated" and not dtype.is_signed:
            continue
        if name == "repeated" and dtype.is_float:  # zeros and infinities are no neutral elements
            continue
        sweep(dtype, name, function, want)


@pytest.mark.parametrize("dtype", [float32, float64], ids=str)
def test_exact_ops_of_floats(dtype: DType) -> None:
    for name, (function, want) in FLOATS.items():
        sweep(dtype, name, function, want)


UPDATES: dict[str, tuple[Callable[..., Any], Callable[[Array, Array], Array]]] = {
    "add_": (lambda x, y: x.add_(y), np.add),
    "mul_": (lambda x, y: x.mul_(y), np.multiply),
    "copy_": (lambda x, y: x.copy_(y), lambda x, y: y),
    "of a row": (lambda x, y: x.sub_(y.max()), lambda x, y: x - y.max()),
}


@pytest.mark.parametrize("name", UPDATES)
@pytest.mark.parametrize("step", [1, 2])
def test_updates_touch_nothing_else(name: str, step: int) -> None:
    function, want = UPDATES[name]
    compiled = dg.function(lambda x, y: function(x, y), strict=True, dynamic=["x", "y"])
    rng = np.random.default_rng(3)
    for k, n in enumerate(SIZES):
        whole, other = (rng.standard_normal(2 * ROOM).astype(np.float32) for _ in range(2))
        part = slice(7 + k % 16, 7 + k % 16 + step * n, step)
        for f in (function, compiled):
            memory = whole.copy()
            f(dg.from_numpy(memory)[part], dg.from_numpy(other[k : k + n]))
            expected = whole.copy()
            expected[part] = want(whole[part], other[k : k + n])
            same_bits(memory, expected, f"{name} {n}")


def test_nothing_is_read_of_what_is_empty() -> None:
    """A loop that is never entered leaves nothing to be computed before it."""

    def curvature(x: Any) -> Any:
        (slope,) = dg.autograd.grad(dg.linalg.det(x).sum(), [x], create_graph=True)
        return dg.autograd.grad((slope * slope).sum(), [x])[0]

    x = dg.zeros((2, 0, 0), requires_grad=True)
    with config.scope(check=True):
        assert curvature(x).shape == (2, 0, 0)
        assert dg.function(curvature)(x).shape == (2, 0, 0)
