"""Where things stand in the objects of CPython and NumPy, and whether that can be relied on.

Offsets of CPython's own structs are those of the stable ABI's first fields; the rest is found by
looking at objects, or checked on some.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

TYPE = 1  # ob_type, in words, of every object
ITEMS = 3  # the first element of a tuple
LENGTH = 2  # ob_size of tuples and lists
LIST_ITEMS = 3  # where a list has the address of its elements
DICT_VERSION = 3  # where a dict has the number of its last change

# of PyArrayObject, in bytes (numpy/ndarraytypes.h); the last one is that of NumPy 1.22 and later
ARRAY_DATA, ARRAY_NDIM, ARRAY_SHAPE, ARRAY_STRIDES = 16, 24, 32, 40
ARRAY_BASE, ARRAY_DTYPE, ARRAY_FLAGS, ARRAY_HANDLER = 48, 56, 64, 88

_MEMBERS = 5 * 8  # where a member descriptor has its PyMemberDef, whose offset is two words in


def offset_of(owner: type, slot: str) -> int:
    """Where an entry of `__slots__` stands in the objects of a class, in bytes."""
    descriptor = owner.__dict__[slot]
    member = ctypes.c_void_p.from_address(id(descriptor) + _MEMBERS).value
    assert member is not None
    return ctypes.c_ssize_t.from_address(member + 16).value


def slot(owner: type, name: str) -> int:
    """The same in words, which every such entry is one of; 0 where the layout is not known."""
    return offset_of(owner, name) // 8 if is_known() else 0


_core: Any = np._core  # type: ignore[attr-defined]
NUMPY_API = _core.multiarray._ARRAY_API  # the capsule of the C functions of NumPy


def numpy_function(number: int) -> int:
    """The entry of NumPy's table of C functions and types, as an address."""
    address_in: Any = ctypes.pythonapi.PyCapsule_GetPointer
    address_in.restype, address_in.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return _word(address_in(NUMPY_API, None) + 8 * number)


class _Probe:
    __slots__ = ("first", "second")


@cache
def is_known() -> bool:
    """Whether this interpreter's objects are laid out as native code expects."""
    if sys.implementation.name != "cpython" or sys.maxsize < 1 << 32:
        return False
    if "free-threading" in sys.version or hasattr(sys, "gettotalrefcount"):
        return False  # objects begin with other words
    return _slots_fit() and _tuples_fit() and _arrays_fit()


def _word(address: int) -> int:
    return ctypes.c_size_t.from_address(address).value


def _slots_fit() -> bool:
    probe: Any = _Probe()
    probe.first, probe.second = first, second = object(), object()
    try:
        places = [offset_of(_Probe, name) for name in ("first", "second")]
    except (KeyError, AssertionError):
        return False
    if not all(0 < p < 64 for p in places):
        return False
    found = [_word(id(probe) + p) for p in places]
    return found == [id(first), id(second)] and _word(id(probe) + 8 * TYPE) == id(_Probe)


def _tuples_fit() -> bool:
    three = (object(), object(), object())
    found = [_word(id(three) + 8 * k) for k in range(LENGTH, ITEMS + 3)]
    return found == [3, *map(id, three)]


def _arrays_fit() -> bool:
    owner, other = np.zeros((3, 5), np.float32), np.ones(7)
    array = owner[1:]
    at = id(array)
    handler = _word(id(owner) + ARRAY_HANDLER) if type(owner).__basicsize__ > ARRAY_HANDLER else 0
    if not handler or handler != _word(id(other) + ARRAY_HANDLER):
        return False  # owners of memory name the same capsule, and views none
    shape, strides = _word(at + ARRAY_SHAPE), _word(at + ARRAY_STRIDES)
    return (
        _word(handler + 8 * TYPE) == id(type(NUMPY_API))
        and _word(at + ARRAY_HANDLER) == 0
        and _word(at + ARRAY_DATA) == array.ctypes.data
        and ctypes.c_int.from_address(at + ARRAY_NDIM).value == 2
        and [_word(shape), _word(shape + 8)] == [2, 5]
        and [_word(strides), _word(strides + 8)] == [20, 4]
        and _word(at + ARRAY_BASE) == id(array.base)
        and _word(at + ARRAY_DTYPE) == id(array.dtype)
        and bool(ctypes.c_int.from_address(at + ARRAY_FLAGS).value & 0x400)  # writeable
    )


class _Attributed:
    x = 0


@cache
def versions_count() -> bool:
    """Whether each change of a dict gives it a number that no dict has had: so it is, by PEP 509,
    in CPython up to 3.12."""
    if sys.version_info >= (3, 13) or not is_known():
        return False
    instance = _Attributed()
    instance.x = 1
    other: dict[Any, Any] = {}
    dicts: tuple[dict[Any, Any], ...] = ({"a": 1}, other, instance.__dict__)
    changes: tuple[Callable[[Any], object], ...] = (
        lambda d: d.__setitem__("x", 2),
        lambda d: d.update(x=3),
        lambda d: d.setdefault("y", 3),
        lambda d: d.pop("y"),
        lambda d: d.__ior__({"z": 1}),
        lambda d: d.popitem(),
        lambda d: setattr(instance, "x", d),
        lambda d: delattr(instance, "x") if d is instance.__dict__ else d.clear(),
    )
    seen: set[int] = set()
    for d in dicts:
        for k, change in enumerate((dict.copy, *changes)):
            before = _version(d)
            change(d)
            if k == 7 and d is not instance.__dict__:
                continue
            if (_version(d) != before) != (k > 0) or _version(d) in seen:
                return False
            seen.add(before)
    return True


def _version(d: dict[Any, Any]) -> int:
    return ctypes.c_uint64.from_address(id(d) + 8 * DICT_VERSION).value
