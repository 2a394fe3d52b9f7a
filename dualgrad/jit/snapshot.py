"""Python state as it was: what a trace has changed is found by it, and put back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dualgrad.jit.kinds import MACHINERY
from dualgrad.jit.notes import (
    CELL_CONTENTS,
    CLASS,
    CODE,
    CONTENTS,
    GET,
    MISSING,
    OWN_ATTRIBUTES,
    SLOT,
    VALUES,
    Note,
    all_same,
    contents,
)
from dualgrad.jit.survey import Survey


class Snapshot:
    """What the places that a survey noted hold now."""

    def __init__(self, found: Survey) -> None:
        self.containers = [(c, c.copy()) for c in found.containers]
        self.copies = {id(c): old for c, old in self.containers}
        whole = self.copies.keys()
        self.places: list[tuple[Note, Any]] = []
        for note in found.notes:
            how, owner, _, _ = note
            if how in _READ and id(owner) not in whole:
                self.places.append((note, _READ[how](note)))

    def changed(self) -> bool:
        """Whether any place holds something else by now."""
        return bool(self.changed_containers() or self.differences())

    def changed_containers(self) -> list[tuple[Any, Any]]:
        """Containers that hold something else now, with copies of them as they were."""
        return [(c, old) for c, old in self.containers if not _same_elements(c, old)]

    def differences(self) -> list[tuple[Note, Any, Any]]:
        """Places outside of containers that hold something else: (note, what it held, holds)."""
        changed = [(note, held) for note, held in self.places if not _same_value(note, held)]
        return [(note, held, _READ[note[0]](note)) for note, held in changed]

    def restore(self) -> None:
        """Put back what has changed."""
        for container, old in self.changed_containers():
            container.clear()
            (container.update if isinstance(container, dict) else container.extend)(old)
        for note, held in self.places:
            if not _same_value(note, held):
                _WRITE[note[0]](note, held)


def _same_elements(container: Any, old: Any) -> bool:
    if len(container) != len(old) or not all_same(container, old):
        return False
    return not isinstance(container, dict) or all_same(container.values(), old.values())


def _same_value(note: Note, held: Any) -> bool:
    now = _READ[note[0]](note)
    if note[0] == CONTENTS:
        return len(now) == len(held) and all_same(now, held)
    if note[0] == OWN_ATTRIBUTES:
        return _same_elements(now, held)
    if note[0] in (CLASS, CODE):
        return all_same(now, held)
    return now.tobytes() == held.tobytes() if note[0] == VALUES else now is held


def _write_global(note: Note, held: Any) -> None:
    _, owner, key, _ = note
    if held is MISSING:
        owner.pop(key, None)
    else:
        owner[key] = held


def _write_slot(note: Note, held: Any) -> None:
    _, owner, key, _ = note
    if held is MISSING:
        object.__delattr__(owner, key)
    elif isinstance(owner, type):
        type.__setattr__(owner, key, held)
    else:
        object.__setattr__(owner, key, held)


def _attributes_of(c: type) -> dict[str, Any]:
    return {n: x for n, x in c.__dict__.items() if n not in MACHINERY}


def _kind_of(x: Any) -> tuple[type, Any]:
    return x.__class__, None if isinstance(x, type) else getattr(x, "__dict__", None)


def _write_class(note: Note, held: dict[str, Any]) -> None:
    owner = note[1]
    now = _attributes_of(owner)
    for name in now.keys() - held.keys():
        type.__delattr__(owner, name)
    for name, value in held.items():
        if now.get(name, MISSING) is not value:
            type.__setattr__(owner, name, value)


def _write_cell(note: Note, held: Any) -> None:
    if held is MISSING:
        del note[1].cell_contents
    else:
        note[1].cell_contents = held


def _write_set(note: Note, held: Any) -> None:
    note[1].clear()
    note[1].update(held)


def _write_kind(note: Note, held: Any) -> None:
    kind = type if isinstance(note[1], type) else object
    kind.__setattr__(note[1], "__class__", held[0])
    if held[1] is not None:
        object.__setattr__(note[1], "__dict__", held[1])


def _write_code(note: Note, held: Any) -> None:
    note[1].__code__, note[1].__defaults__, note[1].__kwdefaults__ = held


_READ: dict[str, Callable[[Note], Any]] = {
    GET: lambda note: note[1].get(note[2], MISSING),
    OWN_ATTRIBUTES: lambda note: _attributes_of(note[1]),
    CELL_CONTENTS: lambda note: contents(note[1]),
    SLOT: lambda note: getattr(note[1], note[2], MISSING),
    CONTENTS: lambda note: tuple(note[1]),
    VALUES: lambda note: np.array(note[1]),
    CLASS: lambda note: _kind_of(note[1]),
    CODE: lambda note: (note[1].__code__, note[1].__defaults__, note[1].__kwdefaults__),
}
_WRITE: dict[str, Callable[[Note, Any], None]] = {
    GET: _write_global,
    OWN_ATTRIBUTES: _write_class,
    CELL_CONTENTS: _write_cell,
    SLOT: _write_slot,
    CONTENTS: _write_set,
    VALUES: lambda note, held: np.copyto(note[1], held),
    CLASS: _write_kind,
    CODE: _write_code,
}
