"""What it takes to run a program whose machine code is there: sizes, parameters, checks.

This is all that is kept of a program on disk, beside its code: see `Launch.plain`.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from heapq import heappop, heappush

from dualgrad.compiler.ir.dims import Atom, Dim, evaluate
from dualgrad.compiler.ir.plain import (
    Plain,
    plain_atom,
    plain_dim,
    plain_type,
    read_atom,
    read_dim,
    read_type,
)
from dualgrad.compiler.ir.types import TensorType
from dualgrad.runtime.dtype import DType, as_dtype
from dualgrad.runtime.program import KernelInfo
from dualgrad.runtime.records import dataclass

ALIGNMENT = 64
_FEW = 256


@dataclass(frozen=True)
class CheckSite:
    """A run-time check of low <= value < bound, or, with an empty `what`, the call of a function
    of the host: what the message needs."""

    op: str
    what: str
    bound: Dim
    line: tuple[str, int] | None = None
    low: Dim = 0


@dataclass(frozen=True)
class Space:
    """Bytes of the arena that kernels `first`..`last` use."""

    nbytes: Dim
    first: int
    last: int


@dataclass(frozen=True)
class Launch:
    """How a program is run.

    inputs    number of elements that each input reaches over
    outputs   types of the new tensors it makes
    """

    name: str
    inputs: tuple[Dim, ...]
    outputs: tuple[TensorType, ...]
    spaces: tuple[Space, ...]
    symbols: tuple[Atom, ...]
    scalars: tuple[DType, ...]
    kernels: tuple[KernelInfo, ...]
    checks: tuple[CheckSite, ...]

    def plain(self) -> Plain:
        """As lists, for files; the user's lines are left out."""
        return [
            self.name,
            [plain_dim(n) for n in self.inputs],
            [plain_type(t) for t in self.outputs],
            [[plain_dim(s.nbytes), s.first, s.last] for s in self.spaces],
            [plain_atom(a) for a in self.symbols],
            [d.name for d in self.scalars],
            [[k.name, k.kind] for k in self.kernels],
            [[c.op, c.what, plain_dim(c.bound), plain_dim(c.low)] for c in self.checks],
        ]

    def reach(self, values: dict[Atom, int]) -> int:
        """A number that no index into the memory of a run is above."""
        sizes = [*self.inputs, *(t.size for t in self.outputs), *(s.nbytes for s in self.spaces)]
        return max((evaluate(n, values) for n in sizes), default=0)

    @classmethod
    def read(cls, plain: Plain) -> Launch:
        name, inputs, outputs, spaces, symbols, scalars, kernels, checks = plain
        return cls(
            name,
            tuple(map(read_dim, inputs)),
            tuple(map(read_type, outputs)),
            tuple(Space(read_dim(n), first, last) for n, first, last in spaces),
            tuple(map(read_atom, symbols)),
            tuple(map(as_dtype, scalars)),
            tuple(KernelInfo(name, kind, ()) for name, kind in kernels),
            tuple(
                CheckSite(op, what, read_dim(bound), None, read_dim(low))
                for op, what, bound, low in checks
            ),
        )


def plan_arena(spaces: tuple[Space, ...], values: dict[Atom, int]) -> tuple[list[int], int]:
    """Offsets in bytes for spaces, and the size of the arena.

    Few spaces: greedy by size (largest first) into the lowest gap between spaces that are used at
    the same time; see Pisarchyk and Lee, "Efficient memory management for deep neural net
    inference" (2020).  That takes quadratic time, so many spaces are placed in the order in which
    they are needed, each into the smallest gap that is free by then.
    """
    sizes = [-(-evaluate(s.nbytes, values) // ALIGNMENT) * ALIGNMENT for s in spaces]
    offsets = _by_size(spaces, sizes) if len(spaces) <= _FEW else _by_time(spaces, sizes)
    total = max((o + s for o, s in zip(offsets, sizes, strict=True)), default=0)
    return offsets, total


def _by_size(spaces: tuple[Space, ...], sizes: list[int]) -> list[int]:
    offsets = [0] * len(spaces)
    placed: list[int] = []
    for k in sorted(range(len(spaces)), key=lambda k: -sizes[k]):
        s = spaces[k]
        busy = sorted(
            (offsets[p], offsets[p] + sizes[p])
            for p in placed
            if spaces[p].first <= s.last and s.first <= spaces[p].last
        )
        start = 0
        for low, high in busy:
            if start + sizes[k] <= low:
                break
            start = max(start, high)
        offsets[k] = start
        placed.append(k)
    return offsets


def _by_time(spaces: tuple[Space, ...], sizes: list[int]) -> list[int]:
    offsets = [0] * len(spaces)
    gaps: list[tuple[int, int]] = []  # (size, start), in order
    starts: dict[int, int] = {}  # of gaps: start -> size
    ends: dict[int, int] = {}  # end -> start
    top = 0

    def take(start: int) -> int:
        size = starts.pop(start)
        del ends[start + size]
        del gaps[bisect_left(gaps, (size, start))]
        return size

    def free(start: int, size: int) -> None:
        if start in ends:
            before = ends[start]
            start, size = before, size + take(before)
        if start + size in starts:
            size += take(start + size)
        starts[start], ends[start + size] = size, start
        insort(gaps, (size, start))

    running: list[tuple[int, int]] = []  # (last kernel, number)
    for k in sorted(range(len(spaces)), key=lambda k: (spaces[k].first, -sizes[k])):
        while running and running[0][0] < spaces[k].first:
            done = heappop(running)[1]
            if sizes[done]:
                free(offsets[done], sizes[done])
        heappush(running, (spaces[k].last, k))
        fit = bisect_left(gaps, (sizes[k], 0))
        if fit < len(gaps) and sizes[k]:
            offsets[k] = gaps[fit][1]
            left = take(offsets[k]) - sizes[k]
            if left:
                free(offsets[k] + sizes[k], left)
        else:
            offsets[k] = top
            top += sizes[k]
    return offsets


def size_of(dims: tuple[Dim, ...], values: dict[Atom, int]) -> tuple[int, ...]:
    return tuple(evaluate(d, values) for d in dims)
