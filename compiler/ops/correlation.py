"""Correlation of images with kernels, and its two adjoints, as products of matrices.

Windows are operands where they lie in the image: no matrix of columns is made.  The sums:

- of an output, over the kernel's places, row-major, and for each place over the channels;
- of a weight's gradient, over the images, and for each over its outputs, row-major: one product
  for the whole batch;
- of an input's gradient at stride 1, over the places of the reversed kernel, and for each over
  the outputs' channels: a correlation of the padded cotangent; else windows are added up.

Where a product would be a thin one, elements are multiplied and summed without it: if groups have
one output each, or there are many and they have one channel each.
"""

from __future__ import annotations

from typing import Any

from dualgrad.compiler.ir.dims import Dim, at_most, product, same
from dualgrad.compiler.ir.value import apply
from dualgrad.compiler.ops.contract import matmul
from dualgrad.compiler.ops.elementwise import copy
from dualgrad.compiler.ops.padding import zero_padded
from dualgrad.compiler.ops.region import accumulate
from dualgrad.compiler.ops.slicing import Windows, strided, windows

Ints = tuple[int, ...]
Shape = tuple[Dim, ...]


def spread(columns: Any, space: Shape, kernel: Shape, stride: Ints, dilation: Ints) -> Any:
    """Windows [N, C, windows..., places...] added where they lie in [N, C, *space]."""
    rank = len(space)
    counts = columns.shape[2 : 2 + rank]
    view = Windows.of(tuple(range(2, 2 + rank)), counts, kernel, stride, dilation)
    return accumulate(columns, view, (*columns.shape[:2], *space))


def cropped(x: Any, before: Ints, after: Ints) -> Any:
    """x without elements at both ends of its last axes."""
    if not any((*before, *after)):
        return x
    lead = x.ndim - len(before)
    cut = [n - b - a for n, b, a in zip(x.shape[lead:], before, after, strict=True)]
    return strided(x, (*(0,) * lead, *before), (1,) * x.ndim, (*x.shape[:lead], *cut))


def resized(x: Any, before: Ints, after: Ints) -> Any:
    """x with zeros at both ends of its last axes; at the end a negative number cuts off."""
    x = cropped(x, (0,) * len(before), tuple(max(-a, 0) for a in after))
    return zero_padded(x, before, tuple(max(a, 0) for a in after))


def _is_thin(depth: Dim, outputs: Dim, groups: int) -> bool:
    """Whether groups have one output each, or there are many and they have one channel each."""
    return same(outputs // groups, 1) or (groups > 1 and same(depth, 1))


def _is_plain(kernel: Shape, stride: Ints) -> bool:
    """Whether windows are the elements themselves."""
    return all(s == 1 for s in stride) and all(same(k, 1) for k in kernel)


def _windows(
    x: Any,
    groups: int,
    kernel: Shape,
    stride: Ints,
    dilation: Ints,
    known: Shape | None = None,
) -> tuple[Any, Shape, Ints, Ints]:
    """Windows of x as [N, groups, C / groups, windows..., places...], how many there are along
    each axis (which may be `known`), and the numbers of the axes of windows and of places."""
    n, c, *space = x.shape
    rank = len(space)
    axes, places = tuple(range(3, 3 + rank)), tuple(range(3 + rank, 3 + 2 * rank))
    x = x.reshape((n, groups, c // groups, *space))
    if _is_plain(kernel, stride):
        return x.reshape((*x.shape, *kernel)), tuple(space), axes, places
    if known is not None:
        (out,) = apply(Windows.of(axes, known, kernel, stride, dilation), x)
    else:
        out = windows(x, axes, kernel, stride, dilation)
    return out, out.shape[3 : 3 + rank], axes, places


def correlate(
    x: Any,
    weight: Any,
    bias: Any,
    stride: Ints,
    dilation: Ints,
    groups: int,
    known: Shape | None = None,
) -> Any:
    """Every window of x [N, C, ...] multiplied with kernels [outputs, C / groups, ...], summed;
    and a bias [outputs], unless that is None.  How many windows there are may be `known`."""
    outputs, depth, *sizes = weight.shape
    n, kernel = x.shape[0], tuple(sizes)
    rank, rows = len(kernel), product(kernel) * depth
    w, counts, axes, places = _windows(x, groups, kernel, stride, dilation, known)
    if _is_thin(depth, outputs, groups):
        terms = w.permute((0, 1, *places, 2, *axes)).unsqueeze(2) * _by_place(weight, groups, rank)
        out = terms.sum(tuple(range(3, 4 + rank))).reshape((n, outputs, *counts))
        return out if bias is None else out + bias.reshape((1, outputs, *(1,) * rank))
    a = copy(weight.permute((0, *range(2, 2 + rank), 1)))
    if groups == 1:
        columns = w.permute((0, 1, *places, 2, *axes)).reshape((n, rows, product(counts)))
        out = matmul(a.reshape((outputs, rows)), columns)
        out = out if bias is None else out + bias.reshape((1, outputs, 1))
        return out.reshape((n, outputs, *counts))
    columns = w.permute((1, *places, 2, 0, *axes)).reshape((groups, rows, n * product(counts)))
    out = matmul(a.reshape((groups, outputs // groups, rows)), columns)
    out = out if bias is None else out + bias.reshape((groups, outputs // groups, 1))
    out = out.reshape((outputs, n, *counts))
    return out.permute((1, 0, *range(2, 2 + rank)))


def _by_place(weight: Any, groups: int, rank: int) -> Any:
    """Kernels [outputs, C / groups, ...] as [groups, outputs / groups, places..., C / groups]
    and an axis of size 1 for each axis of windows."""
    outputs, depth, *kernel = weight.shape
    by_place = weight.permute((0, *range(2, 2 + rank), 1))
    return by_place.reshape((groups, outputs // groups, *kernel, depth, *(1,) * rank))


def weight_adjoint(x: Any, g: Any, kernel: Shape, stride: Ints, dilation: Ints, groups: int) -> Any:
    """The gradient of kernels [outputs, C / groups, *kernel] from that of the outputs g."""
    n, outputs, *counts = g.shape
    depth, rank = x.shape[1] // groups, len(kernel)
    w, _, axes, places = _windows(x, groups, kernel, stride, dilation, tuple(counts))
    ways = range(2, 2 + rank)
    if _is_thin(depth, outputs, groups):
        w = w.permute((1, *places, 2, 0, *axes)).unsqueeze(1)
        cotangent = g.reshape((n, groups, outputs // groups, *counts))
        cotangent = cotangent.permute((1, 2, 0, *range(3, 3 + rank)))
        shape = (groups, outputs // groups, *(1,) * (rank + 1), n, *counts)
        terms = w * cotangent.reshape(shape)
        first = rank + 3
        out = terms.sum(first + rank).sum(tuple(range(first, first + rank)))
        out = out.reshape((outputs, *kernel, depth))
        return out.permute((0, rank + 1, *range(1, 1 + rank)))
    size = n * product(counts)
    columns = w.permute((1, *places, 2, 0, *axes)).reshape((groups, product(kernel) * depth, size))
    rows = g.permute((0, *ways, 1)).reshape((size, groups, outputs // groups))
    out = matmul(columns, rows.permute((1, 0, 2)))
    out = out.reshape((groups, *kernel, depth, outputs // groups))
    out = out.permute((0, 2 + rank, 1 + rank, *(k - 1 for k in ways)))
    return out.reshape((outputs, depth, *kernel))


def input_adjoint(
    g: Any,
    weight: Any,
    bias: Any,
    space: Shape,
    before: Ints,
    after: Ints,
    stride: Ints,
    dilation: Ints,
    groups: int,
) -> Any:
    """The gradient of an input [N, C, *space], which was padded by `before` and `after`, from that
    of the outputs g; and a bias [C], unless that is None."""
    outputs, counts = g.shape[1], g.shape[2:]
    depth, kernel, rank = weight.shape[1], weight.shape[2:], len(space)
    spans = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    left = tuple(s - b for s, b in zip(spans, before, strict=True))
    right = tuple(m + b - c for m, b, c in zip(space, before, counts, strict=True))
    if all(s == 1 for s in stride) and all(at_most(-p, 0) for p in (*left, *right)):
        ways = tuple(range(3, 3 + rank))
        turned = weight.reshape((groups, outputs // groups, depth, *kernel)).permute(
            (0, 2, 1, *ways)
        )
        turned = turned.reshape((groups * depth, outputs // groups, *kernel))
        starts = (0, 0, *(k - 1 for k in kernel))
        turned = strided(turned, starts, (1, 1, *(-1,) * rank), turned.shape)
        return correlate(zero_padded(g, left, right), turned, bias, (1,) * rank, dilation, groups)
    end = tuple(max(a, 0) for a in after)
    whole = tuple(m + b + e for m, b, e in zip(space, before, end, strict=True))
    out = cropped(_added_up(g, weight, whole, stride, dilation, groups), before, end)
    return out if bias is None else out + bias.reshape((1, groups * depth, *(1,) * rank))


def _added_up(g: Any, weight: Any, space: Shape, stride: Ints, dilation: Ints, groups: int) -> Any:
    """Every kernel times its output of g, added up where its window lies in [N, C, *space]."""
    n, outputs, *counts = g.shape
    depth, kernel, rank = weight.shape[1], weight.shape[2:], len(counts)
    rows = weight.reshape((groups, outputs // groups, depth * product(kernel))).transpose(1, 2)
    columns = matmul(copy(rows), g.reshape((n, groups, outputs // groups, product(counts))))
    columns = columns.reshape((n, groups * depth, *kernel, *counts))
    columns = columns.permute((0, 1, *range(2 + rank, 2 + 2 * rank), *range(2, 2 + rank)))
    return spread(columns, space, kernel, stride, dilation)
