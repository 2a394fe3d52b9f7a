"""Loop nests of map and column groups, and what all kinds of group share.

A map group becomes loops over its domain.  A column group becomes loops over blocks of rows and
over columns, with the rows of a block as a chain inside.  What kinds of loops these are depends
on the device: `loops.py`.

Values are pulled twice: once to see which loops collapse, once with the change of variables that
this makes.
"""

from __future__ import annotations

from collections.abc import Callable

from dualgrad.compiler.ir.dims import (
    Atom,
    Dim,
    ceil_div,
    coefficient,
    minimum,
    product,
    substitute,
    sym,
    symbol_of,
)
from dualgrad.compiler.ir.node import LINES, Node
from dualgrad.compiler.kernel.collapse import (
    Run,
    Var,
    collapsible,
    extent_of,
    indices_of,
    refined,
    renamed,
)
from dualgrad.compiler.kernel.evaluate import Access, At, Evaluator
from dualgrad.compiler.kernel.ir import Buffer, Check, Reduce, Stmt, Store
from dualgrad.compiler.kernel.loops import Loops, at_of
from dualgrad.compiler.kernel.reduction import accumulator_of
from dualgrad.compiler.ops.reduce import Reduction
from dualgrad.compiler.ops.view import unflatten
from dualgrad.compiler.passes.fuse import Group, index_in
from dualgrad.runtime.dtype import DType
from dualgrad.runtime.records import dataclass


@dataclass
class Place:
    """Where the results of a group go, and how it reads everything else."""

    roots: list[Node]  # nodes of the group that are stored
    destinations: dict[Node, list[Access]]
    evaluator: Callable[[bool], Evaluator]  # of a probe (True) or of the final kernel
    fresh: Callable[[Access], bool]  # whether nobody else holds data in that memory yet
    # for products (batch, m, n, k), and more words
    workspace: Callable[[Dim, Dim, Dim, Dim, Dim], Buffer | None]
    scratch: Callable[[DType, Dim], Buffer]  # other memory for the group alone
    loops: Loops  # of the device


def lines_of(group: Group) -> tuple[tuple[str, int], ...]:
    """The user's lines that a group came from, in order, each once."""
    return tuple(dict.fromkeys(LINES[n] for n in group.nodes if n in LINES))


def variables(prefix: str, extents: tuple[Dim, ...]) -> list[Var]:
    return [(sym(f"{prefix}{k}", n), n) for k, n in enumerate(extents)]


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
    digits, parts = refined(each, indices) if place.loops.refines else (each, {})
    if parts:
        indices = {substitute(i, parts) for i in indices}
    runs = collapsible(digits, indices)

    def body(positions: At) -> tuple[list[Check], list[Store]]:
        final = place.evaluator(False)
        final.learn(probe)
        moved = renamed(runs, positions)
        final.change = moved | {a: substitute(d, moved) for a, d in parts.items()}
        values = stores(at_of(each), final)
        return final.checks, values

    if not runs:
        checks, values = body(())
        return (*checks, *values)
    loops = [(sym(f"m{k}", extent_of(run)), extent_of(run)) for k, run in enumerate(runs)]
    transposing = len(runs) > 1 and transposes(indices, runs[-2], runs[-1])
    return place.loops.elements(loops, transposing, body)


def transposes(indices: set[Dim], rows: Run, columns: Run) -> bool:
    """Whether some access runs along the rows where others run along the columns."""
    for index in indices:
        down, along = coefficient(index, rows[-1][0]), coefficient(index, columns[-1][0])
        if down and along and down[0] == 1 and along[0] not in (0, 1):
            return True
    return False


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
    kept = (*at_of(o), *((sym("b"),) if block else ()), *at_of(c))
    indices = indices_of(values) | indices_in(stored, probe)
    indices |= {
        a.index(index_in(n.shape, kept)) for n in reductions for a in place.destinations.get(n, ())
    }
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
        return place.loops.single(around, body(0))
    extent = extent_of(inner[-1])
    return place.loops.columns(around, (sym("j", extent), extent), body)
