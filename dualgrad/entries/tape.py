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
    LIST_ITEMS,
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
    taken,
)
from dualgrad.gradients import tape
from dualgrad.gradients.tape import STALE, Absent, Kept, TapeNode
from dualgrad.runtime import srcinfo
from dualgrad.runtime.dtype import DType, float32
from dualgrad.runtime.native import library
from dualgrad.runtime.native.language import Cell, Word, c, native
from dualgrad.runtime.native.layout import ITEMS, LENGTH, TYPE, slot

EDGES, SAVED, NUMBER = (slot(TapeNode, n) for n in ("edges", "inputs", "number"))
RESULTS, PLACE, RELEASED = (slot(TapeNode, n) for n in ("outputs", "place", "released"))
TYPES, UNIT, VERSIONS = (slot(TapeNode, n) for n in ("types", "unit", "versions"))
KEPT = slot(TapeNode, "kept")
ABSENT_TYPE = slot(Absent, "type")
BITS = slot(Kept, "bits")
DTYPE, KIND = slot(TensorType, "dtype"), slot(DType, "kind")
FILE = slot(CodeType, "co_filename")

DONE, NOT_SERVED, FAILED = 0, 1, -1
_MOST = 60  # operands and results, whose numbers are bits of a word

TAPE_NODE, ABSENT, VJP, BATCHED = Cell(), Cell(), Cell(), Cell()
STALE_NODE, FLOAT = Cell(), Cell()
ABSENTS, NUMBERS, OWN_FILES, USER_PLACE = Cell(), Cell(), Cell(), Cell()


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
    node[RESULTS] = c.PyTuple_New(n)
    node[TYPES] = c.PyTuple_New(n)
    node[VERSIONS] = c.PyTuple_New(count + n)
    if not (node[NUMBER] and node[EDGES] and node[SAVED] and node[RESULTS]):
        return 1
    if not (node[TYPES] and node[VERSIONS]):
        return 1
    for k in range(count):
        edge = _edge(operands[k]) if wanted >> k & 1 else taken(NONE.word)
        if not edge:
            return 1
        (node[EDGES])[ITEMS + k] = edge
        if _save(node, operands[k], count, k, saved >> k & 1):
            return 1
    for k in range(n):
        (node[TYPES])[ITEMS + k] = taken((outputs[k])[TENSOR_TYPE])
        if _keep(node, outputs[k], count, k, saved >> (count + k) & 1):
            return 1
    return 0


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
def _save(node: Word, x: Word, count: Word, k: Word, saved: Word) -> Word:
    """Note operand k, or its type; whether that fails."""
    versions = node[VERSIONS]
    if not is_tensor(x):
        versions[ITEMS + k] = c.PyLong_FromLong(0)
        (node[SAVED])[ITEMS + k] = taken(x)
    elif saved:
        versions[ITEMS + k] = taken(((x[VERSION])[LIST_ITEMS])[0])
        (node[SAVED])[ITEMS + k] = taken(x)
    else:
        versions[ITEMS + k] = c.PyLong_FromLong(0)
        (node[SAVED])[ITEMS + k] = absent(x[TENSOR_TYPE])
    return not (node[SAVED])[ITEMS + k]


@native
def _keep(node: Word, x: Word, count: Word, k: Word, saved: Word) -> Word:
    """Note result k, or its type; whether that fails."""
    versions = node[VERSIONS]
    if saved:
        versions[ITEMS + count + k] = taken(((x[VERSION])[LIST_ITEMS])[0])
        (node[RESULTS])[ITEMS + k] = detached(x)
    else:
        versions[ITEMS + count + k] = c.PyLong_FromLong(0)
        (node[RESULTS])[ITEMS + k] = absent(x[TENSOR_TYPE])
    return not (node[RESULTS])[ITEMS + k]


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
    lasti = c.PyLong_FromLong(c.PyFrame_GetLasti(frame))
    if not lasti:
        return 0
    place = c.PyTuple_New(2)
    if not place:
        c.Py_DecRef(lasti)
        return 0
    place[ITEMS] = taken(code)
    place[ITEMS + 1] = lasti
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


def _bind() -> None:
    """Let native code run where Python's does so far."""
    places = {
        TAPE_NODE: TapeNode, ABSENT: Absent, VJP: Vjp, BATCHED: Batched,
        STALE_NODE: STALE, FLOAT: float32.kind,
        ABSENTS: tape.absents, NUMBERS: tape.numbers, OWN_FILES: srcinfo.own_files,
        USER_PLACE: srcinfo.user_place,
    }  # fmt: skip
    for cell, x in places.items():
        cell.word = id(x)
    tape.recording.fill(record)


library.when_loaded(_bind)
