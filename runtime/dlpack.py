"""DLPack: tensors that libraries hand to each other without a copy, by structs of C in a capsule.

`capsule_of` gives an array away, `taken` takes one.  Either side keeps its memory until the other
calls the deleter of the struct.  A capsule holds one of two structs, with or without a version and
flags; its name tells which, and whether somebody has taken it.

Source: DLPack 1.1, dlpack.h and its "Python Specification".
"""

from __future__ import annotations

import ctypes
import functools
import sys
from ctypes import c_int32, c_int64, c_uint8, c_uint16, c_uint32, c_uint64, c_void_p
from typing import Any, NamedTuple

import numpy as np

from dualgrad.runtime import capi, cuda
from dualgrad.runtime.device_array import DeviceArray, ForeignMemory, address_of, span_of
from dualgrad.runtime.devices import CPU, device_index
from dualgrad.runtime.dtype import ALL, DType, bfloat16
from dualgrad.runtime.errors import DTypeError, ExchangeError

Array = np.ndarray[Any, Any]

VERSION = (1, 1)  # major, minor: of the structs given away
_CPU, _CUDA, _CUDA_HOST, _CUDA_MANAGED = 1, 2, 3, 13
_DEVICES = {_CPU: CPU, _CUDA_HOST: CPU, _CUDA: "cuda", _CUDA_MANAGED: "cuda"}
_KINDS = {"i": 0, "u": 1, "f": 2, "b": 6}
_CODES = {d: 4 if d is bfloat16 else _KINDS[d.kind] for d in ALL}
_DTYPES = {(code, d.bits, 1): d for d, code in _CODES.items()}
_DELETER = ctypes.CFUNCTYPE(None, c_void_p)
_READ_ONLY, _COPIED = 1, 2
# Capsules keep the address of their name only: these live as long as the process.
_NAMES = {False: b"dltensor", True: b"dltensor_versioned"}
_USED = {False: b"used_dltensor", True: b"used_dltensor_versioned"}


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", c_void_p),
        ("device_type", c_int32),
        ("device_id", c_int32),
        ("ndim", c_int32),
        ("code", c_uint8),
        ("bits", c_uint8),
        ("lanes", c_uint16),
        ("shape", ctypes.POINTER(c_int64)),
        ("strides", ctypes.POINTER(c_int64)),  # in elements; null for row-major ones
        ("byte_offset", c_uint64),
    )


class _Managed(ctypes.Structure):
    _fields_ = (("tensor", _Tensor), ("manager", c_void_p), ("deleter", c_void_p))
    kept: object  # what must live as long as the struct


class _Versioned(ctypes.Structure):
    _fields_ = (
        ("major", c_uint32),
        ("minor", c_uint32),
        ("manager", c_void_p),
        ("deleter", c_void_p),
        ("flags", c_uint64),
        ("tensor", _Tensor),
    )
    kept: object


class _Python(NamedTuple):
    """Functions of the interpreter."""

    new: Any
    is_valid: Any
    pointer: Any
    rename: Any
    hold: Any


@functools.cache
def _python() -> _Python:
    api = getattr(ctypes, "pythonapi", None)
    if api is None or sys.implementation.name != "cpython":
        raise ExchangeError(
            "this interpreter has no capsules",
            op="dlpack",
            expect="CPython",
            actual=sys.implementation.name,
            hint="exchange NumPy arrays: x.numpy(), dg.from_numpy(...)",
        )
    text, thing = ctypes.c_char_p, ctypes.py_object
    made = ctypes.PYFUNCTYPE
    return _Python(
        made(thing, c_void_p, text, c_void_p)(("PyCapsule_New", api)),
        made(ctypes.c_int, thing, text)(("PyCapsule_IsValid", api)),
        made(c_void_p, thing, text)(("PyCapsule_GetPointer", api)),
        made(ctypes.c_int, thing, text)(("PyCapsule_SetName", api)),
        made(None, thing)(("Py_IncRef", api)),
    )


def device_pair(device: str) -> tuple[int, int]:
    """DLPack's (type, number) of a device's canonical name."""
    return (_CPU, 0) if device == CPU else (_CUDA, device_index(device))


def device_of(kind: int, number: int) -> str | None:
    """The canonical name of DLPack's device; None for one that dualgrad does not have."""
    name = _DEVICES.get(kind)
    return f"cuda:{number}" if name == "cuda" else name


# -- giving away ----------------------------------------------------------------------------------


def capsule_of(
    array: Array | DeviceArray, dtype: DType, device: str, versioned: bool, copied: bool = False
) -> Any:
    """A capsule with an array, whose memory it shares.

    dtype     of the values: bfloat16 lies in an array of uint16
    copied    the array is a copy that nobody else has; only the struct with a version says so

    Raises ExchangeError for read-only memory, which the struct without a version cannot tell.
    """
    if not versioned and not array.flags.writeable:
        raise ExchangeError(
            "read-only memory needs a newer protocol",
            op="__dlpack__",
            expect="max_version=(1, 0) or higher",
            actual="a request for DLPack's struct without a version",
            hint="copy it: x.clone()",
        )
    n, size = array.ndim, dtype.itemsize
    sizes = (c_int64 * (2 * n))(*array.shape, *(s // size for s in array.strides))
    place, step = ctypes.addressof(sizes), n * ctypes.sizeof(c_int64)
    pointer = ctypes.POINTER(c_int64)
    struct = (_Versioned if versioned else _Managed)()
    struct.tensor = _Tensor(
        address_of(array) if array.size else None,
        *device_pair(device),
        n,
        _CODES[dtype],
        dtype.bits,
        1,
        ctypes.cast(place, pointer),
        ctypes.cast(place + step, pointer),
        0,
    )
    if isinstance(struct, _Versioned):
        struct.major, struct.minor = VERSION
        struct.flags = _COPIED * copied | _READ_ONLY * (not array.flags.writeable)
    struct.kept = (array, sizes)
    return _capsule(struct, versioned)


def _capsule(struct: _Managed | _Versioned, versioned: bool) -> Any:
    python, at = _python(), capi.addresses()
    suffix = "_versioned" if versioned else ""
    struct.manager, struct.deleter = id(struct), at["release" + suffix]
    capsule = python.new(ctypes.addressof(struct), _NAMES[versioned], at["discard" + suffix])
    python.hold(struct)  # until the deleter is called
    return capsule


# -- taking ---------------------------------------------------------------------------------------


class Taken(NamedTuple):
    """An array that somebody else made, with what the struct says of it."""

    array: Array | DeviceArray
    dtype: DType
    device: str


class _Lender:
    """Calls the deleter of a struct when nobody uses its memory any more."""

    __slots__ = ("__array_interface__", "_delete", "_struct")
    __array_interface__: dict[str, Any]

    def __init__(self, address: int, deleter: int | None) -> None:
        self._struct = address
        self._delete = None if deleter is None else _DELETER(deleter)

    def __del__(self) -> None:
        if self._delete is not None:
            self._delete(self._struct)


def taken(capsule: Any) -> Taken:
    """The array of a capsule, which is used up.

    Raises ExchangeError for what is no capsule of DLPack, for one that was used before, and for
    devices that dualgrad does not have; DTypeError for dtypes that it does not have.
    """
    python = _python()
    found = [v for v, name in _NAMES.items() if python.is_valid(capsule, name)]
    if not found:
        raise ExchangeError(
            "no capsule that can be taken",
            op="from_dlpack",
            expect="a capsule of DLPack that nobody has taken yet",
            actual=repr(capsule)[:80],
            hint="a capsule serves once: pass the array itself, or ask it for another one",
        )
    versioned = found[0]
    address = python.pointer(capsule, _NAMES[versioned])
    struct = (_Versioned if versioned else _Managed).from_address(address)
    if isinstance(struct, _Versioned) and struct.major != VERSION[0]:
        raise ExchangeError(
            "a version of DLPack that is not known",
            op="from_dlpack",
            expect=f"version {VERSION[0]}",
            actual=f"version {struct.major}.{struct.minor}",
            hint="update the library that made the array",
        )
    dtype, device = _dtype_of(struct.tensor), _device_of(struct.tensor)
    python.rename(capsule, _USED[versioned])
    lender = _Lender(address, struct.deleter)
    read_only = isinstance(struct, _Versioned) and bool(struct.flags & _READ_ONLY)
    return Taken(_array_of(struct.tensor, dtype, device, read_only, lender), dtype, device)


def _dtype_of(t: _Tensor) -> DType:
    found = _DTYPES.get((t.code, t.bits, t.lanes))
    if found is not None:
        return found
    raise DTypeError(
        "not a dtype of dualgrad",
        op="from_dlpack",
        expect=", ".join(d.name for d in ALL),
        actual=f"DLPack's type {t.code} of {t.bits} bits and {t.lanes} lanes",
        hint="convert the array where it comes from",
    )


def _device_of(t: _Tensor) -> str:
    device = device_of(t.device_type, t.device_id)
    if device is None:
        raise unknown_device(t.device_type, t.device_id)
    return device


def unknown_device(kind: int, number: int) -> ExchangeError:
    """The error of an array that is where dualgrad has no tensors."""
    return ExchangeError(
        "an array on a device that dualgrad does not have",
        op="from_dlpack",
        expect="the CPU (1) or CUDA (2)",
        actual=f"DLPack's device ({kind}, {number})",
        hint='copy it to the CPU first, or pass device="cpu"',
    )


def _array_of(
    t: _Tensor, dtype: DType, device: str, read_only: bool, lender: _Lender
) -> Array | DeviceArray:
    shape = tuple(t.shape[: t.ndim])
    steps = t.strides[: t.ndim] if t.strides else _row_major(shape)
    strides = tuple(s * dtype.itemsize for s in steps)
    address = (t.data or 0) + t.byte_offset
    if device != CPU:
        driver = cuda.driver(t.device_id)
        memory = ForeignMemory(driver, address, span_of(shape, strides, dtype.itemsize), lender)
        return DeviceArray(driver, memory, 0, shape, strides, dtype.numpy)
    if 0 in shape:
        return np.empty(shape, dtype.numpy)
    return _seen(lender, address, shape, strides, dtype, read_only)


def _seen(
    lender: _Lender,
    address: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    dtype: DType,
    read_only: bool,
) -> Array:
    """An array of NumPy's over the memory, which keeps the lender."""
    lender.__array_interface__ = {
        "version": 3, "shape": shape, "strides": strides, "typestr": dtype.numpy.str,
        "data": (address, read_only),
    }  # fmt: skip
    return np.asarray(lender)


def _row_major(shape: tuple[int, ...]) -> list[int]:
    steps, step = [], 1
    for n in reversed(shape):
        steps.append(step)
        step *= n
    return steps[::-1]
