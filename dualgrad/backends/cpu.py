"""The CPU: programs become object code, are linked into the process, and run on NumPy arrays."""

from __future__ import annotations

import json
import struct
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from dualgrad.backends.common import (
    Times,
    line_of,
    raise_failed_check,
    scalar_packer,
    too_large,
    versions,
)
from dualgrad.compiler.ir.dims import Atom, evaluate
from dualgrad.compiler.launch import Launch, plan_arena, size_of
from dualgrad.runtime import cpu, library, memory
from dualgrad.runtime.cache import default_cache
from dualgrad.runtime.config import config
from dualgrad.runtime.errors import CompileError
from dualgrad.runtime.host import cpu_count
from dualgrad.runtime.lazy import LazyModule
from dualgrad.runtime.profile import counters
from dualgrad.runtime.program import ENTRY, HostCall, Program, decode_error
from dualgrad.runtime.records import dataclass
from dualgrad.runtime.threads import get_num_threads

if TYPE_CHECKING:
    from dualgrad.compiler import codegen
    from dualgrad.compiler.kernel.ir import Device
    from dualgrad.compiler.kernel.program import LoopProgram
    from dualgrad.compiler.lower.llvm import gemm
else:
    # As long to import as all the rest, and not needed by a process that finds its programs on
    # disk or asks for none.
    codegen = LazyModule("dualgrad.compiler.codegen")
    gemm = LazyModule("dualgrad.compiler.lower.llvm.gemm")

Array = np.ndarray[Any, Any]
_address = struct.Struct("=q").pack
_HELD_BELOW = 20_000  # elements that a program may touch while it keeps the GIL
new_array = memory.empty


class CpuBackend:
    """See `Backend`."""

    device = name = "cpu"
    kind: Device = "cpu"

    @property
    def place(self) -> str:
        return f"{max_threads()} {cpu.host_target().key} {config.check} {versions()}"

    def load(
        self, key: str, launch: Launch, times: Times, program: LoopProgram | None, wide: bool
    ) -> CpuCode | None:
        target = cpu.host_target()
        key = f"{key} {target.key} {config.check} {versions()}"
        started = time.perf_counter()
        made: dict[str, _Making] = {}
        entry = default_cache().get(key)
        if entry is not None:
            text, _, code = entry.partition(b"\n")
            head = json.loads(text)
            counters.cache_hits += 1
            times.cached = True
        elif program is not None:
            module = codegen.module_of(program, target, config.check)
            made = _made_beside(module.externs)
            code = codegen.object_code(module.text, target)
            head = {"externs": module.externs, "accesses": module.accesses}
            default_cache().put(key, json.dumps(head).encode() + b"\n" + code)
            counters.compiled += 1
            counters.compile_seconds += time.perf_counter() - started
        else:
            return None
        times.codegen = time.perf_counter() - started
        externs = tuple(head["externs"])
        addresses = {n: _address_of(n, made.get(n)) for n in externs}
        started = time.perf_counter()
        loaded = cpu.load(Program(ENTRY, code, externs, launch.kernels), addresses)
        times.load = time.perf_counter() - started
        return CpuCode(loaded, tuple(head["accesses"]))


@dataclass(eq=False)
class CpuCode:
    """Machine code in memory."""

    loaded: cpu.Loaded
    accesses: tuple[str, ...]  # the buffers that its checks name

    def bind(self, launch: Launch, lines: bool, values: dict[Atom, int]) -> CpuBound:
        return CpuBound(self, launch, lines, values)

    def is_too_narrow(self, launch: Launch, values: dict[Atom, int]) -> bool:
        return False


class CpuBound:
    """A program for known sizes: everything a launch needs, worked out.

    record    the same for native code, where some has asked (see `dualgrad.entries.program`)
    """

    __slots__ = (
        "arena", "code", "constant", "heavy", "launch", "lines", "outputs", "pack", "prefix",
        "program", "record", "scalars", "values",
    )  # fmt: skip

    def __init__(
        self, code: CpuCode, program: Launch, lines: bool, values: dict[Atom, int]
    ) -> None:
        offsets, self.arena = plan_arena(program.spaces, values)
        numbers = [*offsets, *(values[a] for a in program.symbols)]
        self.prefix = struct.pack(f"={len(numbers)}q", *numbers)
        self.record: Any = None
        self.scalars = scalar_packer(program)
        self.outputs = [(size_of(t.shape, values), t.dtype) for t in program.outputs]
        self.constant = _address(0) + self.prefix
        self.pack = cpu.packer(len(program.inputs) + len(program.outputs))
        self.code, self.program, self.lines, self.values = code, program, lines, values
        touched = [*program.inputs, *(t.size for t in program.outputs)]
        total = sum(evaluate(n, values) for n in touched)
        self.heavy = total > _HELD_BELOW or any(k.kind == "contract" for k in program.kernels)
        self.launch = code.loaded if self.heavy else code.loaded.launch_held

    def run(self, arrays: list[Array], scalars: tuple[float, ...] = ()) -> list[Array]:
        outputs = [new_array(shape, dtype) for shape, dtype in self.outputs]
        params = self.constant
        if self.arena:
            block = memory.scratch(self.arena)
            params = _address(block.address) + self.prefix
        if scalars:
            try:
                params += self.scalars(*scalars)
            except struct.error:
                raise too_large(self.program, scalars) from None
        error = self.launch(self.pack([*arrays, *outputs]), params)
        if error:
            self.fail(error)
        return outputs

    def fail(self, error: int) -> None:
        """Raise what an error word of the program means."""
        program = self.program
        code, value = decode_error(error)
        if code < len(program.checks):
            site = program.checks[code]
            if not site.what:
                library.raise_failure(site.op, line_of(program, code, self.lines))
            raise_failed_check(program, code, value, self.values, self.lines)
        buffer = self.code.accesses[code - len(program.checks)]
        raise CompileError(
            "a kernel reached outside of its memory",
            op=program.name,
            expect=f"an index inside of buffer {buffer}",
            actual=str(value),
        )


_processors = cache(cpu_count)


def max_threads() -> int:
    """The number of threads that programs are made for."""
    return max(get_num_threads(), _processors())


# -- what programs call --------------------------------------------------------------------------

_addresses: dict[str, int] = {}


def _address_of(name: str, making: _Making | None) -> int:
    """The address of a function of the host, or of a routine that is compiled once per machine."""
    found = _addresses.get(name)
    if found is not None:
        return found
    call = HostCall.parse(name)
    if call is not None:
        address = library.callback(call)
    else:
        code = default_cache().get(_key_of_routine(name)) or _made(making or _Making(name))
        address = cpu.link_library(name, code, (name,))[name]
    return _addresses.setdefault(name, address)


def _made(making: _Making) -> bytes:
    started = time.perf_counter()
    code = making.code()
    default_cache().put(_key_of_routine(making.name), code)
    counters.compiled += 1
    counters.compile_seconds += time.perf_counter() - started
    return code


def _key_of_routine(name: str) -> str:
    return f"routine {name} {cpu.host_target().key} {versions()}"


def _made_beside(names: Sequence[str]) -> dict[str, _Making]:
    """Begin to compile the routines among these that the process and the disk have not; the
    program that calls them is compiled meanwhile."""
    missing = [
        name
        for name in names
        if name not in _addresses
        and HostCall.parse(name) is None
        and not default_cache().has(_key_of_routine(name))
    ]
    found = {name: _Making(name) for name in missing}
    for making in found.values():
        making.start()
    return found


class _Making:
    """The compilation of a routine, in a thread of its own if it is started."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._target = cpu.host_target()
        self._found: bytes | None = None
        self._thread = threading.Thread(target=self._run, name=f"dualgrad {name}")

    def start(self) -> None:
        with suppress(RuntimeError):  # no more threads: `code` makes it
            self._thread.start()

    def code(self) -> bytes:
        """The object code.  Raises CompileError."""
        if self._thread.ident is not None:
            self._thread.join()
        return self._found or self._make()

    def _run(self) -> None:
        with suppress(CompileError):  # comes again in `code`
            self._found = self._make()

    def _make(self) -> bytes:
        return codegen.object_code(gemm.routine_module(self.name, self._target), self._target)
