"""Where in Python state something stands: so that messages name it and proxies can be put there.

While a survey walks, each thing it meets is a part: a tuple (value, kind, key, part of the
owner).  From a part of interest a `Place` is made.
"""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Container
from typing import Any

from dualgrad.runtime.records import dataclass

Part = tuple[Any, str, Any, Any]  # value, kind, key, the owner's part (None for a root)

ENTRY = "entry"  # owner[key]: a dict or a list
ATTRIBUTE = "attribute"  # owner.key, in its __dict__ or a slot; also of classes
CELL = "cell"  # owner.cell_contents
DEFAULT = "default"  # owner.__defaults__[key], or owner.__kwdefaults__[key] for a name
GLOBAL = "global"  # owner[key]: the globals of a code object, or of a module
ELEMENT = "element"  # owner[key]: a tuple, which cannot be changed
ROOT = "root"  # key: "args", "kwargs", or the name of the function
PART = "part"  # something of which an object consists: its class, a method's function ...
SIZE = "size"  # owner.shape[key]: a tensor
STRIDE = "stride"  # stride of owner's dimension key, in elements


@dataclass(frozen=True, eq=False)
class Place:
    """One place in Python state, reached by way of its owner's."""

    kind: str
    owner: Any
    key: Any
    parent: Place | None

    @classmethod
    def of(cls, part: Part) -> Place:
        _, kind, key, above = part
        if above is None:
            return cls(kind, None, key, None)
        return cls(kind, above[0], key, cls.of(above))

    @property
    def identity(self) -> tuple[str, int, Any]:
        """What two surveys of the same objects know the place by."""
        return (self.kind, id(self.owner), self.key)

    @property
    def storage(self) -> tuple[int, Any]:
        """Identity and key of the object that a number can be read from, and written to."""
        if self.kind == CELL:
            return (id(self.owner), None)
        if self.kind == ATTRIBUTE and not isinstance(self.owner, type):
            attributes = getattr(self.owner, "__dict__", {})
            return (id(attributes if self.key in attributes else self.owner), self.key)
        return (id(self.owner), self.key)

    def is_below(self, storage: Container[tuple[int, Any]]) -> bool:
        """Whether the place, or one on the way to it, is among these."""
        if self.kind != ROOT and self.storage in storage:
            return True
        return self.parent is not None and self.parent.is_below(storage)

    def __str__(self) -> str:
        """As Python text: opt.param_groups[0]['lr'], x.shape[0]."""
        behind = "" if self.parent is None else str(self.parent)
        if self.kind == ROOT:
            return str(self.key)
        if self.kind in (GLOBAL, CELL):
            return str(self.key)
        if self.kind == ATTRIBUTE:
            return f"{behind}.{self.key}"
        if self.kind == SIZE:
            return f"{behind}.shape[{self.key}]"
        if self.kind == STRIDE:
            return f"{behind}.strides[{self.key}]"
        if self.kind == DEFAULT:
            return f"default of {self.key}"
        if self.kind == ELEMENT and self.parent is not None and self.parent.kind == ROOT:
            return self.argument(self.key)
        if self.kind == ENTRY and self.parent is not None and self.parent.kind == ROOT:
            return str(self.key)
        if self.kind in (ENTRY, ELEMENT):
            return f"{behind}[{_short(self.key)}]"
        return behind

    def argument(self, position: int) -> str:
        """The name of a positional argument."""
        assert self.parent is not None
        names = self.parent.key.names if hasattr(self.parent.key, "names") else ()
        return names[position] if position < len(names) else f"argument {position}"


def _short(key: Any) -> str:
    """A key as text; keys of many lines, as tensors are, by their class."""
    text = repr(key)
    return text if "\n" not in text and len(text) <= 40 else f"<{type(key).__name__}>"


@dataclass(frozen=True)
class Arguments:
    """The key of the root that holds positional arguments: knows what these are called."""

    names: tuple[str, ...]

    def __str__(self) -> str:
        return "args"


def read(place: Place) -> Any:
    """What stands at a place."""
    owner, key = place.owner, place.key
    if place.kind == CELL:
        return owner.cell_contents
    if place.kind == DEFAULT:
        return (owner.__kwdefaults__ if isinstance(key, str) else owner.__defaults__)[key]
    if place.kind == ATTRIBUTE:
        attributes = getattr(owner, "__dict__", {})
        return attributes[key] if key in attributes else getattr(owner, key)
    return owner[key]


def write(place: Place, value: Any) -> None:
    """Let a place hold a value, whatever its owner's class thinks of assignments."""
    owner, key = place.owner, place.key
    if place.kind == CELL:
        owner.cell_contents = value
    elif place.kind == DEFAULT and isinstance(key, str):
        owner.__kwdefaults__[key] = value
    elif place.kind == DEFAULT:
        defaults = owner.__defaults__
        owner.__defaults__ = (*defaults[:key], value, *defaults[key + 1 :])
    elif place.kind == ATTRIBUTE and isinstance(owner, type):
        type.__setattr__(owner, key, value)
    elif place.kind == ATTRIBUTE:
        attributes = getattr(owner, "__dict__", {})
        if key in attributes:
            attributes[key] = value
        else:
            object.__setattr__(owner, key, value)
    else:
        _container(owner).__setitem__(owner, key, value)


def _container(owner: Any) -> Any:
    """The builtin class that holds the elements."""
    return next(c for c in (dict, list, deque) if isinstance(owner, c))


def is_writeable(place: Place) -> bool:
    """Whether something else can be put at a place."""
    if place.kind == ELEMENT:
        above = place.parent
        plain = type(place.owner) is tuple or hasattr(place.owner, "_fields")
        return plain and above is not None and (above.kind == ROOT or is_writeable(above))
    if place.kind in (ENTRY, GLOBAL):
        return isinstance(place.owner, dict | list | deque)
    if place.kind == ATTRIBUTE:
        return not isinstance(place.owner, types.ModuleType)
    return place.kind in (CELL, DEFAULT)
