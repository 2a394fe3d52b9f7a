"""Putting units on the tape from native code: what `TapeNode` and `record` do."""

from __future__ import annotations

from types import CodeType

from dualgrad.compiler.batching import Batched
from dualgrad.compiler.grad import Vjp
from dualgrad.compiler.ir.types import TensorType
from dualgrad.entries.tensors import (
    ARRAY,
    BASE,
    FALSE,
    GRAD,
    GRAD_FN,
    LAYOUT,
    NODE,
    NONE,
    ORIGIN,
    OUTPUT_NUMBER,
    OWNER,
    REQUIRES,
    SIG,
    TENSOR,
    TENSOR_TYPE,
    TRUE,
    VERSION,
    ZERO,
    taken,
)
from dualgrad.gradients import tape
from dualgrad.gradients.tape import STALE, Absent, Kept, TapeNode
from dualgrad.runtime import srcinfo
from dualgrad.runtime.dtype import DType, float32
from dualgrad.runtime.native import library
from dualgrad.runtime.native.language import Cell, Word, c, native
from dualgrad.runtime.native.layout import ITEMS, LENGTH, LIST_ITEMS, TYPE, slot

EDGES, SAVED, NUMBER = (slot(TapeNode, n) for n in ("edges", "inputs", "number"))
RESULTS, PLACE, RELEASED = (slot(TapeNode, n) for n in ("outputs", "place", "released"))
TYPES, UNIT, VERSIONS = (slot(TapeNode, n) for n in ("types", "unit", "versions"))
KEPT = slot(TapeNode, "kept")
ABSENT_TYPE = slot(Absent, "type")
BITS, KEPT_TYPES, KEPT_OUTPUTS = (slot(Kept, n) for n in ("bits", "types", "outputs"))
DTYPE, KIND = slot(TensorType, "dtype"), slot(DType, "kind")
FILE = slot(CodeType, "co_filename")

DONE, NOT_SERVED, FAILED = 0, 1, -1
_PLACES = 64  # instructions whose place is remembered
_MOST = 60  # operands and results, whose numbers are bits of a word

TAPE_NODE, ABSENT, VJP, BATCHED = Cell(), Cell(), Cell(), Cell()
STALE_NODE, FLOAT, EMPTY = Cell(), Cell(), Cell()
ABSENTS, NUMBERS, OWN_FILES, USER_PLACE, ZEROS = Cell(), Cell(), Cell(), Cell(), Cell()
places = Cell(2 * _PLACES)  # (code, instruction), and the instruction as a word


@native
def put(p: Word, k: Word, x: Word) -> Word:
    """Let a place of an object hold x, whatever it holds."""
    old = p[k]
    c.Py_IncRef(x)
    p[k] = x
    if old:
        c.Py_DecRef(old)
    return 0


@native
def is_tensor(x: Word) -> Word:
    kind = x[TYPE]
    return kind == TENSOR.word or c.PyType_IsSubtype(kind, TENSOR.word)


@native
def record_unit(
    unit: Word, operands: Word, count: Word, outputs: Word, n: Word, known: Word
) -> Word:
    """Put a unit on the tape; `known` is the `Saves` of its gradient on such operands.

    `operands` and `outputs` are addresses of words, of which some operand requires gradients.
    Returns DONE; NOT_SERVED where nothing has been done and `record` has to; or FAILED with an
    exception set.
    """
    if count + n > _MOST or unit[TYPE] == VJP.word or unit[TYPE] == BATCHED.word:
        return NOT_SERVED
    wanted = _wanted(operands, count)
    if wanted < 0:
        return NOT_SERVED
    key = c.PyLong_FromLong(wanted)
    if not key:
        return FAILED
    kept = c.PyDict_GetItemWithError(known, key)
    c.Py_DecRef(key)
    if not kept:
        return FAILED if c.PyErr_Occurred() else NOT_SERVED
    saved = c.PyLong_AsLong(kept[BITS])
    c.Py_IncRef(kept)
    node = c.PyType_GenericAlloc(TAPE_NODE.word, 0)
    if not node:
        c.Py_DecRef(kept)
        return FAILED
    node[KEPT] = kept
    done = DONE
    if _fill(node, unit, operands, count, outputs, n, wanted, saved):
        done = FAILED
    else:
        _attach(node, outputs, n)
    c.Py_DecRef(node)
    return done


@native
def _wanted(operands: Word, count: Word) -> Word:
    """The operands that want a gradient, as bits; -1 for some that are not served."""
    found = 0
    for k in range(count):
        x = operands[k]
        if is_tensor(x):
            if x[REQUIRES] == TRUE.word:
                if x[GRAD_FN] == STALE_NODE.word:
                    return -1
                if x[GRAD_FN] != NONE.word and not x[OUTPUT_NUMBER]:
                    return -1
                found |= 1 << k
            elif x[REQUIRES] != FALSE.word:
                return -1
    return found


@native
def _fill(
    node: Word, unit: Word, operands: Word, count: Word, outputs: Word, n: Word,
    wanted: Word, saved: Word,
) -> Word:  # fmt: skip
    """Whether it fails to give a node its contents."""
    node[UNIT] = taken(unit)
    node[RELEASED] = taken(FALSE.word)
    node[PLACE] = user_place()
    if not node[PLACE]:
        return 1
    node[NUMBER] = c.PyIter_Next(NUMBERS.word)
    node[EDGES] = c.PyTuple_New(count)
    node[SAVED] = c.PyTuple_New(count)
    if not (node[NUMBER] and node[EDGES] and node[SAVED]):
        return 1
    if _note_versions(node, operands, count, outputs, n, saved):
        return 1
    for k in range(count):
        edge = _edge(operands[k]) if wanted >> k & 1 else taken(NONE.word)
        if not edge:
            return 1
        (node[EDGES])[ITEMS + k] = edge
        x = operands[k]
        x = taken(x) if saved >> k & 1 or not is_tensor(x) else absent(x[TENSOR_TYPE])
        if not x:
            return 1
        (node[SAVED])[ITEMS + k] = x
    return _note_types(node, outputs, n) or _note_outputs(node, outputs, n, saved >> count)


@native
def _edge(x: Word) -> Word:
    """Where the gradient of a tensor goes that requires one."""
    if x[GRAD_FN] == NONE.word:
        return taken(x)
    edge = c.PyTuple_New(2)
    if edge:
        edge[ITEMS] = taken(x[GRAD_FN])
        edge[ITEMS + 1] = taken(x[OUTPUT_NUMBER])
    return edge


@native
def _note_versions(
    node: Word, operands: Word, count: Word, outputs: Word, n: Word, saved: Word
) -> Word:
    """Whether it fails to note the versions of what is saved; mostly all are 0."""
    changed = 0
    for k in range(count + n):
        if saved >> k & 1 and _version(operands, count, outputs, k) != ZERO.word:
            changed = 1
    if not changed:
        node[VERSIONS] = taken((ZEROS.word)[ITEMS + count + n])
        return 0
    versions = c.PyTuple_New(count + n)
    if not versions:
        return 1
    for k in range(count + n):
        version = _version(operands, count, outputs, k) if saved >> k & 1 else ZERO.word
        versions[ITEMS + k] = taken(version)
    node[VERSIONS] = versions
    return 0


@native
def _version(operands: Word, count: Word, outputs: Word, k: Word) -> Word:
    """The version of what number k of a unit's operands and results stands for."""
    x = operands[k] if k < count else outputs[k - count]
    return ((x[VERSION])[LIST_ITEMS])[0] if is_tensor(x) else ZERO.word


@native
def _note_types(node: Word, outputs: Word, n: Word) -> Word:
    """Whether it fails to note the types of the results: mostly those of the last node."""
    known = (node[KEPT])[KEPT_TYPES]
    same = known[LENGTH] == n
    for k in range(n):
        same = same and known[ITEMS + k] == (outputs[k])[TENSOR_TYPE]
    if same:
        node[TYPES] = taken(known)
        return 0
    types = c.PyTuple_New(n)
    if not types:
        return 1
    for k in range(n):
        types[ITEMS + k] = taken((outputs[k])[TENSOR_TYPE])
    node[TYPES] = types
    put(node[KEPT], KEPT_TYPES, types)
    return put(node[KEPT], KEPT_OUTPUTS, EMPTY.word)


@native
def _note_outputs(node: Word, outputs: Word, n: Word, saved: Word) -> Word:
    """Whether it fails to keep the results, or what stands for them."""
    known = (node[KEPT])[KEPT_OUTPUTS]
    if not saved and known[LENGTH] == n:
        node[RESULTS] = taken(known)
        return 0
    results = c.PyTuple_New(n)
    if not results:
        return 1
    node[RESULTS] = results
    for k in range(n):
        o = outputs[k]
        x = detached(o) if saved >> k & 1 else absent(o[TENSOR_TYPE])
        if not x:
            return 1
        results[ITEMS + k] = x
    return 0 if saved else put(node[KEPT], KEPT_OUTPUTS, results)


@native
def absent(type: Word) -> Word:
    """What stands for a tensor of a type; see `tape.absent`."""
    found = c.PyDict_GetItemWithError(ABSENTS.word, type)
    if found:
        return taken(found)
    if c.PyErr_Occurred():
        return 0
    found = c.PyType_GenericAlloc(ABSENT.word, 0)
    if found:
        found[ABSENT_TYPE] = taken(type)
        if c.PyDict_SetItem(ABSENTS.word, type, found):
            c.Py_DecRef(found)
            return 0
    return found


@native
def detached(x: Word) -> Word:
    """A second handle on a value; see `Tensor.detached`."""
    out = c.PyType_GenericAlloc(TENSOR.word, 0)
    if not out:
        return 0
    out[ARRAY] = taken(x[ARRAY])
    out[TENSOR_TYPE] = taken(x[TENSOR_TYPE])
    out[LAYOUT] = taken(x[LAYOUT])
    out[SIG] = taken(x[SIG])
    out[NODE] = taken(x[NODE])
    out[OWNER] = taken(x[OWNER])
    out[BASE] = taken(NONE.word)
    out[ORIGIN] = taken(NONE.word)
    out[GRAD_FN] = taken(NONE.word)
    out[GRAD] = taken(NONE.word)
    out[REQUIRES] = taken(FALSE.word)
    out[VERSION] = taken(x[VERSION])
    return out


@native
def _attach(node: Word, outputs: Word, n: Word) -> Word:
    """Let the outputs that can have gradients come from a node."""
    for k in range(n):
        o = outputs[k]
        if ((o[TENSOR_TYPE])[DTYPE])[KIND] == FLOAT.word and o[REQUIRES] == FALSE.word:
            put(o, REQUIRES, TRUE.word)
            put(o, GRAD_FN, node)
            number = c.PyLong_FromLong(k)  # below _MOST, so it exists
            put(o, OUTPUT_NUMBER, number)
            c.Py_DecRef(number)
    return 0


@native
def user_place() -> Word:
    """The innermost user frame as (code, instruction), or None; see `srcinfo.user_place`."""
    frame = c.PyEval_GetFrame()
    if not frame:
        return taken(NONE.word)
    c.Py_IncRef(frame)
    while frame:
        code = c.PyFrame_GetCode(frame)
        own = c.PyDict_GetItemWithError(OWN_FILES.word, code[FILE])
        if own != TRUE.word:
            place = _place(code, frame) if own else c.PyObject_CallNoArgs(USER_PLACE.word)
            c.Py_DecRef(code)
            c.Py_DecRef(frame)
            return place
        c.Py_DecRef(code)
        back = c.PyFrame_GetBack(frame)
        c.Py_DecRef(frame)
        frame = back
    return taken(NONE.word)


@native
def _place(code: Word, frame: Word) -> Word:
    """(code, instruction) of a frame; those of loops are made once."""
    lasti = c.PyFrame_GetLasti(frame)
    entry = places.at + 16 * (((code >> 4) + (lasti >> 1)) & (_PLACES - 1))
    known = entry[0]
    if known and known[ITEMS] == code and entry[1] == lasti:
        return taken(known)
    place = c.PyTuple_New(2)
    if not place:
        return 0
    number = c.PyLong_FromLong(lasti)
    if not number:
        c.Py_DecRef(place)
        return 0
    place[ITEMS] = taken(code)
    place[ITEMS + 1] = number
    entry[1] = lasti  # before the old place dies
    put(entry, 0, place)
    return place


@native
def record(self: Word, arguments: Word, count: Word, names: Word) -> Word:
    """`record(unit, operands, outputs, known)` for Python."""
    if count == 4 and not names:
        operands = arguments[1]
        outputs = arguments[2]
        done = record_unit(
            arguments[0], operands + 8 * ITEMS, operands[LENGTH],
            outputs + 8 * ITEMS, outputs[LENGTH], arguments[3],
        )  # fmt: skip
        if done == FAILED:
            return 0
        if done == DONE:
            return taken(NONE.word)
    return c.PyObject_Vectorcall(self, arguments, count, names)


_empty: tuple[()] = ()
_zeros = tuple([(0,) * k for k in range(_MOST + 1)])


def _bind() -> None:
    """Tell native code where things are; the library is loaded."""
    places = {
        TAPE_NODE: TapeNode, ABSENT: Absent, VJP: Vjp, BATCHED: Batched,
        STALE_NODE: STALE, FLOAT: float32.kind,
        ABSENTS: tape.absents, NUMBERS: tape.numbers, OWN_FILES: srcinfo.own_files,
        USER_PLACE: srcinfo.user_place, EMPTY: _empty, ZEROS: _zeros,
    }  # fmt: skip
    for cell, x in places.items():
        cell.word = id(x)


library.when_loaded(_bind)
library.when_filled(lambda: tape.recording.fill(record))
