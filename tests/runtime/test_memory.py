"""The buffer pool."""

import ctypes
import gc
import itertools
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import numpy as np
import pytest

from dualgrad.runtime import blocks, memory
from dualgrad.runtime.dtype import ALL, float32, float64, int8
from dualgrad.runtime.errors import ArgumentError, CompileError, OutOfMemory
from dualgrad.runtime.memory import check_guards, empty, guarded, reset_peak, scratch, stats
from dualgrad.runtime.native import library, pool

library.load()  # as the first op does
SIZES = [0, 1, 63, 64, 65, 1023, 1024, 1025, 1153, 4096, 65535, 65536, 65537, 300_001, 3_000_000]


@pytest.mark.parametrize("nbytes", SIZES)
def test_buffers_are_aligned_and_writable(nbytes):
    array = empty((nbytes,), int8)
    assert array.ctypes.data % 64 == 0
    assert array.nbytes == nbytes
    array[...] = 7
    assert (array == 7).all()


@pytest.mark.parametrize("dtype", ALL, ids=str)
@pytest.mark.parametrize("shape", [(), (3,), (2, 0, 5), (4, 1, 3), (70, 80)])
def test_shape_dtype_and_order(shape, dtype):
    array = empty(shape, dtype)
    assert array.shape == shape
    assert array.dtype == dtype.numpy
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert array.ctypes.data % 64 == 0


def test_size_classes_waste_little():
    for nbytes in range(1025, 300_000, 997):
        block = scratch(nbytes)
        assert nbytes <= block.nbytes <= nbytes * 1.125 + 64


@pytest.mark.parametrize("nbytes", [16, 5000, 1 << 20])
def test_memory_is_reused(nbytes):
    array = empty((nbytes,), int8)
    address = array.ctypes.data
    del array
    assert empty((nbytes,), int8).ctypes.data == address


@pytest.mark.parametrize("nbytes", [16, 5000, 1 << 20])
def test_views_keep_the_memory(nbytes):
    array = empty((nbytes,), int8)
    array[...] = 1
    view = array[3:].reshape(1, -1)[:, ::2]
    address = array.ctypes.data
    del array
    others = [empty((nbytes,), int8) for _ in range(3)]
    for other in others:
        other[...] = 2
    assert address not in [other.ctypes.data for other in others]
    assert (view == 1).all()
    del view
    assert empty((nbytes,), int8).ctypes.data == address


def test_live_buffers_do_not_overlap():
    rng = np.random.default_rng(0)
    arrays = [empty((int(n),), int8) for n in rng.integers(0, 200_000, 300)]
    spans = sorted((a.ctypes.data, a.ctypes.data + max(a.nbytes, 1)) for a in arrays)
    assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(spans))


def test_scratch_block():
    block = scratch(1000)
    assert block.address % 64 == 0
    assert block.nbytes >= 1000
    ctypes.memset(block.address, 1, block.nbytes)
    address = block.address
    del block
    assert scratch(1000).address == address


def test_negative_sizes_are_refused():
    with pytest.raises(ArgumentError, match="negative"):
        scratch(-1)
    with pytest.raises(ArgumentError, match="negative"):
        empty((-5000, 3), int8)


def test_statistics_follow_live_memory():
    gc.collect()
    reset_peak()
    before = stats()
    small, large = empty((64,), int8), empty((1 << 20,), int8)
    held = stats()
    assert held.live_bytes - before.live_bytes == 64 + (1 << 20)
    assert held.allocations - before.allocations == 2
    assert held.peak_bytes == held.live_bytes
    del small, large
    after = stats()
    assert after.live_bytes == before.live_bytes
    assert after.peak_bytes == held.peak_bytes
    assert after.pooled_bytes >= 64 + (1 << 20)
    reset_peak()
    assert stats().peak_bytes == before.live_bytes


@pytest.mark.parametrize("shape", [(1 << 46,), (1 << 75,), (1 << 40, 1 << 40)])
def test_out_of_memory_says_how_much(shape):
    gc.collect()
    held = empty((1000,), float64)
    before = stats()
    with pytest.raises(OutOfMemory, match="no more memory") as caught:
        empty(shape, float64)
    assert f"{before.live_bytes} bytes live" in caught.value.actual
    assert stats() == before or stats().pooled_bytes < before.pooled_bytes
    held[...] = 1  # the pool works on
    assert empty((1000,), float64).ctypes.data != held.ctypes.data


@pytest.fixture
def kept_bytes():
    """Sets how many bytes of free mappings the pool keeps; says how many it has."""
    memory.release()
    native = library.load()
    before = pool.cap.word if native else blocks._mappings.cap

    def cap(nbytes):
        if native:
            pool.cap.word = nbytes
        else:
            blocks._mappings.cap = nbytes

    yield cap, lambda: pool.cached.word if native else blocks._mappings.cached
    cap(before)
    memory.release()


def test_free_memory_is_kept_up_to_the_cap_only(kept_bytes):
    cap, cached = kept_bytes
    cap(1 << 20)
    kept = [scratch(400_000) for _ in range(5)]
    before = stats().live_bytes
    kept.pop()
    size = before - stats().live_bytes
    del kept
    assert 0 < cached() <= 1 << 20
    assert cached() % size == 0
    too_large = scratch(5 << 20)
    pooled = stats().pooled_bytes
    del too_large
    assert stats().pooled_bytes <= pooled


def is_mapped(address):
    """Whether an address belongs to the process."""
    text = Path("/proc/self/maps").read_text()
    spans = [line.split()[0].split("-") for line in text.splitlines()]
    return any(int(low, 16) <= address < int(high, 16) for low, high in spans)


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="needs /proc")
def test_released_memory_goes_back_to_the_system(kept_bytes):
    _, cached = kept_bytes
    block = scratch(64 << 20)
    ctypes.memset(block.address, 1, block.nbytes)
    middle = block.address + block.nbytes // 2
    del block
    assert cached() >= 64 << 20
    assert is_mapped(middle)
    memory.release()
    assert cached() == 0
    assert not is_mapped(middle)


def test_threads_do_not_share_buffers():
    failures = []

    def work(seed):
        rng = np.random.default_rng(seed)
        mine = []
        for step in range(2000):
            array = empty((int(rng.integers(1, 3000)),), int8)
            array[...] = seed
            mine.append(array)
            if step % 3:
                old = mine.pop(int(rng.integers(len(mine))))
                if not (old == seed).all():
                    failures.append(seed)

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(1, 5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failures


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_its_own_memory():
    program = """
        import os
        from dualgrad.runtime.dtype import int8
        from dualgrad.runtime.memory import empty
        arrays = [empty((n,), int8) for n in (10, 5000, 1 << 20)]
        for array in arrays:
            array[...] = 1
        child = os.fork()
        if child == 0:
            for array in arrays:
                array[...] = 2
            empty((100,), int8)[...] = 3
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert all((array == 1).all() for array in arrays)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stderr


def test_buffers_alive_at_exit_die_in_silence(tmp_path):
    program = """
        import builtins, sys
        from dualgrad.runtime.dtype import int8
        from dualgrad.runtime.memory import empty
        class Late:
            def __init__(self): self.arrays = [empty((n,), int8) for n in (10, 5000, 1 << 20)]
            def __del__(self): self.arrays.clear()
        builtins.late = Late()
        sys.kept = [empty((n,), int8) for n in (10, 5000, 1 << 20)]
        kept = Late()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_guarded_buffers_are_poisoned_and_aligned():
    with guarded():
        for dtype in (float32, float64):
            array = empty((5, 3), dtype)
            assert np.isnan(array).all()
            assert array.ctypes.data % 64 == 0
        assert (empty((9,), int8).view(np.uint8) == 0xFF).all()
        assert empty((0, 4), float32).shape == (0, 4)
        array[...] = 1
        check_guards()


@pytest.mark.parametrize("offset", [-256, -1, 12, 13, 12 + 255])
def test_a_write_outside_is_found_when_the_buffer_dies(offset):
    array = empty((3,), float32)
    with pytest.raises(CompileError, match="outside of a buffer") as caught, guarded():  # noqa: PT012
        array = empty((3,), float32)
        ctypes.memset(array.ctypes.data + offset, 0, 1)
        del array
    assert caught.value.actual == f"1 bytes changed, the first at {offset}"
    assert "test_memory.py" in caught.value.expect


def test_a_write_outside_of_a_live_buffer_is_found_on_request():
    with guarded():
        block = scratch(100)
        ctypes.memset(block.address + 100, 0, 4)
        with pytest.raises(CompileError, match="outside of a buffer"):
            check_guards()
        check_guards()  # reported once


def test_a_write_outside_of_a_live_buffer_is_found_at_the_end_of_the_scope():
    kept = []

    def scope():
        with guarded():
            kept.append(empty((3,), float32))
            ctypes.memset(kept[0].ctypes.data - 8, 0, 8)

    with pytest.raises(CompileError, match="outside of a buffer"):
        scope()


def test_guards_do_not_hide_another_error():
    def scope():
        with guarded():
            array = empty((3,), float32)
            ctypes.memset(array.ctypes.data - 8, 0, 8)
            raise KeyError

    with pytest.raises(KeyError):
        scope()
    check_guards()


def test_guarded_scope_ends():
    with guarded():
        pass
    array = empty((4,), int8)
    array[...] = 3
    address = array.ctypes.data
    del array
    again = empty((4,), int8)
    assert again.ctypes.data == address
    assert (again == 3).all()
