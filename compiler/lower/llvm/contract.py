"""Calls of the packed matrix product from a program, of its packing alone, and its epilogues."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from dualgrad.compiler.ir.dims import Dim, sym, symbol_of
from dualgrad.compiler.kernel.hidden import visible_columns
from dualgrad.compiler.kernel.ir import Buffer, Contract, Kernel, Operand, Pack, Store
from dualgrad.compiler.kernel.scalar import load, substitute
from dualgrad.compiler.kernel.strips import Cut
from dualgrad.compiler.kernel.walks import tables_of
from dualgrad.compiler.lower.llvm.advance import spans_of
from dualgrad.compiler.lower.llvm.emit import Value
from dualgrad.compiler.lower.llvm.frame import BATCH, ROW, Parts
from dualgrad.compiler.lower.llvm.gemm import DESC, routine_of
from dualgrad.compiler.lower.llvm.kernels import KernelCode
from dualgrad.compiler.lower.llvm.reach import guard_reach
from dualgrad.compiler.lower.llvm.turns import ends_block
from dualgrad.runtime.program import CONTEXT_PARALLEL_FOR, CONTEXT_POOL, POOL_WORKERS
from dualgrad.runtime.records import dataclass

if TYPE_CHECKING:
    from dualgrad.compiler.lower.llvm.launches import Launches

_UNROLL = 2  # registers of a piece of a result that is finished when its panel of columns is
_COLUMNS = 64  # a multiple of them are computed: whole tiles


@dataclass(frozen=True)
class Share:
    """What an item of a strip does of a product: for one `matrix` all of it, or `count` rows from
    `first` on; of one that sums over these rows, what they add.

    summed    how the rows are cut, if they are summed over
    partial   where the sums of a block of them lie, if not in the result
    filled    where the tables of operands that walk lie, if they are filled already
    """

    matrix: Dim
    first: Dim = 0
    count: Dim | None = None
    summed: Cut | None = None
    partial: Buffer | None = None
    filled: str | None = None


def contract_call(entry: Launches, function: str, c: Contract, share: Share | None = None) -> None:
    """Fill a descriptor and call the routine; for a share on this thread."""
    f = entry.f
    if 0 in (c.batch, c.m, c.n):
        return
    assert c.workspace is not None
    batches, m, k = c.batch, c.m, c.k
    starts = {"a": c.a.base, "b": c.b.base, "c": c.c.base}
    buffers = [c.a.buffer, c.b.buffer, c.c.buffer, c.workspace]
    if share is not None:
        batches, m, k, starts = _of_share(c, share)
        buffers += [share.partial] if share.partial else []
    with entry.scope():
        entry.open_buffers(buffers)
        desc, put = _descriptor(entry)
        sizes = (("c_row", c.c.strides[0]), ("batches", batches), ("m", m), ("k", k))
        for slot, dim in sizes:
            put(slot, entry.dim(dim))
        seen = _columns(entry, c, share)
        put("n", entry.dim(c.n) if seen is None else seen)
        for slot, operand in (("a", c.a), ("b", c.b), ("c", c.c)):
            put(slot, entry.pointer(operand.buffer, starts[slot]), "ptr")
            put(f"{slot}_batch", entry.dim(operand.batch))
        for slot, operand in (("a", c.a), ("b", c.b)):
            row, col = (0, 0) if operand.walks else operand.strides
            put(f"{slot}_row", entry.dim(row))
            put(f"{slot}_col", entry.dim(col))
        put("b_packed", entry.pointer(c.b.buffer, 0) if c.packed else "null", "ptr")
        put("pack_to", "null", "ptr")
        tables, work = _tables(entry, function, c, share.filled if share else None)
        for slot, address in tables.items():
            put(slot, address, "ptr")
        put("work", work, "ptr")
        if entry.checked:
            for name, x, rows, cols in (("a", c.a, c.m, c.k), ("b", c.b, c.k, c.n)):
                walked = (tables[f"{name}_rows"], tables[f"{name}_cols"]) if x.walks else None
                guard_reach(entry, x, (c.batch, rows, cols), walked)
            guard_reach(entry, c.c, (c.batch, c.m, c.n))
        put("epilogue", function if c.epilogue else "null", "ptr")
        put("epilogue_ctx", "%frame", "ptr")
        _put_sums(entry, c, share, put)
        if share is not None:
            row = 0 if share.summed else share.first
            for word, place in ((BATCH, share.matrix), (ROW, row)):
                f.store("i64", entry.dim(place), f.at("%frame", word, "i64"))
        _put_pool(entry, put, share is None)
        f.call(entry.extern(routine_of(c)), ("ptr", desc))
        if seen is not None:
            rest = (0, 0, entry.dim(m), seen, entry.dim(c.n))
            f.call(function, ("ptr", "%frame"), *(("i64", x) for x in rest))


def _columns(entry: Launches, c: Contract, share: Share | None) -> Value | None:
    """How many columns of a share need their sums, if these need not be all."""
    if share is None or share.count is None or share.summed is not None or c.packed:
        return None
    seen = visible_columns(c, share.first + share.count - 1)
    if seen is None:
        return None
    f = entry.f
    tiles = f.quotient(f.add(f.max(entry.dim(seen), 0), _COLUMNS - 1), _COLUMNS)
    return f.min(f.mul(tiles, _COLUMNS), entry.dim(c.n))


def pack_call(entry: Launches, p: Pack) -> None:
    """Fill a descriptor and call the routine of products to pack an operand of theirs."""
    with entry.scope():
        entry.open_buffers((p.b.buffer, p.packed))
        if entry.checked:
            guard_reach(entry, p.b, (1, p.k, p.n))
        desc, put = _descriptor(entry)
        for slot, dim in zip(("b_row", "b_col"), p.b.strides, strict=True):
            put(slot, entry.dim(dim))
        sizes = (("n", p.n), ("k", p.k), ("m", 0), ("batches", 0), ("b_batch", 0))
        for slot, dim in sizes:
            put(slot, entry.dim(dim))
        put("b", entry.pointer(p.b.buffer, p.b.base), "ptr")
        put("pack_to", entry.pointer(p.packed, 0), "ptr")
        for slot in ("b_packed", "b_rows", "b_cols", "partial"):
            put(slot, "null", "ptr")
        _put_pool(entry, put, True)
        entry.f.call(entry.extern(routine_of(p)), ("ptr", desc))


def _descriptor(entry: Launches) -> tuple[str, Callable[..., None]]:
    """The memory of a descriptor, and what writes a slot of it."""
    f = entry.f
    desc = entry.words(len(DESC))

    def put(slot: str, value: str | int, kind: str = "i64") -> None:
        f.store(kind, value, f.at(desc, DESC.index(slot), "i64"))

    return desc, put


def _put_pool(entry: Launches, put: Callable[..., None], parallel: bool) -> None:
    """The thread pool, and how many of its threads may take part.

    Scratch memory is sized for so many threads; a pool that has grown since is not used.
    """
    f = entry.f
    pool = f.load("ptr", f.at("%context", CONTEXT_POOL, "i64"))
    put("pool", pool, "ptr")
    put("parallel_for", f.load("ptr", f.at("%context", CONTEXT_PARALLEL_FOR, "i64")), "ptr")
    workers = f.load("i64", f.at(pool, POOL_WORKERS, "i64"))
    fits = f.compare("slt", workers, entry.frame.program.threads)
    put("parallel", f.select(fits, entry.frame.program.threads if parallel else 0, 0))


def _of_share(c: Contract, share: Share) -> tuple[Dim, Dim, Dim, dict[str, Dim]]:
    """How many products of what m and k a share is, and where its operands start."""
    matrix, first = share.matrix, share.first
    count = c.m if share.count is None else share.count
    starts: dict[str, tuple[Operand, Dim, Dim]]
    if share.summed is None:
        starts = {"a": (c.a, first, 0), "b": (c.b, 0, 0), "c": (c.c, first, 0)}
        m, k = count, c.k
    else:
        starts = {"a": (c.a, 0, first), "b": (c.b, first, 0), "c": (c.c, 0, 0)}
        m, k = c.m, count
    return 1, m, k, {slot: x.place(matrix, row, col) for slot, (x, row, col) in starts.items()}


def _put_sums(entry: Launches, c: Contract, share: Share | None, put: Callable[..., None]) -> None:
    """Say whether sums along K come in several calls, and which of them this is."""
    f = entry.f
    if share is None or share.summed is None:
        put("partial", "null", "ptr")
        for slot in ("partial_row", "goes_on", "closes", "adds", "more"):
            put(slot, 0)
        return
    assert share.count is not None
    block, rows = share.summed.block, share.summed.rows
    stop = share.first + share.count
    ends = ends_block(entry, share.summed, entry.dim(stop))
    sums, pitch = (share.partial, c.n) if share.partial else (c.c.buffer, c.c.strides[0])
    start = 0 if share.partial else c.c.place(share.matrix, 0, 0)
    put("partial", entry.pointer(sums, start), "ptr")
    put("partial_row", entry.dim(pitch))
    for slot, holds in (
        ("goes_on", f.compare("ne", entry.dim(share.first % block), 0)),
        ("closes", ends if share.partial else "false"),
        ("adds", f.compare("sge", entry.dim(share.first), entry.dim(block))),
        ("more", f.compare("ne", entry.dim(stop), entry.dim(rows))),
    ):
        put(slot, f.value(f"zext i1 {holds} to i64"))


def _tables(
    entry: Launches, function: str, c: Contract, filled: str | None
) -> tuple[dict[str, str], str]:
    """Name the tables of operands that walk, and fill them; the scratch memory after them."""
    assert c.workspace is not None
    f = entry.f
    work = entry.pointer(c.workspace, 0)
    places = {f"{x}_{way}": "null" for x in "ab" for way in ("rows", "cols")}
    tables = tables_of(c.a, c.b, c.m, c.n, c.k)
    if tables and filled is None:
        f.call(f"{function}.walks", ("ptr", "%frame"), ("ptr", work))
    memory = filled or work
    for table in tables:
        places[table.name] = memory
        memory = f.at(memory, entry.dim(table.words), "i64")
    return places, memory if filled is None else work


def epilogue_function(function: str, kernel: Kernel, slots: Mapping[str, int], parts: Parts) -> str:
    """What happens to a finished piece of the result: the stores of the kernel's epilogue."""
    (c,) = kernel.body
    assert isinstance(c, Contract)
    signature = (
        f"internal void {function}(ptr %frame, i64 %batch, i64 %row0, i64 %row1,"
        " i64 %col0, i64 %col1)"
    )
    code = KernelCode(signature, slots, parts)
    code.open_buffers(kernel.starts)
    total = c.c.place(c.batch_var, c.row_var, c.col_var)
    result = {c.result: load(c.c.buffer, total)}
    body = tuple(Store(s.buffer, s.index, substitute(s.value, result)) for s in c.epilogue)
    first, row0, row1 = (
        code.f.add(x, code.f.load("i64", code.f.at("%frame", slot, "i64")))
        for x, slot in (("%batch", BATCH), ("%row0", ROW), ("%row1", ROW))
    )
    code.atoms[symbol_of(c.batch_var)] = first
    atoms = {symbol_of(c.row_var), symbol_of(c.col_var)}
    code.hoist(body, atoms)
    span = sym("span", c.n)
    code.atoms[symbol_of(span)] = code.f.sub("%col1", "%col0")
    code.next_row = spans_of(body, c, span)
    with code.f.loop(row0, row1) as i, code.scope():
        code.atoms[symbol_of(c.row_var)] = i
        code.hoist(body, {symbol_of(c.col_var)})
        code.lanes_over(c.col_var, "%col0", "%col1", body, None, c.n, _UNROLL)
    return code.finish()
