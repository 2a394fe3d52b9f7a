"""Hooks on tensors: functions that see, and may replace, a gradient on its way back.

The hooks of a result of an op belong to its place on the tape, those of a leaf to the tensor.
They hang on that node or leaf, for a hook may refer to it: both are gone together then.  Tables
say which nodes and leaves have hooks, so that all others pay nothing.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from typing import Any

from dualgrad.jit.errors import Unsupported
from dualgrad.runtime.errors import ArgumentError, GradientError, ShapeError
from dualgrad.runtime.srcinfo import user_location
from dualgrad.state import state

Hook = Callable[..., Any]
Hooks = dict[int, Hook]

RETAINED = -1  # among hooks: the one that keeps a gradient
BEFORE, AFTER = 0, 1  # hooks of a leaf: on its gradient, and those that run once `.grad` is set
_numbers = itertools.count()
# by identity, what has hooks
on_nodes: dict[int, _Hooked] = {}
on_leaves: dict[int, _Hooked] = {}
# what compiled functions look at besides their arguments and what these lead to, by its name
of_all_modules: dict[str, object] = {}
stamp: dict[str, object] = {"now": object()}  # another one after each change of a hook


class _Hooked(weakref.ref[Any]):
    """A row of a table: a node or leaf that has hooks."""

    __slots__ = ("_table",)

    def __new__(cls, x: Any, table: dict[int, _Hooked]) -> _Hooked:
        key, forget = id(x), table.pop  # at the exit of the interpreter names of modules are gone
        return super().__new__(cls, x, lambda _: forget(key, None))

    def __init__(self, x: Any, table: dict[int, _Hooked]) -> None:
        self._table = table

    def look(self) -> None:
        """Leave the table if no hook is left."""
        x = self()
        if x is not None and not any(x._hooks.values()):
            self._table.pop(id(x), None)


class Handle:
    """Takes a hook away again, by `remove()` or at the end of a `with` block."""

    place: _Hooked | None = None  # of a hook of a node or leaf

    def __init__(self, hooks: Hooks, hook: Hook, first: bool = False) -> None:
        if not callable(hook):
            raise ArgumentError(
                "a hook is a function",
                op="register_hook",
                expect="a callable",
                actual=type(hook).__name__,
                hint="pass the function itself, without calling it",
            )
        self.number = next(_numbers)
        self._hooks = hooks
        others = dict(hooks) if first else {}
        for k in others:
            del hooks[k]
        hooks[self.number] = hook
        hooks.update(others)
        stamp["now"] = object()

    def remove(self) -> None:
        """Take the hook away; a second time does nothing."""
        if self.number in self._hooks:
            refuse_in_trace("a hook is removed")
            del self._hooks[self.number]
            stamp["now"] = object()
            if self.place is not None:
                self.place.look()

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def refuse_in_trace(what: str) -> None:
    """Changes of hooks that outlive a call are no part of a compiled program."""
    if state.trace is not None:
        raise Unsupported(
            f"{what} inside of the function",
            hint="do it outside of the function",
            location=user_location(),
        )


class Hookable:
    """Hooks of a tensor."""

    __slots__ = ()

    requires_grad: bool
    grad_fn: Any
    output_number: int

    def register_hook(self, hook: Hook) -> Handle:
        """Call `hook(gradient)` when the gradient of this tensor is known.

        What the hook returns, unless None, takes the gradient's place.  Returns a handle with
        `remove()`.  Raises GradientError for a tensor that does not require gradients.
        """
        if not self.requires_grad:
            raise GradientError(
                "there will be no gradient",
                op="register_hook",
                expect="a tensor with requires_grad=True",
                actual="requires_grad=False",
                hint="call requires_grad_() first, or take a tensor computed from one that has it",
            )
        if self.grad_fn is not None:
            if state.trace is not None:
                state.trace.hooked = True
            return _registered(self.grad_fn, on_nodes, self.output_number, hook)
        _refuse_outside(self)
        return _registered(self, on_leaves, BEFORE, hook)

    def register_post_accumulate_grad_hook(self, hook: Hook) -> Handle:
        """Call `hook(tensor)` whenever a backward pass has added to the `.grad` of this leaf.

        The hook runs as soon as the gradient is complete, before others are, so it can use and
        drop it (`tensor.grad = None`) while backward goes on; what it returns is not used.
        Returns a handle with `remove()`.  Raises GradientError for a tensor that is no leaf or
        does not require gradients.
        """
        if not self.requires_grad or self.grad_fn is not None:
            raise GradientError(
                "only leaves that require gradients add them up",
                op="register_post_accumulate_grad_hook",
                expect="a leaf with requires_grad=True",
                actual=f"a result of {self.grad_fn.name}"
                if self.grad_fn is not None
                else "requires_grad=False",
                hint="use register_hook(hook) for the gradient of a result",
            )
        _refuse_outside(self)
        return _registered(self, on_leaves, AFTER, hook)


def _refuse_outside(leaf: Any) -> None:
    """In a trace, refuse a hook of a leaf; in `vmap`, of one that the function has not made."""
    owns = getattr(state.trace, "owns", None)
    if owns is None or not owns(leaf):
        refuse_in_trace("a hook is registered on a tensor from outside")


def _registered(x: Any, table: dict[int, _Hooked], k: int, hook: Hook) -> Handle:
    """A hook that has been added to the k-th of a node or leaf."""
    handle = Handle(_hooks(x, k), hook)
    handle.place = _listed(x, table)
    return handle


def _hooks(x: Any, k: int) -> Hooks:
    """The k-th hooks of a node or leaf."""
    if not hasattr(x, "_hooks"):
        x._hooks = {}
    found: Hooks = x._hooks.setdefault(k, {})
    return found


def _listed(x: Any, table: dict[int, _Hooked]) -> _Hooked:
    """Its row in the table of what has hooks."""
    row = table.get(id(x))
    if row is None:
        row = table[id(x)] = _Hooked(x, table)
    return row


def hooks_of_leaf(x: Any) -> tuple[Hooks, Hooks] | None:
    """The hooks of a tensor that was not computed: on its gradient, and those that run once
    `.grad` is set; None if there are none."""
    if id(x) not in on_leaves:
        return None
    return x._hooks.get(BEFORE, {}), x._hooks.get(AFTER, {})


def hooks_of_node(node: Any) -> dict[int, Hooks]:
    """The hooks on gradients of a node's results, by their numbers."""
    return node._hooks if id(node) in on_nodes else {}


def apply_hooks(hooks: Hooks, gradient: Any) -> Any:
    """The gradient after all hooks."""
    for number, hook in list(hooks.items()):
        if number == RETAINED:
            continue
        given = hook(gradient)
        if given is not None:
            check_gradient(given, gradient)
            gradient = given
    if RETAINED in hooks:
        hooks[RETAINED](gradient)
    return gradient


def retain(x: Any) -> None:
    """Let the gradient of a computed tensor be added to its `grad`, after all other hooks."""
    if state.trace is not None:
        state.trace.hooked = True
    _hooks(x.grad_fn, x.output_number)[RETAINED] = _keeper(x)
    _listed(x.grad_fn, on_nodes)
    stamp["now"] = object()


def _keeper(x: Any) -> Hook:
    held = weakref.ref(x)

    def keep(gradient: Any) -> None:
        tensor = held()
        if tensor is not None:
            old = tensor.grad
            tensor.grad = gradient.clone() if old is None else old + gradient

    return keep


def retains(x: Any) -> bool:
    """Whether the gradient of a computed tensor is kept."""
    node = x.grad_fn
    return node is not None and RETAINED in hooks_of_node(node).get(x.output_number, ())


def move_retention(x: Any, node: Any, output: int) -> None:
    """A tensor whose gradient is kept stands elsewhere on the tape from now on."""
    if _ends_retention(node, output):
        retain(x)


def put_off_retention(x: Any) -> None:
    """The place of a view on the tape is out of date: a gradient that is kept is that of the next
    one, where `take_up_retention` finds a note."""
    if _ends_retention(x._grad_fn, x.output_number):
        _hooks(x, RETAINED)


def take_up_retention(x: Any) -> None:
    """A view has a place on the tape again."""
    if hasattr(x, "_hooks") and x._hooks.pop(RETAINED, None) is not None:
        retain(x)


def _ends_retention(node: Any, output: int) -> bool:
    """Whether the gradient of a result was kept; it is not any more."""
    hooks = hooks_of_node(node).get(output)
    if hooks is None or hooks.pop(RETAINED, None) is None:
        return False
    on_nodes[id(node)].look()
    return True


def check_gradient(given: Any, old: Any) -> None:
    """Refuse what cannot take the place of a gradient."""
    if not hasattr(given, "sig") or given.shape != old.shape or given.dtype != old.dtype:
        raise ShapeError(
            "a hook returns something else than a gradient",
            op="hook",
            expect=f"None, or a tensor {old.type!r}",
            actual=repr(given.type) if hasattr(given, "sig") else type(given).__name__,
            hint="return None to leave the gradient as it is",
        )
