"""Joining tensors: cat and stack, and what is made of them: pad, roll, tile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from dualgrad.compiler.ir.dims import Dim, same
from dualgrad.compiler.ir.node import Node
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import apply, dim_text
from dualgrad.compiler.ops.base import axis_argument, normalize_axis, result_dtype
from dualgrad.compiler.ops.elementwise import cast_node
from dualgrad.compiler.ops.region import Part, Region
from dualgrad.compiler.ops.sample import Arg, Sample
from dualgrad.compiler.ops.slicing import narrow
from dualgrad.runtime.dtype import int8, int64
from dualgrad.runtime.errors import ArgumentError, ShapeError


@dataclass(frozen=True, eq=False)
class Concat(Region):
    """Tensors one after another along an axis; their dtypes promote."""

    axis: int

    def prepare(self, *nodes: Node) -> tuple[Node, ...]:
        dtype = result_dtype(self.name, [n.type for n in nodes])
        return tuple(cast_node(n, dtype) for n in nodes)

    def infer(self, *types: TensorType) -> TensorType:
        shape = list(types[0].shape)
        for t in types[1:]:
            shape[self.axis] = shape[self.axis] + t.shape[self.axis]
        return types[0].with_shape(tuple(shape))

    def parts(self, *shapes: tuple[Dim, ...]) -> tuple[Part, ...]:
        def moved(offset: Dim) -> Any:
            return lambda i: (*i[: self.axis], offset + i[self.axis], *i[self.axis + 1 :])

        sizes = [s[self.axis] for s in shapes]
        starts = accumulate(sizes, initial=0)
        return tuple(
            Part(k, s, moved(o)) for k, (s, o) in enumerate(zip(shapes, starts, strict=False))
        )

    def vjp(self, g: Any, out: Any, *xs: Any) -> tuple[Any, ...]:
        sizes = [x.shape[self.axis] for x in xs]
        starts = accumulate(sizes, initial=0)
        return tuple(narrow(g, self.axis, o, n) for o, n in zip(starts, sizes, strict=False))

    @staticmethod
    def samples() -> list[Sample]:
        def case(axis: int, *args: Arg) -> Sample:
            return Sample(lambda *xs: cat(xs, axis), args, lambda np, *xs: np.concatenate(xs, axis))

        bad = Sample(
            lambda x, y: cat([x, y], 1),
            (Arg((2, 3)), Arg((3, 3))),
            error=ValueError,
            match=r"\[cat\] shapes differ outside of the axis",
        )
        return [
            case(0, Arg((3,)), Arg((4,)), Arg((1,))),
            case(1, Arg((2, 3, 4)), Arg((2, 1, 4)), Arg((2, 0, 4))),
            case(-1, Arg((4, 6), layout="transposed"), Arg((4, 2), layout="strided")),
            case(0, Arg((2, 3), int64, values=(1, 2, 3))),
            case(0, Arg((2, 3)), Arg((1, 3), int8, values=(1, 2, 3))),
            bad,
        ]


def _tensors(op: str, tensors: Any) -> list[Any]:
    xs = list(tensors) if isinstance(tensors, Sequence) else [tensors]
    if not xs:
        raise ArgumentError("nothing to join", op=op, expect="at least one tensor", actual="none")
    return xs


def cat(tensors: Any, axis: Any = 0, **dim: Any) -> Any:
    """Return tensors [..., n_k, ...] joined along `axis`: [..., sum of n_k, ...], dtypes promoted.

    Raises ShapeError if other sizes or the numbers of dimensions differ.
    """
    xs = _tensors("cat", tensors)
    axis = axis_argument("cat", axis, dim)
    if axis is None:
        xs, axis = [x.reshape((x.size,)) for x in xs], 0
    axis = normalize_axis("cat", axis, xs[0].ndim)
    first = xs[0].shape
    for x in xs[1:]:
        fits = x.ndim == len(first) and all(
            k == axis or same(n, m) for k, (n, m) in enumerate(zip(x.shape, first, strict=False))
        )
        if not fits:
            raise ShapeError(
                "shapes differ outside of the axis",
                op="cat",
                expect=f"{dim_text(first)} but for axis {axis}",
                actual=dim_text(x.shape),
            )
    return apply(Concat.of(axis), *xs)[0]


def stack(tensors: Any, axis: Any = 0, **dim: Any) -> Any:
    """Return tensors of one shape side by side along a new axis.

    Raises ShapeError if their shapes differ.
    """
    xs = _tensors("stack", tensors)
    axis = normalize_axis("stack", axis_argument("stack", axis, dim), xs[0].ndim + 1)
    for x in xs[1:]:
        if x.shape != xs[0].shape:
            raise ShapeError(
                "shapes differ",
                op="stack",
                expect=dim_text(xs[0].shape),
                actual=dim_text(x.shape),
            )
    return cat([x.unsqueeze(axis) for x in xs], axis)
