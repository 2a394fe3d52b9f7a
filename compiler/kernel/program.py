"""A whole program in loop IR: kernels in order, the memory they use, what the caller passes.

    LoopProgram ::= inputs outputs temporaries  symbols scalars  kernels  checks

Buffers are named i0, i1, ... (inputs), o0, ... (outputs), t0, ... (temporaries in one arena).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

from dualgrad.compiler.ir.dims import Atom, Dim, evaluate
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.kernel.evaluate import CheckSite
from dualgrad.compiler.kernel.ir import Buffer, Kernel
from dualgrad.compiler.kernel.printer import render
from dualgrad.runtime.dtype import DType

ALIGNMENT = 64


@dataclass(frozen=True)
class Temporary:
    """Memory of the arena that kernels `first`..`last` use."""

    buffer: Buffer
    first: int
    last: int


@dataclass(frozen=True)
class LoopProgram:
    """What the pipeline makes of a graph, before a target is chosen."""

    name: str
    inputs: tuple[Buffer, ...]
    outputs: tuple[Buffer, ...]
    output_types: tuple[TensorType, ...]
    temporaries: tuple[Temporary, ...]
    symbols: tuple[Atom, ...]
    scalars: tuple[DType, ...]
    kernels: tuple[Kernel, ...]
    checks: tuple[CheckSite, ...]
    threads: int  # that contractions may use; their scratch memory is sized for it

    @cached_property
    def text(self) -> str:
        """The program as text; equal texts mean equal machine code."""
        head = [f"program {self.name}", f"  threads {self.threads}"]
        for title, buffers in (("input", self.inputs), ("output", self.outputs)):
            head += [f"  {title} {b.name}: {b.dtype.short}[{b.size}]" for b in buffers]
        head += [f"  returns {t!r}" for t in self.output_types]
        head += [
            f"  temporary {t.buffer.name}: {t.buffer.dtype.short}[{t.buffer.size}]"
            f" in {t.first}..{t.last}"
            for t in self.temporaries
        ]
        head += [f"  symbol {a.name}" for a in self.symbols]
        head += [f"  scalar s{k}: {d.short}" for k, d in enumerate(self.scalars)]
        return "\n".join([*head, *(render(k) for k in self.kernels)]) + "\n"

    @cached_property
    def key(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def params(self) -> int:
        """Number of launch parameters: arena, offsets of temporaries, symbols, scalars."""
        return 1 + len(self.temporaries) + len(self.symbols) + len(self.scalars)


def plan_arena(
    temporaries: tuple[Temporary, ...], values: dict[Atom, int]
) -> tuple[list[int], int]:
    """Offsets in bytes for temporaries, and the size of the arena.

    Greedy by size (largest first) into the lowest gap between temporaries that live at the same
    time; see Pisarchyk and Lee, "Efficient memory management for deep neural net inference"
    (2020).
    """
    sizes = [
        -(-evaluate(t.buffer.size, values) * t.buffer.dtype.itemsize // ALIGNMENT) * ALIGNMENT
        for t in temporaries
    ]
    offsets = [0] * len(temporaries)
    placed: list[int] = []
    for k in sorted(range(len(temporaries)), key=lambda k: -sizes[k]):
        t = temporaries[k]
        busy = sorted(
            (offsets[p], offsets[p] + sizes[p])
            for p in placed
            if temporaries[p].first <= t.last and t.first <= temporaries[p].last
        )
        start = 0
        for low, high in busy:
            if start + sizes[k] <= low:
                break
            start = max(start, high)
        offsets[k] = start
        placed.append(k)
    total = max((o + s for o, s in zip(offsets, sizes, strict=True)), default=0)
    return offsets, total


def size_of(dims: tuple[Dim, ...], values: dict[Atom, int]) -> tuple[int, ...]:
    return tuple(evaluate(d, values) for d in dims)
