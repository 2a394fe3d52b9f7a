"""The golden programs, built for GPUs, that are compiled and measured without one."""

from __future__ import annotations

import functools

from test_golden import SETUPS, graph_of

from dualgrad.compiler.kernel.program import LoopProgram
from dualgrad.compiler.pipeline import lower


@functools.cache
def programs() -> tuple[LoopProgram, ...]:
    """Each with a name of its own."""
    out = []
    for setup in SETUPS:
        graph = graph_of(setup)
        out.append(lower(graph, (None,) * len(graph.inputs), setup.__name__, 1, "cuda"))
    return tuple(out)
