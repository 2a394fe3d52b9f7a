"""Random numbers: functions of (seed, position in the stream, element), the same on every device.

Philox4x32-10 turns the seed (the key) and a position (the low half of the counter) into a block
of four words of 32 bits.  The elements of a tensor take consecutive words of consecutive blocks:
one, two or four words each.
Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from dualgrad.compiler.build.philox import philox4x32
from dualgrad.compiler.ir.dims import Dim
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import apply
from dualgrad.compiler.kernel.scalar import Scalar, bitcast, cast, const, index
from dualgrad.compiler.ops.activation import SELU_ALPHA, SELU_SCALE
from dualgrad.compiler.ops.composite import Composite, composite
from dualgrad.compiler.ops.elementwise import cast_node
from dualgrad.compiler.ops.index import Index, Loads
from dualgrad.compiler.ops.library import Library
from dualgrad.compiler.ops.logical import where
from dualgrad.compiler.ops.precision import KEPT
from dualgrad.compiler.ops.sample import Arg, Sample
from dualgrad.compiler.ops.view import flatten_index
from dualgrad.runtime.dtype import DType, float32, float64, int64, uint32, uint64

if TYPE_CHECKING:
    from dualgrad.compiler.build.builder import Builder
    from dualgrad.compiler.build.mathlib import Math
    from dualgrad.compiler.ir.node import Node

BLOCK = 4  # words that one counter gives
# Known answers of the authors' Random123 for counter 0 and key 0.
KNOWN = (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)


class Random(Index, abstract=True):
    """One number per element.  Inputs: seed and position, 0-d uint64 or numbers."""

    required = (*Index.required, "words", "number")
    words: ClassVar[dict[DType, int]]  # dtype of the result -> words per element
    shape: tuple[Dim, ...]
    dtype: DType
    vjp = None

    @abstractmethod
    def number(self, b: Math, words: tuple[Scalar, ...], loads: Loads) -> Scalar:
        """The number that random words make."""

    def on(self, *nodes: Node) -> Node:
        seed, position, *others = nodes  # which may be Python numbers with the bits of int64
        return super().on(cast_node(seed, uint64), cast_node(position, uint64), *others)

    def infer(self, *types: TensorType) -> TensorType:
        return TensorType(self.shape, self.dtype, False, types[0].device)

    def value(self, b: Math, loads: Loads, at: tuple[Dim, ...]) -> Scalar:  # type: ignore[override]
        element = flatten_index(at, self.shape)
        words = philox_words(b, loads(0, ()), loads(1, ()), element, self.words[self.dtype])
        return self.number(b, words, loads)


def philox_words(
    b: Builder, seed: Scalar, position: Scalar, element: Dim, count: int
) -> tuple[Scalar, ...]:
    """The `count` words (1, 2 or 4) that an element of a stream gets."""
    zero = const(0, uint32)
    elements = BLOCK // count  # in a block
    block = position + cast(index(element // elements), uint64)
    words: tuple[Scalar, ...] = philox4x32((*halves(block), zero, zero), halves(seed))
    place = index(element % elements)
    while len(words) > count:
        half = len(words) // 2
        later = b.ne(place & (half // count), 0)
        words = tuple(b.select(later, words[half + k], words[k]) for k in range(half))
    return words


def halves(x: Scalar) -> tuple[Scalar, Scalar]:
    """Low and high 32 bits of a uint64."""
    return cast(x, uint32), cast(x >> 32, uint32)


def joined(low: Scalar, high: Scalar) -> Scalar:
    """A uint64 of two uint32 words."""
    return (cast(high, uint64) << 32) | cast(low, uint64)


def whole(words: tuple[Scalar, ...]) -> Scalar:
    """One word as it is, two as a uint64."""
    return words[0] if len(words) == 1 else joined(words[0], words[1])


def fraction(bits: Scalar, dtype: DType) -> Scalar:
    """The upper 24 of 32 bits or 53 of 64, as a float in [0, 1)."""
    digits = 24 if dtype is float32 else 53
    return cast(bits >> (bits.dtype.bits - digits), dtype) * 2.0**-digits


def positive_fraction(b: Math, bits: Scalar, dtype: DType) -> Scalar:
    """All 32 or 64 bits as a float in (0, 1]: small numbers come in finer steps."""
    size = bits.dtype.bits
    return b.fma(cast(bits, dtype), 2.0**-size, 2.0 ** -(size + 1))


class RandomBits(Random):
    """32 or 64 random bits, as uint32 or uint64."""

    words: ClassVar[dict[DType, int]] = {uint32: 1, uint64: 2}

    def number(self, b: Math, words: tuple[Scalar, ...], loads: Loads) -> Scalar:
        return whole(words)

    @staticmethod
    def samples() -> list[Sample]:
        def wide(np: Any, *state: Any) -> Any:
            return np.array(KNOWN, np.uint32).view(np.uint64)

        return [
            _sample(RandomBits.of((2, 2), uint32), lambda np, *_: _known(np).reshape(2, 2)),
            _sample(RandomBits.of((2,), uint64), wide),
        ]


class RandomUniform(Random):
    """Floats in [0, 1): the upper 24 of 32 bits times 2**-24, or 53 of 64 times 2**-53."""

    words: ClassVar[dict[DType, int]] = {float32: 1, float64: 2}

    def number(self, b: Math, words: tuple[Scalar, ...], loads: Loads) -> Scalar:
        return fraction(whole(words), self.dtype)

    @staticmethod
    def samples() -> list[Sample]:
        def single(np: Any, *state: Any) -> Any:
            return ((_known(np)[:3] >> 8) / 2**24).astype(np.float32)

        return [
            _sample(RandomUniform.of((3,), float32), single),
            _sample(RandomUniform.of((2,), float64), None),
        ]


class RandomNormal(Random):
    """Floats of the standard normal distribution.

    Source: Box and Muller, "A note on the generation of random normal deviates", 1958: with u in
    (0, 1] and an angle a, sqrt(-2 log(u)) cos(a).  The two lowest bits of the second number
    choose a quarter of the circle, the others an angle in it: +-cos(t) or +-sin(t), |t| <= pi/4.
    """

    words: ClassVar[dict[DType, int]] = {float32: 2, float64: 4}

    def number(self, b: Math, words: tuple[Scalar, ...], loads: Loads) -> Scalar:
        half = len(words) // 2
        first, second = whole(words[:half]), whole(words[half:])
        radius = b.sqrt(-2.0 * b.log(positive_fraction(b, first, self.dtype)))
        angle = b.fma(fraction(second, self.dtype), math.pi / 2, -math.pi / 4)
        sine, cosine = b.eighth(angle)
        wave = b.select(b.ne(second & 1, 0), sine, cosine)
        return radius * b.select(b.ne(second & 2, 0), -wave, wave)

    @staticmethod
    def samples() -> list[Sample]:
        def single(np: Any, *state: Any) -> Any:
            first, second = _known(np).reshape(-1, 2).T
            u = first / 2**32 + 0.5 / 2**32
            t = ((second >> 8) / 2**24 - 0.5) * (np.pi / 2)
            wave = np.where(second & 1, np.sin(t), np.cos(t))
            wave = np.where(second & 2, -wave, wave)
            return (np.sqrt(-2 * np.log(u)) * wave).astype(np.float32)

        return [
            _sample(RandomNormal.of((2,), float32), single, relative=1e-6),
            _sample(RandomNormal.of((1,), float64), None),
        ]


class RandomExponential(Random):
    """Floats of the exponential distribution of rate 1: -log(u) for u in (0, 1]."""

    words: ClassVar[dict[DType, int]] = {float32: 1, float64: 2}

    def number(self, b: Math, words: tuple[Scalar, ...], loads: Loads) -> Scalar:
        return -b.log(positive_fraction(b, whole(words), self.dtype))

    @staticmethod
    def samples() -> list[Sample]:
        def single(np: Any, *state: Any) -> Any:
            return (-np.log((_known(np) + 0.5) / 2**32)).astype(np.float32)

        return [
            _sample(RandomExponential.of((4,), float32), single, relative=1e-6),
            _sample(RandomExponential.of((2,), float64), None),
        ]


class RandomInteger(Random):
    """int64 numbers from `low` to `last`: low + floor(count * bits / 2**128) of 128 random bits.

    No number is more frequent than another by more than 2**-64 of it.  More inputs: low and last
    as 0-d int64; their distance may be up to 2**64 - 1.
    """

    words: ClassVar[dict[DType, int]] = {int64: 4}

    def number(self, b: Math, words: tuple[Scalar, ...], loads: Loads) -> Scalar:
        low, last = (bitcast(loads(k, ()), uint64) for k in (2, 3))
        count = last - low + 1
        lower, upper = joined(words[0], words[1]), joined(words[2], words[3])
        high, middle = wide_product(upper, count)
        carry, _ = wide_product(lower, count)
        total = middle + carry
        scaled = high + b.select(total < middle, const(1, uint64), 0)
        everything = b.select(b.eq(count, 0), upper, scaled)  # 2**64 wraps to 0
        return bitcast(low + everything, int64)

    @staticmethod
    def samples() -> list[Sample]:
        bits = sum(w << (32 * k) for k, w in enumerate(KNOWN))

        def case(low: int, last: int) -> Sample:
            count = last - low + 1
            ends = tuple(Arg((), int64, values=(v,)) for v in (low, last))
            want = low + ((bits * count) >> 128)
            return _sample(RandomInteger.of((1,), int64), lambda np, *_: np.array([want]), ends)

        return [case(0, 9), case(-5, 5), case(-(2**62), 2**62 + 3 * 2**20), case(7, 7)]


class RandomOrder(Library):
    """The positions of random keys [n] (uint64) in ascending order, int64 [n]."""

    precision = KEPT

    checked = False
    routine = "order_of_keys"
    vjp = None

    def infer(self, *types: TensorType) -> TensorType:
        return types[0].with_dtype(int64)

    @staticmethod
    def samples() -> list[Sample]:
        def order(np: Any, keys: Any) -> Any:
            return np.argsort(keys, kind="stable")

        keys = (5, 2**63, 1, 5, 2**63 + 2**11, 0, 1)
        counts = (0, 1, 7, 200)
        args = [Arg((n,), uint64, values=keys) for n in counts]
        args.append(Arg((500,), uint64, low=0, high=2.0**63, layout="strided"))
        return [
            Sample(lambda x: apply(RandomOrder.of(), x)[0], (a,), order, gradient=False)
            for a in args
        ]


def wide_product(x: Scalar, y: Scalar) -> tuple[Scalar, Scalar]:
    """High and low 64 bits of x * y for uint64."""
    (x_low, x_high), (y_low, y_high) = ((v & 0xFFFFFFFF, v >> 32) for v in (x, y))
    cross = x_low * y_high + ((x_low * y_low) >> 32)
    middle = x_high * y_low + (cross & 0xFFFFFFFF)
    return x_high * y_high + (cross >> 32) + (middle >> 32), x * y


def _known(np: Any) -> Any:
    return np.array(KNOWN, np.uint32)


def _sample(unit: Random, reference: Any, more: tuple[Arg, ...] = (), **options: Any) -> Sample:
    """A unit at seed 0 and position 0."""
    zero = Arg((), uint64, values=(0,), differentiable=False)
    return Sample(
        lambda *operands: apply(unit, *operands)[0],
        (zero, zero, *more),
        reference,
        gradient=False,
        **options,
    )


# -- distributions --------------------------------------------------------------------------------


def working(dtype: DType) -> DType:
    """The dtype in which numbers of a float dtype are made."""
    return float64 if dtype is float64 else float32


@composite
def uniform(
    seed: Any, position: Any, low: Any, high: Any, *, shape: tuple[Dim, ...], dtype: DType
) -> Any:
    """Floats [shape] in [low, high); numbers that rounding makes `high` become `low`."""
    x = low + RandomUniform.of(shape, working(dtype)).on(seed, position) * (high - low)
    x = cast_node(x, dtype)
    return cast_node(where(x < high, x, low), dtype)


@composite
def normal(
    seed: Any, position: Any, mean: Any, std: Any, *, shape: tuple[Dim, ...], dtype: DType
) -> Any:
    """Floats [shape] of the normal distribution."""
    x = mean + RandomNormal.of(shape, working(dtype)).on(seed, position) * std
    return cast_node(x, dtype)


@composite
def exponential(
    seed: Any, position: Any, rate: Any, *, shape: tuple[Dim, ...], dtype: DType
) -> Any:
    """Floats [shape] of the exponential distribution."""
    x = RandomExponential.of(shape, working(dtype)).on(seed, position) / rate
    return cast_node(x, dtype)


@composite
def integers(
    seed: Any, position: Any, low: Any, last: Any, *, shape: tuple[Dim, ...], dtype: DType
) -> Any:
    """Numbers [shape] from low to last."""
    ends = (cast_node(v, int64) for v in (low, last))
    return cast_node(RandomInteger.of(shape, int64).on(seed, position, *ends), dtype)


@composite
def bernoulli(seed: Any, position: Any, p: Any, *, shape: tuple[Dim, ...], dtype: DType) -> Any:
    """1 with probability p, else 0, as `dtype` [shape]."""
    part = cast_node(RandomBits.of(shape, uint32).on(seed, position), float64) * 2.0**-32
    return cast_node(part < cast_node(p, float64), dtype)


@composite
def permutation(seed: Any, position: Any, *, count: Dim) -> Any:
    """The numbers below `count` in the order of 64 random bits each, int64 [count]."""
    return RandomOrder.of().on(RandomBits.of((count,), uint64).on(seed, position))


def _fill(x: Any, *operands: Any, distribution: Callable[..., Any]) -> Any:
    return distribution(*operands, shape=x.shape, dtype=x.dtype)


def fills(distribution: Callable[..., Any]) -> Composite:
    """The unit that overwrites a tensor: (tensor, seed, position, parameters ...)."""
    return Composite.of(_fill, (("distribution", distribution),))


@composite
def dropout(x: Any, seed: Any, position: Any, p: Any) -> Any:
    """x / (1 - p) with probability 1 - p, else 0."""
    u = RandomUniform.of(x.shape, float32).on(seed, position)
    return where(u < p, 0.0, x * (1.0 / (1.0 - p)))


def _left_out(x: Any, seed: Any, position: Any, p: Any, axes: int) -> Any:
    """True with probability p, the same for all that shares the first `axes` axes of x."""
    shape = (*x.shape[:axes], *(1,) * (x.ndim - axes))
    return RandomUniform.of(shape, float32).on(seed, position) < p


@composite
def feature_dropout(x: Any, seed: Any, position: Any, p: Any, *, axes: int) -> Any:
    """x / (1 - p) with probability 1 - p, else 0; see `_left_out`."""
    return where(_left_out(x, seed, position, p, axes), 0.0, x * (1.0 / (1.0 - p)))


@composite
def alpha_dropout(x: Any, seed: Any, position: Any, p: Any, *, axes: int) -> Any:
    """scale x + shift with probability 1 - p, else scale low + shift; see `_left_out`.

    low is what SELU has at minus infinity; scale and shift keep mean 0 and variance 1:
    G. Klambauer et al., "Self-normalizing neural networks", 2017, section "New dropout technique".
    """
    low = -SELU_ALPHA * SELU_SCALE
    scale = 1.0 / ((p * (low * low) + 1.0) * (1.0 - p)) ** 0.5
    kept = where(_left_out(x, seed, position, p, axes), low, x)
    return (kept - low * p) * scale


@composite
def choices(weights: Any, seed: Any, position: Any, *, count: Dim) -> Any:
    """Indices [..., count] of weights [..., n], each drawn in proportion to its weight.

    By the cumulative sums, in float64: how many of them are not above a random part of the total.
    """
    sums = cast_node(weights, float64).cumsum(-1)
    total = sums.max(-1, keepdims=True)
    shape = (*weights.shape[:-1], count)
    part = RandomUniform.of(shape, float64).on(seed, position) * total
    part = where(part < total, part, 0.0)
    return cast_node(sums.unsqueeze(-2) <= part.unsqueeze(-1), int64).sum(-1)


@composite
def order(weights: Any, seed: Any, position: Any) -> Any:
    """Keys [..., n] whose ascending order draws from weights [..., n] without replacement.

    Exponential numbers over weights: P. Efraimidis and P. Spirakis, "Weighted random sampling
    with a reservoir", Information Processing Letters 97, 2006.
    """
    times = RandomExponential.of(weights.shape, float64).on(seed, position)
    return times / cast_node(weights, float64)
