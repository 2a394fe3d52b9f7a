"""Nested containers as lists of leaves.

Containers are dicts, lists, tuples, named tuples and instances of dataclasses; None is an empty
one.  Anything else is a leaf.  Entries come in the order in which the container has them.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeGuard


class Child(NamedTuple):
    """What a container holds, and how code reaches it: `["weight"]`, `[0]`, `.bias`."""

    step: str
    key: Any
    value: Any


def is_container(x: Any) -> bool:
    """Whether x is taken apart."""
    return x is None or isinstance(x, dict | list | tuple) or _is_record(x)


def children(x: Any) -> list[Child]:
    """What a container holds, in order."""
    if x is None:
        return []
    if isinstance(x, dict):
        return [Child(f"[{k!r}]", k, v) for k, v in x.items()]
    if isinstance(x, list | tuple):
        names = getattr(x, "_fields", None)
        steps = [f"[{k}]" for k in range(len(x))] if names is None else [f".{n}" for n in names]
        return [Child(s, k, v) for k, (s, v) in enumerate(zip(steps, x, strict=True))]
    return [
        Child(f".{f.name}", f.name, getattr(x, f.name))
        for f in dataclasses.fields(x)
        if hasattr(x, f.name)
    ]


def rebuilt(x: Any, values: list[Any]) -> Any:
    """A container like x with other contents."""
    kind: Any = type(x)
    if x is None:
        return None
    if kind is dict:
        return dict(zip(x, values, strict=True))
    if isinstance(x, dict):
        out = copy.copy(x)
        for k, v in zip(x, values, strict=True):
            out[k] = v
        return out
    if kind is list or kind is tuple:
        return kind(values)
    if isinstance(x, tuple):
        return kind(*values) if hasattr(x, "_fields") else kind(values)
    if isinstance(x, list):
        new = copy.copy(x)
        new[:] = values
        return new
    record: Any = object.__new__(kind)
    if hasattr(x, "__dict__"):
        record.__dict__.update(x.__dict__)
    for child, v in zip(children(x), values, strict=True):
        object.__setattr__(record, child.key, v)  # frozen ones as well
    return record


def leaves(x: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, leaf) of everything that is no container."""
    if not is_container(x):
        yield path, x
        return
    for child in children(x):
        yield from leaves(child.value, path + child.step)


def mapped(function: Callable[..., Any], x: Any, *others: Any, path: str = "") -> Any:
    """A tree like x with `function(path, leaf, *leaves of the others)` in place of each leaf.

    The others have the structure of x at least (see `difference`).
    """
    if not is_container(x):
        return function(path, x, *others)
    if x is None:
        return None
    mine = children(x)
    rows = [[c.value for c in mine], *(_values(o, mine) for o in others)]
    return rebuilt(
        x,
        [
            mapped(function, *column, path=path + c.step)
            for c, *column in zip(mine, *rows, strict=True)
        ],
    )


def _values(x: Any, wanted: list[Child]) -> list[Any]:
    """What x holds where another container holds `wanted`."""
    return [x[c.key] for c in wanted] if isinstance(x, dict) else [c.value for c in children(x)]


def difference(x: Any, other: Any, path: str) -> str | None:
    """Where another tree has not the structure of x, in words; None if it has.

    In place of a leaf, and of None, the other may have anything.
    """
    if x is None or not is_container(x):
        return None
    if type(x) is not type(other):
        found = "None" if other is None else f"a {type(other).__name__}"
        return f"{path} is {found} in place of a {type(x).__name__}"
    mine, theirs = children(x), children(other)
    if isinstance(x, dict) and x.keys() != other.keys():
        shown = [", ".join(map(repr, o)) or "none" for o in (other, x)]
        return f"{path} has the keys {shown[0]} in place of {shown[1]}"
    if len(mine) != len(theirs):
        return f"{path} has {len(theirs)} elements in place of {len(mine)}"
    for c, value in zip(mine, _values(other, mine), strict=True):
        wrong = difference(c.value, value, path + c.step)
        if wrong is not None:
            return wrong
    return None


def _is_record(x: Any) -> TypeGuard[Any]:
    return hasattr(type(x), "__dataclass_fields__")
