"""Ops without inputs: numbers that only a program knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dualgrad.compiler.build.builder import Builder
from dualgrad.compiler.ir.dims import Dim
from dualgrad.compiler.ir.node import Node
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.kernel.scalar import Scalar, index
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.index import Index, Loads
from dualgrad.compiler.ops.sample import Arg, Sample
from dualgrad.runtime.dtype import int64


@dataclass(frozen=True, eq=False)
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


@dataclass(frozen=True, eq=False)
class Iota(Index):
    """0, 1, ..., size - 1 as int64: the positions along an axis."""

    dim: Dim
    vjp = None

    def infer(self, *types: TensorType) -> TensorType:
        return TensorType((self.dim,), int64)

    def value(self, b: Builder, loads: Loads, at: tuple[Dim, ...]) -> Scalar:
        return index(at[0])

    @staticmethod
    def samples() -> list[Sample]:
        shapes = ((5,), (1,), (0,), (70,))
        return [
            Sample(_counted, (Arg(s),), lambda np, x: np.arange(x.size), gradient=False)
            for s in shapes
        ]


@composite
def _counted(x: Node) -> Any:
    return Iota.of(x.size).on()
