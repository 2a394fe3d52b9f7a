"""Nested values with tensors, in one file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, Final

from dualgrad.runtime.errors import ArgumentError
from dualgrad.saving.trees import Damaged, decode, encode
from dualgrad.saving.weights import METADATA, broken, read_tensors, write_tensors
from dualgrad.tensor import Tensor

_TREE: Final = "dualgrad.tree"  # keys of the metadata
_ORDER: Final = "dualgrad.order"
_VERSION: Final = "dualgrad.version"


def save(obj: Any, path: str | os.PathLike[str]) -> None:
    """Write a value to a file in the format safetensors; the arguments are those of `torch.save`.

    obj   tensors, arrays and numbers of NumPy, None, bool, int, float, str, and lists, tuples and
          dicts of them: what `state_dict()` of modules, optimizers and schedules returns

    A dict of tensors becomes a file that every reader of safetensors knows; the order of its names
    is in the metadata, where `load` finds it.  In other values each tensor is written under its
    path ("model.0.weight"), everything else as JSON in the metadata.  Tensors may be on any device
    and need not be contiguous; memory that several of them share is written once for each.  The
    file is replaced as a whole: when the process is killed, there is the old one or the new one.

    Raises ArgumentError for other values, with their place; OSError.

        >>> dg.save(model.state_dict(), "model.safetensors")
    """
    path = _checked("save", path)
    if _is_plain(obj):
        # the format has an order of its own
        write_tensors(path, obj, {_ORDER: json.dumps([*obj])} if len(obj) > 1 else None)
        return
    text, tensors = encode(obj)
    write_tensors(path, tensors, {_VERSION: "1", _TREE: text})


def load(path: str | os.PathLike[str], *, device: Any = None) -> Any:
    """Return the value in a file that `save` or another writer of safetensors wrote.

    device   of the tensors: the CPU, unless given

    Nothing in the file is run.  Raises DataError if it is damaged or of another format, OSError if
    it cannot be read.

        >>> model.load_state_dict(dg.load("model.safetensors"))
    """
    path = _checked("load", path)
    tensors, metadata = read_tensors(path)
    if _TREE not in metadata:
        tensors = _ordered(tensors, metadata, path)
        return tensors if device is None else {k: x.to(device) for k, x in tensors.items()}
    version = metadata.get(_VERSION)
    if version != "1":
        raise broken(
            f"{path} is of another version", "version 1", f"version {version}",
            hint="read it with the release of dualgrad that wrote it",
        )  # fmt: skip
    try:
        return decode(metadata[_TREE], tensors, device)
    except Damaged as error:
        expect, actual = error.args
        what = f"the structure of the values in {path} is damaged"
        raise broken(what, expect, actual) from error


def _ordered(
    tensors: dict[str, Tensor], metadata: Mapping[str, str], path: str
) -> dict[str, Tensor]:
    """Tensors in the order in which they were saved, if the file says so."""
    if _ORDER not in metadata:
        return tensors
    try:
        names = json.loads(metadata[_ORDER])
    except (ValueError, RecursionError):
        names = None
    known = type(names) is list and all(type(name) is str for name in names)
    if not known or sorted(names) != sorted(tensors):
        what = f"the order of the tensors in {path} is damaged"
        raise broken(what, "a JSON list of their names", metadata[_ORDER][:100])
    return {name: tensors[name] for name in names}


def _is_plain(obj: Any) -> bool:
    return isinstance(obj, Mapping) and all(
        type(name) is str and name != METADATA and isinstance(value, Tensor)
        for name, value in obj.items()
    )


def _checked(op: str, path: Any) -> str:
    """The name of a file.  Raises ArgumentError for other objects."""
    if isinstance(path, str | os.PathLike) and isinstance(name := os.fspath(path), str):
        return name
    swapped = op == "save" and isinstance(path, Mapping | list | Tensor)
    raise ArgumentError(
        "there is no name of a file",
        op=op,
        expect="a str or an os.PathLike",
        actual=type(path).__name__,
        hint="the value comes first: dg.save(obj, path)"
        if swapped
        else "files are replaced as a whole: give the name, not an open file",
    )
