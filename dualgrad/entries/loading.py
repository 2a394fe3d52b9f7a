"""When native entries are loaded: before the first op runs."""

from __future__ import annotations

from dualgrad.dispatch import first_plan
from dualgrad.entries import flow, ops, shortcuts, tape, writes  # noqa: F401
from dualgrad.runtime.native import library


def start() -> None:
    """Load native entries, if this interpreter can run them and they are not switched off."""
    library.begin()


first_plan.append(start)
