"""Results larger than the caches are stored past them.

An ordinary store reads the line that it changes, and the line pushes another one out of the cache:
a copy then moves three bytes where two would do.  A non-temporal store of whole lines moves two.
It pays from where the next reader would not find a result in cache anyway: copies to and fro, half
of all bytes each, were 1.5 to 2 times as fast from 128 MiB on, and 0.8 times up to 64 MiB.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

from dualgrad.compiler.kernel import ir
from dualgrad.compiler.kernel.ir import Buffer, Stmt, Store
from dualgrad.compiler.kernel.scalar import children_first
from dualgrad.compiler.lower.llvm.emit import Function, Value
from dualgrad.compiler.lower.llvm.lanes import Declarations

LEAST = 64 << 20  # bytes of a result


def written_only(body: tuple[Stmt, ...], streams: Container[str]) -> list[Buffer]:
    """The buffers of `streams`, which one loop alone touches, that it does not read."""
    written: dict[str, Buffer] = {}
    read: set[str] = set()
    for stmt in ir.walk(body):
        if isinstance(stmt, Store):
            written[stmt.buffer.name] = stmt.buffer
        for e in children_first(ir.scalars_of(stmt)):
            if e.op in ("load", "gather"):
                read.add(e.memory[0].name)
    return [b for name, b in written.items() if name in streams and name not in read]


def store_past(
    f: Function,
    names: Declarations,
    store: tuple[str, str, str],
    lines: int,
    small: Value,
) -> str:
    """Begin a choice: (type, value, address) go past the caches where `small` is 0 and the address
    is a multiple of `lines` bytes.  What follows is done otherwise, up to the block returned."""
    kind, value, address = store
    past, within, after = f.new_block(), f.new_block(), f.new_block()
    place = f.value(f"ptrtoint ptr {address} to i64")
    odd = f.value(f"and i64 {place}, {lines - 1}")
    odd = odd if small == 0 else f.value(f"or i64 {odd}, {small}")
    f.branch(f.compare("eq", odd, 0), past, within)
    f.start(past)
    mark = names.metadata("nontemporal", "i32 1")
    f.do(f"store {kind} {value}, ptr {address}, align {lines}, {mark}")
    f.jump(after)
    f.start(within)
    return after


def finish_stores(f: Function, smalls: Mapping[str, Value]) -> None:
    """Other threads see what went past the caches from here on."""
    if not smalls:
        return
    none: Value = 1
    for small in smalls.values():
        none = 0 if small == 0 or none == 0 else f.value(f"and i64 {none}, {small}")
    if none == 0:
        f.do("fence seq_cst")
        return
    with f.when(f.compare("eq", none, 0)):
        f.do("fence seq_cst")
