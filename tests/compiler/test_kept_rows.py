"""Rows that are kept on the stack until their result is stored past the caches: same bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dualgrad as dg
from dualgrad import functional as F
from dualgrad.compiler.lower.llvm import kept_rows, kernels
from dualgrad.runtime.config import config

ROWS: dict[str, Callable[[Any, Any], Any]] = {
    "softmax": lambda x, g: F.softmax(x, -1),
    "both": lambda x, g: (F.softmax(x, -1), F.softmax(x * g, -1)),
    "of another": lambda x, g: F.softmax(F.softmax(x, -1) * g, -1),
    "and its sums": lambda x, g: (lambda e: (e / e.sum(-1, keepdim=True), e.sum(-1)))(dg.exp(x)),
    "value as well": lambda x, g: (lambda e: (e, e / e.sum(-1, keepdim=True)))(dg.tanh(x + g)),
    "standardized": lambda x, g: F.layer_norm(dg.tanh(x) * g, (x.shape[-1],)),
    "gradient": lambda x, g: dg.grad(lambda x: (F.softmax(x, -1) * g).sum())(x),
    "of all": lambda x, g: F.softmax((x * g).reshape(-1), 0),
}


@contextmanager
def every_result_is_large() -> Iterator[None]:
    """Code that is made in this context stores all results past the caches, rows of up to 4 KiB
    are kept on the stack; eager mode has its code from outside of it."""
    with pytest.MonkeyPatch.context() as patch, config.scope(cache=False):
        patch.setattr(kernels, "LEAST", 1)
        patch.setattr(kept_rows, "MOST", 1 << 12)
        yield


@pytest.mark.parametrize("sort", ["static", "dynamic"])
@pytest.mark.parametrize("name", ROWS)
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_bits_are_those_of_rows_in_their_results(name: str, sort: str, data: Any) -> None:
    row = ROWS[name]
    dtype = data.draw(st.sampled_from([dg.float32, dg.float64, dg.float16]))
    sizes = st.integers(2, 9), st.sampled_from([2, 3, 16, 63, 64, 129, 512, 1024, 1025, 2500])
    shapes = [tuple(map(data.draw, sizes)) for _ in range(3)]
    compiled = dg.function(lambda x, g: row(x, g), **{sort: ("x", "g")})
    seed = data.draw(st.integers(0, 1 << 16))
    for shape in shapes:
        rng = np.random.default_rng(seed)
        x, g = (dg.tensor(rng.standard_normal(shape), dtype=dtype) for _ in range(2))
        want = row(x, g)
        with every_result_is_large():
            got = compiled(x, g)
        pairs = zip(got, want, strict=True) if isinstance(got, tuple) else [(got, want)]
        for one, other in pairs:
            assert one.numpy().tobytes() == other.numpy().tobytes()
    assert ("symbol s0" in compiled.ir()) == (sort == "dynamic")


def test_where_rows_are_kept() -> None:
    """Up to a size, and only those that the last pass overwrites."""
    with every_result_is_large():
        for length in (1025, 1024):
            f = dg.function(lambda x: F.softmax(x, -1))
            f(dg.ones(5, length))
            assert ("alloca [1024 x float]" in f.llvm()) == (length == 1024)
        f = dg.function(ROWS["value as well"])
        f(dg.ones(5, 1024), dg.ones(5, 1024))
        assert "nontemporal" in f.llvm()
        assert "alloca [1024 x float]" not in f.llvm()
