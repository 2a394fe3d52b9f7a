"""Calls of the packed matrix product from a program, of its packing alone, and its epilogues."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from dualgrad.compiler.ir.dims import Dim, sym, symbol_of
from dualgrad.compiler.kernel.ir import Contract, Kernel, Pack, Store
from dualgrad.compiler.kernel.scalar import load, substitute
from dualgrad.compiler.kernel.strips import Part
from dualgrad.compiler.kernel.walks import tables_of
from dualgrad.compiler.lower.llvm.frame import BATCH, ROW, Parts
from dualgrad.compiler.lower.llvm.gemm import DESC, routine_of
from dualgrad.compiler.lower.llvm.kernels import KernelCode
from dualgrad.compiler.lower.llvm.reach import guard_reach
from dualgrad.runtime.program import CONTEXT_PARALLEL_FOR, CONTEXT_POOL, POOL_WORKERS

if TYPE_CHECKING:
    from dualgrad.compiler.lower.llvm.launches import Launches


def contract_call(entry: Launches, function: str, c: Contract, items: int = 0) -> None:
    """Fill a descriptor and call the routine; of so many items only for `%item`, on this thread."""
    f = entry.f
    if 0 in (c.batch, c.m, c.n):
        return
    assert c.workspace is not None
    part = Part.of(c, items) if items else None
    at = _place_of(part, items)
    batches, height = (c.batch, c.m) if part is None else (1, part.rows)
    with entry.scope():
        entry.open_buffers((c.a.buffer, c.b.buffer, c.c.buffer, c.workspace))
        desc, put = _descriptor(entry)
        for slot, dim in (
            ("c_row", c.c.strides[0]), ("batches", batches), ("m", height), ("n", c.n), ("k", c.k),
        ):  # fmt: skip
            put(slot, entry.dim(dim))
        for slot, operand, first in (("a", c.a, at[1]), ("b", c.b, 0), ("c", c.c, at[1])):
            start = operand.base if part is None else operand.place(at[0], first, 0)
            put(slot, entry.pointer(operand.buffer, start), "ptr")
            put(f"{slot}_batch", entry.dim(operand.batch))
        for slot, operand in (("a", c.a), ("b", c.b)):
            row, col = (0, 0) if operand.walks else operand.strides
            put(f"{slot}_row", entry.dim(row))
            put(f"{slot}_col", entry.dim(col))
        put("b_packed", entry.pointer(c.b.buffer, 0) if c.packed else "null", "ptr")
        put("pack_to", "null", "ptr")
        tables, work = _tables(entry, function, c)
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
        if part is not None:
            for word, place in zip((BATCH, ROW), at, strict=True):
                f.store("i64", entry.dim(place), f.at("%frame", word, "i64"))
        _put_pool(entry, put, part is None)
        f.call(entry.extern(routine_of(c)), ("ptr", desc))


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
        for slot in ("b_packed", "b_rows", "b_cols"):
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


def _place_of(part: Part | None, items: int) -> tuple[Dim, Dim]:
    """The matrix of an item, and its first row there."""
    if part is None:
        return 0, 0
    item = sym("item", items)
    return item // part.parts, item % part.parts * part.rows


def _tables(entry: Launches, function: str, c: Contract) -> tuple[dict[str, str], str]:
    """Fill and name the tables of operands that walk; the scratch memory after them."""
    assert c.workspace is not None
    f = entry.f
    memory = entry.pointer(c.workspace, 0)
    places = {f"{x}_{way}": "null" for x in "ab" for way in ("rows", "cols")}
    tables = tables_of(c.a, c.b, c.m, c.n, c.k)
    if tables:
        f.call(f"{function}.walks", ("ptr", "%frame"), ("ptr", memory))
    for table in tables:
        places[table.name] = memory
        memory = f.at(memory, entry.dim(table.words), "i64")
    return places, memory


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
    with code.f.loop(row0, row1) as i, code.scope():
        code.atoms[symbol_of(c.row_var)] = i
        code.hoist(body, {symbol_of(c.col_var)})
        code.lanes_over(c.col_var, "%col0", "%col1", body, None, c.n)
    return code.finish()
