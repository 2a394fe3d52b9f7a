"""The parallel steps of the matrix product: pack what threads share, then multiply.

A step is `void step(ptr plan, i64 chunk, i64 tid)`, run for every chunk on any thread.  Its items
are panels, or parts of panels, of the block that the plan describes; chunk c of n takes the c-th
n-th of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dualgrad.compiler.lower.llvm.emit import Function, Value
from dualgrad.compiler.lower.llvm.gemm_micro import KERNEL_KINDS
from dualgrad.compiler.lower.llvm.gemm_tiling import Tiling
from dualgrad.compiler.lower.llvm.gemm_walk import entry

# a, b, c   addresses of the matrices; *_batch, *_row, *_col  strides in elements
# batches   how many products; m, n, k  sizes of each
# work      scratch memory of `workspace_bytes`
# parallel  threads that share the work; 0: all is done by the caller
# b_packed  B in panels, which @pack has made; null: B is as it is
# pack_to   where this call, which multiplies nothing, puts B in panels; null: it multiplies
# *_rows, *_cols  tables of an operand that walks (`gemm_walk`); its strides are 0; null: strided
# partial   null, or where the sums of a block of K lie, in rows partial_row elements apart, if its
#           products come in several calls, of one block each (it may be C, if K has one block)
# goes_on   1 if what lies there is the beginning of these sums
# closes    1 if the block ends with this call: its sums go to C; adds  1 if C has some already
# more      1 if C is not finished with this call
DESC = (
    "a", "a_batch", "a_row", "a_col", "b", "b_batch", "b_row", "b_col", "c", "c_batch", "c_row",
    "batches", "m", "n", "k", "work", "pool", "parallel_for", "epilogue", "epilogue_ctx",
    "parallel", "a_rows", "a_cols", "b_rows", "b_cols", "b_packed", "pack_to",
    "partial", "partial_row", "goes_on", "closes", "adds", "more",
)  # fmt: skip

# desc                    the call's descriptor
# threads                 as `parallel`, or 0 if waking threads would not pay
# batch0, count           the first product and how many run together: one operand is the same
# m, split                rows of each; rows of the caller's products that they consist of
# height, tall            rows of a row panel; the first `tall` panels have one more
# row_panels, width       number of row panels; columns of a column panel
# share_a                 1 if A is shared, 0 if B is
# direct_a                1 if A is read where it lies
# thin                    the kernel that takes a panel of B^T where it lies, if one should
# a_row, a_step           bytes from row to row and from column to column of A as kernels read it
# short, taller           the kernels of panels of `height` rows, and of one more
# short1, taller1         the same, one vector wide
# columns, k_step         columns of a block, its length along K
# column0, column_panels  the block of columns: its first column, its panels
# k0, k                   the block of K: where it starts, its length
# parts                   parts of a column panel's rows that make one item, if A is shared
# chunks                  into how many chunks the step is cut
# key                     tells column panels of different blocks apart: key + panel is unique
# areas, area             scratch of the threads, and bytes of each
# shared, work_bytes      the shared panels; bytes of all that scratch
PLAN = (
    "desc", "threads", "batch0", "count", "m", "split", "height", "tall", "row_panels", "width",
    "share_a", "direct_a", "thin", "a_row", "a_step", "short", "taller", "short1", "taller1",
    "columns", "k_step", "column0", "column_panels", "k0", "k", "parts", "chunks", "key", "areas",
    "area", "shared", "work_bytes",
)  # fmt: skip

_POINTERS = {
    "a", "b", "c", "work", "pool", "parallel_for", "epilogue", "epilogue_ctx",
    "desc", "areas", "shared", "a_rows", "a_cols", "b_rows", "b_cols", "b_packed", "pack_to",
    "short", "taller", "short1", "taller1", "thin", "partial",
}  # fmt: skip

# A thread's area: the key of the column panel that it holds (0: none), a tile of all registers
# (at most 32 of 64 bytes), a packed panel.
HEADER_BYTES = 64
TILE_BYTES = 2048
# Packed panels of B are a multiple of this many rows deep: squares of `lanes` are whole.
DEPTH = 16

# Row panels up to which B is read where it lies: packing it would cost more than it saves.  More
# of them would meet rows that lie in few sets of the caches.
_DIRECT_PANELS = 10
_DIRECT_PANELS_IN_FEW_SETS = 3
_SETS_BYTES = 4096  # rows so far apart meet in the same places of a first-level cache


class Record:
    """Named 8-byte slots in memory."""

    def __init__(self, f: Function, pointer: str, names: tuple[str, ...]) -> None:
        self._f, self._pointer, self._names = f, pointer, names

    def __getitem__(self, name: str) -> str:
        return self._f.load(_kind(name), self._place(name))

    def __setitem__(self, name: str, value: Value) -> None:
        self._f.store(_kind(name), value, self._place(name))

    def _place(self, name: str) -> str:
        return self._f.at(self._pointer, self._names.index(name), "i64")


def _kind(name: str) -> str:
    return "ptr" if name in _POINTERS else "i64"


def depth(f: Function, k: Value) -> str:
    """Rows of a packed panel of B that holds k."""
    return f.value(f"and i64 {f.add(k, DEPTH - 1)}, {-DEPTH}")


def packed_block(t: Tiling, f: Function, desc: Record, plan: Record) -> str:
    """Where the panels of the plan's block of K begin in packed B: only the last may be shorter."""
    panels = f.ceil_quotient(desc["n"], plan["width"])
    size = f.mul(f.mul(depth(f, plan["k_step"]), plan["width"]), panels)
    to = f.select(
        f.compare("eq", desc["b_packed"], "null", "ptr"), desc["pack_to"], desc["b_packed"], "ptr"
    )
    return t.at(f, to, f.mul(f.quotient(plan["k0"], plan["k_step"]), size))


def spread(t: Tiling, f: Function, row: Value) -> str:
    """Whether rows so many elements apart lie in different sets of a first-level cache."""
    distance = f.value(f"and i64 {f.mul(row, t.stored_size)}, {_SETS_BYTES - 1}")
    return f.compare("ne", distance, 0)


def finish() -> str:
    """@finish(plan, batch, row0, row1, col0, col1): hand a finished piece of C to the epilogue, if
    there is one, product by product of the caller's."""
    f = Function(
        "internal void @finish(ptr %plan, i64 %batch, i64 %row0, i64 %row1, i64 %col0, i64 %col1)",
        rare=True,
    )
    plan = Record(f, "%plan", PLAN)
    desc = Record(f, plan["desc"], DESC)
    epilogue = desc["epilogue"]
    with f.when(f.compare("ne", epilogue, "null", "ptr")):
        context, split = desc["epilogue_ctx"], plan["split"]
        last = f.ceil_quotient("%row1", split)
        with f.loop(f.quotient("%row0", split), last) as part:
            start = f.mul(part, split)
            f.call(
                epilogue,
                ("ptr", context),
                ("i64", f.add("%batch", part)),
                ("i64", f.max(f.sub("%row0", start), 0)),
                ("i64", f.min(f.sub("%row1", start), split)),
                ("i64", "%col0"),
                ("i64", "%col1"),
            )
    return f.text()


def steps(t: Tiling) -> str:
    """@share_a, @share_b, @multiply_by_columns (A is shared), @multiply_by_rows (B is)."""
    return (
        _Step("share_a", t).share_a()
        + _Step("share_b", t).share_b()
        + _Step("multiply_by_columns", t).multiply_by_columns()
        + _Step("multiply_by_rows", t).multiply_by_rows()
    )


class _Step:
    def __init__(self, name: str, t: Tiling) -> None:
        self.t = t
        signature = f"internal void @{name}(ptr %plan, i64 %chunk, i64 %tid)"
        self.f = f = Function(signature, rare=name.startswith("share"))
        self.plan = Record(f, "%plan", PLAN)
        self.desc = Record(f, self.plan["desc"], DESC)
        self.b_size = f.mul(depth(f, self.plan["k"]), self.plan["width"])

    # -- the four steps -----------------------------------------------------------------------

    def share_a(self) -> str:
        with self._items(self.plan["row_panels"]) as i:
            place = self._panel(self.plan["shared"], i, self.t.panel_size)
            self._pack_a(self.plan["batch0"], i, place)
        return self.f.text()

    def share_b(self) -> str:
        with self._items(self.plan["column_panels"]) as j:
            place = self._panel(self.plan["shared"], j, self.b_size)
            self._pack_b(self.plan["batch0"], j, place)
        return self.f.text()

    def multiply_by_columns(self) -> str:
        """Items are parts of column panels.  The thread packs the panel, unless it holds it."""
        f, plan, desc = self.f, self.plan, self.desc
        area, own = self._area()
        tile = _Tile(self, area)
        parts, count = plan["parts"], plan["column_panels"]
        with self._items(f.mul(plan["count"], f.mul(count, parts))) as item:
            panel = f.quotient(item, parts)  # of all products
            index = f.quotient(panel, count)
            batch, j = f.add(plan["batch0"], index), f.sub(panel, f.mul(index, count))
            column, columns = self._columns(j)
            full = f.compare("eq", columns, plan["width"])
            thin = f.value(f"and i1 {full}, {f.compare('ne', plan['thin'], 'null', 'ptr')}")
            direct = f.value(f"or i1 {thin}, {f.value(f'and i1 {full}, {self._worth_direct()}')}")
            packed = self._b_is_packed()
            direct = f.select(packed, "false", direct, "i1")
            with f.otherwise(f.value(f"or i1 {direct}, {packed}")):
                self._pack_once(batch, j, panel, area, own)
            source = self._address("b", batch, plan["k0"], column)
            pitch = f.mul(f.select(direct, desc["b_row"], plan["width"]), self.t.itemsize)
            column_pitch = f.mul(desc["b_col"], self.t.stored_size)
            pitch = f.select(thin, column_pitch, pitch)
            there = f.select(packed, self._panel(self._b_panels(), j, self.b_size), own, "ptr")
            tile.set_columns(f.select(direct, source, there, "ptr"), pitch, column, columns, thin)
            part = f.sub(item, f.mul(panel, parts))
            low, high = self._part(part, parts, plan["row_panels"])
            a = self._a_panels(batch)
            with f.loop(low, high) as i:
                tile.multiply(a(i), batch, i)
            self._finish(batch, (low, high), column, f.add(column, columns))
        return f.text()

    def multiply_by_rows(self) -> str:
        """Items are row panels.  The thread packs one, which stays in its first-level cache
        while the shared panels of B pass by."""
        f, plan = self.f, self.plan
        area, own = self._area()
        tile = _Tile(self, area)
        panels, count = plan["row_panels"], plan["column_panels"]
        direct = f.compare("ne", plan["direct_a"], 0)
        pitch = f.mul(plan["width"], self.t.itemsize)
        shared = f.select(self._b_is_packed(), self._b_panels(), plan["shared"], "ptr")
        with self._items(f.mul(plan["count"], panels)) as item:
            index = f.quotient(item, panels)
            batch, i = f.add(plan["batch0"], index), f.sub(item, f.mul(index, panels))
            with f.otherwise(direct):
                self._pack_a(batch, i, own)
            source = self._address("a", batch, self._rows(i)[0], plan["k0"])
            a = f.select(direct, source, own, "ptr")
            with f.loop(0, count) as j:
                b = self._panel(shared, j, self.b_size)
                tile.set_columns(b, pitch, *self._columns(j))
                tile.multiply(a, batch, i)
            last, columns = self._columns(f.sub(count, 1))
            self._finish(batch, (i, f.add(i, 1)), plan["column0"], f.add(last, columns))
        return f.text()

    def _a_panels(self, batch: Value) -> Callable[[Value], str]:
        """Where a row panel of A lies, if A is shared."""
        f, plan, desc = self.f, self.plan, self.desc
        direct = f.compare("ne", plan["direct_a"], 0)
        first = self._address("a", batch, 0, plan["k0"])
        packed, row = plan["shared"], desc["a_row"]

        def place(i: Value) -> str:
            there = self.t.from_at(f, first, f.mul(self._rows(i)[0], row))
            return f.select(direct, there, self._panel(packed, i, self.t.panel_size), "ptr")

        return place

    # -- cutting ------------------------------------------------------------------------------

    @contextmanager
    def _items(self, total: Value) -> Iterator[str]:
        """A loop over this chunk's items of `total`."""
        first, stop = self._part("%chunk", self.plan["chunks"], total)
        with self.f.loop(first, stop) as item:
            yield item

    def _part(self, index: Value, count: Value, total: Value) -> tuple[str, str]:
        """The bounds of part `index` of `count` even parts of 0 .. total."""
        f = self.f
        low = f.quotient(f.mul(index, total), count)
        return low, f.quotient(f.mul(f.add(index, 1), total), count)

    def _rows(self, panel: Value) -> tuple[str, str]:
        """First row and number of rows of a row panel."""
        f, height, tall = self.f, self.plan["height"], self.plan["tall"]
        one = f.value(f"zext i1 {f.compare('slt', panel, tall)} to i64")
        return f.add(f.mul(panel, height), f.min(panel, tall)), f.add(height, one)

    def _columns(self, panel: Value) -> tuple[str, str]:
        """First column and number of columns of a column panel."""
        f, width = self.f, self.plan["width"]
        first = f.add(self.plan["column0"], f.mul(panel, width))
        return first, f.min(f.sub(self.desc["n"], first), width)

    def _area(self) -> tuple[str, str]:
        """This thread's scratch, and the place in it of a packed panel."""
        f = self.f
        area = f.at(self.plan["areas"], f.mul("%tid", self.plan["area"]), "i8")
        return area, f.at(area, HEADER_BYTES + TILE_BYTES, "i8")

    def _panel(self, base: str, index: Value, size: Value) -> str:
        """Panel number `index` of panels of `size` elements."""
        return self.t.at(self.f, base, self.f.mul(index, size))

    def _address(self, operand: str, batch: Value, row: Value, col: Value) -> str:
        f, desc = self.f, self.desc
        offset = f.mul(batch, desc[f"{operand}_batch"])
        offset = f.add(offset, f.mul(row, desc[f"{operand}_row"]))
        if operand != "c":
            col = f.mul(col, desc[f"{operand}_col"])
        index = f.add(offset, col)
        at = self.t.at if operand == "c" else self.t.from_at
        return at(f, desc[operand], index)

    # -- packing ------------------------------------------------------------------------------

    def _pack_a(self, batch: Value, panel: Value, place: str) -> None:
        f, desc, plan = self.f, self.desc, self.plan
        row, rows = self._rows(panel)
        source = self._address("a", batch, row, plan["k0"])
        walks = self._walks("a")
        with f.when(walks):
            tables = self._tables("a", row, plan["k0"])
            sizes = (("i64", rows), ("i64", plan["k"]))
            f.call("@pack_a_walk", ("ptr", source), *tables, *sizes, ("ptr", place))
        with f.otherwise(walks):
            f.call(
                "@pack_a",
                ("ptr", source),
                ("i64", desc["a_row"]),
                ("i64", desc["a_col"]),
                ("i64", rows),
                ("i64", plan["k"]),
                ("ptr", place),
            )

    def _pack_b(self, batch: Value, panel: Value, place: str) -> None:
        f, desc, plan = self.f, self.desc, self.plan
        column, columns = self._columns(panel)
        source = self._address("b", batch, plan["k0"], column)
        sizes = (("i64", columns), ("i64", plan["width"]), ("i64", plan["k"]))
        walks = self._walks("b")
        with f.when(walks):
            tables = self._tables("b", plan["k0"], column)
            f.call("@pack_b_walk", ("ptr", source), *tables, *sizes, ("ptr", place))
        with f.otherwise(walks):
            steps = (("i64", desc["b_row"]), ("i64", desc["b_col"]))
            f.call("@pack_b", ("ptr", source), *steps, *sizes, ("ptr", place))

    def _b_is_packed(self) -> str:
        return self.f.compare("ne", self.desc["b_packed"], "null", "ptr")

    def _b_panels(self) -> str:
        """Where the panels of the plan's block begin, if B is packed."""
        f, plan = self.f, self.plan
        before = f.mul(f.quotient(plan["column0"], plan["width"]), self.b_size)
        return self.t.at(f, packed_block(self.t, f, self.desc, plan), before)

    def _walks(self, operand: str) -> str:
        """Whether an operand has tables; its strides are 0 then."""
        return self.f.compare("ne", self.desc[f"{operand}_rows"], "null", "ptr")

    def _tables(self, operand: str, row: Value, col: Value) -> list[tuple[str, str]]:
        """The tables of an operand from a row and a column on."""
        parts = ((f"{operand}_rows", row), (f"{operand}_cols", col))
        return [("ptr", entry(self.f, self.desc[name], i)) for name, i in parts]

    def _pack_once(self, batch: Value, j: Value, number: Value, area: str, place: str) -> None:
        f = self.f
        key = f.add(self.plan["key"], number)
        with f.when(f.compare("ne", f.load("i64", area), key)):
            self._pack_b(batch, j, place)
            f.store("i64", key, area)

    def _worth_direct(self) -> str:
        """Whether panels of B are read where they lie: rows are contiguous, and few use them."""
        f, plan, row = self.f, self.plan, self.desc["b_row"]
        scattered = spread(self.t, f, row)
        most = f.select(scattered, _DIRECT_PANELS, _DIRECT_PANELS_IN_FEW_SETS)
        few = f.compare("sle", plan["row_panels"], most)
        unit = "false" if self.t.widens else f.compare("eq", self.desc["b_col"], 1)
        return f.value(f"and i1 {few}, {unit}")

    def _finish(self, batch: Value, panels: tuple[str, str], col0: Value, col1: Value) -> None:
        """After the last block of K, hand over the columns of these row panels."""
        f, plan = self.f, self.plan
        done = f.sub(f.add(plan["k0"], plan["k"]), self.desc["more"])
        complete = f.compare("eq", done, self.desc["k"])
        with f.when(complete):
            row0, row1 = (self._rows(panel)[0] for panel in panels)
            bounds = (("i64", x) for x in (batch, row0, row1, col0, col1))
            f.call("@finish", ("ptr", "%plan"), *bounds)


class _Tile:
    """Calls of the kernels, for one tile of C after another."""

    def __init__(self, step: _Step, area: str) -> None:
        f, plan, desc = step.f, step.plan, step.desc
        self._step, self._scratch = step, f.at(area, HEADER_BYTES, "i8")
        size = step.t.itemsize
        self._strides = plan["a_row"], plan["a_step"], f.mul(desc["c_row"], size)
        self._k, self._add = plan["k"], f.compare("sgt", plan["k0"], 0)
        self._apart = f.compare("ne", desc["partial"], "null", "ptr")
        self._goes_on = f.compare("ne", desc["goes_on"], 0)
        self._closes = f.compare("ne", desc["closes"], 0)
        self._adds = f.compare("ne", desc["adds"], 0)
        self._sums_row = f.select(self._apart, f.mul(desc["partial_row"], size), self._strides[2])

    def set_columns(self, b: str, b_row: str, first: str, count: str, thin: str = "false") -> None:
        """The panel of B, its rows b_row bytes apart, and the columns that it is for; of a thin
        product its columns are so far apart."""
        f, plan = self._step.f, self._step.plan
        self._b, self._columns = (b, b_row), (first, count)
        narrow = f.compare("sle", count, self._step.t.lanes)
        taller, short = (
            f.select(narrow, plan[f"{name}1"], plan[name], "ptr") for name in ("taller", "short")
        )
        self._kernels = taller, f.select(thin, plan["thin"], short, "ptr")
        self._full = f.select(narrow, self._step.t.lanes, plan["width"])

    def multiply(self, a: str, batch: Value, i: Value) -> None:
        """The tile of row panel i, whose rows lie at `a`."""
        step, f = self._step, self._step.f
        is_taller = f.compare("slt", i, step.plan["tall"])
        taller, short = self._kernels
        kernel = f.select(is_taller, taller, short, "ptr")
        row, rows = step._rows(i)
        c = step._address("c", batch, row, self._columns[0])
        a_row, a_step, c_row = self._strides
        sums = f.select(self._apart, self._partial(row), c, "ptr"), self._sums_row
        indirect = self._add
        if not step.t.masks:
            ragged = f.compare("ne", self._columns[1], self._full)
            indirect = f.value(f"or i1 {indirect}, {ragged}")
        pitch = f.mul(step.plan["width"], step.t.itemsize)
        scratch = self._scratch, pitch
        if not step.t.masks:
            with f.when(f.value(f"and i1 {indirect}, {self._goes_on}")):
                self._merge(sums, scratch, "false", rows)
        target = f.select(indirect, scratch[0], sums[0], "ptr"), f.select(indirect, pitch, sums[1])
        values = (a, a_row, a_step, *self._b, *target, self._k, self._columns[1], self._goes_on)
        f.call(kernel, *zip(KERNEL_KINDS, values, strict=True))
        with f.when(indirect):
            self._merge(scratch, sums, self._add, rows)
        with f.when(self._closes):
            self._merge(sums, (c, c_row), self._adds, rows)

    def _partial(self, row: Value) -> str:
        """Where the sums of a row lie, if they are apart."""
        f, desc = self._step.f, self._step.desc
        offset = f.add(f.mul(row, desc["partial_row"]), self._columns[0])
        return self._step.t.at(f, desc["partial"], offset)

    def _merge(self, source: tuple[str, str], to: tuple[str, str], add: str, rows: Value) -> None:
        """Copy a tile, or add it to what is there; tiles are addresses and bytes between rows."""
        kinds = ("ptr", "i64", "ptr", "i64", "i1", "i64", "i64")
        values = (*source, *to, add, rows, self._columns[1])
        self._step.f.call("@merge", *zip(kinds, values, strict=True))
