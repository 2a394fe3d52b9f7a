"""Loop nests of map and column groups, and what all kinds of group share.

A map group becomes parallel and serial loops over its domain, the innermost a vector loop.  A
column group becomes loops over blocks of rows and a vector loop over columns, with the rows of a
block as a chain inside.

Values are pulled twice: once to see which loops collapse, once with the change of variables that
this makes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dualgrad.compiler.ir.dims import (
    Atom,
    Dim,
    Expr,
    ceil_div,
    coefficient,
    minimum,
    product,
    sym,
    symbol_of,
    symbols,
)
from dualgrad.compiler.ir.node import LINES, Node
from dualgrad.compiler.kernel.collapse import Run, Var, collapsible, extent_of, indices_of, renamed
from dualgrad.compiler.kernel.evaluate import Access, At, Evaluator
from dualgrad.compiler.kernel.ir import Buffer, Check, Loop, Reduce, Stmt, Store
from dualgrad.compiler.kernel.reduction import accumulator_of
from dualgrad.compiler.ops.reduce import Reduction
from dualgrad.compiler.ops.view import unflatten
from dualgrad.compiler.passes.fuse import Group, index_in

CHUNK = 8192  # elements of a one-dimensional loop that one task takes
TILE = 64  # rows and columns of a tile of a transposing loop
COLUMNS = 256  # columns of a leading reduction that one task takes


@dataclass
class Place:
    """Where the results of a group go, and how it reads everything else."""

    roots: list[Node]  # nodes of the group that are stored
    destinations: dict[Node, list[Access]]
    evaluator: Callable[[bool], Evaluator]  # of a probe (True) or of the final kernel
    fresh: Callable[[Access], bool]  # whether nobody else holds data in that memory yet
    workspace: Callable[[Dim, Dim, Dim], Buffer]  # scratch of a contraction of (m, n, k)


def lines_of(group: Group) -> tuple[tuple[str, int], ...]:
    """The user's lines that a group came from, in order, each once."""
    return tuple(dict.fromkeys(LINES[n] for n in group.nodes if n in LINES))


def variables(prefix: str, extents: tuple[Dim, ...]) -> list[Var]:
    return [(sym(f"{prefix}{k}", n), n) for k, n in enumerate(extents)]


def at_of(variables: list[Var]) -> At:
    return tuple(v for v, _ in variables)


def stores_of(node: Node, at: At, place: Place, evaluator: Evaluator) -> list[Store]:
    """Element `at` (without size-1 dimensions) of a root into all its destinations."""
    full = index_in(node.shape, at)
    value = evaluator.value(node, full)
    return [
        Store(a.buffer, evaluator.place(a.index(full)), value) for a in place.destinations[node]
    ]


def indices_in(stores: list[Store], evaluator: Evaluator) -> set[Dim]:
    """All index expressions of some stores and of the checks met while pulling them."""
    values = [x.value for x in stores] + [c.value for c in evaluator.checks]
    return indices_of(values) | {x.index for x in stores}


def nest(loops: list[Var], body: tuple[Stmt, ...], parallel: bool = True) -> tuple[Stmt, ...]:
    """body inside loops, the first outermost and parallel."""
    for k, (var, extent) in reversed(list(enumerate(loops))):
        body = (Loop("parallel" if parallel and k == 0 else "serial", var, extent, body),)
    return body


def build_map(group: Group, place: Place) -> tuple[Stmt, ...]:
    def stores(at: At, evaluator: Evaluator) -> list[Store]:
        return [x for r in place.roots for x in stores_of(r, at, place, evaluator)]

    return map_loops(group.domain, stores, place)


def map_loops(
    domain: tuple[Dim, ...], stores: Callable[[At, Evaluator], list[Store]], place: Place
) -> tuple[Stmt, ...]:
    """Loops over a domain in which every element is stored on its own."""
    probe = place.evaluator(True)
    each = variables("i", domain)
    indices = indices_in(stores(at_of(each), probe), probe)
    runs = collapsible(each, indices)

    def body(positions: At) -> tuple[list[Check], list[Store]]:
        final = place.evaluator(False)
        final.learn(probe)
        final.change = renamed(runs, positions)
        values = stores(at_of(each), final)
        return final.checks, values

    if not runs:
        checks, values = body(())
        return (*checks, *values)
    loops = [(sym(f"m{k}", extent_of(run)), extent_of(run)) for k, run in enumerate(runs)]
    if len(loops) == 1:
        return chunked(loops[0][1], CHUNK, lambda t, v: vector_loop(v, *body((t,))))
    if transposes(indices, runs[-2], runs[-1]):
        return tiled(loops, body)
    return nest(loops[:-1], vector_loop(loops[-1], *body(at_of(loops))))


def vector_loop(loop: Var, checks: list[Check], stores: list[Store]) -> tuple[Stmt, ...]:
    """Checks and stores in a vector loop; a check that it does not change comes before it."""
    outer, inner = split_checks(checks, loop[0])
    body: tuple[Stmt, ...] = (*inner, *stores)
    return (*outer, Loop("vector", *loop, body)) if body else tuple(outer)


def split_checks(checks: list[Check], var: Expr) -> tuple[list[Check], list[Check]]:
    """Checks of which each iteration of a loop over `var` asks the same, and all others."""
    atom = symbol_of(var)
    inner = [c for c in checks if any(atom in symbols(i) for i in indices_of([c.value]))]
    return [c for c in checks if c not in inner], inner


def transposes(indices: set[Dim], rows: Run, columns: Run) -> bool:
    """Whether some access runs along the rows where others run along the columns."""
    for index in indices:
        down, along = coefficient(index, rows[-1][0]), coefficient(index, columns[-1][0])
        if down and along and down[0] == 1 and along[0] not in (0, 1):
            return True
    return False


def tiled(
    loops: list[Var], body: Callable[[At], tuple[list[Check], list[Store]]]
) -> tuple[Stmt, ...]:
    """Loops whose two innermost run through square tiles: lines of memory that an access across
    them touches stay in cache until all of their elements have been used."""
    *outer, (_, rows), (_, columns) = loops
    down = (sym("a", ceil_div(rows, TILE)), ceil_div(rows, TILE))
    along = (sym("b", ceil_div(columns, TILE)), ceil_div(columns, TILE))
    height = minimum(TILE, rows - down[0] * TILE)
    width = minimum(TILE, columns - along[0] * TILE)
    i, j = sym("i", height), sym("j", width)
    at = (*at_of(outer), down[0] * TILE + i, along[0] * TILE + j)
    inner = Loop("serial", i, height, vector_loop((j, width), *body(at)))
    return nest([*outer, down, along], (inner,))


def chunked(
    extent: Dim, chunk: int, body: Callable[[Dim, Var], tuple[Stmt, ...]]
) -> tuple[Stmt, ...]:
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


def split_run(group: Group) -> tuple[tuple[Dim, ...], tuple[Dim, ...], tuple[Dim, ...], int]:
    """Domain before, in and after the reduced axes, and the block."""
    assert group.run is not None
    start, stop, block = group.run
    return group.domain[:start], group.domain[start:stop], group.domain[stop:], block


def along_run(runs: list[Run], variables: list[Var], position: Dim) -> dict[Atom, Dim]:
    """The change of variables by which one loop counts through all reduced axes."""
    if len(runs) == 1:
        return renamed(runs, (position,))
    index = unflatten(position, tuple(n for _, n in variables))
    return {symbol_of(v): i for (v, _), i in zip(variables, index, strict=True)}


def build_column(group: Group, place: Place) -> tuple[Stmt, ...]:
    before, reduced, after, block = split_run(group)
    reductions = [n for n in group.nodes if isinstance(n.op, Reduction)]
    full_roots = [r for r in place.roots if r not in group.outer]
    o, r, c = variables("o", before), variables("r", reduced), variables("c", after)

    probe = place.evaluator(True)
    values = [
        probe.value(x, index_in(x.shape, at_of(o + r + c))) for n in reductions for x in n.inputs
    ]
    stored = [x for n in full_roots for x in stores_of(n, at_of(o + r + c), place, probe)]
    indices = indices_of(values) | indices_in(stored, probe)
    outer, run, inner = collapsible(o, indices), collapsible(r, indices), collapsible(c, indices)

    total = product(reduced)
    tasks = ceil_div(total, block) if block else 1
    loops = [(sym(f"o{k}", extent_of(x)), extent_of(x)) for k, x in enumerate(outer)]
    blocks = [(sym("b", tasks), tasks)] if block else []
    sides = [(sym(f"s{k}", extent_of(x)), extent_of(x)) for k, x in enumerate(inner[:-1])]
    first = blocks[0][0] * block if block else 0
    length = minimum(block, total - first) if block else total
    row = sym("r", length)

    def body(last: Dim) -> tuple[Stmt, ...]:
        final = place.evaluator(False)
        final.change = renamed(outer, at_of(loops)) | along_run(run, r, first + row)
        if inner:
            final.change |= renamed(inner, (*at_of(sides), last))
        at = at_of(o + r + c)
        accumulators = [
            accumulator_of(n, at, first + row, final, f"a{k}") for k, n in enumerate(reductions)
        ]
        stores = [x for n in full_roots for x in stores_of(n, at, place, final)]
        reduce = Reduce(row, length, "chain", 1, tuple(a for a, _ in accumulators), tuple(stores))
        final.known.update({n: v for n, (_, v) in zip(reductions, accumulators, strict=True)})
        final.forget()
        kept = (*at_of(o), *at_of(blocks), *at_of(c))
        results = [
            x
            for n in reductions
            if n in place.destinations
            for x in stores_of(n, kept, place, final)
        ]
        return (reduce, *results)

    around = [*loops, *blocks, *sides]
    if not inner:
        return nest(around, body(0))
    extent = extent_of(inner[-1])
    if not around:
        return chunked(extent, COLUMNS, lambda t, v: (Loop("vector", *v, body(t)),))
    var = sym("j", extent)
    return nest(around, (Loop("vector", var, extent, body(var)),))
