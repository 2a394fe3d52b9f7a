"""Tracing: running Python once on tensors that have no values, and keeping what they computed.

While a trace is active, every unit adds nodes to its graph instead of running.  Tensors that
exist become inputs when they are first met.  Changes in place give a tensor a new node and become
writes of the program; assignments to `.grad` are kept aside until the program has run.
"""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from dualgrad.backends.transfers import moved
from dualgrad.compiler.batching import is_gradient
from dualgrad.compiler.grad import ABSENT, computed_anew, crosses_devices
from dualgrad.compiler.ir.dims import Dim, evaluate, same
from dualgrad.compiler.ir.node import Node, as_node, input_node
from dualgrad.compiler.ir.size import TracedSize
from dualgrad.compiler.ir.types import TensorType, contiguous_strides, reshaped_steps
from dualgrad.compiler.ir.value import Unit
from dualgrad.compiler.ops.create import size_node
from dualgrad.compiler.ops.elementwise import cast_node, copy
from dualgrad.compiler.ops.placing import placed, placed_results
from dualgrad.compiler.ops.region import Overwrite
from dualgrad.compiler.ops.transfer import Transfer
from dualgrad.compiler.ops.view import Expand, Reshape, View, expand_to
from dualgrad.dispatch import (
    check_operands,
    check_write,
    common_device,
    view_of,
)
from dualgrad.gradients.history import Named
from dualgrad.gradients.tape import Absent, Saves, next_number, record
from dualgrad.jit.alias import Source as Source
from dualgrad.jit.effects import Calls
from dualgrad.jit.errors import Unsupported as Unsupported
from dualgrad.jit.ledger import Ledger, fits
from dualgrad.jit.numbers import Number, plain
from dualgrad.jit.sharing import Sharing, is_expanded, not_writeable
from dualgrad.jit.sizes import Symbols
from dualgrad.jit.templates import Templates, is_own
from dualgrad.jit.views import Views
from dualgrad.runtime.devices import CPU
from dualgrad.runtime.dtype import DType, int64
from dualgrad.runtime.errors import ArgumentError, CompileError
from dualgrad.runtime.srcinfo import Place
from dualgrad.state import state

if TYPE_CHECKING:
    from dualgrad.tensor import Tensor


class Trace:
    """One run of a function on traced tensors."""

    def __init__(
        self,
        leaves: list[Tensor],
        of_node: Callable[[Node, object], Tensor],
        symbols: Symbols | None = None,
    ) -> None:
        self.first_node = next_number()  # nodes of the tape before it come from outside
        self.first_asked = self.first_node  # the same for gradients that no `.grad` takes
        self.leaves = leaves
        self.symbols = symbols or Symbols()
        self.of_node = of_node
        self.position = {id(t): k for k, t in enumerate(leaves)}
        self.sources: list[Source] = []
        self.inputs: list[Node] = []
        self.tensors: list[Tensor] = []  # the tensor behind each input
        self.values: dict[int, Node] = {}  # id of a concrete tensor -> its value now
        self.written: dict[int, Tensor] = {}
        self.constants: list[Tensor] = []
        self.created: dict[int, Tensor] = {}  # concrete tensors made from numbers
        self.handles: dict[int, Tensor] = {}  # second handles on concrete tensors
        self.grads: dict[int, tuple[Tensor, Tensor | None]] = {}
        self.grads_read: list[int] = []  # numbers of leaves
        self.views = Views()
        self.templates = Templates()
        self.changed: list[Tensor] = []
        # By id, how often a tensor has been changed, and where last; in the order of that.
        self.times: dict[int, tuple[int, Place | None]] = {}
        self.made: list[weakref.ref[Tensor]] = []
        self.refusals: list[Unsupported] = []
        self.numbers = Ledger()
        weak = weakref.proxy(self)  # no cycles: a trace holds the tensors of its call
        self.sharing = Sharing(weak)
        self.calls = Calls(lambda x: weak.node_of(x))
        self.elsewhere = False  # some tensor is not on the CPU
        # values under a checkpoint, and what they are to be computed from
        self.recomputed: dict[Node, set[Node]] = {}
        self.hooked = False  # a hook waits for the gradient of a traced tensor

    # -- sizes --------------------------------------------------------------------------------

    def type_of(self, x: Tensor) -> TensorType:
        """The type of a tensor, with symbols for the sizes that are some."""
        if x.node is not None:
            return x._type
        node = self.values.get(id(x))
        if node is not None:
            return x._type.with_shape(node.shape)
        return self.symbols.types.get(id(x), x._type)

    def sizes(self, shape: tuple[Dim, ...]) -> tuple[Any, ...]:
        """A shape as the function sees it."""
        return self.symbols.shown(shape) if self.symbols.values else shape

    def layout_of(self, x: Tensor) -> tuple[Dim, ...] | None:
        """The strides of a tensor in elements; None if it is contiguous."""
        return self.symbols.layouts.get(id(x), x.layout)

    # -- values -------------------------------------------------------------------------------

    def node_of(self, x: Any) -> Node:
        """The node that stands for an operand now."""
        if isinstance(x, Absent):
            return Node.make(ABSENT, (), x.type)
        if type(x) is TracedSize:
            return size_node(x)
        if isinstance(x, int) and not fits(plain(x)):
            self.numbers.pin(x)
            raise ArgumentError(
                "a Python integer is too large",
                hint="use a float, or a number below 2**63",
            )  # as the op will say
        if isinstance(x, Number):
            return self.numbers.node(x)
        if not hasattr(x, "sig"):
            if isinstance(x, np.ndarray | np.generic):
                raise Unsupported(
                    "a NumPy array is used while tracing",
                    why="its values could change without the compiled program noticing",
                    hint="make it a tensor outside of the function: dg.from_numpy(array)",
                )
            return as_node(x)
        if x.node is not None:
            if x.owner is not self:
                raise Unsupported(
                    "a tensor of another trace is used",
                    actual=f"{x.type!r}",
                    hint="return tensors from compiled functions instead of storing them aside",
                )
            return x.node  # type: ignore[no-any-return]
        found = self.values.get(id(x))
        return self.lift(x) if found is None else found

    def lift(self, x: Tensor) -> Node:
        """Make a tensor that exists an input of the program."""
        k = self.position.get(id(x))
        if k is not None:
            source = Source("leaf", k)
        elif id(x) in self.created:
            source = Source("constant", len(self.constants))
            self.constants.append(x)
        else:
            number = next((n for n, t in enumerate(self.leaves) if t._grad is x), None)
            if number is None:
                raise self.not_found(x)
            source = Source("grad", number)
        return self.add_input(x, source)

    def add_input(self, x: Tensor, source: Source) -> Node:
        node = input_node(len(self.inputs), self.type_of(x))
        self.elsewhere = self.elsewhere or node.device != CPU
        self.inputs.append(node)
        self.sources.append(source)
        self.tensors.append(x)
        self.values[id(x)] = node
        return node

    def renumber(self, leaves: list[Tensor]) -> None:
        """Let sources name leaves by their place in another list."""
        position = {id(t): k for k, t in enumerate(leaves)}

        def place(k: int) -> int:
            new = position.get(id(self.leaves[k]))
            if new is None:
                raise self.not_found(self.leaves[k])
            return new

        self.sources = [
            s if s.kind == "constant" else Source(s.kind, place(s.number)) for s in self.sources
        ]
        self.grads_read = [place(k) for k in self.grads_read]
        self.leaves, self.position = leaves, position

    def not_found(self, x: Tensor) -> Unsupported:
        return Unsupported(
            "a tensor was reached in a way that cannot be followed",
            actual=f"{x.type!r}",
            why="it is neither an argument nor found in what the function refers to",
            hint="pass it as an argument",
        )

    def trace_node(self, node: Node) -> Tensor:
        """A traced tensor of this trace; whether it outlives the trace is checked at its end."""
        self.elsewhere = self.elsewhere or node.device != CPU
        out = self.of_node(node, self)
        self.made.append(weakref.ref(out))
        return out

    # -- ops ----------------------------------------------------------------------------------

    def apply(self, unit: Unit, operands: tuple[Any, ...]) -> tuple[Any, ...]:
        if isinstance(unit, Transfer) and self._is_constant(operands[0]):
            return (self._moved(operands[0], unit.device),)
        try:
            nodes = tuple(self.node_of(x) for x in operands)
        except CompileError:
            check_operands(unit, operands)
            raise
        watch = sys.getprofile()
        if watch is None or not is_own(unit):
            return self._apply(unit, operands, nodes)
        # Nothing of what follows is the user's code.
        sys.setprofile(None)
        try:
            return self._apply(unit, operands, nodes)
        finally:
            sys.setprofile(watch)

    def _apply(
        self, unit: Unit, operands: tuple[Any, ...], nodes: tuple[Node, ...]
    ) -> tuple[Any, ...]:
        results = self.templates.expand(unit, computed_anew(unit, nodes))
        if self.elsewhere and not crosses_devices(unit):
            common_device(unit, operands)
            results = placed_results(unit, nodes, results)
        outputs = tuple([self._output(unit, operands, nodes, r) for r in results])
        if isinstance(unit, View):
            self._note_view(unit, operands[0], outputs[0])
        if state.grad_enabled and any(getattr(x, "requires_grad", False) for x in operands):
            record(unit, operands, outputs, self.saves_of(unit, operands))
        return outputs

    def _moved(self, x: Tensor, device: str) -> Tensor:
        """A constant of the program on another device: a second constant."""
        assert x.array is not None
        out = type(x).of_array(moved(x.array, device), x.type.at(device), None)
        self.created[id(out)] = out
        return out

    def _is_constant(self, x: Any) -> bool:
        return self.is_known(x) and not (x.requires_grad and state.grad_enabled)

    def _output(
        self, unit: Unit, operands: tuple[Any, ...], nodes: tuple[Node, ...], result: Node
    ) -> Any:
        if is_gradient(unit) and result in nodes:
            same = operands[nodes.index(result)]
            if hasattr(same, "version"):
                return same
        return self.trace_node(result)

    def _note_view(self, unit: View, source: Tensor, out: Tensor) -> None:
        """Remember that `out` shares the memory of `source`, where it does in eager mode too."""
        type, layout = self.type_of(source), self.layout_of(source)
        steps = contiguous_strides(type.shape) if layout is None else layout
        strides = self.templates.fact(
            ("view", unit, type, steps), lambda: self._strides_of_view(unit, type, steps)
        )
        if strides is None:
            return
        whole = contiguous_strides(out._type.shape)
        out.layout = None if all(map(same, strides, whole)) else strides  # type: ignore[assignment]
        source.shares(out, unit)
        self.views.add(out, source, unit)

    def _strides_of_view(
        self, unit: View, type: TensorType, steps: tuple[Dim, ...]
    ) -> tuple[Dim, ...] | None:
        """Strides in elements of a view of a tensor; None where it is a copy."""
        if self.symbols.values and isinstance(unit, Reshape):
            return reshaped_steps(type.shape, steps, unit.shape)
        placed = input_node(0, type)
        found = view_of(unit.trace(placed)[0], placed, steps)
        if found is None and self.symbols.values:
            raise Unsupported("a view of a tensor of symbolic size", op=unit.name)
        if found is None or any(evaluate(s, self.symbols.values) < 0 for s in found[1]):
            return None
        return found[1]

    def note_detached(self, source: Tensor, out: Tensor) -> None:
        """`out` shares the memory of `source`; a change of one changes the other."""
        self.views.add(out, source, None)
        if source.node is None:
            self.values[id(out)] = self.node_of(source)
            self.handles[id(out)] = out
            if id(source) in self.symbols.layouts:
                self.symbols.layouts[id(out)] = self.symbols.layouts[id(source)]
        else:
            self.made.append(weakref.ref(out))

    note_copied = note_detached

    def note_created(self, x: Tensor, how: str) -> None:
        """A tensor made from Python numbers during the trace is a constant of the program."""
        if how:
            raise Unsupported(
                f"{how} is called while tracing",
                why="the array's values could change without the compiled program noticing",
                hint="call it outside of the function",
            )
        self.created[id(x)] = x

    def filled(self, shape: tuple[int, ...], value: Number, dtype: DType) -> Tensor | None:
        """A tensor of one value that later calls have others for; None where the value is asked
        for all the same."""
        if dtype.is_low or not (dtype.is_float or (dtype is int64 and isinstance(value, int))):
            return None
        return self.trace_node(copy(expand_to(cast_node(self.node_of(value), dtype), shape)))

    def note_flag(self, x: Tensor) -> None:
        """`requires_grad` of a tensor is about to change."""
        if x.node is None and id(x) not in self.created and id(x) not in self.handles:
            raise Unsupported(
                "requires_grad of a tensor from outside is changed",
                actual=f"{x.type!r}",
                hint="change it outside of the function",
            )

    def note_cut(self, x: Tensor) -> None:
        """A tensor is about to forget its history."""
        if x.requires_grad:
            self.note_flag(x)

    def taken(self, operands: tuple[Any, ...]) -> tuple[Any, ...]:
        """Operands of a change in place as the tape knows them."""
        return operands

    # -- changes ------------------------------------------------------------------------------

    def write(self, target: Tensor, unit: Unit, others: tuple[Any, ...]) -> None:
        """A change in place."""
        behind = self._behind(target, unit)
        operands = (target, *others)
        nodes = [self.node_of(x) for x in operands]
        if self.elsewhere:
            common_device(unit, operands)
        (node,) = unit.trace(*nodes)
        check_write(unit, target.type, node.type)
        root = target
        for source, view in behind:
            if view is not None:
                node = Overwrite.of(view).on(self.node_of(source), node)
            root = source
        self.assign(root, node)
        target.changed()
        self.changed.append(target)
        if target._version is root._version:
            times, _ = self.times.pop(id(root), (0, None))
            self.times[id(root)] = (times + 1, target._version[2])

    def saves_of(self, unit: Unit, operands: tuple[Any, ...]) -> Saves:
        """What is known of the gradient of a unit on such operands."""
        key = ("saves", unit, *[x.type if hasattr(x, "sig") else type(x) for x in operands])
        return self.templates.fact(key, dict)

    def second(self, x: Tensor) -> Tensor:
        """A second handle on the value of a tensor as it is now, for the tape."""
        out = self.of_node(self.node_of(x), self)
        out._version = x._version
        return out

    def before_change(self, x: Tensor) -> Tensor:
        """The value of a tensor that is about to be changed: a node, which stays as it is."""
        return self.second(x)

    def check_recorded(self, target: Tensor, writer: Named) -> None:
        """Refuse to give a tensor from outside a graph."""
        if target.node is None and id(target) not in self.created:
            raise Unsupported(
                "a tensor from outside of the function would get a graph inside",
                op=writer.name,
                actual=f"{target.type!r}",
                hint="change it under dg.no_grad()",
            )

    def assign(self, target: Tensor, node: Node) -> None:
        """Let a tensor that is no view have another value from now on."""
        if node.device != target._type.device:
            node = placed(node, target._type.device)
        if target.node is not None:
            target.node = node
            shown = [target]
        elif id(target) in self.created:
            self.node_of(target)
            self.written[id(target)] = target
            self.values[id(target)] = node
            shown = [target]
        else:
            shown = self.sharing.write(target, node)
        self._refresh_views(shown)

    def _behind(self, target: Tensor, unit: Unit) -> list[tuple[Tensor, View | None]]:
        """What a tensor is a view of, step by step: (source, view of it)."""
        out: list[tuple[Tensor, View | None]] = []
        if is_expanded(target):
            raise not_writeable("an expanded view")
        while True:
            found = self.views.source_of(target)
            if found is None and (target.base is None or self.sharing.knows(target)):
                break
            if found is None or isinstance(found[1], Expand) or (found[1] and found[1].shared):
                raise Unsupported(
                    "a view is changed in place whose memory cannot be followed",
                    op=unit.name,
                    actual=f"{target.type!r}",
                    hint="change the tensor itself",
                )
            out.append(found)
            target = found[0]
        return out

    def _refresh_views(self, bases: list[Tensor]) -> None:
        """Views show the new values of what they are views of."""
        for view, source, unit in self.views.above(bases):
            node = self.node_of(source)
            new = node if unit is None else unit.trace(node)[0]
            if view.node is not None:
                view.node = new
            else:
                self.values[id(view)] = new

    def grad_of(self, t: Tensor) -> Tensor | None:
        found = self.grads.get(id(t))
        if found is not None:
            return found[1]
        k = self.position.get(id(t))
        if k is not None and k not in self.grads_read:
            self.grads_read.append(k)
        return t._grad

    def set_grad(self, t: Tensor, value: Tensor | None) -> None:
        here = t.node is not None or id(t) in self.created or id(t) in self.handles
        if not here and id(t) not in self.position:
            raise Unsupported(
                "the gradient of a tensor is set that cannot be followed",
                actual=f"{t.type!r}",
                hint="pass the tensor as an argument",
            )
        self.grads[id(t)] = (t, value)

    def is_known(self, t: Any) -> bool:
        """Whether a tensor has its values while tracing: the function has made it from numbers."""
        return t.node is None and id(t) in self.created and id(t) not in self.written

    def needs_value(self, t: Tensor, what: str) -> None:
        """Python asks for numbers while tracing."""
        if self.is_known(t):
            return
        raise Unsupported(
            f"{what} asks for the values of a tensor inside a compiled function",
            expect="code that does not depend on values",
            actual=f"{t.type!r}",
            why="values are not known while the function is traced",
            hint="use dg.where(...), or move this outside of the function",
        )

    def forget_changes(self) -> None:
        """Let tensors from outside know nothing of the changes and views that the trace made."""
        while self.changed:
            self.changed.pop()._version[0] -= 1
        views = self.views.alive()
        dead = set(map(id, views))
        for version in {id(v._version): v._version for v in views}.values():
            version[1] = [ref for ref in version[1] or () if id(ref()) not in dead]
        self.views.clear()
        self.grads.clear()

    def leaked(self, kept: set[int]) -> Tensor | None:
        """A traced tensor that is still referred to, though no result or effect holds it."""
        self.views.clear()
        self.changed = [t for t in self.changed if t.node is None]
        for again in (True, False):
            alive = [t for ref in self.made if (t := ref()) is not None and id(t) not in kept]
            if not alive or not again:
                return alive[0] if alive else None
            del alive
            gc.collect()  # what only a reference cycle holds does not count
        return None
