"""Calls of compiled functions in native code.

What native code needs of a function are the words of its *entry*:

    [0] number of parameters         [2] number of tables
    [1] how many are by position     [3] the Python function, whose defaults count
    [4...] tables, then the names of the parameters

The plan of a program for known sizes has its record, the dict of the values behind its symbols,
and from `TYPES` on the types of the tensors that it makes.

A table, one for each path that is known, begins with the grad mode that it holds for.  Behind its
guards stand instructions that run the program, make what the function changes, and put what it
returns into word `RESULT` of the frame; see `guards` for how these are carried out.  Until the
program has run without an error a call can be left to Python, which begins anew; word `STATE`
tells how far it has come.

Registers do not own what they refer to, so what is needed beyond the point where Python code may
run is held, and let go at the end: words `HELD` and after, `COUNT` of them.
"""

from __future__ import annotations

from typing import Any

from dualgrad.entries.guards import (
    ARGUMENTS,
    CONTENTS,
    DONE,
    FRAME,
    GRAD,
    GRAD_FN,
    OWN_WORDS,
    at,
    passes,
    under,
)
from dualgrad.entries.making import detach, freed_node
from dualgrad.entries.program import FAILED, INPUTS, run_program
from dualgrad.entries.state import mode_of_thread
from dualgrad.entries.tape import detached
from dualgrad.entries.tensors import (
    ARRAY,
    BASE,
    FALSE,
    NONE,
    OUTPUT_NUMBER,
    REQUIRES,
    TRUE,
    VERSION,
    ZERO,
    new_tensor,
    taken,
)
from dualgrad.runtime.config import Config, config
from dualgrad.runtime.native import layout, library
from dualgrad.runtime.native.language import Cell, Word, c, native, stack
from dualgrad.runtime.native.layout import ITEMS, LENGTH, LIST_ITEMS

RESULT, STATE, COUNT, STARTED = 1, 2, 3, 4
GUARDING, RUNNING, RUN, RAISED = 0, 1, 2, 3
HELD = FRAME  # behind the registers
HELD_WORDS = 1024
_WORDS = 3072  # of a frame
MOST = 32  # parameters
VALUES, TYPES = 1, 2
TIMED = 32  # one run in so many is timed

EAGER = layout.slot(Config, "eager")
_slow, _config, _entry_at, _eager_at = Cell(), Cell(), Cell(), Cell()
_exception = Cell()  # what programs raise, other than signals


def serve(slow: Any, entry: int, eager: int) -> None:
    """Which Python function serves a call (self, ...) that native code does not, and which words
    of a compiled function are its entry and whether it runs eagerly; the library is loaded."""
    _slow.word, _entry_at.word, _eager_at.word = id(slow), entry, eager


@native
def call_function(self: Word, arguments: Word, count: Word, names: Word) -> Word:
    """A call of a compiled function, as METH_FASTCALL | METH_KEYWORDS."""
    entry = self[_entry_at.word]
    settings = (_config.at)[0]
    if not entry or entry == NONE.word or self[_eager_at.word] != FALSE.word:
        return leave(self, arguments, count, names)
    if settings[EAGER] != FALSE.word:
        return leave(self, arguments, count, names)
    c.Py_IncRef(entry)
    found = serve_call(entry[OWN_WORDS] + 8 * CONTENTS, arguments, count, names)
    c.Py_DecRef(entry)
    if found == DONE:
        return leave(self, arguments, count, names)
    return found


@native
def leave(self: Word, arguments: Word, count: Word, names: Word) -> Word:
    """Let Python make a call."""
    total = count
    if names:
        total += names[LENGTH]
    given = c.PyMem_Malloc(8 * total + 8)
    if not given:
        return c.PyErr_NoMemory()
    given[0] = self
    for k in range(total):
        given[k + 1] = arguments[k]
    found = c.PyObject_Vectorcall(_slow.word, given, count + 1, names)
    c.PyMem_Free(given)
    return found


@native
def serve_call(entry: Word, arguments: Word, count: Word, names: Word) -> Word:
    """What a call returns, 0 with an exception set, or DONE if Python has to make it."""
    frame = stack(_WORDS)
    bound = stack(MOST)
    frame[ARGUMENTS] = arguments
    if names or count != entry[0]:
        if not bind(entry, bound, arguments, count, names):
            return DONE
        frame[ARGUMENTS] = bound
    now = mode_of_thread()
    for k in range(entry[2]):
        table = entry[4 + k]
        if table[0] == now:
            frame[STATE] = GUARDING
            frame[COUNT] = 0
            passed = passes(table + 8, frame)
            if frame[COUNT]:
                drop_held(frame)
            if passed:
                return frame[RESULT]
            if frame[STATE] == RAISED:
                return 0
            if frame[STATE] == RUNNING:
                return DONE
    return DONE


@native
def bind(entry: Word, bound: Word, arguments: Word, count: Word, names: Word) -> Word:
    """Put arguments where the parameters are, with defaults; whether that could be done."""
    total = entry[0]
    if count > total:
        return 0
    for k in range(total):
        bound[k] = arguments[k] if k < count else 0
    if names:
        parameters = entry + 8 * (4 + entry[2])
        for j in range(names[LENGTH]):
            k = count
            if k < entry[1]:
                k = entry[1]
            name = names[ITEMS + j]
            while k < total and parameters[k] != name:
                k += 1
            if k == total or bound[k]:
                return 0
            bound[k] = arguments[count + j]
    return fill_in(entry, bound, count)


@native
def fill_in(entry: Word, bound: Word, count: Word) -> Word:
    """Put in defaults; whether all parameters have a value."""
    total = entry[0]
    first = total
    defaults = c.PyFunction_GetDefaults(entry[3])
    if defaults:
        first = total - defaults[LENGTH]
    for k in range(count, total):
        if not bound[k]:
            if k < first:
                return 0
            bound[k] = defaults[ITEMS + k - first]
    return 1


@native
def drop_held(frame: Word) -> Word:
    """Let go of what a call has held; an exception that is set stays."""
    held = frame + 8 * HELD
    for k in range(frame[COUNT]):
        c.Py_DecRef(held[k])
    return 0


# -- instructions ---------------------------------------------------------------------------------


@native
def hold(p: Word, frame: Word) -> Word:
    """[count, operand...]: these live until the end of the call."""
    for k in range(p[1]):
        own(frame, taken(at(frame, p[2 + k])))
    return p + 16 + 8 * p[1]


@native
def own(frame: Word, x: Word) -> Word:
    """Let go of a reference at the end of the call."""
    frame[HELD + frame[COUNT]] = x
    frame[COUNT] += 1
    return x


@native
def give_up(frame: Word) -> Word:
    """Let Python make the call after an exception, which it meets as well; but what a signal has
    raised is not raised again."""
    if c.PyErr_ExceptionMatches(_exception.word):
        c.PyErr_Clear()
    else:
        frame[STATE] = RAISED
    return 0


@native
def evaluate(p: Word, frame: Word) -> Word:
    """[register, function, count, (number, operand)..., results]: what a function of a dict of
    numbers returns, a tuple, or None if the path does not serve."""
    facts = c.PyDict_New()
    if not facts:
        c.PyErr_Clear()
        return 0
    count = p[3]
    for k in range(count):
        if c.PyDict_SetItem(facts, p[4 + 2 * k], at(frame, p[5 + 2 * k])):
            c.PyErr_Clear()
            c.Py_DecRef(facts)
            return 0
    found = c.PyObject_CallOneArg(p[2], facts)
    c.Py_DecRef(facts)
    if not found:
        return give_up(frame)
    own(frame, found)
    if found == NONE.word:
        return 0
    results = p[4 + 2 * count]
    for k in range(results):
        frame[p[1] + k] = found[ITEMS + k]
    return p + 40 + 16 * count


@native
def find_sizes(p: Word, frame: Word) -> Word:
    """[register, dict, count, (register of a tuple, number)...]: the plan that the dict has for
    these sizes."""
    count = p[3]
    key = c.PyTuple_New(count)
    if not key:
        c.PyErr_Clear()
        return 0
    for k in range(count):
        key[ITEMS + k] = taken((frame[p[4 + 2 * k]])[ITEMS + p[5 + 2 * k]])
    found = under(p[2], key)
    c.Py_DecRef(key)
    if not found:
        return 0
    own(frame, taken(found))
    plan = found[OWN_WORDS]
    if plan == NONE.word:
        return 0
    frame[p[1]] = plan + 8 * CONTENTS
    return p + 32 + 16 * count


@native
def arrays(p: Word, frame: Word) -> Word:
    """[register, count, tensor...]: their arrays, in a row of registers."""
    count = p[2]
    row = frame + 8 * p[1]
    for k in range(count):
        row[k] = (at(frame, p[3 + k]))[ARRAY]
    return p + 24 + 8 * count


@native
def run(p: Word, frame: Word) -> Word:
    """[register, register of scalars, plan, counts]: run a program on a row of arrays, which new
    ones are put behind; from here on Python cannot take over."""
    frame[STATE] = RUNNING
    record = (at(frame, p[3]))[0]
    row = frame + 8 * p[1]
    count = record[INPUTS]
    for k in range(count):
        c.Py_IncRef(row[k])
    error = run_program(record, row, frame + 8 * p[2])
    for k in range(count):
        c.Py_DecRef(row[k])
    if error:
        return give_up(frame) if error == FAILED else 0
    frame[STATE] = RUN
    (p[4])[0] += 1
    return p + 40


@native
def start_run(p: Word, frame: Word) -> Word:
    """[counts]: how many runs, how many of them timed, and nanoseconds of these."""
    counts = p[1]
    frame[STARTED] = 0
    if (counts[0] + 1) % TIMED == 0:
        frame[STARTED] = clock()
    return p + 16


@native
def time_run(p: Word, frame: Word) -> Word:
    """[counts]: the end of a run."""
    if frame[STARTED]:
        counts = p[1]
        counts[1] += 1
        counts[2] += clock() - frame[STARTED]
    return p + 16


@native
def clock() -> Word:
    """Nanoseconds of a clock that goes on steadily."""
    now = stack(2)
    c.clock_gettime(1, now)
    return now[0] * 1000000000 + now[1]


@native
def tensors(p: Word, frame: Word) -> Word:
    """[register of tensors, register of arrays, count, plan]: new tensors over new arrays; the
    call owns them."""
    row = frame + 8 * p[2]
    types = at(frame, p[4])
    count = p[3]
    for k in range(count):
        x = new_tensor(row[k], types[TYPES + k])
        if not x:
            for j in range(k + 1, count):
                c.Py_DecRef(row[j])
            frame[STATE] = RAISED
            return 0
        frame[p[1] + k] = own(frame, x)
    return p + 40


@native
def only_tensor(p: Word, frame: Word) -> Word:
    """[register of an array, plan]: a new tensor over the one new array is the result."""
    x = new_tensor(frame[p[1]], (at(frame, p[2]))[TYPES])
    frame[RESULT] = x
    if not x:
        frame[STATE] = RAISED
        return 0
    return p + 24


@native
def show_again(p: Word, frame: Word) -> Word:
    """[register, tensor, whether it has memory of its own]: the tensor detached, held."""
    x = detach(at(frame, p[2]))
    if not x:
        frame[STATE] = RAISED
        return 0
    frame[p[1]] = own(frame, x)
    if p[3]:
        c.Py_DecRef(x[BASE])
        x[BASE] = taken(NONE.word)
    return p + 32


@native
def show(p: Word, frame: Word) -> Word:
    """[tensor]: a new tensor becomes a second handle, on the value of a first that is its base."""
    x = at(frame, p[1])
    base = detached(x)
    if not base:
        frame[STATE] = RAISED
        return 0
    c.Py_DecRef(x[BASE])
    x[BASE] = base
    return p + 16


@native
def free_graph(p: Word, frame: Word) -> Word:
    """[operand, name, types]: a new tensor comes from a graph that is gone."""
    x = at(frame, p[1])
    node = freed_node(p[2], p[3])
    if not node:
        frame[STATE] = RAISED
        return 0
    c.Py_DecRef(x[GRAD_FN])
    x[GRAD_FN] = node
    x[OUTPUT_NUMBER] = taken(ZERO.word)
    return p + 32


@native
def ask_gradient(p: Word, frame: Word) -> Word:
    """[operand]: a new tensor requires gradients."""
    x = at(frame, p[1])
    c.Py_IncRef(TRUE.word)
    c.Py_DecRef(x[REQUIRES])
    x[REQUIRES] = TRUE.word
    return p + 16


@native
def drop_array(p: Word, frame: Word) -> Word:
    """[register]: a new array that nobody needs."""
    own(frame, frame[p[1]])
    return p + 16


@native
def change(p: Word, frame: Word) -> Word:
    """[tensor, times, line]: its memory has been changed in place so often, last in that line."""
    version = ((at(frame, p[1]))[VERSION])[LIST_ITEMS]
    times = c.PyLong_FromLongLong(c.PyLong_AsLongLong(version[0]) + p[2])
    if not times:
        frame[STATE] = RAISED
        return 0
    old = version[0]
    version[0] = times
    c.Py_DecRef(old)
    old = version[2]
    if old != p[3]:
        version[2] = taken(p[3])
        c.Py_DecRef(old)
    return p + 32


@native
def word_now(p: Word, frame: Word) -> Word:
    """[register, operand, number of a word]: what stands there, held."""
    frame[p[1]] = own(frame, taken((at(frame, p[2]))[p[3]]))
    return p + 32


@native
def set_gradient(p: Word, frame: Word) -> Word:
    """[tensor, operand]: `.grad` of a tensor."""
    x = at(frame, p[1])
    own(frame, x[GRAD])
    x[GRAD] = taken(at(frame, p[2]))
    return p + 24


@native
def set_entry(p: Word, frame: Word) -> Word:
    """[dict, key, operand]"""
    return checked(frame, c.PyDict_SetItem(at(frame, p[1]), p[2], at(frame, p[3])), p + 32)


@native
def set_item(p: Word, frame: Word) -> Word:
    """[list, number, operand]"""
    x = taken(at(frame, p[3]))
    return checked(frame, c.PyList_SetItem(at(frame, p[1]), p[2], x), p + 32)


@native
def append(p: Word, frame: Word) -> Word:
    """[list, operand]"""
    return checked(frame, c.PyList_Append(at(frame, p[1]), at(frame, p[2])), p + 24)


@native
def set_cell(p: Word, frame: Word) -> Word:
    """[cell, operand]"""
    return checked(frame, c.PyCell_Set(at(frame, p[1]), at(frame, p[2])), p + 24)


@native
def set_slot(p: Word, frame: Word) -> Word:
    """[object, name, operand]: as object.__setattr__ does."""
    failed = c.PyObject_GenericSetAttr(at(frame, p[1]), p[2], at(frame, p[3]))
    return checked(frame, failed, p + 32)


@native
def checked(frame: Word, failed: Word, following: Word) -> Word:
    """Go on unless a C function has failed."""
    if failed:
        frame[STATE] = RAISED
        return 0
    return following


@native
def call_with(p: Word, frame: Word) -> Word:
    """[register, function, count, operand...]: what Python code returns for operands, held."""
    count = p[3]
    given = stack(8)
    for k in range(count):
        given[k] = at(frame, p[4 + k])
    found = c.PyObject_Vectorcall(p[2], given, count, 0)
    if not found:
        frame[STATE] = RAISED
        return 0
    frame[p[1]] = own(frame, found)
    return p + 32 + 8 * count


@native
def make_tuple(p: Word, frame: Word) -> Word:
    """[register, count, operand...]: a new tuple, held."""
    found = c.PyTuple_New(p[2])
    if not found:
        frame[STATE] = RAISED
        return 0
    return filled(p, frame, found, found + 8 * ITEMS)


@native
def make_list(p: Word, frame: Word) -> Word:
    """[register, count, operand...]: a new list, held."""
    found = c.PyList_New(p[2])
    if not found:
        frame[STATE] = RAISED
        return 0
    return filled(p, frame, found, found[LIST_ITEMS])


@native
def filled(p: Word, frame: Word, found: Word, items: Word) -> Word:
    """Give a new tuple or list its elements."""
    for k in range(p[2]):
        items[k] = taken(at(frame, p[3 + k]))
    frame[p[1]] = own(frame, found)
    return p + 24 + 8 * p[2]


@native
def make_dict(p: Word, frame: Word) -> Word:
    """[register, count, (key, operand)...]: a new dict, held."""
    found = c.PyDict_New()
    if not found:
        frame[STATE] = RAISED
        return 0
    frame[p[1]] = own(frame, found)
    for k in range(p[2]):
        if c.PyDict_SetItem(found, p[3 + 2 * k], at(frame, p[4 + 2 * k])):
            frame[STATE] = RAISED
            return 0
    return p + 24 + 16 * p[2]


@native
def give(p: Word, frame: Word) -> Word:
    """[operand]: the result."""
    frame[RESULT] = taken(at(frame, p[1]))
    return p + 16


def _bind() -> None:
    _config.word, _exception.word = id(config), id(Exception)


library.when_loaded(_bind)
