"""NPZ files: NumPy's own writers as the oracle for good ones, one damaged file per error."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from dualgrad.data import read_npz
from dualgrad.errors import ArgumentError, DataError

DTYPES = ["?", "i1", ">i2", "<u4", ">u8", "<f2", ">f4", "<f8", ">c8", "<c16", "<U3", "S4"]


@settings(max_examples=60, deadline=None)
@given(
    array=st.sampled_from(DTYPES).flatmap(
        lambda name: hnp.arrays(name, hnp.array_shapes(min_dims=0, min_side=0, max_side=4))
    ),
    fortran=st.booleans(),
    compressed=st.booleans(),
)
def test_reads_what_numpy_wrote(
    tmp_path_factory: pytest.TempPathFactory,
    array: np.ndarray[Any, Any],
    fortran: bool,
    compressed: bool,
) -> None:
    path = tmp_path_factory.mktemp("npz") / "arrays"
    save = np.savez_compressed if compressed else np.savez
    with path.open("wb") as file:
        save(file, x=np.asarray(array, order="F" if fortran else "C"), other=np.arange(3))
    found = read_npz(path)
    assert list(found) == ["x", "other"]
    x = found["x"]
    assert x.dtype == array.dtype.newbyteorder("=")
    assert x.dtype.isnative
    assert x.shape == array.shape
    assert x.astype(array.dtype).tobytes() == array.tobytes()
    assert x.flags.writeable
    assert x.flags.c_contiguous


def test_only_those_wanted(tmp_path: Path) -> None:
    path = tmp_path / "arrays.npz"
    np.savez(path, a=np.arange(2), b=np.array([None], object))
    assert read_npz(path, ["a"])["a"].tolist() == [0, 1]
    with pytest.raises(ArgumentError, match="has no array 'c'"):
        read_npz(path, ["a", "c"])


def member(header: str, data: bytes = b"", version: int = 1) -> bytes:
    text = header.encode()
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + data


def archive(*members: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, content in members:
            file.writestr(name, content)
    return out.getvalue()


def header(descr: Any = "<i4", order: Any = False, shape: Any = (2,)) -> str:
    return repr({"descr": descr, "fortran_order": order, "shape": shape})


GOOD = archive(("x.npy", member(header(), bytes(8))))


def with_length(content: bytes) -> bytes:
    """The archive with the length of its member in the directory set to 2**32 - 2."""
    at = content.index(b"PK\1\2") + 24
    return content[:at] + struct.pack("<I", 2**32 - 2) + content[at + 4 :]


HUGE = archive(("x.npy", member(header(shape=(2**30 - 23,)), b"\0\0")))

DAMAGED: dict[str, Any] = {
    "empty": (b"", "no whole ZIP archive", "not a zip file"),
    "text": (b"hello" * 50, "no whole ZIP archive", "not a zip file"),
    "cut": (GOOD[:-30], "no whole ZIP archive", ""),
    "checksum": (GOOD.replace(bytes(8), bytes(7) + b"\1"), "no whole ZIP archive", "Bad CRC-32"),
    "foreign": (archive(("x.txt", b"")), "member 'x.txt' that is no array", ""),
    "magic": (archive(("x.npy", b"hello world")), "wrong magic number", "68 65 6c"),
    "short": (archive(("x.npy", b"\x93NUM")), "wrong magic number", "93 4e 55 4d"),
    "version": (archive(("x.npy", member(header(), bytes(8), 4))), "wrong magic number", "04 00"),
    "header length": (
        archive(("x.npy", b"\x93NUMPY\2\0\xff\xff\xff\xff")), "too long", "4294967295"
    ),
    "header cut": (archive(("x.npy", b"\x93NUMPY\1\0\x40\0{")), "in its header", "1 bytes"),
    "header text": (archive(("x.npy", member("{1: "))), "header that says nothing", ""),
    "header code": (archive(("x.npy", member("exit()"))), "header that says nothing", "exit()"),
    "header depth": (archive(("x.npy", member("(" * 9000))), "header that says nothing", ""),
    "header keys": (archive(("x.npy", member("{'shape': ()}"))), "header that says nothing", ""),
    "shape": (archive(("x.npy", member(header(shape=(-1,))))), "header without a shape", "(-1,)"),
    "shape of floats": (archive(("x.npy", member(header(shape=(2.0,))))), "without a shape", ""),
    "shape of bools": (archive(("x.npy", member(header(shape=(True,))))), "without a shape", ""),
    "order": (archive(("x.npy", member(header(order=0)))), "header without a shape", ""),
    "objects": (archive(("x.npy", member(header("|O")))), "holds what cannot be read", "|O"),
    "fields": (archive(("x.npy", member(header([("a", "<i4")])))), "holds what cannot be read", ""),
    "no dtype": (archive(("x.npy", member(header("nothing")))), "holds what cannot be read", ""),
    "no size": (archive(("x.npy", member(header("<U0")))), "holds what cannot be read", "<U0"),
    "less data": (archive(("x.npy", member(header(), bytes(7)))), "another size", "7 bytes"),
    "more data": (archive(("x.npy", member(header(), bytes(9)))), "another size", "9 bytes"),
    "huge shape": (archive(("x.npy", member(header(shape=(2**62, 2**62))))), "another size", ""),
    "too many dimensions": (
        archive(("x.npy", member(header(shape=(1,) * 65), bytes(4)))), "NumPy cannot hold", "65"
    ),
    "a length that is not there": (with_length(HUGE), "", ""),
}  # fmt: skip


@pytest.mark.parametrize(("content", "what", "detail"), DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_files(tmp_path: Path, content: bytes, what: str, detail: str) -> None:
    path = tmp_path / "arrays.npz"
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as caught:
            read_npz(path)
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()
    assert what in caught.value.what
    assert str(path) in caught.value.what
    assert detail in str(caught.value)


def test_two_members_of_one_name(tmp_path: Path) -> None:
    path = tmp_path / "arrays.npz"
    with pytest.warns(UserWarning, match="Duplicate name"):
        path.write_bytes(archive(("x.npy", member(header(), bytes(8))), ("x.npy", b"")))
    with pytest.raises(DataError, match=r"two members 'x.npy'"):
        read_npz(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing-here"):
        read_npz(tmp_path / "nothing-here")


BASE = {
    "plain": GOOD,
    "versions": archive(*((f"{v}.npy", member(header(), bytes(8), v)) for v in (2, 3))),
}


@pytest.mark.parametrize("base", BASE)
@settings(max_examples=300, deadline=None)
@given(
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), min_size=1, max_size=4)
)
def test_nothing_else_is_raised(
    tmp_path_factory: pytest.TempPathFactory, base: str, changes: list[tuple[float, int]]
) -> None:
    content = bytearray(BASE[base])
    for where, value in changes:
        content[int(where * len(content))] = value
    path = tmp_path_factory.mktemp("npz") / "arrays"
    path.write_bytes(content)
    try:
        found = read_npz(path)
    except DataError:
        return
    assert all(isinstance(array, np.ndarray) for array in found.values())
