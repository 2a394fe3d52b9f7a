"""When native entries are loaded: before the first op runs."""

from __future__ import annotations

from dualgrad.dispatch import first_plan
from dualgrad.entries import ops, tape
from dualgrad.runtime.native import library

_READY = (tape.ready, ops.ready)


def start() -> None:
    """Load native entries, if this interpreter can run them and they are not switched off."""
    if library.load():
        for ready in _READY:
            ready()


first_plan.append(start)
