"""The memory pool of processes without native code: like `native.pool`, in Python.

A block is a ctypes array.  NumPy keeps it alive through every view; when the last one dies, its
`__del__` puts the address back into the free list of its size class.

Taking and giving back are single list operations, so threads need no lock.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from ctypes import addressof
from typing import Any

from dualgrad.runtime.host import memory_bytes
from dualgrad.runtime.native.pool import HUGE, LARGE, LIVE, OWNED, PEAK, SLAB, SMALL, TAKEN

TYPES: set[type] = set()  # of blocks: no two of them share memory


class _Tally:
    """Running numbers, which native code goes on with when it is loaded; `+=` on them needs no
    lock, since CPython switches threads at calls and jumps only (without the GIL they may drift,
    which harms reports, not memory)."""

    __slots__ = ("limit", "numbers")

    def __init__(self) -> None:
        self.numbers: Any = [0, 0, 0, 0]  # LIVE, PEAK, TAKEN, OWNED
        self.limit = 0


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
        if size >= HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
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
    live, owned = LIVE, OWNED
    keep = _mappings.keep if size >= LARGE else None

    def give_back(block: ctypes.Array[ctypes.c_byte]) -> None:
        numbers = tally.numbers
        numbers[live] -= size
        numbers[owned] -= size
        if keep is None or keep(address_of(block), size):
            push(address_of(block))

    members = {
        "__slots__": (),
        "__del__": give_back,
        "address": property(addressof),
        "nbytes": property(lambda block: size),
    }
    block_type = type("Block", (ctypes.c_byte * size,), members)
    TYPES.add(block_type)
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
                self._next = _mappings.allocate(SLAB)
                self._end = self._next + SLAB
            address = self._next
            self._next += size
            return address

    def after_fork(self) -> None:
        # the lock may be held by a thread that does not exist in the child
        self._lock = threading.Lock()


_tally = _Tally()
_mappings = _Mappings(memory_bytes() // 8)
_slabs = _Slabs()
_small = [_SizeClass(max(64, size)) for size in range(0, SMALL + 1, 64)]
_bigger: dict[int, _SizeClass] = {}

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_slabs.after_fork)


def _size_class(nbytes: int) -> _SizeClass:
    """The class for a block of more than `SMALL` bytes: sizes 2**k * (8..15) / 8."""
    step = 1 << ((nbytes - 1).bit_length() - 4)
    size = (nbytes + step - 1) & -step
    kind = _bigger.get(size)
    if kind is None:
        # another thread may have made the same class; the first one stays
        kind = _bigger.setdefault(size, _SizeClass(size))
        if size >= LARGE and kind not in _mappings.large:
            _mappings.large.append(kind)
    return kind


def _grow(size: int) -> int:
    """Address of a new block, from the system.  Raises MemoryError."""
    allocate = _slabs.cut if size < LARGE else _mappings.allocate
    if _tally.limit and _tally.numbers[LIVE] + _mappings.cached + size > _tally.limit:
        _mappings.release_cached()
    try:
        return allocate(size)
    except (OSError, ValueError, OverflowError, MemoryError):
        _mappings.release_cached()
    try:
        return allocate(size)
    except (OSError, ValueError, OverflowError):
        raise MemoryError from None


def take(nbytes: int) -> Any:
    """A block of at least `nbytes`: an object with `address`, `nbytes`.  Raises MemoryError."""
    if nbytes > sys.maxsize // 2:  # more than ctypes can describe
        raise MemoryError
    kind = _small[(nbytes + 63) >> 6] if nbytes <= SMALL else _size_class(nbytes)
    size, tally = kind.size, _tally
    if tally.limit and tally.numbers[LIVE] + size > tally.limit:
        raise MemoryError
    try:
        address = kind.pop()
        if size >= LARGE:
            _mappings.cached -= size
    except IndexError:
        address = _grow(size)
    numbers = tally.numbers
    numbers[TAKEN] += 1
    numbers[OWNED] += size
    numbers[LIVE] = live = numbers[LIVE] + size
    if live > numbers[PEAK]:
        numbers[PEAK] = live
    return kind.make(address)


def stats() -> tuple[int, int, int, int]:
    """Bytes in use, most that were, free ones, and the number of blocks handed out."""
    free = sum(kind.size * len(kind.free) for kind in (*_small, *_bigger.values()))
    live, peak, taken, owned = _tally.numbers
    return live, peak, owned - live + free, taken


def count_in(numbers: Any) -> None:
    """Go on counting in another place."""
    numbers[:] = _tally.numbers
    _tally.numbers = numbers


def release() -> None:
    """Give free large blocks back to the system."""
    _mappings.release_cached()


def reset_peak() -> None:
    """Forget what was in use before now."""
    _tally.numbers[PEAK] = _tally.numbers[LIVE]


def set_limit(nbytes: int) -> None:
    """Let no more bytes than so be in use; 0 is no limit."""
    _tally.limit = nbytes
