"""Loop nests of scan groups: the scanned axis as a chain that stores every step.

Where the axis has dimensions behind it, they are the lanes of a vector loop around the chain, each
with its own.  Along the last axis rows are the lanes: their chains do not wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable

from dualgrad.compiler.build.mathlib import Math
from dualgrad.compiler.ir.dims import Atom, Dim, product, sym, symbol_of
from dualgrad.compiler.ir.node import Node
from dualgrad.compiler.kernel.build import (
    COLUMNS,
    Place,
    at_of,
    chunked,
    indices_in,
    nest,
    split_run,
    stores_of,
    variables,
)
from dualgrad.compiler.kernel.collapse import Run, Var, collapsible, extent_of, indices_of, renamed
from dualgrad.compiler.kernel.evaluate import At, Evaluator
from dualgrad.compiler.kernel.ir import Accumulator, Loop, Reduce, Stmt, Store
from dualgrad.compiler.kernel.scalar import Scalar, index, reg
from dualgrad.compiler.ops.scan import Scan
from dualgrad.compiler.passes.fuse import Group, index_in

ROWS = 32  # rows of a scan along the last axis that one task takes


def build_scan(group: Group, place: Place) -> tuple[Stmt, ...]:
    before, scanned, after, _ = split_run(group)
    scans = [n for n in group.nodes if isinstance(n.op, Scan)]
    o, r, c = variables("o", before), variables("r", scanned), variables("c", after)
    outer, inner = _collapsed(scans, place, o, r, c)
    length = product(scanned)
    step = sym("t", length)
    position = length - 1 - step if _reversed(scans) else step

    def body(rows: At, columns: At) -> tuple[Stmt, ...]:
        final = place.evaluator(False)
        final.change = renamed(outer, rows) | renamed(inner, columns) | _moved(r, position)
        accumulators, stores = _chain(scans, at_of(o + r + c), position, place, final)
        return (Reduce(step, length, "chain", 1, accumulators, stores),)

    return _loops(outer, inner, body)


def _reversed(scans: list[Node]) -> bool:
    op = scans[0].op
    assert isinstance(op, Scan)
    return op.reverse


def _moved(scanned: list[Var], position: Dim) -> dict[Atom, Dim]:
    return {symbol_of(v): position for v, _ in scanned}


def _collapsed(
    scans: list[Node], place: Place, o: list[Var], r: list[Var], c: list[Var]
) -> tuple[list[Run], list[Run]]:
    """Which loops around the chain, and which of its lanes, can be one."""
    probe = place.evaluator(True)
    at = at_of(o + r + c)
    values = [probe.value(x, index_in(x.shape, at)) for n in scans for x in n.inputs]
    others = [n for n in place.roots if n not in scans]
    stores = [x for n in others for x in stores_of(n, at, place, probe)]
    indices = indices_of(values) | indices_in(stores, probe)
    indices |= {
        a.index(index_in(n.shape, at))
        for n in scans
        if n in place.destinations
        for a in place.destinations[n]
    }
    return collapsible(o, indices), collapsible(c, indices)


def _chain(
    scans: list[Node], at: At, position: Dim, place: Place, evaluator: Evaluator
) -> tuple[tuple[Accumulator, ...], tuple[Store, ...]]:
    """What a chain of some scans carries and stores; their elements are read at `at`."""
    accumulators: list[Accumulator] = []
    results: dict[Node, Scalar] = {}
    b = Math()
    for k, n in enumerate(scans):
        op = n.op
        assert isinstance(op, Scan)
        init = op.init(b, n.inputs[0].dtype)
        carry = tuple(reg(f"a{k}_{j}", x.dtype) for j, x in enumerate(init))
        xs = [evaluator.value(x, index_in(x.shape, at)) for x in n.inputs]
        following = op.step(b, carry, *xs, position=index(position))
        accumulators.append(Accumulator(carry, init, following))
        results[n] = op.emit(b, carry if op.exclusive else following, n.inputs[0].dtype)
    stores: list[Store] = []
    for n in place.roots:
        if n not in results:
            stores += stores_of(n, at, place, evaluator)
            continue
        full = index_in(n.shape, at)
        stores += [
            Store(a.buffer, evaluator.place(a.index(full)), results[n])
            for a in place.destinations[n]
        ]
    return tuple(accumulators), tuple(stores)


def _loops(
    outer: list[Run], inner: list[Run], body: Callable[[At, At], tuple[Stmt, ...]]
) -> tuple[Stmt, ...]:
    """Loops around a chain: `body(positions of outer runs, positions of inner runs)`."""
    rows = [(sym(f"m{k}", extent_of(x)), extent_of(x)) for k, x in enumerate(outer)]
    columns = [(sym(f"n{k}", extent_of(x)), extent_of(x)) for k, x in enumerate(inner)]
    around = rows + columns
    if not around:
        return body((), ())
    if len(around) == 1:
        return chunked(
            around[0][1],
            COLUMNS if columns else ROWS,
            lambda last: body((), (last,)) if columns else body((last,), ()),
        )
    var, extent = around[-1]
    lanes = Loop("vector", var, extent, body(at_of(rows), at_of(columns)))
    return nest(around[:-1], (lanes,))
