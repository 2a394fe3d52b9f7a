"""Kernels under the address and undefined behaviour sanitizers, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gpu import shim

pytestmark = pytest.mark.slow
if (reason := shim.available()) is not None:
    pytest.skip(reason, allow_module_level=True)
if (environment := shim.sanitizers()) is None:
    pytest.skip("the C++ compiler has no sanitizers", allow_module_level=True)

TESTS = Path(__file__).parents[1]

# One launch on the stand-in, of kernels that look alike.
SCRIPT = """
import struct, sys
import numpy as np
from gpu.standin import Standin

body, bytes_in, bytes_out = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
device = Standin()
head = 'extern "C" __global__ void probe(const float* x, float* y, long long n) {'
text = head + "\\n" + body + "\\n}"
kernel = device.function(device.load(device.compile(text)), "probe")
x, y = device.allocate(bytes_in), device.allocate(bytes_out)
device.upload(x.address, memoryview(np.ones(bytes_in // 4, "f4")).cast("B"))
out = np.zeros(bytes_out // 4, "f4")
for seed in range(3):
    device.launch(kernel, 2, 32, struct.pack("<QQq", x.address, y.address, 32))
    device.download(memoryview(out).cast("B"), y.address)
print("ended with", out.sum())
"""

RIGHT = """\
__shared__ float kept[33];
const int t = threadIdx.x;
kept[t] = x[t] + 1;
__syncthreads();
y[t] = kept[(t + 1) % 32] + __shfl_xor_sync(0xffffffffu, kept[t], 5);
"""


def run(*command: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(TESTS), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, *command],
        env={**(environment or {}), "PYTHONPATH": paths},
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_right_kernels_pass() -> None:
    result = run("-c", SCRIPT, RIGHT, "128", "128")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "ended with 128.0\n"


@pytest.mark.parametrize(
    ("old", "new", "nbytes", "report"),
    [
        ("y[t] =", "y[t + 1] =", "128", r"use-after-poison"),
        ("x[t] + 1", "x[t + 1]", "128", r"use-after-poison"),
        (
            "kept[(t + 1) % 32]",
            "kept[t + 2]",
            "128",
            "index 33 out of bounds for type 'float [33]'",
        ),
        ("kept[(t + 1) % 32]", "*(&kept[t] + 2)", "128", "global-buffer-overflow"),
        ("x[t] + 1", "*(const double*)(x + t)", "256", "misaligned address"),
        (
            "const int t",
            "int wide = (int)n << 25; y[0] = wide + wide; const int t",
            "128",
            "signed integer overflow",
        ),
    ],
    ids=["write", "read", "index", "shared", "misaligned", "integers"],
)
def test_planted_bugs_are_found(old: str, new: str, nbytes: str, report: str) -> None:
    assert old in RIGHT
    result = run("-c", SCRIPT, RIGHT.replace(old, new), nbytes, "128")
    assert result.returncode != 0, result.stdout
    assert report in result.stderr
    assert "kernels.cu:" in result.stderr


def test_the_compilers_kernels_pass() -> None:
    """Some of each kind."""
    chosen = "overwritten or transposing or integers_wrap or after_blocks or few_rows or in_place"
    files = [f"tests/gpu/test_{name}.py" for name in ("flat", "contract", "team")]
    result = run("-m", "pytest", "-p", "no:cacheprovider", "-s", "-k", chosen, *files)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
