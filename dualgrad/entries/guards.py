"""Guards of compiled calls, as instructions that native code runs.

A table is a row of words.  Each instruction begins with the address of the function that carries
it out and that returns where the next one stands, or 0 if the guard does not hold; `DONE` ends a
table.  What they look at stands in a *frame*: word `ARGUMENTS` is the address of the call's
arguments, those from `FIRST` on are registers, references that the frame does not own.  An
operand is the number of a register, or the address of an object that whoever owns the table keeps
alive.

No instruction runs Python code: dicts are walked, or looked up by texts, and only builtin numbers
and texts are compared by value.  So what is in a register lives as long as the call's arguments
and the state behind them.  A guard that cannot be decided that way fails: Python decides then.
"""

from __future__ import annotations

import ctypes
import struct
import sys
import types
from collections.abc import Iterable
from functools import cache

from dualgrad.gradients.hooks import on_leaves
from dualgrad.runtime.native import layout, library
from dualgrad.runtime.native.language import (
    Cell,
    Word,
    c,
    call,
    fill,
    int32,
    native,
    stack,
)
from dualgrad.runtime.native.layout import DICT_VERSION, ITEMS, LENGTH, LIST_ITEMS, TYPE
from dualgrad.tensor import Tensor

ARGUMENTS, FIRST = 0, 8
FRAME = 2048  # words; what is below is no address
DONE = 1

CELL_CONTENTS = 2  # of a cell
FLOAT_BITS = 2  # of a float
SIG, REQUIRES_GRAD, GRAD_FN, GRAD = (
    layout.slot(Tensor, name) for name in ("sig", "requires_grad", "_grad_fn", "_grad")
)
ARRAY_BASE, ARRAY_DATA = layout.ARRAY_BASE // 8, layout.ARRAY_DATA // 8
ARRAY_SHAPE, ARRAY_STRIDES = layout.ARRAY_SHAPE // 8, layout.ARRAY_STRIDES // 8
ARRAY_FLAGS, ARRAY_NDIM = layout.ARRAY_FLAGS, layout.ARRAY_NDIM
OWNS, WRITEABLE = 0x4, 0x400  # among the flags
WIDEST = 8  # bytes of an element at most
MOST_SEEN = 1024  # words of the table of `are_distinct`
ANY, SAME, LOAD = 0, 1, 2  # what `entries_are` does with a value
HISTORY = 1  # as a grad_fn: any but None


class Words:
    """Words that native code reads, and what has to live as long: the first slot has both."""

    __slots__ = ("kept", "words")

    def __init__(self, words: Iterable[int], *kept: object) -> None:
        numbers = [*words]
        self.words = struct.pack(f"={len(numbers)}q", *numbers)
        self.kept = kept


OWN_WORDS = layout.slot(Words, "words")
CONTENTS = 4  # where an object of type bytes has its contents, in words

# Addresses of objects of the process.
known = Cell(8)
NONE, INT, FLOAT, TEXT, BYTES, TUPLE, HOOKED = range(7)


def _bind() -> None:
    objects = (None, int, float, str, bytes, tuple, on_leaves)
    for k, x in enumerate(objects):
        known.memory[k] = id(x)


@native
def passes(table: Word, frame: Word) -> Word:
    """Whether all guards of a table hold."""
    p = table
    while p > DONE:
        p = call(p[0], p, frame)
    return p


@native
def at(frame: Word, operand: Word) -> Word:
    """What an operand stands for."""
    if operand < FRAME:
        return frame[operand]
    return operand


# -- instructions: p is where one stands, with its operands behind it -----------------------------


@native
def done(p: Word, frame: Word) -> Word:
    """[] the end"""
    return DONE


@native
def argument(p: Word, frame: Word) -> Word:
    """[register, number]"""
    frame[p[1]] = (frame[ARGUMENTS])[p[2]]
    return p + 24


@native
def copy(p: Word, frame: Word) -> Word:
    """[register, operand]"""
    frame[p[1]] = at(frame, p[2])
    return p + 24


@native
def is_object(p: Word, frame: Word) -> Word:
    """[operand, operand]: they are one object."""
    return p + 24 if at(frame, p[1]) == at(frame, p[2]) else 0


@native
def differs(p: Word, frame: Word) -> Word:
    """[operand, object]"""
    return p + 24 if at(frame, p[1]) != p[2] else 0


@native
def is_of(p: Word, frame: Word) -> Word:
    """[operand, class]"""
    return p + 24 if (at(frame, p[1]))[TYPE] == p[2] else 0


@native
def has_word(p: Word, frame: Word) -> Word:
    """[operand, number of a word, value]"""
    return p + 32 if (at(frame, p[1]))[p[2]] == p[3] else 0


@native
def word(p: Word, frame: Word) -> Word:
    """[register, operand, number of a word]: what stands there."""
    found = (at(frame, p[2]))[p[3]]
    if not found:
        return 0
    frame[p[1]] = found
    return p + 32


@native
def list_item(p: Word, frame: Word) -> Word:
    """[register, list, number]"""
    items = at(frame, p[2])
    if p[3] >= items[LENGTH]:
        return 0
    frame[p[1]] = (items[LIST_ITEMS])[p[3]]
    return p + 32


@native
def items_are(p: Word, frame: Word) -> Word:
    """[list, count, object...]: it has these elements."""
    items = at(frame, p[1])
    count = p[2]
    if items[LENGTH] != count:
        return 0
    held = items[LIST_ITEMS]
    for k in range(count):
        if held[k] != p[3 + k]:
            return 0
    return p + 24 + 8 * count


@native
def dict_of(p: Word, frame: Word) -> Word:
    """[register, operand]: the dict of an instance."""
    place = c._PyObject_GetDictPtr(at(frame, p[2]))
    if not place:
        return 0
    found = place[0]
    if not found:
        return 0
    frame[p[1]] = found
    return p + 24


@native
def look_up(p: Word, frame: Word) -> Word:
    """[register, dict, text]: the value under a key."""
    found = under(at(frame, p[2]), p[3])
    if not found:
        return 0
    frame[p[1]] = found
    return p + 32


@native
def entry_is(p: Word, frame: Word) -> Word:
    """[dict, text, object]: what a dict has under a key; 0 for nothing."""
    return p + 32 if under(at(frame, p[1]), p[2]) == p[3] else 0


@native
def under(owner: Word, key: Word) -> Word:
    """What a dict has under a key (borrowed); 0 for nothing, or where the key cannot be hashed."""
    found = c.PyDict_GetItemWithError(owner, key)
    if not found:
        c.PyErr_Clear()
    return found


@native
def entries_are(p: Word, frame: Word) -> Word:
    """[dict, count, (key, how, value or register)...]: it has these keys in this order."""
    cursor = stack(3)
    cursor[0] = 0
    owner = at(frame, p[1])
    count = p[2]
    p = p + 24
    if c.PyDict_Size(owner) != count:
        return 0
    for _ in range(count):
        c.PyDict_Next(owner, cursor, cursor + 8, cursor + 16)
        if cursor[1] != p[0] and not same_text(cursor[1], p[0]):
            return 0
        if p[1] == SAME and cursor[2] != p[2]:
            return 0
        if p[1] == LOAD:
            frame[p[2]] = cursor[2]
        p = p + 24
    return p


@native
def unchanged(p: Word, frame: Word) -> Word:
    """[dict, version, where else]: go elsewhere if a dict has not been changed since `note_version`
    has seen it."""
    if p[2] and (p[1])[DICT_VERSION] == p[2]:
        return p + p[3]
    p[2] = 0
    return p + 32


@native
def note_version(p: Word, frame: Word) -> Word:
    """[how far back]: all that has been asked of a dict holds."""
    asked = p - p[1]
    asked[2] = (asked[1])[DICT_VERSION]
    return p + 16


@native
def same_text(a: Word, b: Word) -> Word:
    """Whether two objects are texts, and equal."""
    if a[TYPE] != (known.at)[TEXT] or b[TYPE] != (known.at)[TEXT]:
        return 0
    return c.PyUnicode_Compare(a, b) == 0


@native
def same_value(a: Word, b: Word) -> Word:
    """Whether two objects are one, or builtin integers, texts or bytes that are equal."""
    if a == b:
        return 1
    kind = a[TYPE]
    if kind != b[TYPE]:
        return 0
    if kind != (known.at)[INT] and kind != (known.at)[TEXT] and kind != (known.at)[BYTES]:
        return 0
    return c.PyObject_RichCompareBool(a, b, 2) == 1


@native
def is_value(p: Word, frame: Word) -> Word:
    """[operand, object]: one object, or equal builtin ones."""
    return p + 24 if same_value(at(frame, p[1]), p[2]) else 0


@native
def is_float(p: Word, frame: Word) -> Word:
    """[operand, bits]"""
    x = at(frame, p[1])
    if x[TYPE] != (known.at)[FLOAT]:
        return 0
    return p + 24 if x[FLOAT_BITS] == p[2] else 0


@native
def is_tensor(p: Word, frame: Word) -> Word:
    """[operand, signature, flag, grad_fn]"""
    x = at(frame, p[1])
    if x[SIG] != p[2] and not same_signature(x[SIG], p[2]):
        return 0
    return p + 40 if has_history(x, p[3], p[4]) else 0


@native
def same_signature(a: Word, b: Word) -> Word:
    """Whether two signatures are of strided tensors, and equal: (type, (stride, ...))."""
    if not a:
        return 0
    if a[TYPE] != (known.at)[TUPLE] or b[TYPE] != (known.at)[TUPLE]:
        return 0
    if a[LENGTH] != 2 or b[LENGTH] != 2 or a[ITEMS] != b[ITEMS]:
        return 0
    a = a[ITEMS + 1]
    b = b[ITEMS + 1]
    if a[TYPE] != (known.at)[TUPLE] or b[TYPE] != (known.at)[TUPLE] or a[LENGTH] != b[LENGTH]:
        return 0
    for k in range(a[LENGTH]):
        if not same_value(a[ITEMS + k], b[ITEMS + k]):
            return 0
    return 1


@native
def has_history(x: Word, flag: Word, grad_fn: Word) -> Word:
    """Whether a tensor asks for gradients, and where it comes from."""
    if x[REQUIRES_GRAD] != flag:
        return 0
    if grad_fn == HISTORY:
        return x[GRAD_FN] != (known.at)[NONE]
    return x[GRAD_FN] == grad_fn


@native
def is_sized(p: Word, frame: Word) -> Word:
    """[register, operand, dict of signatures, flag, grad_fn]: a tensor of a known signature, and
    what the dict has for it."""
    x = at(frame, p[2])
    found = under(p[3], x[SIG])
    if not found:
        return 0
    frame[p[1]] = found
    return p + 48 if has_history(x, p[4], p[5]) else 0


@native
def none_hooked(p: Word, frame: Word) -> Word:
    """[]: no leaf has hooks."""
    return p + 8 if c.PyDict_Size((known.at)[HOOKED]) == 0 else 0


@native
def has_code(p: Word, frame: Word) -> Word:
    """[function, code, defaults, defaults of keywords]"""
    f = at(frame, p[1])
    if c.PyFunction_GetCode(f) != p[2] or c.PyFunction_GetDefaults(f) != p[3]:
        return 0
    return p + 40 if c.PyFunction_GetKwDefaults(f) == p[4] else 0


@native
def gives(p: Word, frame: Word) -> Word:
    """[function, integer]: what a function of C without arguments returns."""
    found = c.PyObject_CallNoArgs(p[1])
    if not found:
        c.PyErr_Clear()
        return 0
    same = same_value(found, p[2])
    c.Py_DecRef(found)
    return p + 24 if same else 0


@native
def are_apart(p: Word, frame: Word) -> Word:
    """[count, register..., count of others, address...]: objects that are distinct, and none of
    the others, whose addresses increase."""
    count = p[1]
    own = p + 16
    others = own + 8 * count
    for k in range(count):
        x = frame[own[k]]
        for j in range(k):
            if frame[own[j]] == x:
                return 0
        if is_among(x, others + 8, others[0]):
            return 0
    return others + 8 + 8 * others[0]


@native
def are_distinct(p: Word, frame: Word) -> Word:
    """[register, count, size]: no word of a row is there twice; `size`, a power of two, is that of
    the table which they are put in."""
    seen = stack(MOST_SEEN)
    mask = p[3] - 1
    row = frame + 8 * p[1]
    fill(seen, 0, 8 * p[3])
    for k in range(p[2]):
        x = row[k]
        place = (x >> 4 ^ x >> 11) & mask
        while seen[place]:
            if seen[place] == x:
                return 0
            place = (place + 1) & mask
        seen[place] = x
    return p + 32


@native
def owner_of(array: Word, classes: Word, count: Word) -> Word:
    """What has the memory of an array: the array itself, or a base of one of these classes; 0 if
    that is not known."""
    base = array[ARRAY_BASE]
    if not base:
        if int32(array, ARRAY_FLAGS) & OWNS:
            return array
        return 0
    for j in range(count):
        if classes[j] == base[TYPE]:
            return base
    return 0


@native
def owners(p: Word, frame: Word) -> Word:
    """[register, count, count of classes, class...]: the owner of each array in a row, in place of
    it, where it is known."""
    row = frame + 8 * p[1]
    for k in range(p[2]):
        found = owner_of(row[k], p + 32, p[3])
        if found:
            row[k] = found
    return p + 32 + 8 * p[3]


@native
def last_element(array: Word) -> Word:
    """The address of the last element of a tensor's array; its strides are not negative."""
    place = array[ARRAY_DATA]
    shape = array[ARRAY_SHAPE]
    strides = array[ARRAY_STRIDES]
    for k in range(int32(array, ARRAY_NDIM)):
        place += (shape[k] - 1) * strides[k]
    return place


@native
def others_apart(p: Word, frame: Word) -> Word:
    """[register, count, count of classes, class..., count of written, place...]: arrays in a row
    whose owner is not known share no memory with those at the places, which are written, nor, if
    they stand at one themselves, with any.  Spans are looked at, as if elements took `WIDEST`
    bytes: where they meet, Python decides."""
    row = frame + 8 * p[1]
    count = p[2]
    written = p + 40 + 8 * p[3]
    changes = written[-1]
    for k in range(count):
        x = row[k]
        if owner_of(x, p + 32, p[3]):
            continue
        low = x[ARRAY_DATA]
        end = last_element(x) + WIDEST
        changed = is_there(k, written, changes)
        for j in range(count):
            if j != k and (changed or is_there(j, written, changes)):
                y = row[j]
                if y[ARRAY_DATA] < end and low < last_element(y) + WIDEST:
                    return 0
    return written + 8 * changes


@native
def is_there(x: Word, words: Word, count: Word) -> Word:
    """Whether a word is one of these."""
    for k in range(count):
        if words[k] == x:
            return 1
    return 0


@native
def are_writeable(p: Word, frame: Word) -> Word:
    """[count, register...]: arrays that may be changed."""
    for k in range(p[1]):
        if not int32(frame[p[2 + k]], ARRAY_FLAGS) & WRITEABLE:
            return 0
    return p + 16 + 8 * p[1]


@native
def is_among(x: Word, addresses: Word, count: Word) -> Word:
    """Whether a word is one of these, which increase."""
    low = 0
    while count > 0:
        half = count // 2
        if addresses[low + half] < x:
            low += half + 1
            count -= half + 1
        else:
            count = half
    return addresses[low] == x


@cache
def fits() -> bool:
    """Whether objects that only guards look at are laid out as they expect."""
    cell, items, number = types.CellType(known), [known, 3.5], 3.5
    text = (7).to_bytes(8, sys.byteorder)
    held = ctypes.c_size_t.from_address(id(items) + 8 * LIST_ITEMS).value
    return (
        ctypes.c_size_t.from_address(id(cell) + 8 * CELL_CONTENTS).value == id(known)
        and ctypes.c_ssize_t.from_address(id(items) + 8 * LENGTH).value == 2
        and ctypes.c_size_t.from_address(held).value == id(known)
        and ctypes.c_size_t.from_address(id(text) + 8 * CONTENTS).value == 7
        and ctypes.c_double.from_address(id(number) + 8 * FLOAT_BITS).value == 3.5
    )


library.when_loaded(_bind)
