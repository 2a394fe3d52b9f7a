"""The floors of the benchmark: its loops do the work that they say.  Times are not looked at."""

from __future__ import annotations

import ctypes
import re
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import floor  # noqa: E402
from benchmarks.steps import models  # noqa: E402
from benchmarks.workloads import WORKLOADS  # noqa: E402
from benchmarks.workloads.base import Work  # noqa: E402
from benchmarks.workloads.training import Training  # noqa: E402
from dualgrad.runtime.host import cpu_count  # noqa: E402
from dualgrad.runtime.threads import get_num_threads, set_num_threads  # noqa: E402

several = pytest.mark.skipif(cpu_count() < 2, reason="needs two processors")
TRAINING = [name for name, kind in WORKLOADS.items() if issubclass(kind, Training)]


@pytest.mark.parametrize("count", [1, 4096, 300_000, 5 << 20])
@pytest.mark.parametrize("name", ["copy", "stream"])
def test_copies_are_whole(name, count):
    """All bytes reach the other half, and nothing after it changes."""
    copies = floor._Copies(count)
    first, second, _, size = copies._context[:4]
    assert count <= size < count + 256
    source = (ctypes.c_uint8 * size).from_address(first)
    target = (ctypes.c_uint8 * (size + 64)).from_address(second)
    expected = np.random.default_rng(0).integers(1, 255, size, np.uint8)
    np.frombuffer(source, np.uint8)[:] = expected
    np.frombuffer(target, np.uint8)[:] = 255
    floor._run(name, copies._context, copies._chunks)
    got = np.frombuffer(target, np.uint8)
    np.testing.assert_array_equal(got[:size], expected)
    assert (got[size:] == 255).all()


def test_multiply_adds():
    """x = x / 2 + 1/2 from 0 is 1 - 2^-n after n turns, in each of the chains."""
    context = (ctypes.c_int64 * 16)(5)
    floor._run("multiply", context, 1)
    total = np.frombuffer(context, np.float32)[16]
    assert total == floor._chains() * (1 - 2.0**-5)


def test_the_floor_is_the_longer_of_two(monkeypatch):
    monkeypatch.setattr(floor, "flops_per_ns", lambda: 2.0)
    monkeypatch.setattr(floor._Copies, "nanoseconds", lambda self: 100.0)
    assert floor.Floor(Work(1000, 1000, "")).block() == 500.0
    assert floor.Floor(Work(100, 1000, "")).block() == 100.0


@several
def test_the_machine_is_told_with_one_thread_and_with_all():
    before = get_num_threads()
    try:
        text = floor.machine_text(2)
        assert get_num_threads() == 2
    finally:
        set_num_threads(before)
    number = r"\d+ GFLOP/s, copies \d+ GB/s of 1 MiB, \d+ GB/s of 16 MiB, \d+ GB/s of 256 MiB"
    assert re.fullmatch(f"1 thread: {number}; 2 threads: {number}", text)


@pytest.mark.parametrize("name", TRAINING)
def test_multiply_adds_are_those_of_torch(name):
    """Layers have these shapes; their work is what PyTorch's own counter says, which does not know
    LSTMs."""
    torch = pytest.importorskip("torch")
    counter = pytest.importorskip("torch.utils.flop_counter")
    attention = pytest.importorskip("torch.nn.attention")
    workload = WORKLOADS[name]()
    model = getattr(models, name)(torch.nn)
    assert {k: tuple(v.shape) for k, v in model.state_dict().items()} == workload.shapes()
    x = torch.from_numpy(workload.arrays()["inputs"][0])
    if name == "lstm":
        return
    products = attention.sdpa_kernel(attention.SDPBackend.MATH)
    with counter.FlopCounterMode(display=False) as counted, products:
        output = model(x)
        output.sum().backward()
    assert workload.work().flops == counted.get_total_flops()
