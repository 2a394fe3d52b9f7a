"""Merging of dimensions, and splitting of one."""

from __future__ import annotations

import math

from dualgrad.compiler.ops.axes import unflatten
from dualgrad.nn.module import Module
from dualgrad.nn.printing import listed
from dualgrad.runtime.errors import ShapeError
from dualgrad.tensor import Tensor


class Flatten(Module):
    """Merges the dimensions `start_dim` to `end_dim`, both included: [n, c, h, w] -> [n, chw].

    Raises ShapeError if the input does not have them, or has them in the other order.
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, input: Tensor) -> Tensor:
        shape = tuple(input.shape)
        start, end = (d + len(shape) if d < 0 else d for d in (self.start_dim, self.end_dim))
        if not 0 <= start <= end < len(shape):
            raise ShapeError(
                "there are no such dimensions to merge",
                op="Flatten",
                expect=f"dimensions {self.start_dim} to {self.end_dim}",
                actual=f"shape {shape}",
                hint="give the layer a batch: x.unsqueeze(0)",
            )
        merged = math.prod(shape[start : end + 1])
        output: Tensor = input.reshape(*shape[:start], merged, *shape[end + 1 :])
        return output

    def extra_repr(self) -> str:
        return listed(self, "start_dim", "end_dim")


class Unflatten(Module):
    """Splits the dimension `dim` into several: [n, chw] -> [n, c, h, w] for
    `Unflatten(1, (c, h, w))`.

    One of the sizes may be -1: what is left.  Raises ShapeError if their product is another.
    """

    def __init__(self, dim: int, unflattened_size: tuple[int, ...] | list[int]) -> None:
        self.dim = dim
        self.unflattened_size = unflattened_size

    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = unflatten(input, self.dim, tuple(self.unflattened_size))
        return output

    def extra_repr(self) -> str:
        return listed(self, "dim", "unflattened_size")
