"""Adamax: Adam with a running maximum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dualgrad.compiler.ops.arithmetic import maximum
from dualgrad.compiler.ops.composite import composite
from dualgrad.optim.optimizer import Optimizer
from dualgrad.optim.pieces import (
    State,
    advance,
    counted,
    counter,
    downhill,
    means,
    require,
    require_betas,
    stored,
)
from dualgrad.tensor import Tensor


class Adamax(Optimizer):
    """Adam with a running maximum of |gradient| in the place of the root of its mean square.

        g = grad + weight_decay * param
        m = m + (1 - beta1) * (g - m)
        u = max(beta2 * u, |g| + eps)
        param -= lr / (1 - beta1^t) * m / u

    maximize  climbs: -grad in the place of grad

    State: step (the t above), exp_avg (m), exp_inf (u).

    Source: D. Kingma, J. Ba, "Adam: a method for stochastic optimization", 2015, section 7.

    Raises ArgumentError for a negative hyper-parameter or a beta outside of 0 <= beta < 1.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def check(self, group: Mapping[str, Any]) -> None:
        for name in ("lr", "eps", "weight_decay"):
            require("Adamax", name, group[name], 0.0)
        require_betas("Adamax", group["betas"])

    def initial_state(self, param: Tensor, group: Mapping[str, Any]) -> State:
        return {"step": counter(param), **means(param, "exp_avg", "exp_inf")}

    def update(self, param: Tensor, grad: Tensor, state: State, group: Mapping[str, Any]) -> None:
        current = stored("Adamax", state, ("step", "exp_avg", "exp_inf"))
        decay, (beta1, beta2) = group["weight_decay"], group["betas"]
        numbers = (group["lr"], beta1, 1.0 - beta1, beta2, group["eps"], decay)
        how = {"decayed": decay != 0, "maximize": group["maximize"]}
        advance(adamax, param, grad, current, *numbers, **how)


@composite
def adamax(
    param: Any,
    grad: Any,
    step: Any,
    mean: Any,
    largest: Any,
    lr: float,
    beta1: float,
    rest1: float,
    beta2: float,
    eps: float,
    decay: float,
    *,
    decayed: bool,
    maximize: bool,
) -> Any:
    """Return the new values of `param`, `step`, `mean` and `largest`."""
    g = downhill(param, grad, decay, maximize, decayed)
    mean = mean + (g - mean) * rest1
    largest = maximum(largest * beta2, abs(g) + eps)
    step, t = counted(step)
    size = (lr / (1.0 - beta1**t)).to(param.dtype)
    return param - mean / largest * size, step, mean, largest
