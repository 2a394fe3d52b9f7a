"""The shape of messages, and the classes behind them."""

import builtins
import copy
import pickle
import traceback

import pytest

from dualgrad.runtime import errors
from dualgrad.runtime.errors import ArgumentError, DualgradError, ShapeError
from dualgrad.runtime.srcinfo import Location

BUILTIN = {
    "ShapeError": ValueError,
    "DTypeError": TypeError,
    "DeviceError": RuntimeError,
    "IndexOutOfBounds": IndexError,
    "ArgumentError": ValueError,
    "GradientError": RuntimeError,
    "DataTimeout": TimeoutError,
    "NaNError": FloatingPointError,
    "OperandError": TypeError,
    "LibraryError": RuntimeError,
    "TraceError": RuntimeError,
    "CompileError": RuntimeError,
    "DataError": ValueError,
    "OutOfMemory": MemoryError,
    "ExchangeError": BufferError,
}


def full_error():
    return ShapeError(
        "inner dimensions differ",
        op="matmul",
        expect="a.shape[-1] == b.shape[-2]",
        actual="64 != 32",
        why="the sum runs over both",
        hint="transpose b",
        location=Location("/nowhere/train.py", 41, "forward"),
    )


def test_message_has_the_agreed_shape():
    assert str(full_error()) == (
        "[matmul] inner dimensions differ\n"
        "  expect: a.shape[-1] == b.shape[-2]\n"
        "  actual: 64 != 32\n"
        "  why: the sum runs over both\n"
        "  hint: transpose b\n"
        "  at /nowhere/train.py:41 in forward"
    )


def test_long_lists_of_differences_are_cut():
    found = "".join(f"\n    missing w{k}" for k in range(30))
    error = ArgumentError("no fit", expect="e", actual=found, why="w", hint="h")
    lines = str(error).splitlines()
    assert len(lines) == 12
    assert lines[2:7] == [
        "  actual: ",
        "    missing w0",
        "    missing w1",
        "    missing w2",
        "    ... and 27 more",
    ]
    assert error.actual == found
    few = ArgumentError("no fit", actual="\n".join("abcde"), location=error.location)
    assert "more" not in str(few)


def test_location_is_found_and_marked():
    def forward(h, w):
        return h @ w

    class Left:
        def __matmul__(self, other):
            raise ShapeError("inner dimensions differ")

    with pytest.raises(ShapeError) as caught:
        forward(Left(), 1)
    lines = str(caught.value).splitlines()
    # the operator is a user's function here: it is the innermost frame
    assert lines[1].endswith("in __matmul__")
    assert lines[2] == '      raise ShapeError("inner dimensions differ")'
    assert lines[3] == " " * 12 + "^" * len('ShapeError("inner dimensions differ")')


def test_python_prints_the_class_name_first():
    text = "".join(traceback.format_exception_only(full_error()))
    assert text.startswith("dualgrad.runtime.errors.ShapeError: [matmul] inner dimensions differ\n")


def test_every_class_is_also_a_builtin():
    found = {
        name: cls
        for name, cls in vars(errors).items()
        if isinstance(cls, type) and issubclass(cls, DualgradError) and cls is not DualgradError
    }
    assert found.keys() == BUILTIN.keys()
    for name, cls in found.items():
        assert issubclass(cls, BUILTIN[name])
        assert getattr(builtins, BUILTIN[name].__name__) is BUILTIN[name]


@pytest.mark.parametrize("name", sorted(BUILTIN))
def test_errors_can_be_pickled(name):
    before = getattr(errors, name)("it is wrong", op="add", hint="do right")
    after = pickle.loads(pickle.dumps(before))
    assert type(after) is type(before)
    assert str(after) == str(before)
    assert "^" in str(after)
    assert after.location == before.location
    assert after.hint == "do right"
    assert str(copy.copy(before)) == str(before)
