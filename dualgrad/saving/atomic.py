"""Files that are written as a whole or not at all."""

from __future__ import annotations

import itertools
import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

_TEMPORARY: Final = ".part"
_LONGEST: Final = 50  # characters of the name that are kept: names have at most 255 bytes
_ABANDONED_SECONDS: Final = 3600.0
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)

_serial = itertools.count()


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file beside `path`, wait until it is on the disk, and rename it to `path`.

    So `path` always names the old file or the complete new one, whenever the process or the
    machine stops.  A file that is replaced keeps its mode; a link keeps pointing where it did.
    What a killed process has left beside `path` goes with the first call an hour later.

    Raises OSError if it cannot be written; then `path` is as it was.
    """
    target = Path(os.path.realpath(path))
    for left in _abandoned(target):
        with suppress(OSError):
            left.unlink()
    partial, descriptor = _create(target)
    try:
        with open(descriptor, "wb") as file:
            with suppress(FileNotFoundError):
                partial.chmod(stat.S_IMODE(target.stat().st_mode))
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.replace(partial, target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # elsewhere folders cannot be opened
        _flush_folder(target.parent)


def _start(target: Path) -> str:
    """What the names of temporary files for `target` begin with."""
    return f".{target.name[:_LONGEST]}."


def _create(target: Path) -> tuple[Path, int]:
    """A new file beside `target`, with the mode that the process gives to its files; open."""
    while True:
        partial = target.with_name(f"{_start(target)}{os.getpid()}-{next(_serial)}{_TEMPORARY}")
        with suppress(FileExistsError):  # left by a process that had this number before
            return partial, os.open(partial, _CREATE, 0o666)


def _abandoned(target: Path) -> Iterator[Path]:
    """Files that were begun for `target` long ago."""
    limit = time.time() - _ABANDONED_SECONDS
    with suppress(OSError), os.scandir(target.parent) as entries:
        for entry in entries:
            name = entry.name
            if (
                name.startswith(_start(target))
                and name.endswith(_TEMPORARY)
                and entry.stat(follow_symlinks=False).st_mtime < limit
            ):
                yield target.with_name(name)


def _flush_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
