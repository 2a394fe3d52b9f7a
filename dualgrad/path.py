"""Compiled paths: what a trace left behind, how to run it, and how to rebuild its results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dualgrad.compiler.ir.node import Graph, Node
from dualgrad.compiler.ir.value import Unit
from dualgrad.engine import Bound, Executable, compile_graph
from dualgrad.guards import Survey
from dualgrad.tensor import Tensor
from dualgrad.trace import Source, Trace, Unsupported

Array = np.ndarray[Any, Any]
Rebuild = Callable[["Results"], Any]


@dataclass
class Results:
    """What a run produced: new tensors per output, and where inputs come from."""

    tensors: list[Tensor]
    found: Survey


@dataclass
class Effect:
    """An assignment that the function makes: container[key] = value, or tensor.grad = value."""

    container: int
    key: Any
    value: Rebuild


@dataclass
class Path:
    """One compiled program of a function, and how it is called."""

    executable: Executable
    bound: Bound
    sources: list[Source]
    constants: list[Tensor]
    written: list[int]  # numbers of the inputs that the program overwrites
    grads_read: dict[int, Any]
    outputs: list[tuple[Any, bool]]  # type and requires_grad of each output
    effects: list[Effect]
    grads: list[tuple[int, Rebuild]]
    result: Rebuild
    graph: Graph
    signature: str
    single: Any  # the type of the result, where a run takes arguments and makes just that
    seconds_tracing: float = 0.0
    runs: int = 0

    def holds(self, found: Survey) -> bool:
        """Whether the gradients that the trace read look as they did then, and what the program
        overwrites overlaps with nothing else that it reads."""
        for k, sig in self.grads_read.items():
            grad = found.tensors[k]._grad
            if (None if grad is None else grad.sig) != sig:
                return False
        return not self.written or overlap(self.inputs(found), self.written) is None

    def run_quick(self, args: tuple[Any, ...]) -> Any:
        """Run a path with a `single` result; all arguments are tensors."""
        self.runs += 1
        results = self.bound.run([args[s.number].array for s in self.sources])
        return Tensor.of_array(results[0], self.single, None)

    def made(self, results: list[Array]) -> list[Tensor]:
        """The outputs as tensors."""
        tensors = []
        for array, (type_, requires_grad) in zip(results, self.outputs, strict=True):
            t = Tensor.of_array(array, type_, None)
            t.requires_grad = requires_grad
            tensors.append(t)
        return tensors

    def inputs(self, found: Survey) -> list[Tensor]:
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
        """Run the program, make its effects, return what the function returns."""
        inputs = self.inputs(found)
        arrays: list[Any] = [t.array for t in inputs]
        self.runs += 1
        results = self.bound.run(arrays)
        for k in self.written:
            inputs[k].changed()
        made = Results(self.made(results), found)
        for k, rebuild in self.grads:
            found.tensors[k]._grad = rebuild(made)
        for e in self.effects:
            found.containers[e.container][e.key] = e.value(made)
        return self.result(made)

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


def overlap(inputs: list[Tensor], written: list[int]) -> tuple[Tensor, Tensor] | None:
    """A tensor that a program overwrites and another input that shares memory with it."""
    for k in written:
        for j, other in enumerate(inputs):
            if j != k and _may_overlap(inputs[k], other):
                return inputs[k], other
    return None


def _may_overlap(a: Tensor, b: Tensor) -> bool:
    # Tensors that made their own memory share it with views of them only.
    if _owns(a) and _owns(b):
        return False
    return np.may_share_memory(a.array, b.array)


def _owns(t: Tensor) -> bool:
    assert t.array is not None
    base = t.array.base
    return t.base is None and base is not None and not isinstance(base, np.ndarray | memoryview)


@dataclass
class Outcome:
    """A finished trace: the first call's result, and what later calls can use."""

    path: Path
    result: Any
    cacheable: bool
    lost: str | None  # an effect on Python objects that a program cannot have


@dataclass
class _Finish:
    """Turns a trace into a path."""

    trace: Trace
    found: Survey
    nodes: list[Node] = field(default_factory=list)
    emitted: list[Tensor] = field(default_factory=list)
    slots: dict[int, int] = field(default_factory=dict)
    views_to_make: list[tuple[Tensor, Tensor, Unit | None]] = field(default_factory=list)
    cacheable: bool = True
    lost: str | None = None

    def spec(self, x: Any) -> Rebuild:
        """How to make, from a run's results, what `x` is now."""
        if isinstance(x, Tensor):
            return self._tensor(x)
        kind = type(x)
        for k, c in enumerate(self.found.containers):
            if c is x:
                return _found_container(k)
        if kind in (list, tuple):
            parts = [self.spec(v) for v in x]
            return lambda r: kind(p(r) for p in parts)
        if isinstance(x, tuple) and hasattr(x, "_fields"):
            parts = [self.spec(v) for v in x]
            return lambda r: kind(*(p(r) for p in parts))
        if kind is dict:
            items = {k: self.spec(v) for k, v in x.items()}
            return lambda r: {k: p(r) for k, p in items.items()}
        return self._constant(x)

    def _constant(self, x: Any) -> Rebuild:
        if not isinstance(x, bool | int | float | str | bytes | type(None)):
            self.cacheable = False
            for v in vars(x).values() if hasattr(x, "__dict__") else ():
                self.spec(v)
        return lambda r: x

    def _tensor(self, x: Tensor) -> Rebuild:
        trace = self.trace
        if x.node is None and id(x) in trace.position:
            k = trace.position[id(x)]
            return lambda r: r.found.tensors[k]
        view = next(((s, u) for ref, s, u in trace.views if ref() is x), None)
        if view is not None:
            return self._view(x, *view)
        number = next((n for n, t in enumerate(self.found.tensors) if t._grad is x), None)
        if number is not None:
            return lambda r: r.found.tensors[number]._grad
        slot = self.emit(x)
        return lambda r: r.tensors[slot]

    def _view(self, x: Tensor, source: Tensor, unit: Unit | None) -> Rebuild:
        behind = self._tensor(source)
        if x.requires_grad:
            self._check_gradient(x)
        if id(x) not in self.slots:
            self.slots[id(x)] = -1
            self.views_to_make.append((x, source, unit))
        if unit is None:
            return lambda r: behind(r).detach()
        return lambda r: behind(r).apply_unit(unit, (behind(r),))[0]

    def returns_only(self, result: Any) -> bool:
        """Whether a function's result is the one tensor that its program makes."""
        alone = isinstance(result, Tensor) and self.slots.get(id(result)) == 0
        return alone and len(self.emitted) == 1 and not result.requires_grad

    def emit(self, x: Tensor) -> int:
        """The output that holds a traced tensor."""
        slot = self.slots.get(id(x))
        if slot is None:
            self._check_gradient(x)
            slot = self.slots[id(x)] = len(self.nodes)
            self.nodes.append(self.trace.node_of(x))
            self.emitted.append(x)
        return slot

    def _check_gradient(self, x: Tensor) -> None:
        if x.requires_grad and x.grad_fn is not None and not x.grad_fn.released:
            raise Unsupported(
                "a result of the function still needs its graph for gradients",
                actual=f"{x.type!r}, grad_fn={x.grad_fn.name}",
                why="gradients do not flow out of a compiled function",
                hint="call backward() inside the function, or detach() what it returns",
            )


def _found_container(k: int) -> Rebuild:
    return lambda r: r.found.containers[k]


def finish_trace(trace: Trace, found: Survey, before: list[Any], result: Any, name: str) -> Outcome:
    """Compile a trace, run it for the call at hand, and keep it for later ones."""
    work = _Finish(trace, found)
    for t in trace.tensors:
        if t.requires_grad and t.grad_fn is not None:
            raise Unsupported(
                "a tensor with a graph of its own comes from outside of the function",
                actual=f"{t.type!r}, grad_fn={t.grad_fn.name}",
                hint="compute it inside the function, or detach() it",
            )
    rebuild = work.spec(result)
    effects = _effects(work, before)
    grads = [
        (trace.position[key], work.spec(value))
        for key, (t, value) in trace.grads.items()
        if key in trace.position
    ]
    writes = []
    for k, t in enumerate(trace.tensors):
        node = trace.values[id(t)]
        if (
            id(t) in trace.written
            and trace.sources[k].kind != "constant"
            and node is not trace.inputs[k]
        ):
            writes.append((node, k))
    graph = Graph(tuple(trace.inputs), (), tuple(work.nodes), tuple(writes))
    layouts = tuple(t.layout for t in trace.tensors)
    written = [k for _, k in writes]
    shared = overlap(trace.tensors, written)
    if shared is not None:
        raise Unsupported(
            "tensors that overlap in memory are changed in place",
            actual=f"{shared[0].type!r} and {shared[1].type!r}",
        )
    executable = compile_graph(graph, layouts, name.strip("<>") or "function")
    quick = not (effects or grads or writes or trace.grads_read) and all(
        s.kind == "leaf" and s.number < found.arguments for s in trace.sources
    )
    path = Path(
        executable,
        executable.bind({}),
        trace.sources,
        trace.constants,
        written,
        trace.grads_read,
        [(t.type, t.requires_grad) for t in work.emitted],
        effects,
        grads,
        rebuild,
        graph,
        ", ".join(repr(t.type) for t in found.tensors[:8]),
        result.type if quick and work.returns_only(result) else None,
    )
    _first_run(path, work)
    return Outcome(path, result, work.cacheable, work.lost)


def _effects(work: _Finish, before: list[Any]) -> list[Effect]:
    """Assignments to containers that the trace made."""
    out = []
    for k, (container, old) in enumerate(zip(work.found.containers, before, strict=True)):
        if isinstance(container, dict):
            gone = [key for key in old if key not in container]
            changed = [key for key, v in container.items() if key not in old or old[key] is not v]
        else:
            gone = [] if len(container) == len(old) else [len(old)]
            changed = [
                i for i, (a, b) in enumerate(zip(container, old, strict=False)) if a is not b
            ]
        if gone:
            work.lost = "it adds or removes elements of a Python container"
        for key in changed:
            value = container[key]
            if isinstance(value, Tensor):
                out.append(Effect(k, key, work.spec(value)))
            elif not _equal(value, old, key):
                work.spec(value)
                if isinstance(value, bool | int | float | str):
                    work.lost = f"it changes the Python value {key!r}"
                else:
                    work.cacheable = False
    return out


def _equal(value: Any, old: Any, key: Any) -> bool:
    try:
        return type(old[key]) is type(value) and bool(old[key] == value)
    except (KeyError, IndexError, TypeError):
        return False


def _first_run(path: Path, work: _Finish) -> None:
    """Run the program for the traced call: the traced tensors themselves receive the values."""
    trace = work.trace
    path.runs += 1
    arrays: list[Any] = [t.array for t in trace.tensors]
    results = path.bound.run(arrays)
    for t, array in zip(work.emitted, results, strict=True):
        if t.node is None:
            assert t.array is not None
            np.copyto(t.array, array)
        else:
            t.array, t.node, t.sig = array, None, t.type
    for x, source, unit in work.views_to_make:
        made = source.detach() if unit is None else source.apply_unit(unit, (source,))[0]
        x.array, x.node, x.layout, x.sig = made.array, None, made.layout, made.sig
    for key, (t, value) in trace.grads.items():
        if key in trace.position:
            t._grad = value
