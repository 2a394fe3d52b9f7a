"""Synthetic digits: geometry against direct formulas, exact bits, and how hard they are."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from dualgrad.data.skeletons import GLYPHS
from dualgrad.data.synthetic import _distance, draw_digits, synthetic_digits
from dualgrad.runtime.errors import ArgumentError


def test_shapes_dtypes_and_range() -> None:
    data = synthetic_digits(57, seed=4)
    images, labels = (t.numpy() for t in data.tensors)
    assert len(data) == 57
    assert images.shape == (57, 1, 28, 28)
    assert images.dtype == np.float32
    assert labels.shape == (57,)
    assert labels.dtype == np.int64
    assert images.min() == 0.0
    assert 0.8 < images.max() <= 1.0


@pytest.mark.parametrize("n", [0, 1, 9, 10, 57, 1000])
def test_classes_are_balanced(n: int) -> None:
    _, labels = draw_digits(n, seed=1)
    counts = np.bincount(labels, minlength=10)
    assert counts.max() - counts.min() <= 1
    assert counts.sum() == n


def test_classes_are_shuffled() -> None:
    _, labels = draw_digits(1000, seed=1)
    equal_neighbours = int((labels[1:] == labels[:-1]).sum())
    assert 60 < equal_neighbours < 140


def test_bits_are_pinned() -> None:
    """The digits are part of the interface: the same on every platform and in every release."""
    images, labels = draw_digits(300, seed=3)
    digest = hashlib.sha256(images.astype("<f4").tobytes() + labels.astype("<i8").tobytes())
    assert digest.hexdigest() == "27342c8c94f5773dc552789d9830ae75c850d2e59507f6ee3ebe52be9147a330"


def test_seed_decides() -> None:
    first, second, other = (draw_digits(40, seed)[0] for seed in (5, 5, 6))
    assert first.tobytes() == second.tobytes()
    assert first.tobytes() != other.tobytes()


@pytest.mark.parametrize("arguments", [(-1, 0), (1, -1)])
def test_negative_arguments(arguments: tuple[int, int]) -> None:
    with pytest.raises(ArgumentError, match="is negative"):
        synthetic_digits(*arguments)


def test_distance_to_segments() -> None:
    """Against the nearest of 2001 points on each segment, in float64."""
    rng = np.random.default_rng(0)
    ends = rng.uniform(-3, 31, (4, 5, 2)).astype(np.float32)
    ax, ay, bx, by = ends
    bx[4], by[4] = ax[4], ay[4]  # a segment that is a point
    t = np.linspace(0, 1, 2001)
    x = ax[..., None] + t * (bx - ax)[..., None].astype(np.float64)
    y = ay[..., None] + t * (by - ay)[..., None].astype(np.float64)
    pixel = np.arange(28)
    expect = np.empty((2, 28, 28))
    for i in range(2):
        dx2 = (pixel[:, None] - x[:, i].ravel()) ** 2
        dy2 = (pixel[:, None] - y[:, i].ravel()) ** 2
        expect[i] = np.sqrt(np.min(dy2[:, None] + dx2[None], axis=2))
    np.testing.assert_allclose(_distance(ax, ay, bx, by), expect, atol=2e-2)


def test_curves_pass_through_their_control_points() -> None:
    for glyph in (glyph for glyphs in GLYPHS for glyph in glyphs):
        starts, ends = glyph.segments
        points = np.array(glyph.points)
        vertices = np.concatenate([starts @ points, ends @ points])
        gaps = np.abs(vertices[:, None] - points).sum(axis=2).min(axis=0)
        np.testing.assert_allclose(gaps, 0, atol=1e-12)
        np.testing.assert_allclose(starts.sum(axis=1), 1, atol=1e-12)


def test_strokes_are_connected() -> None:
    """Where one segment of a stroke ends, the next one starts."""
    for glyph in (glyph for glyphs in GLYPHS for glyph in glyphs):
        starts, ends = glyph.segments
        breaks = int((np.abs(starts[1:] - ends[:-1]).max(axis=1) > 1e-12).sum())
        assert breaks <= len(glyph.strokes) - 1


def test_neither_trivial_nor_impossible() -> None:
    """A linear least-squares classifier gets most of them right, and clearly not all."""
    images, labels = draw_digits(6000, seed=0)
    unseen, expect = draw_digits(1500, seed=1)
    features = images.reshape(6000, 784).astype(np.float64)
    gram = features.T @ features + 100.0 * np.eye(784)
    weights = np.linalg.solve(gram, features.T @ np.eye(10)[labels])
    accuracy = np.mean((unseen.reshape(1500, 784) @ weights).argmax(axis=1) == expect)
    assert 0.7 < accuracy < 0.92
