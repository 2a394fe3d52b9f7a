"""Tracebacks that end at the user's line: frames of dualgrad are left out.

`DG_TRACEBACK=full` shows all frames.  An error that is not one of `runtime.errors` keeps the
frames of dualgrad at its end, where the fault may lie.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import CodeType, FrameType, TracebackType
from typing import Any

from dualgrad.runtime.config import config
from dualgrad.runtime.errors import DualgradError
from dualgrad.runtime.srcinfo import is_package_file

Hook = Callable[[type[BaseException], BaseException, TracebackType | None], Any]


_passing: set[CodeType] = set()


def passes_on(function: Any) -> None:
    """Errors of Python in this function of dualgrad are about its arguments: never show it."""
    _passing.add(function.__code__)


def hide_own_frames(error: BaseException | None) -> None:
    """Leave frames of dualgrad out of the traceback of an error, and of those that led to it.

    Where it is called right before a bare `raise`, the frame that raises is left out as well.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen and config.traceback != "full":
        seen.add(id(error))
        error.__traceback__ = without_own_frames(error)
        error = error.__cause__ or error.__context__


def without_own_frames(error: BaseException) -> TracebackType | None:
    """The traceback of an error with the user's frames."""
    entries: list[TracebackType] = []
    tail = 0  # number of frames of dualgrad at the end
    tb = error.__traceback__
    while tb is not None:
        if not _is_own(tb.tb_frame):
            entries, tail = [*entries[: len(entries) - tail], tb], 0
        elif tb.tb_frame.f_code not in _passing:
            entries.append(tb)
            tail += 1
        tb = tb.tb_next
    kept = entries[: len(entries) - tail] if isinstance(error, DualgradError) else entries
    out: TracebackType | None = None
    for e in reversed(kept):
        out = TracebackType(out, e.tb_frame, e.tb_lasti, e.tb_lineno)
    return out


def _is_own(frame: FrameType) -> bool:
    filename = frame.f_code.co_filename
    if filename == "<string>":
        return str(frame.f_globals.get("__name__")).startswith("dualgrad.")
    return is_package_file(filename)


def install() -> None:
    """Let uncaught errors of this process, of its threads and of pytest be shown like this."""
    main, other = sys.excepthook, threading.excepthook

    def excepthook(
        kind: type[BaseException], error: BaseException, tb: TracebackType | None
    ) -> None:
        hide_own_frames(error)
        main(kind, error, error.__traceback__ if config.traceback != "full" else tb)

    def thread_excepthook(args: threading.ExceptHookArgs) -> None:
        hide_own_frames(args.exc_value)
        tb = args.exc_traceback if args.exc_value is None else args.exc_value.__traceback__
        other(threading.ExceptHookArgs((args.exc_type, args.exc_value, tb, args.thread)))

    sys.excepthook, threading.excepthook = excepthook, thread_excepthook
    install_marks()


def install_marks() -> None:
    """Let pytest leave functions of the modules loaded so far out of tracebacks of our errors."""
    for name, module in list(sys.modules.items()):
        if name.startswith("dualgrad."):
            vars(module)["__tracebackhide__"] = _hides


def _hides(info: Any) -> bool:
    return config.traceback != "full" and isinstance(info.value, DualgradError)
