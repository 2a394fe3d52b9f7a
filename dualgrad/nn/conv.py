"""Convolutions and their transposes, over one to three axes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

from dualgrad import functional as F
from dualgrad.creation import empty
from dualgrad.nn.checks import check_choice, check_counts, check_divides, tuple_of
from dualgrad.nn.init import kaiming_uniform_, uniform_
from dualgrad.nn.module import Module
from dualgrad.nn.parameter import Parameter
from dualgrad.runtime.errors import ArgumentError
from dualgrad.tensor import Tensor

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class _Conv(Module):
    """What convolutions of `rank` axes have in common: sizes, parameters, the printed form."""

    rank: ClassVar[int]
    _function: ClassVar[Callable[..., Tensor]]
    transposed: ClassVar[bool] = False
    bias: Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any,
        padding: Any,
        dilation: Any,
        output_padding: Any,
        groups: int,
        bias: bool,
        padding_mode: str,
        device: Any,
        dtype: Any,
    ) -> None:
        op, rank = type(self).__name__, self.rank
        check_counts(op, 0, in_channels=in_channels, out_channels=out_channels)
        check_divides(op, "groups", groups, in_channels=in_channels, out_channels=out_channels)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = tuple_of(op, "kernel_size", kernel_size, rank, 1)
        self.stride = tuple_of(op, "stride", stride, rank, 1)
        self.padding = self._checked_padding(op, padding)
        self.dilation = tuple_of(op, "dilation", dilation, rank, 1)
        self.output_padding = tuple_of(op, "output_padding", output_padding, rank, 0)
        self.groups = groups
        modes = PADDING_MODES[:1] if self.transposed else PADDING_MODES
        self.padding_mode = check_choice(op, "padding mode", padding_mode, modes)
        kind = {"device": device, "dtype": dtype}
        ends = (in_channels, out_channels) if self.transposed else (out_channels, in_channels)
        shape = (ends[0], ends[1] // groups, *self.kernel_size)
        self.weight = Parameter(empty(shape, **kind))
        self.register_parameter("bias", Parameter(empty(out_channels, **kind)) if bias else None)
        self.reset_parameters()

    def _checked_padding(self, op: str, padding: Any) -> str | tuple[int, ...]:
        if not isinstance(padding, str):
            return tuple_of(op, "padding", padding, self.rank, 0)
        name: str = check_choice(op, "padding", padding, ("valid", "same"))
        if name == "same" and any(n != 1 for n in self.stride):
            raise ArgumentError(
                "'same' has no meaning with strides",
                op=op,
                expect="stride=1",
                actual=f"stride={self.stride}",
                hint="give padding as numbers, (kernel_size - 1) // 2 for odd kernels",
            )
        return name

    def reset_parameters(self) -> None:
        """Draw new values for weight and bias."""
        # sqrt(6 / ((1 + a^2) fan_in)) with a = sqrt(5) is 1 / sqrt(fan_in)
        kaiming_uniform_(self.weight, a=math.sqrt(5))
        fan_in = math.prod(self.weight.shape[1:])
        if self.bias is not None:
            bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
            uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}"
        text += f", kernel_size={self.kernel_size}, stride={self.stride}"
        none, once = (0,) * self.rank, (1,) * self.rank
        text += f", padding={self.padding}" if self.padding != none else ""
        text += f", dilation={self.dilation}" if self.dilation != once else ""
        text += f", output_padding={self.output_padding}" if self.output_padding != none else ""
        text += f", groups={self.groups}" if self.groups != 1 else ""
        text += ", bias=False" if self.bias is None else ""
        text += f", padding_mode={self.padding_mode}" if self.padding_mode != "zeros" else ""
        return text


class _Convolution(_Conv):
    """A convolution of [N, in_channels, L1, ...] or [in_channels, L1, ...].

    weight  [out_channels, in_channels / groups, *kernel_size]
    bias    [out_channels], or None with `bias=False`

    Both start uniform in +-1 / sqrt(in_channels / groups * elements of the kernel).  `padding` is
    a number of elements on both sides, one per axis, "valid" (none) or "same" (as much as keeps
    the size); `padding_mode` says what they are: "zeros", "reflect", "replicate" or "circular".

    Raises ArgumentError for sizes that do not fit.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, 0,
            groups, bias, padding_mode, device, dtype,
        )  # fmt: skip

    def forward(self, input: Tensor) -> Tensor:
        padding = self.padding
        if self.padding_mode != "zeros":
            input = F.pad(input, self._amounts(), self.padding_mode)
            padding = (0,) * self.rank
        return self._function(
            input, self.weight, self.bias, self.stride, padding, self.dilation, self.groups
        )

    def _amounts(self) -> tuple[int, ...]:
        """Elements before and after each axis, the last axis first."""
        if self.padding == "valid":
            pairs = [(0, 0)] * self.rank
        elif self.padding == "same":
            whole = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            pairs = [(n // 2, n - n // 2) for n in whole]
        else:
            pairs = [(n, n) for n in self.padding]  # type: ignore[misc]
        return tuple(n for pair in reversed(pairs) for n in pair)


class Conv1d(_Convolution):
    __doc__ = _Convolution.__doc__
    rank = 1
    _function = staticmethod(F.conv1d)


class Conv2d(_Convolution):
    __doc__ = _Convolution.__doc__
    rank = 2
    _function = staticmethod(F.conv2d)


class Conv3d(_Convolution):
    __doc__ = _Convolution.__doc__
    rank = 3
    _function = staticmethod(F.conv3d)


class _TransposedConvolution(_Conv):
    """The adjoint of a convolution, of [N, in_channels, L1, ...] or [in_channels, L1, ...].

    weight  [in_channels, out_channels / groups, *kernel_size]
    bias    [out_channels], or None with `bias=False`

    Both start uniform in +-1 / sqrt(out_channels / groups * elements of the kernel).  An axis of
    n elements gets (n - 1) stride - 2 padding + dilation (kernel_size - 1) + 1 + output_padding;
    `output_size` in a call chooses the output_padding itself.

    Raises ArgumentError for sizes that do not fit.
    """

    transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, output_padding,
            groups, bias, padding_mode, device, dtype,
        )  # fmt: skip

    def _checked_padding(self, op: str, padding: Any) -> tuple[int, ...]:
        return tuple_of(op, "padding", padding, self.rank, 0)

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        more = self.output_padding
        if output_size is not None:
            more = self._output_padding(input, tuple(output_size))
        return self._function(
            input, self.weight, self.bias, self.stride, self.padding, more, self.groups,
            self.dilation,
        )  # fmt: skip

    def _output_padding(self, input: Tensor, output_size: tuple[int, ...]) -> tuple[int, ...]:
        wanted = output_size[-self.rank :]
        assert not isinstance(self.padding, str)
        sizes: tuple[int, ...] = tuple(input.shape)[-self.rank :]
        axes = zip(sizes, self.stride, self.padding, self.dilation, self.kernel_size, strict=True)
        least = tuple((n - 1) * s - 2 * p + d * (k - 1) + 1 for n, s, p, d, k in axes)
        more = tuple(w - n for w, n in zip(wanted, least, strict=False))
        fits = len(output_size) in (self.rank, input.ndim) and len(more) == self.rank
        if not fits or not all(0 <= m < s for m, s in zip(more, self.stride, strict=True)):
            most = tuple(n + s - 1 for n, s in zip(least, self.stride, strict=True))
            raise ArgumentError(
                "the result cannot have this size",
                op=type(self).__name__,
                expect=f"output_size from {least} to {most}",
                actual=str(output_size),
                hint="leave output_size out for the smallest one",
            )
        return more


class ConvTranspose1d(_TransposedConvolution):
    __doc__ = _TransposedConvolution.__doc__
    rank = 1
    _function = staticmethod(F.conv_transpose1d)


class ConvTranspose2d(_TransposedConvolution):
    __doc__ = _TransposedConvolution.__doc__
    rank = 2
    _function = staticmethod(F.conv_transpose2d)


class ConvTranspose3d(_TransposedConvolution):
    __doc__ = _TransposedConvolution.__doc__
    rank = 3
    _function = staticmethod(F.conv_transpose3d)
