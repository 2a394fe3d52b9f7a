"""Generated datasets: geometry against direct formulas, moments, bits that never change."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

from dualgrad.data import blobs, circles, copy_task, moons, spirals
from dualgrad.data.draws import Draw, circle
from dualgrad.errors import ArgumentError

SETS: dict[str, Any] = {
    "spirals": lambda n, **a: spirals(n, classes=3, **a),
    "moons": moons,
    "circles": circles,
    "blobs": lambda n, **a: blobs(n, classes=4, features=5, **a),
    "copy_task": lambda n, **a: copy_task(n, 3, 4, 5, **a),
}


def arrays(data: Any) -> list[np.ndarray[Any, Any]]:
    return [x.numpy() for x in data.tensors]


@pytest.mark.parametrize("name", SETS)
def test_seeds_decide(name: str) -> None:
    first, again, other = (arrays(SETS[name](50, seed=s)) for s in (1, 1, 2))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first, again, strict=True))
    assert first[0].tobytes() != other[0].tobytes()
    assert [x.shape for x in arrays(SETS[name](0))] == [(0, *x.shape[1:]) for x in first]


@pytest.mark.parametrize("name", ["spirals", "moons", "circles", "blobs"])
def test_classes_are_balanced_and_shuffled(name: str) -> None:
    points, labels = arrays(SETS[name](1001))
    assert points.dtype == np.float32
    assert labels.dtype == np.int64
    counts = np.bincount(labels)
    assert counts.max() - counts.min() <= 1
    equal_neighbours = int((labels[1:] == labels[:-1]).sum())
    assert abs(equal_neighbours - 1000 / len(counts)) < 100


def test_spirals_are_spirals() -> None:
    points, labels = arrays(spirals(500, classes=3, noise=0.0, turns=1.5))
    radius = np.hypot(*points.T.astype(np.float64))
    angle = 2 * np.pi * (1.5 * radius + labels / 3)
    expected = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
    assert np.abs(points - expected).max() < 2e-6
    assert radius.max() <= 1


def test_moons_are_moons() -> None:
    points, labels = arrays(moons(500, noise=0.0))
    upper, lower = points[labels == 0], points[labels == 1]
    assert np.abs(np.hypot(*upper.T) - 1).max() < 1e-6
    assert upper[:, 1].min() >= 0
    assert np.abs(np.hypot(lower[:, 0] - 1, lower[:, 1] - 0.5) - 1).max() < 1e-6
    assert lower[:, 1].max() <= 0.5


def test_circles_are_circles() -> None:
    points, labels = arrays(circles(500, noise=0.0, factor=0.25))
    radius = np.hypot(*points.T)
    assert np.abs(radius - np.where(labels == 1, 0.25, 1)).max() < 1e-6
    assert np.abs(points.mean(0)).max() < 0.1


def test_blobs_have_centres_and_spread() -> None:
    points, labels = arrays(blobs(4000, classes=2, features=3, spread=0.5))
    for k in range(2):
        own = points[labels == k]
        assert np.abs(own.std(0) - 0.5).max() < 0.03
        assert np.abs(own.mean(0)).max() < 10.1


def test_noise_has_its_deviation() -> None:
    clean, noisy = (arrays(circles(4000, noise=n, seed=4))[0] for n in (0.0, 0.2))
    assert abs((noisy - clean).std() - 0.2) < 0.01


def test_copy_task() -> None:
    inputs, targets = arrays(copy_task(200, length=3, delay=4, symbols=5))
    assert inputs.shape == targets.shape == (200, 10)
    assert set(inputs[:, :3].ravel()) == set(range(5))
    assert (inputs[:, 3:6] == 5).all()
    assert (inputs[:, 6] == 6).all()
    assert (inputs[:, 7:] == 5).all()
    assert (targets[:, :7] == 5).all()
    assert np.array_equal(targets[:, 7:], inputs[:, :3])


def test_circle_is_cos_and_sin() -> None:
    turns = np.concatenate([np.linspace(-3, 3, 4001), np.arange(-8, 9) / 8])
    cos, sin = circle(turns)
    assert np.abs(cos - np.cos(2 * np.pi * turns)).max() < 3e-15
    assert np.abs(sin - np.sin(2 * np.pi * turns)).max() < 3e-15
    assert circle(np.array([0.0, 0.25, 0.5, 0.75]))[0].tolist() == [1, 0, -1, 0]


def test_bell_is_nearly_normal() -> None:
    x = Draw(3).bell(100_000)
    assert abs(x.mean()) < 0.015
    assert abs(x.std() - 1) < 0.01
    assert abs((x**3).mean()) < 0.05
    assert abs((x**4).mean() - 2.9) < 0.1  # of twelve summands: 3 - 1.2 / 12


def test_bits_are_pinned() -> None:
    """The points are part of the interface: the same on every platform and in every release."""
    digest = hashlib.sha256()
    for name in sorted(SETS):
        for x in arrays(SETS[name](100, seed=7)):
            digest.update(x.astype(x.dtype.newbyteorder("<")).tobytes())
    assert digest.hexdigest() == "2a0da437cdd6ed46af37466fda02d5191e3b481d7411620772b4745c2d74cfd2"


@pytest.mark.parametrize(
    "call",
    [
        lambda: spirals(-1),
        lambda: moons(5, seed=-1),
        lambda: moons(5, noise=-0.1),
        lambda: moons(5, noise=float("nan")),
        lambda: circles(5, factor=float("inf")),
        lambda: spirals(5, classes=0),
        lambda: blobs(5, features=0),
        lambda: blobs(5, spread=-1.0),
        lambda: copy_task(5, length=0),
        lambda: copy_task(5, symbols=1.5),  # type: ignore[arg-type]
    ],
)
def test_refuses(call: Any) -> None:
    with pytest.raises(ArgumentError, match="has a value it cannot have"):
        call()
