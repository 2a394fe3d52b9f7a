"""What layers share that scale and shift what they have normalised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dualgrad.creation import empty
from dualgrad.nn.init import ones_, zeros_
from dualgrad.nn.module import Module
from dualgrad.nn.parameter import Parameter


class Affine(Module):
    """Base of layers with a weight, 1 at the start, and a bias, 0 at the start, or None."""

    weight: Parameter | None
    bias: Parameter | None

    def _register_affine(
        self, shape: Sequence[int], weight: bool, bias: bool, device: Any, dtype: Any
    ) -> None:
        for name, learnt in (("weight", weight), ("bias", bias)):
            value = Parameter(empty(*shape, device=device, dtype=dtype)) if learnt else None
            self.register_parameter(name, value)

    def reset_parameters(self) -> None:
        """Let the weight be 1 and the bias 0."""
        if self.weight is not None:
            ones_(self.weight)
        if self.bias is not None:
            zeros_(self.bias)
