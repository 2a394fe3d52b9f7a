"""Register-tiled kernels: the inner loops of the matrix product.

    micro_HxV(a, a_row, a_step, a_runs, b, b_row, c, c_row, k, columns, goes_on)
        C[H, columns] = A[H, k] . B[k, V vectors], or C += that
    kernel_of(height, narrow)       the kernel of a height, of full width or one vector wide

Rows of A lie a_row bytes apart, rows of B b_row, rows of C c_row; k >= 1.  A is read by broadcasts,
so it may lie anyhow.  Its columns go in runs, a_step bytes apart within one: a_runs is the part of
a table (`gemm_walk`) with the place of the first, in elements, and the length of its run.

Each element of C is one chain of multiply-adds from zero, or from what C holds if `goes_on`, in the
order of k, whatever the tile.  Without masks whole vectors are loaded and stored, whatever
`columns`.
"""

from __future__ import annotations

from dualgrad.compiler.kernel.walks import ENTRY_WORDS
from dualgrad.compiler.lower.llvm.emit import Function, Value
from dualgrad.compiler.lower.llvm.gemm_tiling import LINE_BYTES, Tiling

# Rows of B between its prefetch and its use: covers the latency of the second-level cache.
_PREFETCH_ROWS = 16

_OPERANDS = (
    "ptr a i64 a_row i64 a_step ptr a_runs ptr b i64 b_row ptr c i64 c_row i64 k i64 columns"
    " i1 goes_on"
)
KERNEL_KINDS = tuple(_OPERANDS.split()[::2])
_SIGNATURE = ", ".join(
    f"{kind} %{x}" for kind, x in zip(KERNEL_KINDS, _OPERANDS.split()[1::2], strict=True)
)


def kernels(t: Tiling) -> str:
    """The kernels of all heights, of full width and one vector wide, and @kernel_of."""
    shapes = [(h, v) for h in range(1, t.height + 1) for v in sorted({1, t.vectors(h)})]
    micros = "".join(_micro_kernel(t, h, v) for h, v in shapes)
    return micros + _kernel_of(t) + _merge(t)


def _micro_kernel(t: Tiling, height: int, vectors: int) -> str:
    f = Function(f"internal void @micro_{height}x{vectors}({_SIGNATURE})")
    steps = Multiples(f, "%a_row", height)
    ahead = f.mul("%b_row", _PREFETCH_ROWS)
    _fetch_c(t, f, height, vectors)
    first = begun(t, f, height, vectors)
    runs = f.repeat()
    run, b = runs.carry("ptr", "%a_runs"), runs.carry("ptr", "%b")
    rest = runs.carry("i64", "%k")
    sums = [runs.carry(t.vector, x) for x in first]
    a = t.at(f, "%a", f.load("i64", run))
    length = f.min(f.load("i64", f.at(run, 1, "i64")), rest)
    turn = f.repeat()
    a, b, left = turn.carry("ptr", a), turn.carry("ptr", b), turn.carry("i64", length)
    sums = [turn.carry(t.vector, x) for x in sums]
    # strength reduction would replace the constant multiples of a_row by a chain of additions
    a, b = f.value(f"freeze ptr {a}"), f.value(f"freeze ptr {b}")
    row = [t.load(f, t.at(f, b, j * t.lanes)) for j in range(vectors)]
    later = f.at(b, ahead, "i8")
    for start in range(0, vectors * t.lanes * t.itemsize, LINE_BYTES):
        t.prefetch(f, f.at(later, start, "i8"), to_write=False)
    sums = multiply_add_row(t, f, [f.at(a, x, "i8") for x in steps.all()], row, sums)
    a, b = f.at(a, "%a_step", "i8"), f.at(b, "%b_row", "i8")
    left = f.sub(left, 1)
    turn.close(f.compare("ne", left, 0), [a, b, left, *sums])
    rest = f.sub(rest, length)
    run = f.at(run, f.mul(length, ENTRY_WORDS), "i64")
    runs.close(f.compare("ne", rest, 0), [run, b, rest, *sums])
    store_tile(t, f, sums, vectors)
    return f.text()


def _fetch_c(t: Tiling, f: Function, height: int, vectors: int) -> None:
    """The tile's lines of C will be at hand when its sums are finished."""
    turn = f.repeat()
    c, left = turn.carry("ptr", "%c"), turn.carry("i64", height)
    for start in range(0, vectors * t.lanes * t.itemsize, LINE_BYTES):
        t.prefetch(f, f.at(c, start, "i8"), to_write=True)
    left = f.sub(left, 1)
    turn.close(f.compare("ne", left, 0), [f.at(c, "%c_row", "i8"), left])


def begun(t: Tiling, f: Function, height: int, vectors: int) -> list[str]:
    """What the chains start from."""
    before, loading, after = f.block, f.new_block(), f.new_block()
    f.branch("%goes_on", loading, after)
    f.start(loading)
    masks = _masks(t, f, vectors)
    c, loaded = "%c", []
    for _ in range(height):
        for j in range(vectors):
            place = t.at(f, c, j * t.lanes)
            loaded.append(t.load_masked(f, place, masks[j]) if masks else t.load(f, place))
        c = f.at(c, "%c_row", "i8")
    f.jump(after)
    f.start(after)
    zero = f"[ zeroinitializer, %{before} ]"
    return [f.value(f"phi {t.vector} {zero}, [ {x}, %{loading} ]") for x in loaded]


def _masks(t: Tiling, f: Function, vectors: int) -> list[str]:
    """The lanes of each vector that belong to `columns`; none without masks."""
    return [t.mask(f, f.sub("%columns", j * t.lanes)) for j in range(vectors)] if t.masks else []


class Multiples:
    """0, 1, ... count - 1 times a number of bytes, in as few registers as address modes allow."""

    def __init__(self, f: Function, one: str, count: int) -> None:
        self._f, self._count = f, count
        self._odd = {1: one} | {odd: f.mul(one, odd) for odd in range(3, count, 2)}

    def all(self) -> list[Value]:
        """The values, in a block that uses them as offsets."""
        return [self._multiple(i) for i in range(self._count)]

    def _multiple(self, i: int) -> Value:
        if i == 0:
            return 0
        twos = (i & -i).bit_length() - 1
        odd = self._odd[i >> twos]
        return self._f.value(f"shl i64 {odd}, {twos}") if twos else odd


def multiply_add_row(
    t: Tiling, f: Function, a: list[str], row: list[str], sums: list[str]
) -> list[str]:
    """sums + column of A x row of B, for one k."""
    out = []
    for i, place in enumerate(a):
        x = t.splat(f, f.load(t.element, place, t.itemsize))
        out += [t.multiply_add(f, x, y, sums[i * len(row) + j]) for j, y in enumerate(row)]
    return out


def store_tile(t: Tiling, f: Function, sums: list[str], vectors: int) -> None:
    """C = the sums, `vectors` to a row."""
    masks = _masks(t, f, vectors)
    c = "%c"
    for first in range(0, len(sums), vectors):
        for j in range(vectors):
            place = t.at(f, c, j * t.lanes)
            if masks:
                t.store_masked(f, sums[first + j], place, masks[j])
            else:
                t.store(f, sums[first + j], place)
        c = f.at(c, "%c_row", "i8")


def _kernel_of(t: Tiling) -> str:
    """@kernel_of(height, narrow) -> the kernel; the least one for a height of zero."""
    f = Function("internal ptr @kernel_of(i64 %height, i1 %narrow)")
    cases = [(height, f.new_block()) for height in range(1, t.height + 1)]
    after = f.new_block()
    table = " ".join(f"i64 {height}, label %{block}" for height, block in cases)
    f.do(f"switch i64 %height, label %{cases[0][1]} [{table}]")
    choices = []
    for height, block in cases:
        f.start(block)
        wide = f"@micro_{height}x{t.vectors(height)}"
        choices.append((f.select("%narrow", f"@micro_{height}x1", wide, "ptr"), block))
        f.jump(after)
    f.start(after)
    found = f.value("phi ptr " + ", ".join(f"[ {x}, %{block} ]" for x, block in choices))
    return f.text(f"ptr {found}")


def _merge(t: Tiling) -> str:
    """@merge(x, x_row, c, c_row, add, rows, columns): C = X or C = C + X; rows lie so many bytes
    apart."""
    f = Function(
        "internal void @merge(ptr %x, i64 %x_row, ptr %c, i64 %c_row, i1 %add, i64 %rows, "
        "i64 %columns)"
    )
    whole = f.value(f"and i64 %columns, {-t.lanes}")
    mask = t.mask(f, f.sub("%columns", whole))
    with f.loop(0, "%rows") as i:
        x, c = f.at("%x", f.mul(i, "%x_row"), "i8"), f.at("%c", f.mul(i, "%c_row"), "i8")
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
