"""The driver for CUDA devices: a thin layer over CuPy, and the only place that imports it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dualgrad.runtime.driver import Problem
from dualgrad.runtime.lazy import LazyModule

if TYPE_CHECKING:
    from cupy.cuda import runtime
else:
    runtime = LazyModule("cupy.cuda.runtime")


def problem() -> Problem | None:
    """Why CuPy can use no device; None if it can."""
    if runtime.driverGetVersion() == 0:
        return Problem(
            "there is no NVIDIA driver", "", "install one; `nvidia-smi` then lists the GPUs"
        )
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        return Problem("CUDA cannot be used", str(error), "see what `nvidia-smi` says")
    return None if count else Problem("there is no CUDA device", "", "see what `nvidia-smi` lists")


def device_count() -> int:
    """Number of devices; there is no `problem`."""
    return int(runtime.getDeviceCount())
