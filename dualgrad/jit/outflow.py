"""From the tape that a trace leaves to a differentiable block of its program."""

from __future__ import annotations

from typing import Any, NamedTuple

from dualgrad.compiler.ir.node import Node, const_node
from dualgrad.compiler.ir.types import TensorType
from dualgrad.gradients.history import is_lost
from dualgrad.gradients.tape import TapeNode, edge_of
from dualgrad.jit.alias import Source
from dualgrad.jit.differentiable import Block, ProgramNode
from dualgrad.jit.keeping import keeping
from dualgrad.jit.numbers import Number, plain
from dualgrad.jit.tape import NOWHERE, OUTSIDE, Edge, Guard, Step, Tape, Value, absent
from dualgrad.jit.trace import Trace, Unsupported
from dualgrad.runtime.records import dataclass, field
from dualgrad.runtime.srcinfo import Location
from dualgrad.tensor import Tensor


def needs_graph(x: Tensor) -> bool:
    """Whether gradients can still flow back from a traced tensor."""
    if not x.requires_grad or is_lost(x):
        return False
    return x.grad_fn is not None and not x.grad_fn.released


class Outer(NamedTuple):
    """A tensor from outside that a trace has met."""

    tensor: Tensor
    source: Source
    node: Node | None  # the input that it was at first


@dataclass
class Outflow:
    """Collects what results that need their graph were computed by."""

    trace: Trace
    emitted: list[Tensor]  # the results of the program
    views: list[Tensor]  # and what is made of these
    late: dict[int, int] = field(default_factory=dict)  # targets that are views, by id
    outer: list[Outer] = field(default_factory=list)
    targets: dict[tuple[str, int], int] = field(default_factory=dict)
    target_types: list[TensorType] = field(default_factory=list)
    ways_in: dict[object, int] = field(default_factory=dict)  # what inputs are, to the tape
    guards: dict[int, Guard] = field(default_factory=dict)  # by id of the versions
    numbers: dict[int, int] = field(default_factory=dict)  # of steps, by id of the tape's node

    def block(self, roots: list[Tensor], name: str, scalars: tuple[Node, ...]) -> Block:
        """The block of the program; the roots become its first slots, in their order."""
        trace = self.trace
        self._note_outside()
        nodes = self._nodes(roots)
        self.numbers = {id(n): k for k, n in enumerate(nodes)}
        steps = [self._step(n) for n in nodes]
        slots = [self.inner(x) for x in roots]
        guard_of = [self.guards[id(o.tensor._version)] for o in self.outer]
        emitted: dict[Node, tuple[int, Guard]] = {}
        for k, x in enumerate(self.emitted):
            emitted.setdefault(trace.node_of(x), (k, self.guards[id(x._version)]))
        kept = keeping(
            steps, self._direct(), guard_of, emitted, len(self.emitted), trace.recomputed
        )
        layouts = tuple(trace.layout_of(o.tensor) for o in self.outer)
        tape = Tape(tuple(steps), tuple(self.target_types))
        sources = tuple(o.source for o in self.outer)
        return Block(name, tape, slots, tuple(self.targets), kept, layouts, scalars, sources)

    def _note_outside(self) -> None:
        """Find the tensors from outside, as the tape knows them."""
        trace = self.trace
        met = zip(trace.tensors, trace.sources, trace.inputs, strict=True)
        self.outer = [Outer(*o) for o in met]
        known = {id(o.tensor) for o in self.outer}
        for family in trace.sharing.families:
            for t, _ in family.members:
                if id(t) not in known:
                    self.outer.append(Outer(t, trace.sharing.source_of(t), None))
        for k, o in enumerate(self.outer):
            self.guards.setdefault(id(o.tensor._version), ("input", k))
            if o.tensor.requires_grad and o.source.kind != "constant":
                way = _identity(edge_of(o.tensor))
                if way in self.ways_in:
                    raise Unsupported(
                        "two tensors share one graph", actual=f"{o.tensor.type!r} under two names"
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
            return Step(node.unit, (), (), (), node.types, True, node.place)
        if not hasattr(node, "unit"):
            raise Unsupported(
                "a gradient of the user's own comes after the function",
                op=node.name,
                why="its Python runs when gradients flow back",
                hint="call backward() inside the function",
                location=None if node.place is None else Location.of_place(node.place),
            )
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
            place=node.place,
        )

    def _value(self, x: Any) -> Value:
        if isinstance(x, Tensor):
            return Value(self.trace.node_of(x), None, self.guards.get(id(x._version)))
        if hasattr(x, "sig"):
            return absent(x.type)
        if isinstance(x, Number):  # of which the trace made an input of the program, or not
            return Value(self.trace.numbers.scalars.get(x._name) or const_node(plain(x)))
        return Value(self.trace.node_of(x))

    def _edge(self, edge: Any) -> Edge | None:
        if edge is None:
            return None
        k = self.ways_in.get(_identity(edge))
        if k is not None:
            return self._target(("input", k), self.trace.type_of(self.outer[k].tensor))
        if isinstance(edge, tuple):
            return (self.numbers[id(edge[0])], edge[1])
        k = next((k for k, x in enumerate(self.emitted) if x is edge), None)
        if k is not None:
            return self._target(("output", k), edge._type)
        k = next((k for k, x in enumerate(self.views) if x is edge), None)
        if k is None:
            return NOWHERE
        found = self._target(("view", k), edge._type)
        self.late[id(edge)] = found[1]
        return found

    def _target(self, name: tuple[str, int], type: TensorType) -> Edge:
        k = self.targets.setdefault(name, len(self.targets))
        if k == len(self.target_types):
            self.target_types.append(type)
        return (OUTSIDE, k)

    def _direct(self) -> dict[Node, int]:
        """What tensors from outside hold, at first and when the program has run.

        A value that is read from there is what eager mode reads there: whatever changes the
        memory after it has been saved is noticed, or not, in the same way.
        """
        out: dict[Node, int] = {}
        for k, o in enumerate(self.outer):
            out.setdefault(self.trace.values.get(id(o.tensor), o.node), k)  # type: ignore[arg-type]
        for k, o in enumerate(self.outer):
            if o.node is not None:
                out.setdefault(o.node, k)
        return out


@dataclass
class Gradients:
    """Which results of a trace still need their graph, and where their gradients enter."""

    slots: dict[int, int] = field(default_factory=dict)  # by id of the traced tensor
    late: dict[int, int] = field(default_factory=dict)  # targets that are made after the run
    taken: list[Tensor] = field(default_factory=list)  # at the sources of the block

    def block(
        self, trace: Trace, emitted: list[Tensor], views: list[Tensor], name: str
    ) -> Block | None:
        """The block of these results and views of results; None where no gradient flows out.

        It takes the place of the trace's tape, which they forget.
        """
        roots = [x for x in (*emitted, *views) if needs_graph(x)]
        if not roots:
            return None
        for t, s in zip(trace.tensors, trace.sources, strict=True):
            if s.kind == "constant" and t.requires_grad and t.grad_fn is None:
                raise Unsupported(
                    "a result still needs its graph, with a leaf that the function makes itself",
                    actual=f"{t.type!r}",
                    why="gradients do not flow to it out of a compiled function",
                    hint="make it outside of the function",
                )
        work = Outflow(trace, emitted, views)
        block = work.block(roots, name, tuple(trace.numbers.scalars.values()))
        self.late = work.late
        self.taken = [work.outer[k].tensor for k in block.used]
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
        target = self.late.get(key)
        if target is not None and node is not None:
            node.aim(target, x)


def _identity(edge: Any) -> object:
    return (id(edge[0]), edge[1]) if isinstance(edge, tuple) else id(edge)
