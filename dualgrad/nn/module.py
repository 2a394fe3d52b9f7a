"""Base class of all parts of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Self

from dualgrad.nn.destination import destination
from dualgrad.nn.hooks import Hooked, call_with_hooks, on_registration
from dualgrad.nn.parameter import Parameter
from dualgrad.nn.state import Stateful
from dualgrad.runtime.dtype import bfloat16, float16, float32, float64
from dualgrad.runtime.errors import ArgumentError
from dualgrad.runtime.tracebacks import passes_on
from dualgrad.tensor import Tensor

_REGISTRIES: Final = ("_parameters", "_buffers", "_modules")


class Module(Hooked, Stateful):
    """A model or a part of one: parameters, buffers, other modules, and a `forward`.

    Assigning a Parameter or a Module as an attribute registers it; `register_buffer` registers a
    tensor that is state but not learnt.  Registered values are plain attributes: `_parameters`,
    `_buffers` and `_modules` hold their names only, in the order of registration, so there is one
    place where a value lives.  (`_buffers` also says whether the buffer is part of `state_dict`.)

    Names and order of parameters, state and the printed form are those of PyTorch.
    """

    training: bool

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

    register_module = add_module

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
        for hook in list(on_registration[registry].values()):
            given = hook(self, name, value)
            value = value if given is None else given
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

    # -- modes

    def train(self, mode: bool = True) -> Self:
        """Set the attribute `training` here and in all modules below."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """The same as `train(False)`."""
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Let all parameters have gradients, or none: a part that is kept as it is."""
        for param in self.parameters():
            param.requires_grad_(requires_grad)
        return self

    # -- places

    def to(self, *where: Any, **how: Any) -> Self:
        """Move all parameters and buffers; they stay the same objects.

        Arguments are those of `Tensor.to`: a device, a dtype, or both, or a tensor that names
        them; `non_blocking` changes nothing.  The dtype is for floats only, and must be one.
        Optimizers move what they keep with their next step.  Raises DeviceError if there is no
        such device, DTypeError for a dtype that is no float.
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

    def float(self) -> Self:
        """Make all float parameters and buffers float32."""
        return self.to(float32)

    def double(self) -> Self:
        """Make all float parameters and buffers float64."""
        return self.to(float64)

    def half(self) -> Self:
        """Make all float parameters and buffers float16."""
        return self.to(float16)

    def bfloat16(self) -> Self:
        """Make all float parameters and buffers bfloat16."""
        return self.to(bfloat16)

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


def _refuse(
    module: Module, what: str, actual: str, expect: str = "", hint: str = ""
) -> ArgumentError:
    return ArgumentError(what, op=type(module).__name__, expect=expect, actual=actual, hint=hint)
