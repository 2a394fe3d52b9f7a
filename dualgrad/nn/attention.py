"""Attention of several heads."""

from __future__ import annotations

from typing import Any

from dualgrad.attention import scaled_dot_product_attention
from dualgrad.compiler.ops.attention import attention_weights
from dualgrad.compiler.ops.contract import matmul
from dualgrad.compiler.ops.joining import cat, chunk
from dualgrad.compiler.ops.logical import where
from dualgrad.compiler.ops.neural import linear
from dualgrad.compiler.ops.padding import pad
from dualgrad.creation import empty, zeros
from dualgrad.functional import dropout
from dualgrad.nn.checks import check_counts, check_divides
from dualgrad.nn.init import xavier_normal_, xavier_uniform_, zeros_
from dualgrad.nn.linear import Linear
from dualgrad.nn.module import Module
from dualgrad.nn.parameter import Parameter
from dualgrad.ranges import tri
from dualgrad.runtime.dtype import DType, bool_
from dualgrad.runtime.errors import DTypeError, ShapeError
from dualgrad.tensor import Tensor


class NonDynamicallyQuantizableLinear(Linear):
    """The output projection of MultiheadAttention, printed under the name it has in PyTorch."""


class MultiheadAttention(Module):
    """Attention by `num_heads` heads: softmax(Q K^T / sqrt(E / num_heads) + mask) V, projected.

    A. Vaswani et al., "Attention is all you need", 2017.

    query  [L, N, embed_dim], or [N, L, embed_dim] with `batch_first`; [L, embed_dim] for one
    key    [S, N, kdim], value [S, N, vdim], likewise; kdim and vdim are embed_dim by default

    dropout        probability with which weights are dropped in training (default 0)
    bias           whether the projections have biases (default True)
    add_bias_kv    one more key and value, which are learnt (default False)
    add_zero_attn  one more key and value, of zeros (default False)

    in_proj_weight [3 embed_dim, embed_dim] holds the weights for query, key and value; with another
    kdim or vdim they are q_proj_weight, k_proj_weight and v_proj_weight.  in_proj_bias is
    [3 embed_dim]; out_proj is a Linear.

    Raises ArgumentError unless embed_dim is a multiple of num_heads, both > 0.
    """

    in_proj_weight: Parameter | None
    in_proj_bias: Parameter | None
    q_proj_weight: Parameter | None
    k_proj_weight: Parameter | None
    v_proj_weight: Parameter | None
    bias_k: Parameter | None
    bias_v: Parameter | None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        check_counts("MultiheadAttention", 1, embed_dim=embed_dim)
        check_divides("MultiheadAttention", "num_heads", num_heads, embed_dim=embed_dim)
        self.embed_dim = embed_dim
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self.num_heads = num_heads
        self.head_dim = embed_dim // num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.add_zero_attn = add_zero_attn
        kind = {"device": device, "dtype": dtype}

        def parameter(*shape: int) -> Parameter:
            return Parameter(empty(*shape, **kind))

        separate = ("q_proj_weight", "k_proj_weight", "v_proj_weight")
        packed = self.kdim == self.vdim == embed_dim
        if packed:
            self.in_proj_weight = parameter(3 * embed_dim, embed_dim)
        for name, size in zip(separate, (embed_dim, self.kdim, self.vdim), strict=True):
            self.register_parameter(name, None if packed else parameter(embed_dim, size))
        if not packed:
            self.register_parameter("in_proj_weight", None)
        self.register_parameter("in_proj_bias", parameter(3 * embed_dim) if bias else None)
        self.out_proj = NonDynamicallyQuantizableLinear(embed_dim, embed_dim, bias, **kind)
        for name in ("bias_k", "bias_v"):
            extra = parameter(1, 1, embed_dim) if add_bias_kv else None
            self.register_parameter(name, extra)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new values for the weights of query, key and value; their biases start at 0."""
        for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            weight = getattr(self, name)
            if weight is not None:
                xavier_uniform_(weight)
        if self.in_proj_bias is not None and self.out_proj.bias is not None:
            zeros_(self.in_proj_bias)
            zeros_(self.out_proj.bias)
        if self.bias_k is not None and self.bias_v is not None:
            xavier_normal_(self.bias_k)
            xavier_normal_(self.bias_v)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the output, of query's shape, and the weights (None without `need_weights`).

        key_padding_mask  [N, S], [S] for one sequence: bools, true where a key is to be ignored, or
                          floats, which are added to the scores
        attn_mask         [L, S] or [N num_heads, L, S]: the same for each query
        is_causal         query i may look at keys 0..i; an attn_mask beside it has to say the same
        average_attn_weights  whether weights are the mean of the heads, [N, L, S], or
                          [N, num_heads, L, S]; weights are those after dropout

        A query that may look at nothing gets weights of 0.  It is faster without weights.
        """
        batched = query.ndim == 3
        self._check(query, key, value, key_padding_mask, attn_mask)
        axis = 0 if self.batch_first and batched else 1
        if not batched:
            query, key, value = (x.unsqueeze(1) for x in (query, key, value))
        q, k, v = (self._heads(x, axis) for x in self._projected(query, key, value))
        causal = is_causal and not self._adds_keys and not need_weights and key_padding_mask is None
        if is_causal and not causal and attn_mask is None:
            attn_mask = ~tri(q.shape[2], k.shape[2], dtype=bool_, device=q.device)
        mask = None if causal else self._mask(key_padding_mask, attn_mask, q)
        k, v, mask = self._with_more_keys(k, v, mask)
        weights: Tensor | None = None
        p = self.dropout if self.training else 0.0
        if need_weights:
            weights = dropout(attention_weights(q, k, mask), p)
            mixed = matmul(weights, v)
            weights = weights.mean(1) if average_attn_weights else weights
            weights = weights if batched else weights.squeeze(0)
        else:
            mixed = scaled_dot_product_attention(q, k, v, mask, p, causal)
        order = (0, 2, 1, 3) if axis == 0 else (2, 0, 1, 3)
        output = self.out_proj(mixed.permute(*order).reshape(query.shape))
        return (output if batched else output.squeeze(1)), weights

    @property
    def _adds_keys(self) -> bool:
        return self.bias_k is not None or self.add_zero_attn

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        """Query, key and value under their weights; one product for those that are the same."""
        if self.in_proj_weight is not None and query is key is value:
            return chunk(linear(query, self.in_proj_weight, self.in_proj_bias), 3, -1)
        weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        if self.in_proj_weight is not None:
            weights = chunk(self.in_proj_weight, 3)
        bias = self.in_proj_bias
        biases = (None,) * 3 if bias is None else chunk(bias, 3)
        operands = zip((query, key, value), weights, biases, strict=True)
        return tuple(linear(x, w, b) for x, w, b in operands)

    def _heads(self, x: Tensor, batch_axis: int) -> Tensor:
        """[N, num_heads, length, head_dim] of x, which has the batch at `batch_axis`."""
        split = x.reshape(*x.shape[:2], self.num_heads, self.head_dim)
        return split.permute(*((0, 2, 1, 3) if batch_axis == 0 else (1, 2, 0, 3)))

    def _mask(self, padding: Tensor | None, mask: Tensor | None, q: Tensor) -> Tensor | None:
        """What `scaled_dot_product_attention` takes, [N or 1, num_heads or 1, L or 1, S]."""
        if padding is not None:
            padding = padding.reshape(-1, 1, 1, padding.shape[-1])
        if mask is not None:
            heads = (q.shape[0], self.num_heads) if mask.ndim == 3 else (1, 1)
            mask = mask.reshape(*heads, *mask.shape[-2:])
        if padding is None or mask is None:
            one = mask if padding is None else padding
            return ~one if one is not None and one.dtype is bool_ else one
        if padding.dtype is mask.dtype is bool_:
            return ~(padding | mask)
        return _added(padding, q.dtype) + _added(mask, q.dtype)

    def _with_more_keys(
        self, k: Tensor, v: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keys, values and mask with the learnt key and the key of zeros at the end."""
        n = k.shape[0]
        if self.bias_k is not None and self.bias_v is not None:
            shape = (n, self.num_heads, 1, self.head_dim)
            k = cat([k, self._heads(self.bias_k, 0).expand(shape)], 2)
            v = cat([v, self._heads(self.bias_v, 0).expand(shape)], 2)
        if self.add_zero_attn:
            zero = zeros(n, self.num_heads, 1, self.head_dim, dtype=k.dtype, device=k.device)
            k, v = cat([k, zero], 2), cat([v, zero], 2)
        more = (self.bias_k is not None) + self.add_zero_attn
        if mask is not None and more:
            mask = pad(mask, (0, more), value=mask.dtype is bool_)
        return k, v, mask

    def _check(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        padding: Tensor | None,
        mask: Tensor | None,
    ) -> None:
        sizes = (self.embed_dim, self.kdim, self.vdim)
        given = (query, key, value)
        ranks = {x.ndim for x in given}
        if ranks not in ({2}, {3}) or any(
            x.shape[-1] != n for x, n in zip(given, sizes, strict=True)
        ):
            raise ShapeError(
                "query, key and value do not fit",
                op="MultiheadAttention",
                expect="three tensors [length, batch, features] or three [length, features] of "
                f"{sizes[0]}, {sizes[1]} and {sizes[2]} features",
                actual=", ".join(str(tuple(x.shape)) for x in given),
                hint="kdim and vdim say which features keys and values have",
            )
        for name, x, ndims in (("key_padding_mask", padding, (query.ndim - 1,)),
                               ("attn_mask", mask, (2, 3))):  # fmt: skip
            if x is not None and not (x.dtype is bool_ or x.dtype.is_float):
                raise DTypeError(
                    "a mask holds bools or floats",
                    op="MultiheadAttention",
                    expect=f"bools or floats in {name}",
                    actual=x.dtype.name,
                    hint=f"{name}.bool() is true where it is not 0",
                )
            if x is not None and x.ndim not in ndims:
                raise ShapeError(
                    "a mask has another number of dimensions",
                    op="MultiheadAttention",
                    expect=f"{name} of {' or '.join(map(str, ndims))} dimensions",
                    actual=str(tuple(x.shape)),
                    hint="key_padding_mask is [N, S] or [S], attn_mask [L, S] or [N heads, L, S]",
                )


def _added(mask: Tensor, dtype: DType) -> Tensor:
    """A mask as floats that are added to scores."""
    if mask.dtype is not bool_:
        return mask
    floats: Tensor = where(mask, float("-inf"), 0.0)
    return floats.to(dtype)
