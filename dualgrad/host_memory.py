"""Memory of tensors on the CPU: how much there is in use, a limit, giving it back.

Tensors take memory from a pool and give it back when they die, so that what is used again brings
no page faults.  Memory that the caller's NumPy arrays hold is not counted.
"""

from __future__ import annotations

from dualgrad.jit.errors import Unsupported
from dualgrad.runtime import memory
from dualgrad.runtime.errors import ArgumentError
from dualgrad.runtime.memory import MemoryStats
from dualgrad.state import state

__all__ = ["memory_stats", "release_memory", "reset_peak_memory_stats", "set_memory_limit"]


def memory_stats() -> MemoryStats:
    """Say how many bytes tensors on the CPU use, used at most, and may use.

    Returns an object with `live_bytes` (in use), `peak_bytes` (most that were), `pooled_bytes`
    (free, kept for reuse), `allocations` (number of buffers so far) and `limit_bytes` (or None).
    """
    _refuse_in_trace("memory_stats")
    return memory.stats()


def reset_peak_memory_stats() -> None:
    """Let `memory_stats().peak_bytes` start again from what is in use now."""
    _refuse_in_trace("reset_peak_memory_stats")
    memory.reset_peak()


def set_memory_limit(nbytes: int | None) -> None:
    """Let tensors on the CPU use no more than `nbytes`; None is no limit.

    What needs more raises OutOfMemory and changes nothing.  Memory kept for reuse counts: it is
    given back before the limit is passed.  A limit below what is in use now holds for what comes.
    Raises ArgumentError for what is no positive int.
    """
    _refuse_in_trace("set_memory_limit")
    if nbytes is not None and (type(nbytes) is not int or nbytes < 1):
        raise ArgumentError(
            "not a limit of memory",
            op="set_memory_limit",
            expect="a positive int, the number of bytes, or None for no limit",
            actual=repr(nbytes),
            hint="dg.memory_stats() says how much is in use",
        )
    memory.set_limit(nbytes or 0)


def release_memory() -> None:
    """Give memory that is kept for reuse back to the system."""
    _refuse_in_trace("release_memory")
    memory.release()


def _refuse_in_trace(what: str) -> None:
    """The memory in use is another one at each call."""
    if state.trace is not None:
        raise Unsupported(f"dg.{what}() is called while tracing", hint="call it outside")
