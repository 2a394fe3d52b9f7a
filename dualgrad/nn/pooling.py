"""Pooling: the largest element, mean or norm of windows or of equal shares of an input.

Inputs are [N, C, L1, ...] or, without a batch, [C, L1, ...].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from dualgrad import functional as F
from dualgrad.nn.checks import check_number, tuple_of
from dualgrad.nn.module import Module
from dualgrad.nn.printing import listed
from dualgrad.tensor import Tensor


class _Pool(Module):
    """A function of windows of `rank` axes; windows lie `kernel_size` apart unless `stride` says
    otherwise."""

    rank: ClassVar[int]
    _function: ClassVar[Callable[..., Any]]

    def _set_windows(self, kernel_size: Any, stride: Any, padding: Any) -> None:
        op, rank = type(self).__name__, self.rank
        tuple_of(op, "kernel_size", kernel_size, rank, 1)
        if stride is not None:
            tuple_of(op, "stride", stride, rank, 1)
        tuple_of(op, "padding", padding, rank, 0)
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding = padding


# -- the largest element --------------------------------------------------------------------------


class _MaxPool(_Pool):
    """The largest element of every window.

    kernel_size, stride, padding (at most half of the kernel) and dilation are ints or one per
    axis.  With `return_indices` the result is a pair: also the places of these elements in the
    flat input of each channel, int64.  `ceil_mode` counts windows that begin inside and end
    outside.
    """

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        self._set_windows(kernel_size, stride, padding)
        tuple_of(type(self).__name__, "dilation", dilation, self.rank, 1)
        self.dilation = dilation
        self.return_indices = return_indices
        self.ceil_mode = ceil_mode

    def forward(self, input: Tensor) -> Any:
        return self._function(
            input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode,
            self.return_indices,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return listed(self, "kernel_size", "stride", "padding", "dilation", "ceil_mode")


class MaxPool1d(_MaxPool):
    __doc__ = _MaxPool.__doc__
    rank = 1
    _function = staticmethod(F.max_pool1d)


class MaxPool2d(_MaxPool):
    __doc__ = _MaxPool.__doc__
    rank = 2
    _function = staticmethod(F.max_pool2d)


class MaxPool3d(_MaxPool):
    __doc__ = _MaxPool.__doc__
    rank = 3
    _function = staticmethod(F.max_pool3d)


# -- its inverse ----------------------------------------------------------------------------------


class _MaxUnpool(_Pool):
    """What `MaxPool` with `return_indices` took, back at its places among zeros.

    Called with the values and the indices; `output_size`, with or without batch and channels,
    chooses among the sizes that a stride maps to one.
    """

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0) -> None:
        op, rank = type(self).__name__, self.rank
        self.kernel_size = tuple_of(op, "kernel_size", kernel_size, rank, 1)
        self.stride = (
            self.kernel_size if stride is None else tuple_of(op, "stride", stride, rank, 1)
        )
        self.padding = tuple_of(op, "padding", padding, rank, 0)

    def forward(self, input: Tensor, indices: Tensor, output_size: Any = None) -> Tensor:
        out: Tensor = self._function(
            input, indices, self.kernel_size, self.stride, self.padding, output_size
        )
        return out

    def extra_repr(self) -> str:
        return listed(self, "kernel_size", "stride", "padding")


class MaxUnpool1d(_MaxUnpool):
    __doc__ = _MaxUnpool.__doc__
    rank = 1
    _function = staticmethod(F.max_unpool1d)


class MaxUnpool2d(_MaxUnpool):
    __doc__ = _MaxUnpool.__doc__
    rank = 2
    _function = staticmethod(F.max_unpool2d)


class MaxUnpool3d(_MaxUnpool):
    __doc__ = _MaxUnpool.__doc__
    rank = 3
    _function = staticmethod(F.max_unpool3d)


# -- means ----------------------------------------------------------------------------------------


class AvgPool1d(_Pool):
    """The mean of every window of [N, C, L]; see `AvgPool2d`."""

    rank = 1

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        self._set_windows(kernel_size, stride, padding)
        given = (self.kernel_size, self.stride, self.padding)
        one = [tuple_of("AvgPool1d", "window", value, 1, 0) for value in given]
        self.kernel_size, self.stride, self.padding = one
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad

    def forward(self, input: Tensor) -> Tensor:
        return F.avg_pool1d(
            input, self.kernel_size, self.stride, self.padding, self.ceil_mode,
            self.count_include_pad,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return listed(self, "kernel_size", "stride", "padding")


class _AvgPool(_Pool):
    """The mean of every window.

    kernel_size, stride and padding (of zeros, at most half of the kernel) are ints or one per
    axis.  Padding counts as elements if `count_include_pad`; `divisor_override` replaces the
    number of elements; `ceil_mode` counts windows that begin inside and end outside.
    """

    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        self._set_windows(kernel_size, stride, padding)
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad
        self.divisor_override = divisor_override

    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = self._function(
            input, self.kernel_size, self.stride, self.padding, self.ceil_mode,
            self.count_include_pad, self.divisor_override,
        )  # fmt: skip
        return output

    def extra_repr(self) -> str:
        return listed(self, "kernel_size", "stride", "padding")


class AvgPool2d(_AvgPool):
    __doc__ = _AvgPool.__doc__
    rank = 2
    _function = staticmethod(F.avg_pool2d)


class AvgPool3d(_AvgPool):
    __doc__ = _AvgPool.__doc__
    rank = 3
    _function = staticmethod(F.avg_pool3d)


# -- norms ----------------------------------------------------------------------------------------


class _LPPool(_Pool):
    """(sum x**p)**(1/p) of every window, p = norm_type.

    kernel_size and stride are ints or one per axis; `ceil_mode` counts windows that begin inside
    and end outside.  Raises ArgumentError for a norm_type of 0.
    """

    stride: Any

    def __init__(
        self, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
    ) -> None:
        self._set_windows(kernel_size, stride, 0)
        self.norm_type = check_number(type(self).__name__, "norm_type", norm_type)
        self.stride = stride
        self.ceil_mode = ceil_mode

    def forward(self, input: Tensor) -> Tensor:
        p = float(self.norm_type)
        output: Tensor = self._function(input, p, self.kernel_size, self.stride, self.ceil_mode)
        return output

    def extra_repr(self) -> str:
        return listed(self, "norm_type", "kernel_size", "stride", "ceil_mode")


class LPPool1d(_LPPool):
    __doc__ = _LPPool.__doc__
    rank = 1
    _function = staticmethod(F.lp_pool1d)


class LPPool2d(_LPPool):
    __doc__ = _LPPool.__doc__
    rank = 2
    _function = staticmethod(F.lp_pool2d)


class LPPool3d(_LPPool):
    __doc__ = _LPPool.__doc__
    rank = 3
    _function = staticmethod(F.lp_pool3d)
