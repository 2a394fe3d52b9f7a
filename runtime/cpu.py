"""The CPU as a device: programs are linked into the process and launched through ctypes.

    loaded = load(program, externs)
    error = loaded(handles(arrays), params)

The launch ABI stands in `dualgrad.runtime.program`.
"""

from __future__ import annotations

import ctypes
import functools
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dualgrad.runtime.errors import CompileError
from dualgrad.runtime.linker import host_target, link, link_library
from dualgrad.runtime.profile import counters
from dualgrad.runtime.program import HANDLE_DATA_OFFSET, Program
from dualgrad.runtime.threads import pool

__all__ = ["Loaded", "handle_offset_ok", "handles", "host_target", "link_library", "load", "packer"]

# Without argument types ctypes passes bytes and byref() as pointers, in two thirds of the time.
_ENTRY = ctypes.CFUNCTYPE(ctypes.c_int64)
_ENTRY_HELD = ctypes.PYFUNCTYPE(ctypes.c_int64)


class Loaded:
    """A program in memory; its code is freed when this object dies.

    `loaded(handles, params)` runs it without the GIL, `loaded.launch_held(handles, params)` with
    it, which is faster for work of a few microseconds.  Both return 0 or the error word.

    entry, context    addresses, for native code
    """

    __slots__ = ("_call", "_call_held", "_context", "_kernels", "_library", "context", "entry")

    def __init__(self, program: Program, externs: Mapping[str, int]) -> None:
        missing = [name for name in program.externs if name not in externs]
        if missing:
            raise CompileError(
                "a program calls routines that are not loaded",
                op=program.name,
                expect=", ".join(externs) or "no externs",
                actual=", ".join(missing),
            )
        addresses, self._library = link(program.name, program.object_code, (program.name,))
        threads = pool()
        slots = [threads.address, threads.parallel_for_address]
        slots += [externs[name] for name in program.externs]
        context = (ctypes.c_int64 * len(slots))(*slots)
        self._context = ctypes.byref(context)
        self.entry, self.context = addresses[program.name], ctypes.addressof(context)
        self._kernels = len(program.kernels)
        self._call: Callable[..., int] = _ENTRY(addresses[program.name])
        self._call_held: Callable[..., int] = _ENTRY_HELD(addresses[program.name])

    def __call__(self, handles: bytes, params: bytes) -> int:
        count = counters
        count.launches += 1
        count.kernels += self._kernels
        return self._call(handles, params, self._context)

    def launch_held(self, handles: bytes, params: bytes) -> int:
        """Run without giving up the GIL."""
        count = counters
        count.launches += 1
        count.kernels += self._kernels
        return self._call_held(handles, params, self._context)


def load(program: Program, externs: Mapping[str, int]) -> Loaded:
    """Link a program; `externs` gives the addresses of the routines it names.

    Raises CompileError if one is missing or the object code does not link.
    """
    return Loaded(program, externs)


class _Records(bytes):
    """Packed handles, together with the records they point to."""

    records: ctypes.Array[ctypes.c_int64]


@functools.cache
def handle_offset_ok() -> bool:
    """Does the data pointer of an ndarray stand where the ABI says?  True in CPython with a GIL."""
    if sys.implementation.name != "cpython":  # where id() need not be an address
        return False
    for array in (np.zeros(3), np.zeros(8)[2:], np.zeros((2, 0))):
        found = ctypes.c_void_p.from_address(id(array) + HANDLE_DATA_OFFSET).value
        if found != array.ctypes.data:
            return False
    return True


@functools.cache
def packer(count: int) -> Callable[[Sequence[np.ndarray[Any, Any]]], bytes]:
    """A function that makes the handles of `count` arrays; the caller keeps the arrays alive."""
    if not handle_offset_ok():
        return _record_handles
    pack = struct.Struct(f"={count}q").pack
    return lambda arrays: pack(*map(id, arrays))


def handles(arrays: Sequence[np.ndarray[Any, Any]]) -> bytes:
    """The handles of arrays, for a launch.  The caller keeps the arrays alive meanwhile."""
    return packer(len(arrays))(arrays) if handle_offset_ok() else _record_handles(arrays)


def _record_handles(arrays: Sequence[np.ndarray[Any, Any]]) -> bytes:
    """Handles that point to records with the data pointers at HANDLE_DATA_OFFSET, for
    interpreters whose ndarray objects look different."""
    stride = HANDLE_DATA_OFFSET // 8 + 1
    records = (ctypes.c_int64 * (stride * len(arrays)))()
    base = ctypes.addressof(records)
    for i, array in enumerate(arrays):
        records[stride * i + stride - 1] = array.ctypes.data
    addresses = [base + 8 * stride * i for i in range(len(arrays))]
    packed = _Records(struct.pack(f"={len(arrays)}q", *addresses))
    packed.records = records
    return packed
