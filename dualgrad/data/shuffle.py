"""Random orders that are the same on every platform and with every NumPy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def random_order(n: int, bits: np.random.PCG64) -> NDArray[np.int64]:
    """Return a random order of 0..n-1, from `n` raw numbers of `bits`.

    Sorts numbers whose high bits are random and whose low bits are the index.  Raw PCG64 streams
    are fixed for ever (NEP 19), those of `Generator.permutation` are not.
    """
    mask = np.uint64((1 << max(n - 1, 0).bit_length()) - 1)
    keys = bits.random_raw(n) & ~mask
    keys |= np.arange(n, dtype=np.uint64)
    keys.sort()
    return (keys & mask).astype(np.int64)


def epoch_order(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of 0..n-1 that belongs to a non-negative seed and epoch."""
    return random_order(n, np.random.PCG64([seed, epoch]))


def uniform(shape: int | tuple[int, ...], bits: np.random.PCG64) -> NDArray[np.float64]:
    """Return numbers in 0 <= x < 1 with 53 random bits each."""
    raw = bits.random_raw(int(np.prod(shape)))
    return ((raw >> np.uint64(11)).astype(np.float64) * 2.0**-53).reshape(shape)


def below(n: int, count: int, bits: np.random.PCG64) -> NDArray[np.int64]:
    """Return `count` numbers of 0..n-1, all as likely up to n / 2**53."""
    return (uniform(count, bits) * n).astype(np.int64)
