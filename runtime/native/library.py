"""All native functions as one object in memory: compiled once per machine and Python, then taken
from the disk cache.

The object depends on the sources of the functions and on the integers that they name, so these
are its key; it is translated only where the disk cache does not have it.  All modules with native
functions have to be imported before `load`.
"""

from __future__ import annotations

import ctypes
import hashlib
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from dualgrad.runtime.config import config
from dualgrad.runtime.errors import CompileError
from dualgrad.runtime.lazy import LazyModule
from dualgrad.runtime.linker import link_library, made_object
from dualgrad.runtime.native import language, layout

if TYPE_CHECKING:
    from dualgrad.runtime.native import writer
else:
    writer = LazyModule("dualgrad.runtime.native.writer")

_lock = threading.RLock()
_loaded: list[bool] = []
_waiting: list[Callable[[], None]] = []


def load() -> bool:
    """Whether native functions can be called; the first call loads them."""
    if not _loaded:
        with _lock:
            if not _loaded:
                _loaded.append(config.native and layout.is_known() and _load())
    return _loaded[0]


def when_loaded(bind: Callable[[], None]) -> None:
    """Call `bind`, which fills cells, when the native functions are there."""
    if is_loaded():
        bind()
    else:
        _waiting.append(bind)


def is_loaded() -> bool:
    """Whether native functions have been loaded."""
    return _loaded == [True]


def _load() -> bool:
    described, cells = language.functions(), language.cells()
    try:
        code = made_object("native", _stamp(), lambda: writer.text_of(described, cells), True)
        names = [*(f.name for f in described), *(x.name for x in cells)]
        found = link_library("native", code, names)
    except (CompileError, OSError):  # no sources, or a process that hides Python's functions
        return False
    for f in described:
        f.address = found[f.name]
    for x in cells:
        x.bind((ctypes.c_int64 * x.words).from_address(found[x.name]))
    for bind in _waiting:
        bind()
    return True


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
