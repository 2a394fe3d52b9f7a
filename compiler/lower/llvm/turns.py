"""Taking turns: threads that sum blocks of the rows of one matrix add them in their order.

Any thread may compute the sums of a block; before it adds them to those of the blocks before, it
waits until these have been added.  Blocks are taken by a number of their own: the pool's chunks are
taken from both ends, and a thread must wait for those only that have begun.

The words for it lie in the scratch memory of a strip: how many blocks have been taken, then for
each matrix how many have been added.
"""

from __future__ import annotations

from dualgrad.compiler.kernel.strips import Cut, Strip
from dualgrad.compiler.lower.llvm.emit import Value
from dualgrad.compiler.lower.llvm.kernels import KernelCode


def ends_block(code: KernelCode, cut: Cut, stop: Value) -> str:
    """Whether a block of rows ends before row `stop`."""
    f = code.f
    rest = f.value(f"urem i64 {stop}, {code.dim(cut.block)}")
    last = f.compare("eq", stop, code.dim(cut.rows))
    return f.value(f"or i1 {last}, {f.compare('eq', rest, 0)}")


class Turns:
    """Writes what threads do to take turns; `words` is the address of the words."""

    def __init__(self, code: KernelCode, strip: Strip, words: str) -> None:
        assert strip.cut is not None
        self.code, self.strip, self.cut, self.words = code, strip, strip.cut, words

    def begin(self) -> None:
        """Nothing has been taken or added."""
        f = self.code.f
        with f.loop(0, self.code.dim(self.strip.matrices + 1)) as i:
            f.store("i64", 0, f.at(self.words, i, "i64"))

    def take(self) -> str:
        """The number of the next block that nobody has taken."""
        return self.code.f.value(f"atomicrmw add ptr {self.words}, i64 1 seq_cst, align 8")

    def wait(self, matrix: Value, first: Value, stop: Value) -> None:
        """With rows `first` to `stop` that end a block, wait until all before are added."""
        f = self.code.f
        added = self._added(matrix)
        before = f.quotient(first, self.code.dim(self.cut.block))
        with f.when(ends_block(self.code, self.cut, stop)):
            turn = f.repeat()
            if self.code.target.triple.startswith("x86_64"):
                f.call(self.code.names.intrinsic("llvm.x86.sse2.pause", "void"))
            done = f.value(f"load atomic i64, ptr {added} acquire, align 8")
            turn.close(f.compare("slt", done, before), [])

    def end(self, matrix: Value, stop: Value) -> None:
        """With rows that stop there the sums of a block have been added, if it ends there."""
        f = self.code.f
        with f.when(ends_block(self.code, self.cut, stop)):
            self._add(matrix, 1)

    def give_up(self, matrix: Value) -> None:
        """Nobody needs to wait for any block of a matrix."""
        with self.code.scope():
            self._add(matrix, self.code.dim(self.cut.blocks))

    def _add(self, matrix: Value, count: Value) -> None:
        f = self.code.f
        f.value(f"atomicrmw add ptr {self._added(matrix)}, i64 {count} seq_cst, align 8")

    def _added(self, matrix: Value) -> str:
        return self.code.f.at(self.words, self.code.f.add(matrix, 1), "i64")
