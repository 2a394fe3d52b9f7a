"""What the tests that compile for GPUs share."""

from __future__ import annotations

import pytest

from dualgrad.runtime import nvrtc
from dualgrad.runtime.nvrtc import Compiler


def nvrtc_or_skip() -> Compiler:
    """The compiler; the test that asks for it is skipped where it is not installed."""
    found = nvrtc.find()
    if found is None:
        pytest.skip("NVRTC is not installed (pip install nvidia-cuda-nvrtc)")
    return found
