"""The matrix product C = A B of any shape and strides, as a library routine.

    gemm_f32(desc)       desc: i64 slots named in DESC

Each sum over K is cut as `kernel.ir` says for Contract: the order depends on K alone, so strides,
tiles and threads never change a bit of the result.

Rows are split evenly into panels of at most `height` rows, columns into panels of `width`.  One
operand is *shared*: all threads pack its panels together.  Panels of the other belong to the
thread that takes them, which packs them into its own cache and multiplies them with all shared
panels.  A is shared if it fits the second-level cache (then a column panel at a time is packed and
used), else B is, in blocks of columns that do (then a row panel at a time).

    for block of columns:                 one if A is shared
        for block of K:
            pack the shared operand       parallel over its panels
            multiply                      parallel over the other operand
"""

from __future__ import annotations

from dualgrad.compiler.ir.dims import Dim
from dualgrad.compiler.kernel.ir import K_BLOCK
from dualgrad.compiler.lower.llvm.emit import Function, Value
from dualgrad.compiler.lower.llvm.gemm_micro import kernels
from dualgrad.compiler.lower.llvm.gemm_pack import packing
from dualgrad.compiler.lower.llvm.gemm_steps import (
    DEPTH,
    DESC,
    HEADER_BYTES,
    PLAN,
    TILE_BYTES,
    Record,
    call_epilogue,
    depth,
    steps,
)
from dualgrad.compiler.lower.llvm.gemm_tiling import LINE_BYTES, Tiling, tiling
from dualgrad.compiler.lower.llvm.gemm_walk import walk_packing
from dualgrad.runtime.dtype import ALL, DType
from dualgrad.runtime.program import Target

__all__ = ["DESC", "gemm_module", "routine_module", "routine_name", "workspace_bytes"]

# Found by measuring on a core with 32 kB + 1 MB of cache; none of these changes a result.
_SERIAL_BELOW = 400_000  # multiply-adds that cost less than waking a thread
_SHARED_A_BYTES = 13 << 16  # packed A that stays in the second-level cache
_SHARED_B_BYTES = 1 << 19  # packed B that does, while panels of A are packed and used beside it
_PANELS_PER_THREAD = 4  # row panels that keep threads busy to the end
_ITEMS_PER_THREAD = 8  # parts of column panels that do
_CHUNKS_PER_THREAD = 16

_ROW_BYTES = K_BLOCK * 8 + LINE_BYTES  # the longest row of packed A
_COLUMN_BYTES = (K_BLOCK + DEPTH) * 8  # the longest column of packed B
_PANEL_BYTES = 512  # the widest row of a panel of B: eight registers of 64 bytes


def routine_name(dtype: DType) -> str:
    """The symbol of the routine for `dtype`."""
    return f"gemm_{dtype.short}"


def gemm_module(dtype: DType, target: Target) -> str:
    """LLVM IR of the routine for `dtype` on `target`.

    Raises DTypeError unless dtype is a float or an integer of 32 or 64 bits.
    """
    t = tiling(dtype, target)
    head = f'target triple = "{target.triple}"\n' + t.declarations()
    body = kernels(t) + packing(t) + walk_packing(t) + steps(t)
    return head + body + _routine(t, routine_name(dtype))


def routine_module(name: str, target: Target) -> str:
    """LLVM IR of the routine with this symbol."""
    dtype = next(d for d in ALL if d.kind != "b" and routine_name(d) == name)
    return gemm_module(dtype, target)


def workspace_bytes(m: Dim, n: Dim, k: Dim, threads: Dim) -> Dim:
    """An upper bound of the scratch that an (m x k)(k x n) product on `threads` threads needs,
    for every dtype and target.  Sizes may be symbolic: only + - * // are used.
    """
    deepest = _bounded(k, K_BLOCK) + DEPTH
    area = HEADER_BYTES + TILE_BYTES + 16 * _ROW_BYTES + deepest * _PANEL_BYTES
    # panels are padded by at most a third, or to 16 rows of A and 32 columns of B
    shared_a = _bounded((m * 4 // 3 + 16) * _ROW_BYTES, _SHARED_A_BYTES)
    shared_b = _bounded((n + 32) * _COLUMN_BYTES, _SHARED_B_BYTES + 32 * _COLUMN_BYTES)
    return threads * area + shared_a + shared_b


def _bounded(x: Dim, limit: int) -> Dim:
    """min(x, limit)."""
    below = 1 // (1 + x // (limit + 1))  # 1 if x <= limit, else 0
    return limit + below * (x - limit)


def _routine(t: Tiling, name: str) -> str:
    f = Function(f"void @{name}(ptr %desc)", rare=True)
    f.do(f"%plan = alloca [{len(PLAN)} x i64], align 64")
    desc, plan = Record(f, "%desc", DESC), Record(f, "%plan", PLAN)
    m, n, k = desc["m"], desc["n"], desc["k"]
    with f.when(f.compare("sgt", f.min(m, n), 0)):
        empty = f.compare("eq", k, 0)
        with f.when(empty):
            _clear(t, f, desc)
        with f.otherwise(empty):
            _multiply(t, f, desc, plan)
    return f.text()


def _clear(t: Tiling, f: Function, desc: Record) -> None:
    """C = 0: the sum over an empty K."""
    m, n = desc["m"], desc["n"]
    with f.loop(0, m) as i, f.loop(0, n) as j:
        place = t.at(f, desc["c"], f.add(f.mul(i, desc["c_row"]), j))
        f.store(t.element, "zeroinitializer", place, t.itemsize)
    call_epilogue(f, desc, 0, m, 0, n)


def _multiply(t: Tiling, f: Function, desc: Record, plan: Record) -> None:
    m, n, k = desc["m"], desc["n"], desc["k"]
    work = f.mul(f.mul(m, n), k)
    threads = f.select(f.compare("slt", work, _SERIAL_BELOW), 0, desc["parallel"])
    plan["desc"], plan["key"] = "%desc", 1
    _cut_rows(t, f, m, plan)
    _cut_columns(t, f, n, plan)
    k_step = f.ceil_quotient(k, f.ceil_quotient(k, K_BLOCK))
    deep = f.mul(depth(f, k_step), t.itemsize)
    share_a, columns = _choose(t, f, plan, threads, n, deep)
    _lay_out(t, f, desc, plan, threads, deep)

    share = f.select(share_a, "@share_a", "@share_b", "ptr")
    multiply = f.select(share_a, "@multiply_by_columns", "@multiply_by_rows", "ptr")
    with f.loop(0, n, columns) as column0:
        count = f.ceil_quotient(f.min(f.sub(n, column0), columns), plan["width"])
        plan["column0"], plan["column_panels"] = column0, count
        plan["parts"] = _parts(f, plan, threads)
        shared = f.select(share_a, plan["row_panels"], count)
        items = f.select(share_a, f.mul(count, plan["parts"]), plan["row_panels"])
        with f.loop(0, k, k_step) as k0:
            plan["k0"], plan["k"] = k0, f.min(k_step, f.sub(k, k0))
            _run(f, desc, plan, threads, share, shared)
            _run(f, desc, plan, threads, multiply, items)
            plan["key"] = f.add(plan["key"], count)


def _cut_rows(t: Tiling, f: Function, m: str, plan: Record) -> None:
    panels = f.ceil_quotient(m, t.height)
    height = f.quotient(m, panels)
    plan["row_panels"], plan["height"] = panels, height
    plan["tall"] = f.sub(m, f.mul(panels, height))


def _cut_columns(t: Tiling, f: Function, n: str, plan: Record) -> None:
    """The width of column panels: few rows leave registers for more columns."""
    width: Value = t.vectors(t.height) * t.lanes
    for height in range(t.height, 0, -1):
        wider = t.vectors(height) * t.lanes
        if wider != width:
            width = f.select(f.compare("sle", plan["height"], height), wider, width)
    plan["width"] = f.select(f.compare("sle", n, t.lanes), t.lanes, width)


def _choose(
    t: Tiling, f: Function, plan: Record, threads: str, n: str, deep: str
) -> tuple[str, str]:
    """Whether A is shared, and the columns of a block.  `deep`: bytes of a packed row of B^T."""
    rows, width = plan["row_panels"], plan["width"]
    a_fits = f.compare("sle", rows, _SHARED_A_BYTES // (t.panel_size * t.itemsize))
    b_fits = f.compare("sle", f.mul(n, deep), _SHARED_B_BYTES)
    enough = f.compare("sge", rows, f.max(f.mul(threads, _PANELS_PER_THREAD), 2))
    better = f.value(f"and i1 {b_fits}, {enough}")
    share_a = f.select(better, "false", a_fits, "i1")
    block = f.ceil_quotient(f.quotient(_SHARED_B_BYTES, deep), width)
    return share_a, f.select(share_a, n, f.mul(block, width))


def _lay_out(t: Tiling, f: Function, desc: Record, plan: Record, threads: str, deep: str) -> None:
    """The workspace: an area per thread, then the shared panels."""
    panel = f.max(f.mul(plan["width"], deep), t.panel_size * t.itemsize)
    area = f.add(panel, HEADER_BYTES + TILE_BYTES)
    plan["areas"], plan["area"] = desc["work"], area
    end = f.mul(f.max(threads, 1), area)
    with f.loop(0, end, area) as start:
        f.store("i64", 0, f.at(desc["work"], start, "i8"))
    plan["shared"] = f.at(desc["work"], end, "i8")


def _parts(f: Function, plan: Record, threads: str) -> str:
    """Parts of a column panel, so that threads have enough items to finish together."""
    wanted = f.ceil_quotient(f.mul(threads, _ITEMS_PER_THREAD), plan["column_panels"])
    return f.max(f.min(plan["row_panels"], wanted), 1)


def _run(f: Function, desc: Record, plan: Record, threads: str, step: str, items: str) -> None:
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
