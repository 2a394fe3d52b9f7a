"""RMSprop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dualgrad.compiler.ops.composite import composite
from dualgrad.creation import zeros_like
from dualgrad.optim.optimizer import Optimizer, State, require, stored
from dualgrad.tensor import Tensor


class RMSprop(Optimizer):
    """Gradients divided by the root of a running mean of their squares.

        g = grad + weight_decay * param
        s = alpha * s + (1 - alpha) * g^2
        m = m + (1 - alpha) * (g - m)                       (centered: s - m^2 in the place of s)
        d = g / (sqrt(s) + eps)
        v = momentum * v + d                                (without momentum: v = d)
        param -= lr * v

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
    ) -> None:
        defaults = {
            "lr": lr,
            "alpha": alpha,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "centered": centered,
        }
        super().__init__(params, defaults)

    def check(self, group: Mapping[str, Any]) -> None:
        for name in ("lr", "alpha", "eps", "weight_decay", "momentum"):
            require("RMSprop", name, group[name], 0.0)

    def initial_state(self, param: Tensor, group: Mapping[str, Any]) -> State:
        dtype = param.dtype.compute
        return {name: zeros_like(param, dtype=dtype) for name in _state_names(group)}

    def update(self, param: Tensor, grad: Tensor, state: State, group: Mapping[str, Any]) -> None:
        current = stored("RMSprop", state, _state_names(group))
        alpha, decay, momentum = group["alpha"], group["weight_decay"], group["momentum"]
        new = rmsprop(
            param, grad, *current, group["lr"], alpha, 1.0 - alpha, group["eps"], decay, momentum,
            centered=group["centered"], moving=momentum != 0, decayed=decay != 0,
        )  # fmt: skip
        for old, value in zip((param, *current), new, strict=True):
            old.copy_(value)


def _state_names(group: Mapping[str, Any]) -> list[str]:
    names = ["square_avg"]
    names += ["grad_avg"] if group["centered"] else []
    names += ["momentum_buffer"] if group["momentum"] != 0 else []
    return names


@composite
def rmsprop(param: Any, grad: Any, *rest: Any, centered: bool, moving: bool, decayed: bool) -> Any:
    """Return the new values of `param` and of the state.

    `rest` is the state (square_avg, grad_avg if centered, momentum_buffer if moving), then
    lr, alpha, 1 - alpha, eps, weight_decay, momentum.
    """
    *state, lr, alpha, beta, eps, decay, momentum = rest
    g = grad + param * decay if decayed else grad
    square = state[0] * alpha + g * g * beta
    new = [square]
    spread = square
    if centered:
        mean = state[1] + (g - state[1]) * beta
        new.append(mean)
        spread = square - mean * mean
    change = g / (spread.sqrt() + eps)
    if moving:
        change = state[-1] * momentum + change
        new.append(change)
    return (param - change * lr, *new)
