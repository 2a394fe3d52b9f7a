"""Batches of products: the bits of one product after another, whatever is merged or shared."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest
from gemm_calls import (
    EPILOGUE,
    Array,
    Call,
    assert_same_bits,
    canonical,
    concurrent_address,
    matrix,
    shuffled,
)

from dualgrad.runtime.dtype import float32

# (batches, m, k, n): tiny, many, few large ones, A or B beyond the second-level cache
SHAPES = [
    (1, 5, 6, 7),
    (3, 2, 3, 4),
    (40, 7, 33, 20),
    (9, 60, 70, 65),
    (3, 150, 530, 64),
    (2, 900, 40, 30),
    (2, 20, 300, 900),
]
KINDS = ["apart", "same A", "same B", "rows go on", "both same"]


def operands(shape: tuple[int, int, int, int], kind: str) -> tuple[Array, Array]:
    batches, m, k, n = shape
    rng = np.random.default_rng(m)
    a, b = (rng.standard_normal(s).astype("f4") for s in ((batches, m, k), (batches, k, n)))
    if kind in ("same A", "both same"):
        a = np.broadcast_to(a[:1], a.shape)
    if kind in ("same B", "both same"):  # rows of A lie apart: it is not one product
        b = np.broadcast_to(matrix(rng, k, n, float32, "columns"), b.shape)
        if kind == "same B":
            a = np.concatenate([a, a], axis=1)[:, :m]
    if kind == "rows go on":
        b = np.broadcast_to(b[:1], b.shape)
    return a, b


def expected_of(a: Array, b: Array) -> Array:
    return np.stack([canonical(x, y) for x, y in zip(a, b, strict=True)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_batches_keep_the_order(shape: tuple[int, int, int, int], kind: str) -> None:
    a, b = operands(shape, kind)
    expected = expected_of(a, b)
    for threads, between in ((0, 0), (2, 0), (3, 4)):
        fake, _ = shuffled(max(threads, 1), seed=threads)
        address = ctypes.cast(fake, ctypes.c_void_p).value or 0
        call = Call(a, b, float32, between=between)
        assert_same_bits(call.run(threads=threads, parallel_for=address), expected)
        call.assert_frame_untouched()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_threads_at_the_same_time(shape: tuple[int, int, int, int], kind: str) -> None:
    a, b = operands(shape, kind)
    expected = Call(a, b, float32).run()
    call = Call(a, b, float32)
    assert_same_bits(call.run(threads=2, parallel_for=concurrent_address()), expected)


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("k", [0, 3, 600])
@pytest.mark.parametrize("kind", KINDS)
def test_epilogue_gets_each_element_of_each_product_once(kind: str, k: int, threads: int) -> None:
    shape = (9, 20, k, 40)
    a, b = operands(shape, kind)
    expected = Call(a, b, float32).run().copy()
    call, seen = Call(a, b, float32), np.zeros(expected.shape, int)

    def epilogue(_context: int, batch: int, row0: int, row1: int, col0: int, col1: int) -> None:
        piece = batch, slice(row0, row1), slice(col0, col1)
        finished = (call.c[piece] == expected[piece]).all() and row0 < row1 and col0 < col1
        seen[piece] += 1 if finished else 100
        call.c[piece] = -1

    callback: Any = EPILOGUE(epilogue)
    address = ctypes.cast(callback, ctypes.c_void_p).value or 0
    call.run(threads=threads, parallel_for=concurrent_address(), epilogue=address)
    assert (seen == 1).all()


def test_many_small_products_share_the_threads() -> None:
    a, b = operands((64, 16, 32, 16), "apart")
    fake, sizes = shuffled(2, seed=0)
    address = ctypes.cast(fake, ctypes.c_void_p).value or 0
    Call(a, b, float32).run(threads=2, parallel_for=address)
    assert len(sizes) == 1
    assert sizes[0] > 2


def test_a_batch_without_products_writes_nothing() -> None:
    call = Call(np.ones((0, 3, 4), "f4"), np.ones((0, 4, 5), "f4"), float32)
    call.run()
    call.assert_frame_untouched()
