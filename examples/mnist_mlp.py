"""Train a 784-512-10 perceptron on MNIST, eagerly or with a compiled step.

    python examples/mnist_mlp.py                     # compiled; MNIST if found, else drawn digits
    python examples/mnist_mlp.py --mode eager
    python examples/mnist_mlp.py --device cuda

Both modes print the same losses to the last bit, so the hexadecimal column can be compared.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import dualgrad as dg
from dualgrad import data, nn, optim

Step = Callable[[dg.Tensor, dg.Tensor], dg.Tensor]
Datasets = tuple[data.TensorDataset, data.TensorDataset]


def load(name: str, root: str | None) -> tuple[str, Datasets]:
    """Return which data is used, and its training and test sets."""
    if name == "mnist" or (name == "auto" and data.find_mnist(root) is not None):
        return "MNIST", data.mnist(root)
    return "synthetic digits", (data.synthetic_digits(20_000, 0), data.synthetic_digits(4_000, 1))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(784, 512)
        self.relu = nn.ReLU()
        self.fc2 = nn.Linear(512, 10)

    def forward(self, images: dg.Tensor) -> dg.Tensor:
        return self.fc2(self.relu(self.fc1(self.flatten(images))))


def train_epoch(step: Step, loader: data.DataLoader, device: str) -> float:
    """Return the mean of the losses of all batches."""
    losses = [step(images.to(device), labels.to(device)).item() for images, labels in loader]
    return sum(losses) / len(losses)


def accuracy(count_correct: Step, loader: data.DataLoader, device: str) -> float:
    counts = [count_correct(images.to(device), labels.to(device)) for images, labels in loader]
    return sum(count.item() for count in counts) / len(loader.dataset)


def main() -> None:
    args = parse_arguments()
    dg.seed(args.seed)
    name, (train_set, test_set) = load(args.data, args.root)
    train_loader = data.DataLoader(train_set, batch_size=args.batch_size, shuffle=True)
    test_loader = data.DataLoader(test_set, batch_size=1000)

    model = Net().to(args.device)
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.RMSprop(model.parameters(), lr=args.lr, alpha=0.99, eps=1e-8)

    def train_step(images: dg.Tensor, labels: dg.Tensor) -> dg.Tensor:
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    def count_correct(images: dg.Tensor, labels: dg.Tensor) -> dg.Tensor:
        with dg.no_grad():
            return model(images).argmax(axis=1).eq(labels).sum()

    static = args.mode == "static"
    step = dg.function(train_step) if static else train_step
    evaluate = dg.function(count_correct) if static else count_correct

    print(
        f"{name}: {len(train_set)} for training, {len(test_set)} for testing;"
        f" mode {args.mode}, device {args.device}"
    )
    for epoch in range(1, args.epochs + 1):
        start = time.perf_counter()
        model.train()
        loss = train_epoch(step, train_loader, args.device)
        seconds = time.perf_counter() - start
        model.eval()
        correct = accuracy(evaluate, test_loader, args.device)
        print(
            f"epoch {epoch}: train loss {loss:.9f} ({loss.hex()}), "
            f"test accuracy {100 * correct:.2f} %, {seconds:.2f} s",
            flush=True,
        )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mode", choices=("eager", "static"), default="static")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", choices=("mnist", "synthetic", "auto"), default="auto")
    parser.add_argument("--root", help="folder of the four MNIST files")
    return parser.parse_args()


if __name__ == "__main__":
    main()
