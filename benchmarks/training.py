"""The training step that several benchmarks time: 784-width-10, ReLU, cross-entropy, RMSprop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dualgrad as dg
from dualgrad import functional, nn, optim


def training_step(width: int = 512, batch: int = 128, device: str = "cpu") -> Callable[[], Any]:
    """One step on random images; it returns the loss."""
    model = nn.Sequential(nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10)).to(device)
    optimizer = optim.RMSprop(model.parameters(), lr=1e-3)
    images = dg.randn(batch, 784, device=device)
    labels = dg.arange(batch, device=device) % 10

    def step() -> Any:
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step
