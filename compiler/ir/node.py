"""Nodes of the tensor IR: immutable, interned, typed.

    Node  ::= (op, inputs: Node*, type)
    Graph ::= outputs: Node*, writes: (Node, input number)*      over Input(0), Input(1), ...

Nodes with equal op, inputs and type are one object, so a common subexpression exists once and
text that rebuilds a graph rebuilds the same objects.  A write stores a value into the memory of
an input when everything else has been read.  The user's line that first made a node is kept
beside it, not in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar
from weakref import WeakKeyDictionary

from dualgrad.compiler.ir.interned import Interned
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import Number, Operand, Unit, Value
from dualgrad.runtime.dtype import bool_, float64, int64
from dualgrad.runtime.errors import CompileError
from dualgrad.runtime.records import dataclass
from dualgrad.runtime.srcinfo import user_line_key

if TYPE_CHECKING:
    from dualgrad.compiler.ops.base import Op


class Node(Value):
    """One op applied to nodes."""

    __slots__ = ("__weakref__", "inputs", "op", "type")

    _interned: ClassVar[Interned[Node]] = Interned()

    op: Op | Leaf
    inputs: tuple[Node, ...]

    @classmethod
    def make(cls, op: Op | Leaf, inputs: tuple[Node, ...], type: TensorType) -> Node:
        key = (op, inputs, type)
        found = cls._interned.find(key)
        if found is None:
            found = object.__new__(cls)
            found.op, found.inputs, found.type = key
            found = cls._interned.keep(key, found)
            line = user_line_key()
            if line is not None:
                LINES[found] = line
        return found

    @classmethod
    def at_line(
        cls,
        op: Op | Leaf,
        inputs: tuple[Node, ...],
        type: TensorType,
        line: tuple[str, int] | None,
    ) -> Node:
        """A node that comes from a known line of the user's, also if it has come up before."""
        key = (op, inputs, type)
        found = cls._interned.find(key)
        if found is None:
            found = object.__new__(cls)
            found.op, found.inputs, found.type = key
            found = cls._interned.keep(key, found)
        if line is not None:
            LINES[found] = line
        return found

    def apply_unit(self, unit: Unit, operands: tuple[Operand, ...]) -> tuple[Node, ...]:
        return unit.trace(*(as_node(x) for x in operands))

    def __repr__(self) -> str:
        return f"<{self.op} {self.type}>"


LINES: WeakKeyDictionary[Node, tuple[str, int]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Leaf:
    """What stands at the leaves of a graph: not an op, it has no inputs and no rules.

    kind is "input" (a tensor of the caller), "scalar" (a Python number that is passed at each
    launch) or "const" (a Python number that is part of the program).
    """

    kind: str
    value: Number

    @property
    def name(self) -> str:
        return self.kind

    def __hash__(self) -> int:
        return hash((self.kind, repr(self.value)))

    def __eq__(self, other: object) -> bool:
        # 1 == 1.0 == True and 0.0 == -0.0 are different constants.
        return (
            isinstance(other, Leaf)
            and self.kind == other.kind
            and repr(self.value) == repr(other.value)
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.value!r}"


_WEAK = {bool: bool_, int: int64, float: float64}


def number_type(kind: type) -> TensorType:
    """The weak 0-d type of a Python number."""
    return TensorType((), _WEAK[kind], weak=True)


def input_node(position: int, type: TensorType) -> Node:
    return Node.make(Leaf("input", position), (), type)


def scalar_node(position: int, kind: type) -> Node:
    return Node.make(Leaf("scalar", position), (), number_type(kind))


def const_node(value: Number) -> Node:
    kind = bool if isinstance(value, bool) else int if isinstance(value, int) else float
    return Node.make(Leaf("const", kind(value)), (), number_type(kind))


def as_node(x: Any) -> Node:
    if isinstance(x, Node):
        return x
    if isinstance(x, (bool, int, float)):
        return const_node(x)
    raise CompileError(
        "a tensor reached a graph that is being built from nodes",
        expect="nodes and Python numbers",
        actual=type(x).__name__,
        hint="composites take tensors as arguments only, not from their closure",
    )


def is_leaf(node: Node, kind: str) -> bool:
    return isinstance(node.op, Leaf) and node.op.kind == kind


@dataclass(frozen=True)
class Graph:
    """A program: what is computed from inputs and scalars, what is returned and written."""

    inputs: tuple[Node, ...]
    scalars: tuple[Node, ...]
    outputs: tuple[Node, ...]
    writes: tuple[tuple[Node, int], ...] = ()

    @property
    def roots(self) -> tuple[Node, ...]:
        return (*self.outputs, *(n for n, _ in self.writes))

    def with_roots(self, roots: tuple[Node, ...]) -> Graph:
        """The graph with other nodes in place of its roots."""
        count = len(self.outputs)
        writes = tuple((n, k) for n, (_, k) in zip(roots[count:], self.writes, strict=True))
        return Graph(self.inputs, self.scalars, roots[:count], writes)


def topological(roots: Iterable[Node]) -> list[Node]:
    """All nodes below the roots, inputs before users, in a reproducible order."""
    done: dict[Node, None] = {}  # in order
    opened: set[Node] = set()
    stack = [*roots]
    stack.reverse()
    while stack:
        node = stack.pop()
        if node in done:
            continue
        if not node.inputs or node in opened:
            done[node] = None
        else:
            opened.add(node)
            stack.append(node)
            stack += node.inputs[::-1]
    return list(done)


def replace(roots: tuple[Node, ...], values: dict[Node, Node]) -> tuple[Node, ...]:
    """The graph with some nodes replaced by others of the same type."""
    if not values:
        return roots
    done = dict(values)
    for node in topological(roots):
        if node not in done:
            inputs = tuple(done[x] for x in node.inputs)
            done[node] = node if inputs == node.inputs else Node.make(node.op, inputs, node.type)
    return tuple(done[r] for r in roots)
