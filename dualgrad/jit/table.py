"""Guards of a path as a table for native code: see `dualgrad.entries.guards`.

`guards.Writer` says each guard twice, as Python text and here.  What native code cannot decide
makes the table `unserved`: the path keeps its Python check.
"""

from __future__ import annotations

import ctypes
import gc
import types
from functools import cache
from typing import Any, NamedTuple

from dualgrad.entries import guards
from dualgrad.jit.kinds import CLASS_TEXTS, FUNCTION_TEXTS
from dualgrad.jit.notes import CELL_CONTENTS, CLASS_ATTRIBUTE, GET, ITEM, MISSING, SLOT
from dualgrad.runtime.native import layout, library
from dualgrad.runtime.native.language import Native
from dualgrad.runtime.records import dataclass, field

ARGUMENT, ELEMENT = "argument", "element"  # ways to look besides those of notes

_TYPE_WORDS = 50  # of any class
_HEAP_TYPE = 1 << 9  # flag of classes that are not written in C


class Look(NamedTuple):
    """Where something is looked for: as Python text, and as a way of looking, owner and key."""

    text: str
    how: str
    owner: Any
    key: Any

    def __str__(self) -> str:
        return self.text


class Unserved(Exception):
    """Something that no instruction decides."""


@dataclass
class _Entries:
    """What is asked of one dict or list; `keys` are those of a dict, in order, or how many
    elements a list has."""

    owner: int  # operand
    keys: Any = None
    held: dict[Any, tuple[int, int]] = field(default_factory=dict)  # by key: how, and object


class Table:
    """Collects the guards of one path; operands are registers or addresses."""

    def __init__(self) -> None:
        self.code: list[Any] = []
        self.unserved = not library.is_loaded()  # then ids need not be addresses, either
        self._registers: dict[int, int] = {}  # by id of an object of the call at hand
        self._count = guards.FIRST
        self._dicts: dict[int, _Entries] = {}
        self._lists: dict[int, _Entries] = {}
        self.kept: list[Any] = []  # whose addresses are in the table
        self._fresh: list[Any] = []  # objects of the call at hand: they live while this is written
        self.loaded: list[int] = []  # registers that refer to what calls may let go of

    def stop(self) -> None:
        """Note that something cannot be decided by native code."""
        self.unserved = True

    def new_register(self, x: Any = None) -> int:
        """A register; for an object that is another one at each call."""
        register = self._count
        self._count += 1
        if self._count > guards.FRAME - 2:
            self.stop()
            register = guards.FIRST
            self._count = guards.FIRST + 1
        if x is not None:
            self._registers[id(x)] = register
            self._fresh.append(x)
        return register

    def operand(self, x: Any) -> int:
        """The register of an object, or the address of one that stays the same."""
        found = self._registers.get(id(x))
        if found is None:
            self.kept.append(x)
            return id(x)
        return found

    def emit(self, instruction: Native, *words: int) -> None:
        self.code += (instruction.address, *words)

    # -- what stands at a place ---------------------------------------------------------------

    def load(self, look: Look, x: Any) -> int:
        """Have what is found in a register, which is that of `x` from now on."""
        register = self.new_register(x)
        self.loaded.append(register)
        try:
            self._look(look, guards.LOAD, register)
        except Unserved:
            self.stop()
        return register

    def same(self, look: Look, x: Any) -> None:
        """What is found is this object, which may be one of the call."""
        if id(x) in self._registers:
            known = self._registers[id(x)]
            register = self.new_register()
            try:
                self._look(look, guards.LOAD, register)
            except Unserved:
                self.stop()
            self.emit(guards.is_object, register, known)
            return
        word = 0 if x is MISSING else self.operand(x)
        try:
            self._look(look, guards.SAME, word)
        except Unserved:
            self.stop()

    def _look(self, look: Look, how: int, word: int) -> None:
        """Load what is found into register `word`, or compare it with the object there."""
        kind, owner, key = look.how, look.owner, look.key
        if self.unserved:
            return
        if kind == GET:
            self._ask(self._entries(owner), key, how, word)
        elif kind == CLASS_ATTRIBUTE:
            self._ask(self._entries(owner.__dict__), key, how, word)
        elif kind == ITEM:
            self._ask(self._items(owner), key, how, word)
        elif kind == ARGUMENT:
            self._register_or_compare(guards.argument, (key,), how, word)
        elif kind == ELEMENT:
            self._word(owner, layout.ITEMS + key, how, word)
        elif kind == CELL_CONTENTS:
            self._word(owner, guards.CELL_CONTENTS, how, word)
        elif kind == SLOT and key == "__dict__":
            self._register_or_compare(guards.dict_of, (self.operand(owner),), how, word)
        elif kind == SLOT:
            self._word(owner, _slot_of(owner, key), how, word)
        else:
            raise Unserved

    def _word(self, owner: Any, number: int, how: int, word: int) -> None:
        if how == guards.SAME:
            self.emit(guards.has_word, self.operand(owner), number, word)
        else:
            self.emit(guards.word, word, self.operand(owner), number)

    def _register_or_compare(
        self, instruction: Native, words: tuple[int, ...], how: int, word: int
    ) -> None:
        register = word if how == guards.LOAD else self.new_register()
        self.emit(instruction, register, *words)
        if how == guards.SAME:
            self.emit(guards.is_object, register, word)

    # -- dicts and lists ----------------------------------------------------------------------

    def _ask(self, entries: _Entries, key: Any, how: int, word: int) -> None:
        """One more question about what stands under a key."""
        before = entries.held.get(key)
        if before is None:
            entries.held[key] = (how, word)
        elif before[0] == guards.LOAD:
            instruction = guards.is_object if how == guards.SAME else guards.copy
            self.emit(instruction, word, before[1])
        elif how == guards.LOAD:
            self.emit(guards.copy, word, before[1])
        elif before[1] != word:
            raise Unserved

    def _entries(self, owner: Any) -> _Entries:
        if type(owner) is types.MappingProxyType:
            (owner,) = gc.get_referents(owner)
        if type(owner) is not dict:
            raise Unserved
        found = self._dicts.get(id(owner))
        if found is None:
            found = self._dicts[id(owner)] = _Entries(self.operand(owner))
            self.code.append(found)
        return found

    def _items(self, owner: Any) -> _Entries:
        if type(owner) is not list:
            raise Unserved
        found = self._lists.get(id(owner))
        if found is None:
            found = self._lists[id(owner)] = _Entries(self.operand(owner), len(owner))
            self.code.append(found)
        return found

    def keys(self, owner: Any, held: list[Any]) -> None:
        """A dict, or the dict of a class, has these keys in this order."""
        if self.unserved:
            return
        try:
            self._entries(owner).keys = held
        except Unserved:
            self.stop()
        self.kept += held

    def length(self, owner: Any, count: int) -> None:
        """A list has so many elements."""
        try:
            self._items(owner).keys = count
        except Unserved:
            self.stop()

    def tuple_length(self, x: Any) -> None:
        self.emit(guards.has_word, self.operand(x), layout.LENGTH, len(x))

    # -- guards of one object -----------------------------------------------------------------

    def of_class(self, x: Any, kind: type) -> None:
        self.emit(guards.is_of, self.operand(x), self.operand(kind))

    def dict_of(self, x: Any, attributes: Any, same: bool) -> None:
        """The dict of an instance: the same one at each call, or a register of its own."""
        register = self.new_register(None if same else attributes)
        self.loaded.append(register)
        self.emit(guards.dict_of, register, self.operand(x))
        if same:
            self.emit(guards.is_object, register, self.operand(attributes))

    def value(self, register: int, x: Any) -> None:
        """Something is a plain object like x."""
        if isinstance(x, float):
            bits = ctypes.c_int64.from_buffer_copy(ctypes.c_double(x)).value
            self.emit(guards.is_float, register, bits)
        else:
            self.emit(guards.is_value, register, self.operand(x))

    def tensor(self, x: Any, known: dict[Any, Any] | None, grad_fn: int) -> int:
        """A tensor's signature and history; with `known`, the register of what that has for the
        signature."""
        words = (id(x.requires_grad), grad_fn)
        if known is None:
            self.kept.append(x.sig)
            self.emit(guards.is_tensor, self.operand(x), id(x.sig), *words)
            return 0
        register = self.new_register()
        self.emit(guards.is_sized, register, self.operand(x), self.operand(known), *words)
        return register

    def code_of(self, f: Any, code: Any, defaults: Any, named: Any) -> None:
        parts = [0 if x is None else self.operand(x) for x in (defaults, named)]
        self.emit(guards.has_code, self.operand(f), self.operand(code), *parts)

    def bases(self, c: type, held: tuple[type, ...]) -> None:
        """A class has this __mro__, whose place in classes is looked for."""
        if self.unserved:
            return
        words = (ctypes.c_size_t * _TYPE_WORDS).from_address(id(c))[:]
        if id(held) not in words:
            self.stop()
            return
        at = words.index(id(held))
        self.emit(guards.has_word, self.operand(c), at, self.operand(held))

    def apart(self, fresh: list[int], others: set[int]) -> None:
        """Objects of the call are distinct, and none of the others; all by identity."""
        registers = [self._registers[key] for key in fresh if key in self._registers]
        count = len(registers)
        self.emit(guards.are_apart, count, *registers, len(others), *sorted(others))

    # -- the table ----------------------------------------------------------------------------

    def words(self) -> list[int]:
        """The table, without an end."""
        out: list[int] = []
        for x in self.code:
            if not isinstance(x, _Entries):
                out.append(x)
            elif isinstance(x.keys, int):
                out += self._list_words(x, x.keys)
            else:
                out += self._with_version(x, self._dict_words(x))
        return out

    def _with_version(self, x: _Entries, words: list[int]) -> list[int]:
        """Questions that are asked again only when a dict has been changed."""
        loads = any(how == guards.LOAD for how, _ in x.held.values())
        if loads or x.owner < guards.FRAME or not layout.versions_count():
            return words
        far = 8 * (4 + len(words))
        note = [guards.note_version.address, far]
        return [guards.unchanged.address, x.owner, 0, far + 16, *words, *note]

    def _list_words(self, x: _Entries, count: int) -> list[int]:
        if len(x.held) == count and all(how == guards.SAME for how, _ in x.held.values()):
            same = [x.held[k][1] for k in range(count)]
            return [guards.items_are.address, x.owner, count, *same]
        out = [guards.has_word.address, x.owner, layout.LENGTH, count]
        for k, (how, word) in x.held.items():
            register = word if how == guards.LOAD else self.new_register()
            out += [guards.list_item.address, register, x.owner, k]
            if how == guards.SAME:
                out += [guards.is_object.address, register, word]
        return out

    def _dict_words(self, x: _Entries) -> list[int]:
        out: list[int] = []
        if x.keys is not None:
            out += [guards.entries_are.address, x.owner, len(x.keys)]
            for key in x.keys:
                out += [id(key), *x.held.get(key, (guards.ANY, 0))]
        known = set(x.keys or ())
        for key, (how, word) in x.held.items():
            self.kept.append(key)
            if key in known:
                continue
            if how == guards.LOAD:
                out += [guards.look_up.address, word, x.owner, id(key)]
            else:
                out += [guards.entry_is.address, x.owner, id(key), word]
        return out


def _slot_of(owner: Any, name: str) -> int:
    """Which word of an object a slot is, or a text that a function or a class has."""
    kind = type(owner)
    if kind is types.FunctionType or (isinstance(owner, type) and owner.__flags__ & _HEAP_TYPE):
        found = _text_words(kind is types.FunctionType).get(name)
        if found is None:
            raise Unserved
        return found
    for c in kind.__mro__:
        found = c.__dict__.get(name)
        if found is not None:
            if (
                type(found) is types.MemberDescriptorType
                and c.__dict__.get("__slots__") is not None
            ):
                return layout.offset_of(c, name) // 8
            break
    raise Unserved


@cache
def _text_words(of_functions: bool) -> dict[str, int]:
    """Which words of functions, or of classes, are their texts: looked for in an example."""

    def example() -> None: ...

    probe: Any = example if of_functions else type("probe", (), {})
    names = FUNCTION_TEXTS if of_functions else CLASS_TEXTS
    texts = {n: f"{n} of {id(probe)}" for n in names}
    for n, text in texts.items():
        setattr(probe, n, text)
    size = type(probe).__basicsize__ // 8
    words = (ctypes.c_size_t * size).from_address(id(probe))[:]
    return {n: words.index(id(text)) for n, text in texts.items() if id(text) in words}
