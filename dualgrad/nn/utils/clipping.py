"""Gradients kept within bounds, in place, between `backward()` and the optimizer's step.

`foreach` is there for programs written for PyTorch; it changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dualgrad.compiler.ops.joining import stack
from dualgrad.creation import zeros
from dualgrad.runtime.errors import ArgumentError
from dualgrad.state import no_grad
from dualgrad.tensor import Tensor


def _gradients(parameters: Any) -> list[Tensor]:
    tensors: Iterable[Tensor] = [parameters] if isinstance(parameters, Tensor) else parameters
    return [p.grad for p in tensors if p.grad is not None]


def get_total_norm(
    tensors: Any,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """The norm of all elements together, () float.

    norm_type may be math.inf.  error_if_nonfinite asks for the value, and raises ArgumentError if
    it is infinite or NaN.
    """
    parts = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    if not parts:
        return zeros(())
    norms = [t.vector_norm(norm_type) for t in parts]
    widest = max((n.dtype for n in norms), key=lambda d: d.bits)
    total: Tensor = stack([n.to(widest) for n in norms]).vector_norm(norm_type)
    if error_if_nonfinite and not bool(total.isfinite()):
        raise ArgumentError(
            "the norm of the gradients is not finite",
            op="get_total_norm",
            expect="finite gradients",
            actual=f"norm {total.item()}",
            hint="error_if_nonfinite=False clips them all the same",
        )
    return total


def clip_grad_norm_(
    parameters: Any,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scale the gradients of all parameters together so that their norm is at most `max_norm`.

    Every gradient is multiplied by min(1, max_norm / (norm + 1e-6)); no value is asked for.
    Returns the norm before; see `get_total_norm`.
    """
    held = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    with no_grad():
        total = get_total_norm(_gradients(held), norm_type, error_if_nonfinite)
    clip_grads_with_norm_(held, max_norm, total)
    return total


def clip_grads_with_norm_(
    parameters: Any, max_norm: float, total_norm: Tensor, foreach: bool | None = None
) -> None:
    """Scale the gradients as `clip_grad_norm_` does, by a norm that is known: `get_total_norm`."""
    with no_grad():
        factor = (max_norm / (total_norm + 1e-6)).clamp(max=1.0)
        for g in _gradients(parameters):
            g.mul_(factor.to(g.dtype))


def clip_grad_value_(parameters: Any, clip_value: float, foreach: bool | None = None) -> None:
    """Clip each element of the gradients to -clip_value <= g <= clip_value."""
    with no_grad():
        for g in _gradients(parameters):
            g.clamp_(-clip_value, clip_value)
