"""Accesses that run backwards are plain vectors, turned around."""

import numpy as np
import pytest

import dualgrad as dg

LENGTHS = [1, 2, 15, 16, 63, 64, 65, 127, 128, 129, 1000]


@pytest.mark.parametrize("dtype", ["bool", "int8", "int16", "float16", "float32", "int64"])
@pytest.mark.parametrize("length", LENGTHS)
def test_a_flip_is_numpys(dtype, length):
    x = np.random.default_rng(length).integers(0, 2 if dtype == "bool" else 99, (3, length))
    x = x.astype(dtype)
    compiled = dg.function(lambda x: dg.flip(x, (1,)))
    for flipped in (compiled, lambda x: dg.flip(x, (1,))):
        assert (flipped(dg.from_numpy(x)).numpy() == np.flip(x, 1)).all()


def test_a_sum_of_both_directions_is_numpys():
    x = np.arange(1000, dtype="float32") / 7
    both = dg.function(lambda x: x + dg.flip(x, (0,)))
    assert (both(dg.from_numpy(x)).numpy() == x + x[::-1]).all()


def test_only_the_rest_of_a_row_is_gathered():
    compiled = dg.function(lambda x: dg.flip(x, (1,)))
    compiled(dg.zeros(64, 1024))
    assert "masked.gather" not in compiled.llvm()
