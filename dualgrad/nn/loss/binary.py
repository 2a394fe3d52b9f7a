"""Losses of yes and no: targets 0 and 1, or 1 and -1."""

from __future__ import annotations

from typing import Any

from dualgrad import functional as F
from dualgrad.nn.loss.base import Loss, WeightedLoss
from dualgrad.tensor import Tensor


class BCELoss(WeightedLoss):
    """Binary cross-entropy of probabilities; `weight` broadcasts.

    See `functional.binary_cross_entropy`.
    """

    def __init__(self, weight: Any = None, *, reduction: str = "mean") -> None:
        super().__init__(weight, reduction)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.binary_cross_entropy(input, target, self.weight, self.reduction)


class BCEWithLogitsLoss(WeightedLoss):
    """Binary cross-entropy of logits; `weight`, and `pos_weight` of positive targets, broadcast.

    See `functional.binary_cross_entropy_with_logits`.
    """

    pos_weight: Tensor | None

    def __init__(
        self, weight: Any = None, *, reduction: str = "mean", pos_weight: Any = None
    ) -> None:
        super().__init__(weight, reduction)
        self.register_buffer("pos_weight", pos_weight)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        how = (self.weight, self.reduction, self.pos_weight)
        return F.binary_cross_entropy_with_logits(input, target, *how)


class SoftMarginLoss(Loss):
    """log(1 + exp(-target * input)) for targets 1 and -1; see `functional.soft_margin_loss`."""

    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__(reduction)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.soft_margin_loss(input, target, self.reduction)


class HingeEmbeddingLoss(Loss):
    """A distance for targets 1, how much it falls short of `margin` for targets -1.

    See `functional.hinge_embedding_loss`.
    """

    def __init__(self, margin: float = 1.0, *, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.margin = margin

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.hinge_embedding_loss(input, target, self.margin, self.reduction)
