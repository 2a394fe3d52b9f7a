"""Changes in place in native code: `Tensor._write(unit, *others)`, where a plan is known and
nothing is recorded.

The table of `ops` has the plan under the address of the unit plus one, which no object has.  What
Python would refuse, copy first or put on the tape, goes to Python.
"""

from __future__ import annotations

from dualgrad.compiler.ir.types import TensorType
from dualgrad.entries.ops import (
    AS_TENSOR,
    NUMBERS,
    PLAN,
    PROGRAM,
    TAKEN,
    TENSORS,
    WHOLE,
    find,
    kind_of,
)
from dualgrad.entries.program import FAILED, run_program
from dualgrad.entries.state import PLAIN, RECORDS, mode_of_thread
from dualgrad.entries.tape import put, user_place
from dualgrad.entries.tensors import ARRAY, NONE, ORIGIN, TENSOR_TYPE, VERSION, taken
from dualgrad.gradients.history import OPEN
from dualgrad.runtime.dtype import DType
from dualgrad.runtime.native import callables, layout, library
from dualgrad.runtime.native.language import Cell, Word, c, int32, native, stack
from dualgrad.runtime.native.layout import ITEMS, LIST_ITEMS, TYPE, slot
from dualgrad.tensor import Tensor

_MOST = 15  # operands besides the tensor itself
_DATA, _SHAPE, _STRIDES = (
    n // 8 for n in (layout.ARRAY_DATA, layout.ARRAY_SHAPE, layout.ARRAY_STRIDES)
)
_DIMS, _FLAGS, _WRITEABLE = layout.ARRAY_NDIM, layout.ARRAY_FLAGS, 0x400
_DTYPE, _ITEMSIZE = slot(TensorType, "dtype"), slot(DType, "itemsize")
_ORIGIN_KIND = ITEMS + 3

_slow, _open = Cell(), Cell()


@native
def write(self: Word, arguments: Word, count: Word, names: Word) -> Word:
    """See `Tensor._write`."""
    words = stack(18)
    words[1] = self
    if not names and count > 1 and count <= _MOST + 1:
        words[0] = arguments[0] + 1
        for k in range(1, count):
            words[1 + k] = arguments[k]
        done = _write(words, count + 1)
        if done != 0:
            return 0 if done == FAILED else taken(self)
    if count > _MOST + 1 or names:
        return _call_slow(self, arguments, count, names)
    words[0] = self
    for k in range(count):
        words[1 + k] = arguments[k]
    return c.PyObject_Vectorcall(_slow.word, words, count + 1, 0)


@native
def _call_slow(self: Word, arguments: Word, count: Word, names: Word) -> Word:
    """The same in Python for arguments of any number."""
    total = count + (names[ITEMS - 1] if names else 0)
    words = c.PyMem_Malloc(8 * (total + 1))
    if not words:
        return c.PyErr_NoMemory()
    words[0] = self
    for k in range(total):
        words[1 + k] = arguments[k]
    found = c.PyObject_Vectorcall(_slow.word, words, count + 1, names)
    c.PyMem_Free(words)
    return found


@native
def _write(words: Word, count: Word) -> Word:
    """1 if it is done; 0 where Python has to do it; FAILED with an exception set."""
    found = stack(2)
    numbers = stack(16)
    arrays = stack(16)
    mode = mode_of_thread()  # may run Python, so before an entry is looked for
    if not mode & PLAIN:
        return 0
    entry = find(words, count, found)
    if not entry or not _may(entry, words, count, mode, found[0]):
        return 0
    plan = taken(entry[PLAN])  # it keeps the entry
    tensors = entry[TENSORS]
    operands = entry[TAKEN]
    for k in range(tensors):
        arrays[k] = (words[operands[k]])[ARRAY]
    for k in range(entry[NUMBERS]):
        numbers[k] = words[operands[tensors + k]]
    error = run_program(entry[PROGRAM], arrays, numbers)
    c.Py_DecRef(plan)
    if error:
        return FAILED if error == FAILED else 0
    return _changed(words[1])


@native
def _may(entry: Word, words: Word, count: Word, mode: Word, requiring: Word) -> Word:
    """Whether nothing of it needs Python: no record, no refusal, no copy of an operand."""
    x = words[1]
    array = x[ARRAY]
    if mode & RECORDS:
        if requiring:
            return 0
        if x[ORIGIN] != NONE.word and (x[ORIGIN])[_ORIGIN_KIND] != _open.word:
            return 0
    if not int32(array, _FLAGS) & _WRITEABLE:
        return 0
    for k in range(int32(array, _DIMS)):
        if not (array[_STRIDES])[k] and (array[_SHAPE])[k] > 1:
            return 0
    low = array[_DATA]
    high = _end(x)
    for k in range(2, count):
        y = words[k]
        if kind_of(y[TYPE]) == AS_TENSOR:
            other = y[ARRAY]
            if other != array:
                if other[_DATA] < high and low < _end(y):
                    return 0
            elif not entry[WHOLE]:
                return 0
    return 1


@native
def _end(x: Word) -> Word:
    """The address behind the last byte of a tensor's elements; its first one if there are none."""
    array = x[ARRAY]
    shape = array[_SHAPE]
    strides = array[_STRIDES]
    last = array[_DATA]
    for k in range(int32(array, _DIMS)):
        if not shape[k]:
            return array[_DATA]
        last += (shape[k] - 1) * strides[k]
    return last + c.PyLong_AsLong(((x[TENSOR_TYPE])[_DTYPE])[_ITEMSIZE])


@native
def _changed(x: Word) -> Word:
    """Note a change in place; see `Viewing.changed`."""
    items = (x[VERSION])[LIST_ITEMS]
    times = c.PyLong_FromLongLong(c.PyLong_AsLongLong(items[0]) + 1)
    if not times:
        return FAILED
    put(items, 0, times)
    c.Py_DecRef(times)
    place = user_place()
    if not place:
        return FAILED
    put(items, 2, place)
    c.Py_DecRef(place)
    return 1


_in_python = Tensor._write


def _ready() -> None:
    """Tell native code where things are; the library is loaded."""
    _slow.word, _open.word = id(_in_python), id(OPEN)


def _serve() -> None:
    """Let native code run where Python's does so far."""
    Tensor._write = callables.method(Tensor, "_write", write)  # type: ignore[method-assign]


library.when_loaded(_ready)
library.when_filled(_serve)
