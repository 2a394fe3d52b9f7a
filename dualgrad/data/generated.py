"""Small datasets that are computed: points of the plane in classes, and a task for memory.

The same arguments give the same bits on every IEEE machine.  Classes are balanced (their counts
differ by at most one) and shuffled.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dualgrad.creation import from_numpy
from dualgrad.data.checks import whole
from dualgrad.data.dataset import TensorDataset
from dualgrad.data.draws import Draw, Floats, circle
from dualgrad.runtime.errors import ArgumentError


def spirals(
    n: int, classes: int = 2, noise: float = 0.05, turns: float = 1.0, seed: int = 0
) -> TensorDataset:
    """Return `n` points of spirals that turn around the origin, one for each class.

    noise  standard deviation of what is added to each coordinate
    turns  of each spiral, from the origin to radius 1

    Points are float32 [n, 2], labels int64 [n].  Raises ArgumentError.
    """
    op = "spirals"
    whole(op, "classes", classes, 1)
    draw = _draw(op, n, noise, seed)
    labels = draw.classes(n, classes)
    radius = draw.uniform(n)
    cos, sin = circle(radius * _finite(op, "turns", turns) + labels / classes)
    return _points(radius * cos, radius * sin, noise, draw, labels)


def moons(n: int, noise: float = 0.1, seed: int = 0) -> TensorDataset:
    """Return `n` points of two half circles of radius 1 that reach into each other.

    The upper one (label 0) is about (0, 0), the lower one (label 1) about (1, 0.5).
    noise  standard deviation of what is added to each coordinate

    Points are float32 [n, 2], labels int64 [n].  Raises ArgumentError.
    """
    draw = _draw("moons", n, noise, seed)
    labels = draw.classes(n, 2)
    cos, sin = circle(draw.uniform(n) / 2)
    lower = labels == 1
    x, y = np.where(lower, 1 - cos, cos), np.where(lower, 0.5 - sin, sin)
    return _points(x, y, noise, draw, labels)


def circles(n: int, noise: float = 0.05, factor: float = 0.5, seed: int = 0) -> TensorDataset:
    """Return `n` points of two circles about the origin, of radius 1 (label 0) and `factor`.

    noise  standard deviation of what is added to each coordinate

    Points are float32 [n, 2], labels int64 [n].  Raises ArgumentError.
    """
    draw = _draw("circles", n, noise, seed)
    labels = draw.classes(n, 2)
    radius = np.where(labels == 1, _finite("circles", "factor", factor), 1.0)
    cos, sin = circle(draw.uniform(n))
    return _points(radius * cos, radius * sin, noise, draw, labels)


def blobs(
    n: int, classes: int = 3, features: int = 2, spread: float = 1.0, seed: int = 0
) -> TensorDataset:
    """Return `n` points about one centre for each class; the centres lie in -10..10.

    spread  standard deviation of each coordinate

    Points are float32 [n, features], labels int64 [n].  Raises ArgumentError.
    """
    op = "blobs"
    whole(op, "classes", classes, 1)
    whole(op, "features", features, 1)
    draw = _draw(op, n, spread, seed, "spread")
    centres = draw.between(-10.0, 10.0, classes, features)
    labels = draw.classes(n, classes)
    points = centres[labels] + draw.bell(n, features) * spread
    return _dataset(points, labels)


def copy_task(
    n: int, length: int = 10, delay: int = 20, symbols: int = 8, seed: int = 0
) -> TensorDataset:
    """Return `n` sequences whose first `length` symbols are to be repeated after a delay.

    symbols  how many there are: 0..symbols-1; `symbols` is a blank, `symbols + 1` says "repeat"

    Inputs and targets are int64 [n, delay + 2 * length]:

        input   length symbols, delay - 1 blanks, the mark, length blanks
        target  delay + length blanks, the symbols

    Source: M. Arjovsky, A. Shah, Y. Bengio, "Unitary evolution recurrent neural networks", 2016.
    Raises ArgumentError.
    """
    op = "copy_task"
    for name, value in (("length", length), ("delay", delay), ("symbols", symbols)):
        whole(op, name, value, 1)
    draw = _draw(op, n, 0.0, seed)
    content = (draw.uniform(n, length) * symbols).astype(np.int64)
    inputs = np.full((n, delay + 2 * length), symbols, np.int64)
    targets = inputs.copy()
    inputs[:, :length] = content
    inputs[:, length + delay - 1] = symbols + 1
    targets[:, length + delay :] = content
    return TensorDataset(from_numpy(inputs), from_numpy(targets))


def _draw(op: str, n: int, noise: float, seed: int, name: str = "noise") -> Draw:
    whole(op, "n", n)
    whole(op, "seed", seed)
    if _finite(op, name, noise) < 0:
        raise _refused(op, name, noise, "a number of at least 0")
    return Draw(seed)


def _finite(op: str, name: str, value: float) -> float:
    if isinstance(value, int | float) and abs(value) < float("inf"):
        return value
    raise _refused(op, name, value, "a finite number")


def _refused(op: str, name: str, value: object, expect: str) -> ArgumentError:
    return ArgumentError(
        f"{name} has a value it cannot have", op=op, expect=expect, actual=repr(value),
        hint=f"leave {name} out for one that works",
    )  # fmt: skip


def _points(
    x: Floats, y: Floats, noise: float, draw: Draw, labels: NDArray[np.int64]
) -> TensorDataset:
    points = np.stack([x, y], 1)
    return _dataset(points + draw.bell(*points.shape) * noise, labels)


def _dataset(points: Floats, labels: NDArray[np.int64]) -> TensorDataset:
    return TensorDataset(from_numpy(points.astype(np.float32)), from_numpy(labels))
