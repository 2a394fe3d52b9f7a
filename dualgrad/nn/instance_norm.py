"""Instance normalisation.

Source: D. Ulyanov, A. Vedaldi, V. Lempitsky, "Instance normalization: the missing ingredient for
fast stylization", 2016.
"""

from __future__ import annotations

from typing import Any

from dualgrad.functional import instance_norm
from dualgrad.nn.running_norm import RunningNorm
from dualgrad.runtime.errors import ShapeError
from dualgrad.runtime.srcinfo import warn_user
from dualgrad.tensor import Tensor


class InstanceNorm(RunningNorm):
    """y = (x - mean) / sqrt(var + eps) * weight + bias for each sample and channel.

    x is [N, C, L, ...], or [C, L, ...] without a batch; mean and var are over L, ....  With
    `track_running_stats`, running statistics move in training towards the batch's mean of both by
    `momentum`, and take their place in evaluation.

    Raises ShapeError if the input has another number of dimensions, or of channels with
    `affine=True`.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias
        )

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        alone = input.ndim == self.dims[0]
        self._check_channels(input, input.shape[0 if alone else 1])
        batch = input.unsqueeze(0) if alone else input
        output = instance_norm(
            batch,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training or not self.track_running_stats,
            self.momentum or 0.0,
            self.eps,
        )
        return output.squeeze(0) if alone else output

    def _check_channels(self, input: Tensor, channels: Any) -> None:
        if channels == self.num_features:
            return
        if self.affine:
            raise ShapeError(
                "the input has another number of channels",
                op=type(self).__name__,
                expect=f"{self.num_features} channels",
                actual=f"shape {tuple(input.shape)}",
                hint="num_features is the size of the dimension of channels",
            )
        warn_user(
            f"{type(self).__name__}: num_features={self.num_features} is not the input's number "
            f"of channels, {channels}; it is not used, as affine=False"
        )


class InstanceNorm1d(InstanceNorm):
    """Instance normalisation of [N, C, L] or [C, L]; see `InstanceNorm`."""

    dims = (2, 3)


class InstanceNorm2d(InstanceNorm):
    """Instance normalisation of [N, C, H, W] or [C, H, W]; see `InstanceNorm`."""

    dims = (3, 4)


class InstanceNorm3d(InstanceNorm):
    """Instance normalisation of [N, C, D, H, W] or [C, D, H, W]; see `InstanceNorm`."""

    dims = (4, 5)
