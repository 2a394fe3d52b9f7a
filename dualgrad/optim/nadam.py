"""NAdam: Adam with Nesterov's momentum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dualgrad.compiler.ops.composite import composite
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
from dualgrad.runtime.dtype import float64
from dualgrad.tensor import Tensor


class NAdam(Optimizer):
    """Adam with Nesterov's momentum, and a beta1 that grows from step to step.

        g = grad + weight_decay * param
        b_t = beta1 * (1 - 0.96^(t momentum_decay) / 2), p = b_1 b_2 ... b_t
        m = m + (1 - beta1) * (g - m)
        s = beta2 * s + (1 - beta2) * g^2
        r = sqrt(s / (1 - beta2^t)) + eps
        param -= lr * ((1 - b_t) / (1 - p) * g / r + b_(t+1) / (1 - p b_(t+1)) * m / r)

    maximize                climbs: -grad in the place of grad
    decoupled_weight_decay  decays as AdamW does

    State: step (the t above), mu_product (p), exp_avg (m), exp_avg_sq (s).

    Source: T. Dozat, "Incorporating Nesterov momentum into Adam", 2016.

    Raises ArgumentError for a negative hyper-parameter or a beta outside of 0 <= beta < 1.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def check(self, group: Mapping[str, Any]) -> None:
        for name in ("lr", "eps", "weight_decay", "momentum_decay"):
            require("NAdam", name, group[name], 0.0)
        require_betas("NAdam", group["betas"])

    def initial_state(self, param: Tensor, group: Mapping[str, Any]) -> State:
        numbers = {"step": counter(param), "mu_product": counter(param, 1.0)}
        return {**numbers, **means(param, "exp_avg", "exp_avg_sq")}

    def update(self, param: Tensor, grad: Tensor, state: State, group: Mapping[str, Any]) -> None:
        current = stored("NAdam", state, ("step", "mu_product", "exp_avg", "exp_avg_sq"))
        (decay, decayed), (beta1, beta2) = decay_of(group), group["betas"]
        advance(
            nadam, param, grad, current, group["lr"], beta1, 1.0 - beta1, beta2, 1.0 - beta2,
            group["eps"], decay, group["momentum_decay"],
            maximize=group["maximize"], decayed=decayed,
        )  # fmt: skip


@composite
def nadam(
    param: Any,
    grad: Any,
    step: Any,
    product: Any,
    mean: Any,
    square: Any,
    lr: float,
    beta1: float,
    rest1: float,
    beta2: float,
    rest2: float,
    eps: float,
    decay: float,
    momentum_decay: float,
    *,
    maximize: bool,
    decayed: str,
) -> Any:
    """Return the new values of `param`, `step`, `product`, `mean` and `square`."""
    param, g = decayed_pair(param, grad, decay, maximize, decayed)
    step, t = counted(step)
    now = (1.0 - 0.5 * 0.96 ** (t * momentum_decay)) * beta1
    later = (1.0 - 0.5 * 0.96 ** ((t + 1.0) * momentum_decay)) * beta1
    product = product * now.to(product.dtype)
    whole = product.to(float64)
    of_grad = (lr * (1.0 - now) / (1.0 - whole)).to(param.dtype)
    of_mean = (lr * later / (1.0 - whole * later)).to(param.dtype)
    mean = mean + (g - mean) * rest1
    square = square * beta2 + g * g * rest2
    root = (square / (1.0 - beta2**t).to(param.dtype)).sqrt() + eps
    return param - g / root * of_grad - mean / root * of_mean, step, product, mean, square
