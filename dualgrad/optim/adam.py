"""Adam."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dualgrad.compiler.ops.composite import composite
from dualgrad.creation import full, zeros_like
from dualgrad.optim.optimizer import Optimizer, State, require
from dualgrad.runtime.dtype import float64
from dualgrad.runtime.errors import ArgumentError
from dualgrad.tensor import Tensor


class Adam(Optimizer):
    """Running means of gradient and squared gradient, corrected for their start at zero.

        g = grad + weight_decay * param
        m = m + (1 - beta1) * (g - m)
        s = beta2 * s + (1 - beta2) * g^2
        param -= lr / (1 - beta1^t) * m / (sqrt(s) / sqrt(1 - beta2^t) + eps)

    The powers beta^t are running products in float64, so a step counts nothing in Python.

    Source: D. Kingma, J. Ba, "Adam: a method for stochastic optimization", 2015; the order of the
    operations is PyTorch's.

    Raises ArgumentError for a negative hyper-parameter or a beta outside of 0 <= beta < 1.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        )

    def check(self, group: Mapping[str, Any]) -> None:
        for name in ("lr", "eps", "weight_decay"):
            require("Adam", name, group[name], 0.0)
        betas = group["betas"]
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise ArgumentError(
                "betas is no pair",
                op="Adam",
                expect="(beta1, beta2)",
                actual=repr(betas),
                hint="give two numbers: betas=(0.9, 0.999)",
            )
        for number, beta in enumerate(betas):
            require("Adam", f"betas[{number}]", beta, 0.0, 1.0)

    def initial_state(self, param: Tensor, group: Mapping[str, Any]) -> State:
        return {
            "exp_avg": zeros_like(param, dtype=param.dtype.compute),
            "exp_avg_sq": zeros_like(param, dtype=param.dtype.compute),
            "beta1_power": full((), 1.0, dtype=float64, device=param.device),
            "beta2_power": full((), 1.0, dtype=float64, device=param.device),
        }

    def update(self, param: Tensor, grad: Tensor, state: State, group: Mapping[str, Any]) -> None:
        decay = group["weight_decay"]
        self._update(param, grad, state, group, decay, "gradient" if decay != 0 else "none")

    def _update(
        self,
        param: Tensor,
        grad: Tensor,
        state: State,
        group: Mapping[str, Any],
        decay: float,
        decayed: str,
    ) -> None:
        beta1, beta2 = group["betas"]
        numbers = (group["lr"], beta1, 1.0 - beta1, beta2, 1.0 - beta2, group["eps"], decay)
        operands: tuple[Any, ...] = (param, grad, *state.values(), *numbers)
        new = adam(*operands, decayed=decayed)
        for old, value in zip((param, *state.values()), new, strict=True):
            old.copy_(value)


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
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)

    def update(self, param: Tensor, grad: Tensor, state: State, group: Mapping[str, Any]) -> None:
        factor = 1.0 - group["lr"] * group["weight_decay"]
        self._update(param, grad, state, group, factor, "parameter")


@composite
def adam(
    param: Any,
    grad: Any,
    mean: Any,
    square: Any,
    power1: Any,
    power2: Any,
    lr: float,
    beta1: float,
    one_minus_beta1: float,
    beta2: float,
    one_minus_beta2: float,
    eps: float,
    decay: float,
    *,
    decayed: str,
) -> Any:
    """Return the new values of `param`, `mean`, `square`, `power1` and `power2`.

    decayed: "none", "gradient" (which takes up decay * param) or "parameter" (times decay).
    """
    g = grad + param * decay if decayed == "gradient" else grad
    param = param * decay if decayed == "parameter" else param
    mean = mean + (g - mean) * one_minus_beta1
    square = square * beta2 + g * g * one_minus_beta2
    power1, power2 = power1 * beta1, power2 * beta2
    # scalars are computed in float64, as PyTorch does in Python, and rounded once
    size = (lr / (1.0 - power1)).to(param.dtype)
    root = (1.0 - power2).sqrt().to(param.dtype)
    return param - mean / (square.sqrt() / root + eps) * size, mean, square, power1, power2
