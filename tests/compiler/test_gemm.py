"""The GEMM routine against the canonical order of summation, bit by bit.

The oracle knows nothing of tiles: blocks of K as `kernel.ir` defines them, in each block one
chain of fused multiply-adds, emulated exactly, then the sum of the blocks.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import mmap
import os
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from dualgrad.compiler.ir.dims import evaluate, sym
from dualgrad.compiler.lower.llvm.gemm import (
    DESC,
    gemm_module,
    routine_name,
    workspace_bytes,
)
from dualgrad.runtime.dtype import DType, float32, float64, int8, int32, int64, uint32
from dualgrad.runtime.errors import DTypeError
from dualgrad.runtime.linker import host_object, host_target, link_library
from dualgrad.runtime.threads import pool

Array = np.ndarray[Any, Any]

_RUN = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_CHUNK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
_PARALLEL_FOR = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64
)
_EPILOGUE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, *[ctypes.c_int64] * 5)

# (bits of a vector, registers); None: what the host has
UNITS = [None, (512, 32), (256, 16), (128, 32), (128, 16)]
CANARY = 0xA5


@functools.cache
def routine(dtype: DType, unit: tuple[int, int] | None = None) -> Callable[[Any], None]:
    """The routine for a vector unit, compiled for the host whatever it really has."""
    target = host_target()
    if unit is not None:
        target = dataclasses.replace(target, vector_bits=unit[0], registers=unit[1])
    name = routine_name(dtype)
    code = host_object(f"{name}_{unit}", gemm_module(dtype, target))
    return _RUN(link_library(f"{name}_{unit}", code, (name,))[name])


# -- oracles ----------------------------------------------------------------------------------


def blocks(k: int) -> Iterator[slice]:
    count = -(-k // 512)
    step = -(-k // count) if k else 1
    return (slice(start, min(start + step, k)) for start in range(0, k, step))


def fma32(a: Array, b: Array, c: Array) -> Array:
    """a * b + c of float32, rounded once: the product is exact in float64; the sum is rounded to
    odd (Boldo and Melquiond 2008), so that rounding it again to float32 is right."""
    p, c = a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64)
    s = p + c
    with np.errstate(invalid="ignore", over="ignore"):
        t = s - p
        error = (p - (s - t)) + (c - t)
        inexact = np.isfinite(s) & (error != 0)
        even = s.view(np.int64) & 1 == 0
        odd = np.where(inexact & even, np.nextafter(s, np.copysign(np.inf, error)), s)
        return odd.astype(np.float32)


def canonical32(a: Array, b: Array) -> Array:
    out = np.zeros((a.shape[0], b.shape[1]), np.float32)
    for n, block in enumerate(blocks(a.shape[1])):
        part = np.zeros_like(out)
        for k in range(block.start, block.stop):
            part = fma32(a[:, k, None], b[k], part)
        out = out + part if n else part
    return out


def canonical64(a: Array, b: Array) -> Array:
    out = np.zeros((a.shape[0], b.shape[1]))
    for i, j in np.ndindex(*out.shape):
        parts = []
        for block in blocks(a.shape[1]):
            total = 0.0
            for x, y in zip(a[i, block], b[block, j], strict=True):
                total = float(Fraction(float(x)) * Fraction(float(y)) + Fraction(total))
            parts.append(total)
        out[i, j] = functools.reduce(lambda s, x: s + x, parts) if parts else 0.0
    return out


def canonical(a: Array, b: Array) -> Array:
    if a.dtype == np.float32:
        return canonical32(a, b)
    return canonical64(a, b) if a.dtype == np.float64 else a @ b


def assert_same_bits(actual: Array, expected: Array) -> None:
    """Equal bit for bit; any NaN equals any other."""
    unsigned = f"u{actual.dtype.itemsize}"
    same = actual.copy().view(unsigned) == expected.copy().view(unsigned)
    if actual.dtype.kind == "f":
        same |= np.isnan(actual) & np.isnan(expected)
    assert same.all(), f"{(~same).sum()} of {same.size} differ, first at {np.argwhere(~same)[0]}"


# -- operands ---------------------------------------------------------------------------------


def numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: DType) -> Array:
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype.numpy)
    info = np.iinfo(dtype.numpy)
    return rng.integers(info.min, info.max, shape, dtype.numpy, endpoint=True)


LAYOUTS = ("rows", "columns", "padded", "spread", "backwards", "one_row", "one_column", "windows")


def matrix(rng: np.random.Generator, rows: int, cols: int, dtype: DType, layout: str) -> Array:
    """A matrix of random numbers whose strides are of the named kind."""
    make = functools.partial(numbers, rng, dtype=dtype)
    if layout == "columns":
        return make((cols, rows)).T
    if layout == "padded":
        return make((rows, cols + 3))[:, 1 : cols + 1]
    if layout == "spread":
        return make((2 * rows, 3 * cols))[::2, ::3]
    if layout == "backwards":
        return make((rows, cols))[::-1, ::-1]
    if layout == "one_row":
        return np.broadcast_to(make((1, cols)), (rows, cols))
    if layout == "one_column":
        return np.broadcast_to(make((rows, 1)), (rows, cols))
    if layout == "windows":  # both strides 1
        line, size = make((rows + cols,)), dtype.itemsize
        return np.lib.stride_tricks.as_strided(line, (rows, cols), (size, size))
    assert layout == "rows"
    return make((rows, cols))


class Call:
    """One call of the routine into a C with canaries around it and between its rows."""

    def __init__(self, a: Array, b: Array, dtype: DType, gap: int = 5) -> None:
        self.a, self.b, self.dtype = a, b, dtype
        (self.m, self.k), self.n = a.shape, b.shape[1]
        self.frame = np.full((self.m + 2) * (self.n + gap) * dtype.itemsize, CANARY, np.uint8)
        grid = self.frame.view(dtype.numpy).reshape(self.m + 2, self.n + gap)
        self.c = grid[1:-1, : self.n]

    def run(
        self,
        unit: tuple[int, int] | None = None,
        *,
        threads: int = 0,
        parallel_for: int = 0,
        epilogue: int = 0,
    ) -> Array:
        """Run it; `threads` is the descriptor's `parallel`."""
        size = workspace_bytes(self.m, self.n, self.k, max(threads, 1))
        work = np.full(size + 64 + 64, CANARY, np.uint8)
        start = -work.ctypes.data % 64
        item = self.dtype.itemsize
        values = {
            "a": self.a.ctypes.data,
            "a_row": self.a.strides[0] // item,
            "a_col": self.a.strides[1] // item,
            "b": self.b.ctypes.data,
            "b_row": self.b.strides[0] // item,
            "b_col": self.b.strides[1] // item,
            "c": self.c.ctypes.data,
            "c_row": self.c.strides[0] // item,
            "m": self.m,
            "n": self.n,
            "k": self.k,
            "work": work.ctypes.data + start,
            "pool": pool().address,
            "parallel_for": parallel_for,
            "epilogue": epilogue,
            "epilogue_ctx": 4711,
            "batch": 3,
            "parallel": threads,
        }
        desc = (ctypes.c_int64 * len(DESC))(*(values.get(name, 0) for name in DESC))
        routine(self.dtype, unit)(desc)
        assert (work[:start] == CANARY).all()
        assert (work[start + size :] == CANARY).all()
        return self.c

    def assert_frame_untouched(self) -> None:
        self.c[:] = np.full(self.dtype.itemsize, CANARY, np.uint8).view(self.dtype.numpy)[0]
        assert (self.frame == CANARY).all()


def check(a: Array, b: Array, dtype: DType, **how: Any) -> None:
    call = Call(a, b, dtype)
    assert_same_bits(call.run(**how), canonical(a, b))
    call.assert_frame_untouched()


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
@pytest.mark.parametrize("k", [511, 512, 513, 1023, 1024, 1025, 1100])
def test_blocks_of_k(k: int, unit: tuple[int, int] | None) -> None:
    rng = np.random.default_rng(k)
    for m, n, layouts in ((3, 20, ("rows", "rows")), (31, 9, ("columns", "columns"))):
        a, b = matrix(rng, m, k, float32, layouts[0]), matrix(rng, k, n, float32, layouts[1])
        check(a, b, float32, unit=unit)


@pytest.mark.parametrize("layouts", [("rows", "columns"), ("columns", "spread")])
@pytest.mark.parametrize(
    ("m", "k", "n"),
    [(700, 40, 300), (360, 513, 260), (20, 130, 700)],
    ids=["B fits", "B in blocks", "A fits"],
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


# -- threads and the epilogue -----------------------------------------------------------------


def shuffled(threads: int, seed: int) -> tuple[Any, list[int]]:
    """A parallel_for that runs chunks in random order, each as a random thread."""
    rng, sizes = np.random.default_rng(seed), []

    def run(_pool: int, step: int, context: int, count: int) -> None:
        sizes.append(count)
        for chunk in rng.permutation(count):
            _CHUNK(step)(context, int(chunk), int(rng.integers(threads)))

    return _PARALLEL_FOR(run), sizes


def concurrent(threads: int) -> Any:
    """A parallel_for on Python threads, each taking every `threads`-th chunk."""

    def run(_pool: int, step: int, context: int, count: int) -> None:
        def work(tid: int) -> None:
            for chunk in range(tid, count, threads):
                _CHUNK(step)(context, chunk, tid)

        workers = [threading.Thread(target=work, args=(tid,)) for tid in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()

    return _PARALLEL_FOR(run)


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


def test_small_products_wake_nobody() -> None:
    fake, sizes = shuffled(2, seed=0)
    a, b = np.ones((16, 16), np.float32), np.ones((16, 16), np.float32)
    Call(a, b, float32).run(threads=2, parallel_for=ctypes.cast(fake, ctypes.c_void_p).value or 0)
    assert sizes == []


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize(
    ("m", "k", "n"), [*PARALLEL_SHAPES, (1, 1, 1), (20, 0, 40), (360, 513, 260)]
)
def test_epilogue_gets_each_finished_element_once(m: int, k: int, n: int, threads: int) -> None:
    rng = np.random.default_rng(k)
    a, b = matrix(rng, m, k, float32, "rows"), matrix(rng, k, n, float32, "rows")
    expected = Call(a, b, float32).run().copy()
    call, seen = Call(a, b, float32), np.zeros((m, n), int)

    def epilogue(context: int, batch: int, row0: int, row1: int, col0: int, col1: int) -> None:
        piece = slice(row0, row1), slice(col0, col1)
        finished = (call.c[piece] == expected[piece]).all() and row0 < row1 and col0 < col1
        seen[piece] += 1 if finished and (context, batch) == (4711, 3) else 100
        call.c[piece] = -1

    callback = _EPILOGUE(epilogue)
    address = ctypes.cast(callback, ctypes.c_void_p).value or 0
    call.run(threads=threads, parallel_for=concurrent_address(), epilogue=address)
    assert (seen == 1).all()
    assert (call.c == -1).all()


@functools.cache
def _two_threads() -> Any:
    return concurrent(2)


def concurrent_address() -> int:
    return ctypes.cast(_two_threads(), ctypes.c_void_p).value or 0


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
    m, n, k = sym("m"), sym("n"), sym("k")
    symbolic = workspace_bytes(m, n, k, 2)
    for sizes in ((2, 3, 4), (128, 512, 784), (5000, 7, 3000)):
        values = {s.terms[0][0][0]: size for s, size in zip((m, n, k), sizes, strict=True)}
        assert evaluate(symbolic, values) == workspace_bytes(*sizes, 2)


def test_workspace_is_bounded() -> None:
    assert workspace_bytes(16, 16, 16, 1) < 500_000
    assert workspace_bytes(10**6, 10**6, 10**6, 2) < 3_000_000


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(DTypeError, match="32 or 64 bits"):
        gemm_module(int8, host_target())
