"""How native code comes in: at once from the disk cache, else from a thread, beside Python."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from dualgrad.runtime.native import library

pytestmark = pytest.mark.skipif(not library.load(), reason="native entries are off here")

BEGINNING = """
    import os
    import sys
    import threading
    import time
    import numpy as np
    import dualgrad as dg
    from dualgrad.runtime.native import library
    from dualgrad.runtime.profile import counters

    @dg.function
    def compiled(a, b):
        return a * b + b

    x = dg.tensor(np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4))
    w = dg.tensor(np.linspace(2, 3, 4, dtype=np.float32), requires_grad=True)

    def step():
        w.grad = None
        y = (x * w).exp() + x[1:].sum()
        z = compiled(x, w)
        (y.sum() + z.sum()).backward()
        buffer = x.clone()
        buffer += 1
        return [t.detach().numpy().tobytes() for t in (y, z, w.grad, buffer)]

    def until_native():
        end = time.monotonic() + 60
        while not library.is_loaded():
            assert time.monotonic() < end
            yield
"""


def run(text: str, cache: Path, **settings: str) -> str:
    """What a fresh process writes that ends well and in silence."""
    environment = {**os.environ, "DG_CACHE_DIR": str(cache), **settings}
    whole = textwrap.dedent(BEGINNING) + textwrap.dedent(text)
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", whole],
        capture_output=True, text=True, check=False, cwd="/", env=environment,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_native_code_comes_in_while_the_process_computes(tmp_path):
    text = """
        library._DELAY = 0.1
        first = step()
        assert not library.is_loaded()
        step(), step()
        steady = counters.snapshot()
        assert step() == first
        each = counters.since(steady)
        for _ in until_native():
            before = counters.snapshot()
            assert step() == first
            spent = counters.since(before)
            assert (spent.launches, spent.kernels) == (each.launches, each.kernels), spent
        assert not library.pending
        assert compiled.n_traces == 1
        for _ in range(5):
            assert step() == first
        assert compiled._entry is not None
        assert [t.name for t in threading.enumerate()] == ["MainThread"]
    """
    run(text, tmp_path)
    found = "first = step(); assert library.is_loaded() and not library.pending"
    run(found, tmp_path)


def test_a_process_that_ends_early_leaves_the_library_behind(tmp_path):
    found = "step(); print(library.is_loaded())"
    assert run(found, tmp_path) == "False\n"
    assert run(found, tmp_path) == "True\n"


def test_compiled_functions_alone_meet_native_code(tmp_path):
    text = """
        library._DELAY = 0
        first = compiled(x, w.detach()).numpy().tobytes()
        for _ in until_native():
            assert compiled(x, w.detach()).numpy().tobytes() == first
        for _ in range(3):
            assert compiled(x, w.detach()).numpy().tobytes() == first
        assert compiled._entry is not None
        assert compiled.n_traces == 1
    """
    run(text, tmp_path)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("wait", [0, 0.2], ids=["before", "during"])
def test_a_fork_waits_for_the_library(tmp_path, wait):
    text = f"""
        library._DELAY = 60 if {wait} == 0 else 0
        first = step()
        time.sleep({wait})
        children = []
        for _ in range(2):
            child = os.fork()
            if child == 0:
                assert step() == first
                assert library.is_loaded()
                assert step() == first
                os._exit(0)
            children.append(child)
        assert step() == first
        assert library.is_loaded()
        assert all(os.waitpid(child, 0)[1] == 0 for child in children)
    """
    # no threads but the one that compiles: Python 3.12 warns of forks where there are others
    run(text, tmp_path, DG_NUM_THREADS="1")


def test_without_a_disk_cache(tmp_path):
    text = """
        library._DELAY = 0.1
        first = step()
        assert not library.is_loaded()
        for _ in until_native():
            assert step() == first
        assert step() == first
        print("same")
    """
    for _ in range(2):
        assert run(text, tmp_path, DG_CACHE="0") == "same\n"
    assert not list(tmp_path.iterdir())


def test_threads_that_compute_meanwhile(tmp_path):
    text = """
        library._DELAY = 0.1
        sys.setswitchinterval(1e-5)
        results, expected = [], step()

        def own_step():
            v = dg.tensor(np.linspace(2, 3, 4, dtype=np.float32), requires_grad=True)
            y, z = (x * v).exp(), compiled(x, v)
            (y.sum() + z.sum()).backward()
            return [t.detach().numpy().tobytes() for t in (y, z, v.grad)]

        right = own_step()

        def work():
            for _ in until_native():
                results.append(own_step() == right)
            for _ in range(20):
                results.append(own_step() == right)

        workers = [threading.Thread(target=work) for _ in range(4)]
        for t in workers:
            t.start()
        for t in workers:
            t.join()
        assert all(results) and len(results) > 80
        assert step() == expected
    """
    run(text, tmp_path)


def test_waiting_for_it(tmp_path):
    text = """
        library._DELAY = 60
        first = step()
        assert library.load()
        assert step() == first
    """
    run(text, tmp_path)


def test_where_no_thread_can_be_had(tmp_path):
    text = """
        def refused(thread):
            raise RuntimeError("can't start new thread")

        starting, threading.Thread.start = threading.Thread.start, refused
        first = step()
        threading.Thread.start = starting
        assert step() == first
        assert library.is_loaded()
    """
    run(text, tmp_path)


def test_a_library_that_does_not_compile(tmp_path):
    text = """
        from dualgrad.runtime.errors import CompileError

        def refused(*arguments):
            raise CompileError("no")

        library._DELAY, library.made_object = 0, refused
        first = step()
        while library.pending:
            assert step() == first
        assert step() == first
        assert not library.is_loaded() and not library.load()
    """
    run(text, tmp_path)
