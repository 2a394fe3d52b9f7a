"""Files in the format safetensors.

    file   = size of the header u64 | header | values of the tensors       (little endian)
    header = JSON {name: {"dtype": "F32", "shape": [..], "data_offsets": [start, stop]},
                   "__metadata__": {text: text}}

Source: Hugging Face, "safetensors", section "Format".  Their package writes and checks files; what
it leaves open is checked here: names that come twice, bytes that are no bool, dtypes.
"""

from __future__ import annotations

import json
import os
import stat
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors import SafetensorError, TensorSpec, deserialize, safe_open, serialize

from dualgrad.runtime.dtype import ALL, DType, bfloat16, bool_
from dualgrad.runtime.errors import ArgumentError, DataError
from dualgrad.saving.atomic import write_atomically
from dualgrad.state import state
from dualgrad.tensor import Tensor

METADATA: Final = "__metadata__"
_LENGTH: Final = struct.Struct("<Q")
_LONGEST_HEADER: Final = 100_000_000  # bytes, in the format's definition
_PICKLES: Final = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_FOREIGN: Final = "a file of safetensors"


def _code(dtype: DType) -> str:
    """The format's name of a dtype: "F32", "BF16"."""
    if dtype is bool_:
        return "BOOL"
    return "BF16" if dtype is bfloat16 else f"{dtype.kind.upper()}{dtype.bits}"


_DTYPES: Final = {_code(dtype): dtype for dtype in ALL}


def write_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: dict[str, str] | None
) -> None:
    """Write tensors, from any device, under their names; the file appears when it is complete.

    Takes memory for a second copy of them.  Raises ArgumentError for more text than the format
    has room for, OSError.
    """
    arrays = {name: _little(tensor) for name, tensor in tensors.items()}
    specs = {
        name: TensorSpec(
            dtype=tensor.dtype.name,
            shape=tensor.shape,
            data_ptr=arrays[name].ctypes.data,
            data_len=arrays[name].nbytes,
        )
        for name, tensor in tensors.items()
    }
    # their serialize_file would leave a file of an unknown name if the process is killed
    content = serialize(specs, metadata)
    (length,) = _LENGTH.unpack_from(content)
    if length > _LONGEST_HEADER:
        raise ArgumentError(
            "there is too much besides the tensors",
            op="save",
            expect=f"at most {_LONGEST_HEADER} bytes of JSON",
            actual=f"{length} bytes",
            hint="keep long lists of numbers as tensors",
        )
    write_atomically(path, content)


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a file, in new memory, in the order of the file, and its metadata.

    Raises DataError if the file is damaged or of another format, OSError if it cannot be read.
    """
    name = os.fspath(path)
    _check_start(name)
    try:
        with safe_open(name, "np"):  # looks at the header, before all is read
            pass
        content = Path(name).read_bytes()
        found = deserialize(content)
    except SafetensorError as error:
        reason = str(error).removeprefix("Error while deserializing: ")
        raise broken(f"{name} is damaged", _FOREIGN, reason) from error
    header = _header(content, name)
    del content
    entries = dict(found)
    # those without elements have one place: they stay as the header has them
    keys = [key for key in header if key != METADATA]
    keys.sort(key=lambda key: header[key]["data_offsets"])
    tensors = {key: _tensor(name, key, entries[key]) for key in keys}
    return tensors, header.get(METADATA) or {}


def _check_start(name: str) -> None:
    """Refuse a file whose length and first bytes are not right."""
    with open(name, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise broken(f"{name} is no file", "a regular file", stat.filemode(status.st_mode))
        size, start = status.st_size, file.read(_LENGTH.size)
    if len(start) < _LENGTH.size:
        raise broken(f"{name} is truncated", "8 bytes with the header's size", f"{size} bytes")
    (length,) = _LENGTH.unpack(start)
    if length <= min(size - _LENGTH.size, _LONGEST_HEADER):
        return
    if start.startswith(_PICKLES):
        raise broken(
            f"{name} is a pickle or a zip archive",
            _FOREIGN,
            f"the first bytes {start.hex(' ')}",
            hint="pickles run code when they are read; convert a file of PyTorch once, where you "
            "trust it: safetensors.torch.save_file(torch.load(old), new)",
        )
    raise broken(
        f"{name} is truncated, or no file of safetensors",
        f"a header of at most {_LONGEST_HEADER} bytes within the {size} bytes of the file",
        f"a header of {length} bytes",
    )


def _header(content: bytes, name: str) -> dict[str, Any]:
    """The header of a file that is right otherwise, with no name twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [key for key, _ in pairs]
            twice = sorted({key for key in names if names.count(key) > 1})
            raise broken(f"{name} is damaged", "names that come once", f"{twice[:3]} come again")
        return found

    (length,) = _LENGTH.unpack_from(content)
    text = content[_LENGTH.size : _LENGTH.size + length].decode()
    try:
        header: dict[str, Any] = json.loads(text, object_pairs_hook=unique)
    except ValueError as error:  # a number with too many digits, where the format has none
        raise broken(f"{name} is damaged", _FOREIGN, str(error)) from error
    return header


def _little(tensor: Tensor) -> np.ndarray[Any, Any]:
    """The memory of a tensor in row-major order, on the host, little endian."""
    array = np.ascontiguousarray(tensor.detach().on_host("save"))
    return array if sys.byteorder == "little" else array.byteswap()


def _tensor(path: str, name: str, entry: Mapping[str, Any]) -> Tensor:
    dtype = _DTYPES.get(entry["dtype"])
    if dtype is None:
        raise broken(
            f"tensor {name!r} in {path} has a dtype that dualgrad does not have",
            ", ".join(_DTYPES),
            entry["dtype"],
            hint="convert the tensor where it comes from",
        )
    array = np.frombuffer(entry["data"], dtype.numpy.newbyteorder("<"))
    try:
        array = array.reshape(entry["shape"])
    except (ValueError, OverflowError) as error:
        raise broken(
            f"tensor {name!r} in {path} has a shape that NumPy cannot hold",
            "at most 64 dimensions and a size that fits the address space",
            f"{entry['shape']}"[:100],
        ) from error
    if dtype is bool_ and array.size and array.view(np.uint8).max() > 1:
        raise broken(f"tensor {name!r} in {path} is damaged", "bytes 0 and 1 for bool", "others")
    out = Tensor.of_numpy(array.astype(dtype.numpy, copy=False), dtype)
    if state.trace is not None:
        state.trace.note_created(out, "load")
    return out


def broken(what: str, expect: str, actual: str, hint: str = "") -> DataError:
    """An error about a file."""
    return DataError(
        what,
        op="load",
        expect=expect,
        actual=actual,
        hint=hint or "take the file from where it came from again, or an older one",
    )
