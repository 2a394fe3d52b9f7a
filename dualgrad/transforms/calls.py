"""A call of a function on tensors of its own, recorded, and what can be asked of its tape."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeGuard

from dualgrad.compiler.ir.value import apply
from dualgrad.compiler.ops.joining import stack
from dualgrad.compiler.ops.view import Reshape
from dualgrad.creation import full_like, ones_like, tensor, zeros_like
from dualgrad.gradients import flow
from dualgrad.gradients.hooks import on_leaves, on_nodes
from dualgrad.gradients.tape import TapeNode, next_number
from dualgrad.runtime.errors import (
    ArgumentError,
    DeviceError,
    DTypeError,
    GradientError,
    OperandError,
    ShapeError,
)
from dualgrad.state import enable_grad, no_grad, state
from dualgrad.tensor import Tensor
from dualgrad.transforms import levels, trees
from dualgrad.transforms.levels import Level

Fun = Callable[..., Any]
By = int | tuple[int, ...]
Slots = list[Tensor | None]


class _Running(threading.local):
    """The calls whose functions are running, the outer ones first."""

    calls: tuple[Call, ...] = ()


_running = _Running()


class Call:
    """One recorded call `fun(*args, **kwargs)`, to be differentiated by the arguments `by`.

    value, aux   what it gave
    own          leaves that nobody else knows, by id: its own, and those of calls inside
    """

    def __init__(
        self,
        op: str,
        fun: Fun,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        by: By,
        has_aux: bool = False,
    ) -> None:
        self.op = op
        self.single = isinstance(by, int)
        self.connects = state.grad_enabled
        self.first = next_number()  # nodes of the tape before it come from outside
        self.own: dict[int, Tensor] = {}
        self.variables = Variables(op, args, _places(op, by, args, kwargs), self.leaf)
        found = self._run(fun, kwargs)
        self.aux: Any = None
        self.value, self.aux = _with_aux(op, found) if has_aux else (found, None)
        self.outputs = [_end(y) for _, y in trees.leaves(self.value) if is_float(y)]
        self.connected = self.connects and (
            any(self.reach_outside(self.outputs))
            or any(map(levels.is_recorded_beneath, self.outputs))
        )

    def _run(self, fun: Fun, kwargs: dict[str, Any]) -> Any:
        outer = _running.calls
        _running.calls = (*outer, self)
        try:
            with enable_grad(), self.variables.standing_in():
                return fun(*self.variables.args, **kwargs)
        finally:
            _running.calls = outer

    def leaf(self, x: Tensor) -> Tensor:
        """A leaf of the tape with the value of x, which calls around this one know, too."""
        out = levels.cut(x).requires_grad_()
        for call in (*_running.calls, self):
            call.own[id(out)] = out
        return out

    def let_go(self) -> None:
        """Take the value off the tape, unless it is connected with tensors from outside."""
        self.value = trees.mapped(lambda _, y: self._freed(y), self.value)
        self.aux = trees.mapped(lambda _, y: self._freed(y), self.aux)

    # -- derivatives --------------------------------------------------------------------------

    def gradient(self) -> Any:
        """The gradient of a value that is a scalar."""
        y = self.value
        if not is_float(y) or y.shape != ():
            raise _no_scalar(self.op, y)
        found = self.pull([ones_like(y)], self.connected, self.connected)
        self.let_go()
        return self.by_arguments(found)

    def pulled(self, seeds: Slots) -> Any:
        """Seeds, one for each tensor of the value, times the Jacobian."""
        create = state.grad_enabled and (self.connected or any(map(_is_recorded, seeds)))
        return self.by_arguments(self.pull(seeds, create, True))

    def pushed(self, tangents: Slots) -> Any:
        """The Jacobian times tangents, one for each variable, in the structure of the value.

        What seeds become at the variables is linear in the seeds: its own gradient by them is
        the Jacobian, whatever the seeds are.
        """
        create = self.connects and (self.connected or any(map(_is_recorded, tangents)))
        seeds, rows = self.linear()
        found = gradients(rows, seeds, tangents, create, create)
        return self.by_outputs(
            [
                zeros_like(y) if t is None else self._freed(t)
                for t, y in zip(found, self.outputs, strict=True)
            ]
        )

    def linear(self) -> tuple[list[Tensor], Slots]:
        """Seeds, one for each tensor of the value, and what they become, recorded."""
        with enable_grad():
            seeds = [self.leaf(ones_like(y)) for y in self.outputs]
            return seeds, self.pull([*seeds], True, True)

    # -- the tape -----------------------------------------------------------------------------

    def pull(self, seeds: Slots, create: bool, retain: bool) -> Slots:
        """What seeds, one for each tensor of the value, become at the variables."""
        level = levels.current()
        if level is None or self.first > level.first_node or self.takes_many(self.outputs):
            return gradients(self.outputs, self.variables.tensors, seeds, create, retain)
        return self._pull_slices(level, seeds, create)

    def _pull_slices(self, level: Level, seeds: Slots, create: bool) -> Slots:
        """The same for a graph from outside of vmap that takes one gradient at a time."""
        if any(s is not None and level.owns(s) and s.requires_grad for s in seeds):
            raise GradientError(
                "a product with a Jacobian is differentiated inside vmap by what it multiplies",
                op=self.op,
                expect="a function made of ops alone, if it has been called outside of vmap",
                actual="one with hooks, or with gradients that are compiled or the user's own",
                hint=f"call {self.op} inside of the function that is mapped",
            )
        wholes = [None if s is None else level.whole(s) for s in seeds]
        rows: list[list[Tensor]] = []
        with level.beneath(), enable_grad() if create else no_grad():
            for k in range(int(level.size)):
                found = self.pull([None if w is None else w.slice(k) for w in wholes], create, True)
                pairs = zip(found, self.variables.tensors, strict=True)
                rows.append([zeros_like(x) if g is None else g for g, x in pairs])
            columns = [stack(column) for column in zip(*rows, strict=True)]
        return [level.slices(x) for x in columns]

    def takes_many(self, tensors: Iterable[Tensor]) -> bool:
        """Whether all that tensors come from are units, with no hook that sees gradients.

        A user's own backward, and that of a compiled function, take a gradient at a time.
        """
        if any(id(x) in on_leaves for x in self.variables.tensors):
            return False
        return all(type(n) is TapeNode and id(n) not in on_nodes for n in self.nodes(tensors))

    def _freed(self, y: Any) -> Any:
        """A result as the caller gets it: connected with tensors from outside, or with none."""
        if not isinstance(y, Tensor) or not y.requires_grad:
            return y
        if id(y) in self.own:
            return levels.cut(y)
        if y.grad_fn is None or y.grad_fn.number < self.first:
            return y
        if not (self.connects and self.reach_outside([y])[0]):
            y.requires_grad, y.grad_fn = False, None
        return y

    def reach_outside(self, tensors: Iterable[Tensor]) -> list[bool]:
        """Whether the history of each tensor leads to tensors that others know as well."""
        tensors = list(tensors)
        ends = [y.grad_fn if y.grad_fn is not None else y for y in tensors if y.requires_grad]
        inside: set[Any] = set()

        def is_inside(edge: Any) -> bool:
            if edge is None or isinstance(edge, Tensor):
                return edge is None or id(edge) in self.own
            return edge[0] in inside

        for node in self.nodes(tensors):
            if all(map(is_inside, node.edges)):
                inside.add(node)
        return [not is_inside(e if isinstance(e, Tensor) else (e, 0)) for e in ends]

    def nodes(self, tensors: Iterable[Tensor]) -> list[TapeNode]:
        """The nodes of this call that tensors come from, the oldest first."""
        return flow.nodes_behind((y for y in tensors if y.requires_grad), self.first)

    # -- structure ----------------------------------------------------------------------------

    def by_arguments(self, found: Slots) -> Any:
        """Results, one for each variable, in the structure of the arguments."""
        made = self.variables.tree(
            [
                zeros_like(x) if g is None else self._freed(g)
                for g, x in zip(found, self.variables.tensors, strict=True)
            ]
        )
        return made[0] if self.single else tuple(made)

    def by_outputs(self, found: Iterable[Any]) -> Any:
        """Results, one for each tensor of the value, in its structure."""
        rest = iter(found)
        return trees.mapped(lambda _, y: next(rest) if is_float(y) else None, self.value)

    def seeds(self, cotangent: Any) -> Slots:
        """A seed for each tensor of the value, from a tree of its structure."""
        return fitting(self.op, "cotangent", self.by_outputs(self.outputs), cotangent)


class Variables:
    """What a call is differentiated by: tensors of its own in place of those it was given.

    A tensor of its own is a leaf, or, where the given one requires gradients and the tape is on,
    a view of that.  The parameters of a Module are variables as they are.
    """

    def __init__(
        self,
        op: str,
        args: Sequence[Any],
        places: Sequence[int],
        leaf: Callable[[Tensor], Tensor],
    ) -> None:
        self.op = op
        self.leaf = leaf
        self.tensors: list[Tensor] = []
        self.stand_ins: dict[int, Tensor] = {}
        self.given = [args[k] for k in places]
        self.args = list(args)
        for k in places:
            count = len(self.tensors)
            self.args[k] = trees.mapped(self._variable, args[k], path=f"argument {k}")
            found = next(trees.leaves(args[k]), None)
            if len(self.tensors) == count and found is not None and not is_module(found[1]):
                raise _no_variable(op, k, found[1])
        del self.leaf  # a cycle would keep the tape until the garbage is collected

    def _variable(self, path: str, x: Any) -> Any:
        if is_module(x):
            self.tensors += [self._parameter(p) for _, p in parameters(x)]
            return x
        if isinstance(x, float):
            x = tensor(x)
        if not is_float(x):
            _check_other(self.op, path, x)
            return x
        if x.requires_grad and state.grad_enabled and not levels.is_shared(x):
            mine = apply(Reshape.of(x.type.shape), x)[0]
        else:
            mine = self.leaf(x)
        self.tensors.append(mine)
        return mine

    def _parameter(self, p: Tensor) -> Tensor:
        """What stands for a parameter: itself, or, of one that slices share, a leaf of a slice."""
        level = levels.current()
        if level is None or level.owns(p):
            return p
        if id(p) not in level.watched:
            self.stand_ins[id(p)] = level.watched[id(p)] = self.leaf(p)
        return level.watched[id(p)]

    @contextmanager
    def standing_in(self) -> Iterator[None]:
        """Let what stands for parameters do so, until the function has run."""
        level = levels.current()
        try:
            yield
        finally:
            for key in self.stand_ins:
                assert level is not None
                del level.watched[key]

    def tree(self, values: Iterable[Any]) -> list[Any]:
        """Values, one for each variable, in the structure of the arguments."""
        rest = iter(values)

        def value(_: str, x: Any) -> Any:
            if is_module(x):
                return {name: next(rest) for name, _ in parameters(x)}
            return next(rest) if isinstance(x, float) or is_float(x) else None

        return [trees.mapped(value, x) for x in self.given]

    def matched(self, tangents: Any) -> Slots:
        """A tangent for each variable, from trees of the structure of the arguments."""
        check_list(self.op, "tangents", tangents)
        if len(tangents) != len(self.given):
            raise ArgumentError(
                "not as many tangents as primals",
                op=self.op,
                expect=f"{len(self.given)}",
                actual=f"{len(tangents)}",
                hint="give one tangent per primal, both in tuples",
            )
        return fitting(self.op, "tangent", self.tree(self.tensors), list(tangents))


# -- the tape -------------------------------------------------------------------------------------


def gradients(
    outputs: Iterable[Tensor | None],
    inputs: Sequence[Tensor],
    seeds: Iterable[Tensor | None],
    create: bool,
    retain: bool,
) -> Slots:
    """What seeds of outputs become at inputs; None where nothing arrives."""
    sent = [
        (y, s)
        for y, s in zip(outputs, seeds, strict=True)
        if y is not None and s is not None and y.requires_grad
    ]
    if not sent or not inputs:
        return [None] * len(inputs)
    return flow.gradients([y for y, _ in sent], inputs, [s for _, s in sent], retain, create)


def _end(y: Tensor) -> Tensor:
    """A second handle on a result, which stays on the tape when the first is taken off."""
    if y.grad_fn is None:
        return y
    return y.with_history(y.grad_fn, y.output_number)


def _is_recorded(x: Any) -> bool:
    return isinstance(x, Tensor) and levels.is_recorded(x)


# -- what is a variable ---------------------------------------------------------------------------


def is_float(x: Any) -> TypeGuard[Tensor]:
    return isinstance(x, Tensor) and x.dtype.is_float


def is_module(x: Any) -> bool:
    """Whether x is an nn.Module (asked without importing it)."""
    return hasattr(type(x), "named_parameters")


def parameters(module: Any) -> list[tuple[str, Tensor]]:
    """The parameters of a Module that require gradients, by name."""
    return [(n, p) for n, p in module.named_parameters() if p.requires_grad]


def fitting(op: str, what: str, tree: Any, given: Any) -> Slots:
    """The leaves of a tree of tensors, checked to go with those of another; None stays None."""
    wrong = trees.difference(tree, given, f"the {what}")
    if wrong is not None:
        raise ArgumentError(
            f"the {what} has another structure",
            op=op,
            actual=wrong,
            hint="give it the containers and keys of what it belongs to",
        )
    out: Slots = []

    def fit(path: str, x: Tensor, g: Any) -> None:
        out.append(None if g is None else _fitted(op, path, x, g))

    trees.mapped(fit, tree, given, path=f"the {what}")
    return out


def _fitted(op: str, path: str, x: Tensor, g: Any) -> Tensor:
    if isinstance(g, int | float) and x.shape == ():
        return full_like(x, g)
    if not isinstance(g, Tensor):
        raise OperandError(
            f"{path} is no tensor",
            op=op,
            expect=f"{x.type!r}",
            actual=type(g).__name__,
            hint="convert it with dg.tensor(...), or leave it out of argnums",
        )
    if g.shape != x.shape:
        raise ShapeError(
            f"{path} has another shape",
            op=op,
            expect=f"{x.shape}",
            actual=f"{g.shape}",
            hint="dg.ones_like(...) makes one of the right shape",
        )
    if g.type.dtype is not x.type.dtype:
        name = x.type.dtype.name
        raise DTypeError(
            f"{path} has another dtype",
            op=op,
            expect=name,
            actual=g.type.dtype.name,
            hint=f"convert it with .astype(dg.{name})",
        )
    if g.type.device != x.type.device:
        raise DeviceError(
            f"{path} is on another device",
            op=op,
            expect=x.type.device,
            actual=g.type.device,
            hint=f'move it with .to("{x.type.device}")',
        )
    return g


# -- checks ---------------------------------------------------------------------------------------


def numbers(op: str, fun: Any, argnums: Any) -> By:
    """Checked argument numbers: one, or a tuple."""
    check_function(op, fun)
    try:
        if isinstance(argnums, Sequence) and not isinstance(argnums, str):
            return tuple(operator.index(k) for k in argnums)
        return operator.index(argnums)
    except TypeError:
        raise ArgumentError(
            "argnums are numbers of arguments",
            op=op,
            expect="an int or a tuple of them",
            actual=repr(argnums),
            hint="count positional arguments from 0",
        ) from None


def check_function(op: str, fun: Any) -> None:
    if callable(fun) and not isinstance(fun, Tensor):
        return
    raise OperandError(
        f"{op} takes a function",
        op=op,
        expect="a callable",
        actual=f"a {type(fun).__name__}",
        hint="dg.autograd.grad(outputs, inputs) differentiates tensors"
        if isinstance(fun, Tensor)
        else f"pass the function itself: dg.{op}(f)",
    )


def check_list(op: str, what: str, given: Any) -> None:
    if not isinstance(given, tuple | list):
        raise ArgumentError(
            f"{what} are a tuple",
            op=op,
            expect="a tuple or list with one entry for each argument of the function",
            actual=f"a {type(given).__name__}",
            hint=f"write ({what[:-1]},)",
        )


def _places(op: str, by: By, args: Sequence[Any], kwargs: dict[str, Any]) -> list[int]:
    out: list[int] = []
    for k in by if isinstance(by, tuple) else (by,):
        if not -len(args) <= k < len(args):
            raise ArgumentError(
                "there is no such argument to differentiate by",
                op=op,
                expect=f"at least {k + 1 if k >= 0 else -k} positional arguments",
                actual=f"{len(args)} and {len(kwargs)} by keyword",
                hint="pass it by position" if kwargs else "argnums counts from 0",
            )
        if k % len(args) in out:
            raise ArgumentError(
                "an argument is named twice",
                op=op,
                expect="each number once in argnums",
                actual=f"{by}",
                hint="a function of several arguments can be given the same tensor for each",
            )
        out.append(k % len(args))
    return out


def _with_aux(op: str, found: Any) -> tuple[Any, Any]:
    if isinstance(found, tuple) and len(found) == 2:
        return found[0], found[1]
    raise ArgumentError(
        "with has_aux=True the function returns a pair",
        op=op,
        expect="(value, anything)",
        actual=f"a tuple of {len(found)}" if isinstance(found, tuple) else _kind(found),
        hint="return (result, aux), or leave has_aux out",
    )


def _kind(x: Any) -> str:
    if isinstance(x, Tensor):
        return f"{x.type!r}"
    return "None" if x is None else f"a {type(x).__name__}"


def _no_scalar(op: str, y: Any) -> GradientError:
    hint = "return a tensor computed from the arguments"
    if isinstance(y, tuple):
        hint = "return one tensor; has_aux=True allows for something beside it"
    elif isinstance(y, Tensor):
        hint = "end it with .sum() or .mean(), or use dg.jacobian" if y.shape != () else ""
    return GradientError(
        "only a single number has a gradient",
        op=op,
        expect="a function whose result is a float tensor of shape ()",
        actual=_kind(y),
        hint=hint,
    )


def _no_variable(op: str, k: int, x: Any) -> DTypeError:
    number = isinstance(x, int) and not isinstance(x, bool)
    hint = "make it a float: .astype(dg.float32)" if isinstance(x, Tensor) else ""
    return DTypeError(
        "only floats have gradients",
        op=op,
        expect=f"floats in argument {k}",
        actual=repr(x) if number else _kind(x),
        hint=f"write {x}.0" if number else hint or "argnums chooses another argument",
    )


def _check_other(op: str, path: str, x: Any) -> None:
    """Refuse arrays of other libraries: without a gradient, they would pass for constants."""
    if hasattr(x, "__array__") and not isinstance(x, Tensor):
        raise OperandError(
            f"{path} is an array of another library",
            op=op,
            expect="a dualgrad Tensor",
            actual=f"a {type(x).__module__}.{type(x).__name__}",
            hint="convert it with dg.tensor(...)",
        )
