"""Windows of images as columns of a matrix, and back."""

from __future__ import annotations

from typing import Any

from dualgrad import functional as F
from dualgrad.nn.module import Module
from dualgrad.nn.printing import listed
from dualgrad.tensor import Tensor


class Unfold(Module):
    """The windows of [N, C, H, W] (or [C, H, W]) as columns [N, C * KH * KW, windows].

    kernel_size, dilation, padding (of zeros) and stride are ints or one per axis.
    """

    def __init__(
        self, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
    ) -> None:
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.padding = padding
        self.stride = stride

    def forward(self, input: Tensor) -> Tensor:
        return F.unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)

    def extra_repr(self) -> str:
        return listed(self, "kernel_size", "dilation", "padding", "stride")


class Fold(Module):
    """[N, C, *output_size] with every column of [N, C * KH * KW, windows] added where `Unfold`
    takes it from.

    All sizes are ints or one per axis.
    """

    def __init__(
        self,
        output_size: Any,
        kernel_size: Any,
        dilation: Any = 1,
        padding: Any = 0,
        stride: Any = 1,
    ) -> None:
        self.output_size = output_size
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.padding = padding
        self.stride = stride

    def forward(self, input: Tensor) -> Tensor:
        return F.fold(
            input, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride
        )

    def extra_repr(self) -> str:
        return listed(self, "output_size", "kernel_size", "dilation", "padding", "stride")
