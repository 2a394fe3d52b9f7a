"""Ops without inputs: numbers that only a program knows."""

from __future__ import annotations

from dataclasses import dataclass

from dualgrad.compiler.build.builder import Builder
from dualgrad.compiler.ir.dims import Dim
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.kernel.scalar import Scalar, index
from dualgrad.compiler.ops.index import Index, Loads
from dualgrad.compiler.ops.sample import Sample
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
