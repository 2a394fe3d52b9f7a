"""Functions whose gradient the user writes: `dg.autograd.Function`, with PyTorch's rules."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from dualgrad.compiler.ir.dims import same
from dualgrad.compiler.ir.types import TensorType
from dualgrad.creation import zeros
from dualgrad.gradients.flow import Flow, apart
from dualgrad.gradients.rewriting import rebase, steps_behind
from dualgrad.gradients.tape import Edge, TapeNode, changed_error, edge_of, freed_error, next_number
from dualgrad.runtime.errors import ArgumentError, GradientError, OperandError, ShapeError
from dualgrad.runtime.srcinfo import user_place
from dualgrad.state import no_grad, state
from dualgrad.tensor import Tensor
from dualgrad.transforms import levels

if TYPE_CHECKING:
    from dualgrad.transforms.levels import Level

F = TypeVar("F", bound=Callable[..., Any])
Saved = tuple[Tensor | None, int, int]  # a tensor, its version, and which output it is or -1


class Context:
    """What `forward` leaves for `backward`: saved tensors, and any attributes.

    `needs_input_grad` says for each argument whether it requires a gradient.
    """

    def __init__(self, needs_input_grad: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs_input_grad
        self._given: tuple[Tensor | None, ...] = ()
        self._saved: list[Saved] | None = []
        self._constant: tuple[Tensor, ...] = ()
        self._dirty: tuple[Tensor, ...] = ()
        self._materialize = True
        self._name = ""
        self._visiting: FunctionNode | None = None
        self._place = user_place()

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors (or None) for `backward`, which finds them in `saved_tensors`.

        A change in place between forward and backward is an error then, and what is kept is freed
        with the graph.
        """
        for x in tensors:
            if x is not None and not isinstance(x, Tensor):
                raise OperandError(
                    "only tensors are saved for backward",
                    op="save_for_backward",
                    expect="tensors or None",
                    actual=type(x).__name__,
                    hint="keep other values as attributes: ctx.n = n",
                )
        self._given = tensors
        self._saved = [(x, 0 if x is None else x.version, -1) for x in tensors]

    @property
    def saved_tensors(self) -> tuple[Tensor | None, ...]:
        """What `save_for_backward` was given.

        Raises GradientError if the graph has been freed, or a tensor has changed in place since.
        """
        if self._saved is None:
            raise freed_error(self._name)
        out: list[Tensor | None] = []
        for x, version, output in self._saved:
            if x is not None and x.version != version:
                raise changed_error(self._name, self._place, x.type, version, x._version)
            if x is not None and output >= 0 and self._visiting is not None:
                x = x.with_history(self._visiting, output)
            out.append(x)
        return tuple(out)

    def mark_non_differentiable(self, *outputs: Tensor) -> None:
        """Outputs that have no gradient; their place in the arguments of `backward` has zeros."""
        self._constant = outputs

    def mark_dirty(self, *inputs: Tensor) -> None:
        """Inputs that `forward` has changed in place; it has to return them."""
        self._dirty = inputs

    def set_materialize_grads(self, value: bool) -> None:
        """Whether `backward` gets zeros (the default), or None, where an output has no gradient."""
        self._materialize = value

    def _seal(self, name: str, outputs: Sequence[Any]) -> None:
        """After forward: what is saved must not hold on to the outputs, nor to their graph."""
        self._name = name
        place = {id(x): k for k, x in reversed([*enumerate(outputs)])}
        saved: list[Saved] = []
        for x in self._given:
            k = -1 if x is None else place.get(id(x), -1)
            same = x if x is None or k < 0 else x.detached()
            saved.append((same, 0 if x is None else x.version, k))
        self._saved, self._given = saved, ()


class Function:
    """A function of tensors with a gradient of its own.

        class Exp(dg.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                y = x.exp()
                ctx.save_for_backward(y)
                return y

            @staticmethod
            def backward(ctx, g):
                (y,) = ctx.saved_tensors
                return g * y

        y = Exp.apply(x)

    `forward` runs without recording and returns a tensor or a tuple; `backward` gets the gradient
    of each output and returns that of each argument, None for those without one.  What backward
    computes is recorded with `create_graph=True`, so it has derivatives itself (see
    `once_differentiable`).  Instead of using `ctx`, forward may leave that to a static method
    `setup_context(ctx, inputs, output)`, and takes the arguments alone then.
    """

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """The value, from (ctx, *args); from args alone beside a `setup_context`."""
        raise NotImplementedError("a Function needs a static method forward(ctx, *args)")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> Any:
        """Save for backward what it needs of inputs and output."""
        raise NotImplementedError("setup_context is optional")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """The gradient of each argument, from that of each output."""
        raise NotImplementedError("a Function needs a static method backward(ctx, *grad_outputs)")

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Run `forward` on the arguments, and record it for gradients."""
        level = levels.current()
        if level is not None:
            args = level.taken(args)
        tensors = [x for x in args if isinstance(x, Tensor)]
        ctx = Context(tuple(isinstance(x, Tensor) and levels.is_recorded(x) for x in args))
        recorded = state.grad_enabled and any(x.requires_grad for x in tensors)
        edges = tuple(edge_of(x) if isinstance(x, Tensor) else None for x in args)
        result = _called(cls, ctx, args) if level is None else _of_slices(level, cls, ctx, args)
        alone = not isinstance(result, tuple)
        outputs = [result] if alone else list(result)
        _check_dirty(cls.__name__, ctx, outputs)
        ctx._seal(cls.__name__, outputs)
        if recorded:
            node = FunctionNode(cls, ctx, edges, outputs)
            node.takes = tuple([isinstance(x, Tensor) for x in args])
            known = {id(x) for x in tensors}
            for k, x in enumerate(outputs):
                if node.is_differentiable[k]:
                    outputs[k] = _with_node(x, node, k, known, ctx)
                    known.add(id(x))
        ctx._constant = ctx._dirty = ()
        return outputs[0] if alone else tuple(outputs)


def _called(function: type[Function], ctx: Context, args: Sequence[Any]) -> Any:
    """What forward gives."""
    with no_grad():
        if function.setup_context is Function.setup_context:
            return function.forward(ctx, *args)
        result = function.forward(*args)
        function.setup_context(ctx, tuple(args), result)
        return result


def _of_slices(level: Level, function: type[Function], ctx: Context, args: Sequence[Any]) -> Any:
    """What forward gives within vmap, as a function of what is beneath the slices: the gradient
    of that runs backward on slices again."""
    wholes = [level.whole(x) if isinstance(x, Tensor) else None for x in args]
    result: Any = None

    def forward(beneath: Context, *_: Any) -> tuple[Any, ...]:
        nonlocal result
        with level.above():
            result = _without(args, level, ctx, _called(function, ctx, args))
            if ctx._dirty:
                raise ArgumentError(
                    "a function of the user's own changes its arguments inside vmap",
                    op=function.__name__,
                    expect="a forward that does not call mark_dirty",
                    actual=f"{len(ctx._dirty)} changed arguments",
                    hint="return new tensors",
                )
            found = [
                (y, level.put_together(y) if isinstance(y, Tensor) else y)
                for y in _in_tuple(result)
            ]
        beneath._constant = tuple(x for y, x in found if any(y is c for c in ctx._constant))
        return tuple(x for _, x in found)

    def backward(beneath: Context, *grads: Tensor) -> list[Tensor | None]:
        with level.above():
            found = function.backward(ctx, *map(level.slices, grads))
            return [level.put_together(g) if isinstance(g, Tensor) else g for g in _in_tuple(found)]

    rules = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    kind: Any = type(function.__name__, (Function,), rules)
    with level.beneath():
        pairs = zip(args, wholes, strict=True)
        made = kind.apply(*[x if w is None else w.tensor for x, w in pairs])
    for y, x in zip(_in_tuple(result), made, strict=True):
        if isinstance(y, Tensor):
            level.put_over(y, x)
    return result


def _without(args: Sequence[Any], level: Level, ctx: Context, result: Any) -> Any:
    """A result with second handles on arguments that forward returns."""
    known = {id(x) for x in args if isinstance(x, Tensor)}
    returned = {id(x): x for x in _in_tuple(result) if id(x) in known}
    if not returned:
        return result
    second = {k: level.slice_of(level.whole(x)) for k, x in returned.items()}
    ctx._constant = tuple(second.get(id(x), x) for x in ctx._constant)
    ctx._given = tuple(second.get(id(x), x) for x in ctx._given)
    found = tuple(second.get(id(x), x) for x in _in_tuple(result))
    return found if isinstance(result, tuple | list) else found[0]


def _in_tuple(x: Any) -> Sequence[Any]:
    return x if isinstance(x, tuple | list) else (x,)


def _check_dirty(name: str, ctx: Context, outputs: Sequence[Any]) -> None:
    for x in ctx._dirty:
        if not any(x is y for y in outputs):
            raise ArgumentError(
                "an input that is marked as dirty is not returned",
                op=name,
                expect="forward to return every tensor given to mark_dirty",
                actual=f"{x.type!r} is not among the outputs",
                hint="return it from forward, changed in place",
            )


def _with_node(x: Tensor, node: FunctionNode, k: int, known: set[int], ctx: Context) -> Tensor:
    """An output of forward with its place on the tape."""
    if any(x is d for d in ctx._dirty):
        _become(x, node, k)
        return x
    if id(x) in known or x.requires_grad or (state.trace is not None and x.node is None):
        x = x.detach()
    x.of_function()  # its gradient is that of the function, not of a view
    x.requires_grad, x.grad_fn, x.output_number = True, node, k
    return x


def _become(x: Tensor, node: FunctionNode, k: int) -> None:
    """Give an input that has been changed in place its new history."""
    rebase(x, steps_behind(x, node), node, k)


class FunctionNode(TapeNode):
    """One call of a `Function` on the tape."""

    __slots__ = ("ctx", "function", "is_differentiable", "takes")

    edges: tuple[Edge, ...]
    takes: tuple[bool, ...]  # which arguments are tensors

    def __init__(
        self,
        function: type[Function],
        ctx: Context,
        edges: tuple[Edge, ...],
        outputs: Sequence[Any],
    ) -> None:
        self.function, self.ctx, self.edges = function, ctx, edges
        self.number, self.place = next_number(), user_place()
        self.released = False
        self.inputs = self.outputs = ()
        self.versions = ()
        self.types = tuple([x.type if isinstance(x, Tensor) else None for x in outputs])  # type: ignore[misc]
        self.is_differentiable = [
            isinstance(x, Tensor) and x.dtype.is_float and not any(x is c for c in ctx._constant)
            for x in outputs
        ]

    @property
    def name(self) -> str:
        return self.function.__name__

    def release(self) -> None:
        super().release()
        self.ctx._saved = None

    def push(self, flow: Flow, slots: list[Tensor | None], retain: bool) -> None:
        if self.released:
            raise freed_error(self.name)
        for g in slots:  # the user's code may keep it
            flow.owned.pop(id(g), None)
        ctx = self.ctx
        if ctx._materialize:
            slots = [
                _zeros(t) if g is None and t is not None else g
                for g, t in zip(slots, self.types, strict=True)
            ]
        slots = [None if g is None else apart(g) for g in slots]
        ctx._visiting = self
        try:
            found = self.function.backward(ctx, *slots)
        finally:
            ctx._visiting = None
        grads = self._checked(found if isinstance(found, tuple | list) else (found,))
        edges = self.edges if flow.reach is None else flow.reach.only(self.edges)
        if not retain:
            self.release()
        for edge, g in zip(edges, grads, strict=True):
            if edge is not None and g is not None:
                flow.send(edge, g)

    def _checked(self, grads: Sequence[Any]) -> list[Tensor | None]:
        """The gradients that backward has returned, as the operands need them."""
        n = len(self.edges)
        if len(grads) < n or any(g is not None for g in grads[n:]):
            raise GradientError(
                "backward returns another number of gradients",
                op=self.name,
                expect=f"{n}, one for each argument of forward",
                actual=f"{len(grads)}",
                hint="return None for arguments that have no gradient",
            )
        return [self._fitted(k, g) for k, g in enumerate(grads[:n])]

    def _fitted(self, k: int, g: Any) -> Tensor | None:
        if g is None:
            return None
        if not isinstance(g, Tensor):
            raise GradientError(
                "backward returns something else than gradients",
                op=self.name,
                expect="tensors or None",
                actual=f"{type(g).__name__} for argument {k}",
                hint="return one tensor, or None, per argument of forward",
            )
        if not self.takes[k]:
            raise GradientError(
                "backward returns a gradient for an argument that is no tensor",
                op=self.name,
                expect=f"None for argument {k}",
                actual=f"{g.type!r}",
                hint="return the gradients in the order of the arguments of forward",
            )
        edge = self.edges[k]
        if edge is None:
            return None
        wanted = edge[0].types[edge[1]] if isinstance(edge, tuple) else edge.type
        return fitted(g, wanted, self.name, k)


def fitted(g: Tensor, type: TensorType, op: str, k: int) -> Tensor:
    """A gradient summed over what was broadcast, in the dtype of its tensor."""
    extra = g.ndim - len(type.shape)
    pairs = zip(g.shape[extra:], type.shape, strict=True) if extra >= 0 else ()
    fits = extra >= 0 and all(same(a, b) or same(b, 1) for a, b in pairs)
    if not fits or g.type.device != type.device:
        raise ShapeError(
            "backward returns a gradient that does not fit its argument",
            op=op,
            expect=f"{type!r} for argument {k}",
            actual=f"{g.type!r}",
            hint="a gradient has the shape, and is on the device, of its tensor",
        )
    axes = [*range(extra)]
    axes += [
        extra + i
        for i, n in enumerate(type.shape)
        if same(n, 1) and not same(g.shape[extra + i], 1)
    ]
    if axes:
        g = g.sum(axis=tuple(axes), keepdims=True).reshape(type.shape)
    return g if g.dtype is type.dtype else g.astype(type.dtype)


def _zeros(type: TensorType) -> Tensor:
    shape = type.shape if state.trace is None else state.trace.sizes(type.shape)
    return zeros(*shape, dtype=type.dtype, device=type.device)


class _Barred(TapeNode):
    """Where a gradient has no gradient itself."""

    __slots__ = ("_name",)

    def __init__(self, name: str, edges: tuple[Edge, ...], types: tuple[TensorType, ...]) -> None:
        self._name, self.edges, self.types = name, edges, types
        self.number, self.place = next_number(), user_place()
        self.released = False
        self.inputs = self.outputs = ()
        self.versions = ()

    @property
    def name(self) -> str:
        return self._name

    def push(self, flow: Flow, slots: list[Tensor | None], retain: bool) -> None:
        raise GradientError(
            "a gradient is differentiated that is marked as once_differentiable",
            op=self._name,
            expect="first derivatives of this function alone",
            actual="a derivative of its backward",
            hint="write backward with ops of tensors, and take the decorator away",
        )


def once_differentiable(backward: F) -> F:
    """Let the `backward` of a `Function` run without recording: its result has no derivative, and
    asking for one is an error."""

    @functools.wraps(backward)
    def call(ctx: Context, *grad_outputs: Any) -> Any:
        with no_grad():
            found = backward(ctx, *grad_outputs)
        if not state.grad_enabled:
            return found
        grads = found if isinstance(found, tuple | list) else (found,)
        places = [k for k, g in enumerate(grads) if isinstance(g, Tensor) and g.dtype.is_float]
        edges = () if ctx._visiting is None else ctx._visiting.edges
        edges += tuple(edge_of(g) for g in grad_outputs if isinstance(g, Tensor))
        node = _Barred(ctx._name, edges, tuple(grads[k].type for k in places))
        out = list(grads)
        for k, place in enumerate(places):
            out[place] = grads[place].detach()
            out[place].requires_grad, out[place].grad_fn = True, node
            out[place].output_number = k
        return tuple(out)

    return call  # type: ignore[return-value]
