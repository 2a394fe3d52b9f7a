"""Gradient checkpointing: what a function computes on its way is not kept, but computed again when
gradients flow back.

The function leaves the tape that it leaves without a checkpoint; only the values that its nodes
have saved go.  When the first of them is visited, the function runs once more, and what its second
run saves takes their place.  So gradients have the bits that they have without a checkpoint.

In a trace nothing runs twice: the saved values are computed again in the graph, from what came in,
and not before the gradient has arrived.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from dualgrad import random
from dualgrad.compiler.ir.node import Leaf, Node, replace
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ops.again import again
from dualgrad.entries.state import mixed_precision
from dualgrad.gradients.tape import Absent, Edge, TapeNode, changed_error, next_number
from dualgrad.runtime.errors import ArgumentError, GradientError
from dualgrad.state import enable_grad, state
from dualgrad.tensor import Tensor
from dualgrad.transforms.levels import Level
from dualgrad.transforms.trees import leaves

if TYPE_CHECKING:
    from dualgrad.gradients.flow import Flow

P = ParamSpec("P")
R = TypeVar("R")


def checkpoint(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Return function(*args, **kwargs), without keeping what it computes on its way.

    Its intermediate values are computed a second time during backward: memory for time.  The
    gradients have the same bits.  The second run has the state of the default random generator of
    the first; apart from that the function should do the same each time, and change nothing else.
    In a compiled function the values are computed again by the program; what a compiled function
    that is called inside has saved is kept, and so is everything inside of `vmap` (put the
    checkpoint around it).  Raises GradientError in
    backward if the second run computes something else, or if an argument or parameter has been
    changed in place since.
    """
    if not callable(function):
        raise ArgumentError(
            "runs a function",
            op="checkpoint",
            expect="a callable, then its arguments",
            actual=type(function).__name__,
            hint="pass the function itself: checkpoint(f, x), not checkpoint(f(x))",
        )
    if not state.grad_enabled or isinstance(state.trace, Level):
        return function(*args, **kwargs)
    region = _Region(lambda: function(*args, **kwargs), (args, kwargs))
    return region.first_run()  # type: ignore[no-any-return]


class _Region:
    """One call of a function under a checkpoint."""

    def __init__(self, run: Callable[[], Any], inputs: Any) -> None:
        self.run = run
        self.inputs = {id(x) for _, x in leaves(inputs) if isinstance(x, Tensor)}
        self.first = next_number()
        self.random: Tensor | None = None
        self.mixed = state.mixed
        self.made: list[tuple[Any, Any]] = []  # unit and types of each node
        self.seen: list[tuple[Tensor, int]] = []  # leaves from outside, and their versions

    def first_run(self) -> Any:
        if state.trace is not None:
            return _TracedRegion(self).first_run()
        self.random = random.get_rng_state()
        out = self.run()
        for node in self.nodes_behind(out):
            self._strip(node, len(self.made))
            self.made.append((node.unit, node.types))
        return out

    def nodes_behind(self, out: Any) -> list[TapeNode]:
        """The nodes of ops that a run has put on the tape behind its results, in order."""
        stack = [
            x.grad_fn for _, x in leaves(out) if isinstance(x, Tensor) and x.grad_fn is not None
        ]
        seen: dict[int, TapeNode] = {}
        while stack:
            node = stack.pop()
            if node.number <= self.first or id(node) in seen:
                continue
            seen[id(node)] = node
            stack += [edge[0] for edge in node.edges if isinstance(edge, tuple)]
        found = [node for node in seen.values() if type(node) in _PLAIN]
        return sorted(found, key=lambda node: node.number)

    def _strip(self, node: TapeNode, index: int) -> None:
        """Let a node forget the values that were computed inside."""
        for edge in node.edges:
            if isinstance(edge, Tensor):
                self.seen.append((edge, edge.version))
        inputs = tuple(
            x if self._is_outside(x) else _Gone(x.type, self, index) for x in node.inputs
        )
        outputs = tuple(_Gone(x.type, self, index) for x in node.outputs)
        versions = zip((*inputs, *outputs), node.versions, strict=True)
        node.versions = tuple([v if hasattr(x, "version") else 0 for x, v in versions])
        node.inputs, node.outputs = inputs, outputs
        node.__class__ = _Checkpointed

    def _is_outside(self, x: Any) -> bool:
        if isinstance(x, _Gone):  # by a checkpoint inside of this one
            return False
        if not isinstance(x, Tensor) or id(x) in self.inputs:
            return True
        if x.grad_fn is None:
            return bool(x.requires_grad)
        return bool(x.grad_fn.number <= self.first)

    def twin(self, index: int, flow: Flow, asking: TapeNode) -> TapeNode:
        """The node of a second run, which is made once for each backward."""
        twins = flow.notes.get(self)
        if twins is None:
            for x, version in self.seen:
                if x.version != version:
                    raise changed_error(asking.name, asking.place, x.type, version, x._version)
            twins = flow.notes[self] = self._second_run()
            for (unit, types), node in zip(self.made, twins, strict=False):
                if node.unit is not unit or node.types != types:
                    raise _differs(unit, types, f"{node.name} -> {node.types}")
            if len(self.made) != len(twins):
                raise _differs(*self.made[-1], f"{len(twins)} ops instead of {len(self.made)}")
        found, twins[index] = twins[index], None  # its values are needed no more after that
        return found  # type: ignore[no-any-return]

    def _second_run(self) -> list[Any]:
        now = random.get_rng_state()
        assert self.random is not None
        random.set_rng_state(self.random)
        again = _Region(self.run, ())
        try:
            with enable_grad(), mixed_precision(self.mixed):
                return [*again.nodes_behind(self.run())]
        finally:
            random.set_rng_state(now)


def _differs(unit: Any, types: Any, actual: str) -> GradientError:
    return GradientError(
        "a function under a checkpoint has computed something else when it ran again",
        op="checkpoint",
        expect=f"{unit.name} -> {types}, as in the forward pass",
        actual=actual,
        why="what it computes on its way is not kept, but computed again in backward",
        hint="it must depend on nothing that changes in between but the default random generator",
    )


class _Gone(Absent):
    """A saved value that is computed again when it is needed."""

    __slots__ = ("index", "region")

    def __init__(self, type: TensorType, region: _Region, index: int) -> None:
        super().__init__(type)
        self.region, self.index = region, index


class _Checkpointed(TapeNode):
    """A node whose saved values are computed again when it is visited."""

    __slots__ = ()

    takes_slices = False

    def push(self, flow: Flow, slots: list[Tensor | None], retain: bool) -> None:
        kept = self.inputs, self.outputs, self.versions
        self.operands(False)  # what it still has must be as it was
        self.fill(flow)
        try:
            super().push(flow, slots, retain)
        finally:
            if not self.released:
                self.inputs, self.outputs, self.versions = kept

    def fill(self, flow: Flow) -> None:
        """Take saved values from a second run."""
        gone = next((x for x in (*self.inputs, *self.outputs) if isinstance(x, _Gone)), None)
        if gone is None:
            return
        twin = gone.region.twin(gone.index, flow, self)
        if isinstance(twin, _Checkpointed):  # a checkpoint inside of a checkpoint
            twin.fill(flow)
        twin.operands(False)  # raises if the function has changed what it saves
        self.inputs = tuple(
            _with_history(y, edge) if isinstance(x, _Gone) else x
            for x, y, edge in zip(self.inputs, twin.inputs, self.edges, strict=True)
        )
        self.outputs = twin.outputs
        saved = (*self.inputs, *self.outputs)
        self.versions = tuple([getattr(x, "version", 0) for x in saved])


_PLAIN = (TapeNode, _Checkpointed)  # others keep what they have saved


def _with_history(x: Any, edge: Edge) -> Any:
    """A saved operand whose gradient goes where it would have gone."""
    if not isinstance(x, Tensor):
        return x
    out = x.detached()
    if isinstance(edge, tuple):
        out.requires_grad, out.grad_fn, out.output_number = True, *edge
    return out


# -- in a trace -----------------------------------------------------------------------------------


class _TracedRegion:
    """A call that is traced.  Nothing runs twice: values are computed again from what came in."""

    def __init__(self, region: _Region) -> None:
        assert state.trace is not None
        self.region, self.trace = region, state.trace
        alive = [
            (x, x.node)
            for ref in self.trace.made
            if (x := ref()) is not None and x.node is not None
        ]
        before = {node for _, node in alive}
        given = {node for x, node in alive if id(x) in region.inputs}
        known = (x for x in self.trace.tensors if id(x) in region.inputs)
        given |= {self.trace.values[id(x)] for x in known if id(x) in self.trace.values}
        self.outside = before | given
        # Parameters stay what they are: what depends on them alone is not worth its memory.
        self.borders = given | {n for n in before if not isinstance(n.op, Leaf)}

    def first_run(self) -> Any:
        out = self.region.run()
        for node in self.region.nodes_behind(out):
            node.__class__ = _TracedAgain
            _traced[node] = self.borders, self.outside
            for x in (*node.inputs, *node.outputs):
                if isinstance(x, Tensor) and x.node is not None and x.node not in self.outside:
                    self.trace.recomputed[x.node] = self.outside
        return out


_traced: weakref.WeakKeyDictionary[TapeNode, tuple[set[Any], set[Any]]] = (
    weakref.WeakKeyDictionary()
)


class _TracedAgain(TapeNode):
    """A node of a trace whose gradient reads values that are computed again."""

    __slots__ = ()

    def push(self, flow: Flow, slots: list[Tensor | None], retain: bool) -> None:
        kept = self.inputs, self.outputs, self.versions
        self.operands(False)
        after = next(g for g in slots if g is not None)
        self.inputs = tuple(
            self._again(flow, x, edge, after)
            for x, edge in zip(self.inputs, self.edges, strict=True)
        )
        self.outputs = tuple(self._again(flow, x, None, after) for x in self.outputs)
        saved = (*self.inputs, *self.outputs)
        self.versions = tuple([getattr(x, "version", 0) for x in saved])
        try:
            super().push(flow, slots, retain)
        finally:
            if not self.released:
                self.inputs, self.outputs, self.versions = kept

    def _again(self, flow: Flow, x: Any, edge: Edge, after: Tensor) -> Any:
        """A saved value, computed again once the first gradient of its region has arrived."""
        borders, outside = _traced[self]
        trace = state.trace
        if trace is None or not isinstance(x, Tensor) or x.node is None or x.node in outside:
            return x
        change = flow.notes.get(id(borders))
        if change is None:
            change = flow.notes[id(borders)] = _changes(borders, trace.node_of(after))
        (node,) = replace((x.node,), change)
        return _with_history(trace.trace_node(node), edge)


def _changes(borders: set[Node], after: Node) -> dict[Node, Node]:
    """Another value in place of each that comes in."""
    return {} if 0 in after.shape else {n: again(n, after) for n in borders}
