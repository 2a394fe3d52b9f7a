"""Why a function, or one call of it, runs eagerly."""

from __future__ import annotations

from dualgrad.runtime.errors import TraceError


class Unsupported(TraceError):
    """The function did something that a compiled program cannot do faithfully."""


class UnsupportedMemory(Unsupported):
    """What cannot be done where tensors lie in memory as they do in this call."""
