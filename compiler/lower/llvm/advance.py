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
from dualgrad.compiler.kernel.ir import Buffer, Loop, Reduce, Stmt, Store
from dualgrad.compiler.kernel.loops import TILE

# of a place, and whether it is written: how many elements after it that of the next row lies
Pitch = Mapping[tuple[Buffer, Dim, bool], Dim]
NO_PITCH: Pitch = {}


def streams_of(body: tuple[Stmt, ...]) -> frozenset[str]:
    """The buffers that one innermost loop alone touches: no other has them in cache."""
    loops = [s for s in ir.walk(body) if isinstance(s, Reduce) or _is_long(s)]
    touched = Counter(b.name for loop in loops for b in ir.buffers_of((loop,)))
    return frozenset(name for name, times in touched.items() if times == 1)


def _is_long(stmt: Stmt) -> bool:
    """Whether a statement is a vector loop, other than over a row of a tile."""
    if not isinstance(stmt, Loop) or stmt.kind != "vector":
        return False
    extent = stmt.extent
    bounds: list[Dim] = [extent]
    if not isinstance(extent, int):
        bounds = [n for m, _ in extent.terms for atom in m if atom.kind == "min" for n in atom.args]
    return not any(isinstance(n, int) and n <= TILE for n in bounds)


def pitches_of(rows: Loop) -> Sequence[Pitch]:
    """For each statement in a loop over rows: the places that no later statement touches, and how
    many elements after them those of the next row lie."""
    out: list[Pitch] = []
    later: set[tuple[Buffer, Dim]] = set()
    passes = sum(_is_pass(stmt) for stmt in rows.body)
    for stmt in reversed(rows.body):
        pitch: dict[tuple[Buffer, Dim, bool], Dim] = {}
        if passes > 1 and _is_pass(stmt):
            assert isinstance(stmt, Loop | Reduce)
            stored = {(s.buffer, s.index) for s in ir.walk((stmt,)) if isinstance(s, Store)}
            for place in set(ir.accesses_of((stmt,))) - later:
                step = _step(place[1], rows.var, stmt.var)
                if step != 0:
                    pitch[*place, place in stored] = step
                later.add(place)
        out.append(pitch)
    return out[::-1]


def _is_pass(stmt: Stmt) -> bool:
    """Whether a statement goes over a row in vectors."""
    if isinstance(stmt, Reduce):
        return stmt.order == "lanes"
    return isinstance(stmt, Loop) and stmt.kind == "vector"


def _step(index: Dim, row: Expr, element: Expr) -> Dim:
    """How far on the next row's element lies; 0 where that moves otherwise than row by row."""
    down, along = coefficient(index, row), coefficient(index, element)
    return 0 if down is None or along is None or along[0] != 1 else down[0]
