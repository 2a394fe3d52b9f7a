"""Compiled paths: one program of a function, how it is called, and what is made of its results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dualgrad.autograd import FreedNode
from dualgrad.compiler.ir.node import Graph
from dualgrad.compiler.ir.types import TensorType
from dualgrad.engine import Bound, Compiled
from dualgrad.jit.differentiable import Block, ProgramNode
from dualgrad.jit.guards import Standing
from dualgrad.jit.survey import Survey
from dualgrad.jit.trace import Source
from dualgrad.tensor import Tensor

Array = np.ndarray[Any, Any]


@dataclass
class Results:
    """What a run has to rebuild results from: its new tensors, and what the survey found."""

    tensors: list[Tensor]
    found: Survey
    node: ProgramNode | None = None  # of the tape, where gradients flow out of the program
    memo: dict[int, Any] = field(default_factory=dict)  # objects that occur more than once


Rebuild = Callable[[Results], Any]


@dataclass(frozen=True)
class Output:
    """A tensor that a program makes."""

    type: TensorType
    requires_grad: bool
    freed: str | None  # the unit that made it, if its graph has been freed by backward
    slot: int | None = None  # where its gradient enters the program's node on the tape

    def tensor(self, array: Array) -> Tensor:
        t = Tensor.of_array(array, self.type, None)
        t.requires_grad = self.requires_grad
        if self.freed is not None:
            t.grad_fn, t.output_number = FreedNode(self.freed, self.type), 0
        return t


@dataclass(frozen=True)
class Effect:
    """An assignment that the function makes: container[key] = value."""

    container: int
    key: Any
    value: Rebuild


@dataclass
class Path:
    """One compiled program of a function, and how it is called."""

    executable: Compiled
    bound: Bound
    sources: list[Source]
    constants: list[Tensor]
    written: list[int]  # numbers of the inputs that the program overwrites
    grads_read: list[int]  # numbers of the tensors whose gradients the trace looked at
    pattern: tuple[object, ...]  # how these gradients looked
    outputs: list[Output]
    effects: list[Effect]
    grads: list[tuple[int, Rebuild]]  # assignments to the gradients of tensors
    result: Rebuild
    graph: Graph
    signature: str
    single: Any  # the type of the result, where a run takes arguments and makes just that
    block: Block | None = None  # what gradients need, where they flow out
    facts: list[Any] = field(default_factory=list)  # keys of the facts of the traced call
    exact: tuple[int, ...] = ()  # which of them must be what they were
    lifted: tuple[int, ...] = ()  # and which are inputs
    guards: Callable[[tuple[Any, ...]], bool] | None = None  # on the values of lifted facts
    standing: Standing | None = None
    seconds_tracing: float = 0.0
    runs: int = 0

    def serves(self, found: Survey, facts: list[Any]) -> bool:
        """Whether the path does for this call what the function does."""
        old = self.facts
        if any(old[k] != facts[k] for k in self.exact):
            return False
        if self.guards is not None and not self.guards(self.values(found.facts)):
            return False
        return self.holds(found)

    def values(self, facts: list[Any]) -> tuple[Any, ...]:
        """The values of the lifted facts."""
        return tuple([facts[k] for k in self.lifted])

    def holds(self, found: Survey) -> bool:
        """Whether the gradients that the trace read look as they did then, and what the program
        overwrites is writeable and overlaps with nothing else that it reads."""
        if self.grads_read and grad_pattern(found.tensors, self.grads_read) != self.pattern:
            return False
        return not self.written or conflict(self.inputs(found), self.written) is None

    def run_quick(self, args: tuple[Any, ...]) -> Any:
        """Run a path with a `single` result; all arguments are tensors."""
        self.runs += 1
        inputs = [args[s.number] for s in self.sources]
        arrays = [t.array for t in inputs]
        results = self.bound.run(arrays)
        out = Tensor.of_array(results[0], self.single, None)
        if self.block is not None:
            node = self.block.record(inputs, arrays, [out], results)
            out.requires_grad, out.grad_fn, out.output_number = True, node, 0
        return out

    def inputs(self, found: Survey) -> list[Tensor]:
        """The tensors that the program reads at this call."""
        tensors = found.tensors
        out = []
        for s in self.sources:
            if s.kind == "leaf":
                out.append(tensors[s.number])
            elif s.kind == "grad":
                grad = tensors[s.number]._grad
                assert grad is not None
                out.append(grad)
            else:
                out.append(self.constants[s.number])
        return out

    def run(self, found: Survey) -> Any:
        """Run the program, make its effects, return what the function returns.

        An IndexOutOfBounds or LibraryError of the program leaves everything as it was.
        """
        inputs = self.inputs(found)
        self.runs += 1
        arrays: list[Any] = [t.array for t in inputs]
        results = self.bound.run(arrays)
        for k in self.written:
            inputs[k].changed()
        made = Results([o.tensor(a) for o, a in zip(self.outputs, results, strict=False)], found)
        if self.block is not None:
            made.node = self.block.record(inputs, arrays, made.tensors, results)
            for t, output in zip(made.tensors, self.outputs, strict=True):
                if output.slot is not None:
                    t.grad_fn, t.output_number = made.node, output.slot
        # All values before the first assignment: effects may read what others overwrite.
        grads = [(found.tensors[k], rebuild(made)) for k, rebuild in self.grads]
        effects = [(found.containers[e.container], e.key, e.value(made)) for e in self.effects]
        result = self.result(made)
        for t, grad in grads:
            t._grad = grad
        for container, key, value in effects:
            container[key] = value
        return result

    def report(self, number: int) -> str:
        program, times = self.executable.program, self.executable.times
        origin = "from cache" if times.cached else "new"
        lines = [
            f"  program {number}: {self.signature}",
            f"    runs {self.runs}, inputs {len(self.sources)} (overwritten {len(self.written)}),"
            f" outputs {len(self.outputs)}, kernels {len(program.kernels)},"
            f" arena {self.bound.arena} bytes",
            f"    trace {1e3 * self.seconds_tracing:.1f} ms, passes {1e3 * times.passes:.1f} ms,"
            f" machine code {1e3 * times.codegen:.1f} ms ({origin}),"
            f" load {1e3 * times.load:.1f} ms",
        ]
        for k in program.kernels:
            where = ", ".join(f"{f.rpartition('/')[2]}:{n}" for f, n in k.lines[:4])
            lines.append(f"    {k.name}: {k.kind}{'  ' + where if where else ''}")
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
            history = (grad.requires_grad, grad.grad_fn is None)
            out.append((grad.sig, history, first.setdefault(id(grad), k), place.get(id(grad))))
    return tuple(out)


def conflict(inputs: list[Tensor], written: list[int]) -> str | None:
    """Why a program must not overwrite these inputs; None if it may."""
    for k in written:
        t = inputs[k]
        if not t.is_writeable:
            return f"a tensor is changed in place whose memory cannot be written: {t.type!r}"
        for j, other in enumerate(inputs):
            if j != k and _may_overlap(t, other):
                return f"tensors that overlap in memory are changed in place: {t.type!r}"
    return None


def _may_overlap(a: Tensor, b: Tensor) -> bool:
    assert a.array is not None
    assert b.array is not None
    block, other = a.array.base, b.array.base
    if _is_block(block) and _is_block(other):
        return block is other
    return np.may_share_memory(a.array, b.array)


def _is_block(base: object) -> bool:
    """Whether an array's base is memory of the pool, which overlaps with no other block."""
    return base is not None and not isinstance(base, np.ndarray | memoryview | bytes)
