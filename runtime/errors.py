"""Errors of dualgrad.  All have one shape of message:

    ShapeError: [matmul] inner dimensions differ
      expect: a.shape[-1] == b.shape[-2]
      actual: 64 != 32
      why: ...
      hint: ...
      at train.py:41 in forward
          return h @ self.w2
                 ^^^^^^^^^^^

Each class is also the builtin class that a Python user would catch.
"""

from __future__ import annotations

from typing import ClassVar

from dualgrad.runtime.srcinfo import Location, called_names, user_location

unit_names: set[str] = set()  # of ops and composites, under which the compiler knows them
public_names: set[str] = set()  # of functions and methods, under which users know them


class DualgradError(Exception):
    """Base of all errors of dualgrad.

    what      one sentence that says what is wrong
    op        name of the op or function that refuses
    expect    what would have been right
    actual    what was found
    why       the reason behind the rule
    hint      what to do about it
    location  the user's line; found from the running frames when not given
    """

    max_lines: ClassVar[int] = 5  # of what was found; with all other parts a message has 12
    made: ClassVar[int] = 0  # how many there have been: traces look whether code has met some

    def __init__(
        self,
        what: str,
        *,
        op: str = "",
        expect: str = "",
        actual: str = "",
        why: str = "",
        hint: str = "",
        location: Location | None = None,
    ) -> None:
        super().__init__(what)
        DualgradError.made += 1
        self.what = what
        self.op = _public(op)
        self.expect = expect
        self.actual = actual
        self.why = why
        self.hint = hint
        self.location = user_location() if location is None else location

    def __str__(self) -> str:
        lines = [f"[{self.op}] {self.what}" if self.op else self.what]
        lines += _labelled(expect=self.expect, actual=_cut(self.actual, self.max_lines))
        lines += _labelled(why=self.why, hint=self.hint)
        if self.location is not None:
            lines.append(self.location.render())
        return "\n".join(lines)


def _public(op: str) -> str:
    """The name of an op, or that of the function the user called where only the compiler has it."""
    if op not in unit_names or op in public_names:
        return op
    return public_caller(op)


def public_caller(otherwise: str) -> str:
    """The name of the public function that the user's code has called, if it has."""
    return next((name for name in called_names() if name in public_names), otherwise)


def _labelled(**parts: str) -> list[str]:
    return [f"  {label}: {text}" for label, text in parts.items() if text]


def _cut(text: str, count: int) -> str:
    """The first lines of a list of differences; the attribute of the error has them all."""
    lines = text.split("\n")
    if len(lines) <= count:
        return text
    kept = lines[: count - 1]
    return "\n".join([*kept, f"    ... and {len(lines) - len(kept)} more"])


class ShapeError(DualgradError, ValueError):
    """Shapes that do not fit."""


class DTypeError(DualgradError, TypeError):
    """A dtype that is unknown or that an op does not take."""


class IndexOutOfBounds(DualgradError, IndexError):
    """An index outside of its dimension."""


class OperandError(DualgradError, TypeError):
    """A value of a type that an op does not take."""


class LibraryError(DualgradError, RuntimeError):
    """A function of the host that a program called has failed."""


class ArgumentError(DualgradError, ValueError):
    """An argument with an impossible value."""


class GradientError(DualgradError, RuntimeError):
    """A gradient that cannot be computed."""


class NaNError(DualgradError, FloatingPointError):
    """A NaN, or an infinity, where `dg.detect_nan` looks for them."""


class TraceError(DualgradError, RuntimeError):
    """Code that cannot be traced."""


class DeviceError(DualgradError, RuntimeError):
    """A device that is unknown, missing, not the right one, or that has failed."""


class CompileError(DualgradError, RuntimeError):
    """A verifier refused an IR: a fault of the compiler, never of its user."""

    max_lines = 1000  # a program's text, which only its authors read


class ExchangeError(DualgradError, BufferError):
    """Memory that cannot be shared with another library."""


class DataError(DualgradError, ValueError):
    """A damaged or foreign file."""


class DataTimeout(DualgradError, TimeoutError):
    """A batch that did not come in time."""


class OutOfMemory(DualgradError, MemoryError):
    """Memory could not be allocated."""
