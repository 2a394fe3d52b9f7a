"""Loops ask ahead for memory that streams through them, and for no other."""

import re

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
