"""Where in the user's program are we?  Lines for error messages and for tagging graph nodes.

A *user frame* is one whose code lies outside of the folders of `dualgrad`, `dualgrad.compiler`
and `dualgrad.runtime`, and outside of the glue between them and the user (context managers,
functools, the import system).  Finding it walks frames only; the source text is read when a
message is rendered.
"""

from __future__ import annotations

import contextlib
import functools
import linecache
import os
import sys
import warnings
from types import CodeType, FrameType
from typing import Any

from dualgrad.runtime.records import dataclass, field


def _package_roots() -> tuple[str, ...]:
    """Folders of the three packages, in every layout: installed, editable or linked."""
    runtime = os.path.dirname(os.path.abspath(__file__))
    roots = [runtime, os.path.join(os.path.dirname(runtime), "compiler")]
    roots.append(os.path.dirname(os.path.abspath(str(sys.modules["dualgrad"].__file__))))
    return tuple(root + os.sep for root in roots)


_OWN_ROOTS = _package_roots()
_GLUE_FILES = (contextlib.__file__, functools.__file__)
own_files: dict[str, bool] = {}  # those seen so far


def _classify(filename: str) -> bool:
    own = filename.startswith((*_OWN_ROOTS, "<frozen ")) or filename in _GLUE_FILES
    own_files[filename] = own
    return own


def is_package_file(filename: str) -> bool:
    """Whether a file belongs to dualgrad itself."""
    return filename.startswith(_OWN_ROOTS)


def _is_own(frame: FrameType) -> bool:
    filename = frame.f_code.co_filename
    if filename == "<string>":  # generated code, such as the __init__ of a dataclass
        return str(frame.f_globals.get("__name__")).startswith("dualgrad.")
    own = own_files.get(filename)
    return _classify(filename) if own is None else own


def _user_frame(frame: FrameType | None, skip: int = 0) -> FrameType | None:
    while frame is not None:
        if not _is_own(frame):
            if skip == 0:
                return frame
            skip -= 1
        frame = frame.f_back
    return None


@dataclass(frozen=True)
class Location:
    """A line of the user's program.

    `text` is the stripped source line ("" when unknown); `col` and `end_col` are the half-open
    range of characters of `text` that was being executed, or None when Python does not tell.
    The three are looked up on first use.
    """

    filename: str
    lineno: int
    function: str
    code: CodeType | None = field(default=None, repr=False, compare=False)
    lasti: int = field(default=-1, repr=False, compare=False)

    @classmethod
    def of_place(cls, place: Place) -> Location:
        """The line of an instruction that `user_place` has noted."""
        code, lasti = place
        spans = code.co_lines()
        line = next((n for start, end, n in spans if start <= lasti < end), None)
        lineno = code.co_firstlineno if line is None else line
        return cls(code.co_filename, lineno, code.co_name, code, lasti)

    @functools.cached_property
    def text(self) -> str:
        return self._source.strip()

    @property
    def col(self) -> int | None:
        return None if self._span is None else self._span[0]

    @property
    def end_col(self) -> int | None:
        return None if self._span is None else self._span[1]

    @property
    def _source(self) -> str:
        return linecache.getline(self.filename, self.lineno).rstrip("\n")

    @functools.cached_property
    def _span(self) -> tuple[int, int] | None:
        """Range of `text` covered by the running instruction, in characters."""
        if self.code is None or self.lasti < 0 or not self.text:
            return None
        index = self.lasti // 2
        position = next((p for i, p in enumerate(self.code.co_positions()) if i == index), None)
        if position is None:
            return None
        line, end_line, start, end = position
        if line != self.lineno or end_line is None or start is None or end is None:
            return None
        # co_positions counts bytes of UTF-8
        raw = self._source.encode()
        indent = len(self._source) - len(self._source.lstrip())
        first = len(raw[:start].decode(errors="replace")) - indent
        last = len(raw[:end].decode(errors="replace")) - indent
        if end_line != line:
            last = len(self.text)
        last = min(last, len(self.text))
        return (first, last) if 0 <= first < last else None

    def render(self) -> str:
        """The lines of a message: place, source line, and carets below the running part."""
        lines = [f"  at {_short(self.filename)}:{self.lineno} in {self.function}"]
        if self.text:
            lines.append(f"      {self.text}")
        if self._span is not None:
            first, last = self._span
            lines.append(" " * (6 + first) + "^" * (last - first))
        return "\n".join(lines)

    def __getstate__(self) -> dict[str, object]:
        # a code object cannot be pickled: send what it says instead
        state: dict[str, object] = {"filename": self.filename}
        state.update(lineno=self.lineno, function=self.function, code=None, lasti=-1)
        state.update(text=self.text, _span=self._span)
        return state


def _short(filename: str) -> str:
    """The path relative to the working folder when it lies inside, else as it is."""
    try:
        folder = os.getcwd()
    except OSError:  # it has been removed
        return filename
    return filename.removeprefix(os.path.join(folder, ""))


def user_location(skip: int = 0) -> Location | None:
    """The innermost user frame, or the one `skip` user frames further out; None without one."""
    frame = _user_frame(sys._getframe(1), skip)
    if frame is None:
        return None
    code = frame.f_code
    return Location(code.co_filename, frame.f_lineno, code.co_name, code, frame.f_lasti)


Place = tuple[CodeType, int]  # a running instruction: cheap to note, it keeps no frame alive


def user_place(depth: int = 1) -> Place | None:
    """The innermost user frame as (code, instruction); see `Location.of_place`.

    `depth` is how many frames, this one included, are known to be none of the user's: looking at a
    frame takes time.
    """
    frame: FrameType | None = sys._getframe(depth)
    known = own_files
    while frame is not None:
        code = frame.f_code
        own = known.get(code.co_filename)
        if own is None:
            own = _is_own(frame)
        if not own:
            return code, frame.f_lasti
        frame = frame.f_back
    return None


def called_name() -> str:
    """Name of the function of dualgrad that the user's code has called, "" if it has none.

    Special methods go by the name of what they do: `x[key]` calls "getitem".
    """
    return next(iter(called_names()), "")


def called_names() -> list[str]:
    """Names of the running functions of dualgrad, from the one that the user's code has called
    inwards, without those that wrap others."""
    frame: FrameType | None = sys._getframe(1)
    names: list[str] = []
    while frame is not None and _is_own(frame):
        name = public_code.get(frame.f_code, frame.f_code.co_name)
        if name.startswith("__") and name not in _WRAPPERS:
            names.append(name[2:-2])
        elif not name.startswith(("_", "<")) and name not in _WRAPPERS:
            names.append(name)
        frame = frame.f_back
    return names[::-1]


public_code: dict[CodeType, str] = {}  # functions that users know by another name
_WRAPPERS = {"__call__", "__init__", "call", "method"}


def user_line_key() -> tuple[str, int] | None:
    """(filename, line) of the innermost user frame: the cheap form, for tagging nodes."""
    frame: FrameType | None = sys._getframe(1)
    known = own_files
    while frame is not None:
        filename = frame.f_code.co_filename
        own = known.get(filename)
        if own is None:
            own = _is_own(frame)
        if not own:
            return filename, frame.f_lineno
        frame = frame.f_back
    return None


_warned: dict[Any, Any] = {}  # what Python has said already, where it is to say it once


def warn_user(text: str, category: type[Warning] = UserWarning) -> None:
    """Warn of the user's line that the call comes from."""
    file, line = user_line_key() or ("dualgrad", 0)
    warnings.warn_explicit(text, category, file, line, registry=_warned)
