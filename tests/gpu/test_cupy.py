"""The layer over CuPy, without a GPU: against a stand-in for CuPy's names, and the names of CuPy.

What a device does with the calls is tested by the other tests of this folder where there is one.
"""

from __future__ import annotations

import ast
import ctypes
import importlib
import inspect
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dualgrad.runtime import cupy_driver
from dualgrad.runtime.cupy_driver import CupyDriver
from dualgrad.runtime.errors import DeviceError, OutOfMemory
from dualgrad.runtime.lazy import LazyModule


class CUDARuntimeError(RuntimeError):
    pass


class CUDADriverError(RuntimeError):
    pass


class OutOfMemoryError(MemoryError):
    pass


class Event:
    """Done when the test says so, or when it is waited for."""

    def __init__(self, disable_timing: bool = False) -> None:
        self.done = False

    def record(self, stream: Any = None) -> None:
        self.done = False

    def synchronize(self) -> None:
        self.done = True


class Recorded:
    def __init__(self) -> None:
        self.launches = 0

    def launch(self) -> None:
        self.launches += 1


class Stream:
    def __init__(self, non_blocking: bool = False) -> None:
        self.ptr = 7 if non_blocking else 0
        self.ended = 0
        self.captures = False

    def __enter__(self) -> Stream:
        self.before, Cupy.stream = Cupy.stream, self
        return self

    def __exit__(self, *error: object) -> None:
        Cupy.stream = self.before

    def synchronize(self) -> None:
        Cupy.waits += 1

    def begin_capture(self) -> None:
        assert self.ptr, "cannot capture on the default stream"
        self.captures = True

    def is_capturing(self) -> bool:
        assert self.ptr > 2
        return self.captures

    def end_capture(self) -> Recorded:
        self.ended += 1
        self.captures = False
        return Recorded()


class Pool:
    """Host memory that tells how much of it is used."""

    def __init__(self) -> None:
        self.used = 0

    def malloc(self, nbytes: int) -> Any:
        if nbytes > 1 << 30:
            raise OutOfMemoryError
        self.used += nbytes
        room = ctypes.create_string_buffer(nbytes)
        return SimpleNamespace(ptr=ctypes.addressof(room), room=room)

    def used_bytes(self) -> int:
        return self.used

    def free_bytes(self) -> int:
        return 100


class Cupy:
    """What the driver uses of CuPy; one device, memory of the host, nothing asynchronous."""

    stream: Any
    waits = 0

    def __init__(self) -> None:
        Cupy.stream, Cupy.waits = Stream(), 0
        self.pool = Pool()
        self.allocate = self.pool.malloc
        self.launches: list[tuple[Any, ...]] = []
        self.pinned = Pool()
        memory = SimpleNamespace(OutOfMemoryError=OutOfMemoryError)
        self.cupy = SimpleNamespace(
            __version__="14.2.0",
            get_default_memory_pool=lambda: self.pool,
            cuda=SimpleNamespace(
                Event=Event, Stream=Stream, MemoryPool=Pool, memory=memory,
                alloc=lambda nbytes: self.allocate(nbytes),
                alloc_pinned_memory=self.pinned.malloc,
                get_current_stream=lambda: Cupy.stream,
                using_allocator=self.using_allocator,
                get_elapsed_time=lambda a, b: 1.5,
            ),
        )  # fmt: skip
        properties = {"name": b"GPU", "major": 9, "minor": 0}
        properties |= {"multiProcessorCount": 4, "totalGlobalMem": 999}
        self.runtime = SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError,
            memcpyHostToDevice=1, memcpyDeviceToHost=2, memcpyDeviceToDevice=3,
            runtimeGetVersion=lambda: 13020, driverGetVersion=lambda: 13000,
            getDeviceCount=lambda: 1, setDevice=lambda device: None,
            memGetInfo=lambda: (500, 999), getDeviceProperties=lambda device: properties,
            memcpyAsync=lambda to, at, n, kind, stream: ctypes.memmove(to, at, n),
            memsetAsync=lambda to, byte, n, stream: ctypes.memset(to, byte, n),
        )  # fmt: skip
        self.driver = SimpleNamespace(CUDADriverError=CUDADriverError, launchKernel=self.launch)

    @contextmanager
    def using_allocator(self, allocate: Any) -> Iterator[None]:
        before, self.allocate = self.allocate, allocate
        yield
        self.allocate = before

    def launch(self, kernel: int, *numbers: int) -> None:
        if kernel == 666:
            raise CUDADriverError("CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access")
        *shape, shared, stream, parameters, extra = numbers
        assert (shared, extra) == (0, 0)
        places = (ctypes.c_uint64 * 3).from_address(parameters)
        values = tuple(ctypes.c_int64.from_address(place).value for place in places)
        self.launches.append((kernel, tuple(shape), stream, values))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Cupy:
    fake = Cupy()
    for name in ("cupy", "runtime", "driver"):
        monkeypatch.setattr(cupy_driver, name, getattr(fake, name))
    return fake


@pytest.fixture
def driver(fake: Cupy) -> CupyDriver:
    return CupyDriver(0)


def kernel(address: int) -> Any:
    return SimpleNamespace(ptr=address)


def test_launch_passes_pointers_to_each_parameter(fake: Cupy, driver: CupyDriver) -> None:
    driver.launch(kernel(5), 12, 256, struct.pack("<qqq", 1, -2, 3))
    driver.launch(kernel(6), 1, 32, struct.pack("<q", 9))
    assert fake.launches == [
        (5, (12, 1, 1, 256, 1, 1), 0, (1, -2, 3)),
        (6, (1, 1, 1, 32, 1, 1), 0, (9, -2, 3)),  # only the first is a parameter
    ]


def test_errors_of_cuda_are_ours(driver: CupyDriver) -> None:
    with pytest.raises(DeviceError, match="the device reports an error") as caught:
        driver.launch(kernel(666), 1, 1, b"")
    assert "ILLEGAL_ADDRESS" in caught.value.actual


def test_copies(driver: CupyDriver) -> None:
    values = np.arange(6, dtype=np.float32)
    memory, other = driver.allocate(24), driver.allocate(24)
    driver.upload(memory.address, memoryview(values))
    driver.copy(other.address, memory.address, 24)
    driver.fill(other.address + 4, 0, 4)
    back = np.empty(6, np.float32)
    driver.download(memoryview(back), other.address)
    assert Cupy.waits == 1  # for the download
    np.testing.assert_array_equal(back, [0, 0, 2, 3, 4, 5])
    for nothing in (np.empty(0), np.empty((3, 0))):
        driver.upload(memory.address, memoryview(nothing))
    driver.copy(0, 0, 0)
    driver.fill(0, 0, 0)


def test_uploads_wait_only_for_room(
    driver: CupyDriver, fake: Cupy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cupy_driver, "_STAGED", 64)
    memory, staging = driver.allocate(128), driver._staging
    for _ in range(cupy_driver._IN_FLIGHT):
        driver.upload(memory.address, memoryview(bytes(64)))
    first = staging._sent[0][0]
    assert len(staging._sent) == cupy_driver._IN_FLIGHT
    assert not first.done
    driver.upload(memory.address, memoryview(bytes(64)))
    assert first.done  # it was waited for
    assert len(staging._sent) == cupy_driver._IN_FLIGHT
    for event, _ in staging._sent:
        event.done = True
    driver.upload(memory.address, memoryview(bytes(64)))
    assert len(staging._sent) == 1
    pinned = fake.pinned.used
    driver.upload(memory.address, memoryview(bytes(65)))  # too large to be copied twice
    assert (fake.pinned.used, Cupy.waits) == (pinned, 1)


def test_memory(driver: CupyDriver) -> None:
    assert driver.allocate(0).nbytes == 0
    assert driver.memory_info() == (600, 999)  # what the pool keeps is free
    driver.allocate(1000)
    with pytest.raises(OutOfMemory, match="no memory for 2147483648 bytes") as caught:
        driver.allocate(2 << 30)
    assert caught.value.actual == "1001 bytes in use by arrays, 600 of 999 bytes free"


def test_capture_has_memory_of_its_own(driver: CupyDriver, fake: Cupy) -> None:
    with driver.capture() as graph:
        driver.launch(kernel(5), 1, 1, struct.pack("<q", 1))
        driver.allocate(512)
        for refused in (
            lambda: driver.upload(0, memoryview(b"1")),
            lambda: driver.download(memoryview(bytearray(1)), 0),
            driver.synchronize,
            lambda: driver.capture().__enter__(),
            lambda: driver.replay(graph),
        ):
            with pytest.raises(DeviceError, match="while a graph is captured"):
                refused()
    assert fake.launches[0][2] == 7  # the stream of the capture
    assert fake.pool.used == 0
    assert graph.pool.used == 512  # type: ignore[attr-defined]
    assert Cupy.stream.ptr == 0
    driver.replay(graph)
    driver.replay(graph)
    assert graph.recorded.launches == 2  # type: ignore[attr-defined]
    driver.synchronize()


def test_a_graph_keeps_its_kernels(driver: CupyDriver) -> None:
    with driver.capture() as graph:
        driver.launch(kernel(5), 1, 1, struct.pack("<q", 1))
    assert [k.ptr for k in graph.kernels] == [5]  # type: ignore[attr-defined]


def test_captures_of_others_are_seen(driver: CupyDriver) -> None:
    with Stream(non_blocking=True) as stream:
        stream.begin_capture()
        with pytest.raises(DeviceError, match="while a graph is captured"):
            driver.upload(0, memoryview(b"1"))
        stream.end_capture()
        driver.synchronize()


def test_capture_that_fails_ends(driver: CupyDriver) -> None:
    streams = []

    def fail() -> None:
        streams.append(Cupy.stream)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), driver.capture() as graph:
        fail()
    assert [stream.ended for stream in streams] == [1]
    driver.synchronize()  # no longer refused
    with pytest.raises(DeviceError, match="nothing was recorded"):
        driver.replay(graph)


def test_texts(driver: CupyDriver) -> None:
    assert driver.name == "CuPy 14.2.0, CUDA 13.2, driver for 13.0"
    assert driver.info(0).arch == "sm_90"
    driver._compiler = SimpleNamespace(identity=lambda: "nvrtc")  # type: ignore[assignment]
    assert driver.target == "nvrtc sm_90"
    assert driver.elapsed(driver.event(), driver.event()) == 1.5


def test_problems(fake: Cupy) -> None:
    def fails() -> int:
        raise CUDARuntimeError("cudaErrorInsufficientDriver")

    assert cupy_driver.problem() is None
    fake.runtime.getDeviceCount = lambda: 0
    assert "no CUDA device" in str(cupy_driver.problem())
    fake.runtime.getDeviceCount = fails
    assert "cudaErrorInsufficientDriver" in str(cupy_driver.problem())
    fake.runtime.driverGetVersion = lambda: 0
    assert "no NVIDIA driver" in str(cupy_driver.problem())


# Names, and what Cython says of the arguments, of the functions that the driver calls.
SIGNATURES = {
    "cupy_backends.cuda.api.driver:launchKernel": (
        "launchKernel(intptr_t f, unsigned int grid_dim_x, unsigned int grid_dim_y, "
        "unsigned int grid_dim_z, unsigned int block_dim_x, unsigned int block_dim_y, "
        "unsigned int block_dim_z, unsigned int shared_mem_bytes, intptr_t stream, "
        "intptr_t kernel_params, intptr_t extra)"
    ),
    "cupy.cuda.runtime:memcpyAsync": (
        "memcpyAsync(intptr_t dst, intptr_t src, size_t size, int kind, intptr_t stream)"
    ),
    "cupy.cuda.runtime:memsetAsync": (
        "memsetAsync(intptr_t ptr, int value, size_t size, intptr_t stream)"
    ),
    "cupy.cuda.runtime:setDevice": "setDevice(int device)",
    "cupy.cuda.runtime:memGetInfo": "memGetInfo()",
    "cupy.cuda.runtime:getDeviceProperties": "getDeviceProperties(int device)",
    "cupy.cuda.function:Module.load": "Module.load(self, bytes cubin)",
    "cupy.cuda.function:Module.get_function": "Module.get_function(self, name)",
    "cupy.cuda.graph:Graph.launch": "Graph.launch(self, stream=None)",
    "cupy.cuda:alloc": "alloc(size) -> MemoryPointer",
    "cupy.cuda:MemoryPool.malloc": "MemoryPool.malloc(self, size_t size) -> MemoryPointer",
    "cupy.cuda:get_current_stream": "get_current_stream(int device_id=-1)",
    "cupy.cuda:Stream.is_capturing": "_BaseStream.is_capturing(self)",
}


@pytest.mark.parametrize("place", SIGNATURES)
def test_names_and_arguments_of_cupy(place: str) -> None:
    pytest.importorskip("cupy", reason="CuPy is not installed")
    module, _, path = place.partition(":")
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    assert found.__doc__.strip().split("\n")[0] == SIGNATURES[place]


def dotted(node: ast.Attribute) -> str:
    """`cupy.cuda.alloc` of its syntax tree; nothing for attributes of other things than names."""
    below = node.value
    if isinstance(below, ast.Attribute):
        return f"{dotted(below)}.{node.attr}" if dotted(below) else ""
    return f"{below.id}.{node.attr}" if isinstance(below, ast.Name) else ""


def test_every_name_of_cupy_exists() -> None:
    pytest.importorskip("cupy", reason="CuPy is not installed")
    lazy = {name: x.__name__ for name, x in vars(cupy_driver).items() if type(x) is LazyModule}
    tree = ast.parse(inspect.getsource(cupy_driver))
    found = {dotted(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used = [name.split(".") for name in found if name.partition(".")[0] in lazy]
    assert len(used) > 20
    for first, *rest in used:
        place: Any = importlib.import_module(lazy[first])
        for name in rest:
            assert hasattr(place, name), (first, *rest)
            place = getattr(place, name)


def test_cupy_without_a_device() -> None:
    """The checks of the real library answer instead of raising."""
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    if cupy.cuda.is_available():
        pytest.skip("there is a device")
    found = cupy_driver.problem()
    assert found is not None
    assert found.what in ("there is no NVIDIA driver", "CUDA cannot be used")
