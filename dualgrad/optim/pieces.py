"""What formulas of optimizers have in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from dualgrad.creation import full, zeros_like
from dualgrad.runtime.dtype import float32, float64
from dualgrad.runtime.errors import ArgumentError
from dualgrad.tensor import Tensor

State = dict[str, Any]


def require(op: str, name: str, value: Any, low: float, high: float = math.inf) -> None:
    """Raise ArgumentError unless `value` is a number with low <= value < high."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not low <= value < high:
        bound = f"{name} >= {low:g}" if high == math.inf else f"{low:g} <= {name} < {high:g}"
        raise ArgumentError(
            f"{name} has a value it cannot have",
            op=op,
            expect=bound,
            actual=repr(value),
            hint=f"give {name} a number of this range",
        )


def require_betas(op: str, betas: Any) -> None:
    """Raise ArgumentError unless `betas` are two numbers with 0 <= beta < 1."""
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise ArgumentError(
            "betas is no pair",
            op=op,
            expect="(beta1, beta2)",
            actual=repr(betas),
            hint="give two numbers: betas=(0.9, 0.999)",
        )
    for number, beta in enumerate(betas):
        require(op, f"betas[{number}]", beta, 0.0, 1.0)


def counter(param: Tensor, value: float = 0.0) -> Tensor:
    """A number of the state, on the parameter's device; float32, as in PyTorch."""
    return full((), value, dtype=float32, device=param.device)


def means(param: Tensor, *names: str) -> State:
    """Zeros of the parameter's shape, in the dtype of its arithmetic."""
    return {name: zeros_like(param, dtype=param.dtype.compute) for name in names}


def stored(op: str, state: State, names: Iterable[str]) -> list[Tensor]:
    """Return the tensors of `state` with these names.

    Raises ArgumentError if one was not needed when the optimizer was made.
    """
    for name in names:
        if name not in state:
            raise ArgumentError(
                f"there is no {name} for a hyper-parameter that was switched on later",
                op=op,
                why="all state is made in the constructor, so that steps can be compiled",
                hint="give the hyper-parameter to the constructor; its value may change later",
            )
    return [state[name] for name in names]


def advance(
    formula: Callable[..., Any],
    param: Tensor,
    grad: Tensor,
    state: Sequence[Tensor],
    *numbers: float,
    **how: Any,
) -> None:
    """Copy in place what a formula makes of a parameter and its state."""
    new = formula(param, grad, *state, *numbers, **how)
    for old, value in zip((param, *state), new, strict=True):
        old.copy_(value)


def decay_of(group: Mapping[str, Any]) -> tuple[float, str]:
    """What decays, and its number: "none", "gradient" (which takes up so many times the
    parameter) or "parameter" (which is multiplied).
    """
    decay = group["weight_decay"]
    if decay == 0:
        return 0.0, "none"
    if group["decoupled_weight_decay"]:
        return 1.0 - group["lr"] * decay, "parameter"
    return decay, "gradient"


# -- in composites --------------------------------------------------------------------------------


def downhill(param: Any, grad: Any, decay: Any, maximize: bool, decayed: bool) -> Any:
    """The gradient of what falls, with weight decay if `decayed`."""
    g = -grad if maximize else grad
    return g + param * decay if decayed else g


def decayed_pair(
    param: Any, grad: Any, decay: Any, maximize: bool, decayed: str
) -> tuple[Any, Any]:
    """Parameter and gradient after weight decay; see `decay_of`."""
    g = downhill(param, grad, decay, maximize, decayed == "gradient")
    return (param * decay if decayed == "parameter" else param), g


def counted(step: Any) -> tuple[Any, Any]:
    """The number of this step, to be kept, and the same in float64.

    Scalars are computed in float64, as PyTorch does in Python, and rounded once.
    """
    step = step + 1.0
    return step, step.to(float64)
