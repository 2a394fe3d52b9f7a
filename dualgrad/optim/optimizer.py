"""Base class of all optimizers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from dualgrad.optim.loading import (
    KERNELS,
    NOTES,
    OPTIONAL,
    SCHEDULED,
    Group,
    Plan,
    group_differences,
    kind_differences,
    state_differences,
    take_over,
)
from dualgrad.optim.pieces import State
from dualgrad.runtime.errors import ArgumentError
from dualgrad.state import enable_grad, no_grad
from dualgrad.tensor import Tensor


class Optimizer:
    """Updates parameters from their gradients.

    params    tensors, pairs (name, tensor), or dicts {"params": tensors, **hyper-parameters}
    defaults  hyper-parameters of groups that do not state them

    `param_groups` is a list of dicts as in PyTorch; hyper-parameters may be changed there between
    steps.  `state` has one dict of tensors per parameter: state[param]["exp_avg"].

    The state of a 16-bit float parameter is float32, and so is the arithmetic of a step.

    A subclass states `initial_state` and `update`, and `check` for its hyper-parameters: then all
    state exists from the constructor on and is updated in place, and a step changes nothing else,
    so that a compiled step sees the same objects on every call.  Or it states `step` alone and
    fills `state[param]`, an empty dict at first, as it goes.

    Raises ArgumentError for impossible parameters or hyper-parameters.
    """

    param_groups: list[Group]
    state: dict[Tensor, State]

    def __init__(self, params: Iterable[Any], defaults: Group) -> None:
        self.defaults = defaults
        self.param_groups = []
        self.state = {}
        for entry in _entries(type(self).__name__, params):
            self.add_param_group(entry)

    def check(self, group: Mapping[str, Any]) -> None:
        """Raise ArgumentError if a hyper-parameter of this group is impossible."""

    def initial_state(self, param: Tensor, group: Mapping[str, Any]) -> State:
        """Return the state of a parameter before its first step."""
        return {}

    def completed(self, state: State, group: Mapping[str, Any]) -> State:
        """Return a state that is to be loaded with what follows from the rest of it."""
        return state

    def update(self, param: Tensor, grad: Tensor, state: State, group: Mapping[str, Any]) -> None:
        """Make one step of one parameter, in place; called without gradient recording."""
        raise NotImplementedError(f"{type(self).__name__} defines neither update() nor step()")

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add a dict {"params": tensors, **hyper-parameters}.

        Raises ArgumentError for impossible parameters or hyper-parameters.
        """
        op = type(self).__name__
        if not isinstance(group, Mapping) or "params" not in group:
            raise ArgumentError(
                f"parameter group {len(self.param_groups)} is not complete",
                op=op,
                expect='a dict with the key "params"',
                actual=f"keys {list(group)}" if isinstance(group, Mapping) else repr(type(group)),
                hint='write {"params": [...], "lr": ...}',
            )
        params, names = _named(group["params"])
        _check_params(op, params, {id(p) for p in self.state})
        complete = {**self.defaults, **group, "params": params, **names}
        unknown = complete.keys() - self.defaults.keys() - {"params"} - SCHEDULED - NOTES
        if unknown:
            raise ArgumentError(
                "unknown hyper-parameter",
                op=op,
                expect=", ".join(self.defaults),
                actual=", ".join(sorted(unknown)),
                hint="check the spelling",
            )
        self.check(complete)
        states = [self.initial_state(p, complete) for p in params]
        self.param_groups.append(complete)
        self.state.update(zip(params, states, strict=True))

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of all parameters, or fill them with zeros."""
        for param, _, _ in self._rows():
            if set_to_none:
                param.grad = None
            elif param.grad is not None:
                param.grad = param.grad.detach().zero_()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Make one step of each parameter that has a gradient.

        `closure` computes the loss and its gradients anew; what it returns is returned.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        with no_grad():
            for param, state, group in self._rows():
                grad = param.grad
                if grad is not None:
                    for name, tensor in state.items():
                        moved = isinstance(tensor, Tensor) and tensor.device != param.device
                        if moved:  # with its module, since
                            state[name] = tensor.to(param.device)
                    self.update(param, grad, state, group)
        return loss

    def _rows(self) -> Iterator[tuple[Tensor, State, Group]]:
        for group in self.param_groups:
            for param in group["params"]:
                yield param, self.state[param], group

    def state_dict(self) -> dict[str, Any]:
        """Return {"state": {i: {name: tensor}}, "param_groups": [{..., "params": [i, ...]}]}.

        Tensors are the optimizer's own, not copies.
        """
        groups, start = [], 0
        for group in self.param_groups:
            stop = start + len(group["params"])
            rest = {name: value for name, value in group.items() if name != "params"}
            groups.append({**rest, "params": list(range(start, stop))})
            start = stop
        states = {i: dict(state) for i, (_, state, _) in enumerate(self._rows()) if state}
        return {"state": states, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over hyper-parameters, and state (tensors or arrays, PyTorch's too).

        Tensors of the same name and shape are filled in place.  A parameter without an entry
        starts anew.  All is checked first: if it does not fit, nothing is changed.

        Raises ArgumentError if groups, names or shapes differ from this optimizer's.
        """
        lines = kind_differences(state_dict)
        lines = lines or group_differences(self.param_groups, state_dict["param_groups"])
        plan: Plan = []
        if not lines:
            groups = self._loaded_groups(state_dict["param_groups"])
            plan, lines = self._plan(groups, state_dict)
        if lines:
            raise ArgumentError(
                f"the state does not fit this {type(self).__name__}",
                op="load_state_dict",
                actual="".join(f"\n    {line}" for line in lines),
                hint="make the optimizer with the parameters that it was saved with",
            )
        for group, loaded in zip(self.param_groups, groups, strict=True):
            group.update(loaded)
        take_over(plan, self.state)

    def _loaded_groups(self, given: Iterable[Mapping[str, Any]]) -> list[Group]:
        """The groups as they will be, checked."""
        groups = []
        for own, theirs in zip(self.param_groups, given, strict=True):
            other = {"params"} | KERNELS | (OPTIONAL - own.keys())
            group = {**own, **{k: v for k, v in theirs.items() if k not in other}}
            self.check(group)
            groups.append(group)
        return groups

    def _plan(self, groups: list[Group], given: Mapping[str, Any]) -> tuple[Plan, list[str]]:
        """What each parameter gets, and one line for each thing that forbids it."""
        plan: Plan = []
        lines = []
        # what a subclass fills as it goes has any names
        declared = type(self).initial_state is not Optimizer.initial_state
        for group, theirs in zip(groups, given["param_groups"], strict=True):
            for param, number in zip(group["params"], theirs["params"], strict=True):
                wanted = self.initial_state(param, group)
                state = given["state"].get(number, given["state"].get(str(number), {}))
                values = {name: value for name, value in state.items() if value is not None}
                values = self.completed(values, group) if values else dict(wanted)
                lines += state_differences(len(plan), declared, wanted, values)
                plan.append((param, wanted, values))
        return plan, lines

    def __repr__(self) -> str:
        lines = []
        for number, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {number}")
            lines += [f"    {name}: {group[name]}" for name in sorted(group) if name != "params"]
        return f"{type(self).__name__} (\n" + "\n".join(lines) + "\n)"


def _named(params: Any) -> tuple[list[Any], dict[str, list[str]]]:
    """The parameters of a group, and a note of their names if they have some."""
    entries = [params] if isinstance(params, Tensor) else list(params)
    pairs = [isinstance(e, tuple) and len(e) == 2 and isinstance(e[0], str) for e in entries]
    if not entries or not all(pairs):
        return entries, {}
    tensors, names = [e[1] for e in entries], [str(e[0]) for e in entries]
    return tensors, {"param_names": names}


def _entries(op: str, params: Iterable[Any]) -> list[Mapping[str, Any]]:
    """Return `params` as a list of groups."""
    if isinstance(params, (Tensor, Mapping)) or not isinstance(params, Iterable):
        module = hasattr(params, "parameters")
        raise ArgumentError(
            "the parameters are not in a list",
            op=op,
            expect="an iterable of tensors or of dicts",
            actual=type(params).__name__,
            hint="pass model.parameters()" if module else "put it into a list",
        )
    entries = list(params)
    if not entries:
        raise ArgumentError(
            "got an empty parameter list",
            op=op,
            expect="at least one tensor",
            hint="pass model.parameters(), and make the model's layers attributes of it",
        )
    if not any(isinstance(entry, Mapping) for entry in entries):
        return [{"params": entries}]
    return entries


def _check_params(op: str, params: list[Any], known: set[int]) -> None:
    for number, param in enumerate(params):
        if not isinstance(param, Tensor):
            raise ArgumentError(
                f"parameter {number} is no tensor",
                op=op,
                actual=type(param).__name__,
                hint="pass model.parameters()",
            )
        if not param.is_leaf:
            raise ArgumentError(
                f"parameter {number} is the result of an operation",
                op=op,
                expect="a leaf tensor, which keeps its gradient",
                hint="pass the tensor that it was computed from",
            )
        if id(param) in known:
            raise ArgumentError(
                f"parameter {number}, of shape {tuple(param.shape)}, is given more than once",
                op=op,
                expect="each parameter in one group, once",
                hint="put it into one group only",
            )
        known.add(id(param))
