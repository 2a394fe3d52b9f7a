"""The fully connected layer."""

from __future__ import annotations

import math
from typing import Any

from dualgrad.creation import empty
from dualgrad.functional import linear
from dualgrad.nn.init import kaiming_uniform_, uniform_
from dualgrad.nn.module import Module
from dualgrad.nn.parameter import Parameter
from dualgrad.runtime.errors import ArgumentError
from dualgrad.tensor import Tensor


class Linear(Module):
    """y = x W^T + b, for x [..., in_features] and y [..., out_features].

    weight  [out_features, in_features]
    bias    [out_features], or None with `bias=False`

    Both start uniform in +-1 / sqrt(in_features), as in PyTorch.

    Raises ArgumentError for a number of features below 0.
    """

    bias: Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        counts = (in_features, out_features)
        if not all(isinstance(n, int) and n >= 0 for n in counts):
            raise ArgumentError(
                "a number of features is no natural number",
                op="Linear",
                expect="ints >= 0",
                actual=f"in_features={in_features!r}, out_features={out_features!r}",
                hint="compute sizes with // and check that they are not negative",
            )
        self.in_features = in_features
        self.out_features = out_features
        kind = {"device": device, "dtype": dtype}
        self.weight = Parameter(empty(out_features, in_features, **kind))
        self.register_parameter("bias", Parameter(empty(out_features, **kind)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new values for weight and bias."""
        # sqrt(6 / ((1 + a^2) fan_in)) with a = sqrt(5) is 1 / sqrt(fan_in)
        kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features) if self.in_features else 0.0
            uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = linear(input, self.weight, self.bias)
        return output

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )
