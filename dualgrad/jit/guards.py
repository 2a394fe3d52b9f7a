"""Whether what a compiled function depends on is still as it was."""

from __future__ import annotations

from operator import is_
from typing import Any

from dualgrad.jit.survey import Survey, survey
from dualgrad.state import state
from dualgrad.tensor import Tensor


class Standing:
    """The state behind a function's arguments as it was found; tells quickly if it still is so.

    Everything is compared by identity: containers hold the same objects, tensors have the same
    types and layouts.  If so, a survey would find the same tensors and containers again, and
    the paths found since then hold for equal arguments.
    """

    def __init__(self, fn: Any, common: tuple[Any, ...]) -> None:
        found = survey((fn,))
        self.watched = found.watched
        self.flags = [(t, t.sig, t.requires_grad, t.grad_fn) for t in found.tensors]
        rest = survey((fn, *common))
        self.tensors, self.containers = rest.tensors, rest.containers
        self.ids = {id(t) for t in self.tensors}
        self.ids |= {id(c) for c in self.containers}
        self.paths: dict[tuple[object, ...], Any] = {}

    def unchanged(self) -> bool:
        for container, read, held, _ in self.watched:
            if container is not None and len(container) != len(held):
                return False
            if not all(map(is_, read(), held)):
                return False
        for t, sig, requires_grad, grad_fn in self.flags:
            if t.sig is not sig and t.sig != sig:
                return False
            if t.requires_grad is not requires_grad or t.grad_fn is not grad_fn:
                return False
        return True

    def found(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Survey:
        """What a survey would find, for arguments that `key` accepts."""
        return Survey(tensors=[*args, *self.tensors], containers=[kwargs, *self.containers])

    def key(self, args: tuple[Any, ...]) -> tuple[object, ...] | None:
        """What a call with these arguments is known by; None where only a survey will do.

        It serves calls whose arguments are distinct tensors that are no part of the state.
        """
        key: list[object] = [state.grad_enabled]
        seen = set()
        for x in args:
            if not isinstance(x, Tensor) or x.grad_fn is not None:
                return None
            seen.add(id(x))
            key += (x.__class__, x.sig, x.requires_grad)
        if len(seen) != len(args) or not seen.isdisjoint(self.ids):
            return None
        return tuple(key)
