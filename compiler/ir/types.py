"""Types of the tensor IR: shape, dtype and device, interned.

TensorType ::= dtype [Dim, ...] @ device           printed  f32[128,784]
weak types stand for Python numbers: they promote below every tensor of their kind
"""

from __future__ import annotations

from typing import ClassVar

from dualgrad.compiler.ir.dims import Dim, product
from dualgrad.runtime.dtype import DType

Layouts = tuple[tuple[Dim, ...] | None, ...]  # strides per input in elements; None: contiguous


class TensorType:
    """What is known of a tensor before it exists.  Equal types are the same object."""

    __slots__ = ("device", "dtype", "shape", "weak")

    _interned: ClassVar[dict[tuple[object, ...], TensorType]] = {}

    shape: tuple[Dim, ...]
    dtype: DType
    weak: bool
    device: str

    def __new__(
        cls, shape: tuple[Dim, ...], dtype: DType, weak: bool = False, device: str = "cpu"
    ) -> TensorType:
        key = (shape, dtype, weak, device)
        found = cls._interned.get(key)
        if found is None:
            found = object.__new__(cls)
            found.shape, found.dtype, found.weak, found.device = shape, dtype, weak, device
            found = cls._interned.setdefault(key, found)
        return found

    def __reduce__(self) -> tuple[object, ...]:
        return (TensorType, (self.shape, self.dtype, self.weak, self.device))

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> Dim:
        """Number of elements."""
        return product(self.shape)

    @property
    def nbytes(self) -> Dim:
        return self.size * self.dtype.itemsize

    def with_shape(self, shape: tuple[Dim, ...]) -> TensorType:
        return TensorType(shape, self.dtype, self.weak, self.device)

    def at(self, device: str) -> TensorType:
        """The same of a tensor on another device."""
        return TensorType(self.shape, self.dtype, self.weak, device)

    def with_dtype(self, dtype: DType) -> TensorType:
        return TensorType(self.shape, dtype, False, self.device)

    def __repr__(self) -> str:
        weak = "~" if self.weak else ""
        at = "" if self.device == "cpu" else f"@{self.device}"
        return f"{weak}{self.dtype.short}[{','.join(map(str, self.shape))}]{at}"


def contiguous_strides(shape: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """Row-major strides in elements."""
    strides: list[Dim] = []
    step: Dim = 1
    for d in reversed(shape):
        strides.append(step)
        step = d * step
    return tuple(reversed(strides))
