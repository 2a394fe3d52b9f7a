"""Weight normalisation under PyTorch's first names: weight_g and weight_v.

Source: T. Salimans, D. Kingma, "Weight normalization: a simple reparameterization to accelerate
training of deep neural networks", 2016.
"""

from __future__ import annotations

from typing import Any, TypeVar

from dualgrad.nn.computed import base_of, compute, rule_of, stop_computing
from dualgrad.nn.module import Module
from dualgrad.nn.parameter import Parameter
from dualgrad.runtime.errors import ArgumentError
from dualgrad.state import no_grad
from dualgrad.tensor import Tensor

M = TypeVar("M", bound=Module)


def norm_except(v: Tensor, dim: int | None) -> Tensor:
    """The length of v [..., n, ...] for each index of one dimension, [1, ..., n, ..., 1].

    Of the whole of v, (), with dim None; so also with -1, as in PyTorch.
    """
    if dim is None or dim == -1:
        return v.vector_norm()
    others = tuple(d for d in range(v.ndim) if d != dim % v.ndim)
    return v.vector_norm(axis=others, keepdims=True) if others else v.abs()


def weight_of(v: Tensor, g: Tensor, dim: int | None) -> Tensor:
    """The weight g v / |v| with lengths g and directions v."""
    return v * (g / norm_except(v, dim))


class WeightNorm:
    """The rule by which a weight `name` is name_g * name_v / |name_v|."""

    def __init__(self, name: str, dim: int | None) -> None:
        self.name = name
        self.dim = dim

    def value(self, module: Module) -> Tensor:
        g, v = getattr(module, f"{self.name}_g"), getattr(module, f"{self.name}_v")
        return weight_of(v, g, self.dim)

    def assign(self, module: Module, value: Any) -> None:
        with no_grad():
            getattr(module, f"{self.name}_g").copy_(norm_except(value.detach(), self.dim))
            getattr(module, f"{self.name}_v").copy_(value)


def weight_norm(module: M, name: str = "weight", dim: int | None = 0) -> M:
    """Let a parameter be name_g * name_v / |name_v|, both learnt in its place; returns the module.

    Lengths are those of each index of `dim`, or of the whole with None.  The parameter becomes an
    attribute that is computed each time that it is read.  `nn.utils.parametrizations.weight_norm`
    is the same under newer names; its modules load states of this one.

    Raises ArgumentError if there is no such parameter, or it is normalised already.
    """
    weight = take_parameter("weight_norm", module, name)
    flag = weight.requires_grad
    delattr(module, name)
    g = norm_except(weight.detach(), dim)
    module.register_parameter(f"{name}_g", Parameter(g, requires_grad=flag))
    module.register_parameter(f"{name}_v", Parameter(weight, requires_grad=flag))
    compute(module, name, WeightNorm(name, dim), type(module).__name__)
    return module


def remove_weight_norm(module: M, name: str = "weight") -> M:
    """Undo `weight_norm`: the weight as it is by now becomes the parameter again.

    Raises ArgumentError if it is not normalised.
    """
    if not isinstance(rule_of(module, name), WeightNorm):
        raise ArgumentError(
            "the weight is not normalised",
            op="remove_weight_norm",
            expect="a module after weight_norm(module, name)",
            actual=f"{type(module).__name__}, name {name!r}",
            hint="after nn.utils.parametrizations use parametrize.remove_parametrizations",
        )
    weight, flag = getattr(module, name).detach(), getattr(module, f"{name}_v").requires_grad
    stop_computing(module, name)
    for part in (f"{name}_g", f"{name}_v"):
        delattr(module, part)
    module.register_parameter(name, Parameter(weight, requires_grad=flag))
    return module


def take_parameter(op: str, module: Module, name: str) -> Parameter:
    """The parameter of this name; ArgumentError if it is computed already, or there is none."""
    param = getattr(module, name, None) if name in module._parameters else None
    if param is None:
        computed = rule_of(module, name) is not None
        raise ArgumentError(
            "the weight is computed already" if computed else "there is no such parameter",
            op=op,
            expect=", ".join(module._parameters) or "a module with parameters",
            actual=f"{name!r} of {base_of(module).__name__}",
            hint="name one of these",
        )
    return param  # type: ignore[no-any-return]
