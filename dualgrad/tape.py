"""The tape: what was computed from what, and how gradients flow back.

Each unit that ran on a tensor requiring gradients leaves a `TapeNode`, which keeps only the
operands and results that its gradient reads.  See `flow` for the way back.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, Union

from dualgrad.compiler.grad import Vjp
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import Unit, apply
from dualgrad.dispatch import used_by_gradient
from dualgrad.runtime.errors import GradientError
from dualgrad.runtime.srcinfo import Place, user_place

if TYPE_CHECKING:
    from dualgrad.flow import Flow, Reach
    from dualgrad.tensor import Tensor

Edge = Union[None, "Tensor", tuple["TapeNode", int]]
_numbers = itertools.count()
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
        saves: frozenset[int],
    ) -> None:
        self.unit = unit
        self.place = user_place()
        self.number = next_number()
        self.released = False
        self.types = tuple([o.type for o in outputs])
        edges: list[Edge] = []
        kept: list[Any] = []
        versions: list[int] = []
        for k, x in enumerate(operands):
            if not hasattr(x, "sig"):
                edges.append(None)
                kept.append(x)
                versions.append(0)
                continue
            edges.append(edge_of(x))
            kept.append(x if k in saves else Absent(x.type))
            versions.append(x.version if k in saves else 0)
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
                raise changed_error(self.name, x.type, x.version - version)
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
        given = tuple(g is not None for g in slots)
        wanted = tuple(e is not None for e in edges)
        operands = self.operands(flow.create_graph)
        cotangents = tuple(g for g in slots if g is not None)
        gradients = apply(Vjp.of(self.unit, given, wanted), *cotangents, *operands)
        if not retain:
            self.release()
        flow.hand_on([e for e in edges if e is not None], cotangents, gradients)

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


def changed_error(op: str, type: TensorType, times: int) -> GradientError:
    return GradientError(
        "a tensor that the gradient needs has been changed in place",
        op=op,
        expect=f"the {type!r} tensor as it was in the forward pass",
        actual=f"{times} in-place change(s) since",
        hint="work on a copy, or change it after backward",
    )


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
    return x if x.grad_fn is None else (x.grad_fn, x.output_number)


def record(
    unit: Unit, operands: tuple[Any, ...], outputs: tuple[Tensor, ...], saves: frozenset[int] | None
) -> frozenset[int]:
    """Put a unit on the tape; returns what its gradient reads, to be passed next time."""
    if saves is None:
        saves = used_by_gradient(unit, operands)
    node = TapeNode(unit, operands, outputs, saves)
    passes = unit.__class__ is Vjp  # may return an operand, which keeps its own history
    for k, o in enumerate(outputs):
        if o._type.dtype.is_float and not o.requires_grad:
            if passes and any(o is x for x in operands):
                continue
            o.requires_grad = True
            o.grad_fn, o.output_number = node, k
    return saves
