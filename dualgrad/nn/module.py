"""Base class of all parts of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Self

from dualgrad.nn.hooks import Hooked, call_with_hooks
from dualgrad.nn.parameter import Parameter
from dualgrad.nn.state import LoadResult, copy_state, destination, find_mismatches
from dualgrad.runtime.errors import ArgumentError
from dualgrad.runtime.tracebacks import passes_on
from dualgrad.tensor import Tensor

_REGISTRIES: Final = ("_parameters", "_buffers", "_modules")


class Module(Hooked):
    """A model or a part of one: parameters, buffers, other modules, and a `forward`.

    Assigning a Parameter or a Module as an attribute registers it; `register_buffer` registers a
    tensor that is state but not learnt.  Registered values are plain attributes: `_parameters`,
    `_buffers` and `_modules` hold their names only, in the order of registration, so there is one
    place where a value lives.  (`_buffers` also says whether the buffer is part of `state_dict`.)

    Names and order of parameters, state and the printed form are those of PyTorch.
    """

    training: bool
    _parameters: dict[str, None]
    _buffers: dict[str, bool]
    _modules: dict[str, None]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        # here and not in __init__, so that a subclass may forget to call super().__init__()
        module = super().__new__(cls)
        for name in _REGISTRIES:
            object.__setattr__(module, name, {})
        object.__setattr__(module, "training", True)
        return module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the output; stated by each subclass."""
        raise NotImplementedError(f"{type(self).__name__} does not define forward()")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        hooks = self._hooks
        if hooks is None:
            return self.forward(*args, **kwargs)
        return call_with_hooks(self, hooks, args, kwargs)

    passes_on(__call__)
    passes_on(forward)

    # -- registration

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Parameter):
            self.register_parameter(name, value)
        elif isinstance(value, Module):
            self.add_module(name, value)
        else:
            self._check_replacement(name, value)
            object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        object.__delattr__(self, name)
        for registry in _REGISTRIES:
            getattr(self, registry).pop(name, None)

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Register a parameter; None keeps its place among the names.

        Raises ArgumentError if it is no Parameter, or if the name cannot be used.
        """
        self._register("_parameters", name, None, param, Parameter)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Register a tensor that is state but not learnt; `persistent`: part of `state_dict`.

        Raises ArgumentError if it is no Tensor, or if the name cannot be used.
        """
        self._register("_buffers", name, persistent, tensor, Tensor)

    def add_module(self, name: str, module: Module | None) -> None:
        """Register a module under a name that need not be an identifier ("0").

        Raises ArgumentError if it is no Module, or if the name cannot be used.
        """
        self._register("_modules", name, None, module, Module)

    def _register(self, registry: str, name: str, note: Any, value: Any, kind: type) -> None:
        if value is not None and not isinstance(value, kind):
            raise _refuse(self, f"{name!r} is no {kind.__name__}", type(value).__name__,
                          hint=f"make it one: {kind.__name__}(...)")  # fmt: skip
        if not isinstance(name, str) or not name or "." in name or hasattr(type(self), name):
            raise _refuse(
                self,
                "this name cannot be registered",
                repr(name),
                "a non-empty str without dots that is no attribute of the class",
                "choose another name",
            )
        for other in _REGISTRIES:
            if other != registry:
                getattr(self, other).pop(name, None)
        getattr(self, registry)[name] = note
        object.__setattr__(self, name, value)

    def _check_replacement(self, name: str, value: Any) -> None:
        """A registered name takes only values of its kind, else it would silently stop learning."""
        if value is None:
            return
        if name in self._parameters:
            raise _refuse(self, f"parameter {name!r} is given another kind of value",
                          type(value).__name__, "a Parameter or None",
                          "with dg.no_grad(): parameter.copy_(...)")  # fmt: skip
        if name in self._modules:
            raise _refuse(self, f"module {name!r} is given another kind of value",
                          type(value).__name__, "a Module or None",
                          "give the value another name")  # fmt: skip
        if name in self._buffers and not isinstance(value, Tensor):
            raise _refuse(self, f"buffer {name!r} is given another kind of value",
                          type(value).__name__, "a Tensor or None",
                          "make it a tensor: dg.tensor(...)")  # fmt: skip

    # -- walking

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Direct sub-modules with their names; one that has two names comes once."""
        seen: set[int] = set()
        for name in self._modules:
            module = getattr(self, name)
            if module is not None and id(module) not in seen:
                seen.add(id(module))
                yield name, module

    def children(self) -> Iterator[Module]:
        """Direct sub-modules."""
        for _, module in self.named_children():
            yield module

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """This module (named `prefix`) and all below it, parents first."""
        memo = set() if memo is None else memo
        if remove_duplicate and self in memo:
            return
        memo.add(self)
        yield prefix, self
        for name in self._modules:
            module = getattr(self, name)
            if module is not None:
                yield from module.named_modules(memo, _join(prefix, name), remove_duplicate)

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once, parents first."""
        for _, module in self.named_modules():
            yield module

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Parameters with their dotted names; a shared one comes once, under its first name."""
        return self._named_tensors("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Parameters, each once, in the order of their names."""
        for _, param in self.named_parameters(recurse=recurse):
            yield param

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Buffers with their dotted names; a shared one comes once, under its first name."""
        return self._named_tensors("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Buffers, each once, in the order of their names."""
        for _, buffer in self.named_buffers(recurse=recurse):
            yield buffer

    def _named_tensors(
        self, registry: str, prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Any]]:
        owners = (
            self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate)
            if recurse
            else iter([(prefix, self)])
        )
        seen: set[int] = set()
        for path, owner in owners:
            for name in getattr(owner, registry):
                value = getattr(owner, name)
                if value is None or (remove_duplicate and id(value) in seen):
                    continue
                seen.add(id(value))
                yield _join(path, name), value

    # -- modes

    def train(self, mode: bool = True) -> Self:
        """Set the attribute `training` here and in all modules below."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """The same as `train(False)`."""
        return self.train(False)

    # -- places

    def to(self, *where: Any, **how: Any) -> Self:
        """Move all parameters and buffers; they stay the same objects.

        Arguments are those of `Tensor.to`: a device, a dtype, or both, or a tensor that names
        them.  The dtype is for floats only, and must be one.  Optimizers move what they keep with
        their next step.  Raises DeviceError if there is no such device, DTypeError for a dtype
        that is no float.
        """
        device, dtype = destination(*where, **how)
        for tensor in (*self.parameters(), *self.buffers()):
            tensor.move(device=device, dtype=dtype if tensor.dtype.is_float else None)
        return self

    def cuda(self, device: Any = None) -> Self:
        """Move all parameters and buffers to a CUDA device, the first one unless named."""
        number = isinstance(device, int)
        return self.to("cuda" if device is None else f"cuda:{device}" if number else device)

    def cpu(self) -> Self:
        """Move all parameters and buffers to the CPU."""
        return self.to("cpu")

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of all parameters, or fill them with zeros."""
        for param in self.parameters():
            if set_to_none:
                param.grad = None
            elif param.grad is not None:
                param.grad = param.grad.detach().zero_()

    def apply(self, fn: Callable[[Module], Any]) -> Self:
        """Call `fn` on each module below, then on this one."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    # -- state

    def state_dict(self, prefix: str = "") -> dict[str, Tensor]:
        """Parameters and persistent buffers by dotted name, detached but sharing memory."""
        state = {}
        for path, module in self.named_modules(prefix=prefix, remove_duplicate=False):
            persistent = [name for name, keep in module._buffers.items() if keep]
            for name in (*module._parameters, *persistent):
                value = getattr(module, name)
                if value is not None:
                    state[_join(path, name)] = value.detach()
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> LoadResult:
        """Copy the values of `state_dict` (tensors or arrays) into parameters and buffers.

        All is checked first: if it does not fit, nothing is copied.  With `strict=False`, names
        on one side only are left alone and returned.

        Raises ArgumentError with one line per name that does not fit.
        """
        if not isinstance(state_dict, Mapping):
            raise ArgumentError(
                "a state is a dict of tensors",
                op="load_state_dict",
                expect="what state_dict() returns",
                actual=type(state_dict).__name__,
                hint="pass model.state_dict()",
            )
        own = self.state_dict()
        result, mismatches = find_mismatches(own, state_dict, strict)
        if mismatches:
            raise ArgumentError(
                f"the state does not fit this {type(self).__name__}",
                op="load_state_dict",
                actual="".join(f"\n    {line}" for line in mismatches),
                hint="strict=False loads the names that both sides have"
                if result.missing_keys or result.unexpected_keys
                else "make the module with the sizes of the state",
            )
        copy_state(own, state_dict)
        return result

    # -- printing

    def extra_repr(self) -> str:
        """Text between the parentheses of the printed form; for subclasses to state."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        lines = extra.split("\n") if extra else []
        children = [(name, repr(getattr(self, name))) for name in self._modules]
        if not children and len(lines) <= 1:
            return f"{type(self).__name__}({extra})"
        lines += [f"({name}): " + text.replace("\n", "\n  ") for name, text in children]
        return f"{type(self).__name__}(\n  " + "\n  ".join(lines) + "\n)"


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _refuse(
    module: Module, what: str, actual: str, expect: str = "", hint: str = ""
) -> ArgumentError:
    return ArgumentError(what, op=type(module).__name__, expect=expect, actual=actual, hint=hint)
