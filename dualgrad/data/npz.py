"""Reader of NPZ files, NumPy's archives of arrays, that trusts nothing in them.

    file   = ZIP archive of members NAME.npy
    member = 0x93 "NUMPY" major minor  length  header  values
    length = unsigned, 16 bits in version 1, else 32 bits, little-endian
    header = Python literal {"descr": dtype, "fortran_order": bool, "shape": tuple}

Source: NEP 1, "A simple file format for NumPy arrays".
"""

from __future__ import annotations

import ast
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dualgrad.data.files import Readable, as_array, broken, read_at_most
from dualgrad.runtime.errors import ArgumentError, DataError, DualgradError

_OP: Final = "read_npz"
_MAGIC: Final = b"\x93NUMPY"
_LONGEST_HEADER: Final = 10_000
_KEYS: Final = {"descr", "fortran_order", "shape"}
_KINDS: Final = "biufcSU"
_METHODS: Final = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_DAMAGE: Final = (
    zipfile.BadZipFile, zlib.error, struct.error,
    EOFError, OSError, OverflowError, RuntimeError, ValueError,
)  # fmt: skip
"""What `zipfile` raises for damaged archives, such as OSError for places before the file."""


def read_npz(
    path: str | os.PathLike[str], names: Sequence[str] | None = None
) -> dict[str, NDArray[Any]]:
    """Return the arrays of an NPZ file by name, in native byte order, writable.

    names  those wanted; None is all of them

    Arrays of numbers, bools, text and bytes are read; objects are refused, since reading them
    would run code of the file.  Memory is taken as content comes, not by what a header says.

    Raises DataError, which names the member, if the file is damaged or of another format,
    ArgumentError for names that it does not have, OSError if it cannot be opened.
    """
    file = os.fspath(path)
    with open(file, "rb") as raw:
        try:
            with zipfile.ZipFile(raw) as archive:
                members = _members(archive, file)
                wanted = list(members) if names is None else list(names)
                _check_names(file, members, wanted)
                return {name: _read(archive, members[name], file) for name in wanted}
        except DualgradError:
            raise
        except _DAMAGE as error:
            expect = "what numpy.savez writes"
            raise _damaged(file, "is no whole ZIP archive", expect, str(error)) from error


def _members(archive: zipfile.ZipFile, file: str) -> dict[str, zipfile.ZipInfo]:
    found: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename
        if not name.endswith(".npy") or info.flag_bits & 1 or info.compress_type not in _METHODS:
            expect = "names in .npy, stored or deflated, not encrypted"
            raise _damaged(file, f"has a member {name!r} that is no array", expect, name)
        if name[:-4] in found:
            raise _damaged(file, f"has two members {name!r}", "one of each name", name)
        found[name[:-4]] = info
    return found


def _check_names(file: str, members: dict[str, Any], wanted: list[str]) -> None:
    unknown = [name for name in wanted if name not in members]
    if unknown:
        raise ArgumentError(
            f"{file} has no array {', '.join(map(repr, unknown))}",
            op=_OP,
            expect=", ".join(map(repr, members)),
            actual=", ".join(map(repr, unknown)),
            hint="leave out names to read all",
        )


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo, file: str) -> NDArray[Any]:
    name = f"{file}: {info.filename}"
    with archive.open(info) as member:
        return _parse(member, info.file_size, name)


def _parse(member: Readable, length: int, name: str) -> NDArray[Any]:
    text, start = _header(member, name)
    dtype, fortran, shape = _meaning(text, name)
    size = math.prod(shape) * dtype.itemsize
    if start + size != length:
        raise _damaged(
            name,
            "has another size than its header says",
            f"{size} bytes of data for shape {shape}, dtype {dtype}",
            f"{length - start} bytes",
        )
    content = read_at_most(member, size)
    if len(content) < size:
        raise _damaged(name, "is truncated", f"{size} bytes of data", f"{len(content)} bytes")
    # so that the checksum at the end is looked at
    member.read(1)
    if fortran:
        return as_array(content, dtype, shape[::-1], name, _OP).T.copy(order="C")
    return as_array(content, dtype, shape, name, _OP)


def _header(member: Readable, name: str) -> tuple[str, int]:
    """The text of the header, and where the data begins."""
    magic = member.read(8)
    if magic[:6] != _MAGIC or len(magic) < 8 or magic[6] not in (1, 2, 3):
        expect = "0x93 NUMPY and a version of 1, 2 or 3"
        raise _damaged(name, "is no NPY file: wrong magic number", expect, magic.hex(" "))
    digits = 2 if magic[6] == 1 else 4
    count = int.from_bytes(member.read(digits), "little")
    if count > _LONGEST_HEADER:
        expect = f"at most {_LONGEST_HEADER} bytes"
        raise _damaged(name, "has a header that is too long", expect, f"{count} bytes")
    raw = member.read(count)
    if len(raw) < count:
        raise _damaged(name, "is truncated in its header", f"{count} bytes", f"{len(raw)} bytes")
    return raw.decode("latin-1" if magic[6] < 3 else "utf-8", "replace"), 8 + digits + count


def _meaning(text: str, name: str) -> tuple[np.dtype[Any], bool, tuple[int, ...]]:
    try:
        found = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        found = None
    if not isinstance(found, dict) or set(found) != _KEYS:
        expect = "a dict of descr, fortran_order and shape"
        raise _damaged(name, "has a header that says nothing", expect, repr(text[:80]))
    descr, fortran, shape = found["descr"], found["fortran_order"], found["shape"]
    sizes = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape)
    if not sizes or not isinstance(fortran, bool):
        expect = "a tuple of sizes, True or False"
        raise _damaged(name, "has a header without a shape", expect, f"{shape!r}, {fortran!r}"[:80])
    return _dtype(descr, name), fortran, shape


def _dtype(descr: Any, name: str) -> np.dtype[Any]:
    try:
        dtype = np.dtype(descr) if isinstance(descr, str) else None
    except (TypeError, ValueError):
        dtype = None
    if dtype is None or dtype.kind not in _KINDS or dtype.itemsize == 0:
        expect = "numbers, bools, text or bytes"
        raise _damaged(name, "holds what cannot be read", expect, f"dtype {descr!r}"[:80])
    return dtype


def _damaged(name: str, what: str, expect: str, actual: str) -> DataError:
    return broken(f"{name} {what}", _OP, expect=expect, actual=actual)
