"""Gradients on their way back over the tape in native code: what `flow.Flow` does.

Only what most graphs are made of is served: eager ops, without hooks.  The loop stops at a node of
another kind, or when somebody registers a hook, and `Flow` goes on from there.  Nodes that wait
are where `Flow` has them, in a dict of lists.  A gradient that no leaf has taken yet is marked as
`OWNED` in the place where results of ops have their number, which gradients do not use.
"""

from __future__ import annotations

import heapq
from typing import Any

from dualgrad.compiler.grad import Vjp
from dualgrad.compiler.ir import value
from dualgrad.compiler.ops.elementwise import copy
from dualgrad.entries.ops import apply
from dualgrad.entries.tape import (
    BITS,
    EDGES,
    KEPT,
    NUMBER,
    RELEASED,
    RESULTS,
    SAVED,
    STALE_NODE,
    TAPE_NODE,
    TYPES,
    UNIT,
    VERSIONS,
    is_tensor,
    put,
)
from dualgrad.entries.tensors import (
    BASE,
    FALSE,
    GRAD,
    GRAD_FN,
    LIST_ITEMS,
    NONE,
    OUTPUT_NUMBER,
    REQUIRES,
    TENSOR_TYPE,
    TRUE,
    VERSION,
    taken,
)
from dualgrad.gradients import flow
from dualgrad.gradients.flow import Flow
from dualgrad.gradients.hooks import on_leaves, on_nodes
from dualgrad.gradients.tape import Kept, TapeNode
from dualgrad.runtime.native import library
from dualgrad.runtime.native.language import Cell, Word, c, native, stack
from dualgrad.runtime.native.layout import ITEMS, LENGTH, TYPE, slot
from dualgrad.tensor import Tensor

KEPT_UNIT, GRADIENT = slot(Kept, "unit"), slot(Kept, "gradient")
HEAP, COUNT, CAPACITY, WAITING, RETAIN = range(5)  # words of a flow
_MOST = 31  # operands of a gradient
_FIRST = 32  # nodes that wait at once before there is more room
_GREATER = 4  # Py_GT

_OWNED, _EMPTY, _TUPLE, _GRAD_NAME, _NODE_TYPES, _NODE_NUMBER = (
    Cell(), Cell(), Cell(), Cell(), Cell(), Cell(),
)  # fmt: skip
_LEAVES, _NODES, _COPY, _APPLY, _VISIT, _GO_ON = Cell(), Cell(), Cell(), Cell(), Cell(), Cell()


@native
def flow_back(function: Word, arguments: Word, count: Word, names: Word) -> Word:
    """See `flow.flow_back`."""
    if count != 3 or names or _is_hooked() or not _is_simple(arguments[0]):
        return c.PyObject_Vectorcall(function, arguments, count, names)
    waiting = c.PyDict_New()
    if not waiting:
        return 0
    own = stack(5)
    own[HEAP] = 0
    own[COUNT] = 0
    own[CAPACITY] = 0
    own[WAITING] = waiting
    own[RETAIN] = arguments[2]
    failed = _start(own, arguments[0], arguments[1])
    if not failed:
        failed = _loop(own)
    for k in range(own[COUNT]):
        c.Py_DecRef((own[HEAP])[2 * k])
    c.PyMem_RawFree(own[HEAP])
    c.Py_DecRef(waiting)
    return 0 if failed else taken(NONE.word)


@native
def _is_hooked() -> Word:
    """Whether there are hooks anywhere."""
    return c.PyDict_Size(_LEAVES.word) or c.PyDict_Size(_NODES.word)


@native
def _is_simple(roots: Word) -> Word:
    for k in range(roots[LENGTH]):
        if (roots[ITEMS + k])[GRAD_FN] == STALE_NODE.word:
            return 0
    return 1


@native
def _start(own: Word, roots: Word, seeds: Word) -> Word:
    """Let the seeds arrive; whether that fails."""
    for k in range(roots[LENGTH]):
        root = roots[ITEMS + k]
        seed = seeds[ITEMS + k]
        if root[GRAD_FN] == NONE.word:
            failed = _accumulate(root, seed)
        else:
            failed = _arrive(own, root[GRAD_FN], root[OUTPUT_NUMBER], seed)
        if failed:
            return 1
    return 0


@native
def _loop(own: Word) -> Word:
    """Visit nodes until none waits; whether that fails."""
    while own[COUNT]:
        if c.PyErr_CheckSignals():
            return 1
        node = _pop(own)
        if node[TYPE] != TAPE_NODE.word or _is_hooked():
            return _go_on(own)
        c.Py_IncRef(node)
        slots = taken(c.PyDict_GetItem(own[WAITING], node))
        failed = c.PyDict_DelItem(own[WAITING], node)
        if not failed:
            failed = _visit(own, node, slots)
        c.Py_DecRef(slots)
        c.Py_DecRef(node)
        if failed:
            return 1
    return 0


@native
def _go_on(own: Word) -> Word:
    """Let Python visit all that waits."""
    arguments = stack(2)
    arguments[0] = own[WAITING]
    arguments[1] = own[RETAIN]
    return _is_error(c.PyObject_Vectorcall(_GO_ON.word, arguments, 2, 0))


@native
def _is_error(x: Word) -> Word:
    """Whether a call has failed; what it returned is let go."""
    if x:
        c.Py_DecRef(x)
    return not x


# -- nodes that wait, the latest first ----------------------------------------------------------


@native
def _pop(own: Word) -> Word:
    """The node with the highest number, which leaves the heap; `own[WAITING]` holds it."""
    heap = own[HEAP]
    last = own[COUNT] - 1
    own[COUNT] = last
    c.Py_DecRef(heap[0])
    node = heap[1]
    number = heap[2 * last]
    moved = heap[2 * last + 1]
    k = 0
    while 2 * k + 1 < last:
        child = 2 * k + 1
        if child + 1 < last and _is_later(heap[2 * child + 2], heap[2 * child]):
            child += 1
        if not _is_later(heap[2 * child], number):
            break
        heap[2 * k] = heap[2 * child]
        heap[2 * k + 1] = heap[2 * child + 1]
        k = child
    heap[2 * k] = number
    heap[2 * k + 1] = moved
    return node


@native
def _is_later(a: Word, b: Word) -> Word:
    return c.PyObject_RichCompareBool(a, b, _GREATER)


@native
def _push(own: Word, node: Word) -> Word:
    """Let a node wait; whether that fails."""
    count = own[COUNT]
    if count == own[CAPACITY]:
        capacity = 2 * count if count else _FIRST
        heap = c.PyMem_RawRealloc(own[HEAP], 16 * capacity)
        if not heap:
            c.PyErr_NoMemory()
            return 1
        own[HEAP] = heap
        own[CAPACITY] = capacity
    heap = own[HEAP]
    if node[TYPE] == TAPE_NODE.word:
        number = taken(node[NUMBER])
    else:
        number = c.PyObject_GetAttr(node, _NODE_NUMBER.word)
        if not number:
            return 1
    k = count
    while k and _is_later(number, heap[(k - 1) // 2 * 2]):
        above = (k - 1) // 2
        heap[2 * k] = heap[2 * above]
        heap[2 * k + 1] = heap[2 * above + 1]
        k = above
    heap[2 * k] = number
    heap[2 * k + 1] = node
    own[COUNT] = count + 1
    return 0


@native
def _outputs_of(node: Word) -> Word:
    """How many results a node has; -1 with an exception set."""
    if node[TYPE] == TAPE_NODE.word:
        return (node[TYPES])[LENGTH]
    types = c.PyObject_GetAttr(node, _NODE_TYPES.word)
    if not types:
        return -1
    count = c.PyObject_Size(types)
    c.Py_DecRef(types)
    return count


@native
def _slots_of(own: Word, node: Word) -> Word:
    """What has arrived at a node (borrowed), which waits from now on; 0 with an exception set."""
    slots = c.PyDict_GetItemWithError(own[WAITING], node)
    if slots or c.PyErr_Occurred():
        return slots
    count = _outputs_of(node)
    if count < 0:
        return 0
    slots = c.PyList_New(count)
    if not slots:
        return 0
    for k in range(count):
        (slots[LIST_ITEMS])[k] = taken(NONE.word)
    failed = c.PyDict_SetItem(own[WAITING], node, slots)
    c.Py_DecRef(slots)
    return 0 if failed or _push(own, node) else slots


# -- gradients ----------------------------------------------------------------------------------


@native
def _is_owned(g: Word) -> Word:
    return g[OUTPUT_NUMBER] == _OWNED.word


@native
def _own(g: Word) -> Word:
    return put(g, OUTPUT_NUMBER, _OWNED.word)


@native
def _disown(g: Word) -> Word:
    """A gradient belongs to somebody else from now on, or to nobody."""
    if _is_owned(g):
        g[OUTPUT_NUMBER] = 0
        c.Py_DecRef(_OWNED.word)
    return 0


@native
def _arrive(own: Word, node: Word, number: Word, g: Word) -> Word:
    """Add a contribution to the gradient of a result; whether that fails."""
    slots = _slots_of(own, node)
    if not slots:
        return 1
    k = c.PyLong_AsLong(number)
    old = (slots[LIST_ITEMS])[k]
    if old == NONE.word:
        return put(slots[LIST_ITEMS], k, g)
    _disown(old)
    _disown(g)
    total = c.PyNumber_Add(old, g)
    if not total:
        return 1
    _own(total)
    put(slots[LIST_ITEMS], k, total)
    c.Py_DecRef(total)
    return 0


@native
def _accumulate(leaf: Word, g: Word) -> Word:
    """leaf.grad += g, in memory that no other tensor shares; whether that fails."""
    if leaf[REQUIRES] == FALSE.word:  # it does not any more
        return 0
    old = leaf[GRAD]
    if old != NONE.word:
        c.Py_IncRef(old)
        new = c.PyNumber_Add(old, g)
        c.Py_DecRef(old)
        _disown(g)
    elif _is_owned(g):
        new = taken(g)
        _disown(g)
    else:
        arguments = stack(1)
        arguments[0] = g
        new = c.PyObject_Vectorcall(_COPY.word, arguments, 1, 0)
    if not new:
        return 1
    failed = 0
    if is_tensor(new) and new[TENSOR_TYPE] == leaf[TENSOR_TYPE]:
        put(leaf, GRAD, new)
    else:
        failed = c.PyObject_SetAttr(leaf, _GRAD_NAME.word, new)
    c.Py_DecRef(new)
    return failed


@native
def _visit(own: Word, node: Word, slots: Word) -> Word:
    """Send gradients on to the operands of a node; whether that fails."""
    edges = taken(node[EDGES])
    gradients = _gradients(node, slots)
    failed = 1
    if gradients:
        if own[RETAIN] != TRUE.word:
            _release(node)
        failed = _hand_on(own, edges, slots, gradients)
        c.Py_DecRef(gradients)
    c.Py_DecRef(edges)
    return failed


@native
def _gradients(node: Word, slots: Word) -> Word:
    """The tuple of the gradients that a node sends on; 0 with an exception set."""
    kept = node[KEPT]
    known = kept and kept != NONE.word and kept[KEPT_UNIT] == node[UNIT]
    if known and node[RELEASED] == FALSE.word:
        arguments = stack(32)
        count = _operands(node, slots, arguments + 8)
        if count:
            arguments[0] = kept[GRADIENT]
            return _applied(node, arguments, count + 1)
    arguments = stack(2)
    arguments[0] = node
    arguments[1] = slots
    return c.PyObject_Vectorcall(_VISIT.word, arguments, 2, 0)


@native
def _applied(node: Word, arguments: Word, count: Word) -> Word:
    """What a gradient makes of its operands; the node, which may be released meanwhile by another
    thread, holds them."""
    inputs = taken(node[SAVED])
    outputs = taken(node[RESULTS])
    unit = taken(arguments[0])
    found = apply(_APPLY.word, arguments, count, 0)
    c.Py_DecRef(unit)
    c.Py_DecRef(outputs)
    c.Py_DecRef(inputs)
    return found


@native
def _operands(node: Word, slots: Word, operands: Word) -> Word:
    """Write cotangents, inputs and outputs, as the gradient takes them: how many, or 0 where
    Python has to look."""
    n = slots[LENGTH]
    inputs = node[SAVED]
    outputs = node[RESULTS]
    count = inputs[LENGTH]
    if n + count + n > _MOST:
        return 0
    for k in range(n):
        g = (slots[LIST_ITEMS])[k]
        if g == NONE.word:
            return 0
        operands[k] = g
    for k in range(count):
        operands[n + k] = inputs[ITEMS + k]
    for k in range(n):
        operands[n + count + k] = outputs[ITEMS + k]
    versions = node[VERSIONS]
    saved = c.PyLong_AsLong((node[KEPT])[BITS])
    k = 0
    while saved:
        if saved & 1 and not _is_as_it_was(operands[n + k], versions[ITEMS + k]):
            return 0
        saved >>= 1
        k += 1
    return n + count + n


@native
def _is_as_it_was(x: Word, version: Word) -> Word:
    """Whether a tensor has not been changed in place since this was its version; a number never
    is."""
    if not is_tensor(x):
        return 1
    now = ((x[VERSION])[LIST_ITEMS])[0]
    return now == version or c.PyLong_AsLong(now) == c.PyLong_AsLong(version)


@native
def _release(node: Word) -> Word:
    """See `TapeNode.release`."""
    put(node, RELEASED, TRUE.word)
    put(node, SAVED, _EMPTY.word)
    put(node, RESULTS, _EMPTY.word)
    put(node, EDGES, _EMPTY.word)
    put(node, VERSIONS, _EMPTY.word)
    return 0


@native
def _hand_on(own: Word, edges: Word, slots: Word, gradients: Word) -> Word:
    """Send on what the gradient of a node has made of cotangents; whether that fails."""
    cotangents = slots[LIST_ITEMS]
    n = slots[LENGTH]
    for k in range(n):
        g = cotangents[k]
        if g != NONE.word and not _has(gradients + 8 * ITEMS, gradients[LENGTH], g):
            _disown(g)
    found = 0
    for k in range(edges[LENGTH]):
        edge = edges[ITEMS + k]
        if edge == NONE.word:
            continue
        g = gradients[ITEMS + found]
        found += 1
        if g[BASE] == NONE.word and not _has(cotangents, n, g):
            _own(g)
        if edge[TYPE] == _TUPLE.word:
            failed = _arrive(own, edge[ITEMS], edge[ITEMS + 1], g)
        else:
            failed = _accumulate(edge, g)
        if failed:
            return 1
    return 0


@native
def _has(words: Word, count: Word, x: Word) -> Word:
    for k in range(count):
        if words[k] == x:
            return 1
    return 0


# -- in Python ----------------------------------------------------------------------------------


class _Owned:
    """Marks gradients that no leaf has taken yet."""


_owned = _Owned()


def _visited(node: TapeNode, slots: list[Tensor | None]) -> tuple[Tensor, ...]:
    """The gradients that a node sends on; from now on native code works out what it is asked for
    here, if it can."""
    kept = node.kept
    cotangents = tuple(g for g in slots if g is not None)
    gradients = node.gradients(node.edges, slots, False)
    if kept is not None and kept.unit is None and len(cotangents) == len(slots):
        wanted = tuple(e is not None for e in node.edges)
        kept.gradient = Vjp.of(node.unit, (True,) * len(slots), wanted)
        kept.unit = node.unit
    return gradients


def _went_on(waiting: dict[TapeNode, list[Tensor | None]], retain: bool) -> None:
    """Visit all nodes that wait."""
    rest = Flow(False)
    rest.waiting = waiting
    rest.heap = [(-node.number, node) for node in waiting]
    heapq.heapify(rest.heap)
    for slots in waiting.values():
        for g in slots:
            if g is not None and getattr(g, "output_number", None) is _owned:
                del g.output_number
                rest.own(g)
    rest.run(retain)


_EMPTY_TUPLE: tuple[()] = ()
_NAMES = ("grad", "types", "number")


def _bind() -> None:
    """Let native code run where Python's does so far."""
    grad, types, number = _NAMES
    places: dict[Cell, Any] = {
        _OWNED: _owned, _EMPTY: _EMPTY_TUPLE, _TUPLE: tuple, _GRAD_NAME: grad,
        _NODE_TYPES: types, _NODE_NUMBER: number, _LEAVES: on_leaves,
        _NODES: vars(on_nodes)["data"], _COPY: copy, _APPLY: value.applying.slow, _VISIT: _visited, _GO_ON: _went_on,
    }  # fmt: skip
    for cell, x in places.items():
        cell.word = id(x)
    flow.flowing.fill(flow_back)


library.when_loaded(_bind)
