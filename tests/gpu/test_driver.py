"""The contract of `Driver`, which the driver of GPUs and the stand-in both keep."""

from __future__ import annotations

import re
import struct
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from dualgrad.runtime.driver import Driver, Memory
from dualgrad.runtime.errors import CompileError, DeviceError, OutOfMemory

TEXT = """
extern "C" __global__ void scale(float* x, long long n, double factor) {
  for (long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x; i < n;
       i += gridDim.x * (long long)blockDim.x)
    x[i] = x[i] * (float)factor;
}
extern "C" __global__ void reversed(const float* x, float* y) {
  __shared__ float s[64];
  s[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = s[63 - threadIdx.x];
}
extern "C" __global__ void arithmetic(const float* x, float* y) {
  const int i = threadIdx.x;
  y[4 * i] = x[3 * i] * x[3 * i + 1] + x[3 * i + 2];
  y[4 * i + 1] = x[3 * i] / x[3 * i + 1];
  y[4 * i + 2] = sqrtf(fabsf(x[3 * i]));
  y[4 * i + 3] = fmaf(x[3 * i], x[3 * i + 1], x[3 * i + 2]);
}
extern "C" __global__ void least(unsigned long long* word, const long long* x) {
  atomicMin(word, (unsigned long long)x[blockIdx.x * blockDim.x + threadIdx.x]);
}
"""


@pytest.fixture(scope="module")
def images() -> dict[str, bytes]:
    return {}


@pytest.fixture
def kernels(gpu: Driver, images: dict[str, bytes]) -> dict[str, object]:
    if not images:
        images["text"] = gpu.compile(TEXT)
    module = gpu.load(images["text"])
    names = ("scale", "reversed", "arithmetic", "least")
    return {name: gpu.function(module, name) for name in names}


def upload(gpu: Driver, x: np.ndarray) -> Memory:
    memory = gpu.allocate(x.nbytes)
    gpu.upload(memory.address, memoryview(x))
    return memory


def download(gpu: Driver, memory: Memory, dtype: object, count: int) -> np.ndarray:
    out = np.empty(count, dtype)
    gpu.download(memoryview(out), memory.address)
    return out


def pointers(*memories: Memory) -> bytes:
    return struct.pack(f"={len(memories)}Q", *(m.address for m in memories))


def test_who_it_is(gpu: Driver) -> None:
    info = gpu.info(0)
    assert gpu.device_count() >= 1
    assert re.fullmatch(r"sm_\d{2,3}", info.arch)
    assert info.multiprocessors >= 1
    assert info.name
    assert gpu.name
    assert gpu.target
    free, total = gpu.memory_info()
    assert 0 < free <= total
    assert total == pytest.approx(info.memory, rel=0.1)


@pytest.mark.parametrize("count", [0, 1, 7, 100_000])
def test_copies(gpu: Driver, count: int) -> None:
    x = np.random.default_rng(0).standard_normal(count)
    here = upload(gpu, x)
    there = gpu.allocate(x.nbytes)
    assert here.nbytes >= x.nbytes
    assert here.address % 512 == there.address % 512 == 0
    gpu.copy(there.address, here.address, x.nbytes)
    gpu.fill(here.address, 0x3F, x.nbytes)
    np.testing.assert_array_equal(download(gpu, there, np.float64, count), x)
    expected = np.frombuffer(b"\x3f" * x.nbytes, np.float64)
    np.testing.assert_array_equal(download(gpu, here, np.float64, count), expected)


@pytest.mark.parametrize("nbytes", [4096, 40 << 20])
def test_uploaded_data_may_change_at_once(gpu: Driver, nbytes: int) -> None:
    data = np.full(nbytes, 7, np.uint8)
    memory = upload(gpu, data)
    data[:] = 9
    assert (download(gpu, memory, np.uint8, nbytes) == 7).all()


def test_work_is_done_in_order(gpu: Driver, kernels: dict[str, object]) -> None:
    x = np.arange(1000, dtype=np.float32)
    memory = upload(gpu, x)
    for factor in (2.0, 3.0, 0.5):
        args = pointers(memory) + struct.pack("=qd", 1000, factor)
        gpu.launch(kernels["scale"], 3, 128, args)
    np.testing.assert_array_equal(download(gpu, memory, np.float32, 1000), 3 * x)


def test_arguments_may_change_after_the_launch(gpu: Driver, kernels: dict[str, object]) -> None:
    """Launches copy their arguments, however long the work waits."""
    memories = [upload(gpu, np.ones(4, np.float32)) for _ in range(50)]
    for k, memory in enumerate(memories):
        gpu.launch(kernels["scale"], 1, 32, pointers(memory) + struct.pack("=qd", 4, k))
    for k, memory in enumerate(memories):
        assert (download(gpu, memory, np.float32, 4) == k).all()


def test_memory_that_dies_may_be_used_by_later_work_only(
    gpu: Driver, kernels: dict[str, object]
) -> None:
    results = []
    for k in range(20):
        memory = upload(gpu, np.full(1000, k, np.float32))
        gpu.launch(kernels["scale"], 2, 256, pointers(memory) + struct.pack("=qd", 1000, 2.0))
        kept = gpu.allocate(4000)
        gpu.copy(kept.address, memory.address, 4000)
        results.append(kept)
        del memory
    for k, kept in enumerate(results):
        assert (download(gpu, kept, np.float32, 1000) == 2 * k).all()


def test_threads_of_the_host(gpu: Driver, kernels: dict[str, object]) -> None:
    """Each thread's work is done in its order."""
    memories = [upload(gpu, np.zeros(64, np.float32)) for _ in range(4)]

    def work(k: int) -> None:
        gpu.upload(memories[k].address, memoryview(np.full(64, k + 1, np.float32)))
        for _ in range(10):
            args = pointers(memories[k]) + struct.pack("=qd", 64, 2.0)
            gpu.launch(kernels["scale"], 1, 64, args)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    for k, memory in enumerate(memories):
        assert (download(gpu, memory, np.float32, 64) == 1024 * (k + 1)).all()


def test_threads_of_a_block_share_memory(gpu: Driver, kernels: dict[str, object]) -> None:
    x = np.arange(64, dtype=np.float32)
    source, target = upload(gpu, x), gpu.allocate(x.nbytes)
    gpu.launch(kernels["reversed"], 1, 64, pointers(source, target))
    np.testing.assert_array_equal(download(gpu, target, np.float32, 64), x[::-1])


def test_arithmetic_is_ieee(gpu: Driver, kernels: dict[str, object]) -> None:
    """Two roundings of a * b + c, subnormal numbers, exact division and root: NumPy's bits."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((256, 3)).astype(np.float32)
    x[:64] *= np.float32(1e-20)  # products and quotients beyond the normal numbers
    x[64:80, 0] = np.float32(1e-41)
    source, target = upload(gpu, x), gpu.allocate(16 * len(x))
    gpu.launch(kernels["arithmetic"], 1, len(x), pointers(source, target))
    found = download(gpu, target, np.float32, 4 * len(x)).reshape(-1, 4)
    a, b, c = x.T
    with np.errstate(all="ignore"):
        expected = [a * b + c, a / b, np.sqrt(np.abs(a))]
    for k, numbers in enumerate(expected):
        np.testing.assert_array_equal(found[:, k].view(np.uint32), numbers.view(np.uint32))
    # the product of two float32 is exact in float64, so one rounding is left but for the last bit
    exact = a.astype(np.float64) * b + c
    np.testing.assert_allclose(found[:, 3], exact, rtol=2**-23, atol=2**-149)
    assert (found[:, 3] != found[:, 0]).any()


def test_atomic_minimum(gpu: Driver, kernels: dict[str, object]) -> None:
    x = np.random.default_rng(2).permutation(1024) + 5
    word, numbers = gpu.allocate(8), upload(gpu, x)
    gpu.fill(word.address, 0xFF, 8)
    gpu.launch(kernels["least"], 4, 256, pointers(word, numbers))
    assert download(gpu, word, np.uint64, 1)[0] == 5


def test_graphs(gpu: Driver, kernels: dict[str, object]) -> None:
    x = np.arange(100, dtype=np.float32)
    memory = upload(gpu, x)
    with gpu.capture() as graph:
        between = gpu.allocate(400)
        gpu.copy(between.address, memory.address, 400)
        gpu.launch(kernels["scale"], 1, 128, pointers(between) + struct.pack("=qd", 100, 2.0))
        gpu.copy(memory.address, between.address, 400)
        del between  # the graph keeps it
    others = [upload(gpu, np.zeros(100, np.float32)) for _ in range(5)]
    np.testing.assert_array_equal(download(gpu, memory, np.float32, 100), x)  # only recorded
    for _ in range(3):
        gpu.replay(graph)
    np.testing.assert_array_equal(download(gpu, memory, np.float32, 100), 8 * x)
    gpu.upload(memory.address, memoryview(np.ones(100, np.float32)))
    gpu.replay(graph)
    assert (download(gpu, memory, np.float32, 100) == 2).all()
    for other in others:
        assert not download(gpu, other, np.float32, 100).any()


def test_graphs_refuse_what_cannot_be_recorded(gpu: Driver) -> None:
    memory = gpu.allocate(8)
    with gpu.capture() as graph:
        for refused in (
            lambda: gpu.upload(memory.address, memoryview(b"12345678")),
            lambda: gpu.download(memoryview(bytearray(8)), memory.address),
            gpu.synchronize,
            lambda: gpu.capture().__enter__(),
            lambda: gpu.replay(graph),
        ):
            with pytest.raises(DeviceError, match="while a graph is captured"):
                refused()
    gpu.replay(graph)
    gpu.synchronize()


def test_captures_that_fail_leave_nothing(gpu: Driver) -> None:
    class Wrong(Exception):
        pass

    memory = upload(gpu, np.zeros(8, np.uint8))

    def fail() -> None:
        gpu.fill(memory.address, 1, 8)
        raise Wrong

    with pytest.raises(Wrong), gpu.capture() as graph:
        fail()
    assert not download(gpu, memory, np.uint8, 8).any()
    with pytest.raises(DeviceError):
        gpu.replay(graph)


def test_events(gpu: Driver, kernels: dict[str, object]) -> None:
    start, end = gpu.event(), gpu.event()
    memory = upload(gpu, np.ones(100_000, np.float32))
    gpu.record(start)
    gpu.launch(kernels["scale"], 8, 256, pointers(memory) + struct.pack("=qd", 100_000, 2.0))
    gpu.record(end)
    assert gpu.elapsed(start, end) > 0


def test_too_much_memory(gpu: Driver) -> None:
    free = gpu.memory_info()[0]
    with pytest.raises(OutOfMemory) as caught:
        gpu.allocate(gpu.info(0).memory + (1 << 30))
    assert "bytes" in str(caught.value)
    assert gpu.memory_info()[0] >= free - (1 << 20)
    gpu.allocate(1 << 20)


def test_texts_that_do_not_compile(gpu: Driver) -> None:
    with pytest.raises(CompileError) as caught:
        gpu.compile('extern "C" __global__ void k(float* x) { x[0] = nothing; }')
    assert "nothing" in caught.value.actual


def test_kernels_that_are_not_there(gpu: Driver, images: dict[str, bytes]) -> None:
    image = images.get("text") or gpu.compile(TEXT)
    with pytest.raises(DeviceError):
        gpu.function(gpu.load(image), "unknown")
