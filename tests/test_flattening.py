"""Elementwise units on tensors of any shape run one program; units with axes keep theirs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dualgrad as dg
from dualgrad.dispatch import forget
from dualgrad.runtime.profile import counters

SHAPES = ((6,), (3, 4), (2, 3, 4), (5, 5), (1, 1), (1, 7), (1,), (), (0, 3), (0,))


def programs() -> int:
    """Programs that were made or found in the disk cache so far."""
    return counters.compiled + counters.cache_hits


def ramp(shape: tuple[int, ...], start: float) -> Any:
    n = int(np.prod(shape))
    return (np.arange(n, dtype=np.float32) * np.float32(0.37) + np.float32(start)).reshape(shape)


def test_one_program_serves_all_shapes() -> None:
    forget()
    made = []
    for shape in SHAPES:
        a, b = ramp(shape, -1.0), ramp(shape, 0.5)
        x, y = dg.from_numpy(a.copy()), dg.from_numpy(b.copy())
        before = programs()
        out = dg.where(x > y, x, x * y - 3.0)
        made.append(programs() - before)
        assert out.shape == shape
        np.testing.assert_array_equal(out.numpy(), np.where(a > b, a, a * b - np.float32(3)))
    assert made[0] > 0
    assert made[1:] == [0] * len(made[1:])


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_and_writes_have_the_shape_of_their_tensor(shape: tuple[int, ...]) -> None:
    a = ramp(shape, -1.0)
    x = dg.from_numpy(a.copy()).requires_grad_()
    (dg.relu(x) * x).backward(dg.ones(shape))
    assert x.grad is not None
    assert x.grad.shape == shape
    np.testing.assert_array_equal(x.grad.numpy(), np.where(a > 0, a + a, 0).astype(np.float32))
    y = dg.from_numpy(a.copy())
    y += y
    y *= 2
    np.testing.assert_array_equal(y.numpy(), 4 * a)


def test_a_single_element_beside_a_tensor() -> None:
    for shape in ((3, 4), (1, 1), (2, 1, 3)):
        a = ramp(shape, 1.0)
        out = dg.from_numpy(a) * dg.tensor(2.5)
        np.testing.assert_array_equal(out.numpy(), a * np.float32(2.5))
        assert out.shape == shape


def test_units_with_axes_keep_them() -> None:
    a = ramp((1, 7), 0.0)
    x = dg.from_numpy(a)
    for axis in (0, 1, -1):
        np.testing.assert_allclose(
            dg.mean(x, axis, keepdim=True).numpy(), a.mean(axis, keepdims=True), rtol=1e-6
        )
        want = np.exp(a) / np.exp(a).sum(axis, keepdims=True)
        np.testing.assert_allclose(dg.softmax(x, axis).numpy(), want, rtol=1e-6)


def test_views_keep_their_strides() -> None:
    a = ramp((3, 4), 0.0)
    x = dg.from_numpy(a)
    np.testing.assert_array_equal((x.T * 2.0).numpy(), a.T * 2)
    np.testing.assert_array_equal((x[:, ::2] + x[:, 1::2]).numpy(), a[:, ::2] + a[:, 1::2])
