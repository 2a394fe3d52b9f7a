"""What the machine could do at best: the floor of a workload's time.

Measured by small loops on dualgrad's own thread pool, with vectors as wide as the machine's:

- multiply-adds of registers alone, in enough chains that their latency does not show;
- copies of half of the bytes to the other half, with ordinary stores and with stores past the
  caches (the better one counts), over and over on the same memory: so what fits into a cache is
  copied there, as a workload of that size would be.

A workload's floor is the longer of the two: it needs so many operations, and so many bytes are
inputs, results or state (see `Work`).
"""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np

from benchmarks.workloads.base import Work
from dualgrad.runtime.linker import host_object, host_target, link_library
from dualgrad.runtime.threads import pool, set_num_threads

_OTHER_REGISTERS = 4  # than those of the chains
_TURNS = 10_000  # of each chain in one run: a tenth of a millisecond
_NANOSECONDS = 3e5  # of one measurement, about
_TRIES = 5
_STEP = 256  # bytes
_PIECE = 64 << 10  # bytes of a chunk of copying, at most
_ALIGNMENT = 4096
_HEADER = 8  # words
_SYMBOLS = ("multiply", "copy", "stream")


class Floor:
    """Measures how long the machine needs for some work with all threads of the pool."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._copies = _Copies(work.bytes // 2)

    def block(self) -> float:
        """Nanoseconds of the floor, now."""
        return max(self._work.flops / flops_per_ns(), self._copies.nanoseconds())


def flops_per_ns() -> float:
    """Multiplications and additions of float32 per nanosecond (GFLOP/s), now."""
    threads = pool().threads
    context = (ctypes.c_int64 * (_HEADER + 8 * threads))(_TURNS)
    flops = 2 * _lanes() * _chains() * _TURNS * threads
    return flops / _median(partial(_run, "multiply", context, threads))


def machine_text(threads: int) -> str:
    """What the machine can do with one thread and with some, in one line; the pool has these many
    afterwards."""
    texts = []
    for count in sorted({1, threads}):
        set_num_threads(count)
        copies = [f"{bytes_per_ns(size << 20):.0f} GB/s of {size} MiB" for size in (1, 16, 256)]
        unit = "thread" if count == 1 else "threads"
        texts.append(f"{count} {unit}: {flops_per_ns():.0f} GFLOP/s, copies {', '.join(copies)}")
    return "; ".join(texts)


class _Copies:
    """Two pieces of memory, one of which is copied to the other."""

    def __init__(self, count: int) -> None:
        self._count = -(-count // _STEP) * _STEP
        # written, for pages that never were are all one page of zeros, which stays in cache
        self._memory = np.ones(2 * (self._count + _ALIGNMENT), np.uint8)
        first = -(-self._memory.ctypes.data // _ALIGNMENT) * _ALIGNMENT
        second = first + -(-self._count // _ALIGNMENT) * _ALIGNMENT
        share = -(-self._count // pool().threads // _STEP) * _STEP
        piece = min(max(share, _STEP), _PIECE)
        self._chunks = -(-self._count // piece)
        self._context = (ctypes.c_int64 * _HEADER)(first, second, piece, self._count)

    def nanoseconds(self) -> float:
        """Of one copy, by the better kind of stores."""
        return min(
            _median(partial(_run, name, self._context, self._chunks)) for name in ("copy", "stream")
        )


def bytes_per_ns(total: int) -> float:
    """Bytes read and written per nanosecond (GB/s) by copies that touch `total` bytes, now."""
    return total / _Copies(total // 2).nanoseconds()


def _median(run: Callable[[], None]) -> float:
    """Nanoseconds of a run, after some that do not count."""
    clock = time.perf_counter_ns
    run()
    begin = clock()
    run()
    repeats = max(1, int(_NANOSECONDS / max(clock() - begin, 1)))
    times = []
    for _ in range(_TRIES):
        begin = clock()
        for _ in range(repeats):
            run()
        times.append((clock() - begin) / repeats)
    return statistics.median(times)


def _lanes() -> int:
    return host_target().vector_bits // 32


def _chains() -> int:
    """As many as there are registers for."""
    return host_target().registers - _OTHER_REGISTERS


def _run(name: str, context: Any, chunks: int) -> None:
    threads, (parallel_for, bodies) = pool(), _code()
    parallel_for(threads.address, bodies[name], ctypes.addressof(context), chunks)


@cache
def _code() -> tuple[Any, dict[str, int]]:
    """`parallel_for`, and the addresses of the loops."""
    lanes = _lanes()
    text = _multiply(lanes, _chains()) + _copy("copy", lanes, "", "")
    text += _copy("stream", lanes, ", !nontemporal !0", "  fence seq_cst\n")
    text += "!0 = !{i32 1}\n"
    words = (ctypes.c_void_p,) * 3 + (ctypes.c_int64,)
    parallel_for = ctypes.CFUNCTYPE(None, *words)(pool().parallel_for_address)
    return parallel_for, link_library("floor", host_object("floor", text), _SYMBOLS)


def _multiply(lanes: int, count: int) -> str:
    """@multiply(ctx, ...) takes ctx[0] turns of a multiply-add in each chain; all tend to 1."""
    vector, chains = f"<{lanes} x float>", range(count)
    half = f"{vector} splat (float 0.5)"
    fma = f"@llvm.fma.v{lanes}f32"
    phis = [f"%x{k} = phi {vector} [zeroinitializer, %entry], [%y{k}, %loop]" for k in chains]
    adds = [f"%y{k} = call {vector} {fma}({vector} %x{k}, {half}, {half})" for k in chains]
    sums = [f"%s{k} = fadd {vector} %{f's{k - 1}' if k > 1 else 'y0'}, %y{k}" for k in chains[1:]]
    return f"""\
declare {vector} {fma}({vector}, {vector}, {vector})
define void @multiply(ptr %ctx, i64 %chunk, i64 %tid) {{
entry:
  %n = load i64, ptr %ctx
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
{"".join(f"  {line}{chr(10)}" for line in (*phis, *adds))}\
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %n
  br i1 %more, label %loop, label %exit
exit:
{"".join(f"  {line}{chr(10)}" for line in sums)}\
  %sum = extractelement {vector} %s{count - 1}, i64 0
  %place = add i64 %tid, 1
  %result = getelementptr <8 x i64>, ptr %ctx, i64 %place
  store float %sum, ptr %result
  ret void
}}
"""


def _copy(name: str, lanes: int, mark: str, last: str) -> str:
    """A loop with ctx = (source, destination, bytes of a chunk, bytes of all)."""
    vector, width = f"<{lanes} x float>", 4 * lanes
    moves = "".join(
        f"""\
  %a{k} = add i64 %i, {k * width}
  %p{k} = getelementptr i8, ptr %source, i64 %a{k}
  %q{k} = getelementptr i8, ptr %target, i64 %a{k}
  %v{k} = load {vector}, ptr %p{k}, align {width}
  store {vector} %v{k}, ptr %q{k}, align {width}{mark}
"""
        for k in range(_STEP // width)
    )
    return f"""\
define void @{name}(ptr %ctx, i64 %chunk, i64 %tid) {{
entry:
  %source = load ptr, ptr %ctx
  %target.at = getelementptr i64, ptr %ctx, i64 1
  %target = load ptr, ptr %target.at
  %piece.at = getelementptr i64, ptr %ctx, i64 2
  %piece = load i64, ptr %piece.at
  %all.at = getelementptr i64, ptr %ctx, i64 3
  %all = load i64, ptr %all.at
  %begin = mul i64 %chunk, %piece
  %after = add i64 %begin, %piece
  %less = icmp slt i64 %after, %all
  %end = select i1 %less, i64 %after, i64 %all
  br label %loop
loop:
  %i = phi i64 [%begin, %entry], [%next, %loop]
{moves}\
  %next = add i64 %i, {_STEP}
  %more = icmp slt i64 %next, %end
  br i1 %more, label %loop, label %exit
exit:
{last}\
  ret void
}}
"""
