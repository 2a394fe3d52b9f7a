"""What memory a loop asks for before it gets there.

A vector loop that alone touches a buffer streams through it: it asks for what comes a little
later.  The passes over a row stay in cache and leave memory idle while they compute; so the last
pass to touch a place asks for the same place of the next row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from dualgrad.compiler.ir.dims import Dim, Expr, coefficient
from dualgrad.compiler.kernel import ir
from dualgrad.compiler.kernel.ir import Buffer, Contract, Loop, Reduce, Stmt, Store
from dualgrad.compiler.kernel.loops import TILE

# of a place, and whether it is written: how many elements after it that of the next row lies
Pitch = Mapping[tuple[Buffer, Dim, bool], Dim]
NO_PITCH: Pitch = {}
SHORT = 512  # elements of a row that one loop goes over, and that is then left for long


def streams_of(body: tuple[Stmt, ...]) -> frozenset[str]:
    """The buffers that one innermost loop alone touches: no other has them in cache."""
    loops = [s for s in ir.walk(body) if isinstance(s, Reduce) or _is_long(s)]
    touched = Counter(b.name for loop in loops for b in ir.buffers_of((loop,)))
    return frozenset(name for name, times in touched.items() if times == 1)


def _is_long(stmt: Stmt) -> bool:
    """Whether a statement is a vector loop, other than over a row of a tile."""
    if not isinstance(stmt, Loop) or stmt.kind != "vector":
        return False
    return not any(isinstance(n, int) and n <= TILE for n in _bounds(stmt.extent))


def pitches_of(rows: Loop) -> Sequence[Pitch]:
    """What each statement in a loop over rows asks for of other rows.

    Of several passes, the last one to touch a place asks.  A single pass asks for what comes next
    in memory where that is the next row (no entry), else for the next row's element, else, if the
    row is short, for nothing (0).
    """
    out: list[Pitch] = []
    later: set[tuple[Buffer, Dim]] = set()
    single = sum(_is_pass(stmt) for stmt in rows.body) == 1
    for stmt in reversed(rows.body):
        pitch: dict[tuple[Buffer, Dim, bool], Dim] = {}
        if _is_pass(stmt):
            assert isinstance(stmt, Loop | Reduce)
            stored = {(s.buffer, s.index) for s in ir.walk((stmt,)) if isinstance(s, Store)}
            bounds = _bounds(stmt.extent)
            for place in set(ir.accesses_of((stmt,))) - later:
                step = _step(place[1], rows.var, stmt.var)
                follows = single and step in bounds
                short = single and any(isinstance(n, int) and n <= SHORT for n in bounds)
                if not follows and (step != 0 or short):
                    pitch[*place, place in stored] = step
                later.add(place)
        out.append(pitch)
    return out[::-1]


def spans_of(epilogue: tuple[Store, ...], c: Contract, span: Dim) -> Pitch:
    """What an epilogue asks for while it is at a piece of the result of `span` columns: what lies a
    span further on, which is the piece beside it or, of whole rows, the row below.  The sums
    themselves have just been written."""
    stored = {(s.buffer, s.index) for s in epilogue}
    return {
        (buffer, index, (buffer, index) in stored): span
        for buffer, index in ir.accesses_of(epilogue)
        if buffer.name != c.c.buffer.name and _step(index, c.row_var, c.col_var) != 0
    }


def _bounds(extent: Dim) -> list[Dim]:
    """An extent, or what it is never above."""
    if isinstance(extent, int):
        return [extent]
    least = [n for m, _ in extent.terms for atom in m if atom.kind == "min" for n in atom.args]
    return least or [extent]


def _is_pass(stmt: Stmt) -> bool:
    """Whether a statement goes over a row in vectors."""
    return stmt.order == "lanes" if isinstance(stmt, Reduce) else _is_long(stmt)


def _step(index: Dim, row: Expr, element: Expr) -> Dim:
    """How far on the next row's element lies; 0 where that moves otherwise than row by row."""
    down, along = coefficient(index, row), coefficient(index, element)
    return 0 if down is None or along is None or along[0] != 1 else down[0]
