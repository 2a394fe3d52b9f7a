"""Fit a 10-5-1 network to noisy values: the whole training loop in a few lines.

python examples/regression.py                # compiled
python examples/regression.py --mode eager
python examples/regression.py --compare      # both modes: same bits?
"""

from __future__ import annotations

import argparse

from common import Decorator, launch, options, progress

import dualgrad as dg
from dualgrad import nn, optim

NOISE = 0.1


def draw(samples: int) -> tuple[dg.Tensor, dg.Tensor]:
    """Return inputs [n, 10] and values [n, 1] of a function that such a network can express."""
    x, slopes = dg.randn(samples, 10), dg.randn(10, 5)
    y = dg.relu(x @ slopes).sum(1, keepdim=True) / 5
    return x, y + NOISE * dg.randn(samples, 1)


def train(args: argparse.Namespace, decorate: Decorator) -> tuple[nn.Module, list[float]]:
    dg.seed(args.seed)
    x, y = (t.to(args.device) for t in draw(args.samples))
    model = nn.Sequential(nn.Linear(10, 5), nn.ReLU(), nn.Linear(5, 1)).to(args.device)
    criterion = nn.MSELoss()
    optimizer = optim.Adam(model.parameters(), lr=args.lr)

    @decorate
    def step() -> dg.Tensor:
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    losses: list[float] = []
    for i in progress(range(args.steps), "steps"):
        losses.append(step().item())
        if i % (max(args.steps // 5, 1)) == 0:
            print(f"step {i}: loss {losses[-1]:.6f}")
    print(f"step {args.steps}: loss {losses[-1]:.6f}; the noise alone makes {NOISE**2:.2f}")
    return model, losses


if __name__ == "__main__":
    launch(train, options(__doc__, steps=1000, lr=0.03, samples=1000).parse_args())
