"""Random numbers: streams of Philox4x32-10, the same in both modes, for any number of threads.

A number is a function of (seed, position in the stream, element).  A `Generator` holds seed and
position as tensors, so compiled functions read and advance them like any other state.  All
functions use the default stream unless given a generator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from dualgrad.compiler.ir.refusal import not_a_tensor
from dualgrad.compiler.ir.value import dim_text
from dualgrad.compiler.ops import random as ops
from dualgrad.compiler.ops.base import broadcast_shapes
from dualgrad.compiler.ops.joining import split, stack
from dualgrad.compiler.ops.sort import argsort
from dualgrad.compiler.ops.transfer import transfer
from dualgrad.creation import as_shape, device_named, empty, full
from dualgrad.runtime.devices import CPU
from dualgrad.runtime.dtype import DType, as_dtype, bool_, float32, int64, uint64
from dualgrad.runtime.errors import ArgumentError, DTypeError, ShapeError
from dualgrad.state import state
from dualgrad.tensor import Tensor


class Generator:
    """A stream of random numbers; the same seed gives the same numbers."""

    def __init__(self, seed: int = 0) -> None:
        self.seed_tensor = full((), _checked(seed), dtype=uint64)
        self.position = full((), 0, dtype=uint64)

    def manual_seed(self, seed: int) -> Generator:
        """Start the stream of this seed (0 <= seed < 2**64) from its beginning."""
        self.seed_tensor.fill_(_wrapped(_checked(seed)))
        self.position.zero_()
        return self

    def initial_seed(self) -> int:
        """The seed that was set last."""
        return int(self.seed_tensor.item())

    def get_state(self) -> Tensor:
        """Seed and position, uint64 [2]."""
        out: Tensor = stack([self.seed_tensor, self.position])
        return out

    def set_state(self, state: Tensor) -> Generator:
        """Go on where the stream was when `get_state` gave this state."""
        if not isinstance(state, Tensor) or state.dtype is not uint64 or state.shape != (2,):
            raise ArgumentError(
                "no state of a generator",
                op="set_state",
                expect="a tensor uint64 (2,) from get_state()",
                actual=repr(getattr(state, "type", state)),
                hint="keep what get_state() returns",
            )
        seed, position = split(state, 1)
        self.seed_tensor.copy_(seed.reshape(()))
        self.position.copy_(position.reshape(()))
        return self

    def advance(self, words: int, device: str = CPU) -> tuple[Any, Any]:
        """Seed and position for so many words of 32 bits; moves the stream past them.

        They are operands beside tensors of `device`.  The stream itself is always on the CPU, so
        there is nothing to wait for: other devices get numbers with the bits of int64.
        """
        if hasattr(state.trace, "draw"):
            return state.trace.draw(self, words, device)  # type: ignore[no-any-return,union-attr]
        if device != CPU and state.trace is None:
            position = _wrapped(self.position.item())
            self.position.add_(-(-words // ops.BLOCK))
            return _wrapped(self.seed_tensor.item()), position
        before = self.position.clone()
        self.position.add_(-(-words // ops.BLOCK))
        if device == CPU:
            return self.seed_tensor, before
        return transfer(self.seed_tensor, device), transfer(before, device)


def _checked(seed: int) -> int:
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**64:
        raise ArgumentError(
            "no seed",
            op="seed",
            expect="an int in [0, 2**64)",
            actual=repr(seed),
            hint="give a natural number, such as 0",
        )
    return seed


def _wrapped(number: int) -> int:
    """The int64 with the bits of a uint64."""
    return number - 2**64 if number >= 2**63 else number


default_generator = Generator()


def seed(value: int) -> None:
    """Seed the default stream."""
    default_generator.manual_seed(value)


manual_seed = seed


def stream_of_thread() -> Generator:
    """The stream that functions without a generator draw from.

    That is the default one, but for what a `dualgrad.data.DataLoader` runs to load a batch: that
    draws from a stream of the batch, so that no order of threads shows.  Traces are kept, and
    therefore know the default stream only.
    """
    own = state.stream
    if own is None or state.trace is not None:
        return default_generator
    return own()  # type: ignore[no-any-return]


def initial_seed() -> int:
    """The seed of the default stream."""
    return default_generator.initial_seed()


def get_rng_state() -> Tensor:
    """The state of the default stream, uint64 [2]."""
    return default_generator.get_state()


def set_rng_state(state: Tensor) -> None:
    """Put the default stream back to a state."""
    default_generator.set_state(state)


# -- drawing --------------------------------------------------------------------------------------


def words_for(
    generator: Generator | None, each: int, shape: tuple[Any, ...], device: str = CPU
) -> tuple[Any, Any]:
    """Seed and position for `each` words per element, as operands on a device."""
    count = each
    for n in shape:
        count *= n
    return (generator or stream_of_thread()).advance(count, device)


def _sizes(op: str, shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, int | Iterable):
        raise ArgumentError(
            "there is no shape",
            op=op,
            expect="an int or a tuple of ints",
            actual=repr(shape),
            hint="give the shape of the result, such as (3,)",
        )
    return as_shape(op, (shape,) if isinstance(shape, int) else tuple(shape))


def _float(op: str, dtype: Any) -> DType:
    found = as_dtype(dtype)
    if not found.is_float:
        raise DTypeError(
            "random floats",
            op=op,
            expect="a float dtype",
            actual=found.name,
            hint="use dg.randint for integers",
        )
    return found


def _draw(
    op: Callable[..., Any],
    kind: type[ops.Random],
    shape: tuple[int, ...],
    dtype: DType,
    device: Any,
    generator: Generator | None,
    *parameters: Any,
) -> Tensor:
    """Numbers of a distribution; parameters are numbers or tensors that broadcast to the shape.

    Without `device` they are where the tensors are.
    """
    name = op.__name__
    tensors = [p for p in parameters if isinstance(p, Tensor)]
    place = tensors[0].device if tensors and device is None else device_named(name, device)
    shapes = [p.shape for p in tensors]
    if shapes and broadcast_shapes(name, [shape, *shapes]) != shape:
        raise ShapeError(
            "parameters have more elements than the result",
            op=name,
            expect=f"shapes that broadcast to {dim_text(shape)}",
            actual=", ".join(map(dim_text, shapes)),
            hint="leave the shape out, or make it at least as large",
        )
    each = kind.words[ops.working(dtype) if dtype.is_float else dtype]
    for p in parameters:
        if not hasattr(p, "__float__"):
            raise not_a_tensor(name, p, "Tensor, bool, int or float")
    numbers = [p if isinstance(p, Tensor) else float(p) for p in parameters]
    words = words_for(generator, each, shape, place)
    return _drawn(op, words, numbers, shape, dtype, place)


def _drawn(
    op: Callable[..., Any],
    words: tuple[Any, Any],
    parameters: Iterable[Any],
    shape: tuple[int, ...],
    dtype: DType,
    device: str,
) -> Tensor:
    """What an op makes of seed, position and parameters, on a device."""
    operands = (*words, *parameters)
    if device == CPU or any(isinstance(x, Tensor) for x in operands):
        out: Tensor = op(*operands, shape=shape, dtype=dtype)
        return out
    new = empty(shape, dtype=dtype, device=device)
    new.overwrite(ops.fills(op), *operands)
    return new


def uniform(
    shape: Any,
    low: Any = 0.0,
    high: Any = 1.0,
    dtype: Any = float32,
    generator: Generator | None = None,
    device: Any = None,
) -> Tensor:
    """Numbers of a shape, uniform in [low, high); 24 random bits each, 53 for float64.

    low and high are numbers or tensors that broadcast to the shape.
    """
    sizes, kind = _sizes("uniform", shape), _float("uniform", dtype)
    return _draw(ops.uniform, ops.RandomUniform, sizes, kind, device, generator, low, high)


def rand(
    *shape: Any,
    dtype: Any = float32,
    requires_grad: bool = False,
    generator: Generator | None = None,
    device: Any = None,
) -> Tensor:
    """Numbers of a shape, uniform in [0, 1)."""
    out = uniform(as_shape("rand", shape), dtype=dtype, generator=generator, device=device)
    return out.requires_grad_(requires_grad)


def rand_like(
    x: Tensor, dtype: Any = None, generator: Generator | None = None, device: Any = None
) -> Tensor:
    """Numbers of the shape, dtype and device of x, uniform in [0, 1)."""
    place = x.device if device is None else device
    return uniform(x.shape, dtype=dtype or x.dtype, generator=generator, device=place)


def normal(
    shape: Any,
    mean: Any = 0.0,
    std: Any = 1.0,
    dtype: Any = float32,
    generator: Generator | None = None,
    device: Any = None,
) -> Tensor:
    """Numbers of a shape from the normal distribution, by Box and Muller's method.

    mean and std are numbers or tensors that broadcast to the shape and have gradients: the result
    is mean + std * z with z from the standard normal distribution.
    """
    sizes, kind = _sizes("normal", shape), _float("normal", dtype)
    return _draw(ops.normal, ops.RandomNormal, sizes, kind, device, generator, mean, std)


def randn(
    *shape: Any,
    dtype: Any = float32,
    requires_grad: bool = False,
    generator: Generator | None = None,
    device: Any = None,
) -> Tensor:
    """Numbers of a shape from the standard normal distribution."""
    out = normal(as_shape("randn", shape), dtype=dtype, generator=generator, device=device)
    return out.requires_grad_(requires_grad)


def randn_like(
    x: Tensor, dtype: Any = None, generator: Generator | None = None, device: Any = None
) -> Tensor:
    """Numbers of the shape, dtype and device of x from the standard normal distribution."""
    place = x.device if device is None else device
    return normal(x.shape, dtype=dtype or x.dtype, generator=generator, device=place)


def exponential(
    shape: Any,
    rate: Any = 1.0,
    dtype: Any = float32,
    generator: Generator | None = None,
    device: Any = None,
) -> Tensor:
    """Numbers of a shape from the exponential distribution, of mean 1 / rate.

    rate is a number or a tensor that broadcasts to the shape.
    """
    sizes, kind = _sizes("exponential", shape), _float("exponential", dtype)
    return _draw(ops.exponential, ops.RandomExponential, sizes, kind, device, generator, rate)


def bernoulli(
    p: Any,
    shape: Any = None,
    dtype: Any = None,
    generator: Generator | None = None,
    device: Any = None,
) -> Tensor:
    """1 with probability p, else 0; p is rounded up to a multiple of 2**-32.

    p: a tensor, whose shape and dtype the result has by default, or a number, with a shape.
    """
    if shape is None and not isinstance(p, Tensor):
        raise ArgumentError(
            "a number has no shape",
            op="bernoulli",
            expect="a tensor, or shape=",
            actual=repr(p),
            hint="give shape=(n,)",
        )
    sizes = p.shape if shape is None else _sizes("bernoulli", shape)
    default = p.dtype if isinstance(p, Tensor) else float32
    kind = default if dtype is None else as_dtype(dtype)
    known = isinstance(p, Tensor) and device is None
    place = p.device if known else device_named("bernoulli", device)
    p = p if isinstance(p, Tensor) else probability("bernoulli", p)
    return _drawn(ops.bernoulli, words_for(generator, 1, sizes, place), (p,), sizes, kind, place)


def probability(op: str, p: Any) -> float:
    if not isinstance(p, int | float) or not 0 <= p <= 1:
        raise ArgumentError(
            "no probability",
            op=op,
            expect="0 <= p <= 1",
            actual=repr(p),
            hint="give a share: 0.2 for 20 percent",
        )
    return float(p)


# -- integers -------------------------------------------------------------------------------------


def randint(
    low: int,
    high: Any = None,
    shape: Any = None,
    dtype: Any = int64,
    generator: Generator | None = None,
    device: Any = None,
) -> Tensor:
    """Integers of a shape, uniform in [low, high); `randint(high, shape)` begins with 0.

    No number is more frequent than another by more than 2**-64 of it.
    """
    if shape is None:
        low, high, shape = 0, low, high
    sizes, kind = _sizes("randint", shape), as_dtype(dtype)
    ends = _ends("randint", low, high, kind)
    place = device_named("randint", device)
    return _drawn(ops.integers, words_for(generator, 4, sizes, place), ends, sizes, kind, place)


def _ends(op: str, low: int, high: int, dtype: DType) -> tuple[int, int]:
    """The first and the last number of [low, high), with the bits of int64."""
    least, limit = 0, 2**dtype.bits
    if dtype.is_float:
        least, limit = -(2**63), 2**63
    elif dtype.is_signed:
        least, limit = -(limit // 2), limit // 2
    if not least <= low < high <= limit:
        raise ArgumentError(
            "no interval of integers",
            op=op,
            expect=f"{least} <= low < high <= {limit} for {dtype.name}",
            actual=f"low={low}, high={high}",
            hint="give low before high, the first number that is not drawn",
        )
    return _wrapped(low), _wrapped(high - 1)


def randperm(
    n: int, dtype: Any = int64, generator: Generator | None = None, device: Any = None
) -> Tensor:
    """The integers from 0 to n - 1 in a random order: the order of n random 64-bit numbers."""
    (size,) = as_shape("randperm", (n,))
    place = device_named("randperm", device)
    out: Tensor = ops.permutation(*words_for(generator, 2, (size,)), count=size).to(dtype)
    return transfer(out, place)  # type: ignore[no-any-return]


def multinomial(
    weights: Tensor, n: int, replacement: bool = False, generator: Generator | None = None
) -> Tensor:
    """n indices of weights [m] or [rows, m], drawn in proportion to the weights: int64 [.., n].

    Without replacement no index comes twice in a row, and those of weight 0 come last.  Weights
    must not be negative; they need not add up to 1.
    """
    op = "multinomial"
    if weights.ndim not in (1, 2) or weights.shape[-1] == 0 or not weights.dtype.is_float:
        raise ShapeError(
            "no weights",
            op=op,
            expect="floats (m,) or (rows, m), m >= 1",
            actual=f"{weights.type!r}",
            hint="give one float per number that can be drawn",
        )
    m = weights.shape[-1]
    if n < 1 or (n > m and not replacement):
        limit = "" if replacement else f" <= {m}"
        raise ArgumentError(
            "no number of draws",
            op=op,
            expect=f"1 <= n{limit}",
            actual=str(n),
            hint="draw fewer, or with replacement=True",
        )
    if replacement:
        shape = (*weights.shape[:-1], n)
        out: Tensor = ops.choices(weights, *words_for(generator, 2, shape, weights.device), count=n)
        return out
    keys = ops.order(weights.detach(), *words_for(generator, 2, weights.shape, weights.device))
    first: Tensor = split(argsort(keys), [n, m - n], -1)[0] if n < m else argsort(keys)
    return first


# -- in place -------------------------------------------------------------------------------------


def _fill(
    x: Tensor,
    distribution: Callable[..., Any],
    words: int,
    generator: Generator | None,
    *parameters: Any,
) -> Tensor:
    start = words_for(generator, words, x.shape, x.device)
    out: Tensor = x._write(ops.fills(distribution), *start, *parameters)
    return out


def uniform_(
    x: Tensor, low: float = 0.0, high: float = 1.0, generator: Generator | None = None
) -> Tensor:
    """Overwrite x with numbers uniform in [low, high)."""
    words = ops.RandomUniform.words[ops.working(_float("uniform_", x.dtype))]
    return _fill(x, ops.uniform, words, generator, float(low), float(high))


def normal_(
    x: Tensor, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None
) -> Tensor:
    """Overwrite x with numbers of the normal distribution."""
    words = ops.RandomNormal.words[ops.working(_float("normal_", x.dtype))]
    return _fill(x, ops.normal, words, generator, float(mean), float(std))


def exponential_(x: Tensor, rate: float = 1.0, generator: Generator | None = None) -> Tensor:
    """Overwrite x with numbers of the exponential distribution."""
    words = ops.RandomExponential.words[ops.working(_float("exponential_", x.dtype))]
    return _fill(x, ops.exponential, words, generator, float(rate))


def bernoulli_(x: Tensor, p: Any = 0.5, generator: Generator | None = None) -> Tensor:
    """Overwrite x with 1 with probability p (a number or a tensor), else 0."""
    p = p if isinstance(p, Tensor) else probability("bernoulli_", p)
    return _fill(x, ops.bernoulli, 1, generator, p)


def random_(
    x: Tensor, low: int = 0, high: int | None = None, generator: Generator | None = None
) -> Tensor:
    """Overwrite x with integers uniform in [low, high).

    Without `high` up to the largest that the dtype has, or for floats has without gaps.
    """
    if high is None:
        high = _beyond(x.dtype)
    return _fill(x, ops.integers, 4, generator, *_ends("random_", low, high, x.dtype))


def _beyond(dtype: DType) -> int:
    """One more than the largest number that `random_` draws by default."""
    if dtype.is_float:
        return int(2 ** _DIGITS[dtype.name] + 1)
    return 2 if dtype is bool_ else int(2 ** (dtype.bits - dtype.is_signed))


_DIGITS = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}

for _method in (uniform_, normal_, exponential_, bernoulli_, random_):
    setattr(Tensor, _method.__name__, _method)
