"""Matrix products C = A B of any shapes and strides, as a library routine.

    gemm_f32(desc)       desc: i64 slots named in DESC

It takes a batch of them.  Operands have strides, or tables that say where their rows and columns
lie (`gemm_walk`).  Each sum over K is cut as `kernel.ir` says for Contract: the order
depends on K alone, so strides, tiles, batches and threads never change a bit of the result.

Rows are split evenly into panels of at most `height` rows, columns into panels of `width`.  One
operand is *shared*: all threads pack its panels together.  Panels of the other belong to the
thread that takes them, which packs them into its own cache and multiplies them with all shared
panels.  A is shared if it fits the second-level cache (then a column panel at a time is packed and
used), else B is, in blocks of columns that do (then a row panel at a time).

    for block of columns:                 one if A is shared
        for block of K:
            pack the shared operand       parallel over its panels
            multiply                      parallel over the other operand

B that several calls multiply by is packed once, by a call of its own: one with `pack_to`.

A batch becomes one product where all have the same B and their rows continue each other; where an
operand is the same for all, it is shared, and packed once; else many products, or small ones, go
one to a thread, and few large ones one after another.  Of a small C threads share the blocks of K.
"""

from __future__ import annotations

from dualgrad.compiler.ir.dims import Dim
from dualgrad.compiler.kernel.ir import K_BLOCK, Contract, Pack
from dualgrad.compiler.lower.llvm.emit import Function, Value
from dualgrad.compiler.lower.llvm.gemm_blocks import (
    LARGEST,
    LEAST_BLOCKS,
    blocks,
    partial_bytes,
    share_blocks,
    takes_blocks,
)
from dualgrad.compiler.lower.llvm.gemm_micro import kernels
from dualgrad.compiler.lower.llvm.gemm_pack import packing
from dualgrad.compiler.lower.llvm.gemm_plan import (
    SHARED_A_BYTES,
    SHARED_B_BYTES,
    a_fits,
    make_plan,
    row_panels,
)
from dualgrad.compiler.lower.llvm.gemm_product import products, run_step
from dualgrad.compiler.lower.llvm.gemm_steps import (
    DEPTH,
    DESC,
    HEADER_BYTES,
    PLAN,
    TILE_BYTES,
    Record,
    finish,
    steps,
)
from dualgrad.compiler.lower.llvm.gemm_thin import thin_kernels
from dualgrad.compiler.lower.llvm.gemm_tiling import LINE_BYTES, THIN_ROWS, Tiling, tiling
from dualgrad.compiler.lower.llvm.gemm_walk import walk_packing
from dualgrad.runtime.dtype import ALL, DType, float32
from dualgrad.runtime.program import Target

__all__ = [
    "DESC", "gemm_module", "packed_size", "routine_module", "routine_name", "routine_of",
    "serial_bytes", "workspace_bytes",
]  # fmt: skip

_SERIAL_BELOW = 400_000  # multiply-adds that cost less than waking a thread
_PRODUCTS_PER_THREAD = 2  # so many keep threads as busy as sharing each of them would

_ROW_BYTES = K_BLOCK * 8 + LINE_BYTES  # the longest row of packed A
_COLUMN_BYTES = (K_BLOCK + DEPTH) * 8  # the longest column of packed B
_PANEL_BYTES = 512  # the widest row of a panel of B: eight registers of 64 bytes
# a thread's area for a block of K, and what its shared panels are padded by
_BLOCK_BYTES = (
    HEADER_BYTES + TILE_BYTES + (K_BLOCK + DEPTH) * _PANEL_BYTES + 32 * (_ROW_BYTES + _COLUMN_BYTES)
)


def routine_name(dtype: DType, operands: DType, thin: bool = False) -> str:
    """The symbol of the routine for products of `dtype`; `operands` is their dtype in memory.

    One for thin products takes those of at most THIN_ROWS rows: two panels of rows may want
    columns of different widths, as those of taller tiles never do.
    """
    kind = "" if operands is dtype else f"_{operands.short}"
    return f"gemm_{dtype.short}{kind}{'_thin' if thin else ''}"


def routine_of(c: Contract | Pack) -> str:
    """The symbol of the routine that a product calls, or the packing for some."""
    if isinstance(c, Pack):
        return routine_name(c.packed.dtype, c.packed.dtype)
    few = isinstance(c.m, int) and c.m <= THIN_ROWS and (c.batch == 1 or c.b.batch != 0)
    thin = few and not (c.packed or c.b.walks) and c.b.strides[0] == 1
    return routine_name(c.result.dtype, c.a.buffer.dtype, thin)


def gemm_module(dtype: DType, operands: DType, target: Target, thin: bool = False) -> str:
    """LLVM IR of the routine for products of `dtype` on `target`.

    Operands are of that dtype, or of float16 or bfloat16 if it is float32.  Raises DTypeError
    unless dtype is a float or an integer of 32 or 64 bits.
    """
    t = tiling(dtype, operands, target, thin)
    head = f'target triple = "{target.triple}"\n' + t.declarations()
    name = routine_name(dtype, operands, thin)
    body = kernels(t) + (thin_kernels(t) if thin else "") + packing(t) + walk_packing(t)
    body += finish() + steps(t) + products(t) + blocks(t, name)
    return head + body + _routine(t, name)


def routine_module(name: str, target: Target) -> str:
    """LLVM IR of the routine with this symbol."""
    pairs = [(d, d) for d in ALL if d.kind != "b"] + [(float32, d) for d in ALL if d.is_low]
    kinds = [(*pair, thin) for pair in pairs for thin in (False, True)]
    dtype, operands, thin = next(kind for kind in kinds if routine_name(*kind) == name)
    return gemm_module(dtype, operands, target, thin)


def workspace_bytes(batches: Dim, m: Dim, n: Dim, k: Dim, threads: Dim) -> Dim:
    """An upper bound of the scratch that products (m x k)(k x n) on `threads` threads need, for
    every dtype and target.  Sizes may be symbolic: only + - * // are used.
    """
    area, shared = _areas(batches * m, n, k)
    alone = threads * area + shared
    many = threads * (area + shared)
    if isinstance(batches, int) and batches != 1:
        return many
    short = 1 // (1 + k // (LEAST_BLOCKS * K_BLOCK * threads))
    blocks_apart = (
        _is_at_most(m * n, LARGEST)
        * (1 - short)
        * (threads * _block_area(m, n) + partial_bytes(m, n))
    )
    return (alone if batches == 1 else many) + blocks_apart


def serial_bytes(m: Dim, n: Dim, k: Dim) -> Dim:
    """An upper bound of the scratch that one product needs which no other thread takes part in."""
    area, shared = _areas(m, n, k)
    return area + shared


def _areas(rows: Dim, n: Dim, k: Dim) -> tuple[Dim, Dim]:
    """Bytes of a thread's own scratch, and of what threads share, for so many rows of A."""
    deepest = _bounded(k, K_BLOCK) + DEPTH
    area = HEADER_BYTES + TILE_BYTES + 16 * _ROW_BYTES + deepest * _PANEL_BYTES
    # panels are padded by at most a third, or to 16 rows of A and 32 columns of B
    shared_a = _bounded((rows * 4 // 3 + 16) * _ROW_BYTES, SHARED_A_BYTES)
    shared_b = _bounded((n + 32) * _COLUMN_BYTES, SHARED_B_BYTES + 32 * _COLUMN_BYTES)
    return area, shared_a + shared_b


def _block_area(m: Dim, n: Dim) -> Dim:
    """Scratch for one block of K of a product with a small result."""
    return _BLOCK_BYTES + m * 4 // 3 * _ROW_BYTES + n * _COLUMN_BYTES


def _is_at_most(x: Dim, limit: int) -> Dim:
    """1 if x <= limit, else 0."""
    return 1 // (1 + x // (limit + 1))


def packed_size(n: int, k: int) -> int:
    """An upper bound of the elements of packed B (k x n), for every dtype and target."""
    return (n + _PANEL_BYTES // 8) * (k + DEPTH * (-(-k // K_BLOCK)))


def _bounded(x: Dim, limit: int) -> Dim:
    """min(x, limit)."""
    return limit + _is_at_most(x, limit) * (x - limit)


def _routine(t: Tiling, name: str) -> str:
    f = Function(f"void @{name}(ptr %desc)", rare=True)
    f.do(f"%plan = alloca [{len(PLAN)} x i64], align 64")
    desc, plan = Record(f, "%desc", DESC), Record(f, "%plan", PLAN)
    packs = f.compare("ne", desc["pack_to"], "null", "ptr")
    with f.when(packs):
        plan["desc"] = "%desc"
        f.call("@pack", ("ptr", "%plan"))
    smallest = f.min(f.min(desc["m"], desc["n"]), desc["batches"])
    with f.when(f.compare("sgt", smallest, 0)):
        plan["desc"], plan["batch0"], plan["split"] = "%desc", 0, desc["m"]
        empty = f.compare("eq", desc["k"], 0)
        with f.when(empty):
            _clear(t, f, desc)
        with f.otherwise(empty):
            _multiply(t, f, desc, plan)
    return f.text()


def _clear(t: Tiling, f: Function, desc: Record) -> None:
    """C = 0: the sum over an empty K."""
    m, n = desc["m"], desc["n"]
    with f.loop(0, desc["batches"]) as b:
        with f.loop(0, m) as i, f.loop(0, n) as j:
            offset = f.add(f.mul(b, desc["c_batch"]), f.add(f.mul(i, desc["c_row"]), j))
            place = t.at(f, desc["c"], offset)
            f.store(t.element, "zeroinitializer", place, t.itemsize)
        bounds = (("i64", x) for x in (b, 0, m, 0, n))
        f.call("@finish", ("ptr", "%plan"), *bounds)


def _multiply(t: Tiling, f: Function, desc: Record, plan: Record) -> None:
    merged = _is_one(f, desc)
    batches = f.select(merged, 1, desc["batches"])
    m = f.select(merged, f.mul(desc["m"], desc["batches"]), desc["m"])
    plan["m"] = m
    work = f.mul(f.mul(m, desc["n"]), desc["k"])
    small = f.compare("slt", f.mul(work, batches), _SERIAL_BELOW)
    threads = f.select(small, 0, desc["parallel"])
    together = _have_common_operand(t, f, desc, m)
    plan["count"] = f.select(together, batches, 1)
    single = f.value(f"or i1 {together}, {f.compare('eq', batches, 1)}")
    enough = f.compare("sge", batches, f.mul(threads, _PRODUCTS_PER_THREAD))
    many = f.value(f"or i1 {enough}, {f.compare('slt', work, _SERIAL_BELOW)}")
    apart = f.select(single, "false", many, "i1")
    plan["threads"] = f.select(apart, 0, threads)
    by_blocks = takes_blocks(f, desc, threads)
    with f.when(by_blocks):
        area = f.add(f.mul(f.quotient(f.mul(desc["m"], 4), 3), _ROW_BYTES), _BLOCK_BYTES)
        share_blocks(t, f, desc, plan, f.add(area, f.mul(desc["n"], _COLUMN_BYTES)))
    with f.otherwise(by_blocks):
        make_plan(t, f, desc, plan)
        with f.when(apart):
            run_step(f, desc, plan, threads, "@each", batches)
        with f.otherwise(apart), f.loop(0, f.select(single, 1, batches)) as batch:
            plan["batch0"] = batch
            f.call("@product", ("ptr", "%plan"))


def _is_one(f: Function, desc: Record) -> str:
    """Whether the batch is one product: B is the same, and rows of A and C go on."""
    strided = f.compare("eq", desc["a_rows"], "null", "ptr")
    same = f.value(f"and i1 {strided}, {f.compare('eq', desc['b_batch'], 0)}")
    for x in ("a", "c"):
        following = f.mul(desc["m"], desc[f"{x}_row"])
        same = f.value(f"and i1 {same}, {f.compare('eq', desc[f'{x}_batch'], following)}")
    return f.value(f"or i1 {same}, {f.compare('eq', desc['batches'], 1)}")


def _have_common_operand(t: Tiling, f: Function, desc: Record, m: Value) -> str:
    """Whether an operand that can be shared is the same for all products."""
    fits = a_fits(t, f, row_panels(t, f, m))
    same_a = f.value(f"and i1 {fits}, {f.compare('eq', desc['a_batch'], 0)}")
    return f.value(f"or i1 {same_a}, {f.compare('eq', desc['b_batch'], 0)}")
