"""Products with a small result and a long K, as the gradients of small kernels are: threads share
the blocks of K.

    @blocks(plan, chunk, tid)    the sums of a share of the blocks, each into memory of its own, by
                                 calls of the routine; they are added in their order afterwards

Nothing here changes a bit of a result: a block alone is summed as it is among others.
"""

from __future__ import annotations

from dualgrad.compiler.ir.dims import Dim
from dualgrad.compiler.kernel.ir import K_BLOCK
from dualgrad.compiler.lower.llvm.emit import Function, Value
from dualgrad.compiler.lower.llvm.gemm_product import run_step
from dualgrad.compiler.lower.llvm.gemm_steps import DESC, PLAN, Record
from dualgrad.compiler.lower.llvm.gemm_tiling import LINE_BYTES, Tiling
from dualgrad.compiler.lower.llvm.gemm_walk import entry

LARGEST = 2048  # elements of a result that is small
LEAST_BLOCKS = 2  # for each thread
TOGETHER = 64  # blocks whose sums wait for each other


def partial_bytes(m: Dim, n: Dim) -> Dim:
    """Memory for the sums of blocks."""
    return TOGETHER * (m * n * 8 + LINE_BYTES)


def takes_blocks(f: Function, desc: Record, threads: Value) -> str:
    """Whether threads are to share the blocks of K."""
    small = f.compare("sle", f.mul(desc["m"], desc["n"]), LARGEST)
    enough = f.compare("sge", desc["k"], f.mul(threads, LEAST_BLOCKS * K_BLOCK))
    alone = f.compare("eq", desc["batches"], 1)
    unpacked = f.compare("eq", desc["b_packed"], "null", "ptr")
    shared = f.value(f"and i1 {unpacked}, {f.compare('sgt', threads, 1)}")
    both = f.value(f"and i1 {small}, {enough}")
    return f.value(f"and i1 {both}, {f.value(f'and i1 {alone}, {shared}')}")


def share_blocks(t: Tiling, f: Function, desc: Record, plan: Record, area: Value) -> None:
    """The product; each thread has so many bytes of scratch memory."""
    threads = plan["threads"]
    plan["area"], plan["areas"] = area, desc["work"]
    plan["shared"] = f.at(desc["work"], f.mul(threads, area), "i8")
    k = desc["k"]
    count = f.ceil_quotient(k, K_BLOCK)
    plan["k_step"] = f.ceil_quotient(k, count)
    size = t.itemsize
    row, step = f.mul(desc["n"], size), _partial(t, f, desc)
    with f.loop(0, count, TOGETHER) as first:
        several = f.min(f.sub(count, first), TOGETHER)
        plan["k0"] = f.mul(first, plan["k_step"])
        plan["parts"] = several
        run_step(f, desc, plan, threads, "@blocks", several)
        with f.loop(0, several) as block:
            part = f.at(plan["shared"], f.mul(block, step), "i8")
            target = ("ptr", desc["c"]), ("i64", f.mul(desc["c_row"], size))
            adds = ("i1", f.compare("sgt", f.add(first, block), 0))
            sizes = ("i64", desc["m"]), ("i64", desc["n"])
            f.call("@merge", ("ptr", part), ("i64", row), *target, adds, *sizes)
    bounds = (("i64", x) for x in (0, 0, desc["m"], 0, desc["n"]))
    f.call("@finish", ("ptr", "%plan"), *bounds)


def _partial(t: Tiling, f: Function, desc: Record) -> str:
    """Bytes of the sums of a block: a vector may be read from every element on."""
    return f.add(f.mul(f.mul(desc["m"], desc["n"]), t.itemsize), LINE_BYTES)


def blocks(t: Tiling, name: str) -> str:
    """@blocks, which calls the routine of this name."""
    f = Function("internal void @blocks(ptr %plan, i64 %chunk, i64 %tid)", rare=True)
    f.do(f"%own = alloca [{len(DESC)} x i64], align 64")
    plan, own = Record(f, "%plan", PLAN), Record(f, "%own", DESC)
    desc = Record(f, plan["desc"], DESC)
    for slot in DESC:
        own[slot] = desc[slot]
    own["parallel"], own["epilogue"], own["c_row"] = 0, "null", desc["n"]
    own["work"] = f.at(plan["areas"], f.mul("%tid", plan["area"]), "i8")
    count, chunks = plan["parts"], plan["chunks"]
    low = f.quotient(f.mul("%chunk", count), chunks)
    high = f.quotient(f.mul(f.add("%chunk", 1), count), chunks)
    with f.loop(low, high) as block:
        k0 = f.add(plan["k0"], f.mul(block, plan["k_step"]))
        own["k"] = f.min(plan["k_step"], f.sub(desc["k"], k0))
        for x, along in (("a", "a_col"), ("b", "b_row")):
            own[x] = t.from_at(f, desc[x], f.mul(k0, desc[along]))
        for table in ("a_cols", "b_rows"):
            walks = f.compare("ne", desc[table], "null", "ptr")
            own[table] = f.select(walks, entry(f, desc[table], k0), "null", "ptr")
        own["c"] = f.at(plan["shared"], f.mul(block, _partial(t, f, desc)), "i8")
        f.call(f"@{name}", ("ptr", "%own"))
    return f.text()
