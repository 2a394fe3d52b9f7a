"""The GEMM routine against the canonical order of summation, bit by bit.

The oracle knows nothing of tiles: blocks of K as `kernel.ir` defines them, in each block one
chain of fused multiply-adds, emulated exactly, then the sum of the blocks.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from itertools import product

import numpy as np
import pytest
from gemm_calls import (
    EPILOGUE,
    LAYOUTS,
    UNITS,
    Array,
    Call,
    assert_same_bits,
    canonical,
    check,
    concurrent,
    concurrent_address,
    matrix,
    numbers,
    routine,
    shuffled,
)

from dualgrad.compiler.ir.dims import evaluate, sym
from dualgrad.compiler.lower.llvm.gemm import gemm_module, workspace_bytes
from dualgrad.runtime.dtype import (
    DType,
    bfloat16,
    float16,
    float32,
    float64,
    int8,
    int32,
    int64,
    uint32,
)
from dualgrad.runtime.errors import DTypeError
from dualgrad.runtime.linker import host_target
from dualgrad.runtime.threads import pool

# -- bits -------------------------------------------------------------------------------------

# around tile heights 6 and 14, widths 8 to 128, and the blocks of K
EDGES_M = (1, 2, 3, 5, 6, 7, 8, 12, 13, 14, 15, 16, 27, 28, 29, 43)
EDGES_N = (1, 3, 8, 15, 16, 17, 31, 32, 33, 48, 63, 65, 100, 127, 129)
EDGES_K = (1, 2, 7, 8, 15, 16, 17, 33)


@pytest.mark.parametrize("unit", UNITS, ids=str)
@pytest.mark.parametrize("seed", range(12))
def test_float32_keeps_the_order_for_all_edges_and_strides(
    seed: int, unit: tuple[int, int] | None
) -> None:
    rng = np.random.default_rng(seed)
    for a_layout in LAYOUTS:
        m, n, k = (int(rng.choice(sizes)) for sizes in (EDGES_M, EDGES_N, EDGES_K))
        a = matrix(rng, m, k, float32, a_layout)
        b = matrix(rng, k, n, float32, str(rng.choice(LAYOUTS)))
        check(a, b, float32, unit=unit)


@pytest.mark.parametrize("unit", UNITS, ids=str)
@pytest.mark.parametrize("height", range(1, 30))
def test_every_height_of_panels(height: int, unit: tuple[int, int] | None) -> None:
    rng = np.random.default_rng(height)
    for n in (4, 37, 160):
        b = matrix(rng, 9, n, float32, "rows")
        check(matrix(rng, height, 9, float32, "rows"), b, float32, unit=unit)


@pytest.mark.parametrize("unit", UNITS, ids=str)
@pytest.mark.parametrize("k", [1, 15, 16, 17, 40, 513, 1100])
def test_thin_products(k: int, unit: tuple[int, int] | None) -> None:
    rng = np.random.default_rng(k)
    for m, n, layout in product((1, 2, 3, 4, 7), (5, 16, 33, 100), ("rows", "columns")):
        a, b = matrix(rng, m, k, float32, layout), matrix(rng, k, n, float32, "columns")
        check(a, b, float32, unit=unit, thin=True)
    for layout in LAYOUTS:
        a, b = matrix(rng, 3, k, float32, "padded"), matrix(rng, k, 70, float32, layout)
        check(a, b, float32, unit=unit, thin=True)


def test_thin_products_of_batches_and_on_threads() -> None:
    rng = np.random.default_rng(1)
    a, b = numbers(rng, (3, 4, 600), float32), numbers(rng, (3, 700, 600), float32).swapaxes(1, 2)
    expected = np.stack([canonical(x, y) for x, y in zip(a, b, strict=True)])
    for threads in (0, 2):
        call = Call(a, b, float32)
        at = pool().parallel_for_address
        assert_same_bits(call.run(threads=threads, parallel_for=at, thin=True), expected)
        call.assert_frame_untouched()


@pytest.mark.parametrize("unit", UNITS, ids=str)
@pytest.mark.parametrize("k", [511, 512, 513, 1023, 1024, 1025, 1100])
def test_blocks_of_k(k: int, unit: tuple[int, int] | None) -> None:
    rng = np.random.default_rng(k)
    for m, n, layouts in ((3, 20, ("rows", "rows")), (31, 9, ("columns", "columns"))):
        a, b = matrix(rng, m, k, float32, layouts[0]), matrix(rng, k, n, float32, layouts[1])
        check(a, b, float32, unit=unit)


@pytest.mark.parametrize("layouts", [("rows", "columns"), ("columns", "spread")])
@pytest.mark.parametrize(
    ("m", "k", "n"),
    [(700, 40, 300), (360, 513, 260), (20, 130, 700), (800, 530, 70)],
    ids=["B fits", "B in blocks", "A fits", "A^T in many pages"],
)
def test_sizes_that_leave_the_caches(m: int, k: int, n: int, layouts: tuple[str, str]) -> None:
    rng = np.random.default_rng(m)
    a, b = matrix(rng, m, k, float32, layouts[0]), matrix(rng, k, n, float32, layouts[1])
    expected = canonical(a, b)
    for threads in (0, 2):
        call = Call(a, b, float32)
        actual = call.run(threads=threads, parallel_for=pool().parallel_for_address)
        assert_same_bits(actual, expected)
        call.assert_frame_untouched()


@pytest.mark.parametrize("unit", UNITS, ids=str)
def test_float64(unit: tuple[int, int] | None) -> None:
    rng = np.random.default_rng(64)
    for m, k, n in ((1, 1, 1), (3, 1030, 2), (15, 9, 18), (2, 17, 70), (7, 20, 9), (30, 3, 5)):
        for layouts in (("rows", "columns"), ("columns", "rows"), ("spread", "backwards")):
            a, b = matrix(rng, m, k, float64, layouts[0]), matrix(rng, k, n, float64, layouts[1])
            check(a, b, float64, unit=unit)


LOW_UNITS = [None, (256, 16), (128, 16)]


@pytest.mark.parametrize("unit", LOW_UNITS, ids=str)
@pytest.mark.parametrize("operands", [float16, bfloat16], ids=str)
def test_operands_of_16_bits(operands: DType, unit: tuple[int, int] | None) -> None:
    rng = np.random.default_rng(16)
    for m, k, n in ((1, 1, 1), (3, 17, 5), (15, 33, 40), (2, 530, 70), (40, 20, 9)):
        for layouts in product(("rows", "columns", "spread"), ("padded", "columns", "backwards")):
            a, b = (
                matrix(rng, *s, float32, x) for s, x in zip(((m, k), (k, n)), layouts, strict=True)
            )
            low = [x.astype(np.float16) if operands is float16 else upper(x) for x in (a, b)]
            wide = [x.astype(np.float32) if operands is float16 else raised(x) for x in low]
            for thin in (False, True):
                call = Call(*low, float32, operands=operands)
                assert_same_bits(call.run(unit, thin=thin), canonical(*wide))
                call.assert_frame_untouched()


@pytest.mark.parametrize("unit", LOW_UNITS, ids=str)
def test_every_float16_is_widened_exactly(unit: tuple[int, int] | None) -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    with np.errstate(invalid="ignore"):
        want = every.astype(np.float32) + np.float32(0)
    ones = np.ones((2, 1), np.float16)
    down = Call(every[:, None], ones.T, float32, operands=float16).run(unit)
    across = Call(ones, every[None], float32, operands=float16).run(unit)
    for k in range(2):
        assert_same_bits(down[:, k], want)
        assert_same_bits(across[k], want)


def upper(x: Array) -> Array:
    """The upper halves of float32, whose strides are kept."""
    bits = x.view(np.uint32) if x.strides[-1] == 4 else np.ascontiguousarray(x).view(np.uint32)
    half = (bits >> 16).astype(np.uint16)
    return half if x.strides[-1] == 4 else np.asfortranarray(half)


def raised(x: Array) -> Array:
    return (x.astype(np.uint32) << 16).view(np.float32)


@pytest.mark.parametrize("dtype", [int32, int64, uint32], ids=str)
def test_integers_wrap(dtype: DType) -> None:
    rng = np.random.default_rng(1)
    for m, k, n in ((1, 1, 1), (30, 530, 70), (5, 33, 129), (64, 17, 10)):
        for layouts in (("rows", "columns"), ("columns", "rows"), ("spread", "spread")):
            a, b = matrix(rng, m, k, dtype, layouts[0]), matrix(rng, k, n, dtype, layouts[1])
            check(a, b, dtype)


@pytest.mark.parametrize("unit", UNITS, ids=str)
def test_nan_and_infinity_stay_in_their_rows_and_columns(unit: tuple[int, int] | None) -> None:
    rng = np.random.default_rng(7)
    for m, k, n in ((17, 20, 35), (3, 600, 70), (30, 40, 9)):
        a, b = matrix(rng, m, k, float32, "rows"), matrix(rng, k, n, float32, "columns")
        a[m - 1, 3], a[0, 5], b[2, n - 1], b[7, 0] = np.nan, np.inf, -np.inf, np.float32(3e38)
        with np.errstate(invalid="ignore", over="ignore"):
            check(a, b, float32, unit=unit)
            check(a * np.float32(1e30), b * np.float32(1e30), float32, unit=unit)
            check(a * np.float32(1e-25), b * np.float32(1e-20), float32, unit=unit)


@pytest.mark.parametrize("dtype", [float32, int64], ids=str)
def test_empty_sums_are_zero_and_empty_results_untouched(dtype: DType) -> None:
    for m, k, n in ((0, 3, 4), (3, 4, 0), (3, 0, 4), (0, 0, 0), (20, 0, 70)):
        check(np.ones((m, k), dtype.numpy), np.ones((k, n), dtype.numpy), dtype)


def walk_of(places: Array, runs: Array) -> Array:
    return np.stack([places, runs], axis=1).astype(np.int64)


@pytest.mark.parametrize("operand", ["a", "b"])
@pytest.mark.parametrize(("m", "k", "n"), [(3, 40, 5), (12, 9, 33), (30, 530, 70), (64, 20, 300)])
def test_operands_that_walk(m: int, k: int, n: int, operand: str) -> None:
    rng = np.random.default_rng(m)
    a, b = matrix(rng, m, k, float32, "padded"), matrix(rng, k, n, float32, "padded")
    call = Call(a, b, float32)
    x = a if operand == "a" else b
    rows, cols = (np.arange(size) for size in x.shape)
    tables = walk_of(rows * (x.strides[0] // 4), np.ones_like(rows)), walk_of(cols, cols[::-1] + 1)
    call.more = {f"{operand}_row": 0, f"{operand}_col": 0}
    for name, table in zip(("rows", "cols"), tables, strict=True):
        call.more[f"{operand}_{name}"] = table.ctypes.data
    assert_same_bits(call.run(), canonical(a, b))
    call.assert_frame_untouched()


@pytest.mark.parametrize(("stretch", "m"), [(11, 121), (26, 52), (15, 45), (16, 32)])
@pytest.mark.parametrize(("run", "k"), [(3, 9), (96, 288), (130, 520), (40, 300)])
@pytest.mark.parametrize("unit", UNITS)
def test_rows_that_walk_evenly(
    stretch: int, m: int, run: int, k: int, unit: tuple[int, int] | None
) -> None:
    rng = np.random.default_rng(m)
    rows, cols = np.arange(m), np.arange(k)
    rows = rows // stretch * (stretch + 2) * 7 + rows % stretch * 7
    cols = cols // run * (run + 50) + cols % run
    left = np.minimum(run - np.arange(k) % run, k - np.arange(k))
    memory = rng.standard_normal(rows[-1] + cols[-1] + 1).astype(np.float32)
    a, b = memory[rows[:, None] + cols], matrix(rng, k, 40, float32, "rows")
    call = Call(a, b, float32)
    tables = walk_of(rows, np.ones_like(rows)), walk_of(cols, left)
    places = {"a": memory, "a_rows": tables[0], "a_cols": tables[1]}
    call.more = {"a_row": 0, "a_col": 0} | {x: y.ctypes.data for x, y in places.items()}
    assert_same_bits(call.run(unit), canonical(a, b))
    call.assert_frame_untouched()


# -- threads and the epilogue -----------------------------------------------------------------


PARALLEL_SHAPES = [(90, 300, 130), (64, 70, 512), (300, 600, 20), (16, 520, 100), (3, 520, 500)]


@pytest.mark.parametrize(("m", "k", "n"), PARALLEL_SHAPES)
def test_chunks_in_any_order_on_any_thread(m: int, k: int, n: int) -> None:
    rng = np.random.default_rng(n)
    a, b = matrix(rng, m, k, float32, "columns"), matrix(rng, k, n, float32, "columns")
    expected = canonical(a, b)
    for threads in (1, 2, 7):
        fake, sizes = shuffled(threads, seed=threads)
        address = ctypes.cast(fake, ctypes.c_void_p).value
        call = Call(a, b, float32)
        assert_same_bits(call.run(threads=threads, parallel_for=address or 0), expected)
        call.assert_frame_untouched()
        assert max(sizes) > 1


@pytest.mark.parametrize(("m", "k", "n"), PARALLEL_SHAPES)
def test_threads_at_the_same_time(m: int, k: int, n: int) -> None:
    rng = np.random.default_rng(m)
    a, b = matrix(rng, m, k, float32, "rows"), matrix(rng, k, n, float32, "rows")
    expected = Call(a, b, float32).run()
    fake = concurrent(3)
    address = ctypes.cast(fake, ctypes.c_void_p).value
    for _ in range(10):
        call = Call(a, b, float32)
        assert_same_bits(call.run(threads=3, parallel_for=address or 0), expected)
        call.assert_frame_untouched()


@pytest.mark.parametrize(("m", "k", "n"), [(9, 3100, 32), (5, 66 * 512 - 3, 7), (33, 5000, 61)])
@pytest.mark.parametrize("layout", ["rows", "columns"])
def test_threads_share_the_blocks_of_a_long_k(m: int, k: int, n: int, layout: str) -> None:
    rng = np.random.default_rng(m)
    a, b = matrix(rng, m, k, float32, layout), matrix(rng, k, n, float32, layout)
    expected = Call(a, b, float32).run().copy()
    for threads in (2, 3):
        fake, sizes = shuffled(threads, seed=threads)
        call = Call(a, b, float32)
        address = ctypes.cast(fake, ctypes.c_void_p).value
        assert_same_bits(call.run(threads=threads, parallel_for=address or 0), expected)
        call.assert_frame_untouched()
        assert len(sizes) == -(-k // 512 // 64)
        assert max(sizes) > threads


def test_small_products_wake_nobody() -> None:
    fake, sizes = shuffled(2, seed=0)
    a, b = np.ones((16, 16), np.float32), np.ones((16, 16), np.float32)
    Call(a, b, float32).run(threads=2, parallel_for=ctypes.cast(fake, ctypes.c_void_p).value or 0)
    assert sizes == []


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize(
    ("m", "k", "n"),
    [*PARALLEL_SHAPES, (1, 1, 1), (20, 0, 40), (360, 513, 260), (9, 3000, 32)],
)
def test_epilogue_gets_each_finished_element_once(m: int, k: int, n: int, threads: int) -> None:
    rng = np.random.default_rng(k)
    a, b = matrix(rng, m, k, float32, "rows"), matrix(rng, k, n, float32, "rows")
    expected = Call(a, b, float32).run().copy()
    call, seen = Call(a, b, float32), np.zeros((m, n), int)

    def epilogue(context: int, batch: int, row0: int, row1: int, col0: int, col1: int) -> None:
        piece = slice(row0, row1), slice(col0, col1)
        finished = (call.c[piece] == expected[piece]).all() and row0 < row1 and col0 < col1
        seen[piece] += 1 if finished and (context, batch) == (4711, 0) else 100
        call.c[piece] = -1

    callback = EPILOGUE(epilogue)
    address = ctypes.cast(callback, ctypes.c_void_p).value or 0
    call.run(threads=threads, parallel_for=concurrent_address(), epilogue=address)
    assert (seen == 1).all()
    assert (call.c == -1).all()


# -- memory -----------------------------------------------------------------------------------


class Guarded:
    """A matrix that ends where memory ends, or begins where it begins."""

    def __init__(self, shape: tuple[int, int], dtype: DType, at_end: bool) -> None:
        page = mmap.PAGESIZE
        size = int(np.prod(shape)) * dtype.itemsize
        pages = -(-size // page)
        self._map = mmap.mmap(-1, (pages + 2) * page)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        protect = ctypes.CDLL(None).mprotect
        protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        assert protect(base, page, 0) == 0
        assert protect(base + (pages + 1) * page, page, 0) == 0
        start = page + (pages * page - size if at_end else 0)
        flat = np.frombuffer(self._map, dtype.numpy, int(np.prod(shape)), start)
        self.array = flat.reshape(shape)


def _products_beside_forbidden_pages(unit: tuple[int, int] | None) -> None:
    rng = np.random.default_rng(5)
    for m, k, n in ((5, 7, 9), (13, 17, 33), (3, 40, 129), (29, 530, 50), (16, 16, 16)):
        for at_end in (False, True):
            for turned_a, turned_b in ((0, 0), (1, 1)):
                guards = [
                    Guarded((k, m) if turned_a else (m, k), float32, at_end),
                    Guarded((n, k) if turned_b else (k, n), float32, at_end),
                    Guarded((m, n), float32, at_end),
                ]
                a, b, c = (g.array for g in guards)
                a[:], b[:] = rng.standard_normal(a.shape), rng.standard_normal(b.shape)
                call = Call(a.T if turned_a else a, b.T if turned_b else b, float32)
                call.c = c
                call.run(unit)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and mprotect")
@pytest.mark.parametrize("unit", UNITS, ids=str)
def test_nothing_is_read_or_written_outside(unit: tuple[int, int] | None) -> None:
    routine(float32, unit)  # compiled before the fork
    child = os.fork()
    if child == 0:
        try:
            _products_beside_forbidden_pages(unit)
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert status == 0, f"ended by signal {status & 127}, exit code {status >> 8}"


def test_workspace_of_symbolic_sizes() -> None:
    batch, m, n, k = sym("b"), sym("m"), sym("n"), sym("k")
    symbolic = workspace_bytes(batch, m, n, k, 2)
    for sizes in ((1, 2, 3, 4), (2, 128, 512, 784), (3, 5000, 7, 3000)):
        symbols = (batch, m, n, k)
        values = {s.terms[0][0][0]: size for s, size in zip(symbols, sizes, strict=True)}
        exact = workspace_bytes(*sizes, 2)
        # one product needs less than the formula for any number of them
        assert exact <= evaluate(symbolic, values)
        assert sizes[0] == 1 or exact == evaluate(symbolic, values)


def test_workspace_is_bounded() -> None:
    assert workspace_bytes(1, 16, 16, 16, 1) < 500_000
    assert workspace_bytes(1, 10**6, 10**6, 10**6, 2) < 3_000_000
    assert workspace_bytes(9, 10**6, 10**6, 10**6, 2) < 5_000_000


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(DTypeError, match="32 or 64 bits"):
        gemm_module(int8, int8, host_target())
