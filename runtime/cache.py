"""Disk cache of compiled objects.

An entry is one file, named by the SHA-256 of its key:

    magic "DGCACHE\\0" | format version u32 | key bytes u32 | payload bytes u64
    | SHA-256 of the payload | key (UTF-8) | payload                       (little endian)

Every byte of a file is covered by a comparison, so an entry that is damaged, cut short or was
written for another key is a miss, and is deleted.  Since entries are executed, nothing is loaded
from a folder or file that belongs to somebody else or that others can write.  A folder that is
missing or cannot be written costs time only: no method raises for reasons of the file system.

Writers make a file beside the final name and rename it, so other processes see a whole entry or
none, and two that write the same one do no harm.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from dualgrad.runtime.config import config, user_cache_folder
from dualgrad.runtime.records import dataclass

_HEADER = struct.Struct("<8sIIQ32s")
_MAGIC = b"DGCACHE\0"
_VERSION = 1
_SUFFIX = ".dgo"
_TEMPORARY = ".part"
_DEFAULT_LIMIT = 512 << 20
_DAY = 86400.0
_HOUR = 3600.0
# binary and no-follow exist on some systems only
_READ = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)

_serial = itertools.count()


@dataclass(frozen=True)
class CacheInfo:
    """State of a disk cache.

    root       its folder, or None for a cache that is switched off
    problem    why the folder is not used, "" if it is (or would be, once it exists)
    entries    number of files
    bytes      their total size
    hits, misses, rejected    answers of `get` in this process; the rejected are also misses
    """

    root: Path | None
    problem: str
    entries: int
    bytes: int
    hits: int
    misses: int
    rejected: int


def _problem(status: os.stat_result) -> str:
    """Why a file or folder with this status is not to be trusted; "" if it is."""
    if hasattr(os, "geteuid"):
        if status.st_uid != os.geteuid():
            return "it belongs to another user"
        if stat.S_IMODE(status.st_mode) & (stat.S_IWGRP | stat.S_IWOTH):
            return "other users can write it"
    return ""


def _encode(key: bytes, data: bytes) -> bytes:
    digest = hashlib.sha256(data).digest()
    return _HEADER.pack(_MAGIC, _VERSION, len(key), len(data), digest) + key + data


def _decode(key: bytes, content: bytes) -> bytes | None:
    """The payload of a file, or None if the file is not a whole entry for `key`."""
    start = _HEADER.size + len(key)
    if len(content) < start or content[_HEADER.size : start] != key:
        return None
    data = content[start:]
    return data if content[:start] == _encode(key, data)[:start] else None


def _read(descriptor: int, size: int) -> bytes:
    parts = []
    while size > 0 and (part := os.read(descriptor, size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, _WRITE, 0o600)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
    finally:
        os.close(descriptor)


class DiskCache:
    """Objects under `root`, at most `limit` bytes of them; root None: always empty."""

    def __init__(self, root: Path | None, limit: int = _DEFAULT_LIMIT) -> None:
        self.root = root
        self.limit = limit
        self.hits = 0
        self.misses = 0
        self.rejected = 0

    def get(self, key: str) -> bytes | None:
        """What was put under `key`, or None."""
        data = None
        with suppress(OSError):
            data = self._load(key)
        if data is None:
            self.misses += 1
        else:
            self.hits += 1
        return data

    def has(self, key: str) -> bool:
        """Whether `get` would find data; it does not count as an answer."""
        with suppress(OSError):
            return self._load(key) is not None
        return False

    def put(self, key: str, data: bytes) -> None:
        """Keep `data` under `key`, unless it cannot be written."""
        if self.root is None:
            return
        raw = key.encode()
        with suppress(OSError):
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            content = _encode(raw, data)
            if self._trusted() and len(content) <= self.limit:
                self._store(self._path(self.root, raw), content)
                # the size is looked at for one key in 32, the same ones in every process
                if hashlib.sha256(raw).digest()[-1] < 8:
                    self.trim()

    def clear(self) -> None:
        """Delete all entries."""
        for entry in self._files():
            with suppress(OSError):
                os.unlink(entry.path)

    def trim(self) -> None:
        """Delete the entries that were not used for longest until `limit` is kept."""
        now = time.time()
        known = []
        for entry in self._files():
            with suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if entry.name.endswith(_SUFFIX):
                    known.append((status.st_mtime, status.st_size, entry.path))
                elif now - status.st_mtime > _HOUR:  # left by a process that was killed
                    os.unlink(entry.path)
        total = sum(size for _, size, _ in known)
        for _, size, path in sorted(known):
            if total <= self.limit:
                break
            with suppress(OSError):
                os.unlink(path)
            total -= size

    def info(self) -> CacheInfo:
        """Where it is, what it holds, how it answered."""
        sizes = []
        for entry in self._files():
            with suppress(OSError):
                if entry.name.endswith(_SUFFIX):
                    sizes.append(entry.stat(follow_symlinks=False).st_size)
        return CacheInfo(
            self.root,
            self._folder_problem(),
            len(sizes),
            sum(sizes),
            self.hits,
            self.misses,
            self.rejected,
        )

    def _path(self, root: Path, key: bytes) -> Path:
        return root / (hashlib.sha256(key).hexdigest() + _SUFFIX)

    def _folder_problem(self) -> str:
        if self.root is None:
            return "it is switched off"
        try:
            return _problem(os.stat(self.root))
        except FileNotFoundError:
            return ""
        except OSError as error:
            return error.strerror or str(error)

    def _trusted(self) -> bool:
        return self._folder_problem() == ""

    def _load(self, key: str) -> bytes | None:
        if self.root is None:
            return None
        raw = key.encode()
        path = self._path(self.root, raw)
        descriptor = os.open(path, _READ)
        try:
            status = os.fstat(descriptor)
            if not self._trusted():
                return None
            trusted = stat.S_ISREG(status.st_mode) and _problem(status) == ""
            data = _decode(raw, _read(descriptor, status.st_size)) if trusted else None
        finally:
            os.close(descriptor)
        if data is None:
            self.rejected += 1
            os.unlink(path)
        elif time.time() - status.st_mtime > _DAY:
            # so that `trim` spares what is in use; not at every read
            os.utime(path)
        return data

    def _store(self, path: Path, content: bytes) -> None:
        temporary = path.with_suffix(f".{os.getpid()}.{next(_serial)}{_TEMPORARY}")
        try:
            _write(temporary, content)
            os.replace(temporary, path)
        except OSError:
            with suppress(OSError):
                os.unlink(temporary)
            raise

    def _files(self) -> Iterator[os.DirEntry[str]]:
        """Our files in the folder: entries and unfinished ones."""
        if self.root is None:
            return
        with suppress(OSError), os.scandir(self.root) as found:
            for entry in found:
                if entry.name.endswith((_SUFFIX, _TEMPORARY)):
                    yield entry


@functools.lru_cache(maxsize=16)
def _cache_at(root: Path | None) -> DiskCache:
    return DiskCache(root)


def default_cache() -> DiskCache:
    """The cache that `config` asks for: one object per folder."""
    if not config.cache:
        return _cache_at(None)
    return _cache_at(config.cache_dir or user_cache_folder())
