"""Random numbers: streams of Philox4x32-10, the same in both modes, for any number of threads.

A number is a function of (seed, position in the stream, element).  A `Generator` holds seed and
position as tensors, so compiled functions read and advance them like any other state.
"""

from __future__ import annotations

from typing import Any

from dualgrad.compiler.ops import random as ops
from dualgrad.creation import as_shape, full
from dualgrad.runtime.dtype import float32, uint64
from dualgrad.runtime.errors import ArgumentError
from dualgrad.tensor import Tensor


class Generator:
    """A stream of random numbers; the same seed gives the same numbers."""

    def __init__(self, seed: int = 0) -> None:
        self.seed_tensor = full((), _checked(seed), dtype=uint64)
        self.position = full((), 0, dtype=uint64)

    def manual_seed(self, seed: int) -> Generator:
        """Start the stream of this seed (0 <= seed < 2**64) from its beginning."""
        _checked(seed)
        signed = seed - 2**64 if seed >= 2**63 else seed
        self.seed_tensor.fill_(signed)
        self.position.zero_()
        return self

    def initial_seed(self) -> int:
        """The seed that was set last."""
        return int(self.seed_tensor.item())

    def advance(self, count: int) -> tuple[Tensor, Tensor]:
        """Seed and position for `count` numbers; moves the stream past them."""
        position = self.position.clone()
        self.position.add_(-(-count // ops.WORDS))
        return self.seed_tensor, position


def _checked(seed: int) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**64:
        raise ArgumentError("no seed", op="seed", expect="an int in [0, 2**64)", actual=repr(seed))
    return seed


default_generator = Generator()


def seed(value: int) -> None:
    """Seed the default stream, which all functions use unless given a generator."""
    default_generator.manual_seed(value)


def initial_seed() -> int:
    """The seed of the default stream."""
    return default_generator.initial_seed()


def uniform(
    shape: Any,
    low: float = 0.0,
    high: float = 1.0,
    dtype: Any = float32,
    generator: Generator | None = None,
) -> Tensor:
    """Numbers of a shape, uniform in [low, high); 24 random bits each."""
    sizes = as_shape("uniform", (shape,) if isinstance(shape, int) else tuple(shape))
    state = (generator or default_generator).advance(_count(sizes))
    out: Tensor = ops.uniform(*state, float(low), float(high), shape=sizes)
    return out.to(dtype)  # type: ignore[no-any-return]


def rand(
    *shape: Any,
    dtype: Any = float32,
    requires_grad: bool = False,
    generator: Generator | None = None,
) -> Tensor:
    """Numbers of a shape, uniform in [0, 1)."""
    out = uniform(as_shape("rand", shape), dtype=dtype, generator=generator)
    return out.requires_grad_(requires_grad)


def normal(
    shape: Any,
    mean: float = 0.0,
    std: float = 1.0,
    dtype: Any = float32,
    generator: Generator | None = None,
) -> Tensor:
    """Numbers of a shape from the normal distribution, in float32 accuracy.

    Box and Muller's method: sqrt(-2 log(1 - u)) cos(2 pi v) of two uniform numbers u, v.
    """
    sizes = as_shape("normal", (shape,) if isinstance(shape, int) else tuple(shape))
    state = (generator or default_generator).advance(2 * _count(sizes))
    out: Tensor = ops.normal(*state, float(mean), float(std), shape=sizes)
    return out.to(dtype)  # type: ignore[no-any-return]


def randn(
    *shape: Any,
    dtype: Any = float32,
    requires_grad: bool = False,
    generator: Generator | None = None,
) -> Tensor:
    """Numbers of a shape from the standard normal distribution."""
    out = normal(as_shape("randn", shape), dtype=dtype, generator=generator)
    return out.requires_grad_(requires_grad)


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for n in shape:
        count *= n
    return count
