"""Tensors under Python's `copy` and `pickle`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dualgrad.compiler.ops.transfer import transfer
from dualgrad.runtime.devices import CPU
from dualgrad.runtime.dtype import DType
from dualgrad.runtime.errors import GradientError
from dualgrad.state import state

if TYPE_CHECKING:
    from dualgrad.tensor import Tensor


class Copying:
    """The part of `Tensor` that makes second ones of it."""

    __slots__ = ()

    def __copy__(self: Tensor) -> Tensor:  # type: ignore[misc]
        """The same memory and history under a second name."""
        out = self.detached()
        out.__class__, out.base, out._grad = type(self), self.base, self._grad
        out.requires_grad, out.grad_fn = self.requires_grad, self.grad_fn
        out.output_number = getattr(self, "output_number", 0)
        if state.trace is not None:
            state.trace.note_copied(self, out)
        return out

    def __reduce__(self: Tensor) -> tuple[Any, ...]:  # type: ignore[misc]
        """For `deepcopy` and `pickle`: values, `requires_grad` and gradient of a leaf."""
        if self.grad_fn is not None:
            raise GradientError(
                "a computed tensor cannot be copied with its graph",
                op="copy",
                expect="a leaf",
                actual=f"a result of {self.grad_fn.name}",
                hint="copy x.detach(), or call x.clone()",
            )
        values = (self.on_host("copying"), self.type.dtype)
        where = self.type.device
        return restored, (type(self), *values, self.requires_grad, self._grad, where)


def restored(
    kind: type[Tensor],
    array: Any,
    dtype: DType,
    requires_grad: bool,
    grad: Tensor | None,
    device: str = CPU,
) -> Tensor:
    """A leaf as `__reduce__` describes it.  Raises DeviceError if its device is not there."""
    out: Tensor = transfer(kind.of_numpy(array, dtype), device)
    out.__class__ = kind
    out.requires_grad, out._grad = requires_grad, grad
    return out
