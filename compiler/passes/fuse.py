"""Fusion: which nodes of a graph are computed together, as one kernel.

Goal: every value that only one kernel needs stays in registers.  Elementwise chains fuse with
each other, into the epilogue of a contraction, around row reductions (several passes over a row
that stays in cache), into the reduction of leading axes and into what a scan reads.
Non-goals: changing any number, choosing loops (see `kernel.build`), splitting large groups.

A group has a domain: the shape that its kernel iterates over, without dimensions of size 1.
Nodes of a row group are on one of two levels: `full` (one value per element of the domain) or
`outer` (one value per row: results of reductions, and what is computed from them).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal
from weakref import WeakKeyDictionary

from dualgrad.compiler.build.mathlib import Math
from dualgrad.compiler.ir.dims import Dim, Expr, sym
from dualgrad.compiler.ir.node import Graph, Leaf, Node, topological
from dualgrad.compiler.kernel.scalar import Formula, Scalar, children_first, reg
from dualgrad.compiler.ops.contract import Contraction
from dualgrad.compiler.ops.elementwise import Copy, Elementwise
from dualgrad.compiler.ops.index import Index, Update
from dualgrad.compiler.ops.library import Library
from dualgrad.compiler.ops.reduce import Reduction, is_trailing
from dualgrad.compiler.ops.region import Region
from dualgrad.compiler.ops.scan import Scan
from dualgrad.compiler.ops.view import View, through_views
from dualgrad.runtime.dtype import DType
from dualgrad.runtime.records import dataclass, field

Kind = Literal["map", "contract", "row", "column", "scan", "region", "update", "call"]
SOLO = {"region", "update", "call"}  # kinds of one node: nothing else is in their kernels
Run = tuple[int, int, int]  # start and stop of the reduced axes in the domain, block
EXPENSIVE = 8  # primitives from which a value is worth computing only once, and in lanes
# Time and memory of code generation grow faster than a function's length.  So a kernel takes no
# more nodes than this, and one of more primitives than that calls the formulas of expensive nodes
# as functions.  Neither changes a number.
LARGEST_GROUP = 128
LONGEST_INLINE = 512


@dataclass
class Group:
    """Nodes that become one kernel."""

    number: int
    kind: Kind
    domain: tuple[Dim, ...]
    nodes: list[Node] = field(default_factory=list)
    run: Run | None = None
    outer: set[Node] = field(default_factory=set)  # nodes on the outer level of a row group

    @property
    def has_checks(self) -> bool:
        """Whether it may stop the program; column, scan and contract kernels cannot."""
        return self.kind in ("call", "update") or any(
            isinstance(n.op, Index) and n.op.checked for n in self.nodes
        )

    @property
    def is_long(self) -> bool:
        """Whether the kernel is to call expensive formulas as functions."""
        return sum(map(cost, self.nodes)) > LONGEST_INLINE

    def accepts_outer(self) -> bool:
        return self.kind == "row" and self.run is not None and not self.run[2]

    @property
    def rows(self) -> tuple[Dim, ...]:
        """The part of the domain before the reduced axes."""
        return self.domain if self.run is None else self.domain[: self.run[0]]


def squeezed(shape: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """A shape without dimensions of size 1."""
    return tuple(n for n in shape if n != 1)


def index_in(shape: tuple[Dim, ...], at: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """The index into `shape` whose entries outside of size-1 dimensions are `at`."""
    rest = iter(at)
    return tuple(0 if n == 1 else next(rest) for n in shape)


Producer = tuple[Node, tuple[Dim, ...], tuple[Expr, ...]]
_producers: WeakKeyDictionary[Node, list[Producer]] = WeakKeyDictionary()


def producers(node: Node) -> list[Producer]:
    """The nodes behind the inputs of a node: (producer, index into it, the node's variables).

    The index is that of the element which the node's element at these variables reads.
    """
    found = _producers.get(node)
    if found is None:
        found = _producers[node] = []
        for x in node.inputs:
            at, variables = _counters(x.shape)
            source, index = through_views(x, at)
            found.append((source, index, variables))
    return found


@lru_cache(maxsize=4096)
def _counters(shape: tuple[Dim, ...]) -> tuple[tuple[Dim, ...], tuple[Expr, ...]]:
    """An index into a shape, and the variables in it."""
    at = tuple(0 if n == 1 else sym(f"p{k}", n) for k, n in enumerate(shape))
    return at, tuple(v for v in at if not isinstance(v, int))


def is_free(node: Node, free: set[Node]) -> bool:
    """Whether a node costs nothing to compute anew wherever it is needed."""
    if isinstance(node.op, Leaf):
        return node.op.kind != "input"
    if isinstance(node.op, Index) and not node.inputs:
        return True
    if isinstance(node.op, Copy):
        return False
    return isinstance(node.op, Elementwise | View) and all(x in free for x in node.inputs)


class Fusion:
    """Builds the groups of one graph; see `fuse`."""

    def __init__(self, graph: Graph) -> None:
        self.order = topological(graph.roots)
        self.group_of: dict[Node, Group] = {}
        self.groups: list[Group] = []
        self.needs: list[int] = []  # per group: bit set of all groups it depends on
        self.users: list[set[int]] = []  # per group: some that need it, through which all others do
        self.place_of = {n: k for k, n in enumerate(self.order)}
        self.reductions: dict[tuple[Node, ...], list[Node]] = {}  # and scans, by their inputs
        self.free: set[Node] = set()

    def run(self) -> list[Group]:
        for node in self.order:
            if is_free(node, self.free):
                self.free.add(node)
            elif not isinstance(node.op, (Leaf, View)):
                self.place(node)
        return [g for g in self.groups if g.nodes]

    def place(self, node: Node) -> None:
        """Put a node into the group of a producer, or into a new one."""
        around = {id(g): g for p, _, _ in producers(node) if (g := self.group_of.get(p))}
        if isinstance(node.op, Scan | Reduction):  # those of the same operands share a loop
            alike = self.reductions.setdefault(node.inputs, [])
            around.update((id(g), g) for n in alike if (g := self.group_of[n]))
            alike.append(node)
        behind = sorted(around.values(), key=lambda g: -g.number)
        fitting = [g for g in behind if self.fits(node, g)]
        if not fitting:
            self.join(node, self.new_group(node))
            return
        home = fitting[0]
        for other in fitting[1:]:
            if self.can_merge(home, other):
                home = self.merge(home, other)
        self.join(node, home)

    def new_group(self, node: Node) -> Group:
        op = node.op
        if isinstance(op, Reduction):
            shape = node.inputs[0].shape
            group = Group(len(self.groups), reduction_kind(node), squeezed(shape))
            group.run = run_in_domain(node)
        elif isinstance(op, Scan):
            group = Group(len(self.groups), "scan", squeezed(node.shape))
            group.run = scanned_in_domain(node)
        else:
            group = Group(len(self.groups), kind_of(node), squeezed(node.shape))
        self.groups.append(group)
        self.needs.append(0)
        self.users.append(set())
        return group

    def join(self, node: Node, group: Group) -> None:
        if isinstance(node.op, Reduction):
            group.kind, group.run = reduction_kind(node), run_in_domain(node)
            group.outer.add(node)
        elif isinstance(node.op, Scan):
            group.kind, group.run = "scan", scanned_in_domain(node)
        elif group.accepts_outer() and self.is_outer(node, group):
            group.outer.add(node)
        group.nodes.append(node)
        self.group_of[node] = group
        for p, _, _ in producers(node):
            other = self.group_of.get(p)
            if other is not None and other is not group:
                self.depend(group, other)

    def depend(self, group: Group, on: Group) -> None:
        self.users[on.number].add(group.number)
        self.add_needs(group.number, self.needs[on.number] | 1 << on.number)

    def add_needs(self, number: int, bits: int) -> None:
        """A group, and all that need it, depend on these groups."""
        stack = [number]
        while stack:
            k = stack.pop()
            if self.needs[k] | bits != self.needs[k]:
                self.needs[k] |= bits
                stack.extend(self.users[k])

    def fits(self, node: Node, group: Group) -> bool:
        """Whether a node can be computed in a group of one of its producers."""
        op = node.op
        if isinstance(op, Contraction) or group.kind in SOLO:
            return False
        if len(group.nodes) >= LARGEST_GROUP:
            return False
        for p, _, _ in producers(node):
            other = self.group_of.get(p)
            if other is None or other is group:
                continue
            if self.needs[other.number] >> group.number & 1:
                return False  # the group would need itself
        if isinstance(op, Scan):
            return self.scan_fits(node, group)
        if group.kind == "scan":
            return False
        if isinstance(op, Reduction):
            if group.has_checks and reduction_kind(node) == "column":
                return False
            if group.kind == "contract" or squeezed(node.inputs[0].shape) != group.domain:
                return False
            if group.run is not None and (
                group.run != run_in_domain(node) or group.kind != reduction_kind(node)
            ):
                return False
            if reduction_kind(node) == "column" and self.depends_on_outer(node, group):
                return False
            return self.edges_fit(node, group, outer=False)
        if not isinstance(op, Elementwise):
            return False  # an index op may check what it reads, before anything is computed
        if group.accepts_outer() and self.is_outer(node, group):
            return self.edges_fit(node, group, outer=True)
        if squeezed(node.shape) != group.domain:
            return False
        if group.kind == "column" or (group.run is not None and group.run[2]):
            return not self.depends_on_outer(node, group) and self.edges_fit(node, group, False)
        return self.edges_fit(node, group, outer=False)

    def scan_fits(self, node: Node, group: Group) -> bool:
        """Whether a scan can run beside others, or take in the elementwise nodes before it."""
        op = node.op
        assert isinstance(op, Scan)
        if group.has_checks or squeezed(node.shape) != group.domain:
            return False
        if group.kind == "scan":
            other = next(n.op for n in group.nodes if isinstance(n.op, Scan))
            if group.run != scanned_in_domain(node) or op.reverse != other.reverse:
                return False
            inside = (p for p, _, _ in producers(node) if self.group_of.get(p) is group)
            if any(isinstance(p.op, Scan) for p in inside):
                return False
        elif group.kind != "map":
            return False
        elif is_trailing(node.shape, op.axis + 1) and any(
            cost(n) >= EXPENSIVE for n in group.nodes
        ):
            return False  # a scan of rows takes one element at a time
        return self.edges_fit(node, group, outer=False)

    def depends_on_outer(self, node: Node, group: Group) -> bool:
        return any(p in group.outer for p, _, _ in producers(node))

    def is_outer(self, node: Node, group: Group) -> bool:
        """Whether a node is computed once per row of a group."""
        if squeezed(node.shape) != group.rows:
            return False
        inside = [p for p, _, _ in producers(node) if self.group_of.get(p) is group]
        return bool(inside) and all(p in group.outer for p in inside)

    def edges_fit(self, node: Node, group: Group, outer: bool) -> bool:
        """Whether every value of the group that a node reads belongs to its own iteration."""
        for p, index, at in producers(node):
            if self.group_of.get(p) is not group:
                continue
            here = tuple(i for i, n in zip(index, p.shape, strict=True) if n != 1)
            wanted = at[: len(group.rows)] if p in group.outer and not outer else at
            if here != wanted:
                return False
        return True

    def can_merge(self, a: Group, b: Group) -> bool:
        """Whether two groups of one domain that do not need each other can be one."""
        if len(a.nodes) + len(b.nodes) > LARGEST_GROUP:
            return False
        apart = not (self.needs[a.number] >> b.number & 1 or self.needs[b.number] >> a.number & 1)
        kinds = {a.kind, b.kind}
        if (
            a.domain != b.domain
            or not apart
            or kinds & SOLO
            or kinds == {"contract"}
            or len(kinds) > 2
        ):
            return False
        if kinds & {"contract", "column", "scan"} and (a.has_checks or b.has_checks):
            return False
        if a.run is not None and b.run is not None:
            return a.run == b.run and a.kind == b.kind
        return "map" in kinds

    def merge(self, a: Group, b: Group) -> Group:
        keep, gone = (b, a) if a.kind == "map" else (a, b)
        keep.nodes = sorted(keep.nodes + gone.nodes, key=self.place_of.__getitem__)
        keep.outer |= gone.outer
        for n in gone.nodes:
            self.group_of[n] = keep
        gone.nodes = []
        self.add_needs(keep.number, self.needs[gone.number])
        for k in self.users[gone.number]:
            self.add_needs(k, self.needs[keep.number] | 1 << keep.number)
        self.users[keep.number] |= self.users[gone.number]
        self.users[gone.number].add(keep.number)  # what it is found to need later
        return keep


def kind_of(node: Node) -> Kind:
    """The kind of group that a node other than a reduction opens."""
    if isinstance(node.op, Contraction):
        return "contract"
    if isinstance(node.op, Library):
        return "call"
    if isinstance(node.op, Update):
        return "update"
    return "region" if isinstance(node.op, Region) else "map"


def reduction_kind(node: Node) -> Kind:
    op = node.op
    assert isinstance(op, Reduction)
    return "row" if is_trailing(node.inputs[0].shape, op.stop) else "column"


def run_in_domain(node: Node) -> Run:
    """The reduced axes of a reduction, counted without dimensions of size 1."""
    op, shape = node.op, node.inputs[0].shape
    assert isinstance(op, Reduction)
    return len(squeezed(shape[: op.start])), len(squeezed(shape[: op.stop])), op.block


def scanned_in_domain(node: Node) -> Run:
    """The axis of a scan, counted without dimensions of size 1."""
    op, shape = node.op, node.shape
    assert isinstance(op, Scan)
    return len(squeezed(shape[: op.axis])), len(squeezed(shape[: op.axis + 1])), 0


def cost(node: Node) -> int:
    """Primitives that a node evaluates per element, its operands given."""
    if not isinstance(node.op, Elementwise):
        return 0
    return formula_of(node.op, node.dtype, tuple(x.dtype for x in node.inputs))[1]


@lru_cache(maxsize=4096)
def formula_of(
    op: Elementwise, dtype: DType, operands: tuple[DType | Scalar, ...]
) -> tuple[Formula, int]:
    """The formula of an op, and its number of primitives, for operands of these dtypes;
    constants among them are part of it."""
    xs = [x if isinstance(x, Scalar) else reg(f"x{k}", x) for k, x in enumerate(operands)]
    body = op.element(Math(), dtype, *xs)
    return Formula(op.name, tuple(x for x in xs if x.op == "reg"), body), len(
        children_first((body,))
    )


def fuse(graph: Graph) -> list[Group]:
    """The groups of a graph, in no particular order."""
    return Fusion(graph).run()
