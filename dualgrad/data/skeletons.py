"""Stroke skeletons of the ten digits, and the smooth curves through them.

A glyph is a set of control points in the unit box (x to the right, y down) and strokes, which are
lists of point numbers; strokes that meet share the point.  A stroke is the uniform Catmull-Rom
spline through its points, so its vertices are a fixed linear map of the control points: moving
the points bends the strokes without tearing them apart.

Source of the spline: E. Catmull, R. Rom, "A class of local interpolating splines", 1974.
"""

from __future__ import annotations

from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dualgrad.runtime.records import dataclass

Point = tuple[float, float]

_STEPS: Final = 3


@dataclass(frozen=True)
class Glyph:
    """One way to write a digit.

    points   control points (x, y)
    strokes  each a tuple of point numbers; first == last makes a closed curve
    """

    points: tuple[Point, ...]
    strokes: tuple[tuple[int, ...], ...]

    @cached_property
    def segments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Weights [segments, points] of the starts and of the ends of all line segments."""
        starts: list[list[float]] = []
        ends: list[list[float]] = []
        for stroke in self.strokes:
            vertices = _stroke_weights(stroke, len(self.points))
            starts += vertices[:-1]
            ends += vertices[1:]
        return np.array(starts), np.array(ends)


def _stroke_weights(stroke: tuple[int, ...], points: int) -> list[list[float]]:
    """Weights over all control points of each vertex of one stroke."""
    if len(stroke) == 2:
        return [_unit(stroke[0], points), _unit(stroke[1], points)]
    closed = stroke[0] == stroke[-1]
    before = stroke[-2] if closed else stroke[0]
    after = stroke[1] if closed else stroke[-1]
    padded = (before, *stroke, after)
    vertices = [_unit(stroke[0], points)]
    for i in range(len(stroke) - 1):
        for step in range(1, _STEPS + 1):
            row = [0.0] * points
            for number, weight in zip(padded[i : i + 4], _spline(step / _STEPS), strict=True):
                row[number] += weight
            vertices.append(row)
    return vertices


def _unit(number: int, points: int) -> list[float]:
    return [float(i == number) for i in range(points)]


def _spline(t: float) -> tuple[float, float, float, float]:
    """Catmull-Rom weights of four neighbouring points at t in 0..1 between the middle two."""
    return (
        0.5 * t * (t * (2.0 - t) - 1.0),
        0.5 * (t * t * (3.0 * t - 5.0) + 2.0),
        0.5 * t * (t * (4.0 - 3.0 * t) + 1.0),
        0.5 * t * t * (t - 1.0),
    )


def _line(*points: Point) -> Glyph:
    """A glyph of one stroke through all points."""
    return Glyph(points, (tuple(range(len(points))),))


def _loop(*points: Point) -> Glyph:
    """A glyph of one closed stroke."""
    return Glyph(points, ((*range(len(points)), 0),))


_ZEROS = (
    _loop((0.5, 0.0), (0.76, 0.12), (0.84, 0.5), (0.75, 0.88), (0.5, 1.0), (0.25, 0.88),
          (0.16, 0.5), (0.24, 0.12)),
    _line((0.62, 0.06), (0.34, 0.06), (0.17, 0.5), (0.3, 0.92), (0.56, 0.98), (0.8, 0.7),
          (0.8, 0.28), (0.58, 0.02), (0.4, 0.1)),
)  # fmt: skip
_ONES = (
    _line((0.52, 0.0), (0.5, 0.5), (0.48, 1.0)),
    Glyph(((0.3, 0.24), (0.54, 0.0), (0.53, 1.0)), ((0, 1), (1, 2))),
    Glyph(((0.32, 0.2), (0.52, 0.0), (0.52, 1.0), (0.3, 1.0), (0.74, 1.0)),
          ((0, 1), (1, 2), (3, 2), (2, 4))),
)  # fmt: skip
_TWOS = (
    Glyph(((0.2, 0.24), (0.36, 0.03), (0.64, 0.03), (0.77, 0.25), (0.64, 0.53), (0.4, 0.77),
           (0.17, 0.97), (0.5, 0.94), (0.84, 0.97)), ((0, 1, 2, 3, 4, 5, 6), (6, 7, 8))),
    _line((0.2, 0.2), (0.42, 0.02), (0.7, 0.08), (0.74, 0.34), (0.52, 0.66), (0.26, 0.92),
          (0.13, 0.88), (0.2, 0.74), (0.42, 0.82), (0.62, 0.98), (0.87, 0.92)),
)  # fmt: skip
_THREES = (
    Glyph(((0.2, 0.13), (0.45, 0.0), (0.72, 0.1), (0.7, 0.34), (0.42, 0.47), (0.76, 0.58),
           (0.81, 0.82), (0.54, 1.0), (0.18, 0.9)), ((0, 1, 2, 3, 4), (4, 5, 6, 7, 8))),
    Glyph(((0.2, 0.04), (0.76, 0.03), (0.44, 0.4), (0.74, 0.5), (0.8, 0.78), (0.52, 1.0),
           (0.18, 0.9)), ((0, 1), (1, 2), (2, 3, 4, 5, 6))),
)  # fmt: skip
_FOURS = (
    Glyph(((0.24, 0.04), (0.18, 0.36), (0.26, 0.56), (0.78, 0.52), (0.74, 0.0), (0.7, 0.5),
           (0.64, 1.0)), ((0, 1, 2, 3), (4, 5, 6))),
    Glyph(((0.66, 0.0), (0.14, 0.64), (0.88, 0.62), (0.62, 1.0)), ((0, 1), (1, 2), (0, 3))),
)  # fmt: skip
_FIVES = (
    Glyph(((0.78, 0.02), (0.3, 0.04), (0.25, 0.45), (0.52, 0.36), (0.8, 0.54), (0.77, 0.84),
           (0.48, 1.0), (0.16, 0.9)), ((0, 1), (1, 2), (2, 3, 4, 5, 6, 7))),
    _line((0.8, 0.02), (0.46, 0.05), (0.3, 0.24), (0.36, 0.42), (0.66, 0.58), (0.72, 0.82),
          (0.46, 1.0), (0.14, 0.88)),
)  # fmt: skip
_SIXES = (
    _line((0.68, 0.0), (0.4, 0.2), (0.22, 0.56), (0.26, 0.88), (0.52, 1.0), (0.76, 0.84),
          (0.7, 0.6), (0.48, 0.54), (0.25, 0.74)),
    _line((0.44, 0.0), (0.28, 0.38), (0.24, 0.8), (0.46, 1.0), (0.74, 0.92), (0.76, 0.68),
          (0.54, 0.58), (0.28, 0.76)),
)  # fmt: skip
_SEVENS = (
    Glyph(((0.17, 0.06), (0.48, 0.03), (0.81, 0.04), (0.6, 0.46), (0.44, 1.0)),
          ((0, 1, 2), (2, 3, 4))),
    Glyph(((0.2, 0.18), (0.2, 0.03), (0.8, 0.03), (0.62, 0.44), (0.48, 1.0)),
          ((0, 1), (1, 2), (2, 3, 4))),
    Glyph(((0.18, 0.04), (0.8, 0.03), (0.6, 0.46), (0.46, 1.0), (0.32, 0.5), (0.8, 0.44)),
          ((0, 1), (1, 2, 3), (4, 2, 5))),
)  # fmt: skip
_EIGHTS = (
    _loop((0.72, 0.12), (0.48, 0.0), (0.27, 0.15), (0.36, 0.38), (0.66, 0.6), (0.76, 0.84),
          (0.5, 1.0), (0.23, 0.84), (0.34, 0.6), (0.63, 0.38)),
    Glyph(((0.5, 0.0), (0.73, 0.22), (0.5, 0.46), (0.28, 0.22), (0.78, 0.74), (0.5, 1.0),
           (0.22, 0.74)), ((0, 1, 2, 3, 0), (2, 4, 5, 6, 2))),
)  # fmt: skip
_NINES = (
    Glyph(((0.74, 0.2), (0.5, 0.0), (0.25, 0.2), (0.32, 0.43), (0.54, 0.48), (0.71, 0.6),
           (0.62, 1.0)), ((0, 1, 2, 3, 4, 0), (0, 5, 6))),
    Glyph(((0.74, 0.18), (0.5, 0.02), (0.26, 0.24), (0.42, 0.48), (0.76, 0.62), (0.6, 0.93),
           (0.26, 0.95)), ((0, 1, 2, 3, 0), (0, 4, 5, 6))),
)  # fmt: skip

GLYPHS: Final = (
    _ZEROS, _ONES, _TWOS, _THREES, _FOURS, _FIVES, _SIXES, _SEVENS, _EIGHTS, _NINES,
)  # fmt: skip
