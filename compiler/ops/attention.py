"""Attention: softmax of scores between queries and keys, applied to values."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from dualgrad.compiler.ir.dims import product, same
from dualgrad.compiler.ir.value import dim_text
from dualgrad.compiler.ops.arguments import Given, check_float, given, restored
from dualgrad.compiler.ops.base import broadcast_shapes
from dualgrad.compiler.ops.composite import composite, computed_again
from dualgrad.compiler.ops.contract import matmul
from dualgrad.compiler.ops.create import Iota, count
from dualgrad.compiler.ops.elementwise import stop_gradient
from dualgrad.compiler.ops.logical import where
from dualgrad.compiler.ops.precision import low
from dualgrad.compiler.ops.random import dropout
from dualgrad.runtime.dtype import bool_
from dualgrad.runtime.errors import ArgumentError, ShapeError

Shape = tuple[Any, ...]
Drawn = tuple[Any, Any, float]  # seed, position and probability

NEVER = -math.inf
KEPT = 8 << 20  # bytes of a softmax that a gradient may find in memory: about what caches hold


def _safe_softmax(x: Any) -> Any:
    """softmax over the last axis, 0 for rows in which all is masked by -inf."""
    top = stop_gradient(x.max(-1, keepdims=True))
    e = (x - where(top.eq(NEVER), 0.0, top)).exp()
    total = e.sum(-1, keepdims=True)
    return e * (1.0 / where(total.eq(0), 1.0, total))


def _causal(scores: Any) -> Any:
    """Whether key j is no later than query i, as bools [L, S]."""
    shape = scores.shape[-2:]
    return Iota.of(shape, 1).on() <= Iota.of(shape, 0).on()


def _for_queries(x: Any, query: Any) -> Any:
    """Keys or values whose heads (dimension -3) are repeated for the heads of the queries."""
    heads, own = query.shape[-3], x.shape[-3]
    if same(heads, own):
        return x
    *batch, _, length, width = x.shape
    groups = x.unsqueeze(-3).expand((*batch, own, heads // own, length, width))
    return groups.reshape((*batch, heads, length, width))


def _weights(query: Any, key: Any, scale: Any, mask: Any, causal: bool) -> Any:
    if scale is None:
        scale = 1.0 / count(query.shape[-1], query.dtype).sqrt()
    scores = matmul(query, key.transpose(-2, -1)) * scale
    if causal:
        scores = where(_causal(scores), scores, NEVER)
    if mask is not None:
        scores = where(mask, scores, NEVER) if mask.dtype is bool_ else scores + mask
    return scores if scores.shape[-1] == 0 else _safe_softmax(scores)


def _scores_shape(query: Any, key: Any, grouped: bool = False) -> Shape:
    batch = query.shape[:-2]
    if not grouped:
        batch = broadcast_shapes("scaled_dot_product_attention", [batch, key.shape[:-2]])
    return (*batch, query.shape[-2], key.shape[-2])


def _scores_are_large(query: Any, key: Any, *_: Any, grouped: bool, **__: Any) -> int | None:
    """Operand 0, the queries, if the softmax of all heads takes more memory than `KEPT`."""
    size = product(_scores_shape(query, key, grouped))
    return 0 if isinstance(size, int) and size * query.dtype.itemsize > KEPT else None


@composite
@low
@computed_again(_scores_are_large)
def _attention(
    query: Any, key: Any, value: Any, *optional: Any, causal: bool, grouped: bool, which: Given
) -> Any:
    if grouped:
        key, value = _for_queries(key, query), _for_queries(value, query)
    scale, mask, *drawn = restored(optional, which)
    weights = _weights(query, key, scale, mask, causal)
    return matmul(weights if drawn[0] is None else dropout(weights, *drawn), value)


@composite
@low
def _attention_weights(query: Any, key: Any, *optional: Any, which: Given) -> Any:
    (mask,) = restored(optional, which)
    return _weights(query, key, None, mask, False)


def _check(query: Any, key: Any, value: Any, grouped: bool) -> None:
    op = "scaled_dot_product_attention"
    for what, x in (("query", query), ("key", key), ("value", value)):
        check_float(op, what, x)
    fits = (
        min(x.ndim for x in (query, key, value)) >= (3 if grouped else 2)
        and same(query.shape[-1], key.shape[-1])
        and same(key.shape[-2], value.shape[-2])
    )
    if fits and grouped:
        fits = all(same(query.shape[-3] % x.shape[-3], 0) for x in (key, value))
    if not fits:
        shapes = f"query {dim_text(query.shape)}, key {dim_text(key.shape)}, value "
        heads = "; the heads of key and value divide those of query" if grouped else ""
        raise ShapeError(
            "query, key and value do not fit",
            op=op,
            expect=f"query [..., L, E], key [..., S, E], value [..., S, V]{heads}",
            actual=shapes + dim_text(value.shape),
            hint="query and key share their last size, key and value the one before",
        )


def _check_mask(query: Any, key: Any, mask: Any) -> None:
    scores = _scores_shape(query, key)
    whole = broadcast_shapes("scaled_dot_product_attention", [scores, mask.shape])
    if len(whole) != len(scores) or not all(map(same, whole, scores)):
        raise ShapeError(
            "the mask does not broadcast to the scores",
            op="scaled_dot_product_attention",
            expect=f"attn_mask that broadcasts to {dim_text(scores)}",
            actual=f"attn_mask {dim_text(mask.shape)}",
            hint="give the mask sizes of 1 for batch and heads",
        )


def attention_weights(query: Any, key: Any, attn_mask: Any) -> Any:
    """The softmax that `attention` applies to the values, [..., L, S], from query [..., L, E], key
    [..., S, E] and a mask as there."""
    _check(query, key, key, False)
    if attn_mask is not None:
        _check_mask(query, key, attn_mask)
    optional, which = given(attn_mask)
    return _attention_weights(query, key, *optional, which=which)


def attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any,
    is_causal: bool,
    scale: Any,
    enable_gqa: bool,
    draw: Callable[[Shape], Drawn] | None = None,
) -> Any:
    """See `dualgrad.attention`; `draw` gives seed and position of the random numbers for a softmax
    of a shape, and the part of it that is dropped."""
    op = "scaled_dot_product_attention"
    _check(query, key, value, enable_gqa)
    if is_causal and attn_mask is not None:
        raise ArgumentError(
            "is_causal is a mask already",
            op=op,
            expect="one of both",
            actual="two masks",
            hint="leave out one; combine masks with &",
        )
    if attn_mask is not None and not enable_gqa:
        _check_mask(query, key, attn_mask)
    drawn = (None,) * 3 if draw is None else draw(_scores_shape(query, key, enable_gqa))
    optional, which = given(scale, attn_mask, *drawn)
    return _attention(
        query, key, value, *optional, causal=is_causal, grouped=enable_gqa, which=which
    )
