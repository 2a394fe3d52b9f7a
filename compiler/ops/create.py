"""Ops without inputs: numbers that only a program knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dualgrad.compiler.ir.dims import Dim
from dualgrad.compiler.ir.node import Node, as_node
from dualgrad.compiler.ir.size import TracedSize
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.kernel.scalar import Scalar, index
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.elementwise import cast_node
from dualgrad.compiler.ops.index import Index, Loads
from dualgrad.compiler.ops.sample import Arg, Sample
from dualgrad.runtime.dtype import DType, int64

if TYPE_CHECKING:
    from dualgrad.compiler.build.builder import Builder


class Size(Index):
    """A dimension as an int64 tensor of no dimensions: what Python computes with `len`, for
    sizes that are symbols.  Every mean over a symbolic axis uses it."""

    dim: Dim
    vjp = None

    def infer(self, *types: TensorType) -> TensorType:
        return TensorType((), int64)

    def value(self, b: Builder, loads: Loads, at: tuple[Dim, ...]) -> Scalar:
        return index(self.dim)

    @staticmethod
    def samples() -> list[Sample]:
        return []


class Iota(Index):
    """out[i0, i1, ...] = i_axis, as int64 of a shape."""

    shape: tuple[Dim, ...]
    axis: int
    vjp = None

    def infer(self, *types: TensorType) -> TensorType:
        return TensorType(self.shape, int64)

    def value(self, b: Builder, loads: Loads, at: tuple[Dim, ...]) -> Scalar:
        return index(at[self.axis])

    @staticmethod
    def samples() -> list[Sample]:
        def case(shape: tuple[int, ...], axis: int) -> Sample:
            return Sample(
                lambda x: _numbered(x, axis=axis),
                (Arg(shape, int64, values=(3, -5, 8)),),
                lambda np, x: np.indices(shape)[axis] + x,
                gradient=False,
            )

        return [case((5,), 0), case((3, 4), 0), case((3, 4), 1)]


@composite
def _numbered(x: Any, *, axis: int) -> Any:
    return x + Iota.of(x.shape, axis).on()


def size_node(n: TracedSize) -> Node:
    """A size as a Python number among operands."""
    dim = n.dim
    return as_node(dim) if isinstance(dim, int) else cast_node(Size.of(dim).on(), int64, weak=True)


def count(dim: Dim, dtype: DType) -> Any:
    """A dimension as a number of this dtype, by the same steps whether it is known or a symbol."""
    return cast_node(as_node(dim) if isinstance(dim, int) else Size.of(dim).on(), dtype)
