"""The CUDA devices of this process: drivers and compiled images.

Nothing is imported or looked for before a device is asked for: programs that stay on the CPU
neither need CuPy nor wait for it.
"""

from __future__ import annotations

import importlib.util
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dualgrad.runtime.cache import default_cache
from dualgrad.runtime.errors import DeviceError
from dualgrad.runtime.lazy import LazyModule
from dualgrad.runtime.profile import counters

if TYPE_CHECKING:
    from dualgrad.runtime import cupy_driver
    from dualgrad.runtime import driver as drivers
    from dualgrad.runtime.driver import Driver, Problem
else:
    cupy_driver = LazyModule("dualgrad.runtime.cupy_driver")
    drivers = LazyModule("dualgrad.runtime.driver")

_INSTALL = (
    'pip install "dualgrad[cuda13]" (NVIDIA driver 580 or newer) or "dualgrad[cuda12]" (older)'
)


# -- drivers --------------------------------------------------------------------------------------


class _State:
    """What is known of the devices; `drivers` by number, `problem` once it was looked for."""

    def __init__(self, drivers: dict[int, Driver]) -> None:
        self.drivers = drivers
        self.lock = threading.Lock()


_state = _State({})
_latest: Driver | None = None  # that was installed
modules = {cupy_driver.__name__}  # of drivers: Python code that only this package calls
forgetful: list[Callable[[], None]] = []  # what keeps programs by the name of their device


def driver(device: int = 0) -> Driver:
    """The driver of a device, made when it is first asked for.

    Raises DeviceError if there is no such device, or nothing to use it with.
    """
    known = _state.drivers.get(device)
    return _made(_state, device) if known is None else known


def _made(state: _State, device: int) -> Driver:
    with state.lock:
        if device in state.drivers:
            return state.drivers[device]
        if (found := problem()) is not None:
            raise DeviceError(found.what, actual=found.actual, hint=found.hint)
        count = _count(state)
        if not 0 <= device < count:
            expect = '"cuda:0"' if count == 1 else f'"cuda:0" to "cuda:{count - 1}"'
            raise DeviceError(
                "no such device",
                expect=expect,
                actual=f'"cuda:{device}"',
                hint="dg.cuda.device_count() tells how many there are, numbered from 0",
            )
        made: Driver = cupy_driver.CupyDriver(device)
        state.drivers[device] = made
        return made


def _count(state: _State) -> int:
    """Number of devices, where there is nothing against using them."""
    for made in state.drivers.values():
        return made.device_count()
    return cupy_driver.device_count()


def problem() -> Problem | None:
    """Why no CUDA device can be used; None if one can."""
    if _state.drivers:
        return None
    if importlib.util.find_spec("cupy") is None:
        return drivers.Problem("CUDA devices need CuPy, which is not installed", "", _INSTALL)
    try:
        return cupy_driver.problem()
    except ImportError as error:  # of CuPy, or of something that it needs
        return drivers.Problem("CuPy cannot be imported", str(error), _INSTALL)


def available() -> bool:
    """Whether there is a CUDA device and all that is needed to use it."""
    return problem() is None


def device_count() -> int:
    """Number of CUDA devices; 0 where they cannot be used."""
    return _count(_state) if available() else 0


@contextmanager
def installed(driver: Driver) -> Iterator[Driver]:
    """Let `driver` be the only CUDA device, "cuda:0", until the block ends.

    Programs that were made for another one are forgotten.
    """
    global _state, _latest
    before, _state = _state, _State({0: driver})
    modules.add(type(driver).__module__)
    if _latest is not driver:
        _latest = driver
        for forget in forgetful:
            forget()
    try:
        yield driver
    finally:
        _state = before


# -- images ---------------------------------------------------------------------------------------


def image_of(source: str, device: int = 0) -> bytes:
    """The image of CUDA C++ text for a device, from the disk cache if it is there.

    Raises CompileError.
    """
    maker, cache = driver(device), default_cache()
    key = f"cuda image\n{maker.target}\n{source}"
    image = cache.get(key)
    if image is not None:
        counters.cache_hits += 1
        return image
    start = time.perf_counter()
    image = maker.compile(source)
    counters.compiled += 1
    counters.compile_seconds += time.perf_counter() - start
    cache.put(key, image)
    return image
