"""Why calls of a compiled function run eagerly."""

from __future__ import annotations

from typing import Any

from dualgrad.runtime.errors import TraceError
from dualgrad.state import state


class Unsupported(TraceError):
    """The function did something that a compiled program cannot do faithfully.

    The trace at hand knows of it from then on: code that is traced may well catch it.
    """

    def __init__(self, what: str, **parts: Any) -> None:
        super().__init__(what, **parts)
        if state.trace is not None:
            state.trace.refusals.append(self)
