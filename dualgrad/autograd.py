"""Gradients by hand: `dg.autograd`, with PyTorch's names.

`grad` returns gradients, `backward` adds them to `.grad`, a `Function` has a gradient that the user
writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dualgrad.gradients.anomaly import detect_nan as detect_anomaly
from dualgrad.gradients.custom import Function, once_differentiable
from dualgrad.gradients.flow import backward as _backward
from dualgrad.gradients.flow import gradients
from dualgrad.runtime.errors import ArgumentError, GradientError
from dualgrad.state import enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from dualgrad.tensor import Tensor, tensors_of

__all__ = [
    "Function",
    "backward",
    "detect_anomaly",
    "enable_grad",
    "grad",
    "is_grad_enabled",
    "no_grad",
    "once_differentiable",
    "set_grad_enabled",
]

Tensors = Tensor | Sequence[Tensor]
Seeds = Tensor | None | Sequence[Tensor | None]


def grad(
    outputs: Tensors,
    inputs: Tensors,
    grad_outputs: Seeds = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    *,
    allow_unused: bool | None = None,
    materialize_grads: bool = False,
) -> tuple[Any, ...]:
    """The gradients of `outputs` with respect to `inputs`, one for each; no `.grad` changes.

    outputs, inputs     a tensor or several; inputs may be leaves or results of ops
    grad_outputs        the weight of each output, of its shape; None for a single number
    retain_graph        whether the graph can be used again; `create_graph` if None
    create_graph        record how the gradients are computed, for higher derivatives
    allow_unused        give None for an input that no output depends on, instead of an error
    materialize_grads   give zeros for it

    Returns a tuple of new tensors.  Raises GradientError where there is no graph, or for an input
    that is not used.
    """
    roots = tensors_of(outputs, "grad", "outputs")
    wanted = tensors_of(inputs, "grad", "inputs")
    seeds = _seeds(roots, grad_outputs, "grad", "grad_outputs")
    found = gradients(roots, wanted, seeds, retain_graph, create_graph)
    if materialize_grads:
        return tuple(
            x.filled_like(0.0) if g is None else g for x, g in zip(wanted, found, strict=True)
        )
    for k, g in enumerate(found):
        if g is None and not allow_unused:
            raise GradientError(
                "no output depends on an input",
                op="grad",
                expect="inputs that the outputs were computed from",
                actual=f"inputs[{k}], {wanted[k].type!r}, is not used",
                hint="pass allow_unused=True to get None for it",
            )
    return tuple(found)


def backward(
    tensors: Tensors,
    grad_tensors: Seeds = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensors | None = None,
) -> None:
    """Add the gradient of the sum of `tensors` to `.grad` of all leaves behind them.

    `grad_tensors` has the weight of each tensor; None for a single number.  The rest is as in
    `Tensor.backward`.
    """
    roots = tensors_of(tensors, "backward", "tensors")
    seeds = _seeds(roots, grad_tensors, "backward", "grad_tensors")
    wanted = None if inputs is None else tensors_of(inputs, "backward", "inputs")
    _backward(roots, seeds, retain_graph, create_graph, wanted)


def _seeds(roots: Sequence[Tensor], given: Seeds, op: str, name: str) -> tuple[Tensor | None, ...]:
    if given is None:
        return (None,) * len(roots)
    seeds = (given,) if isinstance(given, Tensor) else tuple(given)
    if len(seeds) != len(roots):
        raise ArgumentError(
            "not one weight for each output",
            op=op,
            expect=f"{len(roots)} tensor(s) or None in {name}",
            actual=f"{len(seeds)}",
            hint="give grad_outputs one tensor, or None, per output",
        )
    for g in seeds:
        if g is not None and not isinstance(g, Tensor):
            raise ArgumentError(
                "the weight of an output is a tensor",
                op=op,
                expect=f"tensors or None in {name}",
                actual=type(g).__name__,
                hint="use dg.ones_like(y)",
            )
    return seeds
