"""What holds for the running thread, as native code reads it; see `dualgrad.state`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dualgrad.runtime.native import layout, library
from dualgrad.runtime.native.language import Cell, Word, c, native, text
from dualgrad.runtime.native.layout import DICT_VERSION
from dualgrad.state import state

PLAIN, RECORDS = 1, 2  # bits of `mode_of_thread`
_THREADS = 64

_ATTRIBUTES, _VERSION, _MODE = 1, 2, 3  # after its number + 1: what is known of a thread

_known = Cell(4 * _THREADS)  # threads, by the last bits of their numbers
_versions = Cell()  # whether a dict has another version after each change
_none, _true, _state, _trace, _grad_enabled = Cell(), Cell(), Cell(), Cell(), Cell()
_mixed = Cell()
_watched = Cell()  # how many ask for all ops to be run by Python


@native
def mode_of_thread() -> Word:
    """PLAIN, unless a trace or something else wants to know of each op; under autocast its address
    instead.  Besides RECORDS, where ops on tensors that require gradients are recorded."""
    if _watched.word:
        return 0
    entry = _entry()
    if not entry:
        c.PyErr_Clear()
        return 0
    attributes = entry[_ATTRIBUTES]
    version = attributes[DICT_VERSION] if _versions.word else 0
    if not version or entry[_VERSION] != version:
        entry[_MODE] = _mode_of(attributes)
        entry[_VERSION] = version
    return entry[_MODE]


@native
def _mode_of(attributes: Word) -> Word:
    """What the attributes of `state` say."""
    if c.PyDict_GetItem(attributes, _trace.word) != _none.word:
        return 0
    mode = PLAIN
    mixed = c.PyDict_GetItem(attributes, _mixed.word)
    if mixed and mixed != _none.word:
        mode = mixed
    if c.PyDict_GetItem(attributes, _grad_enabled.word) == _true.word:
        return mode | RECORDS
    return mode


def mode_word(records: bool, mixed: Any) -> int:
    """What `mode_of_thread` says where these hold; `mixed` is never freed."""
    return (PLAIN if mixed is None else id(mixed)) | (RECORDS if records else 0)


@native
def _entry() -> Word:
    """What is known of this thread; 0 with an exception set.  The attributes are a dict that lives
    as long as the thread, whose number is never used again."""
    number = c.PyThreadState_GetID(c.PyThreadState_Get()) + 1
    entry = _known.at + 32 * (number & (_THREADS - 1))
    if entry[0] != number:
        found = c.PyObject_GetAttrString(_state.word, text("__dict__"))
        if not found:
            return 0
        c.Py_DecRef(found)
        entry[_ATTRIBUTES] = found
        entry[_VERSION] = 0
        entry[0] = number
    return entry


_watchers = 0


def watch(more: int) -> None:
    """Let ops be run by Python, in all threads, where somebody looks at them: 1 from now on,
    -1 no longer."""
    global _watchers
    with library.lock:
        _watchers += more
        if library.is_loaded():
            _watched.word = _watchers


@contextmanager
def mixed_precision(mixed: Any) -> Iterator[None]:
    """The mode of an `autocast`, or None for no such mode, for a while in this thread."""
    before = state.mixed
    state.mixed = mixed
    try:
        yield
    finally:
        state.mixed = before


_NAMES = ("trace", "grad_enabled", "mixed")  # held: native code has their addresses


def ready() -> None:
    """Tell native code where things are; the library is loaded."""
    _none.word, _true.word, _state.word = id(None), id(True), id(state)
    _trace.word, _grad_enabled.word, _mixed.word = map(id, _NAMES)
    _watched.word, _versions.word = _watchers, layout.versions_count()


library.when_loaded(ready)
