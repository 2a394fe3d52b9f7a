"""Views of a part of a tensor: slices, diagonals, sliding windows.

Their gradients put elements back where they came from; see `region`.
"""

from __future__ import annotations

from typing import Any

from dualgrad.compiler.ir.dims import Dim, Offset, minimum, same
from dualgrad.compiler.ir.size import slice_bounds
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import Value, apply, public
from dualgrad.compiler.ops.base import (
    FIRST,
    SECOND,
    axes_of,
    axis_argument,
    axis_pair,
    normalize_axis,
    other_name,
)
from dualgrad.compiler.ops.elementwise import copy
from dualgrad.compiler.ops.operands import check_tensors
from dualgrad.compiler.ops.region import accumulate
from dualgrad.compiler.ops.sample import Arg, Sample
from dualgrad.compiler.ops.view import Index, View, whole
from dualgrad.runtime.errors import ArgumentError, IndexOutOfBounds, ShapeError


class Slice(View):
    """Along each axis `sizes` elements, from `starts` in steps of `steps` (never 0)."""

    starts: tuple[Offset, ...]
    steps: tuple[int, ...]
    sizes: tuple[Dim, ...]

    def infer(self, *types: TensorType) -> TensorType:
        return types[0].with_shape(self.sizes)

    def source(self, index: Index, shape: tuple[Dim, ...]) -> Index:
        parts = zip(index, self.starts, self.steps, strict=True)
        return tuple(start + step * i for i, start, step in parts)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (accumulate(g, self, x.shape),)

    @staticmethod
    def samples() -> list[Sample]:
        def case(shape: tuple[int, ...], *parts: slice, layout: str = "contiguous") -> Sample:
            return Sample(
                lambda x: slices(x, parts), (Arg(shape, layout=layout),), lambda np, x: x[parts]
            )

        zero = Sample(
            lambda x: slices(x, (slice(None, None, 0),)),
            (Arg((3,)),),
            error=ValueError,
            match=r"\[getitem\] the step is zero",
        )
        many = Sample(
            lambda x: slices(x, (slice(1), slice(1))),
            (Arg((3,)),),
            error=IndexError,
            match=r"\[getitem\] too many indices",
        )
        return [
            case((7,), slice(2, 5)),
            case((7, 5), slice(None, None, 2), slice(1, -1)),
            case((7, 5), slice(None, None, -1), slice(4, None, -3)),
            case((7, 5), slice(5, 2), layout="transposed"),
            case((4, 6), slice(1, 100), slice(-2, None), layout="strided"),
            case((0, 3), slice(None), slice(1, 2)),
            zero,
            many,
        ]


def slices(x: Any, parts: tuple[slice, ...]) -> Any:
    """Return x restricted to Python slices of its first axes, as NumPy's x[parts].

    Shares memory unless a step is negative.  Raises ArgumentError for a step of zero.
    """
    check_tensors("getitem", x)
    if len(parts) > x.ndim:
        raise IndexOutOfBounds(
            "too many indices",
            op="getitem",
            expect=f"at most {x.ndim}",
            actual=str(len(parts)),
            hint="drop an index",
        )
    full = [*parts, *(slice(None),) * (x.ndim - len(parts))]
    ranges = [_range(p, n) for p, n in zip(full, x.shape, strict=True)]
    return strided(
        x,
        tuple(start for start, _, _ in ranges),
        tuple(step for _, step, _ in ranges),
        tuple(size for _, _, size in ranges),
    )


def _range(part: slice, n: Dim) -> tuple[Dim, int, Dim]:
    """(start, step, number of elements) of a Python slice of an axis."""
    if part == slice(None):
        return 0, 1, n
    if part.step == 0:
        raise ArgumentError(
            "the step is zero",
            op="getitem",
            expect="step != 0",
            actual="0",
            hint="leave the step out for 1",
        )
    if not isinstance(n, int):
        raise ShapeError(
            "a slice of an axis of unknown size",
            op="getitem",
            expect="a size that is known; use narrow(x, axis, start, length)",
            actual=f"{n}",
            hint="narrow(x, axis, start, length) takes a part of an axis of any size",
        )
    start, step, size = slice_bounds(part, n)
    return (start if size else 0), step, size


def strided(x: Any, starts: tuple[Dim, ...], steps: tuple[int, ...], sizes: tuple[Dim, ...]) -> Any:
    """Return elements starts + steps * i of x for i < sizes, which must lie inside."""
    if sizes == x.shape and all(s == 1 for s in steps):
        return whole(x)
    return apply(Slice.of(starts, steps, sizes), x)[0]


@public("narrow")
def narrow(x: Any, axis: int, start: Any, length: Any) -> Any:
    """Return elements start..start+length-1 of x along `axis`, sharing memory.

    A negative start counts from the end.  Raises IndexOutOfBounds unless
    0 <= start <= start + length <= size.
    """
    check_tensors("narrow", x)
    axis = normalize_axis("narrow", axis, x.ndim)
    n = x.shape[axis]
    start = start.item() if isinstance(start, Value) else start
    start = start + n if isinstance(start, int) and start < 0 else start
    if all(isinstance(v, int) for v in (start, length, n)) and not (
        0 <= start <= start + length <= n
    ):
        raise IndexOutOfBounds(
            "the part does not lie inside",
            op="narrow",
            expect=f"0 <= start <= start + length <= {n}",
            actual=f"start={start}, length={length}",
            hint="make start or length smaller",
        )
    starts = tuple(start if k == axis else 0 for k in range(x.ndim))
    sizes = tuple(length if k == axis else n for k, n in enumerate(x.shape))
    return strided(x, starts, (1,) * x.ndim, sizes)


@public("select")
def select(x: Any, axis: int, index: int) -> Any:
    """Return x at one index of `axis`, without that axis, sharing memory.

    A negative index counts from the end.  Raises IndexOutOfBounds outside of [-size, size).
    """
    check_tensors("select", x)
    axis = normalize_axis("select", axis, x.ndim)
    n = x.shape[axis]
    if isinstance(n, int) and not -n <= index < n:
        raise IndexOutOfBounds(
            "index out of range",
            op="select",
            expect=f"-{n} <= index < {n} for axis {axis}",
            actual=str(index),
            hint="count from 0; negative indices count from the end",
        )
    part = narrow(x, axis, index + n if index < 0 else index, 1)
    return part.reshape((*x.shape[:axis], *x.shape[axis + 1 :]))


@public("flip")
def flip(x: Any, axis: Any = None, **dims: Any) -> Any:
    """Return x with its elements in reverse order along `axis` (None: all axes), as a copy."""
    check_tensors("flip", x)
    axis = axis_argument("flip", other_name("flip", "axis", axis, "dims", dims), dims)
    axes = range(x.ndim) if axis is None else axes_of("flip", axis, x.ndim)
    starts = tuple(n - 1 if k in axes and n != 0 else 0 for k, n in enumerate(x.shape))
    steps = tuple(-1 if k in axes else 1 for k in range(x.ndim))
    if all(isinstance(x.shape[k], int) and x.shape[k] < 2 for k in axes):
        return copy(x)  # the same elements in the same order, which a view would share
    return strided(x, starts, steps, x.shape)


class Diagonal(View):
    """Elements [.., row + i, .., column + i, ..] of two axes, i < size, as a new last axis."""

    first: int
    second: int
    row: Offset
    column: Offset
    size: Dim

    def infer(self, *types: TensorType) -> TensorType:
        kept = (n for k, n in enumerate(types[0].shape) if k not in (self.first, self.second))
        return types[0].with_shape((*kept, self.size))

    def source(self, index: Index, shape: tuple[Dim, ...]) -> Index:
        rest = iter(index[:-1])
        place = {self.first: self.row + index[-1], self.second: self.column + index[-1]}
        return tuple(place[k] if k in place else next(rest) for k in range(len(shape)))

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (accumulate(g, self, x.shape),)

    @staticmethod
    def samples() -> list[Sample]:
        def case(shape: tuple[int, ...], offset: int, first: int, second: int) -> Sample:
            return Sample(
                lambda x: diagonal(x, offset, first, second),
                (Arg(shape),),
                lambda np, x: np.diagonal(x, offset, first, second),
            )

        bad = Sample(
            lambda x: diagonal(x, 0, 1, -1),
            (Arg((2, 3)),),
            error=ValueError,
            match=r"\[diagonal\] needs two axes",
        )
        return [
            case((4, 4), 0, 0, 1),
            case((4, 6), 2, 0, 1),
            case((4, 6), -3, 0, 1),
            case((3, 4, 5), 1, 2, 0),
            case((4, 6), 6, 0, 1),
            case((0, 3), 0, 0, 1),
            bad,
        ]


@public("diagonal")
def diagonal(x: Any, offset: int = 0, axis1: int = FIRST, axis2: int = SECOND, **dims: Any) -> Any:
    """Return the diagonal of two axes as a new last axis, sharing memory.

    A positive offset lies above the main diagonal.  Raises ShapeError unless the axes differ.
    """
    check_tensors("diagonal", x)
    pair = axis_pair("diagonal", axis1, axis2, dims)
    first, second = (normalize_axis("diagonal", a, x.ndim) for a in pair)
    if first == second:
        raise ShapeError(
            "needs two axes",
            op="diagonal",
            expect="distinct axes",
            actual=f"{axis1}, {axis2}",
            hint="give two different axes, such as -2 and -1",
        )
    row, column = (-offset, 0) if offset < 0 else (0, offset)
    size = _shorter(x.shape[first] - row, x.shape[second] - column)
    if isinstance(size, int) and size < 1:
        row, column, size = 0, 0, 0
    return apply(Diagonal.of(first, second, row, column, size), x)[0]


def _shorter(a: Dim, b: Dim) -> Dim:
    return a if same(a, b) else minimum(a, b)


class Strided(View):
    """Of a row of elements, element i at offset + sum(steps * i): how a tensor lies in memory."""

    offset: Offset
    steps: tuple[Dim, ...]
    sizes: tuple[Dim, ...]
    vjp = None

    def infer(self, *types: TensorType) -> TensorType:
        return types[0].with_shape(self.sizes)

    def source(self, index: Index, shape: tuple[Dim, ...]) -> Index:
        place: Dim = self.offset
        for i, step in zip(index, self.steps, strict=True):
            place = place + step * i
        return (place,)

    @staticmethod
    def samples() -> list[Sample]:
        turned = Strided.of(3, (1, 4), (4, 3))
        apart = Strided.of(1, (5,), (3,))
        return [
            Sample(
                lambda x: apply(turned, x)[0], (Arg((20,)),), lambda np, x: x[3:15].reshape(3, 4).T
            ),
            Sample(lambda x: apply(apart, x)[0], (Arg((12,)),), lambda np, x: x[1::5]),
        ]


class Windows(View):
    """Sliding windows: along axes[k] counts[k] windows of sizes[k] elements, `steps` apart, their
    elements `dilations` apart.  The windows' own axes come last, in the order of `axes`."""

    axes: tuple[int, ...]
    counts: tuple[Dim, ...]
    sizes: tuple[Dim, ...]
    steps: tuple[int, ...]
    dilations: tuple[int, ...]

    def infer(self, *types: TensorType) -> TensorType:
        counts = dict(zip(self.axes, self.counts, strict=True))
        kept = (counts.get(k, n) for k, n in enumerate(types[0].shape))
        return types[0].with_shape((*kept, *self.sizes))

    def source(self, index: Index, shape: tuple[Dim, ...]) -> Index:
        place = list(index[: len(shape)])
        parts = zip(self.axes, self.steps, self.dilations, index[len(shape) :], strict=True)
        for axis, step, dilation, i in parts:
            place[axis] = step * place[axis] + dilation * i
        return tuple(place)

    @property
    def shared(self) -> int:
        return len(self.axes)

    @property
    def swept(self) -> tuple[int, ...]:
        return self.axes

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (accumulate(g, self, x.shape),)

    @staticmethod
    def samples() -> list[Sample]:
        def case(n: tuple[int, ...], axes: Any, size: Any, step: Any, apart: Any) -> Sample:
            def reference(np: Any, x: Any) -> Any:
                spans = tuple(a * (s - 1) + 1 for a, s in zip(apart, size, strict=True))
                w = np.lib.stride_tricks.sliding_window_view(x, spans, axes)
                picks = [slice(None)] * w.ndim
                for k, axis in enumerate(axes):
                    picks[axis] = slice(None, None, step[k])
                    picks[x.ndim + k] = slice(None, None, apart[k])
                return w[tuple(picks)]

            return Sample(lambda x: windows(x, axes, size, step, apart), (Arg(n),), reference)

        bad = Sample(
            lambda x: windows(x, (0,), (4,), (1,), (1,)),
            (Arg((3,)),),
            error=ValueError,
            match=r"\[unfold\] a window does not fit",
        )
        return [
            case((7,), (0,), (3,), (1,), (1,)),
            case((2, 9), (1,), (3,), (2,), (2,)),
            case((2, 6, 7), (1, 2), (3, 2), (1, 2), (1, 1)),
            case((2, 6, 7, 2), (1, 2), (2, 3), (2, 1), (2, 3)),
            bad,
        ]


def windows(
    x: Any,
    axes: tuple[int, ...],
    sizes: tuple[Dim, ...],
    steps: tuple[int, ...],
    dilations: tuple[int, ...],
) -> Any:
    """Return all windows of x that fit: [..., windows, ..., *sizes], sharing memory.

    Raises ShapeError where an axis is shorter than one window.
    """
    check_tensors("unfold", x)
    axes = tuple(normalize_axis("unfold", a, x.ndim) for a in axes)
    counts = []
    for axis, size, step, dilation in zip(axes, sizes, steps, dilations, strict=True):
        span = dilation * (size - 1) + 1
        rest = x.shape[axis] - span
        if isinstance(rest, int) and rest < 0:
            raise ShapeError(
                "a window does not fit",
                op="unfold",
                expect=f"at least {span} elements along axis {axis}",
                actual=f"{x.shape[axis]}",
                hint="use a smaller kernel, or pad the input",
            )
        counts.append((rest if step == 1 else rest // step) + 1)
    return apply(Windows.of(axes, tuple(counts), tuple(sizes), tuple(steps), tuple(dilations)), x)[
        0
    ]


@public("unfold")
def unfold(x: Any, axis: int, size: int, step: int = 1) -> Any:
    """Return windows of `size` elements along `axis`, `step` apart, as a new last axis.

    [..., n, ...] -> [..., (n - size) // step + 1, ..., size], sharing memory.  Raises ShapeError
    where no window fits.
    """
    if x.ndim == 0:  # a number has one axis of one element
        return unfold(x.reshape((1,)), axis, size, step).reshape((size,))
    if size < 1 or step < 1:
        raise ArgumentError(
            "windows have elements and move on",
            op="unfold",
            expect="size >= 1 and step >= 1",
            actual=f"size={size}, step={step}",
            hint="step=size gives windows that do not overlap",
        )
    return windows(x, (axis,), (size,), (step,), (1,))
