"""RAdam: Adam with a rectified start."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.logical import where
from dualgrad.optim.optimizer import Optimizer
from dualgrad.optim.pieces import (
    State,
    advance,
    counted,
    counter,
    decay_of,
    decayed_pair,
    means,
    require,
    require_betas,
    stored,
)
from dualgrad.tensor import Tensor

SURE = 5.0  # so many degrees of freedom make the variance of the rate finite


class RAdam(Optimizer):
    """Adam whose rate is that of plain momentum until the mean of the squares can be trusted.

        g = grad + weight_decay * param
        m = m + (1 - beta1) * (g - m)
        s = beta2 * s + (1 - beta2) * g^2
        k = 2 / (1 - beta2) - 1, r = k - 2 t beta2^t / (1 - beta2^t)
        q = sqrt((r - 4) (r - 2) k / ((k - 4) (k - 2) r)) * sqrt(1 - beta2^t) / (sqrt(s) + eps)
        param -= lr * m / (1 - beta1^t) * (q if r > 5 else 1)

    maximize                climbs: -grad in the place of grad
    decoupled_weight_decay  decays as AdamW does

    State: step (the t above), exp_avg (m), exp_avg_sq (s).

    Source: L. Liu et al., "On the variance of the adaptive learning rate and beyond", 2020.

    Raises ArgumentError for a negative hyper-parameter or a beta outside of 0 <= beta < 1.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults)

    def check(self, group: Mapping[str, Any]) -> None:
        for name in ("lr", "eps", "weight_decay"):
            require("RAdam", name, group[name], 0.0)
        require_betas("RAdam", group["betas"])

    def initial_state(self, param: Tensor, group: Mapping[str, Any]) -> State:
        return {"step": counter(param), **means(param, "exp_avg", "exp_avg_sq")}

    def update(self, param: Tensor, grad: Tensor, state: State, group: Mapping[str, Any]) -> None:
        current = stored("RAdam", state, ("step", "exp_avg", "exp_avg_sq"))
        (decay, decayed), (beta1, beta2) = decay_of(group), group["betas"]
        most = 2.0 / (1.0 - beta2) - 1.0
        bound = most / ((most - 4.0) * (most - 2.0)) if most > SURE else 0.0
        shares = (beta1, 1.0 - beta1, beta2, 1.0 - beta2)
        numbers = (group["lr"], *shares, most, bound, group["eps"], decay)
        how = {"maximize": group["maximize"], "decayed": decayed}
        advance(radam, param, grad, current, *numbers, **how)


@composite
def radam(
    param: Any,
    grad: Any,
    step: Any,
    mean: Any,
    square: Any,
    lr: float,
    beta1: float,
    rest1: float,
    beta2: float,
    rest2: float,
    most: float,
    bound: float,
    eps: float,
    decay: float,
    *,
    maximize: bool,
    decayed: str,
) -> Any:
    """Return the new values of `param`, `step`, `mean` and `square`."""
    param, g = decayed_pair(param, grad, decay, maximize, decayed)
    mean = mean + (g - mean) * rest1
    square = square * beta2 + g * g * rest2
    step, t = counted(step)
    power = beta2**t
    free = most - 2.0 * t * power / (1.0 - power)
    sure = free > SURE
    r = where(sure, free, SURE)
    rectified = ((r - 4.0) * (r - 2.0) / r * bound).sqrt()
    factor = (rectified * (1.0 - power).sqrt()).to(param.dtype)
    size = (lr / (1.0 - beta1**t)).to(param.dtype)
    return (
        param - mean * size * where(sure, factor / (square.sqrt() + eps), 1.0),
        step,
        mean,
        square,
    )
