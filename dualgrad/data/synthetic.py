"""Handwriting-like digits, drawn by computation, for use where MNIST cannot be had.

Each digit is a skeleton (skeletons.py) with moved control points under a random affine map,
inked with a pen of random width.  A pixel's ink is a linear ramp, one pen edge wide, of its
distance to the nearest segment.

The arithmetic uses raw PCG64 bits and the correctly rounded operations + - * / sqrt only (no
sin, exp or BLAS), all element by element, so the same (n, seed) gives the same bits on every
IEEE machine.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from dualgrad.creation import from_numpy
from dualgrad.data.dataset import TensorDataset
from dualgrad.data.draws import Draw
from dualgrad.data.skeletons import GLYPHS, Glyph
from dualgrad.runtime.errors import ArgumentError

SIDE: Final = 28
CLASSES: Final = 10
_BLOCK: Final = 64
"""Digits drawn at a time, so that the working set fits the cache; part of the random stream."""

# Chosen so that a linear model stays below 90 % and a small MLP reaches 98 %.  Lengths in pixels.
_SIZE: Final = (16.0, 21.0)  # height of a glyph
_SHIFT: Final = 3.5  # of the whole glyph, at most
_PEN: Final = (0.7, 1.7)  # radius of the stroke
_EDGE: Final = 0.8  # width of the ramp from ink to paper
# Relative to the glyph's unit box, at most.
_WOBBLE: Final = 0.11  # shift of each control point
_STRETCH: Final = 0.25  # of the width; half of it for the height
_SLANT: Final = 0.45  # shear, as the tangent of the angle
_TILT: Final = 0.38  # rotation in radians
# Relative to black ink.
_PRESSURE: Final = (0.8, 1.0)
_NOISE: Final = 0.12

Array = NDArray[np.float32]


def synthetic_digits(n: int, seed: int = 0) -> TensorDataset:
    """Return `n` digits: images float32 [n, 1, 28, 28] in 0..1, labels int64 [n].

    Classes are balanced (their counts differ by at most one) and shuffled.  Another `seed` gives
    other digits: use one for training and one for testing.

    Raises ArgumentError if `n` or `seed` is negative.
    """
    images, labels = draw_digits(n, seed)
    return TensorDataset(from_numpy(images), from_numpy(labels))


def draw_digits(n: int, seed: int = 0) -> tuple[Array, NDArray[np.int64]]:
    """Return the arrays of `synthetic_digits(n, seed)`."""
    for name, value in (("n", n), ("seed", seed)):
        if value < 0:
            raise ArgumentError(
                f"{name} is negative", op="synthetic_digits", expect=f"{name} >= 0",
                actual=str(value),
            hint=f"give {name} a natural number",)  # fmt: skip
    draw = Draw(seed)
    labels = draw.classes(n, CLASSES)
    images = np.empty((n, SIDE, SIDE), np.float32)
    styles = draw.uniform(n)
    for label, glyphs in enumerate(GLYPHS):
        for style, glyph in enumerate(glyphs):
            chosen = (labels == label) & ((styles * len(glyphs)).astype(np.int64) == style)
            where = np.flatnonzero(chosen)
            for start in range(0, len(where), _BLOCK):
                block = where[start : start + _BLOCK]
                images[block] = _render(glyph, len(block), draw)
    return images.reshape(n, 1, SIDE, SIDE), labels


def _render(glyph: Glyph, n: int, draw: Draw) -> Array:
    """Return `n` images [n, 28, 28] of one glyph."""
    ax, ay, bx, by = _segments(glyph, n, draw)
    distance = _distance(ax, ay, bx, by)
    radius = draw.between(*_PEN, n, 1, 1).astype(np.float32)
    ink = np.clip((radius + np.float32(_EDGE / 2) - distance) * np.float32(1 / _EDGE), 0, 1)
    noise = draw.uniform(n, 1, 1) * draw.around(_NOISE, n, SIDE, SIDE)
    pressure = draw.between(*_PRESSURE, n, 1, 1).astype(np.float32)
    result: Array = np.clip(ink * pressure + noise.astype(np.float32), 0, 1)
    return result


def _segments(glyph: Glyph, n: int, draw: Draw) -> tuple[Array, Array, Array, Array]:
    """Return the ends ax, ay, bx, by [segments, n] of the line segments, in pixels."""
    points = np.array(glyph.points)[:, None, :] - 0.5
    points = points + draw.around(_WOBBLE, len(points), n, 2)
    x, y = points[..., 0], points[..., 1]

    # rotation by the half-angle form: cos and sin are not correctly rounded on every platform
    half = draw.around(_TILT / 2, n)
    cos, sin = (1.0 - half * half) / (1.0 + half * half), 2.0 * half / (1.0 + half * half)
    x = (x - draw.around(_SLANT, n) * y) * (1.0 + draw.around(_STRETCH, n))
    y = y * (1.0 + draw.around(_STRETCH / 2, n))
    size = draw.between(*_SIZE, n)
    centre = (SIDE - 1) / 2
    columns = (x * cos - y * sin) * size + centre + draw.around(_SHIFT, n)
    rows = (x * sin + y * cos) * size + centre + draw.around(_SHIFT, n)

    starts, ends = glyph.segments
    return (
        _combine(starts, columns), _combine(starts, rows),
        _combine(ends, columns), _combine(ends, rows),
    )  # fmt: skip


def _combine(weights: NDArray[np.float64], values: NDArray[np.float64]) -> Array:
    """Return weights [a, k] times values [k, n] as float32, summed in index order."""
    total = np.zeros((len(weights), values.shape[1]))
    for k, value in enumerate(values):
        total += weights[:, k, None] * value
    return total.astype(np.float32)


def _distance(ax: Array, ay: Array, bx: Array, by: Array) -> Array:
    """Return the distance [n, 28, 28] of each pixel to the nearest of the segments a-b.

    For a pixel p the nearest point of a segment is a + t (b - a), where t is
    u = (p - a).(b - a) / |b - a|^2 clipped to 0..1, and the squared distance is
    |p - a|^2 - |b - a|^2 t (2u - t).  Both u and |p - a|^2 are a term of the row plus a term of
    the column.
    """
    n = ax.shape[1]
    axis = np.arange(SIDE, dtype=np.float32)
    nearest = np.full((n, SIDE, SIDE), np.inf, np.float32)
    u, t, square = (np.empty_like(nearest) for _ in range(3))
    for i in range(len(ax)):
        dx, dy = bx[i] - ax[i], by[i] - ay[i]
        length2 = np.maximum(dx * dx + dy * dy, np.float32(1e-6))
        px, py = axis - ax[i, :, None], axis - ay[i, :, None]
        ux, uy = px * (dx / length2)[:, None], py * (dy / length2)[:, None]
        np.add(uy[:, :, None], ux[:, None], u)
        np.clip(u, 0, 1, out=t)
        np.add((py * py)[:, :, None], (px * px)[:, None], square)
        u += u
        u -= t
        u *= t
        u *= length2[:, None, None]
        square -= u
        np.minimum(nearest, square, out=nearest)
    # rounding can leave a tiny negative square on the stroke itself
    return np.sqrt(np.maximum(nearest, 0, out=nearest), out=nearest)
