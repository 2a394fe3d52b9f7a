"""Watching the user's Python run: which code ran, and calls that a replay could not repeat.

A profile function sees each Python function that starts and each C function that is called from
Python.  A C function whose effect or result differs from call to call (clocks, files, random
numbers of others) stops the trace before it is called, so that the eager run that follows is the
only one in which it happens.
"""

from __future__ import annotations

import os
import random
import re
import string
import sys
import types
from collections.abc import Callable, Iterable
from typing import Any

from dualgrad.jit.bytecode import constant_argument
from dualgrad.jit.kinds import OWN
from dualgrad.jit.scope import Ran
from dualgrad.jit.trace import Unsupported
from dualgrad.runtime import cuda
from dualgrad.runtime.srcinfo import Location
from dualgrad.state import state

# Modules in C whose functions and objects do I/O, read clocks or draw random numbers.
_IMPURE_MODULES = frozenset(
    {
        "time", "random", "_random", "secrets", "posix", "nt", "_io", "io", "select", "_socket",
        "_ssl",
        "_uuid", "signal", "_signal", "resource", "mmap", "fcntl", "termios", "syslog", "_sqlite3",
        "sqlite3", "_curses", "winreg", "msvcrt", "_winapi", "_posixsubprocess", "_queue",
        "_warnings", "_thread", "readline", "_tkinter", "_multiprocessing", "_posixshmem",
    }
)  # fmt: skip
# Modules in Python that are about nothing else.
_IMPURE_PYTHON = frozenset(
    {
        "asyncio", "fileinput", "getpass", "http", "multiprocessing", "queue", "selectors",
        "shutil", "socket", "ssl", "subprocess", "tempfile", "tkinter", "urllib", "webbrowser",
    }
)  # fmt: skip
_IMPURE_NAMES = frozenset({"print", "input", "open", "breakpoint", "id"})
_CLOCKS = frozenset({"now", "utcnow", "today"})  # of datetime's classes
_HARMLESS = frozenset(
    {"fspath", "getpid", "get_ident", "get_native_id", "allocate_lock", "_filters_mutated"}
)
# State of the process or thread that the standard library itself keeps in order.
_OWN_AFFAIR = frozenset({"_contextvars", "_thread", "id()"})
_FOREIGN = frozenset(sys.stdlib_module_names) | {"numpy", "llvmlite", "pytest", "_pytest"}
_ENVIRONMENT = frozenset(
    f.__code__ for f in vars(type(os.environ)).values() if isinstance(f, types.FunctionType)
)
_READS_NAMES = frozenset({"getattr", "setattr", "hasattr", "delattr"})
_READS_ALL = frozenset({"vars", "dir", "globals"})
_REDUCES = frozenset({"__reduce_ex__", "__reduce__", "__getstate__", "__getattribute__"})
_PICKLES = frozenset({"_pickle", "_json"})


class Stopped(BaseException):
    """Unwinds a trace; no `except Exception` of the user's holds it up."""


def uninterrupted(*actions: Callable[[], object]) -> None:
    """Do all of this, each as often as it takes; an interrupt that comes meanwhile is raised then.

    Every action does no harm when it is done again.  An interrupt may come before the first of
    them begins: callers that must not lose them call again.
    """
    interrupt = None
    for action in actions:
        done = False
        while not done:
            try:
                action()
                done = True
            except KeyboardInterrupt as error:
                interrupt = error
    if interrupt is not None:
        raise interrupt


class Watch:
    """Watches a trace.

    `found` says which call a replay could not repeat.  `names` are attribute names that were given
    as text, `computed` is set where such a name is not written in the code, or all names were
    asked for.  A module that is imported for the first time runs outside of the trace.
    """

    def __init__(self) -> None:
        self.found: Unsupported | None = None
        self.stopped = False
        # by identity: the hash of a code object takes a microsecond
        self._codes: dict[tuple[int, int], Ran] = {}
        self._usual: set[tuple[int, int]] = set()  # those that may run again without a look
        self._own: dict[int, dict[str, Any]] = {}  # globals of dualgrad's modules
        self._trace: Any = None  # while something is skipped
        self._skipped: types.FrameType | None = None  # an import, or code of a device's driver
        self._states: tuple[Any, Any] | None = None  # while it watches
        self.names: set[str] = set()
        self.computed = False

    @property
    def ran(self) -> Iterable[Ran]:
        """Code objects that ran, with their globals."""
        return self._codes.values()

    def __enter__(self) -> Watch:
        self._base: types.FrameType | None = sys._getframe(1)
        self._before = sys.getprofile()
        self._tracing = sys.gettrace()
        self._states = _random_states()
        sys.setprofile(self._event)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop watching; again and again does no harm."""
        if self._states is None:
            return
        _profile_again(self._before)
        self._base = None  # frames keep what they hold alive
        if self.stopped:
            sys.settrace(self._tracing)
        drawn = _restore_random(self._states)
        if drawn is not None and self.found is None:
            self.found = _unrepeatable(drawn, None)
        self._states = None

    def _event(self, frame: types.FrameType, event: str, arg: Any) -> None:
        if self._skipped is not None:
            if event == "return" and frame is self._skipped:
                self._skipped, state.trace = None, self._trace
        elif event == "c_call":
            if id(frame.f_globals) not in self._own:
                self._c_call(frame, arg)
        elif event == "call":
            key = (id(frame.f_code), id(frame.f_globals))
            if key not in self._usual:
                self._call(frame, key)

    def _call(self, frame: types.FrameType, key: tuple[int, int]) -> None:
        """A Python function starts."""
        code, space, outer = frame.f_code, frame.f_globals, frame.f_back
        if space.get("__name__") in cuda.modules:
            self._skip(frame)
            return
        self._codes[key] = (code, space)
        root = _root_of(frame)
        if code in _ENVIRONMENT and outer is not None:
            self._impure(outer, "os.environ")
        elif root in _IMPURE_PYTHON and outer is not None:
            self._impure(outer, f"{root}.{code.co_name}")
        elif code.co_name == "<module>":
            if _is_imported(frame):
                self._skip(frame)
        else:
            self._usual.add(key)

    def _c_call(self, frame: types.FrameType, function: Any) -> None:
        """A C function is called."""
        if _root_of(frame) == OWN:
            self._own[id(frame.f_globals)] = frame.f_globals
            return
        self._look_up(frame, function)
        called = impurity(function)
        if called is not None:
            self._impure(frame, called)

    def _skip(self, frame: types.FrameType) -> None:
        """What runs from here on until a frame returns is no part of the function."""
        self._skipped, self._trace, state.trace = frame, state.trace, None

    def _look_up(self, frame: types.FrameType, function: Any) -> None:
        """A C function is called, which may look up attributes whose names the code has not."""
        module, name = getattr(function, "__module__", None), getattr(function, "__name__", "")
        owner = getattr(function, "__self__", None)
        if module == "builtins" and name in _READS_NAMES:
            self._reads(frame)
        elif (
            (module == "builtins" and name in _READS_ALL) or name in _REDUCES or module in _PICKLES
        ):
            self.computed = True
        elif isinstance(owner, str) and name in ("format", "format_map"):
            found = named_in_format(owner)
            if found is None:
                self.computed = True
            else:
                self.names |= found

    def _reads(self, frame: types.FrameType) -> None:
        name = constant_argument(frame.f_code, frame.f_lasti, 1)
        if name is None:
            self.computed = True
        else:
            self.names.add(name)

    def _impure(self, frame: types.FrameType, called: str) -> None:
        """Stop before the call, unless it is an affair of the import system or of dualgrad."""
        if called.partition(".")[0] in _OWN_AFFAIR and _root_of(frame) in _FOREIGN:
            return
        user: types.FrameType | None = frame
        while user is not None and _root_of(user) in _FOREIGN:
            if _is_importing(user):
                return
            user = user.f_back
        if user is None or _root_of(user) == OWN:
            return
        if self.found is None:
            code = user.f_code
            place = Location(code.co_filename, user.f_lineno, code.co_name, code, user.f_lasti)
            self.found = _unrepeatable(called, place)
        self._stop()

    def _stop(self) -> None:
        """Unwind the trace.

        Python drops a profile function that raises: a trace function puts it back as soon as the
        exception is on its way, for handlers and `finally` clauses of the user's that still run.
        """
        self.stopped = True
        if sys.gettrace() is None:
            frame: types.FrameType | None = sys._getframe(2)
            while frame is not None and frame is not self._base:
                frame.f_trace = self._back_again
                frame = frame.f_back
            sys.settrace(self._back_again)
        raise Stopped

    def _back_again(self, frame: types.FrameType, event: str, arg: Any) -> None:
        sys.settrace(self._tracing)
        sys.setprofile(self._event)


def _unrepeatable(name: str, place: Location | None) -> Unsupported:
    error = Unsupported(
        f"{name} is called, which a compiled program would not repeat",
        hint="call it outside of the function",
        location=place,
    )
    error.location = place  # None: nobody saw where
    return error


def impurity(function: Any) -> str | None:
    """The name of a C function whose effect or result differs from call to call, else None."""
    name = getattr(function, "__name__", "")
    owner = getattr(function, "__self__", None)
    module = getattr(function, "__module__", None) or ""
    origin = type(owner).__module__ if owner is not None else ""
    if isinstance(owner, types.ModuleType):
        module = owner.__name__
    elif isinstance(owner, type):
        origin = owner.__module__
    elif origin not in _IMPURE_MODULES and owner is not None:
        bases = (base.__module__ for base in type(owner).__mro__)
        origin = next((m for m in bases if m in _IMPURE_MODULES), origin)
    if origin == "datetime" and name in _CLOCKS:
        return f"datetime.{name}"
    if origin == "_contextvars" and name in ("get", "set", "reset"):
        return f"{origin}.{name}"
    if (module in _IMPURE_MODULES or origin in _IMPURE_MODULES) and name not in _HARMLESS:
        return f"{module or origin}.{name}"
    if origin.startswith("numpy.random") or module.startswith("numpy.random"):
        return f"numpy.random.{name}"
    if module == "builtins" and name in _IMPURE_NAMES:
        return f"{name}()"
    return None


def named_in_format(text: str) -> set[str] | None:
    """Names of attributes that a format string looks up; None if that cannot be told."""
    names: set[str] = set()
    try:
        for _, field, spec, _ in string.Formatter().parse(text):
            if "{" in (spec or ""):
                return None
            names.update(re.findall(r"\.(\w+)", field or ""))
    except ValueError:
        return None
    return names


def _is_importing(frame: types.FrameType) -> bool:
    """Whether the code of a frame belongs to the import system."""
    name = str(frame.f_globals.get("__name__", ""))
    return name.startswith(("importlib._", "_frozen_importlib"))


def _is_imported(frame: types.FrameType) -> bool:
    return frame.f_back is not None and _is_importing(frame.f_back)


def _root_of(frame: types.FrameType) -> str:
    """The package that a frame's code belongs to."""
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


# -- the generators of others -------------------------------------------------------------------


def _random_states() -> tuple[Any, Any]:
    """The states of Python's and NumPy's global generators, which C code can reach unseen."""
    numpy_random = sys.modules.get("numpy.random")
    return random.getstate(), None if numpy_random is None else numpy_random.get_state()


def _profile_again(profiler: Any) -> None:
    """Set the profiler that was set before: a function, or one that is written in C, as that of
    cProfile is in Python 3.11, which sets itself."""
    if profiler is None or callable(profiler):
        sys.setprofile(profiler)
    else:
        sys.setprofile(None)
        profiler.enable()


def _restore_random(before: tuple[Any, Any]) -> str | None:
    """Put the global generators back; the name of one that had been used."""
    python, numpy = before
    used = None
    if random.getstate() != python:
        random.setstate(python)
        used = "random"
    numpy_random = sys.modules.get("numpy.random")
    if numpy is not None and numpy_random is not None:
        now = numpy_random.get_state()
        if now[2:] != numpy[2:] or now[0] != numpy[0] or (now[1] != numpy[1]).any():
            numpy_random.set_state(numpy)
            used = "numpy.random"
    return used
