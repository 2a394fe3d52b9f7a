"""MultiheadAttention against torch, in both modes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from module_pairs import check_pair, random

import dualgrad as dg
from dualgrad import nn
from dualgrad.runtime.errors import ArgumentError, DTypeError, ShapeError

E, HEADS, L, S, N = 8, 2, 3, 5, 4
PADDING = np.array([[0, 0, 0, 0, 0], [0, 0, 0, 1, 1], [0, 0, 0, 0, 1], [0, 1, 0, 1, 0]], bool)
MASK = np.triu(np.ones((L, S), bool), 2)
MASKS = np.array([np.roll(MASK, k, 1) for k in range(N * HEADS)])
FLOATS = random(L, S, seed=9)

LAYERS: list[tuple[str, dict[str, Any]]] = [
    ("plain", {}),
    ("no bias", {"bias": False}),
    ("batch first", {"batch_first": True}),
    ("own sizes", {"kdim": 6, "vdim": 7}),
    ("own sizes, no bias, batch first", {"kdim": 6, "bias": False, "batch_first": True}),
    ("bias_kv", {"add_bias_kv": True}),
    ("zero", {"add_zero_attn": True, "batch_first": True}),
    ("both", {"add_zero_attn": True, "add_bias_kv": True, "kdim": 6}),
]
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("plain", {}),
    ("padding", {"key_padding_mask": PADDING}),
    ("mask", {"attn_mask": MASK}),
    ("masks of heads", {"attn_mask": MASKS}),
    ("floats", {"attn_mask": FLOATS}),
    ("both", {"attn_mask": MASK, "key_padding_mask": PADDING}),
    ("both, floats", {"attn_mask": FLOATS, "key_padding_mask": random(N, S)}),
]


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch")


def pair(torch: Any, dtype: str, options: dict[str, Any]) -> tuple[Any, Any]:
    ours = nn.MultiheadAttention(E, HEADS, **options, dtype=getattr(dg, dtype))
    theirs = torch.nn.MultiheadAttention(E, HEADS, **options, dtype=getattr(torch, dtype))
    with torch.no_grad():
        for p in theirs.parameters():
            p.copy_(torch.tensor(random(*p.shape)) * 0.5)
    return ours, theirs


def inputs(options: dict[str, Any]) -> list[np.ndarray[Any, Any]]:
    arrays = [
        random(L, N, E),
        random(S, N, options.get("kdim", E)),
        random(S, N, options.get("vdim", E)),
    ]
    return [a.swapaxes(0, 1).copy() for a in arrays] if options.get("batch_first") else arrays


@pytest.mark.parametrize("weights", [{}, {"need_weights": False}, {"average_attn_weights": False}])
@pytest.mark.parametrize(("label", "options"), LAYERS)
def test_layers(torch: Any, label: str, options: dict[str, Any], weights: dict[str, Any]) -> None:
    masks = {"attn_mask": MASK, "key_padding_mask": PADDING}
    ours, theirs = pair(torch, "float64", options)
    check_pair(torch, ours, theirs, inputs(options), dtype="float64", **masks, **weights)


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize(("label", "masks"), CALLS)
def test_masks(torch: Any, label: str, masks: dict[str, Any], need_weights: bool) -> None:
    ours, theirs = pair(torch, "float32", {})
    check_pair(torch, ours, theirs, inputs({}), need_weights=need_weights, **masks)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("need_weights", [False, True])
def test_one_sequence(torch: Any, need_weights: bool, batch_first: bool) -> None:
    ours, theirs = pair(torch, "float32", {"batch_first": batch_first})
    masks = {"key_padding_mask": PADDING[1], "attn_mask": MASKS[:HEADS]}
    arrays = [random(L, E), random(S, E), random(S, E, seed=4)]
    check_pair(torch, ours, theirs, arrays, need_weights=need_weights, **masks)


@pytest.mark.parametrize("padding", [None, PADDING])
@pytest.mark.parametrize("need_weights", [False, True])
def test_causal_self_attention(torch: Any, need_weights: bool, padding: Any) -> None:
    ours, theirs = pair(torch, "float32", {})
    above = np.triu(np.ones((S, S), bool), 1)

    def call(module: Any, x: Any, **options: Any) -> Any:
        return module(x, x, x, need_weights=need_weights, is_causal=True, **options)

    masks = {"attn_mask": above, "key_padding_mask": padding}
    check_pair(torch, ours, theirs, [random(S, N, E)], call, **masks)
    x = dg.randn(S, N, E)
    alone, _ = ours(x, x, x, is_causal=True, need_weights=need_weights)
    masked, _ = ours(x, x, x, attn_mask=dg.from_numpy(above), need_weights=need_weights)
    np.testing.assert_allclose(alone.detach().numpy(), masked.detach().numpy(), atol=1e-6)


def test_dropout_of_weights() -> None:
    layer = nn.MultiheadAttention(E, HEADS, dropout=0.5)
    x = dg.randn(6, 3, E)

    def weights(module: nn.MultiheadAttention, x: dg.Tensor) -> dg.Tensor:
        return module(x, x, x, average_attn_weights=False)[1]

    dg.seed(5)
    eager = weights(layer, x)
    dg.seed(5)
    static = dg.function(weights, strict=True)(layer, x)
    assert np.array_equal(eager.detach().numpy(), static.detach().numpy())
    assert 0.2 < (eager == 0).float().mean().item() < 0.8
    layer.eval()
    assert (weights(layer, x) > 0).all().item()
    kept = weights(layer, x).detach().numpy() * 2
    drawn = eager.detach().numpy()
    np.testing.assert_allclose(drawn[drawn > 0], kept[drawn > 0], rtol=1e-5)


def test_a_query_that_sees_nothing() -> None:
    layer = nn.MultiheadAttention(E, HEADS)
    x = dg.randn(2, 1, E)
    hidden = dg.tensor([[True, True], [False, True]])
    for need_weights in (True, False):
        out, weights = layer(x, x, x, attn_mask=hidden, need_weights=need_weights)
        np.testing.assert_array_equal(
            out[0].detach().numpy(), layer.out_proj.bias.detach().numpy()[None]
        )
        if weights is not None:
            assert weights.tolist() == [[[0.0, 0.0], [1.0, 0.0]]]


def test_initial_values() -> None:
    layer = nn.MultiheadAttention(64, 4, add_bias_kv=True)
    bound = (6 / (64 + 3 * 64)) ** 0.5
    assert 0.9 * bound < layer.in_proj_weight.abs().max().item() <= bound
    assert layer.in_proj_bias.tolist() == [0.0] * 192
    assert layer.out_proj.bias.tolist() == [0.0] * 64
    assert 0 < layer.bias_k.abs().max().item() < 1


def test_refusals() -> None:
    for sizes in ((6, 4), (0, 1), (4, 0)):
        with pytest.raises(ArgumentError, match=r"num_heads|embed_dim"):
            nn.MultiheadAttention(*sizes)
    layer, x = nn.MultiheadAttention(E, HEADS), dg.randn(3, 2, E)
    with pytest.raises(ShapeError, match="query, key and value do not fit"):
        layer(x, x, dg.randn(3, 2, 7))
    with pytest.raises(ShapeError, match="query, key and value do not fit"):
        layer(x, x[0], x)
    with pytest.raises(DTypeError, match="a mask holds bools or floats"):
        layer(x, x, x, attn_mask=dg.ones(3, 3, dtype=dg.int64))
    with pytest.raises(ShapeError, match="another number of dimensions"):
        layer(x, x, x, key_padding_mask=dg.zeros(3, dtype=dg.bool_))
    with pytest.raises(ShapeError, match="do not broadcast"):
        layer(x, x, x, attn_mask=dg.zeros(3, 4))
