"""Values on their way from one device to another."""

from __future__ import annotations

from typing import Any

import numpy as np

from dualgrad.backends.common import Bound
from dualgrad.compiler.ir.types import TensorType
from dualgrad.runtime import cuda, memory
from dualgrad.runtime.device_array import DeviceArray
from dualgrad.runtime.devices import CPU, device_index
from dualgrad.runtime.dtype import DType

Array = np.ndarray[Any, Any]


class Moves:
    """A program that copies one array to the device of a type; see `Bound`.

    packed    what makes the array row-major first, so that only its own elements are moved
    """

    def __init__(self, type: TensorType, packed: Bound | None) -> None:
        self.device, self.packed, self.arena = type.device, packed, 0
        self.outputs = [(tuple(map(int, type.shape)), type.dtype)]  # type: ignore[arg-type]

    def run(self, arrays: list[Any], scalars: tuple[float, ...] = ()) -> list[Any]:
        if self.packed is not None:
            arrays = self.packed.run(arrays)
        return [moved(arrays[0], self.device)]


def moved(array: Array | DeviceArray, device: str) -> Array | DeviceArray:
    """A new row-major array with the same values on a device.  Raises DeviceError."""
    values = array.to_host() if isinstance(array, DeviceArray) else array
    if device == CPU:
        return values.copy() if values is array else values
    return DeviceArray.from_host(cuda.driver(device_index(device)), values)


def copy_into(target: Array | DeviceArray, source: Array | DeviceArray) -> None:
    """Overwrite a row-major array with the values of another one of its device, shape and dtype."""
    if isinstance(target, DeviceArray):
        assert isinstance(source, DeviceArray)
        if target.nbytes:
            target.driver.copy(target.address, source.address, target.nbytes)
    else:
        assert isinstance(source, np.ndarray)
        np.copyto(target, source)


def new_array(device: str, shape: tuple[int, ...], dtype: DType) -> Array | DeviceArray:
    """A new row-major array with values left undefined.  Raises DeviceError, OutOfMemory."""
    if device == CPU:
        return memory.empty(shape, dtype)
    return DeviceArray.empty(cuda.driver(device_index(device)), shape, dtype.numpy)
