"""A subset of Python that becomes native code.

    @native
    def total(numbers: Word, count: Word) -> Word:
        found = 0
        for k in range(count):
            found += numbers[k]
        return found

A function that is decorated with `native` is a description: `library` compiles all of them into
one object, the first time that one is called.  Every value is a *word* of 64 bits, an integer or
an address:

    p[k], p[k] = v           the word k words after an address
    CELL.word, CELL.at       a word of the library itself (see `Cell`), and its address
    + - * // % & | ^ << >>   of signed words; // and % as in C; comparisons are 0 or 1
    and, or, not             are 0 or 1, and look at the right side only if it matters
    f(x)                     a native function; `c.PyTuple_New(n)` a C function of the process
    names                    local variables, else integers of the module

and if, while, `for k in range(...)`, break, continue, return, conditional expressions, and the
intrinsics below.  There are no exceptions: C-API functions return 0 after they set one.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import FunctionType
from typing import Any

Word = Any  # what native functions take and return, to type checkers


class CFunctions:
    """The C functions of the process, as attributes; they take and return words."""

    def __getattr__(self, name: str) -> Any:
        raise TypeError(f"{name} is for native functions only")


c = CFunctions()


class Cell:
    """Words of the library: zero at first, read and written by native code and by Python.

    `word` is the first of them, `at` the address.
    """

    def __init__(self, words: int = 1) -> None:
        self.words = words
        self.name = f"cell{len(_cells)}"
        self._memory: Any = None
        _cells.append(self)

    def bind(self, memory: Any) -> None:
        """Take the place, a ctypes array, where the library has put the words."""
        self._memory = memory

    @property
    def memory(self) -> Any:
        """All of its words, as a ctypes array."""
        return self._memory

    @property
    def at(self) -> Word:
        """Their address."""
        return ctypes.addressof(self._memory)

    @property
    def word(self) -> Word:
        return int(self._memory[0])

    @word.setter
    def word(self, value: int) -> None:
        self._memory[0] = value


def words(*numbers: int) -> Any:
    """A ctypes array of words."""
    return (ctypes.c_int64 * len(numbers))(*numbers)


class Native:
    """A function that native code is made of; `address` and calls need the library loaded."""

    def __init__(self, function: FunctionType) -> None:
        self.function = function
        self.name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        self.__name__, self.__doc__ = function.__name__, function.__doc__
        self.count = function.__code__.co_argcount
        self.address = 0
        self._call: Callable[..., int] | None = None
        _functions.append(self)

    def __call__(self, *words: int) -> int:
        if self._call is None:  # most are called by native code only
            assert self.address, self.name
            kind = ctypes.PYFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * self.count)
            self._call = kind(self.address)
        return self._call(*words)


_functions: list[Native] = []
_cells: list[Cell] = []


def native(function: Any) -> Any:
    """Describe native code; see the module's text."""
    return Native(function)


def functions() -> list[Native]:
    """All that have been described."""
    return _functions


def cells() -> list[Cell]:
    """All that have been made."""
    return _cells


# -- intrinsics ---------------------------------------------------------------------------------

INTRINSICS: dict[str, int] = {}  # and how many words each takes


def _intrinsic(function: Any) -> Any:
    INTRINSICS[function.__name__] = function.__code__.co_argcount

    def refused(*words: Any) -> Any:
        raise TypeError(f"{function.__name__} is for native functions only")

    return refused


@_intrinsic
def call(target: Word, *words: Word) -> Word:
    """What the function at an address returns; it takes and returns words."""


@_intrinsic
def address(function: Native) -> Word:
    """Where a native function is."""


@_intrinsic
def stack(words: int) -> Word:
    """The address of so many words (a constant) until the function returns."""


@_intrinsic
def text(value: str) -> Word:
    """The address of a constant text, which ends with a zero byte."""


@_intrinsic
def int32(p: Word, offset: Word) -> Word:
    """The signed number of 32 bits that stands `offset` bytes after an address."""


@_intrinsic
def set_int32(p: Word, offset: Word, value: Word) -> Word:
    """Write a number of 32 bits."""


@_intrinsic
def byte(p: Word, offset: Word) -> Word:
    """The byte that stands `offset` bytes after an address, from 0 to 255."""


@_intrinsic
def swap(p: Word, value: Word) -> Word:
    """Write a word and return the old one, at once for all threads."""


@_intrinsic
def release(p: Word, value: Word) -> Word:
    """Write a word after all that was written before, for all threads."""


@_intrinsic
def leading_zeros(x: Word) -> Word:
    """How many bits are zero above the highest one that is not."""


@_intrinsic
def shifted(x: Word, bits: Word) -> Word:
    """x moved to the right, with zeros coming in."""


@_intrinsic
def float_bits(x: Word) -> Word:
    """The bits of the double nearest to an integer."""


@_intrinsic
def fill(p: Word, value: Word, count: Word) -> Word:
    """Write a byte `count` times."""
