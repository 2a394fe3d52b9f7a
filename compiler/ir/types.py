"""Types of the tensor IR: shape, dtype and device, interned.

TensorType ::= dtype [Dim, ...] @ device           printed  f32[128,784]
weak types stand for Python numbers: they promote below every tensor of their kind
"""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

from dualgrad.compiler.ir.dims import Dim, at_most, product, same
from dualgrad.runtime.dtype import DType

Layouts = tuple[tuple[Dim, ...] | None, ...]  # strides per input in elements; None: contiguous


class TensorType:
    """What is known of a tensor before it exists.  Equal types are the same object."""

    __slots__ = ("device", "dtype", "shape", "strides", "weak")

    _interned: ClassVar[dict[tuple[object, ...], TensorType]] = {}

    shape: tuple[Dim, ...]
    dtype: DType
    weak: bool
    device: str
    strides: tuple[Dim, ...]  # in elements, of row-major memory

    def __new__(
        cls, shape: tuple[Dim, ...], dtype: DType, weak: bool = False, device: str = "cpu"
    ) -> TensorType:
        key = (shape, dtype, weak, device)
        found = cls._interned.get(key)
        if found is None:
            found = object.__new__(cls)
            found.shape, found.dtype, found.weak, found.device = shape, dtype, weak, device
            found.strides = contiguous_strides(shape)
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


def reshaped_steps(
    shape: tuple[Dim, ...], steps: tuple[Dim, ...], new: tuple[Dim, ...]
) -> tuple[Dim, ...] | None:
    """Strides under which memory of this shape and strides shows the elements in the shape
    `new` of as many elements, in row-major order; None if it cannot.

    Axes are matched in groups of equal products; the old ones of a group must follow each other
    without gaps.  Sizes of 1 do not matter.  All questions about sizes become guards.
    """
    old = [(n, s) for n, s in zip(shape, steps, strict=True) if n != 1]
    if any(n == 0 for n in shape) or steps == contiguous_strides(shape):
        return contiguous_strides(new)
    out: list[Dim] = []
    i = j = 0
    while i < len(old) and j < len(new):
        left, right = [old[i]], [new[j]]
        i, j = i + 1, j + 1
        while not same(product(n for n, _ in left), product(right)):
            if at_most(product(n for n, _ in left) - product(right), -1):
                left.append(old[i])
                i += 1
            else:
                right.append(new[j])
                j += 1
        if not all(same(a[1], b[1] * b[0]) for a, b in pairwise(left)):
            return None
        out += [s * left[-1][1] for s in contiguous_strides(tuple(right))]
    return (*out, *[out[-1] if out else 1] * (len(new) - j))
