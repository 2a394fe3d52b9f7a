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

_numbers = itertools.count()
on_nodes: weakref.WeakKeyDictionary[Any, dict[int, Hooks]] = weakref.WeakKeyDictionary()
on_leaves: dict[int, tuple[weakref.ref[Any], Hooks]] = {}  # by identity of the tensor
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
        refuse_in_trace("a hook is registered on a tensor from outside")
        known = on_leaves.get(id(self))
        if known is None:
            key = id(self)
            known = (weakref.ref(self, lambda _: on_leaves.pop(key)), {})
            on_leaves[key] = known
        return Handle(known[1], hook)


def hooks_of_leaf(x: Any) -> Hooks | None:
    """The hooks of a tensor that was not computed; None if there are none."""
    known = on_leaves.get(id(x))
    return known[1] or None if known is not None else None


def apply_hooks(hooks: Hooks, gradient: Any) -> Any:
    """The gradient after all hooks."""
    for hook in list(hooks.values()):
        given = hook(gradient)
        if given is not None:
            check_gradient(given, gradient)
            gradient = given
    return gradient


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
