"""Graphs of units, made once for each pattern of operands and repeated from then on.

What a unit computes depends on the types of its operands, on which of them are the same, and on
numbers among them: eager mode compiles it from no more.  So a graph that was traced on leaves
stands for all others, and a trace of many equal layers costs little more than that of one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from dualgrad.compiler.batching import Batched, is_gradient
from dualgrad.compiler.grad import Vjp
from dualgrad.compiler.ir.node import Leaf, Node, topological
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import Unit
from dualgrad.compiler.ops.composite import Composite
from dualgrad.runtime.srcinfo import user_line_key

T = TypeVar("T")
Step = tuple[Any, tuple[int, ...], TensorType]  # op, places of its inputs, type
_OWN = "dualgrad."


class Template:
    """A graph over leaves, as a list of steps.

    Places 0, 1, ... are the operands; those of the nodes that it makes itself follow.
    """

    def __init__(self, unit: Unit, nodes: tuple[Node, ...]) -> None:
        leaves = tuple(_stand_in(n, nodes.index(n)) for n in nodes)
        results = unit.trace(*leaves)
        place = {x: k for k, x in reversed([*enumerate(leaves)])}
        self.steps: list[Step] = []
        for node in topological(results):
            if node not in place:
                place[node] = len(nodes) + len(self.steps)
                self.steps.append((node.op, tuple(place[x] for x in node.inputs), node.type))
        self.results = tuple(place[r] for r in results)
        self.checked = [
            len(nodes) + k
            for k, step in enumerate(self.steps)
            if getattr(step[0], "checked", False)
        ]

    def on(self, nodes: tuple[Node, ...]) -> list[Node]:
        """All nodes of the graph over these operands; they come from the user's line that runs
        now."""
        line = user_line_key()
        found = [*nodes]
        for op, inputs, type in self.steps:
            found.append(Node.at_line(op, tuple([found[k] for k in inputs]), type, line))
        return found


class Templates:
    """What is known of the units of one trace.

    Not for longer: questions about symbolic sizes are asked, and answered, once in each trace.
    """

    def __init__(self) -> None:
        self._templates: dict[tuple[Any, ...], Template] = {}
        self._facts: dict[tuple[Any, ...], Any] = {}
        self.checked: dict[Node, None] = {}  # nodes that may stop a run

    def expand(self, unit: Unit, nodes: tuple[Node, ...]) -> tuple[Node, ...]:
        """The unit's results on nodes."""
        key = (unit, *[n if _is_fixed(n) else (n.type, nodes.index(n)) for n in nodes])
        found = self._templates.get(key)
        if found is None:
            found = self._templates[key] = Template(unit, nodes)
        made = found.on(nodes)
        if found.checked and not is_gradient(unit):  # a gradient asks what was asked before
            self.checked.update((made[k], None) for k in found.checked)
        return tuple(made[k] for k in found.results)

    def fact(self, key: tuple[Any, ...], find: Callable[[], T]) -> T:
        """What `find` gives, asked once for each key."""
        if key not in self._facts:
            self._facts[key] = find()
        return self._facts[key]  # type: ignore[no-any-return]


def is_own(unit: Unit) -> bool:
    """Whether only code of dualgrad runs when a unit is traced."""
    while isinstance(unit, Vjp | Batched):
        unit = unit.unit
    home = unit.body.__module__ if isinstance(unit, Composite) else type(unit).__module__
    return home.startswith(_OWN)


def _is_fixed(node: Node) -> bool:
    """Whether a unit may look at what a node is: numbers, and operands that are not there."""
    return isinstance(node.op, Leaf) and node.op.kind != "input"


def _stand_in(node: Node, place: int) -> Node:
    return node if _is_fixed(node) else Node.make(Leaf("operand", -2 - place), (), node.type)
