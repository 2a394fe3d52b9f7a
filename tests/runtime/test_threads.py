"""parallel_for: every chunk exactly once, whatever the threads do."""

import ctypes
import os
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
from pool_bodies import BODIES, Job, compiled

from dualgrad.runtime import threads
from dualgrad.runtime.config import config
from dualgrad.runtime.errors import ArgumentError
from dualgrad.runtime.threads import get_num_threads, pool, set_num_threads
from dualgrad.runtime.threads_ir import BATCH, MAX_THREADS, SERIAL, SYMBOLS

pytestmark = pytest.mark.xdist_group("threads")


@pytest.fixture(scope="module")
def bodies():
    return compiled("bodies", BODIES, ("count", "nested", "storm"))


@pytest.fixture(autouse=True)
def several_threads():
    """At least three threads, on any machine; afterwards as before."""
    before = threads._requested
    set_num_threads(3)
    yield
    set_num_threads(before or get_num_threads())
    threads._requested = before


def test_every_chunk_runs_exactly_once(bodies):
    rng = np.random.default_rng(0)
    for turn in range(3000):
        n = int(rng.integers(0, 70))
        job = Job(71, steps=1 << int(rng.integers(0, 13)))
        if turn % 50 == 0:
            time.sleep(rng.choice([0.0, 0.0005, 0.003]))  # workers spin, doze off, sleep
        job.run(bodies["count"], n)
        assert (job.counts[:n] == 1).all()
        assert (job.counts[n:] == 0).all()
        assert ((job.tids[:n] >= 0) & (job.tids[:n] < pool().threads)).all()


def test_jobs_that_follow_each_other_closely(bodies):
    job = Job(4)
    arguments = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64
    storm = ctypes.CFUNCTYPE(None, *arguments)(bodies["storm"])
    storm(pool().address, pool().parallel_for_address, job.context.ctypes.data, 3, 100_000)
    assert job.counts.tolist() == [100_000, 100_000, 100_000, 0]


@pytest.mark.parametrize("n", [BATCH - 1, BATCH, BATCH + 1, 3 * BATCH + 17])
def test_more_chunks_than_one_job_holds(bodies, n):
    job = Job(n).run(bodies["count"], n)
    assert (job.counts == 1).all()


@pytest.mark.parametrize("n", [0, -1, -(1 << 60)])
def test_nothing_to_do(bodies, n):
    assert Job(1).run(bodies["count"], n).counts[0] == 0


def uses_all_threads(bodies, attempts=5000):
    used = set()
    for _ in range(attempts):
        used |= set(Job(64, steps=1 << 16).run(bodies["count"], 64).tids.tolist())
        if used == set(range(pool().threads)):
            return True
    return False


needs_threads = pytest.mark.skipif(
    not threads._has_native_threads(), reason="parallel_for is serial on this system"
)


@needs_threads
def test_all_threads_take_part(bodies):
    assert pool().threads == 3
    assert uses_all_threads(bodies)


@needs_threads
def test_the_running_pool_changes_its_size(bodies):
    address = pool().address
    for n in (5, 2, 1, 4, 1, 3):
        set_num_threads(n)
        assert get_num_threads() == n
        assert pool().threads == n
        assert uses_all_threads(bodies)
        for _ in range(20):
            job = Job(40, steps=1 << 10).run(bodies["count"], 40)
            assert (job.counts == 1).all()
            assert job.tids.max() < n
    assert pool().address == address


def test_nested_calls_run_serially(bodies):
    inner = Job(10)
    outer = Job(50, inner=inner, inner_n=10).run(bodies["nested"], 50)
    assert (outer.counts == 1).all()
    assert (inner.counts == 50).all()
    assert (inner.tids == 0).all()


def test_callers_in_two_python_threads(bodies):
    failures = []

    def call(seed):
        rng = np.random.default_rng(seed)
        for _ in range(500):
            n = int(rng.integers(1, 60))
            job = Job(60, steps=1 << int(rng.integers(0, 12))).run(bodies["count"], n)
            if not ((job.counts[:n] == 1).all() and (job.counts[n:] == 0).all()):
                failures.append(n)

    callers = [threading.Thread(target=call, args=(seed,)) for seed in range(2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not failures


def run_program(text, tmp_path, **environ):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "DG_CACHE_DIR": str(tmp_path / "cache"), **environ},
        check=False,
        timeout=120,
    )


CALLS = """
    import ctypes, os, sys, time
    from dualgrad.runtime.threads import pool
    words = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64

    def call(n):
        seen = []
        take = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
        body = take(lambda ctx, chunk, tid: (seen.append((chunk, tid)), time.sleep(0.001)))
        run = ctypes.CFUNCTYPE(None, *words)(pool().parallel_for_address)
        run(pool().address, ctypes.cast(body, ctypes.c_void_p), None, n)
        assert sorted(chunk for chunk, _ in seen) == list(range(n)), seen
        return {tid for _, tid in seen}
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_fork(tmp_path):
    text = (
        CALLS
        + """
    everybody = set(range(pool().threads))
    def all_work():
        return any(call(20) == everybody for _ in range(20))
    address = pool().address
    assert all_work()
    for generation in range(3):
        child = os.fork()
        if child:
            status = os.waitpid(child, 0)[1]
            assert all_work()
            os._exit(1 if status else 0)
        assert pool().address == address
        assert all_work()
    os._exit(0)
    """
    )
    done = run_program(text, tmp_path, DG_NUM_THREADS="2")
    assert done.returncode == 0, done.stderr


def test_exit_while_workers_spin_or_sleep(tmp_path):
    for pause in (0.0, 0.01):
        done = run_program(CALLS + f"    call(8); time.sleep({pause})\n", tmp_path)
        assert (done.returncode, done.stderr) == (0, "")


def test_a_second_process_takes_the_code_from_disk(tmp_path):
    text = """
        from dualgrad.runtime.cache import default_cache
        from dualgrad.runtime.threads import pool
        pool()
        print(default_cache().hits, default_cache().misses)
    """
    first, second = [run_program(text, tmp_path).stdout.split() for _ in range(2)]
    assert first[0] == "0"
    assert int(first[1]) >= 1  # the pool's code, and what LLVM says of the processor
    assert second == [first[1], "0"]


def test_number_of_threads_from_the_environment(tmp_path):
    text = "from dualgrad.runtime.threads import get_num_threads as g, pool; print(g())"
    assert run_program(text, tmp_path, DG_NUM_THREADS="7").stdout == "7\n"
    assert run_program(text, tmp_path, DG_NUM_THREADS="99999").stdout == f"{MAX_THREADS}\n"


@pytest.mark.parametrize("n", [0, -1, MAX_THREADS + 1, 2.0, True, "2", None])
def test_bad_numbers_of_threads_are_refused(n):
    before = get_num_threads()
    with pytest.raises(ArgumentError, match="not a number of threads"):
        set_num_threads(n)
    assert get_num_threads() == before


def test_the_serial_version_of_other_systems(bodies):
    at = compiled("serial", SERIAL, SYMBOLS)
    words = ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64
    run = ctypes.CFUNCTYPE(None, *words)(at["parallel_for"])
    for n in (-3, 0, 1, 2, 100):
        job = Job(100)
        run(at["pool"], bodies["count"], job.context.ctypes.data, n)
        assert job.counts.tolist() == [1] * max(n, 0) + [0] * (100 - max(n, 0))
        assert set(job.tids[: max(n, 0)].tolist()) <= {0}


def test_a_system_without_native_threads_gets_a_serial_pool(bodies, monkeypatch):
    monkeypatch.setattr(threads, "_has_native_threads", lambda: False)
    with config.scope(cache=False):
        serial = threads.Pool(4)
    serial.resize(3)
    serial.restart()
    assert serial.threads == 1
    monkeypatch.setattr(threads, "_pool", serial)
    job = Job(20).run(bodies["count"], 20)
    assert (job.counts == 1).all()
    assert (job.tids == 0).all()
