"""What the host does to run a program of CUDA kernels: launches and calls of its own, in order."""

from __future__ import annotations

from dualgrad.compiler.ir.dims import Dim
from dualgrad.compiler.ir.plain import Plain, plain_dim, read_dim
from dualgrad.runtime.program import HostCall
from dualgrad.runtime.records import dataclass


@dataclass(frozen=True)
class KernelLaunch:
    """One launch of a kernel.

    function    symbol of the kernel
    buffers     its pointers, in order: name of a buffer of the program, and bytes further on
    symbols     numbers of the program's symbols that it takes, then
    scalars     numbers of the program's scalars; last, if `guarded`, the error word
    reach       a number that no place in its loops is above
    work        number of items: a thread's pieces, rows of a team, or tiles
    per_block   items that a block takes in one turn of its grid-stride loop
    threads     of a block
    """

    function: str
    buffers: tuple[tuple[str, int], ...]
    symbols: tuple[int, ...]
    scalars: tuple[int, ...]
    reach: Dim
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


# -- for files ------------------------------------------------------------------------------------


def plain_step(step: Step) -> Plain:
    """A step as lists."""
    if isinstance(step, HostLaunch):
        blocks = [
            [b.buffer, plain_dim(b.base), [plain_dim(n) for n in b.shape]]
            for b in (*step.inputs, step.output)
        ]
        return ["host", step.call.name, blocks, [plain_dim(n) for n in step.sizes], step.code]
    return [
        "kernel",
        step.function,
        step.buffers,
        step.symbols,
        step.scalars,
        plain_dim(step.reach),
        plain_dim(step.work),
        step.per_block,
        step.threads,
        step.guarded,
    ]


def read_step(plain: Plain) -> Step:
    """The step that `plain_step` wrote.  Raises ValueError, TypeError or LookupError."""
    kind, *parts = plain
    if kind == "host":
        name, blocks, sizes, code = parts
        call = HostCall.parse(name)
        if call is None:
            raise ValueError(f"no function of the host: {name}")
        *inputs, output = (HostBlock(b, read_dim(at), _read_dims(shape)) for b, at, shape in blocks)
        return HostLaunch(call, tuple(inputs), output, _read_dims(sizes), code)
    function, buffers, symbols, scalars, reach, work, per_block, threads, guarded = parts
    places = tuple((name, further) for name, further in buffers)
    return KernelLaunch(
        function,
        places,
        tuple(symbols),
        tuple(scalars),
        read_dim(reach),
        read_dim(work),
        per_block,
        threads,
        guarded,
    )


def _read_dims(plain: Plain) -> tuple[Dim, ...]:
    return tuple(map(read_dim, plain))
