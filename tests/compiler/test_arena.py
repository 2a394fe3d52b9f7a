"""Temporaries: which share memory, and that a program takes as much as it says."""

import re

import numpy as np
import pytest

import dualgrad as dg
from dualgrad.runtime import memory

ROWS, COLUMNS = 300, 400
FULL = 4 * ROWS * COLUMNS


def arena_of(f, *args):
    """Bytes of the arena, as the report of a compiled function says."""
    f(*args)
    (found,) = re.findall(r"arena (\d+) bytes", f.report())
    return int(found)


def three_sums(x, y):
    """Each sum of columns has to be known before the next kernel starts on the whole matrix."""
    a = dg.exp(x) + y
    b = dg.tanh(a * 2.0) + a.sum(0)
    return (b * 3.0 + b.sum(0)).sum(0)


def two_readers(x, y):
    a = dg.exp(x) + y
    b = a + a.sum(0)
    return (b + b.sum(0)) * a  # a is read again: nothing may overwrite it


def shifted(x, y):
    a = dg.exp(x) + y
    b = a[::-1] + a.sum(0)  # row i reads row n - 1 - i
    return (b + b.sum(0)).sum(0)


FUNCTIONS = [three_sums, two_readers, shifted]


@pytest.fixture
def matrices():
    rng = np.random.default_rng(0)
    return [dg.from_numpy(rng.random((ROWS, COLUMNS), "float32")) for _ in range(2)]


@pytest.mark.parametrize("f", FUNCTIONS)
def test_memory_that_is_overwritten_keeps_the_bits(f, matrices):
    eager, static = f(*matrices).numpy(), dg.function(f)(*matrices).numpy()
    assert (eager.view("u4") == static.view("u4")).all()


def test_a_result_overwrites_what_it_alone_reads(matrices):
    assert FULL <= arena_of(dg.function(three_sums), *matrices) < 2 * FULL


@pytest.mark.parametrize("f", [two_readers, shifted])
def test_what_is_read_otherwise_keeps_its_memory(f, matrices):
    assert arena_of(dg.function(f), *matrices) >= 2 * FULL


@pytest.mark.parametrize("f", FUNCTIONS)
def test_the_arena_is_all_that_a_program_takes_beside_its_results(f, matrices):
    compiled = dg.function(f)
    arena, result = arena_of(compiled, *matrices), compiled(*matrices)
    before = memory.stats().live_bytes
    expected = [memory.scratch(arena), memory.empty(result.shape, result.dtype)]
    taken = memory.stats().live_bytes - before
    del expected
    memory.reset_peak()
    compiled(*matrices)
    assert memory.stats().peak_bytes - before == taken


@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_a_reshaped_result_is_computed_where_it_belongs(dtype):
    x = dg.from_numpy(np.arange(24, dtype=dtype).reshape(4, 6))
    compiled = dg.function(lambda x: (x + x).reshape(-1).reshape(3, 8))
    assert arena_of(compiled, x) == 0
    assert compiled.ir().count("kernel ") == 1
    assert (compiled(x).numpy() == (x.numpy() * 2).reshape(3, 8)).all()
