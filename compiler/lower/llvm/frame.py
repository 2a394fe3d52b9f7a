"""The frame: what the kernels of a running program share, an array of 8-byte slots.

    0     error word
    1     number of chunks of the running kernel; 0: its iterations are numbers 6 to 7, without that
    2     address of the program's numbers: its symbols, then its scalars
    3     address of the context, for strips
    4, 5  batch and row that indices of an epilogue count from: an item's, in a strip, else 0
    6, 7  see 1
    then  addresses of the buffers that the running kernel uses, in the order in which it names
          them, if its function serves others too
    then  addresses of all buffers; of private ones in the frames of a strip's chunks only
    then  for each kernel of a pass the number of its chunks and of those before it

A function that serves several kernels reads the addresses of the running one only: these kernels
differ in nothing but their buffers.
"""

from __future__ import annotations

from collections.abc import Iterable

from dualgrad.compiler.ir.dims import Atom
from dualgrad.compiler.kernel.ir import Buffer, Kernel
from dualgrad.compiler.kernel.program import LoopProgram
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.compiler.lower.llvm.lanes import Declarations
from dualgrad.runtime.program import Target
from dualgrad.runtime.records import dataclass

ERROR, CHUNKS, NUMBERS, CONTEXT, BATCH, ROW, START, STOP = range(8)
_FIRST = 8


class Frame:
    """Where a program's buffers, symbols and scalars stand."""

    def __init__(self, program: LoopProgram, shared: Iterable[Kernel], longest: int) -> None:
        """`shared` are kernels whose functions serve others too; `longest`: most kernels that
        run in one pass."""
        buffers = program.buffers
        self.program = program
        window = max((len(k.starts) for k in shared), default=0)
        self.first_buffer = _FIRST + window
        self.slots = {b.name: self.first_buffer + k for k, b in enumerate(buffers)}
        self.stops = self.first_buffer + len(buffers)
        self.size = self.stops + longest
        self.accesses: list[str] = []
        self._numbers = {a: k for k, a in enumerate(program.symbols)}

    def window(self, buffers: Iterable[Buffer]) -> dict[str, int]:
        """Where the addresses of the buffers of the running kernel stand, by name."""
        return {b.name: _FIRST + k for k, b in enumerate(buffers)}

    def number_of(self, symbol: Atom) -> int:
        """The place of a symbol among the program's numbers."""
        return self._numbers[symbol]

    def number_of_scalar(self, e: Scalar) -> int:
        """The place of a scalar among the program's numbers."""
        return len(self._numbers) + int(str(e.attr)[1:])

    def access_code(self, buffer: Buffer) -> int:
        """Checked mode: the number of the error that an access outside of a buffer stops with."""
        if buffer.name not in self.accesses:
            self.accesses.append(buffer.name)
        return len(self.program.checks) + self.accesses.index(buffer.name)


@dataclass(frozen=True)
class Parts:
    """What the functions of a module share."""

    frame: Frame
    names: Declarations
    target: Target
    checked: bool
    externs: tuple[str, ...]
