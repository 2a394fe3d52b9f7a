"""Programs whose compile time is measured: each makes a fresh function and its arguments.

A program is unrolled n times; one that trains has a backward pass and updates its parameters.
Sizes are small: what is measured is compiling, not running.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import dualgrad as dg
from dualgrad import nn, optim

Made = tuple[Callable[..., Any], tuple[Any, ...]]
_ROWS, _WIDTH = 8, 16


def _random(*shape: int, seed: int = 0) -> dg.Tensor:
    numbers = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return dg.from_numpy(numbers * np.float32(0.3))


def _trained(loss: Callable[[Any], Any], params: Sequence[dg.Tensor]) -> Callable[[Any], Any]:
    """A step that makes gradients and updates the parameters."""
    for p in params:
        p.requires_grad = True

    def step(x: Any) -> Any:
        out = loss(x)
        out.backward()
        with dg.no_grad():
            for p in params:
                assert p.grad is not None
                p -= 0.01 * p.grad
                p.grad = None
        return out.detach()

    return step


def chain(n: int, train: bool) -> Made:
    """x = sin(x) * 1.01 + x, n times."""
    w = _random(_ROWS, _WIDTH, seed=1)

    def forward(x: Any) -> Any:
        x = x * w
        for _ in range(n):
            x = dg.sin(x) * 1.01 + x
        return x

    x = _random(_ROWS, _WIDTH)
    return (_trained(lambda x: forward(x).sum(), [w]) if train else forward), (x,)


def residual(n: int, train: bool) -> Made:
    """x = x + relu(linear(x)), n times, each with parameters of its own."""
    layers = [nn.Linear(_WIDTH, _WIDTH) for _ in range(n)]
    params = [p for layer in layers for p in layer.parameters()]

    def forward(x: Any) -> Any:
        for layer in layers:
            x = x + dg.relu(layer(x))
        return x

    def inference(x: Any) -> Any:
        with dg.no_grad():
            return forward(x)

    x = _random(_ROWS, _WIDTH)
    return (_trained(lambda x: forward(x).sum(), params) if train else inference), (x,)


def recurrent(n: int, train: bool) -> Made:
    """h = tanh(x @ w + h @ u + b) over n steps."""
    w, u, b = (_random(_WIDTH, _WIDTH, seed=k) for k in (1, 2, 3))
    b = b[0].clone()

    def forward(x: Any) -> Any:
        h = dg.zeros(_ROWS, _WIDTH)
        for t in range(n):
            h = dg.tanh(x[t] @ w + h @ u + b)
        return h

    x = _random(n, _ROWS, _WIDTH)
    return (_trained(lambda x: forward(x).sum(), [w, u, b]) if train else forward), (x,)


def runtime(n: int, train: bool) -> Made:
    """x @ x + x: whoever runs it first on a machine makes the code of the runtime."""
    return (lambda x: x @ x + x), (_random(_WIDTH, _WIDTH),)


def three(n: int, train: bool) -> Made:
    """tanh(x) * 2 + 1."""
    return (lambda x: dg.tanh(x) * 2 + 1), (_random(1000),)


def mlp(n: int, train: bool) -> Made:
    """A training step of 8-16-1 with Adam, batch 32."""
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
    optimizer = optim.Adam(model.parameters())
    loss_of = nn.MSELoss()

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_of(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step, (_random(32, 8), _random(32, 1, seed=5))


RUNTIME = "runtime"
PROGRAMS: dict[str, Callable[[int, bool], Made]] = {
    RUNTIME: runtime,
    "three": three,
    "mlp": mlp,
    "chain": chain,
    "residual": residual,
    "recurrent": recurrent,
}
