"""Symbolic sizes of a trace: which dimensions are symbols, and what that makes of types."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from dualgrad.compiler.ir.dims import (
    Atom,
    Dim,
    ShapeEnv,
    at_most,
    evaluate,
    product,
    same,
    sym,
    symbol_of,
)
from dualgrad.compiler.ir.size import traced_size
from dualgrad.compiler.ir.types import TensorType, contiguous_strides
from dualgrad.compiler.ir.value import Unit

if TYPE_CHECKING:
    from dualgrad.tensor import Tensor

Shape = tuple[Dim, ...]


@dataclass
class Symbols:
    """The symbols of one trace: types and layouts of the tensors that have some, by id."""

    values: dict[Atom, int] = field(default_factory=dict)
    types: dict[int, TensorType] = field(default_factory=dict)
    layouts: dict[int, Shape] = field(default_factory=dict)
    env: ShapeEnv = field(init=False)
    _known: dict[int, Dim] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.env = ShapeEnv(self.values)

    def new(self, name: str, value: int) -> Dim:
        """A new symbol for a size."""
        symbol = sym(name)
        self.values[symbol_of(symbol)] = value
        return symbol

    def size(self, name: str, value: int) -> Dim:
        """The symbol of a size; equal sizes share one."""
        if value not in self._known:
            self._known[value] = self.new(name, value)
        return self._known[value]

    def put(self, x: Tensor, shape: Shape, layout: Shape | None) -> None:
        """Let a tensor be seen with this shape and these strides."""
        self.types[id(x)] = x._type.with_shape(shape)
        if layout is not None:
            self.layouts[id(x)] = layout

    def shown(self, shape: Shape) -> tuple[Any, ...]:
        """A shape as the user sees it."""
        return tuple([traced_size(d, self.env) for d in shape])


def concrete_unit(unit: Any, values: dict[Atom, int]) -> Any:
    """A unit with numbers for the sizes among its static parameters."""

    def number(n: Dim, offset: bool = False) -> Dim:
        return evaluate(n, values)

    out: Unit = unit.generalized(number)
    return out


def reshaped_steps(shape: Shape, steps: Shape, new: Shape) -> Shape | None:
    """Strides under which memory of this shape and strides shows the elements in the shape
    `new` of as many elements, in row-major order; None if it cannot.

    Axes are matched in groups of equal products; the old ones of a group must follow each other
    without gaps.  Sizes of 1 do not matter.  All questions about sizes become guards.
    """
    old = [(n, s) for n, s in zip(shape, steps, strict=True) if n != 1]
    if any(n == 0 for n in shape):
        return contiguous_strides(new)
    out: list[Dim] = []
    i = j = 0
    while i < len(old) and j < len(new):
        left, right = [old[i]], [new[j]]
        i, j = i + 1, j + 1
        while not same(product(n for n, _ in left), product(right)):
            if at_most(product(n for n, _ in left) - product(right), -1):
                left.append(old[i])
                i += 1
            else:
                right.append(new[j])
                j += 1
        if not all(same(a[1], b[1] * b[0]) for a, b in pairwise(left)):
            return None
        out += [s * left[-1][1] for s in contiguous_strides(tuple(right))]
    return (*out, *[out[-1] if out else 1] * (len(new) - j))
