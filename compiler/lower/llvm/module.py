"""A loop program as one LLVM module: its kernels, and the entry that runs them in order.

The entry follows the launch ABI of `runtime.program`.  It copies addresses and numbers into a
frame on its stack, then calls each kernel, in chunks on the thread pool where that pays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dualgrad.compiler.kernel import ir
from dualgrad.compiler.kernel.ir import Call, Contract, Pack
from dualgrad.compiler.kernel.program import LoopProgram
from dualgrad.compiler.kernel.rounds import passes_of
from dualgrad.compiler.kernel.strips import Strip
from dualgrad.compiler.lower.llvm.cost import work_of
from dualgrad.compiler.lower.llvm.emit import Value
from dualgrad.compiler.lower.llvm.frame import BATCH, ERROR, NUMBERS, ROW, Frame, Parts
from dualgrad.compiler.lower.llvm.lanes import Declarations
from dualgrad.compiler.lower.llvm.launches import (
    SERIAL_BELOW,
    Launches,
    Shared,
    kernel_functions,
    may_stop,
)
from dualgrad.compiler.lower.llvm.together import Work, pass_function, pays, run_pass
from dualgrad.runtime.lazy import LazyModule
from dualgrad.runtime.program import ENTRY, HANDLE_DATA_OFFSET, Target
from dualgrad.runtime.records import dataclass

if TYPE_CHECKING:
    from dualgrad.compiler.lower.llvm import gemm, stripped
else:  # for programs with products
    gemm = LazyModule("dualgrad.compiler.lower.llvm.gemm")
    stripped = LazyModule("dualgrad.compiler.lower.llvm.stripped")

_LAUNCHES_IN_BLOCK = 16  # code generation takes more than linear time on a long block


@dataclass(frozen=True)
class Module:
    """LLVM text, the library routines it calls, and the buffers that checked accesses name."""

    text: str
    externs: tuple[str, ...]
    accesses: tuple[str, ...]


def module_of(program: LoopProgram, target: Target, checked: bool) -> Module:
    """The module of a program; `checked` adds a bounds check to every load and store.

    Kernels that differ only in their buffers share their functions, and those of a round run in
    one pass; not under `checked`, where errors name the buffer.  Strips are strips in any case:
    that is how large their buffers are.
    """
    count = len(program.kernels)
    common = list(map(str, range(count))) if checked else program.common_texts
    users = Counter(common)
    shared = [k for k, text in zip(program.kernels, common, strict=True) if users[text] > 1]
    strips = {s.numbers: s for s in program.strips}
    passes = passes_of(program.kernels, strips)
    if checked:
        passes = [x for p in passes for x in ([p] if p in strips else _singly(p))]
    longest = max((len(p) for p in passes if p not in strips), default=0)
    frame = Frame(program, shared, longest)
    parts = Parts(frame, Declarations(), target, checked, _externs(program))
    known: dict[str, Shared] = {}
    functions: list[str] = []
    works = []
    for number, (kernel, text) in enumerate(zip(program.kernels, common, strict=True)):
        function = f"@kernel_{number}"
        if users[text] == 1:
            functions += kernel_functions(function, kernel, frame.slots, parts)
        elif text not in known:
            known[text] = Shared(function, kernel, parts)
        found = known.get(text)
        works.append(Work(kernel, found.work if found else function, found))
    entry = Entry(program, parts)
    for numbers in passes:
        mine = [works[k] for k in numbers]
        if numbers in strips:
            functions += entry.launch_strip(strips[numbers], mine, f"@strip_{numbers.start}")
        else:
            functions += entry.launch_round(mine, f"@pass_{numbers.start}")
    functions.append(entry.finish())
    functions += [x for shared in known.values() for x in shared.functions()]
    head = f'target triple = "{target.triple}"\n'
    names = parts.names
    text = "\n".join([head, *functions, *(f for _, f in names.formulas.values()), names.text()])
    return Module(text, parts.externs, tuple(frame.accesses))


def _singly(numbers: range) -> list[range]:
    return [range(k, k + 1) for k in numbers]


def _externs(program: LoopProgram) -> tuple[str, ...]:
    """The routines that a program calls, each once."""
    stmts = [s for k in program.kernels for s in ir.walk(k.body)]
    routines = [gemm.routine_of(s) for s in stmts if isinstance(s, Contract | Pack)]
    routines += [s.host.name for s in stmts if isinstance(s, Call)]
    return tuple(dict.fromkeys(routines))


class Entry(Launches):
    """Writes the function with the launch ABI: it fills the frame and runs kernel by kernel."""

    def __init__(self, program: LoopProgram, parts: Parts) -> None:
        self.program, self.parts = program, parts
        signature = f"i64 @{ENTRY}(ptr %handles, ptr %params, ptr %context)"
        super().__init__(signature, parts.frame.slots, parts)
        self._launched = 0
        f, frame = self.f, self.frame
        f.do(f"%frame = alloca [{frame.size} x i64], align 64")
        for slot in (ERROR, BATCH, ROW):
            f.store("i64", 0, f.at("%frame", slot, "i64"))
        arrays = len(program.inputs) + len(program.outputs)
        for k in f.each(arrays):
            handle = f.load("ptr", f.at("%handles", k, "i64"))
            data = f.load("ptr", f.at(handle, HANDLE_DATA_OFFSET, "i8"))
            self._put(frame.first_buffer, k, data)
        if program.temporaries:
            arena, offsets = f.load("ptr", "%params"), f.at("%params", 1, "i64")
            for k in f.each(len(program.temporaries)):
                offset = f.load("i64", f.at(offsets, k, "i64"))
                self._put(frame.first_buffer + arrays, k, f.at(arena, offset, "i8"))
        if program.symbols or program.scalars:
            numbers = f.at("%params", 1 + len(program.temporaries), "i64")
            f.store("ptr", numbers, f.at("%frame", NUMBERS, "i64"))

    def _put(self, first: int, k: Value, address: str) -> None:
        """Write the k-th of the slots from `first` on."""
        if isinstance(k, int):
            place = self.f.at("%frame", first + k, "i64")
        else:
            place = self.f.at("%frame", self.f.add(first, k), "i64")
        self.f.store("ptr", address, place)

    def numbers(self) -> str:
        place = 1 + len(self.program.temporaries)
        return self.f.early(f"getelementptr i64, ptr %params, i64 {place}")

    def launch_round(self, round: Sequence[Work], name: str) -> list[str]:
        """Run the kernels of a round; the functions that this takes."""
        if not pays(round):
            for work in round:
                self._launch(work)
            return []
        f, parts = self.f, self.parts
        with self.scope():
            total = sum((work_of(w.kernel) for w in round), start=0)
            if isinstance(total, int):
                run_pass(self, name, round)
            else:
                few = f.compare("slt", self.dim(total), SERIAL_BELOW)
                with f.when(few), self.scope():
                    for work in round:
                        self._launch(work)
                with f.otherwise(few), self.scope():
                    run_pass(self, name, round)
        return [pass_function(name, round, parts)]

    def launch_strip(self, strip: Strip, works: Sequence[Work], name: str) -> list[str]:
        """Run a strip; the functions that this takes."""
        self._cut()
        with self.scope():
            stripped.run_strip(self, name, strip, works)
        return stripped.strip_functions(name, strip, works, self.parts)

    def _launch(self, work: Work) -> None:
        self._cut()
        if work.shared is None:
            self.launch(work.function, work.kernel)
            return
        work.shared.run(self, work.kernel)
        if may_stop(work.kernel, self.checked):
            self.stop_after_error()

    def _cut(self) -> None:
        """Begin another block after so many launches."""
        self._launched += 1
        if self._launched % _LAUNCHES_IN_BLOCK == 0:
            self.f.start_next()

    def finish(self) -> str:
        self.f.jump(self.exit)
        self.f.start(self.exit)
        error = self.f.load("i64", self.f.at("%frame", ERROR, "i64"))
        return self.f.text(f"i64 {error}")
