"""A kernel as one loop over items: equal parts of the buffers that it shares with its neighbours.

The loops of a kernel count through memory.  Where a buffer of n * s elements is seen as n items of
s each, the digits of those loops that move by multiples of s say which item an access is in; a
loop that moves by less, but through several items, is split in two.  The digits become one outer
loop, the rest stays in order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import pairwise, permutations

from dualgrad.compiler.ir.certain import is_natural
from dualgrad.compiler.ir.dims import (
    Atom,
    Dim,
    Expr,
    ceil_div,
    coefficient,
    divide,
    minimum,
    substitute,
    sym,
    symbol_of,
    symbols,
    terms_of,
)
from dualgrad.compiler.kernel.ir import (
    Accumulator,
    Kernel,
    Loop,
    Reduce,
    Stmt,
    Store,
    accesses_of,
    walk,
)
from dualgrad.compiler.kernel.scalar import Scalar, children_first
from dualgrad.runtime.records import dataclass

Sizes = Mapping[str, Dim]  # of buffers: elements of an item


@dataclass(frozen=True)
class Digit:
    """What a loop variable says about the item: a digit of this extent, which counts `radix`
    items, is the variable // within."""

    var: Expr
    extent: Dim
    radix: Dim
    within: Dim = 1


class NotByItems(Exception):
    """A kernel that cannot be taken apart."""


def by_items(kernel: Kernel, items: Dim, sizes: Sizes) -> Kernel | None:
    """The kernel as a parallel loop over items, if the buffers of `sizes` (of which it touches
    at least one) are in parts of their items; None if it does something else."""
    try:
        loops, body = _nest(kernel.body)
        loops, body = _unchunked(loops, body)
        digits = _digits(loops, body, items, sizes)
        return replace(kernel, body=(_rebuilt(loops, body, digits, items),))
    except NotByItems:
        return None


def _nest(body: tuple[Stmt, ...]) -> tuple[list[Loop], tuple[Stmt, ...]]:
    """Loops around each other, and what the innermost does."""
    loops: list[Loop] = []
    while len(body) == 1 and isinstance(body[0], Loop):
        loops.append(body[0])
        body = body[0].body
    return loops, body


def _unchunked(loops: list[Loop], body: tuple[Stmt, ...]) -> tuple[list[Loop], tuple[Stmt, ...]]:
    """Pieces of a long loop, and the loop over one, as the long loop that they are."""
    for k, (outer, inner) in enumerate(pairwise(loops)):
        whole = _whole_of(outer, inner)
        if whole is None:
            continue
        total, piece = whole
        for index in _indices((*body,)):
            a, b = coefficient(index, outer.var), coefficient(index, inner.var)
            if a is None or b is None or a[0] != b[0] * piece:
                raise NotByItems
        var = sym("t", total)
        change: dict[Atom, Dim] = {symbol_of(outer.var): 0, symbol_of(inner.var): var}
        moved = Moved(partial(substitute, values=change)).body(body)
        return [*loops[:k], replace(inner, var=var, extent=total), *loops[k + 2 :]], moved
    return loops, body


def _whole_of(outer: Loop, inner: Loop) -> tuple[Dim, int] | None:
    """The length of the loop that two loops make together, and that of a piece."""
    if isinstance(inner.extent, int):
        return None
    single = (monomial[0] for monomial, _ in inner.extent.terms if len(monomial) == 1)
    for atom in single:
        for piece in atom.args if atom.kind == "min" else ():
            for total in (a + piece * outer.var for a in atom.args if a != piece):
                if (
                    isinstance(piece, int)
                    and symbol_of(outer.var) not in symbols(total)
                    and ceil_div(total, piece) == outer.extent
                    and minimum(piece, total - piece * outer.var) == inner.extent
                ):
                    return total, piece
    return None


def _digits(loops: list[Loop], body: tuple[Stmt, ...], items: Dim, sizes: Sizes) -> list[Digit]:
    """The digits of an item, from the first access of a buffer that is in items."""
    index, size = next(
        ((i, sizes[b.name]) for b, i in accesses_of(body) if b.name in sizes), (0, 0)
    )
    found: list[Digit] = []
    for loop in loops if size != 0 else ():
        split = coefficient(index, loop.var)
        digit = _digit(loop, split[0], size) if split else None
        found += [digit] if digit else []
    left = list(found)
    radix: Dim = 1
    while left:
        lowest = next((d for d in left if d.radix == radix), None)
        if lowest is None:
            raise NotByItems
        left.remove(lowest)
        radix = lowest.extent * radix
    if radix != items:
        raise NotByItems
    return found


def _digit(loop: Loop, step: Dim, size: Dim) -> Digit | None:
    """The digit of a loop that moves by `step` through items of so many elements."""
    if step == 0 or not is_natural(step):
        return None
    number, rest = divide(step, size)
    if rest == 0:
        if loop.kind == "vector":
            raise NotByItems
        return Digit(loop.var, loop.extent, number)
    within, rest = divide(size, step)
    if rest != 0:
        return None
    extent, rest = divide(loop.extent, within)
    if rest == 0:
        return Digit(loop.var, extent, 1, within) if is_natural(extent - 2) else None
    if is_natural(loop.extent - within):
        raise NotByItems
    return None


def _rebuilt(loops: list[Loop], body: tuple[Stmt, ...], digits: list[Digit], items: Dim) -> Loop:
    """All loops but for the digits inside of one over items."""
    item = sym("item", items)
    of = {d.var: d for d in digits}
    inner: list[tuple[Loop, Expr]] = []
    for loop in loops:
        if loop.var not in of:
            inner.append((loop, loop.var))
        elif of[loop.var].within != 1:
            within = of[loop.var].within
            inner.append((replace(loop, extent=within), sym(symbol_of(loop.var).name, within)))
    moved = Moved(_change(digits, item))
    stmts = moved.body(body)
    for loop, var in reversed(inner):
        extent = moved.dim(loop.extent)
        kept = loop.kind == "vector"
        stmts = (Loop("vector" if kept else "serial", var, extent, stmts),)
    return Loop("parallel", item, items, stmts)


def _change(digits: list[Digit], item: Expr) -> Callable[[Dim], Dim]:
    """The change of variables that puts the item in place of its digits."""
    inside: dict[Atom, Dim] = {}  # where an index moves on with the item
    apart: dict[Atom, Dim] = {}  # where it does not
    for d in digits:
        rest = sym(symbol_of(d.var).name, d.within) if d.within != 1 else 0
        inside[symbol_of(d.var)] = rest
        apart[symbol_of(d.var)] = item // d.radix % d.extent * d.within + rest

    def change(index: Dim) -> Dim:
        steps = set()
        for d in digits:
            split = coefficient(index, d.var)
            steps.add(None if split is None else _quotient(split[0] * d.within, d.radix))
        if len(steps) == 1 and None not in steps:
            return item * steps.pop() + substitute(index, inside)  # type: ignore[operator]
        return substitute(index, apart)

    return change


def _quotient(a: Dim, b: Dim) -> Dim | None:
    """a // b where nothing is left, else None."""
    whole, rest = divide(a, b)
    return whole if rest == 0 else None


class Moved:
    """Statements with all integer expressions changed."""

    def __init__(self, dim: Callable[[Dim], Dim]) -> None:
        self.dim = dim
        self._done: dict[Scalar, Scalar] = {}

    def body(self, stmts: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        return tuple(map(self.statement, stmts))

    def statement(self, stmt: Stmt) -> Stmt:
        if isinstance(stmt, Store):
            return self.store(stmt)
        if isinstance(stmt, Loop):
            return replace(stmt, extent=self.dim(stmt.extent), body=self.body(stmt.body))
        if isinstance(stmt, Reduce):
            return replace(
                stmt,
                extent=self.dim(stmt.extent),
                accumulators=tuple(map(self.accumulator, stmt.accumulators)),
                stores=tuple(map(self.store, stmt.stores)),
            )
        raise NotByItems

    def store(self, s: Store) -> Store:
        position = None if s.position is None else self.scalar(s.position)
        return Store(s.buffer, self.dim(s.index), self.scalar(s.value), position)

    def accumulator(self, a: Accumulator) -> Accumulator:
        return replace(a, init=self.scalars(a.init), step=self.scalars(a.step))

    def scalars(self, xs: tuple[Scalar, ...]) -> tuple[Scalar, ...]:
        return tuple(map(self.scalar, xs))

    def scalar(self, e: Scalar) -> Scalar:
        done = self._done
        for x in children_first((e,), done):
            args, attr = tuple(done[a] for a in x.args), x.attr
            if x.op in ("load", "gather"):
                buffer, index = x.memory
                attr = (buffer, self.dim(index))
            elif x.op == "index":
                attr = self.dim(x.position)
            same = args == x.args and attr is x.attr
            done[x] = x if same else _made(x, args, attr)
        return done[e]


def _made(x: Scalar, args: tuple[Scalar, ...], attr: object) -> Scalar:
    """x with other operands, and another place in memory or number."""
    if x.op == "index" and isinstance(attr, int):
        return Scalar.make("const", (), x.dtype, attr)
    return Scalar.make(x.op, args, x.dtype, attr)  # type: ignore[arg-type]


def _indices(body: tuple[Stmt, ...]) -> Iterator[Dim]:
    """All integer expressions that statements evaluate."""
    yield from (index for _, index in accesses_of(body))
    for stmt in walk(body):
        if isinstance(stmt, Loop | Reduce):
            yield stmt.extent
        if isinstance(stmt, Store):
            values: tuple[Scalar, ...] = (stmt.value,)
        elif isinstance(stmt, Reduce):
            values = tuple(x for a in stmt.accumulators for x in (*a.init, *a.step))
        else:
            continue
        yield from (x.position for x in children_first(values) if x.op == "index")


def item_of(kernel: Kernel) -> Expr:
    """The variable of a kernel that `by_items` has made."""
    (loop,) = kernel.body
    assert isinstance(loop, Loop)
    return loop.var


def stays_inside(index: Dim, item: Expr, size: Dim) -> bool:
    """Whether an index is certain to lie in item * size .. (item + 1) * size, or as far into the
    items of another round through the buffer."""
    split, items = coefficient(index, item), symbol_of(item).extent
    if split is None or split[0] != size:
        return False
    if not (isinstance(items, int) and isinstance(size, int)):
        return is_natural(split[1]) and is_natural(size - 1 - split[1])
    (low, high), round = bounds(split[1]), size * items
    return low >= 0 and low // round == high // round and high % round < size


def bounds(d: Dim) -> tuple[float, float]:
    """Numbers that an expression of loop variables is never below, never above."""
    low = high = 0.0
    terms = dict(terms_of(d))
    for total, step, pair in _counted(terms):
        low, high = low + min(step * (total - 1), 0), high + max(step * (total - 1), 0)
        terms = {m: c for m, c in terms.items() if m not in pair}
    for monomial, c in terms.items():
        first = last = float(c)
        for atom in monomial:
            least, most = _atom_bounds(atom)
            first, last = first * least, last * most
        low, high = low + min(first, last), high + max(first, last)
    return low, high


_Monomial = tuple[Atom, ...]


def _counted(
    terms: Mapping[_Monomial, int],
) -> Iterator[tuple[int, int, tuple[_Monomial, _Monomial]]]:
    """Pairs of variables that count together, through pieces and within one: how far, in which
    steps, and their monomials.  A piece ends where the whole does: its variable says so."""
    for monomial, step in terms.items():
        if len(monomial) != 1 or not isinstance(extent := monomial[0].extent, Expr):
            continue
        for (atom, *rest), _ in extent.terms:
            for piece, whole in permutations(atom.args) if atom.kind == "min" and not rest else ():
                inside = dict(terms_of(whole))
                total, outer = inside.pop((), 0), next(iter(inside), ())
                fits = isinstance(piece, int) and inside == {outer: -piece}
                if fits and extent == minimum(piece, whole) and terms.get(outer) == step * piece:
                    yield total, step, (monomial, outer)


def _atom_bounds(a: Atom) -> tuple[float, float]:
    if a.kind == "sym":
        return 0, float("inf") if a.extent is None else max(bounds(a.extent)[1] - 1, 0)
    x, y = (bounds(arg) for arg in a.args)
    if a.kind == "min":
        return min(x[0], y[0]), min(x[1], y[1])
    return 0, x[1] // max(y[0], 1) if a.kind == "div" else min(x[1], y[1] - 1)
