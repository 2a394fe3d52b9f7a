"""Activations along an axis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from dualgrad import functional as F
from dualgrad.nn.module import Module
from dualgrad.nn.printing import listed
from dualgrad.runtime.errors import ShapeError
from dualgrad.tensor import Tensor


class _Along(Module):
    """A function along the axis `dim`; None is PyTorch's choice by the number of dimensions: 0
    for up to one and for three, else 1."""

    _function: ClassVar[Callable[..., Any]]

    def __init__(self, dim: int | None = None) -> None:
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        dim = self.dim
        if dim is None:
            dim = 0 if input.ndim in (0, 1, 3) else 1
        output: Tensor = self._function(input, dim)
        return output

    def extra_repr(self) -> str:
        return listed(self, "dim")


class Softmax(_Along):
    """exp(x) over its sum along `dim`."""

    _function = staticmethod(F.softmax)


class Softmin(_Along):
    """softmax(-x) along `dim`."""

    _function = staticmethod(F.softmin)


class LogSoftmax(_Along):
    """log(softmax(x)) along `dim`, without loss of small values."""

    _function = staticmethod(F.log_softmax)


class Softmax2d(Module):
    """softmax over the channels of [N, C, H, W] or [C, H, W].

    Raises ShapeError for another number of dimensions.
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim not in (3, 4):
            raise ShapeError(
                "input has a wrong number of dimensions",
                op="Softmax2d",
                expect="[N, C, H, W] or [C, H, W]",
                actual=str(tuple(input.shape)),
                hint="Softmax(dim=...) takes any shape",
            )
        return F.softmax(input, -3)


class GLU(Module):
    """a sigmoid(b) for the halves a and b of the input along `dim`, which has an even size.

    Y. Dauphin et al., "Language modeling with gated convolutional networks", 2017.
    """

    def __init__(self, dim: int = -1) -> None:
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        return F.glu(input, self.dim)

    def extra_repr(self) -> str:
        return listed(self, "dim")
