"""Reverse-mode differentiation of graphs, and gradients as units.

`pullback` walks a graph backwards; contributions to one node are added in decreasing order of
their consumers.  `Vjp` makes the gradient of a unit a unit itself, so it is compiled as one
program, can be inlined into a trace, and can be differentiated again.
"""

from __future__ import annotations

import itertools
from typing import ClassVar

from dualgrad.compiler.ir.interned import Interned
from dualgrad.compiler.ir.node import Leaf, Node, as_node, is_leaf, replace, topological
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import Rename, Unit
from dualgrad.compiler.ops.again import again
from dualgrad.compiler.ops.elementwise import Elementwise, cast_node, narrowed, widened
from dualgrad.compiler.ops.precision import KEPT
from dualgrad.compiler.ops.transfer import Transfer
from dualgrad.compiler.ops.view import expand_to
from dualgrad.runtime.records import dataclass


def pullback(
    outputs: tuple[Node, ...], cotangents: tuple[Node | None, ...], inputs: tuple[Node, ...]
) -> tuple[Node | None, ...]:
    """The cotangent of each input: the sum over outputs of J^T times cotangent.

    None where no output depends on the input (or only through ops without gradient).
    """
    order = topological(outputs)
    depends = _depends_on(order, inputs)
    ends = set(inputs)
    grads: dict[Node, Node] = {}

    def add(node: Node, g: Node) -> None:
        old = grads.get(node)
        grads[node] = g if old is None else old + g

    for out, g in zip(outputs, cotangents, strict=True):
        if g is not None and out in depends:
            add(out, g)
    for node in reversed(order):
        g = grads.get(node)
        if g is None or node in ends or isinstance(node.op, Leaf):
            continue
        if node.op.vjp is None:
            continue
        for x, gx in zip(node.inputs, node.op.vjp(g, node, *node.inputs), strict=True):
            if gx is not None and x in depends and x.dtype.is_float:
                add(x, as_node(gx))
    return tuple(grads.get(x) if x in depends else None for x in inputs)


def _depends_on(order: list[Node], inputs: tuple[Node, ...]) -> set[Node]:
    """The nodes that can pass a gradient on to the inputs."""
    wanted = {x for x in inputs if x.dtype.is_float}
    found = set(wanted)
    for node in order:
        if isinstance(node.op, Leaf) or node.op.vjp is None or not node.dtype.is_float:
            continue
        if any(x in found for x in node.inputs):
            found.add(node)
    return found


ABSENT = Leaf("operand", -1)  # stands for an operand or output that a gradient does not read


@dataclass(frozen=True, eq=False)
class Vjp:
    """The gradient of `unit` as a unit: (cotangents, inputs, outputs) -> gradients.

    `given` says which outputs have a cotangent, `wanted` which inputs need a gradient.  Operands
    are the given cotangents, then all inputs, then all outputs of the unit; what the formula
    does not use, the program does not take.  With 16-bit floats it computes in float32 and rounds
    each gradient once, to the dtype of its operand.
    """

    unit: Unit
    given: tuple[bool, ...]
    wanted: tuple[bool, ...]
    _instances: ClassVar[Interned[Vjp]] = Interned()

    @classmethod
    def of(cls, unit: Unit, given: tuple[bool, ...], wanted: tuple[bool, ...]) -> Vjp:
        key = (unit, given, wanted)
        found = cls._instances.find(key)
        return found or cls._instances.keep(key, cls(unit, given, wanted))

    @property
    def name(self) -> str:
        return f"{self.unit.name}_vjp"

    @property
    def exact(self) -> bool:
        return self.unit.exact

    def generalized(self, rename: Rename) -> Vjp:
        return Vjp.of(self.unit.generalized(rename), self.given, self.wanted)

    def precision_on(self, *nodes: Node) -> str:
        return KEPT  # gradients have the dtypes of the operands, however the unit ran

    def trace(self, *nodes: Node) -> tuple[Node, ...]:
        n_given, n_inputs = sum(self.given), len(self.wanted)
        # Leaves in place of the operands: what lies behind them is not to be looked at.
        leaves = _distinct(nodes)
        raw = crosses_devices(self) or (isinstance(self.unit, Elementwise) and self.unit.raw)
        operands = leaves if raw else tuple(map(widened, leaves))
        cotangents = iter(operands[:n_given])
        inputs, known = operands[n_given : n_given + n_inputs], operands[n_given + n_inputs :]
        outputs = self.unit.trace(*inputs)
        seeds = tuple(next(cotangents) if g else None for g in self.given)
        targets = tuple(x for x, w in zip(inputs, self.wanted, strict=True) if w)
        stated = getattr(self.unit, "gradient", None)
        if stated is None:
            grads = pullback(outputs, seeds, targets)
        else:
            grads = tuple(itertools.compress(stated(seeds, *inputs), self.wanted))
        full = tuple(
            g if g is not None else expand_to(cast_node(as_node(0.0), x.dtype), x.shape)
            for x, g in zip(targets, grads, strict=True)
        )
        asked = leaves[n_given : n_given + n_inputs]
        dtypes = (x.dtype for x, w in zip(asked, self.wanted, strict=True) if w)
        full = tuple(narrowed(g, d) if d.is_low else g for g, d in zip(full, dtypes, strict=True))
        # Outputs that the caller has are read, not computed again; everything else is.  A zero
        # is no such output: other gradients of the formula may be zeros without being this one.
        stand_ins = {
            o: cast_node(k, o.dtype)
            for o, k in zip(outputs, known, strict=True)
            if o not in operands and not _is_number(o)
        }
        back = {leaf: x for leaf, x in zip(leaves, nodes, strict=True) if leaf is not x}
        return replace(replace(full, stand_ins), back)

    def __str__(self) -> str:
        return f"vjp of {self.unit}"


def computed_anew(unit: Unit, nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """The operands of a unit in a trace: of a gradient whose values on the way are not worth their
    memory (see `computed_again`), one is another value, so that nothing is found that was computed
    from it before."""
    if not isinstance(unit, Vjp) or not hasattr(unit.unit, "anew") or 0 in nodes[0].shape:
        return nodes
    first = sum(unit.given)
    start = unit.unit.anew(*(x.type for x in nodes[first : first + len(unit.wanted)]))
    if start is None:
        return nodes
    k = first + start
    return *nodes[:k], again(nodes[k], nodes[0]), *nodes[k + 1 :]


def _is_number(node: Node) -> bool:
    """Whether a node is a number of the program, in some dtype and shape."""
    while len(node.inputs) == 1:
        (node,) = node.inputs
    return is_leaf(node, "const")


def crosses_devices(unit: Unit) -> bool:
    """Whether a unit is a transfer between devices or the gradient of one, of any order."""
    while isinstance(unit, Vjp):
        unit = unit.unit
    return isinstance(unit, Transfer)


_fresh = itertools.count()


def fresh_leaf(type: TensorType) -> Node:
    """A leaf that is no other."""
    return Node.make(Leaf("operand", next(_fresh)), (), type)


def _distinct(inputs: tuple[Node, ...]) -> tuple[Node, ...]:
    """Leaves, no two the same: x * x has a gradient for each operand of a unit."""
    seen: set[Node] = set()
    out = []
    for x in inputs:
        if x in seen or not isinstance(x.op, Leaf) or x.op.kind == "const":
            x = fresh_leaf(x.type)
        seen.add(x)
        out.append(x)
    return tuple(out)
