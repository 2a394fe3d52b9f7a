"""Combining the state of a reduction with its initial state changes no bit of it.

A GPU leaves out lanes without elements because of that.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import test_ops
from support import Array, same_bits

import dualgrad as dg
from dualgrad.compiler.build.mathlib import Math
from dualgrad.compiler.ir.node import Node, input_node, topological
from dualgrad.compiler.kernel import scalar as s
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.compiler.lower.reference_scalar import evaluate
from dualgrad.compiler.ops.reduce import Reduction
from dualgrad.runtime.dtype import DType

SPECIAL = (0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3e38, 1e-40, np.inf, -np.inf, np.nan)
STEPS = 3


def reductions() -> Iterator[Node]:
    """A node for every op that reduces, with every set of operand dtypes, among all samples."""
    seen = set()
    for case in test_ops.GOOD:
        xs = test_ops.tensors(case.arrays())
        arrays = [x for x in xs if isinstance(x, dg.Tensor)]
        nodes = iter([input_node(k, x.type) for k, x in enumerate(arrays)])
        operands = [next(nodes) if isinstance(x, dg.Tensor) else x for x in xs]
        result = case.sample.function(*operands)
        for node in topological((result,)) if isinstance(result, Node) else ():
            key = (node.op.name, tuple(x.dtype for x in node.inputs))
            if isinstance(node.op, Reduction) and key not in seen:
                seen.add(key)
                yield node


def elements(dtype: DType, rng: np.random.Generator) -> Array:
    """Numbers of a dtype, many of them special."""
    if dtype.is_float:
        return rng.choice(SPECIAL, 400).astype(dtype.numpy)
    if dtype.kind == "b":
        return rng.integers(0, 2, 400).astype(bool)
    info = np.iinfo(dtype.numpy)
    return rng.choice([info.min, info.max, 0, 1, 5], 400).astype(dtype.numpy)


def no_leaf(e: Scalar, *operands: Array) -> Array:
    if e.op == "index":
        return np.asarray(e.position, np.int64)
    raise AssertionError(f"{e!r} has no value")


REDUCTIONS = tuple(reductions())


@pytest.mark.parametrize("node", REDUCTIONS, ids=lambda n: f"{n.op.name}-{n.inputs[0].dtype.name}")
def test_initial_state_is_neutral(node: Node) -> None:
    op, b, rng = node.op, Math(), np.random.default_rng(3)
    assert isinstance(op, Reduction)
    dtypes = [x.dtype.compute for x in node.inputs]
    init = op.init(b, dtypes[0])
    carry, left, right = (
        tuple(s.reg(f"{name}{k}", x.dtype) for k, x in enumerate(init)) for name in "clr"
    )
    xs = [s.reg(f"x{k}", d) for k, d in enumerate(dtypes)]
    combined = op.combine(b, left, right)
    start = [np.broadcast_to(v, 400) for v in evaluate(init, no_leaf, {})]
    state = start
    for position in range(STEPS + 1):
        known = dict(zip(left, state, strict=True)) | dict(zip(right, start, strict=True))
        for got, want in zip(evaluate(combined, no_leaf, known), state, strict=True):
            same_bits(np.broadcast_to(got, 400), want, op.name)
        known = dict(zip(carry, state, strict=True))
        known |= {x: elements(d, rng) for x, d in zip(xs, dtypes, strict=True)}
        step = op.step(b, carry, *xs, position=s.index(position))
        state = [np.broadcast_to(v, 400) for v in evaluate(step, no_leaf, known)]
