"""What holds for the running thread, as native code reads it; see `dualgrad.state`."""

from __future__ import annotations

import threading

from dualgrad.runtime.native import library
from dualgrad.runtime.native.language import Cell, Word, c, native, text
from dualgrad.state import state

PLAIN, RECORDS = 1, 2  # bits of `mode_of_thread`
_THREADS = 64

_dicts = Cell(2 * _THREADS)  # by the last bits of a thread's number: that + 1, its attributes
_none, _true, _state, _trace, _grad_enabled = Cell(), Cell(), Cell(), Cell(), Cell()
_watched = Cell()  # how many ask for all ops to be run by Python


@native
def mode_of_thread() -> Word:
    """PLAIN, unless a trace or something else wants to know of each op; besides RECORDS, where
    ops on tensors that require gradients are recorded."""
    if _watched.word:
        return 0
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


_watchers = 0
_lock = threading.Lock()


def watch(more: int) -> None:
    """Let ops be run by Python, in all threads, where somebody looks at them: 1 from now on,
    -1 no longer."""
    global _watchers
    with _lock:
        _watchers += more
        if library.is_loaded():
            _watched.word = _watchers


_NAMES = ("trace", "grad_enabled")  # held: native code has their addresses


def ready() -> None:
    """Tell native code where things are; the library is loaded."""
    _none.word, _true.word, _state.word = id(None), id(True), id(state)
    _trace.word, _grad_enabled.word = map(id, _NAMES)
    _watched.word = _watchers


library.when_loaded(ready)
