"""Orders in which the items of a dataset are taken, with the names of PyTorch.

An order that is random belongs to a key (seed, epoch): each `iter()` begins the next epoch.  The
seed is that of the sampler, or is drawn from its generator, or else is the seed of the default
stream at that moment.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from itertools import islice
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from dualgrad.creation import from_numpy
from dualgrad.data.checks import keys_of, whole
from dualgrad.data.shuffle import below, random_order, uniform
from dualgrad.random import Generator, initial_seed, randint
from dualgrad.runtime.errors import ArgumentError

T_co = TypeVar("T_co", covariant=True)
Key = tuple[int, int]
"""(seed, epoch) of a random order."""


class Sampler(ABC, Generic[T_co]):
    """An order of indices (or of lists of them, for `batch_sampler`).

    One with `state_dict` and `load_state_dict`, which is asked for its state before each epoch,
    can go on in the middle of an epoch; one without has to give the same order again.
    """

    @abstractmethod
    def __iter__(self) -> Iterator[T_co]:
        """Return the indices of one epoch."""


class SequentialSampler(Sampler[int]):
    """0..n-1 for the n items of `data_source`."""

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class KeyedSampler(Sampler[int]):
    """A random order for each key.  Subclasses state `order` and `__len__`.

    generator  draws a seed for each epoch
    seed       of all epochs; the one or the other
    """

    def __init__(self, generator: Generator | None = None, seed: int | None = None) -> None:
        op = type(self).__name__
        if generator is not None and not isinstance(generator, Generator):
            raise ArgumentError(
                "no generator", op=op, expect="a dg.Generator or None",
                actual=type(generator).__name__, hint="make one by dg.Generator(seed)",
            )  # fmt: skip
        if generator is not None and seed is not None:
            raise ArgumentError(
                "a generator and a seed", op=op, expect="one of the two", actual=f"seed={seed}",
                hint="leave out the seed: the generator has one",
            )  # fmt: skip
        self.generator = generator
        self.seed = seed if seed is None else whole(op, "seed", seed)
        self._epoch = 0

    @abstractmethod
    def order(self, key: Key) -> NDArray[np.int64]:
        """Return the indices of one epoch, int64 [len(self)]."""

    @abstractmethod
    def __len__(self) -> int:
        """Return how many indices an epoch has."""

    def __iter__(self) -> Iterator[int]:
        return iter(self.order(self.begin()).tolist())

    def begin(self) -> Key:
        """Return the key of the next epoch, which begins with this."""
        epoch = self._epoch
        self._epoch += 1
        if self.generator is not None:
            drawn = randint(0, 2**63 - 1, (), generator=self.generator)
            return int(drawn.item()), epoch
        return (initial_seed() if self.seed is None else self.seed), epoch

    def set_epoch(self, epoch: int) -> None:
        """Make the next `iter()` begin epoch number `epoch`."""
        self._epoch = whole(type(self).__name__, "epoch", epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return the number of the next epoch and the state of the generator, or None."""
        drawn = None if self.generator is None else self.generator.get_state().numpy().tolist()
        return {"epoch": self._epoch, "generator": drawn}

    def check_state(self, state: Any) -> Mapping[str, Any]:
        """Return `state`.  Raises ArgumentError if it is none of such a sampler."""
        op = type(self).__name__
        keys_of(op, state, ("epoch", "generator"))
        whole(op, "epoch", state["epoch"])
        drawn = state["generator"]
        if (drawn is None) != (self.generator is None) or not (drawn is None or _pair(drawn)):
            raise ArgumentError(
                "the state is not that of a sampler with these arguments",
                op=op,
                expect="no generator" if self.generator is None else "[seed, position]",
                actual=f"generator: {drawn!r}",
                hint="make the sampler with the arguments that it was saved with",
            )
        return state  # type: ignore[no-any-return]

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another sampler was at its `state_dict()`.  Raises ArgumentError."""
        self.check_state(state)
        self._epoch = state["epoch"]
        if self.generator is not None:
            self.generator.set_state(from_numpy(np.array(state["generator"], np.uint64)))


def _pair(words: Any) -> bool:
    """Whether these are seed and position of a generator."""
    if not isinstance(words, Sequence) or len(words) != 2:
        return False
    return all(type(word) is int and 0 <= word < 2**64 for word in words)


class RandomSampler(KeyedSampler):
    """The items of `data_source` in a random order, another one in each epoch.

    replacement  draw each index from all of them
    num_samples  indices an epoch has; None is one for each item.  Without replacement, those
                 beyond the number of items are of further orders
    """

    def __init__(
        self,
        data_source: Sized,
        replacement: bool = False,
        num_samples: int | None = None,
        generator: Generator | None = None,
        *,
        seed: int | None = None,
    ) -> None:
        super().__init__(generator, seed)
        if num_samples is not None:
            whole("RandomSampler", "num_samples", num_samples, 1)
        self.data_source = data_source
        self.replacement = replacement
        self._num_samples = num_samples

    @property
    def num_samples(self) -> int:
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def __len__(self) -> int:
        return self.num_samples

    def order(self, key: Key) -> NDArray[np.int64]:
        bits, n, wanted = np.random.PCG64(key), len(self.data_source), self.num_samples
        if n == 0 and wanted:
            raise ArgumentError(
                "there are no items to draw from", op="RandomSampler", expect="some items",
                actual=f"num_samples={wanted} of 0 items", hint="leave num_samples out",
            )  # fmt: skip
        if self.replacement:
            return below(n, wanted, bits)
        if wanted <= n:
            return random_order(n, bits)[:wanted]
        orders = [random_order(n, bits) for _ in range(-(-wanted // n))]
        return np.concatenate(orders)[:wanted]


class SubsetRandomSampler(KeyedSampler):
    """The given indices in a random order, another one in each epoch."""

    def __init__(
        self, indices: Sequence[int], generator: Generator | None = None, *, seed: int | None = None
    ) -> None:
        super().__init__(generator, seed)
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def order(self, key: Key) -> NDArray[np.int64]:
        chosen = random_order(len(self.indices), np.random.PCG64(key))
        return np.array(self.indices, np.int64)[chosen]


class WeightedRandomSampler(KeyedSampler):
    """`num_samples` of the indices 0..len(weights)-1, the more likely the greater their weight.

    weights      finite, none negative, not all zero; they need not sum to one
    replacement  draw each index from all of them; else each comes at most once

    Without replacement the indices with the smallest -log(u) / weight are taken, u uniform.
    Source: P. Efraimidis, P. Spirakis, "Weighted random sampling with a reservoir", 2006.
    """

    def __init__(
        self,
        weights: Any,
        num_samples: int,
        replacement: bool = True,
        generator: Generator | None = None,
        *,
        seed: int | None = None,
    ) -> None:
        super().__init__(generator, seed)
        self.num_samples = whole("WeightedRandomSampler", "num_samples", num_samples, 1)
        self.weights = _weights(weights)
        self.replacement = replacement
        possible = int((self.weights > 0).sum())
        if not replacement and num_samples > possible:
            raise ArgumentError(
                "there are not so many indices to choose from",
                op="WeightedRandomSampler",
                expect=f"num_samples of at most {possible}, the number of weights above zero",
                actual=str(num_samples),
                hint="draw with replacement=True",
            )

    def __len__(self) -> int:
        return self.num_samples

    def order(self, key: Key) -> NDArray[np.int64]:
        bits = np.random.PCG64(key)
        if self.replacement:
            sums = np.cumsum(self.weights)
            drawn = uniform(self.num_samples, bits) * sums[-1]
            last = int(np.flatnonzero(self.weights)[-1])  # a product may round up to the sum
            found: NDArray[np.int64] = np.minimum(np.searchsorted(sums, drawn, side="right"), last)
            return found
        waits = -np.log1p(-uniform(len(self.weights), bits))
        with np.errstate(divide="ignore", invalid="ignore"):
            times = np.where(self.weights > 0, waits / self.weights, np.inf)
        return np.argsort(times, kind="stable")[: self.num_samples]


def _weights(weights: Any) -> NDArray[np.float64]:
    values = np.array([float(w) for w in weights], np.float64)
    if values.size and np.isfinite(values).all() and values.min() >= 0 and values.max() > 0:
        return values
    raise ArgumentError(
        "these are no weights",
        op="WeightedRandomSampler",
        expect="finite numbers, none negative, not all zero",
        actual=repr(values.tolist()[:8]),
        hint="give each index the relative number of times it is to come",
    )


class BatchSampler(Sampler[list[int]]):
    """Lists of `batch_size` indices of another sampler; the last may be shorter.

    drop_last  leave out a last list that is shorter
    """

    def __init__(self, sampler: Iterable[int], batch_size: int, drop_last: bool) -> None:
        self.sampler = sampler
        self.batch_size = whole("BatchSampler", "batch_size", batch_size, 1)
        self.drop_last = drop_last

    def __iter__(self) -> Iterator[list[int]]:
        indices = iter(self.sampler)
        while batch := list(islice(indices, self.batch_size)):
            if self.drop_last and len(batch) < self.batch_size:
                return
            yield batch

    def __len__(self) -> int:
        return batches_in(len(self.sampler), self.batch_size, self.drop_last)  # type: ignore[arg-type]


def batches_in(n: int, batch_size: int, drop_last: bool) -> int:
    """How many batches `n` items make."""
    return n // batch_size if drop_last else -(-n // batch_size)
