"""Counters of the whole process: how often code was compiled, found on disk, and run.

before = counters.snapshot()
...
print(counters.since(before).launches)
"""

from __future__ import annotations

from collections.abc import Sequence

from dualgrad.runtime.records import dataclass


@dataclass(frozen=True)
class Snapshot:
    """Values of the counters at one moment, or their growth between two.

    launches          programs run
    kernels           kernels inside of them
    compiled          programs compiled
    compile_seconds   time spent on that, in seconds
    cache_hits        programs taken from disk instead
    """

    launches: int
    kernels: int
    compiled: int
    compile_seconds: float
    cache_hits: int


class Counters:
    """Plain attributes, so that counting costs next to nothing; see Snapshot.

    native    what native code has counted besides: its launches and kernels
    """

    __slots__ = ("cache_hits", "compile_seconds", "compiled", "kernels", "launches", "native")

    native: Sequence[int]

    def __init__(self) -> None:
        self.launches = 0
        self.kernels = 0
        self.compiled = 0
        self.compile_seconds = 0.0
        self.cache_hits = 0
        self.native = (0, 0)

    def snapshot(self) -> Snapshot:
        """The values now."""
        return Snapshot(
            self.launches + self.native[0],
            self.kernels + self.native[1],
            self.compiled,
            self.compile_seconds,
            self.cache_hits,
        )

    def since(self, before: Snapshot) -> Snapshot:
        """How much was counted after `before` was taken."""
        return Snapshot(
            self.launches + self.native[0] - before.launches,
            self.kernels + self.native[1] - before.kernels,
            self.compiled - before.compiled,
            self.compile_seconds - before.compile_seconds,
            self.cache_hits - before.cache_hits,
        )


counters = Counters()
