"""Comparing and copying the states of modules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from dualgrad.creation import from_numpy
from dualgrad.runtime.devices import canonical, is_device
from dualgrad.runtime.dtype import DType, as_dtype
from dualgrad.runtime.errors import DTypeError
from dualgrad.state import no_grad
from dualgrad.tensor import Tensor


class LoadResult(NamedTuple):
    """Names that were on one side only.

    missing_keys     in the module, not in the state
    unexpected_keys  in the state, not in the module
    """

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        missing, unexpected = self
        return f"LoadResult(missing_keys={missing}, unexpected_keys={unexpected})"


def find_mismatches(
    own: Mapping[str, Tensor], given: Mapping[str, Any], strict: bool
) -> tuple[LoadResult, list[str]]:
    """Return the names on one side only, and one line for each thing that forbids loading."""
    missing = [name for name in own if name not in given]
    unexpected = [name for name in given if name not in own]
    lines = []
    if strict:
        lines += [f"missing     {name} {_shape(own[name])}" for name in missing]
        lines += [f"unexpected  {name} {_shape(given[name])}" for name in unexpected]
    for name, tensor in own.items():
        if name in given and _shape(given[name]) != _shape(tensor):
            lines.append(
                f"shape       {name} {_shape(tensor)} in the module, "
                f"{_shape(given[name])} in the state"
            )
    return LoadResult(missing, unexpected), lines


def copy_state(own: Mapping[str, Tensor], given: Mapping[str, Any]) -> None:
    """Copy in place what both sides have; values are converted to the module's dtypes."""
    with no_grad():
        for name, tensor in own.items():
            if name in given:
                value = given[name]
                source = value if isinstance(value, Tensor) else from_numpy(np.asarray(value))
                tensor.copy_(source)


def destination(
    first: Any = None,
    second: Any = None,
    *others: Any,
    device: Any = None,
    dtype: Any = None,
    non_blocking: bool = False,
) -> tuple[str | None, DType | None]:
    """The device and the dtype that the arguments of `Module.to` name; None: stay as it is."""
    if isinstance(first, Tensor):
        device, dtype = first.device, first.dtype
    elif is_device(first):
        device, dtype = first, second if dtype is None else dtype
    elif first is not None:
        dtype = first
    kind = None if dtype is None else as_dtype(dtype)
    if kind is not None and not kind.is_float:
        raise DTypeError(
            "a module computes with floats",
            op="to",
            expect="a float dtype",
            actual=kind.name,
            hint="convert its inputs, or cast the module to dg.float32",
        )
    return None if device is None else canonical(device, "to"), kind


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, Tensor) else np.shape(value)
