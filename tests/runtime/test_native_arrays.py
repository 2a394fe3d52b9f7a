"""Arrays that own memory of the native pool: who owns what, and that nothing is left behind."""

from __future__ import annotations

import ctypes
import gc
import itertools
import os
import pickle
import resource
import subprocess
import sys
import textwrap
import threading
import weakref

import numpy as np
import pytest

from dualgrad.runtime import memory
from dualgrad.runtime.dtype import ALL, float32, float64, int8
from dualgrad.runtime.errors import OutOfMemory
from dualgrad.runtime.memory import empty, guarded, stats
from dualgrad.runtime.native import arrays, layout, library, pool

pytestmark = pytest.mark.skipif(not library.load(), reason="native entries are off here")
handler_name = np._core.multiarray.get_handler_name


def live() -> int:
    return stats().live_bytes


@pytest.fixture(autouse=True)
def no_garbage():
    gc.collect()


# -- ownership ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_an_array_owns_its_block(dtype):
    before = live()
    array = empty((5, 3), dtype)
    assert handler_name(array) == "dualgrad"
    assert array.base is None
    assert array.flags.owndata
    assert memory.is_pooled(array)
    assert live() == before + max(64, -(-15 * dtype.itemsize // 64) * 64)
    del array
    assert live() == before


def test_arrays_of_others_are_not_pooled():
    assert handler_name(np.zeros(3)) == "default_allocator"
    assert not memory.is_pooled(np.zeros(3))
    assert not memory.is_pooled(empty((3,), int8)[1:])


def test_references_are_counted_right():
    dtype, capsule = np.dtype([("own", "f8")]), handler_of(empty((1,), int8))
    before = sys.getrefcount(dtype), sys.getrefcount(capsule)
    kept = [arrays.on_pool((2, 2), dtype, 32) for _ in range(1000)]
    count = sys.getrefcount(kept[0])
    assert count == 2
    assert sys.getrefcount(capsule) == before[1] + 1000
    assert sys.getrefcount(dtype) == before[0] + 1000
    del kept
    assert (sys.getrefcount(dtype), sys.getrefcount(capsule)) == before


def handler_of(array):
    at = id(array) + layout.ARRAY_HANDLER
    return ctypes.cast(ctypes.c_void_p.from_address(at).value, ctypes.py_object).value


def test_views_keep_the_owner():
    before = live()
    array = empty((10, 10), float32)
    array[...] = 4
    gone = weakref.ref(array)
    view = array.T[2:].reshape(-1)[::3].view(np.int32)[3:]
    shown = memoryview(array)
    del array
    assert gone() is not None
    del view
    assert live() > before
    assert shown[9, 9] == 4
    del shown
    assert gone() is None
    assert live() == before


def test_nothing_is_left_behind():
    def work():
        for n in (0, 1, 100, 5000, 70_000):
            a = empty((n, 3), float32)
            a[...] = 1
            b = a + a  # NumPy's own memory
            assert b.sum() == n * 6
            a.resize((n + 7, 3), refcheck=False)
            pickle.loads(pickle.dumps(a[:5]))

    work()
    before = stats()
    for _ in range(50):
        work()
    after = stats()
    assert after.live_bytes == before.live_bytes
    assert after.pooled_bytes == before.pooled_bytes


# -- what NumPy does with the memory --------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(4, 5), (10, 1000), (10, 100_000), (100_000, 300_000), (9, 0)])
def test_numpy_resizes_in_place(sizes):
    before = live()
    first, then = sizes
    array = empty((first,), float64)
    array[...] = np.arange(first)
    array.resize(then)
    kept = min(first, then)
    np.testing.assert_array_equal(array[:kept], np.arange(kept))
    assert not array[kept:].any()
    assert array.ctypes.data % 64 == 0
    assert handler_name(array) == "dualgrad"
    array[...] = 1
    del array
    assert live() == before


def test_the_handler_serves_all_of_numpy():
    """NEP 49: as the handler of a thread, for every array that NumPy makes."""
    set_handler = ctypes.cast(numpy_function(304), ctypes.c_void_p).value
    change = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(set_handler)
    before = live()
    old = change(handler_of(empty((1,), int8)))
    try:
        x = np.zeros((300, 7), np.int32)
        y = np.arange(5000.0)
        z = np.concatenate([y, y])
    finally:
        change(old)
    assert {handler_name(a) for a in (x, y, z)} == {"dualgrad"}
    assert not x.any()
    np.testing.assert_array_equal(z[5000:], y)
    assert live() > before
    del x, y, z
    assert live() == before


def numpy_function(number):
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    table = get(layout.NUMPY_API, None)
    return (ctypes.c_void_p * (number + 1)).from_address(table)[number]


@pytest.mark.parametrize("call", ["malloc", "calloc", "realloc"])
def test_sizes_that_no_memory_has(call):
    handler = {"malloc": (-1,), "calloc": (1 << 40, 1 << 40), "realloc": (0, 1 << 60)}[call]
    assert getattr(arrays, f"_{call}")(0, *handler) == 0


# -- arguments ------------------------------------------------------------------------------------


def test_shapes_that_are_not_ordinary():
    assert empty((np.int64(3), True), float32).shape == (3, 1)
    assert empty([2, 3], float32).shape == (2, 3)
    assert empty((1,) * 64, float32).ndim == 64
    for wrong in [(1.5,), ("3",), (None,), 7]:
        with pytest.raises(TypeError):
            empty(wrong, float32)
    with pytest.raises(ValueError, match="64"):
        empty((1,) * 65, float32)
    with pytest.raises(TypeError):
        empty((3,))


def test_huge_products_are_no_small_arrays():
    for shape in [(1 << 32, 1 << 32), (1 << 31, 1 << 31, 4), (3, 1 << 62), (1 << 64,)]:
        with pytest.raises(OutOfMemory, match="no more memory"):
            empty(shape, float32)
    assert empty((0, 1 << 31), float32).size == 0


def test_guards_see_every_array():
    record = (ctypes.c_int64 * 4)(12, id(float32.numpy), 1, 3)
    make = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_int64)(arrays.new_array.address)
    with guarded():
        array = make(ctypes.addressof(record))
        assert np.isnan(array).all()
        assert not memory.is_pooled(array)
    assert memory.is_pooled(make(ctypes.addressof(record)))


# -- the pool -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_blocks_do_not_overlap(seed):
    """Random sizes taken, given back, made larger; every block keeps what was written to it."""
    rng = np.random.default_rng(seed)
    before = live()
    mine: dict[int, tuple[int, int]] = {}
    for step in range(3000):
        if mine and rng.random() < 0.5:
            address = list(mine)[int(rng.integers(len(mine)))]
            size, mark = mine.pop(address)
            check(address, size, mark)
            if rng.random() < 0.3:
                grown = int(size * rng.uniform(0.5, 3)) + 1
                address = arrays._realloc(0, address, grown)
                check(address, min(size, grown), mark)
                fill(address, grown, mark)
                mine[address] = (grown, mark)
            else:
                pool.give(address)
        else:
            size = int(2 ** rng.uniform(0, 19))
            address = pool.take(size)
            assert address % 64 == 0
            assert address not in mine
            fill(address, size, step % 251)
            mine[address] = (size, step % 251)
    spans = sorted((a, a + size) for a, (size, _) in mine.items())
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    for address, (size, mark) in mine.items():
        check(address, size, mark)
        pool.give(address)
    assert live() == before


def fill(address, size, mark):
    ctypes.memset(address, mark, size)


def check(address, size, mark):
    found = np.ctypeslib.as_array((ctypes.c_ubyte * size).from_address(address))
    assert (found == mark).all()


def test_threads_make_and_drop_arrays_of_each_other():
    shared: list[np.ndarray] = []
    wrong = []

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(3000):
            array = empty((int(rng.integers(1, 2000)),), int8)
            array[...] = len(array) % 100
            shared.append(array)
            if len(shared) > 50:
                old = shared.pop(0)
                if not (old == len(old) % 100).all():
                    wrong.append(len(old))

    before = live()
    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
    shared.clear()
    assert live() == before


@pytest.mark.skipif(sys.platform != "linux", reason="page faults are counted on Linux")
@pytest.mark.parametrize("nbytes", [200 << 10, 4 << 20, 60 << 20])
def test_memory_that_is_used_again_brings_no_page_faults(nbytes):
    def work():
        array = empty((nbytes,), int8)
        ctypes.memset(array.ctypes.data, 1, nbytes)

    work()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        work()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert faults < 10 * nbytes / 4096 / 20


def run(program, **more):
    text = textwrap.dedent(program)
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", text],
        capture_output=True, text=True, check=False, cwd="/", **more,
    )  # fmt: skip


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_its_own_memory():
    done = run("""
        import os
        import dualgrad
        from dualgrad.runtime.dtype import int8
        from dualgrad.runtime.memory import empty, stats
        from dualgrad.runtime.native import library
        assert library.load()
        sizes = (10, 5000, 1 << 20)
        start = stats().live_bytes
        arrays = [empty((n,), int8) for n in sizes]
        free = [empty((n,), int8) for n in sizes]
        for array in arrays:
            array[...] = 1
        del free
        children = []
        for k in range(3):
            child = os.fork()
            if child == 0:
                for array in arrays:
                    assert (array == 1).all()
                    array[...] = 2
                more = [empty((n,), int8) for n in sizes]
                for array in more:
                    array[...] = 3
                assert all((array == 2).all() for array in arrays)
                del more, array
                arrays.clear()
                assert stats().live_bytes == start
                os._exit(0)
            children.append(child)
        assert all(os.waitpid(child, 0)[1] == 0 for child in children)
        assert all((array == 1).all() for array in arrays)
    """)
    assert (done.returncode, done.stderr) == (0, "")


def test_arrays_alive_at_exit_die_in_silence():
    done = run("""
        import builtins, sys, threading
        import dualgrad as dg
        from dualgrad.runtime.dtype import int8
        from dualgrad.runtime.memory import empty
        class Late:
            def __init__(self):
                self.arrays = [empty((n,), int8) for n in (10, 5000, 1 << 20)]
                self.tensor = dg.ones(3) + 1
            def __del__(self):
                self.arrays.clear()
        before = [empty((n,), int8) for n in (10, 5000, 1 << 20)]  # of the pool in Python
        x = dg.ones(5) + dg.ones(5)
        builtins.late, sys.kept, kept = Late(), Late(), Late()
        kept.itself = kept
        local = threading.local()
        local.late = Late()
        threading.Thread(target=lambda: setattr(local, "late", Late())).start()
        sys.modules["numpy"].late = Late()
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_arrays_from_before_go_on_in_the_same_count():
    done = run("""
        import dualgrad as dg
        from dualgrad.runtime.dtype import int8
        from dualgrad.runtime.memory import empty, is_pooled, stats
        from dualgrad.runtime.native import library
        start, count = stats().live_bytes, stats().allocations
        first = empty((5000,), int8)
        first[...] = 3
        assert not is_pooled(first)
        size = stats().live_bytes - start
        assert size >= 5000
        assert library.load()
        then = empty((5000,), int8)
        assert is_pooled(then)
        assert stats().live_bytes == stats().peak_bytes == start + 2 * size
        assert stats().allocations == count + 2
        assert (first == 3).all()
        del first
        assert stats().live_bytes == start + size
        assert stats().pooled_bytes >= size
        del then
        assert stats().live_bytes == start
    """)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_write_outside_of_a_block_is_noticed():
    """Each test of the suite ends with this look at the pool; see `fresh_state`."""
    block = pool.take(192)
    pool.give(block)
    header = block - 64
    kept = ctypes.string_at(header, 64)
    assert pool.damaged() == 0
    ctypes.memset(header, 7, 64)  # what a kernel writes behind the block before
    found = pool.damaged()
    ctypes.memmove(header, kept, 64)
    assert found == block
    assert pool.damaged() == 0
