"""Object code of LLVM modules, made by several threads at once."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dualgrad.runtime.errors import CompileError

_LONGEST = 10.0  # seconds that a fork waits: a signal may ask for it in the very thread at work
_gate = threading.Condition()
_inside: list[int] = []  # threads


def emitted(module: Any, machine: Any) -> bytes:
    """Object code of a module that has an LLVM context of its own, by a machine that no other
    thread uses.

    LLVM lets threads work on different contexts at once; llvmlite has one lock for everything,
    which would make others wait for as long as this takes.
    """
    from llvmlite.binding import ffi

    emit = getattr(ffi.lib.LLVMPY_TargetMachineEmitToMemory, "_cfn", None)
    if emit is None:
        return bytes(machine.emit_object(module))
    with ffi.OutputString() as error:
        with _at_work():
            buffer = emit(machine, module, 1, error)
        if not buffer:
            raise CompileError("LLVM emits no object code", actual=str(error))
    try:
        size = ffi.lib.LLVMPY_GetBufferSize(buffer)
        return ctypes.string_at(ffi.lib.LLVMPY_GetBufferStart(buffer), size)
    finally:
        ffi.lib.LLVMPY_DisposeMemoryBuffer(buffer)


@contextmanager
def _at_work() -> Iterator[None]:
    """Forks wait meanwhile, so that the child finds LLVM whole."""
    me = threading.get_ident()
    with _gate:
        _inside.append(me)
    try:
        yield
    finally:
        with _gate:
            _inside.remove(me)
            _gate.notify_all()


def _before_fork() -> None:
    _gate.acquire()
    _gate.wait_for(lambda: not _inside, _LONGEST)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_gate.release, after_in_child=_gate.release
    )
