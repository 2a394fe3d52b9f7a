"""A loop program as one LLVM module: its kernels, and the entry that runs them in order.

The entry follows the launch ABI of `runtime.program`.  It copies addresses and numbers into a
frame on its stack, then calls each kernel, in chunks on the thread pool where that pays.
"""

from __future__ import annotations

from functools import lru_cache

from dualgrad.compiler.ir.dims import Dim, substitute, symbol_of
from dualgrad.compiler.kernel import ir
from dualgrad.compiler.kernel.ir import Call, Check, Contract, Kernel, Loop, Reduce, Store
from dualgrad.compiler.kernel.program import LoopProgram
from dualgrad.compiler.kernel.scalar import Formula, Scalar, children_first
from dualgrad.compiler.lower.llvm.call import host_call
from dualgrad.compiler.lower.llvm.contract import contract_call, epilogue_function
from dualgrad.compiler.lower.llvm.emit import Function, Value
from dualgrad.compiler.lower.llvm.frame import CHUNKS, ERROR, Frame
from dualgrad.compiler.lower.llvm.gemm import routine_name
from dualgrad.compiler.lower.llvm.kernels import KernelCode, is_parallel, kernel_function
from dualgrad.compiler.lower.llvm.lanes import Declarations
from dualgrad.runtime.program import (
    CONTEXT_EXTERNS,
    CONTEXT_PARALLEL_FOR,
    CONTEXT_POOL,
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
    frame, names = Frame(program), Declarations()
    stmts = [s for k in program.kernels for s in ir.walk(k.body)]
    routines = [routine_name(s.result.dtype) for s in stmts if isinstance(s, Contract)]
    routines += [s.host.name for s in stmts if isinstance(s, Call)]
    externs = tuple(dict.fromkeys(routines))
    made: dict[str, Launcher] = {}
    launches, functions = [], []
    for k, (kernel, common) in enumerate(zip(program.kernels, program.common_texts, strict=True)):
        known = str(k) if checked else common
        if known not in made:
            functions += kernel_functions(kernel, frame, names, target, checked)
            made[known] = Launcher(kernel, frame, names, target, externs, checked)
            functions.append(made[known].text())
        launches.append((made[known], kernel))
    entry = Entry(program, frame).text(launches)
    head = f'target triple = "{target.triple}"\n'
    text = "\n".join(
        [head, *functions, *(f for _, f in names.formulas.values()), entry, names.text()]
    )
    return Module(text, externs, tuple(frame.accesses))


def kernel_functions(
    kernel: Kernel, frame: Frame, names: Declarations, target: Target, checked: bool
) -> list[str]:
    """The functions that do the work of a kernel."""
    if kernel.kind == "call":
        return []
    if kernel.kind != "contract":
        return [kernel_function(kernel, frame, names, target, checked)]
    (stmt,) = kernel.body
    assert isinstance(stmt, Contract)
    return [epilogue_function(kernel, frame, names, target, checked)] if stmt.epilogue else []


class Launcher(KernelCode):
    """Writes the function that runs one kernel, at places in memory that it is given.

    A place is the slot of a buffer in the frame, and in the bits above how many bytes further on
    the kernel's indices count from than those of the kernel that the function was written for.
    """

    def __init__(
        self,
        kernel: Kernel,
        frame: Frame,
        names: Declarations,
        target: Target,
        externs: tuple[str, ...],
        checked: bool,
    ) -> None:
        self.kernel, self.externs = kernel, externs
        self.function = f"@{kernel.name}.run"
        self.starts = ir.starts_of(kernel.body)
        places = "".join(f", i64 %place{k}" for k in range(len(self.starts)))
        signature = f"internal void {self.function}(ptr %frame, ptr %context{places})"
        super().__init__(signature, self.starts, frame, names, target, checked)
        f = self.f
        for k in range(len(self.starts)):
            slot = f.value(f"and i64 %place{k}, {(1 << _SLOT_BITS) - 1}")
            further = f.value(f"ashr i64 %place{k}, {_SLOT_BITS}")
            address = f.at(f.load("ptr", f.at("%frame", slot, "i64")), further, "i8")
            f.store("ptr", address, f.at("%frame", frame.argument_slot(k), "i64"))

    def arguments_for(self, kernel: Kernel) -> list[int]:
        """The arguments of a launch for this kernel."""
        pairs = zip(ir.starts_of(kernel.body).items(), self.starts.values(), strict=True)
        return [
            self.frame.slot(b.name) | (start - own) * b.dtype.itemsize << _SLOT_BITS
            for (b, start), own in pairs
        ]

    @property
    def may_stop(self) -> bool:
        """Whether the kernel can leave an error word."""
        stmts = ir.walk(self.kernel.body)
        return self.checked or any(isinstance(s, Check | Call) for s in stmts)

    def text(self) -> str:
        """The text of the function."""
        kernel = self.kernel
        if kernel.kind == "call":
            (call,) = kernel.body
            assert isinstance(call, Call)
            host_call(self, call)
        elif kernel.kind == "contract":
            (stmt,) = kernel.body
            assert isinstance(stmt, Contract)
            contract_call(self, kernel.name, stmt)
        elif is_parallel(kernel):
            self._launch_chunks(kernel)
        else:
            self._call(kernel)
        return self.finish()

    def _call(self, kernel: Kernel) -> None:
        self.f.store("i64", 1, self.f.at("%frame", CHUNKS, "i64"))
        self.f.call(f"@{kernel.name}", ("ptr", "%frame"), ("i64", 0), ("i64", 0))

    def _launch_chunks(self, kernel: Kernel) -> None:
        (loop,) = kernel.body
        assert isinstance(loop, Loop)
        total = substitute(_cost(loop.body), {symbol_of(loop.var): 0}) * loop.extent
        if isinstance(total, int) and total < _SERIAL_BELOW:
            self._call(kernel)
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
        f.call(run, ("ptr", pool), ("ptr", f"@{kernel.name}"), ("ptr", "%frame"), ("i64", chunks))

    def extern(self, name: str) -> str:
        """The address of a library routine."""
        place = CONTEXT_EXTERNS + self.externs.index(name)
        return self.f.load("ptr", self.f.at("%context", place, "i64"))


class Entry:
    """Writes the entry function, and `run.frame`, which launches the kernels one by one."""

    def __init__(self, program: LoopProgram, frame: Frame) -> None:
        self.program, self.frame = program, frame

    def text(self, launches: list[tuple[Launcher, Kernel]]) -> str:
        """The functions that run a program; its kernels come with the functions they share."""
        f = Function("internal void @run.frame(ptr %frame, ptr %context)")
        leave = f.new_block()
        for k, (launcher, kernel) in enumerate(launches):
            if k % _LAUNCHES_IN_BLOCK == 0:
                f.start_next()
            passed: list[tuple[str, str | int]] = [
                ("i64", p) for p in launcher.arguments_for(kernel)
            ]
            f.call(launcher.function, ("ptr", "%frame"), ("ptr", "%context"), *passed)
            if launcher.may_stop:
                error = f.load("i64", f.at("%frame", ERROR, "i64"))
                on = f.new_block()
                f.branch(f.compare("ne", error, 0), leave, on)
                f.start(on)
        f.jump(leave)
        f.start(leave)
        return f.text() + self._outer()

    def _outer(self) -> str:
        """The function with the launch ABI: it fills the frame and calls `run.frame`."""
        program, frame = self.program, self.frame
        f = Function(f"i64 @{program.name}(ptr %handles, ptr %params, ptr %context)")
        slots = f.value(f"alloca [{frame.size} x i64], align 64")
        f.store("i64", 0, f.at(slots, ERROR, "i64"))
        arena = f.load("ptr", "%params")
        arrays = len(program.inputs) + len(program.outputs)
        temporaries = len(program.temporaries)
        numbers = len(program.symbols) + len(program.scalars)

        def put(first: int, k: Value, kind: str, value: str) -> None:
            f.store(kind, value, f.at(f.at(slots, first, "i64"), k, "i64"))

        for k in f.each(arrays):
            handle = f.load("ptr", f.at("%handles", k, "i64"))
            data = f.load("ptr", f.at(handle, HANDLE_DATA_OFFSET, "i8"))
            put(frame.first_buffer, k, "ptr", data)
        for k in f.each(temporaries):
            offset = f.load("i64", f.at(f.at("%params", 1, "i64"), k, "i64"))
            put(frame.first_buffer + arrays, k, "ptr", f.at(arena, offset, "i8"))
        for k in f.each(numbers):
            number = f.load("i64", f.at(f.at("%params", 1 + temporaries, "i64"), k, "i64"))
            put(frame.symbol_slot(0), k, "i64", number)
        f.call("@run.frame", ("ptr", slots), ("ptr", "%context"))
        error = f.load("i64", f.at(slots, ERROR, "i64"))
        return f.text(f"i64 {error}")


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
