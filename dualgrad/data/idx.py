"""Reader of IDX files, the format of MNIST and its relatives.

    file   = 0x00 0x00 type ndim  size * ndim  values
    size   = unsigned 32-bit integer, big-endian
    values = in C order, big-endian

Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", section
"The IDX file format".
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from dualgrad.runtime.errors import DataError

TYPES: Final = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP_MAGIC: Final = b"\x1f\x8b"
_CHUNK: Final = 1 << 20


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def read_idx(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Return the array in an IDX file, in native byte order, writable.

    The file may be compressed with gzip, whatever its name.  Its dtype is one of uint8, int8,
    int16, int32, float32 and float64.

    Raises DataError if the file is damaged or of another format, OSError if it cannot be opened.
    """
    name = os.fspath(path)
    with open(name, "rb") as raw:
        compressed = raw.read(2) == _GZIP_MAGIC
        raw.seek(0)
        if not compressed:
            return _parse(raw, name)
        try:
            with gzip.open(raw) as unpacked:
                return _parse(unpacked, name)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DataError(
                f"the gzip data of {name} is damaged",
                op="read_idx",
                actual=str(error),
                hint="the file is probably the rest of a broken download: fetch it again",
            ) from error


def _parse(file: _Readable, name: str) -> NDArray[Any]:
    dtype, shape = _header(file, name)
    size = math.prod(shape) * dtype.itemsize
    content = _read_at_most(file, size)
    if len(content) < size:
        raise _broken(
            f"{name} is truncated",
            expect=f"{size} bytes of data for shape {shape}, dtype {dtype.name}",
            actual=f"{len(content)} bytes",
        )
    if file.read(1):
        raise _broken(
            f"{name} has trailing bytes",
            expect=f"the end of the file after {size} bytes of data for shape {shape}",
            actual="more bytes",
        )
    try:
        values: NDArray[Any] = np.frombuffer(content, dtype).reshape(shape)
    except ValueError as error:
        raise _broken(
            f"{name} has a shape that NumPy cannot hold",
            expect="at most 64 dimensions and a size that fits the address space",
            actual=f"{len(shape)} dimensions; {error}",
        ) from error
    return values.astype(dtype.newbyteorder("="), copy=False)


def _header(file: _Readable, name: str) -> tuple[np.dtype[Any], tuple[int, ...]]:
    magic = file.read(4)
    ndim = magic[3] if len(magic) == 4 else 0
    sizes = file.read(4 * ndim)
    if len(magic) < 4 or (not any(magic[:2]) and len(sizes) < 4 * ndim):
        raise _broken(
            f"{name} is truncated in its header",
            expect=f"{4 + 4 * ndim} bytes of header",
            actual=f"{len(magic) + len(sizes)} bytes",
        )
    if any(magic[:2]):
        raise _broken(
            f"{name} is not an IDX file: wrong magic number",
            expect="two zero bytes, a type code, the number of dimensions",
            actual=magic.hex(" "),
        )
    if magic[2] not in TYPES:
        codes = ", ".join(f"0x{code:02x}" for code in TYPES)
        raise _broken(
            f"{name} has an unknown type code",
            expect=f"one of {codes}",
            actual=f"0x{magic[2]:02x}",
        )
    return np.dtype(TYPES[magic[2]]), struct.unpack(f">{ndim}I", sizes)


def _read_at_most(file: _Readable, size: int) -> bytearray:
    """Read up to `size` bytes.

    In chunks, since `size` comes from the file: a damaged header must not allocate terabytes.
    """
    content = bytearray()
    while len(content) < size:
        chunk = file.read(min(_CHUNK, size - len(content)))
        if not chunk:
            break
        content += chunk
    return content


def _broken(what: str, *, expect: str, actual: str) -> DataError:
    return DataError(
        what,
        op="read_idx",
        expect=expect,
        actual=actual,
        hint="download the file again; it may be incomplete, or still compressed",
    )
