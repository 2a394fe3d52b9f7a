"""What native calls of compiled functions read of the running thread, and how they make tensors."""

from __future__ import annotations

from dualgrad.entries.tape import detached
from dualgrad.gradients.tape import FreedNode, TapeNode, next_number
from dualgrad.runtime.native import library
from dualgrad.runtime.native.language import Cell, Word, c, native, text
from dualgrad.runtime.native.layout import slot
from dualgrad.state import state
from dualgrad.tensor import Tensor

PLAIN, RECORDS = 1, 2  # bits of `mode_of_thread`
_THREADS = 64

_dicts = Cell(2 * _THREADS)  # by the last bits of a thread's number: that + 1, its attributes
_none, _true, _state, _trace, _grad_enabled = Cell(), Cell(), Cell(), Cell(), Cell()


@native
def mode_of_thread() -> Word:
    """PLAIN, unless a trace or something else wants to know of each op; besides RECORDS, where
    ops on tensors that require gradients are recorded."""
    attributes = _attributes()
    if not attributes:
        c.PyErr_Clear()
        return 0
    if c.PyDict_GetItem(attributes, _trace.word) != _none.word:
        return 0
    if c.PyDict_GetItem(attributes, _grad_enabled.word) == _true.word:
        return PLAIN | RECORDS
    return PLAIN


@native
def _attributes() -> Word:
    """The attributes of `state` in this thread: a dict that lives as long as the thread.  The
    number of a thread is never used again."""
    number = c.PyThreadState_GetID(c.PyThreadState_Get()) + 1
    entry = _dicts.at + 16 * (number & (_THREADS - 1))
    if entry[0] != number:
        found = c.PyObject_GetAttrString(_state.word, text("__dict__"))
        if not found:
            return 0
        c.Py_DecRef(found)
        entry[1] = found
        entry[0] = number
    return entry[1]


ARRAY, BASE, GRAD, GRAD_FN = (slot(Tensor, n) for n in ("array", "base", "_grad", "_grad_fn"))
LAYOUT, NODE, ORIGIN, OWNER = (slot(Tensor, n) for n in ("layout", "node", "origin", "owner"))
OUTPUT_NUMBER, REQUIRES = slot(Tensor, "output_number"), slot(Tensor, "requires_grad")
SIG, TENSOR_TYPE, VERSION = slot(Tensor, "sig"), slot(Tensor, "_type"), slot(Tensor, "_version")

NODE_EDGES, NODE_INPUTS, NODE_NUMBER = (slot(TapeNode, n) for n in ("edges", "inputs", "number"))
NODE_OUTPUTS, NODE_PLACE = slot(TapeNode, "outputs"), slot(TapeNode, "place")
NODE_RELEASED, NODE_TYPES = slot(TapeNode, "released"), slot(TapeNode, "types")
NODE_VERSIONS, NODE_NAME = slot(TapeNode, "versions"), slot(FreedNode, "_name")
FREED_NODE, _number, _no_parts = Cell(), Cell(), Cell()

NONE, TRUE, FALSE, ZERO, TENSOR = Cell(), Cell(), Cell(), Cell(), Cell()
_LIST_ITEMS = 3  # where a list has the address of its elements


@native
def taken(x: Word) -> Word:
    """x with one reference more."""
    c.Py_IncRef(x)
    return x


@native
def new_tensor(array: Word, type: Word) -> Word:
    """A contiguous tensor over an array, whose reference it takes in any case; 0 with an exception
    set.  See `Tensor.of_array`."""
    version = c.PyList_New(3)
    if not version:
        c.Py_DecRef(array)
        return 0
    items = version[_LIST_ITEMS]
    items[0] = taken(ZERO.word)
    items[1] = taken(NONE.word)
    items[2] = taken(NONE.word)
    x = c.PyType_GenericAlloc(TENSOR.word, 0)
    if not x:
        c.Py_DecRef(version)
        c.Py_DecRef(array)
        return 0
    x[ARRAY] = array
    x[VERSION] = version
    x[TENSOR_TYPE] = taken(type)
    x[SIG] = taken(type)
    x[LAYOUT] = taken(NONE.word)
    x[NODE] = taken(NONE.word)
    x[OWNER] = taken(NONE.word)
    x[BASE] = taken(NONE.word)
    x[ORIGIN] = taken(NONE.word)
    x[GRAD_FN] = taken(NONE.word)
    x[GRAD] = taken(NONE.word)
    x[REQUIRES] = taken(FALSE.word)
    return x


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
    node = c.PyType_GenericAlloc(FREED_NODE.word, 0)
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


_ZERO, _NOTHING = 0, ()
_NAMES = ("trace", "grad_enabled")  # held: native code has their addresses


def ready() -> None:
    """Tell native code where things are; the library is loaded."""
    NONE.word, TRUE.word, FALSE.word, TENSOR.word = id(None), id(True), id(False), id(Tensor)
    ZERO.word, FREED_NODE.word, _number.word = id(_ZERO), id(FreedNode), id(next_number)
    _no_parts.word = id(_NOTHING)
    _none.word, _true.word, _state.word = id(None), id(True), id(state)
    _trace.word, _grad_enabled.word = map(id, _NAMES)


library.when_loaded(ready)
