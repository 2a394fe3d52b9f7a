"""Softmin, linear maps, normalisation and attention against NumPy, PyTorch, and differences."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from functions import (
    B,
    F,
    Function,
    check_gradients,
    check_modes,
    check_reference,
    check_torch,
    constant,
)
from support import as_array, both, same_bits, tensors_in

import dualgrad as dg
from dualgrad import functional as nf
from dualgrad.compiler.ops.sample import Arg
from dualgrad.runtime.dtype import DType, float32, float64
from dualgrad.runtime.errors import ArgumentError, DTypeError, ShapeError


def function(
    name: str, label: str, args: tuple[Arg, ...], reference: Any, *rest: Any, **options: Any
) -> Function:
    """A function of `args` and then `rest`, the same in PyTorch."""
    return Function(
        f"{name} {label}".strip(),
        lambda *xs: getattr(nf, name)(*xs, *rest, **options),
        args,
        reference,
        lambda t, *xs: getattr(t.nn.functional, name)(*xs, *rest, **options),
    )


def standard(np: Any, x: Any, axes: tuple[int, ...], eps: float = 1e-5) -> Any:
    mean = x.mean(axes, keepdims=True)
    return (x - mean) / np.sqrt(((x - mean) ** 2).mean(axes, keepdims=True) + eps)


def channels(v: Any, ndim: int) -> Any:
    return v.reshape((1, -1, *(1,) * (ndim - 2)))


def layer(np: Any, x: Any, w: Any = 1.0, b: Any = 0.0, eps: float = 1e-5) -> Any:
    return (
        standard(np, x, tuple(range(x.ndim - np.ndim(w), x.ndim)) if np.ndim(w) else (-1,), eps) * w
        + b
    )


def group(np: Any, x: Any, groups: int, w: Any = None, b: Any = None) -> Any:
    size = x.shape[1] // groups
    out = np.empty_like(x)
    for n, g in itertools.product(range(x.shape[0]), range(groups)):
        part = x[n, g * size : (g + 1) * size]
        out[n, g * size : (g + 1) * size] = (part - part.mean()) / np.sqrt(part.var() + 1e-5)
    if w is not None:
        out = out * channels(w, x.ndim) + channels(b, x.ndim)
    return out


def batch(np: Any, x: Any, w: Any = None, b: Any = None, eps: float = 1e-5) -> Any:
    out = standard(np, x, (0, *range(2, x.ndim)), eps)
    return out if w is None else out * channels(w, x.ndim) + channels(b, x.ndim)


def fixed(np: Any, x: Any, m: Any, v: Any, w: Any = None, b: Any = None) -> Any:
    out = (x - channels(m, x.ndim)) / np.sqrt(channels(v, x.ndim) + 1e-5)
    return out if w is None else out * channels(w, x.ndim) + channels(b, x.ndim)


def rms(np: Any, x: Any, w: Any = 1.0, eps: float = 1e-6) -> Any:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * w


def response(np: Any, x: Any, size: int, alpha: float, beta: float, k: float) -> Any:
    out = np.empty_like(x)
    for c in range(x.shape[1]):
        low, high = max(0, c - size // 2), c + (size - 1) // 2 + 1
        mean = (x[:, low:high] ** 2).sum(1) / size
        out[:, c] = x[:, c] / (k + alpha * mean) ** beta
    return out


def bilinear(np: Any, x: Any, y: Any, a: Any, b: Any = 0.0) -> Any:
    return np.einsum("...i,kij,...j->...k", x, a, y) + b


CHANNELS = (F(6, low=0.5), F(6))
NORMS = (
    Function("layer_norm", lambda *a: nf.layer_norm(a[0], 9, *a[1:]), (F(4, 9), F(9), F(9)), layer,
             lambda t, *a: t.nn.functional.layer_norm(a[0], (9,), *a[1:])),
    Function("layer_norm of long rows", lambda x: nf.layer_norm(x, [300]), (F(3, 300),), layer,
             lambda t, x: t.nn.functional.layer_norm(x, (300,))),
    Function("layer_norm of two axes", lambda *a: nf.layer_norm(a[0], (3, 4), *a[1:], eps=0.1),
             (F(2, 5, 3, 4), F(3, 4), F(3, 4)), lambda np, *a: layer(np, *a, eps=0.1),
             lambda t, *a: t.nn.functional.layer_norm(a[0], (3, 4), *a[1:], eps=0.1)),
    Function("layer_norm without weight", lambda x, b: nf.layer_norm(x, 9, bias=b), (F(4, 9), F(9)),
             lambda np, x, b: layer(np, x) + b,
             lambda t, x, b: t.nn.functional.layer_norm(x, (9,), bias=b)),
    Function("rms_norm", lambda x, w: nf.rms_norm(x, 9, w, 1e-6), (F(4, 9), F(9)), rms,
             lambda t, x, w: t.nn.functional.rms_norm(x, (9,), w, 1e-6)),
    Function("rms_norm without weight", lambda x: nf.rms_norm(x, (9,), eps=1e-6), (F(2, 3, 9),), rms,
             lambda t, x: t.nn.functional.rms_norm(x, (9,), eps=1e-6)),
    function("group_norm", "", (F(3, 6, 4),), lambda np, x: group(np, x, 2), 2),
    Function("group_norm, weight and bias", lambda x, w, b: nf.group_norm(x, 3, w, b),
             (F(3, 6, 2, 4), *CHANNELS), lambda np, x, w, b: group(np, x, 3, w, b),
             lambda t, x, w, b: t.nn.functional.group_norm(x, 3, w, b)),
    Function("group_norm of rows", lambda x: nf.group_norm(x, 2), (F(3, 6),),
             lambda np, x: group(np, x, 2), lambda t, x: t.nn.functional.group_norm(x, 2)),
    Function("batch_norm in training", lambda x: nf.batch_norm(x, None, None, training=True),
             (F(5, 6, 4),), batch,
             lambda t, x: t.nn.functional.batch_norm(x, None, None, training=True)),
    Function("batch_norm in training, affine",
             lambda x, *a: nf.batch_norm(x, None, None, *a, training=True, eps=0.01),
             (F(5, 6, 3, 2), *CHANNELS), lambda np, *a: batch(np, *a, eps=0.01),
             lambda t, x, *a: t.nn.functional.batch_norm(x, None, None, *a, training=True, eps=0.01)),
    Function("batch_norm of rows", lambda x, *a: nf.batch_norm(x, None, None, *a, training=True),
             (F(70, 6), *CHANNELS), batch,
             lambda t, x, *a: t.nn.functional.batch_norm(x, None, None, *a, training=True)),
    function("batch_norm", "with given statistics",
             (F(5, 6, 4), constant(F(6)), constant(F(6, low=0.5)), *CHANNELS), fixed),
    function("batch_norm", "with given statistics, plain",
             (F(5, 6), constant(F(6)), constant(F(6, low=0.5))), fixed),
    Function("instance_norm", nf.instance_norm, (F(5, 6, 8),),
             lambda np, x: standard(np, x, (2,)), lambda t, x: t.nn.functional.instance_norm(x)),
    Function("instance_norm, affine", lambda x, w, b: nf.instance_norm(x, weight=w, bias=b),
             (F(2, 6, 3, 4), *CHANNELS),
             lambda np, x, w, b: standard(np, x, (2, 3)) * channels(w, 4) + channels(b, 4),
             lambda t, x, w, b: t.nn.functional.instance_norm(x, weight=w, bias=b)),
    Function("instance_norm with given statistics",
             lambda x, m, v: nf.instance_norm(x, m, v, use_input_stats=False),
             (F(5, 6, 4), constant(F(6)), constant(F(6, low=0.5))), fixed,
             lambda t, x, m, v: t.nn.functional.instance_norm(x, m, v, use_input_stats=False)),
    function("local_response_norm", "", (F(2, 7, 5),),
             lambda np, x: response(np, x, 3, 0.3, 0.6, 1.2), 3, 0.3, 0.6, 1.2),
    function("local_response_norm", "of an even number of channels", (F(2, 7, 5, 2),),
             lambda np, x: response(np, x, 4, 0.3, 0.75, 1.0), 4, 0.3),
)  # fmt: skip
MAPS = (
    Function("softmin", nf.softmin, (F(4, 9),),
             lambda np, x: np.exp(-x) / np.exp(-x).sum(-1, keepdims=True),
             lambda t, x: t.nn.functional.softmin(x, -1)),
    function("bilinear", "", (F(5, 3), F(5, 4), F(2, 3, 4), F(2)), bilinear),
    function("bilinear", "of several axes", (F(2, 5, 3), F(2, 5, 4), F(6, 3, 4)), bilinear),
    function("bilinear", "of vectors", (F(3), F(4), F(6, 3, 4)), bilinear),
)  # fmt: skip


# -- attention ------------------------------------------------------------------------------------


def attention(
    np: Any,
    q: Any,
    k: Any,
    v: Any,
    mask: Any = None,
    causal: bool = False,
    scale: float | None = None,
) -> Any:
    """Row by row, over the keys that a query may see."""
    shape = np.broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
    rows, keys = q.shape[-2], k.shape[-2]
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    q, k, v = (np.broadcast_to(a, (*shape, *a.shape[-2:])) for a in (q, k, v))
    mask = np.broadcast_to(True if mask is None else mask, (*shape, rows, keys))
    out = np.zeros((*shape, rows, v.shape[-1]))
    for at in np.ndindex(*shape, rows):
        batch, i = at[:-1], at[-1]
        row = mask[at]
        seen = [j for j in range(keys) if row.dtype != bool or row[j]]
        seen = [j for j in seen if not causal or j <= i]
        if not seen:
            continue
        scores = np.array([q[at] @ k[(*batch, j)] * scale for j in seen])
        scores = scores + (row[seen] if row.dtype != bool else 0.0)
        e = np.exp(scores - scores.max())
        out[at] = (e / e.sum()) @ v[batch][seen]
    return out


QKV = (F(2, 3, 5, 4), F(2, 3, 7, 4), F(2, 3, 7, 6))
ATTENTION = (
    function("scaled_dot_product_attention", "", QKV, attention),
    function("scaled_dot_product_attention", "without batch", (F(5, 4), F(7, 4), F(7, 2)), attention),
    function("scaled_dot_product_attention", "scale", QKV,
             lambda np, *a: attention(np, *a, scale=0.3), scale=0.3),
    function("scaled_dot_product_attention", "causal", QKV,
             lambda np, *a: attention(np, *a, causal=True), is_causal=True),
    function("scaled_dot_product_attention", "float mask", (*QKV, F(5, 7)), attention),
    function("scaled_dot_product_attention", "bool mask",
             (*QKV, dataclasses.replace(B(2, 1, 5, 7), values=(1.0, 0.0, 1.0))), attention),
    function("scaled_dot_product_attention", "rows that see nothing",
             (*QKV, Arg((5, 1), dg.bool_, values=(1.0, 0.0))), attention),
    Function("scaled_dot_product_attention of shared heads",
             lambda *a: nf.scaled_dot_product_attention(*a, enable_gqa=True),
             (F(2, 6, 5, 4), F(2, 3, 7, 4), F(2, 3, 7, 4)),
             lambda np, q, k, v: attention(np, q, np.repeat(k, 2, 1), np.repeat(v, 2, 1)),
             lambda t, *a: t.nn.functional.scaled_dot_product_attention(*a, enable_gqa=True)),
)  # fmt: skip

CASES = (*NORMS, *MAPS, *ATTENTION)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", [float32, float64], ids=str)
def test_reference(case: Function, dtype: DType) -> None:
    check_reference(case, dtype)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_modes(case: Function) -> None:
    check_modes(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients(case: Function) -> None:
    check_gradients(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_torch(case: Function) -> None:
    check_torch(case, float64)


# -- running statistics ---------------------------------------------------------------------------


def statistics() -> tuple[dg.Tensor, dg.Tensor]:
    return dg.tensor(np.arange(6.0)), dg.tensor(np.arange(1.0, 7.0))


def test_batch_norm_moves_its_statistics(rng: np.random.Generator) -> None:
    x = rng.standard_normal((5, 6, 3))
    mean, var = statistics()
    want_mean = 0.8 * as_array(mean) + 0.2 * x.mean((0, 2))
    want_var = 0.8 * as_array(var) + 0.2 * x.var((0, 2), ddof=1)
    tensor = dg.tensor(x, requires_grad=True)
    nf.batch_norm(tensor, mean, var, training=True, momentum=0.2).sum().backward()
    np.testing.assert_allclose(as_array(mean), want_mean, rtol=1e-14)
    np.testing.assert_allclose(as_array(var), want_var, rtol=1e-14)
    assert not mean.requires_grad


def test_instance_norm_moves_its_statistics(rng: np.random.Generator) -> None:
    x = rng.standard_normal((5, 6, 3))
    mean, var = statistics()
    want_mean = 0.9 * as_array(mean) + 0.1 * x.mean((0, 2))
    want_var = 0.9 * as_array(var) + 0.1 * x.var(2, ddof=1).mean(0)
    nf.instance_norm(dg.tensor(x), mean, var)
    np.testing.assert_allclose(as_array(mean), want_mean, rtol=1e-14)
    np.testing.assert_allclose(as_array(var), want_var, rtol=1e-14)


def test_statistics_in_both_modes(rng: np.random.Generator) -> None:
    x = rng.standard_normal((9, 6, 4)).astype(np.float32)

    def step(x: dg.Tensor, w: dg.Tensor, b: dg.Tensor, mean: dg.Tensor, var: dg.Tensor) -> Any:
        out = nf.batch_norm(x, mean, var, w, b, training=True)
        (out * out * x).sum().backward()
        again = nf.batch_norm(x.detach(), mean, var, w, b)
        return out.detach(), again.detach(), x.grad, w.grad, b.grad, mean, var

    def make() -> tuple[dg.Tensor, ...]:
        w, b = dg.ones(6, requires_grad=True), dg.zeros(6, requires_grad=True)
        return dg.tensor(x, requires_grad=True), w, b, dg.zeros(6), dg.ones(6)

    eager, static = both(step, make)
    for e, s in zip(tensors_in(eager), tensors_in(static), strict=True):
        same_bits(s, e)


def test_statistics_that_are_not_used_stay(rng: np.random.Generator) -> None:
    mean, var = statistics()
    nf.batch_norm(dg.tensor(rng.standard_normal((5, 6))), mean, var)
    np.testing.assert_array_equal(as_array(mean), np.arange(6.0))


# -- corners --------------------------------------------------------------------------------------


def test_large_mean_keeps_the_variance() -> None:
    x = dg.tensor(np.array([[1e4, 1e4 + 1, 1e4 + 2, 1e4 + 3]], np.float32))
    want = (np.arange(4) - 1.5) / np.sqrt(1.25 + 1e-5)
    np.testing.assert_allclose(as_array(nf.layer_norm(x, 4))[0], want, rtol=1e-6)


def test_query_that_sees_nothing_has_no_gradient() -> None:
    q, k, v = (dg.ones(2, 3, requires_grad=True) for _ in range(3))
    mask = dg.tensor([[True, True], [False, False]])
    out = nf.scaled_dot_product_attention(q, k, v, mask)
    np.testing.assert_array_equal(as_array(out), [[1, 1, 1], [0, 0, 0]])
    out.sum().backward()
    for x in (q, k, v):
        assert np.isfinite(as_array(x.grad)).all()
    np.testing.assert_array_equal(as_array(q.grad)[1], [0, 0, 0])
    minus = dg.tensor(np.where(as_array(mask), 0.0, -math.inf).astype(np.float32))
    same_bits(nf.scaled_dot_product_attention(q, k, v, minus), out)


def test_dropped_attention() -> None:
    q, k = (dg.tensor(np.random.default_rng(n).standard_normal((3, 40, 8))) for n in (1, 2))
    v = dg.tensor(np.eye(40)).expand(3, 40, 40)  # so that the result is the softmax itself
    whole = as_array(nf.scaled_dot_product_attention(q, k, v))
    found = as_array(nf.scaled_dot_product_attention(q, k, v, dropout_p=0.25))
    kept = found != 0
    assert 0.7 < kept.mean() < 0.8
    np.testing.assert_allclose(found[kept], whole[kept] / 0.75, rtol=1e-12)
    dg.seed(0)
    again = nf.scaled_dot_product_attention(q, k, v, dropout_p=0.25)
    dg.seed(0)
    compiled = dg.function(lambda *a: nf.scaled_dot_product_attention(*a, dropout_p=0.25))
    same_bits(compiled(q, k, v), again)


def test_softmax_of_little() -> None:
    for f in (dg.softmax, dg.log_softmax, nf.softmin):
        assert f(dg.ones(3, 0)).shape == (3, 0)
    assert dg.softmax(dg.tensor(2.0), 0).item() == 1
    assert dg.log_softmax(dg.tensor(2.0)).item() == 0


def test_no_keys() -> None:
    out = nf.scaled_dot_product_attention(dg.ones(2, 3), dg.ones(0, 3), dg.ones(0, 4))
    np.testing.assert_array_equal(as_array(out), np.zeros((2, 4)))


x34 = dg.ones(3, 4)
x345 = dg.ones(3, 4, 5)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: nf.layer_norm(x34, 3), ShapeError, "does not end with"),
        (lambda: nf.layer_norm(x34, ()), ShapeError, "does not end with"),
        (lambda: nf.layer_norm(x34, 4, dg.ones(3)), ShapeError, "weight has another shape"),
        (lambda: nf.rms_norm(x34, (3, 5)), ShapeError, "does not end with"),
        (lambda: nf.group_norm(x34, 3), ShapeError, "equal sizes"),
        (lambda: nf.group_norm(x34, 0), ArgumentError, "must be a group"),
        (lambda: nf.group_norm(dg.ones(3), 1), ShapeError, "too few dimensions"),
        (lambda: nf.batch_norm(x34, None, None), ArgumentError, "no statistics"),
        (lambda: nf.batch_norm(x34, dg.ones(3), dg.ones(4)), ShapeError, "running_mean"),
        (lambda: nf.batch_norm(dg.ones(1, 4), None, None, training=True), ShapeError, "less than two"),
        (lambda: nf.instance_norm(x34), ShapeError, r"\[N, C, L, ...\]"),
        (lambda: nf.instance_norm(dg.ones(3, 4, 1)), ShapeError, "less than two elements"),
        (lambda: nf.bilinear(x34, x34, dg.ones(2, 4, 3)), ShapeError, "inputs and weight"),
        (lambda: nf.scaled_dot_product_attention(x34, x34, dg.ones(2, 4)), ShapeError, "do not fit"),
        (lambda: nf.scaled_dot_product_attention(x34, dg.ones(3, 5), x34), ShapeError, "do not fit"),
        (lambda: nf.scaled_dot_product_attention(x34, x34, x34, dg.ones(2, 3)), ShapeError, "broadcast"),
        (lambda: nf.scaled_dot_product_attention(x34, x34, x34, dg.ones(3, 3), is_causal=True), ArgumentError, "two masks"),
        (lambda: nf.scaled_dot_product_attention(x34, dg.ones(3, 4, dtype=dg.int64), x34), DTypeError, "no floats"),
        (lambda: nf.scaled_dot_product_attention(x345, dg.ones(2, 4, 5), x345, enable_gqa=True), ShapeError, "heads"),
    ],
)  # fmt: skip
def test_refused(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text) as caught:
        call()
    assert "test_neural_layers.py" in str(caught.value)
