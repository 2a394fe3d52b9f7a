"""The device of these tests: a GPU where CuPy finds one, else the stand-in on the CPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dualgrad.runtime import cuda
from dualgrad.runtime.driver import Driver
from gpu import shim
from gpu.standin import Standin


def pytest_report_header() -> str:
    where = cuda.driver().info(0).name if cuda.available() else "a stand-in on the CPU"
    return f"tests of CUDA devices run on {where}"


@pytest.fixture(scope="session")
def _driver() -> Driver:
    if cuda.available():
        return cuda.driver()
    reason = shim.available()
    if reason is not None:
        pytest.skip(reason)
    return Standin()


@pytest.fixture
def gpu(_driver: Driver) -> Iterator[Driver]:
    """The driver of "cuda:0" while the test runs."""
    with cuda.installed(_driver):
        yield _driver
        _driver.synchronize()  # what the test has queued belongs to it
