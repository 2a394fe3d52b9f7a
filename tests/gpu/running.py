"""Runs programs of CUDA kernels with NumPy arrays, and compares them with the CPU's: on the GPU
where there is one, else on the shim.

Memory is poisoned, canaries stand around every buffer, and few blocks run, so that each goes
through several turns of its loops.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided
from support import Array, same_bits

from dualgrad.backends.common import Bound
from dualgrad.compiler.ir.dims import Atom, ShapeEnv, evaluate, shape_env
from dualgrad.compiler.ir.node import Graph, Node, input_node, scalar_node
from dualgrad.compiler.ir.types import Layouts, TensorType
from dualgrad.compiler.kernel.program import LoopProgram
from dualgrad.compiler.launch import plan_arena
from dualgrad.compiler.lower.cuda.launch import HostBlock, HostLaunch, KernelLaunch, Step
from dualgrad.compiler.lower.cuda.module import functions_of, text_of
from dualgrad.compiler.lower.cuda.scalars import Formulas
from dualgrad.compiler.pipeline import lower
from dualgrad.engine import compile_graph
from dualgrad.runtime import cuda
from dualgrad.runtime.dtype import DType, as_dtype
from dualgrad.runtime.errors import IndexOutOfBounds
from dualgrad.runtime.library import FUNCTIONS
from gpu import shim
from gpu.mirror import Mirror

CANARY = 0xA5
MARGIN = 256  # bytes
NO_ERROR = 2**64 - 1
Values = dict[Atom, int]
Number = bool | int | float
_numbers = itertools.count()


class Memory:
    """Elements in memory, `shift` elements behind an address that is a multiple of 256 bytes."""

    def __init__(self, size: int, dtype: DType | None = None, shift: int = 0) -> None:
        kind = np.dtype(np.uint8) if dtype is None else dtype.numpy
        nbytes = size * kind.itemsize
        self.block = np.full(nbytes + 3 * MARGIN + shift * kind.itemsize, CANARY, np.uint8)
        self.start = MARGIN - self.block.ctypes.data % MARGIN + MARGIN + shift * kind.itemsize
        self.stop = self.start + nbytes
        self.array = self.block[self.start : self.stop].view(kind)
        self.array.view(np.uint8)[:] = 0xFF
        self._guard()

    def __del__(self) -> None:
        shim.guard(self.block.ctypes.data, self.block.size, on=False)

    def _guard(self) -> None:
        """Sanitized kernels may not even read what is around."""
        first = self.block.ctypes.data
        shim.guard(first, self.start, on=True)
        shim.guard(first + self.stop, self.block.size - self.stop, on=True)

    @property
    def address(self) -> int:
        return self.block.ctypes.data + self.start

    def check(self, what: str) -> None:
        around = (self.block[: self.start], self.block[self.stop :])
        assert all((x == CANARY).all() for x in around), f"written beside {what}"


@dataclass(frozen=True)
class Loaded:
    """A program whose kernels can be launched."""

    program: LoopProgram
    steps: tuple[Step, ...]
    library: shim.Library | Mirror

    def launch(
        self, step: KernelLaunch, blocks: int, args: bytes, memory: Sequence[Array], seed: int
    ) -> None:
        """Launch a kernel whose pointers are addresses in these arrays."""
        name, threads = step.function, step.threads
        if isinstance(self.library, Mirror):
            self.library.launch(name, blocks, threads, args, memory)
        else:
            self.library.launch(name, blocks, threads, args, seed)


HAS_DEVICE = cuda.available()  # asked before a test installs a stand-in


def library_of(text: str) -> shim.Library | Mirror:
    return Mirror(cuda.driver(), text) if HAS_DEVICE else shim.build(text)


def load(programs: Sequence[LoopProgram], wide: bool = False) -> list[Loaded]:
    """The programs, which have different names, compiled as one text."""
    formulas = Formulas()
    functions: list[str] = []
    steps = []
    for program in programs:
        more, own = functions_of(program, formulas)
        functions += more
        steps.append(own)
    library = library_of(text_of(functions, formulas, wide))
    return [Loaded(p, s, library) for p, s in zip(programs, steps, strict=True)]


@dataclass
class Run:
    """One run of a program: its memory, and the word that a failed check leaves."""

    loaded: Loaded
    inputs: list[Array]  # flat
    values: Values
    scalars: tuple[Number, ...] = ()
    shift: int = 0  # of all arrays that are not temporary, in elements
    blocks: int = 3  # at most
    seed: int = 0
    memory: dict[str, Memory] = field(default_factory=dict)

    def __post_init__(self) -> None:
        program = self.loaded.program
        for b, x in zip(program.inputs, self.inputs, strict=True):
            self.memory[b.name] = Memory(x.size, b.dtype, self.shift)
            self.memory[b.name].array[:] = x
        for b in program.outputs:
            self.memory[b.name] = Memory(evaluate(b.size, self.values), b.dtype, self.shift)
        offsets, size = plan_arena(program.launch.spaces, self.values)
        arena = Memory(size)
        self.memory["arena"] = arena
        self.addresses = {name: m.address for name, m in self.memory.items()}
        for t, offset in zip(program.temporaries, offsets, strict=True):
            self.addresses[t.buffer.name] = arena.address + offset
        self.error = np.full(1, NO_ERROR, np.uint64)

    def __call__(self) -> Run:
        for step in self.loaded.steps:
            if isinstance(step, HostLaunch):
                if self.error[0] == NO_ERROR:
                    self.host(step)
            else:
                self.kernel(step)
        for name, m in self.memory.items():
            m.check(name)
        return self

    def kernel(self, step: KernelLaunch) -> None:
        program = self.loaded.program
        work = evaluate(step.work, self.values)
        if work == 0:
            return
        for name, n in step.buffers:  # pointers lead into their memory
            assert 0 <= n <= self.memory.get(name, self.memory["arena"]).array.nbytes
        args = b"".join(struct.pack("=Q", self.addresses[b] + n) for b, n in step.buffers)
        sizes = [self.values[program.symbols[k]] for k in step.symbols]
        args += struct.pack(f"={len(sizes)}q", *sizes)
        for k in step.scalars:
            kind = "d" if program.scalars[k].is_float else "q"
            args += struct.pack(f"={kind}", self.scalars[k])
        if step.guarded:
            args += struct.pack("=Q", self.error.ctypes.data)
        blocks = min(-(-work // step.per_block), self.blocks)
        memory = [*(m.block for m in self.memory.values()), self.error]
        self.loaded.launch(step, blocks, args, memory, self.seed)

    def host(self, step: HostLaunch) -> None:
        *inputs, out = (self.block(x) for x in (*step.inputs, step.output))
        sizes = [evaluate(d, self.values) for d in step.sizes]
        with np.errstate(all="ignore"):
            FUNCTIONS[step.call.routine](out, *inputs, *sizes, *step.call.params)

    def block(self, x: HostBlock) -> Array:
        shape = [evaluate(d, self.values) for d in x.shape]
        program = self.loaded.program
        buffers = program.buffers
        (dtype,) = (b.dtype for b in buffers if b.name == x.buffer)
        start = self.addresses[x.buffer] + evaluate(x.base, self.values) * dtype.itemsize
        size = int(np.prod(shape))
        arena = self.memory.get(x.buffer, self.memory["arena"])
        first = start - arena.block.ctypes.data
        raw = arena.block[first : first + size * dtype.itemsize]
        return raw.view(dtype.numpy).reshape(shape)

    def array(self, name: str) -> Array:
        return self.memory[name].array


@dataclass
class Arguments:
    """What a program is run with: inputs, symbols, scalars."""

    arrays: list[Array]
    values: Values = field(default_factory=dict)
    scalars: tuple[Number, ...] = ()


@dataclass
class Case:
    """A graph as programs of both devices, and arguments for it."""

    graph: Graph
    layouts: Layouts
    runs: list[Arguments]
    number: int = field(default_factory=lambda: next(_numbers))

    def __post_init__(self) -> None:
        name = f"case{self.number}"
        env = ShapeEnv(dict(self.runs[0].values))
        with shape_env(env):
            self.cpu = compile_graph(self.graph, self.layouts, name, lines=False)
            self.program = lower(self.graph, self.layouts, name, 1, "cuda")
        assert all(g.holds(run.values) for g in env.guards for run in self.runs)

    def flat(self, args: Arguments, arrays: list[Array]) -> list[Array]:
        """The memory that inputs reach over, one-dimensional."""
        return [
            as_strided(x, (evaluate(b.size, args.values),), (x.itemsize,))
            for x, b in zip(arrays, self.program.inputs, strict=True)
        ]


def case(function: Callable[..., Any], *arrays: Array | Number, dtypes: Any = ()) -> Case:
    """A function of tensors of known shapes, and of numbers, in a program."""
    tensors = [x for x in arrays if isinstance(x, np.ndarray)]
    numbers = [x for x in arrays if not isinstance(x, np.ndarray)]
    kinds = iter(dtypes or [as_dtype(x.dtype.name) for x in tensors])
    nodes = [input_node(k, TensorType(x.shape, next(kinds))) for k, x in enumerate(tensors)]
    scalars = [scalar_node(k, type(x)) for k, x in enumerate(numbers)]
    graph = Graph(tuple(nodes), tuple(scalars), outputs_of(function(*nodes, *scalars)))
    layouts = tuple(layout_of(x) for x in tensors)
    return Case(graph, layouts, [Arguments(tensors, {}, tuple(numbers))])


def outputs_of(result: Any) -> tuple[Node, ...]:
    return (result,) if isinstance(result, Node) else tuple(result)


def layout_of(x: Array) -> tuple[int, ...] | None:
    """Strides in elements; None for a row-major array."""
    return None if x.flags.c_contiguous else tuple(s // x.itemsize for s in x.strides)


def compare(*cases: Case, wide: bool = False, **options: Any) -> None:
    """Both devices give the same bits, or the same error, and leave the same in their inputs."""
    for one, loaded in zip(cases, load([c.program for c in cases], wide), strict=True):
        for args in one.runs:
            compare_run(one, loaded, args, **options)


def compare_run(case: Case, loaded: Loaded, args: Arguments, **options: Any) -> None:
    run = Run(loaded, case.flat(args, args.arrays), args.values, args.scalars, **options)()
    own = [copied(x) for x in args.arrays]
    bound = case.cpu.bind(args.values)
    try:
        outputs, want = bound.run(own, args.scalars), ""
    except IndexOutOfBounds as error:
        outputs, want = [], message(error)
    assert failure(run, bound) == want
    for k, x in enumerate(outputs):
        same_bits(run.array(f"o{k}").reshape(x.shape), x, f"output {k}\n{case.program.text}")
    for b, x in zip(case.program.inputs, case.flat(args, own), strict=True):
        same_bits(run.array(b.name), x, f"input {b.name}")


def failure(run: Run, bound: Bound) -> str:
    """What the error word of a run means; nothing if there is none."""
    if run.error[0] == NO_ERROR:
        return ""
    with pytest.raises(IndexOutOfBounds) as info:
        bound.fail(int(run.error.view(np.int64)[0]))
    return message(info.value)


def message(error: IndexOutOfBounds) -> str:
    """What was expected and what was found, without the place of the call."""
    return "\n".join(str(error).partition("] ")[2].splitlines()[:3])


def copied(x: Array) -> Array:
    """A copy with the same strides."""
    span = 1 + sum((n - 1) * s for n, s in zip(x.shape, x.strides, strict=True)) // x.itemsize
    flat = as_strided(x, (span if x.size else 0,), (x.itemsize,)).copy()
    return as_strided(flat, x.shape, x.strides)
