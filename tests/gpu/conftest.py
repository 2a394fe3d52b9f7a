"""What the tests of tensors on a GPU share: a stand-in for the device."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dualgrad import dispatch
from dualgrad.runtime import cuda
from gpu import shim
from gpu.standin import Standin


@pytest.fixture(scope="module")
def gpu() -> Iterator[Standin]:
    """A device "cuda:0" without a GPU; no program of another one is known."""
    missing = shim.available()
    if missing is not None:
        pytest.skip(missing)
    dispatch.forget()
    with cuda.installed(Standin()) as driver:
        yield driver
        driver.synchronize()
    dispatch.forget()
