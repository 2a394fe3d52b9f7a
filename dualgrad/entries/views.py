"""Views in native code: tensors over memory of others, as `Tensor.view_over` makes them.

A *record* says what to show, in words:

    0  bytes from the start of the operand's memory
    1  address of the type           4  address of the op, or of None
    2  of the layout, or of None     5  number of dimensions
    3  of the signature              6  the dimensions, then their strides in bytes

Source: "Array API" of NumPy's C API, PyArray_NewFromDescr and PyArray_SetBaseObject.
"""

from __future__ import annotations

import ctypes
from typing import Any

from dualgrad.compiler.ir.types import TensorType, contiguous_strides
from dualgrad.dispatch import Alias
from dualgrad.entries.tape import put
from dualgrad.entries.tensors import (
    ARRAY,
    BASE,
    LAYOUT,
    NONE,
    ORIGIN,
    SIG,
    VERSION,
    new_tensor,
    taken,
)
from dualgrad.gradients import history
from dualgrad.gradients.history import MANY, NO_GRAD, OPEN
from dualgrad.runtime.native import layout, library
from dualgrad.runtime.native.language import Cell, Word, c, call, int32, native, stack
from dualgrad.runtime.native.layout import ITEMS, LENGTH, LIST_ITEMS
from dualgrad.tensor import signature

OFFSET, TYPE, STEPS, SIGNATURE, HOW, DIMS, SIZES = range(7)  # words of a record
_DATA, _DTYPE, _FLAGS = layout.ARRAY_DATA // 8, layout.ARRAY_DTYPE // 8, layout.ARRAY_FLAGS
_KEPT_FLAGS = 0x500  # aligned, writeable: NumPy looks for itself whether memory is contiguous

_new_from_descr, _set_base, _array_type = Cell(), Cell(), Cell()
_next_view, _open, _no_grad, _thinned = Cell(), Cell(), Cell(), Cell()


@native
def new_view(source: Word, record: Word, records: Word) -> Word:
    """A tensor over a part of the memory of `source`; 0 with an exception set.  `records` says
    whether gradients are enabled."""
    array = _part(source[ARRAY], record)
    if not array:
        return 0
    view = new_tensor(array, record[TYPE])
    if not view:
        return 0
    put(view, LAYOUT, record[STEPS])
    put(view, SIG, record[SIGNATURE])
    put(view, BASE, source if source[BASE] == NONE.word else source[BASE])
    put(view, VERSION, source[VERSION])
    origin = _origin(source, record[HOW], records)
    if origin:
        put(view, ORIGIN, origin)
        c.Py_DecRef(origin)
        if _show(view, source[VERSION]):
            return view
    c.Py_DecRef(view)
    return 0


@native
def _part(array: Word, record: Word) -> Word:
    """The part of an array."""
    count = record[DIMS]
    sizes = record + 8 * SIZES
    dtype = array[_DTYPE]
    c.Py_IncRef(dtype)  # the next call takes a reference
    part = call(
        _new_from_descr.word, _array_type.word, dtype, count, sizes, sizes + 8 * count,
        array[_DATA] + record[OFFSET], int32(array, _FLAGS) & _KEPT_FLAGS, 0,
    )  # fmt: skip
    if part and int32_of(call(_set_base.word, part, taken(array))):
        c.Py_DecRef(part)
        return 0
    return part


@native
def int32_of(word: Word) -> Word:
    """What a function returned that returns an `int`."""
    return (word << 32) >> 32


@native
def _origin(source: Word, how: Word, records: Word) -> Word:
    """See `history.Origin`."""
    number = c.PyObject_CallNoArgs(_next_view.word)
    if not number:
        return 0
    origin = c.PyTuple_New(4)
    if not origin:
        c.Py_DecRef(number)
        return 0
    kind = _open.word if records else _no_grad.word
    before = source[ORIGIN]
    if before != NONE.word and before[ITEMS + 3] != _open.word:
        kind = before[ITEMS + 3]
    origin[ITEMS] = taken(source)
    origin[ITEMS + 1] = taken(how)
    origin[ITEMS + 2] = number
    origin[ITEMS + 3] = taken(kind)
    return origin


@native
def _show(view: Word, version: Word) -> Word:
    """Note a view among those of its memory; whether that worked.  See `history.show`."""
    if (version[LIST_ITEMS])[1] == NONE.word:
        known = c.PyList_New(0)
        if not known:
            return 0
        put(version[LIST_ITEMS], 1, known)
        c.Py_DecRef(known)
    known = (version[LIST_ITEMS])[1]
    ref = c.PyWeakref_NewRef(view, 0)
    if not ref:
        return 0
    failed = c.PyList_Append(known, ref)
    c.Py_DecRef(ref)
    n = known[LENGTH]
    if failed or n < MANY or n & (n - 1):
        return not failed
    argument = stack(1)
    argument[0] = known
    done = c.PyObject_Vectorcall(_thinned.word, argument, 1, 0)
    if done:
        c.Py_DecRef(done)
    return done != 0


# -- records ------------------------------------------------------------------------------------


class ViewRecord:
    """The record of views by an `Alias` of operands of a type, at `address` while this lives."""

    __slots__ = ("_kept", "address")

    def __init__(self, alias: Alias, operand: TensorType, how: Any) -> None:
        assert alias.strides is not None
        type = operand.with_shape(alias.shape)
        size = type.dtype.itemsize
        steps = None if alias.strides == contiguous_strides(alias.shape) else alias.strides
        sig = type if steps is None else signature(type, steps)
        numbers = (
            alias.offset * size, id(type), id(steps), id(sig), id(how), len(alias.shape),
            *alias.shape, *[s * size for s in alias.strides],
        )  # fmt: skip
        words = (ctypes.c_int64 * len(numbers))(*numbers)
        self._kept = (words, type, steps, sig, how)
        self.address = ctypes.addressof(words)


def _bind() -> None:
    """Tell native code where things are; the library is loaded."""
    _new_from_descr.word, _set_base.word = map(layout.numpy_function, (94, 282))
    _array_type.word = layout.numpy_function(2)
    _next_view.word, _thinned.word = id(history.next_view), id(history.thin)
    _open.word, _no_grad.word = id(OPEN), id(NO_GRAD)


library.when_loaded(_bind)
