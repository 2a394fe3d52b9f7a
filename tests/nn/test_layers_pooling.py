"""Pooling as layers: PyTorch's, in both modes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from nn_layers import Build, check_layer, check_modes, check_signature, drawn

import dualgrad as dg
from dualgrad import functional as F
from dualgrad import nn
from dualgrad.runtime.errors import ArgumentError, ShapeError

SHAPES = {1: (2, 3, 9), 2: (2, 3, 7, 6), 3: (1, 2, 5, 4, 6)}

POOLS: list[tuple[int, Build]] = [
    (1, lambda nn: nn.MaxPool1d(2)),
    (1, lambda nn: nn.MaxPool1d(3, 2, 1, return_indices=True)),
    (2, lambda nn: nn.MaxPool2d(2)),
    (2, lambda nn: nn.MaxPool2d((3, 2), stride=(2, 1), padding=1, ceil_mode=True)),
    (2, lambda nn: nn.MaxPool2d(2, dilation=2, stride=1, return_indices=True)),
    (3, lambda nn: nn.MaxPool3d(2, return_indices=True)),
    (1, lambda nn: nn.AvgPool1d(3)),
    (1, lambda nn: nn.AvgPool1d(3, 2, 1, ceil_mode=True, count_include_pad=False)),
    (2, lambda nn: nn.AvgPool2d(2)),
    (2, lambda nn: nn.AvgPool2d((3, 2), 2, 1, count_include_pad=False)),
    (2, lambda nn: nn.AvgPool2d(2, divisor_override=3)),
    (3, lambda nn: nn.AvgPool3d(2, (1, 2, 2))),
    (1, lambda nn: nn.LPPool1d(2, 3)),
    (2, lambda nn: nn.LPPool2d(2, (2, 3), stride=1)),
    (2, lambda nn: nn.LPPool2d(1.0, 2, ceil_mode=True)),
    (3, lambda nn: nn.LPPool3d(2, 2)),
    (1, lambda nn: nn.AdaptiveAvgPool1d(4)),
    (2, lambda nn: nn.AdaptiveAvgPool2d(1)),
    (2, lambda nn: nn.AdaptiveAvgPool2d((3, None))),
    (3, lambda nn: nn.AdaptiveAvgPool3d((2, 3, 1))),
    (1, lambda nn: nn.AdaptiveMaxPool1d(4)),
    (2, lambda nn: nn.AdaptiveMaxPool2d((None, 2), return_indices=True)),
    (3, lambda nn: nn.AdaptiveMaxPool3d(2)),
]

NAMES = [f"{kind}Pool{rank}d" for kind in ("Max", "Avg", "LP") for rank in (1, 2, 3)]
NAMES += [f"Adaptive{kind}Pool{rank}d" for kind in ("Max", "Avg") for rank in (1, 2, 3)]
NAMES += [f"MaxUnpool{rank}d" for rank in (1, 2, 3)]

each_pool = pytest.mark.parametrize(
    ("rank", "build"), POOLS, ids=[repr(build(nn)) for _, build in POOLS]
)


@each_pool
def test_as_pytorch(rank: int, build: Build) -> None:
    check_layer(build, np.abs(drawn(*SHAPES[rank])) + 0.01 * drawn(*SHAPES[rank], seed=8))


@pytest.mark.parametrize(("rank", "build"), POOLS[1::4])
def test_without_a_batch(rank: int, build: Build) -> None:
    check_layer(build, drawn(*SHAPES[rank][1:]))


@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_pytorchs(name: str) -> None:
    check_signature(name)


def windows(x: Any, size: int) -> Any:
    """Windows [N, C, H, W, size * size] of x that do not overlap."""
    n, c, h, w = x.shape
    parts = x.reshape(n, c, h // size, size, w // size, size).swapaxes(3, 4)
    return parts.reshape(n, c, h // size, w // size, size * size)


def test_known_values() -> None:
    x = drawn(2, 3, 4, 6)
    parts = windows(x, 2).astype(np.float64)
    for layer, want in [
        (nn.MaxPool2d(2), parts.max(-1)),
        (nn.AvgPool2d(2), parts.mean(-1)),
        (nn.LPPool2d(2, 2), np.sqrt((parts**2).sum(-1))),
        (nn.AdaptiveAvgPool2d((2, 3)), parts.mean(-1)),
        (nn.AdaptiveMaxPool2d((2, 3)), parts.max(-1)),
    ]:
        found = check_modes(layer, x)["output 0"].numpy()
        np.testing.assert_allclose(found, want, rtol=2e-6, atol=1e-6, err_msg=repr(layer))


UNPOOLS: list[tuple[int, Any, tuple[int, ...] | None]] = [
    (1, (2,), None),
    (1, (3, 2), (9,)),
    (2, (2,), None),
    (2, (2,), (2, 3, 7, 6)),
    (2, ((3, 2), (2, 1), 1), None),
    (3, (2,), None),
    (3, (2,), (5, 4, 6)),
]


@pytest.mark.parametrize(("rank", "arguments", "size"), UNPOOLS)
def test_unpooling_as_pytorch(rank: int, arguments: Any, size: tuple[int, ...] | None) -> None:
    torch = pytest.importorskip("torch")
    pool = getattr(torch.nn, f"MaxPool{rank}d")(*arguments, return_indices=True)
    theirs, ours = (getattr(m, f"MaxUnpool{rank}d")(*arguments) for m in (torch.nn, nn))
    assert repr(ours) == repr(theirs)
    values, places = pool(torch.tensor(drawn(*SHAPES[rank])))
    values = values + 0.5  # other values, so that they are not found in the input
    want = theirs(values, places, output_size=size)
    x, idx = dg.tensor(values.numpy(), requires_grad=True), dg.tensor(places.numpy())
    for forward in (ours, dg.function(lambda *xs: ours(*xs, output_size=size), strict=True)):
        found = forward(x, idx, size) if forward is ours else forward(x, idx)
        np.testing.assert_array_equal(found.detach().numpy(), want.numpy())
    found.sum().backward()
    unique = np.stack([[len(set(c.ravel())) for c in row] for row in places.numpy()])
    counts = x.grad.numpy().reshape(*x.shape[:2], -1).sum(-1)
    np.testing.assert_array_equal(counts, unique)  # of several for one place, one gets it


def test_unpooling_undoes_pooling() -> None:
    pool, back = nn.MaxPool2d(2, return_indices=True), nn.MaxUnpool2d(2)
    x = drawn(2, 3, 4, 6)
    y = back(*pool(dg.tensor(x))).numpy()
    kept = windows(x, 2) == windows(x, 2).max(-1, keepdims=True)
    np.testing.assert_array_equal(windows(y, 2), np.where(kept, windows(x, 2), 0))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.MaxPool2d(0), ArgumentError, "kernel_size does not fit"),
        (lambda: nn.MaxPool2d((2, 2, 2)), ArgumentError, "kernel_size does not fit"),
        (lambda: nn.AvgPool1d(2, padding=-1), ArgumentError, "padding does not fit"),
        (lambda: nn.MaxPool2d(2, padding=2)(dg.zeros(1, 1, 4, 4)), ArgumentError, "too large"),
        (lambda: nn.MaxPool2d(5)(dg.zeros(1, 1, 4, 4)), ShapeError, "larger than"),
        (lambda: nn.MaxPool2d(2)(dg.zeros(4, 4)), ShapeError, "number of dimensions"),
        (lambda: nn.LPPool2d("2", 2), ArgumentError, "norm_type"),
        (
            lambda: F.max_unpool1d(dg.zeros(1, 1, 2), dg.zeros(1, 1, 3, dtype=dg.int64), 2),
            ShapeError,
            "different shapes",
        ),
        (
            lambda: F.max_unpool1d(dg.ones(1, 1, 1), dg.full((1, 1, 1), 9), 2),
            IndexError,
            "actual: 9",
        ),
    ],
)
def test_refused(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
