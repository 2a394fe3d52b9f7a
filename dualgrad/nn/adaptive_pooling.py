"""Adaptive pooling: the mean or the largest element of as many shares as the result has elements.

Inputs are [N, C, L1, ...] or, without a batch, [C, L1, ...].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from dualgrad import functional as F
from dualgrad.nn.module import Module
from dualgrad.nn.printing import listed
from dualgrad.tensor import Tensor


class _AdaptiveAvgPool(Module):
    """The means of shares of the input; `output_size` is an int or one per axis, None keeps the
    size of an axis."""

    _function: ClassVar[Callable[..., Any]]

    def __init__(self, output_size: Any) -> None:
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = self._function(input, self.output_size)
        return output

    def extra_repr(self) -> str:
        return listed(self, "output_size")


class AdaptiveAvgPool1d(_AdaptiveAvgPool):
    __doc__ = _AdaptiveAvgPool.__doc__
    _function = staticmethod(F.adaptive_avg_pool1d)


class AdaptiveAvgPool2d(_AdaptiveAvgPool):
    __doc__ = _AdaptiveAvgPool.__doc__
    _function = staticmethod(F.adaptive_avg_pool2d)


class AdaptiveAvgPool3d(_AdaptiveAvgPool):
    __doc__ = _AdaptiveAvgPool.__doc__
    _function = staticmethod(F.adaptive_avg_pool3d)


class _AdaptiveMaxPool(Module):
    """The largest elements of shares of the input; `output_size` is an int or one per axis, None
    keeps the size of an axis.

    With `return_indices` the result is a pair: also the places of these elements in the flat
    input of each channel, int64.
    """

    _function: ClassVar[Callable[..., Any]]

    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        self.output_size = output_size
        self.return_indices = return_indices

    def forward(self, input: Tensor) -> Any:
        return self._function(input, self.output_size, self.return_indices)

    def extra_repr(self) -> str:
        return listed(self, "output_size")


class AdaptiveMaxPool1d(_AdaptiveMaxPool):
    __doc__ = _AdaptiveMaxPool.__doc__
    _function = staticmethod(F.adaptive_max_pool1d)


class AdaptiveMaxPool2d(_AdaptiveMaxPool):
    __doc__ = _AdaptiveMaxPool.__doc__
    _function = staticmethod(F.adaptive_max_pool2d)


class AdaptiveMaxPool3d(_AdaptiveMaxPool):
    __doc__ = _AdaptiveMaxPool.__doc__
    _function = staticmethod(F.adaptive_max_pool3d)
