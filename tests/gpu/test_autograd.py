"""Gradients by hand, user-defined functions, checkpoints and the search for NaNs on a device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dualgrad as dg
from dualgrad.runtime.errors import DualgradError, NaNError


class Exp(dg.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: dg.Tensor) -> dg.Tensor:
        y = x.exp()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, g: dg.Tensor) -> dg.Tensor:
        return g * ctx.saved_tensors[0]


def penalty(x: dg.Tensor) -> tuple[dg.Tensor, dg.Tensor]:
    y = Exp.apply(x * 0.5)
    z = dg.checkpoint(lambda y: (y * y).tanh().sum(), y)
    (g,) = dg.autograd.grad(z, x, create_graph=True)
    (h,) = dg.autograd.grad((g * g).sum(), x)
    return g.detach(), h


@pytest.mark.parametrize("compiled", [False, True])
def test_as_on_the_cpu(gpu: Any, compiled: bool) -> None:
    f = dg.function(penalty, strict=True) if compiled else penalty
    values = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    want = penalty(dg.tensor(values, requires_grad=True))
    got = f(dg.tensor(values, device="cuda", requires_grad=True))
    for a, b in zip(got, want, strict=True):
        assert a.is_cuda
        np.testing.assert_allclose(a.cpu().numpy(), b.numpy(), rtol=1e-5, atol=1e-6)


def test_nans_are_found(gpu: Any) -> None:
    x = dg.tensor([1.0, -1.0], device="cuda", requires_grad=True)
    with dg.detect_nan(), pytest.raises(NaNError, match="NaN in 1 of 2 elements"):
        x.log()


def test_gradient_on_another_device_is_refused(gpu: Any) -> None:
    class Wrong(dg.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: dg.Tensor) -> dg.Tensor:
            return x * 1

        @staticmethod
        def backward(ctx: Any, g: dg.Tensor) -> dg.Tensor:
            return g.cpu()

    x = dg.tensor([1.0, -1.0], device="cuda", requires_grad=True)
    with pytest.raises(DualgradError, match="does not fit its argument"):
        Wrong.apply(x).sum().backward()
