"""Functions that read, write, select and count by position: against NumPy and PyTorch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import Array, as_array, same_bits

import dualgrad as dg
from dualgrad import functional as F
from dualgrad.runtime.config import config
from dualgrad.runtime.errors import ArgumentError, GradientError, IndexOutOfBounds

RNG = np.random.default_rng(3)
X = RNG.standard_normal((5, 4)).astype(np.float32)
SOURCE = RNG.standard_normal((7, 4)).astype(np.float32)
INDEX = RNG.integers(-5, 5, (7, 4))
ROWS = np.array([3, 0, 3, -2, 1, 1, -5])


def t(*arrays: Array) -> list[dg.Tensor]:
    return [dg.tensor(a) for a in arrays]


# -- in place -------------------------------------------------------------------------------------

IN_PLACE: dict[str, tuple[Any, ...]] = {
    "scatter": (0, INDEX, SOURCE),
    "scatter_add": (0, INDEX, SOURCE),
    "scatter_reduce": (0, INDEX, SOURCE, "sum"),
    "index_add": (0, ROWS, SOURCE),
    "index_copy": (0, ROWS, SOURCE),
    "index_fill": (0, ROWS, 2.5),
    "masked_fill": (X > 0, -1.0),
    "masked_scatter": (X > 0, SOURCE),
}


def operands(name: str) -> list[Any]:
    return [dg.tensor(a) if isinstance(a, np.ndarray) else a for a in IN_PLACE[name]]


@pytest.mark.parametrize("name", IN_PLACE)
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("layout", ["whole", "view"])
def test_in_place(name: str, compiled: bool, layout: str) -> None:
    want = getattr(dg, name)(dg.tensor(X), *operands(name))
    x = dg.tensor(X) if layout == "whole" else dg.zeros(5, 8)[:, ::2]
    x.copy_(dg.tensor(X))

    def change(x: dg.Tensor, *rest: Any) -> None:
        assert getattr(x, name + "_")(*rest) is x

    if compiled and layout == "whole":
        change = dg.function(change, strict=True)
    version = x.version
    change(x, *operands(name))
    same_bits(x, want, name)
    assert x.version > version


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_carries_gradients(name: str) -> None:
    results = []
    for change in (name, name + "_"):
        leaf = dg.tensor(X, requires_grad=True)
        rest = operands(name)
        floats = [a.requires_grad_() for a in rest if isinstance(a, dg.Tensor) and a.dtype.is_float]
        out = getattr(leaf * 1.0, change)(*rest)
        (out * out).sum().backward()
        results.append([leaf.grad, *(a.grad for a in floats)])
    for one, two in zip(*results, strict=True):
        same_bits(one, two, name)
    with pytest.raises(GradientError, match="a leaf"):
        getattr(leaf, name + "_")(*operands(name))


def test_updates_happen_where_the_tensor_lies() -> None:
    @dg.function(strict=True)
    def step(x: dg.Tensor, i: dg.Tensor, v: dg.Tensor) -> None:
        x.index_add_(0, i, v)

    x, i, v = dg.zeros(100, 3), dg.tensor([4, -1, 4]), dg.ones(3, 3)
    step(x, i, v)
    assert "temporary" not in step.ir()
    assert as_array(x).sum() == 9


def test_steps_of_a_loop_happen_in_one_memory() -> None:
    def run(x: dg.Tensor, w: dg.Tensor, i: dg.Tensor) -> Any:
        z = x * 2.0
        for t in range(1, 5):
            z[t] = z[t - 1] * w + z[t]
        z[i] += 1.0
        kept = z.clone()
        z.index_add_(0, i, w.expand(2, 4))
        z[1:] = z[:-1]
        z[0] = 5.0
        return z + 1.0, kept * 2.0, z[2:] * 3.0

    compiled = dg.function(run, strict=True)
    x, w, i = t(X, X[0], np.array([0, 2]))
    for got, want in zip(compiled(x, w, i), run(x, w, i), strict=True):
        same_bits(got, want)
    # one memory for the loop, one for what comes after the kept copy, one for the shifted rows
    wide = [line for line in compiled.ir().splitlines() if "temporary" in line and "[20]" in line]
    assert len(wide) == 3


@pytest.mark.parametrize("compiled", [False, True])
def test_a_bad_position_leaves_everything_alone(compiled: bool) -> None:
    def step(x: dg.Tensor, i: dg.Tensor) -> None:
        x.index_fill_(0, i, 1.0)

    call = dg.function(step, strict=True) if compiled else step
    x = dg.zeros(4)
    call(x, dg.tensor([1, 2]))
    with pytest.raises(IndexOutOfBounds, match="actual: -9"):
        call(x, dg.tensor([0, -9]))
    same_bits(x, np.array([0, 1, 1, 0], np.float32))


def test_updates_from_the_tensor_itself() -> None:
    x = dg.tensor(X)
    x.index_copy_(0, dg.tensor([4, 3, 2, 1, 0]), x)
    same_bits(x, X[::-1].copy())
    i = dg.tensor([1, 2, 0])
    i.index_add_(0, i, i)
    same_bits(i, np.array([1, 3, 2]))


def test_order_of_additions_does_not_depend_on_threads() -> None:
    values = RNG.standard_normal((3000, 300)).astype(np.float32)
    places = RNG.integers(0, 7, 3000)
    want = np.zeros((7, 300), np.float32)
    np.add.at(want, places, values)
    before = dg.get_num_threads()
    try:
        for threads in (1, 2, 5):
            dg.set_num_threads(threads)
            got = dg.zeros(7, 300).index_add(0, *t(places, values))
            same_bits(got, want)
            columns = dg.zeros(300, 7).index_add(1, dg.tensor(places), dg.tensor(values.T.copy()))
            same_bits(columns, want.T)
    finally:
        dg.set_num_threads(before)


# -- PyTorch as the oracle ------------------------------------------------------------------------


@pytest.mark.parametrize("reduce", ["sum", "prod", "mean", "amax", "amin"])
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("zeros", [False, True])
def test_scatter_reduce_against_torch(reduce: str, own: bool, zeros: bool) -> None:
    torch = pytest.importorskip("torch")
    index = np.array([[0, 1, 1, 2, 0, 1], [2, 2, 2, 0, 0, 3]])
    x = np.arange(1.0, 9.0).reshape(2, 4) / 2
    source = np.arange(12.0)[::-1].reshape(2, 6) / 4 + 0.25
    if zeros:
        x[0, 0], source[0, 1], source[1, 0], source[1, 1] = 0, 0, 0, 0
    source[0, 4] = source[0, 0]  # a tie
    weight = np.linspace(0.5, 1.5, 8).reshape(2, 4)
    a, b = (torch.tensor(v, requires_grad=True) for v in (x, source))
    want = a.scatter_reduce(1, torch.tensor(index), b, reduce, include_self=own)
    (want * torch.tensor(weight)).sum().backward()
    c, d = (dg.tensor(v, requires_grad=True) for v in (x, source))
    got = c.scatter_reduce(1, dg.tensor(index), d, reduce, own)
    (got * dg.tensor(weight)).sum().backward()
    np.testing.assert_allclose(as_array(got), want.detach().numpy(), rtol=1e-14)
    np.testing.assert_allclose(as_array(d.grad), b.grad.numpy(), rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(as_array(c.grad), a.grad.numpy(), rtol=1e-13, atol=1e-15)


def test_embedding_against_torch() -> None:
    torch = pytest.importorskip("torch")
    idx = np.array([[1, 4, 1], [0, 2, 4]])
    ours = dg.tensor(X, requires_grad=True)
    theirs = torch.tensor(X, requires_grad=True)
    weight = RNG.standard_normal((2, 3, 4)).astype(np.float32)
    (F.embedding(dg.tensor(idx), ours, padding_idx=-1) * dg.tensor(weight)).sum().backward()
    out = torch.nn.functional.embedding(torch.tensor(idx), theirs, padding_idx=4)
    (out * torch.tensor(weight)).sum().backward()
    np.testing.assert_allclose(as_array(ours.grad), theirs.grad.numpy(), rtol=1e-6)


# -- sizes that depend on values ------------------------------------------------------------------

SPECIAL = np.array([[0.0, -0.0, 3.0], [np.nan, 0.0, -np.inf]], np.float32)
MASKS = (X > 0.5, np.zeros((3, 0)), np.array(2.0), np.array(0), SPECIAL, np.zeros(4, bool))


@pytest.mark.parametrize("x", MASKS, ids=lambda x: str(np.shape(x)))
def test_nonzero(x: Array) -> None:
    (own,) = t(x)
    same_bits(own.nonzero(), np.argwhere(x))
    same_bits(dg.argwhere(own), np.argwhere(x))
    same_bits(dg.flatnonzero(own), np.flatnonzero(x))
    for got, want in zip(own.nonzero(as_tuple=True), np.atleast_1d(x).nonzero(), strict=True):
        same_bits(got, want)


def test_masked_select() -> None:
    x = dg.tensor(X, requires_grad=True)
    row = np.array([True, False, True, True])
    got = x.masked_select(dg.tensor(row))
    same_bits(got.detach(), X[:, row].ravel())
    got.sum().backward()
    same_bits(x.grad, np.broadcast_to(row, X.shape).astype(np.float32))
    same_bits(
        dg.masked_select(dg.tensor(X[0]), dg.tensor(X > 0)), np.broadcast_to(X[0], X.shape)[X > 0]
    )
    with pytest.raises(TypeError, match="a mask is bool"):
        dg.masked_select(x, x)


@pytest.mark.parametrize("x", [INDEX, INDEX % 2 == 0, SPECIAL, np.zeros((0, 2), np.int32)], ids=str)
def test_unique(x: Array) -> None:
    (own,) = t(x)
    values, first, inverse, counts = np.unique(x, True, True, True, equal_nan=False)
    same_bits(own.unique(), values)
    got = dg.unique(own, return_inverse=True, return_counts=True)
    for one, two in zip(got, (values, inverse.reshape(x.shape), counts), strict=True):
        same_bits(one, two)
    every = dg.unique_all(own)
    for one, two in zip(every, (values, first, inverse.reshape(x.shape), counts), strict=True):
        same_bits(one, two)
    same_bits(dg.unique_counts(own).counts, counts)
    same_bits(dg.unique_inverse(own).inverse_indices, inverse.reshape(x.shape))
    same_bits(dg.unique_values(own), values)


def test_unique_slices() -> None:
    x = np.array([[1, 2, 1], [0, 5, 0], [1, 2, 1]])
    for axis in (0, 1):
        values, inverse, counts = np.unique(x, False, True, True, axis=axis)
        got = dg.unique(dg.tensor(x), return_inverse=True, return_counts=True, dim=axis)
        for one, two in zip(got, (values, inverse.ravel(), counts), strict=True):
            same_bits(one, two)


def test_bincount() -> None:
    x = np.array([3, 0, 3, 3, 7], np.int32)
    weights = RNG.standard_normal(5)
    same_bits(dg.bincount(dg.tensor(x)), np.bincount(x))
    same_bits(dg.bincount(dg.tensor(x), minlength=12), np.bincount(x, minlength=12))
    same_bits(dg.bincount(*t(x, weights)), np.bincount(x, weights))
    same_bits(dg.bincount(*t(x, np.arange(5))), np.bincount(x, np.arange(5)))
    same_bits(dg.bincount(dg.zeros(0, dtype=dg.int64), minlength=2), np.zeros(2, np.int64))
    own = dg.tensor(weights, requires_grad=True)
    (dg.bincount(dg.tensor(x), own) * dg.arange(8, dtype=dg.float64)).sum().backward()
    same_bits(own.grad, x.astype(np.float64))
    with pytest.raises(ArgumentError, match="actual: -5"):
        dg.bincount(dg.tensor(INDEX.ravel()[INDEX.ravel().argsort()]))


def test_histc_of_all_values() -> None:
    x = X.ravel()
    same_bits(dg.histc(dg.tensor(X), 6), np.histogram(x, 6)[0].astype(np.float32))
    same_bits(dg.histc(dg.ones(3), 4), np.array([0, 0, 3, 0], np.float32))


def test_histogram_of_all_values() -> None:
    for x in (X, INDEX, np.full(3, 2.5), np.zeros(0)):
        for got, want in zip(dg.histogram(dg.tensor(x)), np.histogram(x), strict=True):
            if want.dtype.kind == "f":
                np.testing.assert_allclose(as_array(got), want, rtol=1e-6, atol=1e-7)
            else:
                same_bits(got, want)
    density, _ = dg.histogram(dg.tensor(X), 4, density=True)
    np.testing.assert_allclose(as_array(density), np.histogram(X, 4, density=True)[0], rtol=1e-6)
    with pytest.raises(ArgumentError, match="there must be bins"):
        dg.histogram(dg.tensor(X), 0)


def test_one_hot_of_all_classes() -> None:
    x = dg.tensor([[1, 0], [3, 1]])
    same_bits(F.one_hot(x), np.eye(4, dtype=np.int64)[as_array(x)])
    same_bits(F.one_hot(x, 5), np.eye(5, dtype=np.int64)[as_array(x)])


@pytest.mark.parametrize(
    "function",
    [dg.argwhere, dg.flatnonzero, dg.unique, dg.bincount, lambda x: x[x > 0]],
)
def test_sizes_that_depend_on_values_run_eagerly(function: Callable[..., Any]) -> None:
    x = dg.tensor([3, 0, 1])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        same_bits(dg.function(lambda x: function(x))(x), function(x))
    assert [w.category for w in caught] == [dg.EagerFallback]


# -- searching ------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 255, 256, 70_000])
def test_search_of_all_depths(n: int) -> None:
    ordered = np.sort(RNG.integers(0, n, n)).astype(np.float64)
    wanted = np.concatenate([ordered[:50], RNG.uniform(-1, n + 1, 50), [np.inf, -np.inf, np.nan]])
    for side in ("left", "right"):
        got = dg.searchsorted(*t(ordered, wanted), side)
        same_bits(got, np.searchsorted(ordered, wanted, side))
    same_bits(dg.searchsorted(dg.tensor(ordered), 0.5), np.array(np.searchsorted(ordered, 0.5)))


def test_search_in_rows() -> None:
    ordered = np.sort(RNG.standard_normal((2, 3, 9)), -1)
    wanted = RNG.standard_normal((2, 3, 5))
    want = [
        np.searchsorted(r, w)
        for r, w in zip(ordered.reshape(6, 9), wanted.reshape(6, 5), strict=True)
    ]
    same_bits(dg.searchsorted(*t(ordered, wanted)), np.reshape(want, (2, 3, 5)))


# -- computed places stay inside of memory --------------------------------------------------------


def test_bounds_checks_find_nothing() -> None:
    x, index, source, rows = t(X, INDEX, SOURCE, ROWS)

    def run(x: dg.Tensor, index: dg.Tensor, source: dg.Tensor, rows: dg.Tensor) -> Any:
        y = x.transpose(0, 1)
        return (
            x[rows],
            y[:, rows][1:],
            y.index_add(1, rows, source.transpose(0, 1)),
            x.scatter_add(0, index, source),
            x.gather(0, index),
            dg.searchsorted(dg.tensor([-1.0, 0.0, 1.0]), x),
        )

    want = run(x, index, source, rows)
    with config.scope(check=True):
        for one, two in zip(
            dg.function(run, strict=True)(x, index, source, rows), want, strict=True
        ):
            same_bits(one, two)


@pytest.mark.parametrize("n", [1, 3, 16, 17, 40, 129])
@pytest.mark.parametrize("bad", ["first", "last"])
def test_every_position_is_checked_before_anything_is_read(n: int, bad: str) -> None:
    """Positions far outside of memory would end the process if they were read."""
    index = np.zeros(n, np.int64)
    index[0 if bad == "first" else -1] = 1 << 40
    x = dg.ones(10)
    (i,) = t(index)
    calls = [
        lambda: x[i],
        lambda: dg.take(x, i, 0).sum(),
        lambda: dg.ones(10, 70)[i],
        lambda: dg.ones(10, 70)[i].sum(),
        lambda: dg.ones(3, 10)[:, i].sum(0),
        lambda: x.index_add(0, i, dg.ones(n)),
        lambda: dg.ones(10, 70).index_add(0, i, dg.ones(n, 70)),
        lambda: (dg.take(x, i, 0) * 2.0).max(),
    ]
    for call in calls:
        for run in (call, dg.function(call, strict=True)):
            with pytest.raises(IndexError, match="actual: 1099511627776"):
                run()
