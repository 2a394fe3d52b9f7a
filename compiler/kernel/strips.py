"""Strips: kernels that go through the same items, one item after another.

The kernels of attention all do the same for each head: scores, softmax, the product with the
values.  Run one by one, each of them goes through the memory of all heads.  In a strip one thread
takes one head through all of them, while its scores are in cache, and what only the strip needs
is memory of a thread, not of all heads.

An *item* is one of n equal parts of every buffer that kernels of the strip hand to each other; in
a buffer of several rounds, as the states of all steps of a sequence, one part of each round.
Kernels belong to a strip if each item of theirs reads, of what the strip stores, its own item
only.  Products are taken apart along their batch and, where an item would not fit a core's cache,
along their rows; the sums themselves, along K, stay whole.  So no number changes.

The loop over time of a recurrent layer is a strip too: its products share a matrix, packed once
(`packed`), and rows of the batch are on their own.  One thread takes its rows through all steps.

Kernels in between that have nothing to do with a strip run before it, those that need it after it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from dualgrad.compiler.ir.dims import Dim, coefficient, substitute, sym, symbol_of
from dualgrad.compiler.kernel.ir import (
    PACKED_ROWS,
    Buffer,
    Call,
    Check,
    Contract,
    If,
    Kernel,
    Loop,
    Operand,
    Pack,
    Reduce,
    Stmt,
    Store,
    accesses_of,
    scalars_of,
    walk,
)
from dualgrad.compiler.kernel.items import bounds, by_items, item_of, stays_inside
from dualgrad.compiler.kernel.scalar import children_first
from dualgrad.runtime.records import dataclass


@dataclass(frozen=True)
class Private:
    """A buffer of which each thread has the part of its item, `offset` bytes into its area.

    item   elements of an item; 0: the buffer is the scratch memory of one product
    """

    buffer: Buffer
    offset: int
    item: int


@dataclass(frozen=True)
class Strip:
    """Kernels number `first` to `last` of a program run item by item.

    area   bytes of a thread's part of `scratch`, where its private buffers lie
    """

    first: int
    last: int
    items: int
    scratch: Buffer
    area: int
    privates: tuple[Private, ...]

    @property
    def numbers(self) -> range:
        return range(self.first, self.last + 1)

    def __str__(self) -> str:
        places = ", ".join(
            f"{p.buffer.name}: {p.buffer.dtype.short}[{p.buffer.size}] at {p.offset}"
            + (f" by {p.item}" if p.item else "")
            for p in self.privates
        )
        return f"strip {self.first}..{self.last} of {self.items} items: {places}"


@dataclass(frozen=True)
class Part:
    """The part of a product that an item does: `rows` rows of a matrix that `parts` items share."""

    rows: int
    parts: int

    @classmethod
    def of(cls, c: Contract, items: int) -> Part | None:
        """None if the rows of all matrices are not so many equal parts."""
        if not (isinstance(c.batch, int) and isinstance(c.m, int)) or 0 in (c.batch, items):
            return None
        if c.a.walks or c.b.walks or (c.b.batch == 0 or c.batch == 1) != c.packed:
            return None  # tables, or a matrix that each item would have to pack
        parts, rest = divmod(items, c.batch)
        if rest or parts < 1 or c.m % parts or (c.packed and c.m // parts < PACKED_ROWS):
            return None
        return cls(c.m // parts, parts)


class Growth:
    """A strip that grows kernel by kernel."""

    def __init__(self, items: int) -> None:
        self.items = items
        self.members: list[Kernel] = []
        self.sizes: dict[str, int] = {}  # of stored buffers: elements of an item
        self.scattered: set[str] = set()  # stored buffers that are not in items
        self.touched: set[str] = set()

    def joins(self, kernel: Kernel) -> bool:
        """Take a kernel in at the end, if it fits."""
        if any(isinstance(s, Call | Check | If | Pack) for s in walk(kernel.body)):
            return False
        touched, stored = touched_by(kernel), stored_by(kernel)
        if touched & self.scattered or (stored - self.sizes.keys()) & self.touched:
            return False
        known = {n: self.sizes[n] for n in touched & self.sizes.keys()}
        whole = {b.name: b.size for b in kernel.starts if b.name in stored - known.keys()}
        moved = self._by_items(kernel, known or self._evenly(whole))
        if moved is None:
            return False
        own = self._sizes_of(moved, whole)
        inside = {n for n, size in (known | own).items() if self._inside(moved, n, size)}
        rest = stored - inside
        if not known.keys() <= inside or not all(_scatters(kernel, n) for n in rest):
            return False
        self.members.append(moved)
        self.sizes.update({n: own[n] for n in inside - known.keys() if n in stored})
        self.scattered |= rest
        self.touched |= touched
        return True

    def _by_items(self, kernel: Kernel, sizes: dict[str, int]) -> Kernel | None:
        first = kernel.body[0]
        if isinstance(first, Contract):
            return kernel if Part.of(first, self.items) else None
        return by_items(kernel, self.items, sizes)

    def _evenly(self, whole: dict[str, Dim]) -> dict[str, int]:
        """The sizes of the items of buffers that are nothing but these."""
        return {
            n: size // self.items
            for n, size in whole.items()
            if isinstance(size, int) and size and size % self.items == 0
        }

    def _sizes_of(self, kernel: Kernel, whole: dict[str, Dim]) -> dict[str, int]:
        """The sizes of the items of buffers that a kernel stores, where they are multiples of all
        items together: by how far its stores move from item to item."""
        first = kernel.body[0]
        if isinstance(first, Contract) and first.batch != 1:
            return self._evenly(whole)
        found = {}
        for n, size in self._evenly(whole).items():
            step = _row_step(first, n) if isinstance(first, Contract) else _item_step(kernel, n)
            if isinstance(first, Contract) and isinstance(step, int):
                part = Part.of(first, self.items)
                assert part is not None
                step = step * part.rows
            if isinstance(step, int) and step > 0 and size % step == 0:
                found[n] = step
        return found

    def _inside(self, kernel: Kernel, name: str, size: int) -> bool:
        """Whether each item touches its own part of a buffer only."""
        first = kernel.body[0]
        if isinstance(first, Contract):
            return self._product_inside(first, name, size)
        item = item_of(kernel)
        if any(b.name == name for b in _computed(kernel.body)):
            return False
        return all(
            stays_inside(i, item, size) for b, i in accesses_of(kernel.body) if b.name == name
        )

    def _product_inside(self, c: Contract, name: str, size: int) -> bool:
        part = Part.of(c, self.items)
        assert part is not None
        operands = ((c.a, True, c.k), (c.b, False, c.n), (c.c, True, c.n))
        for x, by_rows, columns in operands:
            rows: Dim = part.rows if by_rows else c.k
            if x.buffer.name != name:
                continue
            matrix = replace(x, base=x.base % (size * self.items))
            if not _operand_inside(matrix, part, c, size, by_rows, rows, columns):
                return False
        item, row = sym("item", self.items), sym("row", part.rows)
        for buffer, index in accesses_of(c.epilogue):
            if buffer.name != name:
                continue
            moved = _by_part(index, c, part, item, row)
            if moved is None or not stays_inside(moved, item, size):
                return False
        return not any(b.name == name for b in _computed(c.epilogue))


def _operand_inside(
    x: Operand, part: Part, c: Contract, size: int, by_rows: bool, rows: Dim, columns: Dim
) -> bool:
    """Whether an operand's elements of an item are those of the same item of its buffer."""
    down, along = x.strides
    numbers = (x.base, x.batch, down, along, rows, columns)
    if not all(isinstance(d, int) and d >= 0 for d in numbers):
        return False
    if part.parts > 1 and (not by_rows or (c.batch != 1 and x.batch != down * c.m)):
        return False
    step = x.batch if part.parts == 1 else down * rows
    last = x.base + down * (rows - 1) + along * (columns - 1)
    return step == size and isinstance(last, int) and last < size


def _by_part(index: Dim, c: Contract, part: Part, item: Dim, row: Dim) -> Dim | None:
    """An index of an epilogue in terms of the item and the row of its part."""
    batch, rows = coefficient(index, c.batch_var), coefficient(index, c.row_var)
    if batch is None or rows is None:
        return None
    if part.parts == 1:
        return substitute(index, {symbol_of(c.batch_var): item})
    if c.batch != 1 and batch[0] != rows[0] * c.m:
        return None
    rest = substitute(index, {symbol_of(c.batch_var): 0, symbol_of(c.row_var): 0})
    return rows[0] * (part.rows * item + row) + rest


def _row_step(c: Contract, name: str) -> Dim | None:
    """How far a product's stores to a buffer move from row to row."""
    if c.c.buffer.name == name:
        return c.c.strides[0]
    index = next(s.index for s in c.epilogue if s.buffer.name == name)
    split = coefficient(index, c.row_var)
    return None if split is None else split[0]


def _item_step(kernel: Kernel, name: str) -> Dim | None:
    """How far a kernel's stores to a buffer move from item to item."""
    stores = (s for s in walk(kernel.body) if isinstance(s, Store) and s.buffer.name == name)
    split = coefficient(next(stores).index, item_of(kernel))
    return None if split is None else split[0]


def touched_by(kernel: Kernel) -> set[str]:
    return {b.name for b in kernel.starts}


def stored_by(kernel: Kernel) -> set[str]:
    """The buffers that a kernel writes to; scratch memory of a product counts."""
    out = set()
    for s in walk(kernel.body):
        if isinstance(s, Store):
            out.add(s.buffer.name)
        elif isinstance(s, Contract):
            out.add(s.c.buffer.name)
        elif isinstance(s, Pack):
            out.add(s.packed.name)
        elif isinstance(s, Call):
            out.add(s.output.buffer.name)
    return out


def workspaces_of(kernel: Kernel) -> set[str]:
    stmts = (s for s in kernel.body if isinstance(s, Contract))
    return {s.workspace.name for s in stmts if s.workspace is not None}


def _computed(body: tuple[Stmt, ...]) -> Iterable[Buffer]:
    """The buffers that statements touch at computed places."""
    for stmt in walk(body):
        if isinstance(stmt, Store) and stmt.position is not None:
            yield stmt.buffer
        for e in children_first(scalars_of(stmt)):
            if e.op == "gather":
                yield e.memory[0]


def _scatters(kernel: Kernel, name: str) -> bool:
    """Whether a kernel stores every element of a buffer at most once, and does not read it."""
    if isinstance(kernel.body[0], Contract):
        return False
    stores = [s for s in walk(kernel.body) if isinstance(s, Store) and s.buffer.name == name]
    uses = [b for b, _ in accesses_of(kernel.body) if b.name == name]
    if len(stores) != 1 or len(uses) != 1 or stores[0].position is not None:
        return False
    reach = 0.0  # of loops that move by less
    steps = []
    for loop in walk(kernel.body):
        if isinstance(loop, Loop) or (isinstance(loop, Reduce) and stores[0] in loop.stores):
            split = coefficient(stores[0].index, loop.var)
            if split is None or not isinstance(split[0], int):
                return False
            steps.append((split[0], bounds(loop.extent)[1]))
    for step, extent in sorted(steps):
        if extent > 1 and step <= reach:
            return False
        reach += step * max(extent - 1, 0)
    return True
