"""Random bits: a function of (seed, stream position, element), the same on every device."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from dualgrad.compiler.build.builder import Builder
from dualgrad.compiler.build.mathlib import Math
from dualgrad.compiler.build.philox import philox4x32
from dualgrad.compiler.ir.dims import Dim
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import apply
from dualgrad.compiler.kernel.scalar import Scalar, cast, const, index
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.index import Index, Loads
from dualgrad.compiler.ops.sample import Arg, Sample
from dualgrad.compiler.ops.view import flatten_index
from dualgrad.runtime.dtype import float32, uint32, uint64

WORDS = 4  # numbers that one counter gives
# Known answers of the authors' Random123 for counter 0 and key 0.
KNOWN = (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)


@dataclass(frozen=True, eq=False)
class RandomBits(Index):
    """32 random bits per element: word i mod 4 of Philox4x32-10 at counter position + i // 4.

    Inputs: seed and position, 0-d uint64.  The seed is the key, the counter's low 64 bits count.
    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """

    shape: tuple[Dim, ...]
    vjp = None

    def infer(self, *types: TensorType) -> TensorType:
        return TensorType(self.shape, uint32, False, types[0].device)

    def value(self, b: Builder, loads: Loads, at: tuple[Dim, ...]) -> Scalar:
        return philox_word(b, loads(0, ()), loads(1, ()), flatten_index(at, self.shape))

    @staticmethod
    def samples() -> list[Sample]:
        zero = Arg((), uint64, values=(0,), differentiable=False)
        unit = RandomBits.of((2, 2))
        return [
            Sample(
                lambda s, p: apply(unit, s, p)[0],
                (zero, zero),
                lambda np, s, p: np.array(KNOWN, np.uint32).reshape(2, 2),
                gradient=False,
            )
        ]


@dataclass(frozen=True, eq=False)
class RandomUniform(RandomBits):
    """float32 numbers in [0, 1): the upper 24 of the bits that `RandomBits` gives, times 2**-24."""

    def infer(self, *types: TensorType) -> TensorType:
        return TensorType(self.shape, float32, False, types[0].device)

    def value(self, b: Builder, loads: Loads, at: tuple[Dim, ...]) -> Scalar:
        return cast(super().value(b, loads, at) >> 8, float32) * 2.0**-24

    @staticmethod
    def samples() -> list[Sample]:
        zero = Arg((), uint64, values=(0,), differentiable=False)
        unit = RandomUniform.of((3,))
        return [
            Sample(
                lambda s, p: apply(unit, s, p)[0],
                (zero, zero),
                lambda np, s, p: (np.array(KNOWN[:3]) >> 8) / 2**24,
                gradient=False,
            )
        ]


@dataclass(frozen=True, eq=False)
class RandomNormal(RandomBits):
    """float32 numbers of the standard normal distribution, two words each.

    Source: Box and Muller, "A note on the generation of random normal deviates", 1958:
    sqrt(-2 log(1 - u)) cos(2 pi v).
    """

    def infer(self, *types: TensorType) -> TensorType:
        return TensorType(self.shape, float32, False, types[0].device)

    def value(self, b: Math, loads: Loads, at: tuple[Dim, ...]) -> Scalar:  # type: ignore[override]
        first = flatten_index(at, self.shape) * 2
        words = [philox_word(b, loads(0, ()), loads(1, ()), first + k) for k in range(2)]
        u, v = (cast(w >> 8, float32) * 2.0**-24 for w in words)
        return b.sqrt(-2.0 * b.log(1.0 - u)) * cosine_of_turns(b, v)

    @staticmethod
    def samples() -> list[Sample]:
        zero = Arg((), uint64, values=(0,), differentiable=False)
        unit = RandomNormal.of((2,))

        def reference(np: Any, seed: Any, position: Any) -> Any:
            u, v = ((np.array(KNOWN) >> 8) / 2**24).reshape(2, 2).T
            return np.sqrt(-2 * np.log1p(-u)) * np.cos(2 * np.pi * v)

        return [
            Sample(
                lambda s, p: apply(unit, s, p)[0],
                (zero, zero),
                reference,
                relative=1e-6,
                gradient=False,
            )
        ]


def cosine_of_turns(b: Builder, v: Scalar) -> Scalar:
    """cos(2 pi v) for v in [0, 1), within 1e-7: Taylor series on an eighth of a turn."""
    quarter = b.rint(v * 4.0)
    angle = (v * 4.0 - quarter) * (math.pi / 2)
    square = angle * angle
    cosine = b.poly(square, 1 / 40320, -1 / 720, 1 / 24, -1 / 2, 1.0)
    sine = angle * b.poly(square, 1 / 362880, -1 / 5040, 1 / 120, -1 / 6, 1.0)
    odd = b.eq(quarter, 1.0) | b.eq(quarter, 3.0)
    value = b.select(odd, sine, cosine)
    return b.select(b.eq(quarter, 1.0) | b.eq(quarter, 2.0), -value, value)


def philox_word(b: Builder, seed: Scalar, position: Scalar, element: Dim) -> Scalar:
    """The word that an element of a stream gets."""
    zero = const(0, uint32)
    count = position + cast(index(element // WORDS), uint64)
    words = philox4x32((*halves(count), zero, zero), halves(seed))
    word = index(element % WORDS)
    low = b.select(b.eq(word, 0), words[0], words[1])
    high = b.select(b.eq(word, 2), words[2], words[3])
    return b.select(word < 2, low, high)


def halves(x: Scalar) -> tuple[Scalar, Scalar]:
    """Low and high 32 bits of a uint64."""
    return cast(x, uint32), cast(x >> 32, uint32)


@composite
def uniform(seed: Any, position: Any, low: Any, high: Any, *, shape: tuple[Dim, ...]) -> Any:
    """float32 numbers [shape] in [low, high)."""
    return low + RandomUniform.of(shape).on(seed, position) * (high - low)


@composite
def normal(seed: Any, position: Any, mean: Any, std: Any, *, shape: tuple[Dim, ...]) -> Any:
    """float32 numbers [shape] of the normal distribution."""
    return mean + RandomNormal.of(shape).on(seed, position) * std
