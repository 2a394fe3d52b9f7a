"""States of optimizers: what fits, and taking it over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dualgrad.interop import values_of
from dualgrad.state import no_grad
from dualgrad.tensor import Tensor

# What PyTorch's optimizers keep in groups and what chooses among its kernels: nothing here.
KERNELS = {"foreach", "fused", "capturable", "differentiable"}
# What schedules keep in parameter groups, and what users may.
SCHEDULED = {"initial_lr", "max_lr", "min_lr", "max_momentum", "base_momentum", "swa_lr"}
NOTES = {"name", "param_names"}
# Hyper-parameters that other optimizers' groups need not state.
OPTIONAL = {"maximize", "decoupled_weight_decay"}

Group = dict[str, Any]
Plan = list[tuple[Tensor, dict[str, Any], dict[str, Any]]]  # parameter, tensors, their values


def kind_differences(given: Any) -> list[str]:
    """One line for each thing that makes this no state of any optimizer."""
    if not isinstance(given, Mapping):
        return [f"{type(given).__name__} instead of a dict"]
    lines = [f"no key {key!r}" for key in ("state", "param_groups") if key not in given]
    if lines:
        return lines
    states = given["state"]
    if not isinstance(states, Mapping):
        return [f"state is of type {type(states).__name__}, not a dict"]
    others = [name for name, state in states.items() if not isinstance(state, Mapping)]
    return [f"parameter {name}: {type(states[name]).__name__} instead of a dict" for name in others]


def group_differences(own: list[Group], given: Any) -> list[str]:
    """One line for each thing that forbids loading the given groups."""
    if not isinstance(given, list | tuple) or not all(isinstance(g, Mapping) for g in given):
        return ["param_groups is no list of dicts"]
    if not all(isinstance(group.get("params"), list | tuple) for group in given):
        return ['a group has no list of its "params"']
    sizes, given_sizes = ([len(group["params"]) for group in groups] for groups in (own, given))
    if sizes != given_sizes:
        return [f"groups of {given_sizes} parameters instead of {sizes}"]
    free = SCHEDULED | NOTES
    lines = []
    for mine, group in zip(own, given, strict=True):
        missing = mine.keys() - group.keys() - free - OPTIONAL
        unknown = group.keys() - mine.keys() - free - OPTIONAL - KERNELS
        if missing or unknown:
            lines.append(f"hyper-parameters {', '.join(group)} instead of {', '.join(mine)}")
    return lines


def state_differences(
    number: int, declared: bool, wanted: Mapping[str, Any], given: Mapping[str, Any]
) -> list[str]:
    """One line if the given state of a parameter does not fit what the optimizer keeps."""
    if not declared:
        return []
    shapes = {name: shape_of(tensor) for name, tensor in wanted.items()}
    found = {name: shape_of(value) for name, value in given.items()}
    if shapes == found:
        return []
    return [f"parameter {number}: {found or 'no state'} instead of {shapes or 'no state'}"]


def take_over(plan: Plan, states: dict[Tensor, dict[str, Any]]) -> None:
    """Copy values in place where there is a tensor of the same name and shape."""
    with no_grad():
        for param, wanted, values in plan:
            state = states[param]
            for name in [name for name in state if name not in values]:
                del state[name]
            for name, value in values.items():
                old, new = state.get(name), wanted.get(name)
                if isinstance(old, Tensor) and shape_of(old) == shape_of(value):
                    old.copy_(values_of(value))
                elif isinstance(new, Tensor):
                    state[name] = new.copy_(values_of(value))
                else:
                    number = isinstance(value, (bool, int, float, str))
                    state[name] = value if number else values_of(value).clone()


def shape_of(value: Any) -> tuple[int, ...] | str:
    """The shape of a tensor, array or number of any library; of other values their type."""
    shape = getattr(value, "shape", None)
    if shape is not None:
        text = isinstance(value, np.ndarray) and value.dtype.kind not in "biuf"
        return f"dtype {value.dtype}" if text else tuple(shape)
    return (
        np.shape(value) if isinstance(value, int | float | list | tuple) else type(value).__name__
    )
