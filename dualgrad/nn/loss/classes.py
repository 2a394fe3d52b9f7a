"""Losses of class scores [N, C, d1, ...] (or [C]), for targets [N, d1, ...] (or [])."""

from __future__ import annotations

from typing import Any, ClassVar

from dualgrad import functional as F
from dualgrad.compiler.ops.arguments import REDUCTIONS
from dualgrad.compiler.ops.classification import IGNORED
from dualgrad.nn.loss.base import Loss, WeightedLoss
from dualgrad.tensor import Tensor


class CrossEntropyLoss(WeightedLoss):
    """-log softmax(input)[target] of logits; targets are classes, or probabilities [N, C, ...].

    weight           [C], of the loss of each class
    ignore_index     targets of this class do not count
    label_smoothing  share of the target that all classes get alike

    See `functional.cross_entropy`.
    """

    def __init__(
        self,
        weight: Any = None,
        *,
        ignore_index: int = IGNORED,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(weight, reduction)
        self.ignore_index, self.label_smoothing = ignore_index, label_smoothing

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        how = (self.weight, self.ignore_index, self.reduction, self.label_smoothing)
        return F.cross_entropy(input, target, *how)


class NLLLoss(WeightedLoss):
    """-input[target] of log-probabilities; `weight` and `ignore_index` as in CrossEntropyLoss.

    See `functional.nll_loss`.
    """

    def __init__(
        self, weight: Any = None, *, ignore_index: int = IGNORED, reduction: str = "mean"
    ) -> None:
        super().__init__(weight, reduction)
        self.ignore_index = ignore_index

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.nll_loss(input, target, self.weight, self.ignore_index, self.reduction)


class KLDivLoss(Loss):
    """target * (log(target) - input) of log-probabilities and probabilities of one shape.

    log_target  targets are log-probabilities too
    reduction   may also be "batchmean": the sum over the size of dimension 0

    See `functional.kl_div`.
    """

    reductions: ClassVar[tuple[str, ...]] = (*REDUCTIONS, "batchmean")

    def __init__(self, *, reduction: str = "mean", log_target: bool = False) -> None:
        super().__init__(reduction)
        self.log_target = log_target

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.kl_div(input, target, self.reduction, self.log_target)


class MultiMarginLoss(WeightedLoss):
    """How much the score of the target does not lead the others by `margin`, to the power p.

    See `functional.multi_margin_loss`.
    """

    def __init__(
        self, p: int = 1, margin: float = 1.0, weight: Any = None, *, reduction: str = "mean"
    ) -> None:
        super().__init__(weight, reduction)
        self.p, self.margin = p, margin

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        how = (self.p, self.margin, self.weight, self.reduction)
        return F.multi_margin_loss(input, target, *how)


class MultiLabelSoftMarginLoss(WeightedLoss):
    """The mean over classes of BCEWithLogitsLoss; see `functional.multilabel_soft_margin_loss`."""

    def __init__(self, weight: Any = None, *, reduction: str = "mean") -> None:
        super().__init__(weight, reduction)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.multilabel_soft_margin_loss(input, target, self.weight, self.reduction)
