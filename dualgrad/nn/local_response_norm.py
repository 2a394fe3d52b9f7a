"""Normalisation by neighbouring channels.

Source: A. Krizhevsky, I. Sutskever, G. E. Hinton, "ImageNet classification with deep convolutional
neural networks", 2012.
"""

from __future__ import annotations

from dualgrad.functional import local_response_norm
from dualgrad.nn.checks import check_counts
from dualgrad.nn.module import Module
from dualgrad.tensor import Tensor


class LocalResponseNorm(Module):
    """y = x / (k + alpha * mean of x^2 over `size` neighbouring channels)^beta, x [N, C, L, ...].

    Channels outside count as 0.
    """

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        check_counts("LocalResponseNorm", 1, size=size)
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k

    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = local_response_norm(input, self.size, self.alpha, self.beta, self.k)
        return output

    def extra_repr(self) -> str:
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
