"""Calls of the GEMM routine with operands of any strides, and what it must return."""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from dualgrad.compiler.lower.llvm.gemm import (
    DESC,
    gemm_module,
    routine_name,
    workspace_bytes,
)
from dualgrad.runtime.dtype import DType
from dualgrad.runtime.linker import host_object, host_target, link_library
from dualgrad.runtime.threads import pool

Array = np.ndarray[Any, Any]

_RUN = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_CHUNK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
_PARALLEL_FOR = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64
)
EPILOGUE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, *[ctypes.c_int64] * 5)

# (bits of a vector, registers); None: what the host has
UNITS = [None, (512, 32), (256, 16), (128, 32), (128, 16)]
CANARY = 0xA5


@functools.cache
def routine(
    dtype: DType,
    unit: tuple[int, int] | None = None,
    operands: DType | None = None,
    thin: bool = False,
) -> Callable[[Any], None]:
    """The routine for a vector unit, compiled for the host whatever it really has."""
    target = host_target()
    if unit is not None:
        target = dataclasses.replace(target, vector_bits=unit[0], registers=unit[1])
    name = routine_name(dtype, operands or dtype, thin)
    code = host_object(f"{name}_{unit}", gemm_module(dtype, operands or dtype, target, thin))
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
    """One call of the routine into a C with canaries around it and between its rows; of a batch
    of matrices (three dimensions) with `between` rows of canaries between them."""

    def __init__(
        self,
        a: Array,
        b: Array,
        dtype: DType,
        gap: int = 5,
        between: int = 0,
        operands: DType | None = None,
    ) -> None:
        self.dtype, self.more = dtype, dict[str, int]()  # further slots of the descriptor
        self.operands = operands or dtype
        self.a, self.b = (x if x.ndim == 3 else x[None] for x in (a, b))
        (self.batches, self.m, self.k), self.n = self.a.shape, b.shape[-1]
        self.apart = self.m + between
        rows = self.batches * self.apart + 2
        self.frame = np.full(rows * (self.n + gap) * dtype.itemsize, CANARY, np.uint8)
        grid = self.frame.view(dtype.numpy).reshape(rows, self.n + gap)
        inner = grid[1:-1].reshape(self.batches, self.apart, self.n + gap)
        self.c = inner[:, : self.m, : self.n]
        if a.ndim == 2:
            self.c = self.c[0]

    def run(
        self,
        unit: tuple[int, int] | None = None,
        *,
        threads: int = 0,
        parallel_for: int = 0,
        epilogue: int = 0,
        thin: bool = False,
    ) -> Array:
        """Run it, or the one for thin products; `threads` is the descriptor's `parallel`."""
        size = workspace_bytes(self.batches, self.m, self.n, self.k, max(threads, 1))
        work = np.full(size + 64 + 64, CANARY, np.uint8)
        start = -work.ctypes.data % 64
        item, size_c = self.a.itemsize, self.dtype.itemsize
        values = {
            "a": self.a.ctypes.data,
            "a_batch": self.a.strides[0] // item,
            "a_row": self.a.strides[1] // item,
            "a_col": self.a.strides[2] // item,
            "b": self.b.ctypes.data,
            "b_batch": self.b.strides[0] // item,
            "b_row": self.b.strides[1] // item,
            "b_col": self.b.strides[2] // item,
            "c": self.c.ctypes.data,
            "c_batch": self.apart * self.c.strides[-2] // size_c,
            "c_row": self.c.strides[-2] // size_c,
            "batches": self.batches,
            "m": self.m,
            "n": self.n,
            "k": self.k,
            "work": work.ctypes.data + start,
            "pool": pool().address,
            "parallel_for": parallel_for,
            "epilogue": epilogue,
            "epilogue_ctx": 4711,
            "parallel": threads,
        }
        values |= self.more
        desc = (ctypes.c_int64 * len(DESC))(*(values.get(name, 0) for name in DESC))
        routine(self.dtype, unit, self.operands, thin)(desc)
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


# -- threads ----------------------------------------------------------------------------------


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


@functools.cache
def _two_threads() -> Any:
    return concurrent(2)


def concurrent_address() -> int:
    return ctypes.cast(_two_threads(), ctypes.c_void_p).value or 0
