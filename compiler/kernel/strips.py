"""Strips: kernels that go through the same items, one item after another.

The kernels of attention all do the same for each head: scores, softmax, the product with the
values.  Run one by one, each of them goes through the memory of all heads.  In a strip one thread
takes one head through all of them, while its scores are in cache, and what only the strip needs
is memory of a thread, not of all heads.

An *item* is a matrix of these products, or some rows of one where a matrix would not fit a core's
cache.  Kernels belong to a strip if each matrix, or row, of theirs reads, of what the strip stores,
its own part only.  Products are taken apart along their batch and their rows; the sums themselves,
along K, stay whole.  But for those that sum over the rows of a strip: their sums go on from item
to item, so that one thread takes all items of a block along K in order, and threads take turns in
adding the sums of blocks.  So no number changes.

The loop over time of a recurrent layer is a strip of rows, too: its products share a matrix, packed
once (`packed`), and one thread takes its rows of the batch through all steps.  A buffer may go
through the rows several times, as that of the states of all steps does.

Kernels in between that have nothing to do with a strip run before it, those that need it after it.
"""

from __future__ import annotations

from dataclasses import replace

from dualgrad.compiler.ir.certain import is_natural
from dualgrad.compiler.ir.dims import (
    Dim,
    ceil_div,
    coefficient,
    divide,
    maximum,
    minimum,
    substitute,
    sym,
    symbol_of,
)
from dualgrad.compiler.kernel.ir import (
    K_BLOCK,
    Buffer,
    Call,
    Check,
    Contract,
    If,
    Kernel,
    Operand,
    Pack,
    Store,
    walk,
)
from dualgrad.compiler.kernel.items import bounds, by_items, item_of, stays_inside
from dualgrad.compiler.kernel.regions import Region, region_of
from dualgrad.compiler.kernel.walks import tables_of
from dualgrad.runtime.records import dataclass

_FEWEST_WINDOWS = 64  # that meet one matrix in an item: it is packed for each


@dataclass(frozen=True)
class Cut:
    """How the `rows` of each matrix are cut into items: those of every block along K of a product
    that sums over the rows, into so many `pieces` of equal length (the last may be shorter, or
    empty)."""

    rows: Dim
    pieces: Dim

    @property
    def blocks(self) -> Dim:
        """At least one: where rows are none, too, numbers are divided by this."""
        return maximum(ceil_div(self.rows, K_BLOCK), 1)

    @property
    def block(self) -> Dim:
        """Rows of a block."""
        return ceil_div(self.rows, self.blocks)

    @property
    def length(self) -> Dim:
        """Rows of an item."""
        return ceil_div(self.block, self.pieces)

    def bounds(self, item: Dim) -> tuple[Dim, Dim]:
        """The first row of an item of a matrix, and that after its last one."""
        block, piece = divide(item, self.pieces)
        start = block * self.block
        stop = minimum(start + self.block, self.rows)
        low = minimum(start + piece * self.length, stop)
        return low, minimum(low + self.length, stop)


@dataclass(frozen=True)
class Private:
    """A buffer of which each thread has the part of its item, `offset` bytes into its area.

    step   elements from a matrix, or a row, of the strip to the next; 0: the buffer is the scratch
           memory of one product
    """

    buffer: Buffer
    offset: Dim
    step: Dim


@dataclass(frozen=True)
class RowSum:
    """A product that sums over the rows of a strip: kernel `number` of the program.

    partial   where the sums of a block along K lie, if there are several blocks
    """

    number: int
    partial: Buffer | None


@dataclass(frozen=True)
class Strip:
    """Kernels number `first` to `last` of a program run item by item.

    cut    how matrices are cut into items; None if they are items
    area   bytes of a thread's part of `scratch`, where its private buffers lie
    tables where in `scratch` the tables of a product lie (`kernel.walks`), which all items share:
           the number of its kernel in the strip, and how many bytes from the start
    head   bytes of all tables; the threads' parts come after them
    turns  where in `scratch` the words lie by which threads take turns in adding the sums of blocks
           (`lower.llvm.turns`), in bytes; None where none does
    """

    first: int
    last: int
    matrices: Dim
    cut: Cut | None
    scratch: Buffer
    area: Dim
    privates: tuple[Private, ...]
    sums: tuple[RowSum, ...] = ()
    tables: tuple[tuple[int, int], ...] = ()
    head: int = 0
    turns: Dim | None = None

    @property
    def numbers(self) -> range:
        return range(self.first, self.last + 1)

    @property
    def of_matrix(self) -> Dim:
        """Items of a matrix."""
        return self.cut.blocks * self.cut.pieces if self.cut else 1

    @property
    def items(self) -> Dim:
        return self.matrices * self.of_matrix

    @property
    def in_order(self) -> Dim:
        """So many items that follow each other are done by one thread, in order."""
        return self.cut.pieces if self.sums and self.cut else 1

    @property
    def groups(self) -> Dim:
        """How many threads can take part."""
        return self.matrices * (self.cut.blocks if self.sums and self.cut else self.of_matrix)

    @property
    def rows(self) -> Dim:
        """What kernels count, of a matrix: its rows, or itself."""
        return self.cut.rows if self.cut else 1

    def sum_of(self, number: int) -> RowSum | None:
        """What is known of a kernel that sums over rows; None if it does not."""
        return next((s for s in self.sums if s.number == number), None)

    def __str__(self) -> str:
        places = ", ".join(
            f"{p.buffer.name}: {p.buffer.dtype.short}[{p.buffer.size}] at {p.offset}"
            + (f" by {p.step}" if p.step != 0 else "")
            for p in self.privates
        )
        cut = f" of {self.cut.length} of {self.cut.rows} rows" if self.cut else ""
        sums = "".join(
            f", {s.number} sums" + (f" through {s.partial.name}" if s.partial else "")
            for s in self.sums
        )
        tables = f", tables of {self.head} bytes" if self.tables else ""
        return f"strip {self.first}..{self.last} of {self.items} items{cut}: {places}{sums}{tables}"


def fits(c: Contract, matrices: Dim, rows: Dim | None, in_steps: bool = False) -> bool:
    """Whether a product is of so many matrices that are packed on their own; of so many rows, or
    with sums over so many.  In steps of time it is of so many rows with a matrix that is packed
    already."""
    if c.packed or in_steps:
        return c.packed and in_steps and rows == c.m
    if c.a.walks:  # windows: tables are of whole matrices, and B is packed for each
        known = isinstance(table_words(c), int) and rows is None and isinstance(c.batch, int)
        many = isinstance(c.m, int) and c.m >= _FEWEST_WINDOWS
        return known and many and c.batch == matrices != 1 and not c.b.walks
    if c.b.walks or (c.b.batch == 0 and c.batch != 1):
        return False  # tables, or a matrix that is packed once for all
    return c.batch == matrices and (rows is None or rows in (c.m, c.k))


def table_words(c: Contract) -> Dim:
    """Words of the tables of a product."""
    return sum((t.words for t in tables_of(c.a, c.b, c.m, c.n, c.k)), start=0)


class Growth:
    """A strip that grows kernel by kernel; with `rows`, by rows of matrices of so many.  In steps
    of time there is one matrix, and its products are by packed ones."""

    def __init__(self, matrices: Dim, rows: Dim | None, in_steps: bool) -> None:
        self.matrices, self.rows, self.in_steps = matrices, rows, in_steps
        self.units = matrices * (1 if rows is None else rows)
        self.members: list[Kernel] = []
        self.sums: list[int] = []  # numbers of members that sum over the rows
        self.sizes: dict[str, Dim] = {}  # of stored buffers: elements of a matrix, or a row
        self.scattered: dict[str, list[Region]] = {}  # of other stored buffers: what is stored
        self.touched: set[str] = set()

    def joins(self, kernel: Kernel) -> bool:
        """Take a kernel in at the end, if it fits."""
        if any(isinstance(s, Call | Check | If | Pack) for s in walk(kernel.body)):
            return False
        touched, stored = kernel.touched, kernel.stored
        known = {n: self.sizes[n] for n in touched & self.sizes.keys()}
        shared = touched & self.scattered.keys()
        if shared and not (known and all(self._stores_elsewhere(kernel, n) for n in shared)):
            return False
        if (stored - known.keys() - shared) & self.touched:
            return False
        if self._joins_in_parts(kernel, known):
            return True
        if not self._sums_rows(kernel, known):
            return False
        if not self._scatters({n: region_of(kernel, n) for n in stored}):
            return False
        self.sums.append(len(self.members))
        self.members.append(kernel)
        self.touched |= touched
        return True

    def _stores_elsewhere(self, kernel: Kernel, name: str) -> bool:
        """Whether a kernel touches no element of a buffer that others here store."""
        region = region_of(kernel, name)
        return region is not None and all(map(region.is_apart, self.scattered[name]))

    def _scatters(self, regions: dict[str, Region | None]) -> bool:
        """Note what a kernel stores that is not in parts, if that is known."""
        found = {n: region for n, region in regions.items() if region is not None}
        if len(found) < len(regions):
            return False
        for name, region in found.items():
            self.scattered.setdefault(name, []).append(region)
        return True

    def _joins_in_parts(self, kernel: Kernel, known: dict[str, Dim]) -> bool:
        stored = kernel.stored
        new = stored - known.keys() - self.scattered.keys()
        own = self._evenly({b.name: b.size for b in kernel.starts if b.name in new})
        moved = self._in_parts(kernel, known or own)
        if moved is None:
            return False
        if self.in_steps:  # a buffer may go through the rows several times
            steps = {n: _row_step(moved, n) for n in own}
            own = {n: step for n, step in steps.items() if step > 0 and own[n] % step == 0}
        inside = {n for n, size in (known | own).items() if self._inside(moved, n, size)}
        regions = {n: region_of(kernel, n) for n in stored - inside}
        if not known.keys() <= inside or not self._scatters(regions):
            return False
        self.members.append(moved)
        self.sizes.update({n: own[n] for n in inside - known.keys() if n in stored})
        self.touched |= kernel.touched
        return True

    def _evenly(self, whole: dict[str, Dim]) -> dict[str, Dim]:
        """The sizes of the parts of buffers that are nothing but these."""
        parts = {n: divide(size, self.units) for n, size in whole.items() if size != 0}
        return {n: size for n, (size, rest) in parts.items() if rest == 0}

    def _in_parts(self, kernel: Kernel, sizes: dict[str, Dim]) -> Kernel | None:
        c = kernel.body[0]
        if isinstance(c, Contract):
            fitting = fits(c, self.matrices, self.rows, self.in_steps)
            return kernel if fitting and self.rows in (None, c.m) else None
        return by_items(kernel, self.units, sizes)

    def _inside(self, kernel: Kernel, name: str, size: Dim) -> bool:
        """Whether each matrix, or row, touches its own part of a buffer only."""
        first = kernel.body[0]
        if isinstance(first, Contract):
            return self._product_inside(first, name, size)
        item = item_of(kernel)
        if name in kernel.places.computed:
            return False
        return all(stays_inside(i, item, size) for i in kernel.places.indices(name))

    def _product_inside(self, c: Contract, name: str, size: Dim) -> bool:
        rows, along = self.rows, None if self.rows is None else 0
        a, b, result = (c.a, (c.m, c.k)), (c.b, (c.k, c.n)), (c.c, (c.m, c.n))
        if rows is not None and c.b.buffer.name == name:
            return False
        for x, extents in (a, b, result):
            if x.buffer.name != name:
                continue
            first = replace(x, base=x.base % (size * self.units))
            if not _operand_inside(first, extents, size, along, c.batch):
                return False
        unit = sym("unit", self.units)
        for index in c.after.indices(name):
            moved = _of_unit(index, c, unit, rows)
            if moved is None or not stays_inside(moved, unit, size):
                return False
        return name not in c.after.computed

    def _sums_rows(self, kernel: Kernel, known: dict[str, Dim]) -> bool:
        """Whether a kernel is a product that sums over the rows, of which it reads nothing else."""
        c = kernel.body[0]
        if not isinstance(c, Contract) or self.rows is None or c.k != self.rows or c.packed:
            return False
        if not fits(c, self.matrices, self.rows, self.in_steps):
            return False
        inside = {
            x.buffer.name
            for x, extents, along in ((c.a, (c.m, c.k), 1), (c.b, (c.k, c.n), 0))
            if _operand_inside(x, extents, known.get(x.buffer.name, 0), along, c.batch)
        }
        others = {b.name for b, _ in c.after.accesses} | {c.c.buffer.name}
        return known.keys() <= inside and others.isdisjoint(known)


def _operand_inside(
    x: Operand, extents: tuple[Dim, Dim], size: Dim, along: int | None, batch: Dim
) -> bool:
    """Whether elements of an operand of one matrix are those of the same matrix of its buffer;
    or those of one row (`along` 0) or column (1) those of the same row of the buffer."""
    if x.walks:
        low, high = bounds(x.place(0, *(sym(f"at{k}", n) for k, n in enumerate(extents))))
        below = isinstance(size, int) and high < size
        return along is None and x.batch == size and low >= 0 and below
    steps, numbers = x.strides, (x.base, x.batch, *x.strides, *extents)
    if not all(map(is_natural, numbers)):
        return False
    if along is None:
        last = x.base + sum((n - 1) * step for n, step in zip(extents, steps, strict=True))
        return x.batch == size and is_natural(size - 1 - last)
    last = x.base + (extents[1 - along] - 1) * steps[1 - along]
    following = batch == 1 or x.batch == steps[along] * extents[along]
    return steps[along] == size and following and is_natural(size - 1 - last)


def _of_unit(index: Dim, c: Contract, unit: Dim, rows: Dim | None) -> Dim | None:
    """An index of an epilogue in terms of the matrix, or of the row of all matrices."""
    if rows is None:
        return substitute(index, {symbol_of(c.batch_var): unit})
    batch, row = coefficient(index, c.batch_var), coefficient(index, c.row_var)
    if batch is None or row is None or (c.batch != 1 and batch[0] != row[0] * rows):
        return None
    return row[0] * unit + substitute(index, {symbol_of(c.batch_var): 0, symbol_of(c.row_var): 0})


def _row_step(kernel: Kernel, name: str) -> int:
    """How far the first store of a kernel to a buffer moves from row to row of one matrix; 0 if it
    does not."""
    c = kernel.body[0]
    stores = (s.index for s in walk(kernel.body) if isinstance(s, Store) and s.buffer.name == name)
    if isinstance(c, Contract) and c.c.buffer.name == name:
        step: Dim = c.c.strides[0]
    else:
        row = c.row_var if isinstance(c, Contract) else item_of(kernel)
        split = coefficient(next(stores), row)
        step = 0 if split is None else split[0]
    return step if isinstance(step, int) else 0


def workspaces_of(kernel: Kernel) -> set[str]:
    stmts = (s for s in kernel.body if isinstance(s, Contract))
    return {s.workspace.name for s in stmts if s.workspace is not None}
