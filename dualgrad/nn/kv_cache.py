"""Keys and values of the tokens so far, for generation token by token."""

from __future__ import annotations

from typing import Any

from dualgrad.creation import zeros
from dualgrad.nn.checks import check_counts
from dualgrad.nn.module import Module
from dualgrad.ranges import arange
from dualgrad.runtime.dtype import int64
from dualgrad.runtime.errors import ShapeError
from dualgrad.state import no_grad
from dualgrad.tensor import Tensor


class KVCache(Module):
    """Room for the keys and values of `max_seq_len` tokens, filled in place.

        positions = cache.positions(length)             # of the new tokens, for rotary positions
        mask = cache.mask(length)                       # what these may look at
        k, v = cache.update(k, v)                       # all tokens so far
        y = F.scaled_dot_product_attention(q, k, v, mask)

    All shapes stay the same from token to token, and the number of tokens so far is a tensor, so a
    compiled function is traced once for the prompt and once for all tokens after it.  No gradient
    flows through a cache, and it is no part of the state.

    k_cache, v_cache  [batch_size, num_kv_heads, max_seq_len, head_dim]; zeros where none is yet
    length            the number of tokens so far, an int64 tensor of no dimensions
    """

    k_cache: Tensor
    v_cache: Tensor
    length: Tensor

    def __init__(
        self,
        batch_size: int,
        max_seq_len: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: Any = None,
        device: Any = None,
    ) -> None:
        shape = (batch_size, num_kv_heads, max_seq_len, head_dim)
        names = ("batch_size", "num_kv_heads", "max_seq_len", "head_dim")
        check_counts("KVCache", 1, **dict(zip(names, shape, strict=True)))
        for name in ("k_cache", "v_cache"):
            self.register_buffer(name, zeros(*shape, dtype=dtype, device=device), persistent=False)
        length = zeros((), dtype=int64, device=device)
        self.register_buffer("length", length, persistent=False)

    @property
    def max_seq_len(self) -> int:
        """How many tokens there is room for."""
        room: int = self.k_cache.shape[2]
        return room

    @property
    def size(self) -> int:
        """How many tokens there are, as an int, for which a GPU is waited for."""
        return int(self.length.item())

    def positions(self, length: int) -> Tensor:
        """The positions of the next `length` tokens, int64 [length]."""
        return arange(length, dtype=int64, device=self.length.device) + self.length

    def mask(self, length: int) -> Tensor:
        """For each of the next `length` tokens which keys it may look at: those before and its own,
        bools [length, max_seq_len]."""
        keys = arange(self.max_seq_len, dtype=int64, device=self.length.device)
        return keys <= self.positions(length).unsqueeze(1)

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add keys and values [batch_size, num_kv_heads, new, head_dim]; return the whole caches.

        Raises ShapeError for another shape or more than max_seq_len new ones, IndexOutOfBounds
        where the cache is full.
        """
        shape = self.k_cache.shape
        for x in (k, v):
            if (
                x.ndim != 4
                or (*x.shape[:2], x.shape[3]) != (*shape[:2], shape[3])
                or x.shape[2] > shape[2]
            ):
                raise ShapeError(
                    "keys or values do not fit the cache",
                    op="KVCache",
                    expect=f"[{shape[0]}, {shape[1]}, at most {shape[2]}, {shape[3]}]",
                    actual=str(tuple(x.shape)),
                    hint="make the cache for this batch, or split the heads first",
                )
        with no_grad():
            places = self.positions(k.shape[2])
            self.k_cache[:, :, places] = k.to(self.k_cache.dtype)
            self.v_cache[:, :, places] = v.to(self.v_cache.dtype)
            self.length += k.shape[2]
        return self.k_cache, self.v_cache

    def reset(self) -> None:
        """Forget all tokens."""
        with no_grad():
            self.length.zero_()

    def extra_repr(self) -> str:
        n, heads, room, dim = self.k_cache.shape
        return f"batch_size={n}, max_seq_len={room}, num_kv_heads={heads}, head_dim={dim}"
