"""Whole training steps as CUDA C on the shim: losses, gradients and states have the CPU's bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import dualgrad as dg
from dualgrad import functional, nn, optim
from dualgrad.compiler.ir.node import Graph
from gpu import shim
from gpu.running import compare
from gpu.test_fuzz import cases_of

pytestmark = pytest.mark.skipif(shim.available() is not None, reason=str(shim.available()))

Step = tuple[Callable[..., Any], tuple[dg.Tensor, ...]]


def classifier() -> Step:
    model = nn.Sequential(nn.Linear(33, 20), nn.ReLU(), nn.Linear(20, 10))
    optimizer = optim.Adam(model.parameters(), lr=0.01)

    def step(x: dg.Tensor, target: dg.Tensor) -> dg.Tensor:
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x), target)
        loss.backward()
        optimizer.step()
        return loss

    return step, (dg.ones(17, 33), dg.zeros(17, dtype=dg.int64))


def convolutions() -> Step:
    kernels = [dg.ones(4, 3, 3, 3), dg.ones(5, 4, 2, 2)]
    scale = dg.ones(4)
    leaves = [x.requires_grad_() for x in (*kernels, scale)]
    optimizer = optim.SGD(leaves, lr=0.1, momentum=0.9)

    def step(x: dg.Tensor) -> dg.Tensor:
        optimizer.zero_grad()
        y = functional.conv2d(x, kernels[0], padding=1)
        y = (y - y.mean(axis=(0, 2, 3), keepdims=True)) * scale.reshape(1, 4, 1, 1)
        y = functional.max_pool2d(dg.relu(y), 2)
        y = functional.conv2d(y, kernels[1], stride=2)
        loss = (y * y).mean()
        loss.backward()
        optimizer.step()
        return loss

    return step, (dg.ones(2, 3, 10, 8),)


def attention() -> Step:
    table, mix, out = dg.ones(9, 16), dg.ones(16, 48), dg.ones(16, 9)
    gain = dg.ones(16)
    leaves = [x.requires_grad_() for x in (table, mix, out, gain)]

    def step(words: dg.Tensor, following: dg.Tensor) -> Any:
        for x in leaves:
            x.grad = None
        x = functional.embedding(words, table)
        h = functional.layer_norm(x, (16,), gain)
        parts = (h @ mix).reshape(2, 12, 3, 4, 4)
        q, k, v = (parts[:, :, j].transpose(1, 2) for j in range(3))
        weights = dg.softmax(q @ k.transpose(2, 3) * 0.5, -1)
        x = x + functional.dropout((weights @ v).transpose(1, 2).reshape(2, 12, 16), 0.1)
        loss = functional.cross_entropy((x @ out).reshape(24, 9), following.reshape(24))
        loss.backward()
        return loss, [x.grad for x in leaves]

    return step, (dg.zeros(2, 12, dtype=dg.int64), dg.zeros(2, 12, dtype=dg.int64))


STEPS = (classifier, convolutions, attention)


def graph_of(make: Callable[[], Step]) -> Graph:
    step, args = make()
    compiled = dg.function(step, strict=True)
    compiled(*args)
    return compiled.paths[-1].graph


@pytest.mark.parametrize("make", STEPS, ids=lambda s: s.__name__)
def test_step(make: Callable[[], Step]) -> None:
    cases = cases_of(graph_of(make), 1)
    kinds = {k.kind for c in cases for k in c.program.kernels}
    assert {"map", "contract"} <= kinds
    compare(*cases)
