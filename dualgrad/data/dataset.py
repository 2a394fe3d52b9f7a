"""Datasets: items by number, or one after another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from dualgrad.creation import from_storage
from dualgrad.data.checks import whole
from dualgrad.data.samplers import RandomSampler
from dualgrad.random import Generator, randint
from dualgrad.runtime.errors import ArgumentError, IndexOutOfBounds, ShapeError
from dualgrad.tensor import Tensor

Item_co = TypeVar("Item_co", covariant=True)


class Indexable(Protocol):
    """Items by number: a Dataset, or a list."""

    def __getitem__(self, index: int, /) -> Any: ...

    def __len__(self) -> int: ...


class Dataset(ABC, Generic[Item_co]):
    """Items 0..len-1.  Subclasses state `__getitem__` and `__len__`.

    With `num_workers` several threads ask for items at a time.
    """

    @abstractmethod
    def __getitem__(self, index: int, /) -> Item_co:
        """Return one item; raises IndexError outside of -len..len-1."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of items."""

    def __add__(self, other: Indexable) -> ConcatDataset:
        return ConcatDataset([self, other])


class IterableDataset(ABC, Generic[Item_co]):
    """Items one after another, of a number that need not be known.  Subclasses state `__iter__`.

    A loader takes its items in the order of one iterator, also with several workers.  One with
    `state_dict` and `load_state_dict` is asked for its state before each epoch; one without has
    to give the same items again, for a loader to go on in the middle of an epoch.
    """

    @abstractmethod
    def __iter__(self) -> Iterator[Item_co]:
        """Return the items of one epoch."""

    def __add__(self, other: Iterable[Any]) -> ChainDataset:
        return ChainDataset([self, other])


class TensorDataset(Dataset[tuple[Tensor, ...]]):
    """Rows of one or more tensors: item i is `(tensors[0][i], tensors[1][i], ...)`.

    The tensors have one first dimension n in common.  Items share their memory, but not their
    autograd history.

    Raises ArgumentError without a tensor, ShapeError if the first dimensions differ.
    """

    def __init__(self, *tensors: Tensor) -> None:
        if not tensors:
            raise ArgumentError(
                "no tensors",
                op="TensorDataset",
                expect="at least one tensor",
                hint="pass the tensors themselves: TensorDataset(x, y)",
            )
        shapes = [tuple(t.shape) for t in tensors]
        if any(not shape or shape[0] != shapes[0][0] for shape in shapes):
            raise ShapeError(
                "the tensors differ in their first dimension",
                op="TensorDataset",
                expect="one number of rows",
                actual=", ".join(map(str, shapes)),
                hint="give each tensor one row per sample",
            )
        self.tensors = tensors

    def __getitem__(self, index: int, /) -> tuple[Tensor, ...]:
        return tuple(from_storage(np.asarray(t.storage()[index]), t.dtype) for t in self.tensors)

    def __len__(self) -> int:
        return int(self.tensors[0].shape[0])

    def gather(self, indices: NDArray[np.int64]) -> list[Tensor]:
        """Return the rows `indices` [m] of each tensor as new tensors [m, ...]."""
        return [from_storage(_rows(t.storage(), indices), t.dtype) for t in self.tensors]


def _rows(array: NDArray[Any], indices: NDArray[np.int64]) -> NDArray[Any]:
    # take() copies the whole of a strided source first
    if array.flags.c_contiguous:
        return array.take(indices, axis=0)
    return np.asarray(array[indices])


class Subset(Dataset[Any]):
    """The items `indices` of another dataset, in their order."""

    def __init__(self, dataset: Indexable, indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = indices

    def __getitem__(self, index: int, /) -> Any:
        return self.dataset[int(self.indices[index])]

    def __len__(self) -> int:
        return len(self.indices)


class ConcatDataset(Dataset[Any]):
    """The items of several datasets, one dataset after another."""

    def __init__(self, datasets: Iterable[Indexable]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise _nothing("ConcatDataset")
        self.cumulative_sizes = list(accumulate(map(len, self.datasets)))

    def __getitem__(self, index: int, /) -> Any:
        n = len(self)
        if not -n <= index < n:
            raise IndexOutOfBounds(
                "there is no such item", op="ConcatDataset", expect=f"{-n} <= index < {n}",
                actual=str(index), hint="ask for an index that is there",
            )  # fmt: skip
        index %= n
        number = bisect_right(self.cumulative_sizes, index)
        before = self.cumulative_sizes[number - 1] if number else 0
        return self.datasets[number][index - before]

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]


class ChainDataset(IterableDataset[Any]):
    """The items of several iterable datasets, one dataset after another."""

    def __init__(self, datasets: Iterable[Iterable[Any]]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise _nothing("ChainDataset")

    def __iter__(self) -> Iterator[Any]:
        for dataset in self.datasets:
            yield from dataset


def random_split(
    dataset: Indexable,
    lengths: Sequence[int | float],
    generator: Generator | None = None,
    *,
    seed: int | None = None,
) -> list[Subset]:
    """Split a dataset into parts without common items, chosen at random.

    lengths    of the parts, which sum to len(dataset); or fractions that sum to 1: then what is
               left by rounding down goes to the parts in turn
    generator  draws a seed for the order; None is the default stream
    seed       decides the order instead
    """
    op, n = "random_split", len(dataset)
    sizes = _sizes(op, n, lengths)
    if seed is None:
        seed = int(randint(0, 2**63 - 1, (), generator=generator).item())
    order = RandomSampler(range(n)).order((whole(op, "seed", seed), 0)).tolist()
    ends = list(accumulate(sizes))
    return [Subset(dataset, order[e - size : e]) for e, size in zip(ends, sizes, strict=True)]


def _sizes(op: str, n: int, lengths: Sequence[int | float]) -> list[int]:
    numbers = list(lengths)
    fractions = any(isinstance(length, float) for length in numbers)
    if fractions and all(0 <= f <= 1 for f in numbers) and abs(sum(numbers) - 1) < 1e-9:
        sizes = [int(n * f) for f in numbers]
        for i in range(n - sum(sizes)):
            sizes[i % len(sizes)] += 1
        return sizes
    if not fractions and sum(numbers) == n and all(length >= 0 for length in numbers):
        return [int(length) for length in numbers]
    raise ArgumentError(
        "the parts do not make up the dataset",
        op=op,
        expect=f"lengths with sum {n}, or fractions with sum 1; none negative",
        actual=f"{numbers}, with sum {sum(numbers)}",
        hint="give the last part what the others leave",
    )


def _nothing(op: str) -> ArgumentError:
    return ArgumentError(
        "no datasets", op=op, expect="at least one", hint="pass a list: " + op + "([a, b])"
    )
