"""The values of tensors, as Python and NumPy have them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from dualgrad.compiler.ir.types import TensorType
from dualgrad.display.printing import kind_of
from dualgrad.runtime.device_array import DeviceArray
from dualgrad.runtime.dtype import bfloat16
from dualgrad.runtime.errors import (
    ArgumentError,
    DeviceError,
    DTypeError,
    OperandError,
    ShapeError,
    TraceError,
)
from dualgrad.runtime.floats import decode
from dualgrad.state import state

Array = np.ndarray[Any, Any]
readers: list[Callable[[], None]] = []  # who wants to know that elements are read


class Valued:
    """The part of `Tensor` that hands values out.  On a device that waits for queued work."""

    __slots__ = ()

    if TYPE_CHECKING:
        array: Array | DeviceArray | None
        requires_grad: bool

        @property
        def type(self) -> TensorType: ...

        def _deferred(self, how: str) -> Any: ...
        def refuse_lost_gradient(self, op: str) -> None: ...

    @property
    def is_cuda(self) -> bool:
        """Whether the values are on a CUDA device."""
        return self.type.device != "cpu"

    def concrete(self, what: str) -> Array | DeviceArray:
        """The array of the values; in a trace it gives up on what only a run knows."""
        trace = state.trace
        if trace is not None:
            trace.needs_value(self, what)  # type: ignore[arg-type]
        for told in readers:
            told()
        if self.array is None:
            raise TraceError(
                f"a {kind_of(self)} tensor has no values for {what}",
                expect="a tensor that exists",
                actual=f"{self.type!r}",
                hint="move this outside of the function",
            )
        return self.array

    def on_host(self, what: str) -> Array:
        """The values as they are stored, for bfloat16 as their bits: a copy if they are on a
        device, after all work that is queued there."""
        array = self.concrete(what)
        return array.to_host() if isinstance(array, DeviceArray) else array

    def storage(self) -> Array:
        """The memory as a NumPy array: the values, for bfloat16 their bits as uint16.

        Raises DeviceError for a tensor that is not on the CPU.
        """
        array = self.concrete("storage()")
        if isinstance(array, DeviceArray):
            raise self._not_here("storage")
        return array

    def _not_here(self, op: str) -> DeviceError:
        return DeviceError(
            "NumPy cannot see the memory of a CUDA device",
            op=op,
            expect="a tensor on the CPU",
            actual=f"{self.type!r}",
            hint=".cpu() copies it: x.cpu().numpy()",
        )

    def numpy(self) -> Array:
        """The values as a NumPy array that shares memory.

        NumPy has no bfloat16: its values come as a new array of float32, which has them exactly.
        Raises GradientError for a tensor that requires gradients: use `.detach().numpy()`, and
        DeviceError for one that is not on the CPU: use `.cpu().numpy()`.
        """
        self.refuse_lost_gradient("numpy")
        deferred = self._deferred("numpy")
        if deferred is not None:
            return deferred  # type: ignore[no-any-return]
        array = self.concrete("numpy()")
        if isinstance(array, DeviceArray):
            raise self._not_here("numpy")
        return decode(array, self.type.dtype)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if copy is False and self.type.dtype is bfloat16:
            raise ValueError("NumPy has no bfloat16: an array of the values is a copy")
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def item(self) -> Any:
        """The value of a tensor of one element, as a Python number."""
        deferred = self._deferred("item")
        if deferred is not None:
            return deferred
        array = self.concrete("item()")
        if array.size != 1:
            raise ShapeError(
                "only one element can become a Python number",
                op="item",
                expect="a tensor of one element",
                actual=f"shape {self.type.shape}",
                hint="index it, reduce it with .sum() or .mean(), or call .tolist()",
            )
        if isinstance(array, DeviceArray):
            array = array.to_host()
        return decode(array, self.type.dtype).item()

    def tolist(self) -> Any:
        """The values as nested lists of Python numbers."""
        deferred = self._deferred("tolist")
        if deferred is not None:
            return deferred
        return decode(self.on_host("tolist()"), self.type.dtype).tolist()

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        if self.concrete("bool()").size != 1:
            raise ArgumentError(
                "the truth value of several elements is ambiguous",
                op="bool",
                expect="a tensor of one element",
                actual=f"shape {self.type.shape}",
                hint="say .any() or .all(), or choose element by element with dg.where",
            )
        return bool(self.item())

    def __index__(self) -> int:
        if not self.type.dtype.is_int:
            raise DTypeError(
                "only integers can index",
                op="index",
                expect="an integer tensor",
                actual=self.type.dtype.name,
                hint="convert it with int(...) or .astype(dg.int64)",
            )
        if (
            self.type.shape and math.prod(self.type.shape) != 1
        ):  # a TypeError: bytearray(x) asks for a size first
            raise OperandError(
                "only one element can index",
                op="index",
                expect="a tensor of one element",
                actual=f"{self.type!r}",
                hint="x[indices] takes a tensor of indices; .tolist() gives Python numbers",
            )
        return int(self.item())
