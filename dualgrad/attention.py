"""Attention with dropout, which takes random numbers."""

from __future__ import annotations

from typing import Any

from dualgrad.compiler.ops.attention import Drawn, Shape, attention
from dualgrad.compiler.ops.sample import Arg, Sample, formula, samples_of
from dualgrad.random import probability, words_for
from dualgrad.runtime.dtype import bool_
from dualgrad.tensor import Tensor


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Return softmax(query @ key.T * scale + mask) @ value.

    query [..., L, E], key [..., S, E], value [..., S, V]; the result is [..., L, V].  `attn_mask`
    broadcasts to [..., L, S]: bools are true where a query may look, floats are added to the
    scores.  `is_causal` lets query i see the keys 0..i.  `scale` is 1 / sqrt(E) by default.  With
    `enable_gqa` several heads of the query (dimension -3) share one of key and value.  A query
    that may see nothing gives 0, and its gradients are 0.  `dropout_p` of the softmax is dropped,
    in evaluation too.  Raises ShapeError if shapes do not fit, ArgumentError for a mask together
    with is_causal.
    """

    p = probability("scaled_dot_product_attention", dropout_p)

    def draw(shape: Shape) -> Drawn:
        return *words_for(None, 1, shape, query.device), p

    drawn = draw if 0 < p < 1 else None
    out: Tensor = attention(query, key, value, attn_mask, is_causal, scale, enable_gqa, drawn)
    return out * 0.0 if p == 1 else out


@samples_of(scaled_dot_product_attention)
def _attention_samples() -> list[Sample]:
    def reference(np: Any, q: Any, k: Any, v: Any, seen: Any = True) -> Any:
        scores = q @ np.swapaxes(k, -1, -2) / q.shape[-1] ** 0.5
        e = np.exp(scores) * seen
        return e / e.sum(-1, keepdims=True) @ v

    def causal(np: Any, q: Any, k: Any, v: Any) -> Any:
        return reference(np, q, k, v, np.tri(q.shape[-2], k.shape[-2]))

    qkv = (Arg((2, 3, 4)), Arg((2, 5, 4)), Arg((2, 5, 2)))
    mask = Arg((3, 5), bool_, values=(1.0, 0.0, 1.0))
    attend = scaled_dot_product_attention
    return [
        formula(attend, reference, *qkv, relative=1e-5),
        formula(attend, reference, *qkv, mask, relative=1e-5),
        formula(lambda q, k, v: attend(q, k, v, is_causal=True), causal, *qkv, relative=1e-5),
        Sample(attend, (Arg((2, 3, 3)), *qkv[1:]), error=ValueError, match="attention"),
    ]
