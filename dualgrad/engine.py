"""From a graph to machine code that can be run: compile or load once, bind sizes, launch."""

from __future__ import annotations

import hashlib
import json
import platform
import struct
import threading
import time
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from dualgrad import compiler
from dualgrad.compiler.ir.dims import Atom, evaluate
from dualgrad.compiler.ir.node import Graph
from dualgrad.compiler.kernel.program import LoopProgram, plan_arena, size_of
from dualgrad.compiler.lower.llvm.gemm import gemm_module, routine_name
from dualgrad.compiler.lower.llvm.module import module_of
from dualgrad.compiler.lower.llvm.target import assembly, object_code
from dualgrad.compiler.pipeline import Layouts, lower
from dualgrad.runtime import cpu, library, memory
from dualgrad.runtime.cache import default_cache
from dualgrad.runtime.config import config
from dualgrad.runtime.dtype import ALL
from dualgrad.runtime.errors import ArgumentError, CompileError, IndexOutOfBounds
from dualgrad.runtime.host import cpu_count
from dualgrad.runtime.profile import counters
from dualgrad.runtime.program import HostCall, KernelInfo, Program, decode_error
from dualgrad.runtime.srcinfo import Location
from dualgrad.runtime.threads import get_num_threads

_FORMAT = "1"  # of what a cache entry holds
_address = struct.Struct("=q").pack
_HELD_BELOW = 20_000  # elements that a program may touch while it keeps the GIL
_lock = threading.RLock()
new_array = memory.empty


@cache
def _versions() -> str:
    """What machine code depends on besides the loop program and the processor."""
    names = []
    for package in ("dualgrad", "llvmlite"):
        try:
            names.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            names.append(f"{package} unknown")
    return "; ".join([*names, f"format {_FORMAT}", platform.machine(), _source_state()])


def _source_state() -> str:
    """Changes whenever the compiler's files do: code made by an older compiler is not taken."""
    folder = Path(compiler.__file__).parent
    files = sorted(folder.rglob("*.py"))
    states = [(str(f.relative_to(folder)), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    return hash_of(repr(states))


@dataclass
class Times:
    """Seconds spent on making a program, by stage."""

    passes: float = 0.0
    codegen: float = 0.0
    load: float = 0.0
    cached: bool = False


class Executable:
    """A loop program with its machine code loaded."""

    def __init__(
        self,
        program: LoopProgram,
        loaded: cpu.Loaded,
        accesses: tuple[str, ...],
        times: Times,
        lines: bool,
    ) -> None:
        self.program, self.loaded, self.accesses = program, loaded, accesses
        self.times, self.lines = times, lines

    def bind(self, values: dict[Atom, int]) -> Bound:
        """The program for these sizes."""
        return Bound(self, values)

    def llvm(self) -> str:
        """The LLVM IR of the program."""
        return module_of(self.program, cpu.host_target(), config.check).text

    def asm(self) -> str:
        """The machine code of the program, as assembly text."""
        return assembly(self.llvm(), cpu.host_target())


class Bound:
    """An executable for known sizes: everything a launch needs, worked out."""

    __slots__ = (
        "arena", "constant", "executable", "launch", "outputs", "pack", "prefix", "scalars",
        "values",
    )  # fmt: skip

    def __init__(self, executable: Executable, values: dict[Atom, int]) -> None:
        program = executable.program
        offsets, self.arena = plan_arena(program.temporaries, values)
        numbers = [*offsets, *(values[a] for a in program.symbols)]
        self.prefix = struct.pack(f"={len(numbers)}q", *numbers)
        self.scalars = struct.Struct(
            "=" + "".join("d" if d.is_float else "q" for d in program.scalars)
        ).pack
        self.outputs = [(size_of(t.shape, values), t.dtype) for t in program.output_types]
        self.constant = _address(0) + self.prefix
        self.pack = cpu.packer(len(program.inputs) + len(program.outputs))
        self.executable, self.values = executable, values
        touched = [*(b.size for b in program.inputs), *(b.size for b in program.outputs)]
        total = sum(evaluate(n, values) for n in touched)
        heavy = total > _HELD_BELOW or any(k.kind == "contract" for k in program.kernels)
        self.launch = executable.loaded if heavy else executable.loaded.launch_held

    def run(
        self, arrays: list[np.ndarray[Any, Any]], scalars: tuple[float, ...] = ()
    ) -> list[np.ndarray[Any, Any]]:
        """Run on the inputs' arrays; returns new arrays of the outputs."""
        outputs = [new_array(shape, dtype) for shape, dtype in self.outputs]
        params = self.constant
        if self.arena:
            block = memory.scratch(self.arena)
            params = _address(block.address) + self.prefix
        if scalars:
            try:
                params += self.scalars(*scalars)
            except struct.error:
                raise ArgumentError(
                    "a Python integer is too large",
                    op=self.executable.program.name,
                    expect="-2**63 <= n < 2**63",
                    actual=", ".join(map(str, scalars)),
                    hint="write it as a float",
                ) from None
        error = self.launch(self.pack([*arrays, *outputs]), params)
        if error:
            self.fail(error)
        return outputs

    def fail(self, error: int) -> None:
        """Raise what an error word of the program means."""
        program = self.executable.program
        code, value = decode_error(error)
        if code < len(program.checks):
            site = program.checks[code]
            line = site.line if self.executable.lines else None
            location = Location(*line, "") if line else None
            if not site.what:
                library.raise_failure(site.op, location)
            low, bound = (evaluate(d, self.values) for d in (site.low, site.bound))
            raise IndexOutOfBounds(
                f"{site.what} out of range",
                op=site.op,
                expect=f"{low} <= {site.what} < {bound}",
                actual=str(value + low),
                location=location,
            )
        buffer = self.executable.accesses[code - len(program.checks)]
        raise CompileError(
            "a kernel reached outside of its memory",
            op=program.name,
            expect=f"an index inside of buffer {buffer}",
            actual=str(value),
        )


Code = tuple[cpu.Loaded, tuple[str, ...]]  # machine code, and the buffers its checks name
_codes: dict[str, Code] = {}


def compile_graph(graph: Graph, layouts: Layouts, name: str, lines: bool = True) -> Executable:
    """The executable of a graph; programs of one text share their machine code.

    `layouts` gives each input's strides in elements, None for contiguous ones.  Without `lines`
    the graph serves many places of the user's program: errors name the call at hand.
    """
    times = Times()
    started = time.perf_counter()
    name = "".join(c if c.isascii() and c.isalnum() else "_" for c in name)
    program = lower(graph, layouts, name, max(get_num_threads(), cpu_count()))
    times.passes = time.perf_counter() - started
    key = f"{program.key} {config.check}"
    with _lock:
        code = _codes.get(key)
        if code is None:
            code = _codes[key] = _load(program, times)
    return Executable(program, *code, times, lines)


def _load(program: LoopProgram, times: Times) -> Code:
    """Machine code from the disk cache, or new, linked into the process."""
    target = cpu.host_target()
    key = f"{program.key} {target.key} {config.check} {_versions()}"
    started = time.perf_counter()
    entry = default_cache().get(key)
    if entry is None:
        module = module_of(program, target, config.check)
        code = object_code(module.text, target)
        head = {"externs": module.externs, "accesses": module.accesses}
        default_cache().put(key, json.dumps(head).encode() + b"\n" + code)
        counters.compiled += 1
        counters.compile_seconds += time.perf_counter() - started
    else:
        text, _, code = entry.partition(b"\n")
        head = json.loads(text)
        counters.cache_hits += 1
        times.cached = True
    times.codegen = time.perf_counter() - started
    externs = tuple(head["externs"])
    infos = tuple(KernelInfo(k.name, k.kind, k.lines) for k in program.kernels)
    addresses = {n: _routines(n) for n in externs}
    started = time.perf_counter()
    loaded = cpu.load(Program(program.name, code, externs, infos), addresses)
    times.load = time.perf_counter() - started
    return loaded, tuple(head["accesses"])


@cache
def _routines(name: str) -> int:
    """The address of a function of the host, or of a routine that is compiled once per machine."""
    call = HostCall.parse(name)
    if call is not None:
        return library.callback(call)
    dtype = next(d for d in ALL if d.kind != "b" and routine_name(d) == name)
    target = cpu.host_target()
    text = gemm_module(dtype, target)
    key = f"{name} {hash_of(text)} {target.key} {_versions()}"
    code = default_cache().get(key)
    if code is None:
        started = time.perf_counter()
        code = object_code(text, target)
        default_cache().put(key, code)
        counters.compiled += 1
        counters.compile_seconds += time.perf_counter() - started
    return cpu.link_library(name, code, (name,))[name]


def hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
