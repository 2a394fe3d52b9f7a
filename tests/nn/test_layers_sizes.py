"""Layers in compiled functions whose inputs change their sizes: the bits of eager mode, and at
most one trace more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from nn_layers import drawn
from support import same_bits

import dualgrad as dg
from dualgrad import nn

Shape = tuple[int, ...]
BATCHES: list[Shape] = [(2, 4, 6, 6), (3, 4, 6, 6), (5, 4, 6, 6), (1, 4, 6, 6)]
SPACES: list[Shape] = [(2, 4, 6, 6), (2, 4, 8, 6), (2, 4, 10, 6), (2, 4, 12, 6)]
# The gradient of a bias adds up places in blocks of 64: several are another program than one.
SMALL_SPACES: list[Shape] = [(2, 4, 4, 6), (2, 4, 6, 6), (2, 4, 7, 6), (2, 4, 8, 6)]
LARGE_SPACES: list[Shape] = [(2, 4, 10, 6), (2, 4, 12, 6), (2, 4, 14, 6), (2, 4, 16, 6)]
LENGTHS: list[Shape] = [(2, 4), (2, 6), (2, 10)]

LAYERS: list[tuple[Callable[[], Any], list[Shape]]] = [
    (lambda: nn.Conv2d(4, 3, 3, padding="same"), BATCHES),
    (lambda: nn.Conv2d(4, 4, 3, stride=2, groups=4), BATCHES),
    (lambda: nn.Conv2d(4, 2, 2, groups=2, padding=1, padding_mode="circular"), SMALL_SPACES),
    (lambda: nn.Conv2d(4, 2, 2, groups=2, padding=1, padding_mode="circular"), LARGE_SPACES),
    (lambda: nn.ConvTranspose2d(4, 3, 3, stride=2), SPACES),
    (lambda: nn.MaxPool2d(2), BATCHES),
    (lambda: nn.MaxPool2d(3, 2, 1, ceil_mode=True), SPACES),
    (lambda: nn.AvgPool2d(2), SPACES),
    (lambda: nn.LPPool2d(2, 2), BATCHES),
    (lambda: nn.AdaptiveAvgPool2d(1), SPACES),
    (lambda: nn.AdaptiveMaxPool2d(2), BATCHES),
    (lambda: nn.ReflectionPad2d(2), SPACES),
    (lambda: nn.ZeroPad2d((1, 0, 2, 3)), BATCHES),
    (lambda: nn.Upsample(scale_factor=2), SPACES),
    (lambda: nn.Upsample(size=5, mode="bilinear"), BATCHES),
    (lambda: nn.PixelShuffle(2), SPACES),
    (lambda: nn.PixelUnshuffle(2), SPACES),
    (lambda: nn.Unfold(2), BATCHES),
    (lambda: nn.Flatten(), BATCHES),
    (lambda: nn.Unflatten(1, (2, -1)), BATCHES),
    (lambda: nn.Dropout2d(), BATCHES),
    (lambda: nn.AlphaDropout(), SPACES),
    (lambda: nn.PReLU(4), BATCHES),
    (lambda: nn.Softmax2d(), SPACES),
    (lambda: nn.GLU(), LENGTHS),
    (lambda: nn.GLU(1), BATCHES),
    (lambda: nn.Softmax(), LENGTHS),
]


@pytest.mark.parametrize(
    ("build", "shapes"), LAYERS, ids=[f"{build()!r}-{len(s)}" for build, s in LAYERS]
)
def test_sizes_change(build: Callable[[], Any], shapes: list[Shape]) -> None:
    layer = build()
    forward = dg.function(lambda x: layer(x), strict=True)
    for k, shape in enumerate(shapes):
        results = []
        for run in (layer, forward):
            dg.seed(k)
            x = dg.tensor(drawn(*shape), requires_grad=True)
            y = run(x)
            (y * y).sum().backward()
            results.append((y.detach(), x.grad))
        for eager, static in zip(*results, strict=True):
            same_bits(static, eager, shape)
    assert forward.n_traces <= 2 + (1 in {n for shape in shapes for n in shape})
