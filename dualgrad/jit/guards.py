"""Whether the state behind a compiled path is still as it was: a check made of generated Python.

A survey takes tens of microseconds.  Once a path is known, what it depends on besides the
arguments is compared by identity, place by place, by one expression that is compiled for it:
about 30 ns a place.  Numbers that are inputs of the path are read by it instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dualgrad.hooks import on_leaves
from dualgrad.jit.survey import (
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
    SLOT,
    VALUES,
    Note,
    Survey,
    all_same,
)
from dualgrad.state import state
from dualgrad.tensor import Tensor

Lifted = dict[tuple[int, Any], int]  # identity of the storage and key of a number -> its fact

# Per way of looking at a place, an expression for what it holds.
_LOOK = {
    GET: "{o}.get({k}, MISSING)",
    CLASS_ATTRIBUTE: "{o}.__dict__.get({k}, MISSING)",
    ITEM: "{o}[{k}]",
    CELL_CONTENTS: "{o}.cell_contents",
    SLOT: "getattr({o}, {k}, MISSING)",
}


Quick = tuple[Any, ...]


def quick_key(args: tuple[Any, ...]) -> Quick | None:
    """What a call with these arguments is known by; None where only a survey will do."""
    key: list[Any] = [state.grad_enabled]
    for x in args:
        if not isinstance(x, Tensor) or id(x) in on_leaves:
            return None
        key += (x.__class__, x.sig, x.requires_grad, x.grad_fn is None)
    return tuple(key)


class Standing:
    """The state behind a path as it was found; tells quickly if it still is so.

    `check()` gives the values of the numbers among `lifted`, or None if anything else has
    changed; `numbers` says which facts these are.  `tensors` and `containers` are those of the
    state, in the order of a survey without arguments.
    """

    def __init__(self, found: Survey, lifted: Lifted, constant: dict[int, Any]) -> None:
        self.constant = constant
        self.tensors, self.containers = found.tensors, found.containers
        self.objects = found.objects
        self.ids = {id(t) for t in found.tensors} | {id(c) for c in found.containers}
        writer = _Check(found, lifted)
        self.numbers = writer.numbers
        self.check = writer.made()

    def apart(self, args: tuple[Any, ...]) -> bool:
        """Whether arguments are distinct objects that are no part of the state."""
        ids = {id(x) for x in args}
        return len(ids) == len(args) and self.ids.isdisjoint(ids)

    def facts(self, values: tuple[Any, ...]) -> dict[int, Any]:
        """The lifted facts: what `check` gave, and those that only change with what it guards."""
        return {**self.constant, **dict(zip(self.numbers, values, strict=True))}

    def found(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Survey:
        """What a survey would find, for arguments that are tensors."""
        out = Survey()
        out.tensors, out.containers = [*args, *self.tensors], [kwargs, *self.containers]
        out.objects = [args, kwargs, *self.objects]
        return out


class _Check:
    """Writes the expression of a check."""

    def __init__(self, found: Survey, lifted: Lifted) -> None:
        self.names: dict[str, Any] = {"MISSING": MISSING, "all_same": all_same}
        self.known: dict[int, str] = {}
        self.terms: list[str] = []
        self.lifted = lifted
        self.numbers: list[int] = []
        for note in found.notes:
            self.add(note)
        for t in found.tensors:
            self.add_tensor(t)

    def name(self, x: Any) -> str:
        found = self.known.get(id(x))
        if found is None:
            found = self.known[id(x)] = f"x{len(self.known)}"
            self.names[found] = x
        return found

    def add(self, note: Note) -> None:
        how, owner, key, held = note
        if how in _LOOK:
            look = _LOOK[how].format(o=self.name(owner), k=self.name(key))
            fact = self.lifted.get((id(owner), None if how == CELL_CONTENTS else key))
            if held is MISSING and how == CELL_CONTENTS:
                self.terms.append("False")  # to look at an empty cell raises
            elif fact is None:
                self.terms.append(f"{look} is {self.name(held)}")
            else:
                n = len(self.numbers)
                self.numbers.append(fact)
                self.terms.append(f"(n{n} := {look}).__class__ is {self.name(type(held))}")
            return
        o = self.name(owner)
        if how == LENGTH:
            self.terms.append(f"len({o}) == {held}")
        elif how == KEYS and all(type(k) is str for k in held):
            self.terms.append(f"[*{o}] == {self.name(held)}")
        elif how in (KEYS, CONTENTS):
            self.terms.append(f"len({o}) == {len(held)} and all_same({o}, {self.name(held)})")
        elif how == CODE:
            code, defaults, named = map(self.name, held)
            self.terms.append(
                f"{o}.__code__ is {code} and {o}.__defaults__ is {defaults}"
                f" and {o}.__kwdefaults__ is {named}"
            )
        elif how == CLASS:
            kind, attributes = held
            self.terms.append(f"{o}.__class__ is {self.name(kind)}")
            if attributes is not None:
                self.terms.append(f"{o}.__dict__ is {self.name(attributes)}")
        elif how == BASES:
            self.terms.append(f"{o}.__mro__ is {self.name(held)}")
        elif how == VALUES:
            self.terms.append("False")  # the elements of an array cannot be compared by identity

    def add_tensor(self, t: Tensor) -> None:
        x = self.name(t)
        self.terms.append(
            f"{x}.sig is {self.name(t.sig)} and {x}.requires_grad is {t.requires_grad}"
            f" and {x}.grad_fn is {self.name(t.grad_fn)}"
        )

    def made(self) -> Callable[[], tuple[Any, ...] | None]:
        values = "".join(f"n{k}, " for k in range(len(self.numbers)))
        terms = "\n    and ".join(self.terms) or "True"
        # Names as defaults of parameters: local variables are read fastest.
        names = ", ".join(f"{n}={n}" for n in self.names)
        text = f"def check({names}):\n  if (\n    {terms}\n  ):\n    return ({values})\n"
        space = dict(self.names)
        exec(compile(text, "<guards>", "exec"), space)
        return space["check"]  # type: ignore[no-any-return]
