"""Memory: what nobody holds any more is freed, compiled code as well."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import weakref
from typing import Any

import pytest

import dualgrad as dg
from dualgrad import dispatch, engine
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.runtime.config import config

REDEFINITIONS = """
    import gc
    import dualgrad as dg
    from dualgrad.runtime.native import library

    library.load()  # it is compiled once, in a thread unless somebody waits for it

    def resident():
        with open("/proc/self/statm") as f:
            return int(f.read().split()[1]) * 4096

    def redefine(k):
        space = {"dg": dg}
        exec(f"def f(x):\\n    y = x * {k}.5\\n    return dg.exp(y).sum() + {k}", space)
        f = dg.function(space["f"])
        assert f(x).shape == f(x).shape == ()
        assert f.n_traces == 1

    x = dg.ones(10)
    for k in range(20):
        redefine(k)
    gc.collect()
    before = resident()
    for k in range(20, 20 + COUNT):
        redefine(k)
    gc.collect()
    print((resident() - before) / 1e6)
"""


def growth(count: int) -> float:
    """Megabytes that a process grows by when a function is defined anew so many times."""
    code = textwrap.dedent(REDEFINITIONS).replace("COUNT", str(count))
    environment = {**os.environ, "DG_CACHE": "0", "DG_VERIFY": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    )
    return float(done.stdout)


proc = pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")


@proc
def test_need23_redefinitions() -> None:
    assert growth(150) < 6


@proc
@pytest.mark.slow
def test_need23_a_thousand_redefinitions() -> None:
    assert growth(1000) < 20


def codes() -> int:
    gc.collect()
    return len(engine._codes)


def test_need23_code_is_freed_with_its_function() -> None:
    with config.scope(cache=False):
        x = dg.ones(7)
        before = codes()
        f = dg.function(lambda x: dg.exp(x * 123.25) - 321.75)
        f(x)
        (path,) = f.paths
        held = [weakref.ref(o) for o in (f, path, path.executable, path.executable.code)]
        assert codes() == before + 1
        del f, path
        assert codes() == before
        assert [r() for r in held] == [None] * 4


def test_need23_what_a_function_was_called_with_is_freed() -> None:
    class Model:
        def __init__(self) -> None:
            self.weight = dg.ones(3)

    def run() -> list[weakref.ref[Any]]:
        model = Model()

        @dg.function
        def f(x: dg.Tensor) -> dg.Tensor:
            return x * model.weight

        x = dg.ones(3)
        for _ in range(3):
            f(x)
        return [weakref.ref(o) for o in (model, model.weight, x, f)]

    held = run()
    gc.collect()
    assert [r() for r in held] == [None] * 4


def test_need23_arguments_are_not_kept() -> None:
    f = dg.function(lambda x: x * 2)
    held = []
    for n in (2, 3, 4, 4, 4):
        x = dg.ones(n)
        held.append(weakref.ref(x))
        f(x)
    del x
    gc.collect()
    assert [r() for r in held] == [None] * 5


def test_need23_expressions_are_freed() -> None:
    with config.scope(cache=False):
        gc.collect()
        before = len(Scalar._interned)
        f = dg.function(lambda x: dg.exp(x * 1.0625) * 17.5)
        f(dg.ones(3))
        del f
        gc.collect()
        assert len(Scalar._interned) <= before + 10


def test_need23_clear_caches() -> None:
    f = dg.function(lambda x: x * 2 + 1)
    x = dg.ones(3)
    want = f(x).tolist()
    assert f.paths
    assert dispatch._plans
    dg.clear_caches()
    assert not f.paths
    assert not dispatch._plans
    assert f(x).tolist() == want
    assert (x + 1).tolist() == [2.0] * 3
    assert f.n_traces == 2
