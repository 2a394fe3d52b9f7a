"""Train a 784-512-512-10 perceptron on MNIST by SGD.

python examples/mnist_mlp.py                     # compiled; MNIST if found, else drawn digits
python examples/mnist_mlp.py --data mnist        # downloads MNIST, if need be
python examples/mnist_mlp.py --mode eager
python examples/mnist_mlp.py --compare           # both modes: same bits?
"""

from __future__ import annotations

import argparse

from common import Decorator, digit_options, fit, launch

import dualgrad as dg
from dualgrad import nn, optim


class MLP(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(28 * 28, 512),
            nn.ReLU(),
            nn.Linear(512, 512),
            nn.ReLU(),
            nn.Linear(512, 10),
        )

    def forward(self, images: dg.Tensor) -> dg.Tensor:
        return self.layers(images)


def train(args: argparse.Namespace, decorate: Decorator) -> tuple[nn.Module, list[float]]:
    dg.seed(args.seed)
    model = MLP().to(args.device)
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.SGD(model.parameters(), lr=args.lr, momentum=args.momentum)

    @decorate
    def step(images: dg.Tensor, labels: dg.Tensor) -> dg.Tensor:
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    @decorate
    def count_correct(images: dg.Tensor, labels: dg.Tensor) -> dg.Tensor:
        with dg.no_grad():
            return (model(images).argmax(1) == labels).sum()

    return model, fit(model, step, count_correct, args)


if __name__ == "__main__":
    parser = digit_options(__doc__, epochs=5, batch_size=64, lr=0.02, momentum=0.9, samples=20_000)
    launch(train, parser.parse_args())
