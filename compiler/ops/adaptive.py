"""Adaptive pooling: the shares of an input, as many as the result has elements.

Share o of n elements in m shares begins at o * n // m and ends before (o + 1) * n / m rounded
up, so shares may overlap and differ by an element in size.
"""

from __future__ import annotations

from typing import Any

from dualgrad.compiler.ir.dims import Dim, product, same
from dualgrad.compiler.ir.value import dim_text
from dualgrad.compiler.ops.arguments import as_float, refuse_bools
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.convolution import batched, sizes
from dualgrad.compiler.ops.correlation import Ints
from dualgrad.compiler.ops.create import Iota, count
from dualgrad.compiler.ops.elementwise import copy, to
from dualgrad.compiler.ops.first_max import FirstMax, flat_place
from dualgrad.compiler.ops.gather import take
from dualgrad.compiler.ops.logical import where
from dualgrad.compiler.ops.precision import kept
from dualgrad.compiler.ops.sample import Arg, Sample, formula, samples_of
from dualgrad.runtime.dtype import int64
from dualgrad.runtime.errors import ShapeError

Row = tuple[
    Dim, Any, Any
]  # of an axis: its size, positions [k, shares], number of elements [shares]


def _share(n: Dim, shares: int) -> Row:
    """Where the elements of each share are along an axis; the last one of short ones repeats."""
    size, each = count(n, int64), Iota.of((shares,), 0).on()
    start = (each * size) // shares
    stop = ((each + 1) * size + (shares - 1)) // shares
    longest = n // shares if same(n % shares, 0) else n // shares + 2
    positions = (start + Iota.of((longest, 1), 0).on()).minimum(stop - 1)
    return n, positions, stop - start


def _columns(x: Any, shares: Ints) -> tuple[Any, list[Row]]:
    """The shares of x [N, C, ...] as [N, C, places, shares], and the row of each axis."""
    lead, space = x.shape[:2], x.shape[2:]
    rank = len(shares)
    rows = [_share(n, m) for n, m in zip(space, shares, strict=True)]
    if all(m == 1 for m in shares):
        return x.reshape((*lead, product(space), 1)), rows
    for axis in reversed(range(rank)):
        n, m = space[axis], shares[axis]
        if same(n % m, 0):
            x = x.reshape((*x.shape[: 2 + axis], m, n // m, *x.shape[3 + axis :]))
        else:
            x = take(x, rows[axis][1].transpose(0, 1), 2 + axis)
    x = copy(x.permute((0, 1, *range(3, 3 + 2 * rank, 2), *range(2, 2 + 2 * rank, 2))))
    return x.reshape((*lead, product(x.shape[2 : 2 + rank]), product(shares))), rows


def _along(v: Any, axis: int, rank: int) -> Any:
    """Numbers of an axis as a tensor that broadcasts over all axes: [m] or [k, m]."""
    shape = [1] * (rank * v.ndim)
    for part, n in enumerate(v.shape):
        shape[part * rank + axis] = n
    return v.reshape(tuple(shape))


@composite
def _adaptive_max(x: Any, *, shares: Ints) -> Any:
    columns, _ = _columns(x, shares)
    return FirstMax.of(2, 3).on(columns).reshape((*x.shape[:2], *shares))


@composite
def _adaptive_places(x: Any, *, shares: Ints) -> Any:
    columns, rows = _columns(x, shares)
    places = flat_place(columns, [row[:2] for row in rows])
    return places.reshape((*x.shape[:2], *shares))


@composite
@kept
def _adaptive_avg(x: Any, *, shares: Ints) -> Any:
    x = as_float(x)
    columns, rows = _columns(x, shares)
    rank = len(shares)
    total: Any = 1
    for axis, (n, positions, length) in enumerate(rows):
        total = _along(length, axis, rank) * total
        if not same(n % shares[axis], 0):
            own = _along(Iota.of(positions.shape, 0).on() < length, axis, rank)
            own = own.expand((*(row[1].shape[0] for row in rows), *shares))
            columns = where(own.reshape((1, 1, *columns.shape[2:])), columns, 0.0)
    sums = columns.sum(2).reshape((*x.shape[:2], *shares))
    return sums / to(total, x.dtype)


def _arguments(op: str, input: Any, output_size: Any, rank: int) -> tuple[Any, Ints, bool]:
    x, single = batched(op, input, rank)
    named = tuple(output_size) if isinstance(output_size, (tuple, list)) else (output_size,) * rank
    if len(named) == rank:
        named = tuple(n if m is None else m for n, m in zip(x.shape[2:], named, strict=True))
    shares = sizes(op, "output_size", named, rank, 0)
    if any(n == 0 for n in x.shape[2:]):
        raise ShapeError(
            "there is nothing to share",
            op=op,
            expect="spatial sizes of at least 1",
            actual=dim_text(input.shape),
            hint="look where a size of 0 comes from",
        )
    return x, shares, single


def _pool(rank: int, kind: str, input: Any, output_size: Any, return_indices: bool = False) -> Any:
    x, shares, single = _arguments(f"adaptive_{kind}_pool{rank}d", input, output_size, rank)
    if kind == "max":
        refuse_bools(f"adaptive_max_pool{rank}d", x.dtype)
    found = [(_adaptive_avg if kind == "avg" else _adaptive_max)(x, shares=shares)]
    if return_indices:
        found.append(_adaptive_places(x, shares=shares))
    outs = [y.squeeze(0) if single else y for y in found]
    return tuple(outs) if return_indices else outs[0]


def adaptive_avg_pool1d(input: Any, output_size: Any) -> Any:
    """Return the means of `output_size` shares of [N, C, L]; see `adaptive_avg_pool2d`."""
    return _pool(1, "avg", input, output_size)


def adaptive_avg_pool2d(input: Any, output_size: Any) -> Any:
    """Return the means of as many shares of [N, C, H, W] (or [C, H, W]) as `output_size` says.

    `output_size` is an int or one per axis; None keeps the size of an axis.
    """
    return _pool(2, "avg", input, output_size)


def adaptive_avg_pool3d(input: Any, output_size: Any) -> Any:
    """Return the means of shares of [N, C, D, H, W]; see `adaptive_avg_pool2d`."""
    return _pool(3, "avg", input, output_size)


def adaptive_max_pool1d(
    input: Any, output_size: Any, return_indices: bool = False
) -> Any | tuple[Any, Any]:
    """Return the largest elements of shares of [N, C, L]; see `adaptive_max_pool2d`."""
    return _pool(1, "max", input, output_size, return_indices)


def adaptive_max_pool2d(
    input: Any, output_size: Any, return_indices: bool = False
) -> Any | tuple[Any, Any]:
    """Return the largest elements of as many shares of [N, C, H, W] as `output_size` says.

    With `return_indices` also their positions in the flat H * W plane; see `max_pool2d`.
    """
    return _pool(2, "max", input, output_size, return_indices)


def adaptive_max_pool3d(
    input: Any, output_size: Any, return_indices: bool = False
) -> Any | tuple[Any, Any]:
    """Return the largest elements of shares of [N, C, D, H, W]; see `adaptive_max_pool2d`."""
    return _pool(3, "max", input, output_size, return_indices)


# -- samples --------------------------------------------------------------------------------------

SHAPES: tuple[tuple[int, ...], ...] = ((2, 1, 7), (1, 2, 3, 4), (1, 1, 2, 3, 4))
SIZES: tuple[tuple[int, ...], ...] = ((3,), (2, 3), (1, 2, 3))


def _adaptive_samples(function: Any, name: str, rank: int) -> list[Sample]:
    sizes, arg = SIZES[rank - 1], Arg(SHAPES[rank - 1])

    def reference(np: Any, x: Any) -> Any:
        for axis, m in enumerate(sizes, 2):
            n = x.shape[axis]
            shares = [np.arange(k * n // m, -(-(k + 1) * n // m)) for k in range(m)]
            parts = [getattr(np, name)(np.take(x, s, axis), axis) for s in shares]
            x = np.stack(parts, axis)
        return x

    relative = 0.0 if name == "max" else 3e-6
    bad = Sample(lambda x: function(x, -1), (arg,), error=ValueError, match=function.__name__)
    return [formula(lambda x: function(x, sizes), reference, arg, relative=relative), bad]


@samples_of(adaptive_avg_pool1d)
def _adaptive_avg_pool1d_samples() -> list[Sample]:
    return _adaptive_samples(adaptive_avg_pool1d, "mean", 1)


@samples_of(adaptive_avg_pool2d)
def _adaptive_avg_pool2d_samples() -> list[Sample]:
    return _adaptive_samples(adaptive_avg_pool2d, "mean", 2)


@samples_of(adaptive_avg_pool3d)
def _adaptive_avg_pool3d_samples() -> list[Sample]:
    return _adaptive_samples(adaptive_avg_pool3d, "mean", 3)


@samples_of(adaptive_max_pool1d)
def _adaptive_max_pool1d_samples() -> list[Sample]:
    return _adaptive_samples(adaptive_max_pool1d, "max", 1)


@samples_of(adaptive_max_pool2d)
def _adaptive_max_pool2d_samples() -> list[Sample]:
    return _adaptive_samples(adaptive_max_pool2d, "max", 2)


@samples_of(adaptive_max_pool3d)
def _adaptive_max_pool3d_samples() -> list[Sample]:
    return _adaptive_samples(adaptive_max_pool3d, "max", 3)
