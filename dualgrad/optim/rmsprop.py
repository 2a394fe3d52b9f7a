"""RMSprop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dualgrad.compiler.ops.composite import composite
from dualgrad.optim.optimizer import Optimizer
from dualgrad.optim.pieces import State, advance, counter, downhill, means, require, stored
from dualgrad.tensor import Tensor


class RMSprop(Optimizer):
    """Gradients divided by the root of a running mean of their squares.

        g = grad + weight_decay * param
        s = alpha * s + (1 - alpha) * g^2
        m = m + (1 - alpha) * (g - m)                       (centered: s - m^2 in the place of s)
        d = g / (sqrt(s) + eps)
        v = momentum * v + d                                (without momentum: v = d)
        param -= lr * v

    maximize  climbs: -grad in the place of grad

    State: step, square_avg (s), with momentum momentum_buffer (v), centered grad_avg (m).

    Sources: T. Tieleman, G. Hinton, lecture 6.5 of "Neural networks for machine learning", 2012;
    centered: A. Graves, "Generating sequences with recurrent neural networks", 2013.

    Raises ArgumentError for a negative hyper-parameter.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "alpha": alpha,
            "eps": eps,
            "centered": centered,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def check(self, group: Mapping[str, Any]) -> None:
        for name in ("lr", "alpha", "eps", "weight_decay", "momentum"):
            require("RMSprop", name, group[name], 0.0)

    def initial_state(self, param: Tensor, group: Mapping[str, Any]) -> State:
        return {"step": counter(param), **means(param, *_means(group))}

    def update(self, param: Tensor, grad: Tensor, state: State, group: Mapping[str, Any]) -> None:
        current = stored("RMSprop", state, ["step", *_means(group)])
        alpha, decay, momentum = group["alpha"], group["weight_decay"], group["momentum"]
        advance(
            rmsprop, param, grad, current,
            group["lr"], alpha, 1.0 - alpha, group["eps"], decay, momentum,
            centered=group["centered"], moving=momentum != 0, decayed=decay != 0,
            maximize=group["maximize"],
        )  # fmt: skip


def _means(group: Mapping[str, Any]) -> list[str]:
    names = ["square_avg"]
    names += ["momentum_buffer"] if group["momentum"] != 0 else []
    names += ["grad_avg"] if group["centered"] else []
    return names


@composite
def rmsprop(
    param: Any,
    grad: Any,
    step: Any,
    *rest: Any,
    centered: bool,
    moving: bool,
    decayed: bool,
    maximize: bool,
) -> Any:
    """Return the new values of `param` and of the state.

    `rest` is the rest of the state (square_avg, momentum_buffer if moving, grad_avg if centered),
    then lr, alpha, 1 - alpha, eps, weight_decay, momentum.
    """
    *state, lr, alpha, beta, eps, decay, momentum = rest
    g = downhill(param, grad, decay, maximize, decayed)
    spread = square = state[0] * alpha + g * g * beta
    mean = []
    if centered:
        mean = [state[-1] + (g - state[-1]) * beta]
        spread = square - mean[0] * mean[0]
    change = g / (spread.sqrt() + eps)
    velocity = []
    if moving:
        change = state[1] * momentum + change
        velocity = [change]
    return param - change * lr, step + 1.0, square, *velocity, *mean
