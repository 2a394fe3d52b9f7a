"""Eager ops in native code: `apply(unit, *operands)`, where a plan is known.

A table finds the *entry* of a plan by the unit and what stands for each operand: the signature of
a tensor, which is one object for all tensors of a type and layout, or the class of a number.  What
has no entry goes to Python, and so does an op that is traced, or fails: Python's own path raises
what there is to raise.  Python also makes the entries, one when a plan is first run there.
"""

from __future__ import annotations

import ctypes
import threading
from typing import Any

from dualgrad import dispatch
from dualgrad.backends.cpu import CpuBound
from dualgrad.compiler.ir import value
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import Unit
from dualgrad.compiler.ops.assign import ASSIGN
from dualgrad.compiler.ops.elementwise import Elementwise
from dualgrad.compiler.ops.view import View
from dualgrad.dispatch import Alias, Plan
from dualgrad.entries.lookup import find_entry, hash_of, mix, put_entry
from dualgrad.entries.program import FAILED, record_of, run_program
from dualgrad.entries.state import PLAIN, RECORDS, mode_of_thread
from dualgrad.entries.tape import DONE, record_unit
from dualgrad.entries.tape import NOT_SERVED as NOT_RECORDED
from dualgrad.entries.tensors import ARRAY, REQUIRES, SIG, TRUE, new_tensor, taken
from dualgrad.entries.views import ViewRecord, new_view
from dualgrad.gradients.tape import Absent, record
from dualgrad.runtime.native import library
from dualgrad.runtime.native.language import Cell, Word, c, native, stack, words
from dualgrad.runtime.native.layout import ITEMS, TYPE, slot
from dualgrad.tensor import Tensor

# words of an entry, after those of `lookup`
PLAN, PROGRAM, TENSORS, NUMBERS, TAKEN, RESULTS, MADE, READ, SAVES, WHOLE = range(3, 13)
MOST = 16  # operands, and results
NOT_SERVED = -1
AS_TENSOR, _ABSENT, NUMBER = 1, 2, 3  # kinds of operands
_KINDS = 64  # places for classes of operands; half of them are used at most
_ABSENT_TYPE = slot(Absent, "type")

_kinds = Cell(2 * _KINDS)  # classes of operands: address, kind
_table = Cell()  # address of `_Places`
_record = Cell()
CLEARED = Cell()  # how many times all entries were forgotten


@native
def apply(function: Word, arguments: Word, count: Word, names: Word) -> Word:
    """See `value.apply`."""
    mode = mode_of_thread()  # may run Python, so before an entry is looked for
    if mode & PLAIN and not names and count > 1 and count <= MOST + 1:
        found = stack(2)
        entry = find(arguments, count, found)
        if entry:
            outputs = run_entry(entry, arguments, count, found[0], mode)
            if outputs != NOT_SERVED:
                return outputs
    return c.PyObject_Vectorcall(function, arguments, count, names)


@native
def find(arguments: Word, count: Word, found: Word) -> Word:
    """The entry for a unit and its operands, or 0.

    Writes which operands require gradients and which are no tensors but stand for some, as bits.
    """
    keys = stack(17)
    keys[0] = arguments[0]
    mixed = mix(0, arguments[0])
    requiring = 0
    absent = 0
    for k in range(1, count):
        x = arguments[k]
        cls = x[TYPE]
        kind = kind_of(cls)
        if kind == AS_TENSOR:
            key = x[SIG]
            if x[REQUIRES] == TRUE.word:
                requiring |= 1 << k
        elif kind == NUMBER:
            key = cls
        elif kind == _ABSENT:
            key = x[_ABSENT_TYPE]
            absent |= 1 << k
        else:
            return 0
        keys[k] = key
        mixed = mix(mixed, key)
    found[0] = requiring
    found[1] = absent
    return _known(keys, count, mixed, absent)


@native
def _known(keys: Word, count: Word, mixed: Word, absent: Word) -> Word:
    """The entry of these keys, unless it reads operands that are absent."""
    table = _table.word
    if not table:
        return 0
    entry = find_entry(table + 8, table[0], keys, count, mixed)
    return 0 if entry and absent & entry[READ] else entry


@native
def kind_of(cls: Word) -> Word:
    """What operands of a class are; 0: what native code does not know."""
    table = _kinds.at
    k = (cls >> 4) & 63
    while table[2 * k]:
        if table[2 * k] == cls:
            return table[2 * k + 1]
        k = (k + 1) & 63
    return 0


@native
def run_entry(entry: Word, arguments: Word, count: Word, requiring: Word, mode: Word) -> Word:
    """The tuple of a unit's results; 0 with an exception set; or NOT_SERVED.  `requiring`: the
    operands that require gradients; `mode` is that of the thread."""
    if not mode & PLAIN:
        return NOT_SERVED
    plan = taken(entry[PLAN])  # it keeps the entry
    outputs = results(entry, arguments, mode & RECORDS)
    records = outputs > 0 and requiring and mode & RECORDS
    if records and not _recorded(entry, arguments, count, outputs):
        c.Py_DecRef(outputs)
        outputs = 0
    c.Py_DecRef(plan)
    return outputs


@native
def results(entry: Word, arguments: Word, records: Word) -> Word:
    """The tuple of a unit's results, which are not put on the tape here; 0 with an exception set;
    or NOT_SERVED.  `records`: whether gradients are on.  The caller keeps the entry's plan."""
    arrays = stack(32)
    numbers = stack(16)
    tensors = entry[TENSORS]
    operands = entry[TAKEN]
    for k in range(tensors):
        arrays[k] = (arguments[operands[k]])[ARRAY]
    for k in range(entry[NUMBERS]):
        numbers[k] = arguments[operands[tensors + k]]
    if entry[PROGRAM]:
        error = run_program(entry[PROGRAM], arrays, numbers)
        if error:
            # Python says what is wrong: the program fails there as well
            return 0 if error == FAILED else NOT_SERVED
    return results_over(entry, arguments, arrays + 8 * tensors, records)


@native
def results_over(entry: Word, arguments: Word, arrays: Word, records: Word) -> Word:
    """The tuple of results over new arrays, whose references it takes."""
    count = entry[RESULTS]
    made = entry[MADE]
    outputs = c.PyTuple_New(count)
    used = 0
    for k in range(count):
        type = made[3 * k]
        if type:
            x = new_tensor(arrays[used], type) if outputs else 0 * c.Py_DecRef(arrays[used])
            used += 1
        elif made[3 * k + 2]:
            x = new_view(arguments[made[3 * k + 1]], made[3 * k + 2], records)
        else:
            x = taken(arguments[made[3 * k + 1]])
        if outputs:
            outputs[ITEMS + k] = x
            if not x:
                c.Py_DecRef(outputs)
                outputs = 0
        elif x:
            c.Py_DecRef(x)
    return outputs


@native
def _recorded(entry: Word, arguments: Word, count: Word, outputs: Word) -> Word:
    """Whether the unit could be put on the tape; else an exception is set."""
    done = record_unit(
        arguments[0], arguments + 8, count - 1,
        outputs + 8 * ITEMS, entry[RESULTS], entry[SAVES],
    )  # fmt: skip
    if done != NOT_RECORDED:
        return done == DONE
    words = stack(19)
    words[0] = entry[PLAN]
    words[1] = outputs
    for k in range(count):
        words[2 + k] = arguments[k]
    made = c.PyObject_Vectorcall(_record.word, words, 2 + count, 0)
    if made:
        c.Py_DecRef(made)
    return made != 0


def _recorded_in_python(
    plan: Plan, outputs: tuple[Tensor, ...], unit: Unit, *operands: Any
) -> None:
    record(unit, operands, outputs, plan.saves)


# -- entries ------------------------------------------------------------------------------------


class Entry:
    """The entry of a plan, at `address` while this object lives, and with it the objects whose
    addresses are its keys."""

    __slots__ = ("_kept", "address", "hash")

    def __init__(self, keys: list[Any], ids: tuple[int, ...], plan: Plan) -> None:
        unit = keys[0]
        read = [k + 1 for k in (*plan.operands, *plan.numbers)]
        made: list[int] = []
        views = [_view_of(r, keys) for r in plan.results]
        for r, v in zip(plan.results, views, strict=True):
            if isinstance(r, Alias):
                made += 0, r.operand + 1, v.address if v else 0
            else:
                made += id(r), 0, 0
        # operands that have to be there
        seen = sum({1 << k for k in (*read, *made[1::3]) if k})
        parts = [words(*ids), words(*read), words(*made)]
        self.hash = hash_of(ids)
        program = 0 if plan.bound is None else record_of(plan.bound)  # type: ignore[arg-type]
        row = words(
            self.hash, len(keys), ctypes.addressof(parts[0]), id(plan), program,
            len(plan.operands), len(plan.numbers), ctypes.addressof(parts[1]),
            len(plan.results), ctypes.addressof(parts[2]), seen,
            id(plan.saves), isinstance(unit, Elementwise) or unit is ASSIGN,
        )  # fmt: skip
        self._kept = (row, parts, keys, views)
        self.address = ctypes.addressof(row)


def _view_of(result: Alias | TensorType, keys: list[Any]) -> ViewRecord | None:
    """The record of a result that is a view of an operand."""
    if not isinstance(result, Alias) or result.strides is None:
        return None
    sig, unit = keys[result.operand + 1], keys[0]
    type = sig if isinstance(sig, TensorType) else sig[0]
    return ViewRecord(result, type, unit if isinstance(unit, View) else None)


class _Places:
    """The entries of plans by their hashes, at `address`: how many places there are, less one,
    and these."""

    __slots__ = ("_words", "address", "count", "known")

    def __init__(self, count: int) -> None:
        self.known: dict[tuple[int, ...], tuple[Entry, Plan]] = {}
        self.count = count
        self._words = words(count - 1, *[0] * count)
        self.address = ctypes.addressof(self._words)

    def put(self, ids: tuple[int, ...], entry: Entry, plan: Plan) -> None:
        """Take in an entry, which is not there, and keep it."""
        self.known[ids] = entry, plan
        put_entry(self._words, 1, self.count - 1, entry.hash, entry.address)

    def with_room(self) -> _Places:
        """Places for one entry more: these or others."""
        if len(self.known) > dispatch.MAX_PLANS:
            return _Places(_FIRST_PLACES)
        if 2 * len(self.known) + 2 <= self.count:
            return self
        larger = _Places(2 * self.count)
        for ids, held in self.known.items():
            larger.put(ids, *held)
        return larger


_FIRST_PLACES = 1 << 10


class _Table:
    """The places that native code looks at.  Threads, and ops in finalizers, may add to them and
    clear them at any time."""

    def __init__(self) -> None:
        self._places = _Places(_FIRST_PLACES)
        self._adding = threading.Lock()
        self._times = 0  # that entries were forgotten

    def clear(self) -> None:
        """Forget all entries."""
        self._times += 1
        self._use(_Places(_FIRST_PLACES))

    def add(self, keys: list[Any], plan: Plan, write: bool) -> None:
        """Let native code run a plan where it meets these keys; not if somebody else is adding one
        right now."""
        ids = (id(keys[0]) + write, *map(id, keys[1:]))
        if ids in self._places.known or not self._adding.acquire(blocking=False):
            return
        try:
            places = self._places
            if ids not in places.known:
                entry = Entry(keys, ids, plan)
                plan.entries.append(entry)  # native code that runs a plan keeps that alone
                room = places.with_room()
                self._times += len(room.known) < len(places.known)
                room.put(ids, entry, plan)
                if room is not places:
                    self._use(room)
        finally:
            self._adding.release()

    def _use(self, places: _Places) -> None:
        before = self._places
        with library.lock:  # native code may come in right now
            self._places = places
            if library.is_loaded():
                self.publish()
        del before  # native code has looked there until now

    def publish(self) -> None:
        """Tell native code where the entries are."""
        published = None
        while library.is_loaded() and published is not self._places:
            published = self._places
            _table.word = published.address
            CLEARED.word = self._times  # after it: who finds an entry from now on, finds it there


_entries = _Table()


def note(unit: Unit, operands: tuple[Any, ...], plan: Plan, write: bool) -> None:
    """Have native code run a plan from now on, if it can; with `write` it overwrites operand 0."""
    if not plan.native or not library.begin():
        return
    plan.native = library.is_loaded() and _is_served(operands, plan)
    if plan.native:
        keys = [_key_of(x) for x in operands]
        if None not in keys:
            _entries.add([unit, *keys], plan, write)


def _is_served(operands: tuple[Any, ...], plan: Plan) -> bool:
    if len(operands) > MOST or len(plan.results) > MOST:
        return False
    if not (plan.bound is None or isinstance(plan.bound, CpuBound)):
        return False
    return all(t.device == "cpu" for t in plan.types)


def _key_of(x: Any) -> Any:
    """What stands for an operand in the table; None for what native code does not know."""
    cls = type(x)
    if cls not in _classes and not _learn(cls):
        return None
    kind = _classes[cls]
    if kind > NUMBER:
        return None
    return x.sig if kind == AS_TENSOR else x.type if kind == _ABSENT else cls


_classes: dict[type, int] = {}
_READ = ("array", "requires_grad", "sig", "apply_unit")


def _learn(cls: type) -> bool:
    """Whether operands of a class are tensors like all others."""
    plain = issubclass(cls, Tensor) and all(getattr(cls, n) is getattr(Tensor, n) for n in _READ)
    if not plain or 2 * len(_classes) >= _KINDS:
        return False
    _classes[cls] = AS_TENSOR
    _put_class(cls, AS_TENSOR)
    return True


def kind_in_python(cls: type) -> int:
    """What `kind_of` finds, once operands of the class have been met."""
    return _classes.get(cls, 0)


def add_kind(cls: type, kind: int) -> None:
    """Let `kind_of` know another class, which operands are not of."""
    _classes[cls] = kind
    _put_class(cls, kind)


def _put_class(cls: type, kind: int) -> None:
    table = _kinds.memory
    k = (id(cls) >> 4) & (_KINDS - 1)
    while table[2 * k]:
        k = (k + 1) & (_KINDS - 1)
    table[2 * k], table[2 * k + 1] = id(cls), kind


def ready() -> None:
    """Let native code run where Python's does so far; the library is loaded."""
    _classes.update({Tensor: AS_TENSOR, Absent: _ABSENT, int: NUMBER, float: NUMBER, bool: NUMBER})
    for cls, kind in _classes.items():
        _put_class(cls, kind)
    _record.word = id(_recorded_in_python)


library.when_loaded(ready)
library.when_filled(_entries.publish)
library.when_filled(lambda: value.applying.fill(apply))
dispatch.noted.append(note)
dispatch.held_elsewhere.append(_entries.clear)
