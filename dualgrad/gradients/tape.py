"""The tape: what was computed from what, and how gradients flow back.

Each unit that ran on a tensor requiring gradients leaves a `TapeNode`, which keeps only the
operands and results that its gradient reads.  See `flow` for the way back.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final, Union

from dualgrad.compiler.batching import Batched, is_gradient
from dualgrad.compiler.grad import Vjp
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import Unit, apply
from dualgrad.dispatch import used_by_gradient
from dualgrad.runtime.errors import GradientError
from dualgrad.runtime.native.callables import Builtin
from dualgrad.runtime.srcinfo import Location, Place, user_place

if TYPE_CHECKING:
    from dualgrad.gradients.flow import Flow, Reach
    from dualgrad.tensor import Tensor

Edge = Union[None, "Tensor", tuple["TapeNode", int]]
Saves = dict[int, "Kept"]  # what a gradient reads, by the operands that want one, as bits
_GRADIENTS = (Vjp, Batched)
NUMBERS = 1 << 40  # of the views of a tensor that get their history from one node
numbers = itertools.count(step=NUMBERS)
next_number = numbers.__next__


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


absents: dict[TensorType, Absent] = {}


def absent(type: TensorType) -> Absent:
    """What stands for operands of a type; there is one for each."""
    found = absents.get(type)
    return absents.setdefault(type, Absent(type)) if found is None else found


class Kept(frozenset[int]):
    """What a gradient reads: numbers of operands, then of outputs; the same in `bits`.

    Native code keeps here what nodes have in common: `gradient`, the `Vjp` of `unit` where all its
    results have one, and, of the last node, `types` and, if no result was saved, `outputs`.
    """

    __slots__ = ("bits", "gradient", "outputs", "types", "unit")

    gradient: Vjp | None
    unit: Unit | None
    types: tuple[TensorType, ...]
    outputs: tuple[Absent, ...]

    def __init__(self, numbers: Iterable[int] = ()) -> None:
        self.bits = sum(1 << k for k in self)
        self.gradient = self.unit = None
        self.types = self.outputs = ()


class Stale:
    """Stands for the history of a view whose memory has been changed since: the tensor behind it
    has a new one, of which the view's is made when it is asked for (see `rewriting`)."""

    __slots__ = ()

    released = False


STALE: Final = Stale()


class TapeNode:
    """One recorded unit."""

    __slots__ = (
        "__weakref__", "_hooks", "edges", "inputs", "kept", "number", "outputs", "place",
        "released", "types", "unit", "versions",
    )  # fmt: skip

    takes_slices = True  # whether its gradient may be asked for all slices of a vmap at once

    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    place: Place | None  # the user's line of the forward pass
    kept: Kept | None  # of nodes that native code visits, what is known of the gradient

    def __init__(
        self,
        unit: Unit,
        operands: tuple[Any, ...],
        outputs: tuple[Tensor, ...],
        known: Saves,
    ) -> None:
        self.unit = unit
        self.place = user_place(3)  # nobody's node is made by the user's code itself
        self.number = next_number()
        self.released = False
        self.kept = None
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
            saves = known[wanted] = Kept(used_by_gradient(unit, operands, wanted, self.types))
        kept: list[Any] = []
        versions: list[int] = []
        for k, x in enumerate(operands):
            version = 0
            if hasattr(x, "sig"):
                if k in saves:
                    version = x._version[0]
                else:
                    x = absent(x.type)
            kept.append(x)
            versions.append(version)
        self.edges = tuple(edges)
        self.inputs = tuple(kept)
        n = len(operands)
        results: list[Any] = []
        for k, o in enumerate(outputs):
            saved = n + k in saves
            results.append(o.detached() if saved else absent(o.type))
            versions.append(o._version[0] if saved else 0)
        self.outputs = tuple(results)
        self.versions = tuple(versions)

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
        edges = self.edges if flow.reach is None else flow.reach.only(self.edges)
        cotangents = tuple(g for g in slots if g is not None)
        gradients = self.gradients(edges, slots, flow.create_graph)
        if not retain:
            self.release()
        flow.hand_on([e for e in edges if e is not None], cotangents, gradients)

    def gradients(
        self, edges: tuple[Edge, ...], slots: list[Tensor | None], create_graph: bool
    ) -> tuple[Tensor, ...]:
        """The gradient of each operand that has an edge, given those of the results."""
        given = tuple(g is not None for g in slots)
        wanted = tuple(e is not None for e in edges)
        operands = self.operands(create_graph)
        cotangents = tuple(g for g in slots if g is not None)
        return apply(Vjp.of(self.unit, given, wanted), *cotangents, *operands)

    def push_marked(
        self, flow: Flow, slots: list[Tensor | None], retain: bool, marks: frozenset[int]
    ) -> None:
        """The same for a node some of whose results are hooked, or asked for."""
        for k in marks:
            slots[k] = flow.marked(self, k, slots[k])
        if flow.goes_on(self):
            self.push(flow, slots, retain)

    def leads_to(self, reach: Reach) -> bool:
        """Whether gradients flow through the node to where some are wanted."""
        return any(map(reach.has, self.edges))

    def first_use(self, edge: int) -> int:
        """Which of the units that the node stands for is the first to read an operand."""
        return 0

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


def saves_of(unit: Unit, operands: tuple[Any, ...], known: Saves) -> Kept:
    """What the gradient of a unit reads."""
    wanted = sum(1 << k for k, x in enumerate(operands) if getattr(x, "requires_grad", False))
    saves = known.get(wanted)
    if saves is None:
        saves = known[wanted] = Kept(used_by_gradient(unit, operands, wanted))
    return saves


def record(
    unit: Unit, operands: tuple[Any, ...], outputs: tuple[Tensor, ...], known: Saves
) -> None:
    """Put a unit on the tape; `known` is what is known of its gradient on such operands."""
    node = TapeNode(unit, operands, outputs, known)
    # may return an operand, which keeps its own history
    passes = unit.__class__ in _GRADIENTS and is_gradient(unit)
    for k, o in enumerate(outputs):
        if o._type.dtype.is_float and not o.requires_grad:
            if passes and any(o is x for x in operands):
                continue
            o.requires_grad = True
            o._grad_fn, o.output_number = node, k


recording = Builtin("record", record)
record_eagerly = recording.call  # `record` where nothing is traced
