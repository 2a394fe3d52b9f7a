"""IDX files: NumPy's own bytes as the oracle for good ones, one damaged file per error."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dualgrad.data.idx import TYPES, read_idx
from dualgrad.runtime.errors import DataError

CODES = {np.dtype(name): code for code, name in TYPES.items()}


def encode(array: np.ndarray[Any, Any]) -> bytes:
    """Bytes of an IDX file that holds a big-endian array."""
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, CODES[array.dtype], array.ndim]) + sizes + array.tobytes()


@settings(max_examples=50, deadline=None)
@given(
    array=st.sampled_from(sorted(TYPES.values())).flatmap(
        lambda name: hnp.arrays(name, hnp.array_shapes(min_dims=0, min_side=0, max_side=5))
    ),
    compressed=st.booleans(),
)
def test_reads_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, array: np.ndarray[Any, Any], compressed: bool
) -> None:
    path = tmp_path_factory.mktemp("idx") / "values"
    path.write_bytes(gzip.compress(encode(array)) if compressed else encode(array))
    result = read_idx(path)
    assert result.dtype == array.dtype.newbyteorder("=")
    assert result.dtype.isnative
    assert result.shape == array.shape
    assert result.astype(array.dtype).tobytes() == array.tobytes()
    assert result.flags.writeable


GOOD = encode(np.arange(6, dtype=">u1").reshape(2, 3))
PACKED = gzip.compress(GOOD, mtime=0)

DAMAGED = {
    "empty": (b"", "truncated in its header", "actual: 0 bytes"),
    "short magic": (GOOD[:3], "truncated in its header", "actual: 3 bytes"),
    "short header": (GOOD[:9], "truncated in its header", "expect: 12 bytes of header"),
    "magic": (b"\x89PNG" + GOOD[4:], "wrong magic number", "actual: 89 50 4e 47"),
    "type": (b"\0\0\x0a\x02" + GOOD[4:], "unknown type code", "actual: 0x0a"),
    "data": (GOOD[:-2], "is truncated", "expect: 6 bytes of data for shape (2, 3), dtype uint8"),
    "trailing": (GOOD + b"!", "trailing bytes", "after 6 bytes"),
    "no room": (b"\0\0\x08\x41" + bytes(4 * 65), "NumPy cannot hold", "65 dimensions"),
    "huge": (b"\0\0\x08\x02" + b"\xff" * 8, "is truncated", f"expect: {(2**32 - 1) ** 2} bytes"),
    "gzip end": (PACKED[:-9], "gzip data", "ended before"),
    "gzip crc": (PACKED[:-8] + b"\0\0\0\0" + PACKED[-4:], "gzip data", "CRC check failed"),
    "gzip body": (PACKED[:10] + b"\xff" + PACKED[11:], "gzip data", "invalid"),
    "gzip inside": (gzip.compress(GOOD[:-1]), "is truncated", "actual: 5 bytes"),
}


@pytest.mark.parametrize(("content", "what", "detail"), DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_files(tmp_path: Path, content: bytes, what: str, detail: str) -> None:
    path = tmp_path / "digits-idx2-ubyte"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_idx(path)
    assert what in caught.value.what
    assert str(path) in caught.value.what
    assert detail in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing-here"):
        read_idx(tmp_path / "nothing-here")
