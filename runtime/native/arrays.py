"""NumPy arrays on memory of the pool.

An array owns its block, as NumPy's own arrays do theirs: the functions that give it back, or make
it larger for `ndarray.resize`, are those of the data handler that the array names (NEP 49).  So
the death of an array needs no Python.

A *record* says what to make, in words:

    0  bytes
    1  address of NumPy's dtype, which whoever has the record keeps alive
    2  number of dimensions
    3  the dimensions

Sources: "Array API" and "Memory management in NumPy" of NumPy's C API.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from dualgrad.runtime.dtype import DType
from dualgrad.runtime.native import layout, library
from dualgrad.runtime.native.language import (
    Cell,
    Word,
    c,
    call,
    fill,
    int32,
    native,
    set_int32,
    stack,
)
from dualgrad.runtime.native.pool import _SIZE, MOST, give, take

_ARRAY_TYPE, _NEW_FROM_DESCR = 2, 94  # of NumPy's table of functions
_FLAGS = 0x501  # row-major, aligned, writeable
_OWNS_DATA = 0x4
_FLAGS_AT, _HANDLER = layout.ARRAY_FLAGS, layout.ARRAY_HANDLER // 8
_NAME_BYTES, _HANDLER_WORDS = 128, 21
_CAPSULE_NAME = b"mem_handler"
_DTYPE_NUMPY, _DTYPE_SIZE = (layout.slot(DType, name) for name in ("numpy", "itemsize"))
_MOST_DIMS, _RECORD, _SAFE = 64, 67, 1 << 31
_TYPE, _LENGTH, _ITEMS = layout.TYPE, layout.LENGTH, layout.ITEMS

_array_type, _new_from_descr = Cell(), Cell()
_handler, _handler_struct = Cell(), Cell(_HANDLER_WORDS)  # a capsule, and what it points to
_tuple_type, _int_type, _dtype_type = Cell(), Cell(), Cell()
_slow, _make_room = Cell(), Cell()  # functions of Python
elsewhere = Cell()  # not 0: all arrays are made in Python


@native
def new_array(record: Word) -> Word:
    """A new array, row-major and with arbitrary contents; 0 with an exception set."""
    if elsewhere.word:
        return _in_python(record)
    block = take_or_raise(record[0])
    if not block:
        return 0
    dtype = record[1]
    c.Py_IncRef(dtype)  # the next call takes a reference
    made = call(
        _new_from_descr.word, _array_type.word, dtype, record[2], record + 24, 0, block, _FLAGS, 0
    )
    if not made:
        give(block)
        return 0
    c.Py_IncRef(_handler.word)
    made[_HANDLER] = _handler.word
    set_int32(made, _FLAGS_AT, int32(made, _FLAGS_AT) | _OWNS_DATA)
    return made


@native
def take_or_raise(nbytes: Word) -> Word:
    """A block of the pool; 0 with OutOfMemory set."""
    block = take(nbytes)
    if block:
        return block
    argument = stack(1)
    argument[0] = c.PyLong_FromLongLong(nbytes)
    if not argument[0]:
        return 0
    done = c.PyObject_Vectorcall(_make_room.word, argument, 1, 0)
    c.Py_DecRef(argument[0])
    if not done:
        return 0
    c.Py_DecRef(done)
    block = take(nbytes)
    return block if block else c.PyErr_NoMemory()


@native
def _in_python(record: Word) -> Word:
    """The array that Python makes."""
    arguments = stack(2)
    count = record[2]
    shape = c.PyTuple_New(count)
    if not shape:
        return 0
    for k in range(count):
        shape[_ITEMS + k] = c.PyLong_FromLongLong(record[3 + k])
        if not shape[_ITEMS + k]:
            c.Py_DecRef(shape)
            return 0
    arguments[0] = shape
    arguments[1] = record[1]
    made = c.PyObject_Vectorcall(_slow.word, arguments, 2, 0)
    c.Py_DecRef(shape)
    return made


@native
def empty(self: Word, arguments: Word, count: Word, names: Word) -> Word:
    """empty(shape, dtype); whatever is not quite ordinary goes to Python."""
    record = stack(_RECORD)
    if count == 2 and not names:
        shape = arguments[0]
        dtype = arguments[1]
        if shape[_TYPE] == _tuple_type.word and dtype[_TYPE] == _dtype_type.word:
            dims = shape[_LENGTH]
            if dims <= _MOST_DIMS:
                nbytes = c.PyLong_AsLongLong(dtype[_DTYPE_SIZE])
                record[1] = dtype[_DTYPE_NUMPY]
                record[2] = dims
                k = 0
                while k < dims:
                    n = shape[_ITEMS + k]
                    if n[_TYPE] != _int_type.word:
                        break
                    extent = c.PyLong_AsLongLong(n)
                    if extent < 0 or extent >= _SAFE or nbytes >= _SAFE:
                        c.PyErr_Clear()
                        break
                    record[3 + k] = extent
                    nbytes *= extent
                    k += 1
                if k == dims:
                    record[0] = nbytes
                    return new_array(record)
    return c.PyObject_Vectorcall(self, arguments, count, names)


# -- the data handler -----------------------------------------------------------------------------


@native
def _malloc(context: Word, size: Word) -> Word:
    return take(size)


@native
def _calloc(context: Word, count: Word, size: Word) -> Word:
    if count < 0 or size < 0 or (size and count > MOST // size):
        return 0
    block = take(count * size)
    if block:
        fill(block, 0, count * size)
    return block


@native
def _realloc(context: Word, block: Word, size: Word) -> Word:
    if block and block[_SIZE] >= size:
        return block
    larger = take(size)
    if larger and block:
        c.memcpy(larger, block, block[_SIZE])
        give(block)
    return larger


@native
def _free(context: Word, block: Word, size: Word) -> Word:
    return give(block)


# -- what native code needs of the process --------------------------------------------------------

Array = np.ndarray[Any, Any]
_kept: list[Any] = []  # objects whose addresses stand in cells


def make_in_python(slow: Callable[..., Any], make_room: Callable[[int], None]) -> None:
    """Say what native code calls where it needs Python; once, before it runs.

    slow        (shape, NumPy's dtype) -> array, while the pool is not to be asked
    make_room   (bytes) -> None, where the pool has no such block; it raises OutOfMemory
    """
    _kept.extend((slow, make_room))
    _slow.word, _make_room.word = id(slow), id(make_room)


def on_pool(shape: tuple[int, ...], dtype: np.dtype[Any], nbytes: int) -> Array:
    """A new array, of at most MOST bytes.  Raises OutOfMemory."""
    record = (ctypes.c_int64 * (3 + len(shape)))(nbytes, id(dtype), len(shape), *shape)
    make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_int64)(new_array.address)
    made: Array = make(ctypes.addressof(record))
    return made


def is_pooled(array: Array) -> bool:
    """Whether the memory of an array is a block of the pool, and its own."""
    at = id(array) + layout.ARRAY_HANDLER
    return library.is_loaded() and ctypes.c_ssize_t.from_address(at).value == _handler.word


def _fill_cells() -> None:
    new_capsule: Any = ctypes.pythonapi.PyCapsule_New
    new_capsule.restype = ctypes.py_object
    new_capsule.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]

    _array_type.word = layout.numpy_function(_ARRAY_TYPE)
    _new_from_descr.word = layout.numpy_function(_NEW_FROM_DESCR)
    _tuple_type.word, _int_type.word, _dtype_type.word = id(tuple), id(int), id(DType)
    struct = _handler_struct.memory
    name = b"dualgrad".ljust(_NAME_BYTES - 1, b"\0") + b"\1"  # its version is the last byte
    ctypes.memmove(struct, name, _NAME_BYTES)
    for k, function in enumerate((_malloc, _calloc, _realloc, _free)):
        struct[_NAME_BYTES // 8 + 1 + k] = function.address
    capsule = new_capsule(ctypes.addressof(struct), _CAPSULE_NAME, None)
    _kept.append(capsule)
    _handler.word = id(capsule)


library.when_loaded(_fill_cells)
