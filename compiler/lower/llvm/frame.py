"""The frame: what the kernels of a running program share, an array of 8-byte slots.

0 error word   1 number of chunks of the running kernel
then the addresses of the buffers that the running kernel uses, in the order in which it names
them, then the addresses of all buffers, the symbols, and the scalars of the program

Kernels read the addresses of the running kernel only, so one function serves all kernels that
differ in nothing but their buffers.
"""

from __future__ import annotations

from dualgrad.compiler.ir.dims import Atom
from dualgrad.compiler.kernel.ir import Buffer, buffers_of
from dualgrad.compiler.kernel.program import LoopProgram
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.compiler.lower.llvm.emit import Function

ERROR, CHUNKS = 0, 1
_FIRST = 2


class Frame:
    """Where a program's buffers, symbols and scalars stand."""

    def __init__(self, program: LoopProgram) -> None:
        buffers = [*program.inputs, *program.outputs, *(t.buffer for t in program.temporaries)]
        self.program = program
        self.window = max((len(buffers_of(k.body)) for k in program.kernels), default=0)
        self.first_buffer = _FIRST + self.window
        self._slots = {b.name: self.first_buffer + k for k, b in enumerate(buffers)}
        self._symbols = self.first_buffer + len(buffers)
        self._scalars = self._symbols + len(program.symbols)
        self.size = self._scalars + len(program.scalars)
        self.accesses: list[str] = []

    def slot(self, name: str) -> int:
        return self._slots[name]

    def symbol_slot(self, k: int) -> int:
        return self._symbols + k

    def scalar_slot(self, k: int) -> int:
        return self._scalars + k

    def argument_slot(self, k: int) -> int:
        """Where the address of the k-th buffer of the running kernel stands."""
        return _FIRST + k

    def load_symbols(self, f: Function) -> dict[Atom, str | int]:
        return {
            atom: f.load("i64", f.at("%frame", self.symbol_slot(k), "i64"))
            for k, atom in enumerate(self.program.symbols)
        }

    def load_scalar(self, f: Function, e: Scalar) -> str:
        """A Python number: the slot holds a double, an int64, or a bool as 0 or 1."""
        place = f.at("%frame", self.scalar_slot(int(str(e.attr)[1:])), "i64")
        if e.dtype.is_float:
            return f.load("double", place)
        value = f.load("i64", place)
        return f.value(f"trunc i64 {value} to i1") if e.dtype.kind == "b" else value

    def access_code(self, buffer: Buffer) -> int:
        """Checked mode: the number of the error that an access outside of a buffer stops with."""
        if buffer.name not in self.accesses:
            self.accesses.append(buffer.name)
        return len(self.program.checks) + self.accesses.index(buffer.name)
