"""Finding strips: which kernels of a program go item by item, in which order, and where the memory
that only they need lies.

A strip starts with a product of many matrices and grows kernel by kernel, forwards and then
backwards; items are matrices or, where one would not fit a core's cache, some rows of one.  So may
a product of one matrix, where that saves much memory.  Or a strip starts with a product by a matrix
that several products share, packed once, and goes on through those; items are blocks of rows, as
many as there are threads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import reduce

from dualgrad.compiler.ir.certain import is_natural
from dualgrad.compiler.ir.dims import Dim, ceil_div, maximum, minimum
from dualgrad.compiler.kernel.ir import (
    K_BLOCK,
    PACKED_ROWS,
    Buffer,
    Call,
    Check,
    Contract,
    Kernel,
    walk,
)
from dualgrad.compiler.kernel.strips import (
    Cut,
    Growth,
    Private,
    RowSum,
    Strip,
    fits,
    table_words,
    workspaces_of,
)
from dualgrad.compiler.launch import ALIGNMENT, Space, plan_arena
from dualgrad.runtime.dtype import DType, int64
from dualgrad.runtime.records import dataclass

REACH = 24  # kernels after the first that are looked at; after the last so far, in steps of time
ITEMS_PER_THREAD = 4  # from so many on, threads finish together
CACHED = 1 << 20  # bytes of an item that stay in a core's cache
FAR = 8 << 20  # bytes of a buffer that caches do not hold
LONE = 4  # times as many scores as elements of both operands: then a strip of one matrix pays
FEWEST_STEPS = 2
FEWEST_ROWS = 64  # of a product in one item: with fewer its other operand is packed too often


class Finder:
    """Finds the strips of a program, and puts its kernels in their order.

    scratch     makes a buffer of so many elements
    workspace   bytes of scratch memory of a product (m, n, k) on one thread
    """

    def __init__(
        self,
        kernels: Sequence[Kernel],
        temporaries: Iterable[Buffer],
        threads: int,
        scratch: Callable[[DType, Dim], Buffer],
        workspace: Callable[[Dim, Dim, Dim], Dim],
    ) -> None:
        self.kernels = list(kernels)
        self.temporaries = {b.name: b for b in temporaries}
        self.threads, self.scratch, self.workspace = threads, scratch, workspace
        self.strips: list[Strip] = []
        # how many kernels touch a buffer
        self.users = Counter(n for kernel in kernels for n in kernel.touched)

    def run(self) -> tuple[list[Kernel], tuple[Strip, ...]]:
        position = 0
        while position < len(self.kernels):
            position = self._from(position)
        return self.kernels, tuple(self.strips)

    def _from(self, seed: int) -> int:
        """Let a strip start with a kernel, if it can; where to go on."""
        first = self.kernels[seed].body[0]
        low = self.strips[-1].last + 1 if self.strips else 0
        if not isinstance(first, Contract) or 0 in (first.m, first.n, first.k):
            return seed + 1
        if first.packed:
            steps = self._through_time(low, seed, first)
            return seed + 1 if steps is None else self._keep(low, steps)
        if not fits(first, first.batch, None):
            return seed + 1
        if first.batch == 1:
            lone = self._lone(low, seed, first)
            return seed + 1 if lone is None else self._keep(low, lone)
        found = self._grown(low, seed, first.batch, None)
        if found is None:
            return seed + 1
        area = self._area_of(found)
        if not isinstance(area, int):
            rows = self._by_rows(low, seed, found.growth.matrices, found.contracts)
            if rows is None:
                return seed + 1
            found = rows
        elif area > CACHED:
            found = self._by_rows(low, seed, found.growth.matrices, found.contracts) or found
        return self._keep(low, found) if self._keeps_busy(found) else seed + 1

    def _through_time(self, low: int, seed: int, c: Contract) -> Found | None:
        """A strip of products by packed matrices, in as many blocks of rows as there are threads,
        if there are enough rows."""
        assert isinstance(c.m, int)
        cuts = (Cut(c.m, pieces) for pieces in range(self.threads, 1, -1))
        cut = next((x for x in cuts if is_natural(_last_rows(x) - PACKED_ROWS)), None)
        found = None if cut is None else self._forward(low, [seed], 1, c.m)
        if found is None or sum(map(_is_packed, found.growth.members)) < FEWEST_STEPS:
            return None
        return replace(found, cut=cut)

    def _keeps_busy(self, found: Found) -> bool:
        """Whether there is enough for all threads to do at the same time, or too much memory that
        would be needed otherwise."""
        growth, n = found.growth, found.growth.matrices
        if not isinstance(n, int):
            return True
        if growth.rows is not None:  # memory counts more than that all threads finish together
            assert found.cut is not None
            groups = n * found.cut.blocks if growth.sums else self.threads
            enough = not isinstance(groups, int) or groups >= self.threads
            return enough or self._is_far(found)
        return n % self.threads == 0 or n >= ITEMS_PER_THREAD * self.threads

    def _is_far(self, found: Found) -> bool:
        """Whether caches do not hold what a strip keeps to itself, or may not."""
        privates, _ = self._laid_out(found, with_scratch=False)
        sizes = (p.buffer.size * p.buffer.dtype.itemsize for p in privates)
        return any(not isinstance(n, int) or n > FAR for n in sizes)

    def _lone(self, low: int, seed: int, c: Contract) -> Found | None:
        """A strip by rows of one matrix, whose products could as well run on all threads one after
        another: if that saves memory, as with the scores of a single head.  Sizes that are not
        known are taken for those of scores if rows are reduced, and no factor is a weight."""
        size = c.m * c.n
        known = isinstance(size, int)
        if isinstance(size, int):
            large = size * c.result.dtype.itemsize > FAR
            if not large or not is_natural(size - LONE * (c.m + c.n) * c.k):
                return None
        elif isinstance(c.m, int) or isinstance(c.n, int):
            return None
        found = self._by_rows(low, seed, 1, 2)
        if found is None or not self._keeps_busy(found):
            return None
        if not known and all(k.kind != "row" for k in found.growth.members):
            return None
        privates, _ = self._laid_out(found, with_scratch=False)
        return found if any(p.buffer == c.c.buffer for p in privates) else None

    def _by_rows(self, low: int, seed: int, matrices: Dim, products: int) -> Found | None:
        """A strip with some rows of a matrix in an item, of so many products at least."""
        first = self.kernels[seed].body[0]
        assert isinstance(first, Contract)
        finer = self._grown(low, seed, matrices, first.m)
        if finer is None or finer.contracts < products:
            return None
        block, area = Cut(first.m, 1).block, self._area_of(finer)
        row = ceil_div(area, block) if isinstance(area, int) else self._area_of_row(finer)
        fitting = maximum(CACHED // maximum(row, 1), FEWEST_ROWS)
        return replace(finer, cut=Cut(first.m, maximum(ceil_div(block, fitting), 1)))

    def _area_of(self, found: Found) -> Dim:
        """Bytes of a thread's area without the scratch memory of products, of which small ones
        use little."""
        return self._laid_out(found, with_scratch=False)[1]

    def _area_of_row(self, found: Found) -> Dim:
        """Bytes of a row in all private buffers, as if none took turns."""
        privates, _ = self._laid_out(found, with_scratch=False)
        return sum((p.step * p.buffer.dtype.itemsize for p in privates), start=0)

    def _grown(self, low: int, seed: int, matrices: Dim, rows: Dim | None) -> Found | None:
        """The strip of so many matrices, or their rows, from a kernel on, with the kernels that
        prepare it."""
        found = self._forward(low, [seed], matrices, rows)
        if found is None:
            return None
        prepared = self._prepared(found)
        if prepared.chosen[0] != seed:  # others may need what these prepare
            first = [k for k in prepared.chosen if k <= seed]
            prepared = self._prepared(self._forward(low, first, matrices, rows) or prepared)
        return prepared if len(prepared.chosen) > 1 else None

    def _forward(
        self,
        low: int,
        first: list[int],
        matrices: Dim,
        rows: Dim | None,
        later: frozenset[int] = frozenset(),
    ) -> Found | None:
        """The strip that starts with these kernels, the last of which is where it starts to grow,
        without those that are to come later; None if they are none."""
        seed = first[-1]
        in_steps = _is_packed(self.kernels[seed])
        growth = Growth(matrices, rows, in_steps)
        if not all(growth.joins(self.kernels[k]) for k in first):
            return None
        after = Aside()
        chosen = [*first]
        early: list[int] = []
        waiting: list[int] = []
        for k in range(seed + 1, len(self.kernels)):
            kernel = self.kernels[k]
            far = k - (chosen[-1] if in_steps else seed) >= REACH
            if far or any(isinstance(s, Call | Check) for s in walk(kernel.body)):
                break
            free = not after.meets(kernel)
            needs = bool(kernel.touched & (growth.sizes.keys() | growth.scattered))
            needs |= in_steps and _is_packed(kernel)  # as of the other direction
            if free and needs and k not in later and growth.joins(kernel):
                early, waiting = early + waiting, []
                chosen.append(k)
            elif free and not needs and not kernel.stored & growth.touched:
                waiting.append(k)
            else:
                after.add(kernel)
        large = later | {k for k in chosen if k > seed and self._is_large_end(growth, k)}
        if large != later:
            return self._forward(low, first, matrices, rows, large)
        before = [k for k in range(low, seed) if k not in first]
        cut = None if rows is None else Cut(rows, 1)
        return Found(growth, cut, before + early, chosen, chosen[-1])

    def _is_large_end(self, growth: Growth, number: int) -> bool:
        """Whether a product stores, for others than the strip, more than it takes from it, and
        more than caches hold: it had better run where that is used."""
        first = self.kernels[number].body[0]
        if not isinstance(first, Contract):
            return False
        name, sizes = first.c.buffer.name, growth.sizes
        whole = self.temporaries.get(name)
        users = sum(name in x.touched for x in growth.members)
        if whole is None or users > 1 or name not in sizes or not isinstance(whole.size, int):
            return False
        if whole.size * whole.dtype.itemsize <= FAR:
            return False
        nbytes = {
            b.name: sizes[b.name] * b.dtype.itemsize
            for b in self.kernels[number].starts
            if b.name in sizes
        }
        stored = nbytes.pop(name)
        return not is_natural(sum(nbytes.values(), start=0) - stored)

    def _prepared(self, found: Found) -> Found:
        """With the kernels before it that do nothing but prepare a strip, item by item."""
        aside = Aside()
        for k in reversed(found.before):
            kernel = self.kernels[k]
            if any(isinstance(s, Call | Check) for s in walk(kernel.body)):
                break
            if not aside.meets(kernel) and kernel.stored & found.growth.touched:
                old = found.growth
                growth = Growth(old.matrices, old.rows, old.in_steps)
                members = [kernel, *(self.kernels[j] for j in found.chosen)]
                if all(map(growth.joins, members)):
                    before = [j for j in found.before if j != k]
                    found = replace(found, growth=growth, before=before, chosen=[k, *found.chosen])
                    continue
            aside.add(kernel)
        return found

    def _keep(self, low: int, found: Found) -> int:
        """Put the kernels into their order; where to look for the next strip."""
        growth = found.growth
        chosen, before = {*found.chosen}, {*found.before}
        after = [
            self.kernels[k]
            for k in range(low, found.last + 1)
            if k not in chosen and k not in before
        ]
        head = [self.kernels[k] for k in sorted(before)]
        partials = [self._partial(found, k) for k in growth.sums]
        privates, area = self._laid_out(found, partials)
        self.kernels[low : found.last + 1] = [*head, *growth.members, *after]
        first = low + len(head)
        last = first + len(growth.members) - 1
        tables, table_bytes = _tables(growth.members)
        words = ceil_div(table_bytes + area * self.threads, 8)
        turns = words * 8 if any(partials) else None
        scratch = self.scratch(int64, words + (0 if turns is None else 1 + growth.matrices))
        sums = tuple(RowSum(first + k, p) for k, p in zip(growth.sums, partials, strict=True))
        cut, matrices = found.cut, growth.matrices
        memory = scratch, area, privates
        strip = Strip(first, last, matrices, cut, *memory, sums, tables, table_bytes, turns)
        self.strips.append(strip)
        return last + 1

    def _partial(self, found: Found, number: int) -> Buffer | None:
        """Memory for the sums of a block, unless there is but one."""
        (c,) = found.growth.members[number].body
        assert isinstance(c, Contract)
        assert found.cut is not None
        return None if found.cut.blocks == 1 else self.scratch(c.result.dtype, c.m * c.n)

    def _laid_out(
        self, found: Found, partials: Sequence[Buffer | None] = (), with_scratch: bool = True
    ) -> tuple[tuple[Private, ...], Dim]:
        """Where a thread's private buffers lie in its area, and the bytes of that; perhaps without
        the scratch memory of products."""
        members, rows = found.growth.members, _room(found.cut)
        own = Counter(n for k in found.chosen for n in self.kernels[k].touched)
        used: dict[str, list[int]] = {}
        for k, kernel in enumerate(members):
            for b in kernel.starts:  # in their order: it is part of the program
                used.setdefault(b.name, []).append(k)
        privates: list[tuple[Buffer, Dim]] = []
        spaces = []
        nbytes: Dim
        step: Dim
        for name, numbers in used.items():
            buffer, size = self.temporaries.get(name), found.growth.sizes.get(name)
            if buffer is None or own[name] < self.users[name]:
                continue
            if name in workspaces_of(members[numbers[0]]):
                if not with_scratch:
                    continue
                nbytes, step = self._workspace(found, numbers[0]), 0
            elif size is not None and size * found.growth.units == buffer.size:
                nbytes, step = size * rows * buffer.dtype.itemsize, size
            else:
                continue
            privates.append((buffer, step))
            spaces.append(Space(nbytes, numbers[0], numbers[-1]))
        for partial in partials:
            if partial is not None:
                privates.append((partial, 0))
                whole = partial.size * partial.dtype.itemsize
                spaces.append(Space(whole, 0, len(members)))
        offsets, area = plan_area(spaces)
        found_privates = tuple(
            Private(buffer, offset, step)
            for (buffer, step), offset in zip(privates, offsets, strict=True)
        )
        return found_privates, area

    def _workspace(self, found: Found, number: int) -> Dim:
        """Bytes of scratch memory of a product."""
        (c,) = found.growth.members[number].body
        assert isinstance(c, Contract)
        m, k = c.m, c.k
        if found.cut and number in found.growth.sums:
            k = _most_rows(found.cut)
        elif found.cut:
            m = _most_rows(found.cut)
        return self.workspace(m, c.n, k)


def _last_rows(cut: Cut) -> Dim:
    """Rows of the last item of one block."""
    return cut.rows - (cut.pieces - 1) * cut.length


def _room(cut: Cut | None) -> Dim:
    """Rows of an item that private buffers have room for: where their number is not known, so many
    that no buffer needs to be aligned after the others."""
    if cut is None:
        return 1
    rows = cut.length
    return rows if isinstance(rows, int) else _aligned(rows)


def _most_rows(cut: Cut) -> Dim:
    """A number that an item never has more rows than."""
    return cut.length if isinstance(cut.length, int) else minimum(cut.rows, K_BLOCK)


def plan_area(spaces: Sequence[Space]) -> tuple[list[Dim], Dim]:
    """Offsets in bytes for the spaces of a thread, and their size.

    Where sizes are symbols, nobody knows here which of two is the larger one: spaces of equal size
    take turns, and one of each kernel that no other one uses, as the scratch memory of products,
    lies in a place that is large enough for all of these.
    """
    if all(isinstance(s.nbytes, int) for s in spaces):
        offsets, total = plan_arena(tuple(spaces), {})
        return [*offsets], total
    single = {s.first: k for k, s in enumerate(spaces) if s.first == s.last}
    nothing: Dim = 0
    largest = reduce(maximum, dict.fromkeys(spaces[k].nbytes for k in single.values()), nothing)
    top = _aligned(largest)
    places: list[Dim] = []
    used: list[tuple[int, Dim, Dim]] = []  # the last kernel that does, bytes, offset
    for k, s in enumerate(spaces):
        if single.get(s.first) == k:
            places.append(0)
            continue
        slot = next((x for x in used if x[0] < s.first and x[1] == s.nbytes), None)
        if slot is None:
            slot = s.last, s.nbytes, top
            top = top + _aligned(s.nbytes)
        else:
            used.remove(slot)
        used.append((s.last, s.nbytes, slot[2]))
        places.append(slot[2])
    return places, top


def _aligned(nbytes: Dim) -> Dim:
    return ceil_div(nbytes, ALIGNMENT) * ALIGNMENT


def _tables(members: Sequence[Kernel]) -> tuple[tuple[tuple[int, int], ...], int]:
    """Where the tables of products lie, and their bytes."""
    tables, head = [], 0
    for number, kernel in enumerate(members):
        first = kernel.body[0]
        words = table_words(first) if isinstance(first, Contract) else 0
        assert isinstance(words, int)
        if words:
            tables.append((number, head))
            head += 8 * words
    return tuple(tables), head


def _is_packed(kernel: Kernel) -> bool:
    first = kernel.body[0]
    return isinstance(first, Contract) and first.packed


@dataclass(frozen=True)
class Found:
    """A strip in the order of a program: numbers of kernels that run before it, of its own, and
    of the last of these."""

    growth: Growth
    cut: Cut | None
    before: list[int]
    chosen: list[int]
    last: int

    @property
    def contracts(self) -> int:
        """How many products it has."""
        return sum(k.kind == "contract" for k in self.growth.members)


class Aside:
    """Kernels that others may have to stay behind, or in front of."""

    def __init__(self) -> None:
        self.touched: set[str] = set()
        self.stored: set[str] = set()

    def add(self, kernel: Kernel) -> None:
        self.touched |= kernel.touched
        self.stored |= kernel.stored

    def meets(self, kernel: Kernel) -> bool:
        """Whether a kernel and one of these touch what the other one stores."""
        return bool(kernel.touched & self.stored or kernel.stored & self.touched)
