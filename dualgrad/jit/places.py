"""Where in Python state something stands: so that messages name it and proxies can be put there.

While a survey walks, each thing it meets is a part: a tuple (value, kind, key, part of the
owner).  From a part of interest a `Place` is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
        if self.kind == ENTRY and self.parent is not None and self.parent.key == "kwargs":
            return str(self.key)
        if self.kind in (ENTRY, ELEMENT):
            return f"{behind}[{self.key!r}]"
        return behind

    def argument(self, position: int) -> str:
        """The name of a positional argument."""
        assert self.parent is not None
        names = self.parent.key.names if hasattr(self.parent.key, "names") else ()
        return names[position] if position < len(names) else f"argument {position}"


@dataclass(frozen=True)
class Arguments:
    """The key of the root that holds positional arguments: knows what these are called."""

    names: tuple[str, ...]

    def __str__(self) -> str:
        return "args"
