"""Packing of operands that walk through memory, as windows of images do.

Element (row, col) lies at the sum of two places, one from a table of rows, one from a table of
columns (`kernel.walks`).  A table has two i64 for each index: its place, and its *run*, the number
of indices from it on that lie side by side.  Runs are copied, or transposed in registers, a vector
at a time; elements of A's rows that lie two apart, too.

    @pack_a_walk(src, rows_at, cols_at, rows, k, dst)             as @pack_a
    @pack_b_walk(src, rows_at, cols_at, columns, width, k, dst)   as @pack_b
    @even_rows(rows_at, rows, most)    the most rows of a panel, if all panels of as many have rows
                                       that lie evenly apart; 0 if there are none
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dualgrad.compiler.kernel.walks import ENTRY_WORDS
from dualgrad.compiler.lower.llvm.emit import Function, Value
from dualgrad.compiler.lower.llvm.gemm_pack import butterfly
from dualgrad.compiler.lower.llvm.gemm_tiling import Tiling

_B = "ptr %src, ptr %rows_at, ptr %cols_at, i64 %columns, i64 %width, i64 %k, ptr %dst"


def walk_packing(t: Tiling) -> str:
    """@pack_a_walk, @pack_b_walk and what they call; @even_rows."""
    return _pack_a(t) + _copy_b(t) + _transpose_b(t) + _pack_b() + _even_rows()


def entry(f: Function, table: str, index: Value) -> str:
    """The part of a table that begins with an index."""
    return f.at(table, f.mul(index, ENTRY_WORDS), "i64")


def _place(f: Function, table: str, index: Value) -> str:
    return f.load("i64", entry(f, table, index))


def _run(f: Function, table: str, index: Value) -> str:
    return f.load("i64", f.at(entry(f, table, index), 1, "i64"))


@contextmanager
def _pieces(
    t: Tiling, f: Function, table: str, start: Value, stop: Value
) -> Iterator[tuple[str, str]]:
    """A loop over the runs of indices start .. stop - 1, cut to vectors: (first index, length)."""
    turn = f.repeat()
    first = turn.carry("i64", start)
    count = f.min(f.min(_run(f, table, first), f.sub(stop, first)), t.lanes)
    yield first, count
    following = f.add(first, count)
    turn.close(f.compare("slt", following, stop), [following])


def _even_rows() -> str:
    """Rows that lie evenly apart come in stretches of one length: panels are equal parts of one."""
    f = Function("internal i64 @even_rows(ptr %rows_at, i64 %rows, i64 %most)", rare=True)
    none, some, all_even = (f.new_block() for _ in range(3))
    f.branch(f.compare("sgt", "%rows", 1), some, none)
    f.start(none)
    f.do("ret i64 0")
    f.start(some)
    distance = _distance(f, "%rows_at", 0)
    turn = f.repeat()
    length = turn.carry("i64", 1)
    length = f.add(length, 1)
    inside = f.compare("slt", length, "%rows")
    following = _distance(f, "%rows_at", f.sub(f.select(inside, length, 1), 1))
    goes_on = f.value(f"and i1 {inside}, {f.compare('eq', following, distance)}")
    turn.close(goes_on, [length])
    turn = f.repeat()
    at, even = turn.carry("i64", 1), turn.carry("i1", "true")
    same = f.compare("eq", _distance(f, "%rows_at", f.sub(at, 1)), distance)
    starts = f.compare("eq", f.value(f"urem i64 {at}, {length}"), 0)
    even = f.value(f"and i1 {even}, {f.value(f'or i1 {same}, {starts}')}")
    at = f.add(at, 1)
    turn.close(f.compare("slt", at, "%rows"), [at, even])
    whole = f.compare("eq", f.value(f"urem i64 %rows, {length}"), 0)
    f.branch(f.value(f"and i1 {even}, {whole}"), all_even, none)
    f.start(all_even)
    fewest = f.ceil_quotient(length, "%most")
    turn = f.repeat()
    parts = turn.carry("i64", fewest)
    left = f.compare("ne", f.value(f"urem i64 {length}, {parts}"), 0)
    more = f.add(parts, 1)
    turn.close(left, [more])
    return f.text(f"i64 {f.quotient(length, parts)}")


def _distance(f: Function, table: str, index: Value) -> str:
    """How far the index after one lies from it."""
    return f.sub(_place(f, table, f.add(index, 1)), _place(f, table, index))


def _pack_a(t: Tiling) -> str:
    """Rows are longer than a block of K by a vector: whole vectors can be written."""
    f = Function(
        "internal void @pack_a_walk(ptr %src, ptr %rows_at, ptr %cols_at, i64 %rows, i64 %k, "
        "ptr %dst)"
    )
    turn = f.repeat()
    k = turn.carry("i64", 0)
    run = f.min(f.min(_run(f, "%cols_at", k), f.sub("%k", k)), t.lanes)
    spaced = f.result("i64", "@every_second", ("ptr", "%cols_at"), ("i64", k), ("i64", "%k"))
    source = t.from_at(f, "%src", _place(f, "%cols_at", k))
    place = t.at(f, "%dst", k)
    by_twos = f.compare("sgt", spaced, run)
    with f.when(by_twos):
        _rows_of_a(t, f, source, place, _seconds(t, f, spaced))
    with f.otherwise(by_twos):
        mask = t.mask(f, run)
        _rows_of_a(t, f, source, place, lambda row: t.take_masked(f, row, mask))
    following = f.add(k, f.select(by_twos, spaced, run))
    turn.close(f.compare("slt", following, "%k"), [following])
    return _every_second(t) + f.text()


def _rows_of_a(
    t: Tiling, f: Function, source: str, place: str, take: Callable[[str], str]
) -> None:
    """A vector of each row, that `take` gives from where it begins."""
    with f.loop(0, "%rows") as r:
        piece = take(t.from_at(f, source, _place(f, "%rows_at", r)))
        t.store(f, piece, t.at(f, place, f.mul(r, t.row_pitch)))


def _seconds(t: Tiling, f: Function, count: str) -> Callable[[str], str]:
    """What takes so many elements that lie two apart: of two vectors, the second of which begins
    with the last element of the first, for what lies behind the last one may not be read."""
    shared = t.lanes - 1
    lanes = [lane if lane <= shared else lane + 1 for lane in range(0, 2 * t.lanes, 2)]
    span = f.sub(f.mul(count, 2), 1)
    first, second = t.mask(f, span), t.mask(f, f.sub(span, shared))

    def take(row: str) -> str:
        low = t.take_masked(f, row, first)
        return t.shuffle(f, low, t.take_masked(f, t.from_at(f, row, shared), second), lanes)

    return take


def _every_second(t: Tiling) -> str:
    """@every_second(table, first, stop): how many indices from one on, at most a vector of them,
    have places two apart each, as windows with a stride of 2 have."""
    f = Function("internal i64 @every_second(ptr %table, i64 %first, i64 %stop)")
    first = _place(f, "%table", "%first")
    most = f.sub(f.min(f.add("%first", t.lanes), "%stop"), "%first")
    turn = f.repeat()
    count = turn.carry("i64", 1)
    inside = f.compare("slt", count, most)
    place = _place(f, "%table", f.add("%first", f.select(inside, count, 0)))
    even = f.compare("eq", place, f.add(first, f.mul(count, 2)))
    turn.close(f.value(f"and i1 {inside}, {even}"), [f.add(count, 1)])
    return f.text(f"i64 {count}")


def _pack_b() -> str:
    f = Function(f"internal void @pack_b_walk({_B})")
    copies = f.compare("sge", _run(f, "%cols_at", 0), _run(f, "%rows_at", 0))
    with f.when(copies):
        f.do(f"call void @copy_b_walk({_B})")
    with f.otherwise(copies):
        f.do(f"call void @transpose_b_walk({_B})")
    return f.text()


def _copy_b(t: Tiling) -> str:
    """A vector of columns at a time, joined from its runs; zero from the last column on."""
    f = Function(f"internal void @copy_b_walk({_B})")
    with f.loop(0, "%width", t.lanes) as j:
        stop = f.max(f.min("%columns", f.add(j, t.lanes)), j)
        parts, ends = _parts(t, f, j, stop)
        after = f.new_block()
        for count in _JOINED:
            few, more = f.new_block(), f.new_block()
            f.branch(f.compare("sge", ends[count - 1], stop), few, more)
            f.start(few)
            _join(t, f, j, parts[:count])
            f.jump(after)
            f.start(more)
        _copy_runs(t, f, j, stop)
        f.jump(after)
        f.start(after)
    return f.text()


# Runs that a vector of columns is joined from: the cases that have code of their own.
_JOINED = (1, 2, 4)
_Part = tuple[str, str]  # where the lane 0 of the vector would lie, and the lanes of the run


def _parts(t: Tiling, f: Function, j: str, stop: str) -> tuple[list[_Part], list[str]]:
    """The first runs of columns j .. stop - 1, and where each of them ends; empty from stop on."""
    parts, ends = [], []
    first, last = j, f.sub("%columns", 1)
    for _ in range(max(_JOINED)):
        column = f.min(first, last)
        end = f.min(f.add(first, _run(f, "%cols_at", column)), stop)
        before, within = f.sub(first, j), f.sub(end, j)
        lanes = f.value(f"xor <{t.lanes} x i1> {t.mask(f, within)}, {t.mask(f, before)}")
        place = f.sub(_place(f, "%cols_at", column), before)
        parts.append((t.from_at(f, "%src", place), lanes))
        ends.append(end)
        first = end
    return parts, ends


def _join(t: Tiling, f: Function, j: str, parts: list[_Part]) -> None:
    place = t.at(f, "%dst", j)
    with f.loop(0, "%k") as k:
        row = _place(f, "%rows_at", k)
        joined = ""
        for source, lanes in parts:
            piece = t.take_masked(f, t.from_at(f, source, row), lanes)
            joined = t.blend(f, lanes, piece, joined) if joined else piece
        t.store(f, joined, t.at(f, place, f.mul(k, "%width")))


def _copy_runs(t: Tiling, f: Function, j: str, stop: str) -> None:
    """Run by run, however many there are."""
    place = t.at(f, "%dst", j)
    with f.loop(0, "%k") as k:
        t.store(f, "zeroinitializer", t.at(f, place, f.mul(k, "%width")))
    with _pieces(t, f, "%cols_at", j, stop) as (first, count):
        mask = t.mask(f, count)
        source = t.from_at(f, "%src", _place(f, "%cols_at", first))
        place = t.at(f, "%dst", first)
        with f.loop(0, "%k") as k:
            piece = t.take_masked(f, t.from_at(f, source, _place(f, "%rows_at", k)), mask)
            t.store_masked(f, piece, t.at(f, place, f.mul(k, "%width")), mask)


def _transpose_b(t: Tiling) -> str:
    """Whole squares are written.  Rows past a run are those of the next one, which comes later;
    those past the last would be the last's, which is written after them."""
    f = Function(f"internal void @transpose_b_walk({_B})")
    last_row, last_column = f.sub("%k", 1), f.sub("%columns", 1)
    with f.loop(0, "%width", t.lanes) as j:
        columns = [
            t.from_at(f, "%src", _place(f, "%cols_at", f.min(f.add(j, lane), last_column)))
            for lane in range(t.lanes)
        ]
        place = t.at(f, "%dst", j)
        with _pieces(t, f, "%rows_at", 0, "%k") as (k, count):
            mask = t.mask(f, count)
            first = _place(f, "%rows_at", k)
            runs = [t.take_masked(f, t.from_at(f, column, first), mask) for column in columns]
            rows = butterfly(t, f, runs)
            for number in reversed(range(t.lanes)):
                row = f.min(f.add(k, number), last_row)
                t.store(f, rows[number], t.at(f, place, f.mul(row, "%width")))
    return f.text()
