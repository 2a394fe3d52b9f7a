"""The memory of tensors, as other libraries see it without a copy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from dualgrad.runtime.device_array import DeviceArray
from dualgrad.runtime.dtype import bfloat16
from dualgrad.runtime.errors import ArgumentError, ExchangeError, GradientError
from dualgrad.runtime.lazy import LazyModule

if TYPE_CHECKING:
    from dualgrad.compiler.ir.types import TensorType
    from dualgrad.runtime import dlpack
else:
    dlpack = LazyModule("dualgrad.runtime.dlpack")

_DEFAULT, _NO_ORDER = 1, -1  # streams of CUDA as DLPack numbers them


class Exchangeable:
    """The part of `Tensor` that hands its memory to other libraries: changes show on both sides.

    Memory that others change does not count as changed (`version`): gradients computed with the
    values before are then silently wrong, as with `numpy()`.
    """

    __slots__ = ()

    if TYPE_CHECKING:
        array: Any
        requires_grad: bool

        @property
        def type(self) -> TensorType: ...
        def concrete(self, what: str) -> Any: ...
        def detach(self) -> Any: ...

    def refuse_lost_gradient(self, op: str) -> None:
        """Raise GradientError for a tensor that requires gradients: nobody else computes them."""
        if self.requires_grad:
            raise GradientError(
                "a gradient would be lost",
                op=op,
                expect="a tensor without requires_grad",
                actual=f"{self.type!r} with requires_grad=True",
                hint=f"call .detach().{op}()" if op == "numpy" else "pass x.detach()",
            )

    def __buffer__(self, flags: int) -> memoryview:
        """The memory under Python's buffer protocol: `memoryview(x)`, `bytes(x)`,
        `file.write(x)`.

        Raises GradientError for a tensor that requires gradients, ExchangeError for one that is
        not on the CPU and for bfloat16, for which the protocol has no format.
        """
        self.refuse_lost_gradient("memoryview")
        array = self.concrete("memoryview()")
        if isinstance(array, DeviceArray) or self.type.dtype is bfloat16:
            raise ExchangeError(
                "Python's buffer protocol cannot show this memory",
                op="memoryview",
                expect="a tensor on the CPU of another dtype than bfloat16",
                actual=f"{self.type!r}",
                hint="x.cpu() copies it"
                if isinstance(array, DeviceArray)
                else "x.float() copies it",
            )
        return memoryview(array)

    def __bytes__(self) -> bytes:
        """The values in row-major order as they lie in memory; see `__buffer__`."""
        return self.__buffer__(0).tobytes()

    def __dlpack_device__(self) -> tuple[int, int]:
        """DLPack's type and number of the device: (1, 0) for the CPU, (2, N) for "cuda:N"."""
        return dlpack.device_pair(self.type.device)

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A capsule with the memory, for `from_dlpack` of another library.

        stream       of CUDA, on which the memory will be used: 1 (the default stream) if None, -1
                     for no order between the queues
        max_version  the newest version of DLPack that is understood there
        dl_device    where the values are wanted, as from `__dlpack_device__`
        copy         True for new memory, False to refuse where a copy is needed

        Raises GradientError for a tensor that requires gradients, ExchangeError for what cannot
        be shared so, ArgumentError for streams that do not suit.
        """
        self.refuse_lost_gradient("__dlpack__")
        self.concrete("__dlpack__")
        target = self.type.device if dl_device is None else _device(dl_device)
        moved = target != self.type.device
        if moved and copy is False:
            raise ExchangeError(
                "a copy is needed",
                op="__dlpack__",
                expect=f"dl_device={self.__dlpack_device__()}, or copy=None",
                actual=f"dl_device={dl_device} with copy=False",
                hint="leave copy out: None copies where it must",
            )
        copied = moved or bool(copy)
        source = self.detach().to(target).clone() if copied else self
        _order(source.array, stream)
        versioned = max_version is not None and max_version[0] >= dlpack.VERSION[0]
        return dlpack.capsule_of(source.array, self.type.dtype, target, versioned, copied)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """How CuPy, Numba and PyTorch see the memory, of a tensor on a device.

        Raises GradientError for one that requires gradients.
        """
        array = self.array
        if not isinstance(array, DeviceArray) or self.type.dtype is bfloat16:
            raise AttributeError("__cuda_array_interface__: not on a CUDA device, or bfloat16")
        self.refuse_lost_gradient("__cuda_array_interface__")
        return array.__cuda_array_interface__


def _device(pair: Any) -> str:
    """The device that `dl_device` means.  Raises ExchangeError."""
    name = dlpack.device_of(*map(int, pair))
    if name is None:
        raise ExchangeError(
            "not a device of dualgrad",
            op="__dlpack__",
            expect="(1, 0) for the CPU or (2, N) for CUDA",
            actual=f"dl_device={pair}",
            hint="move it to the CPU first",
        )
    return name


def _order(array: np.ndarray[Any, Any] | DeviceArray, stream: int | None) -> None:
    """Let work on a stream of CUDA come after ours on the array."""
    if not isinstance(array, DeviceArray):
        if stream is not None and stream != _NO_ORDER:
            raise ArgumentError(
                "the CPU has no streams",
                op="__dlpack__",
                expect="stream=None",
                actual=f"stream={stream}",
                hint="leave stream out",
            )
    elif stream == 0:
        raise ArgumentError(
            "stream 0 is ambiguous",
            op="__dlpack__",
            expect="1 for the legacy default stream, 2 for that of each thread, or a handle",
            actual="stream=0",
            hint="give 1 for the default stream, 2 for that of each thread",
        )
    elif stream != _NO_ORDER:
        array.driver.lead(_DEFAULT if stream is None else stream)
