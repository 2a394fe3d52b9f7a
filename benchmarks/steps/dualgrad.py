"""The workloads in dualgrad; `compiled` is `dg.function`, or does nothing in the eager arm."""

from __future__ import annotations

from typing import Any

import dualgrad as dg
from benchmarks.program import Arrays, Decorator, Program
from dualgrad import nn, optim
from dualgrad.functional import relu


def mlp(arrays: Arrays, compiled: Decorator) -> Program:
    model = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 10))
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.RMSprop(model.parameters(), lr=1e-3, alpha=0.99, eps=1e-8)
    values = [arrays[name] for name in ("w1", "b1", "w2", "b2")]
    first = dict(zip(model.state_dict(), values, strict=True))

    def step(images: dg.Tensor, labels: dg.Tensor) -> Any:
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    def averages() -> list[dg.Tensor]:
        return [tensor for state in optimizer.state.values() for tensor in state.values()]

    def reset() -> None:
        model.load_state_dict(first)
        for tensor in averages():
            tensor.zero_()

    reset()
    batches = zip(arrays["images"], arrays["labels"], strict=True)
    inputs = [(dg.from_numpy(images), dg.from_numpy(labels)) for images, labels in batches]
    return Program(compiled(step), inputs, lambda: [*model.parameters(), *averages()], reset)


def chain(arrays: Arrays, compiled: Decorator) -> Program:
    def step(x: dg.Tensor) -> Any:
        y = dg.tanh(x) * 2 + 1
        return y / dg.sqrt(y * y + 1)

    return Program(compiled(step), [(dg.from_numpy(arrays["x"]),)])


def softmax(arrays: Arrays, compiled: Decorator) -> Program:
    def step(x: dg.Tensor) -> Any:
        return dg.softmax(x, 1)

    return Program(compiled(step), [(dg.from_numpy(arrays["x"]),)])


def matmul(arrays: Arrays, compiled: Decorator) -> Program:
    def step(x: dg.Tensor, w: dg.Tensor, b: dg.Tensor) -> Any:
        return relu(x @ w + b)

    return Program(compiled(step), [tuple(dg.from_numpy(arrays[name]) for name in "xwb")])


def dispatch(arrays: Arrays, compiled: Decorator) -> Program:
    def step(x: dg.Tensor) -> Any:
        return x + 1

    return Program(compiled(step), [(dg.from_numpy(arrays["x"]),)])
