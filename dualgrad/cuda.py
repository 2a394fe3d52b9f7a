"""CUDA devices: whether there are some, what they are, waiting for them, their memory.

    device = "cuda" if dg.cuda.is_available() else "cpu"

Devices are named by number or as "cuda:N"; None is the first one.  What needs a device raises
DeviceError if there is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dualgrad.jit.errors import Unsupported as _Unsupported
from dualgrad.random import default_generator as _default_generator
from dualgrad.runtime import cuda as _cuda
from dualgrad.runtime.devices import canonical as _canonical
from dualgrad.runtime.devices import device_index as _device_index
from dualgrad.runtime.errors import DeviceError as _DeviceError
from dualgrad.state import state as _state

if TYPE_CHECKING:
    from dualgrad.runtime.driver import Driver as _Driver

__all__ = [
    "current_device",
    "device_count",
    "empty_cache",
    "get_device_capability",
    "get_device_name",
    "is_available",
    "manual_seed",
    "mem_get_info",
    "memory_allocated",
    "synchronize",
]


def is_available() -> bool:
    """Whether there is a CUDA device and all that is needed to use it."""
    return _cuda.available()


def device_count() -> int:
    """Number of CUDA devices; 0 where they cannot be used."""
    return _cuda.device_count()


def current_device() -> int:
    """The number of the device that "cuda" means: always 0."""
    return 0


def get_device_name(device: Any = None) -> str:
    """What the maker calls a device."""
    return _driver(device).info(_number(device)).name


def get_device_capability(device: Any = None) -> tuple[int, int]:
    """The compute capability of a device: (9, 0) for "sm_90"."""
    digits = _driver(device).info(_number(device)).arch.removeprefix("sm_").rstrip("af")
    return int(digits[:-1]), int(digits[-1])


def synchronize(device: Any = None) -> None:
    """Wait until all work queued on a device is done; errors of kernels are raised here."""
    _driver(device).synchronize()


def mem_get_info(device: Any = None) -> tuple[int, int]:
    """Free and total bytes of a device; memory kept for reuse counts as free."""
    _refuse_in_trace("mem_get_info")
    return _driver(device).memory_info()


def memory_allocated(device: Any = None) -> int:
    """Bytes of a device that this process's tensors and programs use."""
    _refuse_in_trace("memory_allocated")
    return _driver(device).allocated()


def empty_cache() -> None:
    """Give memory that is kept for reuse back to the first device."""
    _driver(None).trim()


def manual_seed(seed: int) -> None:
    """Seed the default stream of random numbers, which is the same on all devices."""
    _default_generator.manual_seed(seed)


def _refuse_in_trace(what: str) -> None:
    """Whoever asks for the memory in use gets another answer at each call."""
    if _state.trace is not None:
        raise _Unsupported(
            f"dg.cuda.{what}() is called while tracing", hint="call it outside of the function"
        )


def _number(device: Any) -> int:
    if isinstance(device, int) and not isinstance(device, bool):
        return device
    name = _canonical("cuda" if device is None else device)
    if name == "cpu":
        raise _DeviceError(
            "no CUDA device",
            expect='"cuda", "cuda:N" or N',
            actual=repr(device),
            hint="give its number, 0 for the first",
        )
    return _device_index(name)


def _driver(device: Any) -> _Driver:
    return _cuda.driver(_number(device))
