"""Hooks of modules: functions that run before and after `forward`, and on its gradients.

Names, arguments and order are those of PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dualgrad.gradients.flow import Flow
from dualgrad.gradients.hooks import (
    Handle,
    Hook,
    Hooks,
    check_gradient,
    of_all_modules,
    refuse_in_trace,
)
from dualgrad.gradients.tape import Edge, TapeNode, edge_of, freed_error, next_number
from dualgrad.runtime.srcinfo import user_place
from dualgrad.runtime.tracebacks import passes_on
from dualgrad.state import state
from dualgrad.tensor import Tensor

if TYPE_CHECKING:
    from dualgrad.nn.module import Module

_Change = Callable[[list["Tensor | None"]], list["Tensor | None"]]


class HookLists:
    """The hooks of one module, in the order in which they run."""

    def __init__(self) -> None:
        self.before: Hooks = {}
        self.after: Hooks = {}
        self.backward_before: Hooks = {}
        self.backward: Hooks = {}
        self.named: dict[int, bool] = {}  # hooks that take keyword arguments
        self.always: dict[int, bool] = {}  # hooks that run also if forward raises

    def add(self, kind: str, hook: Hook, first: bool, flags: dict[str, bool]) -> Handle:
        """Register a hook of a kind, an attribute of this object."""
        handle = Handle(getattr(self, kind), hook, first)
        for name, value in flags.items():
            if value:
                getattr(self, name)[handle.number] = True
        return handle

    def with_those(self, others: HookLists) -> HookLists:
        """The hooks of both, the others first."""
        both = HookLists()
        for name, hooks in vars(self).items():
            getattr(both, name).update({**getattr(others, name), **hooks})
        return both


class Hooked:
    """The part of `Module` that registers hooks."""

    _hooks: HookLists | None = None

    def _register_hook(self, kind: str, hook: Hook, first: bool, **flags: bool) -> Handle:
        refuse_in_trace("a hook is registered on a module")
        if "_hooks" not in vars(self):
            object.__setattr__(self, "_hooks", HookLists())
        lists = self._hooks
        assert lists is not None
        return lists.add(kind, hook, first, flags)

    def register_forward_pre_hook(
        self, hook: Hook, *, prepend: bool = False, with_kwargs: bool = False
    ) -> Handle:
        """Call `hook(module, args)` before `forward`; what it returns replaces the arguments.

        With `with_kwargs` it is called as `hook(module, args, kwargs)` and returns both.
        """
        return self._register_hook("before", hook, prepend, named=with_kwargs)

    def register_forward_hook(
        self,
        hook: Hook,
        *,
        prepend: bool = False,
        with_kwargs: bool = False,
        always_call: bool = False,
    ) -> Handle:
        """Call `hook(module, args, output)` after `forward`; what it returns is the output.

        With `with_kwargs` it is called as `hook(module, args, kwargs, output)`, with `always_call`
        also if `forward` raises, with None as the output.
        """
        flags = {"named": with_kwargs, "always": always_call}
        return self._register_hook("after", hook, prepend, **flags)

    def register_full_backward_pre_hook(self, hook: Hook, prepend: bool = False) -> Handle:
        """Call `hook(module, grad_output)` before gradients flow through the module.

        What it returns, a tuple or one tensor, takes the place of `grad_output`.
        """
        return self._register_hook("backward_before", hook, prepend)

    def register_full_backward_hook(self, hook: Hook, prepend: bool = False) -> Handle:
        """Call `hook(module, grad_input, grad_output)` when the inputs' gradients are known.

        Both are tuples: one entry per positional argument, and per tensor of the output, None
        where there is no gradient.  What the hook returns takes the place of `grad_input`.
        """
        return self._register_hook("backward", hook, prepend)


# -- hooks of all modules

everywhere = HookLists()
# by the registry of `Module` that a name goes to
on_registration: dict[str, Hooks] = {"_parameters": {}, "_buffers": {}, "_modules": {}}


def _register_everywhere(kind: str, hook: Hook, **flags: bool) -> Handle:
    refuse_in_trace("a hook is registered on all modules")
    handle = everywhere.add(kind, hook, False, flags)
    Hooked._hooks = everywhere  # modules without hooks of their own find it through their class
    of_all_modules["the hooks of all modules"] = everywhere
    return handle


def register_module_forward_pre_hook(hook: Hook) -> Handle:
    """`Module.register_forward_pre_hook` of all modules; it runs before their own."""
    return _register_everywhere("before", hook)


def register_module_forward_hook(
    hook: Hook, *, with_kwargs: bool = False, always_call: bool = False
) -> Handle:
    """`Module.register_forward_hook` of all modules; it runs before their own."""
    return _register_everywhere("after", hook, named=with_kwargs, always=always_call)


def register_module_full_backward_pre_hook(hook: Hook) -> Handle:
    """`Module.register_full_backward_pre_hook` of all modules; it runs before their own."""
    return _register_everywhere("backward_before", hook)


def register_module_full_backward_hook(hook: Hook) -> Handle:
    """`Module.register_full_backward_hook` of all modules; it runs before their own."""
    return _register_everywhere("backward", hook)


def register_module_parameter_registration_hook(hook: Hook) -> Handle:
    """Call `hook(module, name, parameter)` for each one registered; what it returns is taken."""
    return Handle(on_registration["_parameters"], hook)


def register_module_buffer_registration_hook(hook: Hook) -> Handle:
    """Call `hook(module, name, buffer)` for each one registered; what it returns is taken."""
    return Handle(on_registration["_buffers"], hook)


def register_module_module_registration_hook(hook: Hook) -> Handle:
    """Call `hook(module, name, submodule)` for each one registered; what it returns is taken."""
    return Handle(on_registration["_modules"], hook)


def call_with_hooks(
    module: Module, lists: HookLists, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """What calling a module does if it has hooks."""
    if lists is not everywhere and Hooked._hooks is not None:
        lists = lists.with_those(everywhere)
    for k, hook in list(lists.before.items()):
        if k in lists.named:
            given = hook(module, args, kwargs)
            args, kwargs = (args, kwargs) if given is None else given
        else:
            given = hook(module, args)
            if given is not None:
                args = given if isinstance(given, tuple) else (given,)
    gate = _Gate(module, lists) if lists.backward or lists.backward_before else None
    try:
        out = module.forward(*(args if gate is None else gate.enter(args)), **kwargs)
    except Exception:
        for k, hook in list(lists.after.items()):
            if k in lists.always:
                _after(module, lists, k, hook, args, kwargs, None)
        raise
    for k, hook in list(lists.after.items()):
        given = _after(module, lists, k, hook, args, kwargs, out)
        out = out if given is None else given
    return out if gate is None else gate.leave(out)


passes_on(call_with_hooks)


def _after(
    module: Module,
    lists: HookLists,
    k: int,
    hook: Hook,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    out: Any,
) -> Any:
    return hook(module, args, kwargs, out) if k in lists.named else hook(module, args, out)


class _Gate:
    """Gradients that pass through one call of a module."""

    def __init__(self, module: Module, lists: HookLists) -> None:
        self.module, self.lists = module, lists
        self.inputs = 0  # positional arguments
        self.places: list[int] = []  # of those that have a gradient
        self.grad_output: tuple[Tensor | None, ...] = ()

    def enter(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments, with a node of the tape before them."""
        self.inputs = len(args)
        self.places = [k for k, x in enumerate(args) if _has_gradient(x)]
        passed = iter(_through([args[k] for k in self.places], self.input_gradients))
        return tuple(next(passed) if k in self.places else x for k, x in enumerate(args))

    def leave(self, out: Any) -> Any:
        """The output, with a node of the tape behind it."""
        alone = isinstance(out, Tensor)
        if not (alone or isinstance(out, tuple | list)):
            return out
        parts = [out] if alone else list(out)
        places = [k for k, x in enumerate(parts) if _has_gradient(x)]
        every = [k for k, x in enumerate(parts) if isinstance(x, Tensor)]
        passed = _through([parts[k] for k in places], self._output_gradients(places, every))
        for k, x in zip(places, passed, strict=True):
            parts[k] = x
        if alone:
            return parts[0]
        return type(out)(*parts) if hasattr(out, "_fields") else type(out)(parts)

    def _output_gradients(self, places: list[int], every: list[int]) -> _Change:
        def change(gradients: list[Tensor | None]) -> list[Tensor | None]:
            known = dict(zip(places, gradients, strict=True))
            grads = tuple(known.get(k) for k in every)
            for hook in list(self.lists.backward_before.values()):
                grads = _replaced(hook(self.module, grads), grads)
            self.grad_output = grads
            if not self.places:
                self._finish((None,) * self.inputs)
            return [grads[every.index(k)] for k in places]

        return change

    def input_gradients(self, gradients: list[Tensor | None]) -> list[Tensor | None]:
        known = dict(zip(self.places, gradients, strict=True))
        found = self._finish(tuple(known.get(k) for k in range(self.inputs)))
        return [found[k] for k in self.places]

    def _finish(self, grads: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
        for hook in list(self.lists.backward.values()):
            grads = _replaced(hook(self.module, grads, self.grad_output), grads)
        return grads


def _has_gradient(x: object) -> bool:
    return isinstance(x, Tensor) and x.requires_grad and state.grad_enabled


def _replaced(given: Any, grads: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    """Gradients after a hook that has returned `given`."""
    if given is None:
        return grads
    found = given if isinstance(given, tuple) else (given,)
    if len(found) != len(grads):
        raise ValueError(f"a hook returns {len(found)} gradients for {len(grads)}")
    for new, old in zip(found, grads, strict=True):
        if new is not None and old is not None:
            check_gradient(new, old)
    return found


def _through(tensors: list[Tensor], change: _Change) -> list[Tensor]:
    """The same values, whose gradients all pass through `change` together."""
    if not tensors:
        return []
    node = PassingNode(tensors, change)
    if state.trace is not None:
        state.trace.hooked = True
    out = []
    for k, x in enumerate(tensors):
        same = x.detach()
        same.requires_grad, same.grad_fn, same.output_number = True, node, k
        out.append(same)
    return out


class PassingNode(TapeNode):
    """A place on the tape where gradients are handed to a function."""

    __slots__ = ("_change",)

    edges: tuple[Edge, ...]

    def __init__(self, tensors: list[Tensor], change: _Change) -> None:
        self.number, self.place = next_number(), user_place()
        self.released = False
        self.types = tuple([x.type for x in tensors])
        self.edges = tuple([edge_of(x) for x in tensors])
        self.inputs = self.outputs = ()
        self.versions = ()
        self._change = change

    @property
    def name(self) -> str:
        return "module_hook"

    def push(self, flow: Flow, slots: list[Tensor | None], retain: bool) -> None:
        if self.released:
            raise freed_error(self.name)
        edges, change = self.edges, self._change
        if not retain:
            self.release()
        for g in slots:
            flow.owned.pop(id(g), None)
        for edge, g in zip(edges, change(slots), strict=True):
            if g is not None:
                flow.send(edge, g)
