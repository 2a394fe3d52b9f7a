"""Methods that change a tensor in place, made from op functions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dualgrad.compiler.ir.value import Operand, Unit, Value
from dualgrad.compiler.ops.view import View
from dualgrad.dispatch import does_not_fit
from dualgrad.state import state

if TYPE_CHECKING:
    from dualgrad.tensor import Tensor


class _Target(Value):
    """Stands for a tensor that is to be overwritten: keeps the unit that it is given to."""

    __slots__ = ("found", "name", "type")

    def __init__(self, x: Tensor, name: str) -> None:
        self.type, self.name = x.type, name
        self.found: tuple[Unit, tuple[Operand, ...]] | None = None

    @property
    def shape(self) -> tuple[Any, ...]:
        trace = state.trace
        return self.type.shape if trace is None else trace.sizes(self.type.shape)

    def apply_unit(self, unit: Unit, operands: tuple[Operand, ...]) -> tuple[Any, ...]:
        assert self.found is None
        assert operands[0] is self
        if isinstance(unit, View):  # on the way to the shape of another operand
            larger = "a larger shape, to which the operands broadcast"
            raise does_not_fit(self.name, self.type.shape, larger)
        self.found = (unit, operands[1:])
        return (self,)


def in_place(function: Callable[..., Any]) -> Callable[..., Tensor]:
    """A method that overwrites a tensor with function(tensor, ...) and returns the tensor.

    The function must be one unit of the tensor, its first operand, and other operands.
    """

    @functools.wraps(function)
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        target = _Target(self, function.__name__.strip("_"))
        function(target, *args, **kwargs)
        if target.found is None:  # nothing to do
            return self
        unit, others = target.found
        return self._write(unit, *(self if x is target else x for x in others))

    method.__name__ = method.__qualname__ = f"{function.__name__}_"
    method.__doc__ = f"Overwrite self with the result of `{function.__name__}`; returns self."
    return method
