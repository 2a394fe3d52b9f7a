"""Tensors that a module learns."""

from __future__ import annotations

from dualgrad.compiler.ir.refusal import not_a_tensor
from dualgrad.tensor import Tensor


class Parameter(Tensor):
    """A tensor that a Module registers when it is assigned as an attribute.

    It shares the memory of `data`, is a leaf of the tape, and behaves and prints as a Tensor.
    """

    __slots__ = ()

    def __init__(self, data: Tensor, requires_grad: bool = True) -> None:
        if not isinstance(data, Tensor):
            raise not_a_tensor("Parameter", data)
        super().__init__(data.detach(), requires_grad=requires_grad)
