"""The inverse of max pooling: values at the places where it found them."""

from __future__ import annotations

from typing import Any

from dualgrad.compiler.ir.dims import product
from dualgrad.compiler.ir.value import dim_text
from dualgrad.compiler.ops.arguments import equal
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.convolution import batched, sizes
from dualgrad.compiler.ops.correlation import Ints, Shape
from dualgrad.compiler.ops.gather import check_index
from dualgrad.compiler.ops.operands import check_tensors
from dualgrad.compiler.ops.sample import Arg, Sample, samples_of
from dualgrad.compiler.ops.scatter import scatter
from dualgrad.compiler.ops.take_put import filled
from dualgrad.runtime.dtype import int64
from dualgrad.runtime.errors import ShapeError


@composite
def _max_unpool(x: Any, places: Any, *, space: Shape) -> Any:
    n, c, *old = x.shape
    flat = (n, c, product(old))
    zeros = filled(0, x.dtype, (n, c, product(space)))
    out = scatter(zeros, 2, places.reshape(flat), x.reshape(flat))
    return out.reshape((n, c, *space))


def _space(op: str, old: Shape, geometry: tuple[Ints, Ints, Ints], output_size: Any) -> Shape:
    """The spatial sizes of the result."""
    axes = zip(old, *geometry, strict=True)
    usual = tuple((n - 1) * s - 2 * p + k for n, k, s, p in axes)
    if output_size is None:
        return usual
    space = tuple(output_size)[-len(usual) :]
    near = zip(space, usual, geometry[1], strict=False)
    if len(space) != len(usual) or not all(n - s < m < n + s for m, n, s in near):
        raise ShapeError(
            "the result cannot have this size",
            op=op,
            expect=f"output_size nearer to {dim_text(usual)} than the stride {geometry[1]}",
            actual=str(tuple(output_size)),
            hint="give the size that the input of the pooling had",
        )
    return space


def _unpool(
    rank: int,
    input: Any,
    indices: Any,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    output_size: Any,
) -> Any:
    op = f"max_unpool{rank}d"
    check_tensors(op, indices)
    check_index(op, indices)
    x, single = batched(op, input, rank)
    places = indices.unsqueeze(0) if single else indices
    if not equal(x.shape, places.shape):
        raise ShapeError(
            "input and indices have different shapes",
            op=op,
            expect=f"indices {dim_text(input.shape)}",
            actual=dim_text(indices.shape),
            hint="pass what pooling with return_indices=True returns",
        )
    kernel = sizes(op, "kernel_size", kernel_size, rank, 1)
    steps = kernel if stride is None else sizes(op, "stride", stride, rank, 1)
    geometry = (kernel, steps, sizes(op, "padding", padding, rank, 0))
    out = _max_unpool(x, places, space=_space(op, x.shape[2:], geometry, output_size))
    return out.squeeze(0) if single else out


def max_unpool1d(
    input: Any,
    indices: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    output_size: Any = None,
) -> Any:
    """Return [N, C, L] with the input at its places; see `max_unpool2d`."""
    return _unpool(1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(
    input: Any,
    indices: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    output_size: Any = None,
) -> Any:
    """Return [N, C, OH, OW] of zeros with the elements of input [N, C, H, W] (or [C, H, W]) at
    `indices`, their places in the flat plane: what `max_pool2d` with return_indices=True found.

    OH = (H - 1) * stride - 2 * padding + kernel_size unless `output_size` says otherwise; of
    several elements for one place the last one stays.  Raises ShapeError if shapes do not fit,
    IndexOutOfBounds for a place outside.
    """
    return _unpool(2, input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(
    input: Any,
    indices: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    output_size: Any = None,
) -> Any:
    """Return [N, C, D, H, W] with the input at its places; see `max_unpool2d`."""
    return _unpool(3, input, indices, kernel_size, stride, padding, output_size)


def _samples(function: Any, rank: int) -> list[Sample]:
    shape = (1, 2, *(2,) * rank)
    n = 2**rank
    places = Arg(shape, int64, values=(*range(1, 2 * n, 2), *range(0, 2 * n, 2)))

    def reference(np: Any, x: Any, idx: Any) -> Any:
        out = np.zeros((1, 2, 4**rank), x.dtype)
        np.put_along_axis(out, idx.reshape(1, 2, -1), x.reshape(1, 2, -1), 2)
        return out.reshape(1, 2, *(4,) * rank)

    good = Sample(lambda x, i: function(x, i, 2), (Arg(shape), places), reference)
    bad = Sample(
        lambda x, i: function(x, i, 2, output_size=(9,) * rank),
        (Arg(shape), places),
        error=ValueError,
        match="cannot have this size",
    )
    return [good, bad]


@samples_of(max_unpool1d)
def _max_unpool1d_samples() -> list[Sample]:
    return _samples(max_unpool1d, 1)


@samples_of(max_unpool2d)
def _max_unpool2d_samples() -> list[Sample]:
    return _samples(max_unpool2d, 2)


@samples_of(max_unpool3d)
def _max_unpool3d_samples() -> list[Sample]:
    return _samples(max_unpool3d, 3)
