"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dualgrad.compiler.ops.composite import composite
from dualgrad.creation import full
from dualgrad.optim.optimizer import Optimizer
from dualgrad.optim.pieces import State, downhill, means, require, stored
from dualgrad.runtime.errors import ArgumentError
from dualgrad.tensor import Tensor


class SGD(Optimizer):
    """Gradient descent, with PyTorch's form of momentum.

        g = grad + weight_decay * param
        v = momentum * v + (1 - dampening) * g        (the first step: v = g)
        param -= lr * (g without momentum, v with it, g + momentum * v with nesterov)

    maximize  climbs: -grad in the place of grad

    State: with momentum momentum_buffer (v), with dampening also intake, the factor of g.

    Source of the method: I. Sutskever et al., "On the importance of initialization and momentum
    in deep learning", 2013.

    Raises ArgumentError for a negative hyper-parameter, or for nesterov without momentum or with
    dampening.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def check(self, group: Mapping[str, Any]) -> None:
        for name in ("lr", "momentum", "weight_decay"):
            require("SGD", name, group[name], 0.0)
        if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
            raise ArgumentError(
                "nesterov needs a momentum and no dampening",
                op="SGD",
                expect="momentum > 0, dampening = 0",
                actual=f"momentum = {group['momentum']}, dampening = {group['dampening']}",
                hint="give momentum=0.9, or leave nesterov out",
            )

    def initial_state(self, param: Tensor, group: Mapping[str, Any]) -> State:
        if not group["momentum"]:
            return {}
        buffer = means(param, "momentum_buffer")
        if group["dampening"] == 0:
            return buffer
        # the factor of the gradient: 1 at the first step, 1 - dampening ever after
        intake = full((), 1.0, dtype=param.dtype.compute, device=param.device)
        return {**buffer, "intake": intake}

    def completed(self, state: State, group: Mapping[str, Any]) -> State:
        if "momentum_buffer" in state and group["dampening"] != 0:
            return {"intake": 1.0 - group["dampening"], **state}
        return state

    def update(self, param: Tensor, grad: Tensor, state: State, group: Mapping[str, Any]) -> None:
        lr, decay, momentum = group["lr"], group["weight_decay"], group["momentum"]
        how: dict[str, bool] = {"decayed": decay != 0, "maximize": group["maximize"]}
        if momentum == 0:
            param.copy_(sgd(param, grad, lr, decay, **how))
            return
        damped = group["dampening"] != 0
        names = ["momentum_buffer", "intake"] if damped else ["momentum_buffer"]
        current = stored("SGD", state, names)
        operands: tuple[Any, ...] = (param, grad, *current, lr, decay, momentum)
        new = sgd_momentum(*operands, nesterov=group["nesterov"], **how)
        param.copy_(new[0])
        current[0].copy_(new[1])
        if damped:
            current[1].fill_(1.0 - group["dampening"])


@composite
def sgd(param: Any, grad: Any, lr: float, decay: float, *, decayed: bool, maximize: bool) -> Any:
    """Return the new value of `param`."""
    return param - downhill(param, grad, decay, maximize, decayed) * lr


@composite
def sgd_momentum(
    param: Any,
    grad: Any,
    velocity: Any,
    *rest: Any,
    decayed: bool,
    maximize: bool,
    nesterov: bool,
) -> Any:
    """Return the new values of `param` and `velocity`.

    `rest` is the factor of the gradient unless that is 1, then lr, weight_decay, momentum.
    """
    *intake, lr, decay, momentum = rest
    g = downhill(param, grad, decay, maximize, decayed)
    v = velocity * momentum + (g * intake[0] if intake else g)
    return param - (g + v * momentum if nesterov else v) * lr, v
