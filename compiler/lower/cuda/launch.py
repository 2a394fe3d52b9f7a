"""What the host does to run a program of CUDA kernels: launches and calls of its own, in order."""

from __future__ import annotations

from dataclasses import dataclass

from dualgrad.compiler.ir.dims import Dim
from dualgrad.runtime.program import HostCall


@dataclass(frozen=True)
class KernelLaunch:
    """One launch of a kernel.

    function    symbol of the kernel
    buffers     its pointers, in order: name of a buffer of the program, and bytes further on
    symbols     numbers of the program's symbols that it takes, then
    scalars     numbers of the program's scalars; last, if `guarded`, the error word
    work        number of items: a thread's pieces, rows of a team, or tiles
    per_block   items that a block takes in one turn of its grid-stride loop
    threads     of a block
    """

    function: str
    buffers: tuple[tuple[str, int], ...]
    symbols: tuple[int, ...]
    scalars: tuple[int, ...]
    work: Dim
    per_block: int
    threads: int
    guarded: bool


@dataclass(frozen=True)
class HostBlock:
    """A whole tensor in memory: row-major, from element `base` of a buffer on."""

    buffer: str
    base: Dim
    shape: tuple[Dim, ...]


@dataclass(frozen=True)
class HostLaunch:
    """A function of the host, run between two kernels; error number `code` if it raises."""

    call: HostCall
    inputs: tuple[HostBlock, ...]
    output: HostBlock
    sizes: tuple[Dim, ...]
    code: int


Step = KernelLaunch | HostLaunch


@dataclass(frozen=True)
class CudaModule:
    """The text of a program's kernels, and the steps that run them."""

    text: str
    steps: tuple[Step, ...]
