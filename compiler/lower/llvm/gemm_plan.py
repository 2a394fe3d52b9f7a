"""How the work of a matrix product is cut, decided when it is called.

Nothing here changes a bit of a result.
"""

from __future__ import annotations

from dualgrad.compiler.kernel.ir import K_BLOCK
from dualgrad.compiler.kernel.walks import ENTRY_WORDS
from dualgrad.compiler.lower.llvm.emit import Function, Value
from dualgrad.compiler.lower.llvm.gemm_steps import (
    HEADER_BYTES,
    TILE_BYTES,
    Record,
    depth,
    spread,
)
from dualgrad.compiler.lower.llvm.gemm_tiling import Tiling

# Found by measuring on a core with 32 kB + 1 MB of cache.
SHARED_A_BYTES = 13 << 16  # packed A that stays in the second-level cache
SHARED_B_BYTES = 1 << 19  # packed B that does, while panels of A are packed and used beside it
_PANELS_PER_THREAD = 4  # row panels that keep threads busy to the end
# Column panels up to which A is read where it lies: packing it would cost more than it saves.
_DIRECT_PANELS = 8
_DIRECT_ROWS = 8  # rows that may meet in the same places of a first-level cache
# Bytes that a block of columns of A^T may lie in, to be read where it is: more of them take more
# pages and more lines of few sets than a core keeps at hand.
_DIRECT_BYTES = 3 << 18
# Rows that walk evenly are read where they lie if panels have so many, and columns so few runs.
_EVEN_ROWS = 6
_EVEN_RUNS = 8
_ENDLESS = 1 << 62  # columns of a run that no block of K ends


def make_plan(t: Tiling, f: Function, desc: Record, plan: Record) -> None:
    """Fill a plan that knows `m`, `count` and `threads`."""
    n, k = desc["n"], desc["k"]
    thin = _is_thin(t, f, desc, plan)
    even = f.select(thin, 0, _even_rows(t, f, desc, plan["m"]))
    _cut_rows(t, f, plan, even)
    _cut_columns(t, f, n, plan, thin)
    k_step = f.ceil_quotient(k, f.ceil_quotient(k, K_BLOCK))
    deep = f.mul(depth(f, k_step), t.itemsize)  # bytes of a packed row of B^T
    share_a = _shares_a(t, f, desc, plan, f.mul(n, deep))
    block = f.ceil_quotient(f.quotient(SHARED_B_BYTES, deep), plan["width"])
    columns = f.select(share_a, n, f.mul(block, plan["width"]))
    plan["k_step"], plan["columns"] = k_step, columns
    plan["share_a"] = f.value(f"zext i1 {share_a} to i64")
    _lay_out(t, f, desc, plan, deep, share_a)
    _place_a(t, f, desc, plan, even)
    _choose_kernels(t, f, plan, thin)


def row_panels(t: Tiling, f: Function, m: Value) -> str:
    return f.ceil_quotient(m, t.height)


def a_fits(t: Tiling, f: Function, panels: Value) -> str:
    """Whether so many row panels of A may be shared."""
    return f.compare("sle", panels, SHARED_A_BYTES // (t.panel_size * t.itemsize))


def _even_rows(t: Tiling, f: Function, desc: Record, m: Value) -> str:
    """Rows of a panel of an A with tables that is read where it lies; 0: not that."""
    before, looks, after = f.block, f.new_block(), f.new_block()
    walks = "false" if t.widens else f.compare("ne", desc["a_rows"], "null", "ptr")
    f.branch(walks, looks, after)
    f.start(looks)
    rows = f.result("i64", "@even_rows", ("ptr", desc["a_rows"]), ("i64", m), ("i64", t.height))
    run = f.load("i64", f.at(desc["a_cols"], 1, "i64"))
    few = f.compare("sle", desc["k"], f.mul(run, _EVEN_RUNS))
    many = f.compare("sge", rows, _EVEN_ROWS)
    found = f.select(f.value(f"and i1 {few}, {many}"), rows, 0)
    end = f.block
    f.jump(after)
    f.start(after)
    return f.value(f"phi i64 [ 0, %{before} ], [ {found}, %{end} ]")


def _cut_rows(t: Tiling, f: Function, plan: Record, even: Value) -> None:
    m = plan["m"]
    panels = row_panels(t, f, m)
    panels = f.select(f.compare("eq", even, 0), panels, f.quotient(m, f.max(even, 1)))
    height = f.quotient(m, panels)
    plan["row_panels"], plan["height"] = panels, height
    plan["tall"] = f.sub(m, f.mul(panels, height))


def _is_thin(t: Tiling, f: Function, desc: Record, plan: Record) -> str:
    """Whether panels of B are transposed by kernels: few rows use them."""
    if not t.thin:
        return "false"
    low = f.compare("sle", plan["m"], t.height)
    across = f.value(f"and i1 {low}, {f.compare('eq', desc['b_row'], 1)}")
    alone = f.value(f"and i1 {f.compare('eq', plan['count'], 1)}, {across}")
    return f.value(f"and i1 {alone}, {f.compare('sgt', desc['n'], t.lanes)}")


def _cut_columns(t: Tiling, f: Function, n: str, plan: Record, thin: str) -> None:
    """The width of column panels: few rows leave registers for more columns."""
    width: Value = t.vectors(t.height) * t.lanes
    for height in range(t.height, 0, -1):
        wider = t.vectors(height) * t.lanes
        if wider != width:
            width = f.select(f.compare("sle", plan["height"], height), wider, width)
    width = f.select(f.compare("sle", n, t.lanes), t.lanes, width)
    plan["width"] = f.select(thin, t.thin_vectors * t.lanes, width)


def _shares_a(t: Tiling, f: Function, desc: Record, plan: Record, b_bytes: Value) -> str:
    """Whether A is shared; of several products together, the operand that they have in common."""
    rows = plan["row_panels"]
    fits = a_fits(t, f, rows)
    b_fits = f.compare("sle", b_bytes, SHARED_B_BYTES)
    enough = f.compare("sge", rows, f.max(f.mul(plan["threads"], _PANELS_PER_THREAD), 2))
    better = f.value(f"and i1 {b_fits}, {enough}")
    unpacked = f.compare("eq", desc["b_packed"], "null", "ptr")
    better = f.value(f"and i1 {better}, {unpacked}")
    alone = f.select(better, "false", fits, "i1")
    together = f.compare("ne", desc["b_batch"], 0)
    return f.select(f.compare("eq", plan["count"], 1), alone, together, "i1")


def _lay_out(t: Tiling, f: Function, desc: Record, plan: Record, deep: str, share_a: str) -> None:
    """The workspace: an area per thread, then the shared panels."""
    width = plan["width"]
    panel = f.max(f.mul(width, deep), t.panel_size * t.itemsize)
    area = f.add(panel, HEADER_BYTES + TILE_BYTES)
    plan["areas"], plan["area"] = desc["work"], area
    end = f.mul(f.max(plan["threads"], 1), area)
    plan["shared"] = f.at(desc["work"], end, "i8")
    a_bytes = f.mul(plan["row_panels"], t.panel_size * t.itemsize)
    columns = f.mul(f.ceil_quotient(f.min(desc["n"], plan["columns"]), width), width)
    shared = f.select(share_a, a_bytes, f.mul(columns, deep))
    plan["work_bytes"] = f.add(end, shared)


def _place_a(t: Tiling, f: Function, desc: Record, plan: Record, even: Value) -> None:
    """Whether A is packed, and how its elements then lie."""
    walks = f.compare("ne", even, 0)
    row = f.select(walks, _step_of_rows(f, desc, walks, plan), desc["a_row"])
    column = f.select(walks, 1, desc["a_col"])
    strided = "false" if t.widens else f.compare("eq", desc["a_rows"], "null", "ptr")
    few = f.compare("sle", desc["n"], f.mul(plan["width"], _DIRECT_PANELS))
    few = f.value(f"or i1 {walks}, {f.value(f'and i1 {few}, {strided}')}")
    low = f.compare("sle", plan["height"], _DIRECT_ROWS)
    fine = f.value(f"and i1 {few}, {f.value(f'or i1 {spread(t, f, row)}, {low}')}")
    by_columns = f.select(f.compare("eq", column, 1), "false", f.compare("eq", row, 1), "i1")
    far = f.mul(f.mul(plan["k_step"], column), t.itemsize)
    near = f.compare("sle", far, _DIRECT_BYTES)
    fine = f.value(f"and i1 {fine}, {f.select(by_columns, near, 'true', 'i1')}")
    plan["a_place"], plan["a_run"] = 0, _ENDLESS
    plan["direct_a"] = f.value(f"zext i1 {fine} to i64")
    packed_row = f.select(by_columns, 1, t.row_pitch)
    packed_step = f.select(by_columns, t.column_pitch, 1)
    plan["a_row"] = f.mul(f.select(fine, row, packed_row), t.itemsize)
    plan["a_step"] = f.mul(f.select(fine, column, packed_step), t.itemsize)


def _step_of_rows(f: Function, desc: Record, walks: str, plan: Record) -> str:
    """How far the rows of an A with tables lie apart."""
    words = f.select(walks, desc["a_rows"], plan.pointer, "ptr")
    first, second = (f.load("i64", f.at(words, word, "i64")) for word in (0, ENTRY_WORDS))
    return f.sub(second, first)


def _choose_kernels(t: Tiling, f: Function, plan: Record, thin: str) -> None:
    height = plan["height"]
    kernel = f.result("ptr", "@thin_of", ("i64", height)) if t.thin else "null"
    plan["thin"] = f.select(thin, kernel, "null", "ptr")
    for name, rows in (("short", height), ("taller", f.add(height, 1))):
        for suffix, narrow in (("", "false"), ("1", "true")):
            kernel = f.result("ptr", "@kernel_of", ("i64", rows), ("i1", narrow))
            plan[name + suffix] = kernel
