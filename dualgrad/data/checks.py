"""Checks of arguments that several parts of this package make."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from dualgrad.runtime.errors import ArgumentError


def whole(op: str, name: str, value: Any, least: int = 0) -> int:
    """Return `value` if it is an int of at least `least`.  Raises ArgumentError if not."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ArgumentError(
            f"{name} has a value it cannot have",
            op=op,
            expect=f"an int of at least {least}",
            actual=repr(value),
            hint=f"give {name} an int",
        )
    return value


def keys_of(op: str, state: Any, keys: Collection[str]) -> Mapping[str, Any]:
    """Return `state` if it is a mapping with exactly these keys.  Raises ArgumentError if not."""
    if isinstance(state, Mapping) and set(state) == set(keys):
        return state
    found = ", ".join(sorted(map(str, state))) if isinstance(state, Mapping) else repr(state)
    raise ArgumentError(
        "no state of such an object",
        op=op,
        expect="the keys " + ", ".join(sorted(keys)),
        actual=found,
        hint="give what state_dict() has returned",
    )
