"""Kernels of a round in one pass of the thread pool.

The chunks of all kernels are numbered through.  A function runs a chunk by the kernel that it
belongs to, with a frame of its own: what says how many chunks there are, and where buffers are,
differs from kernel to kernel.
"""

from __future__ import annotations

from collections.abc import Sequence

from dualgrad.compiler.kernel.ir import Kernel
from dualgrad.compiler.kernel.rounds import is_parallel
from dualgrad.compiler.lower.llvm.cost import work_of
from dualgrad.compiler.lower.llvm.emit import Value
from dualgrad.compiler.lower.llvm.frame import CHUNKS, Parts
from dualgrad.compiler.lower.llvm.launches import SERIAL_BELOW, Launches, Shared
from dualgrad.runtime.records import dataclass


@dataclass(frozen=True)
class Work:
    """A kernel, and the function that does its work: of its own, or one that serves others too."""

    kernel: Kernel
    function: str
    shared: Shared | None


def pays(round: Sequence[Work]) -> bool:
    """Whether a round may be long enough for threads."""
    if len(round) < 2:
        return False
    total = sum((work_of(w.kernel) for w in round), start=0)
    return not isinstance(total, int) or total >= SERIAL_BELOW


def pass_function(name: str, round: Sequence[Work], parts: Parts) -> str:
    """The function that runs a chunk of any kernel of a round."""
    signature = f"internal void {name}(ptr %frame, i64 %chunk, i64 %tid)"
    code = Launches(signature, parts.frame.slots, parts)
    f, frame = code.f, parts.frame
    own = f.early(f"alloca [{frame.size} x i64], align 64")
    with f.loop(0, frame.size) as i:
        f.store("i64", f.load("i64", f.at("%frame", i, "i64")), f.at(own, i, "i64"))
    first: Value = 0
    for k, work in enumerate(round):
        stop = f.load("i64", f.at("%frame", frame.stops + k, "i64"))
        mine, others = f.new_block(), f.new_block()
        f.branch(f.compare("slt", "%chunk", stop), mine, others)
        f.start(mine)
        f.store("i64", f.sub(stop, first), f.at(own, CHUNKS, "i64"))
        if work.shared is not None:
            work.shared.open_windows(code, work.kernel, own)
        chunk = f.sub("%chunk", first)
        f.call(work.function, ("ptr", own), ("i64", chunk), ("i64", "%tid"))
        f.jump(code.exit)
        f.start(others)
        first = stop
    return code.finish()


def run_pass(code: Launches, name: str, round: Sequence[Work]) -> None:
    """Cut the kernels of a round into chunks, and run these on the thread pool."""
    f, stops = code.f, code.frame.stops
    largest = code.names.intrinsic("llvm.smax.i64", "i64", "i64", "i64")
    stop: Value = 0
    for k, work in enumerate(round):
        chunks: Value = 1
        if is_parallel(work.kernel):
            chunks = code.chunks(work.kernel, code.dim(work_of(work.kernel)))
            chunks = f.result("i64", largest, ("i64", 1), ("i64", chunks))
        stop = f.add(stop, chunks)
        f.store("i64", stop, f.at("%frame", stops + k, "i64"))
    code.parallel_for(name, stop)
