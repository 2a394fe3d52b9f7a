"""The rectified linear unit."""

from __future__ import annotations

from dualgrad.functional import relu
from dualgrad.nn.module import Module
from dualgrad.tensor import Tensor


class ReLU(Module):
    """max(x, 0), element by element."""

    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = relu(input)
        return output
