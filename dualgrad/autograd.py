"""The tape: what was computed from what, and how gradients flow back.

Each unit that ran on a tensor requiring gradients leaves a `TapeNode`.  `backward` visits nodes
by decreasing creation number (a heap, no recursion), so contributions to one tensor are added in
decreasing creation order of their consumers; the same code runs on traced tensors, where it
writes a graph.  A node keeps only the operands and results that its gradient reads.
"""

from __future__ import annotations

import heapq
import itertools
from typing import TYPE_CHECKING, Any, Final, Union

from dualgrad.compiler.grad import Vjp
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import Unit, apply
from dualgrad.compiler.ops.elementwise import copy
from dualgrad.dispatch import used_by_gradient
from dualgrad.hooks import Hooks, apply_hooks, hooks_of_leaf, on_leaves, on_nodes
from dualgrad.jit.errors import Unsupported
from dualgrad.runtime.errors import DeviceError, DTypeError, GradientError, ShapeError
from dualgrad.runtime.srcinfo import Location, Place, user_place
from dualgrad.state import enable_grad, no_grad, state

if TYPE_CHECKING:
    from dualgrad.tensor import Tensor

Edge = Union[None, "Tensor", tuple["TapeNode", int]]
Saves = dict[int, frozenset[int]]  # what a gradient reads, by the operands that want one, as bits
NUMBERS = 1 << 40  # of the views of a tensor that get their history from one node
_numbers = itertools.count(step=NUMBERS)
next_number = _numbers.__next__


class Absent:
    """Stands for an operand that a gradient does not read: its type alone."""

    __slots__ = ("type",)

    array = None
    layout = None
    requires_grad = False

    def __init__(self, type: TensorType) -> None:
        self.type = type

    @property
    def sig(self) -> TensorType:
        return self.type


class Stale:
    """Stands for the history of a view whose memory has been changed since: the tensor behind it
    has a new one, of which the view's is made when it is asked for (see `rewriting`)."""

    __slots__ = ()

    released = False


STALE: Final = Stale()


class TapeNode:
    """One recorded unit."""

    __slots__ = (
        "__weakref__", "edges", "inputs", "number", "outputs", "place", "released", "types",
        "unit", "versions",
    )  # fmt: skip

    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    place: Place | None  # the user's line of the forward pass

    def __init__(
        self,
        unit: Unit,
        operands: tuple[Any, ...],
        outputs: tuple[Tensor, ...],
        known: Saves,
    ) -> None:
        self.unit = unit
        self.place = user_place()
        self.number = next_number()
        self.released = False
        self.types = tuple([o.type for o in outputs])
        edges: list[Edge] = []
        wanted, bit = 0, 1
        for x in operands:
            edge = edge_of(x) if hasattr(x, "sig") else None
            if edge is not None:
                wanted |= bit
            edges.append(edge)
            bit += bit
        saves = known.get(wanted)
        if saves is None:
            saves = known[wanted] = used_by_gradient(unit, operands, wanted)
        kept: list[Any] = []
        versions: list[int] = []
        for k, x in enumerate(operands):
            saved = k in saves
            kept.append(x if saved or not hasattr(x, "sig") else Absent(x.type))
            versions.append(x._version[0] if saved and hasattr(x, "sig") else 0)
        self.edges = tuple(edges)
        self.inputs = tuple(kept)
        n = len(operands)
        self.outputs = tuple(
            [o.detached() if n + k in saves else Absent(o.type) for k, o in enumerate(outputs)]
        )
        self.versions = (*versions, *[getattr(o, "version", 0) for o in self.outputs])

    @property
    def name(self) -> str:
        return self.unit.name

    def operands(self, create_graph: bool) -> tuple[Any, ...]:
        """Inputs and outputs as the gradient reads them; GradientError if they are gone."""
        if self.released:
            raise freed_error(self.name)
        for x, version in zip((*self.inputs, *self.outputs), self.versions, strict=True):
            if hasattr(x, "version") and x.version != version:
                raise changed_error(self.name, self.place, x.type, version, x._version)
        if not create_graph:
            return (*self.inputs, *self.outputs)
        outputs = tuple(
            o if isinstance(o, Absent) else o.with_history(self, k)
            for k, o in enumerate(self.outputs)
        )
        return (*self.inputs, *outputs)

    def push(self, flow: Flow, slots: list[Tensor | None], retain: bool) -> None:
        """Send gradients on to the operands, given those of the results.

        The node is released unless `retain`.
        """
        given = tuple(g is not None for g in slots)
        wanted = tuple(e is not None for e in self.edges)
        operands = self.operands(flow.create_graph)
        cotangents = tuple(g for g in slots if g is not None)
        edges = [e for e in self.edges if e is not None]
        gradients = apply(Vjp.of(self.unit, given, wanted), *cotangents, *operands)
        known = {id(g) for g in cotangents}
        if not retain:
            self.release()
        for edge, g in zip(edges, gradients, strict=True):
            if id(g) not in known and g.is_own_memory:
                flow.own(g)
            flow.send(edge, g)

    def push_hooked(
        self, flow: Flow, slots: list[Tensor | None], retain: bool, hooks: dict[int, Hooks]
    ) -> None:
        """The same for a node whose results have hooks."""
        for k, found in hooks.items():
            slots[k] = flow.hooked(found, slots[k])
        self.push(flow, slots, retain)

    def name_of(self, output: int) -> str:
        """What made one of the results."""
        return self.name

    def release(self) -> None:
        """Forget what was saved."""
        self.released = True
        self.inputs = self.outputs = self.edges = ()
        self.versions = ()


def freed_error(op: str) -> GradientError:
    return GradientError(
        "the graph has been freed by an earlier backward",
        op=op,
        expect="one backward per forward",
        actual="a second one",
        hint="pass retain_graph=True to the first",
    )


def changed_error(
    op: str, place: Place | None, type: TensorType, version: int, now: list[Any]
) -> GradientError:
    """The error of a saved tensor that has been changed: `place` is the line that saved it, then
    at `version`; `now` is its version record."""
    times = now[0] - version
    return GradientError(
        "a tensor that the gradient needs has been changed in place",
        op=op,
        expect=f"the {type!r} tensor as it was when it was used{_line(place)}",
        actual=f"{times} in-place change{'s' * (times != 1)} since, the last{_line(now[2])}",
        hint="change a copy (clone() it first), or change it after backward",
    )


def _line(place: Place | None) -> str:
    """A line of the user's program, below the text that speaks of it."""
    if place is None:
        return " at an unknown line"
    where = Location.of_place(place)
    text = where.render().split("\n", 2)[:2]
    return "\n" + "\n".join(f"  {line}" for line in text)


class FreedNode(TapeNode):
    """What made a result whose graph an earlier backward has freed."""

    __slots__ = ("_name",)

    def __init__(self, name: str, type: TensorType) -> None:
        self._name = name
        self.place = None
        self.number = next_number()
        self.types = (type,)
        self.release()

    @property
    def name(self) -> str:
        return self._name


def edge_of(x: Any) -> Edge:
    """Where the gradient of an operand goes."""
    if not x.requires_grad:
        return None
    node = x._grad_fn
    if node is None:
        return x  # type: ignore[no-any-return]
    if node is STALE and (node := x.grad_fn) is None:
        return x if x.requires_grad else None
    return (node, x.output_number)


def saves_of(unit: Unit, operands: tuple[Any, ...], known: Saves) -> frozenset[int]:
    """What the gradient of a unit reads: numbers of operands, then of outputs."""
    wanted = sum(1 << k for k, x in enumerate(operands) if getattr(x, "requires_grad", False))
    saves = known.get(wanted)
    if saves is None:
        saves = known[wanted] = used_by_gradient(unit, operands, wanted)
    return saves


def record(
    unit: Unit, operands: tuple[Any, ...], outputs: tuple[Tensor, ...], known: Saves
) -> None:
    """Put a unit on the tape; `known` is what is known of its gradient on such operands."""
    node = TapeNode(unit, operands, outputs, known)
    passes = unit.__class__ is Vjp  # may return an operand, which keeps its own history
    for k, o in enumerate(outputs):
        if o._type.dtype.is_float and not o.requires_grad:
            if passes and any(o is x for x in operands):
                continue
            o.requires_grad = True
            o._grad_fn, o.output_number = node, k


def backward(root: Tensor, gradient: Tensor | None, retain_graph: bool, create_graph: bool) -> None:
    """Add the gradient of `root` (weighted by `gradient`) to `.grad` of every leaf behind it."""
    if not root.requires_grad:
        raise GradientError(
            "nothing to differentiate",
            op="backward",
            expect="a tensor computed from one with requires_grad=True",
            actual=f"{root.type!r} with requires_grad=False",
            hint="make a parameter with requires_grad=True, outside of dg.no_grad()",
        )
    seed = seed_of(root, gradient)
    with enable_grad() if create_graph else no_grad():
        flow = Flow(create_graph)
        flow.send(edge_of(root), seed)
        flow.run(retain_graph)


def seed_of(root: Tensor, gradient: Tensor | None) -> Tensor:
    if gradient is None:
        if root.shape and root.size != 1:
            raise GradientError(
                "only a single number has a gradient without a seed",
                op="backward",
                expect="a tensor of one element, or gradient=...",
                actual=f"shape {root.shape}",
                hint="call .sum() or .mean() first",
            )
        return root.filled_like(1.0)
    if gradient.shape != root.shape:
        raise ShapeError(
            "the seed has another shape",
            op="backward",
            expect=f"gradient of shape {root.shape}",
            actual=f"{gradient.shape}",
            hint="use dg.ones_like(y) for y.backward(...)",
        )
    if gradient.type.device != root.type.device:
        raise DeviceError(
            "the seed is on another device",
            op="backward",
            expect=root.type.device,
            actual=gradient.type.device,
            hint=f'move it with .to("{root.type.device}")',
        )
    if gradient.type.dtype is not root.type.dtype:
        raise DTypeError(
            "the seed has another dtype",
            op="backward",
            expect=root.type.dtype.name,
            actual=gradient.type.dtype.name,
            hint=f"convert it with .astype(dg.{root.type.dtype.name})",
        )
    return gradient


class Flow:
    """Gradients on their way back."""

    def __init__(self, create_graph: bool) -> None:
        self.create_graph = create_graph
        self.waiting: dict[TapeNode, list[Tensor | None]] = {}
        self.heap: list[tuple[int, TapeNode]] = []
        self.owned: set[int] = set()  # results of programs that no leaf has taken yet
        self.kept: list[Tensor] = []
        self.held: dict[int, tuple[Tensor, Tensor]] = {}  # leaves with hooks, and their gradients

    def send(self, edge: Edge, g: Tensor) -> None:
        """Add a contribution to whoever stands at the other end of an edge."""
        if edge is None:
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
        slots[k] = g if old is None else self.own(old + g)

    def own(self, g: Tensor) -> Tensor:
        self.owned.add(id(g))
        self.kept.append(g)
        return g

    def accumulate(self, leaf: Tensor, g: Tensor) -> None:
        """leaf.grad += g, in memory that no other tensor shares."""
        if not leaf.requires_grad:  # any more
            return
        if on_leaves and hooks_of_leaf(leaf) is not None:
            held = self.held.get(id(leaf))
            self.held[id(leaf)] = (leaf, g if held is None else self.own(held[1] + g))
        else:
            self._add(leaf, g)

    def _add(self, leaf: Tensor, g: Tensor) -> None:
        old = leaf.grad
        if old is not None:
            leaf.grad = old + g
            return
        if id(g) in self.owned and not self.create_graph:
            self.owned.discard(id(g))
            leaf.grad = g
        else:
            leaf.grad = copy(g)

    def total(self, edge: Edge) -> Tensor | None:
        """What has arrived at the other end of an edge so far."""
        if edge is None:
            return None
        if not isinstance(edge, tuple):
            if on_leaves and hooks_of_leaf(edge) is not None:
                held = self.held.get(id(edge))
                return None if held is None else held[1]
            return edge.grad
        slots = self.waiting.get(edge[0])
        return None if slots is None else slots[edge[1]]

    def settle(self, edge: Edge, total: Tensor) -> None:
        """Replace what has arrived at the other end of an edge."""
        if not isinstance(edge, tuple):
            assert edge is not None
            if on_leaves and hooks_of_leaf(edge) is not None:
                self.held[id(edge)] = (edge, total)
            else:
                edge.grad = total
        elif self.total(edge) is None:
            self.send(edge, total)
        else:
            self.waiting[edge[0]][edge[1]] = total

    def run(self, retain_graph: bool) -> None:
        while self.heap:
            node = heapq.heappop(self.heap)[1]
            if state.trace is not None and node.number < state.trace.first_node:
                raise Unsupported(
                    "a gradient flows into a graph from outside of the function",
                    op=node.name,
                    hint="call backward() outside of the function, or detach() what comes in",
                )
            slots = self.waiting.pop(node)
            retain = retain_graph or self.create_graph
            if on_nodes and (found := on_nodes.get(node)) is not None:
                node.push_hooked(self, slots, retain, found)
            else:
                node.push(self, slots, retain)
        for leaf, g in self.held.values():
            new = self.hooked(hooks_of_leaf(leaf) or {}, g)
            assert new is not None
            self._add(leaf, new)

    def hooked(self, hooks: Hooks, g: Tensor | None) -> Tensor | None:
        """A gradient after the hooks, which may keep it: it is nobody's own any more."""
        if g is None or not hooks:
            return g
        self.owned.discard(id(g))
        found = apply_hooks(hooks, g)
        self.owned.discard(id(found))
        return found  # type: ignore[no-any-return]
