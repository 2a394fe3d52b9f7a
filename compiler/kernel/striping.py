"""Finding strips: which kernels of a program go item by item, in which order, and where the memory
that only they need lies.

A strip starts with a product of many matrices and grows kernel by kernel, forwards and then
backwards; items are matrices or, where one would not fit a core's cache, blocks of rows.  Or it
starts with a product by a matrix that several products share, packed once; items are blocks of
rows, as tall as keeps all threads busy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from dualgrad.compiler.ir.dims import Dim
from dualgrad.compiler.kernel.ir import (
    PACKED_ROWS,
    Buffer,
    Call,
    Check,
    Contract,
    Kernel,
    walk,
)
from dualgrad.compiler.kernel.strips import (
    Growth,
    Part,
    Private,
    Strip,
    stored_by,
    touched_by,
    workspaces_of,
)
from dualgrad.compiler.launch import Space, plan_arena
from dualgrad.runtime.records import dataclass

REACH = 24  # kernels after the first that are looked at; after the last so far, in steps of time
ITEMS_PER_THREAD = 4  # from so many on, threads finish together
CACHED = 1 << 20  # bytes of an item that stay in a core's cache
FEWEST_STEPS = 2
FEWEST_ROWS = 64  # of a product in one item: with fewer its other operand is packed too often


class Finder:
    """Finds the strips of a program, and puts its kernels in their order.

    scratch     makes a buffer of so many bytes
    workspace   bytes of scratch memory of a product (m, n, k) on one thread
    """

    def __init__(
        self,
        kernels: Sequence[Kernel],
        temporaries: Iterable[Buffer],
        threads: int,
        scratch: Callable[[int], Buffer],
        workspace: Callable[[Dim, Dim, Dim], Dim],
    ) -> None:
        self.kernels = list(kernels)
        self.temporaries = {b.name: b for b in temporaries}
        self.threads, self.scratch, self.workspace = threads, scratch, workspace
        self.strips: list[Strip] = []

    def run(self) -> tuple[list[Kernel], tuple[Strip, ...]]:
        position = 0
        while position < len(self.kernels):
            position = self._from(position)
        return self.kernels, tuple(self.strips)

    def _from(self, seed: int) -> int:
        """Let a strip start with a kernel, if it can; where to go on."""
        first = self.kernels[seed].body[0]
        low = self.strips[-1].last + 1 if self.strips else 0
        if not isinstance(first, Contract):
            return seed + 1
        if first.packed:
            items = _blocks_of_rows(first, self.threads)
            steps = self._forward(low, [seed], items) if items > 1 else None
            return seed + 1 if steps is None or _is_short(steps) else self._keep(low, steps)
        if not self._has_items(first):
            return seed + 1
        assert isinstance(first.batch, int)
        found = self._grown(low, seed, first.batch)
        if found is None:
            return seed + 1
        finer = self._in_cache(low, seed, first, found)
        return self._keep(low, finer or found)

    def _has_items(self, c: Contract) -> bool:
        n = c.batch
        if not isinstance(n, int) or n < 2 or 0 in (c.m, c.n, c.k):
            return False
        return n % self.threads == 0 or n >= ITEMS_PER_THREAD * self.threads

    def _in_cache(self, low: int, seed: int, c: Contract, found: Found) -> Found | None:
        """The same strip with fewer rows in an item, where one would not fit the cache."""
        size = self._laid_out(found, with_workspaces=False)[1]
        assert isinstance(c.m, int)
        if size <= CACHED:
            return None
        wanted = -(-size // CACHED)
        fitting = (d for d in range(wanted, c.m + 1) if c.m % d == 0)
        parts = next(fitting, 1)
        if parts == 1 or c.m // parts < FEWEST_ROWS:
            return None
        finer = self._grown(low, seed, found.growth.items * parts)
        contracts = [
            sum(k.kind == "contract" for k in x.growth.members)
            for x in (found, finer)
            if x is not None
        ]
        return finer if len(contracts) == 2 and contracts[0] == contracts[1] else None

    def _grown(self, low: int, seed: int, items: int) -> Found | None:
        """The strip of so many items from a kernel on, with the kernels that prepare it."""
        found = self._forward(low, [seed], items)
        if found is None:
            return None
        prepared = self._prepared(found)
        if prepared.chosen[0] != seed:  # others may need what these prepare
            first = [k for k in prepared.chosen if k <= seed]
            prepared = self._prepared(self._forward(low, first, items) or prepared)
        return prepared if len(prepared.chosen) > 1 else None

    def _forward(self, low: int, first: list[int], items: int) -> Found | None:
        """The strip that starts with these kernels, the last of which is where it starts to grow;
        None if they are none."""
        growth, seed = Growth(items), first[-1]
        if not all(growth.joins(self.kernels[k]) for k in first):
            return None
        after = Aside()
        chosen = [*first]
        early: list[int] = []
        waiting: list[int] = []
        in_steps = _is_packed(self.kernels[seed])
        for k in range(seed + 1, len(self.kernels)):
            kernel = self.kernels[k]
            far = k - (chosen[-1] if in_steps else seed) >= REACH
            if far or any(isinstance(s, Call | Check) for s in walk(kernel.body)):
                break
            free = not after.meets(kernel)
            needs = bool(touched_by(kernel) & (growth.sizes.keys() | growth.scattered))
            needs |= in_steps and _is_packed(kernel)  # as the other direction does
            if free and needs and growth.joins(kernel):
                early, waiting = early + waiting, []
                chosen.append(k)
            elif free and not needs and not stored_by(kernel) & growth.touched:
                waiting.append(k)
            else:
                after.add(kernel)
        before = [k for k in range(low, seed) if k not in first]
        return Found(growth, before + early, chosen, chosen[-1])

    def _prepared(self, found: Found) -> Found:
        """With the kernels before it that do nothing but prepare a strip, item by item."""
        aside = Aside()
        for k in reversed(found.before):
            kernel = self.kernels[k]
            if any(isinstance(s, Call | Check) for s in walk(kernel.body)):
                break
            if not aside.meets(kernel) and stored_by(kernel) & found.growth.touched:
                growth = Growth(found.growth.items)
                members = [kernel, *(self.kernels[j] for j in found.chosen)]
                if all(map(growth.joins, members)):
                    before = [j for j in found.before if j != k]
                    found = Found(growth, before, [k, *found.chosen], found.last)
                    continue
            aside.add(kernel)
        return found

    def _keep(self, low: int, found: Found) -> int:
        """Put the kernels into their order; where to look for the next strip."""
        privates, area = self._laid_out(found)
        chosen, before = {*found.chosen}, {*found.before}
        after = [
            self.kernels[k]
            for k in range(low, found.last + 1)
            if k not in chosen and k not in before
        ]
        head = [self.kernels[k] for k in sorted(before)]
        members = found.growth.members
        self.kernels[low : found.last + 1] = [*head, *members, *after]
        first = low + len(head)
        scratch = self.scratch(area * self.threads)
        last = first + len(members) - 1
        self.strips.append(Strip(first, last, found.growth.items, scratch, area, privates))
        return last + 1

    def _laid_out(
        self, found: Found, with_workspaces: bool = True
    ) -> tuple[tuple[Private, ...], int]:
        """Where a thread's private buffers lie in its area, and the bytes of that; perhaps without
        the scratch memory of products, of which small ones use little."""
        members, items = found.growth.members, found.growth.items
        chosen = {*found.chosen}
        others = {n for k, x in enumerate(self.kernels) if k not in chosen for n in touched_by(x)}
        used: dict[str, list[int]] = {}
        for k, kernel in enumerate(members):
            for b in kernel.starts:  # in their order: it is part of the program
                used.setdefault(b.name, []).append(k)
        privates, spaces = [], []
        for name, numbers in used.items():
            buffer, size = self.temporaries.get(name), found.growth.sizes.get(name)
            if buffer is None or name in others:
                continue
            if name in workspaces_of(members[numbers[0]]):
                if not with_workspaces:
                    continue
                nbytes, item = self._workspace(members[numbers[0]], items), 0
            elif size and size * items == buffer.size:
                nbytes, item = size * buffer.dtype.itemsize, size
            else:
                continue
            privates.append((buffer, item))
            spaces.append(Space(nbytes, numbers[0], numbers[-1]))
        offsets, area = plan_arena(tuple(spaces), {})
        found_privates = tuple(
            Private(buffer, offset, item)
            for (buffer, item), offset in zip(privates, offsets, strict=True)
        )
        return found_privates, area

    def _workspace(self, kernel: Kernel, items: int) -> int:
        (c,) = kernel.body
        assert isinstance(c, Contract)
        part = Part.of(c, items)
        assert part is not None
        size = self.workspace(part.rows, c.n, c.k)
        assert isinstance(size, int)
        return size


def _is_packed(kernel: Kernel) -> bool:
    first = kernel.body[0]
    return isinstance(first, Contract) and first.packed


def _is_short(found: Found) -> bool:
    """Whether a strip has too few products to be the steps of a loop over time."""
    return sum(map(_is_packed, found.growth.members)) < FEWEST_STEPS


def _blocks_of_rows(c: Contract, threads: int) -> int:
    """Into how many blocks to cut the rows of a product: as few as keep threads busy."""
    assert isinstance(c.m, int)
    counts = [d for d in range(2, c.m // PACKED_ROWS + 1) if c.m % d == 0]
    even = (d for d in counts if d % threads == 0 or d >= ITEMS_PER_THREAD * threads)
    return next(even, max(counts, default=1)) if threads > 1 else 1


@dataclass(frozen=True)
class Found:
    """A strip in the order of a program: numbers of kernels that run before it, of its own, and
    of the last of these."""

    growth: Growth
    before: list[int]
    chosen: list[int]
    last: int


class Aside:
    """Kernels that others may have to stay behind, or in front of."""

    def __init__(self) -> None:
        self.touched: set[str] = set()
        self.stored: set[str] = set()

    def add(self, kernel: Kernel) -> None:
        self.touched |= touched_by(kernel)
        self.stored |= stored_by(kernel)

    def meets(self, kernel: Kernel) -> bool:
        """Whether a kernel and one of these touch what the other one stores."""
        return bool(touched_by(kernel) & self.stored or stored_by(kernel) & self.touched)
