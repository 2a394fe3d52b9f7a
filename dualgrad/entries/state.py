"""What holds for the running thread, as native code reads it; see `dualgrad.state`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dualgrad.runtime.native import library
from dualgrad.runtime.native.language import Cell, Word, c, native, text
from dualgrad.state import state

PLAIN, RECORDS = 1, 2  # bits of `mode_of_thread`
_THREADS = 64

_dicts = Cell(2 * _THREADS)  # by the last bits of a thread's number: that + 1, its attributes
_none, _true, _state, _trace, _grad_enabled = Cell(), Cell(), Cell(), Cell(), Cell()
_mixed = Cell()
_mixing = Cell()  # how many contexts of mixed precision are open, in all threads
_watched = Cell()  # how many ask for all ops to be run by Python


@native
def mode_of_thread() -> Word:
    """PLAIN, unless a trace or something else wants to know of each op; under autocast its address
    instead.  Besides RECORDS, where ops on tensors that require gradients are recorded."""
    if _watched.word:
        return 0
    attributes = _attributes()
    if not attributes:
        c.PyErr_Clear()
        return 0
    if c.PyDict_GetItem(attributes, _trace.word) != _none.word:
        return 0
    mode = PLAIN
    if _mixing.word:
        mixed = c.PyDict_GetItem(attributes, _mixed.word)
        if mixed != _none.word:
            mode = mixed
    if c.PyDict_GetItem(attributes, _grad_enabled.word) == _true.word:
        return mode | RECORDS
    return mode


def mode_word(records: bool, mixed: Any) -> int:
    """What `mode_of_thread` says where these hold; `mixed` is never freed."""
    return (PLAIN if mixed is None else id(mixed)) | (RECORDS if records else 0)


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


_watchers, _mixers = 0, 0


def watch(more: int) -> None:
    """Let ops be run by Python, in all threads, where somebody looks at them: 1 from now on,
    -1 no longer."""
    global _watchers
    with library.lock:
        _watchers += more
        if library.is_loaded():
            _watched.word = _watchers


def mix(more: int) -> None:
    """Let native code ask whether its thread is within autocast: 1 at its start, -1 at its end."""
    global _mixers
    with library.lock:
        _mixers += more
        if library.is_loaded():
            _mixing.word = _mixers


@contextmanager
def mixed_precision(mixed: Any) -> Iterator[None]:
    """The mode of an `autocast`, or None for no such mode, for a while in this thread."""
    before = state.mixed
    mix(1)
    state.mixed = mixed
    try:
        yield
    finally:
        state.mixed = before
        mix(-1)


_NAMES = ("trace", "grad_enabled", "mixed")  # held: native code has their addresses


def ready() -> None:
    """Tell native code where things are; the library is loaded."""
    _none.word, _true.word, _state.word = id(None), id(True), id(state)
    _trace.word, _grad_enabled.word, _mixed.word = map(id, _NAMES)
    _watched.word, _mixing.word = _watchers, _mixers


library.when_loaded(ready)
