"""Nodes of the tape that wait for a visit, and what has arrived at their results.

A heap has the latest node first; a table finds the list of what has arrived at a node, None for
each result that nothing has arrived at.  It is at most half full, with linear probing.  The heap
holds the numbers of nodes, which may be too large for a word, the table nodes and lists.
"""

from __future__ import annotations

from dualgrad.entries.tape import NUMBER, TAPE_NODE, TYPES
from dualgrad.entries.tensors import NONE, taken
from dualgrad.runtime.native import library
from dualgrad.runtime.native.language import Cell, Word, c, native
from dualgrad.runtime.native.layout import LENGTH, LIST_ITEMS, TYPE

HEAP, COUNT, TABLE, PLACES, RETAIN = range(5)  # words of a flow
_FIRST = 64  # places of the table at first; half of them are used, and so many fit into the heap
_GREATER = 4  # Py_GT

_types, _number = Cell(), Cell()


@native
def begin(own: Word) -> Word:
    """Make room; whether that fails."""
    own[COUNT] = 0
    own[PLACES] = _FIRST
    own[HEAP] = c.PyMem_RawMalloc(8 * _FIRST)
    own[TABLE] = c.PyMem_RawCalloc(2 * _FIRST, 8)
    if own[HEAP] and own[TABLE]:
        return 0
    c.PyErr_NoMemory()
    return 1


@native
def end(own: Word) -> Word:
    """Let go of all that waits."""
    for k in range(own[COUNT]):
        c.Py_DecRef((own[HEAP])[2 * k])
    if own[TABLE]:
        for k in range(own[PLACES]):
            entry = own[TABLE] + 16 * k
            if entry[0]:
                c.Py_DecRef(entry[1])
                c.Py_DecRef(entry[0])
    c.PyMem_RawFree(own[TABLE])
    c.PyMem_RawFree(own[HEAP])
    return 0


@native
def pop(own: Word) -> Word:
    """The node with the highest number, which leaves the heap; the table holds it."""
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
def slots_of(own: Word, node: Word) -> Word:
    """What has arrived at a node (borrowed), which waits from now on; 0 with an exception set."""
    entry = _place_of(own[TABLE], own[PLACES], node)
    if entry[0]:
        return entry[1]
    count = _results_of(node)
    if count < 0:
        return 0
    if 2 * own[COUNT] + 2 > own[PLACES] and _grow(own):
        return 0
    slots = c.PyList_New(count)
    if not slots:
        return 0
    for k in range(count):
        (slots[LIST_ITEMS])[k] = taken(NONE.word)
    if _push(own, node):
        c.Py_DecRef(slots)
        return 0
    entry = _place_of(own[TABLE], own[PLACES], node)
    entry[0] = taken(node)
    entry[1] = slots
    return slots


@native
def _results_of(node: Word) -> Word:
    """How many results a node has; -1 with an exception set."""
    if node[TYPE] == TAPE_NODE.word:
        return (node[TYPES])[LENGTH]
    types = c.PyObject_GetAttr(node, _types.word)
    if not types:
        return -1
    count = c.PyObject_Size(types)
    c.Py_DecRef(types)
    return count


@native
def _push(own: Word, node: Word) -> Word:
    """Put a node into the heap, which has room; whether that fails."""
    if node[TYPE] == TAPE_NODE.word:
        number = taken(node[NUMBER])
    else:
        number = c.PyObject_GetAttr(node, _number.word)
        if not number:
            return 1
    heap = own[HEAP]
    k = own[COUNT]
    own[COUNT] = k + 1
    while k and _is_later(number, heap[(k - 1) // 2 * 2]):
        above = (k - 1) // 2
        heap[2 * k] = heap[2 * above]
        heap[2 * k + 1] = heap[2 * above + 1]
        k = above
    heap[2 * k] = number
    heap[2 * k + 1] = node
    return 0


# -- the table ----------------------------------------------------------------------------------


@native
def _home(places: Word, node: Word) -> Word:
    return (node >> 4) & (places - 1)


@native
def _place_of(table: Word, places: Word, node: Word) -> Word:
    """The entry of a node, or the empty one where it would stand."""
    k = _home(places, node)
    while table[2 * k] and table[2 * k] != node:
        k = (k + 1) & (places - 1)
    return table + 16 * k


@native
def _grow(own: Word) -> Word:
    """Twice the room; whether that fails."""
    places = 2 * own[PLACES]
    heap = c.PyMem_RawRealloc(own[HEAP], 8 * places)
    if heap:
        own[HEAP] = heap
    table = c.PyMem_RawCalloc(2 * places, 8)
    if not (heap and table):
        c.PyMem_RawFree(table)
        c.PyErr_NoMemory()
        return 1
    for k in range(own[PLACES]):
        old = own[TABLE] + 16 * k
        if old[0]:
            entry = _place_of(table, places, old[0])
            entry[0] = old[0]
            entry[1] = old[1]
    c.PyMem_RawFree(own[TABLE])
    own[TABLE] = table
    own[PLACES] = places
    return 0


@native
def take_slots(own: Word, node: Word) -> Word:
    """What has arrived at a node, which leaves the table; the caller has the references to both.

    Entries behind the gap move up, so that none is cut off from its home.
    """
    table = own[TABLE]
    last = own[PLACES] - 1
    gap = (_place_of(table, own[PLACES], node) - table) // 16
    slots = table[2 * gap + 1]
    k = (gap + 1) & last
    while table[2 * k]:
        home = _home(own[PLACES], table[2 * k])
        if ((k - home) & last) >= ((k - gap) & last):
            table[2 * gap] = table[2 * k]
            table[2 * gap + 1] = table[2 * k + 1]
            gap = k
        k = (k + 1) & last
    table[2 * gap] = 0
    return slots


@native
def all_waiting(own: Word) -> Word:
    """A dict of what has arrived at the nodes that wait; 0 with an exception set."""
    waiting = c.PyDict_New()
    k = 0
    while waiting and k < own[PLACES]:
        entry = own[TABLE] + 16 * k
        if entry[0] and c.PyDict_SetItem(waiting, entry[0], entry[1]):
            c.Py_DecRef(waiting)
            return 0
        k += 1
    return waiting


_NAMES = ("types", "number")


def _bind() -> None:
    """Tell native code where things are; the library is loaded."""
    _types.word, _number.word = map(id, _NAMES)


library.when_loaded(_bind)
