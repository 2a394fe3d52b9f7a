"""Normalisation of groups of channels.

Source: Y. Wu, K. He, "Group normalization", 2018.
"""

from __future__ import annotations

from typing import Any

from dualgrad.functional import group_norm
from dualgrad.nn.affine import Affine
from dualgrad.nn.checks import check_divides
from dualgrad.tensor import Tensor


class GroupNorm(Affine):
    """y = (x - mean) / sqrt(var + eps) * weight + bias for each sample and group of channels.

    x is [N, num_channels, ...]; a group is num_channels / num_groups channels and all that follows.

    weight, bias  [num_channels], 1 and 0 at the start; None with `affine=False`, the bias also
                  with `bias=False`

    Raises ArgumentError if num_groups does not divide num_channels.
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        check_divides("GroupNorm", "num_groups", num_groups, num_channels=num_channels)
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        self.affine = affine
        self._register_affine((num_channels,), affine, affine and bias, device, dtype)
        self.reset_parameters()

    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = group_norm(input, self.num_groups, self.weight, self.bias, self.eps)
        return output

    def extra_repr(self) -> str:
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )
