"""The workloads in PyTorch; `compiled` is `torch.compile`, or does nothing in the eager arm."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from benchmarks.program import Arrays, Decorator, Program


def mlp(arrays: Arrays, compiled: Decorator) -> Program:
    """Model and loss are compiled together with the backward pass, the optimizer's step by
    itself: a training step that is compiled as a whole breaks into more graphs than these two."""
    model = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 10))
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3, alpha=0.99, eps=1e-8)
    first = [torch.from_numpy(arrays[name]) for name in ("w1", "b1", "w2", "b2")]

    def forward(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = criterion(model(images), labels)
        return loss

    loss_of, update = compiled(forward), compiled(optimizer.step)

    def step(images: torch.Tensor, labels: torch.Tensor) -> Any:
        optimizer.zero_grad()
        loss: Any = loss_of(images, labels)
        loss.backward()
        update()
        return loss

    def reset() -> None:
        with torch.no_grad():
            for param, value in zip(model.parameters(), first, strict=True):
                param.copy_(value)
        for state in optimizer.state.values():
            state["square_avg"].zero_()

    reset()
    batches = zip(arrays["images"], arrays["labels"], strict=True)
    inputs = [(torch.from_numpy(images), torch.from_numpy(labels)) for images, labels in batches]
    return Program(step, inputs, lambda: list(model.parameters()), reset)


def chain(arrays: Arrays, compiled: Decorator) -> Program:
    def step(x: torch.Tensor) -> torch.Tensor:
        y = torch.tanh(x) * 2 + 1
        return y / torch.sqrt(y * y + 1)

    return Program(compiled(step), [(torch.from_numpy(arrays["x"]),)])


def softmax(arrays: Arrays, compiled: Decorator) -> Program:
    def step(x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x, 1)

    return Program(compiled(step), [(torch.from_numpy(arrays["x"]),)])


def matmul(arrays: Arrays, compiled: Decorator) -> Program:
    def step(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.relu(x @ w + b)

    return Program(compiled(step), [tuple(torch.from_numpy(arrays[name]) for name in "xwb")])


def dispatch(arrays: Arrays, compiled: Decorator) -> Program:
    def step(x: torch.Tensor) -> torch.Tensor:
        return x + 1

    return Program(compiled(step), [(torch.from_numpy(arrays["x"]),)])
