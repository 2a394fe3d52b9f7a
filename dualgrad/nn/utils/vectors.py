"""All parameters as one vector."""

from __future__ import annotations

from collections.abc import Iterable

from dualgrad.compiler.ops.joining import cat
from dualgrad.runtime.errors import ShapeError
from dualgrad.state import no_grad
from dualgrad.tensor import Tensor


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """The elements of all parameters, one after the other, (n,); gradients flow through."""
    vector: Tensor = cat([p.reshape(-1) for p in parameters])
    return vector


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Copy the elements of a vector into parameters, in the order of `parameters_to_vector`.

    Raises ShapeError if there are more or less of them.
    """
    held = list(parameters)
    total = sum(p.size for p in held)
    if tuple(vec.shape) != (total,):
        raise ShapeError(
            "the vector does not fit the parameters",
            op="vector_to_parameters",
            expect=f"shape ({total},)",
            actual=f"shape {tuple(vec.shape)}",
            hint="parameters_to_vector makes a vector of the right size",
        )
    start = 0
    with no_grad():
        for p in held:
            p.copy_(vec[start : start + p.size].reshape(p.shape))
            start += p.size
