"""Python's buffer protocol for classes with `__buffer__`, before Python 3.12 has it (PEP 688).

Until then only a class written in C has the protocol, by a function in a slot of its type.  This
one is put there: native code that calls `__buffer__` and hands on what it raises.  Where that code
is not on disk yet, a callback of ctypes is put there first, so that importing does not wait for
LLVM: it has the code compiled when it is called for the first time.  Should that one call fail,
the error is a SystemError, since callbacks cannot raise.

The slot is written only where the type looks as CPython lays it out; else nothing is done.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

from dualgrad.runtime import capi

_AS_BUFFER = 20  # word of a type that points to the slots (PyTypeObject.tp_as_buffer)
_NEEDED = sys.version_info < (3, 12) and sys.implementation.name == "cpython"
_GETTER = getattr(ctypes, "PYFUNCTYPE", ctypes.CFUNCTYPE)(
    ctypes.c_int, ctypes.py_object, ctypes.c_void_p, ctypes.c_int
)
_kept: list[Any] = []  # callbacks: types live as long as the process


def install(kind: type[Any]) -> None:
    """Give a class, and the classes made of it from now on, the protocol, if Python does not."""
    if not _NEEDED or not _is_known_layout(kind):
        return
    if capi.is_compiled():
        _set(kind, capi.addresses()["get_buffer"])
        return

    def first(x: Any, view: int, flags: int) -> int:
        _set(kind, capi.addresses()["get_buffer"])
        try:
            fill = ctypes.pythonapi.PyObject_GetBuffer
            shown = x.__buffer__(flags)
            return int(fill(ctypes.py_object(shown), ctypes.c_void_p(view), flags))
        except Exception:
            return -1

    callback = _GETTER(first)
    _kept.append(callback)
    address = ctypes.cast(callback, ctypes.c_void_p).value
    assert address is not None
    _set(kind, address)


def _words(kind: type[Any]) -> Any:
    return (ctypes.c_size_t * (_AS_BUFFER + 1)).from_address(id(kind))


def _slots(kind: type[Any]) -> Any:
    """The functions of a type: one that fills a view, one that is told of its end."""
    place = _words(kind)[_AS_BUFFER]
    return (ctypes.c_size_t * 2).from_address(place) if place else None


def _is_known_layout(kind: type[Any]) -> bool:
    """Whether types that everybody knows look as they should, and this one has room."""
    if any(_words(t)[_AS_BUFFER] for t in (object, int, list)):
        return False
    read_only, writable = _slots(bytes), _slots(bytearray)
    if None in (read_only, writable) or [bool(v) for v in (*read_only, *writable)] != [1, 0, 1, 1]:
        return False
    own, room = _words(kind)[_AS_BUFFER], int(type(kind).__basicsize__)
    return bool(id(kind) < own < id(kind) + room) and not any(_slots(kind))  # inside of the class


def _set(kind: type[Any], address: int) -> None:
    """Put a function into a class and into those made of it."""
    _slots(kind)[0] = address
    for other in kind.__subclasses__():
        _set(other, address)
