"""Tables of the operands of a contraction that walk through memory: where every row and every
column of theirs lies.  They stand at the beginning of its scratch memory.
"""

from __future__ import annotations

from dualgrad.compiler.ir.dims import Dim
from dualgrad.compiler.kernel.ir import Operand, Walk
from dualgrad.runtime.records import dataclass

ENTRY_WORDS = 2  # int64 of an index: its place, and how many from it on lie side by side
_LINE_WORDS = 8


@dataclass(frozen=True)
class Table:
    """A table of `extent` indices; `step` says how they lie."""

    name: str
    step: Dim | Walk
    extent: Dim

    @property
    def words(self) -> Dim:
        """Its size in int64: whole cache lines."""
        return (ENTRY_WORDS * self.extent + _LINE_WORDS - 1) // _LINE_WORDS * _LINE_WORDS


def tables_of(a: Operand, b: Operand, m: Dim, n: Dim, k: Dim) -> tuple[Table, ...]:
    """The tables of A and B, those that walk, in the order in which they stand in memory."""
    sizes = (("a", a, m, k), ("b", b, k, n))
    return tuple(
        table
        for name, x, rows, cols in sizes
        if x.walks
        for table in (Table(f"{name}_rows", x.row, rows), Table(f"{name}_cols", x.col, cols))
    )
