"""The driver for CUDA devices: a thin layer over CuPy, and the only place that imports it.

Work goes to CuPy's current stream and memory comes from CuPy's current allocator, so that other
users of CuPy in the process share both; streams of the user's own order their work as with CuPy.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import numpy as np

from dualgrad.runtime import nvrtc
from dualgrad.runtime.driver import DeviceInfo, Graph, Memory, Problem
from dualgrad.runtime.errors import DeviceError, OutOfMemory
from dualgrad.runtime.lazy import LazyModule
from dualgrad.runtime.records import dataclass, field

if TYPE_CHECKING:
    import cupy
    from cupy.cuda import driver, runtime
    from cupy.cuda import function as functions
else:
    cupy = LazyModule("cupy")
    driver = LazyModule("cupy_backends.cuda.api.driver")
    functions = LazyModule("cupy.cuda.function")
    runtime = LazyModule("cupy.cuda.runtime")

_P = ParamSpec("_P")
_R = TypeVar("_R")

_WORD = 8  # bytes of a parameter
_PARAMETERS = 4095  # of a kernel: CUDA allows 32764 bytes
_STAGED = 16 << 20  # bytes; larger uploads wait instead of being copied twice
_IN_FLIGHT = 16  # staged uploads
_DEFAULT_STREAM = 1  # CUDA's handle of the legacy default stream


# -- whether there is a device --------------------------------------------------------------------


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


# -- errors ---------------------------------------------------------------------------------------


def _failure(error: Exception) -> DeviceError:
    return DeviceError(
        "the device reports an error",
        actual=str(error),
        why="a kernel that fails is reported by a later call",
        hint="wait with dg.cuda.synchronize() after each call to find the one that fails",
    )


def _checked(
    method: Callable[Concatenate[CupyDriver, _P], _R],
) -> Callable[Concatenate[CupyDriver, _P], _R]:
    """A method that runs on its driver's device and turns CuPy's errors into ours."""

    @functools.wraps(method)
    def wrapped(self: CupyDriver, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            with self._here:
                return method(self, *args, **kwargs)
        except (runtime.CUDARuntimeError, driver.CUDADriverError) as error:
            raise _failure(error) from error

    return wrapped


# -- parts ----------------------------------------------------------------------------------------


class _CupyMemory:
    """Memory of CuPy's allocator."""

    __slots__ = ("_pointer", "address", "nbytes")

    def __init__(self, pointer: Any, nbytes: int) -> None:
        self._pointer = pointer
        self.address: int = pointer.ptr
        self.nbytes = nbytes


@dataclass(eq=False)
class _CupyGraph:
    """`recorded` is CuPy's graph; the pool holds the memory allocated while it was captured, and
    `kernels` what was launched: code that nobody holds is unloaded."""

    pool: Any
    recorded: Any = None
    kernels: list[Any] = field(default_factory=list)


class _Thread(threading.local):
    """What each thread has: room for the parameters of a kernel, and the graph that it captures.

    CUDA takes an array of pointers to parameters and copies what they point to.
    """

    def __init__(self, device: int) -> None:
        runtime.setDevice(device)  # gives the thread its context
        self.capturing: _CupyGraph | None = None
        self._room = (ctypes.c_uint64 * _PARAMETERS)()
        start = ctypes.addressof(self._room)
        places = range(start, start + _WORD * _PARAMETERS, _WORD)
        self._pointers = (ctypes.c_uint64 * _PARAMETERS)(*places)
        self.bytes = memoryview(self._room).cast("B")
        self.pointers = ctypes.addressof(self._pointers)


class _Staging:
    """Pinned copies of host data on their way to the device.

    The device fetches from pinned memory by itself, so that the host need not wait for the work
    queued before.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent: deque[tuple[Any, Any]] = deque()  # events and the memory that they free

    def send(self, address: int, source: int, nbytes: int, stream: Any) -> None:
        with self._lock:
            while self._sent and (len(self._sent) >= _IN_FLIGHT or self._sent[0][0].done):
                self._sent[0][0].synchronize()
                self._sent.popleft()
            pinned = cupy.cuda.alloc_pinned_memory(nbytes)
            ctypes.memmove(pinned.ptr, source, nbytes)
            kind = runtime.memcpyHostToDevice
            event = cupy.cuda.Event(disable_timing=True)
            runtime.memcpyAsync(address, pinned.ptr, nbytes, kind, stream.ptr)
            event.record(stream)
            self._sent.append((event, pinned))


def _host_address(data: memoryview) -> int:
    return int(np.frombuffer(data, np.uint8).ctypes.data)


# -- the driver -----------------------------------------------------------------------------------


class CupyDriver:
    """`Driver` for the CUDA device with number `device`."""

    def __init__(self, device: int) -> None:
        self.device = device
        several = device_count() > 1
        self._here: AbstractContextManager[Any]
        self._here = cupy.cuda.Device(device) if several else nullcontext()
        with self._here:
            self._thread = _Thread(device)
        self._staging = _Staging()
        self._info = functools.cache(_info_of)

    @property
    def name(self) -> str:
        cuda, installed = runtime.runtimeGetVersion(), runtime.driverGetVersion()
        return f"CuPy {cupy.__version__}, CUDA {_version(cuda)}, driver for {_version(installed)}"

    @functools.cached_property
    def _compiler(self) -> nvrtc.Compiler:
        # machine code of one major version of CUDA does not load into an older one
        return nvrtc.compiler((runtime.runtimeGetVersion() // 1000,))

    @functools.cached_property
    def target(self) -> str:
        return f"{self._compiler.identity()} {self.info(self.device).arch}"

    def device_count(self) -> int:
        return device_count()

    @_checked
    def info(self, device: int) -> DeviceInfo:
        return self._info(device)

    # -- kernels

    def compile(self, source: str) -> bytes:
        compiler = self._compiler
        return compiler.compile(source, compiler.nearest(self.info(self.device).arch)).cubin

    @_checked
    def load(self, image: bytes) -> Any:
        module = functions.Module()
        module.load(image)
        return module

    @_checked
    def function(self, module: Any, name: str) -> Any:
        return module.get_function(name)

    def launch(self, function: Any, blocks: int, threads: int, args: bytes) -> None:
        try:
            with self._here:
                thread = self._thread
                thread.bytes[: len(args)] = args
                if thread.capturing is not None:
                    thread.capturing.kernels.append(function)
                stream = cupy.cuda.get_current_stream().ptr
                driver.launchKernel(
                    function.ptr, blocks, 1, 1, threads, 1, 1, 0, stream, thread.pointers, 0
                )
        except (runtime.CUDARuntimeError, driver.CUDADriverError) as error:
            raise _failure(error) from error

    # -- memory

    @_checked
    def allocate(self, nbytes: int) -> Memory:
        try:
            return _CupyMemory(cupy.cuda.alloc(max(nbytes, 1)), nbytes)
        except cupy.cuda.memory.OutOfMemoryError as error:
            free, total = self.memory_info()
            live = cupy.get_default_memory_pool().used_bytes()
            raise OutOfMemory(
                f"cuda:{self.device} has no memory for {nbytes} bytes",
                actual=f"{live} bytes in use by arrays, {free} of {total} bytes free",
                hint="smaller batches, or delete tensors that are no longer needed",
            ) from error

    @_checked
    def memory_info(self) -> tuple[int, int]:
        free, total = runtime.memGetInfo()
        return free + cupy.get_default_memory_pool().free_bytes(), total

    @_checked
    def allocated(self) -> int:
        return int(cupy.get_default_memory_pool().used_bytes())

    @_checked
    def trim(self) -> None:
        cupy.get_default_memory_pool().free_all_blocks()

    @_checked
    def upload(self, address: int, data: memoryview) -> None:
        self._refuse_in_capture("a copy from the host")
        nbytes = data.nbytes
        if nbytes == 0:
            return
        source, stream = _host_address(data), cupy.cuda.get_current_stream()
        if nbytes <= _STAGED:
            self._staging.send(address, source, nbytes, stream)
        else:
            runtime.memcpyAsync(address, source, nbytes, runtime.memcpyHostToDevice, stream.ptr)
            stream.synchronize()

    @_checked
    def download(self, data: memoryview, address: int) -> None:
        self._refuse_in_capture("a copy to the host")
        stream, nbytes = cupy.cuda.get_current_stream(), data.nbytes
        if nbytes:
            target, kind = _host_address(data), runtime.memcpyDeviceToHost
            runtime.memcpyAsync(target, address, nbytes, kind, stream.ptr)
        stream.synchronize()

    @_checked
    def copy(self, target: int, source: int, nbytes: int) -> None:
        stream = cupy.cuda.get_current_stream().ptr
        if nbytes:
            runtime.memcpyAsync(target, source, nbytes, runtime.memcpyDeviceToDevice, stream)

    @_checked
    def fill(self, address: int, byte: int, nbytes: int) -> None:
        if nbytes:
            runtime.memsetAsync(address, byte, nbytes, cupy.cuda.get_current_stream().ptr)

    # -- time

    @_checked
    def synchronize(self) -> None:
        self._refuse_in_capture("waiting")
        cupy.cuda.get_current_stream().synchronize()

    @property
    def stream(self) -> int:
        return cupy.cuda.get_current_stream().ptr or _DEFAULT_STREAM

    @_checked
    def lead(self, stream: int) -> None:
        if stream != self.stream:
            event = cupy.cuda.Event(disable_timing=True)
            event.record()
            runtime.streamWaitEvent(stream, event.ptr, 0)

    @_checked
    def follow(self, stream: int) -> None:
        if stream != self.stream:
            event = cupy.cuda.Event(disable_timing=True)
            runtime.eventRecord(event.ptr, stream)
            runtime.streamWaitEvent(cupy.cuda.get_current_stream().ptr, event.ptr, 0)

    @_checked
    def device_of(self, address: int) -> int:
        return int(runtime.pointerGetAttributes(address).device)

    @_checked
    def event(self) -> Any:
        return cupy.cuda.Event()

    @_checked
    def record(self, event: Any) -> None:
        event.record()

    @_checked
    def elapsed(self, start: Any, end: Any) -> float:
        self._refuse_in_capture("waiting")
        end.synchronize()
        return float(cupy.cuda.get_elapsed_time(start, end))

    # -- graphs

    @contextmanager
    def capture(self) -> Iterator[Graph]:
        with self._here:
            self._refuse_in_capture("another capture")
            thread, graph = self._thread, _CupyGraph(cupy.cuda.MemoryPool())
            # work of other streams does not wait for this one, nor this one for it
            stream = cupy.cuda.Stream(non_blocking=True)
            with cupy.cuda.using_allocator(graph.pool.malloc), stream:
                self._begin(stream)
                thread.capturing = graph
                try:
                    yield graph
                except BaseException:
                    with suppress(runtime.CUDARuntimeError):
                        stream.end_capture()
                    raise
                finally:
                    thread.capturing = None
                graph.recorded = self._end(stream)

    @_checked
    def _begin(self, stream: Any) -> None:
        stream.begin_capture()

    @_checked
    def _end(self, stream: Any) -> Any:
        return stream.end_capture()

    @_checked
    def replay(self, graph: Any) -> None:
        self._refuse_in_capture("a replay")
        if graph.recorded is None:
            raise DeviceError(
                "nothing was recorded",
                why="the capture has not ended, or failed",
                hint="end the capture before its graph is used",
            )
        graph.recorded.launch()

    def _refuse_in_capture(self, what: str) -> None:
        stream = cupy.cuda.get_current_stream()
        # CUDA's own streams have small numbers and cannot capture
        if self._thread.capturing is not None or (stream.ptr > 2 and stream.is_capturing()):
            raise DeviceError(
                f"{what} is not possible while a graph is captured",
                hint="do it before the capture begins",
            )


def _info_of(device: int) -> DeviceInfo:
    found = runtime.getDeviceProperties(device)
    return DeviceInfo(
        found["name"].decode(),
        f"sm_{found['major']}{found['minor']}",
        found["multiProcessorCount"],
        found["totalGlobalMem"],
    )


def _version(number: int) -> str:
    """CUDA's 13020 is 13.2."""
    return f"{number // 1000}.{number % 1000 // 10}"
