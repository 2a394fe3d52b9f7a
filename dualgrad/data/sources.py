"""Where the batches of an epoch come from: tasks, and what makes a batch of one."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from itertools import count, islice, repeat
from typing import Any

from dualgrad.data.position import Position, Stream
from dualgrad.runtime.errors import DataError
from dualgrad.state import state

Load = Callable[[Any], Any]


class Outcome:
    """What became of a task.

    number  of the batch in its epoch
    batch   if there is one
    error   that the code of the user has raised instead
    ended   there are no more batches
    """

    __slots__ = ("batch", "ended", "error", "number")

    def __init__(
        self,
        number: int,
        batch: Any = None,
        error: BaseException | None = None,
        ended: bool = False,
    ) -> None:
        self.number, self.batch, self.error, self.ended = number, batch, error, ended


class Source(ABC):
    """The batches of one epoch from the one on at which `position` stands.

    tasks     taken by the thread of the user
    outcome   of a task, in any thread, several at a time
    """

    tasks: Iterator[Any]

    def __init__(self, position: Position) -> None:
        self.position = position

    @abstractmethod
    def outcome(self, task: Any) -> Outcome:
        """Load the batch of one task.  Raises nothing."""


class MapSource(Source):
    """Batches of a dataset with items by number.

    load     from the indices of a batch to the batch
    batches  the indices of each batch that is left
    """

    def __init__(self, position: Position, load: Load, batches: Iterator[Any]) -> None:
        super().__init__(position)
        self._load = load
        self.tasks = zip(count(position.batch), batches)

    def outcome(self, task: tuple[int, Any]) -> Outcome:
        number, indices = task
        return _made(number, Stream(self.position, number), self._load, indices)


class StreamSource(Source):
    """Batches of an iterator: one thread at a time takes items, then makes a batch of them.

    collate     from a list of items to a batch
    batch_size  None takes items without a batch
    drop_last   leave out a last batch with fewer items
    """

    def __init__(
        self,
        position: Position,
        collate: Load,
        items: Iterator[Any],
        batch_size: int | None,
        drop_last: bool,
    ) -> None:
        super().__init__(position)
        self._collate = collate
        self.tasks = repeat(())
        self._items = items
        self._size = batch_size or 1
        self._single = batch_size is None
        self._least = self._size if drop_last else 1
        self._lock = threading.Lock()
        self._number = 0
        self._ended = False

    def outcome(self, task: tuple[()]) -> Outcome:
        with self._lock:
            taken, stream = self._take()
        if taken.error is not None or taken.ended:
            return taken
        items = taken.batch
        batch = items[0] if self._single else items
        return _made(taken.number, stream, self._collate, batch)

    def _take(self) -> tuple[Outcome, Stream]:
        """The items of the next batch that the user has not had, and its random numbers."""
        while True:
            number = self._number
            stream = Stream(self.position, number)
            if self._ended:
                taken = Outcome(number, ended=True)
            else:
                taken = _made(number, stream, list, islice(self._items, self._size))
            if taken.error is None and not taken.ended:
                taken.ended = len(taken.batch) < self._least
            self._ended = taken.ended or taken.error is not None
            if self._ended:  # if before what was had already, then in the place of what follows
                taken.number = max(number, self.position.batch)
            self._number = taken.number + 1
            if self._ended or number >= self.position.batch:
                return taken, stream


def _made(number: int, stream: Stream, load: Load, of: Any) -> Outcome:
    """What `load(of)` gives or raises, while this thread draws random numbers from `stream`."""
    before, state.stream = state.stream, stream
    try:
        return Outcome(number, load(of))
    except BaseException as error:
        return Outcome(number, error=_raisable(error))
    finally:
        state.stream = before


def _raisable(error: BaseException) -> BaseException:
    """The error itself, but for one that would end the loop of the user without a word."""
    if not isinstance(error, StopIteration):
        return error
    wrapped = DataError(
        "the code that loads a batch has raised StopIteration",
        op="DataLoader",
        hint="raise IndexError for an index that there is not, or catch what next() raises",
    )
    wrapped.__cause__ = error
    return wrapped
