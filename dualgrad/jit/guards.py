"""Whether a call is one that a compiled path serves: a check made of generated Python.

A survey takes tens of microseconds or more.  Once a path is known, one expression is compiled for
it that looks at the arguments part by part, and at the state behind the function place by place,
about 30 ns each.  What stands in the state is compared by identity.  Arguments are new objects
at each call, and so is what the path itself assigns: these are compared by structure, as a survey
does.  Numbers and sizes that are inputs of the path are read on the way.

If the check passes, a survey would find the structure and the facts that the path is known by; if
not, it may still be so, and a survey tells.
"""

from __future__ import annotations

import enum
from abc import get_cache_token
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from dualgrad.entries import guards as native
from dualgrad.gradients.hooks import on_leaves
from dualgrad.jit.kinds import PLAIN, is_foreign, slots_of
from dualgrad.jit.notes import (
    BASES,
    CELL_CONTENTS,
    CLASS,
    CLASS_ATTRIBUTE,
    CODE,
    CONTENTS,
    GET,
    ITEM,
    KEYS,
    LENGTH,
    MISSING,
    REGISTERED,
    SLOT,
    VALUES,
    Note,
    all_same,
)
from dualgrad.jit.places import Place
from dualgrad.jit.survey import REGISTRIES, Survey
from dualgrad.jit.table import ARGUMENT, ELEMENT, Look, Table
from dualgrad.runtime.records import dataclass
from dualgrad.state import mode, state
from dualgrad.tensor import Tensor

# Per way of looking at a place, an expression for what it holds.
_LOOK = {
    GET: "{o}.get({k}, MISSING)",
    CLASS_ATTRIBUTE: "{o}.__dict__.get({k}, MISSING)",
    ITEM: "{o}[{k}]",
    CELL_CONTENTS: "{o}.cell_contents",
    SLOT: "getattr({o}, {k}, MISSING)",
}


class Known:
    """What a check found: all that a path needs of what a survey would tell.

    facts       numbers that are inputs of the path, by their number among the facts
    sizes       sizes that are, in the order of the path's symbols
    fact_parts  where numbers stand that the path changes
    """

    __slots__ = (
        "containers", "fact_parts", "facts", "numbers", "objects", "owners", "sizes", "tensors",
    )  # fmt: skip

    def __init__(
        self,
        tensors: list[Tensor],
        facts: dict[int, Any],
        sizes: tuple[int, ...],
        containers: Sequence[Any] = (),
        objects: Sequence[Any] = (),
        owners: Sequence[Any] = (),
        fact_parts: Mapping[int, Any] = MappingProxyType({}),
    ) -> None:
        self.tensors, self.facts, self.sizes = tensors, facts, sizes
        self.containers, self.objects, self.owners = containers, objects, owners
        self.fact_parts = fact_parts
        self.numbers: tuple[Any, ...] = ()


Check = Callable[[tuple[Any, ...]], Known | None]
Storage = tuple[int, Any]  # identity of what holds a value, and the key


def apart(ids: set[int], others: frozenset[int], count: int) -> bool:
    """Whether that many objects are distinct, and none of the others."""
    return len(ids) == count and others.isdisjoint(ids)


@dataclass
class Needs:
    """What a path asks of a call.

    numbers   facts that are numbers and inputs
    sizes     facts that are sizes and symbols
    changed   facts that are numbers and changed
    rebound   places in the state that the path assigns
    effects   whether containers, objects and owners of places are needed
    """

    numbers: tuple[int, ...]
    sizes: tuple[int, ...]
    changed: tuple[int, ...]
    rebound: set[Storage]
    effects: bool


class Writer:
    """Writes the check of one path; `found` is a survey of the call at hand, with notes.

    With a `table` it is also written as one for native code.
    """

    def __init__(
        self, found: Survey, args: tuple[Any, ...], needs: Needs, table: Table | None = None
    ) -> None:
        self.found, self.needs, self.args = found, needs, args
        self.table = Table() if table is None else table
        self.lifted = {*needs.numbers, *needs.sizes}
        self.names: dict[str, Any] = {"MISSING": MISSING, "all_same": all_same, "apart": apart}
        self.names |= {"Known": Known, "state": state, "on_leaves": on_leaves}
        self.constants: dict[int, str] = {}
        self.grad_enabled, self.mixed = mode()
        self.terms = [f"state.grad_enabled is {self.grad_enabled}", "state.mixed is mixed"]
        self.names["mixed"] = self.mixed
        self.fresh: dict[int, str] = {}  # objects that are new at each call, by id: their names
        self.facts: dict[int, str] = {}  # lifted numbers
        self.sizes: dict[int, str] = {}  # lifted sizes
        self.fact_registers: dict[int, int] = {}
        self.size_registers: dict[int, tuple[int, int]] = {}  # and which part of what is there
        self.hookable = False  # whether hooks of tensors matter
        self.signatures: dict[int, tuple[list[int], dict[Any, tuple[Any, ...]]]] = {}
        self.fact_at = {
            (part[1], id(part[3][0]), part[2]): k
            for k, part in enumerate(found.fact_parts)
            if part[3] is not None
        }
        self.notes: dict[int, list[Note]] = {}
        for note in found.notes:
            self.notes.setdefault(id(note[1]), []).append(note)
        self.stored = {Place.of(found.fact_parts[k]).storage: k for k in needs.numbers}
        self.number_of = {id(t): k for k, t in enumerate(found.tensors)}
        self.terms.append(f"len(args) == {len(args)}")
        self.fresh[id(args)] = "args"
        self.add_elements(args, "args")
        for note in found.notes:
            self.add_note(note)
        for t in found.tensors:
            if id(t) not in self.fresh:
                self.add_tensor(t, self.name(t))

    def name(self, x: Any) -> str:
        """The name of an object that is the same at each call."""
        found = self.constants.get(id(x))
        if found is None:
            found = self.constants[id(x)] = f"x{len(self.constants)}"
            self.names[found] = x
        return found

    # -- what is new at each call -------------------------------------------------------------

    def add(self, x: Any, look: Look, key: tuple[str, int, Any]) -> None:
        """Something that is compared by structure; `key` is where its fact stands."""
        kind = type(x)
        if kind is int or kind is float:
            self.add_number(x, look, self.fact_at[key])
        elif x is None or kind is bool or isinstance(x, enum.Enum):
            self.add_same(x, look, self.name(x))
        elif kind in PLAIN:
            v = self.variable()
            same = f"{v}.__class__ is {self.name(kind)} and {v} == {self.name(x)}"
            self.terms.append(f"(({v} := {look}) is {self.name(x)} or {same})")
            self.table.value(self.table.load(look, None), x)
        elif id(x) in self.fresh:
            self.add_same(x, look, self.fresh[id(x)])
        elif isinstance(x, Tensor | tuple | list | dict) or _is_record(x):
            v = self.fresh[id(x)] = self.variable()
            self.terms.append(f"({v} := {look}).__class__ is {self.name(kind)}")
            self.table.load(look, x)
            self.table.of_class(x, kind)
            if isinstance(x, Tensor):
                self.add_tensor(x, v)
            else:
                self.add_parts(x, v)
        else:
            self.add_same(x, look, self.name(x))

    def add_same(self, x: Any, look: Look, name: str) -> None:
        """A place holds the object of this name."""
        self.terms.append(f"{look} is {name}")
        self.table.same(look, x)

    def variable(self) -> str:
        return f"v{len(self.fresh)}_{len(self.terms)}"

    def add_number(self, x: int | float, look: Look, fact: int) -> None:
        v = self.variable()
        self.terms.append(f"({v} := {look}).__class__ is {self.name(type(x))}")
        register = self.table.load(look, None)
        if fact in self.lifted:
            self.facts[fact], self.fact_registers[fact] = v, register
            self.table.emit(native.is_of, register, id(type(x)))
            return
        self.table.value(register, x)
        if isinstance(x, int):
            self.terms.append(f"{v} == {x}")
        else:  # bit by bit: zeros have signs, and NaN is not itself
            self.terms.append(f"{v}.hex() == {x.hex()!r}")

    def add_parts(self, x: Any, v: str) -> None:
        if isinstance(x, tuple):
            self.terms.append(f"len({v}) == {len(x)}")
            self.table.tuple_length(x)
            self.add_elements(x, v)
        attributes = getattr(x, "__dict__", None)
        if attributes is not None:
            self.fresh[id(attributes)] = f"{v}.__dict__"
            self.table.dict_of(x, attributes, False)
        for owner, at in ((x, v), (attributes, f"{v}.__dict__")):
            notes = self.notes.get(id(owner), ()) if owner is not None else ()
            for note in notes:  # before the elements are looked at
                if note[0] in (LENGTH, KEYS):
                    self.add_extent(note, at)
            for how, _, key, held in notes:
                if how in (ITEM, GET, SLOT):
                    kind = "entry" if owner is x and how != SLOT else "attribute"
                    look = Look(_LOOK[how].format(o=at, k=self.name(key)), how, owner, key)
                    self.add(held, look, (kind, id(x), key))

    def add_elements(self, x: tuple[Any, ...], v: str) -> None:
        how = ARGUMENT if x is self.args else ELEMENT
        for k, e in enumerate(x):
            self.add(e, Look(f"{v}[{k}]", how, x, k), ("element", id(x), k))

    def add_tensor(self, t: Tensor, v: str) -> None:
        number = self.number_of[id(t)]
        part = self.found.tensor_part(number)
        lifted = [k for k in sorted(self.needs.sizes) if self.found.fact_parts[k][3] is part]
        known = None
        if lifted:
            known = {t.sig: tuple(self.found.facts[k] for k in lifted)}
            self.signatures[number] = (lifted, known)
            z = f"z{number}"
            self.sizes |= {k: f"{z}[{j}]" for j, k in enumerate(lifted)}
            self.terms.append(f"({z} := {self.name(known)}.get({v}.sig)) is not None")
        else:
            same = "==" if isinstance(t.sig, tuple) else "is"
            self.terms.append(f"{v}.sig {same} {self.name(t.sig)}")
        self.terms.append(f"{v}.requires_grad is {t.requires_grad}")
        fresh = id(t) in self.fresh
        grad_fn = "not None" if fresh and t.grad_fn is not None else "None"
        if not fresh:
            grad_fn = self.name(t.grad_fn)
        self.terms.append(f"{v}._grad_fn is {grad_fn}")
        place = native.HISTORY if grad_fn == "not None" else id(None if fresh else t.grad_fn)
        register = self.table.tensor(t, known, place)
        self.size_registers |= {k: (register, j) for j, k in enumerate(lifted)}
        if fresh and id(t) in on_leaves:
            self.terms.append("False")
            self.table.stop()
        elif fresh:
            self.terms.append(f"id({v}) not in on_leaves")
            self.hookable = True

    # -- what is the same at each call --------------------------------------------------------

    def add_note(self, note: Note) -> None:
        how, owner, key, held = note
        if how == CLASS and id(owner) in self.fresh:
            return
        o, table = self.fresh.get(id(owner)) or self.name(owner), self.table
        if how in _LOOK:
            if id(owner) not in self.fresh:
                text = _LOOK[how].format(o=o, k=self.name(key))
                self.add_place(note, Look(text, how, owner, key))
        elif how in (LENGTH, KEYS):
            if id(owner) not in self.fresh:
                self.add_extent(note, o)
        elif how == CONTENTS:
            self.terms.append(f"len({o}) == {len(held)} and all_same({o}, {self.name(held)})")
            table.stop()
        elif how == CODE:
            code, defaults, named = map(self.name, held)
            self.terms.append(f"{o}.__code__ is {code} and {o}.__defaults__ is {defaults}")
            self.terms.append(f"{o}.__kwdefaults__ is {named}")
            table.code_of(owner, *held)
        elif how == CLASS:
            kind, attributes = held
            self.terms.append(f"{o}.__class__ is {self.name(kind)}")
            table.of_class(owner, kind)
            if attributes is not None:
                self.terms.append(f"{o}.__dict__ is {self.name(attributes)}")
                table.dict_of(owner, attributes, True)
        elif how == BASES:
            self.terms.append(f"{o}.__mro__ is {self.name(held)}")
            table.bases(owner, held)
        elif how == REGISTERED:
            self.names["registrations"] = get_cache_token
            self.terms.append(f"registrations() == {held}")
            table.emit(native.gives, id(get_cache_token), table.operand(held))
        elif how == VALUES:
            self.terms.append("False")  # the elements of an array cannot be compared by identity
            table.stop()

    def add_extent(self, note: Note, o: str) -> None:
        """How many elements a container has, or which keys."""
        how, owner, _, held = note
        if how == LENGTH:
            self.terms.append(f"len({o}) == {held}")
            self.table.length(owner, held)
            return
        self.table.keys(owner, held)
        if all(type(k) is str for k in held):
            self.terms.append(f"[*{o}] == {self.name(held)}")
        else:
            self.terms.append(f"len({o}) == {len(held)} and all_same({o}, {self.name(held)})")

    def add_place(self, note: Note, look: Look) -> None:
        """A place in the state."""
        how, owner, key, held = note
        if held is MISSING and how == CELL_CONTENTS:
            self.terms.append("False")  # to look at an empty cell raises
            self.table.stop()
            return
        storage = (id(owner), None if how == CELL_CONTENTS else key)
        fact = self.stored.get(storage)
        if fact is not None:
            self.add_number(held, look, fact)
        elif self.is_new(storage, held):
            self.add(held, look, ("", 0, None))
        else:
            self.add_same(held, look, self.fresh.get(id(held)) or self.name(held))

    def is_new(self, storage: Storage, held: Any) -> bool:
        """Whether a place in the state holds another object after each call, or may well: the
        path assigns it, or it is a tuple of numbers that change."""
        if isinstance(held, tuple) and any((id(held), k) in self.stored for k in range(len(held))):
            return True
        return storage in self.needs.rebound and not isinstance(held, int | float)

    # -- what it gives ------------------------------------------------------------------------

    def listed(self, objects: Iterable[Any]) -> str:
        return "[" + ", ".join(self.fresh.get(id(x)) or self.name(x) for x in objects) + "]"

    def numbers(self) -> str:
        """The numbers that are inputs; those that were not read stand in tuples, which are the
        same at each call."""
        known = self.facts
        facts = self.found.facts
        read = [f"{k}: {known.get(k) or self.name(facts[k])}" for k in self.needs.numbers]
        return "{" + ", ".join(read) + "}"

    def symbols(self) -> str:
        return "(" + "".join(f"{self.sizes[k]}, " for k in self.needs.sizes) + ")"

    # -- the check ----------------------------------------------------------------------------

    def made(self) -> Check:
        """The check as a function of the arguments."""
        found = self.found
        if self.hookable:
            self.table.emit(native.none_hooked)
        fresh = {name for name in self.fresh.values() if "." not in name}
        if fresh:
            others = self.name(frozenset(found.seen - self.fresh.keys()))
            ids = ", ".join(f"id({name})" for name in sorted(fresh))
            self.terms.append(f"apart({{{ids}}}, {others}, {len(fresh)})")
            own = [key for key, name in self.fresh.items() if "." not in name]
            self.table.apart(own, found.seen - self.fresh.keys())
        parts = [self.listed(found.tensors), self.numbers(), self.symbols()]
        if self.needs.effects:
            parts += map(self.listed, (found.containers, found.objects, found.owners))
            changed = {k: found.fact_parts[k] for k in self.needs.changed}
            parts.append(self.name(changed))
        condition = "\n    and ".join(self.terms)
        # Names as defaults of parameters: local variables are read fastest.
        names = ", ".join(f"{n}={n}" for n in self.names)
        text = (
            f"def check(args, {names}):\n try:\n  if (\n    {condition}\n  ):\n"
            f"    return Known({', '.join(parts)})\n"
            " except (ValueError, LookupError, AttributeError):\n"
            "  return None\n"  # a place is gone, as that of a cell that has been emptied
        )
        space = dict(self.names)
        exec(compile(text, "<guards>", "exec"), space)
        return space["check"]  # type: ignore[no-any-return]


def _is_record(x: Any) -> bool:
    """Whether an object is compared by structure: one that calls may make anew each time."""
    kind = type(x)
    if is_foreign(kind.__module__) or isinstance(x, type):
        return False
    attributes = getattr(x, "__dict__", None)
    if attributes is None:
        return bool(slots_of(kind))
    return not all(r in attributes for r in REGISTRIES)
