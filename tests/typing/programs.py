"""Programs as users write them, with the types that they count on.

Type checkers read this file, and the tests run it with an `assert_type` that looks.
"""

from __future__ import annotations

from typing import assert_type

import numpy as np

import dualgrad as dg
from dualgrad import functional as F
from dualgrad import nn, optim


def operators(x: dg.Tensor) -> None:
    assert_type(x + 1, dg.Tensor)
    assert_type(2.0 - x, dg.Tensor)
    assert_type(x * x, dg.Tensor)
    assert_type(x / np.float32(2), dg.Tensor)
    assert_type(x @ x.T, dg.Tensor)
    assert_type(x**2, dg.Tensor)
    assert_type(2**x, dg.Tensor)
    assert_type(-x, dg.Tensor)
    assert_type(abs(x), dg.Tensor)
    assert_type(x > 0, dg.Tensor)
    assert_type(x == 1, dg.Tensor)
    assert_type(x[0], dg.Tensor)
    assert_type(x[..., None, 1:], dg.Tensor)
    assert_type(x[x > 0], dg.Tensor)
    y = x.clone()
    y += 1
    y[0] = 2.0
    assert_type(y, dg.Tensor)
    for row in x:
        assert_type(row, dg.Tensor)


def methods(x: dg.Tensor) -> None:
    assert_type(x.sum(), dg.Tensor)
    assert_type(x.mean(axis=0, keepdims=True), dg.Tensor)
    assert_type(x.reshape(-1).exp().clamp(0, 1), dg.Tensor)
    assert_type(x.to(dg.float64), dg.Tensor)
    assert_type(x.split(1), tuple[dg.Tensor, ...])
    assert_type(x.topk(1), tuple[dg.Tensor, dg.Tensor])
    assert_type(x.nonzero(), dg.Tensor)
    assert_type(x.nonzero(as_tuple=True), tuple[dg.Tensor, ...])
    assert_type(x.detach().add_(1), dg.Tensor)
    assert_type(x.requires_grad, bool)
    assert_type(x.grad, dg.Tensor | None)
    assert_type(x.ndim, int)
    assert_type(len(x), int)
    assert_type(float(x.sum()), float)
    assert_type(x.device, str)


def functions(x: dg.Tensor) -> None:
    assert_type(dg.sum(x, axis=0), dg.Tensor)
    assert_type(dg.exp(x), dg.Tensor)
    assert_type(dg.where(x > 0, x, 0), dg.Tensor)
    assert_type(dg.matmul(x, x.mT), dg.Tensor)
    assert_type(dg.cat([x, x], axis=1), dg.Tensor)
    assert_type(dg.var_mean(x), tuple[dg.Tensor, dg.Tensor])
    assert_type(dg.split(x, 1), tuple[dg.Tensor, ...])
    assert_type(dg.zeros(2, 3), dg.Tensor)
    assert_type(dg.randn(2, 3, requires_grad=True), dg.Tensor)
    assert_type(dg.tensor([[1.0, 2.0]]), dg.Tensor)
    assert_type(dg.linalg.inv(dg.eye(2)), dg.Tensor)
    assert_type(dg.linalg.svd(x).S, dg.Tensor)
    u, s, vh = dg.linalg.svd(x, full_matrices=False)
    assert_type(u * s @ vh, dg.Tensor)
    assert_type(dg.fft.rfft(x), dg.Tensor)
    assert_type(F.softmax(x), dg.Tensor)
    assert_type(F.cross_entropy(x, dg.tensor([0, 1])), dg.Tensor)
    assert_type(dg.nonzero(x), dg.Tensor)
    assert_type(dg.unique_all(x).counts, dg.Tensor)
    assert_type(dg.array_api.reshape(x, (6,)), dg.Tensor)


@dg.function
def scaled(x: dg.Tensor, factor: float = 2.0) -> dg.Tensor:
    return x * factor


@dg.function(strict=True)
def both(x: dg.Tensor) -> tuple[dg.Tensor, int]:
    return x + 1, x.ndim


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: dg.Tensor) -> dg.Tensor:
        return dg.relu(self.layer(x))

    @dg.function
    def loss(self, x: dg.Tensor, *, weight: float = 1.0) -> dg.Tensor:
        return self.forward(x).sum() * weight


def decorated(x: dg.Tensor) -> None:
    assert_type(scaled(x), dg.Tensor)
    assert_type(scaled(x, factor=3.0), dg.Tensor)
    assert_type(both(x), tuple[dg.Tensor, int])
    assert_type(scaled.n_traces, int)
    assert_type(Net().loss(x, weight=2.0), dg.Tensor)

    @dg.no_grad()
    def inside(y: dg.Tensor) -> dg.Tensor:
        return y + 1

    assert_type(inside(x), dg.Tensor)


def training(x: dg.Tensor) -> None:
    net = Net()
    optimizer = optim.SGD(net.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        loss = net.loss(x)
        loss.backward()
        optimizer.step()
    with dg.no_grad():
        assert_type(net.forward(x), dg.Tensor)
    assert_type(net.layer.weight, nn.Parameter)


def main() -> None:
    x = dg.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    operators(x)
    methods(x)
    functions(x)
    decorated(x)
    training(x)
