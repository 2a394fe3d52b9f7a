"""Random numbers and functions of generated datasets, with the same bits on every IEEE machine.

They use raw PCG64 bits and the correctly rounded operations + - * / only.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dualgrad.data.shuffle import random_order, uniform

Floats = NDArray[np.float64]
_SUMMANDS: Final = 12
_TERMS: Final = 12
"""Of the power series: for angles up to pi/4 the first left out is below 1e-28."""


class Draw:
    """Random numbers from raw bits, by arithmetic that is the same everywhere."""

    def __init__(self, seed: int) -> None:
        self.bits = np.random.PCG64(seed)

    def uniform(self, *shape: int) -> Floats:
        """Numbers in 0 <= x < 1 with 53 random bits."""
        return uniform(shape, self.bits)

    def around(self, spread: float, *shape: int) -> Floats:
        """Numbers between -spread and spread, zero the most likely (triangular density)."""
        raw = self.bits.random_raw(int(np.prod(shape)))
        high, low = raw >> np.uint64(32), raw & np.uint64(0xFFFFFFFF)
        return ((high.astype(np.float64) - low) * (2.0**-32 * spread)).reshape(shape)

    def between(self, low: float, high: float, *shape: int) -> Floats:
        return low + self.uniform(*shape) * (high - low)

    def bell(self, *shape: int) -> Floats:
        """Numbers with mean 0 and variance 1, nearly normal, within -6..6.

        Sums of twelve uniform numbers: a logarithm has not the same bits everywhere.
        """
        total = np.full(shape, -_SUMMANDS / 2)
        for _ in range(_SUMMANDS):
            total += self.uniform(*shape)
        return total

    def classes(self, n: int, count: int) -> NDArray[np.int64]:
        """Shuffled labels 0..count-1 [n], as many of each, or one more."""
        labels = np.empty(n, np.int64)
        labels[random_order(n, self.bits)] = np.arange(n) % count
        return labels


def circle(turns: Floats) -> tuple[Floats, Floats]:
    """Return cos and sin of angles in turns (1 is a full circle)."""
    eighths = np.floor(turns * 4 + 0.5)
    angle = (turns - eighths / 4) * (2 * math.pi)  # at most pi/4 from an axis
    square, cos, sin = angle * angle, np.ones_like(turns), angle.copy()
    even, odd = np.ones_like(turns), angle.copy()
    for k in range(1, _TERMS):
        even = even * -square / ((2 * k - 1) * (2 * k))
        odd = odd * -square / ((2 * k) * (2 * k + 1))
        cos, sin = cos + even, sin + odd
    quarter = np.remainder(eighths, 4)
    swap, minus_cos = quarter % 2 == 1, (quarter == 1) | (quarter == 2)
    minus_sin = quarter >= 2
    x, y = np.where(swap, sin, cos), np.where(swap, cos, sin)
    return np.where(minus_cos, -x, x), np.where(minus_sin, -y, y)
