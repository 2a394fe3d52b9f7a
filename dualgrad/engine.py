"""From a graph to a program that can be run: compile or load once, then bind sizes and launch.

This part is the same for all devices; what they do on their own stands in `dualgrad.backends`.
"""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from dualgrad.backends.common import Backend, Bound, Code, Times, hash_of
from dualgrad.backends.cpu import CpuBackend, max_threads
from dualgrad.compiler.ir.dims import Atom
from dualgrad.compiler.ir.node import Graph
from dualgrad.compiler.ir.types import Layouts
from dualgrad.compiler.launch import Launch
from dualgrad.compiler.ops.stated import stated_graph
from dualgrad.runtime import cpu
from dualgrad.runtime.cache import default_cache
from dualgrad.runtime.config import config
from dualgrad.runtime.errors import DeviceError
from dualgrad.runtime.lazy import LazyModule
from dualgrad.runtime.records import dataclass

if TYPE_CHECKING:
    from dualgrad.backends import cuda
    from dualgrad.compiler import codegen
    from dualgrad.compiler.kernel.program import LoopProgram
    from dualgrad.compiler.lower.cuda import module as cuda_codegen
else:
    cuda = LazyModule("dualgrad.backends.cuda")
    codegen = LazyModule("dualgrad.compiler.codegen")
    cuda_codegen = LazyModule("dualgrad.compiler.lower.cuda.module")

_lock = threading.RLock()
_codes: WeakValueDictionary[str, Code] = WeakValueDictionary()
_cpu = CpuBackend()


def backend_of(device: str) -> Backend:
    """The back end of a device with this canonical name.  Raises DeviceError if there is none."""
    return _cpu if device == "cpu" else cuda.CudaBackend(device)


class Executable:
    """A program with its code loaded."""

    def __init__(self, launch: Launch, code: Code, lines: bool) -> None:
        self.launch, self.lines, self.code = launch, lines, code

    def bind(self, values: dict[Atom, int]) -> Bound:
        """The program for these sizes."""
        return self.code.bind(self.launch, self.lines, values)

    def is_too_narrow(self, values: dict[Atom, int]) -> bool:
        """Whether a program made with `wide` is needed for these sizes."""
        return self.code.is_too_narrow(self.launch, values)


@dataclass(frozen=True)
class Origin:
    """What a program is made from.

    wide    whether indices may reach 2**31, which programs for CUDA are told
    """

    graph: Graph
    layouts: Layouts
    name: str
    threads: int
    backend: Backend
    wide: bool

    def program(self) -> LoopProgram:
        kind = self.backend.kind
        return codegen.lower(self.graph, self.layouts, self.name, self.threads, kind)


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
        self._needs("cpu", "llvm", ".cuda()")
        return codegen.module_of(self.program, cpu.host_target(), config.check).text

    def asm(self) -> str:
        """The machine code of the program, as assembly text."""
        self._needs("cpu", "asm", ".cuda()")
        return codegen.assembly(self.llvm(), cpu.host_target())

    def cuda(self) -> str:
        """The CUDA C++ text of the program."""
        self._needs("cuda", "cuda", ".llvm()")
        return cuda_codegen.module_of(self.program, self.origin.wide).text

    def _needs(self, kind: str, what: str, other: str) -> None:
        device = self.origin.backend.device
        if self.origin.backend.kind != kind:
            raise DeviceError(
                f"a program for {device} has no such text",
                op=what,
                expect=f"a program for {kind}",
                actual=device,
                hint=f"call {other}",
            )


def compile_graph(
    graph: Graph,
    layouts: Layouts,
    name: str,
    lines: bool = True,
    device: str = "cpu",
    wide: bool = False,
) -> Compiled:
    """The executable of a graph; programs of one text share their machine code.

    `layouts` gives each input's strides in elements, None for contiguous ones.  Without `lines`
    the graph serves many places of the user's program: errors name the call at hand.
    `device` is the canonical name of where it runs; `wide` as in `Origin`.
    """
    times = Times()
    started = time.perf_counter()
    name = "".join(c if c.isascii() and c.isalnum() else "_" for c in name)
    backend = backend_of(device)
    origin = Origin(graph, layouts, name, max_threads(), backend, wide)
    key = _key_of(origin) if lines else None
    made = None if key is None else _known(key, origin, times, started)
    if made is None:
        program = origin.program()
        times.passes = time.perf_counter() - started
        launch = program.launch
        code = code_of(backend, program.key, launch, times, program, wide)
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
    return f"graph {hash_of(text)} {origin.name} {origin.wide} {origin.backend.place}"


def _known(key: str, origin: Origin, times: Times, started: float) -> Made | None:
    """What the disk cache has for a graph."""
    entry = default_cache().get(key)
    if entry is None:
        return None
    try:
        plain = json.loads(entry)
        launch, late = Launch.read(plain["launch"]), bool(plain["late"])
        times.passes = time.perf_counter() - started
        code = code_of(origin.backend, plain["program"], launch, times, None, origin.wide)
    except (ValueError, TypeError, LookupError):  # not what `compile_graph` writes
        return None
    return None if code is None else Made(launch, code, late, None)


def code_of(
    backend: Backend,
    key: str,
    launch: Launch,
    times: Times,
    program: LoopProgram | None,
    wide: bool = False,
) -> Code | None:
    """The code of the program with this key; without the program itself, only if there is some
    already."""
    known = f"{backend.name} {key} {wide} {config.check}"
    with _lock:
        code = _codes.get(known)
        if code is None:
            code = backend.load(key, launch, times, program, wide)
            if code is not None:
                _codes[known] = code
    return code
