"""Pooling: the largest element, mean or norm of windows or of equal shares of an input.

Inputs are [N, C, L1, ...] or, without a batch, [C, L1, ...].  The gradient of a maximum goes to
the first largest element of the window, as PyTorch's does; of several NaNs to the first, as
`argmax` has it (PyTorch's pooling takes the last).  Where nothing is larger than the padding, the
first element of the window that lies in the input counts.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Iterator
from typing import Any

from dualgrad.compiler.grad import pullback
from dualgrad.compiler.ir.dims import Dim, at_most, product, same
from dualgrad.compiler.ir.node import as_node
from dualgrad.compiler.ops.arguments import as_float, refuse_bools
from dualgrad.compiler.ops.composite import composite, with_gradient
from dualgrad.compiler.ops.convolution import batched, sizes
from dualgrad.compiler.ops.correlation import Ints, Shape
from dualgrad.compiler.ops.create import Iota, count
from dualgrad.compiler.ops.elementwise import copy, to
from dualgrad.compiler.ops.extremum import Argmax, Max, arg_run
from dualgrad.compiler.ops.first_max import FirstMax, flat_place
from dualgrad.compiler.ops.logical import where
from dualgrad.compiler.ops.padding import pad
from dualgrad.compiler.ops.precision import kept
from dualgrad.compiler.ops.reduce import limits
from dualgrad.compiler.ops.sample import Arg, Sample, formula, samples_of
from dualgrad.compiler.ops.slicing import windows
from dualgrad.compiler.ops.window_terms import Places
from dualgrad.runtime.dtype import DType, int32, int64
from dualgrad.runtime.errors import ArgumentError, ShapeError
from dualgrad.runtime.records import dataclass

# -- windows --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Geometry:
    """Where the windows of a pooling lie: numbers per spatial axis; `after` is the padding that
    the last window needs."""

    kernel: Ints
    stride: Ints
    padding: Ints
    after: Ints
    dilation: Ints

    @classmethod
    def of(
        cls,
        op: str,
        space: Shape,
        kernel_size: Any,
        stride: Any,
        padding: Any,
        dilation: Any,
        ceil_mode: bool,
    ) -> Geometry:
        rank = len(space)
        kernel = sizes(op, "kernel_size", kernel_size, rank, 1)
        none = stride is None or stride == ()
        steps = kernel if none else sizes(op, "stride", stride, rank, 1)
        pads = sizes(op, "padding", padding, rank, 0)
        apart = sizes(op, "dilation", dilation, rank, 1)
        if any(2 * p > d * (k - 1) + 1 for p, k, d in zip(pads, kernel, apart, strict=True)):
            raise ArgumentError(
                "padding is too large",
                op=op,
                expect="at most half of the kernel",
                actual=f"padding={pads}, kernel_size={kernel}",
                hint="pad the input itself with F.pad for more",
            )
        after = pads
        if ceil_mode:
            axes = zip(space, kernel, steps, pads, apart, strict=True)
            after = tuple(_ceil_padding(*axis) for axis in axes)
        return cls(kernel, steps, pads, after, apart)

    @property
    def places(self) -> Places:
        return Places(self.kernel, self.stride, self.padding, self.dilation)

    def counts(self, x: Any) -> Shape:
        """How many windows a padded input [N, C, ...] has along each axis."""
        axes = zip(x.shape[2:], self.kernel, self.stride, self.dilation, strict=True)
        return tuple((n - d * (k - 1) - 1) // s + 1 for n, k, s, d in axes)


def _ceil_padding(n: Dim, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Elements to add at the end, so that windows that begin inside count though they do not
    end there; those that begin in the padding do not count."""
    rest = n + 2 * padding - (dilation * (kernel - 1) + 1)
    beyond = rest % stride
    over = next(k for k in range(stride) if same(beyond, k))  # for sizes that are symbols
    if over == 0 or at_most(n + padding + over - rest - stride, 0):
        return padding
    return padding + stride - over


def _first_largest(x: Any, geometry: Geometry) -> tuple[Any, Any]:
    """The largest elements of windows, and the numbers of their (first) places, as int32."""
    g = geometry
    x = padded(x, g.padding, g.after, _lowest(x.dtype))
    best: Any = None
    place: Any = None
    for at, element in g.places.elements(x, g.counts(x)):
        number = g.places.number(at)
        if best is None:
            best, place = element, _first_inside(g, element.shape)
            continue
        stays = (best >= element) | best.ne(best)
        best = where(stays, best, element)
        place = where(stays, place, number)
    return best, place


def _first_inside(geometry: Geometry, shape: Shape) -> Any:
    """For each of the windows [N, C, ...] the number of its first place that is not in front of the
    input."""
    starts = zip(_starts(geometry, shape[2:]), geometry.padding, strict=True)
    distances = tuple(_inside(low, d) - low if p else 0 for (low, d), p in starts)
    return to(as_node(geometry.places.number(distances)), int32).expand(shape)


def _starts(geometry: Geometry, counts: Shape) -> Iterator[tuple[Any, int]]:
    """Where windows begin along each axis, in the input's numbers, and how far their elements are
    apart."""
    axes = zip(counts, geometry.stride, geometry.padding, geometry.dilation, strict=True)
    for axis, (n, s, p, d) in enumerate(axes):
        shape = tuple(n if a == axis else 1 for a in range(len(counts)))
        yield (Iota.of((n,), 0).on() * s - p).reshape(shape), d


def _max_pool_gradient(cotangents: tuple[Any, ...], x: Any, *, geometry: Geometry) -> Any:
    (g,) = cotangents
    if not geometry.places.is_short:
        return _max_columns_gradient(g, x, geometry)
    _, place = _first_largest(x, geometry)
    total: Any = None
    for distances, own, given in geometry.places.covering(x.shape[2:], place, g):
        term = where(own.eq(geometry.places.number(distances)), given, 0.0)
        total = term if total is None else total + term
    return (total,)


def _max_columns_gradient(g: Any, x: Any, geometry: Geometry) -> Any:
    columns, counts = _padded_columns(x, geometry, _lowest(x.dtype))
    place = arg_run(Argmax, Max, columns, 2, 3)
    if any(geometry.padding):
        first: Any = 0
        for k, (low, d) in zip(geometry.kernel, _starts(geometry, counts), strict=True):
            first = first * k + (_inside(low, d) - low) // d
        place = where(place.eq(0), first.expand(counts).flatten(), place)
    here = Iota.of((product(geometry.kernel),), 0).on().reshape((1, 1, -1, 1))
    given = where(here.eq(place.unsqueeze(2)), g.flatten(2).unsqueeze(2), 0.0)
    return pullback((columns,), (given,), (x,))


def _max_columns(x: Any, geometry: Geometry) -> Any:
    columns, counts = _padded_columns(x, geometry, _lowest(x.dtype))
    return FirstMax.of(2, 3).on(columns).reshape((*x.shape[:2], *counts))


@composite
@with_gradient(_max_pool_gradient)
def _max_pool(x: Any, *, geometry: Geometry) -> Any:
    if geometry.places.is_short:
        return _first_largest(x, geometry)[0]
    return _max_columns(x, geometry)


def _lowest(dtype: DType) -> float:
    return -math.inf if dtype.is_float else limits(dtype)[0]


def _padded_columns(x: Any, geometry: Geometry, value: float) -> tuple[Any, Shape]:
    """The windows of x as [N, C, places, windows], and how many there are along each axis."""
    g = geometry
    x = padded(x, g.padding, g.after, value)
    rank = len(g.kernel)
    w = windows(x, tuple(range(2, 2 + rank)), g.kernel, g.stride, g.dilation)
    counts = w.shape[2 : 2 + rank]
    columns = copy(w.permute((0, 1, *range(2 + rank, 2 + 2 * rank), *range(2, 2 + rank))))
    return columns.reshape((*x.shape[:2], product(g.kernel), product(counts))), counts


def padded(x: Any, before: Ints, after: Ints, value: float) -> Any:
    """x with elements added at both ends of its last axes."""
    pairs = [n for pair in zip(reversed(before), reversed(after), strict=True) for n in pair]
    return pad(x, tuple(pairs), value=value) if any(pairs) else x


@composite
def _max_pool_places(x: Any, *, geometry: Geometry) -> Any:
    g = geometry
    if g.places.is_short:
        return _flat_places(x, g)
    columns, counts = _padded_columns(x, g, _lowest(x.dtype))
    axes = zip(x.shape[2:], counts, g.kernel, g.stride, g.padding, g.dilation, strict=True)
    rows = []
    for n, number, k, s, p, d in axes:
        shape = (k, number)
        low = Iota.of(shape, 1).on() * s - p
        rows.append((n, (low + Iota.of(shape, 0).on() * d).maximum(_inside(low, d))))
    return flat_place(columns, rows).reshape((*x.shape[:2], *counts))


def _flat_places(x: Any, geometry: Geometry) -> Any:
    """Where the largest elements lie in the input, seen flat: the windows' first elements, and from
    there on."""
    g = geometry
    _, place = _first_largest(x, g)
    start: Any = 0
    for n, (low, _) in zip(x.shape[2:], _starts(g, place.shape[2:]), strict=True):
        start = start * count(n, int64) + low
    further: Any = None
    for at, _ in g.places.elements(x, place.shape[2:]):
        distance: Any = 0
        for n, d in zip(x.shape[2:], at, strict=True):
            distance = distance * count(n, int64) + d
        far = (
            distance if further is None else where(place.eq(g.places.number(at)), distance, further)
        )
        further = far
    return start + further


def _inside(low: Any, dilation: int) -> Any:
    """The first position of a window from `low` on that is not in front of the input.

    Padding wins where a window has nothing but the lowest number, and its first place then: this
    position stands for it, as PyTorch has it.
    """
    return low + (0 - low + (dilation - 1)).maximum(0) // dilation * dilation


def _check_windows(op: str, space: Shape, geometry: Geometry) -> None:
    g = geometry
    axes = zip(space, g.kernel, g.padding, g.after, g.dilation, strict=True)
    if any(isinstance(n, int) and n + p + e < d * (k - 1) + 1 for n, k, p, e, d in axes):
        raise ShapeError(
            "the kernel is larger than the padded input",
            op=op,
            expect="at least one window along each axis",
            actual=f"sizes {space}, kernel_size={g.kernel}, padding={g.padding}",
            hint="use a smaller kernel_size, or more padding",
        )


def _pool_max(rank: int, input: Any, options: tuple[Any, ...], return_indices: bool) -> Any:
    op = f"max_pool{rank}d"
    x, single = batched(op, input, rank)
    refuse_bools(op, x.dtype)
    geometry = Geometry.of(op, x.shape[2:], *options)
    _check_windows(op, x.shape[2:], geometry)
    found = [_max_pool(x, geometry=geometry)]
    if return_indices:
        found.append(_max_pool_places(x, geometry=geometry))
    outs = [y.squeeze(0) if single else y for y in found]
    return tuple(outs) if return_indices else outs[0]


def max_pool1d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any | tuple[Any, Any]:
    """Return the largest elements of windows of [N, C, L]; see `max_pool2d`."""
    options = (kernel_size, stride, padding, dilation, ceil_mode)
    return _pool_max(1, input, options, return_indices)


def max_pool2d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any | tuple[Any, Any]:
    """Return the largest element of every window of [N, C, H, W] (or [C, H, W]); NaN if there is
    one.

    Numbers are ints or one per axis; `stride` is the kernel's size by default, padding never
    wins.  With `ceil_mode` windows count that begin inside but end beyond the padding.  With
    `return_indices` also the int64 positions of the (first) largest elements in the flat H * W
    plane.  Raises ShapeError where no window fits, ArgumentError for a padding of more than half
    the kernel.
    """
    options = (kernel_size, stride, padding, dilation, ceil_mode)
    return _pool_max(2, input, options, return_indices)


def max_pool3d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any | tuple[Any, Any]:
    """Return the largest elements of windows of [N, C, D, H, W]; see `max_pool2d`."""
    options = (kernel_size, stride, padding, dilation, ceil_mode)
    return _pool_max(3, input, options, return_indices)


def _avg_pool_gradient(
    cotangents: tuple[Any, ...], x: Any, *divisor: Any, geometry: Geometry, include: bool
) -> Any:
    (g,) = cotangents
    size = divisor[0] if divisor else _divisor(x, geometry, g.shape[2:], include)
    each = g / size
    nothing = (None,) * len(divisor)
    if not geometry.places.is_short:
        return *pullback((_sum_columns(x, geometry),), (each,), (x,)), *nothing
    total: Any = None
    for distances, given in geometry.places.covering(x.shape[2:], each):
        inside = [d < k for d, k in zip(distances, geometry.kernel, strict=True)]
        term = where(functools.reduce(operator.and_, inside), given, 0.0)
        total = term if total is None else total + term
    return total, *nothing


def _sum_columns(x: Any, geometry: Geometry) -> Any:
    columns, counts = _padded_columns(x, geometry, 0.0)
    return columns.sum(2).reshape((*x.shape[:2], *counts))


def _window_sums(x: Any, geometry: Geometry) -> Any:
    """The sums of windows, element by element in row-major order."""
    if not geometry.places.is_short:
        return _sum_columns(x, geometry)
    x = padded(x, geometry.padding, geometry.after, 0.0)
    elements = (e for _, e in geometry.places.elements(x, geometry.counts(x)))
    return functools.reduce(operator.add, elements)


@composite
@kept
@with_gradient(_avg_pool_gradient)
def _avg_pool(x: Any, *divisor: Any, geometry: Geometry, include: bool) -> Any:
    x = as_float(x)
    total = _window_sums(x, geometry)
    if divisor:
        return total / divisor[0]
    return total / _divisor(x, geometry, total.shape[2:], include)


def _divisor(x: Any, geometry: Geometry, counts: Shape, include: bool) -> Any:
    """How many elements each window has, with (`include`) or without those of the padding."""
    g = geometry
    if g.after == g.padding and (include or not any(g.padding)):
        return float(product(g.kernel))  # type: ignore[arg-type]
    total: Any = 1
    axes = zip(x.shape[2:], counts, g.kernel, g.stride, g.padding, strict=True)
    for axis, (n, number, k, s, p) in enumerate(axes):
        size = count(n, int64)
        low = Iota.of((number,), 0).on() * s - p
        high = (low + k).minimum(size + p)
        if not include:
            low, high = low.maximum(0), high.minimum(size)
        shape = tuple(number if a == axis else 1 for a in range(len(counts)))
        total = (high - low).reshape(shape) * total
    return to(total, x.dtype)


def _pool_avg(
    rank: int, input: Any, options: tuple[Any, ...], include: bool, divisor: Any = None
) -> Any:
    op = f"avg_pool{rank}d"
    x, single = batched(op, input, rank)
    if divisor == 0:
        raise ArgumentError(
            "cannot divide by 0",
            op=op,
            expect="divisor_override != 0",
            actual="0",
            hint="leave divisor_override out for the number of elements",
        )
    geometry = Geometry.of(op, x.shape[2:], *options)
    _check_windows(op, x.shape[2:], geometry)
    out = _avg_pool(
        x, *(() if divisor is None else (divisor,)), geometry=geometry, include=bool(include)
    )
    return out.squeeze(0) if single else out


def avg_pool1d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Any:
    """Return the means of windows of [N, C, L]; see `avg_pool2d`."""
    options = (kernel_size, stride, padding, 1, ceil_mode)
    return _pool_avg(1, input, options, count_include_pad)


def avg_pool2d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: Any = None,
) -> Any:
    """Return the mean of every window of [N, C, H, W] (or [C, H, W]).

    As `max_pool2d`, with padding of zeros that counts as elements if `count_include_pad`; what
    lies beyond the padding in `ceil_mode` does not count.  `divisor_override` replaces the number
    of elements.
    """
    options = (kernel_size, stride, padding, 1, ceil_mode)
    return _pool_avg(2, input, options, count_include_pad, divisor_override)


def avg_pool3d(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: Any = None,
) -> Any:
    """Return the means of windows of [N, C, D, H, W]; see `avg_pool2d`."""
    options = (kernel_size, stride, padding, 1, ceil_mode)
    return _pool_avg(3, input, options, count_include_pad, divisor_override)


@composite
@kept
def _lp_pool(x: Any, *, p: float, geometry: Geometry) -> Any:
    x = as_float(x)
    columns, counts = _padded_columns(x, geometry, 0.0)
    total = (columns**p).sum(2).reshape((*x.shape[:2], *counts))
    if geometry.after != geometry.padding:  # windows that end outside count as if they were full
        whole = float(product(geometry.kernel))  # type: ignore[arg-type]
        total = total * (whole / _divisor(x, geometry, counts, False))
    zero = total.eq(0)
    return where(zero, 0.0, where(zero, 1.0, total) ** (1.0 / p))


def _pool_lp(
    rank: int, input: Any, p: float, kernel_size: Any, stride: Any, ceil_mode: bool
) -> Any:
    op = f"lp_pool{rank}d"
    x, single = batched(op, input, rank)
    if p == 0:
        raise ArgumentError(
            "no such norm",
            op=op,
            expect="norm_type != 0",
            actual="0",
            hint="norm_type=1 sums, 2 is the Euclidean norm",
        )
    geometry = Geometry.of(op, x.shape[2:], kernel_size, stride, 0, 1, ceil_mode)
    _check_windows(op, x.shape[2:], geometry)
    out = _lp_pool(x, p=float(p), geometry=geometry)
    return out.squeeze(0) if single else out


def lp_pool1d(
    input: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Any:
    """Return (sum x**p)**(1/p) of windows of [N, C, L]; see `lp_pool2d`."""
    return _pool_lp(1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(
    input: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Any:
    """Return (sum x**p)**(1/p) of every window of [N, C, H, W], p = norm_type.

    The gradient of a norm of 0 is 0; a negative sum has no root: NaN.  With `ceil_mode` the sum of
    a window that ends outside is scaled to the size of the others, as in PyTorch.
    """
    return _pool_lp(2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(
    input: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
) -> Any:
    """Return (sum x**p)**(1/p) of windows of [N, C, D, H, W]; see `lp_pool2d`."""
    return _pool_lp(3, input, norm_type, kernel_size, stride, ceil_mode)


# -- samples --------------------------------------------------------------------------------------


def np_windows(
    np: Any, x: Any, kernel: tuple[int, ...], stride: int, padding: int, fill: Any
) -> Any:
    """The windows [N, C, places..., size] of x [N, C, ...] padded with `fill`."""
    rank = len(kernel)
    pads = [(0, 0), (0, 0), *[(padding, padding)] * rank]
    x = np.pad(x, pads, constant_values=fill)
    views = np.lib.stride_tricks.sliding_window_view(x, kernel, tuple(range(2, 2 + rank)))
    views = views[(slice(None), slice(None), *[slice(None, None, stride)] * rank)]
    return views.reshape((*views.shape[: 2 + rank], -1))


SHAPES: tuple[tuple[int, ...], ...] = ((2, 1, 7), (1, 2, 4, 3), (1, 1, 3, 3, 2))
KERNELS: tuple[tuple[int, ...], ...] = ((3,), (2, 3), (2, 2, 1))
BEST = {"max": float("-inf"), "mean": 0.0}


def _pool_samples(function: Any, name: str, rank: int) -> list[Sample]:
    kernel, arg = KERNELS[rank - 1], Arg(SHAPES[rank - 1])

    def good(stride: int, padding: int) -> Sample:
        def reference(np: Any, x: Any) -> Any:
            return getattr(np, name)(np_windows(np, x, kernel, stride, padding, BEST[name]), -1)

        relative = 0.0 if name == "max" else 3e-6
        return formula(
            lambda x: function(x, kernel, stride, padding), reference, arg, relative=relative
        )

    short = Sample(
        lambda x: function(x, 9), (arg,), error=ValueError, match="does not fit|too large|larger"
    )
    return [good(1, 0), *([good(2, 1)] if min(kernel) > 1 else []), short]


@samples_of(max_pool1d)
def _max_pool1d_samples() -> list[Sample]:
    return _pool_samples(max_pool1d, "max", 1)


@samples_of(max_pool2d)
def _max_pool2d_samples() -> list[Sample]:
    places = Sample(
        lambda x: max_pool2d(x, (4, 3), return_indices=True)[1],
        (Arg((1, 2, 4, 3)),),
        lambda np, x: x.reshape(2, 12).argmax(1).reshape(1, 2, 1, 1),
        gradient=False,
    )
    return [*_pool_samples(max_pool2d, "max", 2), places]


@samples_of(max_pool3d)
def _max_pool3d_samples() -> list[Sample]:
    return _pool_samples(max_pool3d, "max", 3)


@samples_of(avg_pool1d)
def _avg_pool1d_samples() -> list[Sample]:
    return _pool_samples(avg_pool1d, "mean", 1)


@samples_of(avg_pool2d)
def _avg_pool2d_samples() -> list[Sample]:
    return _pool_samples(avg_pool2d, "mean", 2)


@samples_of(avg_pool3d)
def _avg_pool3d_samples() -> list[Sample]:
    return _pool_samples(avg_pool3d, "mean", 3)


def _lp_pool_samples(function: Any, rank: int) -> list[Sample]:
    kernel = KERNELS[rank - 1]
    return [
        formula(
            lambda x: function(x, 3.0, kernel, 1),
            lambda np, x: (np_windows(np, x, kernel, 1, 0, 0) ** 3).sum(-1) ** (1 / 3),
            Arg(SHAPES[rank - 1], low=0.2),
        )
    ]


@samples_of(lp_pool1d)
def _lp_pool1d_samples() -> list[Sample]:
    return _lp_pool_samples(lp_pool1d, 1)


@samples_of(lp_pool2d)
def _lp_pool2d_samples() -> list[Sample]:
    return _lp_pool_samples(lp_pool2d, 2)


@samples_of(lp_pool3d)
def _lp_pool3d_samples() -> list[Sample]:
    return _lp_pool_samples(lp_pool3d, 3)
