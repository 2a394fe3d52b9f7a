"""Batch normalisation.

Source: S. Ioffe, C. Szegedy, "Batch normalization: accelerating deep network training by reducing
internal covariate shift", 2015.
"""

from __future__ import annotations

from typing import Any

from dualgrad.functional import batch_norm
from dualgrad.nn.running_norm import RunningNorm
from dualgrad.runtime.dtype import float32, float64
from dualgrad.state import no_grad
from dualgrad.tensor import Tensor


class BatchNorm(RunningNorm):
    """y = (x - mean) / sqrt(var + eps) * weight + bias for each channel of x [N, C, ...].

    In training, mean and var are those of the batch, over all dimensions but the second, and
    running_mean and running_var move towards them by `momentum`, the variance with N - 1 in place
    of N; `momentum=None` makes them the mean of all batches.  In evaluation they take the batch's
    place, unless there are none (`track_running_stats=False`).

    Raises ShapeError if the input has another number of dimensions or channels.
    """

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        mean, var = self.running_mean, self.running_var
        momentum: Any = 0.0 if self.momentum is None else self.momentum
        if self.training and not self.track_running_stats:
            mean = var = None
        elif self.training and self.num_batches_tracked is not None:
            with no_grad():
                self.num_batches_tracked.add_(1)
                if self.momentum is None:
                    wide = float64 if mean is not None and mean.dtype is float64 else float32
                    momentum = 1.0 / self.num_batches_tracked.to(wide)
        of_batch = self.training or (mean is None and var is None)
        return batch_norm(input, mean, var, self.weight, self.bias, of_batch, momentum, self.eps)


class BatchNorm1d(BatchNorm):
    """Batch normalisation of [N, C] or [N, C, L]; see `BatchNorm`."""

    dims = (2, 3)


class BatchNorm2d(BatchNorm):
    """Batch normalisation of [N, C, H, W]; see `BatchNorm`."""

    dims = (4,)


class BatchNorm3d(BatchNorm):
    """Batch normalisation of [N, C, D, H, W]; see `BatchNorm`."""

    dims = (5,)
