"""Transformers: layers of attention and of two linear maps, for encoders and decoders.

Sources: A. Vaswani et al., "Attention is all you need", 2017; `norm_first` as in R. Xiong et al.,
"On layer normalization in the transformer architecture", 2020.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Final

from dualgrad.compiler.ops.activation import gelu
from dualgrad.compiler.ops.grid import triu
from dualgrad.compiler.ops.neural import relu
from dualgrad.creation import full
from dualgrad.nn.attention import MultiheadAttention
from dualgrad.nn.checks import check_choice, check_counts
from dualgrad.nn.containers import ModuleList
from dualgrad.nn.dropout import Dropout
from dualgrad.nn.init import xavier_uniform_
from dualgrad.nn.layer_norm import LayerNorm
from dualgrad.nn.linear import Linear
from dualgrad.nn.module import Module
from dualgrad.runtime.errors import ShapeError
from dualgrad.tensor import Tensor

Activation = Callable[[Tensor], Tensor]
ACTIVATIONS: Final[dict[str, Activation]] = {"relu": relu, "gelu": gelu}


class _Layer(Module):
    """What layers of encoders and decoders have in common; `count` is how many blocks there are,
    each added to its input, with a norm of its own."""

    activation: Any

    def _make_feedforward(
        self,
        count: int,
        d_model: int,
        dim_feedforward: int,
        dropout: float,
        activation: str | Activation,
        layer_norm_eps: float,
        norm_first: bool,
        bias: bool,
        kind: dict[str, Any],
    ) -> None:
        op = type(self).__name__
        check_counts(op, 1, dim_feedforward=dim_feedforward)
        self.linear1 = Linear(d_model, dim_feedforward, bias, **kind)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias, **kind)
        self.norm_first = norm_first
        for k in range(1, count + 1):
            self.add_module(f"norm{k}", LayerNorm(d_model, layer_norm_eps, bias=bias, **kind))
        for k in range(1, count + 1):
            self.add_module(f"dropout{k}", Dropout(dropout))
        if isinstance(activation, str):
            activation = ACTIVATIONS[check_choice(op, "activation", activation, ACTIVATIONS)]
        self.activation = activation

    def _feedforward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear2(self.dropout(self.activation(self.linear1(x))))
        return out

    def _blocks(self, x: Tensor, *blocks: Callable[[Tensor], Tensor]) -> Tensor:
        """x + dropout(block(norm(x))) with `norm_first`, else norm(x + dropout(block(x))), for each
        of the blocks."""
        for k, block in enumerate(blocks, 1):
            norm, dropout = getattr(self, f"norm{k}"), getattr(self, f"dropout{k}")
            x = x + dropout(block(norm(x))) if self.norm_first else norm(x + dropout(block(x)))
        return x


class TransformerEncoderLayer(_Layer):
    """Self-attention, then linear2(activation(linear1(x))); each is added to its input.

    src [S, N, d_model], [N, S, d_model] with `batch_first`, or [S, d_model]; the result is alike.

    dim_feedforward  features between both linear maps (default 2048)
    dropout          probability, for weights of attention, within and after blocks (default 0.1)
    activation       "relu" (default), "gelu", or a function of one tensor
    norm_first       whether layers are normalised before each block, or after it (default)
    bias             whether linear maps, projections and norms have biases (default True)
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Activation = relu,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        kind = {"device": device, "dtype": dtype}
        self.self_attn = MultiheadAttention(
            d_model, nhead, dropout, bias, batch_first=batch_first, **kind
        )
        self._make_feedforward(2, d_model, dim_feedforward, dropout, activation, layer_norm_eps,
                               norm_first, bias, kind)  # fmt: skip

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """Masks are those of MultiheadAttention."""

        def attend(x: Tensor) -> Tensor:
            return _attended(self.self_attn, x, x, src_key_padding_mask, src_mask, is_causal)

        return self._blocks(src, attend, self._feedforward)


class TransformerDecoderLayer(_Layer):
    """Self-attention, attention to `memory`, then linear2(activation(linear1(x))); each is added to
    its input.

    tgt [T, N, d_model] and memory [S, N, d_model], [N, T, d_model] and [N, S, d_model] with
    `batch_first`, or both without N; the result is as tgt.  Arguments as TransformerEncoderLayer's.
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Activation = relu,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        kind = {"device": device, "dtype": dtype}
        self.self_attn, self.multihead_attn = (
            MultiheadAttention(d_model, nhead, dropout, bias, batch_first=batch_first, **kind)
            for _ in range(2)
        )
        self._make_feedforward(3, d_model, dim_feedforward, dropout, activation, layer_norm_eps,
                               norm_first, bias, kind)  # fmt: skip

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """Masks are those of MultiheadAttention, for tgt and for its attention to memory."""

        def attend(x: Tensor) -> Tensor:
            return _attended(self.self_attn, x, x, tgt_key_padding_mask, tgt_mask, tgt_is_causal)

        def attend_memory(x: Tensor) -> Tensor:
            attention, padding = self.multihead_attn, memory_key_padding_mask
            return _attended(attention, x, memory, padding, memory_mask, memory_is_causal)

        return self._blocks(tgt, attend, attend_memory, self._feedforward)


class TransformerEncoder(Module):
    """`num_layers` copies of a layer one after the other, then `norm`, if there is one.

    `enable_nested_tensor` and `mask_check` choose among PyTorch's ways to compute the same; here
    there is one.
    """

    norm: Module | None

    def __init__(
        self,
        encoder_layer: Module,
        num_layers: int,
        norm: Module | None = None,
        enable_nested_tensor: bool = True,
        mask_check: bool = True,
    ) -> None:
        self.layers = _copies("TransformerEncoder", encoder_layer, num_layers)
        self.num_layers = num_layers
        self.norm = norm

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
    ) -> Tensor:
        """Masks are those of MultiheadAttention, for each layer."""
        for layer in self.layers:
            src = layer(src, mask, src_key_padding_mask, bool(is_causal))
        return src if self.norm is None else self.norm(src)


class TransformerDecoder(Module):
    """`num_layers` copies of a layer one after the other, then `norm`, if there is one."""

    norm: Module | None

    def __init__(self, decoder_layer: Module, num_layers: int, norm: Module | None = None) -> None:
        self.layers = _copies("TransformerDecoder", decoder_layer, num_layers)
        self.num_layers = num_layers
        self.norm = norm

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """Masks are those of MultiheadAttention, for each layer."""
        masks = (tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask)
        for layer in self.layers:
            tgt = layer(tgt, memory, *masks, bool(tgt_is_causal), memory_is_causal)
        return tgt if self.norm is None else self.norm(tgt)


class Transformer(Module):
    """An encoder and a decoder that attends to what it gives, each with a norm at its end.

    src [S, N, d_model] and tgt [T, N, d_model], [N, S, d_model] and [N, T, d_model] with
    `batch_first`, or both without N; the result is as tgt.  `custom_encoder` and `custom_decoder`
    take the place of those that the other arguments describe (see TransformerEncoderLayer).
    Weights start as `xavier_uniform_` draws them.
    """

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Activation = relu,
        custom_encoder: Module | None = None,
        custom_decoder: Module | None = None,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        kind = {"device": device, "dtype": dtype}
        layer = (d_model, nhead, dim_feedforward, dropout, activation, layer_norm_eps, batch_first,
                 norm_first, bias)  # fmt: skip

        def norm() -> LayerNorm:
            return LayerNorm(d_model, layer_norm_eps, bias=bias, **kind)

        self.encoder = custom_encoder or TransformerEncoder(
            TransformerEncoderLayer(*layer, **kind), num_encoder_layers, norm()
        )
        self.decoder = custom_decoder or TransformerDecoder(
            TransformerDecoderLayer(*layer, **kind), num_decoder_layers, norm()
        )
        self.reset_parameters()
        self.d_model = d_model
        self.nhead = nhead
        self.batch_first = batch_first

    def reset_parameters(self) -> None:
        """Draw new values for all parameters of two dimensions or more."""
        for param in self.parameters():
            if param.ndim > 1:
                xavier_uniform_(param)

    def forward(
        self,
        src: Tensor,
        tgt: Tensor,
        src_mask: Tensor | None = None,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """Masks are those of MultiheadAttention: of src, of tgt, and of tgt's attention to what the
        encoder gives."""
        batch = 0 if self.batch_first else 1
        if src.ndim == 3 and tgt.ndim == 3 and src.shape[batch] != tgt.shape[batch]:
            raise ShapeError(
                "src and tgt have batches of different sizes",
                op="Transformer",
                expect=f"equal sizes of dimension {batch}",
                actual=f"src {tuple(src.shape)}, tgt {tuple(tgt.shape)}",
                hint="batch_first says which dimension is the batch",
            )
        memory = self.encoder(src, src_mask, src_key_padding_mask, src_is_causal)
        out: Tensor = self.decoder(
            tgt, memory, tgt_mask, memory_mask, tgt_key_padding_mask, memory_key_padding_mask,
            tgt_is_causal, memory_is_causal,
        )  # fmt: skip
        return out

    @staticmethod
    def generate_square_subsequent_mask(sz: int, device: Any = None, dtype: Any = None) -> Tensor:
        """The mask that lets position i see 0..i: 0 there and -inf elsewhere, [sz, sz]."""
        mask: Tensor = triu(full((sz, sz), float("-inf"), dtype=dtype, device=device), 1)
        return mask


def _attended(
    attention: MultiheadAttention,
    x: Tensor,
    keys: Tensor,
    padding: Tensor | None,
    mask: Tensor | None,
    causal: bool,
) -> Tensor:
    out: Tensor = attention(x, keys, keys, padding, False, mask, is_causal=causal)[0]
    return out


def _copies(op: str, layer: Module, count: int) -> ModuleList:
    check_counts(op, 0, num_layers=count)
    return ModuleList([copy.deepcopy(layer) for _ in range(count)])
