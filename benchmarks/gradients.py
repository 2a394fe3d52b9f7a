"""What gradients cost that flow out of a compiled function: python -m benchmarks.gradients.

Each row is a loss and `backward()` outside of it: everything eager, the loss compiled (its gradient
then is one program too), and both in one compiled function.  The three are timed in interleaved
blocks of one process.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import dualgrad as dg
from benchmarks.machine import Others, describe
from benchmarks.report import aligned, time_text, write_section
from dualgrad import functional, nn
from dualgrad.runtime.host import cpu_count

COLUMNS = (
    "loss and backward()",
    "eager",
    "loss compiled",
    "both compiled",
    "loss compiled / eager",
)
_BLOCK = 0.02  # seconds


@dataclass
class Row:
    """A loss, and the tensors whose gradients are wanted."""

    name: str
    loss: Callable[[], Any]
    leaves: list[Any]


def rows() -> list[Row]:
    """All rows, with tensors of their own."""
    dg.seed(0)
    return [
        product_row(),
        mlp_row("MLP 8-16-4, batch 32", (8, 16, 4), 32),
        mlp_row("MLP 784-256-10, batch 128", (784, 256, 10), 128),
        elementwise_row(),
        recurrent_row(),
        convolution_row(),
    ]


def leaf(*shape: int) -> Any:
    return dg.randn(*shape).requires_grad_()


def product_row() -> Row:
    x, w = leaf(4), leaf(4)
    return Row("(x * w).sum() of 4 numbers", lambda: (x * w).sum(), [x, w])


def mlp_row(name: str, sizes: tuple[int, ...], batch: int) -> Row:
    layers: list[Any] = []
    for n_in, n_out in pairwise(sizes):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    x, target = dg.randn(batch, sizes[0]), dg.arange(batch) % sizes[-1]
    return Row(name, lambda: functional.cross_entropy(model(x), target), list(model.parameters()))


def elementwise_row() -> Row:
    x = leaf(1000, 1000)

    def loss() -> Any:
        y = ((x * 2.0 + 1.0).relu() * x - x * x + 0.5).sigmoid() * x
        return y.sum()

    return Row("nine elementwise ops, 1e6 numbers", loss, [x])


def recurrent_row() -> Row:
    w, xs = leaf(64, 64), dg.randn(20, 32, 64)

    def loss() -> Any:
        h = xs[0]
        for k in range(1, 20):
            h = (h @ w * 0.1 + xs[k]).tanh()
        return h.sum()

    return Row("RNN of 19 steps, 64 units, batch 32", loss, [w])


def convolution_row() -> Row:
    first, second, images = leaf(16, 3, 3, 3), leaf(32, 16, 3, 3), dg.randn(8, 3, 32, 32)

    def loss() -> Any:
        y = functional.conv2d(images, first, padding=1).relu()
        y = functional.conv2d(y, second, padding=1).relu()
        return functional.max_pool2d(y, 2).mean()

    return Row("two convolutions, 8x3x32x32", loss, [first, second])


def arms(row: Row) -> list[Callable[[], Any]]:
    """Everything eager; the loss compiled; all of it compiled."""

    def step_of(loss: Callable[[], Any]) -> Callable[[], Any]:
        def step() -> Any:
            for t in row.leaves:
                t.grad = None
            out = loss()
            out.backward()
            return out

        return step

    whole = dg.function(step_of(row.loss), strict=True)
    return [step_of(row.loss), step_of(dg.function(row.loss, strict=True)), whole]


def block(step: Callable[[], Any]) -> float:
    """Nanoseconds of a step, over a block of them."""
    count, started = 0, time.perf_counter()
    while (now := time.perf_counter()) - started < _BLOCK:
        step()
        count += 1
    return 1e9 * (now - started) / count


def measure(row: Row, repeats: int) -> tuple[str, ...]:
    """The cells of a row."""
    steps = arms(row)
    for step in steps:
        for _ in range(5):
            step()
    times: list[list[float]] = [[] for _ in steps]
    for _ in range(repeats):
        for step, found in zip(steps, times, strict=True):
            found.append(block(step))
    middle = [statistics.median(t) for t in times]
    return (row.name, *map(time_text, middle), f"{middle[1] / middle[0]:.2f}")


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gradients", description=__doc__)
    parser.add_argument("--repeats", type=int, default=15, help="blocks of each way")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table to a file")
    arguments = parser.parse_args(argv)
    others = Others()
    table = [COLUMNS, *(measure(row, arguments.repeats) for row in rows())]
    print("\n".join(aligned(table)))
    if arguments.markdown:
        machine = describe([], cpu_count())
        program, share = "benchmarks.gradients", others.share()
        write_section(arguments.markdown, program, argv, machine, share, table)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
