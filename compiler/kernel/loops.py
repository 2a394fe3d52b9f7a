"""Which loops a kernel is made of, for each kind of device.

The builders of `build.py` and its neighbours say what work there is and what of it is
independent; a `Loops` puts it into loops.

`CpuLoops`: few parallel tasks of a size that fits the caches, vector loops inside, rows of a scan
side by side.  `GpuLoops`: every independent iteration on its own, in `grid` and `block` loops.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar, Literal

from dualgrad.compiler.ir.dims import Dim, Expr, ceil_div, minimum, product, sym, symbol_of, symbols
from dualgrad.compiler.kernel import scalar as s
from dualgrad.compiler.kernel.collapse import Var, indices_of
from dualgrad.compiler.kernel.evaluate import At
from dualgrad.compiler.kernel.ir import Check, Device, If, Loop, Stmt, Store
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.compiler.ops.view import unflatten

CHUNK = 8192  # elements of a one-dimensional loop that one task takes
TILE = 64  # rows and columns of a tile of a transposing loop
COLUMNS = 256  # columns behind a reduced, scanned or updated axis that one task takes
ROWS = 4  # rows of a scan along the last axis that run side by side

OWNERS = 1024  # threads that share the updates of one element at most
FILLED = 32768  # threads that fill a GPU
UNKNOWN = 64  # what is taken for a size that is not known

Stmts = tuple[Stmt, ...]
OneUpdate = tuple[Scalar, Stmts]
Element = tuple[list[Check], list[Store]]


def at_of(variables: list[Var]) -> At:
    return tuple(v for v, _ in variables)


def split_checks(checks: list[Check], var: Expr) -> tuple[list[Check], list[Check]]:
    """Checks of which each iteration of a loop over `var` asks the same, and all others."""
    atom = symbol_of(var)
    inner = [c for c in checks if any(atom in symbols(i) for i in indices_of([c.value]))]
    return [c for c in checks if c not in inner], inner


class Loops(ABC):
    """How one kind of device runs independent work.  Loops are given outermost first."""

    across: ClassVar[Literal["vector", "block"]]  # the loop over the elements of a row
    refines: ClassVar[bool]  # whether loops are split so that indices need no division
    keeps: ClassVar[bool]  # whether passes over a row leave values in memory for each other

    @abstractmethod
    def elements(
        self, loops: list[Var], transposing: bool, element: Callable[[At], Element]
    ) -> Stmts:
        """At least one loop in which every element is stored on its own; `transposing`: some
        access runs along the last loop but one."""

    @abstractmethod
    def columns(self, around: list[Var], last: Var, body: Callable[[Dim], Stmts]) -> Stmts:
        """`body(column)` for every column; it holds a chain."""

    @abstractmethod
    def rows(self, loops: list[Var], body: Callable[..., Stmts]) -> Stmts:
        """At least one loop over rows; `body(row, ...)` holds the chains of any number of rows."""

    @abstractmethod
    def single(self, loops: list[Var], body: Stmts) -> Stmts:
        """Loops around a chain."""

    @abstractmethod
    def teams(self, loops: list[Var], body: Stmts) -> Stmts:
        """Loops around work on a row that is itself spread over lanes."""

    @abstractmethod
    def updates(
        self,
        around: list[Var],
        update: Var,
        places: Dim,
        inner: Dim,
        one: Callable[[Dim], OneUpdate],
    ) -> Stmts:
        """Updates in order, each of `inner` elements that are on their own: `one(element)` says
        to which of so many places that of an element goes."""

    @abstractmethod
    def meeting(
        self,
        apart: list[Var],
        together: list[Var],
        swept: list[Var],
        stores: Callable[[At], Stmts],
    ) -> Stmts:
        """Elements that meet along `together`, in order, and along no other loop alone; those
        along `swept` meet others of the same `apart`."""


class CpuLoops(Loops):
    """Tasks for a few threads with vector units."""

    across = "vector"
    refines = keeps = True

    def elements(
        self, loops: list[Var], transposing: bool, element: Callable[[At], Element]
    ) -> Stmts:
        if len(loops) == 1:
            return _chunked(loops[0][1], CHUNK, lambda t, v: _vector_loop(v, *element((t,))))
        if transposing:
            return _tiled(loops, element)
        return _nest(loops[:-1], _vector_loop(loops[-1], *element(at_of(loops))))

    def columns(self, around: list[Var], last: Var, body: Callable[[Dim], Stmts]) -> Stmts:
        if not around:
            return _chunked(last[1], COLUMNS, lambda at, v: (Loop("vector", *v, body(at)),))
        return _nest(around, (Loop("vector", *last, body(last[0])),))

    def rows(self, loops: list[Var], body: Callable[..., Stmts]) -> Stmts:
        """Loops over groups of rows, and inside of one, if it is not full, over its rows."""
        _, extent = loops[-1]
        outer = at_of(loops[:-1])
        groups = sym("g", ceil_div(extent, ROWS))
        first = groups * ROWS

        def together(start: Dim) -> Stmts:
            return body(*((*outer, start + k) for k in range(ROWS)))

        if isinstance(extent, int) and extent % ROWS == 0:
            inside = together(first)
        else:
            height = minimum(ROWS, extent - first)
            whole, rest = sym("w", height // ROWS), sym("k", height % ROWS)
            inside = (
                Loop("serial", whole, height // ROWS, together(first + ROWS * whole)),
                Loop("serial", rest, height % ROWS, body((*outer, first + rest))),
            )
        return _nest([*loops[:-1], (groups, ceil_div(extent, ROWS))], inside)

    def single(self, loops: list[Var], body: Stmts) -> Stmts:
        return _nest(loops, body)

    def teams(self, loops: list[Var], body: Stmts) -> Stmts:
        return _nest(loops, body)

    def updates(
        self,
        around: list[Var],
        update: Var,
        places: Dim,
        inner: Dim,
        one: Callable[[Dim], OneUpdate],
    ) -> Stmts:
        """Around the updates run the loops or, without any, pieces of their elements."""
        if inner == 1:
            return _nest(around, (Loop("serial", *update, one(0)[1]),))

        def piece(position: Dim, var: Var) -> Stmts:
            return (Loop("serial", *update, (Loop("vector", *var, one(position)[1]),)),)

        pieces = _chunked(inner, COLUMNS, piece)
        if not around:
            return pieces
        if isinstance(pieces[0], Loop) and pieces[0].kind == "parallel":
            pieces = (replace(pieces[0], kind="serial"),)
        return _nest(around, pieces)

    def meeting(
        self,
        apart: list[Var],
        together: list[Var],
        swept: list[Var],
        stores: Callable[[At], Stmts],
    ) -> Stmts:
        body = stores(at_of(swept))
        if swept:
            *middle, last = swept
            body = _nest(middle, (Loop("vector", *last, body),), parallel=False)
        return _nest(apart, _nest(together, body, parallel=False))


class GpuLoops(Loops):
    """Iterations for very many threads."""

    across = "block"
    refines = keeps = False

    def elements(
        self, loops: list[Var], transposing: bool, element: Callable[[At], Element]
    ) -> Stmts:
        """As on a CPU, of an empty loop the checks that it does not change are asked."""
        checks, stores = element(at_of(loops))
        last, extent = loops[-1]
        if extent == 0 and not transposing:
            checks, stores, loops = split_checks(checks, last)[0], [], loops[:-1]
        return self.single(loops, (*checks, *stores)) if checks or stores else ()

    def columns(self, around: list[Var], last: Var, body: Callable[[Dim], Stmts]) -> Stmts:
        return self.single([*around, last], body(last[0]))

    def rows(self, loops: list[Var], body: Callable[..., Stmts]) -> Stmts:
        return self.single(loops, body(at_of(loops)))

    def single(self, loops: list[Var], body: Stmts) -> Stmts:
        return _loops("grid", loops[:-1], _loops("block", loops[-1:], body))

    def teams(self, loops: list[Var], body: Stmts) -> Stmts:
        return _loops("grid", loops, body)

    def updates(
        self,
        around: list[Var],
        update: Var,
        places: Dim,
        inner: Dim,
        one: Callable[[Dim], OneUpdate],
    ) -> Stmts:
        """Threads for each element share the places along the axis among them."""
        owners = _owners([*(n for _, n in around), inner], [places, update[1]])
        owner, piece = sym("w", owners), sym("j", inner)
        loops = [*around, (owner, owners), (piece, inner)]
        position, body = one(0 if inner == 1 else piece)
        if owners > 1:
            own = s.primitive("eq", position & (owners - 1), s.index(owner))
            body = (If(own, body),)
        return self.single([x for x in loops if x[1] != 1], (Loop("serial", *update, body),))

    def meeting(
        self,
        apart: list[Var],
        together: list[Var],
        swept: list[Var],
        stores: Callable[[At], Stmts],
    ) -> Stmts:
        """A team for each place apart; without sweeping it is a thread."""
        if not swept:
            return self.single(apart, _loops("serial", together, stores(())))
        shape = tuple(n for _, n in swept)
        var = sym("w", product(shape))
        body = (Loop("block", var, product(shape), stores(unflatten(var, shape))),)
        return _loops("grid", apart, _loops("serial", together, body))


LOOPS: dict[Device, Loops] = {"cpu": CpuLoops(), "cuda": GpuLoops()}


def _owners(independent: list[Dim], most: list[Dim]) -> int:
    """How many threads share the places of updates, a power of two: enough to fill a device, few
    enough that looking at every update is not what takes the time."""
    threads = product(n if isinstance(n, int) else UNKNOWN for n in independent)
    assert isinstance(threads, int)
    known = [n for n in most if isinstance(n, int)]
    owners = max(1, min(OWNERS, FILLED // max(threads, 1), *known))
    return 1 << owners.bit_length() - 1


def _loops(kind: Literal["grid", "block", "serial"], loops: list[Var], body: Stmts) -> Stmts:
    """body inside loops of one kind."""
    for var, extent in reversed(loops):
        body = (Loop(kind, var, extent, body),)
    return body


def _nest(loops: list[Var], body: Stmts, parallel: bool = True) -> Stmts:
    """body inside loops, the first outermost and parallel."""
    for k, (var, extent) in reversed(list(enumerate(loops))):
        body = (Loop("parallel" if parallel and k == 0 else "serial", var, extent, body),)
    return body


def _vector_loop(loop: Var, checks: list[Check], stores: list[Store]) -> Stmts:
    """Checks and stores in a vector loop; a check that it does not change comes before it."""
    outer, inner = split_checks(checks, loop[0])
    body: Stmts = (*inner, *stores)
    return (*outer, Loop("vector", *loop, body)) if body else tuple(outer)


def _tiled(loops: list[Var], element: Callable[[At], Element]) -> Stmts:
    """Loops whose two innermost run through square tiles: lines of memory that an access across
    them touches stay in cache until all of their elements have been used."""
    *outer, (_, rows), (_, columns) = loops
    down = (sym("a", ceil_div(rows, TILE)), ceil_div(rows, TILE))
    along = (sym("b", ceil_div(columns, TILE)), ceil_div(columns, TILE))
    height = minimum(TILE, rows - down[0] * TILE)
    width = minimum(TILE, columns - along[0] * TILE)
    i, j = sym("i", height), sym("j", width)
    at = (*at_of(outer), down[0] * TILE + i, along[0] * TILE + j)
    inner = Loop("serial", i, height, _vector_loop((j, width), *element(at)))
    return _nest([*outer, down, along], (inner,))


def _chunked(extent: Dim, chunk: int, body: Callable[[Dim, Var], Stmts]) -> Stmts:
    """A loop in parallel pieces, a short one whole; `body` writes the loop over one piece, given
    the place in the whole and the piece's own variable and length."""
    if isinstance(extent, int) and extent <= chunk:
        var = sym("j", extent)
        return body(var, (var, extent))
    task = sym("c", ceil_div(extent, chunk))
    length = minimum(chunk, extent - task * chunk)
    var = sym("j", length)
    inner = body(task * chunk + var, (var, length))
    return (Loop("parallel", task, ceil_div(extent, chunk), inner),)
