"""The layer of products of two inputs."""

from __future__ import annotations

import math
from typing import Any

from dualgrad import functional as F
from dualgrad.creation import empty
from dualgrad.nn.checks import check_counts
from dualgrad.nn.init import uniform_
from dualgrad.nn.module import Module
from dualgrad.nn.parameter import Parameter
from dualgrad.tensor import Tensor


class Bilinear(Module):
    """y_k = x1^T W_k x2 + b_k, for x1 [..., in1_features], x2 [..., in2_features] and
    y [..., out_features].

    weight  [out_features, in1_features, in2_features]
    bias    [out_features], or None with `bias=False`

    Both start uniform in +-1 / sqrt(in1_features).  Raises ArgumentError for in1_features < 1 or
    another size < 0.
    """

    bias: Parameter | None

    def __init__(
        self,
        in1_features: int,
        in2_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        check_counts("Bilinear", 1, in1_features=in1_features)
        check_counts("Bilinear", 0, in2_features=in2_features, out_features=out_features)
        self.in1_features = in1_features
        self.in2_features = in2_features
        self.out_features = out_features
        kind = {"device": device, "dtype": dtype}
        self.weight = Parameter(empty(out_features, in1_features, in2_features, **kind))
        self.register_parameter("bias", Parameter(empty(out_features, **kind)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new values for weight and bias."""
        bound = 1 / math.sqrt(self.in1_features)
        uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            uniform_(self.bias, -bound, bound)

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        return F.bilinear(input1, input2, self.weight, self.bias)

    def extra_repr(self) -> str:
        return (
            f"in1_features={self.in1_features}, in2_features={self.in2_features}, "
            f"out_features={self.out_features}, bias={self.bias is not None}"
        )
