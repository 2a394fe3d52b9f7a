"""Host memory for arrays and arenas, from a pool.

Where native code runs, arrays own blocks of the native pool (`native.arrays`); elsewhere, and
before it has been loaded, they lie on blocks of the pool in Python (`blocks`).  Here is what both
have in common: statistics, a limit, the error when there is no more memory, and `guarded`, which
has every array made in Python.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import addressof
from operator import index
from typing import Any, Protocol

import numpy as np
from numpy import ndarray

from dualgrad.runtime import blocks
from dualgrad.runtime.dtype import DType
from dualgrad.runtime.errors import ArgumentError, CompileError, OutOfMemory
from dualgrad.runtime.host import memory_bytes
from dualgrad.runtime.native import arrays, library, pool
from dualgrad.runtime.native.callables import Builtin
from dualgrad.runtime.records import dataclass
from dualgrad.runtime.srcinfo import user_line_key

ALIGNMENT = 64
BLOCK_TYPES = blocks.TYPES
_GUARD = 256
_CANARY = 0xA5
_POISON = 0xFF
Array = np.ndarray[Any, Any]


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
    peak_bytes     most that was in use, since the start or `reset_peak`
    pooled_bytes   free and kept for reuse
    allocations    buffers handed out since the start
    limit_bytes    most that may be in use; None: what the system gives
    """

    live_bytes: int
    peak_bytes: int
    pooled_bytes: int
    allocations: int
    limit_bytes: int | None


class _NativeBlock:
    """A block of the native pool.  Raises OutOfMemory."""

    __slots__ = ("address", "nbytes")

    def __init__(self, nbytes: int) -> None:
        self.address = 0
        self.address = arrays.take_or_raise(nbytes)
        self.nbytes = nbytes

    # at interpreter exit the globals of this module may be gone
    def __del__(self, give: Callable[[int], int] = pool.give) -> None:
        give(self.address)


class _Settings:
    """limit: most bytes in use, 0 for no limit.  guards: of the innermost `guarded` scope."""

    limit = 0
    guards: _Guards | None = None


_settings = _Settings()


# -- arrays and blocks ---------------------------------------------------------------------------


def _empty(shape: tuple[int, ...], dtype: DType) -> Array:
    """`empty` in Python: before native code is there, and what it does not serve."""
    return _of_numpy(tuple(map(index, shape)), dtype.numpy)


def _of_numpy(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """A new array; also what native code asks for where it does not make one."""
    nbytes = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0:
        raise _negative(nbytes)
    guards = _settings.guards
    if guards is not None:
        return ndarray(shape, dtype, guards.block(nbytes))
    if not library.is_loaded():  # asked once: it may be loaded from now on
        return ndarray(shape, dtype, _take_in_python(nbytes))
    if nbytes > pool.MOST:
        raise _out_of_memory(nbytes)
    return arrays.on_pool(shape, dtype, nbytes)


def scratch(nbytes: int) -> Block:
    """A block of at least `nbytes` at a multiple of 64, for arenas.  Raises OutOfMemory."""
    if nbytes < 0:
        raise _negative(nbytes)
    block: Block = _block(nbytes)
    return block


def _block(nbytes: int) -> Any:
    return _take(nbytes) if _settings.guards is None else _settings.guards.block(nbytes)


def _take(nbytes: int) -> Any:
    if nbytes > pool.MOST:
        raise _out_of_memory(nbytes)
    return _NativeBlock(nbytes) if library.is_loaded() else _take_in_python(nbytes)


def _take_in_python(nbytes: int) -> Any:
    if nbytes > pool.MOST:
        raise _out_of_memory(nbytes)
    try:
        return blocks.take(nbytes)
    except MemoryError:
        _collect()
    try:
        return blocks.take(nbytes)
    except MemoryError:
        raise _out_of_memory(nbytes) from None


def _collect() -> None:
    """Free cycles, which may hold tensors, unless somebody wants the collector to rest: a trace
    tells objects by their generation."""
    if gc.isenabled():
        gc.collect()


def _make_room(nbytes: int) -> None:
    """Find memory for a block of the native pool.  Raises OutOfMemory."""
    _collect()
    block = pool.take(nbytes)
    if not block:
        raise _out_of_memory(nbytes)
    pool.give(block)


def _out_of_memory(nbytes: int) -> OutOfMemory:
    now, limit = stats(), _settings.limit
    within = limit and now.live_bytes + nbytes > limit
    return OutOfMemory(
        f"the limit of {limit} bytes gives no more memory"
        if within
        else "the system gives no more memory",
        expect="a size that fits into memory",
        actual=f"{nbytes} bytes requested, {now.live_bytes} bytes live (peak {now.peak_bytes})",
        hint="make batches smaller, let go of tensors, or compute under dg.no_grad()",
    )


def _negative(nbytes: int) -> ArgumentError:
    return ArgumentError(
        "memory of a negative size",
        actual=f"{nbytes} bytes requested",
        hint="check the sizes of the shape",
    )


_builtin = Builtin("empty", _empty)


# empty(shape, dtype): a row-major array on pooled memory, data at a multiple of 64, contents
# arbitrary.  The memory goes back to the pool when the array and all of its views are gone.
# Raises OutOfMemory, with the pool unchanged.
empty: Callable[[tuple[int, ...], DType], Array] = _builtin.call


def block_below(array: Any) -> Any:
    """What owns the memory of an array: the array itself, the array that it is a view of, or a
    block of the pool in Python; None where that is not known.  Different owners share nothing."""
    owner = array if array.base is None else array.base
    if type(owner) in BLOCK_TYPES:
        return owner
    owns = type(owner) is ndarray and owner.base is None and owner.flags.owndata
    return owner if owns else None


def is_pooled(array: Any) -> bool:
    """Whether an array itself owns a block of the pool."""
    return type(array) is ndarray and arrays.is_pooled(array)


# -- looking at the pool and setting it ----------------------------------------------------------


def stats() -> MemoryStats:
    """How much memory is in use, was at most, and is free for reuse."""
    return MemoryStats(*blocks.stats(), _settings.limit or None)


def release() -> None:
    """Give free large blocks back to the system."""
    blocks.release()
    if library.is_loaded():
        pool.release_down_to(0)


reset_peak = blocks.reset_peak


def set_limit(nbytes: int) -> None:
    """Let no more than so many bytes be in use; 0 is no limit."""
    with library.lock:
        _settings.limit = nbytes
        blocks.set_limit(nbytes)
        if library.is_loaded():
            pool.limit.word = nbytes
    now = stats()
    if nbytes and now.live_bytes + now.pooled_bytes > nbytes:
        release()


def _watch(guards: _Guards | None) -> None:
    with library.lock:
        _settings.guards = guards
        if library.is_loaded():
            arrays.elsewhere.word = guards is not None


def _set_up() -> None:
    """For the library of native code, when it is there."""
    pool.cap.word = memory_bytes() // 8
    pool.limit.word = _settings.limit
    blocks.count_in(pool.counts.memory)
    arrays.elsewhere.word = _settings.guards is not None
    arrays.make_in_python(_of_numpy, _make_room)


library.when_loaded(_set_up)
library.when_filled(lambda: _builtin.fill(arrays.empty))


# -- guards --------------------------------------------------------------------------------------


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
    before = _settings.guards
    guards = _Guards()
    _watch(guards)
    try:
        yield
    finally:
        _watch(before)
    guards.check()


def check_guards() -> None:
    """Look at all canaries of the innermost `guarded` scope; raise CompileError if one is damaged.
    Outside of such a scope there is nothing to look at."""
    if _settings.guards is not None:
        _settings.guards.check()
