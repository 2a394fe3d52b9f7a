"""Running one unit on concrete tensors: signature -> plan -> launch.

A plan is made once per (unit, types and layouts of the operands) and holds all that is known
then.  Behind plans stand programs with symbolic sizes, shared by all shapes of a pattern: sizes
of 0 and 1 are part of the pattern, equal sizes share a symbol, and what a program's order of
summation asked about sizes is kept as guards.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dualgrad import recipes
from dualgrad.backends.common import Bound
from dualgrad.backends.transfers import Moves
from dualgrad.compiler.batching import is_gradient
from dualgrad.compiler.grad import Vjp, crosses_devices
from dualgrad.compiler.ir.dims import (
    Atom,
    Dim,
    ShapeEnv,
    shape_env,
    substitute,
    sym,
    symbol_of,
    symbols,
)
from dualgrad.compiler.ir.node import Graph, Node, input_node, replace, scalar_node, topological
from dualgrad.compiler.ir.refusal import not_a_tensor
from dualgrad.compiler.ir.types import TensorType, contiguous_strides, reshaped_steps
from dualgrad.compiler.ir.value import Unit
from dualgrad.compiler.launch import size_of
from dualgrad.compiler.ops.arguments import equal
from dualgrad.compiler.ops.elementwise import Copy
from dualgrad.compiler.ops.transfer import Transfer
from dualgrad.compiler.ops.view import Reshape, View, through_views
from dualgrad.engine import backend_of, compile_graph
from dualgrad.flattening import row_types
from dualgrad.recipes import Recipe
from dualgrad.runtime import cuda
from dualgrad.runtime.errors import DeviceError, DTypeError, ShapeError
from dualgrad.runtime.records import dataclass, field

Strides = tuple[int, ...] | None  # in elements; None: contiguous
MAX_PLANS = 20_000
first_plan: list[Callable[[], None]] = []  # what to do before there are plans


@dataclass(frozen=True)
class Alias:
    """An output that is an operand itself, or a view of its memory."""

    operand: int
    shape: tuple[int, ...] = ()
    strides: tuple[int, ...] | None = None  # in elements; None: the operand itself
    offset: int = 0


@dataclass
class Plan:
    """How to run a unit on operands of one signature."""

    operands: tuple[int, ...]  # numbers of the tensors that the program reads
    numbers: tuple[int, ...]  # numbers of the Python numbers that it takes
    bound: Bound | None
    results: tuple[Alias | TensorType, ...]
    types: tuple[TensorType, ...]
    single: TensorType | None  # the type of the one output, where that is all there is
    # operands and outputs that the gradient reads, by the operands that want one
    saves: dict[int, Any] = field(default_factory=dict)
    native: bool = True  # whether native code might run it
    entries: list[Any] = field(default_factory=list)  # what it needs for that

    def run(self, operands: tuple[Any, ...]) -> list[Any]:
        """New arrays of the program's outputs."""
        bound = self.bound
        if bound is None:
            return []
        arrays = [operands[k].array for k in self.operands]
        if self.numbers:
            return bound.run(arrays, tuple([operands[k] for k in self.numbers]))
        return bound.run(arrays)


_plans: dict[tuple[Any, ...], Plan] = {}
_variants: dict[tuple[Any, ...], list[Recipe]] = {}


find_plan = _plans.get
# who wants to know of the plans that Python has run, and whether they overwrite operand 0
noted: list[Callable[[Unit, tuple[Any, ...], Plan, bool], None]] = []
# who looks at each unit that Python runs: its operands, and its outputs, None if it overwrites
seen: list[Callable[[Unit, tuple[Any, ...], Any], None]] = []
held_elsewhere: list[Callable[[], None]] = []  # lets go of plans that others have


def tell(unit: Unit, operands: tuple[Any, ...], plan: Plan, outputs: Any) -> None:
    """Let others know what Python has run; there are no outputs where operand 0 is overwritten."""
    for note in noted:
        note(unit, operands, plan, outputs is None)
    for look in seen:
        look(unit, operands, outputs)


def forget() -> None:
    """Let go of all programs of eager ops."""
    _plans.clear()
    _variants.clear()
    for let_go in held_elsewhere:
        let_go()


cuda.forgetful.append(forget)


def signature_key(unit: Unit, operands: tuple[Any, ...], write: bool) -> tuple[Any, ...]:
    """What a plan is found by: the unit, and each tensor's type and layout or number's class."""
    return (unit, write, *[x.sig if hasattr(x, "sig") else x.__class__ for x in operands])


def make_plan(unit: Unit, operands: tuple[Any, ...], write: bool = False) -> Plan:
    """The plan of a unit; with `write` its one result overwrites operand 0."""
    while first_plan:
        first_plan.pop()()
    if len(_plans) > MAX_PLANS:
        _plans.clear()
    key = signature_key(unit, operands, write)
    plan = _plans[key] = Planner(unit, operands, write).plan()
    return plan


def find_or_make(unit: Unit, operands: tuple[Any, ...], write: bool = False) -> Plan:
    """The plan of a unit, made if it is not there."""
    plan = _plans.get(signature_key(unit, operands, write))
    return make_plan(unit, operands, write) if plan is None else plan


def check_operands(unit: Unit, operands: tuple[Any, ...]) -> None:
    """Refuse operands of other types than `Unit`s take."""
    for x in operands:
        if hasattr(x, "sig") or isinstance(x, bool | int | float | np.ndarray | np.generic):
            continue
        raise not_a_tensor(unit.name, x, "Tensor, bool, int or float")


def common_device(unit: Unit, operands: tuple[Any, ...]) -> str:
    """The device of the tensors among the operands.  Raises DeviceError if they are on several."""
    device = ""
    for k, x in enumerate(operands):
        if not hasattr(x, "sig"):
            continue
        if not device:
            device, first = x.type.device, k
        elif x.type.device != device:
            raise mixed_devices(unit, (first, operands[first]), (k, x))
    return device


def mixed_devices(unit: Unit, *found: tuple[int, Any]) -> DeviceError:
    """The error of operands (number, tensor) on different devices."""
    named = [f"{x.type.device} ({_ordinal(k)} operand, {x.type!r})" for k, x in found]
    other = next((x.type.device for _, x in found if x.type.device != "cpu"), "cuda")
    return DeviceError(
        "operands are on different devices",
        op=unit.name,
        expect="tensors on one device",
        actual=" and ".join(named),
        hint=f'move one of them: .to("{other.removesuffix(":0")}") or .cpu()',
    )


def _ordinal(k: int) -> str:
    names = ("first", "second", "third", "fourth")
    return names[k] if k < len(names) else f"{k + 1}th"


class Planner:
    """Makes one plan."""

    def __init__(self, unit: Unit, operands: tuple[Any, ...], write: bool) -> None:
        self.unit, self.operands, self.write = unit, operands, write
        self.general = unit
        self.tensors = [k for k, x in enumerate(operands) if hasattr(x, "sig")]
        self.wide = False
        self.rows: dict[int, TensorType] | None = None  # the operands as rows, where that will do
        check_operands(unit, operands)
        self.crosses = crosses_devices(unit)
        self.device = "" if self.crosses else common_device(unit, operands)

    def plan(self) -> Plan:
        nodes = self.exact_nodes()
        outputs = self.unit.trace(*nodes)
        if self.crosses:
            return self.transfer(outputs, nodes)
        types = tuple(TensorType(o.shape, o.dtype, False, self.device) for o in outputs)
        if self.write:
            check_write(self.unit, self.operands[0].type, types[0])
        aliases = [self.alias_of(o, nodes) for o in outputs]
        computed = [k for k, a in enumerate(aliases) if a is None]
        results = tuple(t if a is None else a for a, t in zip(aliases, types, strict=True))
        if not computed:
            return Plan((), (), None, results, types, None)
        if len(outputs) == 1 and isinstance(outputs[0].op, Reshape) and not self.write:
            copied = self.copy_of(outputs[0].inputs[0], nodes, types[0])
            if copied is not None:
                return copied
        self.rows = row_types(self.unit, self.operands, nodes, outputs)
        values, sym_types, strides = self.symbolic()
        variant = self.variant(computed, values, sym_types, strides)
        if variant.executable.is_too_narrow(values):
            self.wide = True
            variant = self.variant(computed, values, sym_types, strides)
        bound = variant.executable.bind(values)
        if self.rows is not None and not self.write:
            bound.outputs = [(size_of(types[k].shape, {}), types[k].dtype) for k in computed]
        single = types[0] if len(types) == 1 else None
        return Plan(variant.tensors, variant.numbers, bound, results, types, single)

    def transfer(self, outputs: tuple[Node, ...], nodes: tuple[Node, ...]) -> Plan:
        """Copies from one device to another."""
        (output,) = outputs
        assert isinstance(output.op, Transfer)
        k = nodes.index(output.inputs[0])
        x = self.operands[k]
        packed = None
        if x.layout is not None and x.type.device != "cpu":
            packed = Planner(Copy.of(), (x,), False).plan().bound
        type = TensorType(output.shape, output.dtype, False, output.device)
        return Plan((k,), (), Moves(type, packed), (type,), (type,), type)

    def copy_of(self, source: Node, nodes: tuple[Node, ...], type: TensorType) -> Plan | None:
        """A reshape of an operand that needs a copy: a copy in the operand's own shape, whose
        memory is then seen in the new one.  One program serves all shapes."""
        if source not in nodes:
            return None
        k = nodes.index(source)
        plan = Planner(Copy.of(), (self.operands[k],), False).plan()
        assert plan.bound is not None
        plan.bound.outputs = [(size_of(type.shape, {}), type.dtype)]
        return Plan((k,), (), plan.bound, (type,), (type,), type)

    def exact_nodes(self) -> tuple[Node, ...]:
        return tuple(
            input_node(k, x.type) if k in self.tensors else scalar_node(k, _kind(x))
            for k, x in enumerate(self.operands)
        )

    def alias_of(self, output: Node, nodes: tuple[Node, ...]) -> Alias | None:
        """How an output can share memory with an operand, where that is meant."""
        if self.write or not (isinstance(self.unit, View) or is_gradient(self.unit)):
            return None
        for k in self.tensors:
            if output is nodes[k]:
                return Alias(k)
            if through_views(output, (0,) * output.ndim)[0] is not nodes[k]:
                continue
            found = view_of(output, nodes[k], self.operands[k].strides_in_elements)
            if found is not None and all(s >= 0 for s in found[1]):  # type: ignore[operator]
                return Alias(k, output.shape, found[1], found[0])  # type: ignore[arg-type]
        return None

    def symbolic(self) -> tuple[dict[Atom, int], list[TensorType], list[Any]]:
        """Operand types and strides with symbols for sizes, and the sizes behind them."""
        values: dict[Atom, int] = {}
        known: dict[int, Dim] = {}
        # rows may be short, but a grid of no blocks cannot be launched
        least = 2 if self.rows is None else 0 if self.device == "cpu" else 1

        def size(n: Dim, offset: bool = False) -> Dim:
            if not isinstance(n, int) or n < least or self.unit.exact:
                return n
            key = -n if offset else n  # an offset that equals a size is a coincidence
            if key not in known:
                symbol = sym(f"n{len(known)}")
                known[key] = symbol
                values[symbol_of(symbol)] = n
            return known[key]

        def stride(n: int) -> Dim:
            if n < 2:
                return n
            symbol = sym(f"d{len(values)}")
            values[symbol_of(symbol)] = n
            return symbol

        types, strides = [], []
        for k in self.tensors:
            x = self.operands[k]
            type = x.type if self.rows is None else self.rows[k]
            types.append(type.with_shape(tuple(size(n) for n in type.shape)))
            steps = x.layout
            strides.append(None if steps is None else tuple(stride(n) for n in steps))
        self.general = self.unit.generalized(size)
        return values, types, strides

    def variant(
        self,
        computed: list[int],
        values: dict[Atom, int],
        types: list[TensorType],
        strides: list[Any],
    ) -> Recipe:
        """The program of the pattern whose guards hold for these sizes."""
        numbers = tuple(_kind(x) for x in self.operands if not hasattr(x, "sig"))
        places = tuple(self.tensors)  # 2 - x and x - 2 are different programs
        key = (
            self.general,
            self.write,
            places,
            tuple(types),
            tuple(strides),
            numbers,
            tuple(computed),
            self.wide,
        )
        variants = _variants.setdefault(key, [])
        for v in variants:
            if all(g.holds(values) for g in v.guards):
                return v
        backend = backend_of(self.device)
        on_disk = recipes.key_of(self.general, key[1:], backend)
        recipe = None if on_disk is None else recipes.find(on_disk, values, backend, self.wide)
        if recipe is None:
            env = ShapeEnv(values)
            with shape_env(env):
                graph, layouts, tensors, scalars = self.graph(computed, types, strides)
                executable = compile_graph(
                    graph, layouts, self.unit.name, False, self.device, self.wide
                )
            recipe = Recipe(tuple(env.guards), tensors, scalars, executable)
            if on_disk is not None:
                recipes.add(on_disk, recipe, executable.program.key)
        variants.append(recipe)
        return recipe

    def graph(
        self, computed: list[int], types: list[TensorType], strides: list[Any]
    ) -> tuple[Graph, tuple[Any, ...], tuple[int, ...], tuple[int, ...]]:
        """The graph of what the outputs need: (graph, layouts, tensors and numbers it takes)."""
        by_number = dict(zip(self.tensors, zip(types, strides, strict=True), strict=True))
        nodes = tuple(
            input_node(k, by_number[k][0]) if k in by_number else scalar_node(k, _kind(x))
            for k, x in enumerate(self.operands)
        )
        traced = self.general.trace(*nodes)
        outputs = tuple(traced[k] for k in computed)
        used = set(topological(outputs)) | ({nodes[0]} if self.write else set())
        tensors = tuple(k for k, n in enumerate(nodes) if k in by_number and n in used)
        numbers = tuple(k for k, n in enumerate(nodes) if k not in by_number and n in used)
        inputs = tuple(input_node(i, nodes[k].type) for i, k in enumerate(tensors))
        scalars = tuple(scalar_node(i, _kind(self.operands[k])) for i, k in enumerate(numbers))
        change = {
            nodes[k]: n for k, n in zip((*tensors, *numbers), (*inputs, *scalars), strict=True)
        }
        outputs = replace(outputs, change)
        layouts = tuple(by_number[k][1] for k in tensors)
        if self.write:
            return Graph(inputs, scalars, (), ((outputs[0], 0),)), layouts, tensors, numbers
        return Graph(inputs, scalars, outputs), layouts, tensors, numbers


def check_write(unit: Unit, target: TensorType, result: TensorType) -> None:
    """Refuse a change in place whose result does not fit the tensor."""
    if not equal(result.shape, target.shape):
        raise does_not_fit(unit.name, target.shape, f"shape {result.shape}")
    if result.dtype is not target.dtype:
        raise DTypeError(
            "the result does not fit in place",
            op=unit.name,
            expect=target.dtype.name,
            actual=result.dtype.name,
            hint="convert the operands, or assign the result to a new name",
        )


def does_not_fit(op: str, target: tuple[Dim, ...], result: str) -> ShapeError:
    """The error of a change in place that would need another shape."""
    return ShapeError(
        "the result does not fit in place",
        op=op,
        expect=f"shape {target}",
        actual=result,
        hint="assign the result to a new name instead",
    )


def view_of(
    output: Node, source: Node, strides: tuple[Dim, ...]
) -> tuple[Dim, tuple[Dim, ...]] | None:
    """(offset, strides) in elements under which views of `source` share its memory; None if
    a copy is needed."""
    at = tuple(sym(f"v{k}", n) for k, n in enumerate(output.shape))
    index: tuple[Dim, ...] = at
    node = output
    while (steps := steps_of(node, source, strides)) is None:
        op, (behind,) = node.op, node.inputs
        assert isinstance(op, View)
        node, index = behind, op.source(index, behind.shape)
    position: Dim = 0
    for i, step in zip(index, steps, strict=True):
        position = position + step * i
    found = linear_steps(position, at)
    if found is None:
        return None
    whole: Any = contiguous_strides(output.shape)
    parts = zip(output.shape, found[1], whole, strict=True)
    # steps along dimensions of size 1 mean nothing
    in_order = 0 in output.shape or all(n == 1 or s == w for n, s, w in parts)
    return (found[0], whole) if in_order else found


def steps_of(node: Node, source: Node, strides: tuple[Dim, ...]) -> tuple[Dim, ...] | None:
    """Strides of a node that is `source`, or this in other shapes, in its memory; None if it is
    some other view, or a copy."""
    if node is source:
        return strides
    if isinstance(node.op, Reshape):
        (behind,) = node.inputs
        steps = steps_of(behind, source, strides)
        return None if steps is None else reshaped_steps(behind.shape, steps, node.shape)
    return None


def linear_steps(position: Dim, at: tuple[Any, ...]) -> tuple[Dim, tuple[Dim, ...]] | None:
    """(offset, step per variable) of an index expression; None if it is not linear in them."""
    zeros: dict[Atom, Dim] = {a: 0 for v in at for a in symbols(v)}
    offset = substitute(position, zeros)
    total = offset
    steps = []
    for v in at:
        one = {**zeros, **dict.fromkeys(symbols(v), 1)}
        step = substitute(position, one) - offset
        steps.append(step)
        total = total + step * v
    return None if total != position else (offset, tuple(steps))


def _kind(x: Any) -> type:
    return bool if isinstance(x, bool) else int if isinstance(x, int) else float


def used_by_gradient(
    unit: Unit,
    operands: tuple[Any, ...],
    wanting: int,
    types: tuple[TensorType, ...] | None = None,
) -> frozenset[int]:
    """Which operands (0..) and outputs (after the operands) the gradient of a unit reads, if the
    operands in `wanting`, as bits, want one; `types` are those of the outputs, if known."""
    nodes = tuple(
        input_node(k, x.type) if hasattr(x, "sig") else scalar_node(k, _kind(x))
        for k, x in enumerate(operands)
    )
    if types is None:
        types = tuple(o.type for o in unit.trace(*nodes))
    n = len(operands)
    known = tuple(input_node(n + k, t) for k, t in enumerate(types))
    seeds = tuple(input_node(n + len(types) + k, t) for k, t in enumerate(types))
    wanted = tuple(wanting >> k & 1 == 1 for k in range(n))
    given = tuple(t.dtype.is_float for t in types)
    picked = tuple(s for s, g in zip(seeds, given, strict=True) if g)
    grads = Vjp.of(unit, given, wanted).trace(*picked, *nodes, *known)
    used = set(topological(grads))
    return frozenset(k for k, x in enumerate((*nodes, *known)) if x in used)
