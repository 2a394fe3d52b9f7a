"""Strips: a function that takes one item through all kernels, and one that runs a chunk of items.

A chunk has a frame of its own, in which the addresses of private buffers are those of the thread's
area, moved back by the item: so kernels find their part of a buffer where the whole buffer would
have it.
"""

from __future__ import annotations

from collections.abc import Sequence

from dualgrad.compiler.ir.dims import sym, symbol_of
from dualgrad.compiler.kernel.ir import Contract
from dualgrad.compiler.kernel.strips import Strip
from dualgrad.compiler.lower.llvm.contract import contract_call
from dualgrad.compiler.lower.llvm.cost import UNITS, work_of
from dualgrad.compiler.lower.llvm.emit import Value
from dualgrad.compiler.lower.llvm.frame import CHUNKS, CONTEXT, ERROR, Parts
from dualgrad.compiler.lower.llvm.launches import MAX_CHUNKS, SERIAL_BELOW, Launches
from dualgrad.compiler.lower.llvm.together import Work
from dualgrad.runtime.program import CONTEXT_POOL, POOL_WORKERS

_PRODUCTS_PER_NS = 32  # multiply-adds of a product


def strip_functions(name: str, strip: Strip, works: Sequence[Work], parts: Parts) -> list[str]:
    """The functions of a strip; `name` is that of a chunk of it."""
    return [
        _item_function(f"{name}.item", strip, works, parts),
        _chunk_function(name, strip, parts),
    ]


def _item_function(name: str, strip: Strip, works: Sequence[Work], parts: Parts) -> str:
    """`void name(ptr frame, ptr context, i64 item)`: all kernels, one after another."""
    signature = f"internal void {name}(ptr %frame, ptr %context, i64 %item)"
    code = Launches(signature, parts.frame.slots, parts)
    code.atoms[symbol_of(sym("item", strip.items))] = "%item"
    for work in works:
        first = work.kernel.body[0]
        with code.scope():
            if not isinstance(first, Contract):
                if work.shared is not None:
                    work.shared.open_windows(code, work.kernel, "%frame")
                item: list[tuple[str, Value]] = [("i64", "%item"), ("i64", 0)]
                code.f.call(work.function, ("ptr", "%frame"), *item)
            elif work.shared is not None:
                work.shared.run_item(code, work.kernel, strip.items)
            else:
                contract_call(code, work.function, first, strip.items)
        if parts.checked:
            code.stop_after_error()
    return code.finish()


def _chunk_function(name: str, strip: Strip, parts: Parts) -> str:
    signature = f"internal void {name}(ptr %frame, i64 %chunk, i64 %tid)"
    code = Launches(signature, parts.frame.slots, parts)
    f, frame = code.f, parts.frame
    own = f.early(f"alloca [{frame.size} x i64], align 64")
    with f.loop(0, frame.size) as i:
        f.store("i64", f.load("i64", f.at("%frame", i, "i64")), f.at(own, i, "i64"))
    chunks = f.load("i64", f.at("%frame", CHUNKS, "i64"))
    first = f.quotient(f.mul("%chunk", strip.items), chunks)
    stop = f.quotient(f.mul(f.add("%chunk", 1), strip.items), chunks)
    f.store("i64", strip.items, f.at(own, CHUNKS, "i64"))
    context = f.load("ptr", f.at("%frame", CONTEXT, "i64"))
    scratch = f.load("ptr", f.at("%frame", frame.slots[strip.scratch.name], "i64"))
    area = f.at(scratch, f.mul("%tid", strip.area), "i8")
    with f.loop(first, stop) as item:
        for p in strip.privates:
            start = f.sub(p.offset, f.mul(item, p.item * p.buffer.dtype.itemsize))
            f.store("ptr", f.at(area, start, "i8"), f.at(own, frame.slots[p.buffer.name], "i64"))
        f.call(f"{name}.item", ("ptr", own), ("ptr", context), ("i64", item))
        if parts.checked:
            error = f.load("i64", f.at(own, ERROR, "i64"))
            on, failed = f.new_block(), f.new_block()
            f.branch(f.compare("ne", error, 0), failed, on)
            f.start(failed)
            f.store("i64", error, f.at("%frame", ERROR, "i64"))
            f.jump(code.exit)
            f.start(on)
    return code.finish()


def run_strip(code: Launches, name: str, strip: Strip, works: Sequence[Work]) -> None:
    """Run all items, on the thread pool where that pays and the scratch memory is enough."""
    f = code.f
    whole: list[tuple[str, Value]] = [("ptr", "%frame"), ("i64", 0), ("i64", 0)]
    f.store("ptr", "%context", f.at("%frame", CONTEXT, "i64"))
    if _work_of(works) < SERIAL_BELOW:
        f.store("i64", 1, f.at("%frame", CHUNKS, "i64"))
        f.call(name, *whole)
    else:
        pool = f.load("ptr", f.at("%context", CONTEXT_POOL, "i64"))
        workers = f.load("i64", f.at(pool, POOL_WORKERS, "i64"))
        fits = f.compare("slt", workers, code.frame.program.threads)
        chunks = f.select(fits, min(strip.items, MAX_CHUNKS), 1)
        f.store("i64", chunks, f.at("%frame", CHUNKS, "i64"))
        with f.when(fits):
            code.parallel_for(name, chunks)
        with f.otherwise(fits):
            f.call(name, *whole)
    if code.checked:
        code.stop_after_error()


def _work_of(works: Sequence[Work]) -> int:
    """What running a strip costs, in the units of `cost`."""
    total = 0
    for work in works:
        for c in work.kernel.body:
            if isinstance(c, Contract):
                products = c.batch * c.m * c.n * c.k
                total += products * UNITS // _PRODUCTS_PER_NS if isinstance(products, int) else 0
        cost = work_of(work.kernel)
        total += cost if isinstance(cost, int) else 0
    return total
