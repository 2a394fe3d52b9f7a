"""What losses have in common."""

from __future__ import annotations

from typing import Any, ClassVar

from dualgrad.compiler.ops.arguments import REDUCTIONS, check_choice
from dualgrad.nn.module import Module
from dualgrad.tensor import Tensor


class Loss(Module):
    """A function of a prediction and a target, for the most part of one shape.

    reduction  "mean" or "sum" over all elements gives [], "none" the loss of each element

    Raises ArgumentError for another reduction.
    """

    reductions: ClassVar[tuple[str, ...]] = REDUCTIONS

    def __init__(self, reduction: str = "mean") -> None:
        check_choice(type(self).__name__, "reduction", reduction, self.reductions)
        self.reduction = reduction


class WeightedLoss(Loss):
    """A loss whose parts are multiplied by numbers, a buffer `weight` (None: all are 1)."""

    weight: Tensor | None

    def __init__(self, weight: Any = None, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.register_buffer("weight", weight)
