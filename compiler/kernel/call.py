"""Kernels of library ops: one call of a function of the host."""

from __future__ import annotations

from dualgrad.compiler.ir.dims import Dim, sym, symbols
from dualgrad.compiler.ir.node import Node
from dualgrad.compiler.kernel.build import Place
from dualgrad.compiler.kernel.evaluate import Evaluator
from dualgrad.compiler.kernel.ir import Block, Buffer, Call, Stmt
from dualgrad.compiler.ops.library import Library
from dualgrad.compiler.ops.view import flatten_index
from dualgrad.compiler.passes.fuse import Group
from dualgrad.runtime.errors import CompileError


def build_call(group: Group, place: Place) -> tuple[Stmt, ...]:
    (node,) = group.nodes
    op = node.op
    assert isinstance(op, Library)
    evaluator = place.evaluator(False)
    inputs = tuple(_block(x, evaluator) for x in node.inputs)
    home = place.destinations[node][0]
    output = Block(home.buffer, home.start, node.shape)
    code = evaluator.new_check(node, "", 0, 0)
    return (Call(op.routine, op.params, tuple(op.dims), inputs, output, code),)


def _block(x: Node, evaluator: Evaluator) -> Block:
    found = whole_of(x, evaluator)
    if found is None:
        raise CompileError(f"{x!r} is not row-major in memory", op="call")
    return Block(*found, x.shape)


def whole_of(x: Node, evaluator: Evaluator) -> tuple[Buffer, Dim] | None:
    """Where a value lies in memory as one row-major block; None if it does not."""
    at = tuple(0 if n == 1 else sym(f"w{k}", n) for k, n in enumerate(x.shape))
    buffer, position = evaluator.value(x, at).memory
    base = position - flatten_index(at, x.shape)
    if symbols(base) & {a for i in at for a in symbols(i)}:
        return None
    return buffer, base
