"""Hooks on tensors: functions that see, and may replace, a gradient on its way back.

The hooks of a result of an op belong to its place on the tape, those of a leaf to the tensor.
Both live in tables aside, so that tensors without hooks pay nothing.
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
_numbers = itertools.count()
on_nodes: weakref.WeakKeyDictionary[Any, dict[int, Hooks]] = weakref.WeakKeyDictionary()
# by identity of the tensor: hooks on its gradient, and those that run once `.grad` is set
on_leaves: dict[int, tuple[weakref.ref[Any], Hooks, Hooks]] = {}
# what compiled functions look at besides their arguments and what these lead to, by its name
of_all_modules: dict[str, object] = {}
stamp: dict[str, object] = {"now": object()}  # another one after each change of a hook


class Handle:
    """Takes a hook away again, by `remove()` or at the end of a `with` block."""

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
            hooks = on_nodes.setdefault(self.grad_fn, {}).setdefault(self.output_number, {})
            if state.trace is not None:
                state.trace.hooked = True
            return Handle(hooks, hook)
        _refuse_outside(self)
        return Handle(_entry(self)[1], hook)

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
        return Handle(_entry(self)[2], hook)


def _refuse_outside(leaf: Any) -> None:
    """In a trace, refuse a hook of a leaf; in `vmap`, of one that the function has not made."""
    owns = getattr(state.trace, "owns", None)
    if owns is None or not owns(leaf):
        refuse_in_trace("a hook is registered on a tensor from outside")


def _entry(leaf: Any) -> tuple[weakref.ref[Any], Hooks, Hooks]:
    """The place of a leaf in the table, which forgets it with the leaf."""
    key = id(leaf)
    known = on_leaves.get(key)
    if known is None:
        forget = on_leaves.pop  # at the exit of the interpreter the names of modules are gone
        known = on_leaves[key] = (weakref.ref(leaf, lambda _: forget(key)), {}, {})
    return known


def hooks_of_leaf(x: Any) -> tuple[Hooks, Hooks] | None:
    """The hooks of a tensor that was not computed: on its gradient, and those that run once
    `.grad` is set; None if there are none."""
    known = on_leaves.get(id(x))
    return known[1:] if known is not None and (known[1] or known[2]) else None


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
    on_nodes.setdefault(x.grad_fn, {}).setdefault(x.output_number, {})[RETAINED] = _keeper(x)
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
    found = on_nodes.get(x.grad_fn) if on_nodes and x.grad_fn is not None else None
    return found is not None and RETAINED in found.get(x.output_number, ())


def move_retention(x: Any, node: Any, output: int) -> None:
    """A tensor whose gradient is kept stands elsewhere on the tape from now on."""
    if not on_nodes or node is None:
        return
    hooks = on_nodes.get(node, {}).get(output)
    if hooks is not None and hooks.pop(RETAINED, None) is not None:
        retain(x)


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
