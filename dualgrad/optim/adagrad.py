"""Adagrad and Adadelta: rates from all squared gradients, or from the recent ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dualgrad.compiler.ops.composite import composite
from dualgrad.creation import full_like
from dualgrad.optim.optimizer import Optimizer
from dualgrad.optim.pieces import State, advance, counted, counter, downhill, means, require, stored
from dualgrad.tensor import Tensor


class Adagrad(Optimizer):
    """Gradients divided by the root of the sum of their squares.

        g = grad + weight_decay * param
        s = s + g^2                                         (from initial_accumulator_value on)
        param -= lr / (1 + (t - 1) * lr_decay) * g / (sqrt(s) + eps)

    maximize  climbs: -grad in the place of grad

    State: step (the t above), sum (s).

    Source: J. Duchi et al., "Adaptive subgradient methods for online learning and stochastic
    optimization", 2011.

    Raises ArgumentError for a negative hyper-parameter.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "lr_decay": lr_decay,
            "eps": eps,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def check(self, group: Mapping[str, Any]) -> None:
        for name in ("lr", "lr_decay", "eps", "weight_decay", "initial_accumulator_value"):
            require("Adagrad", name, group[name], 0.0)

    def initial_state(self, param: Tensor, group: Mapping[str, Any]) -> State:
        start = group["initial_accumulator_value"]
        return {"step": counter(param), "sum": full_like(param, start, dtype=param.dtype.compute)}

    def update(self, param: Tensor, grad: Tensor, state: State, group: Mapping[str, Any]) -> None:
        current = stored("Adagrad", state, ("step", "sum"))
        decay = group["weight_decay"]
        numbers = (group["lr"], group["lr_decay"], group["eps"], decay)
        how = {"decayed": decay != 0, "maximize": group["maximize"]}
        advance(adagrad, param, grad, current, *numbers, **how)


@composite
def adagrad(
    param: Any,
    grad: Any,
    step: Any,
    square: Any,
    lr: float,
    lr_decay: float,
    eps: float,
    decay: float,
    *,
    decayed: bool,
    maximize: bool,
) -> Any:
    """Return the new values of `param`, `step` and `square`."""
    g = downhill(param, grad, decay, maximize, decayed)
    step, t = counted(step)
    size = (lr / (1.0 + (t - 1.0) * lr_decay)).to(param.dtype)
    square = square + g * g
    return param - g / (square.sqrt() + eps) * size, step, square


class Adadelta(Optimizer):
    """Steps as large as the recent ones, for gradients as large as the recent ones.

        g = grad + weight_decay * param
        s = rho * s + (1 - rho) * g^2
        d = sqrt(a + eps) / sqrt(s + eps) * g
        a = rho * a + (1 - rho) * d^2
        param -= lr * d

    maximize  climbs: -grad in the place of grad

    State: step, square_avg (s), acc_delta (a).

    Source: M. Zeiler, "ADADELTA: an adaptive learning rate method", 2012.

    Raises ArgumentError for a negative hyper-parameter or a rho above 1.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "rho": rho,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def check(self, group: Mapping[str, Any]) -> None:
        for name in ("lr", "eps", "weight_decay"):
            require("Adadelta", name, group[name], 0.0)
        require("Adadelta", "rho", group["rho"], 0.0, 1.0)

    def initial_state(self, param: Tensor, group: Mapping[str, Any]) -> State:
        return {"step": counter(param), **means(param, "square_avg", "acc_delta")}

    def update(self, param: Tensor, grad: Tensor, state: State, group: Mapping[str, Any]) -> None:
        current = stored("Adadelta", state, ("step", "square_avg", "acc_delta"))
        rho, decay = group["rho"], group["weight_decay"]
        numbers = (group["lr"], rho, 1.0 - rho, group["eps"], decay)
        how = {"decayed": decay != 0, "maximize": group["maximize"]}
        advance(adadelta, param, grad, current, *numbers, **how)


@composite
def adadelta(
    param: Any,
    grad: Any,
    step: Any,
    square: Any,
    change: Any,
    lr: float,
    rho: float,
    rest: float,
    eps: float,
    decay: float,
    *,
    decayed: bool,
    maximize: bool,
) -> Any:
    """Return the new values of `param`, `step`, `square` and `change` (a mean square)."""
    g = downhill(param, grad, decay, maximize, decayed)
    square = square * rho + g * g * rest
    d = (change + eps).sqrt() / (square + eps).sqrt() * g
    change = change * rho + d * d * rest
    return param - d * lr, step + 1.0, square, change
