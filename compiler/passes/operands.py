"""Operands of matrix products in the format that they are stored in.

Goal: products of 16-bit floats without float32 copies of them: the product reads 16-bit floats and
widens them, which is exact, while it packs them.  Non-goal: another precision; the sums are of
float32 as before.
"""

from __future__ import annotations

from collections.abc import Callable

from dualgrad.compiler.ir.node import Graph, Node, topological
from dualgrad.compiler.ops.contract import MatMul
from dualgrad.compiler.ops.elementwise import Cast
from dualgrad.compiler.ops.view import View
from dualgrad.runtime.dtype import float32


def narrow_operands(graph: Graph, is_strided: Callable[[Node], bool]) -> Graph:
    """The graph with casts from one 16-bit float to float32 left out below products.

    Views below a cast then belong to the operand, which must still lie in memory: `is_strided`.
    """
    done: dict[Node, Node] = {}
    for node in topological(graph.roots):
        inputs = tuple(done[x] for x in node.inputs)
        if isinstance(node.op, MatMul):
            narrow = [_narrowed(x, is_strided) for x in inputs]
            first, second = narrow
            if first is not None and second is not None and first.dtype is second.dtype:
                inputs = (first, second)
        done[node] = node if inputs == node.inputs else Node.make(node.op, inputs, node.type)
    return graph.with_roots(tuple(done[r] for r in graph.roots))


def _narrowed(x: Node, is_strided: Callable[[Node], bool]) -> Node | None:
    """x, which is a cast seen through views, as the 16-bit float that it was cast from."""
    views = []
    while isinstance(x.op, View):
        views.append(x.op)
        (x,) = x.inputs
    if not (isinstance(x.op, Cast) and x.dtype is float32 and x.inputs[0].dtype.is_low):
        return None
    (source,) = x.inputs
    operand = source
    for view in reversed(views):
        operand = view.on(operand)
    return operand if not isinstance(source.op, View) or is_strided(operand) else None
