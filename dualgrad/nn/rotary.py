"""Rotary positions: features turned by angles that grow with the position.

Source: J. Su et al., "RoFormer: enhanced transformer with rotary position embedding", 2021.
"""

from __future__ import annotations

from typing import Any

from dualgrad.compiler.ops.rotation import rotated
from dualgrad.nn.checks import check_counts, check_number
from dualgrad.nn.module import Module
from dualgrad.nn.printing import listed
from dualgrad.ranges import arange
from dualgrad.runtime.dtype import DEFAULT_FLOAT, float64
from dualgrad.runtime.errors import ArgumentError, ShapeError
from dualgrad.tensor import Tensor


class RotaryEmbedding(Module):
    """Each pair of features (a, b) at position p becomes (a cos - b sin, a sin + b cos) of the
    angle p base^(-2k / dim), for pair k of dim / 2.

    Queries and keys that are turned so have scores which depend on the distance of their positions
    only.  Input and output are [..., length, dim], as in `scaled_dot_product_attention`.

    max_seq_len  number of positions (default 4096), for which cosines and sines are kept
    base         how slowly the last pairs turn (default 10000)
    interleaved  whether pairs are neighbours, as in the paper (default), or lie dim / 2 apart, as
                 in weights of Llama and GPT-NeoX that are made for transformers

    The tables are no part of the state.  Raises ArgumentError unless dim is even.
    """

    cos: Tensor
    sin: Tensor

    def __init__(
        self,
        dim: int,
        max_seq_len: int = 4096,
        base: float = 10000.0,
        interleaved: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        check_counts("RotaryEmbedding", 1, dim=dim, max_seq_len=max_seq_len)
        if dim % 2:
            raise ArgumentError(
                "features are turned in pairs",
                op="RotaryEmbedding",
                expect="an even dim",
                actual=f"dim={dim}",
                hint="dim is the number of features of one head",
            )
        self.dim = dim
        self.max_seq_len = max_seq_len
        self.base = check_number("RotaryEmbedding", "base", base, above=0)
        self.interleaved = interleaved
        speeds = self.base ** (-arange(0, dim, 2, dtype=float64) / dim)
        angles = arange(max_seq_len, dtype=float64).unsqueeze(1) * speeds
        for name, table in (("cos", angles.cos()), ("sin", angles.sin())):
            self.register_buffer(name, table.to(dtype or DEFAULT_FLOAT).to(device or "cpu"), False)

    def forward(self, input: Tensor, positions: Tensor | None = None) -> Tensor:
        """Turn `input`; `positions` are ints that broadcast to [..., length], 0, 1, ... by default.

        Raises ShapeError for another number of features or more than max_seq_len positions,
        IndexOutOfBounds for a position outside of 0..max_seq_len - 1.
        """
        if input.ndim < 2 or input.shape[-1] != self.dim:
            raise self._refuse(input, "the features do not fit")
        if positions is None:
            if input.shape[-2] > self.max_seq_len:
                raise self._refuse(input, "the sequence is too long")
            cos, sin = (table[: input.shape[-2]] for table in (self.cos, self.sin))
        else:
            cos, sin = self.cos[positions], self.sin[positions]
        turned: Tensor = rotated(input, cos, sin, interleaved=self.interleaved)
        return turned.to(input.dtype)

    def extra_repr(self) -> str:
        return f"{self.dim}, " + listed(self, "max_seq_len", "base", "interleaved")

    def _refuse(self, input: Tensor, what: str) -> ShapeError:
        return ShapeError(
            what,
            op="RotaryEmbedding",
            expect=f"[..., length <= {self.max_seq_len}, {self.dim}]",
            actual=str(tuple(input.shape)),
            hint="split the heads first: [batch, heads, length, dim]",
        )
