"""Layers that move elements: padding, resampling, shuffles, fold, flatten; and distances."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from nn_layers import Build, check_layer, check_modes, check_signature, drawn

import dualgrad as dg
from dualgrad import nn
from dualgrad.runtime.errors import ArgumentError, ShapeError

SHAPES = {1: (2, 3, 7), 2: (2, 3, 5, 6), 3: (1, 2, 4, 5, 3)}
KINDS = ("ZeroPad", "ReflectionPad", "ReplicationPad", "CircularPad")
PADS: list[tuple[int, Build]] = [
    (rank, lambda nn, kind=kind, rank=rank, p=p: getattr(nn, f"{kind}{rank}d")(p))
    for kind in KINDS
    for rank, p in [(1, (3, 1)), (2, 2), (2, (1, 0, 2, 3)), (3, (1, 2, 0, 1, 2, 1))]
]
PADS += [
    (1, lambda nn: nn.ConstantPad1d(2, 3.5)),
    (2, lambda nn: nn.ConstantPad2d((1, -2, -1, 3), -1.0)),
    (3, lambda nn: nn.ConstantPad3d(1, 0)),
    (2, lambda nn: nn.ZeroPad2d((-1, 1, 0, -2))),
]


@pytest.mark.parametrize(("rank", "build"), PADS, ids=[repr(build(nn)) for _, build in PADS])
def test_padding_as_pytorch(rank: int, build: Build) -> None:
    check_layer(build, drawn(*SHAPES[rank]))
    check_layer(build, drawn(*SHAPES[rank][1:]))


def test_padding_as_numpy() -> None:
    x = drawn(2, 3, 4, 5)
    widths = [(0, 0), (0, 0), (2, 1), (1, 3)]
    modes = dict(zip(KINDS, ("constant", "reflect", "edge", "wrap"), strict=True))
    for kind, mode in modes.items():
        layer = getattr(nn, f"{kind}2d")((1, 3, 2, 1))
        np.testing.assert_array_equal(check_modes(layer, x)["output 0"], np.pad(x, widths, mode))


OTHERS: list[tuple[tuple[int, ...], Build]] = [
    ((2, 3, 4), lambda nn: nn.Upsample(scale_factor=2)),
    ((2, 3, 4, 5), lambda nn: nn.Upsample(scale_factor=(2, 1.5))),
    ((2, 3, 4, 5), lambda nn: nn.Upsample(7)),
    ((2, 3, 4, 5), lambda nn: nn.Upsample((7, 3), mode="bilinear")),
    ((2, 3, 4, 5), lambda nn: nn.Upsample(scale_factor=1.7, mode="bicubic", align_corners=True)),
    ((2, 3, 4), lambda nn: nn.Upsample(scale_factor=2.5, mode="linear")),
    ((1, 2, 3, 4, 3), lambda nn: nn.Upsample(5, mode="trilinear", align_corners=True)),
    (
        (2, 3, 4, 5),
        lambda nn: nn.Upsample(scale_factor=1.6, mode="bilinear", recompute_scale_factor=True),
    ),
    ((2, 3, 4, 5), lambda nn: nn.UpsamplingNearest2d(scale_factor=3)),
    ((2, 3, 4, 5), lambda nn: nn.UpsamplingBilinear2d((6, 9))),
    ((2, 12, 3, 2), lambda nn: nn.PixelShuffle(2)),
    ((2, 3, 6, 9), lambda nn: nn.PixelUnshuffle(3)),
    ((2, 6, 3, 2), lambda nn: nn.ChannelShuffle(3)),
    ((2, 3, 5, 6), lambda nn: nn.Unfold(2)),
    ((2, 3, 5, 6), lambda nn: nn.Unfold((2, 3), dilation=2, padding=1, stride=(2, 1))),
    ((2, 12, 6), lambda nn: nn.Fold((3, 4), 2)),
    ((12, 25), lambda nn: nn.Fold(8, (2, 3), padding=(1, 2), stride=2)),
    ((2, 3, 4, 5), lambda nn: nn.Flatten()),
    ((2, 3, 4, 5), lambda nn: nn.Flatten(0, -2)),
    ((2, 12, 3), lambda nn: nn.Unflatten(1, (3, 4))),
    ((2, 12, 3), lambda nn: nn.Unflatten(-2, (2, -1, 3))),
]


@pytest.mark.parametrize(
    ("shape", "build"), OTHERS, ids=[f"{build(nn)!r}-{shape}" for shape, build in OTHERS]
)
def test_as_pytorch(shape: tuple[int, ...], build: Build) -> None:
    check_layer(build, drawn(*shape))


def test_folding_counts_what_unfolding_shows() -> None:
    """fold(unfold(x)) is x times the number of windows that show each element."""
    x = drawn(2, 3, 5, 6)
    unfold, fold = nn.Unfold(3, padding=1), nn.Fold((5, 6), 3, padding=1)
    rows, columns = (np.convolve(np.ones(n), np.ones(3), "same") for n in (5, 6))
    found = fold(unfold(dg.tensor(x))).numpy()
    np.testing.assert_allclose(found, x * np.outer(rows, columns), rtol=1e-6, atol=1e-6)


def test_shuffles_undo_each_other() -> None:
    x = drawn(2, 12, 4, 6)
    back = nn.Sequential(nn.PixelShuffle(2), nn.PixelUnshuffle(2))
    np.testing.assert_array_equal(check_modes(back, x)["output 0"].numpy(), x)
    block = x[0, :4, 1, 2].reshape(2, 2)  # of channel 0
    np.testing.assert_array_equal(nn.PixelShuffle(2)(dg.tensor(x)).numpy()[0, 0, 2:4, 4:6], block)


@pytest.mark.parametrize(
    "build",
    [
        lambda nn: nn.CosineSimilarity(),
        lambda nn: nn.CosineSimilarity(0, 0.1),
        lambda nn: nn.PairwiseDistance(),
        lambda nn: nn.PairwiseDistance(1.0, 0.0, keepdim=True),
    ],
)
def test_distances_as_pytorch(build: Build) -> None:
    check_layer(build, drawn(4, 5), drawn(4, 5, seed=3))


NAMES = [f"{kind}{rank}d" for kind in (*KINDS, "ConstantPad") for rank in (1, 2, 3)]
NAMES += ["Upsample", "UpsamplingNearest2d", "UpsamplingBilinear2d", "PixelShuffle"]
NAMES += ["PixelUnshuffle", "ChannelShuffle", "Unfold", "Fold", "Flatten", "Unflatten"]
NAMES += ["CosineSimilarity", "PairwiseDistance", "Identity"]


@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_pytorchs(name: str) -> None:
    check_signature(name)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.ZeroPad2d((1, 2)), ArgumentError, "an int or 4 ints"),
        (lambda: nn.ZeroPad1d(1.5), ArgumentError, "padding does not fit"),
        (lambda: nn.ConstantPad1d(1, "0"), ArgumentError, "value"),
        (lambda: nn.ReflectionPad1d(3)(dg.zeros(1, 1, 3)), ShapeError, "too short"),
        (lambda: nn.PixelShuffle(0), ArgumentError, "upscale_factor=0"),
        (lambda: nn.PixelShuffle(2)(dg.zeros(1, 3, 2, 2)), ShapeError, "factor"),
        (lambda: nn.Unflatten(1, (2, 2))(dg.zeros(1, 5)), ShapeError, "sizes differ"),
        (lambda: nn.Upsample()(dg.zeros(1, 1, 2)), ArgumentError, "scale factors do not fit"),
        (lambda: nn.ChannelShuffle(2)(dg.zeros(1, 3, 2)), ShapeError, "groups"),
    ],
)
def test_refused(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_functions_are_where_pytorch_has_them() -> None:
    found = importlib.import_module("dualgrad.nn.functional")
    assert found is nn.functional
    assert all(getattr(found, name) is getattr(dg.functional, name) for name in found.__all__)
    assert found.__all__ == dg.functional.__all__
