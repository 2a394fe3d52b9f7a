"""What a survey notes about places in Python state: how to look at each, and what it held."""

from __future__ import annotations

import types
from collections.abc import Iterable
from operator import is_
from typing import Any

MISSING: Any = object()

# What a survey noted about a place: (how to look, owner, key, what it held).
Note = tuple[str, Any, Any, Any]
# How to look:
ITEM = "item"  # owner[key] of a list
GET = "get"  # owner.get(key), MISSING if there is none: dicts and the dicts of classes
LENGTH = "length"  # len(owner)
KEYS = "keys"  # keys of a dict or of a class's, in order
CONTENTS = "contents"  # elements of a set
CELL_CONTENTS = "cell"  # owner.cell_contents, MISSING if empty
CODE = "code"  # of a function: its code, defaults and keyword defaults
CLASS = "class"  # owner.__class__ and its dict (None for that of a class)
CLASS_ATTRIBUTE = "class attribute"  # owner.__dict__.get(key)
OWN_ATTRIBUTES = "own attributes"  # of a class, all of them
SLOT = "slot"  # getattr(owner, key), MISSING if unset
BASES = "bases"  # owner.__mro__
VALUES = "values"  # of a NumPy array
REGISTERED = "registered"  # abc.get_cache_token(): changes when a class is registered as another


def contents(cell: types.CellType) -> Any:
    """What a cell holds; MISSING if it is empty."""
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


def all_same(found: Iterable[Any], held: tuple[Any, ...]) -> bool:
    """Whether these are the very objects that were held."""
    return all(map(is_, found, held))
