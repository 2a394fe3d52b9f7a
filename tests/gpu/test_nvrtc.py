"""The compile step: what it takes and gives, how the library is found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dualgrad.runtime import nvrtc
from dualgrad.runtime.errors import CompileError, DeviceError
from dualgrad.runtime.nvrtc import Compiler, Usage, usage_in
from gpu.compiling import nvrtc_or_skip

LOG = """dualgrad.cu(3): warning #177-D: variable "t" was declared but never referenced
ptxas info    : 8 bytes gmem, 16 bytes cmem[4]
ptxas info    : Compiling entry function 'second' for 'sm_90'
ptxas info    : Function properties for second
    2264 bytes stack frame, 2204 bytes spill stores, 3120 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers, 2264 bytes cumulative stack size, 48 bytes smem
ptxas info    : Function properties for helper
    16 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
ptxas info    : Compiling entry function 'first' for 'sm_90'
ptxas info    : Function properties for first
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 12 registers, 380 bytes cmem[0]
"""

ARITHMETIC = """extern "C" __global__ void arithmetic(float* x, double* y) {
    x[0] = x[1] * x[2] + x[3];
    x[4] = x[5] / x[6];
    x[7] = sqrtf(x[8]);
    x[9] = fmaf(x[10], x[11], x[12]);
    y[0] = y[1] * y[2] + y[3];
    y[4] = y[5] / y[6];
    y[7] = sqrt(y[8]);
}
"""


@pytest.fixture(scope="module")
def compiler() -> Compiler:
    return nvrtc_or_skip()


def test_usage_is_read_from_the_log() -> None:
    assert usage_in(LOG) == {
        "first": Usage(registers=12),
        "second": Usage(32, 48, 2280, 2208, 3128),
    }
    assert usage_in("") == {}


def test_images(compiler: Compiler) -> None:
    text = """
    extern "C" __global__ void shared_and_vector(float4* x) {
        __shared__ float4 s[32];
        s[threadIdx.x] = x[threadIdx.x];
        __syncthreads();
        x[threadIdx.x] = s[31 - threadIdx.x];
    }
    extern "C" __global__ void empty(float* x) {}
    """
    for arch in ("sm_75", "sm_90"):
        image = compiler.compile(text, arch)
        usage = image.usage()
        assert image.cubin.startswith(b"\x7fELF")
        assert f".target {arch}" in image.ptx
        assert usage.keys() == {"shared_and_vector", "empty"}
        assert usage["shared_and_vector"].shared == 512
        assert usage["shared_and_vector"].registers > usage["empty"].registers > 0


def test_numbers_are_rounded_as_written(compiler: Compiler) -> None:
    """One fma where the text has one; division and root are IEEE; no flush to zero."""
    ptx = compiler.compile(ARITHMETIC, "sm_80").ptx
    found = re.findall(r"^\s+((?:mul|add|div|sqrt|fma)\.\S*f(?:32|64))", ptx, re.MULTILINE)
    assert sorted(found) == [
        "add.rn.f32",
        "add.rn.f64",
        "div.rn.f32",
        "div.rn.f64",
        "fma.rn.f32",
        "mul.rn.f32",
        "mul.rn.f64",
        "sqrt.rn.f32",
        "sqrt.rn.f64",
    ]


def test_errors_show_the_line(compiler: Compiler) -> None:
    with pytest.raises(CompileError, match="refuses a program") as caught:
        compiler.compile('extern "C" __global__ void k(float* x) {\n  x[0] = nothing;\n}', "sm_80")
    assert '(2): error: identifier "nothing" is undefined' in caught.value.actual
    assert "x[0] = nothing;" in caught.value.actual


def test_errors_of_the_assembler(compiler: Compiler) -> None:
    text = """extern "C" __global__ void k(float* x) {
        __shared__ float y[100000];
        y[threadIdx.x] = 1;
        __syncthreads();
        x[0] = y[threadIdx.x ^ 1];
    }"""
    with pytest.raises(CompileError, match="refuses a program") as caught:
        compiler.compile(text, "sm_80")
    assert "too much shared data" in caught.value.actual


def test_nearest_architecture(compiler: Compiler) -> None:
    assert compiler.nearest("sm_90") == "sm_90"
    assert compiler.nearest("sm_90a") == "sm_90a"
    assert compiler.nearest("sm_82") == "sm_80"
    with pytest.raises(DeviceError, match="cannot compile for this device") as caught:
        compiler.nearest("sm_35")
    assert "sm_90" in caught.value.expect


def test_identity_tells_library_and_options(tmp_path: Path) -> None:
    """Of a file that could not even be loaded: asking is cheap."""
    library = tmp_path / "libnvrtc.so.13"
    library.write_bytes(b"123")
    found = Compiler(str(library))
    before = found.identity()
    assert before.startswith("libnvrtc.so.13 of 3 bytes")
    assert "--fmad=false" in before
    library.write_bytes(b"1234")
    assert found.identity() != before
    with pytest.raises(DeviceError, match="cannot be loaded"):
        found.compile("", "sm_80")


def test_where_the_library_is_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wheels, toolkit = tmp_path / "site", tmp_path / "toolkit"
    present = [
        wheels / "nvidia" / "cu13" / "lib" / "libnvrtc.so.13",
        wheels / "nvidia" / "cuda_nvrtc" / "lib" / "libnvrtc.so.12",
        toolkit / "lib64" / "libnvrtc.so.13.0.88",
    ]
    for file in (*present, present[0].with_name("libnvrtc-builtins.so.13.0")):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.syspath_prepend(str(wheels))
    monkeypatch.setenv("CUDA_HOME", str(toolkit))
    monkeypatch.delenv("CUDA_PATH", raising=False)

    both = list(nvrtc.candidates())
    ours = [path for path in both if path.startswith(str(tmp_path))]
    assert ours == [str(present[0]), str(present[2]), str(present[1])]
    assert both.index("libnvrtc.so.13") < both.index(str(present[1]))
    assert "libnvrtc.so.13" not in list(nvrtc.candidates((12,)))


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc, "candidates", lambda majors: iter(["libno-such-library.so.13"]))
    monkeypatch.setattr(nvrtc, "find", nvrtc.find.__wrapped__)
    assert nvrtc.find() is None
    with pytest.raises(DeviceError, match=r"compiler of CUDA 12, is not installed") as caught:
        nvrtc.compiler((12,))
    assert "pip install nvidia-cuda-nvrtc-cu12" in caught.value.hint
    assert "CUDA_PATH" in caught.value.hint
