"""What a graph of the tensor IR must satisfy; always on in tests (`DG_VERIFY`).

- leaves: inputs and scalars are those the graph lists, numbered in order; numbers are 0-d and weak;
- every node has the type that its op infers from its inputs;
- operands of elementwise ops have one shape; a Python number has become a tensor before;
- a write has the type of the input that it overwrites.
"""

from __future__ import annotations

from dualgrad.compiler.ir.node import Graph, Leaf, Node, topological
from dualgrad.compiler.ir.printer import graph_text
from dualgrad.runtime.errors import CompileError


def verify_graph(graph: Graph) -> None:
    """Raise CompileError, with the graph's text, where a rule is broken."""
    for kind, nodes in (("input", graph.inputs), ("scalar", graph.scalars)):
        for k, n in enumerate(nodes):
            if n.op != Leaf(kind, k):
                _refuse(graph, n, f"{kind} {k} of the graph", f"{n.op}")
    listed = {*graph.inputs, *graph.scalars}
    for n in topological(graph.roots):
        if isinstance(n.op, Leaf):
            _verify_leaf(graph, n, listed)
        else:
            inferred = n.op.output_type(*(x.type for x in n.inputs))
            if all(isinstance(x.op, Leaf) and x.op.kind != "input" for x in n.inputs):
                inferred = inferred.at(n.device)  # numbers are on every device
            if inferred is not n.type:
                _refuse(graph, n, f"type {inferred!r}, as {n.op.name} infers it", f"{n.type!r}")
    for n, k in graph.writes:
        target = graph.inputs[k].type
        if (n.shape, n.dtype) != (target.shape, target.dtype):
            _refuse(graph, n, f"the type of input {k}, {target!r}", f"{n.type!r}")


def _verify_leaf(graph: Graph, n: Node, listed: set[Node]) -> None:
    assert isinstance(n.op, Leaf)
    if n.op.kind not in ("input", "scalar", "const"):
        _refuse(graph, n, "an input, a scalar or a constant", str(n.op))
    if n.op.kind != "const" and n not in listed:
        _refuse(graph, n, f"one of the graph's {n.op.kind}s", f"{n.op} {n.type!r}")
    if n.op.kind != "input" and (n.shape or not n.type.weak):
        _refuse(graph, n, "a number: weak, without dimensions", f"{n.type!r}")


def _refuse(graph: Graph, n: Node, expect: str, actual: str) -> None:
    raise CompileError(
        f"a graph is not well formed at {n.op}",
        op="verify",
        expect=expect,
        actual=actual,
        why="\n" + graph_text(graph),
    )
