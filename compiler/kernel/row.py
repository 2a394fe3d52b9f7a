"""Kernels of row groups: several passes over each row while it stays in cache.

A reduction belongs to stage 1 + the highest stage it depends on; all reductions of a stage share
one pass.  What is stored per element goes into the first pass after the last stage it depends on.
A value that is expensive and needed by several passes is kept in memory that will be overwritten
with a result of the same row later anyway, so it is computed once; not so on a GPU, where memory
is what takes time.
"""

from __future__ import annotations

from dualgrad.compiler.ir.dims import Dim, Expr, ceil_div, minimum, product, sym
from dualgrad.compiler.ir.node import Node
from dualgrad.compiler.ir.types import contiguous_strides
from dualgrad.compiler.kernel.build import (
    Place,
    along_run,
    indices_in,
    split_run,
    stores_of,
    variables,
)
from dualgrad.compiler.kernel.collapse import Run, collapsible, extent_of, indices_of, renamed
from dualgrad.compiler.kernel.contract import is_row_major
from dualgrad.compiler.kernel.evaluate import Access, At, Evaluator
from dualgrad.compiler.kernel.ir import Accumulator, Loop, Reduce, Stmt, Store
from dualgrad.compiler.kernel.loops import at_of, split_checks
from dualgrad.compiler.kernel.reduction import accumulator_of
from dualgrad.compiler.kernel.scalar import reg
from dualgrad.compiler.ops.reduce import Reduction
from dualgrad.compiler.ops.view import behind_views
from dualgrad.compiler.passes.fuse import EXPENSIVE, Group, cost, index_in
from dualgrad.runtime.records import dataclass, field


@dataclass
class Stages:
    """When each node of a row group can be computed, and what each pass computes."""

    group: Group
    roots: list[Node]
    of: dict[Node, int] = field(default_factory=dict)
    last: int = 0  # number of the last stage; the pass after it stores the rest

    def __post_init__(self) -> None:
        inside = set(self.group.nodes)
        for node in self.group.nodes:
            behind = {behind_views(x) for x in node.inputs} & inside
            stage = max((self.of[p] for p in behind), default=0)
            self.of[node] = stage + isinstance(node.op, Reduction)
        self.last = max(self.of.values())

    def reductions(self, stage: int) -> list[Node]:
        return [n for n in self.group.nodes if self._is_reduction(n) and self.of[n] == stage]

    def stored_in(self, stage: int) -> list[Node]:
        """Roots on the full level that are stored during the pass of a stage."""
        return [r for r in self.roots if r not in self.group.outer and self.of[r] == stage - 1]

    def computed_in(self, stage: int) -> set[Node]:
        """Full-level nodes that the pass of a stage needs."""
        stack = [behind_views(x) for n in self.reductions(stage) for x in n.inputs]
        stack += self.stored_in(stage)
        found: set[Node] = set()
        while stack:
            node = stack.pop()
            if node in found or node not in self.of or node in self.group.outer:
                continue
            found.add(node)
            stack.extend(behind_views(x) for x in node.inputs)
        return found

    @staticmethod
    def _is_reduction(node: Node) -> bool:
        return isinstance(node.op, Reduction)


def build_row(group: Group, place: Place) -> tuple[Stmt, ...]:
    before, reduced, _, block = split_run(group)
    stages = Stages(group, place.roots)
    outer, run = _collapsed(group, place, before, reduced)
    loops = [(sym(f"o{k}", extent_of(x)), extent_of(x)) for k, x in enumerate(outer)]
    total = product(reduced)
    blocks = [(sym("b", ceil_div(total, block)), ceil_div(total, block))] if block else []
    first = blocks[0][0] * block if block else 0
    length = minimum(block, total - first) if block else total
    element = sym("t", length)
    o, r = variables("o", before), variables("r", reduced)
    evaluator = place.evaluator(False)
    evaluator.change = renamed(outer, at_of(loops)) | along_run(run, r, first + element)
    work = Row(
        stages,
        place,
        evaluator,
        element,
        length,
        first + element,
        rows=(*at_of(o), *at_of(blocks)),
        full=at_of(o + r),
    )
    return place.loops.teams([*loops, *blocks], work.body())


def _collapsed(
    group: Group, place: Place, before: tuple[Dim, ...], reduced: tuple[Dim, ...]
) -> tuple[list[Run], list[Run]]:
    """Which loops over rows, and which inside a row, can be one."""
    o, r = variables("o", before), variables("r", reduced)
    probe = place.evaluator(True)
    reductions = [n for n in group.nodes if isinstance(n.op, Reduction)]
    probe.known.update({n: reg(f"probe{k}", n.dtype) for k, n in enumerate(reductions)})
    values = [probe.value(x, index_in(x.shape, at_of(o + r))) for n in reductions for x in n.inputs]
    assert group.run is not None
    row = at_of(o) + ((sym("b"),) if group.run[2] else ())
    stores: list[Store] = []
    for root in place.roots:
        at = row if root in group.outer else at_of(o + r)
        stores += stores_of(root, at, place, probe)
    indices = indices_of(values) | indices_in(stores, probe)
    return collapsible(o, indices), collapsible(r, indices)


@dataclass
class Row:
    """The statements of one row."""

    stages: Stages
    place: Place
    evaluator: Evaluator
    element: Expr
    length: Dim
    position: Dim
    rows: At
    full: At

    def body(self) -> tuple[Stmt, ...]:
        stages = self.stages
        kept = self.kept_values() if self.place.loops.keeps else {}
        passes: list[Stmt] = []
        for stage in range(1, stages.last + 1):
            stores = [x for r in stages.stored_in(stage) for x in self.full_stores(r)]
            here = {n: a for n, (a, first) in kept.items() if first == stage}
            stores += [
                Store(a.buffer, self.evaluator.place(a.index(at)), self.evaluator.value(n, at))
                for n, a in here.items()
                if n not in stages.stored_in(stage)
                for at in [index_in(n.shape, self.full)]
            ]
            passes += self.reduce(stage, tuple(stores))
            self.evaluator.here.update(here)
            self.evaluator.forget()
        outer = [r for r in self.place.roots if r in stages.group.outer]
        results = [x for r in outer for x in stores_of(r, self.rows, self.place, self.evaluator)]
        rest = self.last_stores(kept)
        if rest:
            passes.append(Loop(self.place.loops.across, self.element, self.length, tuple(rest)))
        return (*self.checks(), *passes, *results)

    def full_stores(self, root: Node) -> list[Store]:
        return stores_of(root, self.full, self.place, self.evaluator)

    def last_stores(self, kept: dict[Node, tuple[Access, int]]) -> list[Store]:
        """Stores of the final pass; those over kept values last, after all have been read."""
        homes = {a.buffer for a, _ in kept.values()}
        stores = [
            x for r in self.stages.stored_in(self.stages.last + 1) for x in self.full_stores(r)
        ]
        return sorted(stores, key=lambda x: x.buffer in homes)

    def reduce(self, stage: int, stores: tuple[Store, ...]) -> list[Stmt]:
        """The pass of a stage: one `Reduce` per number of lanes."""
        by_lanes: dict[int, list[Accumulator]] = {}
        results = {}
        for k, n in enumerate(self.stages.reductions(stage)):
            assert isinstance(n.op, Reduction)
            accumulator, result = accumulator_of(
                n, self.full, self.position, self.evaluator, f"a{stage}{k}"
            )
            by_lanes.setdefault(n.op.lanes, []).append(accumulator)
            results[n] = result
        self.evaluator.known.update(results)
        out: list[Stmt] = []
        for lanes, accumulators in by_lanes.items():
            out.append(
                Reduce(self.element, self.length, "lanes", lanes, tuple(accumulators), stores)
            )
            stores = ()
        return out

    def checks(self) -> tuple[Stmt, ...]:
        """Run-time checks: those of the row itself, then those of its elements."""
        outer, inner = split_checks(self.evaluator.checks, self.element)
        if not inner:
            return tuple(outer)
        return (*outer, Loop(self.place.loops.across, self.element, self.length, tuple(inner)))

    def kept_values(self) -> dict[Node, tuple[Access, int]]:
        """Expensive values of several passes: where each is kept, from which stage on."""
        stages = self.stages
        used: dict[Node, list[int]] = {}
        for stage in range(1, stages.last + 2):
            for n in stages.computed_in(stage):
                used.setdefault(n, []).append(stage)
        several = [n for n in stages.group.nodes if len(used.get(n, ())) > 1]
        several.sort(key=cost, reverse=True)
        free = self._memory_of_last_pass()
        kept: dict[Node, tuple[Access, int]] = {}
        for n in several:
            if cost(n) < EXPENSIVE:
                break
            at = next((k for k, (dtype, _) in enumerate(free) if dtype is n.dtype), None)
            if n in stages.stored_in(used[n][0]):  # it lies in its own memory from then on
                kept[n] = (self.place.destinations[n][0], used[n][0])
            elif at is not None and used[n][0] <= stages.last:
                there = free.pop(at)[1]  # a whole tensor, perhaps of another rank: with axes of one
                access = Access(there.buffer, contiguous_strides(n.shape), there.start)
                kept[n] = (access, used[n][0])
        return kept

    def _memory_of_last_pass(self) -> list[tuple[object, Access]]:
        """Results per element that are written last: (dtype, where)."""
        out: list[tuple[object, Access]] = []
        for r in self.stages.stored_in(self.stages.last + 1):
            for access in self.place.destinations[r][:1]:
                if self.place.fresh(access) and is_row_major(access, r.shape):
                    out.append((r.dtype, access))
        return out
