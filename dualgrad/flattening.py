"""Elementwise units on operands of one shape, whose program need not know that shape.

Memory without gaps is one row of elements, whatever the shape: a unit that computes each element
from those in the same place is run on rows, so one program serves tensors of all ranks.
"""

from __future__ import annotations

from typing import Any

from dualgrad.compiler.grad import Vjp
from dualgrad.compiler.ir.node import Leaf, Node, input_node, topological
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import Unit
from dualgrad.compiler.ops.composite import Composite
from dualgrad.compiler.ops.elementwise import Elementwise
from dualgrad.compiler.ops.view import Expand, Reshape, View
from dualgrad.runtime.dtype import DType

Shape = tuple[Any, ...]


def row_types(
    unit: Unit, operands: tuple[Any, ...], nodes: tuple[Node, ...], outputs: tuple[Node, ...]
) -> dict[int, TensorType] | None:
    """The types of the tensors among the operands, by number, where all may be seen as rows of
    one length, whatever that is, or as single elements; None where the unit needs their shapes.

    `nodes` stand for the operands, `outputs` are what the unit makes of them.
    """
    shape: Shape = outputs[0].shape
    size = outputs[0].type.size
    row = (size,)
    known = shape == row and size not in (0, 1)
    if known or not _names_no_axis(unit) or any(o.shape != shape for o in outputs):
        return None
    types: dict[int, TensorType] = {}
    for k, x in enumerate(operands):
        if not hasattr(x, "sig"):
            continue
        if x.layout is not None or x.type.shape not in (shape, ()):
            return None
        types[k] = x.type.with_shape(row if x.type.shape == shape else ())
    before = topological(outputs)
    if not all(_is_elementwise(n, shape) for n in before):
        return None
    rows = unit.trace(*(input_node(k, types[k]) if k in types else n for k, n in enumerate(nodes)))
    after = topological(rows)
    same = all(o.shape == row for o in rows) and _formulas(before) == _formulas(after)
    return types if same else None


def _names_no_axis(unit: Unit) -> bool:
    """Whether no parameter of a unit can be an axis or a size."""
    if isinstance(unit, Vjp):
        return _names_no_axis(unit.unit)
    if isinstance(unit, Composite):
        kinds = bool | float | str | DType | None
        return not unit.exact and all(isinstance(v, kinds) for _, v in unit.static)
    return isinstance(unit, Elementwise) and not unit.exact


def _is_elementwise(node: Node, shape: Shape) -> bool:
    """Whether a node computes each element of `shape` from those in the same place, or one
    element for all."""
    single = all(n == 1 for n in node.shape)
    if isinstance(node.op, Expand):
        return node.shape == shape and all(n == 1 for n in node.inputs[0].shape)
    if isinstance(node.op, Reshape):
        return single
    return isinstance(node.op, Leaf | Elementwise) and (single or node.shape == shape)


def _formulas(nodes: list[Node]) -> list[object]:
    """What nodes compute, views left out."""
    return [n.op for n in nodes if not isinstance(n.op, View)]
