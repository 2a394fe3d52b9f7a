"""Gradients on their way back over the tape in native code: what `flow.Flow` does.

Only what most graphs are made of is served: eager ops, without hooks.  The loop stops at a node of
another kind, or when somebody registers a hook, and `Flow` goes on from there.  A gradient that no
leaf has taken yet is marked as owned in the place where results of ops have their number, which
gradients do not use.
"""

from __future__ import annotations

import heapq
from typing import Any

from dualgrad.compiler.grad import Vjp
from dualgrad.compiler.ir import value
from dualgrad.compiler.ops.elementwise import copy
from dualgrad.entries.ops import MOST, NOT_SERVED, PLAN, find, results
from dualgrad.entries.tape import (
    BITS,
    EDGES,
    EMPTY,
    KEPT,
    RELEASED,
    RESULTS,
    SAVED,
    STALE_NODE,
    TAPE_NODE,
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
    NONE,
    OUTPUT_NUMBER,
    REQUIRES,
    TENSOR_TYPE,
    TRUE,
    VERSION,
    taken,
)
from dualgrad.entries.waiting import (
    COUNT,
    HEAP,
    RETAIN,
    all_waiting,
    begin,
    end,
    pop,
    slots_of,
    take_slots,
)
from dualgrad.gradients import flow
from dualgrad.gradients.flow import Flow
from dualgrad.gradients.hooks import on_leaves, on_nodes
from dualgrad.gradients.tape import Kept, TapeNode
from dualgrad.runtime.native import library
from dualgrad.runtime.native.language import Cell, Word, c, native, stack
from dualgrad.runtime.native.layout import ITEMS, LENGTH, LIST_ITEMS, TYPE, slot
from dualgrad.tensor import Tensor

KEPT_UNIT, GRADIENT = slot(Kept, "unit"), slot(Kept, "gradient")

_OWNED, _TUPLE, _GRAD_NAME = Cell(), Cell(), Cell()
_LEAVES, _NODES, _COPY, _APPLY, _VISIT, _GO_ON = Cell(), Cell(), Cell(), Cell(), Cell(), Cell()


@native
def flow_back(function: Word, arguments: Word, count: Word, names: Word) -> Word:
    """See `flow.flow_back`."""
    if count != 3 or names or _is_hooked() or not _is_simple(arguments[0]):
        return c.PyObject_Vectorcall(function, arguments, count, names)
    own = stack(6)
    own[RETAIN] = arguments[2]
    failed = begin(own)
    if not failed:
        failed = _start(own, arguments[0], arguments[1])
    if not failed:
        failed = _loop(own)
    end(own)
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
        if ((own[HEAP])[1])[TYPE] != TAPE_NODE.word or _is_hooked():
            return _go_on(own)
        node = pop(own)
        slots = take_slots(own, node)
        failed = _visit(own, node, slots)
        c.Py_DecRef(slots)
        c.Py_DecRef(node)
        if failed:
            return 1
    return 0


@native
def _go_on(own: Word) -> Word:
    """Let Python visit all that waits; whether that fails."""
    arguments = stack(2)
    arguments[0] = all_waiting(own)
    arguments[1] = own[RETAIN]
    if not arguments[0]:
        return 1
    failed = _is_error(c.PyObject_Vectorcall(_GO_ON.word, arguments, 2, 0))
    c.Py_DecRef(arguments[0])
    return failed


@native
def _is_error(x: Word) -> Word:
    """Whether a call has failed; what it returned is let go."""
    if x:
        c.Py_DecRef(x)
    return not x


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
    slots = slots_of(own, node)
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
        arguments = stack(17)
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
    found = _computed(arguments, count)
    if found == NOT_SERVED:
        found = c.PyObject_Vectorcall(_APPLY.word, arguments, count, 0)
    c.Py_DecRef(unit)
    c.Py_DecRef(outputs)
    c.Py_DecRef(inputs)
    return found


@native
def _computed(arguments: Word, count: Word) -> Word:
    """The results of a gradient that are not to be recorded, where its plan is known."""
    seen = stack(2)
    entry = find(arguments, count, seen)
    if not entry:
        return NOT_SERVED
    plan = taken(entry[PLAN])  # it keeps the entry
    outputs = results(entry, arguments, 0)
    c.Py_DecRef(plan)
    return outputs


@native
def _operands(node: Word, slots: Word, operands: Word) -> Word:
    """Write cotangents, inputs and outputs, as the gradient takes them: how many, or 0 where
    Python has to look."""
    n = slots[LENGTH]
    inputs = node[SAVED]
    outputs = node[RESULTS]
    count = inputs[LENGTH]
    if n + count + n > MOST:
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
    put(node, SAVED, EMPTY.word)
    put(node, RESULTS, EMPTY.word)
    put(node, EDGES, EMPTY.word)
    put(node, VERSIONS, EMPTY.word)
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


_GRAD = "grad"


def _bind() -> None:
    """Tell native code where things are; the library is loaded."""
    places: dict[Cell, Any] = {
        _OWNED: _owned, _TUPLE: tuple, _GRAD_NAME: _GRAD,
        _LEAVES: on_leaves, _NODES: on_nodes, _COPY: copy, _APPLY: value.applying.slow,
        _VISIT: _visited, _GO_ON: _went_on,
    }  # fmt: skip
    for cell, x in places.items():
        cell.word = id(x)


library.when_loaded(_bind)
library.when_filled(lambda: flow.flowing.fill(flow_back))
