"""Region ops: the result is put together from its operands, each stored at indices of its own.

A class states `parts(shapes)`: which operand goes where.  Parts are stored in order, so a later
one overwrites (or adds to) what an earlier one stored.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from dualgrad.compiler.ir.dims import Dim, same
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import apply
from dualgrad.compiler.ops.arguments import equal
from dualgrad.compiler.ops.base import Op
from dualgrad.compiler.ops.composite import Composite, composite, raw
from dualgrad.compiler.ops.elementwise import cast_node
from dualgrad.compiler.ops.sample import Arg, Sample
from dualgrad.compiler.ops.view import Index, Permute, View, expand_to
from dualgrad.runtime.errors import ShapeError
from dualgrad.runtime.records import dataclass


@dataclass(frozen=True)
class Part:
    """An operand stored into the result: element i at index `at(i)`.

    operand  its number; None for a part of zeros
    shape    of the operand
    adds     whether elements are added to what stands there; else no two may meet
    shared   number of last axes along which elements meet; they are added in their order
    swept    the other axes along which those move
    """

    operand: int | None
    shape: tuple[Dim, ...]
    at: Callable[[Index], Index]
    adds: bool = False
    shared: int = 0
    swept: tuple[int, ...] = ()


class Region(Op, abstract=True):
    """out[part.at(i)] = operand[i], for each part in order."""

    required = (*Op.required, "parts")

    @abstractmethod
    def parts(self, *shapes: tuple[Dim, ...]) -> tuple[Part, ...]:
        """What is stored, in order; together the parts cover the result."""


def _check_shown(view: View, base: TensorType, x: TensorType) -> None:
    """Raise ShapeError unless x has the shape under which a view shows its base: kernels would
    store outside of the result."""
    shown = view.infer(base).shape
    if not equal(x.shape, shown):
        raise ShapeError(
            "the operand is no such view of the result",
            op=view.name,
            expect=f"shape {shown}",
            actual=str(x.shape),
            hint="apply the view to the result to see what shape it shows",
        )


class Overwrite(Region):
    """The base, with the elements that a view of it shows replaced by a second operand's."""

    view: View

    def infer(self, *types: TensorType) -> TensorType:
        base, value = types
        _check_shown(self.view, base, value)
        return base

    def parts(self, *shapes: tuple[Dim, ...]) -> tuple[Part, ...]:
        base, value = shapes
        return (
            Part(0, base, lambda i: i),
            Part(1, value, lambda i: self.view.source(i, base)),
        )

    def vjp(self, g: Any, out: Any, base: Any, value: Any) -> tuple[Any, ...]:
        return (overwrite(g, self.view, 0.0), apply(self.view, g)[0])

    @staticmethod
    def samples() -> list[Sample]:
        turned = Permute.of((1, 0))
        good = Sample(
            lambda x, y: overwrite(x, turned, y),
            (Arg((3, 4)), Arg((4, 3))),
            lambda np, x, y: y.T,
        )
        bad = Sample(
            lambda x, y: overwrite(x, turned, y),
            (Arg((3, 4)), Arg((3, 1))),
            error=ValueError,
            match=r"\[overwrite\] the value does not fit\n  expect: .*\(4, 3\)\n  actual: \(3, 1\)",
        )
        return [good, bad]


@composite
@raw
def _overwrite(base: Any, value: Any, *, view: View) -> Any:
    shape = view.infer(base.type).shape
    return Overwrite.of(view).on(base, expand_to(cast_node(value, base.dtype), shape))


def overwrite(base: Any, view: View, value: Any) -> Any:
    """Return base with the elements that `view` shows replaced by value, broadcast and cast.

    Raises ShapeError if the value does not broadcast to the view's shape.
    """
    shape = view.infer(base.type).shape
    given = getattr(value, "shape", ())
    pairs = zip(reversed(given), reversed(shape), strict=False)
    if len(given) > len(shape) or not all(n == 1 or same(n, m) for n, m in pairs):
        raise ShapeError(
            "the value does not fit",
            op="overwrite",
            expect=f"a shape that broadcasts to {shape}",
            actual=str(given),
            hint="reshape the value, or write to fewer elements",
        )
    return _overwrite(base, value, view=view)


def overwriting(view: View) -> Composite:
    """The unit of (base, value) that `overwrite` runs."""
    return Composite.of(_overwrite.unit.body, (("view", view),))  # type: ignore[attr-defined]


class Accumulate(Region):
    """The adjoint of a view: each element added where the view shows it from, on zeros.

    Elements that meet are added in the row-major order of the view's last `shared` axes.
    """

    view: View
    shape: tuple[Dim, ...]

    def infer(self, *types: TensorType) -> TensorType:
        out = types[0].with_shape(self.shape)
        _check_shown(self.view, out, types[0])
        return out

    def parts(self, *shapes: tuple[Dim, ...]) -> tuple[Part, ...]:
        view = self.view
        return (
            Part(None, self.shape, lambda i: i),
            Part(
                0,
                shapes[0],
                lambda i: view.source(i, self.shape),
                view.shared > 0,
                view.shared,
                view.swept,
            ),
        )

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return apply(self.view, g)

    @staticmethod
    def samples() -> list[Sample]:
        # Slices, diagonals and windows reach it as their gradient.
        turned = Permute.of((1, 0))
        good = Sample(
            lambda x: accumulate(x, turned, x.shape[::-1]), (Arg((3, 2)),), lambda np, x: x.T
        )
        bad = Sample(
            lambda x: accumulate(x, turned, (2, 3)),
            (Arg((3, 4)),),
            error=ValueError,
            match=r"no such view of the result\n  expect: .*\(3, 2\)\n  actual: \(3, 4\)",
        )
        return [good, bad]


def accumulate(g: Any, view: View, shape: tuple[Dim, ...]) -> Any:
    """Return zeros of `shape` to which each element of g has been added where `view` reads it."""
    return apply(Accumulate.of(view, shape), g)[0]
