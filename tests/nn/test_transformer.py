"""Transformer layers against torch, in both modes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from module_pairs import check_pair, random

import dualgrad as dg
from dualgrad import nn
from dualgrad.runtime.errors import ArgumentError, ShapeError

E, HEADS, S, T, N, HIDDEN = 8, 2, 5, 4, 3, 6
PADDING = np.array([[0, 0, 0, 0, 0], [0, 0, 0, 1, 1], [0, 0, 0, 0, 1]], bool)


def causal(n: int) -> Any:
    return np.triu(np.ones((n, n), bool), 1)


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch")


OPTIONS: list[dict[str, Any]] = [
    {},
    {"norm_first": True, "activation": "gelu"},
    {"batch_first": True, "bias": False, "layer_norm_eps": 1e-3},
]


def pair(torch: Any, name: str, *args: Any, **options: Any) -> list[Any]:
    options |= {"dropout": 0.0}
    return [
        getattr(nn, name)(*args, **options, dtype=dg.float64),
        getattr(torch.nn, name)(*args, **options, dtype=torch.float64),
    ]


def sequence(length: int, options: dict[str, Any], seed: int = 3) -> Any:
    shape = (N, length, E) if options.get("batch_first") else (length, N, E)
    return random(*shape, seed=seed)


@pytest.mark.parametrize("masks", [{}, {"src_mask": causal(S), "src_key_padding_mask": PADDING}])
@pytest.mark.parametrize("options", OPTIONS)
def test_encoder_layer(torch: Any, options: dict[str, Any], masks: dict[str, Any]) -> None:
    ours, theirs = pair(torch, "TransformerEncoderLayer", E, HEADS, HIDDEN, **options)
    check_pair(torch, ours, theirs, [sequence(S, options)], dtype="float64", **masks)


@pytest.mark.parametrize("options", OPTIONS)
def test_decoder_layer(torch: Any, options: dict[str, Any]) -> None:
    ours, theirs = pair(torch, "TransformerDecoderLayer", E, HEADS, HIDDEN, **options)
    arrays = [sequence(T, options), sequence(S, options)]
    masks = {"tgt_mask": causal(T), "memory_key_padding_mask": PADDING, "tgt_is_causal": True}
    check_pair(torch, ours, theirs, arrays, dtype="float64", **masks)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_transformer(torch: Any, batch_first: bool) -> None:
    options = {"batch_first": batch_first}
    ours, theirs = pair(torch, "Transformer", E, HEADS, 2, 2, HIDDEN, **options)
    arrays = [sequence(S, options), sequence(T, options, 4)]
    masks = {
        "src_key_padding_mask": PADDING,
        "tgt_mask": causal(T),
        "memory_key_padding_mask": PADDING,
    }
    check_pair(torch, ours, theirs, arrays, dtype="float64", **masks)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_one_sequence(torch: Any) -> None:
    ours, theirs = pair(torch, "Transformer", E, HEADS, 1, 1, HIDDEN, norm_first=True)
    check_pair(torch, ours, theirs, [random(S, E), random(T, E)], dtype="float64")


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_encoder_of_a_layer_with_a_module_as_activation(torch: Any) -> None:
    built = []
    for lib, dtype in ((nn, dg.float64), (torch.nn, torch.float64)):
        layer = lib.TransformerEncoderLayer(
            E, HEADS, HIDDEN, dropout=0.0, activation=lib.GELU(), dtype=dtype
        )
        built.append(lib.TransformerEncoder(layer, 2))
    masks = {"mask": causal(S), "is_causal": True}
    check_pair(torch, *built, [random(S, N, E)], dtype="float64", **masks)
    first, second = built[0].layers
    assert first.linear1.weight is not second.linear1.weight


def test_dropout_in_training_only() -> None:
    model = nn.Transformer(E, HEADS, 1, 1, HIDDEN, dropout=0.3)
    x, y = dg.randn(S, N, E), dg.randn(T, N, E)
    run = dg.function(lambda x, y: model(x, y), strict=True)
    dg.seed(1)
    eager = model(x, y).detach().numpy()
    dg.seed(1)
    assert np.array_equal(run(x, y).detach().numpy(), eager)
    assert not np.array_equal(model(x, y).detach().numpy(), eager)
    model.eval()
    still = model(x, y).detach().numpy()
    assert np.array_equal(model(x, y).detach().numpy(), still)
    assert np.array_equal(run(x, y).detach().numpy(), still)


def test_causal_decoder_sees_no_future() -> None:
    model = nn.Transformer(E, HEADS, 1, 2, HIDDEN).eval()
    mask = nn.Transformer.generate_square_subsequent_mask(T)
    x, y = dg.randn(S, N, E), dg.randn(T, N, E)
    whole = model(x, y, tgt_mask=mask).detach().numpy()
    part = model(x, y[:2], tgt_mask=mask[:2, :2]).detach().numpy()
    np.testing.assert_allclose(whole[:2], part, rtol=0, atol=1e-5)


def test_mask_of_squares() -> None:
    mask = nn.Transformer.generate_square_subsequent_mask(3, dtype=dg.float64)
    inf = float("inf")
    assert mask.dtype is dg.float64
    assert mask.tolist() == [[0.0, -inf, -inf], [0.0, 0.0, -inf], [0.0, 0.0, 0.0]]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_floats(dtype: str) -> None:
    layer = nn.TransformerEncoderLayer(E, HEADS, HIDDEN, dropout=0.0)
    x = dg.randn(S, N, E)
    exact = layer(x).detach().numpy()
    low = layer.to(getattr(dg, dtype))(x.to(getattr(dg, dtype)))
    assert low.dtype is getattr(dg, dtype)
    np.testing.assert_allclose(low.detach().float().numpy(), exact, atol=0.06)


def test_refusals() -> None:
    with pytest.raises(ArgumentError, match="no such activation"):
        nn.TransformerEncoderLayer(E, HEADS, activation="swish")
    with pytest.raises(ArgumentError, match="num_heads"):
        nn.TransformerDecoderLayer(E, 3)
    model = nn.Transformer(E, HEADS, 1, 1, HIDDEN)
    with pytest.raises(ShapeError, match="batches of different sizes"):
        model(dg.zeros(S, 2, E), dg.zeros(T, 3, E))
