"""Distances and similarities of vectors."""

from __future__ import annotations

from dualgrad import functional as F
from dualgrad.nn.module import Module
from dualgrad.tensor import Tensor


class PairwiseDistance(Module):
    """The p-norm of x1 - x2 + eps over the last dimension: [..., D] and [..., D] to [...].

    keepdim  leaves a last dimension of size 1

    See `functional.pairwise_distance`.
    """

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> None:
        self.norm, self.eps, self.keepdim = p, eps, keepdim

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return F.pairwise_distance(x1, x2, self.norm, self.eps, self.keepdim)


class CosineSimilarity(Module):
    """x1 . x2 over dimension `dim`, divided by their norms, which count as at least `eps`.

    See `functional.cosine_similarity`.
    """

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        self.dim, self.eps = dim, eps

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return F.cosine_similarity(x1, x2, self.dim, self.eps)
