"""Op methods in native code: straight from a call's arguments to the unit that it applies.

Most op functions look at their arguments, apply one unit to the tensors among them, and return
what comes out.  Which unit that is follows from the types and layouts of the tensors and from the
plain arguments: numbers, bools, None, slices, dtypes, and lists or tuples of them.  So a `Shortcut`
watches the function when it meets a set of these *keys* again, notes the unit, and later goes
straight to it.
A function that does more (it applies several units or none, changes a tensor, or reads elements)
has no unit for these keys: it runs in Python.  So does what is traced, and what fails.

Keys are words: the signature and class of a tensor, and where it stands before; the value of a
number; else the address of the object.  Lists, tuples and slices say how long they are, and then
what they hold.
"""

from __future__ import annotations

import ctypes
import functools
import struct
import threading
from collections.abc import Callable
from typing import Any

from dualgrad import dispatch, values
from dualgrad.compiler.ir.value import METHODS, Unit
from dualgrad.entries import ops
from dualgrad.entries.lookup import find_entry, hash_of, mix, put_entry
from dualgrad.entries.ops import AS_TENSOR, CLEARED, NOT_SERVED, NUMBER, find, kind_of, run_entry
from dualgrad.entries.state import PLAIN, RECORDS, mode_of_thread, watch
from dualgrad.entries.tensors import REQUIRES, SIG, TRUE, taken
from dualgrad.runtime.dtype import DType
from dualgrad.runtime.native import library
from dualgrad.runtime.native.callables import FUNCTION, STATE, stand_in
from dualgrad.runtime.native.language import Cell, Word, c, native, stack, words
from dualgrad.runtime.native.layout import ITEMS, LENGTH, LIST_ITEMS, TYPE
from dualgrad.tensor import Tensor

# kinds of arguments, after those of `ops`
_ITSELF, _TUPLE, _LIST, _SLICE = range(10, 14)
_MOST_OPERANDS = 16
MOST = 1024  # sets of keys that a function is learnt for
# words of a state: the table, its mask, what learns, and hashes that were met
_TABLE, _MASK, _LEARN, _MET = range(4)
# words of an entry, after those of `lookup`
_UNIT, _OPERANDS, _PLACES, _WHOLE, _PLAN, _TIMES = range(3, 9)
_FLOATS = Cell()


@native
def shortcut(function: Word, arguments: Word, flags: Word, names: Word) -> Word:
    """What a function returns; called as CPython calls (see `vectorcallfunc`)."""
    count = flags & 0x7FFFFFFFFFFFFFFF
    state = function[STATE]
    keys = stack(48)
    places = stack(48)
    mode = mode_of_thread()
    if mode & PLAIN:
        used = _all_keys(arguments, count, names, keys, places)
        if used:
            mixed = _hash(keys, used)
            entry = find_entry(state[_TABLE], state[_MASK], keys, used, mixed)
            if entry:
                if entry[_UNIT]:
                    found = _result(entry, places, mode)
                    if found != NOT_SERVED:
                        return found
            elif _is_again(state, mixed):
                return c.PyObject_Vectorcall(state[_LEARN], arguments, count, names)
    return c.PyObject_Vectorcall(function[FUNCTION], arguments, count, names)


@native
def _result(entry: Word, places: Word, mode: Word) -> Word:
    """What the unit of an entry gives; 0 with an exception set; or NOT_SERVED."""
    words = stack(17)
    found = stack(2)
    count = entry[_OPERANDS]
    operands = entry[_PLACES]
    words[0] = entry[_UNIT]
    requiring = 0
    for k in range(count):
        at = operands[2 * k]
        x = operands[2 * k + 1] if at < 0 else places[at]
        words[1 + k] = x
        if at >= 0 and mode & RECORDS and x[REQUIRES] == TRUE.word:
            requiring = 1
    plan = entry[_PLAN]
    if not plan or entry[_TIMES] != CLEARED.word:
        plan = find(words, count + 1, found)
        if not plan:
            return NOT_SERVED
        entry[_PLAN] = plan
        entry[_TIMES] = CLEARED.word
    outputs = run_entry(plan, words, count + 1, requiring, mode)
    if entry[_WHOLE] or outputs == NOT_SERVED or not outputs:
        return outputs
    first = taken(outputs[ITEMS])
    c.Py_DecRef(outputs)
    return first


@native
def _all_keys(arguments: Word, count: Word, names: Word, keys: Word, places: Word) -> Word:
    """Write the keys of arguments and where their operands are; how many, or 0 if they have
    none."""
    keys[0] = count
    used = 1
    named = names[LENGTH] if names else 0
    for k in range(count + named):
        if k >= count:
            if used >= 40:
                return 0
            keys[used] = names[ITEMS + k - count]
            places[used] = 0
            used += 1
        used = _add_key(arguments[k], keys, places, used)
        if not used:
            return 0
    return used


@native
def _add_key(x: Word, keys: Word, places: Word, used: Word) -> Word:
    """Write the keys of an argument; how many there are then, or 0 if it has none."""
    kind = kind_of(x[TYPE])
    if kind < _TUPLE:
        return _add_plain(x, kind, keys, places, used)
    if kind == _SLICE:
        return _add_items(x, 3, x + 16, keys, places, used)
    items = x + 8 * ITEMS if kind == _TUPLE else x[LIST_ITEMS]
    return _add_items(x, x[LENGTH], items, keys, places, used)


@native
def _add_items(x: Word, count: Word, items: Word, keys: Word, places: Word, used: Word) -> Word:
    """The same for what holds several: its class, their number, and what they are; a slice may
    stand in it."""
    if used + count > 36:
        return 0
    keys[used] = x[TYPE]
    keys[used + 1] = count
    places[used] = 0
    places[used + 1] = 0
    used += 2
    for k in range(count):
        item = items[k]
        kind = kind_of(item[TYPE])
        if kind == _SLICE and used < 30:
            keys[used] = item[TYPE]
            places[used] = 0
            used += 1
            for part in range(3):
                one = item[2 + part]
                used = _add_plain(one, kind_of(one[TYPE]), keys, places, used) if used else 0
        elif kind < _TUPLE:
            used = _add_plain(item, kind, keys, places, used)
        else:
            return 0
        if not used:
            return 0
    return used


@native
def _add_plain(x: Word, kind: Word, keys: Word, places: Word, used: Word) -> Word:
    """The same for a tensor, a number, or what stands for itself."""
    if used >= 44:
        return 0
    if kind == AS_TENSOR:
        keys[used] = x[SIG]
        keys[used + 1] = x[TYPE] ^ _first(x, places, used) << 48
        places[used] = x
        places[used + 1] = 0
        return used + 2
    if kind == _ITSELF:
        keys[used] = x
        places[used] = 0
        return used + 1
    if kind != NUMBER:
        return 0
    keys[used] = x[TYPE]
    places[used] = 0
    places[used + 1] = 0
    if x[TYPE] == _FLOATS.word:
        keys[used + 1] = x[2]  # its bits
        return used + 2
    number = c.PyLong_AsLongLong(x)
    if number == -1 and c.PyErr_Occurred():
        c.PyErr_Clear()
        return 0
    keys[used + 1] = number
    return used + 2


@native
def _first(x: Word, places: Word, used: Word) -> Word:
    """Where a tensor stands already, or 0: x * x is no sample of x * y."""
    for k in range(1, used):
        if places[k] == x:
            return k
    return 0


@native
def _hash(keys: Word, count: Word) -> Word:
    mixed = 0
    for k in range(count):
        mixed = mix(mixed, keys[k])
    return mixed


@native
def _is_again(state: Word, mixed: Word) -> Word:
    """Whether keys have been met not long ago: those of a loop over positions, or of ever new
    numbers, are not worth learning."""
    met = state[_MET]
    k = (mixed >> 8) & 63
    if met[k] == mixed:
        return 1
    met[k] = mixed
    return 0


# -- learning -----------------------------------------------------------------------------------

_NUMBERS = (int, float, bool)  # classes of operands that a function may add
_learning = threading.Lock()


class Shortcut:
    """A function, and the units that it has applied.

    call    what to call in its place
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.learnt: set[tuple[int, ...]] = set()
        self._kept: list[Any] = []
        self._entries: list[tuple[int, int]] = []  # hash and address of each
        learn = functools.partial(_learn, self)
        met = words(*[0] * 64)
        self._state = words(0, 0, id(learn), ctypes.addressof(met))
        self._kept += learn, met
        self._room(8)
        self.call = stand_in(function, shortcut, self._state)

    def add(self, flat: _Flat, watched: _Watched, out: Any) -> None:
        """Know from now on what a call with these keys does."""
        keys = tuple(flat.keys)
        if keys in self.learnt:
            return
        self.learnt.add(keys)
        if len(self.learnt) >= MOST:  # it is called with ever new numbers
            self._state[_LEARN] = id(self.function)
        unit, operands, whole = watched.unit(out)
        places = None if unit is None else flat.places_of(operands)
        parts = [words(*keys), words(*(places or [0]))]
        count = len(operands) if places else 0
        at = [ctypes.addressof(p) for p in parts]
        mixed = hash_of(keys)
        unit_at = id(unit) if places else 0
        entry = words(mixed, len(keys), at[0], unit_at, count, at[1], whole, 0, 0)
        numbers = [x for x in operands if type(x) in _NUMBERS]  # the entry has their addresses
        self._kept.append((entry, parts, unit, flat.held, numbers))
        self._entries.append((mixed, ctypes.addressof(entry)))
        if 2 * len(self._entries) > len(self._places):
            self._room(2 * len(self._places))
        else:
            self._put(*self._entries[-1])

    def _room(self, count: int) -> None:
        self._places = words(*[0] * count)
        self._kept.append(self._places)  # a thread may be looking at the one before
        for entry in self._entries:
            self._put(*entry)
        self._state[_TABLE] = ctypes.addressof(self._places)
        self._state[_MASK] = count - 1

    def _put(self, mixed: int, address: int) -> None:
        put_entry(self._places, 0, len(self._places) - 1, mixed, address)


def _learn(known: Shortcut, *args: Any, **kwargs: Any) -> Any:
    """What the function returns, which is watched meanwhile."""
    if not _learning.acquire(blocking=False):
        return known.function(*args, **kwargs)
    try:
        watched = _Watched()
        with watched:
            out = known.function(*args, **kwargs)
        flat = _flat(args, kwargs)
        if flat is not None:
            known.add(flat, watched, out)
        return out
    finally:
        _learning.release()


class _Watched:
    """What a function does with tensors in this thread, while this is entered."""

    def __init__(self) -> None:
        self.runs: list[tuple[Unit, tuple[Any, ...], Any]] = []
        self.reads = 0
        self.thread = threading.get_ident()

    def __enter__(self) -> None:
        watch(1)
        dispatch.seen.append(self.note)
        values.readers.append(self.read)

    def __exit__(self, *exception: object) -> None:
        values.readers.remove(self.read)
        dispatch.seen.remove(self.note)
        watch(-1)

    def note(self, unit: Unit, operands: tuple[Any, ...], outputs: Any) -> None:
        if threading.get_ident() == self.thread:
            self.runs.append((unit, operands, outputs))

    def read(self) -> None:
        if threading.get_ident() == self.thread:
            self.reads += 1

    def unit(self, out: Any) -> tuple[Any, tuple[Any, ...], bool]:
        """The unit that gave the result, its operands, and whether the result is all of its
        outputs, not the first one; None if there is no such unit."""
        if len(self.runs) == 1 and not self.reads:
            unit, operands, outputs = self.runs[0]
            if outputs is not None and len(operands) <= _MOST_OPERANDS:
                if out is outputs:
                    return unit, operands, True
                if out is outputs[0]:
                    return unit, operands, False
        return None, (), False


class _Flat:
    """The keys of arguments, as native code finds them, and the objects that they name."""

    def __init__(self) -> None:
        self.keys: list[int] = []
        self.held: list[Any] = []
        self.operands: dict[int, int] = {}  # where a tensor, by its address, has its key

    def add(self, x: Any, outer: bool = True) -> bool:
        """Whether an argument has keys, which are added."""
        cls = type(x)
        kind = ops.kind_in_python(cls)
        if kind == AS_TENSOR:
            first = self.operands.setdefault(id(x), len(self.keys))
            again = first if first < len(self.keys) else 0
            self._hold(x.sig, cls)
            self.keys[-1] ^= again << 48
        elif kind == _ITSELF:
            self._hold(x)
        elif kind == NUMBER:
            self._hold(cls)
            bits = struct.unpack("q", struct.pack("d", x))[0] if cls is float else int(x)
            if not -(2**63) <= bits < 2**63:
                return False
            self.keys.append(bits)
        elif kind == _SLICE:
            self._hold(cls)
            if outer:
                self.keys.append(3)
            return all(self.add(part, False) for part in (x.start, x.stop, x.step))
        elif kind in (_TUPLE, _LIST) and outer:
            self._hold(cls)
            self.keys.append(len(x))
            return all(self.add(part, False) for part in x)
        else:
            return False
        return True

    def _hold(self, *objects: Any) -> None:
        self.held += objects
        self.keys += map(id, objects)

    def named(self, name: str) -> None:
        """Add the name of an argument."""
        self._hold(name)

    def places_of(self, operands: tuple[Any, ...]) -> list[int] | None:
        """Where each operand is found at the next call, in pairs: its place among the keys, or -1
        and the address of a number; None if one of them is made by the function."""
        found: list[int] = []
        for x in operands:
            if id(x) in self.operands:
                found += self.operands[id(x)], 0
            elif type(x) in _NUMBERS:
                found += -1, id(x)
            else:
                return None
        return found


def _flat(args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Flat | None:
    flat = _Flat()
    flat.keys.append(len(args))
    for x in args:
        if not flat.add(x):
            return None
    for name, x in kwargs.items():
        flat.named(name)
        if not flat.add(x):
            return None
    return flat


known: dict[str, Shortcut] = {}  # by the names of methods


def _ready() -> None:
    """Tell native code where things are; the library is loaded."""
    _FLOATS.word = id(float)
    kinds: dict[type, int] = {tuple: _TUPLE, list: _LIST, slice: _SLICE}
    for cls in (type(None), type(Ellipsis), str, DType):
        kinds[cls] = _ITSELF
    for cls, kind in kinds.items():
        ops.add_kind(cls, kind)


def _serve() -> None:
    """Let methods of tensors be native code; all cells are filled."""
    of_function: dict[Callable[..., Any], Shortcut] = {}
    read: Any = Tensor.__getitem__
    for name, function in (*METHODS.items(), ("__getitem__", read)):
        if getattr(Tensor, name) is function:
            if function not in of_function:
                of_function[function] = Shortcut(function)
            known[name] = of_function[function]
            setattr(Tensor, name, known[name].call)


library.when_loaded(_ready)
library.when_filled(_serve)
