"""What a row keeps in the memory of its result until that is stored.

An expensive value that several passes need lies in memory that the last pass overwrites (see
`kernel.row`).  Where the result goes past the caches (`past_caches`) it would have been read into
them for that: there the row is kept on the stack instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from dualgrad.compiler.ir.dims import Dim, symbol_of, symbols
from dualgrad.compiler.kernel import ir
from dualgrad.compiler.kernel.ir import Buffer, Loop, Reduce, Stmt, Store
from dualgrad.compiler.kernel.scalar import Scalar, children_first, load, substitute
from dualgrad.runtime.records import dataclass

MOST = 1 << 16  # bytes of a row on the stack


@dataclass(frozen=True)
class KeptRow:
    """A buffer whose rows are kept elsewhere.

    rows    the loop over these
    result  the buffer, which only the last pass stores to
    row     what stands for one row of it before
    first   the place of a row's first element in `result`
    """

    rows: Loop
    result: Buffer
    row: Buffer
    first: Dim

    @property
    def room(self) -> int:
        """Elements there is room for: longer rows, of sizes known later, stay in the result."""
        length = self.row.size
        return length if isinstance(length, int) else MOST // self.row.dtype.itemsize


def kept_apart(
    body: tuple[Stmt, ...], may_be: Callable[[Buffer], bool]
) -> tuple[tuple[Stmt, ...], tuple[KeptRow, ...]]:
    """The body of a kernel with rows of their own for the values kept in those buffers."""
    loop = body[0] if len(body) == 1 else None
    if not isinstance(loop, Loop) or loop.kind == "vector":
        return body, ()
    if not any(isinstance(stmt, Reduce) for stmt in loop.body):
        inner, kept = kept_apart(loop.body, may_be)
        return ((replace(loop, body=inner),) if kept else body), kept
    lasts = [x for x in loop.body if isinstance(x, Loop) and x.kind == "vector"]
    stores = [(x, s) for x in lasts for s in x.body if isinstance(s, Store) and may_be(s.buffer)]
    changed, found = loop.body, []
    for last, store in stores:
        row = _row_of(loop, last, store)
        if row is not None:
            changed = tuple(_with_row(x, last, store, row) for x in changed)
            found.append((store.buffer, row, store.index - last.var))
    if not found:
        return body, ()
    rows = replace(loop, body=changed)
    return (rows,), tuple(KeptRow(rows, *x) for x in found)


def _row_of(rows: Loop, last: Loop, store: Store) -> Buffer | None:
    """What stands for a row of a buffer, if passes before the last one store to it, all at the
    place that the last one stores to."""
    b, extent = store.buffer, last.extent
    if isinstance(extent, int) and extent * b.dtype.itemsize > MOST:
        return None
    places = [index for buffer, index in ir.accesses_of(rows.body) if buffer == b]
    early = [s for x in rows.body if isinstance(x, Reduce) for s in x.stores if s.buffer == b]
    exact = store.position is None and all(s.position is None for s in early)
    lies = symbol_of(last.var) not in symbols(store.index - last.var)
    gathered = any(
        e.op == "gather" and e.memory[0] == b
        for stmt in ir.walk(rows.body)
        for e in children_first(ir.scalars_of(stmt))
    )
    if not early or not exact or not lies or gathered or {*places} != {store.index}:
        return None
    return Buffer(f"{b.name}.row", b.dtype, extent)


def _with_row(stmt: Stmt, last: Loop, store: Store, row: Buffer) -> Stmt:
    """A statement of the row; only the store of the last pass stays where it is."""
    there = {load(store.buffer, store.index): load(row, last.var)}

    def changed(values: tuple[Scalar, ...]) -> tuple[Scalar, ...]:
        return tuple(substitute(x, there) for x in values)

    def moved(s: Store) -> Store:
        s = replace(s, value=substitute(s.value, there))
        return replace(s, buffer=row, index=last.var) if s.buffer == store.buffer else s

    if isinstance(stmt, Reduce):
        sums = tuple(
            replace(a, init=changed(a.init), step=changed(a.step)) for a in stmt.accumulators
        )
        return replace(stmt, accumulators=sums, stores=tuple(map(moved, stmt.stores)))
    if isinstance(stmt, Loop) and symbol_of(stmt.var) == symbol_of(last.var):
        body = tuple(
            replace(s, value=substitute(s.value, there)) if isinstance(s, Store) else s
            for s in stmt.body
        )
        return replace(stmt, body=body)
    return stmt
