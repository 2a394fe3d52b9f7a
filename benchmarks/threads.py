"""What threads are worth: python -m benchmarks.threads [options].

Loops of the thread pool itself, with bodies that do nothing but take time, and work of the
library.  Each row is timed with one thread and with all of them, both with all cores free and
beside a process that keeps one core busy.  The four take turns in blocks, in random order.
"""

from __future__ import annotations

import argparse
import ctypes
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import dualgrad as dg
from benchmarks.machine import Others, describe
from benchmarks.report import aligned, time_text, write_section
from benchmarks.results import percentile
from benchmarks.training import training_step
from dualgrad import functional
from dualgrad.runtime.host import cpu_count
from dualgrad.runtime.linker import host_object, link_library
from dualgrad.runtime.threads import pool

_BLOCK = 0.03  # seconds that are measured
_SETTLE = 0.005  # seconds before them
_PAUSE = 1e-3
_FORKS = 1000  # empty loops that are timed together
_SITUATIONS = ("cores free", "one core busy")

# @steps takes ctx[0] steps, each waiting for the one before; @repeat calls parallel_for many times
_BODIES = """\
define void @nothing(ptr %ctx, i64 %chunk, i64 %tid) {
  ret void
}

define void @steps(ptr %ctx, i64 %chunk, i64 %tid) {
entry:
  %n = load i64, ptr %ctx
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
  %x = phi double [1.0, %entry], [%y, %loop]
  %y = fmul double %x, 0x3FEFFFFFFFFFFFFF
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %n
  br i1 %more, label %loop, label %exit
exit:
  %result = getelementptr i64, ptr %ctx, i64 1
  store double %y, ptr %result
  ret void
}

define void @repeat(ptr %for, ptr %pool, ptr %body, ptr %ctx, i64 %n, i64 %times) {
entry:
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
  call void %for(ptr %pool, ptr %body, ptr %ctx, i64 %n)
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %times
  br i1 %more, label %loop, label %exit
exit:
  ret void
}
"""

# keeps one core busy until this process ends
_SPINNER = """\
import os
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(1_000_000):
        pass
"""

Blocks = dict[tuple[bool, int], list[float]]


@dataclass
class Row:
    """Work that is done by calling `run`.

    per      how often it is done in one call
    pause    seconds without work before each call, which do not count
    compare  False where one thread does nothing that could be compared
    """

    name: str
    run: Callable[[], Any]
    per: int = 1
    pause: float = 0.0
    compare: bool = True
    blocks: Blocks = field(default_factory=dict)


class Loop:
    """Loops on the pool: `chunks` of `seconds` together, or empty ones; `times` of them."""

    def __init__(self, chunks: int, seconds: float = 0.0, times: int = 1) -> None:
        words = (ctypes.c_void_p,) * 4 + (ctypes.c_int64,) * 2
        at = _bodies()
        self._repeat = ctypes.CFUNCTYPE(None, *words)(at["repeat"])
        self._body = at["steps" if seconds else "nothing"]
        self._context = (ctypes.c_int64 * 2)(round(seconds / chunks / _step()) if seconds else 0)
        self._numbers = chunks, times

    def __call__(self) -> None:
        threads, context = pool(), ctypes.addressof(self._context)
        self._repeat(
            threads.parallel_for_address, threads.address, self._body, context, *self._numbers
        )


@cache
def _bodies() -> dict[str, int]:
    return link_library("bodies", host_object("bodies", _BODIES), ("nothing", "steps", "repeat"))


@cache
def _step() -> float:
    """Seconds of one step."""
    steps = 100_000
    body = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    run, context = body(_bodies()["steps"]), (ctypes.c_int64 * 2)(steps)
    times = []
    for _ in range(20):
        started = time.perf_counter()
        run(ctypes.addressof(context), 0, 0)
        times.append(time.perf_counter() - started)
    return min(times) / steps


def rows() -> list[Row]:
    """All rows, with tensors of their own."""
    return [*loop_rows(), *work_rows()]


def loop_rows() -> list[Row]:
    return [
        Row("empty loop of 2 chunks", Loop(2, times=_FORKS), per=_FORKS, compare=False),
        Row("empty loop of 4 chunks after 1 ms of rest", Loop(4), pause=_PAUSE, compare=False),
        Row("loop of 20 us after 1 ms of rest", Loop(2, 20e-6), pause=_PAUSE),
        Row("loop of 50 us, 4 chunks", Loop(4, 50e-6)),
        Row("loop of 200 us, 8 chunks", Loop(8, 200e-6)),
        Row("loop of 1 ms, 64 chunks", Loop(64, 1e-3)),
        Row("loop of 20 ms, 64 chunks", Loop(64, 20e-3)),
        Row("loop of 100 us after 1 ms of rest", Loop(7, 100e-6), pause=_PAUSE),
        Row("loop of 1 ms after 1 ms of rest", Loop(64, 1e-3), pause=_PAUSE),
    ]


def work_rows() -> list[Row]:
    x, large, square = dg.randn(1_000_000), dg.randn(10_000_000), dg.randn(512, 512)
    grid = dg.randn(4096, 1024)
    step = dg.function(training_step())
    return [
        Row("exp, 1e6 numbers", lambda: dg.exp(x)),
        Row("add, 1e6 numbers", lambda: x + x),
        Row("add, 1e7 numbers", lambda: large + large),
        Row("softmax, 4096 x 1024", lambda: functional.softmax(grid, -1)),
        Row("matrix product, 512 x 512 x 512", lambda: square @ square),
        Row("training step, MLP 784-512-10, batch 128, compiled", step),
    ]


class Spinner:
    """A process that keeps one core busy while it is not stopped."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def run(self, on: bool) -> None:
        self._process.send_signal(signal.SIGCONT if on else signal.SIGSTOP)


@contextmanager
def spinner() -> Iterator[Spinner]:
    """Starts it; it ends with the scope, or else with this process."""
    process = subprocess.Popen([sys.executable, "-c", _SPINNER], start_new_session=True)
    try:
        yield Spinner(process)
    finally:
        process.kill()
        process.wait()


def _rest(seconds: float) -> None:
    """Let time go by without giving the processor away."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def block(row: Row, seconds: float) -> float:
    """Nanoseconds of doing the work once, the mean over a block."""
    calls, spent, pause = 0, 0.0, row.pause
    end = time.perf_counter() + seconds
    while not calls or time.perf_counter() < end:
        if pause:
            _rest(pause)
        started = time.perf_counter()
        row.run()
        spent += time.perf_counter() - started
        calls += 1
    return 1e9 * spent / calls / row.per


def measure(row: Row, spin: Spinner, threads: int, repeats: int) -> None:
    """Blocks with one thread and with all, beside a busy process and not."""
    arms = [(busy, n) for busy in (False, True) for n in (1, threads)]
    row.blocks = {arm: [] for arm in arms}
    spin.run(False)
    row.run()
    for _ in range(repeats):
        random.shuffle(arms)
        for busy, n in arms:
            spin.run(busy)
            dg.set_num_threads(n)
            block(row, _SETTLE)
            row.blocks[busy, n].append(block(row, _BLOCK))


def cells(row: Row, threads: int) -> list[str]:
    """Name, and for each situation the times and how many times as fast all threads are."""
    out = [row.name]
    for busy in (False, True):
        one, all_ = row.blocks[busy, 1], row.blocks[busy, threads]
        ratios = [a / b for a, b in zip(one, all_, strict=True)]
        low, middle, high = (percentile(ratios, p) for p in (25, 50, 75))
        out += [time_text(statistics.median(times)) for times in (one, all_)]
        out.append(f"{middle:.2f} ({low:.2f}-{high:.2f})" if row.compare else "")
    return out


def columns(threads: int) -> tuple[str, ...]:
    parts = [(f"{s}: 1 thread", f"{threads} threads", "times as fast") for s in _SITUATIONS]
    return ("work", *(cell for part in parts for cell in part))


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.threads", description=__doc__)
    parser.add_argument("--repeats", type=int, default=15, help="blocks of each kind")
    parser.add_argument("--only", default="", metavar="TEXT", help="rows whose name has this text")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table to a file")
    arguments = parser.parse_args(argv)
    threads = cpu_count()
    if threads < 2:
        print("this process may use one core only: there is nothing to compare", file=sys.stderr)
        return 2
    dg.seed(0)
    others = Others()
    chosen = [row for row in rows() if arguments.only in row.name]
    with spinner() as spin:
        for row in chosen:
            measure(row, spin, threads, arguments.repeats)
    table = [columns(threads), *(tuple(cells(row, threads)) for row in chosen)]
    print("\n".join(aligned(table)))
    if arguments.markdown:
        machine, program = describe([], threads), "benchmarks.threads"
        write_section(arguments.markdown, program, argv, machine, others.share(), table)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
