"""The tape of a trace as a static thing: units over nodes, and gradients flowing back over them.

A `Tape` is what eager mode would have on its tape after running the same code, with nodes in
place of tensors.  `flow_back` does on nodes what `flow.Flow` does on tensors: it visits the
same units in the same order, with the same cotangents given and gradients wanted, and adds
contributions in the same order.  So the graph that it writes has the bits of eager mode.  If the
gradient itself is to be differentiated, the units that it runs are a tape again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from dualgrad.compiler.batching import is_gradient
from dualgrad.compiler.grad import ABSENT, Vjp
from dualgrad.compiler.ir.node import Leaf, Node
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import Unit
from dualgrad.compiler.ops.arithmetic import Add
from dualgrad.compiler.ops.elementwise import Copy
from dualgrad.compiler.ops.placing import placed_results
from dualgrad.compiler.ops.view import View
from dualgrad.dispatch import used_by_gradient
from dualgrad.gradients.tape import Absent
from dualgrad.runtime.dtype import DType
from dualgrad.runtime.records import dataclass, field
from dualgrad.runtime.srcinfo import Place

Name = tuple[str, Any]
Guard = Name | None  # whose changes in place a saved value shows; None: nobody's
Edge = tuple[int, int]  # (OUTSIDE, number of a target) or (number of a step, its output)
OUTSIDE = -1
NOWHERE = (-2, 0)  # a leaf that nobody can see any more: its gradient is wanted, and dropped


class Value(NamedTuple):
    """A node in the place of a tensor."""

    node: Node
    edge: Edge | None = None
    guard: Guard = None


@dataclass(frozen=True)
class Step:
    """One recorded unit: operands and outputs as its gradient reads them, absent ones as ABSENT."""

    unit: Unit
    operands: tuple[Value, ...]
    outputs: tuple[Value, ...]
    edges: tuple[Edge | None, ...]  # where gradients of the operands go
    types: tuple[TensorType, ...]  # of the outputs
    released: bool = False  # its graph has been freed by a backward in the function itself
    place: Place | None = field(default=None, compare=False)  # the user's line

    @property
    def saved(self) -> list[Value]:
        """The values that the gradient reads."""
        return [v for v in (*self.operands, *self.outputs) if is_saved(v.node)]


def is_saved(node: Node) -> bool:
    return node.op != ABSENT and not (
        isinstance(node.op, Leaf) and node.op.kind in ("const", "scalar")
    )


@dataclass(frozen=True)
class Tape:
    """Steps in the order they ran, and the types of what their gradients go to outside."""

    steps: tuple[Step, ...]
    targets: tuple[TensorType, ...]

    def uses(self) -> list[int]:
        """How many contributions each target can get."""
        counts = [0] * len(self.targets)
        for step in self.steps:
            for edge in step.edges:
                if edge is not None and edge[0] == OUTSIDE:
                    counts[edge[1]] += 1
        return counts

    def first_uses(self) -> list[int]:
        """The first step that reads each target."""
        first = [len(self.steps)] * len(self.targets)
        for number in range(len(self.steps) - 1, -1, -1):
            for edge in self.steps[number].edges:
                if edge is not None and edge[0] == OUTSIDE:
                    first[edge[1]] = number
        return first

    def goal(self, targets: frozenset[int], slots: frozenset[Edge]) -> Goal:
        """What leads to these targets and results of steps."""
        steps: set[int] = set()
        for number, step in enumerate(self.steps):
            for edge in step.edges:
                if edge is not None and (
                    edge[0] in steps or edge in slots or (edge[0] == OUTSIDE and edge[1] in targets)
                ):
                    steps.add(number)
                    break
        return Goal(targets, slots, frozenset(steps))


class Goal(NamedTuple):
    """Where gradients are wanted: at targets, at results of steps; and the steps before these."""

    targets: frozenset[int]
    slots: frozenset[Edge]
    steps: frozenset[int]

    def has(self, edge: Edge) -> bool:
        if edge[0] == OUTSIDE:
            return edge[1] in self.targets
        return edge[0] in self.steps or edge in self.slots


@dataclass
class Arrival:
    """What has come out at a target."""

    value: Value
    total: bool  # whether that includes what had arrived from elsewhere before


@dataclass
class FlowBack:
    """Gradients flowing back over a tape.

    With `record`, values have edges: (step of `steps`, output) for what the flow itself computes,
    and (OUTSIDE, k) for what comes from outside of it, `origins[k]` being its name.  A name is a
    seed's or an earlier total's, ("target", k) or ("inner", (step, output)) of the tape.
    """

    tape: Tape
    record: bool
    leaves: frozenset[int] = frozenset()  # targets that are leaves
    first: tuple[int, ...] = ()  # targets that are one and the same, as the first of them
    goal: Goal | None = None  # None: everything
    steps: list[Step] = field(default_factory=list)
    origins: dict[Name, int] = field(default_factory=dict)
    arrived: dict[int, Arrival] = field(default_factory=dict)
    visited: list[int] = field(default_factory=list)
    waiting: dict[int, list[Value | None]] = field(default_factory=dict)

    def outside(self, name: Name) -> Edge:
        return (OUTSIDE, self.origins.setdefault(name, len(self.origins)))

    def send(self, edge: Edge, g: Value) -> None:
        """Add a contribution at the other end of an edge; see `flow.Flow.send`."""
        step, k = edge
        if edge == NOWHERE:
            return
        if step != OUTSIDE:
            slots = self.waiting.setdefault(step, [None] * len(self.tape.steps[step].types))
            old = slots[k]
            slots[k] = g if old is None else self.add(old, g)
            return
        k = self.first[k] if self.first else k
        found = self.arrived.get(k)
        if found is not None:
            found.value = self.add(found.value, g)
        elif self.record and k in self.leaves:
            self.arrived[k] = Arrival(self.apply(Copy.of(), (g,))[0], True)
        else:
            self.arrived[k] = Arrival(g, False)

    def _wants(self, edge: Edge) -> bool:
        return self.goal is None or self.goal.has(edge)

    def add(self, old: Value, g: Value) -> Value:
        return self.apply(Add.of(), (old, g))[0]

    def run(self, until: int = -1) -> None:
        """Visit steps in decreasing order, down to the one after `until`."""
        for number in range(len(self.tape.steps) - 1, until, -1):
            if self.goal is not None and number not in self.goal.steps:
                continue
            slots = self.waiting.pop(number, None)
            if slots is not None:
                self.visited.append(number)
                if not self.tape.steps[number].released:
                    self._push(number, slots)

    def _push(self, number: int, slots: list[Value | None]) -> None:
        step = self.tape.steps[number]
        edges = [e if e is not None and self._wants(e) else None for e in step.edges]
        unit = Vjp.of(
            step.unit, tuple(g is not None for g in slots), tuple(e is not None for e in edges)
        )
        cotangents = tuple(g for g in slots if g is not None)
        operands: list[Value] = []
        for k, v in enumerate((*step.operands, *step.outputs)):
            edge = self._history(number, k) if self.record and is_saved(v.node) else None
            guard = None if v.guard is None else ("outer", v.guard)
            operands.append(Value(v.node, edge, guard))
        gradients = self.apply(unit, (*cotangents, *operands))
        for edge, g in zip((e for e in edges if e is not None), gradients, strict=True):
            self.send(edge, g)

    def _history(self, number: int, k: int) -> Edge | None:
        """Where the gradient of a saved value goes: `k` counts operands, then outputs."""
        step = self.tape.steps[number]
        n = len(step.operands)
        if k >= n:
            return self.outside(("inner", (number, k - n)))
        edge = step.edges[k]
        if edge is None or edge == NOWHERE:
            return edge
        name = ("target", edge[1]) if edge[0] == OUTSIDE else ("inner", edge)
        return self.outside(name)

    def apply(self, unit: Unit, operands: tuple[Value, ...]) -> list[Value]:
        """Run a unit, and record it where an operand has a history."""
        nodes = tuple(v.node for v in operands)
        results = placed_results(unit, nodes, unit.trace(*nodes))
        if not self.record or not any(v.edge for v in operands):
            return [self._passed(unit, operands, r) or Value(r) for r in results]
        types = tuple(TensorType(r.shape, r.dtype, False, r.device) for r in results)
        saves = saved_by(unit, operands)
        number, n = len(self.steps), len(operands)
        out: list[Value] = []
        for k, r in enumerate(results):
            same = self._passed(unit, operands, r)
            if same is None or not any(same is v for v in operands):
                edge = (number, k) if r.dtype.is_float else None
                same = Value(r, edge, None if same is None else same.guard)
            out.append(same)
        self.steps.append(
            Step(
                unit,
                tuple(
                    v if k in saves or is_number(v.node) else absent(v.node.type)
                    for k, v in enumerate(operands)
                ),
                tuple(
                    v if n + k in saves else absent(t)
                    for k, (v, t) in enumerate(zip(out, types, strict=True))
                ),
                tuple(v.edge for v in operands),
                types,
            )
        )
        return out

    @staticmethod
    def _passed(unit: Unit, operands: tuple[Value, ...], result: Node) -> Value | None:
        """The operand that a gradient passes on, itself or as a view of its memory."""
        if not is_gradient(unit):
            return None
        for v in operands:
            if v.node is result:
                return v
        source = behind_views(result)
        for v in operands:
            if v.node is source:
                return Value(result, None, v.guard)
        return None


def behind_views(node: Node) -> Node:
    while isinstance(node.op, View):
        (node,) = node.inputs
    return node


def absent(type: TensorType) -> Value:
    return Value(Node.make(ABSENT, (), type))


def is_number(node: Node) -> bool:
    return isinstance(node.op, Leaf) and node.op.kind in ("const", "scalar")


_NUMBERS: dict[str, int | float | bool] = {"bool": False, "int64": 0, "float64": 0.0}


def saved_by(unit: Unit, operands: tuple[Value, ...]) -> frozenset[int]:
    """Which operands (0..) and outputs (after the operands) the gradient of a unit reads."""
    nodes = (v.node for v in operands)
    stand_ins = tuple(_NUMBERS[_name(n.dtype)] if is_number(n) else Absent(n.type) for n in nodes)
    wanted = sum(1 << k for k, v in enumerate(operands) if v.edge is not None)
    return used_by_gradient(unit, stand_ins, wanted)


def _name(dtype: DType) -> str:
    return dtype.name
