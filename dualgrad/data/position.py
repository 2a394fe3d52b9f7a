"""Where in which epoch a loader is, in numbers that JSON can hold."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from dualgrad.data.checks import keys_of, whole
from dualgrad.random import Generator
from dualgrad.runtime.errors import ArgumentError
from dualgrad.runtime.records import dataclass

_OP: Final = "DataLoader.load_state_dict"
_KEYS: Final = ("batch", "epoch", "seed")


@dataclass
class Position:
    """An epoch that has begun.

    epoch  its number
    seed   of its order, and of the random numbers that loading its batches takes
    batch  how many batches the user has got
    source what a sampler or dataset of the user said of itself before the epoch, if it did
    ended  the user has seen the end of the epoch
    """

    epoch: int
    seed: int
    batch: int = 0
    source: Any = None
    ended: bool = False

    def state_dict(self) -> dict[str, int]:
        return {key: getattr(self, key) for key in _KEYS}

    @staticmethod
    def of_state(values: Any) -> Position:
        """The position with this `state_dict()`.  Raises ArgumentError."""
        keys_of(_OP, values, _KEYS)
        batch, epoch, seed = (whole(_OP, key, values[key]) for key in _KEYS)
        return Position(epoch, seed, batch)


class Stream:
    """Gives the random numbers for loading one batch of an epoch, made when first asked for."""

    __slots__ = ("_key", "_made")

    def __init__(self, position: Position, batch: int) -> None:
        self._key = (position.seed, position.epoch, batch)
        self._made: Generator | None = None

    def __call__(self) -> Generator:
        if self._made is None:
            words = np.random.SeedSequence(self._key).generate_state(1, np.uint64)
            self._made = Generator(int(words[0]))
        return self._made


def has_state(source: Any) -> bool:
    """Whether a sampler or dataset can say where it is, and go there."""
    return hasattr(source, "state_dict") and hasattr(source, "load_state_dict")


def checked_source(source: Any, values: Any) -> Any:
    """Return the state `values` of `source`, which may be None.

    Raises ArgumentError if the one is there without the other.
    """
    if (values is None) != (source is None):
        raise ArgumentError(
            "the state is of a loader with another sampler or dataset",
            op=_OP,
            expect="no state of one" if source is None else f"a state of {type(source).__name__}",
            actual=repr(values),
            hint="make the loader with the sampler and dataset that it was saved with",
        )
    return values
