"""Settings of all tests: verifiers on, a disk cache that belongs to the session, fixed seeds."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator

import numpy as np
import pytest

# dualgrad reads the environment once, when it is imported; processes that tests start inherit it.
# Those of pytest-xdist share the cache of the one that has started them, sessions with
# DG_TESTS_CACHE a folder that stays.
WORKER = "PYTEST_XDIST_WORKER" in os.environ
KEPT = os.environ["DG_CACHE_DIR"] if WORKER else os.environ.get("DG_TESTS_CACHE")
CACHE = KEPT or tempfile.mkdtemp(prefix="dualgrad-tests-")
os.environ.update(DG_VERIFY="1", DG_CACHE_DIR=CACHE, DG_EAGER="0")
os.environ.setdefault("DG_CHECK", "0")  # any test may run with checked accesses

import dualgrad as dg  # noqa: E402
from dualgrad.jit import programs  # noqa: E402
from dualgrad.runtime.config import config as settings  # noqa: E402
from dualgrad.runtime.native import library, pool  # noqa: E402

library.load()  # no test meets the moment when native code comes in, but for those of it

pytest_plugins = ["semantics.scoreboard"]  # where several processes run, one has all reports


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden", action="store_true", help="rewrite tests/golden instead of comparing"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """With several processes (-n), tests of one `xdist_group` run one after another."""
    if config.getoption("numprocesses", None) and config.getoption("dist") == "no":
        config.option.dist = "loadgroup"


def pytest_unconfigure(config: pytest.Config) -> None:
    if not KEPT:
        shutil.rmtree(CACHE, ignore_errors=True)


@pytest.fixture(autouse=True)
def fresh_state() -> Iterator[None]:
    """Every test starts with the same random stream and leaves no setting behind."""
    threads = dg.get_num_threads()
    dg.seed(0)
    programs.forget()
    with settings.scope(verify=True):
        yield
    dg.set_num_threads(threads)
    if library.is_loaded():
        assert not pool.damaged(), "a program has written outside of its memory"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20260101)


@pytest.fixture(params=[1, 2], ids=["1thread", "2threads"])
def threads(request: pytest.FixtureRequest) -> int:
    """Runs the test at each number of threads."""
    count: int = request.param
    dg.set_num_threads(count)
    return count


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))
