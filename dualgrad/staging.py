"""Programs of traced functions, on one device or several.

What runs on one device is one program.  Where values go from one device to another, a graph falls
into stages: in each, values are moved first, then one program runs per device.  Nodes are computed
as late as possible.  All changes of inputs are made by programs of the last stage, after all
checks, so that a check that fails leaves everything as it was.

What depends on no input belongs to no device; it is computed wherever it is used.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from dualgrad.backends.common import Bound, Times
from dualgrad.backends.transfers import moved
from dualgrad.compiler.ir.dims import Atom
from dualgrad.compiler.ir.node import Graph, Node, input_node, is_leaf, replace, topological
from dualgrad.compiler.ir.types import Layouts
from dualgrad.compiler.launch import size_of
from dualgrad.compiler.ops.elementwise import Copy
from dualgrad.compiler.ops.placing import free_nodes, placed
from dualgrad.compiler.ops.transfer import Transfer
from dualgrad.engine import Compiled, compile_graph
from dualgrad.runtime.devices import CPU
from dualgrad.runtime.dtype import DType
from dualgrad.runtime.errors import DeviceError
from dualgrad.runtime.records import dataclass, field


def compile_traced(graph: Graph, layouts: Layouts, name: str) -> Executable:
    """The executable of a graph whose nodes may be on several devices."""
    order = topological(graph.roots)
    devices = {n.device for n in (*order, *graph.inputs)}
    if devices <= {CPU}:
        return compile_graph(graph, layouts, name)
    graph = without_moves_of_free(graph, order)
    order = topological(graph.roots)
    free = free_nodes(order)
    devices = {n.device for n in (*order, *graph.outputs) if n not in free}
    devices |= {n.device for n in graph.outputs}
    devices |= {graph.inputs[k].device for _, k in graph.writes}
    devices |= {x.device for x in graph.inputs}
    if len(devices) == 1 and not any(isinstance(n.op, Transfer) for n in order):
        (device,) = devices
        whole = Part(graph, layouts, name, device)
        return whole.executable if device == CPU else Staged([whole.over_all()], graph, name)
    return Staging(graph, layouts, name).staged()


def without_moves_of_free(graph: Graph, order: list[Node]) -> Graph:
    """A graph in which nothing is moved that could be computed at its destination."""
    free = free_nodes(order)
    done: dict[Node, Node] = {}
    for n in order:
        inputs = tuple(done[x] for x in n.inputs)
        if isinstance(n.op, Transfer) and n.inputs[0] in free:
            done[n] = placed(inputs[0], n.device)
            continue
        done[n] = n if inputs == n.inputs else Node.make(n.op, inputs, n.type)
    return graph.with_roots(tuple(done[n] for n in graph.roots))


class Part:
    """A program for one device: slots that it reads, and slots for what it makes."""

    def __init__(
        self,
        graph: Graph,
        layouts: Layouts,
        name: str,
        device: str,
        reads: tuple[int, ...] = (),
        makes: tuple[int, ...] = (),
    ) -> None:
        self.graph, self.layouts, self.name, self.device = graph, layouts, name, device
        self.reads, self.makes = reads, makes
        self.executable = compile_graph(graph, layouts, name, device=device)

    def over_all(self) -> Part:
        """The same part, reading all inputs of its graph and making all its outputs."""
        n = len(self.graph.inputs)
        self.reads, self.makes = tuple(range(n)), tuple(range(n, n + len(self.graph.outputs)))
        return self

    @cached_property
    def wide(self) -> Compiled:
        """The program for arrays with more elements than 32 bits can number."""
        return compile_graph(self.graph, self.layouts, self.name, device=self.device, wide=True)

    def bound(self, values: dict[Atom, int]) -> BoundPart:
        """The program for these sizes."""
        found = self.executable
        if found.is_too_narrow(values):
            found = self.wide
        return BoundPart(found.bind(values), self.reads, self.makes)


@dataclass(frozen=True)
class Move:
    """The array in a slot is copied to a device, into another slot; or to its own, as it is."""

    source: int
    target: int
    device: str

    def bound(self, values: dict[Atom, int]) -> Move:
        return self

    def run(self, slots: list[Any], scalars: tuple[float, ...]) -> None:
        slots[self.target] = moved(slots[self.source], self.device)


@dataclass(frozen=True)
class Again:
    """A second array with the values of one that the program has made."""

    source: int
    target: int

    def bound(self, values: dict[Atom, int]) -> Again:
        return self

    def run(self, slots: list[Any], scalars: tuple[float, ...]) -> None:
        slots[self.target] = slots[self.source].copy()


@dataclass(frozen=True)
class BoundPart:
    program: Bound
    reads: tuple[int, ...]
    makes: tuple[int, ...]

    def run(self, slots: list[Any], scalars: tuple[float, ...]) -> None:
        results = self.program.run([slots[k] for k in self.reads], scalars)
        for k, array in zip(self.makes, results, strict=True):
            slots[k] = array


@dataclass(frozen=True)
class Texts:
    """What reports show of a program in loop IR."""

    text: str
    kernels: tuple[Any, ...]
    strips: tuple[Any, ...] = ()  # of a program that has no steps


class Staged:
    """Programs that run one after the other, with moves in between; as `Compiled`.

    slots    inputs first, then everything that steps make; `results` are those of the outputs
    """

    def __init__(
        self,
        steps: list[Part | Move | Again],
        graph: Graph,
        name: str,
        results: tuple[int, ...] | None = None,
        slots: int | None = None,
    ) -> None:
        n = len(graph.inputs)
        self.steps, self.types, self.name = steps, [o.type for o in graph.outputs], name
        self.results = tuple(range(n, n + len(self.types))) if results is None else results
        self.slots = n + len(self.types) if slots is None else slots

    @property
    def parts(self) -> list[Part]:
        return [s for s in self.steps if isinstance(s, Part)]

    @property
    def checks_late(self) -> bool:
        """Whether a check may fail after something has been changed."""
        changed = False
        for part in self.parts:
            executable = part.executable
            if executable.checks_late or (changed and executable.launch.checks):
                return True
            changed = changed or bool(part.graph.writes)
        return False

    @property
    def times(self) -> Times:
        times = [p.executable.times for p in self.parts]
        return Times(
            sum(t.passes for t in times),
            sum(t.codegen for t in times),
            sum(t.load for t in times),
            all(t.cached for t in times),
        )

    @property
    def program(self) -> Texts:
        programs = [p.executable.program for p in self.parts]
        return Texts(
            "\n".join(p.text for p in programs), tuple(k for p in programs for k in p.kernels)
        )

    def llvm(self) -> str:
        """The LLVM IR of the programs for the CPU.  Raises DeviceError if there are none."""
        return self._of("cpu", "llvm")

    def asm(self) -> str:
        """The machine code of the programs for the CPU, as assembly text."""
        return self._of("cpu", "asm")

    def cuda(self) -> str:
        """The CUDA C++ text of the programs for CUDA devices."""
        return self._of("cuda", "cuda")

    def _of(self, kind: str, what: str) -> str:
        found = [p for p in self.parts if p.device.partition(":")[0] == kind]
        if not found:
            raise DeviceError(
                "the function has no program for such a device",
                op=what,
                expect=f"a program for {kind}",
                actual=", ".join(p.device for p in self.parts),
                hint="call .cuda() or .llvm()",
            )
        return "\n".join(getattr(p.executable, what)() for p in found)

    def _is_whole(self, part: BoundPart) -> bool:
        """Whether a part takes what all of it takes, and makes what all of it makes."""
        n = self.slots - len(self.types)
        return part.reads == tuple(range(n)) and part.makes == self.results

    def bind(self, values: dict[Atom, int]) -> Bound:
        """The programs for these sizes."""
        steps = [s.bound(values) for s in self.steps]
        outputs = [(size_of(t.shape, values), t.dtype) for t in self.types]
        if len(steps) == 1 and isinstance(steps[0], BoundPart) and self._is_whole(steps[0]):
            return steps[0].program
        return BoundStages(steps, self.slots, self.results, outputs)


@dataclass
class BoundStages:
    """See `Bound`."""

    steps: list[BoundPart | Move | Again]
    slots: int
    results: tuple[int, ...]
    outputs: list[tuple[tuple[int, ...], DType]]
    arena: int = field(init=False)

    def __post_init__(self) -> None:
        programs = [s.program for s in self.steps if isinstance(s, BoundPart)]
        self.arena = max((p.arena for p in programs), default=0)

    def run(self, arrays: list[Any], scalars: tuple[float, ...] = ()) -> list[Any]:
        slots = [*arrays, *[None] * (self.slots - len(arrays))]
        for step in self.steps:
            step.run(slots, scalars)
        return [slots[k] for k in self.results]


class Staging:
    """Divides a graph into stages."""

    def __init__(self, graph: Graph, layouts: Layouts, name: str) -> None:
        self.graph, self.layouts, self.name = graph, layouts, name
        self.order = topological(graph.roots)
        self.free = free_nodes(self.order)
        self.stage = self._stages()
        self.last = max(self.stage.values(), default=0)
        # Where the value of each input, and of what has been computed, is found.
        self.slot: dict[Node, int] = {n: k for k, n in enumerate(graph.inputs)}
        self.layout = dict(zip(range(len(graph.inputs)), layouts, strict=True))
        self.slots = len(graph.inputs)
        self.results: dict[int, int] = {}  # slots by number of the output

    def _stages(self) -> dict[Node, int]:
        """The stage of each node, moves and results: as late as those that need it allow."""
        first: dict[Node, int] = {}
        for n in self.order:
            before = max((first[x] for x in n.inputs), default=0)
            first[n] = before + isinstance(n.op, Transfer)
        stage = dict.fromkeys(self.order, max(first.values(), default=0))
        for n in reversed(self.order):
            for x in n.inputs:
                stage[x] = min(stage[x], stage[n] - isinstance(n.op, Transfer))
        return stage

    def new_slot(self) -> int:
        self.slots += 1
        return self.slots - 1

    def staged(self) -> Staged:
        steps: list[Part | Move | Again] = []
        for stage in range(self.last + 1):
            steps += self._moves(stage)
            parts = [self._part(stage, device) for device in self._devices(stage)]
            # What may fail runs before anything is changed; the CPU works while devices do.
            found = [p for p in parts if p is not None]
            found.sort(key=lambda p: (not p.executable.launch.checks, p.device == CPU))
            steps += found
        steps += self._again()
        results = tuple(self.results[k] for k in range(len(self.graph.outputs)))
        return Staged(steps, self.graph, self.name, results, self.slots)

    def _is_computed(self, n: Node) -> bool:
        return n not in self.free and not is_leaf(n, "input") and not isinstance(n.op, Transfer)

    def _moves(self, stage: int) -> list[Part | Move | Again]:
        """The moves at the beginning of a stage."""
        steps: list[Part | Move | Again] = []
        for n in self.order:
            if isinstance(n.op, Transfer) and self.stage[n] == stage:
                source = self.slot[n.inputs[0]]
                if self.layout.get(source) is not None and n.inputs[0].device != CPU:
                    steps.append(self._packed(n.inputs[0]))
                    source = steps[-1].makes[0]  # type: ignore[union-attr]
                target = self.slot[n] = self.new_slot()
                steps.append(Move(source, target, n.device))
        return steps

    def _packed(self, n: Node) -> Part:
        """A program that makes an input row-major, so that no more than its elements are moved."""
        k, target = self.slot[n], self.new_slot()
        x = input_node(0, n.type)
        graph = Graph((x,), self.graph.scalars, (Copy.of().on(x),))
        return Part(graph, (self.layout[k],), f"{self.name}_packed", n.device, (k,), (target,))

    def _devices(self, stage: int) -> list[str]:
        found = {n.device for n in self.order if self._is_computed(n) and self.stage[n] == stage}
        if stage == self.last:
            found |= {self.graph.inputs[k].device for _, k in self.graph.writes}
            found |= {n.device for n in self.graph.outputs if not self._is_known(n)}
        return sorted(found)

    def _is_known(self, n: Node) -> bool:
        """Whether an output is there before the programs of the last stage run."""
        return n in self.slot and not is_leaf(n, "input")

    def _part(self, stage: int, device: str) -> Part | None:
        """The program of a stage for a device."""
        graph = self.graph
        exports = self._exports(stage, device)
        roots, makes = [*exports], [self.new_slot() for _ in exports]
        known = dict(zip(exports, makes, strict=True))
        writes: list[tuple[Node, int]] = []
        if stage == self.last:
            for k, n in enumerate(graph.outputs):
                if n.device == device and not self._is_known(n):
                    self.results[k] = self.new_slot()
                    roots.append(n)
                    makes.append(self.results[k])
            writes = [(n, k) for n, k in graph.writes if graph.inputs[k].device == device]
        if not roots and not writes:
            return None
        reads = self._reads((*roots, *(n for n, _ in writes)))
        slots = [*dict.fromkeys([*(self.slot[n] for n in reads), *(k for _, k in writes)])]
        types = {self.slot[n]: n.type for n in reads}
        types |= {k: graph.inputs[k].type for _, k in writes}
        inputs = tuple(input_node(i, types[k]) for i, k in enumerate(slots))
        place = {k: i for i, k in enumerate(slots)}
        change = {n: inputs[place[self.slot[n]]] for n in reads}
        new = replace((*roots, *(n for n, _ in writes)), change)
        kept = tuple((n, place[k]) for n, (_, k) in zip(new[len(roots) :], writes, strict=True))
        part = Graph(inputs, graph.scalars, new[: len(roots)], kept)
        layouts = tuple(self.layout.get(k) for k in slots)
        name = f"{self.name}_{stage}_{device.partition(':')[0]}"
        self.slot |= known
        return Part(part, layouts, name, device, tuple(slots), tuple(makes))

    def _exports(self, stage: int, device: str) -> list[Node]:
        """What a stage computes on a device for later ones, or for moves."""
        if stage == self.last:
            return []
        here = [
            n
            for n in self.order
            if self._is_computed(n) and self.stage[n] == stage and n.device == device
        ]
        users: dict[Node, int] = {}
        for n in self.order:
            for x in n.inputs:
                users[x] = max(users.get(x, 0), self.stage[n])
        roots = {*self.graph.roots}
        return [n for n in here if users.get(n, 0) > stage or n in roots]

    def _reads(self, roots: tuple[Node, ...]) -> list[Node]:
        """The nodes below roots whose values are in slots."""
        found: dict[Node, None] = {}
        seen: set[Node] = set()
        stack = [*reversed(roots)]
        while stack:
            n = stack.pop()
            if n in seen:
                continue
            seen.add(n)
            if n in self.slot:
                found[n] = None
            else:
                stack.extend(reversed(n.inputs))
        return [*found]

    def _again(self) -> list[Part | Move | Again]:
        """Outputs that are there already: each an array of its own."""
        steps: list[Part | Move | Again] = []
        taken = set(self.results.values())
        for k, n in enumerate(self.graph.outputs):
            if k not in self.results:
                slot = self.slot[n]
                if slot in taken:
                    steps.append(Again(slot, self.new_slot()))
                    slot = self.slots - 1
                taken.add(slot)
                self.results[k] = slot
        return steps


Executable = Compiled | Staged
