"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dualgrad.compiler.ops.composite import composite
from dualgrad.creation import full, zeros_like
from dualgrad.optim.optimizer import Optimizer, State, require, stored
from dualgrad.runtime.errors import ArgumentError
from dualgrad.tensor import Tensor


class SGD(Optimizer):
    """Gradient descent, with PyTorch's form of momentum.

        g = grad + weight_decay * param
        v = momentum * v + (1 - dampening) * g        (the first step: v = g)
        param -= lr * (g without momentum, v with it, g + momentum * v with nesterov)

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
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
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
        # the factor of the gradient: 1 at the first step, 1 - dampening ever after
        dtype = param.dtype.compute
        return {
            "momentum_buffer": zeros_like(param, dtype=dtype),
            "intake": full((), 1.0, dtype=dtype, device=param.device),
        }

    def update(self, param: Tensor, grad: Tensor, state: State, group: Mapping[str, Any]) -> None:
        lr, decay, momentum = group["lr"], group["weight_decay"], group["momentum"]
        if momentum == 0:
            param.copy_(sgd(param, grad, lr, decay, decayed=decay != 0))
            return
        velocity, intake = stored("SGD", state, ("momentum_buffer", "intake"))
        new_param, new_velocity = sgd_momentum(
            param, grad, velocity, intake, lr, decay, momentum,
            decayed=decay != 0, nesterov=group["nesterov"],
        )  # fmt: skip
        param.copy_(new_param)
        velocity.copy_(new_velocity)
        intake.fill_(1.0 - group["dampening"])


@composite
def sgd(param: Any, grad: Any, lr: float, decay: float, *, decayed: bool) -> Any:
    """Return the new value of `param`."""
    g = grad + param * decay if decayed else grad
    return param - g * lr


@composite
def sgd_momentum(
    param: Any,
    grad: Any,
    velocity: Any,
    intake: Any,
    lr: float,
    decay: float,
    momentum: float,
    *,
    decayed: bool,
    nesterov: bool,
) -> Any:
    """Return the new values of `param` and `velocity`."""
    g = grad + param * decay if decayed else grad
    v = velocity * momentum + g * intake
    return param - (g + v * momentum if nesterov else v) * lr, v
