"""Lion."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dualgrad.compiler.ops.composite import composite
from dualgrad.optim.optimizer import Optimizer
from dualgrad.optim.pieces import (
    State,
    advance,
    decayed_pair,
    means,
    require,
    require_betas,
    stored,
)
from dualgrad.tensor import Tensor


class Lion(Optimizer):
    """Steps of one size: only the sign of a mixture of mean and gradient counts.

        param *= 1 - lr * weight_decay
        param -= lr * sign(beta1 * m + (1 - beta1) * grad)
        m = beta2 * m + (1 - beta2) * grad

    maximize  climbs: -grad in the place of grad

    Rates are 3 to 10 times smaller than Adam's, weight decay that much larger.

    State: exp_avg (m).

    Source: X. Chen et al., "Symbolic discovery of optimization algorithms", 2023, program 1.

    Raises ArgumentError for a negative hyper-parameter or a beta outside of 0 <= beta < 1.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, defaults)

    def check(self, group: Mapping[str, Any]) -> None:
        for name in ("lr", "weight_decay"):
            require("Lion", name, group[name], 0.0)
        require_betas("Lion", group["betas"])

    def initial_state(self, param: Tensor, group: Mapping[str, Any]) -> State:
        return means(param, "exp_avg")

    def update(self, param: Tensor, grad: Tensor, state: State, group: Mapping[str, Any]) -> None:
        current = stored("Lion", state, ("exp_avg",))
        beta1, beta2 = group["betas"]
        shrunk = 1.0 - group["lr"] * group["weight_decay"]
        numbers = (group["lr"], beta1, 1.0 - beta1, beta2, 1.0 - beta2, shrunk)
        advance(lion, param, grad, current, *numbers, maximize=group["maximize"])


@composite
def lion(
    param: Any,
    grad: Any,
    mean: Any,
    lr: float,
    beta1: float,
    rest1: float,
    beta2: float,
    rest2: float,
    decay: float,
    *,
    maximize: bool,
) -> Any:
    """Return the new values of `param` and `mean`."""
    param, g = decayed_pair(param, grad, decay, maximize, "parameter")
    direction = (mean * beta1 + g * rest1).sign()
    return param - direction * lr, mean * beta2 + g * rest2
