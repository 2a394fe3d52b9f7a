"""From a list of items to a batch, with the rules of PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dualgrad.creation import from_numpy, from_storage
from dualgrad.runtime.dtype import DType, as_dtype
from dualgrad.runtime.errors import DataError
from dualgrad.tensor import Tensor


def default_collate(items: Sequence[Any]) -> Any:
    """Return a batch of `items`, all built alike.

        tensors or arrays [...]   -> tensor [n, ...]
        float, int, bool          -> tensor [n] of float64, int64, bool
        NumPy scalars             -> tensor [n] of their dtype
        str, bytes                -> the list of them
        mapping                   -> the same mapping of batches
        named tuple               -> the same named tuple of batches
        tuple or list             -> list of batches

    Raises DataError for items of another type, or of unequal lengths, keys or shapes.
    """
    first = items[0]
    if isinstance(first, Tensor):
        return _stack([item.storage() for item in items], first.dtype)
    if isinstance(first, (np.ndarray, np.generic)):
        return _stack(items, as_dtype(first.dtype))
    if isinstance(first, (bool, int, float)):
        return from_numpy(np.array(items, dtype=type(first)))
    if isinstance(first, (str, bytes)):
        return list(items)
    if isinstance(first, Mapping):
        return _collate_mappings(first, items)
    if isinstance(first, (tuple, list)):
        return _collate_sequences(first, items)
    raise DataError(
        f"no rule to make a batch of {type(first).__name__}",
        op="default_collate",
        expect="tensors, arrays, numbers, strings, mappings, tuples or lists of them",
        hint="pass collate_fn to the DataLoader",
    )


def default_convert(item: Any) -> Any:
    """Return an item with tensors in the place of its arrays and NumPy scalars, else as it is.

    Tuples become lists, as in a batch.
    """
    if isinstance(item, (np.ndarray, np.generic)):
        return from_numpy(np.asarray(item))
    if isinstance(item, Mapping):
        converted = {key: default_convert(value) for key, value in item.items()}
        return _as_mapping(item, converted)
    if isinstance(item, (tuple, list)):
        values = [default_convert(value) for value in item]
        return type(item)(*values) if hasattr(item, "_fields") else values
    return item


def _stack(arrays: Sequence[Any], dtype: DType) -> Tensor:
    shapes = {np.shape(array) for array in arrays}
    if len(shapes) > 1:
        raise _uneven("shapes", shapes)
    stacked = np.stack(arrays)
    same = stacked.dtype == dtype.numpy
    return from_storage(stacked, dtype) if same else from_numpy(stacked)


def _collate_mappings(first: Mapping[Any, Any], items: Sequence[Any]) -> Any:
    keys = {tuple(sorted(map(repr, item))) for item in items}
    if len(keys) > 1:
        raise _uneven("keys", keys)
    batch = {key: default_collate([item[key] for item in items]) for key in first}
    return _as_mapping(first, batch)


def _as_mapping(like: Mapping[Any, Any], values: dict[Any, Any]) -> Any:
    return values if type(like) is dict else type(like)(values)  # type: ignore[call-arg]


def _collate_sequences(first: Sequence[Any], items: Sequence[Any]) -> Any:
    lengths = {len(item) for item in items}
    if len(lengths) > 1:
        raise _uneven("lengths", lengths)
    columns = [default_collate(column) for column in zip(*items, strict=True)]
    return type(first)(*columns) if hasattr(first, "_fields") else columns


def _uneven(what: str, found: set[Any]) -> DataError:
    return DataError(
        f"the items of a batch have different {what}",
        op="default_collate",
        actual=", ".join(sorted(map(str, found))),
        hint="pad the items, use batch_size=1, or pass collate_fn to the DataLoader",
    )
