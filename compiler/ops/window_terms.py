"""Windows as terms: their elements place by place, and what covers an element of the input.

For few places a pooling is a formula of strided views, and its gradient one of views of the
windows' cotangents: nothing is copied.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from dualgrad.compiler.ir.dims import Dim
from dualgrad.compiler.ops.correlation import Ints, Shape
from dualgrad.compiler.ops.create import Iota
from dualgrad.compiler.ops.elementwise import to
from dualgrad.compiler.ops.padding import zero_padded
from dualgrad.compiler.ops.slicing import strided
from dualgrad.compiler.ops.view import expand_to
from dualgrad.runtime.dtype import int32
from dualgrad.runtime.records import dataclass

_MOST = 16  # places, and windows over an element, up to which formulas are written out


@dataclass(frozen=True)
class Places:
    """Where the windows of a pooling lie: numbers per spatial axis."""

    kernel: Ints
    stride: Ints
    before: Ints
    dilation: Ints

    @property
    def reach(self) -> Ints:
        """How many windows may cover an element along each axis."""
        axes = zip(self.kernel, self.dilation, self.stride, strict=True)
        return tuple(d * (k - 1) // s + 1 for k, d, s in axes)

    @property
    def is_short(self) -> bool:
        """Whether formulas pay."""
        return _count(self.kernel) <= _MOST and _count(self.reach) <= _MOST

    def number(self, distances: tuple[Any, ...]) -> Any:
        """The number of a place that lies so far from its window's first element."""
        total: Any = 0
        for distance, reach, stride in zip(distances, self.reach, self.stride, strict=True):
            total = total * (reach * stride) + distance
        return total

    def elements(self, x: Any, counts: Shape) -> Iterator[tuple[Ints, Any]]:
        """The distances of each place, row-major, and its elements in all windows of the padded
        input [N, C, ...]."""
        steps, sizes = (1, 1, *self.stride), (*x.shape[:2], *counts)
        for place in itertools.product(*map(range, self.kernel)):
            at = tuple(d * k for d, k in zip(self.dilation, place, strict=True))
            yield at, strided(x, (0, 0, *at), steps, sizes)

    def covering(self, space: Shape, *windows: Any) -> Iterator[tuple[Any, ...]]:
        """For each window that may cover an element of the input [N, C, *space], first windows
        first: how far from its first element that is along each axis, as int32, and what `windows`
        [N, C, ...] have for it, zeros where there is no window."""
        counts = windows[0].shape[2:]
        axes = zip(space, counts, self.stride, self.before, self.reach, strict=True)
        front = tuple(r - 1 for r in self.reach)
        back = tuple(_missing(*axis) for axis in axes)
        wide = [zero_padded(w, front, back) for w in windows]
        for steps in itertools.product(*(range(r - 1, -1, -1) for r in self.reach)):
            yield (
                self._distances(space, steps),
                *(self._spread(w, space, steps) for w in wide),
            )

    def _spread(self, w: Any, space: Shape, steps: Ints) -> Any:
        """Padded windows [N, C, ...]: those `steps` before the one that begins last before an
        element of the input."""
        axes = zip(w.shape[2:], self.reach, steps, strict=True)
        lengths = [(m - (r - 1), r - 1 - k) for m, r, k in axes]
        w = strided(
            w,
            (0, 0, *(first for _, first in lengths)),
            (1,) * w.ndim,
            (*w.shape[:2], *(n for n, _ in lengths)),
        )
        rank = len(space)
        apart, full, whole = list(w.shape[:2]), list(w.shape[:2]), list(w.shape[:2])
        for (n, _), s in zip(lengths, self.stride, strict=True):
            apart += [n, 1]
            full += [n, s]
            whole.append(n * s)
        w = expand_to(w.reshape(tuple(apart)), tuple(full)).reshape(tuple(whole))
        return strided(w, (0, 0, *self.before), (1,) * (rank + 2), (*w.shape[:2], *space))

    def _distances(self, space: Shape, steps: Ints) -> tuple[Any, ...]:
        """How far the elements of the input lie from the first element of such windows."""
        out = []
        axes = zip(space, self.stride, self.before, steps, strict=True)
        for axis, (n, s, b, k) in enumerate(axes):
            whole = n // s + b // s + 2
            here = Iota.of((whole, s), 1).on().reshape((whole * s,))
            here = strided(here, (b,), (1,), (n,))
            shape = tuple(n if a == axis else 1 for a in range(len(space)))
            out.append(to(here.reshape(shape), int32) + k * s)
        return tuple(out)


def _missing(n: Dim, count: Dim, stride: int, before: int, reach: int) -> Dim:
    """Windows to add at the end, so that there is one that begins last before each of n
    elements."""
    if isinstance(n, int) and isinstance(count, int):
        return max((n - 1 + before) // stride + 1 - count, 0)
    return reach  # of unknown sizes it may be as many


def _count(numbers: Ints) -> int:
    total = 1
    for n in numbers:
        total *= n
    return total
