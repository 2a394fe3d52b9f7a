"""Adam."""

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
    decay_of,
    decayed_pair,
    means,
    require,
    require_betas,
    stored,
)
from dualgrad.runtime.errors import ArgumentError
from dualgrad.tensor import Tensor


class Adam(Optimizer):
    """Running means of gradient and squared gradient, corrected for their start at zero.

        g = grad + weight_decay * param
        m = m + (1 - beta1) * (g - m)
        s = beta2 * s + (1 - beta2) * g^2
        param -= lr / (1 - beta1^t) * m / (sqrt(s) / sqrt(1 - beta2^t) + eps)

    amsgrad                 the largest s so far in the place of s
    maximize                climbs: -grad in the place of grad
    decoupled_weight_decay  decays as AdamW does

    State: step (the t above), exp_avg (m), exp_avg_sq (s), with amsgrad max_exp_avg_sq.

    Sources: D. Kingma, J. Ba, "Adam: a method for stochastic optimization", 2015; S. Reddi et al.,
    "On the convergence of Adam and beyond", 2018.  The order of the operations is PyTorch's.

    Raises ArgumentError for a negative hyper-parameter or a beta outside of 0 <= beta < 1.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults)

    def check(self, group: Mapping[str, Any]) -> None:
        op = type(self).__name__
        for name in ("lr", "eps", "weight_decay"):
            require(op, name, group[name], 0.0)
        require_betas(op, group["betas"])

    def initial_state(self, param: Tensor, group: Mapping[str, Any]) -> State:
        largest = ["max_exp_avg_sq"] if group["amsgrad"] else []
        return {"step": counter(param), **means(param, "exp_avg", "exp_avg_sq", *largest)}

    def update(self, param: Tensor, grad: Tensor, state: State, group: Mapping[str, Any]) -> None:
        names = ["step", "exp_avg", "exp_avg_sq"]
        names += ["max_exp_avg_sq"] if group["amsgrad"] else []
        current = stored("Adam", state, names)
        (decay, decayed), (beta1, beta2) = decay_of(group), group["betas"]
        numbers = (group["lr"], beta1, 1.0 - beta1, beta2, 1.0 - beta2, group["eps"], decay)
        advance(
            adam, param, grad, current, *numbers,
            amsgrad=group["amsgrad"], maximize=group["maximize"], decayed=decayed,
        )  # fmt: skip


class AdamW(Adam):
    """Adam whose weight decay does not pass through the means: param *= 1 - lr * weight_decay.

    Source: I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", 2019.

    Raises ArgumentError as Adam does.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad,
            maximize=maximize, decoupled_weight_decay=True,
        )  # fmt: skip

    def check(self, group: Mapping[str, Any]) -> None:
        super().check(group)
        if not group["decoupled_weight_decay"]:
            raise ArgumentError(
                "a group decays as in Adam",
                op="AdamW",
                expect="decoupled_weight_decay=True",
                actual="False",
                hint="make an Adam for the state of an Adam",
            )


@composite
def adam(param: Any, grad: Any, *rest: Any, amsgrad: bool, maximize: bool, decayed: str) -> Any:
    """Return the new values of `param` and of the state.

    `rest` is the state (step, mean, mean square, with `amsgrad` the largest mean square), then
    lr, beta1, 1 - beta1, beta2, 1 - beta2, eps, decay.
    """
    *state, lr, beta1, rest1, beta2, rest2, eps, decay = rest
    step, mean, square, *largest = state
    param, g = decayed_pair(param, grad, decay, maximize, decayed)
    mean = mean + (g - mean) * rest1
    square = square * beta2 + g * g * rest2
    step, t = counted(step)
    size = (lr / (1.0 - beta1**t)).to(param.dtype)
    root = (1.0 - beta2**t).sqrt().to(param.dtype)
    if amsgrad:
        largest = [maximum(largest[0], square)]
    spread = largest[0] if amsgrad else square
    param = param - mean / (spread.sqrt() / root + eps) * size
    return param, step, mean, square, *largest
