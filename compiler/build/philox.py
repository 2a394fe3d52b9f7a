"""Philox4x32-10, a counter-based random number generator.

Source: J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel random numbers: as easy as 1, 2, 3",
SC 2011, section 4.3.
"""

from __future__ import annotations

from dualgrad.compiler.kernel.scalar import Scalar, cast
from dualgrad.runtime.dtype import uint32, uint64

ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)  # golden ratio, sqrt(3) - 1

Words = tuple[Scalar, Scalar, Scalar, Scalar]


def philox4x32(counter: Words, key: tuple[Scalar, Scalar]) -> Words:
    """Four random uint32 words for a counter of four and a key of two uint32 words."""
    for _ in range(ROUNDS):
        high0, low0 = _wide_product(counter[0], _MULTIPLIERS[0])
        high1, low1 = _wide_product(counter[2], _MULTIPLIERS[1])
        counter = (high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0)
        key = (key[0] + _KEY_STEPS[0], key[1] + _KEY_STEPS[1])
    return counter


def _wide_product(x: Scalar, factor: int) -> tuple[Scalar, Scalar]:
    """High and low 32 bits of x * factor."""
    product = cast(x, uint64) * factor
    return cast(product >> 32, uint32), cast(product, uint32)
