"""Packing: operands of any strides copied into the panels that the kernels read.

    @pack_a(src, row, col, rows, k, dst)           rows x k of A -> rows of t.row_pitch, or, where
                                                   row is 1, columns of t.column_pitch
    @pack_b(src, row, col, columns, width, k, dst)     k x columns of B -> rows of `width`

Strides are in elements.  A unit stride of A is copied, of B in the direction of the panel's
vectors too; the other unit stride of B is transposed in registers, anything else taken element by
element.  Columns of B from `columns` to `width` are filled with zeros or numbers of the panel,
because kernels read them.
"""

from __future__ import annotations

from collections.abc import Callable

from dualgrad.compiler.lower.llvm.emit import Function
from dualgrad.compiler.lower.llvm.gemm_micro import Multiples
from dualgrad.compiler.lower.llvm.gemm_tiling import Tiling


def packing(t: Tiling) -> str:
    """@pack_a, @pack_b and what they call."""
    return _transpose(t) + _transpose_strip(t) + _pack_a(t) + _pack_b(t)


def _pack_a(t: Tiling) -> str:
    f = Function("internal void @pack_a(ptr %src, i64 %row, i64 %col, i64 %rows, i64 %k, ptr %dst)")
    _by_strides(
        f,
        ("%col", lambda: _copy_rows_of_a(t, f)),
        ("%row", lambda: _copy_columns_of_a(t, f)),
        lambda: _gather_a(t, f),
    )
    return f.text()


def _pack_b(t: Tiling) -> str:
    f = Function(
        "internal void @pack_b(ptr %src, i64 %row, i64 %col, i64 %columns, i64 %width, i64 %k, "
        "ptr %dst)"
    )
    _by_strides(
        f,
        ("%col", lambda: _copy_b(t, f)),
        ("%row", lambda: _transpose_b(t, f)),
        lambda: _gather_b(t, f),
    )
    return f.text()


def _by_strides(
    f: Function,
    along: tuple[str, Callable[[], None]],
    across: tuple[str, Callable[[], None]],
    neither: Callable[[], None],
) -> None:
    """The first (stride, code) whose stride is 1, else `neither`."""
    first, second = (f.compare("eq", stride, 1) for stride, _ in (along, across))
    with f.when(first):
        along[1]()
    with f.otherwise(first):
        with f.when(second):
            across[1]()
        with f.otherwise(second):
            neither()


def _copy_rows_of_a(t: Tiling, f: Function) -> None:
    whole = f.value(f"and i64 %k, {-t.lanes}")
    mask = t.mask(f, f.sub("%k", whole))
    ragged = f.compare("ne", whole, "%k")
    with f.loop(0, "%rows") as r:
        source = t.from_at(f, "%src", f.mul(r, "%row"))
        place = t.at(f, "%dst", f.mul(r, t.row_pitch))
        with f.loop(0, whole, t.lanes) as k:
            t.store(f, t.take(f, t.from_at(f, source, k)), t.at(f, place, k))
        with f.when(ragged):
            last = t.take_masked(f, t.from_at(f, source, whole), mask)
            t.store(f, last, t.at(f, place, whole))


def _copy_columns_of_a(t: Tiling, f: Function) -> None:
    with f.loop(0, "%rows", t.lanes) as r:
        mask = t.mask(f, f.sub("%rows", r))
        source, place = t.from_at(f, "%src", r), t.at(f, "%dst", r)
        with f.loop(0, "%k") as k:
            column = t.take_masked(f, t.from_at(f, source, f.mul(k, "%col")), mask)
            t.store(f, column, t.at(f, place, f.mul(k, t.column_pitch)))


def _gather_a(t: Tiling, f: Function) -> None:
    with f.loop(0, "%rows") as r, f.loop(0, "%k") as k:
        source = t.from_at(f, "%src", f.add(f.mul(r, "%row"), f.mul(k, "%col")))
        _copy_element(t, f, source, t.at(f, "%dst", f.add(f.mul(r, t.row_pitch), k)))


def _copy_b(t: Tiling, f: Function) -> None:
    whole = f.compare("eq", "%columns", "%width")
    even = f.value(f"and i64 %width, {2 * t.lanes - 1}")
    pairs = f.value(f"and i1 {whole}, {f.compare('eq', even, 0)}")
    with f.when(pairs), f.loop(0, "%k") as k, f.loop(0, "%width", 2 * t.lanes) as j:
        source, place = _b_row(t, f, k, j)
        for half in (0, t.lanes):
            t.store(f, t.take(f, t.from_at(f, source, half)), t.at(f, place, half))
    with f.otherwise(pairs), f.loop(0, "%width", t.lanes) as j:
        mask = t.mask(f, f.sub("%columns", j))
        with f.loop(0, "%k") as k:
            source, place = _b_row(t, f, k, j)
            t.store(f, t.take_masked(f, source, mask), place)


def _b_row(t: Tiling, f: Function, k: str, j: str) -> tuple[str, str]:
    """Where row k of B is read and written from column j on."""
    source = t.from_at(f, "%src", f.add(f.mul(k, "%row"), j))
    return source, t.at(f, "%dst", f.add(f.mul(k, "%width"), j))


def _transpose_b(t: Tiling, f: Function) -> None:
    last = f.sub("%columns", 1)
    whole = f.value(f"and i64 %k, {-t.lanes}")
    with f.loop(0, "%width", t.lanes) as j:
        first = f.min(j, last)
        strip, place = t.from_at(f, "%src", f.mul(first, "%col")), t.at(f, "%dst", j)
        rows = f.sub("%columns", first)
        full = f.compare("sge", rows, t.lanes)
        many = f.value(f"and i1 {full}, {f.compare('sgt', whole, 0)}")
        with f.when(many):
            sizes = (("i64", "%col"), ("i64", whole), ("ptr", place), ("i64", "%width"))
            f.call("@transpose_strip", ("ptr", strip), *sizes)
        with f.loop(f.select(many, whole, 0), "%k", t.lanes) as k:
            target = t.at(f, place, f.mul(k, "%width"))
            source = t.from_at(f, strip, k)
            _call_transpose(f, source, "%col", rows, f.sub("%k", k), target, "%width")


def _gather_b(t: Tiling, f: Function) -> None:
    last = f.sub("%columns", 1)
    with f.loop(0, "%k") as k, f.loop(0, "%width") as j:
        column = f.mul(f.min(j, last), "%col")
        source = t.from_at(f, "%src", f.add(f.mul(k, "%row"), column))
        _copy_element(t, f, source, t.at(f, "%dst", f.add(f.mul(k, "%width"), j)))


def _copy_element(t: Tiling, f: Function, source: str, place: str) -> None:
    f.store(f"<1 x {t.element}>", t.take(f, source, 1), place, t.itemsize)


def _call_transpose(f: Function, *arguments: str) -> None:
    kinds = ("ptr", "i64", "i64", "i64", "ptr", "i64")
    f.call("@transpose", *zip(kinds, arguments, strict=True))


def _transpose(t: Tiling) -> str:
    """@transpose(src, stride, rows, columns, dst, pitch): dst[c * pitch + r] = src[r * stride + c]
    for a block of lanes x lanes.  Rows past the last repeat it, columns past the last are zero;
    neither is read, both are written.
    """
    f = Function(
        "internal void @transpose(ptr %src, i64 %stride, i64 %rows, i64 %columns, ptr %dst, "
        "i64 %pitch)"
    )
    # edges are few: one more copy costs less than compiling another transpose
    square = f.value(f"alloca [{t.lanes} x {t.vector}], align 64")
    mask, last = t.mask(f, "%columns"), f.sub("%rows", 1)
    with f.loop(0, t.lanes) as r:
        source = t.from_at(f, "%src", f.mul(f.min(r, last), "%stride"))
        kind, row = t.stored_masked(f, source, mask)
        f.store(kind, row, t.from_at(f, square, f.mul(r, t.lanes)), t.stored_size)
    sizes = (("i64", t.lanes), ("i64", t.lanes), ("ptr", "%dst"), ("i64", "%pitch"))
    f.call("@transpose_strip", ("ptr", square), *sizes)
    return f.text()


def _transpose_strip(t: Tiling) -> str:
    """@transpose_strip(src, stride, columns, dst, pitch): the same for `lanes` rows and any whole
    number of blocks of columns."""
    f = Function(
        "internal void @transpose_strip(ptr %src, i64 %stride, i64 %columns, ptr %dst, i64 %pitch)"
    )
    rows = Multiples(f, f.mul("%stride", t.stored_size), t.lanes)
    pitch = f.mul("%pitch", t.itemsize)
    turn = f.repeat()
    source, place = turn.carry("ptr", "%src"), turn.carry("ptr", "%dst")
    left = turn.carry("i64", "%columns")
    source = f.value(f"freeze ptr {source}")  # as in the kernels
    block = [t.take(f, f.at(source, row, "i8")) for row in rows.all()]
    for vector in butterfly(t, f, block):
        t.store(f, vector, place)
        place = f.at(place, pitch, "i8")
    left = f.sub(left, t.lanes)
    turn.close(f.compare("ne", left, 0), [t.from_at(f, source, t.lanes), place, left])
    return f.text()


def butterfly(t: Tiling, f: Function, vectors: list[str]) -> list[str]:
    """The transpose: swap blocks of lanes/2 lanes between rows i and i + lanes/2, then of
    lanes/4, ... 1."""
    lanes = range(t.lanes)
    step = t.lanes // 2
    while step:
        low = [lane ^ step | t.lanes if lane & step else lane for lane in lanes]
        high = [lane | t.lanes if lane & step else lane ^ step for lane in lanes]
        for i in lanes:
            if not i & step:
                x, y = vectors[i], vectors[i | step]
                vectors[i], vectors[i | step] = t.shuffle(f, x, y, low), t.shuffle(f, x, y, high)
        step //= 2
    return vectors
