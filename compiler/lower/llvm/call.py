"""Calls of functions of the host from a program."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dualgrad.compiler.ir.dims import product
from dualgrad.compiler.kernel.ir import Call

if TYPE_CHECKING:
    from dualgrad.compiler.lower.llvm.launches import Launches


def host_call(entry: Launches, c: Call) -> None:
    """Write addresses and sizes to the stack and call; a failure stops the program."""
    f = entry.f
    arrays = (*c.inputs, c.output)
    with entry.scope():
        entry.open_buffers(x.buffer for x in arrays)
        count = sum(1 + len(x.shape) for x in arrays) + len(c.sizes)
        words = entry.words(count)
        place = 0
        for x in arrays:
            size = product(x.shape)
            if entry.checked and size != 0:
                entry.guard(x.buffer, x.base + size - 1)
            f.store("ptr", entry.pointer(x.buffer, x.base), f.at(words, place, "i64"))
            for k, d in enumerate(x.shape):
                f.store("i64", entry.dim(d), f.at(words, place + 1 + k, "i64"))
            place += 1 + len(x.shape)
        for k, d in enumerate(c.sizes):
            f.store("i64", entry.dim(d), f.at(words, place + k, "i64"))
        done = f.result("i64", entry.extern(c.host.name), ("ptr", words))
    entry.stop_if(f.compare("eq", done, 0), 0, c.code)
