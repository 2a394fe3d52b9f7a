"""Losses of numbers: distances of predictions from targets of the same shape."""

from __future__ import annotations

from typing import Any

from dualgrad import functional as F
from dualgrad.nn.loss.base import Loss
from dualgrad.tensor import Tensor


class L1Loss(Loss):
    """|input - target|; see `functional.l1_loss`."""

    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__(reduction)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.l1_loss(input, target, self.reduction)


class MSELoss(Loss):
    """(input - target)^2; see `functional.mse_loss`."""

    def __init__(self, *, reduction: str = "mean") -> None:
        super().__init__(reduction)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(input, target, self.reduction)


class HuberLoss(Loss):
    """Half the square up to `delta`, from there on a line; see `functional.huber_loss`."""

    def __init__(self, reduction: str = "mean", delta: float = 1.0) -> None:
        super().__init__(reduction)
        self.delta = delta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.huber_loss(input, target, self.reduction, self.delta)


class SmoothL1Loss(Loss):
    """HuberLoss divided by its delta, here `beta`; see `functional.smooth_l1_loss`."""

    def __init__(self, *, reduction: str = "mean", beta: float = 1.0) -> None:
        super().__init__(reduction)
        self.beta = beta

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.smooth_l1_loss(input, target, self.reduction, self.beta)


class PoissonNLLLoss(Loss):
    """Counts under a Poisson distribution of rate exp(input), or input without `log_input`.

    full  adds Stirling's formula for log(target!)
    eps   keeps the logarithm of a rate finite

    See `functional.poisson_nll_loss`.
    """

    def __init__(
        self,
        log_input: bool = True,
        full: bool = False,
        *,
        eps: float = 1e-8,
        reduction: str = "mean",
    ) -> None:
        super().__init__(reduction)
        self.log_input, self.full, self.eps = log_input, full, eps

    def forward(self, log_input: Tensor, target: Tensor) -> Tensor:
        how = (self.log_input, self.full, self.eps, self.reduction)
        return F.poisson_nll_loss(log_input, target, *how)


class GaussianNLLLoss(Loss):
    """Targets under normal distributions of mean `input` and variance `var`.

    full  adds the constant log(2 pi) / 2
    eps   least variance

    See `functional.gaussian_nll_loss`.
    """

    def __init__(self, *, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> None:
        super().__init__(reduction)
        self.full, self.eps = full, eps

    def forward(self, input: Tensor, target: Tensor, var: Any) -> Tensor:
        return F.gaussian_nll_loss(input, target, var, self.full, self.eps, self.reduction)
