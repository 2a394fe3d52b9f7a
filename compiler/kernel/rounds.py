"""Rounds: kernels that follow each other and do not touch what another one stores.

On a CPU a round is one pass of all threads over the loops of all of its kernels.  So is the update
of many parameters by an optimizer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dualgrad.compiler.kernel.ir import (
    Call,
    Check,
    Contract,
    Kernel,
    Loop,
    Pack,
    Store,
    walk,
)

MOST = 64  # kernels of a round


def passes_of(kernels: Sequence[Kernel], strips: Iterable[range]) -> list[range]:
    """The numbers of all kernels: strips, which are given in order, and the rounds between them."""
    passes: list[range] = []
    start = 0
    for strip in (*strips, range(len(kernels), len(kernels))):
        between = rounds_of(kernels[start : strip.start])
        passes += [range(start + r.start, start + r.stop) for r in between]
        passes += [strip] if strip else []
        start = strip.stop
    return passes


def rounds_of(kernels: Sequence[Kernel]) -> list[range]:
    """The numbers of all kernels, in rounds; most of these are of one kernel."""
    rounds: list[range] = []
    touched: set[str] = set()  # buffers that the last round touches, and those that it stores to
    stored: set[str] = set()
    open = False  # whether others may join the last round
    for k, kernel in enumerate(kernels):
        touches = {b.name for b in kernel.starts}
        stores = {s.buffer.name for s in walk(kernel.body) if isinstance(s, Store)}
        apart = touched.isdisjoint(stores) and stored.isdisjoint(touches)
        if open and apart and len(rounds[-1]) < MOST and _may_join(kernel):
            rounds[-1] = range(rounds[-1].start, k + 1)
            touched |= touches
            stored |= stores
        else:
            rounds.append(range(k, k + 1))
            touched, stored = touches, stores
            open = _may_join(kernel) and is_parallel(kernel)
    return rounds


def is_parallel(kernel: Kernel) -> bool:
    """Whether a kernel is one loop whose iterations threads share."""
    first = kernel.body[0] if len(kernel.body) == 1 else None
    return isinstance(first, Loop) and first.kind == "parallel" and first.extent != 0


def _may_join(kernel: Kernel) -> bool:
    """Whether a kernel cannot stop the program, and has no threads of its own."""
    return not any(isinstance(s, Call | Check | Contract | Pack) for s in walk(kernel.body))
