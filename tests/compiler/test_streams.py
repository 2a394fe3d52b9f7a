"""Loops ask ahead for memory that streams through them, and for no other."""

import re

import numpy as np
import pytest

import dualgrad as dg
from dualgrad import functional

ROW = dg.ones(512)
GRID = dg.ones(256, 512)
OTHER = dg.zeros(256, 512)


def fetches(f, *args):
    """How many cache lines the loops of a compiled function ask for, to be read and written."""
    compiled = dg.function(f)
    compiled(*args)
    calls = [line for line in compiled.llvm().splitlines() if "call void @llvm.prefetch" in line]
    written = sum(", i32 1, i32 3, i32 1)" in line for line in calls)
    return len(calls) - written, written


def lines(count):
    """The lines that a main loop of float32 touches of so many arrays."""
    return count * fetches(lambda x: -x, dg.ones(100_000))[0]


def test_every_operand_of_a_long_loop_streams():
    assert lines(1) >= 1
    assert fetches(lambda x: -x, dg.ones(100_000)) == (lines(1), lines(1))
    assert fetches(lambda x, y: x * 2.0 + y, GRID, OTHER) == (lines(2), lines(1))


def test_a_reduction_streams():
    reads, writes = fetches(lambda x: x.sum(1), GRID)
    assert (reads > 0, writes) == (True, 0)


def test_what_is_read_again_and_again_does_not():
    assert fetches(lambda x, y: x + y, GRID, ROW) == (lines(1), lines(1))
    assert fetches(lambda x: x * 2.0, ROW) == (0, 0)


def test_the_last_pass_over_a_row_asks_for_the_next_row():
    assert fetches(lambda x: functional.softmax(x, -1), GRID) == (lines(1), lines(1))
    assert fetches(lambda x: functional.layer_norm(x, (512,)), GRID) == (lines(1), lines(1))
    assert fetches(lambda x, y: functional.layer_norm(x * y, (512,)), GRID, OTHER) == (
        lines(2),
        lines(1),
    )


def test_what_all_rows_share_is_not_asked_for():
    weighted = fetches(lambda x, w: functional.layer_norm(x, (512,), w), GRID, ROW)
    assert weighted == (lines(1), lines(1))


@pytest.mark.parametrize("length", [1, 63, 64, 1000, 100_000])
def test_asking_beyond_the_last_row_is_harmless(length):
    x = dg.arange(3 * length).reshape(3, length) / 7.0
    compiled = dg.function(lambda x: functional.softmax(x, -1))
    assert (compiled(x).numpy() == functional.softmax(x, -1).numpy()).all()


def test_rows_with_gaps_ask_for_the_next_row():
    def bytes_ahead(f):
        compiled = dg.function(f)
        compiled(GRID)
        text = compiled.llvm()
        fetched = set(re.findall(r"call void @llvm\.prefetch\.p0\(ptr (%v\d+)", text))
        steps = re.findall(r"(%v\d+) = getelementptr i8, ptr %v\d+, i64 (\d+)", text)
        return {int(step) for name, step in steps if name in fetched}

    assert 4 * 512 in bytes_ahead(lambda x: x[:, 100:400] + 1.0)
    assert 4 * 512 not in bytes_ahead(lambda x: x + 1.0)


def test_tiles_do_not():
    assert fetches(lambda x: x.T + 1.0, GRID) == (0, 0)


@pytest.mark.parametrize("n", [100_003, 8192 * 13])
def test_asking_beyond_the_end_of_an_array_is_harmless(n):
    x = dg.arange(n)
    assert ((-x).numpy() == -x.numpy()).all()


def past_caches(f, *args):
    """Whether a compiled function stores past the caches; its results are those of eager mode."""
    compiled = dg.function(f)
    got, expected = compiled(*args), f(*args)
    np.testing.assert_array_equal(got.numpy(), expected.numpy())
    return "nontemporal" in compiled.llvm()


def test_results_that_no_cache_holds_are_stored_past_them():
    """Rows of 1003 numbers begin at any place of a line, those of 1024 at its first."""
    for shape in ((17_000, 1003), (16_400, 1024)):
        x = dg.arange(shape[0] * shape[1], dtype=dg.float32).reshape(shape)
        assert past_caches(lambda x: x * 0.5, x)
        assert past_caches(lambda x: x - x.mean(1, keepdim=True), x)
        np.testing.assert_array_equal((x * 0.5).numpy(), x.numpy() * np.float32(0.5))


def test_others_are_not():
    assert not past_caches(lambda x: x * 0.5, dg.ones(4096, 1024))
    assert not past_caches(lambda x: x.sum(1), dg.ones(16_400, 1024))


def test_sizes_decide_where_a_function_serves_all():
    double = dg.function(lambda x: x * 2.0)
    for count in (1000, 17_000_001, 70_000):
        x = dg.arange(count, dtype=dg.float32)
        np.testing.assert_array_equal(double(x).numpy(), x.numpy() * 2)
    assert "nontemporal" in double.llvm()
