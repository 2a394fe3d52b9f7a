"""What the array API standard asks of an array beyond the operators."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from dualgrad.compiler.ir.value import Value
from dualgrad.compiler.ops.assign import ASSIGN
from dualgrad.compiler.ops.contract import MATMUL, matmul
from dualgrad.dispatch import check_write
from dualgrad.runtime.errors import ArgumentError
from dualgrad.state import state

if TYPE_CHECKING:
    from dualgrad.tensor import Tensor

VERSIONS = ("2021.12", "2022.12", "2023.12", "2024.12", "2025.12")


class ArrayObject:
    """The part of `Tensor` that the array API standard adds."""

    __slots__ = ()

    def __array_namespace__(self, *, api_version: str | None = None) -> ModuleType:
        """Return `dualgrad.array_api`, the functions under the names and rules of the standard.

        Raises ArgumentError for a version of the standard that is not known.
        """
        if api_version is not None and api_version not in VERSIONS:
            raise ArgumentError(
                "unknown version of the array API standard",
                op="__array_namespace__",
                expect=", ".join(VERSIONS),
                actual=repr(api_version),
                hint="leave api_version out for the newest",
            )
        return import_module("dualgrad.array_api")

    def to_device(self: Tensor, device: Any, /, stream: None = None) -> Tensor:  # type: ignore[misc]
        """Return the tensor on a device, itself if it is there.  Streams cannot be chosen:
        `stream` must be None, else ArgumentError."""
        if stream is not None:
            raise ArgumentError(
                "streams cannot be chosen",
                op="to_device",
                expect="stream=None",
                actual=repr(stream),
                hint="copies wait for the work that they need",
            )
        out: Tensor = self.to(device=device)
        return out

    def __complex__(self: Tensor) -> complex:  # type: ignore[misc]
        return complex(float(self.item()))

    def __rmatmul__(self: Tensor, other: Any) -> Tensor:  # type: ignore[misc]
        return matmul(other, self) if isinstance(other, Value) else NotImplemented

    def __imatmul__(self: Tensor, other: Tensor) -> Tensor:  # type: ignore[misc]
        recorded = state.grad_enabled and (self.requires_grad or other.requires_grad)
        value = matmul(self.clone() if recorded else self, other)  # the tape keeps the operand
        check_write(MATMUL, self.type, value.type)
        return self._write(ASSIGN, value)
