"""All native functions as one object in memory: compiled once per machine and Python, then taken
from the disk cache.

The object depends on the sources of the functions and on the integers that they name, so these
are its key; it is translated only where the disk cache does not have it.  All modules with native
functions have to be imported before `load`.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from dualgrad.runtime.config import config
from dualgrad.runtime.errors import CompileError
from dualgrad.runtime.lazy import LazyModule
from dualgrad.runtime.linker import kept_object, link_library, load_llvm, made_object
from dualgrad.runtime.native import language, layout
from dualgrad.runtime.native.language import Cell, Native

if TYPE_CHECKING:
    from dualgrad.runtime.native import writer
else:
    writer = LazyModule("dualgrad.runtime.native.writer")

_DELAY = 1.0  # seconds in which a process that has just begun compiles its own programs alone
_TICK = 0.02

lock = threading.RLock()  # held while cells are filled, and by who changes what stands in them
pending: list[_Making] = []  # the compilation that native code waits for
_loaded: list[bool] = []
_busy: list[bool] = []  # signals and finalizers may run ops while cells are filled
_filling: list[Callable[[], None]] = []
_serving: list[Callable[[], None]] = []


def load() -> bool:
    """Whether native functions can be called; waits until that is known."""
    while not begin():
        for making in tuple(pending):
            making.finish()
    return _loaded[0]


def begin() -> bool:
    """Whether it is known if native functions can be called.

    Where the disk cache has their object, the first call loads it.  Else a thread compiles it, and
    the first call after that loads it; until then Python does what native code would.  Calls of
    this function are the only moments when native code comes in, so these are between two ops.
    """
    if _loaded:
        return True
    if any(not making.done for making in tuple(pending)):
        return False
    with lock:
        if not (_loaded or _busy):
            _busy.append(True)
            try:
                _go_on()
            finally:
                _busy.clear()
    return bool(_loaded)


def when_loaded(fill: Callable[[], None]) -> None:
    """Call `fill`, which fills cells, when the native functions are there."""
    if is_loaded():
        fill()
    else:
        _filling.append(fill)


def when_filled(serve: Callable[[], None]) -> None:
    """Call `serve`, which lets native code run where Python's does so far, when all cells are
    filled."""
    if is_loaded():
        serve()
    else:
        _serving.append(serve)


def is_loaded() -> bool:
    """Whether native functions have been loaded."""
    return _loaded == [True]


class _Making:
    """Compiles the library, in a thread that the process waits for at its exit and before a fork.

    done    whether that has come to an end
    found   addresses of functions and cells; None where they cannot be had
    """

    def __init__(self, stamp: str) -> None:
        self.stamp = stamp
        self.functions, self.cells = [*language.functions()], [*language.cells()]
        self.done = False
        self.found: dict[str, int] | None = None
        self._needed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dualgrad native code")

    def start(self) -> None:
        """Begin, at once where there can be no thread."""
        load_llvm()  # before `_before_fork` is known: hooks run in the reverse order
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=_before_fork, after_in_parent=lock.release, after_in_child=lock.release
            )
        try:
            self._thread.start()
        except RuntimeError:
            self._needed.set()
            self._run()

    def finish(self) -> None:
        """Wait for the end, and do not let others wait for the beginning."""
        self._needed.set()
        if self._thread.ident is not None:
            self._thread.join()
        if not self.done:  # a thread of the parent process
            self._run()

    def _run(self) -> None:
        try:
            self._rest()
            code = kept_object("native", self.stamp)  # another process may have made it by now
            code = code or made_object("native", self.stamp, self._text)
            self.found = _linked(code, self.functions, self.cells)
        except (CompileError, OSError):  # no sources, or a process that hides Python's functions
            pass
        finally:
            self.done = True

    def _rest(self) -> None:
        """Let the process do what it began with, unless that is all."""
        end, main = time.monotonic() + _DELAY, threading.main_thread()
        while time.monotonic() < end and main.is_alive():
            if self._needed.wait(_TICK):
                return

    def _text(self) -> str:
        return writer.text_of(self.functions, self.cells)


def _linked(code: bytes, functions: list[Native], cells: list[Cell]) -> dict[str, int]:
    """Addresses of functions and cells.  Raises CompileError."""
    names = [*(f.name for f in functions), *(x.name for x in cells)]
    return link_library("native", code, names)


def _go_on() -> None:
    """Load the library, or begin to compile it; the lock is held."""
    if pending:
        _fill(pending[0].found)
        pending.clear()
    elif not (config.native and layout.is_known()):
        _loaded.append(False)
    else:
        _find()


def _find() -> None:
    try:
        stamp = _stamp()
        code = kept_object("native", stamp)
        found = code and _linked(code, language.functions(), language.cells())
    except (CompileError, OSError):
        _loaded.append(False)
        return
    if found:
        _fill(found)
    else:
        making = _Making(stamp)
        making.start()
        pending.append(making)


def _fill(found: dict[str, int] | None) -> None:
    """Let native code run.  Nothing calls it before all cells are filled."""
    if found is None:
        _loaded.append(False)
        return
    for f in language.functions():
        f.address = found.get(f.name, 0)  # those described since do not count
    for x in language.cells():
        if x.name in found:
            x.bind((ctypes.c_int64 * x.words).from_address(found[x.name]))
    for fill in _filling:
        fill()
    _loaded.append(True)
    for serve in _serving:
        serve()


def _before_fork() -> None:
    """The child has no thread to wait for, and finds the lock free."""
    for making in tuple(pending):
        making.finish()
    lock.acquire()


def _stamp() -> str:
    """Changes whenever the text does that the functions become."""
    files = {language.__file__, str(Path(__file__).with_name("writer.py"))}
    numbers: dict[str, int] = {}
    for f in language.functions():
        files.add(f.function.__code__.co_filename)
        space, names = f.function.__globals__, f.function.__code__.co_names
        modules = [space[n].__dict__ for n in names if isinstance(space.get(n), ModuleType)]
        for k, values in enumerate((space, *modules)):
            for name in names:
                if isinstance(value := values.get(name), int):
                    numbers[f"{f.name}.{name}.{k}"] = int(value)
    digest = hashlib.sha256(repr(sorted(numbers.items())).encode())
    for file in sorted(files):
        digest.update(Path(file).read_bytes())
    cells = [x.words for x in language.cells()]
    return f"{digest.hexdigest()} {cells} {sys.version_info[:2]}"
