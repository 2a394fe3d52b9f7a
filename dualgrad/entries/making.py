"""What results of compiled functions are besides new tensors: second handles on a value, and
results of graphs that are gone."""

from __future__ import annotations

from dualgrad.entries.tape import detached
from dualgrad.entries.tensors import BASE, NONE, TRUE, taken
from dualgrad.gradients.tape import FreedNode, TapeNode, next_number
from dualgrad.runtime.native import library
from dualgrad.runtime.native.language import Cell, Word, c, native
from dualgrad.runtime.native.layout import slot

NODE_EDGES, NODE_INPUTS, NODE_NUMBER = (slot(TapeNode, n) for n in ("edges", "inputs", "number"))
NODE_OUTPUTS, NODE_PLACE = slot(TapeNode, "outputs"), slot(TapeNode, "place")
NODE_RELEASED, NODE_TYPES = slot(TapeNode, "released"), slot(TapeNode, "types")
NODE_VERSIONS, NODE_NAME = slot(TapeNode, "versions"), slot(FreedNode, "_name")
_freed_node, _number, _no_parts = Cell(), Cell(), Cell()


@native
def detach(x: Word) -> Word:
    """See `Tensor.detach`; 0 with an exception set."""
    out = detached(x)
    if not out:
        return 0
    base = x[BASE]
    base = detached(x) if base == NONE.word else taken(base)
    if not base:
        c.Py_DecRef(out)
        return 0
    c.Py_DecRef(out[BASE])
    out[BASE] = base
    return out


@native
def freed_node(name: Word, types: Word) -> Word:
    """What made a result whose graph is gone; see `FreedNode`.  0 with an exception set."""
    number = c.PyObject_CallNoArgs(_number.word)
    if not number:
        return 0
    node = c.PyType_GenericAlloc(_freed_node.word, 0)
    if not node:
        c.Py_DecRef(number)
        return 0
    node[NODE_NAME] = taken(name)
    node[NODE_PLACE] = taken(NONE.word)
    node[NODE_NUMBER] = number
    node[NODE_TYPES] = taken(types)
    node[NODE_RELEASED] = taken(TRUE.word)
    node[NODE_EDGES] = taken(_no_parts.word)
    node[NODE_INPUTS] = taken(_no_parts.word)
    node[NODE_OUTPUTS] = taken(_no_parts.word)
    node[NODE_VERSIONS] = taken(_no_parts.word)
    return node


_NOTHING = ()


def _bind() -> None:
    _freed_node.word, _number.word, _no_parts.word = id(FreedNode), id(next_number), id(_NOTHING)


library.when_loaded(_bind)
