"""Clipping of gradients: the formula of PyTorch, in place, in both modes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import dualgrad as dg
from dualgrad import nn
from dualgrad.nn.utils import clip_grad_norm_, clip_grad_value_, get_total_norm
from dualgrad.runtime.errors import ArgumentError

SHAPES: list[tuple[int, ...]] = [(5, 3), (4,), (), (2, 1, 2)]


def gradients(dtype: str, scale: float = 1.0) -> list[Any]:
    rng = np.random.default_rng(5)
    return [np.asarray(scale * rng.standard_normal(s), dtype) for s in SHAPES]


def parameters(arrays: list[Any]) -> list[nn.Parameter]:
    params = [nn.Parameter(dg.zeros(a.shape).to(dg.from_numpy(a).dtype)) for a in arrays]
    for p, a in zip(params, arrays, strict=True):
        p.grad = dg.from_numpy(a.copy())
    return [*params, nn.Parameter(dg.zeros(2))]  # the last one has no gradient


def values(params: list[nn.Parameter]) -> list[Any]:
    return [p.grad.numpy() for p in params if p.grad is not None]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_norm_against_numpy(dtype: str, norm_type: float, max_norm: float) -> None:
    arrays = gradients(dtype)
    flat = np.concatenate([np.ravel(a) for a in arrays]).astype(np.float64)
    expected = np.linalg.norm(flat, norm_type)
    params = parameters(arrays)
    kept = [p.grad for p in params]
    total = clip_grad_norm_(params, max_norm, norm_type)
    tolerance = 3e-6 if dtype == "float32" else 1e-13
    np.testing.assert_allclose(total.item(), expected, rtol=tolerance)
    factor = min(1.0, max_norm / (expected + 1e-6))
    for new, old in zip(values(params), arrays, strict=True):
        np.testing.assert_allclose(new, old * factor, rtol=tolerance)
    assert all(p.grad is g for p, g in zip(params, kept, strict=True))


@pytest.mark.parametrize("norm_type", [1.0, 2.0, math.inf])
def test_norm_as_pytorch(norm_type: float) -> None:
    torch = pytest.importorskip("torch")
    for scale in (1e-30, 1e-3, 1.0, 1e3):
        arrays = gradients("float32", scale)
        params = parameters(arrays)
        theirs = [torch.zeros(a.shape, requires_grad=True) for a in arrays]
        for t, a in zip(theirs, arrays, strict=True):
            t.grad = torch.from_numpy(a.copy())
        total = clip_grad_norm_(params, 0.7, norm_type)
        expected = torch.nn.utils.clip_grad_norm_(theirs, 0.7, norm_type)
        np.testing.assert_allclose(total.item(), expected.item(), rtol=1e-6)
        for new, t in zip(values(params), theirs, strict=True):
            np.testing.assert_allclose(new, t.grad.numpy(), rtol=2e-6)


def test_value_against_numpy() -> None:
    arrays = gradients("float32")
    params = parameters(arrays)
    clip_grad_value_(params, 0.3)
    for new, old in zip(values(params), arrays, strict=True):
        np.testing.assert_array_equal(new, np.clip(old, np.float32(-0.3), np.float32(0.3)))
    clip_grad_value_(params[0], 0.1)
    assert np.abs(values(params)[0]).max() == np.float32(0.1)


def test_norm_of_nothing() -> None:
    assert clip_grad_norm_([nn.Parameter(dg.zeros(2))], 1.0).item() == 0.0
    assert get_total_norm([]).item() == 0.0


def test_low_precision_gradients_keep_their_dtype() -> None:
    p = nn.Parameter(dg.zeros(3, dtype=dg.bfloat16))
    q = nn.Parameter(dg.zeros(3))
    p.grad, q.grad = dg.full((3,), 2.0, dtype=dg.bfloat16), dg.full((3,), 2.0)
    clip_grad_norm_([p, q], 1.0)
    assert p.grad.dtype is dg.bfloat16
    np.testing.assert_allclose(q.grad.numpy(), 2.0 / math.sqrt(24), rtol=2.0**-8)


def test_a_norm_that_is_not_finite_can_be_refused() -> None:
    p = nn.Parameter(dg.zeros(2))
    p.grad = dg.tensor([1.0, math.nan])
    assert math.isnan(clip_grad_norm_(p, 1.0).item())
    with pytest.raises(ArgumentError, match="not finite"):
        clip_grad_norm_(p, 1.0, error_if_nonfinite=True)
