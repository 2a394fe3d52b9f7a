"""A loop program as one LLVM module: its kernels, and the entry that runs them in order.

The entry follows the launch ABI of `runtime.program`.  It copies addresses and numbers into a
frame on its stack, then calls each kernel, in chunks on the thread pool where that pays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import lru_cache

from dualgrad.compiler.ir.dims import Dim, substitute, symbol_of
from dualgrad.compiler.kernel import ir
from dualgrad.compiler.kernel.ir import Call, Check, Contract, Kernel, Loop, Reduce, Store
from dualgrad.compiler.kernel.program import LoopProgram
from dualgrad.compiler.kernel.scalar import Formula, Scalar, children_first
from dualgrad.compiler.lower.llvm.call import host_call
from dualgrad.compiler.lower.llvm.contract import contract_call, epilogue_function
from dualgrad.compiler.lower.llvm.emit import Value
from dualgrad.compiler.lower.llvm.frame import CHUNKS, ERROR, NUMBERS, Frame
from dualgrad.compiler.lower.llvm.gemm import routine_name
from dualgrad.compiler.lower.llvm.kernels import KernelCode, is_parallel, kernel_function
from dualgrad.compiler.lower.llvm.lanes import Declarations
from dualgrad.runtime.program import (
    CONTEXT_EXTERNS,
    CONTEXT_PARALLEL_FOR,
    CONTEXT_POOL,
    ENTRY,
    HANDLE_DATA_OFFSET,
    Target,
)
from dualgrad.runtime.records import dataclass

# Cost of one element in units of 1/16 ns, for deciding whether threads pay.  Rough is enough.
_COST_MEMORY, _COST_DIVIDE, _COST_PRIMITIVE = 4, 8, 1
_SERIAL_BELOW = 16 * 30_000  # 30 us: less than that is done before a sleeping thread wakes up
_GRAIN = 16 * 15_000
_MAX_CHUNKS = 64
_LAUNCHES_IN_BLOCK = 16  # code generation takes more than linear time on a long block
_SLOT_BITS = 24  # of the place of a buffer; distances in bytes have the others


@dataclass(frozen=True)
class Module:
    """LLVM text, the library routines it calls, and the buffers that checked accesses name."""

    text: str
    externs: tuple[str, ...]
    accesses: tuple[str, ...]


def module_of(program: LoopProgram, target: Target, checked: bool) -> Module:
    """The module of a program; `checked` adds a bounds check to every load and store.

    Kernels that differ only in their buffers share their functions; not under `checked`, where
    errors name the buffer.
    """
    common = list(map(str, range(len(program.kernels)))) if checked else program.common_texts
    users = Counter(common)
    shared = [k for k, text in zip(program.kernels, common, strict=True) if users[text] > 1]
    parts = Parts(Frame(program, shared), Declarations(), target, checked, _externs(program))
    entry = Entry(program, parts)
    known: dict[str, Shared] = {}
    functions = []
    for number, (kernel, text) in enumerate(zip(program.kernels, common, strict=True)):
        function = f"@kernel_{number}"
        if users[text] == 1:
            functions += kernel_functions(function, kernel, parts.frame.slots, parts)
            entry.launch(function, kernel)
            continue
        if text not in known:
            known[text] = Shared(function, kernel, parts)
            functions += known[text].functions()
        entry.launch_shared(known[text], kernel)
    functions.append(entry.finish())
    head = f'target triple = "{target.triple}"\n'
    names = parts.names
    text = "\n".join([head, *functions, *(f for _, f in names.formulas.values()), names.text()])
    return Module(text, parts.externs, tuple(parts.frame.accesses))


def _externs(program: LoopProgram) -> tuple[str, ...]:
    """The routines that a program calls, each once."""
    stmts = [s for k in program.kernels for s in ir.walk(k.body)]
    routines = [routine_name(s.result.dtype) for s in stmts if isinstance(s, Contract)]
    routines += [s.host.name for s in stmts if isinstance(s, Call)]
    return tuple(dict.fromkeys(routines))


@dataclass(frozen=True)
class Parts:
    """What the functions of a module share."""

    frame: Frame
    names: Declarations
    target: Target
    checked: bool
    externs: tuple[str, ...]


def kernel_functions(
    function: str, kernel: Kernel, slots: Mapping[str, int], parts: Parts
) -> list[str]:
    """The function that does the work of a kernel, if that needs one."""
    if kernel.kind == "call":
        return []
    common = (slots, parts.frame, parts.names, parts.target, parts.checked)
    if kernel.kind != "contract":
        return [kernel_function(function, kernel, *common)]
    (stmt,) = kernel.body
    assert isinstance(stmt, Contract)
    return [epilogue_function(function, kernel, *common)] if stmt.epilogue else []


def may_stop(kernel: Kernel, checked: bool) -> bool:
    """Whether a kernel can leave an error word."""
    return checked or any(isinstance(s, Check | Call) for s in ir.walk(kernel.body))


class Launches(KernelCode):
    """Writes a function that runs kernels, whose buffers stand in the frame."""

    def __init__(self, signature: str, slots: Mapping[str, int], parts: Parts) -> None:
        super().__init__(
            signature, slots, parts.frame, parts.names, parts.target, parts.checked, rare=True
        )
        self.externs = parts.externs
        self._words: dict[int, str] = {}

    def launch(self, function: str, kernel: Kernel) -> None:
        """Run a kernel; `function` does its work."""
        first = kernel.body[0]
        with self.scope():
            if isinstance(first, Call):
                host_call(self, first)
            elif isinstance(first, Contract):
                contract_call(self, function, first)
            elif is_parallel(kernel):
                self._launch_chunks(function, kernel)
            else:
                self._call(function)
        if kernel.kind != "call" and may_stop(kernel, self.checked):
            self.stop_after_error()

    def stop_after_error(self) -> None:
        """Leave if the kernel that has run left an error word."""
        error = self.f.load("i64", self.f.at("%frame", ERROR, "i64"))
        on = self.f.new_block()
        self.f.branch(self.f.compare("ne", error, 0), self.exit, on)
        self.f.start(on)

    def words(self, count: int) -> str:
        """Memory for so many words, the same for all who ask."""
        if count not in self._words:
            self._words[count] = self.f.early(f"alloca [{count} x i64], align 64")
        return self._words[count]

    def extern(self, name: str) -> str:
        """The address of a library routine."""
        place = CONTEXT_EXTERNS + self.externs.index(name)
        return self.f.load("ptr", self.f.at("%context", place, "i64"))

    def _call(self, function: str) -> None:
        self.f.store("i64", 1, self.f.at("%frame", CHUNKS, "i64"))
        self.f.call(function, ("ptr", "%frame"), ("i64", 0), ("i64", 0))

    def _launch_chunks(self, function: str, kernel: Kernel) -> None:
        (loop,) = kernel.body
        assert isinstance(loop, Loop)
        total = substitute(_cost(loop.body), {symbol_of(loop.var): 0}) * loop.extent
        if isinstance(total, int) and total < _SERIAL_BELOW:
            self._call(function)
            return
        f = self.f
        extent = self.dim(loop.extent)
        smallest = self.names.intrinsic("llvm.smin.i64", "i64", "i64", "i64")
        work = self.dim(total)
        chunks = f.quotient(work, _GRAIN)
        chunks = f.result("i64", smallest, ("i64", chunks), ("i64", _MAX_CHUNKS))
        chunks = f.result("i64", smallest, ("i64", chunks), ("i64", extent))
        chunks = f.select(f.compare("slt", work, _SERIAL_BELOW), 1, chunks)
        f.store("i64", chunks, f.at("%frame", CHUNKS, "i64"))
        pool = f.load("ptr", f.at("%context", CONTEXT_POOL, "i64"))
        run = f.load("ptr", f.at("%context", CONTEXT_PARALLEL_FOR, "i64"))
        f.call(run, ("ptr", pool), ("ptr", function), ("ptr", "%frame"), ("i64", chunks))


class Shared:
    """The functions of a kernel that runs at places in memory that it is given.

    A place is the slot of a buffer in the frame, and in the bits above how many bytes further on
    the kernel's indices count from than those of the kernel that the functions were written for.
    """

    def __init__(self, work: str, kernel: Kernel, parts: Parts) -> None:
        self.work, self.kernel, self.parts = work, kernel, parts
        self.function = f"{work}.run"
        self.starts = ir.starts_of(kernel.body)

    def functions(self) -> list[str]:
        """The function that does the work, and the one that is told the places."""
        slots = self.parts.frame.window(self.starts)
        places = "".join(f", i64 %place{k}" for k in range(len(slots)))
        signature = f"internal void {self.function}(ptr %frame, ptr %context{places})"
        code = Launches(signature, slots, self.parts)
        f = code.f
        for k, window in enumerate(slots.values()):
            slot = f.value(f"and i64 %place{k}, {(1 << _SLOT_BITS) - 1}")
            further = f.value(f"ashr i64 %place{k}, {_SLOT_BITS}")
            address = f.at(f.load("ptr", f.at("%frame", slot, "i64")), further, "i8")
            f.store("ptr", address, f.at("%frame", window, "i64"))
        code.launch(self.work, self.kernel)
        return [*kernel_functions(self.work, self.kernel, slots, self.parts), code.finish()]

    def places_for(self, kernel: Kernel) -> list[int]:
        """The places where a kernel runs."""
        pairs = zip(ir.starts_of(kernel.body).items(), self.starts.values(), strict=True)
        slots = self.parts.frame.slots
        return [
            slots[b.name] | (start - own) * b.dtype.itemsize << _SLOT_BITS
            for (b, start), own in pairs
        ]


class Entry(Launches):
    """Writes the function with the launch ABI: it fills the frame and runs kernel by kernel."""

    def __init__(self, program: LoopProgram, parts: Parts) -> None:
        self.program = program
        signature = f"i64 @{ENTRY}(ptr %handles, ptr %params, ptr %context)"
        super().__init__(signature, parts.frame.slots, parts)
        self._launched = 0
        f, frame = self.f, self.frame
        f.do(f"%frame = alloca [{frame.size} x i64], align 64")
        f.store("i64", 0, f.at("%frame", ERROR, "i64"))
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

    def launch(self, function: str, kernel: Kernel) -> None:
        self._cut()
        super().launch(function, kernel)

    def launch_shared(self, shared: Shared, kernel: Kernel) -> None:
        """Run a kernel by functions that serve others too."""
        self._cut()
        places: list[tuple[str, Value]] = [("i64", p) for p in shared.places_for(kernel)]
        self.f.call(shared.function, ("ptr", "%frame"), ("ptr", "%context"), *places)
        if may_stop(kernel, self.checked):
            self.stop_after_error()

    def _cut(self) -> None:
        """Code generation takes more than linear time on a long block."""
        self._launched += 1
        if self._launched % _LAUNCHES_IN_BLOCK == 0:
            self.f.start_next()

    def finish(self) -> str:
        self.f.jump(self.exit)
        self.f.start(self.exit)
        error = self.f.load("i64", self.f.at("%frame", ERROR, "i64"))
        return self.f.text(f"i64 {error}")


def _cost(body: tuple[ir.Stmt, ...]) -> Dim:
    """Cost of running statements once; an upper bound where extents vary."""
    total: Dim = 0
    for stmt in body:
        if isinstance(stmt, Loop):
            total = total + substitute(_cost(stmt.body), {symbol_of(stmt.var): 0}) * stmt.extent
        elif isinstance(stmt, Reduce):
            stores = sum(_cost_of(s.value) + _COST_MEMORY for s in stmt.stores)
            each = sum(_cost_of(x) for a in stmt.accumulators for x in a.step) + stores
            total = total + stmt.extent * each + 16 * stmt.lanes
        elif isinstance(stmt, Store):
            total = total + _cost_of(stmt.value) + _COST_MEMORY
            if stmt.position is not None:
                total = total + _cost_of(stmt.position) + _COST_MEMORY
        elif isinstance(stmt, Check):
            total = total + _COST_MEMORY
    return total


@lru_cache(maxsize=1024)
def _formula_cost(formula: Formula) -> int:
    return _cost_of(formula.body)


def _cost_of(value: Scalar) -> int:
    cost = 0
    for e in children_first((value,)):
        if e.op == "load":
            cost += _COST_MEMORY
        elif e.op == "gather":
            cost += 2 * _COST_MEMORY
        elif e.op in ("div", "rem", "sqrt"):
            cost += _COST_DIVIDE
        elif e.op == "formula":
            cost += _formula_cost(e.formula)
        elif e.op not in ("const", "reg", "param", "index"):
            cost += _COST_PRIMITIVE
    return cost
