"""Batches of a dataset, in order or shuffled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dualgrad.data.collate import default_collate
from dualgrad.data.dataset import TensorDataset
from dualgrad.data.shuffle import epoch_order
from dualgrad.random import initial_seed
from dualgrad.runtime.errors import ArgumentError


class Indexable(Protocol):
    """What a loader needs: a Dataset, or a list."""

    def __getitem__(self, index: int, /) -> Any: ...

    def __len__(self) -> int: ...


class DataLoader:
    """Iterates over `dataset` in batches; each `iter()` starts the next epoch.

    dataset     a Dataset, or anything with `__getitem__` and `__len__`
    batch_size  items per batch; the last batch may have fewer
    shuffle     take the items in a random order, another one in each epoch
    drop_last   leave out a last batch with fewer items
    seed        of the order; None takes `dualgrad.random.initial_seed()` at each epoch's start
    collate_fn  from a list of items to a batch; None takes `default_collate`

    The order of an epoch is a function of (len(dataset), seed, epoch).  A batch of a
    TensorDataset is a list of new tensors, gathered by one copy each.

    Raises ArgumentError for a batch_size below 1 or a negative seed.
    """

    def __init__(
        self,
        dataset: Indexable,
        batch_size: int = 1,
        shuffle: bool = False,
        drop_last: bool = False,
        seed: int | None = None,
        collate_fn: Callable[[list[Any]], Any] | None = None,
    ) -> None:
        _check("batch_size", batch_size, 1)
        if seed is not None:
            _check("seed", seed, 0)
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.seed = seed
        self.collate_fn = collate_fn
        self._epoch = 0

    def __len__(self) -> int:
        full, rest = divmod(len(self.dataset), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def set_epoch(self, epoch: int) -> None:
        """Make the next `iter()` start epoch number `epoch`, for instance to resume a run."""
        _check("epoch", epoch, 0)
        self._epoch = epoch

    def __iter__(self) -> Iterator[Any]:
        order = self._order()
        self._epoch += 1
        return self._batches(order)

    def _order(self) -> NDArray[np.int64]:
        n = len(self.dataset)
        if not self.shuffle:
            return np.arange(n)
        seed = initial_seed() if self.seed is None else self.seed
        return epoch_order(n, seed, self._epoch)

    def _batches(self, order: NDArray[np.int64]) -> Iterator[Any]:
        for number in range(len(self)):
            start = number * self.batch_size
            yield self._batch(order[start : start + self.batch_size])

    def _batch(self, indices: NDArray[np.int64]) -> Any:
        if self.collate_fn is None and isinstance(self.dataset, TensorDataset):
            return self.dataset.gather(indices)
        items = [self.dataset[index] for index in indices.tolist()]
        return (self.collate_fn or default_collate)(items)


def _check(name: str, value: int, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ArgumentError(
            f"{name} has a value it cannot have",
            op="DataLoader",
            expect=f"an int of at least {least}",
            actual=repr(value),
            hint=f"give {name} an int",
        )
