"""What the examples share: their options, progress bars, and both modes beside each other."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

import dualgrad as dg
from dualgrad import data, nn

T = TypeVar("T")
Function = Callable[..., Any]
Decorator = Callable[[Function], Function]
Training = Callable[[argparse.Namespace, Decorator], tuple[nn.Module, list[float]]]

MODES: Final[dict[str, Decorator]] = {"eager": lambda function: function, "static": dg.function}


def options(doc: str | None, **defaults: Any) -> argparse.ArgumentParser:
    """Return the options of all examples, and one more for each number among `defaults`."""
    about = (doc or "").partition("\n")[0]
    parser = argparse.ArgumentParser(
        description=about, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--mode", choices=MODES, default="static", help="run steps as they are, or compiled"
    )
    parser.add_argument(
        "--compare", action="store_true", help="run both modes and compare all bits"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--seed", type=int, default=0, help="of initial weights and orders")
    for name, value in defaults.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=type(value), default=value, help=" ")
    return parser


def launch(train: Training, args: argparse.Namespace) -> None:
    """Train in the mode that `args` name, or in both and say whether their bits are equal.

    `train(args, decorate)` returns its model and losses; it decorates its steps with `decorate`.
    """
    if not args.compare:
        train(args, MODES[args.mode])
        return
    bits = []
    for mode, decorate in MODES.items():
        print(f"--- {mode}")
        model, losses = train(args, decorate)
        weights = [t.detach().cpu().numpy().tobytes() for t in model.state_dict().values()]
        bits.append(([loss.hex() for loss in losses], weights))
    same = bits[0] == bits[1]
    print("--- all losses and weights have", "the same bits" if same else "DIFFERENT BITS")
    sys.exit(not same)


def progress(items: Iterable[T], title: str) -> Iterable[T]:
    """Return `items`, with a progress bar on a terminal if tqdm is installed."""
    if not sys.stderr.isatty() or importlib.util.find_spec("tqdm") is None:
        return items
    from tqdm import tqdm

    bar: Iterable[T] = tqdm(items, desc=title, leave=False)
    return bar


# Classifiers of digits -----------------------------------------------------------------------


def digit_options(doc: str | None, **defaults: Any) -> argparse.ArgumentParser:
    """Return the options of an example that classifies digits."""
    parser = options(doc, **defaults)
    parser.add_argument(
        "--data", choices=("auto", "mnist", "synthetic"), default="auto",
        help="auto takes MNIST if its files are there, mnist downloads them",
    )  # fmt: skip
    parser.add_argument("--root", help="folder of the four MNIST files")
    return parser


def load_digits(args: argparse.Namespace) -> tuple[data.TensorDataset, data.TensorDataset]:
    """Return training and test set: MNIST, or `args.samples` drawn digits and a fifth of that."""
    wanted = args.data == "mnist" or args.root is not None
    found = wanted or (args.data == "auto" and data.find_mnist() is not None)
    if found:
        sets = data.mnist(args.root)
    else:
        n = args.samples
        sets = data.synthetic_digits(n, seed=0), data.synthetic_digits(n // 5, seed=1)
    name = "MNIST" if found else "synthetic digits"
    print(f"{name}: {len(sets[0])} for training, {len(sets[1])} for testing; device {args.device}")
    return sets


def fit(
    model: nn.Module,
    step: Function,
    count_correct: Function,
    args: argparse.Namespace,
) -> list[float]:
    """Train for `args.epochs` epochs, print a line for each, and return the losses of all steps."""
    train_set, test_set = load_digits(args)
    train_batches = data.DataLoader(train_set, args.batch_size, shuffle=True)
    test_batches = data.DataLoader(test_set, 1000)
    losses: list[float] = []
    for epoch in range(1, args.epochs + 1):
        start = time.perf_counter()
        model.train()
        batches = progress(train_batches, f"epoch {epoch}")
        found = [step(x.to(args.device), y.to(args.device)).item() for x, y in batches]
        seconds = time.perf_counter() - start
        model.eval()
        right = sum(
            count_correct(x.to(args.device), y.to(args.device)).item() for x, y in test_batches
        )
        losses += found
        print(
            f"epoch {epoch}: train loss {sum(found) / len(found):.6f}, "
            f"test accuracy {100 * right / len(test_set):.2f} %, {seconds:.2f} s",
            flush=True,
        )
    return losses
