"""Gradients on their way back over the tape.

`backward` and `gradients` visit nodes by decreasing creation number (a heap, no recursion), so
contributions to one tensor are added in decreasing creation order of their consumers; the same
code runs on traced tensors, where it writes a graph.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from dualgrad.compiler.ops.elementwise import copy
from dualgrad.gradients.hooks import (
    Hooks,
    apply_hooks,
    hooks_of_leaf,
    hooks_of_node,
    on_leaves,
    on_nodes,
    retains,
)
from dualgrad.gradients.tape import Edge, TapeNode, edge_of
from dualgrad.jit.errors import Unsupported
from dualgrad.runtime.errors import DeviceError, DTypeError, GradientError, ShapeError
from dualgrad.runtime.native.callables import Builtin
from dualgrad.state import enable_grad, no_grad, state

if TYPE_CHECKING:
    from dualgrad.tensor import Tensor

NO_MARKS: frozenset[int] = frozenset()


def backward(
    roots: Sequence[Tensor],
    seeds: Sequence[Tensor | None],
    retain_graph: bool | None,
    create_graph: bool,
    inputs: Sequence[Tensor] | None = None,
) -> None:
    """Add the gradient of the roots (weighted by the seeds) to `.grad` of every leaf behind them,
    or of the inputs alone."""
    weights = [_seed_of(x, g, "backward") for x, g in zip(roots, seeds, strict=True)]
    if inputs is None and not create_graph and state.trace is None and not state.looks_for:
        enabled = state.grad_enabled
        state.grad_enabled = False
        try:
            flow_back(tuple(roots), tuple(weights), bool(retain_graph))
        finally:
            state.grad_enabled = enabled
        return
    with enable_grad() if create_graph else no_grad():
        if inputs is None:
            Flow(create_graph).start(roots, weights).run(retain_graph)
            return
        reach = Reach(roots, inputs, "backward", collects=False)
        flow = Flow(create_graph, reach).start(roots, weights)
        flow.run(retain_graph)
        for key, x in {edge_key(edge_of(x)): x for x in inputs}.items():
            g = flow.found.get(key)
            if g is not None and not retains(x):  # which has kept it
                flow.add(x, g)


def _flow_back(roots: Sequence[Tensor], weights: Sequence[Tensor], retain: bool) -> None:
    Flow(False).start(roots, weights).run(retain)


flowing = Builtin("flow_back", _flow_back)
flow_back = flowing.call


def gradients(
    roots: Sequence[Tensor],
    inputs: Sequence[Tensor],
    seeds: Sequence[Tensor | None],
    retain_graph: bool | None,
    create_graph: bool,
) -> list[Tensor | None]:
    """The gradient of each input, None where there is none; no `.grad` changes."""
    weights = [_seed_of(x, g, "grad") for x, g in zip(roots, seeds, strict=True)]
    with enable_grad() if create_graph else no_grad():
        flow = Flow(create_graph, Reach(roots, inputs, "grad", collects=True))
        flow.start(roots, weights).run(retain_graph)
        own = {key: flow.taken(g) for key, g in flow.found.items()}
    return [own.get(edge_key(edge_of(x))) for x in inputs]


def _seed_of(root: Tensor, gradient: Tensor | None, op: str) -> Tensor:
    if not root.requires_grad:
        raise GradientError(
            "nothing to differentiate",
            op=op,
            expect="a tensor computed from one with requires_grad=True",
            actual=f"{root.type!r} with requires_grad=False",
            hint="make a parameter with requires_grad=True, outside of dg.no_grad()"
            if root.type.dtype.is_float
            else "compute with floats: integers and bools have no gradients",
        )
    if gradient is None:
        if root.shape and root.size != 1:
            name = "gradient" if op == "backward" else "grad_outputs"
            raise GradientError(
                "only a single number has a gradient without a seed",
                op=op,
                expect=f"a tensor of one element, or {name}=...",
                actual=f"shape {root.shape}",
                hint="call .sum() or .mean() first",
            )
        return root.filled_like(1.0)
    _check_seed(root, gradient, op)
    return gradient


def _check_seed(root: Tensor, gradient: Tensor, op: str) -> None:
    if getattr(gradient, "_type", None) is root._type and state.trace is None:
        return
    if gradient.shape != root.shape:
        raise ShapeError(
            "the seed has another shape",
            op=op,
            expect=f"gradient of shape {root.shape}",
            actual=f"{gradient.shape}",
            hint="use dg.ones_like(y) for y.backward(...)",
        )
    if gradient.type.device != root.type.device:
        raise DeviceError(
            "the seed is on another device",
            op=op,
            expect=root.type.device,
            actual=gradient.type.device,
            hint=f'move it with .to("{root.type.device}")',
        )
    if gradient.type.dtype is not root.type.dtype:
        raise DTypeError(
            "the seed has another dtype",
            op=op,
            expect=root.type.dtype.name,
            actual=gradient.type.dtype.name,
            hint=f"convert it with .astype(dg.{root.type.dtype.name})",
        )


def edge_key(edge: Edge) -> Any:
    """What an edge is known by: edges to one tensor have one key."""
    return edge if isinstance(edge, tuple) else id(edge)


class Reach:
    """The part of a graph through which gradients flow to some tensors.

    leaves     those of the tensors that are leaves, by id
    slots      of nodes, their results that are among the tensors
    nodes      nodes with one of the tensors behind them
    collects   whether gradients of the leaves are wanted apart from their `.grad`
    """

    def __init__(
        self, roots: Sequence[Tensor], inputs: Sequence[Tensor], op: str, collects: bool
    ) -> None:
        self.collects = collects
        self.leaves: dict[int, Tensor] = {}
        self.slots: dict[TapeNode, set[int]] = {}
        self.nodes: set[TapeNode] = set()
        for k, x in enumerate(inputs):
            edge = edge_of(x)
            if edge is None:
                raise GradientError(
                    "an input does not require gradients",
                    op=op,
                    expect="inputs with requires_grad=True",
                    actual=f"inputs[{k}] is {x.type!r} with requires_grad=False",
                    hint="make it with requires_grad=True, before it is used",
                )
            if isinstance(edge, tuple):
                self.slots.setdefault(edge[0], set()).add(edge[1])
            else:
                self.leaves[id(edge)] = edge
        for node in nodes_behind(roots):
            # What a released node comes from is not known any more: it says so when visited.
            if node.released or node.leads_to(self):
                self.nodes.add(node)

    def has(self, edge: Edge) -> bool:
        """Whether a gradient is wanted at the other end."""
        if isinstance(edge, tuple):
            node, k = edge
            return node in self.nodes or (node in self.slots and k in self.slots[node])
        return id(edge) in self.leaves

    def only(self, edges: tuple[Edge, ...]) -> tuple[Edge, ...]:
        """The edges, None in place of those where no gradient is wanted."""
        return tuple([e if self.has(e) else None for e in edges])


def nodes_behind(roots: Iterable[Tensor], first: int = 0) -> list[TapeNode]:
    """All nodes from number `first` on that tensors come from, the oldest first."""
    stack = [x.grad_fn for x in roots if x.grad_fn is not None]
    seen: set[TapeNode] = set()
    while stack:
        node = stack.pop()
        if node not in seen and node.number >= first:
            seen.add(node)
            stack += [e[0] for e in node.edges if isinstance(e, tuple)]
    return sorted(seen, key=lambda node: node.number)


class Flow:
    """Gradients on their way back; with a `reach` they go to where it says alone.

    owned    results of programs that no leaf has taken yet, by id
    held     leaves whose gradient is handed over when it is complete, and what has arrived
    due      such leaves, the last to be complete first, with when they are
    found    gradients that were asked for, by `edge_key`
    """

    def __init__(self, create_graph: bool, reach: Reach | None = None) -> None:
        self.create_graph = create_graph
        self.reach = reach
        self.waiting: dict[TapeNode, list[Tensor | None]] = {}
        self.heap: list[tuple[int, TapeNode]] = []
        self.owned: dict[int, Tensor] = {}
        self.held: dict[int, tuple[Tensor, Tensor]] = {}
        self.due: list[tuple[tuple[int, int, int], Tensor]] = []
        self.found: dict[Any, Tensor] = {}
        self.notes: dict[Any, Any] = {}  # of nodes that belong together, for this pass

    def start(self, roots: Sequence[Tensor], seeds: Sequence[Tensor]) -> Flow:
        """Let the seeds arrive at the roots."""
        if on_leaves:
            self.due = _completion(roots)
        for root, seed in zip(roots, seeds, strict=True):
            self.send(edge_of(root), seed)
        return self

    def send(self, edge: Edge, g: Tensor) -> None:
        """Add a contribution to whoever stands at the other end of an edge."""
        if edge is None or (self.reach is not None and not self.reach.has(edge)):
            return
        if not isinstance(edge, tuple):
            self.accumulate(edge, g)
            return
        node, k = edge
        slots = self.waiting.get(node)
        if slots is None:
            slots = self.waiting[node] = [None] * len(node.types)
            heapq.heappush(self.heap, (-node.number, node))
        old = slots[k]
        slots[k] = g if old is None else self._sum(old, g)

    def hand_on(
        self, edges: Sequence[Edge], cotangents: Sequence[Tensor], grads: Sequence[Tensor]
    ) -> None:
        """Send on what the gradient of a node has made of these cotangents."""
        known = {id(g) for g in cotangents}
        if self.owned:
            for gone in known.difference(map(id, grads)):
                self.owned.pop(gone, None)
        for edge, g in zip(edges, grads, strict=True):
            if id(g) not in known and g.is_own_memory:
                self.own(g)
            self.send(edge, g)

    def _sum(self, old: Tensor, g: Tensor) -> Tensor:
        owned = self.owned
        if owned:  # what has been added need not live on
            owned.pop(id(old), None)
            owned.pop(id(g), None)
        return self.own(old + g)

    def own(self, g: Tensor) -> Tensor:
        self.owned[id(g)] = g
        return g

    def taken(self, g: Tensor) -> Tensor:
        """A gradient in memory that no other tensor shares."""
        if not self.create_graph and self.owned.pop(id(g), None) is not None:
            return g
        return copy(g)  # type: ignore[no-any-return]

    def accumulate(self, leaf: Tensor, g: Tensor) -> None:
        """leaf.grad += g, now or when all of it has arrived."""
        if not leaf.requires_grad:  # any more
            return
        if self._holds(leaf):
            held = self.held.get(id(leaf))
            self.held[id(leaf)] = (leaf, g if held is None else self._sum(held[1], g))
        else:
            self.add(leaf, g)

    def _holds(self, leaf: Tensor) -> bool:
        """Whether somebody is to see the sum of all that arrives at a leaf."""
        if self.reach is not None and self.reach.collects:
            return True
        return id(leaf) in on_leaves

    def add(self, leaf: Tensor, g: Tensor) -> None:
        """leaf.grad += g, in memory that no other tensor shares."""
        old = leaf.grad
        if old is None:
            leaf.grad = self.taken(g)
        else:
            leaf.grad = old + g
            self.owned.pop(id(g), None)

    def total(self, edge: Edge) -> Tensor | None:
        """What has arrived at the other end of an edge so far."""
        if edge is None:
            return None
        if not isinstance(edge, tuple):
            if self._holds(edge):
                held = self.held.get(id(edge))
                return None if held is None else held[1]
            return edge.grad
        slots = self.waiting.get(edge[0])
        return None if slots is None else slots[edge[1]]

    def settle(self, edge: Edge, total: Tensor) -> None:
        """Replace what has arrived at the other end of an edge."""
        if not isinstance(edge, tuple):
            assert edge is not None
            if self._holds(edge):
                self.held[id(edge)] = (edge, total)
            else:
                edge.grad = total
        elif self.total(edge) is None:
            self.send(edge, total)
        else:
            self.waiting[edge[0]][edge[1]] = total

    def run(self, retain_graph: bool | None) -> None:
        """Visit nodes until no gradient waits; they are released unless `retain_graph`, which is
        `create_graph` if None."""
        retain = self.create_graph if retain_graph is None else retain_graph
        while self.heap:
            node = heapq.heappop(self.heap)[1]
            if self.due:
                self._hand_over(node.number)
            marks = self._marks(node) if on_nodes or self.reach is not None else NO_MARKS
            slots = self.waiting.pop(node)
            if state.trace is not None:
                self._check_inside(node)
                _check_whole(node, slots)
            if marks:
                node.push_marked(self, slots, retain, marks)
            else:
                node.push(self, slots, retain)
        self._hand_over(-1)

    def _check_inside(self, node: TapeNode) -> None:
        """Refuse to follow a graph from outside of a function that is traced."""
        assert state.trace is not None
        asked = self.reach is not None and self.reach.collects
        first = state.trace.first_asked if asked else state.trace.first_node
        if node.number < first and (self.goes_on(node) or id(node) in on_nodes):
            raise Unsupported(
                "a gradient flows into a graph from outside of the function",
                op=node.name,
                hint="call backward() outside of the function, or detach() what comes in",
            )

    def goes_on(self, node: TapeNode) -> bool:
        """Whether gradients flow through a node, not just to its results."""
        return self.reach is None or node in self.reach.nodes

    def _marks(self, node: TapeNode) -> frozenset[int]:
        """The results of a node whose gradients are for somebody to see."""
        hooked = hooks_of_node(node)
        asked = () if self.reach is None else self.reach.slots.get(node, ())
        return frozenset((*hooked, *asked)) if hooked or asked else NO_MARKS

    def marked(self, node: TapeNode, k: int, g: Tensor | None) -> Tensor | None:
        """The gradient of a result after its hooks; it is kept if it was asked for."""
        g = self._hooked(hooks_of_node(node).get(k), g)
        if g is not None and self.reach is not None and k in self.reach.slots.get(node, ()):
            if self.goes_on(node):
                self.owned.pop(id(g), None)
            self.found[node, k] = g
        return g

    def _hand_over(self, number: int) -> None:
        """Give leaves their gradients if all has arrived that comes from later nodes; at the end,
        all leaves."""
        while self.due and self.due[-1][0][0] > number:
            held = self.held.pop(id(self.due.pop()[1]), None)
            if held is not None:
                self._complete(*held)
        if number < 0:
            for leaf, g in self.held.values():
                self._complete(leaf, g)
            self.held.clear()

    def _complete(self, leaf: Tensor, g: Tensor) -> None:
        before, after = hooks_of_leaf(leaf) or ({}, {})
        new = self._hooked(before, g)
        assert new is not None
        if self.reach is not None and self.reach.collects:
            self.found[id(leaf)] = new
            return
        self.add(leaf, new)
        for hook in list(after.values()):
            hook(leaf)

    def _hooked(self, hooks: Hooks | None, g: Tensor | None) -> Tensor | None:
        """A gradient after the hooks, which may keep it: it is nobody's own any more."""
        if g is None or not hooks:
            return g
        self.owned.pop(id(g), None)
        found = apply_hooks(hooks, apart(g))
        self.owned.pop(id(found), None)
        return found  # type: ignore[no-any-return]


def apart(g: Tensor) -> Tensor:
    """A gradient that the user's code may change in place: not a view that some gradient has made
    of another, which would change too, or cannot be written.  Traced ones are values."""
    is_view = g.origin is not None and g.origin[1] is None
    return copy(g) if is_view else g


def _check_whole(node: TapeNode, slots: list[Tensor | None]) -> None:
    """Refuse to give a node slices that it cannot take."""
    if node.takes_slices:
        return
    if any(g is not None and g.owner is state.trace for g in slots):
        raise Unsupported(
            "a gradient that differs between slices flows into a graph from outside of vmap",
            op=node.name,
            hint="dg.vjp(f, x) gives a function that can be mapped over, whatever f is made of",
        )


def _completion(roots: Sequence[Tensor]) -> list[tuple[tuple[int, int, int], Tensor]]:
    """Leaves with hooks, and when their gradients are complete: after the visit of the first node
    that reads them.  The last to be complete come first."""
    first: dict[int, tuple[tuple[int, int, int], Tensor]] = {}
    for node in nodes_behind(roots):
        for k, edge in enumerate(node.edges):
            if edge is None or isinstance(edge, tuple) or id(edge) in first:
                continue
            if id(edge) in on_leaves:
                first[id(edge)] = ((node.number, node.first_use(k), -k), edge)
    return sorted(first.values(), key=lambda item: item[0])
