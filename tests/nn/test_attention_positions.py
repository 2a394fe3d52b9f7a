"""Rotary positions and the cache of keys and values, in both modes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dualgrad as dg
from dualgrad import functional as F
from dualgrad import nn
from dualgrad.runtime.errors import ArgumentError, IndexOutOfBounds, ShapeError

Array = np.ndarray[Any, Any]


def random(*shape: int, seed: int = 1) -> Array:
    return np.random.default_rng((seed, *shape)).standard_normal(shape)


def turned(x: Array, positions: Array, base: float, interleaved: bool) -> Array:
    """The formula, as products of complex numbers."""
    half = x.shape[-1] // 2
    angles = positions[..., None] * base ** (-np.arange(half) / half)
    a, b = (x[..., ::2], x[..., 1::2]) if interleaved else (x[..., :half], x[..., half:])
    z = (a + 1j * b) * np.exp(1j * angles)
    out = np.empty_like(x)
    if interleaved:
        out[..., ::2], out[..., 1::2] = z.real, z.imag
    else:
        out[..., :half], out[..., half:] = z.real, z.imag
    return out


@pytest.mark.parametrize("interleaved", [True, False])
@pytest.mark.parametrize("base", [10000.0, 100.0])
def test_rotary_by_its_formula(interleaved: bool, base: float) -> None:
    rotary = nn.RotaryEmbedding(8, 50, base, interleaved, dtype=dg.float64)
    x = random(2, 3, 7, 8)
    run = dg.function(lambda *xs: rotary(*xs), strict=True)
    positions = np.array([3, 0, 49, 1, 7, 7, 20])
    for given, places in (((), np.arange(7)), ((dg.tensor(positions),), positions)):
        want = turned(x, places, base, interleaved)
        eager = rotary(dg.tensor(x), *given).numpy()
        np.testing.assert_allclose(eager, want, rtol=0, atol=1e-13)
        assert np.array_equal(run(dg.tensor(x), *given).numpy(), eager)


def test_scores_depend_on_distances() -> None:
    rotary = nn.RotaryEmbedding(16, 100, dtype=dg.float64)
    q, k = (dg.tensor(random(1, 16, seed=s)) for s in (1, 2))

    def score(i: int, j: int) -> float:
        one, other = (dg.tensor([p]) for p in (i, j))
        return (rotary(q, one) * rotary(k, other)).sum().item()

    assert score(5, 2) == pytest.approx(score(93, 90), rel=1e-12)
    assert score(5, 2) != pytest.approx(score(5, 3), rel=1e-3)
    assert score(4, 4) == pytest.approx((q * k).sum().item(), rel=1e-12)


def test_rotary_gradient_and_low_floats() -> None:
    rotary = nn.RotaryEmbedding(4, dtype=dg.float64)
    assert dg.gradcheck(rotary, (dg.tensor(random(3, 4), requires_grad=True),))
    x = dg.randn(2, 5, 4)
    low = nn.RotaryEmbedding(4)(x.to(dg.bfloat16))
    assert low.dtype is dg.bfloat16
    np.testing.assert_allclose(low.float().numpy(), nn.RotaryEmbedding(4)(x).numpy(), atol=0.05)


def test_rotary_refusals() -> None:
    with pytest.raises(ArgumentError, match="turned in pairs"):
        nn.RotaryEmbedding(7)
    rotary = nn.RotaryEmbedding(4, 10)
    assert repr(rotary) == ("RotaryEmbedding(4, max_seq_len=10, base=10000.0, interleaved=True)")
    assert not rotary.state_dict()
    with pytest.raises(ShapeError, match="features do not fit"):
        rotary(dg.zeros(3, 6))
    with pytest.raises(ShapeError, match="too long"):
        rotary(dg.zeros(11, 4))
    with pytest.raises(IndexOutOfBounds):
        rotary(dg.zeros(1, 4), dg.tensor([10]))


class Attention(nn.Module):
    """Causal attention with rotary positions, over a whole text or with a cache."""

    def __init__(self, heads: int, dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(heads * dim, 3 * heads * dim)
        self.rotary = nn.RotaryEmbedding(dim, 64)

    def forward(self, x: dg.Tensor, cache: nn.KVCache | None = None) -> dg.Tensor:
        n, length, width = x.shape
        parts = self.qkv(x).reshape(n, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = parts.unbind(0)
        if cache is None:
            q, k = self.rotary(q), self.rotary(k)
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            positions, mask = cache.positions(length), cache.mask(length)
            q, k = self.rotary(q, positions), self.rotary(k, positions)
            y = F.scaled_dot_product_attention(q, *cache.update(k, v), mask)
        return y.permute(0, 2, 1, 3).reshape(n, length, width)


@pytest.mark.parametrize("compiled", [False, True])
def test_cache_gives_what_the_whole_text_gives(compiled: bool) -> None:
    layer, cache = Attention(2, 4), nn.KVCache(3, 12, 2, 4)
    x = dg.randn(3, 10, 8)
    whole = layer(x).detach().numpy()

    def advance(x: dg.Tensor) -> dg.Tensor:
        return layer(x, cache)

    run = dg.function(advance, strict=True) if compiled else advance
    for _ in range(2):
        cache.reset()
        found = [run(x[:, :4])]  # the prompt
        found += [run(x[:, k : k + 1]) for k in range(4, 10)]
        assert cache.size == 10
        together = dg.cat(found, 1).detach().numpy()
        np.testing.assert_allclose(together, whole, rtol=0, atol=2e-6)
    if compiled:
        assert run.n_traces == 2


def test_cache_in_both_modes_has_equal_bits() -> None:
    caches = [nn.KVCache(1, 5, 2, 4) for _ in range(2)]
    update = dg.function(lambda k, v: caches[1].update(k, v), strict=True)
    for length in (2, 1, 1, 1):
        k, v = dg.randn(1, 2, length, 4), dg.randn(1, 2, length, 4)
        for x, y in zip(caches[0].update(k, v), update(k, v), strict=True):
            assert np.array_equal(x.numpy(), y.numpy())
        assert caches[0].size == caches[1].size
    assert np.array_equal(caches[0].mask(1).numpy(), np.arange(5)[None] <= 5)
    assert update.n_traces == 2
    with pytest.raises(IndexOutOfBounds):
        update(k, v)
    with pytest.raises(IndexOutOfBounds):
        caches[0].update(k, v)
    assert caches[0].size == 5
    assert caches[1].size == 5


def test_cache_form_and_refusals() -> None:
    cache = nn.KVCache(1, 5, 2, 4, dtype=dg.bfloat16)
    assert repr(cache) == "KVCache(batch_size=1, max_seq_len=5, num_kv_heads=2, head_dim=4)"
    assert not cache.state_dict()
    assert cache.max_seq_len == 5
    k, _ = cache.update(dg.ones(1, 2, 1, 4), dg.ones(1, 2, 1, 4))
    assert k.dtype is dg.bfloat16
    assert cache.mask(2).tolist() == [[True] * 2 + [False] * 3, [True] * 3 + [False] * 2]
    for shape in ((1, 2, 6, 4), (2, 2, 1, 4), (1, 2, 4)):
        with pytest.raises(ShapeError, match="do not fit the cache"):
            cache.update(dg.zeros(shape), dg.zeros(shape))
    with pytest.raises(ArgumentError, match="a size does not fit"):
        nn.KVCache(0, 5, 2, 4)
