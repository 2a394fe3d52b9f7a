"""From a finished trace to a compiled path, and to the result of the call that was traced."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import cached_property
from typing import Any

from dualgrad.backends.transfers import copy_into
from dualgrad.compiler.ir.dims import Atom, evaluate
from dualgrad.compiler.ir.node import Graph, Node, topological
from dualgrad.compiler.ir.size import TracedSize
from dualgrad.compiler.ir.value import Unit
from dualgrad.compiler.ops.library import Library
from dualgrad.gradients.history import is_lost, renumbered
from dualgrad.gradients.tape import STALE, FreedNode
from dualgrad.jit.containers import Effect, changes
from dualgrad.jit.differentiable import Block
from dualgrad.jit.forms import fact_key
from dualgrad.jit.lifting import Lifting, check_held, settled
from dualgrad.jit.numbers import Number
from dualgrad.jit.objects import Objects
from dualgrad.jit.outflow import Gradients
from dualgrad.jit.path import Output, Path, Results, Sizes, grad_pattern
from dualgrad.jit.places import ELEMENT, SIZE, STRIDE, Place, is_writeable, write
from dualgrad.jit.rebinding import Rebinding, rebindings
from dualgrad.jit.rebuild import (
    Again,
    Constant,
    New,
    OfContainer,
    OfGradient,
    OfNumber,
    OfOutput,
    OfTensor,
    Rebuild,
)
from dualgrad.jit.scope import Scope
from dualgrad.jit.sizes import concrete_unit
from dualgrad.jit.snapshot import Snapshot
from dualgrad.jit.survey import Survey
from dualgrad.jit.trace import Trace, Unsupported
from dualgrad.runtime.records import dataclass, field
from dualgrad.staging import compile_traced
from dualgrad.state import no_grad
from dualgrad.tensor import Tensor


@dataclass
class Outcome:
    """A finished trace: the first call's result, and what later calls can use."""

    path: Path
    result: Any
    cacheable: bool
    found: Survey
    restructured: bool  # the next call finds other state than this one did
    scope: Scope | None = None  # by which paths of its structure are found


@dataclass
class Finish:
    """Works out what a function returned and changed, in terms of its program's outputs."""

    trace: Trace
    found: Survey
    nodes: list[Node] = field(default_factory=list)
    emitted: list[Tensor] = field(default_factory=list)
    slots: dict[int, int] = field(default_factory=dict)
    views: list[tuple[Tensor, Tensor, Unit | None]] = field(default_factory=list)
    numbered: set[int] = field(default_factory=set)  # numbers of the views among results
    made: dict[int, Rebuild | None] = field(default_factory=dict)  # containers, by id
    numbers: list[Number] = field(default_factory=list)  # that results hold
    bare: dict[int, Tensor] = field(default_factory=dict)  # without history, by id
    cacheable: bool = True
    gradients: Gradients = field(default_factory=Gradients)

    @cached_property
    def containers(self) -> dict[int, int]:
        """The number of each container that the survey found, by id."""
        return {id(c): k for k, c in enumerate(self.found.containers)}

    @cached_property
    def gradient_of(self) -> dict[int, int]:
        """For each gradient, by id, the number of the first tensor whose it is."""
        tensors = self.found.tensors
        numbered = zip(range(len(tensors) - 1, -1, -1), reversed(tensors), strict=True)
        return {id(t._grad): k for k, t in numbered if t._grad is not None}

    def spec(self, x: Any) -> Rebuild:
        """How to make, from a run's results, what `x` is now."""
        if isinstance(x, Tensor):
            return self._tensor(x)
        if type(x) is TracedSize:
            dim = x.dim
            return lambda r: evaluate(dim, r.values)
        if isinstance(x, Number):
            number = len(self.numbers)
            self.numbers.append(x)
            return OfNumber(number)
        if type(x) in (bool, int, float, str, bytes, type(None)):
            return Constant(x)
        k = self.containers.get(id(x))
        if k is not None:
            return OfContainer(k)
        if type(x) in (list, tuple, dict):
            return self._once(x)
        found = self.objects.rebuild(x)
        if found is not None:
            return found
        # The same object each time, if no new one is made by each call.
        self.cacheable = False
        return Constant(x)

    @cached_property
    def objects(self) -> Objects:
        weak = weakref.proxy(self)
        return Objects(self.found.objects, lambda x: weak.spec(x))

    def _once(self, x: Any) -> Rebuild:
        """A container, made once for each time the function runs."""
        key = id(x)
        if key in self.made:
            found = self.made[key]
            if found is None:
                raise Unsupported("a container that holds itself is returned")
            return found
        self.made[key] = None
        parts = tuple(self.spec(v) for v in (x.values() if type(x) is dict else x))
        made = self.made[key] = New(type(x), parts, tuple(x) if type(x) is dict else ())
        return made

    def _tensor(self, x: Tensor) -> Rebuild:
        trace = self.trace
        if x.node is None and id(x) in trace.position:
            return OfTensor(trace.position[id(x)])
        number = self.gradient_of.get(id(x))
        if number is not None and self.found.tensors[number]._grad is x:
            return OfGradient(number)
        view = trace.views.source_of(x)
        if view is not None:
            return self._view(x, *view)
        self.bare.pop(id(x), None)
        slot = self.emit(x)
        grad = trace.grads.get(id(x), (x, None))[1]
        if grad is None:
            return OfOutput(slot)
        grad_spec = self.spec(grad)

        def with_grad(r: Results) -> Tensor:
            t = r.tensors[slot]
            t._grad = grad_spec(r)
            return t

        return with_grad

    def _view(self, x: Tensor, source: Tensor, unit: Unit | None) -> Rebuild:
        self.bare.pop(id(x), None)
        alive = source.grad_fn is not None and not source.grad_fn.released
        behind = self._memory(source) if unit is None and alive else self._tensor(source)
        if id(x) not in self.slots:
            self.slots[id(x)] = -1
            self.views.append((x, source, unit))
        key, dress = id(x), self._dress(x)
        uncounted = x._version is not source._version

        def rebuild(r: Results) -> Any:
            if key not in r.memo:
                base = behind(r)
                out = r.memo[key] = view_of(base, unit, r.values)
                if uncounted:
                    out._version = [0, None, None]
                dress(out, r)
                self.gradients.attach(key, out, r.node)
            return r.memo[key]

        plain = unit is None and not uncounted and self._is_plain(x)
        attached, late = self.gradients.slots, self.gradients.late
        return Again(
            rebuild,
            behind,
            lambda: plain and key not in attached and key not in late,
            x.base is None,
        )

    def _is_plain(self, x: Tensor) -> bool:
        """Whether a second handle has nothing besides memory."""
        history = x._grad_fn is not None or x.requires_grad or is_lost(x)
        return (
            not history
            and type(x) is Tensor
            and x.origin is None
            and (id(x) not in self.trace.grads)
        )

    def _memory(self, x: Tensor) -> Rebuild:
        """The memory of a traced tensor whose history is no part of the result."""
        k = self.trace.position.get(id(x))
        if x.node is None and k is not None:
            return OfTensor(k)
        view = self.trace.views.source_of(x)
        if id(x) not in self.slots:
            self.bare[id(x)] = x
        if view is None:
            return OfOutput(self.emit(x))
        source, unit = view
        behind = self._memory(source)
        if id(x) not in self.slots:
            self.slots[id(x)] = -1
            self.views.append((x, source, unit))
        return lambda r: view_of(behind(r), unit, r.values)

    def forget_bare(self) -> None:
        """Let go of the history of tensors of which only the memory is in the result."""
        for t in self.bare.values():
            t.requires_grad, t.grad_fn = False, None

    def _dress(self, x: Tensor) -> Callable[[Tensor, Results], None]:
        """What a second handle has besides memory: class, flag, history that is lost or freed,
        gradient."""
        node = x._grad_fn
        kind, flag, own = type(x), x.requires_grad and node is None, x.base is None
        lost, known, numbers = is_lost(x), x.origin and x.origin[2:], self.numbered
        if known is not None:
            numbers.add(known[0])
        freed = node.name if node is not None and node.released else None
        grad = self.trace.grads.get(id(x), (x, None))[1]
        grad_spec = None if grad is None else self.spec(grad)

        def dress(out: Tensor, r: Results) -> None:
            out.__class__ = kind
            if own:
                out.base = None
            if flag or lost:
                out.requires_grad = True
            if known is not None and out.origin is not None:
                if id(numbers) not in r.memo:
                    r.memo[id(numbers)] = renumbered(numbers)
                out.origin = (*out.origin[:2], r.memo[id(numbers)][known[0]], known[1])
            if lost:
                out._grad_fn = STALE
            if freed is not None:
                out.requires_grad, out.output_number = True, 0
                out.grad_fn = FreedNode(freed, out.type)
            if grad_spec is not None:
                out._grad = grad_spec(r)

        return dress

    def emit(self, x: Tensor) -> int:
        """The output that holds a traced tensor."""
        slot = self.slots.get(id(x))
        if slot is None:
            slot = self.slots[id(x)] = len(self.nodes)
            self.nodes.append(self.trace.node_of(x))
            self.emitted.append(x)
        return slot

    def calls(self) -> list[Rebuild]:
        """Calls that the trace has recorded, on the results of a run."""
        calls = self.trace.calls
        calls.place(len(self.nodes), len(self.numbers))
        self.nodes += calls.nodes
        self.emitted += [Tensor.of_node(node, self.trace) for node in calls.nodes]
        self.numbers += calls.numbers
        calls.numbers.clear()
        return calls.made

    def grads(self) -> list[tuple[int, Rebuild]]:
        """Assignments to the gradients of tensors that the survey found."""
        position = self.trace.position
        return [
            (position[key], self.spec(value))
            for key, (_, value) in self.trace.grads.items()
            if key in position
        ]

    def writes(self) -> list[tuple[Node, Tensor]]:
        """Values that the program stores into its inputs."""
        trace = self.trace
        return [
            (trace.values[id(t)], t)
            for k, t in enumerate(trace.tensors)
            if id(t) in trace.written
            and id(t) not in trace.sharing.of
            and trace.sources[k].kind != "constant"
            and trace.values[id(t)] is not trace.inputs[k]
        ]

    def outputs(self) -> list[Output]:
        return [
            Output(
                t.type,
                t.requires_grad,
                None if t.grad_fn is None else t.grad_fn.name,
                self.gradients.slots.get(id(t)),
                (t._version[0], t._version[2]),
            )
            for t in self.emitted
        ]

    def single(self, result: Any) -> Any:
        """The type of a result that is all the program makes, and all the function returns."""
        alone = isinstance(result, Tensor) and self.slots.get(id(result)) == 0
        graph = id(result) in self.gradients.slots
        if alone and len(self.emitted) == 1 and (graph or not result.requires_grad):
            return result.type
        return None


def view_of(base: Tensor, unit: Unit | None, values: dict[Atom, int]) -> Tensor:
    """The view of a tensor that a unit shows, for these sizes; without a unit, all of it.

    It has no history: where there is one, that comes from the program's node on the tape.
    """
    if unit is None:
        return base.detach()
    unit = concrete_unit(unit, values) if values else unit
    with no_grad():
        (out,) = base.apply_unit(unit, (base,))
    return out  # type: ignore[no-any-return]


def finish_trace(
    trace: Trace,
    found: Survey,
    after: Survey,
    before: Snapshot,
    returned: list[Any],
    name: str,
    lifting: Lifting,
) -> Outcome:
    """Compile a trace, run it for the call at hand, and keep it for later ones.

    `before` holds the state as it was, `after` is a survey after the trace,
    `returned` holds what the function returned, and is emptied.
    Raises Unsupported where a program could not do what the function did.
    """
    work = Finish(trace, found)
    made = made_by(work, after, before, returned[0], lifting)
    restructured = bool(made.effects) and found.key != after.key
    work.forget_bare()
    block = work.gradients.block(trace, work.emitted, [x for x, _, _ in work.views], name)
    if block is not None and not work.cacheable:
        raise Unsupported(
            "a result still needs its graph, beside an object that cannot be made anew",
            why="tensors in that object would get no gradients",
            hint="make the object outside of the function",
        )
    made.settle(found, after)
    work.objects.settle(settled)
    result = settled(returned.pop())
    numbers = trace.numbers.evaluator(work.numbers, lifting.facts(found))
    work.numbers.clear()
    after.clear()
    check_kept(work, block)
    path = compiled_path(work, made, block, result, name)
    path.facts, path.lifted = found.fact_keys(), lifting.lifted(found)
    inputs = {*path.lifted, *(() if path.symbols is None else path.symbols.numbers)}
    path.exact = tuple(k for k in range(len(path.facts)) if k not in inputs)
    path.numbers, path.scalars = numbers, len(trace.numbers.scalars)
    if not path.computes(found, found.facts):
        raise Unsupported("a number is not what it was while the function was traced")
    first_run(path, work)
    trace.symbols.env.closed = True
    return Outcome(path, settled(result), work.cacheable, found, restructured)


@dataclass
class Made:
    """What a function makes besides values: its result, and what it changes."""

    result: Rebuild
    effects: list[Effect]
    rebound: list[Rebinding]
    assigned: list[tuple[int, Rebuild]]  # numbers among the facts
    grads: list[tuple[int, Rebuild]]
    writes: list[tuple[Node, Tensor]]
    calls: list[Rebuild]

    def settle(self, found: Survey, after: Survey) -> None:
        """Put plain numbers in place of those of the trace."""
        for e in self.effects:
            e.settle(found.containers[e.container])
        for b in self.rebound:
            b.bind(found, settled(b.held(found)))
        for k, _ in self.assigned:
            write(Place.of(found.fact_parts[k]), settled(after.facts[k]))

    def nothing_else(self) -> bool:
        """Whether there is just the result."""
        changes = self.effects or self.rebound or self.assigned or self.grads or self.writes
        return not changes and not self.calls


def made_by(work: Finish, after: Survey, before: Snapshot, returned: Any, lifting: Lifting) -> Made:
    """What a traced function has made, by comparing the state before and after."""
    found = work.found
    copies = [before.copies[id(c)] for c in found.containers]
    effects = changes(found.containers, copies, found.unread(), lifting.written, work.spec)
    rebound = rebindings(before, found, work.spec)
    result, grads, writes = work.spec(returned), work.grads(), work.writes()
    calls = work.calls()
    assigned = changed_facts(work, after, covered(found, effects, rebound), lifting.written)
    return Made(result, effects, rebound, assigned, grads, writes, calls)


def check_kept(work: Finish, block: Block | None) -> None:
    """Refuse what would outlive the trace unseen: numbers, tensors, hooks."""
    trace = work.trace
    check_held(trace.numbers)
    trace.grads = {
        key: item for key, item in trace.grads.items() if key in trace.position or key in work.slots
    }
    leaked = trace.leaked({*work.slots})
    if leaked is not None:
        raise Unsupported(
            "a traced tensor is kept in a place that cannot be followed",
            actual=f"{leaked.type!r}",
            hint="return it, or store it in an attribute, list or dict that existed before",
        )
    if block is not None and trace.hooked:
        raise Unsupported(
            "a hook waits for a gradient that comes after the function",
            hint="call backward() inside the function",
        )


def compiled_path(work: Finish, made: Made, block: Block | None, returned: Any, name: str) -> Path:
    """The program of a trace, and how it is called."""
    trace, found, symbols = work.trace, work.found, work.trace.symbols
    outputs = work.nodes if block is None else [*work.nodes, *block.kept.outputs]
    unread = unread_checks(trace, [*outputs, *(node for node, _ in made.writes)])
    graph = settled_graph(trace, [*outputs, *unread], made.writes)
    executable = compile_traced(graph, tuple(map(trace.layout_of, trace.tensors)), name)
    if executable.checks_late:
        raise Unsupported("an index is checked after state has been changed")
    quick = made.nothing_else() and not trace.grads_read and not unread
    quick = quick and all(s.kind == "leaf" for s in trace.sources)
    single = work.single(returned) if quick else None
    return Path(
        executable,
        Sizes(symbols.values, executable.bind(symbols.values), single),
        trace.sources,
        [_copied(t) for t in trace.constants],
        trace.sharing.bases,
        trace.sharing.aliasing(),
        trace.grads_read,
        grad_pattern(found.tensors, trace.grads_read),
        work.outputs(),
        made.effects,
        made.grads,
        made.result,
        graph,
        ", ".join(repr(t.type) for t in found.tensors[:8]),
        made.calls,
        block,
        symbols=symbols.read(found) if symbols.values else None,
        single=single,
        assigned=made.assigned,
        rebound=made.rebound,
    )


def unread_checks(trace: Trace, roots: list[Node]) -> list[Node]:
    """Values that nothing is made of, though to compute them may be an error: results, too.

    A check that another one repeats, of the same indices by the same kind of op, is left out.
    """
    if not trace.templates.checked:
        return []
    asked = {_question(n) for n in topological(roots) if getattr(n.op, "checked", False)}
    unread = [n for n in trace.templates.checked if _question(n) not in asked]
    return list({_question(n): n for n in unread}.values())


def _question(node: Node) -> object:
    """What a checked node asks of its inputs: all of it for a routine, for others whether the
    indices lie inside."""
    if isinstance(node.op, Library):
        return node
    return (node.op, tuple(x if x.dtype.kind in "iu" else x.shape for x in node.inputs))


def settled_graph(trace: Trace, outputs: list[Node], writes: list[tuple[Node, Tensor]]) -> Graph:
    """The graph of a trace, with tensors that overlap read and written through one input."""
    scalars = tuple(trace.numbers.scalars.values())
    n, targets = len(outputs), [t for _, t in writes]
    roots, rows = trace.sharing.settle((*outputs, *(node for node, _ in writes)))
    number = {id(t): k for k, t in enumerate(trace.tensors)}
    places = [number[id(t)] for t in (*targets, *rows)]
    changes = zip(roots[n:], places, strict=True)
    kept = tuple((node, k) for node, k in changes if node is not trace.inputs[k])
    return Graph(tuple(trace.inputs), scalars, roots[:n], kept)


def covered(found: Survey, effects: list[Effect], rebound: list[Rebinding]) -> set[tuple[int, Any]]:
    """Places that effects assign, as `Place.storage`."""
    places = {(id(found.containers[e.container]), e.key) for e in effects}
    return places | {b.storage(found) for b in rebound}


def changed_facts(
    work: Finish, after: Survey, covered: set[tuple[int, Any]], written: set[tuple[int, Any]]
) -> list[tuple[int, Rebuild]]:
    """Numbers that differ after the trace, in places that no effect covers."""
    found, out = work.found, []
    if found.key != after.key:
        return []  # the numbers stand in objects that effects put there
    for k, (old, new) in enumerate(zip(found.facts, after.facts, strict=True)):
        kind = found.fact_parts[k][1]
        if kind in (SIZE, STRIDE):
            continue
        if type(new) is type(old) and fact_key(new) == fact_key(old) and not written:
            continue
        place = Place.of(found.fact_parts[k])
        same = type(new) is type(old) and fact_key(new) == fact_key(old)
        if (same and place.storage not in written) or place.is_below(covered):
            continue
        if kind == ELEMENT or not is_writeable(place):
            raise Unsupported("Python state is changed", actual=f"{place}: {old!r} becomes {new!r}")
        out.append((k, work.spec(new)))
    return out


def _copied(t: Tensor) -> Tensor:
    """A constant of the program: nobody else holds it."""
    assert t.array is not None
    return Tensor.of_array(t.array.copy(), t.type, None)


def first_run(path: Path, work: Finish) -> None:
    """Run the program for the traced call: the traced tensors themselves receive the values."""
    trace = work.trace
    path.counts[0] += 1
    arrays: list[Any] = [t.array for t in trace.tensors]
    numbers = work.found.numbers
    results = path.sizes.bound.run(arrays, numbers[: path.scalars])
    for t, array, output in zip(work.emitted, results, path.outputs, strict=False):
        if t.node is None:
            assert t.array is not None
            copy_into(t.array, array)
        else:
            t.settle(array, None)
            t.grad_fn = output.tensor(array).grad_fn
    node = None
    if path.block is not None:
        taken, work.gradients.taken = work.gradients.taken, []
        scalars = numbers[: path.scalars]
        node = path.block.record(taken, work.emitted, results, scalars, path.sizes.values)
        for t in work.emitted:
            work.gradients.attach(id(t), t, node)
    for x, source, unit in work.views:
        shown = view_of(source, unit, trace.symbols.values)
        assert shown.array is not None
        x.settle(shown.array, shown.layout)
        if x.origin is not None:
            how = unit if shown.origin is None else shown.origin[1]
            x.origin = (x.origin[0], how, *x.origin[2:])
        work.gradients.attach(id(x), x, node)
    for t, value in trace.grads.values():
        t._grad = value
    values, rest = trace.symbols.values, numbers[path.scalars :]
    again = Results(work.emitted, work.found, values, rest, node)
    for call in path.calls:
        call(again)
