"""Running a plan: the loops over the blocks of a matrix product, and products side by side.

@product(plan)             plan.count products, from plan.batch0 on
@each(plan, chunk, tid)    a share of the caller's products, one after another on this thread
@pack(plan)                B in panels, for products of at least `PACKED_ROWS` rows
"""

from __future__ import annotations

from dualgrad.compiler.kernel.ir import K_BLOCK
from dualgrad.compiler.lower.llvm.emit import Function, Value
from dualgrad.compiler.lower.llvm.gemm_steps import DESC, PLAN, Record, packed_block
from dualgrad.compiler.lower.llvm.gemm_tiling import Tiling

_ITEMS_PER_THREAD = 8  # parts of column panels that keep threads busy to the end
_CHUNKS_PER_THREAD = 16
_PACKED_SERIALLY = 1 << 16  # elements that are packed before a thread has woken up


def products(t: Tiling) -> str:
    """@product, @each and @pack."""
    return _product() + _each() + _pack(t)


def _product() -> str:
    f = Function("internal void @product(ptr %plan)", rare=True)
    plan = Record(f, "%plan", PLAN)
    desc = Record(f, plan["desc"], DESC)
    n, k, threads = desc["n"], desc["k"], plan["threads"]
    columns, k_step = plan["columns"], plan["k_step"]
    _clear_keys(f, plan, threads)
    plan["key"] = 1
    share_a = f.compare("ne", plan["share_a"], 0)
    share = f.select(share_a, "@share_a", "@share_b", "ptr")
    multiply = f.select(share_a, "@multiply_by_columns", "@multiply_by_rows", "ptr")
    with f.loop(0, n, columns) as column0:
        count = f.ceil_quotient(f.min(f.sub(n, column0), columns), plan["width"])
        plan["column0"], plan["column_panels"] = column0, count
        together = f.mul(count, plan["count"])
        plan["parts"] = _parts(f, plan, threads, together)
        rows = plan["row_panels"]
        packed_a = f.mul(rows, f.sub(1, plan["direct_a"]))
        packed = f.compare("ne", desc["b_packed"], "null", "ptr")
        shared = f.select(share_a, packed_a, f.select(packed, 0, count))
        by_columns, by_rows = f.mul(together, plan["parts"]), f.mul(rows, plan["count"])
        items = f.select(share_a, by_columns, by_rows)
        with f.loop(0, k, k_step) as k0:
            plan["k0"], plan["k"] = k0, f.min(k_step, f.sub(k, k0))
            with f.when(f.compare("ne", shared, 0)):
                run_step(f, desc, plan, threads, share, shared)
            run_step(f, desc, plan, threads, multiply, items)
            plan["key"] = f.add(plan["key"], together)
    return f.text()


def _clear_keys(f: Function, plan: Record, threads: str) -> None:
    """No thread holds a panel yet."""
    area = plan["area"]
    with f.loop(0, f.mul(f.max(threads, 1), area), area) as start:
        f.store("i64", 0, f.at(plan["areas"], start, "i8"))


def _parts(f: Function, plan: Record, threads: str, panels: Value) -> str:
    """Parts of a column panel, so that threads have enough items to finish together."""
    wanted = f.ceil_quotient(f.mul(threads, _ITEMS_PER_THREAD), panels)
    return f.max(f.min(plan["row_panels"], wanted), 1)


def run_step(
    f: Function, desc: Record, plan: Record, threads: str, step: str, items: Value
) -> None:
    """Run a step over its items, on the pool or, as one chunk, here."""
    parallel = f.compare("sgt", threads, 0)
    with f.when(parallel):
        chunks = f.min(items, f.mul(threads, _CHUNKS_PER_THREAD))
        plan["chunks"] = chunks
        arguments = (("ptr", desc["pool"]), ("ptr", step), ("ptr", "%plan"), ("i64", chunks))
        f.call(desc["parallel_for"], *arguments)
    with f.otherwise(parallel):
        plan["chunks"] = 1
        f.call(step, ("ptr", "%plan"), ("i64", 0), ("i64", 0))


def _each() -> str:
    f = Function("internal void @each(ptr %plan, i64 %chunk, i64 %tid)", rare=True)
    f.do(f"%own = alloca [{len(PLAN)} x i64], align 64")
    plan, own = Record(f, "%plan", PLAN), Record(f, "%own", PLAN)
    for name in PLAN:
        own[name] = plan[name]
    own["threads"] = 0
    further = f.mul("%tid", plan["work_bytes"])
    for name in ("areas", "shared"):
        own[name] = f.at(plan[name], further, "i8")
    batches, chunks = Record(f, plan["desc"], DESC)["batches"], plan["chunks"]
    first = f.quotient(f.mul("%chunk", batches), chunks)
    stop = f.quotient(f.mul(f.add("%chunk", 1), batches), chunks)
    with f.loop(first, stop) as batch:
        own["batch0"] = batch
        f.call("@product", ("ptr", "%own"))
    return f.text()


def _pack(t: Tiling) -> str:
    f = Function("internal void @pack(ptr %plan)", rare=True)
    plan = Record(f, "%plan", PLAN)
    desc = Record(f, plan["desc"], DESC)
    n, k = desc["n"], desc["k"]
    few = f.compare("slt", f.mul(n, k), _PACKED_SERIALLY)
    threads = f.select(few, 0, desc["parallel"])
    k_step = f.ceil_quotient(k, f.ceil_quotient(k, K_BLOCK))
    wide = t.vectors(t.height) * t.lanes
    width = f.select(f.compare("sle", n, t.lanes), t.lanes, wide)
    panels = f.ceil_quotient(n, width)
    plan["batch0"], plan["column0"], plan["column_panels"] = 0, 0, panels
    plan["k_step"], plan["width"] = k_step, width
    with f.loop(0, k, k_step) as k0:
        plan["k0"], plan["k"] = k0, f.min(k_step, f.sub(k, k0))
        plan["shared"] = packed_block(t, f, desc, plan)
        run_step(f, desc, plan, threads, "@share_b", panels)
    return f.text()
