"""Checked mode: which part of its buffer an operand of a matrix product reaches."""

from __future__ import annotations

from dualgrad.compiler.ir.dims import Dim
from dualgrad.compiler.kernel.ir import Operand
from dualgrad.compiler.lower.llvm.emit import Value
from dualgrad.compiler.lower.llvm.gemm_walk import entry
from dualgrad.compiler.lower.llvm.memory import MemoryCode

Ends = tuple[Value, Value]  # the least and the largest


def guard_reach(
    code: MemoryCode,
    operand: Operand,
    sizes: tuple[Dim, Dim, Dim],
    tables: tuple[str, str] | None = None,
) -> None:
    """The first and the last place of an operand of so many (matrices, rows, columns) lie inside
    of its buffer.  `tables`, filled, of one that walks: places grow along no index, so all of them
    are looked at."""
    f = code.f
    batch, rows, cols = (code.dim(n) for n in sizes)
    fewest = f.min(f.min(batch, rows), cols)
    with f.when(f.compare("sgt", fewest, 0)), code.scope():
        reached = [_along_stride(code, operand.batch, batch)]
        if tables is not None:
            reached += [_along_table(code, t, n) for t, n in zip(tables, (rows, cols), strict=True)]
        else:
            steps = zip(operand.strides, (rows, cols), strict=True)
            reached += [_along_stride(code, step, n) for step, n in steps]
        size = code.dim(operand.buffer.size)
        number = code.frame.access_code(operand.buffer)
        for places in zip(*reached, strict=True):
            place = code.dim(operand.base)
            for distance in places:
                place = f.add(place, distance)
            code.stop_if(f.compare("uge", place, size), place, number)


def _along_stride(code: MemoryCode, step: Dim, count: Value) -> Ends:
    f = code.f
    last = f.mul(code.dim(step), f.sub(count, 1))
    return f.min(last, 0), f.max(last, 0)


def _along_table(code: MemoryCode, table: str, count: Value) -> Ends:
    f = code.f
    first = f.load("i64", entry(f, table, 0))
    turn = f.repeat()
    i, low, high = turn.carry("i64", 0), turn.carry("i64", first), turn.carry("i64", first)
    place = f.load("i64", entry(f, table, i))
    low, high, i = f.min(low, place), f.max(high, place), f.add(i, 1)
    turn.close(f.compare("slt", i, count), [i, low, high])
    return low, high
