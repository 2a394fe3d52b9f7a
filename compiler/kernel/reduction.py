"""Accumulators: the formulas of a reduction op as the loop IR wants them."""

from __future__ import annotations

from dualgrad.compiler.build.mathlib import Math
from dualgrad.compiler.ir.dims import Dim
from dualgrad.compiler.ir.node import Node
from dualgrad.compiler.kernel.evaluate import At, Evaluator
from dualgrad.compiler.kernel.ir import Accumulator
from dualgrad.compiler.kernel.scalar import Scalar, cast, index, reg
from dualgrad.compiler.ops.reduce import Reduction
from dualgrad.compiler.passes.fuse import index_in


def registers(node: Node, prefix: str) -> tuple[Scalar, ...]:
    """Registers of a reduction's state."""
    op = node.op
    assert isinstance(op, Reduction)
    state = op.init(Math(), node.inputs[0].dtype.compute)
    return tuple(reg(f"{prefix}{k}", x.dtype) for k, x in enumerate(state))


def accumulator_of(
    node: Node, at: At, position: Dim, evaluator: Evaluator, name: str = "a"
) -> tuple[Accumulator, Scalar]:
    """The accumulator of a reduction whose operands are read at `at`, and its result.

    16-bit floats are reduced in float32.
    """
    op, b = node.op, Math()
    assert isinstance(op, Reduction)
    init = op.init(b, node.inputs[0].dtype.compute)
    carry, left, right = (registers(node, f"{name}{p}") for p in ("_", "l", "r"))
    operands = (evaluator.value(x, index_in(x.shape, at)) for x in node.inputs)
    xs = [cast(x, x.dtype.compute) for x in operands]
    step = op.step(b, carry, *xs, position=index(position))
    total = Accumulator(carry, init, step, left, right, op.combine(b, left, right))
    return total, cast(op.finish(b, carry), node.dtype)
