"""Arrays of NumPy, made by native code."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from dualgrad.runtime.native import library
from dualgrad.runtime.native.language import Cell, Word, c, call, native

_ARRAY_TYPE, _NEW_FROM_DESCR = 2, 94  # in NumPy's table of C functions (numpy/__multiarray_api.h)

_numpy = Cell(2)  # PyArray_Type and PyArray_NewFromDescr


@native
def new_array(record: Word) -> Word:
    """A new C-contiguous array with arbitrary contents; 0 with an exception set.

    record  [0] bytes of its memory, [1] the dtype object, which the record's owner keeps alive,
            [2] number of dimensions, [3...] dimensions
    """
    words = _numpy.at
    c.Py_IncRef(record[1])
    return call(words[1], words[0], record[1], record[2], record + 24, 0, 0, 0, 0)


def _bind() -> None:
    core: Any = getattr(np, "_core", None) or np.core
    table = ctypes.pythonapi.PyCapsule_GetPointer
    table.restype, table.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    functions = (ctypes.c_void_p * (_NEW_FROM_DESCR + 1)).from_address(
        table(core.multiarray._ARRAY_API, None)
    )
    _numpy.memory[:] = functions[_ARRAY_TYPE], functions[_NEW_FROM_DESCR]


library.when_loaded(_bind)
