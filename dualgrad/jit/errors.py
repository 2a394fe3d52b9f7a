"""Why calls of a compiled function run eagerly."""

from __future__ import annotations

from dualgrad.runtime.errors import TraceError


class Unsupported(TraceError):
    """The function did something that a compiled program cannot do faithfully."""
