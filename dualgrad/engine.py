"""From a graph to machine code that can be run: compile or load once, bind sizes, launch."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import threading
import time
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np

from dualgrad import compiler, runtime
from dualgrad.compiler.ir.dims import Atom, evaluate
from dualgrad.compiler.ir.node import Graph
from dualgrad.compiler.ir.types import Layouts
from dualgrad.compiler.launch import Launch, plan_arena, size_of
from dualgrad.compiler.ops.stated import stated_graph
from dualgrad.runtime import cpu, library, memory
from dualgrad.runtime.cache import default_cache
from dualgrad.runtime.config import config
from dualgrad.runtime.errors import ArgumentError, CompileError, IndexOutOfBounds
from dualgrad.runtime.host import cpu_count
from dualgrad.runtime.lazy import LazyModule
from dualgrad.runtime.linker import llvm_version
from dualgrad.runtime.profile import counters
from dualgrad.runtime.program import HostCall, Program, decode_error
from dualgrad.runtime.srcinfo import Location, called_name
from dualgrad.runtime.threads import get_num_threads

if TYPE_CHECKING:
    from dualgrad.compiler import codegen
    from dualgrad.compiler.kernel.program import LoopProgram
else:
    # As long to import as all the rest, and not needed by a process that finds its programs on
    # disk or asks for none.
    codegen = LazyModule("dualgrad.compiler.codegen")

_FORMAT = "2"  # of what a cache entry holds
_address = struct.Struct("=q").pack
_HELD_BELOW = 20_000  # elements that a program may touch while it keeps the GIL
_lock = threading.RLock()
new_array = memory.empty


@cache
def versions() -> str:
    """What machine code depends on besides its program and the processor."""
    return f"{llvm_version()}, format {_FORMAT}, {_source_state()}"


def _source_state() -> str:
    """Changes whenever the project's files do: code made by an older compiler is not taken."""
    states: list[tuple[str, int, int]] = []
    folders = [f for package in (compiler, runtime) for f in package.__path__]
    folders.append(os.path.dirname(__file__))
    for top, folder in enumerate(folders):
        _note_files(folder, str(top), states)
    return hash_of(repr(sorted(states)))


def _note_files(folder: str, name: str, states: list[tuple[str, int, int]]) -> None:
    """Name, size and time of each source file in a folder (scandir: a fifth of pathlib's time)."""
    with os.scandir(folder) as found:
        for entry in found:
            if entry.name.endswith(".py"):
                status = entry.stat()
                states.append((f"{name}/{entry.name}", status.st_size, status.st_mtime_ns))
            elif entry.is_dir() and entry.name != "__pycache__":
                _note_files(entry.path, f"{name}/{entry.name}", states)


@dataclass
class Times:
    """Seconds spent on making a program, by stage."""

    passes: float = 0.0
    codegen: float = 0.0
    load: float = 0.0
    cached: bool = False


class Executable:
    """A program with its machine code loaded."""

    def __init__(self, launch: Launch, code: Code, lines: bool) -> None:
        self.launch, self.lines, self.code = launch, lines, code

    def bind(self, values: dict[Atom, int]) -> Bound:
        """The program for these sizes."""
        return Bound(self, values)


@dataclass(frozen=True)
class Origin:
    """What a program is made from."""

    graph: Graph
    layouts: Layouts
    name: str
    threads: int

    def program(self) -> LoopProgram:
        return codegen.lower(self.graph, self.layouts, self.name, self.threads)


class Compiled(Executable):
    """An executable that knows what it was made from."""

    def __init__(self, origin: Origin, made: Made, lines: bool, times: Times) -> None:
        super().__init__(made.launch, made.code, lines)
        self.origin, self.times, self.checks_late = origin, times, made.checks_late
        self._program = made.program

    @property
    def program(self) -> LoopProgram:
        """The program in loop IR; made now if its machine code was found without it."""
        if self._program is None:
            self._program = self.origin.program()
        return self._program

    def llvm(self) -> str:
        """The LLVM IR of the program."""
        return codegen.module_of(self.program, cpu.host_target(), config.check).text

    def asm(self) -> str:
        """The machine code of the program, as assembly text."""
        return codegen.assembly(self.llvm(), cpu.host_target())


class Bound:
    """An executable for known sizes: everything a launch needs, worked out."""

    __slots__ = (
        "arena", "constant", "executable", "launch", "outputs", "pack", "prefix", "scalars",
        "values",
    )  # fmt: skip

    def __init__(self, executable: Executable, values: dict[Atom, int]) -> None:
        program = executable.launch
        offsets, self.arena = plan_arena(program.spaces, values)
        numbers = [*offsets, *(values[a] for a in program.symbols)]
        self.prefix = struct.pack(f"={len(numbers)}q", *numbers)
        self.scalars = struct.Struct(
            "=" + "".join("d" if d.is_float else "q" for d in program.scalars)
        ).pack
        self.outputs = [(size_of(t.shape, values), t.dtype) for t in program.outputs]
        self.constant = _address(0) + self.prefix
        self.pack = cpu.packer(len(program.inputs) + len(program.outputs))
        self.executable, self.values = executable, values
        touched = [*program.inputs, *(t.size for t in program.outputs)]
        total = sum(evaluate(n, values) for n in touched)
        heavy = total > _HELD_BELOW or any(k.kind == "contract" for k in program.kernels)
        loaded = executable.code.loaded
        self.launch = loaded if heavy else loaded.launch_held

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
                    op=self.executable.launch.name,
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
        program = self.executable.launch
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
                op=called_name() or site.op,
                expect=f"{low} <= {site.what} < {bound}",
                actual=str(value + low),
                hint="clamp the index, or look where it comes from"
                if low
                else f"count classes from 0, or raise their number above {value + low}",
                location=location,
            )
        buffer = self.executable.code.accesses[code - len(program.checks)]
        raise CompileError(
            "a kernel reached outside of its memory",
            op=program.name,
            expect=f"an index inside of buffer {buffer}",
            actual=str(value),
        )


@dataclass(eq=False)
class Code:
    """Machine code in memory, freed with the last executable that runs it."""

    loaded: cpu.Loaded
    accesses: tuple[str, ...]  # the buffers that its checks name


_codes: WeakValueDictionary[str, Code] = WeakValueDictionary()


def compile_graph(graph: Graph, layouts: Layouts, name: str, lines: bool = True) -> Compiled:
    """The executable of a graph; programs of one text share their machine code.

    `layouts` gives each input's strides in elements, None for contiguous ones.  Without `lines`
    the graph serves many places of the user's program: errors name the call at hand.
    """
    times = Times()
    started = time.perf_counter()
    name = "".join(c if c.isascii() and c.isalnum() else "_" for c in name)
    origin = Origin(graph, layouts, name, max_threads())
    key = _key_of(origin) if lines else None
    made = None if key is None else _known(key, times, started)
    if made is None:
        program = origin.program()
        times.passes = time.perf_counter() - started
        launch = program.launch
        code = code_of(program.key, launch, times, program)
        assert code is not None
        made = Made(launch, code, program.checks_late, program)
        if key is not None:
            plain = {"launch": launch.plain(), "late": made.checks_late, "program": program.key}
            default_cache().put(key, json.dumps(plain).encode())
    return Compiled(origin, made, lines, times)


@dataclass(frozen=True)
class Made:
    """Machine code of a graph; the program itself only where it had to be made."""

    launch: Launch
    code: Code
    checks_late: bool
    program: LoopProgram | None


def _key_of(origin: Origin) -> str | None:
    """The key under which the disk cache says which program a graph becomes, so that a process
    which finds its code there runs no passes; None for graphs that a text cannot stand for."""
    text = stated_graph(origin.graph, origin.layouts)
    if text is None:
        return None
    place = f"{origin.name} {origin.threads} {cpu.host_target().key} {config.check} {versions()}"
    return f"graph {hash_of(text)} {place}"


def _known(key: str, times: Times, started: float) -> Made | None:
    """What the disk cache has for a graph."""
    entry = default_cache().get(key)
    if entry is None:
        return None
    try:
        plain = json.loads(entry)
        launch, late = Launch.read(plain["launch"]), bool(plain["late"])
        times.passes = time.perf_counter() - started
        code = code_of(plain["program"], launch, times, None)
    except (ValueError, TypeError, LookupError):  # not what `compile_graph` writes
        return None
    return None if code is None else Made(launch, code, late, None)


_processors = cache(cpu_count)


def max_threads() -> int:
    """The number of threads that programs are made for."""
    return max(get_num_threads(), _processors())


def code_of(key: str, launch: Launch, times: Times, program: LoopProgram | None) -> Code | None:
    """The machine code of the program with this key; without the program itself, only if there
    is some already."""
    known = f"{key} {config.check}"
    with _lock:
        code = _codes.get(known)
        if code is None:
            code = _load(key, launch, times, program)
            if code is not None:
                _codes[known] = code
    return code


def _load(key: str, launch: Launch, times: Times, program: LoopProgram | None) -> Code | None:
    """Machine code from the disk cache, or new, linked into the process."""
    target = cpu.host_target()
    key = f"{key} {target.key} {config.check} {versions()}"
    started = time.perf_counter()
    entry = default_cache().get(key)
    if entry is not None:
        text, _, code = entry.partition(b"\n")
        head = json.loads(text)
        counters.cache_hits += 1
        times.cached = True
    elif program is not None:
        module = codegen.module_of(program, target, config.check)
        code = codegen.object_code(module.text, target)
        head = {"externs": module.externs, "accesses": module.accesses}
        default_cache().put(key, json.dumps(head).encode() + b"\n" + code)
        counters.compiled += 1
        counters.compile_seconds += time.perf_counter() - started
    else:
        return None
    times.codegen = time.perf_counter() - started
    externs = tuple(head["externs"])
    addresses = {n: _routines(n) for n in externs}
    started = time.perf_counter()
    loaded = cpu.load(Program(launch.name, code, externs, launch.kernels), addresses)
    times.load = time.perf_counter() - started
    return Code(loaded, tuple(head["accesses"]))


@cache
def _routines(name: str) -> int:
    """The address of a function of the host, or of a routine that is compiled once per machine."""
    call = HostCall.parse(name)
    if call is not None:
        return library.callback(call)
    target = cpu.host_target()
    key = f"routine {name} {target.key} {versions()}"
    code = default_cache().get(key)
    if code is None:
        started = time.perf_counter()
        code = codegen.object_code(codegen.routine_module(name, target), target)
        default_cache().put(key, code)
        counters.compiled += 1
        counters.compile_seconds += time.perf_counter() - started
    return cpu.link_library(name, code, (name,))[name]


def hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
