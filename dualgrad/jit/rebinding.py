"""Places outside of lists and dicts that a function binds anew: variables, slots, class attributes.

What a trace has bound is found by comparing with a snapshot of the state before.  Cells and
objects with slots are other ones at each call and known by their number in a survey; classes and
the globals of modules are always the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dualgrad.jit.errors import Unsupported
from dualgrad.jit.guards import Known
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
)
from dualgrad.jit.snapshot import Snapshot
from dualgrad.jit.survey import Survey
from dualgrad.runtime.records import dataclass

# What is not bound anew but changed as a whole.
_WHOLE = {
    CONTENTS: "a Python set",
    VALUES: "a NumPy array",
    CLASS: "the class of an object",
    CODE: "a Python function",
}
Spec = Callable[[Any], Callable[[Any], Any]]


@dataclass(frozen=True)
class Rebinding:
    """A place that holds something else after a call.

    how     one of GET, OWN_ATTRIBUTES, CELL_CONTENTS, SLOT
    owner   a dict or a class; for cells and slots the number of their owner in a survey
    key     the name
    value   makes what the place holds, from the results of a run
    """

    how: str
    owner: Any
    key: Any
    value: Callable[[Any], Any]

    def storage(self, found: Survey) -> tuple[int, Any]:
        """Identity and key of what is bound, as `Place.storage`."""
        return (id(self._owner(found)), None if self.how == CELL_CONTENTS else self.key)

    def _owner(self, found: Survey | Known) -> Any:
        return found.owners[self.owner] if self.how in (CELL_CONTENTS, SLOT) else self.owner

    def held(self, found: Survey) -> Any:
        """What the place holds now."""
        owner = self._owner(found)
        if self.how == CELL_CONTENTS:
            return owner.cell_contents
        if self.how == SLOT:
            return getattr(owner, self.key)
        return owner.__dict__[self.key] if self.how == OWN_ATTRIBUTES else owner[self.key]

    def bind(self, found: Survey | Known, value: Any) -> None:
        owner = self._owner(found)
        if self.how == CELL_CONTENTS:
            owner.cell_contents = value
        elif self.how == SLOT:
            kind = type if isinstance(owner, type) else object
            kind.__setattr__(owner, self.key, value)
        elif self.how == OWN_ATTRIBUTES:
            type.__setattr__(owner, self.key, value)
        else:
            owner[self.key] = value


def rebindings(before: Snapshot, found: Survey, spec: Spec) -> list[Rebinding]:
    """What a trace has bound; `spec` says how a value is made.  Raises Unsupported for changes
    that cannot be made again."""
    out = []
    for how, owner, key, now in changes(before):
        if now is MISSING:
            raise Unsupported(f"the name {key!r} is deleted")
        if how in (CELL_CONTENTS, SLOT):
            number = next((k for k, x in enumerate(found.owners) if x is owner), None)
            if number is None:
                raise Unsupported(
                    "Python state was reached in a way that cannot be followed",
                    actual=f"a {type(owner).__name__}",
                    hint="pass it as an argument",
                )
            owner = number
        out.append(Rebinding(how, owner, key, spec(now)))
    return out


def changes(before: Snapshot) -> list[tuple[str, Any, Any, Any]]:
    """Places that hold something else now: (how, owner, key, what they hold)."""
    out: list[tuple[str, Any, Any, Any]] = []
    for (how, owner, key, _), held, now in before.differences():
        if how == OWN_ATTRIBUTES:
            names = (n for n in held.keys() | now.keys() if held.get(n, how) is not now.get(n, how))
            out += [(how, owner, n, now.get(n, MISSING)) for n in sorted(names)]
        elif how in (GET, CELL_CONTENTS, SLOT):
            out.append((how, owner, None if how == CELL_CONTENTS else key, now))
        else:
            raise Unsupported(f"{_WHOLE[how]} is changed")
    return out
