"""Kernels of updates: a check of every place, a copy of the base, then the updates in order.

The loop over updates is serial and its turns see each other's results.  What comes before and
after the axis is independent: on a CPU the elements of one update run side by side inside of that
loop, on a GPU around it; there several threads go through the same updates, and each takes only
those that go to places of its own.  So every element meets its updates in order, on any number of
threads.
"""

from __future__ import annotations

from dualgrad.compiler.build.mathlib import Math
from dualgrad.compiler.ir.dims import Dim, sym
from dualgrad.compiler.ir.node import Node
from dualgrad.compiler.kernel import scalar as s
from dualgrad.compiler.kernel.build import Place, map_loops
from dualgrad.compiler.kernel.evaluate import Access, At, Evaluator
from dualgrad.compiler.kernel.ir import Stmt, Store
from dualgrad.compiler.kernel.region import is_there
from dualgrad.compiler.ops.index import Update, within
from dualgrad.compiler.passes.fuse import index_in, squeezed


def build_update(node: Node, place: Place) -> list[tuple[Stmt, ...]]:
    """The bodies of the kernels of an update, in order."""
    bodies = [check_places(node, place)]
    if not is_there(node, place):
        bodies.append(copy_base(node, place))
    return [*bodies, apply_updates(node, place)]


def check_places(node: Node, place: Place) -> tuple[Stmt, ...]:
    """A pass over the positions, before anything is written."""
    op, where = node.op, node.inputs[1]
    assert isinstance(op, Update)

    def check(at: At, evaluator: Evaluator) -> list[Store]:
        op.position(Math(), evaluator.loads(node), index_in(where.shape, at))
        return []

    return map_loops(squeezed(where.shape), check, place)


def copy_base(node: Node, place: Place) -> tuple[Stmt, ...]:
    def stores(at: At, evaluator: Evaluator) -> list[Store]:
        full = index_in(node.shape, at)
        value = evaluator.value(node.inputs[0], full)
        destinations = place.destinations[node]
        return [Store(a.buffer, evaluator.place(a.index(full)), value) for a in destinations]

    return map_loops(squeezed(node.shape), stores, place)


def apply_updates(node: Node, place: Place) -> tuple[Stmt, ...]:
    outer, count, inner = node.inputs[2].shape
    o, k = sym("o", outer), sym("k", count)
    around = [] if outer == 1 else [(o, outer)]
    first = 0 if outer == 1 else o

    def one(at: Dim) -> tuple[s.Scalar, tuple[Store, ...]]:
        return one_update(node, (first, k, at), place)

    return place.loops.updates(around, (k, count), node.shape[1], inner, one)


def one_update(
    node: Node, at: tuple[Dim, Dim, Dim], place: Place
) -> tuple[s.Scalar, tuple[Store, ...]]:
    """Where along the axis an update goes, and its stores into all destinations."""
    op, (_, where, updates) = node.op, node.inputs
    assert isinstance(op, Update)
    evaluator = place.evaluator(True)
    position = op.position(Math(), evaluator.loads(node), within(at, where.shape))
    new = evaluator.pull(updates, at)
    stores = [store_of(op, access, at, position, new) for access in place.destinations[node]]
    return position, tuple(stores)


def store_of(
    op: Update, access: Access, at: tuple[Dim, Dim, Dim], position: s.Scalar, new: s.Scalar
) -> Store:
    index, step = access.index((at[0], 0, at[2])), access.strides[1]
    there = position if step == 1 else position * s.index(step)
    old = s.gather(access.buffer, index, there)
    value = op.combine(Math(), *(s.cast(x, x.dtype.compute) for x in (old, new)))
    return Store(access.buffer, index, s.cast(value, new.dtype), there)
