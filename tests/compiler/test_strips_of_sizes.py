"""Strips whose sizes are symbols: those of eager mode, and of functions for varying lengths."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from support import peak

import dualgrad as dg
import dualgrad.functional as F
from dualgrad.compiler.ir.dims import Dim, evaluate, sym, symbol_of
from dualgrad.compiler.kernel.striping import plan_area
from dualgrad.compiler.kernel.strips import Cut
from dualgrad.compiler.launch import Space
from dualgrad.runtime.config import config

Tensors = tuple[dg.Tensor, ...]
Shapes = list[tuple[int, int, int, int, int]]  # batch, heads, queries, keys, width


def gradients(q: dg.Tensor, k: dg.Tensor, v: dg.Tensor, **kinds: Any) -> Tensors:
    xs = [x.detach().requires_grad_() for x in (q, k, v)]
    y = F.scaled_dot_product_attention(*xs, **kinds)
    return (y.detach(), *dg.autograd.grad((y * y).sum(), xs))


def projected(q: dg.Tensor, k: dg.Tensor, v: dg.Tensor, **kinds: Any) -> Tensors:
    """Heads as a layer has them: parts of rows, mixed behind the attention."""
    xs = [x.detach().requires_grad_() for x in (q, k, v)]
    y = F.scaled_dot_product_attention(*(x * 2.0 for x in xs), **kinds).transpose(1, 2).flatten(2)
    return (y.detach(), *dg.autograd.grad((y @ y.transpose(1, 2)).sum(), xs))


def heads(batch: int, count: int, queries: int, keys: int, width: int) -> list[dg.Tensor]:
    return [dg.randn(batch, count, n, width) for n in (queries, keys, keys)]


def same_bits(got: Tensors, want: Tensors) -> None:
    for a, b in zip(got, want, strict=True):
        np.testing.assert_array_equal(a.numpy().view(np.int32), b.numpy().view(np.int32))


LENGTHS: Shapes = [(2, 3, n, n, 8) for n in (40, 41, 1100, 513)]
SINGLE: Shapes = [(1, 1, n, n + 3, 8) for n in (40, 41, 1100, 513)]
BATCHES: Shapes = [(n, 3, 33, 33, 8) for n in (4, 5, 16)]
ALL: Shapes = [(4, 2, 20, 30, 8), (3, 3, 530, 31, 4), (2, 5, 64, 640, 12), (2, 4, 3, 5, 2)]
CASES: dict[str, tuple[Callable[..., Tensors], Shapes]] = {
    "lengths": (gradients, LENGTHS),
    "batches": (gradients, BATCHES),
    "all": (gradients, ALL),
    "single": (gradients, SINGLE),
    "causal": (partial(gradients, is_causal=True), LENGTHS),
    "dropout": (partial(gradients, dropout_p=0.25), LENGTHS),
    "projected": (projected, LENGTHS),
}
THREADS = [
    *(("lengths", threads) for threads in (1, 3, 8)),
    ("single", 3),
    *((name, 2) for name in CASES),
]


@pytest.mark.parametrize(("name", "threads"), THREADS)
def test_bits_are_those_of_known_sizes(name: str, threads: int) -> None:
    function, shapes = CASES[name]
    dg.set_num_threads(threads)
    varying = dg.function(lambda *args: function(*args), strict=True)
    for number, shape in enumerate(shapes):
        args = heads(*shape)
        runs: list[Callable[..., Tensors]] = [varying, function]
        if number >= len(shapes) - 2:
            runs.append(dg.function(lambda *args: function(*args), strict=True))
        results = []
        for run in runs:
            dg.seed(1)
            results.append(run(*args))
        for other in results[1:]:
            same_bits(results[0], other)
    assert varying.report().count("strip 0") >= 6


def test_each_length_is_no_trace_of_its_own() -> None:
    static = dg.function(F.scaled_dot_product_attention, strict=True)
    for n in (20, 30, 40, 50):
        static(*heads(2, 2, n, n, 4))
    assert static.n_traces == 2


@pytest.mark.parametrize("name", ["lengths", "batches", "projected"])
def test_private_memory_is_large_enough(name: str) -> None:
    """Of programs that look at each access."""
    function, shapes = CASES[name]
    varying = dg.function(lambda *args: function(*args), strict=True)
    with config.scope(check=True):
        for shape in shapes[:2]:
            args = heads(*shape)
            same_bits(varying(*args), function(*args))


@pytest.mark.parametrize("mode", ["eager", "symbolic"])
@pytest.mark.parametrize("kinds", [{}, {"is_causal": True}, {"dropout_p": 0.25}])
def test_memory_grows_as_the_length(mode: str, kinds: dict[str, Any]) -> None:
    dg.set_num_threads(2)

    def function(*args: dg.Tensor) -> Tensors:
        return gradients(*args, **kinds)

    run: Callable[..., Any] = function
    if mode == "symbolic":
        run = dg.function(function, strict=True)
        for n in (600, 700):
            run(*heads(2, 2, n, n, 16))
    sizes = []
    for n in (1024, 2048):
        args = heads(2, 2, n, n, 16)
        run(*args)
        sizes.append(peak(lambda args=args: run(*args)))  # type: ignore[misc]
    assert sizes[1] <= 2.2 * sizes[0]
    assert sizes[1] < 4 * 2048 * 2048  # of four heads


def test_spaces_of_unknown_size_do_not_overlap() -> None:
    rng = random.Random(0)
    s, t = sym("s"), sym("t")
    sizes: list[Dim] = [8 * s, 4 * s, 4 * t + 1, s * t, 100]
    for _ in range(50):
        spaces = []
        for first in sorted(rng.randrange(6) for _ in range(8)):
            last = rng.randrange(first, 6)
            spaces.append(Space(rng.choice(sizes), first, last))
        values = {symbol_of(s): rng.randrange(2, 50), symbol_of(t): rng.randrange(2, 50)}
        offsets, area = plan_area([Space(s, 0, 5), *spaces])
        used = [
            (evaluate(x, values), evaluate(x + space.nbytes, values), space)
            for x, space in zip(offsets, [Space(s, 0, 5), *spaces], strict=True)
        ]
        for k, (low, high, a) in enumerate(used):
            assert high <= evaluate(area, values)
            assert low % 64 == 0
            for start, stop, b in used[:k]:
                apart = a.last < b.first or b.last < a.first
                assert apart or high <= start or stop <= low


def test_a_cut_of_unknown_size_is_that_of_the_known_one() -> None:
    s, item = sym("s"), sym("item", 10**6)
    unknown = Cut(s, (s + 99) // 100)
    for n in (2, 99, 100, 511, 512, 513, 1025, 3000):
        known = Cut(n, -(-n // 100))
        assert isinstance(known.blocks, int)
        assert isinstance(known.pieces, int)
        for k in range(known.blocks * known.pieces):
            values = {symbol_of(s): n, symbol_of(item): k}
            assert tuple(evaluate(d, values) for d in unknown.bounds(item)) == known.bounds(k)


def test_no_size_is_divided_by_when_it_is_zero() -> None:
    static = dg.function(gradients)
    for shape in itertools.product((0, 2), (0, 2), (0, 600), (0, 7), (0, 4)):
        args = heads(*shape)
        results = gradients(*args)
        assert [x.shape for x in results] == [x.shape for x in (args[0], *args)]
        same_bits(results, static(*args))
