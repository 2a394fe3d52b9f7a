"""Graphs of the tensor IR as text, for golden files, `Function.graph()` and error messages.

%0 = input 0 f32[3,4]
%1 = sum[1, 2, 0](%0) f32[3]
return %1
write %1 -> input 0
"""

from __future__ import annotations

from dualgrad.compiler.ir.node import Graph, Leaf, topological


def graph_text(graph: Graph) -> str:
    """One line per node, inputs before users; equal graphs give equal texts."""
    order = topological(graph.roots)
    number = {n: f"%{k}" for k, n in enumerate(order)}
    lines = []
    for n in order:
        operands = "" if isinstance(n.op, Leaf) else f"({', '.join(number[x] for x in n.inputs)})"
        lines.append(f"{number[n]} = {n.op}{operands} {n.type!r}")
    if graph.outputs:
        lines.append(f"return {', '.join(number[n] for n in graph.outputs)}")
    lines += [f"write {number[n]} -> input {k}" for n, k in graph.writes]
    return "\n".join(lines) + "\n"
