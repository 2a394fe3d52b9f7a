"""The stand-in keeps the contract of `Driver`, and finds what breaks it."""

from __future__ import annotations

import ctypes
import gc
import struct
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from dualgrad.runtime.driver import Driver, Memory
from dualgrad.runtime.errors import CompileError, DeviceError, OutOfMemory
from gpu import known_kernels, shim
from gpu.standin import ALIGNMENT, Function, Standin

if (reason := shim.available()) is not None:
    pytest.skip(reason, allow_module_level=True)

Array = npt.NDArray[Any]
Argument = int | float

# What kernels do with the memory they are given.
PROBES = """\
extern "C" __global__ void copy(const float* x, float* y, long long n) {
  for (int i = threadIdx.x; i < n; i += blockDim.x) y[i] = x[i];
}
extern "C" __global__ void put(int* y, long long at, long long value) { y[at] = (int)value; }
extern "C" __global__ void add(double* y, long long n, double s) {
  for (int i = threadIdx.x; i < n; i += blockDim.x) y[i] += s;
}
extern "C" __global__ void hang() { if (threadIdx.x) __syncwarp(2); else __syncwarp(3); }
"""


@pytest.fixture
def device() -> Standin:
    return Standin()


def pack(*arguments: Argument) -> bytes:
    """8 bytes per argument."""
    return b"".join(struct.pack("<d" if isinstance(a, float) else "<q", a) for a in arguments)


def kernel(device: Driver, name: str, text: str = PROBES) -> Function:
    found: Function = device.function(device.load(device.compile(text)), name)
    return found


def run(device: Driver, name: str, *arguments: Argument, threads: int = 32) -> None:
    device.launch(kernel(device, name), 1, threads, pack(*arguments))


def sent(device: Driver, array: Array) -> Memory:
    memory = device.allocate(array.nbytes)
    device.upload(memory.address, memoryview(array).cast("B"))
    return memory


def fetched(device: Driver, memory: Memory, dtype: str = "f4", offset: int = 0) -> Array:
    out = np.zeros((memory.nbytes - offset) // np.dtype(dtype).itemsize, dtype)
    device.download(memoryview(out).cast("B"), memory.address + offset)
    return out


# ---- the contract --------------------------------------------------------------------------------


def test_a_driver() -> None:
    driver: Driver = Standin(memory=4096, multiprocessors=3)
    info = driver.info(0)
    assert (driver.device_count(), info.multiprocessors, info.memory) == (1, 3, 4096)
    assert info.arch.startswith("sm_")
    assert driver.name
    assert driver.target == Standin().target


def test_copies_of_every_kind(device: Standin) -> None:
    host = np.arange(10, dtype="f4")
    memory = sent(device, host)
    host[:] = -1  # may be changed on return
    other = device.allocate(40)
    device.copy(other.address, memory.address, 40)
    device.fill(other.address + 4, 0, 8)
    assert fetched(device, memory).tolist() == list(range(10))
    assert fetched(device, other).tolist() == [0, 0, 0, 3, 4, 5, 6, 7, 8, 9]
    assert fetched(device, other, offset=32).tolist() == [8, 9]
    device.upload(0, memoryview(b""))
    device.download(memoryview(b""), 0)


def test_a_kernel(device: Standin) -> None:
    x = sent(device, np.arange(100, dtype="f4"))
    y = device.allocate(400)
    scale = kernel(device, "scale", known_kernels.SCALE)
    device.launch(scale, 2, 64, pack(x.address, y.address, 100, 3.0))
    assert np.array_equal(fetched(device, y), np.arange(100, dtype="f4") * 3)
    assert device.launches == 1


def test_kernels_run_when_somebody_waits(device: Standin) -> None:
    y = sent(device, np.zeros(4, "i4"))
    device.synchronize()
    seen = np.ctypeslib.as_array((ctypes.c_int * 4).from_address(y.address))
    run(device, "put", y.address, 1, 7)
    assert seen.tolist() == [0, 0, 0, 0]
    device.synchronize()
    assert seen.tolist() == [0, 7, 0, 0]


def test_work_that_nobody_waits_for_is_done_in_the_end(device: Standin) -> None:
    y, add = sent(device, np.zeros(1)), kernel(device, "add")
    for _ in range(3000):
        device.launch(add, 1, 1, pack(y.address, 1, 1.0))
    assert len(device._waiting) <= 1000
    assert fetched(device, y, "f8").tolist() == [3000]


def test_events_order_time(device: Standin) -> None:
    before, after, never = device.event(), device.event(), device.event()
    y = device.allocate(4)
    device.record(before)
    run(device, "put", y.address, 0, 0)
    device.record(after)
    assert device.elapsed(before, after) > 0
    with pytest.raises(DeviceError, match="an event was not recorded"):
        device.elapsed(before, never)


def test_other_launches_run_in_other_orders() -> None:
    """The last thread to write differs from launch to launch, but not from device to device."""
    text = 'extern "C" __global__ void last(int* y, long long at) { y[at] = threadIdx.x; }'

    def winners(seed: int) -> list[int]:
        device = Standin(seed=seed)
        y, last = device.allocate(80), kernel(device, "last", text)
        for at in range(20):
            device.launch(last, 1, 256, pack(y.address, at))
        found: list[int] = fetched(device, y, "i4").tolist()
        return found

    assert winners(0) == winners(0) != winners(1)
    assert len(set(winners(0))) > 10


# ---- memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize("nbytes", [0, 1, 4, 511, 512, 5000])
def test_memory_is_aligned_and_starts_as_nan(device: Standin, nbytes: int) -> None:
    memories = [device.allocate(nbytes) for _ in range(3)]
    assert all(m.address % ALIGNMENT == 0 and m.nbytes == nbytes for m in memories)
    assert len({m.address for m in memories}) == 3
    assert all(np.all(fetched(device, m, "u1") == 255) for m in memories)
    assert np.isnan(fetched(device, memories[0], "f2")).all()


def test_freed_memory_is_used_again_at_once(device: Standin) -> None:
    first = sent(device, np.ones(100, "f4"))
    address = first.address
    del first
    second = device.allocate(396)
    assert second.address == address
    assert np.isnan(fetched(device, second)).all()


def test_earlier_work_still_sees_freed_memory(device: Standin) -> None:
    x, y = sent(device, np.ones(100, "f4")), device.allocate(400)
    run(device, "copy", x.address, y.address, 100)
    address = x.address
    del x
    other = sent(device, np.zeros(100, "f4"))
    assert other.address == address
    assert np.all(fetched(device, y) == 1)


def test_statistics_of_memory(device: Standin) -> None:
    free, total = device.memory_info()
    assert free == total
    a, b = device.allocate(1000), device.allocate(3)
    assert device.pool.live_bytes == 1003
    assert device.memory_info() == (total - 1003, total)
    del a
    assert (device.pool.live_bytes, device.pool.peak_bytes) == (3, 1003)
    del b
    assert device.pool.live_bytes == 0


def test_memory_has_a_limit() -> None:
    device = Standin(memory=1000)
    kept = device.allocate(600)
    with pytest.raises(OutOfMemory, match="no memory for 401 bytes") as caught:
        device.allocate(401)
    assert "600 of 1000 bytes" in caught.value.actual
    del kept
    device.allocate(1000)


def test_freed_memory_does_not_pile_up(device: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpu.standin.KEPT", 100_000)
    kept = device.allocate(100)
    for nbytes in range(1000, 60_000, 1000):
        device.allocate(nbytes)
        assert device.pool.free_bytes <= 160_000
    device.fill(kept.address, 0, 100)
    device.synchronize()


# ---- addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize("reuse", [False, True], ids=["gone", "freed"])
def test_freed_memory_is_refused(device: Standin, reuse: bool) -> None:
    x, y = device.allocate(400), device.allocate(400)
    address = x.address
    del x
    if not reuse:
        device.pool.trim()
    with pytest.raises(DeviceError, match="in no live memory") as caught:
        run(device, "copy", y.address, address, 100)
    assert caught.value.op == "copy, parameter y"
    assert ("which was freed" in caught.value.actual) == reuse


def test_memory_of_the_host_is_refused(device: Standin) -> None:
    host, y = np.zeros(100, "f4"), device.allocate(400)
    with pytest.raises(DeviceError, match="in no live memory") as caught:
        run(device, "copy", host.ctypes.data, y.address, 100)
    assert caught.value.op == "copy, parameter x"
    for use in (
        lambda: device.copy(y.address, host.ctypes.data, 400),
        lambda: device.fill(host.ctypes.data, 0, 400),
        lambda: device.upload(host.ctypes.data, memoryview(b"1234")),
        lambda: device.download(memoryview(bytearray(4)), host.ctypes.data),
    ):
        with pytest.raises(DeviceError, match="in no live memory"):
            use()


@pytest.mark.parametrize("address", [0, 1, 2**47, 2**64 - 1])
def test_numbers_are_no_addresses(device: Standin, address: int) -> None:
    y = device.allocate(4)
    args = struct.pack("<QQq", y.address, address // 4 * 4, 0)
    with pytest.raises(DeviceError, match="in no live memory"):
        device.launch(kernel(device, "copy"), 1, 1, args)


def test_addresses_are_no_numbers(device: Standin) -> None:
    y = device.allocate(8)
    with pytest.raises(DeviceError, match="a number is an address") as caught:
        run(device, "put", y.address, y.address, 0)
    assert caught.value.op == "put, parameter at"
    with pytest.raises(DeviceError, match="a number is an address") as caught:
        run(device, "add", y.address, 0, y.address)
    assert caught.value.op == "add, parameter s"


def test_addresses_are_aligned(device: Standin) -> None:
    y = device.allocate(64)
    run(device, "add", y.address + 8, 1, 1.0)
    with pytest.raises(DeviceError, match="misaligned address") as caught:
        run(device, "add", y.address + 4, 1, 1.0)
    assert caught.value.op == "add, parameter y"
    assert caught.value.expect == "a multiple of 8"


def test_arguments_are_counted(device: Standin) -> None:
    with pytest.raises(DeviceError, match="a launch is refused") as caught:
        run(device, "put", device.allocate(4).address, 0)
    assert "put: 16 bytes of arguments, not 24" in caught.value.actual


@pytest.mark.parametrize(("blocks", "threads"), [(0, 1), (1, 0), (1, 1025), (2**31, 1)])
def test_limits_of_a_launch(device: Standin, blocks: int, threads: int) -> None:
    y = device.allocate(4)
    with pytest.raises(DeviceError, match="a launch is refused"):
        device.launch(kernel(device, "put"), blocks, threads, pack(y.address, 0, 0))


def test_ranges_stay_in_their_memory(device: Standin) -> None:
    x, y = device.allocate(100), device.allocate(100)
    for use in (
        lambda: device.copy(y.address, x.address + 1, 100),
        lambda: device.copy(y.address + 1, x.address, 100),
        lambda: device.fill(x.address, 0, 101),
        lambda: device.upload(x.address + 97, memoryview(b"1234")),
        lambda: device.download(memoryview(bytearray(4)), x.address + 97),
    ):
        with pytest.raises(DeviceError, match="a range leaves its memory"):
            use()
    with pytest.raises(DeviceError, match="a copy overlaps itself"):
        device.copy(x.address + 10, x.address, 20)


@pytest.mark.parametrize(("at", "byte"), [(-1, -4), (-64, -256), (3, 12), (66, 264)])
def test_writes_around_memory_are_found(device: Standin, at: int, byte: int) -> None:
    y = device.allocate(12)
    run(device, "put", y.address, at, 1)
    with pytest.raises(DeviceError, match="outside of an allocation") as caught:
        device.synchronize()
    assert caught.value.actual == f"byte {byte} of 12 bytes has changed"
    run(device, "put", y.address, 2, 1)
    device.synchronize()


def test_writes_around_memory_that_is_freed_before_they_happen(device: Standin) -> None:
    y = device.allocate(12)
    run(device, "put", y.address, 3, 1)
    del y
    device.allocate(8)
    with pytest.raises(DeviceError, match="byte 12 of 12 bytes has changed"):
        device.synchronize()


def test_reads_around_memory_give_nan(device: Standin) -> None:
    x, y = sent(device, np.zeros(3, "f4")), device.allocate(16)
    run(device, "copy", x.address, y.address, 4)
    assert np.isnan(fetched(device, y)).tolist() == [False, False, False, True]


# ---- kernels -------------------------------------------------------------------------------------


def test_texts_that_do_not_compile(device: Standin) -> None:
    with pytest.raises(CompileError, match=r"kernels\.cu:1.*nothing"):
        device.compile('extern "C" __global__ void f(int* y) { *y = nothing; }')


def test_kernels_that_are_not_there(device: Standin) -> None:
    with pytest.raises(DeviceError, match="no kernel 'shuffle'"):
        kernel(device, "shuffle")


def test_kernels_that_fail(device: Standin) -> None:
    run(device, "hang", threads=2)
    with pytest.raises(DeviceError, match="a kernel fails") as caught:
        device.synchronize()
    assert "hang, line 8" in caught.value.actual
    device.synchronize()


# ---- graphs --------------------------------------------------------------------------------------


def test_a_graph_runs_when_it_is_replayed(device: Standin) -> None:
    y = sent(device, np.zeros(2))
    with device.capture() as graph:
        run(device, "add", y.address, 2, 1.0)
        device.fill(y.address + 8, 0, 8)
    assert fetched(device, y, "f8").tolist() == [0, 0]
    for count in (1, 2):
        device.replay(graph)
        device.replay(graph)
        assert fetched(device, y, "f8").tolist() == [2 * count, 0]


def test_a_graph_keeps_the_memory_it_allocates(device: Standin) -> None:
    x, y = sent(device, np.ones(4, "f4")), device.allocate(16)
    with device.capture() as graph:
        between = device.allocate(16)
        run(device, "copy", x.address, between.address, 4)
        run(device, "copy", between.address, y.address, 4)
        address = between.address
        del between
    assert device.allocate(16).address != address
    device.replay(graph)
    assert np.all(fetched(device, y) == 1)
    with pytest.raises(DeviceError, match="in no live memory"):
        run(device, "copy", x.address, address, 4)
    del graph
    gc.collect()
    assert device.allocate(16).address == address


def test_a_graph_does_not_keep_other_memory(device: Standin) -> None:
    x, y = sent(device, np.ones(4, "f4")), device.allocate(16)
    with device.capture() as graph:
        run(device, "copy", x.address, y.address, 4)
    del x
    with pytest.raises(DeviceError, match="in no live memory") as caught:
        device.replay(graph)
    assert caught.value.op == "copy, parameter x"


def test_waiting_is_refused_in_a_capture(device: Standin) -> None:
    memory, event = sent(device, np.zeros(4, "f4")), device.event()
    for use in (
        device.synchronize,
        lambda: fetched(device, memory),
        lambda: sent(device, np.zeros(4, "f4")),
        lambda: device.elapsed(event, event),
        lambda: device.capture().__enter__(),
    ):
        with device.capture(), pytest.raises(DeviceError, match="while a graph is captured"):
            use()


def test_a_capture_that_fails_records_nothing(device: Standin) -> None:
    y = sent(device, np.zeros(1))

    def failing() -> Any:
        with suppress(ZeroDivisionError), device.capture() as graph:
            run(device, "add", y.address, 1, 1.0)
            _ = 1 / 0
        return graph

    graph = failing()
    with pytest.raises(DeviceError, match="was not completed"):
        device.replay(graph)
    run(device, "add", y.address, 1, 5.0)
    assert fetched(device, y, "f8").tolist() == [5]


def test_a_replay_outlives_its_graph(device: Standin) -> None:
    y = sent(device, np.zeros(1))
    with device.capture() as graph:
        scratch = device.allocate(8)
        device.fill(scratch.address, 0, 8)
        device.copy(y.address, scratch.address, 8)
    device.replay(graph)
    del graph, scratch
    gc.collect()
    other = sent(device, np.ones(1))
    assert fetched(device, y, "f8").tolist() == [0]
    assert fetched(device, other, "f8").tolist() == [1]
