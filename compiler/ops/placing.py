"""Which device nodes belong to.  What depends on no input belongs to none, and counts as on the
CPU until something that has a device takes it."""

from __future__ import annotations

from dualgrad.compiler.grad import crosses_devices
from dualgrad.compiler.ir.node import Leaf, Node, topological
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import Unit
from dualgrad.compiler.ops.transfer import Transfer
from dualgrad.runtime.devices import CPU


def placed(node: Node, device: str) -> Node:
    """A node that depends on no input, as one of a device."""
    done: dict[Node, Node] = {}
    for n in topological((node,)):
        t = n.type
        at = t if isinstance(n.op, Leaf) else TensorType(t.shape, t.dtype, t.weak, device)
        done[n] = Node.make(n.op, tuple(done[x] for x in n.inputs), at)
    return done[node]


def free_nodes(order: list[Node]) -> set[Node]:
    """Of nodes in topological order, those that depend on no input."""
    free: set[Node] = set()
    for n in order:
        numbers = isinstance(n.op, Leaf) and n.op.kind in ("const", "scalar")
        moved = isinstance(n.op, Transfer)
        if numbers or (not isinstance(n.op, Leaf) and not moved and free.issuperset(n.inputs)):
            free.add(n)
    return free


def placed_results(
    unit: Unit, nodes: tuple[Node, ...], results: tuple[Node, ...]
) -> tuple[Node, ...]:
    """What a unit makes of operands, on their device."""
    device = next((n.device for n in nodes if n.device != CPU), CPU)
    if device == CPU or crosses_devices(unit):
        return results
    return tuple(r if r.device == device else placed(r, device) for r in results)
