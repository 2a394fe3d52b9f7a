"""Attention and transformer layers against their formulas in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from module_pairs import random

import dualgrad as dg
from dualgrad import nn

Array = np.ndarray[Any, Any]
E, HEADS, L, N = 6, 3, 5, 2
D = E // HEADS
CAUSAL = np.triu(np.ones((L, L), bool), 1)


def weights_of(module: nn.Module) -> dict[str, Array]:
    """The parameters, all of them drawn anew, biases too."""
    with dg.no_grad():
        for k, p in enumerate(module.parameters()):
            p.copy_(dg.tensor(random(*p.shape, seed=k) * 0.5))
    return {name: p.detach().numpy() for name, p in module.named_parameters()}


def attention(w: dict[str, Array], x: Array, hidden: Array, prefix: str = "") -> Any:
    """Output [L, E] and weights [HEADS, L, L] of one sequence."""
    projected = x @ w[f"{prefix}in_proj_weight"].T + w[f"{prefix}in_proj_bias"]
    q, k, v = np.split(projected, 3, -1)
    mixed, found = np.empty_like(x), []
    for h in range(HEADS):
        own = slice(h * D, (h + 1) * D)
        e = np.exp(np.where(hidden, -np.inf, q[:, own] @ k[:, own].T / np.sqrt(D)))
        found.append(e / e.sum(-1, keepdims=True))
        mixed[:, own] = found[-1] @ v[:, own]
    return mixed @ w[f"{prefix}out_proj.weight"].T + w[f"{prefix}out_proj.bias"], np.stack(found)


def norm(w: dict[str, Array], name: str, x: Array) -> Array:
    scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]


@pytest.mark.parametrize("decorate", [lambda f: f, lambda f: dg.function(f, strict=True)])
def test_attention(decorate: Any) -> None:
    layer = nn.MultiheadAttention(E, HEADS, batch_first=True, dtype=dg.float64)
    w, x = weights_of(layer), random(N, L, E)
    padding = np.zeros((N, L), bool)
    padding[1, 3:] = True

    def run(x: dg.Tensor, mask: dg.Tensor, padding: dg.Tensor) -> Any:
        return layer(x, x, x, padding, attn_mask=mask, average_attn_weights=False)

    got = decorate(run)(*(dg.tensor(a) for a in (x, CAUSAL, padding)))
    wanted = [attention(w, x[k], CAUSAL | padding[k]) for k in range(N)]
    for found, want in zip(got, zip(*wanted, strict=True), strict=True):
        np.testing.assert_allclose(found.detach().numpy(), np.stack(want), rtol=0, atol=1e-13)


@pytest.mark.parametrize("norm_first", [False, True])
def test_encoder_layer(norm_first: bool) -> None:
    layer = nn.TransformerEncoderLayer(
        E, HEADS, 7, dropout=0.0, norm_first=norm_first, dtype=dg.float64
    )
    w, x = weights_of(layer), random(L, E)

    def attend(x: Array) -> Array:
        out: Array = attention(w, x, CAUSAL, "self_attn.")[0]
        return out

    def feed(x: Array) -> Array:
        inner = np.maximum(x @ w["linear1.weight"].T + w["linear1.bias"], 0)
        return inner @ w["linear2.weight"].T + w["linear2.bias"]

    want = x
    for name, block in (("norm1", attend), ("norm2", feed)):
        if norm_first:
            want = want + block(norm(w, name, want))
        else:
            want = norm(w, name, want + block(want))
    got = layer(dg.tensor(x), dg.tensor(CAUSAL), is_causal=True)
    np.testing.assert_allclose(got.detach().numpy(), want, rtol=0, atol=1e-12)


def test_gradients_by_differences() -> None:
    layer = nn.TransformerDecoderLayer(4, 2, 3, dropout=0.0, activation="gelu", dtype=dg.float64)
    weights_of(layer)
    x = dg.tensor(random(3, 4), requires_grad=True)
    memory = dg.tensor(random(2, 4), requires_grad=True)
    assert dg.gradcheck(layer, (x, memory))
