"""Clipping of gradients by PyTorch's formula, in place; parameters as one vector."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest

import dualgrad as dg
from dualgrad import nn
from dualgrad.nn.utils import (
    clip_grad_norm_,
    clip_grad_value_,
    clip_grads_with_norm_,
    get_total_norm,
    parameters_to_vector,
    vector_to_parameters,
)
from dualgrad.runtime.errors import ArgumentError, ShapeError

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


def test_a_known_norm_clips_alike() -> None:
    arrays = gradients("float32", 10.0)
    once, twice = parameters(arrays), parameters(arrays)
    total = clip_grad_norm_(iter(once), 0.5, foreach=True)
    clip_grads_with_norm_(twice, 0.5, get_total_norm([p.grad for p in twice if p.grad is not None]))
    assert total.item() > 0.5
    for a, b in zip(values(once), values(twice), strict=True):
        np.testing.assert_array_equal(a, b)


# -- vectors


def test_parameters_as_one_vector_and_back() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    kept = list(model.parameters())
    vector = parameters_to_vector(model.parameters())
    want = np.concatenate([p.detach().numpy().ravel() for p in kept])
    np.testing.assert_array_equal(vector.detach().numpy(), want)
    (vector * dg.arange(len(want))).sum().backward()
    assert kept[0].grad is not None
    assert kept[0].grad.tolist() == [[0, 1], [2, 3], [4, 5]]
    vector_to_parameters(dg.arange(len(want)).float(), model.parameters())
    assert [p is q for p, q in zip(model.parameters(), kept, strict=True)] == [True] * 4
    assert kept[1].tolist() == [6, 7, 8]
    assert kept[3].tolist() == [12, 13, 14]
    with pytest.raises(ShapeError, match=r"shape \(15,\)"):
        vector_to_parameters(dg.zeros(16), kept)


def test_vectors_in_a_compiled_step() -> None:
    def step(model: nn.Module) -> Any:
        vector = parameters_to_vector(model.parameters())
        vector_to_parameters((vector * 0.5).detach(), model.parameters())
        return vector.detach()

    dg.seed(3)
    eager = nn.Linear(2, 3)
    static = copy.deepcopy(eager)
    f = dg.function(step, strict=True)
    for _ in range(3):
        assert f(static).tolist() == step(eager).tolist()
    assert f.n_traces == 1
