"""Running a program from native code.

A *record* says all that a launch needs, in words:

    [0] entry             [4] address of the params: first the arena's address, then the prefix
    [1] context           [5] how many words these are
    [2] number of inputs  [6] number of scalars
    [3] of outputs        [7] address of their kinds: 0 an integer, 1 a float
    [8] bytes of arena    [9] whether it runs long enough to let other threads run meanwhile
    [10] kernels          [11...] address of the record of each output, for `new_array`

See `dualgrad.runtime.program` for the ABI that it serves.
"""

from __future__ import annotations

import ctypes
import math
import struct
from typing import TYPE_CHECKING, Any

from dualgrad.runtime.dtype import DType
from dualgrad.runtime.native import library
from dualgrad.runtime.native.arrays import elsewhere, new_array, take_or_raise
from dualgrad.runtime.native.language import Cell, Word, c, call, native, stack, words
from dualgrad.runtime.native.pool import give
from dualgrad.runtime.profile import counters

if TYPE_CHECKING:
    from dualgrad.backends.cpu import CpuBound

ENTRY, CONTEXT, INPUTS, OUTPUTS, PARAMS, WORDS, SCALARS, KINDS = range(8)
ARENA, HEAVY, KERNELS, RECORDS = range(8, 12)
FAILED, REFUSED = -1, -2  # what `run_program` returns beside error words
_SMALL = 64  # words of params that the stack takes
_LAUNCHES, _KERNELS = 0, 1
_MINUS_ONE = -0x4010000000000000  # the bits of the double, which may stand for an error

counted = Cell(2)  # programs run by native code, and kernels


@native
def run_program(record: Word, handles: Word, scalars: Word) -> Word:
    """Run a program: `handles` are its inputs, and get its outputs, new arrays that the caller
    owns; `scalars` are Python's own ints, floats and bools.

    Returns 0; or an error word, FAILED with an exception set, or REFUSED for an integer that is no
    int64 and while the pool is not to be asked: then there are no outputs.
    """
    if elsewhere.word:
        return REFUSED
    space = stack(_SMALL)
    words = record[WORDS] + record[SCALARS]
    params = space
    if words > _SMALL:
        params = c.PyMem_RawMalloc(8 * words)
        if not params:
            c.PyErr_NoMemory()
            return FAILED
    error = _prepare(record, params, scalars)
    if not error:
        error = _outputs(record, handles)
        if not error:
            error = _launch(record, handles, params)
    if words > _SMALL:
        c.PyMem_RawFree(params)
    return error


@native
def _prepare(record: Word, params: Word, scalars: Word) -> Word:
    """Write the params but for the arena's address."""
    template = record[PARAMS]
    count = record[WORDS]
    for k in range(count):
        params[k] = template[k]
    kinds = record[KINDS]
    for k in range(record[SCALARS]):
        x = scalars[k]
        number = c.PyFloat_AsDouble(x) if kinds[k] else c.PyLong_AsLongLong(x)
        if (number == -1 or number == _MINUS_ONE) and c.PyErr_Occurred():
            c.PyErr_Clear()
            return REFUSED
        params[count + k] = number
    return 0


@native
def _outputs(record: Word, handles: Word) -> Word:
    """Make the arrays of the outputs."""
    inputs = record[INPUTS]
    for k in range(record[OUTPUTS]):
        array = new_array(record[RECORDS + k])
        if not array:
            _drop(handles + 8 * inputs, k)
            return FAILED
        handles[inputs + k] = array
    return 0


@native
def _drop(arrays: Word, count: Word) -> Word:
    """Let go of arrays, whatever exception is set."""
    for k in range(count):
        c.Py_DecRef(arrays[k])
    return 0


@native
def _launch(record: Word, handles: Word, params: Word) -> Word:
    """Run the program; where it fails the outputs are let go."""
    arena = 0
    if record[ARENA]:
        arena = take_or_raise(record[ARENA])
        if not arena:
            _drop(handles + 8 * record[INPUTS], record[OUTPUTS])
            return FAILED
        params[0] = arena
    if record[HEAVY]:
        error = _launch_free(record, handles, params)
    else:
        error = call(record[ENTRY], handles, params, record[CONTEXT])
    if arena:
        give(arena)
    if error:  # Python runs it again, and counts that
        _drop(handles + 8 * record[INPUTS], record[OUTPUTS])
        return error
    (counted.at)[_LAUNCHES] += 1
    (counted.at)[_KERNELS] += record[KERNELS]
    return 0


@native
def _launch_free(record: Word, handles: Word, params: Word) -> Word:
    """Launch while other threads run; they may let go of the tensors that had the inputs."""
    inputs = record[INPUTS]
    for k in range(inputs):
        c.Py_IncRef(handles[k])
    thread = c.PyEval_SaveThread()
    error = call(record[ENTRY], handles, params, record[CONTEXT])
    c.PyEval_RestoreThread(thread)
    _drop(handles, inputs)
    return error


class ProgramRecord:
    """The record of a program for known sizes, at `address` while this object lives.

    It takes the outputs that the program has when it is made.
    """

    __slots__ = ("_kept", "address")

    def __init__(self, bound: CpuBound) -> None:
        program, loaded = bound.program, bound.code.loaded
        params = words(0, *struct.unpack(f"={len(bound.prefix) // 8}q", bound.prefix))
        kinds = words(*(d.is_float for d in program.scalars))
        arrays = [_array_record(shape, dtype) for shape, dtype in bound.outputs]
        record = words(
            loaded.entry, loaded.context, len(program.inputs), len(arrays),
            ctypes.addressof(params), len(params), len(kinds), ctypes.addressof(kinds),
            bound.arena, bound.heavy, len(program.kernels), *map(ctypes.addressof, arrays),
        )  # fmt: skip
        self._kept = (record, params, kinds, arrays, loaded, [d for _, d in bound.outputs])
        self.address = ctypes.addressof(record)


def record_of(bound: CpuBound) -> int:
    """The address of the record of a program, which lives as long as `bound` does."""
    if bound.record is None:
        with library.lock:  # native code has the address of the first one
            if bound.record is None:
                bound.record = ProgramRecord(bound)
    address: int = bound.record.address
    return address


def _array_record(shape: tuple[int, ...], dtype: DType) -> Any:
    """What `new_array` makes an array from."""
    nbytes = dtype.itemsize * math.prod(shape)
    return words(nbytes, id(dtype.numpy), len(shape), *shape)


def _bind() -> None:
    counters.native = counted.memory


library.when_loaded(_bind)
