"""Losses as modules."""

from __future__ import annotations

from typing import Final

from dualgrad.functional import cross_entropy
from dualgrad.nn.module import Module
from dualgrad.runtime.errors import ArgumentError
from dualgrad.tensor import Tensor

_REDUCTIONS: Final = ("mean", "sum", "none")


class CrossEntropyLoss(Module):
    """-log softmax(input)[target] for logits [n, classes] and integer targets [n].

    reduction  "mean" or "sum" over the n rows gives [], "none" gives [n]

    Raises ArgumentError for another reduction.
    """

    def __init__(self, reduction: str = "mean") -> None:
        if reduction not in _REDUCTIONS:
            raise ArgumentError(
                "unknown reduction",
                op="CrossEntropyLoss",
                expect=", ".join(_REDUCTIONS),
                actual=repr(reduction),
                hint="use one of these names",
            )
        self.reduction = reduction

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        loss: Tensor = cross_entropy(input, target, reduction=self.reduction)
        return loss
