"""Base class of all optimizers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from dualgrad.creation import from_numpy
from dualgrad.runtime.errors import ArgumentError
from dualgrad.state import no_grad
from dualgrad.tensor import Tensor

# What schedules keep in parameter groups.
SCHEDULED = {"initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum"}
Group = dict[str, Any]
State = dict[str, Tensor]


class Optimizer(ABC):
    """Updates parameters from their gradients.

    params    tensors, or dicts {"params": tensors, **hyper-parameters of their own}
    defaults  hyper-parameters of groups that do not state them

    `param_groups` is a list of dicts as in PyTorch; hyper-parameters may be changed there between
    steps.  `state` is a list with one dict of tensors per parameter, in the order of the groups.

    The state of a 16-bit float parameter is float32, and so is the arithmetic of a step.

    All state exists from the constructor on and is updated in place, and a step changes nothing
    else: so a compiled step sees the same objects on every call.

    Raises ArgumentError for impossible parameters or hyper-parameters.
    """

    param_groups: list[Group]
    state: list[State]

    def __init__(self, params: Iterable[Any], defaults: Group) -> None:
        self.defaults = defaults
        self.param_groups = []
        self.state = []
        for entry in _entries(type(self).__name__, params):
            self.add_param_group(entry)

    @abstractmethod
    def check(self, group: Mapping[str, Any]) -> None:
        """Raise ArgumentError if a hyper-parameter of this group is impossible."""

    @abstractmethod
    def initial_state(self, param: Tensor, group: Mapping[str, Any]) -> State:
        """Return the state of a parameter before its first step."""

    @abstractmethod
    def update(self, param: Tensor, grad: Tensor, state: State, group: Mapping[str, Any]) -> None:
        """Make one step of one parameter, in place; called without gradient recording."""

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
        params = group["params"]
        params = [params] if isinstance(params, Tensor) else list(params)
        known = {id(p) for old in self.param_groups for p in old["params"]}
        _check_params(op, params, known)
        complete = {**self.defaults, **group, "params": params}
        unknown = complete.keys() - self.defaults.keys() - {"params"}
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
        self.state += states

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of all parameters, or fill them with zeros."""
        for param, _, _ in self._rows():
            if set_to_none:
                param.grad = None
            elif param.grad is not None:
                param.grad = param.grad.detach().zero_()

    def step(self) -> None:
        """Make one step of each parameter that has a gradient."""
        with no_grad():
            for param, state, group in self._rows():
                grad = param.grad
                if grad is not None:
                    for name, tensor in state.items():
                        if tensor.device != param.device:  # the module has been moved since
                            state[name] = tensor.to(param.device)
                    self.update(param, grad, state, group)

    def _rows(self) -> Iterator[tuple[Tensor, State, Group]]:
        states = iter(self.state)
        for group in self.param_groups:
            for param in group["params"]:
                yield param, next(states), group

    def state_dict(self) -> dict[str, Any]:
        """Return {"state": {i: {name: tensor}}, "param_groups": [{..., "params": [i, ...]}]}.

        Tensors are the optimizer's own, not copies.
        """
        groups, start = [], 0
        for group in self.param_groups:
            stop = start + len(group["params"])
            groups.append({**group, "params": list(range(start, stop))})
            start = stop
        return {"state": {i: dict(s) for i, s in enumerate(self.state)}, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Copy state (tensors or arrays) in place, and take over the hyper-parameters.

        All is checked first: if it does not fit, nothing is changed.

        Raises ArgumentError if groups, names or shapes differ from this optimizer's.
        """
        own = self.state_dict()
        differences = _differences(own, state_dict)
        if differences:
            raise ArgumentError(
                f"the state does not fit this {type(self).__name__}",
                op="load_state_dict",
                actual="".join(f"\n    {line}" for line in differences),
                hint="make the optimizer with the parameters that it was saved with",
            )
        for group in state_dict["param_groups"]:
            self.check(group)
        for group, given in zip(self.param_groups, state_dict["param_groups"], strict=True):
            group.update({name: value for name, value in given.items() if name != "params"})
        with no_grad():
            for i, tensors in own["state"].items():
                for name, tensor in tensors.items():
                    value = state_dict["state"][i][name]
                    if isinstance(value, Tensor):
                        tensor.copy_(value.detach())
                    else:
                        tensor.copy_(from_numpy(np.asarray(value)))

    def __repr__(self) -> str:
        lines = []
        for number, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {number}")
            lines += [f"    {name}: {group[name]}" for name in sorted(group) if name != "params"]
        return f"{type(self).__name__} (\n" + "\n".join(lines) + "\n)"


def require(op: str, name: str, value: Any, low: float, high: float = math.inf) -> None:
    """Raise ArgumentError unless `value` is a number with low <= value < high."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not low <= value < high:
        bound = f"{name} >= {low:g}" if high == math.inf else f"{low:g} <= {name} < {high:g}"
        raise ArgumentError(
            f"{name} has a value it cannot have",
            op=op,
            expect=bound,
            actual=repr(value),
            hint=f"give {name} a number of this range",
        )


def stored(op: str, state: State, names: Iterable[str]) -> list[Tensor]:
    """Return the tensors of `state` with these names.

    Raises ArgumentError if one was not needed when the optimizer was made.
    """
    for name in names:
        if name not in state:
            raise ArgumentError(
                f"there is no {name} for a hyper-parameter that was switched on later",
                op=op,
                why="all state is made in the constructor, so that steps can be compiled",
                hint="give the hyper-parameter to the constructor; its value may change later",
            )
    return [state[name] for name in names]


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


def _differences(own: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """Return one line for each thing that forbids loading `given`."""
    if not own.keys() <= given.keys():
        return [f"keys {list(given)} instead of {list(own)}"]
    sizes, given_sizes = (
        [len(group["params"]) for group in d["param_groups"]] for d in (own, given)
    )
    if sizes != given_sizes:
        return [f"groups of {given_sizes} parameters instead of {sizes}"]
    lines = []
    for mine, group in zip(own["param_groups"], given["param_groups"], strict=True):
        if mine.keys() - group.keys() - SCHEDULED or group.keys() - mine.keys() - SCHEDULED:
            lines.append(f"hyper-parameters {', '.join(group)} instead of {', '.join(mine)}")
    for i, tensors in own["state"].items():
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        found = {k: _shape(v) for k, v in given["state"].get(i, {}).items()}
        if shapes != found:
            lines.append(f"parameter {i}: {found or 'no state'} instead of {shapes}")
    return lines


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(value.shape) if isinstance(value, Tensor) else np.shape(value)
