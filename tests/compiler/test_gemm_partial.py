"""Products whose sums come in several calls, each of some rows of K: the bits of one call."""

from __future__ import annotations

import ctypes
from itertools import pairwise

import numpy as np
import pytest
from gemm_calls import EPILOGUE, UNITS, Array, Call, assert_same_bits, canonical, matrix

from dualgrad.compiler.kernel.ir import K_BLOCK
from dualgrad.runtime.dtype import DType, float32, float64, int32


def cuts(rng: np.random.Generator, k: int) -> list[int]:
    """Places between 0 and k, the bounds of blocks among them."""
    block = -(-k // -(-k // K_BLOCK))
    inside = rng.integers(1, k, 3) if k > 1 else []
    return sorted({0, *range(block, k, block), *map(int, inside), k})


def in_parts(
    a: Array, b: Array, dtype: DType, unit: tuple[int, int] | None, gap: int, thin: bool = False
) -> Array:
    """A product by calls for some rows of K after another; `gap` elements follow partial sums."""
    rng = np.random.default_rng(a.shape[1])
    (m, k), n = a.shape, b.shape[1]
    block = -(-k // -(-k // K_BLOCK))
    partial = np.full((m, n + gap), 77, dtype.numpy)
    whole = Call(a, b, dtype)
    places = cuts(rng, k)
    finished: list[tuple[int, ...]] = []
    epilogue = EPILOGUE(lambda _, *piece: finished.append(piece))
    address = ctypes.cast(epilogue, ctypes.c_void_p).value or 0
    for start, stop in pairwise(places):
        call = Call(a[:, start:stop], b[start:stop], dtype)
        call.c, call.frame = whole.c, whole.frame
        call.more = {
            "partial": partial.ctypes.data,
            "partial_row": partial.strides[0] // dtype.itemsize,
            "goes_on": int(start % block != 0),
            "closes": int(stop % block == 0 or stop == k),
            "adds": int(start >= block),
            "more": int(stop < k),
        }
        assert not finished
        call.run(unit, epilogue=address, thin=thin)
    assert sum((r1 - r0) * (c1 - c0) for _, r0, r1, c0, c1 in finished) == m * n
    assert (partial[:, n:] == 77).all()
    result = whole.c.copy()
    whole.assert_frame_untouched()
    return result


@pytest.mark.parametrize("unit", UNITS, ids=str)
@pytest.mark.parametrize(
    ("m", "n", "k"), [(1, 3, 9), (5, 37, 40), (31, 64, 513), (33, 130, 1100), (300, 20, 700)]
)
def test_parts_of_a_sum_are_the_sum(m: int, n: int, k: int, unit: tuple[int, int] | None) -> None:
    rng = np.random.default_rng(m)
    for layouts in (("rows", "rows"), ("columns", "columns"), ("columns", "rows")):
        a, b = matrix(rng, m, k, float32, layouts[0]), matrix(rng, k, n, float32, layouts[1])
        assert_same_bits(in_parts(a, b, float32, unit, 3), canonical(a, b))


@pytest.mark.parametrize("unit", UNITS, ids=str)
def test_parts_of_thin_products(unit: tuple[int, int] | None) -> None:
    rng = np.random.default_rng(3)
    a, b = matrix(rng, 3, 600, float32, "rows"), matrix(rng, 600, 75, float32, "columns")
    assert_same_bits(in_parts(a, b, float32, unit, 2, thin=True), canonical(a, b))


@pytest.mark.parametrize("dtype", [float64, int32], ids=str)
def test_parts_of_other_dtypes(dtype: DType) -> None:
    rng = np.random.default_rng(5)
    a, b = matrix(rng, 17, 600, dtype, "columns"), matrix(rng, 600, 35, dtype, "rows")
    assert_same_bits(in_parts(a, b, dtype, None, 0), canonical(a, b))
