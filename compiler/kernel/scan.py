"""Loop nests of scan groups: the scanned axis as a chain that stores every step.

Where the axis has dimensions behind it, each of these columns has a chain of its own, and they run
side by side.  Along the last axis a chain may take several rows side by side: each step waits for
the one before it in its own row only.
"""

from __future__ import annotations

from dualgrad.compiler.build.mathlib import Math
from dualgrad.compiler.ir.dims import Atom, Dim, product, sym, symbol_of
from dualgrad.compiler.ir.node import Node
from dualgrad.compiler.kernel.build import (
    Place,
    indices_in,
    split_run,
    stores_of,
    variables,
)
from dualgrad.compiler.kernel.collapse import Run, Var, collapsible, extent_of, indices_of, renamed
from dualgrad.compiler.kernel.evaluate import At, Evaluator
from dualgrad.compiler.kernel.ir import Accumulator, Reduce, Stmt, Store
from dualgrad.compiler.kernel.loops import at_of
from dualgrad.compiler.kernel.scalar import Scalar, cast, index, reg
from dualgrad.compiler.ops.scan import Scan
from dualgrad.compiler.passes.fuse import Group, index_in

Stmts = tuple[Stmt, ...]


def build_scan(group: Group, place: Place) -> Stmts:
    before, scanned, after, _ = split_run(group)
    scans = [n for n in group.nodes if isinstance(n.op, Scan)]
    o, r, c = variables("o", before), variables("r", scanned), variables("c", after)
    outer, inner = _collapsed(scans, place, o, r, c)
    length = product(scanned)
    step = sym("t", length)
    position = length - 1 - step if _reversed(scans) else step

    def body(columns: At, *rows: At) -> Stmts:
        """The scans of some rows side by side."""
        accumulators: list[Accumulator] = []
        stores: list[Store] = []
        for k, row in enumerate(rows):
            final = place.evaluator(False)
            final.change = renamed(outer, row) | renamed(inner, columns) | _moved(r, position)
            chain = _chain(scans, at_of(o + r + c), position, place, final, f"r{k}" if k else "")
            accumulators += chain[0]
            stores += chain[1]
        return (Reduce(step, length, "chain", 1, tuple(accumulators), tuple(stores)),)

    rows = [(sym(f"m{k}", extent_of(x)), extent_of(x)) for k, x in enumerate(outer)]
    columns = [(sym(f"n{k}", extent_of(x)), extent_of(x)) for k, x in enumerate(inner)]
    if columns:
        return place.loops.columns(
            rows + columns[:-1],
            columns[-1],
            lambda last: body((*at_of(columns[:-1]), last), at_of(rows)),
        )
    return place.loops.rows(rows, lambda *some: body((), *some)) if rows else body((), ())


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
    scans: list[Node], at: At, position: Dim, place: Place, evaluator: Evaluator, prefix: str
) -> tuple[tuple[Accumulator, ...], tuple[Store, ...]]:
    """What a chain of some scans carries and stores; their elements are read at `at`."""
    accumulators: list[Accumulator] = []
    results: dict[Node, Scalar] = {}
    b = Math()
    for k, n in enumerate(scans):
        op = n.op
        assert isinstance(op, Scan)
        dtype = n.inputs[0].dtype.compute
        init = op.init(b, dtype)
        carry = tuple(reg(f"{prefix}s{k}_{j}", x.dtype) for j, x in enumerate(init))
        operands = (evaluator.value(x, index_in(x.shape, at)) for x in n.inputs)
        xs = [cast(x, x.dtype.compute) for x in operands]
        following = op.step(b, carry, *xs, position=index(position))
        accumulators.append(Accumulator(carry, init, following))
        result = op.emit(b, carry if op.exclusive else following, dtype)
        results[n] = cast(result, n.dtype)
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
