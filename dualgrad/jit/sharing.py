"""Tracing over shared memory: inputs that overlap with one that is overwritten are views of a row.

When an input is overwritten, all that overlap with it, its family, become views of one row of
elements: each change of a member is a change of the row, and all members show it.  Which members
the program uses, and so where the row begins and ends, is known at the end of the trace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dualgrad.compiler.ir.node import Node, input_node, replace, topological
from dualgrad.compiler.ir.types import TensorType, contiguous_strides
from dualgrad.compiler.ops.region import Overwrite
from dualgrad.compiler.ops.slicing import Strided
from dualgrad.compiler.ops.view import Reshape, View
from dualgrad.jit.alias import (
    Aliasing,
    Base,
    Source,
    families,
    overlaps_itself,
    pattern_of,
    reachable,
    tensor_at,
)
from dualgrad.jit.errors import Unsupported
from dualgrad.runtime.device_array import address_of
from dualgrad.runtime.errors import ArgumentError
from dualgrad.runtime.records import dataclass, field
from dualgrad.tensor import Tensor

if TYPE_CHECKING:
    from dualgrad.jit.trace import Trace

Member = tuple[Tensor, Strided]  # a tensor, and where it lies in its family's row


@dataclass
class Family:
    """Tensors that overlap in memory."""

    row: Node  # stands for the row as the call finds it
    value: Node  # the row as it is now
    members: list[Member]

    def view_of(self, x: Tensor) -> Strided:
        return next(view for t, view in self.members if t is x)


@dataclass
class Sharing:
    """The memory that tensors of a trace share; a family appears when a member is overwritten."""

    trace: Trace
    known: dict[int, list[Tensor]] | None = None  # by id, tensors that overlap
    families: list[Family] = field(default_factory=list)
    of: dict[int, Family] = field(default_factory=dict)  # by id of a member
    bases: list[Base] = field(default_factory=list)
    used: dict[int, Source] = field(default_factory=dict)  # by id, members that a program uses
    decides: bool = False  # the trace has failed because of where tensors lie in memory

    def knows(self, x: Tensor) -> bool:
        """Whether x is a tensor of the call or the gradient of one."""
        leaves = self.trace.leaves
        return id(x) in self.trace.position or any(t._grad is x for t in leaves)

    def write(self, target: Tensor, node: Node) -> list[Tensor]:
        """Let a tensor from outside have another value; returns all that show it."""
        trace = self.trace
        family = self._family(target)
        trace.written[id(target)] = target
        if family is None:
            trace.node_of(target)
            trace.values[id(target)] = node
            return [target]
        family.value = Overwrite.of(family.view_of(target)).on(family.value, node)
        self._show(family)
        return [t for t, _ in family.members]

    def _show(self, family: Family) -> None:
        """Let every member show what the row holds now."""
        for t, view in family.members:
            self.trace.values[id(t)] = view.trace(family.value)[0]

    def _family(self, target: Tensor) -> Family | None:
        if id(target) not in self.trace.written:
            self._check_writeable(target)
        if id(target) in self.trace.symbols.layouts:
            raise Unsupported(
                "a tensor with gaps in memory and symbolic strides is changed in place",
                actual=f"{target.type!r}",
            )
        if id(target) in self.of:
            return self.of[id(target)]
        if self.known is None:
            self.known = {}
            tensors = reachable(self.trace.leaves)
            for group in families([t.array for t in tensors]):
                members = [tensors[k] for k in group]
                self.known.update((id(t), members) for t in members)
        found = self.known.get(id(target))
        return None if found is None else self._join(found)

    def _check_writeable(self, target: Tensor) -> None:
        self.decides = True
        assert target.array is not None
        if not target.array.flags.writeable:
            raise not_writeable("a read-only array")
        if overlaps_itself(target):
            raise Unsupported(
                "a tensor is changed in place whose elements may share memory",
                actual=f"{target.type!r}, strides {target.strides_in_elements}",
            )
        self.decides = False

    def _join(self, found: list[Tensor]) -> Family:
        """Trace overlapping tensors as views of one row from now on."""
        if self.trace.symbols.values:
            raise Unsupported("tensors of any size that overlap in memory are changed in place")
        if self.trace.symbols.values:
            raise Unsupported(
                "tensors that overlap in memory are changed in place where sizes are symbols",
                actual=f"{found[0].type!r}",
            )
        dtype, start = found[0].type.dtype, _address(found[0])
        members = []
        for t in found:
            offset, rest = divmod(_address(t) - start, dtype.itemsize)
            if t.type.dtype is not dtype or rest:
                self.decides = True
                raise Unsupported(
                    "tensors of different dtypes that overlap in memory are changed in place",
                    actual=f"{found[0].type!r} and {t.type!r}",
                )
            members.append((t, Strided.of(offset, t.strides_in_elements, t.type.shape)))
        size = max(_end(view) for _, view in members)
        row = input_node(
            -1 - len(self.families), TensorType((size,), dtype, False, found[0].type.device)
        )
        family = Family(row, row, members)
        self.families.append(family)
        self.of.update((id(t), family) for t in found)
        self._show(family)
        return family

    # -- at the end of the trace --------------------------------------------------------------

    def settle(self, roots: tuple[Node, ...]) -> tuple[tuple[Node, ...], list[Tensor]]:
        """(the roots of a graph, followed by what rows hold at the end; tensors that show these
        rows).  Members are read through the rows and no inputs of the trace any more.
        """
        shown: list[Tensor] = []
        for family in self.families:
            users = self._users(family, (*roots, family.value))
            changed = {k for k, (t, _) in enumerate(users) if id(t) in self.trace.written}
            groups = families([t.array for t, _ in users])
            groups = [g for g in groups if not changed.isdisjoint(g)]
            loose = set(range(len(users))).difference(*groups)
            rows = [_Row([users[k] for k in g]) for g in (*groups, *([k] for k in loose))]
            homes = [self._home(row) for row in rows]
            roots = resolved(roots, family, rows, homes, self._inputs())
            shown += [row.tensor for row in rows]
        trace = self.trace
        kept = [k for k, t in enumerate(trace.tensors) if id(t) not in self.used]
        old = [trace.inputs[k] for k in kept]
        trace.tensors = [trace.tensors[k] for k in kept]
        trace.sources = [trace.sources[k] for k in kept]
        trace.inputs = [input_node(n, trace.type_of(t)) for n, t in enumerate(trace.tensors)]
        return replace(roots, dict(zip(old, trace.inputs, strict=True))), shown

    def _home(self, row: _Row) -> Node:
        """The input of the program that a row is."""
        source = self.source_of(row.first)
        if not row.sole:
            self.used.update((id(t), self.source_of(t)) for t, _ in row.members)
            self.bases.append(Base(source, row.tensor.type))
            source = Source("base", len(self.bases) - 1)
        found = self._inputs().get(id(row.tensor))
        return self.trace.add_input(row.tensor, source) if found is None else found

    def _inputs(self) -> dict[int, Node]:
        trace = self.trace
        return {id(t): n for t, n in zip(trace.tensors, trace.inputs, strict=True)}

    def _users(self, family: Family, roots: tuple[Node, ...]) -> list[Member]:
        """The members that a graph reads or overwrites."""
        inputs, order = self._inputs(), topological(roots)
        seen = set(order)
        rows = {family.row}
        views: set[Any] = set()
        for node in order:
            if node.inputs and node.inputs[0] in rows:
                if isinstance(node.op, Overwrite):
                    rows.add(node)
                    views.add(node.op.view)
                else:
                    views.add(node.op)
        return [(t, v) for t, v in family.members if v in views or inputs.get(id(t)) in seen]

    def source_of(self, x: Tensor) -> Source:
        """Where a tensor of a family comes from at each call."""
        trace = self.trace
        k = trace.position.get(id(x))
        if k is not None:
            return Source("leaf", k)
        k = next((k for k, t in enumerate(trace.leaves) if t._grad is x), None)
        if k is None:
            raise trace.not_found(x)
        if k not in trace.grads_read:
            trace.grads_read.append(k)
        return Source("grad", k)

    def aliasing(self) -> Aliasing | None:
        """What a path needs of the memory of a call; None if it overwrites nothing."""
        trace = self.trace
        sources = zip(trace.tensors, trace.sources, strict=True)
        met = {id(t): s for t, s in sources if s.kind in ("leaf", "grad")} | self.used
        written = tuple(k for k, key in enumerate(met) if key in trace.written)
        if not written:
            return None
        arrays: list[Any] = [tensor_at(s, trace.leaves).array for s in met.values()]
        place = {key: k for k, key in enumerate(met)}
        changes = tuple(
            (place[key], *change) for key, change in trace.times.items() if key in place
        )
        return Aliasing(tuple(met.values()), written, pattern_of(arrays, written), changes)


class _Row:
    """Members of a family that a program uses and that overlap; one alone is its own row."""

    def __init__(self, members: list[Member]) -> None:
        self.members = members
        self.sole = len(members) == 1
        self.first, view = min(members, key=lambda m: m[1].offset)  # type: ignore[arg-type,return-value]
        self.start = view.offset
        self.size = max(_end(v) for _, v in members) - self.start
        if self.sole:
            self.tensor = self.first
        else:
            base = Base(Source("leaf", 0), self.first.type.with_shape((self.size,)))
            self.tensor = Tensor.of_array(base.array([self.first]), base.type, None)

    def view(self, view: Strided) -> View:
        """A member as a view of the row; one that is all of it, in order, as a reshape."""
        offset = view.offset - self.start
        end = _end(view) - self.start
        whole = view.steps == contiguous_strides(view.sizes) and end == self.size
        if offset == 0 and whole:
            return Reshape.of(view.sizes)
        return Strided.of(offset, view.steps, view.sizes)

    def read(self, view: Strided, row: Node) -> Node:
        return row if self.sole else self.view(view).trace(row)[0]

    def overwritten(self, view: Strided, row: Node, value: Node) -> Node:
        """The row with a member replaced."""
        if self.sole:
            return value
        part = self.view(view)
        if isinstance(part, Reshape):
            return Reshape.of((self.size,)).trace(value)[0]
        return Overwrite.of(part).on(row, value)


def resolved(
    roots: tuple[Node, ...],
    family: Family,
    rows: list[_Row],
    homes: list[Node],
    inputs: dict[int, Node],
) -> tuple[Node, ...]:
    """A graph with rows in place of a family's and of members that were inputs; the roots,
    followed by what the rows hold at the end."""
    place = {view: k for k, row in enumerate(rows) for _, view in row.members}
    held: dict[Node, tuple[Node, ...]] = {family.row: tuple(homes)}  # the family's row over time
    done: dict[Node, Node] = {}
    for row, home in zip(rows, homes, strict=True):
        for t, view in row.members:
            if id(t) in inputs:
                done[inputs[id(t)]] = row.read(view, home)
    for node in topological((*roots, family.value)):
        if node in done or node in held:
            continue
        op: Any = node.op
        if not node.inputs or node.inputs[0] not in held:
            operands = tuple(done[x] for x in node.inputs)
            same = operands == node.inputs
            done[node] = node if same else Node.make(node.op, operands, node.type)
            continue
        now = held[node.inputs[0]]
        if isinstance(op, Overwrite):
            k = place[op.view]  # type: ignore[index]
            new = rows[k].overwritten(op.view, now[k], done[node.inputs[1]])  # type: ignore[arg-type]
            held[node] = (*now[:k], new, *now[k + 1 :])
        elif op in place:
            done[node] = rows[place[op]].read(op, now[place[op]])
    return (*(done[r] for r in roots), *held[family.value])


def is_expanded(x: Tensor) -> bool:
    """Whether a dimension shows the same elements again and again."""
    steps: Any = zip(x.layout or (), x.type.shape, strict=False)
    return any(s == 0 and n != 1 for s, n in steps)


def not_writeable(what: str) -> ArgumentError:
    """The error of a change in place, as it is in eager mode."""
    return ArgumentError(
        "the memory cannot be written",
        expect="writeable memory in which elements do not overlap",
        actual=what,
        hint="clone() it first",
    )


def _end(view: Strided) -> Any:
    """The position in the row behind the last element of a member."""
    steps = zip(view.sizes, view.steps, strict=True)
    return view.offset + 1 + sum((n - 1) * s for n, s in steps)


def _address(x: Tensor) -> int:
    assert x.array is not None
    return address_of(x.array)
