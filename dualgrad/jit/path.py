"""Compiled paths: one program of a function, how it is called, and what is made of its results."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

import numpy as np

from dualgrad.backends.common import Bound
from dualgrad.compiler.ir.dims import Atom
from dualgrad.compiler.ir.node import Graph
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.launch import size_of
from dualgrad.gradients.tape import FreedNode
from dualgrad.jit.alias import Aliasing, Base, Source, tensor_at
from dualgrad.jit.containers import Effect
from dualgrad.jit.differentiable import Block, ProgramNode
from dualgrad.jit.guards import Known, Needs
from dualgrad.jit.ledger import Evaluate
from dualgrad.jit.places import Place, write
from dualgrad.jit.rebinding import Rebinding
from dualgrad.jit.rebuild import Rebuild
from dualgrad.jit.sizes import SizeFacts
from dualgrad.jit.survey import Survey
from dualgrad.runtime.records import dataclass, field
from dualgrad.runtime.srcinfo import Place as Line
from dualgrad.staging import Executable
from dualgrad.tensor import Tensor

Array = np.ndarray[Any, Any]
MAX_SIZES = 1000  # for which a path keeps its program bound
TIMED = 32  # one run in so many is timed


@dataclass
class Results:
    """What a run has to rebuild results from: its new tensors, and what the survey found."""

    tensors: list[Tensor]
    found: Survey | Known
    values: dict[Atom, int]  # behind the symbols of sizes
    numbers: tuple[Any, ...] = ()  # computed from the call's numbers
    node: ProgramNode | None = None  # of the tape, where gradients flow out of the program
    memo: dict[Any, Any] = field(default_factory=dict)  # objects that occur more than once


@dataclass(frozen=True)
class Output:
    """A tensor that a program makes."""

    type: TensorType
    requires_grad: bool
    freed: str | None  # the unit that made it, if its graph has been freed by backward
    slot: int | None = None  # where its gradient enters the program's node on the tape
    changes: tuple[int, Line | None] = (0, None)  # in place so far: how many, and the last one

    def tensor(self, array: Array) -> Tensor:
        type = self.type if array.shape == self.type.shape else self.type.with_shape(array.shape)
        t = Tensor.of_array(array, type, None)
        t.requires_grad = self.requires_grad
        if self.changes[0]:
            t._version[0], t._version[2] = self.changes
        if self.freed is not None:
            t.grad_fn, t.output_number = FreedNode(self.freed, type), 0
        return t


class Sizes:
    """The sizes of a call: the values of a path's symbols, and the program for these.

    `single` is the type of the result, where a run takes arguments and makes just that.
    """

    __slots__ = ("bound", "single", "values")

    def __init__(self, values: dict[Atom, int], bound: Bound, single: TensorType | None) -> None:
        self.values, self.bound = values, bound
        self.single = single
        if single is not None and values:
            self.single = single.with_shape(size_of(single.shape, values))


@dataclass
class Path:
    """One compiled program of a function, and how it is called."""

    executable: Executable
    sizes: Sizes  # of the traced call
    sources: list[Source]
    constants: list[Tensor]
    bases: list[Base]  # of inputs that overlap
    aliasing: Aliasing | None  # what must hold of the memory, if inputs are overwritten
    grads_read: list[int]  # numbers of the tensors whose gradients the trace looked at
    pattern: tuple[object, ...]  # how these gradients looked
    outputs: list[Output]
    effects: list[Effect]
    grads: list[tuple[int, Rebuild]]  # assignments to the gradients of tensors
    result: Rebuild
    graph: Graph
    signature: str
    calls: list[Rebuild]  # recorded calls of print and the like
    block: Block | None = None  # what gradients need, where they flow out
    single: TensorType | None = None  # of the result, with symbols
    symbols: SizeFacts | None = None  # where the sizes are found that are symbols
    known: dict[tuple[int, ...], Sizes] = field(default_factory=dict)
    facts: list[Any] = field(default_factory=list)  # keys of the facts of the traced call
    exact: tuple[int, ...] = ()  # which of them must be what they were
    lifted: tuple[int, ...] = ()  # and which are inputs
    numbers: Evaluate | None = None  # of the lifted facts: scalars, then what results hold
    scalars: int = 0  # how many of these numbers the program takes
    assigned: list[tuple[int, Rebuild]] = field(default_factory=list)  # facts that are changed
    seconds_tracing: float = 0.0
    # Runs, how many of them have been timed, and nanoseconds of these; native code counts, too.
    counts: Any = field(default_factory=lambda: (ctypes.c_int64 * 3)())
    rebound: list[Rebinding] = field(default_factory=list)
    plans: dict[tuple[int, ...], Any] | None = None  # for native code, by sizes
    make_plan: Callable[[Path, Sizes], Any] | None = None

    @property
    def runs(self) -> int:
        return int(self.counts[0])

    def plan_sizes(self, make_plan: Callable[[Path, Sizes], Any]) -> None:
        """Have plans for all sizes that come from now on."""
        if self.plans is None:
            self.plans = {key: make_plan(self, sizes) for key, sizes in self.known.items()}
            self.make_plan = make_plan

    def serves(self, found: Survey, facts: list[Any]) -> bool:
        """Whether the path does for this call what the function does."""
        old = self.facts
        if any(old[k] != facts[k] for k in self.exact):
            return False
        if self.symbols is not None and not self.symbols.holds(found.facts):
            return False
        return self.computes(found, found.facts) and self.holds(found)

    def sized(self, facts: list[Any]) -> Sizes:
        """The program for the sizes among these facts."""
        if self.symbols is None:
            return self.sizes
        key = tuple([facts[k] for k in self.symbols.numbers])
        found = self.known.get(key)
        if found is None:
            if len(self.known) >= MAX_SIZES:
                self.known.clear()
                if self.plans is not None:
                    self.plans.clear()
            values = self.symbols.values(facts)
            found = Sizes(values, self.executable.bind(values), self.single)
            self.known[key] = found
            if self.make_plan is not None and self.plans is not None:
                self.plans[key] = self.make_plan(self, found)
        return found

    def computes(self, found: Survey | Known, facts: Any) -> bool:
        """Whether the numbers of a call can be computed from its facts, as `found.numbers`."""
        if self.numbers is not None:
            values = self.numbers(facts)
            if values is None:
                return False
            found.numbers = values
        return True

    def holds(self, found: Survey | Known) -> bool:
        """Whether the gradients that the trace read look as they did then, and what the program
        overwrites is writeable and overlaps with nothing else that it reads."""
        if self.grads_read and grad_pattern(found.tensors, self.grads_read) != self.pattern:
            return False
        return self.aliasing is None or self.aliasing.holds(found.tensors)

    def needs(self, found: Survey) -> Needs:
        """What a check of calls has to tell."""
        rebound = {(id(found.containers[e.container]), e.key) for e in self.effects}
        rebound |= {b.storage(found) for b in self.rebound}
        return Needs(
            self.lifted,
            () if self.symbols is None else self.symbols.numbers,
            tuple(k for k, _ in self.assigned),
            rebound,
            self.sizes.single is None,
        )

    def sizes_of(self, known: Known) -> Sizes | None:
        """The program for a call that passed the check; None if a survey has to tell."""
        sizes = self.sizes if self.symbols is None else self.known.get(known.sizes)
        facts = known.facts
        if self.numbers is not None and self.symbols is not None:
            facts = {**facts, **dict(zip(self.symbols.numbers, known.sizes, strict=True))}
        if self.numbers is not None and not self.computes(known, facts):
            return None
        return sizes

    def run_quick(self, tensors: list[Tensor], sizes: Sizes, numbers: tuple[Any, ...]) -> Tensor:
        """Run a path with a `single` result, which has no effects; `tensors` are the survey's."""
        started = self._start()
        scalars = numbers[: self.scalars] if self.scalars else ()
        arrays: list[Any] = [tensors[s.number].array for s in self.sources]
        results = sizes.bound.run(arrays, scalars)
        out = Tensor.of_array(results[0], sizes.single, None)  # type: ignore[arg-type]
        out._version[0], out._version[2] = self.outputs[0].changes
        block = self.block
        if block is not None:
            taken = [tensors[s.number] for s in block.sources]
            node = block.record(taken, [out], results, scalars, sizes.values)
            out.requires_grad, out.grad_fn, out.output_number = True, node, 0
        if started:
            self._note_time(started)
        return out

    def _start(self) -> int:
        """Count a run; the time, if it is timed."""
        self.counts[0] += 1
        return 0 if self.counts[0] % TIMED else perf_counter_ns()

    def _note_time(self, started: int) -> None:
        self.counts[1] += 1
        self.counts[2] += perf_counter_ns() - started

    def arrays(self, found: Survey | Known) -> list[Any]:
        """The memory that the program reads and writes at this call."""
        tensors = found.tensors
        out: list[Any] = []
        for s in self.sources:
            if s.kind == "leaf":
                out.append(tensors[s.number].array)
            elif s.kind == "constant":
                out.append(self.constants[s.number].array)
            elif s.kind == "base":
                out.append(self.bases[s.number].array(tensors))
            else:
                out.append(tensor_at(s, tensors).array)
        return out

    def run(self, found: Survey | Known, sizes: Sizes) -> Any:
        """Run the program, make its effects, return what the function returns.

        An IndexOutOfBounds or LibraryError of the program leaves everything as it was.
        """
        started = self._start()
        results = sizes.bound.run(self.arrays(found), found.numbers[: self.scalars])
        if self.aliasing is not None:
            self.aliasing.note_changes(found.tensors)
        tensors = [o.tensor(a) for o, a in zip(self.outputs, results, strict=False)]
        made = Results(tensors, found, sizes.values, found.numbers[self.scalars :])
        if self.block is not None:
            self._put_on_tape(self.block, made, results)
        # All values before the first assignment: effects may read what others overwrite.
        grads = [(found.tensors[k], rebuild(made)) for k, rebuild in self.grads]
        effects = [(e, found.containers[e.container], e.value(made)) for e in self.effects]
        rebound = [(b, b.value(made)) for b in self.rebound]
        assigned = [(Place.of(found.fact_parts[k]), value(made)) for k, value in self.assigned]
        result = self.result(made)
        for t, grad in grads:
            t._grad = grad
        for effect, container, value in effects:
            effect.make(container, value)
        for binding, value in rebound:
            binding.bind(found, value)
        for place, value in assigned:
            write(place, value)
        if started:
            self._note_time(started)
        for call in self.calls:
            call(made)
        return result

    def _put_on_tape(self, block: Block, made: Results, results: list[Array]) -> None:
        """Give results their history."""
        tensors = made.found.tensors
        taken = [
            self.constants[s.number] if s.kind == "constant" else tensor_at(s, tensors)
            for s in block.sources
        ]
        scalars = made.found.numbers[: self.scalars]
        made.node = self.record_call(taken, made.tensors, results, scalars, made.values)

    def record_call(
        self,
        taken: list[Tensor],
        made: list[Tensor],
        results: list[Array],
        scalars: tuple[Any, ...],
        values: dict[Atom, int],
    ) -> ProgramNode:
        """Put a call on the tape; see `Block.record`."""
        assert self.block is not None
        node = self.block.record(taken, made, results, scalars, values)
        for t, output in zip(made, self.outputs, strict=True):
            if output.slot is not None:
                t.grad_fn, t.output_number = node, output.slot
        return node

    def report(self, nth: int) -> str:
        program, times = self.executable.program, self.executable.times
        origin = "from cache" if times.cached else "new"
        _, timed, time = self.counts
        pace = f" of {1e-3 * time / timed:.1f} us" if timed else ""
        lines = [
            f"  program {nth}: {self.signature}",
            f"    runs {self.runs}{pace}, inputs {len(self.sources)}"
            f" (overwritten {len(self.graph.writes)}),"
            f" outputs {len(self.outputs)}, kernels {len(program.kernels)},"
            f" arena {self.sizes.bound.arena} bytes",
            f"    trace {1e3 * self.seconds_tracing:.1f} ms, passes {1e3 * times.passes:.1f} ms,"
            f" machine code {1e3 * times.codegen:.1f} ms ({origin}),"
            f" load {1e3 * times.load:.1f} ms",
        ]
        strips = {n: (k, s.items) for k, s in enumerate(program.strips) for n in s.numbers}
        for number, kernel in enumerate(program.kernels):
            where = ", ".join(f"{f.rpartition('/')[2]}:{n}" for f, n in kernel.lines[:4])
            strip = ", strip {} of {} items".format(*strips[number]) if number in strips else ""
            lines.append(f"    {kernel.name}: {kernel.kind}{strip}{'  ' + where if where else ''}")
        return "\n".join(lines)


def grad_pattern(tensors: list[Tensor], numbers: list[int]) -> tuple[object, ...]:
    """How the gradients of some tensors look: absent, of which type, which of them are one
    object, and which are tensors that are known already."""
    place = {id(t): k for k, t in enumerate(tensors)}
    first: dict[int, int] = {}
    out: list[object] = []
    for k in numbers:
        grad = tensors[k]._grad
        if grad is None:
            out.append(None)
        else:
            history = (grad.requires_grad, grad._grad_fn is None)
            out.append((grad.sig, history, first.setdefault(id(grad), k), place.get(id(grad))))
    return tuple(out)
