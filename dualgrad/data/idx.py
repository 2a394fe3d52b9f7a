"""Reader of IDX files, the format of MNIST and its relatives.

    file   = 0x00 0x00 type ndim  size * ndim  values
    size   = unsigned 32-bit integer, big-endian
    values = in C order, big-endian

Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", section
"The IDX file format".
"""

from __future__ import annotations

import math
import os
import struct
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dualgrad.data.files import Readable, as_array, broken, opened, read_at_most

TYPES: Final = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_OP: Final = "read_idx"


def read_idx(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Return the array in an IDX file, in native byte order, writable.

    The file may be compressed with gzip, whatever its name.  Its dtype is one of uint8, int8,
    int16, int32, float32 and float64.

    Raises DataError if the file is damaged or of another format, OSError if it cannot be opened.
    """
    with opened(path, _OP) as file:
        return _parse(file, os.fspath(path))


def _parse(file: Readable, name: str) -> NDArray[Any]:
    dtype, shape = _header(file, name)
    size = math.prod(shape) * dtype.itemsize
    content = read_at_most(file, size)
    if len(content) < size:
        raise broken(
            f"{name} is truncated",
            _OP,
            expect=f"{size} bytes of data for shape {shape}, dtype {dtype.name}",
            actual=f"{len(content)} bytes",
        )
    if file.read(1):
        raise broken(
            f"{name} has trailing bytes",
            _OP,
            expect=f"the end of the file after {size} bytes of data for shape {shape}",
            actual="more bytes",
        )
    return as_array(content, dtype, shape, name, _OP)


def _header(file: Readable, name: str) -> tuple[np.dtype[Any], tuple[int, ...]]:
    magic = file.read(4)
    ndim = magic[3] if len(magic) == 4 else 0
    sizes = file.read(4 * ndim)
    if len(magic) < 4 or (not any(magic[:2]) and len(sizes) < 4 * ndim):
        raise broken(
            f"{name} is truncated in its header",
            _OP,
            expect=f"{4 + 4 * ndim} bytes of header",
            actual=f"{len(magic) + len(sizes)} bytes",
        )
    if any(magic[:2]):
        raise broken(
            f"{name} is not an IDX file: wrong magic number",
            _OP,
            expect="two zero bytes, a type code, the number of dimensions",
            actual=magic.hex(" "),
        )
    if magic[2] not in TYPES:
        codes = ", ".join(f"0x{code:02x}" for code in TYPES)
        raise broken(
            f"{name} has an unknown type code",
            _OP,
            expect=f"one of {codes}",
            actual=f"0x{magic[2]:02x}",
        )
    return np.dtype(TYPES[magic[2]]), struct.unpack(f">{ndim}I", sizes)
