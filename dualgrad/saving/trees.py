"""Nested values as JSON and tensors.

JSON's own values stand for themselves: None, bools, ints, finite floats (which JSON's decimal
numbers give back exactly), texts, lists, and dicts whose keys are texts.  The rest is an object
with one key:

    {"$tensor": name}          a tensor of the file
    {"$array": name}           a NumPy array, {"$scalar": name} a number of NumPy
    {"$tuple": [..]}           a tuple
    {"$dict": [[key, value]]}  a dict with other keys
    {"$float": "nan"}          a float that JSON does not have; "inf", "-inf"
"""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from dualgrad.creation import from_numpy
from dualgrad.runtime.dtype import NATIVE, bfloat16
from dualgrad.runtime.errors import ArgumentError
from dualgrad.tensor import Tensor

_DEEPEST: Final = 64
_WIDEST: Final = 4096  # bits of an int; Python reads decimal numbers of up to 14 000
_MARK: Final = "$"
_FLOATS: Final = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_DTYPES: Final = {dtype.numpy for dtype in NATIVE}


class Damaged(Exception):
    """A text that stands for no value; `args` are what was expected and what is there."""


def encode(value: Any) -> tuple[str, dict[str, Tensor]]:
    """A value as JSON, and its tensors by the names that are used there: "model.0.weight".

    Raises ArgumentError for what cannot be saved, with its place in the value.
    """
    encoder = _Encoder()
    text = json.dumps(encoder.encode(value, ()), allow_nan=False, separators=(",", ":"))
    return text, encoder.tensors


def decode(text: str, tensors: dict[str, Tensor], device: Any = None) -> Any:
    """The value that `encode` was given; its tensors on a device.  Raises Damaged."""
    try:
        tree = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise Damaged(f"at most {_DEEPEST} levels", "more") from None
    except ValueError as error:
        raise Damaged("JSON", str(error)) from error
    decoder = _Decoder(tensors, device)
    value = decoder.decode(tree, 0)
    if decoder.unused:
        raise Damaged("no tensor besides those", f"{sorted(decoder.unused)[0]!r}")
    return value


class _Encoder:
    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}

    def encode(self, value: Any, path: tuple[Any, ...]) -> Any:
        if len(path) > _DEEPEST:
            raise _refuse(path, f"a value in {_DEEPEST} others", "keep less nested values")
        kind = type(value)
        if value is None or kind is bool or kind is str:
            return value
        if kind is int:
            if value.bit_length() > _WIDEST:
                raise _refuse(path, "an int that is too long", f"keep at most {_WIDEST} bits")
            return value
        if kind is float:
            return value if math.isfinite(value) else {"$float": str(value)}
        if isinstance(value, Tensor):
            return {"$tensor": self._keep(value, path)}
        if kind is np.ndarray or isinstance(value, np.generic):
            return self._array(value, path)
        if kind is list:
            return self._items(value, path)
        if kind is tuple:
            return {"$tuple": self._items(value, path)}
        if kind is dict or kind is OrderedDict:
            return self._dict(value, path)
        raise _refuse(path, f"a value of type {kind.__module__}.{kind.__qualname__}")

    def _items(self, values: Any, path: tuple[Any, ...]) -> list[Any]:
        return [self.encode(value, (*path, k)) for k, value in enumerate(values)]

    def _dict(self, value: dict[Any, Any], path: tuple[Any, ...]) -> Any:
        if all(type(key) is str and not key.startswith(_MARK) for key in value):
            return {key: self.encode(v, (*path, key)) for key, v in value.items()}
        pairs = [[self._key(key, path), self.encode(v, (*path, key))] for key, v in value.items()]
        return {"$dict": pairs}

    def _key(self, key: Any, path: tuple[Any, ...]) -> Any:
        parts = key if type(key) is tuple else (key,)
        if not all(part is None or type(part) in (bool, int, float, str) for part in parts):
            raise _refuse(path, f"a dict with keys of type {type(key).__qualname__}")
        return self.encode(key, path)

    def _array(self, value: Any, path: tuple[Any, ...]) -> dict[str, str]:
        array = np.asarray(value)
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        if array.dtype not in _DTYPES:
            raise _refuse(path, f"a NumPy array of dtype {array.dtype}")
        name = self._keep(from_numpy(array), path)
        return {"$array" if type(value) is np.ndarray else "$scalar": name}

    def _keep(self, tensor: Tensor, path: tuple[Any, ...]) -> str:
        name = ".".join(map(str, path)).encode("utf-8", "backslashreplace").decode() or "value"
        while name in self.tensors or name == "__metadata__":
            name += "'"
        self.tensors[name] = tensor
        return name


class _Decoder:
    def __init__(self, tensors: dict[str, Tensor], device: Any) -> None:
        self.tensors, self.device = tensors, device
        self.unused = set(tensors)

    def decode(self, tree: Any, depth: int) -> Any:
        if depth > 3 * _DEEPEST:  # a level of a dict with other keys is three of JSON
            raise Damaged(f"at most {_DEEPEST} levels", "more")
        if type(tree) is list:
            return [self.decode(item, depth + 1) for item in tree]
        if type(tree) is not dict:
            return tree
        if not any(key.startswith(_MARK) for key in tree):
            return {key: self.decode(value, depth + 1) for key, value in tree.items()}
        if len(tree) != 1:
            raise Damaged(f"one key with {_MARK}", f"{list(tree)}"[:100])
        ((mark, value),) = tree.items()
        return self._marked(mark, value, depth)

    def _marked(self, mark: str, value: Any, depth: int) -> Any:
        if mark == "$tuple" and type(value) is list:
            return tuple(self.decode(value, depth + 1))
        if mark == "$dict" and type(value) is list:
            return self._dict(value, depth)
        if type(value) is str:
            if mark == "$float" and value in _FLOATS:
                return _FLOATS[value]
            if mark in ("$tensor", "$array", "$scalar"):
                return self._stored(mark, value)
        raise Damaged("a value that dualgrad writes", f"{{{mark!r}: {value!r}}}"[:100])

    def _dict(self, pairs: list[Any], depth: int) -> dict[Any, Any]:
        found = {}
        for pair in pairs:
            if type(pair) is not list or len(pair) != 2:
                raise Damaged("pairs of key and value", f"{pair!r}"[:100])
            key, value = self.decode(pair, depth + 1)
            try:
                found[key] = value
            except TypeError as error:
                raise Damaged("keys of a dict", str(error)) from error
        if len(found) != len(pairs):
            raise Damaged("each key once", "a key that comes twice")
        return found

    def _stored(self, mark: str, name: str) -> Any:
        if name not in self.unused:
            state = "one that is used twice" if name in self.tensors else "one that is not there"
            raise Damaged("a tensor of the file", f"{state}: {name!r}"[:100])
        self.unused.remove(name)
        tensor = self.tensors[name]
        if mark == "$tensor":
            return tensor.to(self.device) if self.device is not None else tensor
        if tensor.dtype is bfloat16 or (mark == "$scalar" and tensor.shape):
            raise Damaged("a value of NumPy", f"{tensor.type!r} under {name!r}"[:100])
        return tensor.numpy() if mark == "$array" else tensor.numpy()[()]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Damaged("each key once", "a key that comes twice")
    return found


def _no_constant(text: str) -> Any:
    raise Damaged("numbers of JSON", text)


def _refuse(path: tuple[Any, ...], what: str, hint: str = "") -> ArgumentError:
    return ArgumentError(
        f"{''.join(_steps(path)) or 'the value'} is {what}",
        op="save",
        expect="tensors, arrays and numbers of NumPy, None, bool, int, float, str, "
        "and lists, tuples and dicts of them",
        hint=hint or "save what it can be made from again, such as its state_dict()",
    )


def _steps(path: tuple[Any, ...]) -> Iterator[str]:
    for step in path[:_DEEPEST]:
        yield f"[{step!r}]" if not isinstance(step, tuple) else "[...]"
