"""Pooled host memory: 64-byte-aligned buffers that go back to a free list when they die.

A buffer is a ctypes array placed on pooled memory, below a NumPy array.  NumPy keeps the ctypes
object alive through every view; when the last one dies, its `__del__` puts the address back into
the free list of its size class.

Size classes go in steps of 64 bytes up to 1 KiB, then eight per doubling: at most 12.5 % is lost.
Small blocks are cut from slabs that stay with the process.  Blocks of 64 KiB and more are
mappings of their own; the free ones among them are kept up to a cap (an eighth of the memory).

Taking and giving back are single list operations, so threads need no lock.
"""

from __future__ import annotations

import ctypes
import functools
import math
import mmap
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ctypes import addressof
from typing import Any, Protocol, cast

import numpy as np
from numpy import ndarray

from dualgrad.runtime.dtype import DType
from dualgrad.runtime.errors import ArgumentError, CompileError, OutOfMemory
from dualgrad.runtime.host import memory_bytes
from dualgrad.runtime.native import arrays, library, pool
from dualgrad.runtime.records import dataclass
from dualgrad.runtime.srcinfo import user_line_key

ALIGNMENT = 64
_SMALL = 1024
_LARGE = 64 << 10
_SLAB = 1 << 20
_HUGE = 2 << 20
_GUARD = 256
_CANARY = 0xA5
BLOCK_TYPES: set[type] = set()  # of blocks of the pool: no two of them share memory
_POISON = 0xFF


class Block(Protocol):
    """Memory from the pool; it goes back when the object dies."""

    @property
    def address(self) -> int:
        """Address of the first byte, a multiple of 64."""

    @property
    def nbytes(self) -> int:
        """Usable size in bytes, at least what was asked for."""


@dataclass(frozen=True)
class MemoryStats:
    """Bytes are those of size classes, so rounding is included.

    live_bytes     in use
    peak_bytes     most that was in use since the start or `reset_peak`
    pooled_bytes   free and kept for reuse
    allocations    buffers handed out since the start
    """

    live_bytes: int
    peak_bytes: int
    pooled_bytes: int
    allocations: int


class _Tally:
    """Running numbers; `+=` on them needs no lock, since CPython switches threads at calls and
    jumps only (without the GIL they may drift, which harms reports, not memory)."""

    __slots__ = ("allocations", "guards", "live", "peak")

    def __init__(self) -> None:
        self.live = 0
        self.peak = 0
        self.allocations = 0
        self.guards: _Guards | None = None


class _Mappings:
    """Anonymous mappings of the process: slabs, and one for each large block."""

    __slots__ = ("_anchors", "cached", "cap", "large")

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self.cached = 0  # bytes of the free large blocks
        self.large: list[_SizeClass] = []
        self._anchors: dict[int, Any] = {}

    def allocate(self, size: int) -> int:
        """Address of `size` fresh zero bytes at a page boundary.  Raises OSError and the like."""
        if sys.platform == "win32":
            memory = mmap.mmap(-1, size)
        else:  # private: a forked child must not write into its parent's arrays
            memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if size >= _HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
            with suppress(OSError):  # kernels without huge pages
                memory.madvise(mmap.MADV_HUGEPAGE)
        anchor = ctypes.c_byte.from_buffer(memory)
        address = addressof(anchor)
        self._anchors[address] = anchor
        return address

    def keep(self, address: int, size: int) -> bool:
        """A large block has died.  True: it may be reused; False: it went back to the system."""
        if self.cached + size > self.cap:
            self.release_cached()  # sizes that nobody asks for would fill the cap for ever
            if size > self.cap:
                self._anchors.pop(address, None)
                return False
        self.cached += size
        return True

    def release_cached(self) -> None:
        """Give all free large blocks back to the system."""
        for kind in self.large:
            while kind.free:
                self._anchors.pop(kind.pop(), None)
                self.cached -= kind.size


class _SizeClass:
    """Blocks of one size: the free addresses, and how to make an object on one."""

    __slots__ = ("free", "make", "pop", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.free: list[int] = []
        self.pop = self.free.pop
        self.make: Callable[[int], Any] = _block_type(size, self.free).from_address


def _block_type(size: int, free: list[int]) -> type[ctypes.Array[ctypes.c_byte]]:
    """The ctypes type of a size class.  Its `__del__` runs at interpreter exit too, when the
    globals of this module may be gone: it uses cells only."""
    tally, push, address_of = _tally, free.append, addressof
    keep = _mappings.keep if size >= _LARGE else None

    def give_back(block: ctypes.Array[ctypes.c_byte]) -> None:
        tally.live -= size
        if keep is None or keep(address_of(block), size):
            push(address_of(block))

    members = {
        "__slots__": (),
        "__del__": give_back,
        "address": property(addressof),
        "nbytes": property(lambda block: size),
    }
    block_type = type("Block", (ctypes.c_byte * size,), members)
    BLOCK_TYPES.add(block_type)
    return block_type


class _Slabs:
    """Small blocks are cut from slabs, one after the other."""

    __slots__ = ("_end", "_lock", "_next")

    def __init__(self) -> None:
        self._next = 0
        self._end = 0
        self._lock = threading.Lock()

    def cut(self, size: int) -> int:
        """Address of a new block."""
        with self._lock:
            if self._next + size > self._end:
                self._next = _mappings.allocate(_SLAB)
                self._end = self._next + _SLAB
            address = self._next
            self._next += size
            return address

    def after_fork(self) -> None:
        # the lock may be held by a thread that does not exist in the child
        self._lock = threading.Lock()


_tally = _Tally()
_mappings = _Mappings(memory_bytes() // 8)
_slabs = _Slabs()
_small = [_SizeClass(max(ALIGNMENT, size)) for size in range(0, _SMALL + 1, ALIGNMENT)]
_bigger: dict[int, _SizeClass] = {}

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_slabs.after_fork)


def _size_class(nbytes: int) -> _SizeClass:
    """The class for a block of more than `_SMALL` bytes: sizes 2**k * (8..15) / 8."""
    step = 1 << ((nbytes - 1).bit_length() - 4)
    size = (nbytes + step - 1) & -step
    kind = _bigger.get(size)
    if kind is None:
        # another thread may have made the same class; the first one stays
        kind = _bigger.setdefault(size, _SizeClass(size))
        if size >= _LARGE and kind not in _mappings.large:
            _mappings.large.append(kind)
    return kind


def _grow(size: int) -> int:
    """Address of a new block, from the system."""
    allocate = _slabs.cut if size < _LARGE else _mappings.allocate
    try:
        return allocate(size)
    except (OSError, ValueError, OverflowError, MemoryError):
        _mappings.release_cached()
    try:
        return allocate(size)
    except (OSError, ValueError, OverflowError, MemoryError):
        raise _out_of_memory(size) from None


def _out_of_memory(size: int) -> OutOfMemory:
    return OutOfMemory(
        "the system gives no more memory",
        expect="a size that fits into memory",
        actual=f"{size} bytes requested, {_tally.live} bytes live (peak {_tally.peak})",
        hint="make batches smaller, let go of tensors, or compute under dg.no_grad()",
    )


def _take(nbytes: int) -> Any:
    """A block of at least `nbytes`."""
    if nbytes > sys.maxsize // 2:  # more than ctypes can describe
        raise _out_of_memory(nbytes)
    kind = _small[(nbytes + 63) >> 6] if nbytes <= _SMALL else _size_class(nbytes)
    size = kind.size
    try:
        address = kind.pop()
        if size >= _LARGE:
            _mappings.cached -= size
    except IndexError:
        address = _grow(size)
    tally = _tally
    tally.allocations += 1
    tally.live = live = tally.live + size
    if live > tally.peak:
        tally.peak = live
    return kind.make(address)


def empty(shape: tuple[int, ...], dtype: DType) -> np.ndarray[Any, Any]:
    """A C-contiguous array on pooled memory, data at a multiple of 64, contents arbitrary.

    The memory goes back to the pool when the array and all of its views are gone.
    Raises OutOfMemory, with the pool unchanged.
    """
    nbytes = dtype.itemsize
    for extent in shape:
        nbytes *= extent
    if not 0 <= nbytes <= _SMALL or _tally.guards is not None:
        return ndarray(shape, dtype.numpy, _block(nbytes))
    # the lines of _take, in place: this path decides what a small eager op costs
    kind = _small[(nbytes + 63) >> 6]
    try:
        address = kind.pop()
    except IndexError:
        address = _grow(kind.size)
    tally = _tally
    tally.allocations += 1
    tally.live = live = tally.live + kind.size
    if live > tally.peak:
        tally.peak = live
    return ndarray(shape, dtype.numpy, kind.make(address))


def scratch(nbytes: int) -> Block:
    """A block of at least `nbytes` at a multiple of 64, for arenas.  Raises OutOfMemory."""
    return cast(Block, _block(nbytes))


def _block(nbytes: int) -> Any:
    if nbytes < 0:
        raise ArgumentError(
            "memory of a negative size",
            actual=f"{nbytes} bytes requested",
            hint="check the sizes of the shape",
        )
    guards = _tally.guards
    return _take(nbytes) if guards is None else guards.block(nbytes)


def stats() -> MemoryStats:
    """How much memory is in use, was at most, and is free for reuse."""
    pooled = sum(kind.size * len(kind.free) for kind in (*_small, *_bigger.values()))
    live, peak, taken = _tally.live, _tally.peak, _tally.allocations
    if library.is_loaded():
        pooled += pool.owned.word - pool.live.word
        live, peak = live + pool.live.word, peak + pool.peak.word
        taken += pool.taken.word
    return MemoryStats(live, peak, pooled, taken)


def release() -> None:
    """Give free large blocks back to the system."""
    _mappings.release_cached()
    if library.is_loaded():
        pool.release_down_to(0)


def reset_peak() -> None:
    """Let `peak_bytes` start again from what is live now."""
    _tally.peak = _tally.live
    if library.is_loaded():
        pool.peak.word = pool.live.word


def _of_numpy(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """What native code asks for where it makes no array itself."""
    return ndarray(shape, dtype, _block(math.prod(shape) * dtype.itemsize))


def _set_up() -> None:
    pool.cap.word = _mappings.cap
    arrays.make_in_python(_of_numpy, empty)
    arrays.elsewhere.word = _tally.guards is not None


library.when_loaded(_set_up)


class _Guards:
    """Watches the buffers made in a `guarded` scope.

    Memory of a buffer: _GUARD bytes of canary | the buffer, poisoned | at least as many again.
    """

    def __init__(self) -> None:
        self._watched: dict[int, tuple[int, int, tuple[str, int] | None]] = {}
        self._damage: list[CompileError] = []

    def block(self, nbytes: int) -> Any:
        inner = _take(nbytes + 2 * _GUARD)
        ctypes.memset(inner.address, _CANARY, inner.nbytes)
        address = inner.address + _GUARD
        ctypes.memset(address, _POISON, nbytes)
        self._watched[address] = (nbytes, inner.nbytes - _GUARD - nbytes, user_line_key())
        block = _guarded_type(nbytes).from_address(address)
        block.inner = inner
        block.guards = self
        return block

    def died(self, address: int) -> None:
        """Look at the canaries of a buffer for the last time."""
        self._inspect(address, *self._watched.pop(address))

    def check(self) -> None:
        """Raise the first damage found in any buffer, dead or alive."""
        for address, record in list(self._watched.items()):
            self._inspect(address, *record)
        if self._damage:
            error = self._damage[0]
            self._damage.clear()
            raise error

    def _inspect(
        self, address: int, nbytes: int, tail: int, origin: tuple[str, int] | None
    ) -> None:
        before = ctypes.string_at(address - _GUARD, _GUARD)
        after = ctypes.string_at(address + nbytes, tail)
        offsets = [i - _GUARD for i, byte in enumerate(before) if byte != _CANARY]
        offsets += [i + nbytes for i, byte in enumerate(after) if byte != _CANARY]
        if not offsets:
            return
        place = "" if origin is None else f" made at {origin[0]}:{origin[1]}"
        self._damage.append(
            CompileError(
                "memory outside of a buffer was written",
                expect=f"writes to bytes 0 to {nbytes - 1} of the buffer{place}",
                actual=f"{len(offsets)} bytes changed, the first at {offsets[0]}",
            )
        )
        # said once: the canaries are made whole again
        ctypes.memset(address - _GUARD, _CANARY, _GUARD)
        ctypes.memset(address + nbytes, _CANARY, tail)


@functools.cache
def _guarded_type(nbytes: int) -> Any:
    """Like a size class's type, but of exactly `nbytes` (at least 1), inside of another block."""
    address_of = addressof

    def died(block: Any) -> None:
        block.guards.died(address_of(block))

    members = {
        "__del__": died,
        "address": property(addressof),
        "nbytes": property(lambda block: nbytes),
    }
    block_type = type("GuardedBlock", (ctypes.c_byte * max(nbytes, 1),), members)
    BLOCK_TYPES.add(block_type)
    return block_type


@contextmanager
def guarded() -> Iterator[None]:
    """For tests: buffers made in the scope lie between canaries and start as NaN (bytes 0xFF).

    The canaries are looked at when a buffer dies, by `check_guards`, and when the scope ends
    without an error, which raises the CompileError of the first damage.
    """
    before = _tally.guards
    guards = _Guards()
    _watch(guards)
    try:
        yield
    finally:
        _watch(before)
    guards.check()


def _watch(guards: _Guards | None) -> None:
    _tally.guards = guards
    if library.is_loaded():
        arrays.elsewhere.word = guards is not None


def check_guards() -> None:
    """Look at all canaries of the innermost `guarded` scope; raise CompileError if one is damaged.
    Outside of such a scope there is nothing to look at."""
    if _tally.guards is not None:
        _tally.guards.check()
