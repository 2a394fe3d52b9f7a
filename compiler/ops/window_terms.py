"""Windows as terms: their elements place by place, and what covers an element of the input.

For few places a pooling is a formula of strided views, and its gradient one of views of the
windows' cotangents: nothing is copied.
"""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dualgrad.compiler.ir.dims import Dim
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import apply
from dualgrad.compiler.kernel.scalar import Scalar, index
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.correlation import Ints, Shape
from dualgrad.compiler.ops.elementwise import to
from dualgrad.compiler.ops.index import Index, Loads
from dualgrad.compiler.ops.padding import zero_padded
from dualgrad.compiler.ops.sample import Arg, Sample
from dualgrad.compiler.ops.slicing import strided
from dualgrad.compiler.ops.view import View
from dualgrad.runtime.dtype import int32, int64
from dualgrad.runtime.records import dataclass

if TYPE_CHECKING:
    from dualgrad.compiler.build.builder import Builder

_MOST = 16  # places, and windows over an element, up to which formulas are written out


class Cycle(Index):
    """out[i] = (i + before) % step, as int64."""

    size: Dim
    step: int
    before: int
    vjp = None

    def infer(self, *types: TensorType) -> TensorType:
        return TensorType((self.size,), int64)

    def value(self, b: Builder, loads: Loads, at: tuple[Dim, ...]) -> Scalar:
        return index((at[0] + self.before) % self.step)

    @staticmethod
    def samples() -> list[Sample]:
        return [
            Sample(
                lambda x: _with_cycle(x, step=3, before=2),
                (Arg((7,), int64, values=(3, -5, 8)),),
                lambda np, x: x + (np.arange(7) + 2) % 3,
                gradient=False,
            )
        ]


@composite
def _with_cycle(x: Any, *, step: int, before: int) -> Any:
    return x + Cycle.of(x.shape[0], step, before).on()


class Stretch(View):
    """Of x [N, C, ...] element first + (i + before) // step along each further axis, for i below
    `sizes`."""

    first: Ints
    step: Ints
    before: Ints
    sizes: Shape

    def infer(self, *types: TensorType) -> TensorType:
        return types[0].with_shape((*types[0].shape[:2], *self.sizes))

    def source(self, index: tuple[Dim, ...], shape: Shape) -> tuple[Dim, ...]:
        axes = zip(index[2:], self.first, self.step, self.before, strict=True)
        return (*index[:2], *(f + (i + b) // s for i, f, s, b in axes))

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        front = tuple(f * s + b for f, s, b in zip(self.first, self.step, self.before, strict=True))
        axes = zip(x.shape[2:], self.step, front, self.sizes, strict=True)
        wide = zero_padded(g, front, tuple(m * s - f - n for m, s, f, n in axes))
        rank = len(self.step)
        same = Places(self.step, self.step, (0,) * rank, (1,) * rank)
        return (functools.reduce(operator.add, (e for _, e in same.elements(wide, x.shape[2:]))),)

    @staticmethod
    def samples() -> list[Sample]:
        view = Stretch.of((1, 0), (2, 3), (1, 0), (4, 5))

        def reference(np: Any, x: Any) -> Any:
            rows, columns = 1 + (np.arange(4) + 1) // 2, np.arange(5) // 3
            return x[:, :, rows][:, :, :, columns]

        return [Sample(lambda x: apply(view, x)[0], (Arg((2, 1, 4, 3)),), reference)]


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
        return math.prod(self.kernel) <= _MOST and math.prod(self.reach) <= _MOST

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
        first = tuple(r - 1 - k for r, k in zip(self.reach, steps, strict=True))
        return apply(Stretch.of(first, self.stride, self.before, space), w)[0]

    def _distances(self, space: Shape, steps: Ints) -> tuple[Any, ...]:
        """How far the elements of the input lie from the first element of such windows."""
        out = []
        axes = zip(space, self.stride, self.before, steps, strict=True)
        for axis, (n, s, b, k) in enumerate(axes):
            shape = tuple(n if a == axis else 1 for a in range(len(space)))
            here = Cycle.of(n, s, b).on().reshape(shape)
            out.append(to(here, int32) + k * s)
        return tuple(out)


def _missing(n: Dim, count: Dim, stride: int, before: int, reach: int) -> Dim:
    """Windows to add at the end, so that there is one that begins last before each of n
    elements."""
    if isinstance(n, int) and isinstance(count, int):
        return max((n - 1 + before) // stride + 1 - count, 0)
    return reach  # of unknown sizes it may be as many
