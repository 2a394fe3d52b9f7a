"""Normalisation over the last dimensions, by mean and variance.

Source: J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer normalization", 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dualgrad.functional import layer_norm
from dualgrad.nn.affine import Affine
from dualgrad.nn.checks import shape_of
from dualgrad.tensor import Tensor


class LayerNorm(Affine):
    """y = (x - mean) / sqrt(var + eps) * weight + bias over the last dimensions of x.

    normalized_shape  the sizes of these dimensions, or the size of the last one
    weight, bias      [*normalized_shape], 1 and 0 at the start; None with
                      `elementwise_affine=False`, the bias also with `bias=False`

    Raises ArgumentError for a size below 0, ShapeError if the input does not end with
    `normalized_shape`.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        self.normalized_shape = shape_of("LayerNorm", "normalized_shape", normalized_shape)
        self.eps = eps
        self.elementwise_affine = affine = elementwise_affine
        self._register_affine(self.normalized_shape, affine, affine and bias, device, dtype)
        self.reset_parameters()

    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)
        return output

    def extra_repr(self) -> str:
        return (
            f"{self.normalized_shape}, eps={self.eps}, "
            f"elementwise_affine={self.elementwise_affine}, bias={self.bias is not None}"
        )
