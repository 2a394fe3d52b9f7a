"""Batches of a dataset: in order or shuffled, loaded by threads if wanted, resumable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from itertools import islice
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dualgrad.data.checks import keys_of, whole
from dualgrad.data.collate import default_collate, default_convert
from dualgrad.data.dataset import Indexable, IterableDataset, Subset, TensorDataset
from dualgrad.data.position import Position, checked_source, has_state
from dualgrad.data.samplers import (
    BatchSampler,
    KeyedSampler,
    RandomSampler,
    SequentialSampler,
    batches_in,
)
from dualgrad.data.sources import MapSource, Outcome, Source, StreamSource
from dualgrad.data.workers import Workers
from dualgrad.random import Generator
from dualgrad.runtime.errors import ArgumentError, OperandError

_STATE: Final = ("batch_size", "current", "length", "next", "source")
_PREFETCH: Final = 2


class DataLoader:
    """Iterates over `dataset` in batches; each `iter()` starts the next epoch.

    dataset         a Dataset, or anything with `__getitem__` and `__len__`; or an
                    IterableDataset, or anything else with `__iter__`
    batch_size      items per batch; the last batch may have fewer; None gives single items
    shuffle         take the items in a random order, another one in each epoch
    sampler         gives the indices, instead of `shuffle`
    batch_sampler   gives lists of indices, instead of `batch_size`, `shuffle`, `sampler` and
                    `drop_last`
    num_workers     threads that load batches ahead; 0 loads in the thread of the loop
    collate_fn      from a list of items to a batch; None takes `default_collate`, and
                    `default_convert` of one item if batch_size is None
    drop_last       leave out a last batch with fewer items
    timeout         seconds to wait for a batch of the workers; 0 is for ever
    worker_init_fn  called with its number by each worker before its first batch
    generator       draws the seed of each epoch
    prefetch_factor batches that are loaded ahead for each worker; None is 2
    seed            of the orders; without it and generator `dualgrad.random.initial_seed()` at
                    each epoch's start

    The order of an epoch is a function of (number of items, seed, epoch), and batches come in it
    for any number of workers.  Functions of `dualgrad` that draw random numbers, when the dataset
    or collate_fn calls them without a generator, draw from a stream of (seed, epoch, batch).
    What a batch raises reaches the loop, with its traceback, and ends the epoch.

    `state_dict()` at any moment and `load_state_dict()` of it in a loader made alike give exactly
    the batches that were left, and then the epochs that follow.

    A batch of a TensorDataset is a list of new tensors, gathered by one copy each.

    Raises ArgumentError for impossible arguments and those that exclude each other.
    """

    def __init__(
        self,
        dataset: Indexable | Iterable[Any],
        batch_size: int | None = 1,
        shuffle: bool = False,
        sampler: Iterable[int] | None = None,
        batch_sampler: Iterable[list[int]] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[Any], Any] | None = None,
        *,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], Any] | None = None,
        generator: Generator | None = None,
        prefetch_factor: int | None = None,
        seed: int | None = None,
    ) -> None:
        self.dataset = dataset
        self._streams = isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__")
        _check_choice(self._streams, batch_size, shuffle, sampler, batch_sampler, drop_last)
        _check_workers(num_workers, timeout, prefetch_factor)
        own = RandomSampler(() if self._streams else dataset, generator=generator, seed=seed)  # type: ignore[arg-type]
        if self._streams:
            sampler = None
        elif type(batch_sampler) is BatchSampler:
            sampler = batch_sampler.sampler
        elif sampler is None and batch_sampler is None:
            sampler = own if shuffle else SequentialSampler(dataset)  # type: ignore[arg-type]
        if sampler is not None and batch_size is not None and batch_sampler is None:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.batch_size = batch_size
        self.sampler = sampler
        self.batch_sampler = batch_sampler
        self.num_workers = num_workers
        self.collate_fn = collate_fn
        self.drop_last = drop_last
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.prefetch_factor = prefetch_factor
        self._keys = sampler if isinstance(sampler, KeyedSampler) else own
        self._position: Position | None = None  # of the epoch begun last, or to go on with
        self._resuming = False

    def __len__(self) -> int:
        """How many batches an epoch has.  Raises OperandError if the dataset does not know."""
        counted = self._chooser if self.batch_sampler is None else self.batch_sampler
        if not isinstance(counted, Sized):
            raise OperandError(
                "the loader does not know how many batches there are",
                op="DataLoader.__len__",
                expect=f"a {type(counted).__name__} with __len__",
                hint="count the batches in the loop",
            )
        n = len(counted)
        return batches_in(n, self.batch_size or 1, self.drop_last) if self._streams else n

    def __iter__(self) -> Iterator[Any]:
        position = self._begin()
        source = self._source(position)
        if self.num_workers == 0:
            return Batches(source, None)
        ahead = self.prefetch_factor or _PREFETCH
        started = Workers(source, self.num_workers, ahead, self.timeout, self.worker_init_fn)
        return Batches(source, started)

    def set_epoch(self, epoch: int) -> None:
        """Make the next `iter()` start epoch number `epoch`."""
        self._keys.set_epoch(epoch)
        self._position, self._resuming = None, False

    def state_dict(self) -> dict[str, Any]:
        """Return where the iterator begun last is, in values that JSON can hold.

        Batches that workers have loaded but the loop has not got count as left.
        """
        position = self._position
        stands = position is not None and not position.ended
        return {
            "batch_size": self.batch_size,
            "length": None if self._streams else len(self.dataset),  # type: ignore[arg-type]
            "next": self._keys.state_dict(),
            "current": position.state_dict() if position is not None and stands else None,
            "source": position.source if position is not None and stands else self._own_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Make the next `iter()` go on where another loader was at its `state_dict()`.

        Raises ArgumentError, and changes nothing, for what is no state of a loader made alike.
        """
        op = "DataLoader.load_state_dict"
        keys_of(op, state, _STATE)
        now = self.state_dict()
        for key in ("batch_size", "length"):
            if state[key] != now[key]:
                raise ArgumentError(
                    f"the state is of a loader with another {key.replace('length', 'dataset')}",
                    op=op,
                    expect=f"{key} {now[key]!r}",
                    actual=f"{key} {state[key]!r}",
                    hint="make the loader with the arguments that it was saved with",
                )
        self._keys.check_state(state["next"])
        values = state["current"]
        position = None if values is None else Position.of_state(values)
        started = checked_source(self._stateful, state["source"])
        if self._stateful is not None:
            self._stateful.load_state_dict(started)
        self._keys.load_state_dict(state["next"])
        if position is not None:
            position.source = started
        self._position, self._resuming = position, position is not None

    @property
    def _stateful(self) -> Any:
        """What of the user decides the order and has a state of its own, or None."""
        chooser = self._chooser
        return chooser if has_state(chooser) and not isinstance(chooser, KeyedSampler) else None

    @property
    def _chooser(self) -> Any:
        """What decides the order."""
        if self._streams:
            return self.dataset
        return self.batch_sampler if self.sampler is None else self.sampler

    def _own_state(self) -> Any:
        stateful = self._stateful
        return None if stateful is None else stateful.state_dict()

    def _begin(self) -> Position:
        position = self._position
        if position is None or not self._resuming:
            seed, epoch = self._keys.begin()
            position = Position(epoch, seed, source=self._own_state())
        self._position, self._resuming = position, False
        return position

    def _source(self, position: Position) -> Source:
        data: Any = self.dataset
        collate = self.collate_fn or (default_convert if self._single else default_collate)
        if self._streams:
            return StreamSource(position, collate, iter(data), self.batch_size, self.drop_last)
        gather = None if self.collate_fn or self._single else _gatherer(data)
        if gather is not None:
            return MapSource(position, gather, self._batches(position))
        load = data.__getitem__ if self._single else _loader_of(data)
        return MapSource(position, lambda indices: collate(load(indices)), self._batches(position))

    @property
    def _single(self) -> bool:
        return self.batch_size is None and self.batch_sampler is None

    def _batches(self, position: Position) -> Iterator[Any]:
        """The indices of each batch that is left."""
        batches, start = self.batch_sampler, position.batch
        if self._single or type(batches) is not BatchSampler:
            return islice(self._indices(self._chooser, position), start, None)
        order = _order(batches.sampler, position)
        if order is None:
            return islice(batches, start, None)
        size = batches.batch_size
        numbers = range(start, batches_in(len(order), size, batches.drop_last))
        return (order[i * size : (i + 1) * size] for i in numbers)

    def _indices(self, sampler: Any, position: Position) -> Iterator[Any]:
        order = _order(sampler, position)
        return iter(sampler) if order is None else iter(order.tolist())


class Batches(Iterator[Any]):
    """The batches of one epoch."""

    def __init__(self, source: Source, workers: Workers | None) -> None:
        self._source = source
        self._workers = workers
        self._ended = False

    def __next__(self) -> Any:
        if self._ended:
            raise StopIteration
        try:
            outcome = self._take()
            if outcome.error is not None:
                raise outcome.error
        except BaseException:  # by Ctrl-C, too: a batch may have been lost
            self._close()
            raise
        if outcome.ended:
            self._source.position.ended = True
            self._close()
            raise StopIteration
        self._source.position.batch += 1
        return outcome.batch

    def _take(self) -> Outcome:
        if self._workers is not None:
            return self._workers.take()
        position = self._source.position
        for task in self._source.tasks:
            return self._source.outcome(task)
        return Outcome(position.batch, ended=True)

    def _close(self) -> None:
        self._ended = True
        if self._workers is not None:
            self._workers.stop()
            self._workers = None


def _order(sampler: Any, position: Position) -> NDArray[np.int64] | None:
    """The indices of an epoch, if they are those of a sampler that makes an array of them."""
    if isinstance(sampler, KeyedSampler):
        return sampler.order((position.seed, position.epoch))
    if type(sampler) is SequentialSampler:
        return np.arange(len(sampler))
    return None


def _loader_of(data: Any) -> Callable[[Any], Any]:
    """From indices to a list of items."""
    several = getattr(data, "__getitems__", None)

    def load(indices: Any) -> Any:
        numbers = indices.tolist() if isinstance(indices, np.ndarray) else indices
        return several(numbers) if several is not None else [data[i] for i in numbers]

    return load


def _gatherer(data: Any) -> Callable[[Any], Any] | None:
    """From indices to a batch, for datasets that make one at once."""
    if isinstance(data, TensorDataset):
        return data.gather
    if type(data) is not Subset:
        return None
    gather = _gatherer(data.dataset)
    if gather is None:
        return None
    chosen = np.array(data.indices, np.int64)
    return lambda indices: gather(chosen[indices])


def _check_choice(
    streams: bool,
    batch_size: int | None,
    shuffle: bool,
    sampler: Any,
    batch_sampler: Any,
    drop_last: bool,
) -> None:
    """Refuse arguments that exclude each other."""
    if batch_size is not None:
        whole("DataLoader", "batch_size", batch_size, 1)
    order = {"shuffle": shuffle, "sampler": sampler, "batch_sampler": batch_sampler}
    if streams:
        _exclude("an iterable dataset, which has an order", order)
    if batch_sampler is not None:
        others = {"shuffle": shuffle, "sampler": sampler, "drop_last": drop_last}
        _exclude("batch_sampler", others | {"batch_size": batch_size != 1 and repr(batch_size)})
    if sampler is not None:
        _exclude("sampler", {"shuffle": shuffle})
    if batch_size is None and batch_sampler is None:
        _exclude("batch_size=None, which makes no batches", {"drop_last": drop_last})


def _exclude(given: str, others: dict[str, Any]) -> None:
    too_much = [name for name, value in others.items() if value is not None and value is not False]
    if too_much:
        raise ArgumentError(
            f"{' and '.join(too_much)} beside {given}",
            op="DataLoader",
            expect="one of them",
            hint=f"leave out {' and '.join(too_much)}",
        )


def _check_workers(num_workers: int, timeout: float, prefetch_factor: int | None) -> None:
    whole("DataLoader", "num_workers", num_workers)
    if prefetch_factor is not None:
        whole("DataLoader", "prefetch_factor", prefetch_factor, 1)
    number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if not number or not 0 <= timeout < float("inf"):
        raise ArgumentError(
            "timeout has a value it cannot have", op="DataLoader",
            expect="a number of seconds, 0 or more", actual=repr(timeout),
            hint="give 0 to wait as long as it takes",
        )  # fmt: skip
    for name, value in (("timeout", timeout), ("prefetch_factor", prefetch_factor)):
        if value and num_workers == 0:
            raise ArgumentError(
                f"{name} without workers", op="DataLoader", expect="num_workers of at least 1",
                actual=f"{name}={value!r}", hint=f"leave out {name}, or give num_workers",
            )  # fmt: skip
