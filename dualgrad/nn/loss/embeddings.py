"""Losses of embeddings: what belongs together shall be near, the rest at a distance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dualgrad import functional as F
from dualgrad.compiler.ops.arguments import reduced
from dualgrad.compiler.ops.arithmetic import minimum
from dualgrad.nn.distance import PairwiseDistance
from dualgrad.nn.loss.base import Loss
from dualgrad.tensor import Tensor


class CosineEmbeddingLoss(Loss):
    """1 - cos(input1, input2) for targets 1, cos - margin if above 0 for targets -1.

    See `functional.cosine_embedding_loss`.
    """

    def __init__(self, margin: float = 0.0, *, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = margin

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        return F.cosine_embedding_loss(input1, input2, target, self.margin, self.reduction)


class MarginRankingLoss(Loss):
    """How much input1 does not lead input2 (targets 1; -1: the other way) by `margin`.

    See `functional.margin_ranking_loss`.
    """

    def __init__(self, margin: float = 0.0, *, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = margin

    def forward(self, input1: Tensor, input2: Tensor, target: Tensor) -> Tensor:
        return F.margin_ranking_loss(input1, input2, target, self.margin, self.reduction)


class TripletMarginLoss(Loss):
    """How much an anchor is not nearer to `positive` than to `negative` by `margin`.

    p, eps  of the distance, see `functional.pairwise_distance`
    swap    the negative may also be compared with `positive`, if that is nearer

    See `functional.triplet_margin_loss`.
    """

    def __init__(
        self,
        margin: float = 1.0,
        p: float = 2.0,
        eps: float = 1e-6,
        swap: bool = False,
        *,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        self.margin, self.p, self.eps, self.swap = margin, p, eps, swap

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        how = (self.margin, self.p, self.eps, self.swap, self.reduction)
        return F.triplet_margin_loss(anchor, positive, negative, *how)


class TripletMarginWithDistanceLoss(Loss):
    """TripletMarginLoss with a distance of one's own: a function of two tensors [N, D] to [N].

    distance_function  PairwiseDistance() unless given
    """

    def __init__(
        self,
        *,
        distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
        margin: float = 1.0,
        swap: bool = False,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        given = distance_function is not None
        self.distance_function: Any = distance_function if given else PairwiseDistance()
        self.margin, self.swap = margin, swap

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        distance = self.distance_function
        near, far = distance(anchor, positive), distance(anchor, negative)
        if self.swap:
            far = minimum(far, distance(positive, negative))
        losses: Tensor = reduced((near - far + self.margin).clamp(min=0.0), self.reduction)
        return losses
