"""Register-tiled kernels: the inner loops of the matrix product.

    micro_HxV(a, b, b_row, c, c_row, k)     C[H, V vectors] = A[H, k] . B[k, V vectors]
    tile(..., add, rows, columns, ...)      a tile of any size, by the kernel of its height

Rows of A lie `row_pitch` elements apart, a constant: they are packed by plain copies and reach the
kernel by broadcasts at constant offsets.  Rows of B lie b_row elements apart, rows of C c_row;
k >= 1.

Each element of C is one chain of multiply-adds from zero, in the order of k, whatever the tile.
"""

from __future__ import annotations

from dualgrad.compiler.lower.llvm.emit import Function
from dualgrad.compiler.lower.llvm.gemm_tiling import Tiling

# Rows of B between its prefetch and its use: covers the latency of the second-level cache.
_PREFETCH_ROWS = 16

_OPERANDS = "ptr %a, ptr %b, i64 %b_row, ptr %c, i64 %c_row, i64 %k"


def kernels(t: Tiling) -> str:
    """The kernels of all heights, of full width and one vector wide, and @tile."""
    shapes = [(h, v) for h in range(1, t.height + 1) for v in sorted({1, t.vectors(h)})]
    return "".join(_micro_kernel(t, h, v) for h, v in shapes) + _tile(t) + _merge(t)


def _micro_kernel(t: Tiling, height: int, vectors: int) -> str:
    f = Function(f"internal void @micro_{height}x{vectors}({_OPERANDS})")
    ahead = f.mul("%b_row", _PREFETCH_ROWS)
    stop = t.at(f, "%a", "%k")

    turn = f.repeat()
    a, b = turn.carry("ptr", "%a"), turn.carry("ptr", "%b")
    sums = [turn.carry(t.vector, "zeroinitializer") for _ in range(height * vectors)]
    later = t.at(f, b, ahead)
    for j in range(vectors):
        t.prefetch(f, t.at(f, later, j * t.lanes))
    sums = _multiply_add_row(t, f, a, b, sums, vectors)
    a, b = t.at(f, a, 1), t.at(f, b, "%b_row")
    turn.close(f.compare("ne", a, stop, "ptr"), [a, b, *sums])
    _store(t, f, sums, vectors)
    return f.text()


def _multiply_add_row(
    t: Tiling, f: Function, a: str, b: str, sums: list[str], vectors: int
) -> list[str]:
    """sums + column of A x row of B, for one k."""
    row = [t.load(f, t.at(f, b, j * t.lanes)) for j in range(vectors)]
    out = []
    for i in range(len(sums) // vectors):
        x = t.splat(f, f.load(t.element, t.at(f, a, i * t.row_pitch), t.itemsize))
        out += [t.multiply_add(f, x, row[j], sums[i * vectors + j]) for j in range(vectors)]
    return out


def _store(t: Tiling, f: Function, sums: list[str], vectors: int) -> None:
    c = "%c"
    for first in range(0, len(sums), vectors):
        for j in range(vectors):
            t.store(f, sums[first + j], t.at(f, c, j * t.lanes))
        c = t.at(f, c, "%c_row")


def _tile(t: Tiling) -> str:
    """@tile(a, b, b_row, c, c_row, k, add, rows, columns, width, scratch): C[rows, columns] =
    or += A . B, where columns <= width, the width of panels of this height.

    Kernels write whole vectors and never add.  Where that does not do, the tile is computed in
    scratch of rows x width elements and merged.
    """
    f = Function(
        f"internal void @tile({_OPERANDS}, i1 %add, i64 %rows, i64 %columns, i64 %width, "
        "ptr %scratch)"
    )
    narrow = f.compare("sle", "%columns", t.lanes)
    ragged = f.compare("ne", "%columns", f.select(narrow, t.lanes, "%width"))
    indirect = f.value(f"or i1 {ragged}, %add")
    c = f.select(indirect, "%scratch", "%c", "ptr")
    c_row = f.select(indirect, "%width", "%c_row")
    operands = f"ptr %a, ptr %b, i64 %b_row, ptr {c}, i64 {c_row}, i64 %k"

    after = f.new_block()
    cases = [(height, f.new_block()) for height in range(1, t.height + 1)]
    table = " ".join(f"i64 {height}, label %{block}" for height, block in cases)
    f.do(f"switch i64 %rows, label %{after} [{table}]")
    for height, block in cases:
        f.start(block)
        one, wide = f.new_block(), f.new_block()
        f.branch(narrow, one, wide)
        for start, vectors in ((one, 1), (wide, t.vectors(height))):
            f.start(start)
            f.do(f"call void @micro_{height}x{vectors}({operands})")
            f.jump(after)
    f.start(after)
    with f.when(indirect):
        f.do(
            "call void @merge(ptr %scratch, i64 %width, ptr %c, i64 %c_row, i1 %add, "
            "i64 %rows, i64 %columns)"
        )
    return f.text()


def _merge(t: Tiling) -> str:
    """@merge(x, x_row, c, c_row, add, rows, columns): C = X or C = C + X."""
    f = Function(
        "internal void @merge(ptr %x, i64 %x_row, ptr %c, i64 %c_row, i1 %add, i64 %rows, "
        "i64 %columns)"
    )
    whole = f.value(f"and i64 %columns, {-t.lanes}")
    mask = t.mask(f, f.sub("%columns", whole))
    with f.loop(0, "%rows") as i:
        x, c = t.at(f, "%x", f.mul(i, "%x_row")), t.at(f, "%c", f.mul(i, "%c_row"))
        with f.loop(0, whole, t.lanes) as j:
            place = t.at(f, c, j)
            t.store(f, _merged(t, f, t.load(f, t.at(f, x, j)), t.load(f, place)), place)
        with f.when(f.compare("ne", whole, "%columns")):
            place = t.at(f, c, whole)
            old = t.load_masked(f, place, mask)
            t.store_masked(f, _merged(t, f, t.load(f, t.at(f, x, whole)), old), place, mask)
    return f.text()


def _merged(t: Tiling, f: Function, new: str, old: str) -> str:
    return f.select("%add", t.add(f, old, new), new, t.vector)
