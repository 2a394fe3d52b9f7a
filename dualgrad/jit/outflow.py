"""From the tape that a trace leaves to a differentiable block of its program."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from dualgrad.autograd import TapeNode, edge_of
from dualgrad.compiler.ir.node import Node
from dualgrad.compiler.ir.types import TensorType
from dualgrad.jit.differentiable import Block, ProgramNode
from dualgrad.jit.keeping import keeping
from dualgrad.jit.tape import NOWHERE, OUTSIDE, Edge, Guard, Step, Tape, Value, absent
from dualgrad.jit.trace import Trace, Unsupported
from dualgrad.tensor import Tensor


def needs_graph(x: Tensor) -> bool:
    """Whether gradients can still flow back from a traced tensor."""
    return x.requires_grad and x.grad_fn is not None and not x.grad_fn.released


@dataclass
class Outflow:
    """Collects what results that need their graph were computed by."""

    trace: Trace
    emitted: list[Tensor]  # the results of the program
    targets: dict[tuple[str, int], int] = field(default_factory=dict)
    target_types: list[TensorType] = field(default_factory=list)
    ways_in: dict[object, int] = field(default_factory=dict)  # what inputs are, to the tape
    guards: dict[int, Guard] = field(default_factory=dict)  # by id of the versions
    numbers: dict[int, int] = field(default_factory=dict)  # of steps, by id of the tape's node

    def block(self, roots: list[Tensor], name: str, scalars: tuple[Node, ...]) -> Block:
        """The block of the program; the roots become its first slots, in their order."""
        trace = self.trace
        self._note_inputs()
        nodes = self._nodes(roots)
        self.numbers = {id(n): k for k, n in enumerate(nodes)}
        steps = [self._step(n) for n in nodes]
        slots = [self.inner(x) for x in roots]
        direct = self._direct()
        guard_of = [self.guards[id(t._version)] for t in trace.tensors]
        emitted: dict[Node, tuple[int, Guard]] = {}
        for k, x in enumerate(self.emitted):
            emitted.setdefault(trace.node_of(x), (k, self.guards[id(x._version)]))
        kept = keeping(steps, direct, guard_of, emitted, len(self.emitted))
        layouts = tuple(t.layout for t in trace.tensors)
        tape = Tape(tuple(steps), tuple(self.target_types))
        return Block(name, tape, slots, tuple(self.targets), kept, layouts, scalars)

    def _note_inputs(self) -> None:
        trace = self.trace
        for k, t in enumerate(trace.tensors):
            self.guards.setdefault(id(t._version), ("input", k))
            if t.requires_grad and trace.sources[k].kind != "constant":
                way = _identity(edge_of(t))
                if way in self.ways_in:
                    raise Unsupported(
                        "two tensors share one graph", actual=f"{t.type!r} under two names"
                    )
                self.ways_in[way] = k
        for k, x in enumerate(self.emitted):
            self.guards.setdefault(id(x._version), ("output", k))

    def _nodes(self, roots: list[Tensor]) -> list[TapeNode]:
        """The nodes of the tape that the roots come from, as they were created."""
        seen: dict[int, TapeNode] = {}
        stack = [x.grad_fn for x in roots]
        while stack:
            node = stack.pop()
            assert node is not None
            if id(node) in seen:
                continue
            seen[id(node)] = node
            for edge in node.edges:
                if isinstance(edge, tuple) and _identity(edge) not in self.ways_in:
                    stack.append(edge[0])
        return sorted(seen.values(), key=lambda n: n.number)

    def inner(self, x: Tensor) -> Edge:
        return (self.numbers[id(x.grad_fn)], x.output_number)

    def _step(self, node: TapeNode) -> Step:
        if node.released:
            return Step(node.unit, (), (), (), node.types, released=True)
        for x, version in zip((*node.inputs, *node.outputs), node.versions, strict=True):
            if hasattr(x, "version") and x.version != version:
                raise Unsupported(
                    "a tensor that the gradient needs is changed in place",
                    op=node.name,
                    actual=f"{x.type!r}",
                )
        return Step(
            node.unit,
            tuple(map(self._value, node.inputs)),
            tuple(map(self._value, node.outputs)),
            tuple(map(self._edge, node.edges)),
            node.types,
        )

    def _value(self, x: Any) -> Value:
        if isinstance(x, Tensor):
            return Value(self.trace.node_of(x), None, self.guards.get(id(x._version)))
        if hasattr(x, "sig"):
            return absent(x.type)
        return Value(self.trace.node_of(x))

    def _edge(self, edge: Any) -> Edge | None:
        if edge is None:
            return None
        k = self.ways_in.get(_identity(edge))
        if k is not None:
            return self._target(("input", k), self.trace.inputs[k].type)
        if isinstance(edge, tuple):
            return (self.numbers[id(edge[0])], edge[1])
        k = next((k for k, x in enumerate(self.emitted) if x is edge), None)
        return NOWHERE if k is None else self._target(("output", k), edge.type)

    def _target(self, name: tuple[str, int], type: TensorType) -> Edge:
        k = self.targets.setdefault(name, len(self.targets))
        if k == len(self.target_types):
            self.target_types.append(type)
        return (OUTSIDE, k)

    def _direct(self) -> dict[Node, int]:
        """The inputs by what they hold when the program has run."""
        trace = self.trace
        out: dict[Node, int] = {}
        for k, (t, node) in enumerate(zip(trace.tensors, trace.inputs, strict=True)):
            out.setdefault(trace.values.get(id(t), node), k)
        return out


@dataclass
class Gradients:
    """Which results of a trace still need their graph, and where their gradients enter."""

    slots: dict[int, int] = field(default_factory=dict)  # by id of the traced tensor

    def block(
        self, trace: Trace, emitted: list[Tensor], views: list[Tensor], name: str
    ) -> Block | None:
        """The block of these results and views of results; None where no gradient flows out.

        It takes the place of the trace's tape, which they forget.
        """
        roots = [x for x in (*emitted, *views) if needs_graph(x)]
        if not roots:
            return None
        work = Outflow(trace, emitted)
        block = work.block(roots, name, ())
        for x in roots:
            self.slots[id(x)] = block.slot(work.inner(x))
            x.grad_fn = None
        return block

    def attach(self, key: int, x: Tensor, node: ProgramNode | None) -> None:
        """Give a tensor that exists now the history of the traced one with this id."""
        slot = self.slots.get(key)
        if slot is not None:
            assert node is not None
            x.requires_grad, x.grad_fn, x.output_number = True, node, slot


def _identity(edge: Any) -> object:
    return (id(edge[0]), edge[1]) if isinstance(edge, tuple) else id(edge)
