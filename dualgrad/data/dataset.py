"""Map-style datasets: items by number."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from dualgrad.creation import from_storage
from dualgrad.runtime.errors import ArgumentError, ShapeError
from dualgrad.tensor import Tensor

Item_co = TypeVar("Item_co", covariant=True)


class Dataset(ABC, Generic[Item_co]):
    """Items 0..len-1.  Subclasses state `__getitem__` and `__len__`."""

    @abstractmethod
    def __getitem__(self, index: int, /) -> Item_co:
        """Return one item; raises IndexError outside of -len..len-1."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of items."""


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
