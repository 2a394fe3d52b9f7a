"""Dropout layers: their law, which channels go together, and the same bits in both modes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from nn_layers import check_layer, check_signature, drawn
from support import same_bits

import dualgrad as dg
from dualgrad import functional as F
from dualgrad import nn
from dualgrad.runtime.errors import ArgumentError, ShapeError

NAMES = ["Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout"]
SHAPES = {"Dropout1d": (40, 50, 3), "Dropout3d": (40, 50, 2, 1, 2)}
SELU_LOWEST = -1.7580993408473766  # - scale * alpha


def shape_for(name: str) -> tuple[int, ...]:
    return SHAPES.get(name, (40, 50, 2, 3))


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_and_p_of_0_change_nothing(name: str) -> None:
    shape = shape_for(name)
    x = dg.tensor(drawn(*shape))
    assert getattr(nn, name)(0.3).eval()(x) is x
    assert getattr(nn, name)(0.0)(x) is x
    np.testing.assert_array_equal(getattr(nn, name)(1.0)(x).numpy(), 0)
    check_layer(lambda nn: getattr(nn, name)(0.3).eval(), drawn(2, 3, *shape[2:]))


@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_pytorchs(name: str) -> None:
    check_signature(name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("p", [0.2, 0.7])
def test_shares(name: str, p: float) -> None:
    """About a share p is left out, together in each channel where the layer is about channels."""
    x = dg.ones(shape_for(name))
    y = getattr(nn, name)(p)(x).numpy()
    kept = y == y.max()
    assert len(np.unique(y)) == 2
    whole = name not in ("Dropout", "AlphaDropout")
    draws = kept.reshape(40 * 50, -1)
    assert (draws == draws[:, :1]).all() == whole
    count = draws.size if not whole else len(draws)
    assert abs((1 - kept.mean()) - p) < 5 * math.sqrt(p * (1 - p) / count)
    if "Alpha" not in name:
        np.testing.assert_allclose(np.unique(y), [0, 1 / (1 - p)], rtol=1e-6)


@pytest.mark.parametrize("p", [0.2, 0.7])
def test_alpha_dropout_scales_and_shifts_as_published(p: float) -> None:
    scale = 1 / math.sqrt((SELU_LOWEST**2 * p + 1) * (1 - p))
    low, kept = ((v - SELU_LOWEST * p) * scale for v in (SELU_LOWEST, 1.0))
    y = nn.AlphaDropout(p)(dg.ones(1000)).numpy()
    np.testing.assert_allclose(np.unique(y), [low, kept], rtol=1e-6)
    torch = pytest.importorskip("torch")
    theirs = torch.nn.AlphaDropout(p)(torch.ones(1000)).unique().numpy()
    np.testing.assert_allclose(np.unique(y), theirs, rtol=1e-5)


def test_alpha_dropout_keeps_mean_and_variance() -> None:
    x = dg.randn(200000)
    y = nn.AlphaDropout(0.3)(x)
    assert y.mean().item() == pytest.approx(0, abs=0.02)
    assert y.var().item() == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize(
    ("name", "shape", "axes"),
    [
        ("Dropout1d", (300, 7), 1),
        ("Dropout2d", (30, 10, 7), 2),
        ("Dropout3d", (300, 2, 2, 3), 1),
        ("FeatureAlphaDropout", (30, 10), 2),
    ],
)
def test_channels_without_a_batch(name: str, shape: tuple[int, ...], axes: int) -> None:
    y = getattr(nn, name)()(dg.ones(shape)).numpy()
    draws = y.reshape(math.prod(shape[:axes]), -1)
    assert (draws == draws[:, :1]).all()
    assert 0.3 < (draws[:, 0] == y.max()).mean() < 0.7


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_both_modes_draw_the_same(name: str, in_place: bool) -> None:
    layer = getattr(nn, name)(0.4, in_place)

    def call(x: dg.Tensor) -> tuple[dg.Tensor, dg.Tensor]:
        x = x * 1.0
        y = layer(x)
        (y * y).sum().backward()
        return y, x

    found = []
    compiled = dg.function(call, strict=True)
    for run in (call, compiled):
        dg.seed(5)
        x = dg.tensor(drawn(*shape_for(name)), requires_grad=True)
        x.grad = dg.zeros_like(x)
        results = [t.detach() for _ in range(2) for t in run(x)]
        found.append([*results, x.grad, dg.get_rng_state()])
    for eager, static in zip(*found, strict=True):
        same_bits(static, eager)
    first, second = (found[0][k].numpy() for k in (0, 2))
    assert (first != second).any()
    assert compiled.n_traces == 1
    if in_place:
        same_bits(found[0][0], found[0][1])


@pytest.mark.parametrize("name", NAMES)
def test_train_and_eval_alternate(name: str) -> None:
    layer = getattr(nn, name)()
    forward = dg.function(lambda x: layer(x), strict=True)
    x = dg.tensor(drawn(*shape_for(name)))
    for _ in range(3):
        assert (forward(x).numpy() != x.numpy()).any()
        layer.eval()
        same_bits(forward(x), x)
        layer.train()
    assert forward.n_traces == 2


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [dg.float16, dg.bfloat16, dg.float64])
def test_other_floats(name: str, dtype: dg.DType) -> None:
    x = dg.tensor(drawn(*shape_for(name))).to(dtype)
    found = []
    for y in (x, x.to(dg.float64)):
        dg.seed(1)
        found.append(getattr(nn, name)(0.3)(y))
    assert found[0].dtype is dtype
    precision = {dg.float16: 2**-11, dg.bfloat16: 2**-8, dg.float64: 0}[dtype]
    got, want = (y.to(dg.float64).numpy() for y in found)
    np.testing.assert_allclose(got, want, rtol=2 * precision, atol=precision / 2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.Dropout(1.5), ArgumentError, "0 <= p <= 1"),
        (lambda: nn.AlphaDropout(-0.1), ArgumentError, "0 <= p <= 1"),
        (lambda: nn.Dropout2d()(dg.zeros(3, 2)), ShapeError, "3 or 4 dimensions"),
        (lambda: nn.Dropout1d()(dg.zeros(3)), ShapeError, "2 or 3 dimensions"),
        (lambda: F.feature_alpha_dropout(dg.zeros(3), 0.5, True), ShapeError, "dimensions"),
        (lambda: F.dropout3d(dg.zeros(3, 2, 2, 2), 2.0), ArgumentError, "no probability"),
    ],
)
def test_refused(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
