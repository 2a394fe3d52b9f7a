"""Launching kernels from native code: one by one, in chunks on the thread pool where that pays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from dualgrad.compiler.ir.dims import Dim, Expr, symbol_of
from dualgrad.compiler.kernel import ir
from dualgrad.compiler.kernel.ir import Call, Check, Contract, Kernel, Loop, Pack
from dualgrad.compiler.kernel.rounds import is_parallel
from dualgrad.compiler.lower.llvm.call import host_call
from dualgrad.compiler.lower.llvm.cost import UNITS, work_of
from dualgrad.compiler.lower.llvm.emit import Value
from dualgrad.compiler.lower.llvm.frame import CHUNKS, ERROR, Parts
from dualgrad.compiler.lower.llvm.kernels import KernelCode, kernel_function
from dualgrad.runtime.lazy import LazyModule
from dualgrad.runtime.program import (
    CONTEXT_EXTERNS,
    CONTEXT_PARALLEL_FOR,
    CONTEXT_POOL,
)

if TYPE_CHECKING:
    from dualgrad.compiler.lower.llvm import contract, walks
else:  # for programs with products
    contract = LazyModule("dualgrad.compiler.lower.llvm.contract")
    walks = LazyModule("dualgrad.compiler.lower.llvm.walks")

SERIAL_BELOW = UNITS * 30_000  # 30 us: less than that is done before a sleeping thread wakes up
_GRAIN = UNITS * 15_000
MAX_CHUNKS = 64
_SLOT_BITS = 24  # of the place of a buffer; distances in bytes have the others


def kernel_functions(
    function: str, kernel: Kernel, slots: Mapping[str, int], parts: Parts
) -> list[str]:
    """The function that does the work of a kernel, if that needs one."""
    if kernel.kind in ("call", "pack"):
        return []
    if kernel.kind != "contract":
        return [kernel_function(function, kernel, slots, parts)]
    (stmt,) = kernel.body
    assert isinstance(stmt, Contract)
    found = [contract.epilogue_function(function, kernel, slots, parts)] if stmt.epilogue else []
    if stmt.a.walks or stmt.b.walks:
        found.append(walks.walk_function(f"{function}.walks", kernel, slots, parts))
    return found


def may_stop(kernel: Kernel, checked: bool) -> bool:
    """Whether a kernel can leave an error word."""
    return checked or any(isinstance(s, Check | Call) for s in ir.walk(kernel.body))


class Launches(KernelCode):
    """Writes a function that runs kernels, whose buffers stand in the frame."""

    def __init__(self, signature: str, slots: Mapping[str, int], parts: Parts) -> None:
        super().__init__(signature, slots, parts, rare=True)
        self.externs = parts.externs
        self._words: dict[int, str] = {}

    def launch(self, function: str, kernel: Kernel) -> None:
        """Run a kernel; `function` does its work."""
        first = kernel.body[0]
        with self.scope():
            if isinstance(first, Call):
                host_call(self, first)
            elif isinstance(first, Contract):
                contract.contract_call(self, function, first)
            elif isinstance(first, Pack):
                contract.pack_call(self, first)
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
        work = work_of(kernel)
        if isinstance(work, int) and work < SERIAL_BELOW:
            self._call(function)
            return
        f = self.f
        whole = self.dim(work)
        chunks = f.select(f.compare("slt", whole, SERIAL_BELOW), 1, self.chunks(kernel, whole))
        f.store("i64", chunks, f.at("%frame", CHUNKS, "i64"))
        self.parallel_for(function, chunks)

    def chunks(self, kernel: Kernel, work: Value) -> str:
        """Into how many chunks a parallel loop of so much work is cut; 0 if that is little."""
        (loop,) = kernel.body
        assert isinstance(loop, Loop)
        smallest = self.names.intrinsic("llvm.smin.i64", "i64", "i64", "i64")
        chunks = self.f.quotient(work, _GRAIN)
        chunks = self.f.result("i64", smallest, ("i64", chunks), ("i64", MAX_CHUNKS))
        return self.f.result("i64", smallest, ("i64", chunks), ("i64", self.dim(loop.extent)))

    def open_window(self, window: int, slot: Value, further: Value, into: str) -> None:
        """Write the address of a buffer of the running kernel into a frame: the one that stands in
        a slot, so many bytes further on."""
        f = self.f
        address = f.at(f.load("ptr", f.at("%frame", slot, "i64")), further, "i8")
        f.store("ptr", address, f.at(into, window, "i64"))

    def parallel_for(self, function: str, chunks: Value) -> None:
        """Run the chunks of a function on the thread pool."""
        f = self.f
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
        self.starts = kernel.origins
        self._told: dict[str, str] = {}  # functions that are told the places, by their names

    def functions(self) -> list[str]:
        """All of its functions, when nobody asks for more."""
        slots = self.parts.frame.window(self.starts)
        return [*kernel_functions(self.work, self.kernel, slots, self.parts), *self._told.values()]

    def run(self, code: Launches, kernel: Kernel) -> None:
        """Run a kernel at its places."""
        name = f"{self.work}.run"
        if name not in self._told:
            self._told[name] = self._function(name, "", lambda f: f.launch(self.work, self.kernel))
        code.f.call(name, ("ptr", "%frame"), ("ptr", "%context"), *self._places_for(code, kernel))

    def run_share(self, code: Launches, kernel: Kernel, share: contract.Share) -> None:
        """Do a share of a product at its places: of `%matrix`, and, if it counts rows, `%count`
        of them from `%first` on."""
        (c,) = self.kernel.body
        assert isinstance(c, Contract)
        name = f"{self.work}.share" if share.count is None else f"{self.work}.rows"
        names = {"%matrix": share.matrix, "%first": share.first, "%count": share.count}

        def body(f: Launches) -> None:
            f.atoms |= {symbol_of(v): x for x, v in names.items() if isinstance(v, Expr)}
            contract.contract_call(f, self.work, c, share)

        if name not in self._told:
            self._told[name] = self._function(name, "".join(f", i64 {x}" for x in names), body)
        first: list[tuple[str, Value]] = [("ptr", "%frame"), ("ptr", "%context")]
        first += [("i64", x) for x in names]
        code.f.call(name, *first, *self._places_for(code, kernel))

    def _function(self, name: str, more: str, body: Callable[[Launches], None]) -> str:
        """A function that is told the places."""
        slots = self.parts.frame.window(self.starts)
        places = "".join(f", i64 %place{k}" for k in range(len(slots)))
        signature = f"internal void {name}(ptr %frame, ptr %context{more}{places})"
        code = Launches(signature, slots, self.parts)
        f = code.f
        for k, window in enumerate(slots.values()):
            slot = f.value(f"and i64 %place{k}, {(1 << _SLOT_BITS) - 1}")
            further = f.value(f"ashr i64 %place{k}, {_SLOT_BITS}")
            code.open_window(window, slot, further, "%frame")
        body(code)
        return code.finish()

    def _places_for(self, code: Launches, kernel: Kernel) -> list[tuple[str, Value]]:
        """The places where a kernel runs."""
        return [
            ("i64", code.dim(further * (1 << _SLOT_BITS) + slot))
            for slot, further in self._places(kernel)
        ]

    def open_windows(self, code: Launches, kernel: Kernel, into: str) -> None:
        """Write the addresses of a kernel's buffers into a frame."""
        windows = self.parts.frame.window(self.starts).values()
        for window, (slot, further) in zip(windows, self._places(kernel), strict=True):
            code.open_window(window, slot, code.dim(further), into)

    def _places(self, kernel: Kernel) -> list[tuple[int, Dim]]:
        pairs = zip(kernel.origins.items(), self.starts.values(), strict=True)
        slots = self.parts.frame.slots
        return [(slots[b.name], (start - own) * b.dtype.itemsize) for (b, start), own in pairs]
