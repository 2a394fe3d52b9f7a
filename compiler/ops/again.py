"""Values that are computed a second time rather than kept."""

from __future__ import annotations

from typing import Any

from dualgrad.compiler.ir.node import Node
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import apply
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.compiler.ops.elementwise import Elementwise
from dualgrad.compiler.ops.sample import Arg, Sample
from dualgrad.compiler.ops.slicing import select
from dualgrad.compiler.ops.view import expand_to
from dualgrad.runtime.dtype import DType, bool_


class Again(Elementwise):
    """x, known only once `after` (one element) is, and not as the same value.

    What is computed from it is computed anew, and not before `after`, though all of it may have
    been computed from x already: so the first results need not be kept for so long.
    """

    accepts = "biuf"
    raw = True

    def scalar(self, b: Any, x: Scalar, after: Scalar) -> Scalar:
        # a kernel that reads `after` is not moved in front of what stores it
        return b.select(b.cast(after, bool_), x, x)  # type: ignore[no-any-return]

    def operand_dtypes(self, types: list[TensorType]) -> list[DType]:
        return [t.dtype for t in types]

    def prepare(self, *nodes: Node) -> tuple[Node, ...]:
        x, after = nodes
        return x, expand_to(after, x.shape)

    def infer(self, *types: TensorType) -> TensorType:
        return types[0]

    def vjp(self, g: Any, out: Any, x: Any, after: Any) -> tuple[Any, ...]:
        return g, None

    @staticmethod
    def samples() -> list[Sample]:
        return [
            Sample(again, (Arg((3, 4)), Arg((), differentiable=False)), lambda np, x, after: x),
            Sample(again, (Arg((7,), layout="strided"), Arg(())), lambda np, x, after: x),
        ]


def again(x: Any, after: Any) -> Any:
    """Return x, as a value of its own that is not there before `after`, a tensor with elements."""
    for _ in range(after.ndim):
        after = select(after, 0, 0)
    return apply(Again.of(), x, after)[0]
