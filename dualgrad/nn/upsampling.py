"""Interpolation of the axes behind the channels, and channels turned into space and back."""

from __future__ import annotations

from typing import Any

from dualgrad import functional as F
from dualgrad.nn.checks import check_counts
from dualgrad.nn.module import Module
from dualgrad.nn.printing import listed
from dualgrad.tensor import Tensor


class Upsample(Module):
    """[N, C, L1, ...] at other sizes of the axes behind the channels; see `F.interpolate`.

    Either `size` or `scale_factor`, one number or one per axis.  Modes: "nearest", "linear" (one
    axis), "bilinear" and "bicubic" (two), "trilinear" (three).
    """

    def __init__(
        self,
        size: Any = None,
        scale_factor: Any = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:
        self.size = size
        if isinstance(scale_factor, tuple | list):
            self.scale_factor: Any = tuple(float(factor) for factor in scale_factor)
        else:
            self.scale_factor = float(scale_factor) if scale_factor else None
        self.mode = mode
        self.align_corners = align_corners
        self.recompute_scale_factor = recompute_scale_factor

    def forward(self, input: Tensor) -> Tensor:
        return F.interpolate(
            input, self.size, self.scale_factor, self.mode, self.align_corners,
            self.recompute_scale_factor,
        )  # fmt: skip

    def extra_repr(self) -> str:
        return listed(self, "size" if self.scale_factor is None else "scale_factor", "mode")


class UpsamplingNearest2d(Upsample):
    """`Upsample` of [N, C, H, W] in mode "nearest"."""

    def __init__(self, size: Any = None, scale_factor: Any = None) -> None:
        super().__init__(size, scale_factor, mode="nearest")


class UpsamplingBilinear2d(Upsample):
    """`Upsample` of [N, C, H, W] in mode "bilinear" with aligned corners."""

    def __init__(self, size: Any = None, scale_factor: Any = None) -> None:
        super().__init__(size, scale_factor, mode="bilinear", align_corners=True)


class PixelShuffle(Module):
    """[..., C r**2, H, W] as [..., C, H r, W r], r = upscale_factor."""

    def __init__(self, upscale_factor: int) -> None:
        check_counts("PixelShuffle", 1, upscale_factor=upscale_factor)
        self.upscale_factor = upscale_factor

    def forward(self, input: Tensor) -> Tensor:
        return F.pixel_shuffle(input, self.upscale_factor)

    def extra_repr(self) -> str:
        return listed(self, "upscale_factor")


class PixelUnshuffle(Module):
    """[..., C, H r, W r] as [..., C r**2, H, W], r = downscale_factor; undoes `PixelShuffle`."""

    def __init__(self, downscale_factor: int) -> None:
        check_counts("PixelUnshuffle", 1, downscale_factor=downscale_factor)
        self.downscale_factor = downscale_factor

    def forward(self, input: Tensor) -> Tensor:
        return F.pixel_unshuffle(input, self.downscale_factor)

    def extra_repr(self) -> str:
        return listed(self, "downscale_factor")


class ChannelShuffle(Module):
    """[N, C, ...] with the channels of its groups taken in turn."""

    def __init__(self, groups: int) -> None:
        check_counts("ChannelShuffle", 1, groups=groups)
        self.groups = groups

    def forward(self, input: Tensor) -> Tensor:
        return F.channel_shuffle(input, self.groups)

    def extra_repr(self) -> str:
        return listed(self, "groups")
