"""Strips: a function that takes one item through all kernels, and one that runs a chunk of items.

A chunk has a frame of its own, in which the addresses of private buffers are those of the thread's
area, moved back by the matrices and rows before the item: so kernels find their part of a buffer
where the whole buffer would have it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from dualgrad.compiler.ir.dims import Dim, Expr, minimum, sym, symbol_of
from dualgrad.compiler.kernel.ir import Contract
from dualgrad.compiler.kernel.strips import Strip
from dualgrad.compiler.lower.llvm.contract import Share, contract_call
from dualgrad.compiler.lower.llvm.cost import UNITS, work_of
from dualgrad.compiler.lower.llvm.emit import Value
from dualgrad.compiler.lower.llvm.frame import CHUNKS, CONTEXT, ERROR, START, STOP, Parts
from dualgrad.compiler.lower.llvm.launches import MAX_CHUNKS, SERIAL_BELOW, Launches
from dualgrad.compiler.lower.llvm.together import Work
from dualgrad.compiler.lower.llvm.turns import Turns
from dualgrad.runtime.program import CONTEXT_POOL, POOL_WORKERS

_PRODUCTS_PER_NS = 32  # multiply-adds of a product


def strip_functions(name: str, strip: Strip, works: Sequence[Work], parts: Parts) -> list[str]:
    """The functions of a strip; `name` is that of a chunk of it."""
    return [
        _item_function(f"{name}.item", strip, works, parts),
        _chunk_function(name, strip, parts),
    ]


def _item_function(name: str, strip: Strip, works: Sequence[Work], parts: Parts) -> str:
    """`void name(ptr frame, ptr context, i64 matrix, i64 first, i64 count)`: all kernels, one after
    another, for so many rows of a matrix."""
    signature = (
        f"internal void {name}(ptr %frame, ptr %context, i64 %matrix, i64 %first, i64 %count)"
    )
    code = Launches(signature, parts.frame.slots, parts)
    matrix, first, count = _place(code, strip)
    f, start = code.f, matrix * strip.rows + first
    for word, value in ((CHUNKS, 0), (START, start), (STOP, start + count)):
        f.store("i64", code.dim(value), f.at("%frame", word, "i64"))
    tables = dict(strip.tables)
    turns = _turns(code, strip)
    for number, work in zip(strip.numbers, works, strict=True):
        if turns is not None and number == strip.sums[0].number:
            turns.wait("%matrix", "%first", f.add("%first", "%count"))
        with code.scope():
            share = _share(strip, number, matrix, first, count)
            offset = tables.get(number - strip.first)
            if offset is not None:
                share = replace(share, filled=_scratch(code, strip, offset))
            _run(code, work, share)
        if parts.checked:
            code.stop_after_error()
    return code.finish()


def _run(code: Launches, work: Work, share: Share) -> None:
    """Run what an item does of a kernel; of a product it is this share."""
    c = work.kernel.body[0]
    whole = share.summed is None and share.filled is None
    if isinstance(c, Contract) and work.shared is not None and whole:
        work.shared.run_share(code, work.kernel, share)
        return
    if work.shared is not None:
        work.shared.open_windows(code, work.kernel, "%frame")
    if isinstance(c, Contract):
        contract_call(code, work.function, c, share)
    else:
        zeros: list[tuple[str, Value]] = [("i64", 0), ("i64", 0)]
        code.f.call(work.function, ("ptr", "%frame"), *zeros)


def _place(code: Launches, strip: Strip) -> tuple[Expr, Expr, Expr]:
    """The variables of an item: its matrix, its first row there, and how many rows it has."""
    variables = sym("matrix", strip.matrices), sym("first", strip.rows), sym("count", None)
    for v, value in zip(variables, ("%matrix", "%first", "%count"), strict=True):
        code.atoms[symbol_of(v)] = value
    return variables


def _share(strip: Strip, number: int, matrix: Expr, first: Expr, count: Expr) -> Share:
    if strip.cut is None:
        return Share(matrix)
    found = strip.sum_of(number)
    if found is None:
        return Share(matrix, first, count)
    return Share(matrix, first, count, strip.cut, found.partial)


def _chunk_function(name: str, strip: Strip, parts: Parts) -> str:
    signature = f"internal void {name}(ptr %frame, i64 %chunk, i64 %tid)"
    code = Launches(signature, parts.frame.slots, parts)
    f, frame = code.f, parts.frame
    own = f.early(f"alloca [{frame.size} x i64], align 64")
    with f.loop(0, frame.size) as i:
        f.store("i64", f.load("i64", f.at("%frame", i, "i64")), f.at(own, i, "i64"))
    chunks = f.load("i64", f.at("%frame", CHUNKS, "i64"))
    each = code.dim(strip.in_order)
    groups = code.dim(strip.groups)
    turns = _turns(code, strip)
    chunk = "%chunk" if turns is None else turns.take()
    low = f.quotient(f.mul(chunk, groups), chunks)
    high = f.quotient(f.mul(f.add(chunk, 1), groups), chunks)
    context = f.load("ptr", f.at("%frame", CONTEXT, "i64"))
    area = f.at(_scratch(code, strip, strip.head), f.mul("%tid", code.dim(strip.area)), "i8")
    rows = code.dim(strip.rows)
    places = [
        (frame.slots[p.buffer.name], code.dim(p.offset), code.dim(p.step * p.buffer.dtype.itemsize))
        for p in strip.privates
    ]
    with f.loop(f.mul(low, each), f.mul(high, each)) as number:
        item = sym("item", strip.items)
        code.atoms[symbol_of(item)] = number
        matrix, first, count = map(code.dim, _rows_of(strip, item))
        start = f.add(f.mul(matrix, rows), first)
        for slot, offset, step in places:
            place = f.sub(offset, f.mul(start, step))
            f.store("ptr", f.at(area, place, "i8"), f.at(own, slot, "i64"))
        with f.when(f.compare("sgt", count, 0)):
            at = (("i64", x) for x in (matrix, first, count))
            f.call(f"{name}.item", ("ptr", own), ("ptr", context), *at)
            if turns is not None:
                with code.scope():
                    turns.end(matrix, f.add(first, count))
        if parts.checked:
            _pass_error_on(code, own, turns, matrix)
    return code.finish()


def _turns(code: Launches, strip: Strip) -> Turns | None:
    if strip.turns is None:
        return None
    return Turns(code, strip, _scratch(code, strip, strip.turns))


def _rows_of(strip: Strip, item: Expr) -> tuple[Dim, Dim, Dim]:
    """The matrix of an item, its first row there, and how many rows it has."""
    cut = strip.cut
    if cut is None:
        return item, 0, 1
    low, high = cut.bounds(item % strip.of_matrix)
    return item // strip.of_matrix, low, high - low


def _pass_error_on(code: Launches, own: str, turns: Turns | None, matrix: Value) -> None:
    """Leave if an item of a matrix has left an error word in the chunk's frame."""
    f = code.f
    error = f.load("i64", f.at(own, ERROR, "i64"))
    on, failed = f.new_block(), f.new_block()
    f.branch(f.compare("ne", error, 0), failed, on)
    f.start(failed)
    f.store("i64", error, f.at("%frame", ERROR, "i64"))
    if turns is not None:
        turns.give_up(matrix)
    f.jump(code.exit)
    f.start(on)


def _scratch(code: Launches, strip: Strip, offset: Dim) -> str:
    """A place in the scratch memory of a strip, so many bytes from its start."""
    f = code.f
    scratch = f.load("ptr", f.at("%frame", code.frame.slots[strip.scratch.name], "i64"))
    return f.at(scratch, code.dim(offset), "i8")


def run_strip(code: Launches, name: str, strip: Strip, works: Sequence[Work]) -> None:
    """Run all items, on the thread pool where that pays and the scratch memory is enough."""
    f = code.f
    whole: list[tuple[str, Value]] = [("ptr", "%frame"), ("i64", 0), ("i64", 0)]
    f.store("ptr", "%context", f.at("%frame", CONTEXT, "i64"))
    for number, offset in strip.tables:
        memory = _scratch(code, strip, offset)
        f.call(f"{works[number].function}.walks", ("ptr", "%frame"), ("ptr", memory))
    turns = _turns(code, strip)
    if turns is not None:
        turns.begin()
    work = _work_of(works)
    if isinstance(work, int) and work < SERIAL_BELOW:
        f.store("i64", 1, f.at("%frame", CHUNKS, "i64"))
        f.call(name, *whole)
    else:
        pool = f.load("ptr", f.at("%context", CONTEXT_POOL, "i64"))
        workers = f.load("i64", f.at(pool, POOL_WORKERS, "i64"))
        fits = f.compare("slt", workers, code.frame.program.threads)
        if not isinstance(work, int):
            pays = f.compare("sge", code.dim(work), SERIAL_BELOW)
            fits = f.value(f"and i1 {fits}, {pays}")
        # whoever waits for a block must know that it has begun: then each is a chunk
        most = strip.groups if turns is not None else minimum(strip.groups, MAX_CHUNKS)
        chunks = f.select(fits, code.dim(most), 1)
        f.store("i64", chunks, f.at("%frame", CHUNKS, "i64"))
        with f.when(fits):
            code.parallel_for(name, chunks)
        with f.otherwise(fits):
            f.call(name, *whole)
    if code.checked:
        code.stop_after_error()


def _work_of(works: Sequence[Work]) -> Dim:
    """What running a strip costs, in the units of `cost`."""
    products: Dim = 0
    others: Dim = 0
    for work in works:
        for c in work.kernel.body:
            if isinstance(c, Contract):
                products = products + c.batch * c.m * c.n * c.k
        others = others + work_of(work.kernel)
    return products * UNITS // _PRODUCTS_PER_NS + others
