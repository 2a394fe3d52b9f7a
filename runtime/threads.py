"""The thread pool: native threads that run the chunks of `parallel_for` (see threads_ir).

Workers are plain pthreads without a Python thread state: they never want the GIL, are not seen
by `threading`, and cannot delay the interpreter's exit.  Linux on x86-64 has them; elsewhere
`parallel_for` runs its chunks one after the other.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from dualgrad.runtime.config import config
from dualgrad.runtime.errors import ArgumentError
from dualgrad.runtime.host import cpu_count
from dualgrad.runtime.linker import host_object, link_library
from dualgrad.runtime.threads_ir import (
    CLOSED,
    MAX_THREADS,
    POOL_WORDS,
    RECORD,
    RECORD_WORDS,
    RESTS,
    SERIAL,
    SYMBOLS,
    SYMBOLS_THREADED,
    WORDS,
    linux_x86_64,
)

# idle workers spin this long before they sleep; a chunk of work should not take longer
_SPIN_SECONDS = 50e-6
_STACK_BYTES = 8 << 20
# with more threads than this the scheduler finds idle CPUs by itself
_PLACED_THREADS = 16


def _has_native_threads() -> bool:
    return sys.platform == "linux" and os.uname().machine == "x86_64" and sys.maxsize > 1 << 32


class Pool:
    """The pool of this process; made by `pool()`."""

    def __init__(self, threads: int) -> None:
        self._started = 0
        self._native = _has_native_threads()
        code = linux_x86_64() if self._native else SERIAL
        symbols = SYMBOLS_THREADED if self._native else SYMBOLS
        self._at = link_library("threads", host_object("threads", code), symbols)
        self._threads = 1
        if self._native:
            self._words = (ctypes.c_int64 * POOL_WORDS).from_address(self.address)
            self._spin, self._spin_cycles = self._measure_spin()
            self._libc: Any = ctypes.CDLL(None)
            self._reset()
            self.resize(threads)

    @property
    def address(self) -> int:
        """Address of the pool's words: the first argument of parallel_for."""
        return self._at["pool"]

    @property
    def parallel_for_address(self) -> int:
        """Address of `void parallel_for(ptr pool, ptr fn, ptr ctx, i64 n)`."""
        return self._at["parallel_for"]

    @property
    def threads(self) -> int:
        """Threads that share the work, the caller included; `tid` is below this."""
        return self._threads

    def resize(self, threads: int) -> None:
        """Share the work among this many threads, or as many as the system lets start, on the
        CPUs that this thread may use now."""
        if not self._native:
            return
        while self._started < threads - 1 and self._start_worker(self._started + 1):
            self._started += 1
        self._words[WORDS["started"]] = self._started
        self._place()
        self._threads = min(threads, self._started + 1)
        set_limit = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(self._at["set_limit"])
        set_limit(self.address, self._threads - 1)

    def restart(self) -> None:
        """After a fork: the child has the words but no workers.  The address stays the same."""
        if self._native:
            self._started = 0
            self._reset()
            self.resize(self._threads)

    def _measure_spin(self) -> tuple[int, int]:
        """How many pauses and how many cycles take _SPIN_SECONDS; a pause is 4 to 50 ns long on
        different CPUs."""
        pauses = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(self._at["pauses"])
        count, best, cycles = 1000, 1.0, 0
        for _ in range(5):
            begin = time.perf_counter()
            passed = pauses(count)
            seconds = time.perf_counter() - begin
            if seconds < best:
                best, cycles = seconds, passed
        share = _SPIN_SECONDS / best
        return max(1, int(share * count)), int(share * cycles)

    def _reset(self) -> None:
        ctypes.memset(self.address, 0, ctypes.sizeof(self._words))
        self._words[WORDS["state"]] = CLOSED
        self._words[WORDS["spin"]] = self._spin
        self._words[WORDS["patience"]] = max(1, self._spin // 4)
        self._words[WORDS["rare"]] = 2 * self._spin_cycles
        self._words[WORDS["rest"]] = RESTS * self._spin_cycles
        self._place()

    def _place(self) -> None:
        """Let workers run on the CPUs that this thread may use, and no others."""
        cpus = os.sched_getaffinity(0)
        placed = len(cpus) <= _PLACED_THREADS and max(cpus) < 63
        self._words[WORDS["cpus"]] = sum(1 << cpu for cpu in cpus) if placed else 0
        self._words[WORDS["avoid"]] = -1
        for tid in range(1, self._started + 1):
            kernel = self._words[WORDS["records"] + RECORD_WORDS * tid + RECORD["kernel"]]
            if kernel:  # else it has not run yet; it starts with what this thread may use
                with suppress(OSError):
                    os.sched_setaffinity(kernel, cpus)

    def _start_worker(self, tid: int) -> bool:
        """True, or False if the system refuses another thread."""
        index = WORDS["records"] + RECORD_WORDS * tid
        self._words[index + RECORD["pool"]] = self.address
        self._words[index + RECORD["tid"]] = tid
        thread = ctypes.c_ulong()
        attributes = ctypes.create_string_buffer(256)  # more than any libc's pthread_attr_t
        self._libc.pthread_attr_init(attributes)
        self._libc.pthread_attr_setstacksize(attributes, ctypes.c_size_t(_STACK_BYTES))
        self._libc.pthread_attr_setdetachstate(attributes, 1)
        # a worker takes no signals, except those about its own faults
        faults = {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - faults)
        try:
            result = self._libc.pthread_create(
                ctypes.byref(thread),
                attributes,
                ctypes.c_void_p(self._at["worker"]),
                ctypes.c_void_p(self.address + 8 * index),
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            self._libc.pthread_attr_destroy(attributes)
        return bool(result == 0)


_lock = threading.RLock()
_pool: Pool | None = None
_requested: int | None = None


def get_num_threads() -> int:
    """Threads that share the work.  Until the pool starts: what `set_num_threads` said, else
    DG_NUM_THREADS, else as many CPUs as the process may use."""
    if _pool is not None:
        return _pool.threads
    threads = _requested or config.num_threads or cpu_count()
    return min(threads, MAX_THREADS)


def set_num_threads(n: int) -> None:
    """Share the work among `n` threads from the next program on; 1 means serial.

    Not to be called while another thread runs a program: its scratch memory is sized for the
    number of threads at its start.
    """
    global _requested
    if type(n) is not int or not 1 <= n <= MAX_THREADS:
        raise ArgumentError(
            "not a number of threads",
            op="set_num_threads",
            expect=f"an int from 1 to {MAX_THREADS}",
            actual=repr(n),
            hint="os.cpu_count() is a good number",
        )
    with _lock:
        _requested = n
        if _pool is not None:
            _pool.resize(n)


def pool() -> Pool:
    """The pool of this process; the first call starts it."""
    global _pool
    if _pool is None:
        with _lock:
            if _pool is None:
                _pool = Pool(get_num_threads())
    return _pool


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()  # the old one may be held by a thread that does not exist here
    if _pool is not None:
        _pool.restart()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
