"""From a graph to a program in loop IR: the passes, in order, and where every value lives.

1. `simplify`: rewrite rules that keep the bits.
2. `own_memory`: outputs, writes, operands of contractions and of functions of the host, and what
   is gathered from become nodes that have memory; on a CPU, `narrow_operands` before that.
3. `fuse` and `schedule`: nodes into groups, groups in an order that checks early and writes late.
4. Memory: every value that crosses a kernel goes to an output, an input that is overwritten, or
   a temporary.
5. Kernels: each group as loops; on a CPU, strips of them that go item by item.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from dualgrad.compiler.ir.dims import Atom, Dim, coefficient, sym, symbols
from dualgrad.compiler.ir.node import LINES, Graph, Leaf, Node, is_leaf, topological
from dualgrad.compiler.ir.types import Layouts, contiguous_strides
from dualgrad.compiler.ir.verify import verify_graph
from dualgrad.compiler.kernel.build import Place, build_column, build_map, lines_of
from dualgrad.compiler.kernel.call import build_call, whole_of
from dualgrad.compiler.kernel.contract import (
    build_contract,
    build_parts,
    home_of,
    is_row_major,
    steps_of,
    sums_apart,
)
from dualgrad.compiler.kernel.evaluate import Access, Evaluator
from dualgrad.compiler.kernel.ir import Buffer, Device, Kernel, Stmt
from dualgrad.compiler.kernel.loops import LOOPS
from dualgrad.compiler.kernel.packed import share_packed
from dualgrad.compiler.kernel.program import LoopProgram, Temporary
from dualgrad.compiler.kernel.region import build_region, parts_in
from dualgrad.compiler.kernel.rounds import passes_of
from dualgrad.compiler.kernel.row import build_row
from dualgrad.compiler.kernel.scan import build_scan
from dualgrad.compiler.kernel.striping import Finder
from dualgrad.compiler.kernel.strips import Strip
from dualgrad.compiler.kernel.update import build_update
from dualgrad.compiler.kernel.verify import verify
from dualgrad.compiler.launch import CheckSite
from dualgrad.compiler.ops.base import Op
from dualgrad.compiler.ops.contract import Contraction
from dualgrad.compiler.ops.elementwise import Copy
from dualgrad.compiler.ops.index import Index, Update
from dualgrad.compiler.ops.joining import Concat
from dualgrad.compiler.ops.library import Library
from dualgrad.compiler.ops.region import Overwrite
from dualgrad.compiler.ops.view import (
    Permute,
    Reshape,
    View,
    behind_views,
    flatten_index,
    through_views,
)
from dualgrad.compiler.passes.channels import channels_last
from dualgrad.compiler.passes.fuse import SOLO, Group, fuse, producers, squeezed
from dualgrad.compiler.passes.operands import narrow_operands
from dualgrad.compiler.passes.schedule import schedule
from dualgrad.compiler.passes.simplify import simplify
from dualgrad.runtime.config import config
from dualgrad.runtime.dtype import DType, int64
from dualgrad.runtime.lazy import LazyModule
from dualgrad.runtime.records import dataclass, field

if TYPE_CHECKING:
    from dualgrad.compiler.lower.llvm import gemm
else:  # for programs with products
    gemm = LazyModule("dualgrad.compiler.lower.llvm.gemm")

BUILDERS: dict[str, Callable[[Group, Place], tuple[Stmt, ...]]] = {
    "map": build_map,
    "row": build_row,
    "column": build_column,
    "scan": build_scan,
    "call": build_call,
}


def lower(
    graph: Graph, layouts: Layouts, name: str, threads: int, device: Device = "cpu"
) -> LoopProgram:
    """The loop program of a graph for a kind of device; on a CPU `threads` sizes the scratch
    memory of contractions."""
    graph = simplify(graph)
    graph = channels_last(graph) if device == "cpu" else graph
    graph = own_memory(graph, layouts, device)
    if config.verify:
        verify_graph(graph)
    return Lowering(graph, layouts, name, threads, device).run()


def input_access(node: Node, strides: tuple[Dim, ...] | None) -> Access:
    """How an input lies in memory."""
    steps = node.type.strides if strides is None else strides
    size: Dim = 1
    for n, step in zip(node.shape, steps, strict=True):
        size = size + (n - 1) * step
    if any(n == 0 for n in node.shape):
        size = 0
    assert isinstance(node.op, Leaf)
    size = node.type.size if strides is None else size
    return Access(Buffer(f"i{node.op.value}", node.dtype, size), steps)


def own_memory(graph: Graph, layouts: Layouts, device: Device) -> Graph:
    """The graph with copies where a value must have memory of its own but has none.

    An output or a written value must be computed by a node (a view of one in row-major order
    will do); an operand that is read at computed places, or by a contraction, must lie in
    memory with one stride per dimension, one of a library op in row-major order.  On a CPU rows
    and columns of a contraction's operand may be walks.
    """
    accesses = {x: input_access(x, s) for x, s in zip(graph.inputs, layouts, strict=True)}
    if device == "cpu":
        graph = narrow_operands(graph, lambda x: _is_strided(x, accesses, (0, 1, 2)))
    walked = cache(lambda x: _is_walked(x, accesses))  # many products may have one operand
    change: set[tuple[Node, Node]] = set()
    for node in topological(graph.roots):
        for k, axes in in_memory_operands(node).items():
            x = node.inputs[k]
            if isinstance(node.op, Library):
                fits = _is_whole(x, accesses)
            elif isinstance(node.op, Contraction) and device == "cpu":
                fits = walked(x)
            else:
                fits = _is_strided(x, accesses, axes)
            if not fits:
                change.add((node, x))
    if change:
        graph = graph.with_roots(_replace_operands(graph.roots, change))
    return graph.with_roots(_computed_roots(graph.roots))


def _computed_roots(roots: tuple[Node, ...]) -> tuple[Node, ...]:
    """The roots as computed values; a function of the host fills one output only."""
    out: list[Node] = []
    filled: set[Node] = set()
    for root in map(_computed, roots):
        base = _row_major_base(root)
        out.append(Copy.of().on(root) if base in filled else root)
        if base is not None and isinstance(base.op, Library):
            filled.add(base)
    return tuple(out)


def in_memory_operands(node: Node) -> dict[int, tuple[int, ...]]:
    """The operands whose elements a kernel reads by address, and the axes along which the
    address must be linear."""
    if isinstance(node.op, Contraction | Library):
        return {k: tuple(range(x.ndim)) for k, x in enumerate(node.inputs)}
    return node.op.gathers if isinstance(node.op, Index) else {}


def _replace_operands(roots: tuple[Node, ...], change: set[tuple[Node, Node]]) -> tuple[Node, ...]:
    """The graph with some (user, operand) edges led through copies, other uses left alone."""
    done: dict[Node, Node] = {}
    for node in topological(roots):
        by_address = in_memory_operands(node)
        inputs = tuple(
            _copied(done[x], isinstance(node.op, Library))
            if k in by_address and (node, x) in change
            else done[x]
            for k, x in enumerate(node.inputs)
        )
        done[node] = node if inputs == node.inputs else Node.make(node.op, inputs, node.type)
    return tuple(done[r] for r in roots)


def _copied(x: Node, whole: bool) -> Node:
    """A copy of x, made in the shape that a reshape of it has come from: indices into that shape
    need no division.  Unless it must be whole, a permutation of the copy will do."""
    if isinstance(x.op, Reshape):
        return x.op.on(Copy.of().on(x.inputs[0]))
    if isinstance(x.op, Permute) and not whole:
        return x.op.on(_copied(x.inputs[0], False))
    return Copy.of().on(x)


def _computed(root: Node) -> Node:
    """root, or a copy of it if it is an input, a number, or a view in another order."""
    base = _row_major_base(root)
    if base is None or not _is_computed(base):
        return Copy.of().on(root)
    return root


def _is_computed(node: Node) -> bool:
    """Whether a node is placed in a kernel (not a leaf, not something free to recompute)."""
    return not isinstance(node.op, Leaf) and (_reads_input(node) or isinstance(node.op, Copy))


_reads: WeakKeyDictionary[Node, bool] = WeakKeyDictionary()


def _reads_input(node: Node) -> bool:
    """Whether an input of the graph is below a node."""
    stack = [node]
    while stack:
        x = stack[-1]
        waiting = [i for i in x.inputs if i not in _reads]
        if waiting:
            stack += waiting
            continue
        stack.pop()
        _reads[x] = is_leaf(x, "input") or any(_reads[i] for i in x.inputs)
    return _reads[node]


def _row_major_base(node: Node) -> Node | None:
    """The node behind views that only reshape, if the views keep the row-major order."""
    while isinstance(node.op, Reshape):
        (node,) = node.inputs
    if not isinstance(node.op, View):
        return node
    at = tuple(0 if n == 1 else sym(f"q{k}", n) for k, n in enumerate(node.shape))
    base, index = through_views(node, at)
    same = base.type.size == node.type.size and flatten_index(index, base.shape) == flatten_index(
        at, node.shape
    )
    return base if same else None


def _is_strided(x: Node, accesses: dict[Node, Access], axes: tuple[int, ...]) -> bool:
    """Whether an operand lies in some memory, with one stride along each of these axes."""
    evaluator = _in_memory(x, accesses)
    if evaluator is None:
        return False
    at = tuple(sym(f"q{k}", n) for k, n in enumerate(x.shape))
    position = evaluator.value(x, at).memory[1]
    for v in (at[k] for k in axes):
        split = coefficient(position, v)
        if split is None or symbols(split[0]) & {a for w in at for a in symbols(w)}:
            return False
        position = split[1]
    return True


def _is_walked(x: Node, accesses: dict[Node, Access]) -> bool:
    """Whether a contraction's operand lies in some memory, in rows and columns."""
    evaluator = _in_memory(x, accesses)
    if evaluator is None:
        return False
    at = batch, row, col = tuple(sym(f"q{k}", n) for k, n in enumerate(x.shape))
    return steps_of(evaluator.value(x, at).memory[1], batch, row, col) is not None


def _is_whole(x: Node, accesses: dict[Node, Access]) -> bool:
    """Whether an operand lies in some memory in row-major order, without gaps."""
    evaluator = _in_memory(x, accesses)
    return evaluator is not None and whole_of(x, evaluator) is not None


def _in_memory(x: Node, accesses: dict[Node, Access]) -> Evaluator | None:
    """An evaluator that reads x from memory; None if x is nowhere in memory."""
    base = behind_views(x)
    access = accesses.get(base)
    if access is None and _is_computed(base):
        access = Access(Buffer("", base.dtype, 0), base.type.strides)
    return None if access is None else Evaluator({base: access})


@dataclass
class Lowering:
    """State of one lowering: memory of every value, kernels so far."""

    graph: Graph
    layouts: Layouts
    name: str
    threads: int
    device: Device
    stored: dict[Node, Access] = field(default_factory=dict)
    destinations: dict[Node, list[Access]] = field(default_factory=dict)
    temporaries: list[Buffer] = field(default_factory=list)
    checks: list[CheckSite] = field(default_factory=list)
    whole: set[Node] = field(default_factory=set)  # that functions of the host read
    kernels: list[Kernel] = field(default_factory=list)
    # positions of the first and the last group that reads a node
    readers: dict[Node, tuple[int, int]] = field(default_factory=dict)
    tenants: dict[str, list[Node]] = field(default_factory=dict)  # see `place_parts`

    def run(self) -> LoopProgram:
        graph = self.graph
        for x, strides in zip(graph.inputs, self.layouts, strict=True):
            self.stored[x] = input_access(x, strides)
        outputs = tuple(Buffer(f"o{k}", x.dtype, x.type.size) for k, x in enumerate(graph.outputs))
        for x, buffer in zip(graph.outputs, outputs, strict=True):
            self.add_destination(x, buffer)
        order = schedule(fuse(graph), {behind_views(n) for n, _ in graph.writes})
        group_of = {n: g for g in order for n in g.nodes}
        crossing = _crossing(order, group_of)
        order += self.place_writes(order, group_of)
        self.tenants = self.place_parts(order, group_of)
        called = [n for n in group_of if isinstance(n.op, Library)]
        self.whole = {p for n in called for p, _, _ in producers(n)}
        for position, group in enumerate(order):
            for p in (p for n in group.nodes for p, _, _ in producers(n)):
                self.readers[p] = self.readers.get(p, (position, position))[0], position
        for position, group in enumerate(order):
            roots = [n for n in group.nodes if n in crossing or n in self.destinations]
            if group.kind in SOLO and group.nodes[0] not in self.destinations:
                self.inherit(group, position)
            if group.kind in ("map", "column"):
                self.reuse(group, roots, position)
            self.build(group, roots, f"{self.name}_{position}")
        if self.device == "cpu":
            self.kernels = share_packed(self.kernels, self.packed)
            if config.verify:
                for kernel in self.kernels:
                    verify(kernel, self.device)
        strips = self.find_strips() if self.device == "cpu" else ()
        return LoopProgram(
            self.name,
            tuple(self.stored[x].buffer for x in graph.inputs),
            outputs,
            tuple(x.type for x in graph.outputs),
            self.live_ranges(strips),
            self.symbols(),
            tuple(x.dtype for x in graph.scalars),
            tuple(self.kernels),
            tuple(self.checks),
            self.threads,
            self.device,
            strips,
        )

    def find_strips(self) -> tuple[Strip, ...]:
        """The strips among the kernels, which they reorder."""
        buffers, threads = tuple(self.temporaries), self.threads

        def workspace(m: Dim, n: Dim, k: Dim) -> Dim:
            return gemm.workspace_bytes(1, m, n, k, 1)

        self.kernels, strips = Finder(self.kernels, buffers, threads, self.scratch, workspace).run()
        return strips

    def inherit(self, group: Group, position: int) -> None:
        """Let a node overwrite the temporary memory of its base, where nobody reads that later."""
        (node,) = group.nodes
        base = _row_major_base(node.inputs[0]) if isinstance(node.op, Overwrite | Update) else None
        if base is None or not self.is_over(base, position):
            return
        home = seen_as(self.stored[base], base.shape, node.shape)
        if home is not None and _reads_in_place(group, node, base):
            self.destinations[node] = [home]

    def reuse(self, group: Group, roots: list[Node], position: int) -> None:
        """Let elementwise results overwrite temporaries that nothing else reads."""
        read = dict.fromkeys(p for n in group.nodes for p, _, _ in producers(n))
        free = [p for p in read if self.is_over(p, position) and self.readers[p][0] == position]
        for root in roots:
            if self.destinations.get(root):
                continue
            for p in free:
                if p.dtype is root.dtype and _reads_in_place(group, root, p):
                    self.destinations[root] = [self.stored[p]]
                    free.remove(p)
                    break

    def is_over(self, node: Node, position: int) -> bool:
        """Whether a node lies in a temporary that no group after a position reads, and none at
        it as another node that lies there."""
        access = self.stored.get(node)
        if access is None or access.buffer.name[0] != "t":
            return False
        owner, *parts = self.tenants.get(access.buffer.name, [node])
        over = owner is node and self.last_reader(node) <= position
        return over and all(self.last_reader(x) < position for x in parts)

    def last_reader(self, node: Node) -> int:
        return self.readers.get(node, (0, -1))[1]

    def add_destination(self, root: Node, buffer: Buffer) -> None:
        """A row-major destination of the node behind `root`."""
        base = _row_major_base(root)
        assert base is not None
        access = Access(buffer, base.type.strides)
        self.destinations.setdefault(base, []).append(access)

    def place_writes(self, order: list[Group], group_of: dict[Node, Group]) -> list[Group]:
        """Destinations of written values: the input itself where nobody reads it later and
        nothing may stop the program any more, else a copy at the very end.  Returns the groups of
        those copies."""
        copies: list[Group] = []
        position = {id(g): k for k, g in enumerate(order)}
        readers = self._readers(order)
        last_check = max((k for k, g in enumerate(order) if g.has_checks), default=-1)
        for value, k in self.graph.writes:
            target = self.stored[self.graph.inputs[k]]
            base = _row_major_base(value)
            assert base is not None
            group = group_of[base]
            late = readers.get(target.buffer.name, -1) <= position[id(group)]
            # an update checks all of its places before it stores anything
            safe = position[id(group)] + (group.kind == "update") > last_check
            home = seen_as(target, value.shape, base.shape) if late and safe else None
            if home is not None and _reads_in_place(group, base, self.graph.inputs[k]):
                self.destinations.setdefault(base, []).append(home)
                continue
            node = Copy.of().on(value)
            while node in group_of:  # an output is this copy already, and may be made too early
                value, node = node, Copy.of().on(node)
            if any(node in g.nodes for g in copies):
                self.destinations[node].append(target)
                continue
            self.destinations[node] = [target]
            base = _row_major_base(value)
            assert base is not None
            if base not in self.destinations:
                self.destinations[base] = [self.temporary(base)]
            copies.append(Group(-1, "map", squeezed(value.shape), [node]))
        return copies

    def place_parts(self, order: list[Group], group_of: dict[Node, Group]) -> dict[str, list[Node]]:
        """Let the parts of joined tensors be computed where these lie.

        Returns for each memory that is shared so the tensor that owns it, then the parts.
        """
        readers = Counter(
            p
            for g in order
            for n in g.nodes
            for p, _, _ in producers(n)
            if group_of.get(p) is not g
        )
        tenants: dict[str, list[Node]] = {}
        for group in reversed(order):  # an outer tensor before those that are its parts
            node = group.nodes[0]
            if not isinstance(node.op, Concat):
                continue
            homes = self.destinations.setdefault(node, [])
            if not homes:
                homes.append(self.temporary(node))
            if not all(map(self.is_fresh, homes)):
                continue
            for part, slots in parts_in(node, homes).values():
                if part not in group_of or group_of[part].kind in ("update", "call"):
                    continue
                known = self.destinations.setdefault(part, [])
                if not known and readers[part] > 1 and not is_row_major(slots[0], part.shape):
                    known.append(self.temporary(part))
                known += slots
                for home in homes:
                    tenants.setdefault(home.buffer.name, [node]).append(part)
        return tenants

    def _readers(self, order: list[Group]) -> dict[str, int]:
        """The last group that reads each input."""
        last: dict[str, int] = {}
        for k, group in enumerate(order):
            for node in group.nodes:
                for p, _, _ in producers(node):
                    if p in self.stored:
                        last[self.stored[p].buffer.name] = k
        return last

    def temporary(self, node: Node) -> Access:
        return Access(self.scratch(node.dtype, node.type.size), node.type.strides)

    def workspace(self, batches: Dim, m: Dim, n: Dim, k: Dim, more: Dim) -> Buffer | None:
        if self.device != "cpu":
            return None
        size = gemm.workspace_bytes(batches, m, n, k, self.threads)
        return self.scratch(int64, (size + 7) // 8 + more)

    def packed(self, dtype: DType, n: int, k: int) -> Buffer:
        return self.scratch(dtype, gemm.packed_size(n, k))

    def scratch(self, dtype: DType, size: Dim) -> Buffer:
        buffer = Buffer(f"t{len(self.temporaries)}", dtype, size)
        self.temporaries.append(buffer)
        return buffer

    def build(self, group: Group, roots: list[Node], name: str) -> None:
        for r in roots:
            homes = self.destinations.setdefault(r, [])
            if not homes or (r in self.whole and not is_row_major(homes[0], r.shape)):
                homes.insert(0, self.temporary(r))
        evaluator = partial(self.evaluator, group.is_long)
        loops = LOOPS[self.device]
        memory = (self.is_fresh, self.workspace, self.scratch)
        place = Place(roots, self.destinations, evaluator, *memory, loops)
        if group.kind == "contract":
            node = next(n for n in group.nodes if isinstance(n.op, Contraction))
            apart = self.device == "cuda" and sums_apart(node)
            if not apart and home_of(node, place) is None:
                self.destinations.setdefault(node, []).insert(0, self.temporary(node))
                place.roots = [node, *(r for r in roots if r is not node)]
            bodies = [*build_parts(group, place)] if apart else [build_contract(group, place)]
        elif group.kind == "region":
            bodies = build_region(group.nodes[0], place)
        elif group.kind == "update":
            bodies = build_update(group.nodes[0], place)
        else:
            bodies = [BUILDERS[group.kind](group, place)]
        for k, body in enumerate(bodies):
            kernel = Kernel(f"{name}_{k}" if k else name, body, lines_of(group))
            if config.verify:
                verify(kernel, self.device)
            self.kernels.append(kernel)
        for r in place.roots:
            self.stored[r] = self.destinations[r][0]

    def evaluator(self, calls: bool, probe: bool) -> Evaluator:
        new_check = _no_check if probe else self.new_check
        return Evaluator(self.stored, calls=calls, new_check=new_check)

    def new_check(self, node: Node, what: str, bound: Dim, low: Dim) -> int:
        site = CheckSite(node.op.name, what, bound, LINES.get(node), low)
        if site not in self.checks:
            self.checks.append(site)
        return self.checks.index(site)

    def is_fresh(self, access: Access) -> bool:
        return access.buffer.name[0] in "ot"

    def live_ranges(self, strips: tuple[Strip, ...]) -> tuple[Temporary, ...]:
        used: dict[str, list[int]] = {}
        for numbers in passes_of(self.kernels, (s.numbers for s in strips)):  # these run at once
            for k in numbers:
                for b in self.kernels[k].starts:
                    used.setdefault(b.name, []).extend((numbers[0], numbers[-1]))
        private = {p.buffer.name for s in strips for p in s.privates}
        used.update({s.scratch.name: [s.first, s.last] for s in strips})
        return tuple(
            Temporary(b, used[b.name][0], used[b.name][-1])
            for b in self.temporaries
            if b.name in used and b.name not in private
        )

    def symbols(self) -> tuple[Atom, ...]:
        """The symbols in any shape, layout or op of the graph."""
        nodes = topological((*self.graph.inputs, *self.graph.roots))
        shapes = {n.shape for n in nodes}
        layouts = [strides or () for strides in self.layouts]
        fields = [op.dims for op in {n.op for n in nodes if isinstance(n.op, Op)}]
        found = {a for dims in (*shapes, *layouts, *fields) for d in dims for a in symbols(d)}
        return tuple(sorted(found, key=lambda a: a.sort_key))


def seen_as(access: Access, shape: tuple[Dim, ...], other: tuple[Dim, ...]) -> Access | None:
    """Memory of one shape as that of another shape of the same size, in row-major order."""
    if shape == other:
        return access
    row_major = access.strides == contiguous_strides(shape)
    return Access(access.buffer, contiguous_strides(other), access.start) if row_major else None


def _no_check(node: Node, what: str, bound: Dim, low: Dim) -> int:
    return 0


def _crossing(order: list[Group], group_of: dict[Node, Group]) -> set[Node]:
    """Nodes that another group reads."""
    return {
        p
        for group in order
        for node in group.nodes
        for p, _, _ in producers(node)
        if p in group_of and group_of[p] is not group
    }


def _reads_in_place(group: Group, written: Node, target: Node) -> bool:
    """Whether a group reads an input only at the element that it overwrites."""
    if group.kind in SOLO:  # part by part: only the base may be the memory itself
        base, *others = written.inputs
        behind = {behind_views(x) for x in others}
        if isinstance(written.op, Update):
            base = _row_major_base(base) or base
            return base is target and target not in behind
        if base is not target or target in behind or not isinstance(written.op, Overwrite):
            return False
    elif group.kind not in ("map", "contract", "column"):
        return False
    for node in group.nodes:
        for k, (p, index, at) in enumerate(producers(node)):
            if p is target:
                if k in in_memory_operands(node):
                    return False
                here = tuple(i for i, n in zip(index, p.shape, strict=True) if n != 1)
                if here != at or p.shape != written.shape:
                    return False
    return True
