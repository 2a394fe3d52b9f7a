"""Regions: the elements of a buffer that a kernel stores, each at most once, and whether those of
two kernels have any in common.

Parts of a joined tensor are regions: side by side, or woven into each other where the tensor was
joined along an inner dimension.
"""

from __future__ import annotations

from dualgrad.compiler.ir.certain import is_natural
from dualgrad.compiler.ir.dims import Dim, Expr, coefficient, symbols
from dualgrad.compiler.kernel.ir import (
    Contract,
    Kernel,
    Loop,
    Reduce,
    Store,
    walk,
)
from dualgrad.compiler.kernel.items import bounds
from dualgrad.runtime.records import dataclass

_WHOLE = 1 << 62  # more than the elements of any buffer


@dataclass(frozen=True)
class Region:
    """Elements start + step_1 * k_1 + ..., all 0 <= k_i < extent_i."""

    start: Dim
    steps: tuple[tuple[Dim, Dim], ...]

    def is_apart(self, other: Region) -> bool:
        """Whether no element is in both: not even modulo some number, which leaves out all steps
        that are multiples of it."""
        steps = (step for x in (self, other) for step, _ in x.steps)
        numbers = {_WHOLE, *(step for step in steps if isinstance(step, int))}
        return any(_are_apart(self._modulo(n), other._modulo(n), n) for n in numbers)

    def _modulo(self, number: int) -> tuple[int, int] | None:
        """The least and the largest element modulo a number; None where they are not known."""
        if not isinstance(self.start, int):
            return None
        low = self.start % number
        further = sum((step * (n - 1) for step, n in self.steps if step % number != 0), start=0)
        return (low, low + further) if isinstance(further, int) else None


def _are_apart(x: tuple[int, int] | None, y: tuple[int, int] | None, number: int) -> bool:
    if x is None or y is None or max(x[1], y[1]) >= number:
        return False
    return x[1] < y[0] or y[1] < x[0]


def region_of(kernel: Kernel, name: str) -> Region | None:
    """The region of a buffer that a kernel stores, if it touches nothing else of it, and each of
    its items only what no other one does."""
    first = kernel.body[0]
    found = _of_product(first, name) if isinstance(first, Contract) else _of_loops(kernel, name)
    if found is None:
        return None
    index, loops = found
    steps: list[tuple[Dim, Dim]] = []
    for var, extent in loops:
        split = coefficient(index, var)
        most = _most(extent)
        if split is None or most is None:
            return None
        index = split[1]
        if most not in (0, 1):
            steps.append((split[0], most))
    return Region(index, tuple(steps)) if _count_through(steps) else None


def _most(extent: Dim) -> Dim | None:
    """A number that an extent is never above; None where loops around it do not say one."""
    if not any(a.extent is not None for a in symbols(extent)):
        return extent
    most = bounds(extent)[1]
    return int(most) if most < _WHOLE else None


def _count_through(steps: list[tuple[Dim, Dim]]) -> bool:
    """Whether loops that move by these steps come to no place twice: each moves by more than all
    that move by less do together."""
    left = list(steps)
    reach: Dim = 0
    while left:
        lowest = next((x for x in left if all(is_natural(y[0] - x[0]) for y in left)), None)
        if lowest is None or not is_natural(lowest[0] - reach - 1):
            return False
        left.remove(lowest)
        reach = reach + lowest[0] * (lowest[1] - 1)
    return True


Found = tuple[Dim, list[tuple[Expr, Dim]]]  # an index, and the loops around it


def _of_product(c: Contract, name: str) -> Found | None:
    if c.parts is not None or name in (c.a.buffer.name, c.b.buffer.name):
        return None
    loops = [(c.batch_var, c.batch), (c.row_var, c.m), (c.col_var, c.n)]
    places = set(c.after.indices(name))
    if c.c.buffer.name == name:
        places.add(c.c.place(*(var for var, _ in loops)))
    if len(places) != 1 or name in c.after.computed:
        return None
    return places.pop(), loops


def _of_loops(kernel: Kernel, name: str) -> Found | None:
    stores = [s for s in walk(kernel.body) if isinstance(s, Store) and s.buffer.name == name]
    if len(stores) != 1 or len(kernel.places.indices(name)) != 1 or stores[0].position is not None:
        return None
    loops = [
        (loop.var, loop.extent)
        for loop in walk(kernel.body)
        if isinstance(loop, Loop) or (isinstance(loop, Reduce) and stores[0] in loop.stores)
    ]
    return stores[0].index, loops
