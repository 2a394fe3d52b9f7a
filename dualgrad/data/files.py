"""What readers of files have in common: gzip, sizes that are not trusted, one form of refusal."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, Final, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from dualgrad.runtime.errors import DataError

_GZIP_MAGIC: Final = b"\x1f\x8b"
_CHUNK: Final = 1 << 20


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@contextmanager
def opened(path: str | os.PathLike[str], op: str) -> Iterator[BinaryIO]:
    """Open a file, and unpack it while it is read if it is compressed with gzip.

    Raises DataError for damaged gzip data, OSError if the file cannot be opened.
    """
    name = os.fspath(path)
    with open(name, "rb") as raw:
        compressed = raw.read(2) == _GZIP_MAGIC
        raw.seek(0)
        if not compressed:
            yield raw
            return
        try:
            with gzip.open(raw) as unpacked:
                yield cast(BinaryIO, unpacked)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DataError(
                f"the gzip data of {name} is damaged",
                op=op,
                actual=str(error),
                hint="the file is probably the rest of a broken download: fetch it again",
            ) from error


def read_at_most(file: Readable, size: int) -> bytearray:
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


def as_array(
    content: bytearray, dtype: np.dtype[Any], shape: tuple[int, ...], name: str, op: str
) -> NDArray[Any]:
    """Return bytes in C order as an array in native byte order, over the same memory if possible.

    Raises DataError for a shape that NumPy does not have.
    """
    try:
        values: NDArray[Any] = np.frombuffer(content, dtype).reshape(shape)
    except ValueError as error:
        raise broken(
            f"{name} has a shape that NumPy cannot hold",
            op,
            expect="at most 64 dimensions and a size that fits the address space",
            actual=f"{len(shape)} dimensions; {error}",
        ) from error
    return values.astype(dtype.newbyteorder("="), copy=False)


def broken(what: str, op: str, *, expect: str, actual: str) -> DataError:
    """The error for a file that is damaged or of another format."""
    return DataError(
        what,
        op=op,
        expect=expect,
        actual=actual,
        hint="download the file again; it may be incomplete, or still compressed",
    )
