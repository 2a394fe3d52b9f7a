"""Where a module is moved to."""

from __future__ import annotations

from typing import Any

from dualgrad.runtime.devices import canonical, is_device
from dualgrad.runtime.dtype import DType, as_dtype
from dualgrad.runtime.errors import DTypeError
from dualgrad.tensor import Tensor


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
