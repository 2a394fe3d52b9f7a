"""What a differentiable program saves for its gradient, and what is computed again.

The rule, in one place.  The gradient program reads what the tape of eager mode would have saved:
the operands and results that the gradients of the recorded units read.  Of these,

- what is in the memory of an input (or a view of that) is read from there;
- a view of something else is found in what it shows, if that is not larger;
- a value is computed again if a cheap elementwise op (below `EXPENSIVE` primitives, those of the
  values below it that are computed again included) made it from numbers, from what this op itself
  saves, or from what is saved anyway, unless a contraction, scan, index or library op reads it:
  those want it in memory;
- what is computed under a checkpoint is computed again, from what came into that;
- everything else is an extra output of the program.  So contractions, reductions, random numbers,
  transcendental functions and whatever gathers or sorts run once.

Nothing is read from an input that eager mode would not have saved: between forward and backward
it may be changed in place, as optimizers and running statistics do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from dualgrad.compiler.batching import Batched
from dualgrad.compiler.grad import Vjp
from dualgrad.compiler.ir.dims import Dim
from dualgrad.compiler.ir.node import Leaf, Node
from dualgrad.compiler.ir.value import Unit
from dualgrad.compiler.ops.elementwise import Copy, Elementwise
from dualgrad.compiler.ops.reduce import Reduction
from dualgrad.compiler.ops.view import Expand, View
from dualgrad.jit.tape import Guard, Name, Step, Value, is_number
from dualgrad.runtime.lazy import LazyModule
from dualgrad.runtime.records import dataclass, field

if TYPE_CHECKING:
    from dualgrad.compiler.passes import fuse
else:
    fuse = LazyModule("dualgrad.compiler.passes.fuse")


class Place(NamedTuple):
    """Where a saved value is found at each call."""

    kind: str  # "input" or "output" of the program
    number: int


@dataclass(frozen=True)
class Kept:
    """What is saved: nodes, where each is found, whose changes in place it shows (None: nobody's),
    and the steps that need it, as bits."""

    nodes: tuple[Node, ...]
    places: tuple[Place, ...]
    guard_of: tuple[Guard, ...]
    users: tuple[int, ...]
    outputs: tuple[Node, ...]  # extra outputs of the program
    guards: tuple[Name, ...]  # of all values that any step saves

    def changed(self, change: Callable[[tuple[Node, ...]], tuple[Node, ...]]) -> Kept:
        """The same with other nodes."""
        return replace(self, nodes=change(self.nodes), outputs=change(self.outputs))


@dataclass
class Keeping:
    """Works out `Kept`.

    direct     nodes that are inputs of the program (as they are after it has run)
    guard_of   whose changes each input shows
    emitted    nodes that are results of the program: number and whose changes it shows
    recomputed nodes under a checkpoint, and what they are to be computed from
    """

    steps: list[Step]
    direct: dict[Node, int]
    guard_of: list[Guard]
    emitted: dict[Node, tuple[int, Guard]]
    recomputed: dict[Node, set[Node]]
    own: set[Node] = field(default_factory=set)
    dropped: dict[Node, int] = field(default_factory=dict)  # with the price of computing it again

    def run(self, outputs: int) -> Kept:
        steps = self.steps
        groups: dict[Node, dict[Guard, None]] = {}
        for step in steps:
            for v in step.saved:
                node = self._place(v)
                if node is not None and not self._is_recomputed(v, node):
                    groups.setdefault(node, {})[v.guard] = None
        self._add_borders(groups)
        found = {n: self._found(n, tuple(g)) for n, g in groups.items()}
        self._drop({n for n, p in found.items() if p is None})
        nodes = [n for n in groups if n not in self.dropped]
        own = [n for n in nodes if found[n] is None]
        number = {n: outputs + k for k, n in enumerate(own)}
        places = tuple(found[n] or Place("output", number[n]) for n in nodes)
        guards = dict.fromkeys(v.guard for s in steps for v in s.saved if v.guard is not None)
        return Kept(
            tuple(nodes),
            places,
            tuple(None if found[n] is None else next(iter(groups[n])) for n in nodes),
            self._users(nodes),
            tuple(own),
            tuple(guards),
        )

    def _is_recomputed(self, v: Value, place: Node) -> bool:
        return v.node in self.recomputed and place not in self.direct

    def _add_borders(self, groups: dict[Node, dict[Guard, None]]) -> None:
        """Save what values under a checkpoint are computed from: where no step reads that from
        the memory of an input, which may change, in memory of its own."""
        for step in self.steps:
            for v in step.saved:
                if self._place(v) in groups or v.node not in self.recomputed:
                    continue
                for node in leaves_of((v.node,), {*groups, *self.recomputed[v.node]}):
                    if node not in groups and not is_number(node):
                        groups[node] = {None: None}

    def _place(self, v: Value) -> Node | None:
        """What has to be saved to have a value: itself, or what it is a view of."""
        node, no_larger = v.node, True
        best = node
        while True:
            k = self.direct.get(node)
            if k is not None and self.guard_of[k] == v.guard:
                return node
            if is_number(node):
                return None
            if not isinstance(node.op, View):
                return best
            (source,) = node.inputs
            no_larger = isinstance(node.op, Expand) or _no_larger(source.size, node.size)
            if no_larger and best is node:
                best = source
            node = source

    def _found(self, node: Node, guards: tuple[Guard, ...]) -> Place | None:
        """Where a value is at hand; None if it needs memory of its own."""
        if len(guards) > 1:
            return None
        k = self.direct.get(node)
        if k is not None and self.guard_of[k] == guards[0]:
            return Place("input", k)
        output = self.emitted.get(node)
        if output is not None and guards[0] is not None and output[1] == guards[0]:
            return Place("output", output[0])
        return None

    # -- what is computed again ---------------------------------------------------------------

    def _drop(self, own: set[Node]) -> None:
        """Find the values that are computed again, those of earlier steps first."""
        self.own = own
        wanted = {v.node for s in self.steps if not _is_light(s.unit) for v in s.saved}
        for node, number in sorted(self._makers().items(), key=lambda item: item[1]):
            step = self.steps[number]
            if node not in own or node in wanted or not isinstance(step.unit, Elementwise):
                continue
            known = {n for v in step.operands if (n := self._place(v)) is not None}
            price = self._price(node, known, fuse.EXPENSIVE)
            if price < fuse.EXPENSIVE:
                self.dropped[node] = price

    def _makers(self) -> dict[Node, int]:
        """The step that made a saved value."""
        made: dict[Node, int] = {}
        for number, step in enumerate(self.steps):
            for v in step.outputs:
                made.setdefault(v.node, number)
            for v, edge in zip(step.operands, step.edges, strict=True):
                if edge is not None and edge[0] >= 0:
                    made.setdefault(v.node, edge[0])
        return made

    def _price(self, node: Node, known: set[Node], limit: int, top: bool = True) -> int:
        """Primitives that it takes to compute a value from what is known; at least `limit` if
        that is too much, or cannot be."""
        if is_number(node):
            return 0
        if not top:
            if node in self.dropped:
                return self.dropped[node]
            if node in known or node in self.own:
                return 0
        if isinstance(node.op, View):
            return self._price(node.inputs[0], known, limit, False)
        if not isinstance(node.op, Elementwise) or isinstance(node.op, Copy):
            return limit
        price = fuse.cost(node)
        for x in node.inputs:
            if price < limit:
                price += self._price(x, known, limit - price, False)
        return price

    def _users(self, nodes: list[Node]) -> tuple[int, ...]:
        users = dict.fromkeys(nodes, 0)
        stops = set(nodes)
        for number, step in enumerate(self.steps):
            for v in step.saved:
                for n in leaves_of((v.node,), stops):
                    if n in stops:
                        users[n] |= 1 << number
        return tuple(users.values())


def keeping(
    steps: list[Step],
    direct: dict[Node, int],
    guard_of: list[Guard],
    emitted: dict[Node, tuple[int, Guard]],
    outputs: int,
    recomputed: dict[Node, set[Node]] | None = None,
) -> Kept:
    """What to save for the gradient of these steps; the program has `outputs` results."""
    return Keeping(steps, direct, guard_of, emitted, recomputed or {}).run(outputs)


def leaves_of(roots: Iterable[Node], stops: set[Node]) -> list[Node]:
    """The leaves and stops that roots are computed from, nothing behind stops."""
    out: list[Node] = []
    seen: set[Node] = set()
    stack = list(roots)
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if node in stops or isinstance(node.op, Leaf):
            out.append(node)
        else:
            stack.extend(node.inputs)
    return out


def _no_larger(a: Dim, b: Dim) -> bool:
    if isinstance(a, int) and isinstance(b, int):
        return a <= b
    return a == b


def _is_light(unit: Unit) -> bool:
    """Whether a unit and its gradient take values one by one, as they are computed."""
    while isinstance(unit, Vjp | Batched):
        unit = unit.unit
    return isinstance(unit, Elementwise | View | Reduction)
