"""Programs that native code runs, against the same programs run through ctypes."""

from __future__ import annotations

import ctypes
import sys

import numpy as np
import pytest
from natives import in_python

import dualgrad as dg
from dualgrad.compiler.ops.arithmetic import Add, Mul
from dualgrad.dispatch import find_or_make
from dualgrad.entries import program
from dualgrad.runtime.native import library
from dualgrad.runtime.profile import counters

pytestmark = pytest.mark.skipif(not library.load(), reason="native entries are off here")


def run(plan, operands):
    """(result of `run_program`, array it has made or None)"""
    arrays = [operands[k].array for k in plan.operands]
    numbers = [operands[k] for k in plan.numbers]
    handles = (ctypes.c_int64 * (len(arrays) + 1))(*map(id, arrays))
    scalars = (ctypes.c_int64 * (len(numbers) + 1))(*map(id, numbers))
    record = program.record_of(plan.bound)
    word = program.run_program(record, ctypes.addressof(handles), ctypes.addressof(scalars))
    if word:
        return word, None
    taken = ctypes.py_object.from_address(ctypes.addressof(handles) + 8 * len(arrays))
    array = taken.value
    assert sys.getrefcount(array) == 3  # of the handle, of this frame and of the call
    ctypes.pythonapi.Py_DecRef(taken)
    return word, array


def units_and_operands():
    x = dg.tensor(np.arange(12, dtype=np.float32).reshape(3, 4))
    large = dg.tensor(np.linspace(-3, 3, 300 * 400).reshape(300, 400))
    return [
        (Add.of(), (x, x)),
        (Mul.of(), (x, 2.5)),
        (Add.of(), (3, x)),
        (Mul.of(), (x.T, x.T)),
        (Add.of(), (large, large)),
        (Add.of(), (dg.zeros((0, 4)), 1.0)),
        (Add.of(), (dg.tensor([1, 2, 3]), True)),
    ]


@pytest.mark.parametrize("k", range(len(units_and_operands())))
def test_equal_to_a_run_through_ctypes(k):
    unit, operands = units_and_operands()[k]
    plan = find_or_make(unit, operands)
    before = counters.snapshot()
    word, array = run(plan, operands)
    once = counters.since(before)
    expected = plan.run(operands)[0]
    assert (word, once.launches, once.kernels) == (0, 1, counters.since(before).kernels // 2)
    assert array.dtype == expected.dtype
    assert array.shape == expected.shape
    assert array.tobytes() == expected.tobytes()
    assert array.flags.writeable


def test_a_large_integer_is_refused_without_an_exception():
    x = dg.tensor([1, 2, 3])
    plan = find_or_make(Add.of(), (x, 1))
    assert run(plan, (x, 2**63)) == (program.REFUSED, None)
    assert run(plan, (x, -(2**63)))[0] == 0


def test_minus_one_is_a_number_like_others():
    x = dg.tensor([1, 2, 3])
    assert run(find_or_make(Add.of(), (x, -1)), (x, -1))[1].tolist() == [0, 1, 2]
    y = dg.tensor([1.0, 2.0])
    assert run(find_or_make(Add.of(), (y, -1.0)), (y, -1.0))[1].tolist() == [0, 1]


def test_a_failed_check_is_an_error_word():
    x, index = dg.tensor([1.0, 2.0, 3.0]), dg.tensor([0, 7])
    seen = []
    unit_of = type(x).apply_unit

    def look(self, unit, operands):
        seen.append((unit, operands))
        return unit_of(self, unit, operands)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(x), "apply_unit", look)
        assert x.take(dg.tensor([2, 0])).tolist() == [3, 1]
    unit, operands = seen[-1]
    operands = tuple(index if o.dtype is dg.int64 else o for o in operands)
    plan = find_or_make(unit, operands)
    word, array = run(plan, operands)
    assert array is None
    with pytest.raises(IndexError, match="actual: 7"):
        plan.bound.fail(word)


def failing(f, x):
    """How many launches a call takes that an index out of range ends."""
    for _ in range(3):
        f(x, dg.tensor([1]))
    i = dg.tensor([7])
    before = counters.snapshot()
    with pytest.raises(dg.errors.IndexOutOfBounds):
        f(x, i)
    return counters.since(before).launches


@pytest.mark.parametrize("kind", [lambda f: f, dg.function])
def test_a_run_that_fails_is_counted_once(kind):
    f, x = kind(lambda x, i: x[i] * 2), dg.tensor([1.0, 2.0])
    found = failing(f, x)
    with in_python():
        assert failing(f, x) == found
