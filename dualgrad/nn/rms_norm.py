"""Normalisation over the last dimensions, by the root of the mean square.

Source: B. Zhang, R. Sennrich, "Root mean square layer normalization", 2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dualgrad.functional import rms_norm
from dualgrad.nn.affine import Affine
from dualgrad.nn.checks import shape_of
from dualgrad.tensor import Tensor


class RMSNorm(Affine):
    """y = x / sqrt(mean of x^2 + eps) * weight over the last dimensions of x.

    normalized_shape  the sizes of these dimensions, or the size of the last one
    eps               by default the distance from 1 to the next number of the input's dtype
    weight            [*normalized_shape], 1 at the start; None with `elementwise_affine=False`

    Raises ArgumentError for a size below 0, ShapeError if the input does not end with
    `normalized_shape`.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        self.normalized_shape = shape_of("RMSNorm", "normalized_shape", normalized_shape)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        self._register_affine(self.normalized_shape, elementwise_affine, False, device, dtype)
        self.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = rms_norm(x, self.normalized_shape, self.weight, self.eps)
        return output

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
        )
