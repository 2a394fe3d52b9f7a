"""Gradients out of compiled programs: a whole program as one node of the tape.

The results of a program that still need their graph belong to one `ProgramNode` per call.  Eager
mode would have put a run of nodes on the tape, with consecutive numbers; so whatever flows into
one of them from outside has arrived before the first of them is visited, and the gradient of all
of them is one program too.  That program is worked out when it is first needed, for the results
that have a gradient then, and kept with the path.

Contributions to a tensor outside are added from left to right, as in eager mode: where the program
makes several of them, what has arrived before is an operand of it.

What is saved: what the tape of eager mode would save (see `keeping`).
"""

from __future__ import annotations

import threading
from dataclasses import replace as replace_fields
from typing import Any

import numpy as np

from dualgrad.backends.common import Bound
from dualgrad.compiler.ir.dims import Atom, Guard, ShapeEnv, shape_env
from dualgrad.compiler.ir.node import Graph, Leaf, Node, input_node, replace
from dualgrad.compiler.ir.types import Layouts, TensorType
from dualgrad.gradients.flow import Flow, Reach
from dualgrad.gradients.tape import Edge as TapeEdge
from dualgrad.gradients.tape import TapeNode, changed_error, edge_of, freed_error, next_number
from dualgrad.jit.alias import Source
from dualgrad.jit.keeping import Kept, keeping, leaves_of
from dualgrad.jit.tape import Arrival, Edge, FlowBack, Step, Tape, Value
from dualgrad.runtime.errors import GradientError
from dualgrad.runtime.records import dataclass, field
from dualgrad.staging import Executable, compile_traced
from dualgrad.tensor import Tensor

Array = np.ndarray[Any, Any]
MAX_LAYOUTS = 8  # programs for operands of various strides; then they are made contiguous
MAX_SIZES = 1000  # for which a program is kept bound
Sized = tuple[Bound, list[TensorType]]
_lock = threading.RLock()


@dataclass
class Variant:
    """The gradient program for one pattern of results that have a gradient."""

    executable: Executable | None  # None: there is nothing to compute
    guards: tuple[Guard, ...]  # about symbolic sizes
    held: tuple[int, ...]  # numbers of the saved arrays that it takes, after seeds and totals
    scalars: tuple[int, ...]
    watched: tuple[int, ...]  # numbers of the versions that must not have changed
    visited: int  # steps, as bits
    results: tuple[tuple[int, int, bool, int], ...]  # see `_send`
    inner: Block | None  # the gradient's own tape
    devices: tuple[str, ...]  # of what the program makes
    origins: tuple[Any, ...] = ()
    released: int = 0  # those of them whose graph the function itself has freed
    bounds: dict[tuple[int, ...], Sized] = field(default_factory=dict)

    def bound(self, values: dict[Atom, int]) -> Sized:
        """The program for these sizes, and the types of what it makes."""
        assert self.executable is not None
        key = tuple(values.values())
        found = self.bounds.get(key)
        if found is None:
            if len(self.bounds) >= MAX_SIZES:
                self.bounds.clear()
            bound = self.executable.bind(values)
            sized = zip(bound.outputs, self.devices, strict=True)
            found = (bound, [TensorType(shape, dtype, False, at) for (shape, dtype), at in sized])
            self.bounds[key] = found
        return found


class Block:
    """What all calls of a differentiable program share.

    slots      results of steps that gradients can arrive at: the program's results first, then
               those that a gradient's own gradient flows to
    targets    where gradients go: ("input", number) or ("output", number) of the program, or
               ("view", number), which `ProgramNode.aim` says later
    kept       where saved values are found, and which versions they show
    """

    def __init__(
        self,
        name: str,
        tape: Tape,
        slots: list[Edge],
        targets: tuple[tuple[str, int], ...],
        kept: Kept,
        layouts: Layouts,
        scalars: tuple[Node, ...],
        sources: tuple[Source, ...] = (),
    ) -> None:
        names = (*targets, *kept.guards, *kept.places)
        used = sorted({k for kind, k in names if kind == "input"}) if sources else []
        self.sources = [sources[k] for k in used]  # of the tensors that `record` takes
        self.used = used
        place = {k: n for n, k in enumerate(used)}
        self._edges, self._watched = (
            [
                (kind == "input", place[k] if kind == "input" else -1 if kind == "view" else k)
                for kind, k in names
            ]
            if sources
            else []
            for names in (targets, kept.guards)
        )
        self._held = [
            (p.kind == "input", place[p.number] if sources and p.kind == "input" else p.number)
            for p in kept.places
        ]
        self.name, self.tape, self.targets, self.kept = name, tape, targets, kept
        self.scalars = scalars
        self.slots: list[Edge] = []
        self.slot_of: dict[Edge, int] = {}
        self.types: list[TensorType] = []
        for edge in slots:
            self.slot(edge)
        self.layouts: Layouts = tuple(
            layouts[p.number] if p.kind == "input" else None for p in kept.places
        )
        self.several = tuple(k for k, n in enumerate(tape.uses()) if n > 1)
        self.first_use = tape.first_uses()
        self.everything = (1 << len(tape.steps)) - 1
        self.variants: dict[tuple[Any, ...], list[Variant]] = {}

    def slot(self, edge: Edge) -> int:
        """The number of a step's result among the slots."""
        found = self.slot_of.get(edge)
        if found is None:
            with _lock:
                found = self.slot_of.setdefault(edge, len(self.slots))
                if found == len(self.slots):
                    self.types.append(self.tape.steps[edge[0]].types[edge[1]])
                    self.slots.append(edge)
        return found

    def name_of(self, slot: int) -> str:
        return self.tape.steps[self.slots[slot][0]].unit.name

    def record(
        self,
        taken: list[Tensor],
        made: list[Tensor],
        outputs: list[Array],
        scalars: tuple[float, ...],
        values: dict[Atom, int],
    ) -> ProgramNode:
        """A call on the tape: the tensors at its sources, the tensors it made, all arrays that
        the program made, the numbers that it took, and the sizes."""
        edges: list[Any] = []
        for outside, k in self._edges:
            if k < 0:
                edges.append(None)  # see `ProgramNode.aim`
                continue
            x = taken[k] if outside else made[k]
            edges.append(x if x._grad_fn is None else (x.grad_fn, x.output_number))
        versions = [(taken if outside else made)[k]._version for outside, k in self._watched]
        held = [taken[k].array if outside else outputs[k] for outside, k in self._held]
        return ProgramNode(self, tuple(edges), held, versions, scalars, values)


class ProgramNode(TapeNode):
    """One call of a differentiable program on the tape."""

    __slots__ = ("block", "expected", "first", "freed", "held", "scalars", "values", "watched")

    takes_slices = False

    def __init__(
        self,
        block: Block,
        edges: tuple[TapeEdge, ...],
        held: list[Any],
        watched: list[list[Any]],
        scalars: tuple[float, ...],
        values: dict[Atom, int],
    ) -> None:
        self.block, self.edges, self.held, self.watched = block, edges, held, watched
        self.expected = [v[0] for v in watched]
        self.scalars, self.values = scalars, values
        self.number, self.place = next_number(), None
        self.types = block.types  # type: ignore[assignment]
        self.freed, self.released = 0, False
        # Targets that are one computed tensor under several names, as the first of them.
        self.first: tuple[int, ...] = ()
        inner = [e for e in edges if e.__class__ is tuple]
        if len(inner) > 1 and len(set(inner)) != len(inner):
            self.first = tuple([edges.index(e) for e in edges])

    @property
    def name(self) -> str:
        return self.block.name

    def aim(self, target: int, leaf: Tensor) -> None:
        """Let a target be a leaf that has been made after the program has run."""
        self.edges = (*self.edges[:target], leaf, *self.edges[target + 1 :])

    def name_of(self, output: int) -> str:
        return self.block.name_of(output)

    def push(self, flow: Flow, slots: list[Tensor | None], retain: bool) -> None:
        self._visit(flow, slots, retain, -1)

    def push_marked(
        self, flow: Flow, slots: list[Tensor | None], retain: bool, marks: frozenset[int]
    ) -> None:
        """The same in parts: where a result is hooked or asked for, its gradient is seen before
        the step that made it is visited, as in eager mode."""
        places = sorted([(self.block.slots[k], k) for k in marks], reverse=True)
        for (step, _), k in places:
            self._visit(flow, slots, retain, step)
            slots[k] = flow.marked(self, k, slots[k])
        self._visit(flow, slots, retain, -1)

    def leads_to(self, reach: Reach) -> bool:
        return self in reach.slots or super().leads_to(reach)

    def first_use(self, edge: int) -> int:
        return self.block.first_use[edge]

    def _visit(self, flow: Flow, slots: list[Tensor | None], retain: bool, until: int) -> None:
        """Visit the steps behind `until` that gradients have arrived at; what flows to others is
        found in `slots` then."""
        block = self.block
        places = [block.slots[k][0] for k, g in enumerate(slots) if g is not None]
        if not places or max(places) <= until:
            return
        if self.released:
            raise freed_error(block.tape.steps[max(places)].unit.name)
        operands = self._operands(flow, slots)
        if not flow.create_graph:
            self._limit_layouts(operands)
        variant = self._variant(operands, flow, until)
        trouble = self._trouble(variant)
        if trouble is not None:
            # The steps before it have sent their gradients when eager mode finds out.
            variant = self._variant(operands, flow, trouble[0])
        outputs: list[Array] = []
        types: list[TensorType] = []
        if variant.executable is not None:
            bound, types = variant.bound(self.values)
            arrays: list[Any] = [t.array for _, t in operands]
            arrays += [self.held[k] for k in variant.held]
            outputs = bound.run(arrays, tuple([self.scalars[k] for k in variant.scalars]))
        slots[:] = [
            g if block.slots[k][0] <= until else None
            for k, g in enumerate([*slots, *[None] * (len(block.slots) - len(slots))])
        ]
        self._send(flow, variant, operands, outputs, types, slots)
        if not retain:
            self._free(variant.visited)
        if trouble is not None:
            raise trouble[1]

    def _operands(self, flow: Flow, slots: list[Tensor | None]) -> list[tuple[Any, Tensor]]:
        """Seeds, and what has arrived before where contributions are added to it, by name."""
        block, edges = self.block, self.edges
        operands: list[tuple[Any, Tensor]] = [
            (("seed", k), g) for k, g in enumerate(slots) if g is not None
        ]
        several = tuple(range(len(edges))) if flow.create_graph else block.several
        if self.first:
            several = tuple(sorted(set(self.first)))
        for k in several:
            old = flow.total(edges[k])
            if old is not None:
                operands.append((("old", k), old))
        return operands

    def _limit_layouts(self, operands: list[tuple[Any, Tensor]]) -> None:
        """Copy operands whose strides would need one program more for each size."""
        if self.values or len(self.block.variants) > MAX_LAYOUTS:
            for k, (name, t) in enumerate(operands):
                if t.layout is not None and max(t.layout) > 1:
                    operands[k] = (name, t.contiguous())

    def _variant(self, operands: list[tuple[Any, Tensor]], flow: Flow, until: int) -> Variant:
        """The program for these operands; it stops before step `until`."""
        create = flow.create_graph
        leaves: frozenset[int] | None = None
        if create:
            leaves = frozenset([k for k, e in enumerate(self.edges) if isinstance(e, Tensor)])
        key = (
            *[(n, t.layout, create and t.requires_grad) for n, t in operands],
            leaves,
            self.first,
            None if flow.reach is None else self._goal(flow.reach),
            until,
        )
        for variant in self.block.variants.get(key, ()):
            if not variant.guards or all(g.holds(self.values) for g in variant.guards):
                return variant
        return _derive(self, key, operands)

    def _goal(self, reach: Reach) -> tuple[frozenset[int], frozenset[Edge]]:
        """The targets and results of steps at which gradients are wanted."""
        targets = (k for k, e in enumerate(self.edges) if e is not None and reach.has(e))
        slots = (self.block.slots[k] for k in reach.slots.get(self, ()))
        return frozenset(targets), frozenset(slots)

    def _trouble(self, variant: Variant) -> tuple[int, GradientError] | None:
        """The first step at which eager mode finds that what it reads is gone or has changed."""
        steps = self.block.tape.steps
        freed = (self.freed & variant.visited | variant.released).bit_length() - 1
        changed = [k for k in variant.watched if self.watched[k][0] != self.expected[k]]
        if changed:
            guards = self.block.kept.guards
            where = {guards[k]: k for k in changed}
            for number in range(len(steps) - 1, freed, -1):
                if variant.visited >> number & 1:
                    for v in steps[number].saved:
                        if v.guard in where:
                            k, step = where[v.guard], steps[number]
                            name, type = step.unit.name, v.node.type
                            then, now = self.expected[k], self.watched[k]
                            return number, changed_error(name, step.place, type, then, now)
        return None if freed < 0 else (freed, freed_error(steps[freed].unit.name))

    def _send(
        self,
        flow: Flow,
        variant: Variant,
        operands: list[tuple[Any, Tensor]],
        outputs: list[Array],
        types: list[TensorType],
        slots: list[Tensor | None],
    ) -> None:
        """Hand gradients over.

        Of each: the target (or -1 - a slot), the number of an output (or -1 - the number of an
        operand that is passed on), whether it includes what had arrived before, and its slot in
        the gradient's own tape, or -1.
        """
        node = None
        if variant.inner is not None:
            node = self._inner_node(variant, operands, outputs)
        made: list[tuple[int, bool, Tensor]] = []
        for target, source, total, slot in variant.results:
            if source < 0:
                made.append((target, total, operands[-1 - source][1]))
                continue
            g = Tensor.of_array(outputs[source], types[source], None)
            if slot >= 0:
                g.requires_grad, g.grad_fn, g.output_number = True, node, slot
            made.append((target, total, flow.own(g)))
        for target, total, g in made:
            if target < 0:
                slots[-1 - target] = g
            elif total:
                flow.settle(self.edges[target], g)
            else:
                flow.send(self.edges[target], g)

    def _inner_node(
        self, variant: Variant, operands: list[tuple[Any, Tensor]], outputs: list[Array]
    ) -> ProgramNode:
        """The gradient program's own call on the tape."""
        block, inner = self.block, variant.inner
        assert inner is not None
        by_name = dict(operands)
        edges: list[TapeEdge] = []
        for name in variant.origins:
            if name in by_name:
                edges.append(edge_of(by_name[name]))
            elif name[0] == "target":
                edges.append(self.edges[name[1]])
            else:
                edges.append((self, block.slot(name[1])))
        place = {g: k for k, g in enumerate(block.kept.guards)}
        versions = [
            by_name[g]._version if g in by_name else self.watched[place[g[1]]]
            for g in inner.kept.guards
        ]
        inputs = [*[t.array for _, t in operands], *self.held]
        held = [(inputs if p.kind == "input" else outputs)[p.number] for p in inner.kept.places]
        return ProgramNode(inner, tuple(edges), held, versions, self.scalars, self.values)

    def _free(self, visited: int) -> None:
        """Forget what no step needs any more."""
        self.freed |= visited
        block = self.block
        if self.freed == block.everything:
            self.released = True
            self.edges = ()
            self.held = self.watched = self.expected = []
            return
        for k, users in enumerate(block.kept.users):
            if not users & ~self.freed:
                self.held[k] = None


# -- working out gradient programs ---------------------------------------------------------------


def _derive(node: ProgramNode, key: tuple[Any, ...], operands: list[tuple[Any, Tensor]]) -> Variant:
    *_, leaves, first, goal, until = key
    block = node.block
    with _lock:
        known = block.variants.setdefault(key, [])
        for variant in known:
            if all(g.holds(node.values) for g in variant.guards):
                return variant
        env = ShapeEnv(node.values)
        with shape_env(env):
            parts = None if goal is None else block.tape.goal(*goal)
            way = FlowBack(block.tape, leaves is not None, leaves or frozenset(), first, parts)
            variant = _Derivation(block, operands, way, until).variant()
        variant.guards = tuple(env.guards)
        known.append(variant)
    return variant


class _Derivation:
    """Works out one variant."""

    def __init__(
        self,
        block: Block,
        operands: list[tuple[Any, Tensor]],
        flow: FlowBack,
        until: int,
    ) -> None:
        self.block, self.operands, self.flow = block, operands, flow
        self.stand_ins: list[Node] = []
        for name, t in operands:
            self._start(name, t)
        self.flow.run(until)

    def _start(self, name: tuple[str, int], t: Tensor) -> None:
        kind, k = name
        flow, block = self.flow, self.block
        node = Node.make(Leaf(kind, k), (), self._origin_type(name))
        self.stand_ins.append(node)
        edge = flow.outside(name) if flow.record and t.requires_grad else None
        value = Value(node, edge, name)
        if kind == "seed":
            flow.send(block.slots[k], value)
        else:
            flow.arrived[k] = Arrival(value, True)

    def _origin_type(self, name: tuple[str, Any]) -> TensorType:
        """The type of what stands outside of the gradient's own tape."""
        kind, which = name
        tape = self.block.tape
        out: TensorType
        if kind == "seed":
            out = self.block.types[which]
        elif kind == "inner":
            out = tape.steps[which[0]].types[which[1]]
        else:
            out = tape.targets[which]
        return out

    def variant(self) -> Variant:
        flow, block = self.flow, self.block
        arrived = [(k, a) for k, a in sorted(flow.arrived.items()) if not self._untouched(a)]
        arrived += self._waiting()
        passed = {s: -1 - n for n, s in enumerate(self.stand_ins)}
        roots: list[Node] = []
        results = []
        for k, a in arrived:
            source = passed.get(a.value.node) if not a.total else None
            if source is None:
                source = len(roots)
                roots.append(a.value.node)
            results.append((k, source, a.total, a.value.edge))
        steps = block.tape.steps
        watched = {v.guard for n in flow.visited for v in steps[n].saved}
        released = sum(1 << n for n in flow.visited if steps[n].released)
        inner = self._inner(roots) if flow.steps and roots else None
        executable, held, scalars = self._program(roots, inner)
        devices = tuple(n.device for n in (*roots, *(self.kept_nodes if inner else ())))
        return Variant(
            executable,
            (),
            held,
            scalars,
            tuple(k for k, g in enumerate(block.kept.guards) if g in watched),
            sum(1 << n for n in flow.visited),
            tuple(
                (
                    k,
                    source,
                    total,
                    -1
                    if inner is None or not edge or edge[0] < 0 or source < 0
                    else inner.slot(edge),
                )
                for k, source, total, edge in results
            ),
            inner,
            devices,
            tuple(flow.origins),
            released,
        )

    def _waiting(self) -> list[tuple[int, Arrival]]:
        """What has arrived at steps that are not visited, by -1 - slot."""
        seeds = {name: n for (name, _), n in zip(self.operands, self.stand_ins, strict=True)}
        out = []
        for step, values in sorted(self.flow.waiting.items()):
            for k, v in enumerate(values):
                slot = self.block.slot((step, k)) if v is not None else 0
                if v is not None and v.node is not seeds.get(("seed", slot)):
                    out.append((-1 - slot, Arrival(v, False)))
        return out

    def _untouched(self, a: Arrival) -> bool:
        op = a.value.node.op
        return a.total and isinstance(op, Leaf) and op.kind == "old"

    def _program(
        self, roots: list[Node], inner: Block | None
    ) -> tuple[Executable | None, tuple[int, ...], tuple[int, ...]]:
        block = self.block
        if not roots:
            return None, (), ()
        outputs = tuple(roots)
        if inner is not None:
            outputs += tuple(self.kept_nodes)
        cut = {n: k for k, n in enumerate(block.kept.nodes)}
        found = leaves_of(outputs, {*cut, *self.stand_ins})
        held = tuple(sorted({cut[n] for n in found if n in cut}))
        scalars = tuple(k for k, n in enumerate(block.scalars) if n in found)
        change = {n: k for k, n in enumerate(self.stand_ins)}
        change |= {block.kept.nodes[i]: len(self.stand_ins) + k for k, i in enumerate(held)}
        inputs = {n: input_node(k, _strong(n.type)) for n, k in change.items()}
        numbers = {
            block.scalars[i]: Node.make(Leaf("scalar", k), (), block.scalars[i].type)
            for k, i in enumerate(scalars)
        }
        graph = Graph(
            tuple(inputs.values()), tuple(numbers.values()), replace(outputs, inputs | numbers)
        )
        layouts = (*[t.layout for _, t in self.operands], *[block.layouts[i] for i in held])
        return compile_traced(graph, layouts, f"{block.name}_backward"), held, scalars

    def _inner(self, roots: list[Node]) -> Block:
        """The block of the gradient program, over its own inputs."""
        block, flow = self.block, self.flow
        sources = [*self.stand_ins, *block.kept.nodes]
        change = {n: input_node(k, _strong(n.type)) for k, n in enumerate(sources)}
        direct = {n: k for k, n in enumerate(sources)}
        guards = [name for name, _ in self.operands]
        guards += [None if g is None else ("outer", g) for g in block.kept.guard_of]
        kept = keeping(flow.steps, direct, guards, {}, len(roots))
        self.kept_nodes = kept.outputs
        values = [v.node for s in flow.steps for v in (*s.operands, *s.outputs)]
        changed = dict(zip(values, replace(tuple(values), change), strict=True))
        steps = tuple(_with_nodes(s, changed) for s in flow.steps)
        tape = Tape(steps, tuple(self._origin_type(name) for name in flow.origins))
        kept = kept.changed(lambda nodes: replace(nodes, change))
        layouts = (*[t.layout for _, t in self.operands], *block.layouts)
        targets = tuple(("origin", k) for k in range(len(flow.origins)))
        return Block(f"{block.name}_backward", tape, [], targets, kept, layouts, block.scalars)


def _strong(type: TensorType) -> TensorType:
    """The type of a tensor that a value of this type is kept in."""
    return TensorType(type.shape, type.dtype, False, type.device)


def _with_nodes(s: Step, nodes: dict[Node, Node]) -> Step:
    operands, outputs = (
        tuple(Value(nodes[v.node], v.edge, v.guard) for v in values)
        for values in (s.operands, s.outputs)
    )
    return replace_fields(s, operands=operands, outputs=outputs)
