"""Parameters that are computed from others by modules, the parametrizations.

A parametrization is a module whose `forward` makes the attribute of what is learnt, and whose
`right_inverse`, if it has one, makes what is learnt of a value of the attribute.  What is learnt is
`module.parametrizations.NAME.original`, or `original0`, `original1`, ... where `right_inverse`
gives several tensors.  Names and printed form are PyTorch's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from dualgrad.nn.computed import base_of, compute, rule_of, stop_computing
from dualgrad.nn.containers import ModuleDict, ModuleList
from dualgrad.nn.module import Module
from dualgrad.nn.parameter import Parameter
from dualgrad.runtime.errors import ArgumentError, ShapeError
from dualgrad.state import no_grad
from dualgrad.tensor import Tensor

M = TypeVar("M", bound=Module)


class ParametrizationList(ModuleList):
    """The parametrizations of one attribute, one after the other, and what is learnt for it.

    Raises ShapeError if they give another shape or dtype than `original` has, unless `unsafe`.
    """

    def __init__(self, modules: Iterable[Module], original: Tensor, unsafe: bool = False) -> None:
        super().__init__(modules)
        self.unsafe = unsafe
        learnt = self._learnt(original.detach())
        self.is_tensor = isinstance(learnt, Tensor)
        self.ntensors = 1 if self.is_tensor else len(learnt)
        if isinstance(original, Parameter) and self.is_tensor:
            with no_grad():
                original.copy_(learnt)
            self.original = original  # the same object: optimizers know it
        else:
            for name, value in zip(self.names, self._several(learnt), strict=True):
                if isinstance(original, Parameter):
                    value = Parameter(value, requires_grad=original.requires_grad)
                    self.register_parameter(name, value)
                else:
                    self.register_buffer(name, value.detach())
        if not unsafe:
            with no_grad():
                _check_same(self(), original)

    @property
    def names(self) -> list[str]:
        """Names of the tensors that are learnt."""
        return ["original"] if self.is_tensor else [f"original{k}" for k in range(self.ntensors)]

    def forward(self) -> Tensor:
        """The attribute."""
        values: tuple[Any, ...] = tuple(getattr(self, name) for name in self.names)
        for module in self:
            values = (module(*values),)
        return values[0]  # type: ignore[no-any-return]

    def right_inverse(self, value: Tensor) -> None:
        """Copy into what is learnt, so that the attribute has this value."""
        with no_grad():
            learnt = self._several(self._learnt(value, every=True))
            if len(learnt) != self.ntensors:
                raise _no_inverse(f"{self.ntensors} tensors", f"{len(learnt)}")
            for name, part in zip(self.names, learnt, strict=True):
                getattr(self, name).copy_(part)

    def _learnt(self, value: Tensor, every: bool = False) -> Any:
        """What the attribute would be computed from; `every`: each module has to have a way."""
        found: Any = value
        for module in reversed(list(self)):
            inverse = getattr(module, "right_inverse", None)
            if inverse is not None:
                with no_grad():
                    found = inverse(found)
            elif every:
                raise _no_inverse("a parametrization with right_inverse", type(module).__name__)
        return found

    @staticmethod
    def _several(learnt: Any) -> Sequence[Tensor]:
        parts = [learnt] if isinstance(learnt, Tensor) else learnt
        if not isinstance(parts, Sequence) or not all(isinstance(p, Tensor) for p in parts):
            raise _no_inverse("a tensor or several", type(learnt).__name__)
        return parts


class Parametrized:
    """The rule by which an attribute is what its parametrizations give."""

    def __init__(self, name: str) -> None:
        self.name = name

    def value(self, module: Module) -> Tensor:
        found: Tensor = _table(module)[self.name]()
        return found

    def assign(self, module: Module, value: Any) -> None:
        _table(module)[self.name].right_inverse(value)


def register_parametrization(
    module: M, tensor_name: str, parametrization: Module, *, unsafe: bool = False
) -> M:
    """Let a parameter or buffer be what a parametrization makes of it; returns the module.

    A second one is applied to what the first gives.  `unsafe` allows another shape or dtype.
    Raises ArgumentError if there is no such parameter or buffer, ShapeError if it changes shape or
    dtype.
    """
    if is_parametrized(module, tensor_name):
        held: ParametrizationList = _table(module)[tensor_name]
        before = getattr(module, tensor_name).detach()
        if not unsafe:
            with no_grad():
                _check_same(parametrization(before), before)
        held.append(parametrization)
        held.unsafe = held.unsafe or unsafe
        if hasattr(parametrization, "right_inverse"):
            with no_grad():
                held.right_inverse(parametrization(parametrization.right_inverse(before)))
        return module
    known = (*module._parameters, *module._buffers)
    original = getattr(module, tensor_name, None) if tensor_name in known else None
    if original is None:
        raise ArgumentError(
            "there is no such parameter or buffer",
            op="register_parametrization",
            expect=", ".join(known) or "a module with parameters",
            actual=f"{tensor_name!r} of {base_of(module).__name__}",
            hint="name one of these",
        )
    made = ParametrizationList([parametrization], original, unsafe=unsafe)
    delattr(module, tensor_name)
    if "parametrizations" not in module._modules:
        module.add_module("parametrizations", ModuleDict())
    _table(module)[tensor_name] = made
    compute(
        module, tensor_name, Parametrized(tensor_name), f"Parametrized{base_of(module).__name__}"
    )
    return module


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether an attribute, or any with None, has parametrizations."""
    if "parametrizations" not in module._modules:
        return False
    return tensor_name is None or isinstance(rule_of(module, tensor_name), Parametrized)


def remove_parametrizations(module: M, tensor_name: str, leave_parametrized: bool = True) -> M:
    """Let an attribute be a parameter or buffer again; returns the module.

    It keeps the value that it has, or with `leave_parametrized=False` gets what was learnt.
    Raises ArgumentError if it has no parametrizations, or if there are several tensors to leave.
    """
    if not is_parametrized(module, tensor_name):
        raise ArgumentError(
            "the attribute has no parametrizations",
            op="remove_parametrizations",
            expect="a name given to register_parametrization",
            actual=f"{tensor_name!r} of {type(module).__name__}",
            hint="is_parametrized(module, name) says whether it has",
        )
    held: ParametrizationList = _table(module)[tensor_name]
    if not held.is_tensor and not leave_parametrized:
        raise ArgumentError(
            "several tensors are learnt for the attribute",
            op="remove_parametrizations",
            expect="leave_parametrized=True",
            actual=f"{held.ntensors} tensors",
            hint="keep the value that it has",
        )
    value = getattr(module, tensor_name)
    kept = getattr(held, held.names[0])
    if held.is_tensor and kept.shape == value.shape and kept.dtype is value.dtype:
        if leave_parametrized:
            with no_grad():
                kept.copy_(value.detach())
    elif leave_parametrized:
        new = value.detach()
        kept = Parameter(new, requires_grad=value.requires_grad) if held._parameters else new
    stop_computing(module, tensor_name)
    table = _table(module)
    del table[tensor_name]
    if not len(table):
        delattr(module, "parametrizations")
    if isinstance(kept, Parameter):
        module.register_parameter(tensor_name, kept)
    else:
        module.register_buffer(tensor_name, kept)
    return module


def _table(module: Module) -> ModuleDict:
    """The parametrizations of all attributes of a module, by name."""
    found: ModuleDict = getattr(module, "parametrizations")  # noqa: B009
    return found


def _check_same(value: Any, original: Tensor) -> None:
    kind = f"{value.dtype.name} {tuple(value.shape)}" if isinstance(value, Tensor) else None
    expect = f"{original.dtype.name} {tuple(original.shape)}"
    if kind != expect:
        raise ShapeError(
            "a parametrization changes the shape or the dtype",
            op="register_parametrization",
            expect=expect,
            actual=kind or type(value).__name__,
            hint="unsafe=True allows it",
        )


def _no_inverse(expect: str, actual: str) -> ArgumentError:
    return ArgumentError(
        "a value cannot be given to the attribute",
        op="right_inverse",
        expect=expect,
        actual=actual,
        hint="let each parametrization state a right_inverse that gives what is learnt",
    )
