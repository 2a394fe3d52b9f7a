"""Train a small convolutional network on MNIST: two convolutions, two dense layers, Adam.

python examples/mnist_cnn.py                     # compiled; MNIST if found, else drawn digits
python examples/mnist_cnn.py --data mnist        # downloads MNIST, if need be
python examples/mnist_cnn.py --mode eager
python examples/mnist_cnn.py --compare           # both modes: same bits?
"""

from __future__ import annotations

import argparse

from common import Decorator, digit_options, fit, launch

import dualgrad as dg
from dualgrad import nn, optim


class CNN(nn.Module):
    """Shapes, for images [n, 1, 28, 28]:

    [n, 32, 26, 26] -> [n, 32, 13, 13] -> [n, 64, 11, 11] -> [n, 64, 5, 5] -> [n, 64] -> [n, 10]
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 32, kernel_size=3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, kernel_size=3),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Linear(64 * 5 * 5, 64),
            nn.ReLU(),
            nn.Linear(64, 10),
        )

    def forward(self, images: dg.Tensor) -> dg.Tensor:
        return self.head(self.features(images))


def train(args: argparse.Namespace, decorate: Decorator) -> tuple[nn.Module, list[float]]:
    dg.seed(args.seed)
    model = CNN().to(args.device)
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.Adam(model.parameters(), lr=args.lr)

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
    parser = digit_options(__doc__, epochs=5, batch_size=64, lr=1e-3, samples=4000)
    launch(train, parser.parse_args())
