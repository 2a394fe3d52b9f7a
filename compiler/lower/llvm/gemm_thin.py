"""Kernels for a few rows of A and a B whose columns are consecutive in memory.

    thin_H(a, a_row, a_step, a_runs, b, b_column, c, c_row, k, columns, goes_on)
        C[H, columns] = A[H, k] . B[k, t.thin_vectors vectors], or C += that
    thin_of(height)         the kernel of a height

Columns of B lie b_column bytes apart, those of A in one run; the rest is as in `gemm_micro`.  So
few rows do not pay for a packed panel of B: its squares are transposed in registers and multiplied
at once.
"""

from __future__ import annotations

from collections.abc import Callable

from dualgrad.compiler.lower.llvm.emit import Function, Value
from dualgrad.compiler.lower.llvm.gemm_micro import (
    KERNEL_KINDS,
    Multiples,
    begun,
    multiply_add_row,
    store_tile,
)
from dualgrad.compiler.lower.llvm.gemm_pack import butterfly
from dualgrad.compiler.lower.llvm.gemm_tiling import LINE_BYTES, Tiling

# Lines of a column of B between its prefetch into the second-level cache and its use.
_PREFETCH_LINES = 2

_NAMES = (
    "a", "a_row", "a_step", "a_runs", "b", "b_column", "c", "c_row", "k", "columns", "goes_on",
)  # fmt: skip
_SIGNATURE = ", ".join(f"{kind} %{x}" for kind, x in zip(KERNEL_KINDS, _NAMES, strict=True))


def thin_kernels(t: Tiling) -> str:
    """The kernels of all heights that have one, and @thin_of."""
    heights = range(1, t.height + 1)
    kernels = "".join(_thin_kernel(t, height) for height in heights)
    f = Function("internal ptr @thin_of(i64 %height)")
    found = "@thin_1"
    for height in heights[1:]:
        found = f.select(f.compare("eq", "%height", height), f"@thin_{height}", found, "ptr")
    return kernels + f.text(f"ptr {found}")


def _thin_kernel(t: Tiling, height: int) -> str:
    f = Function(f"internal void @thin_{height}({_SIGNATURE})")
    f.do(f"%squares = alloca [{t.lanes * t.thin_vectors} x {t.vector}], align 64")
    rows = Multiples(f, "%a_row", height)
    whole = f.value(f"and i64 %k, {-t.lanes}")
    sums = begun(t, f, height, t.thin_vectors)
    sums = _where(t, f, whole, sums, lambda sums: _squares(t, f, rows, whole, sums))
    rest = f.sub("%k", whole)
    sums = _where(t, f, rest, sums, lambda sums: _rest(t, f, rows, whole, rest, sums))
    store_tile(t, f, sums, t.thin_vectors)
    return f.text()


def _where(
    t: Tiling, f: Function, steps: Value, sums: list[str], add: Callable[[list[str]], list[str]]
) -> list[str]:
    """The sums after `add`, if there are steps of k to add."""
    some, after, before = f.new_block(), f.new_block(), f.block
    f.branch(f.compare("ne", steps, 0), some, after)
    f.start(some)
    added = add(sums)
    end = f.block
    f.jump(after)
    f.start(after)
    pairs = zip(sums, added, strict=True)
    return [f.value(f"phi {t.vector} [ {x}, %{before} ], [ {y}, %{end} ]") for x, y in pairs]


def _squares(t: Tiling, f: Function, rows: Multiples, whole: Value, sums: list[str]) -> list[str]:
    """The steps of k that fill squares of B."""
    columns = Multiples(f, "%b_column", t.lanes)
    further = f.mul("%b_column", t.lanes)
    turn = f.repeat()
    a, b = turn.carry("ptr", "%a"), turn.carry("ptr", "%b")
    left = turn.carry("i64", whole)
    sums = [turn.carry(t.vector, x) for x in sums]
    a, b = f.value(f"freeze ptr {a}"), f.value(f"freeze ptr {b}")  # as in `gemm_micro`
    square, sums = b, list(sums)
    for number in range(t.thin_vectors):  # one after another: two would not fit into registers
        places = [f.at(square, x, "i8") for x in columns.all()]
        for place in places:
            t.prefetch(f, f.at(place, _PREFETCH_LINES * LINE_BYTES, "i8"), to_write=False, far=True)
        step, mine = a, slice(number, None, t.thin_vectors)
        for row in butterfly(t, f, [t.take(f, place) for place in places]):
            places_of_a = [f.at(step, x, "i8") for x in rows.all()]
            sums[mine] = multiply_add_row(t, f, places_of_a, [row], sums[mine])
            step = f.at(step, "%a_step", "i8")
        square = f.at(square, further, "i8")
    a = step
    left = f.sub(left, t.lanes)
    turn.close(f.compare("ne", left, 0), [a, t.from_at(f, b, t.lanes), left, *sums])
    return sums


def _rest(
    t: Tiling, f: Function, rows: Multiples, whole: Value, rest: Value, sums: list[str]
) -> list[str]:
    """The last steps of k, fewer than a square has."""
    column = f.quotient("%b_column", t.stored_size)
    width = t.lanes * t.thin_vectors
    for number in range(t.thin_vectors):
        column0 = f.at("%b", f.mul("%b_column", number * t.lanes), "i8")
        source, place = t.from_at(f, column0, whole), t.at(f, "%squares", number * t.lanes)
        values = (source, column, t.lanes, rest, place, width)
        kinds = ("ptr", "i64", "i64", "i64", "ptr", "i64")
        f.call("@transpose", *zip(kinds, values, strict=True))
    first = f.at("%a", f.mul("%a_step", whole), "i8")
    turn = f.repeat()
    a = turn.carry("ptr", first)
    b, left = turn.carry("ptr", "%squares"), turn.carry("i64", rest)
    sums = [turn.carry(t.vector, x) for x in sums]
    row = [t.load(f, t.at(f, b, number * t.lanes)) for number in range(t.thin_vectors)]
    sums = multiply_add_row(t, f, [f.at(a, x, "i8") for x in rows.all()], row, sums)
    left = f.sub(left, 1)
    following = [f.at(a, "%a_step", "i8"), t.at(f, b, width), left, *sums]
    turn.close(f.compare("ne", left, 0), following)
    return sums
