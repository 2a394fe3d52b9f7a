"""Windows of images as columns of a matrix, and back."""

from __future__ import annotations

from typing import Any

from dualgrad.compiler.ir.dims import product, same
from dualgrad.compiler.ir.value import dim_text
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.convolution import batched, sizes
from dualgrad.compiler.ops.correlation import Ints, cropped, spread
from dualgrad.compiler.ops.operands import check_tensors
from dualgrad.compiler.ops.padding import zero_padded
from dualgrad.compiler.ops.sample import Arg, Sample, formula, samples_of
from dualgrad.compiler.ops.slicing import windows
from dualgrad.runtime.errors import ShapeError


@composite
def _unfold(x: Any, *, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints) -> Any:
    x = zero_padded(x, padding, padding)
    n, c = x.shape[:2]
    w = windows(x, (2, 3), kernel, stride, dilation)
    columns = w.permute((0, 1, 4, 5, 2, 3))
    return columns.reshape((n, c * product(kernel), product(w.shape[2:4])))


def unfold(
    input: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0, stride: Any = 1
) -> Any:
    """Return the windows of input [N, C, H, W] (or [C, H, W]) as columns [N, C * KH * KW, windows].

    Raises ShapeError where no window fits.
    """
    x, single = batched("unfold", input, 2)
    out = _unfold(
        x,
        kernel=sizes("unfold", "kernel_size", kernel_size, 2, 1),
        stride=sizes("unfold", "stride", stride, 2, 1),
        padding=sizes("unfold", "padding", padding, 2, 0),
        dilation=sizes("unfold", "dilation", dilation, 2, 1),
    )
    return out.squeeze(0) if single else out


@composite
def _fold(
    x: Any, *, space: Ints, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, counts: Ints
) -> Any:
    n, rows, _ = x.shape
    columns = x.reshape((n, rows // product(kernel), *kernel, *counts)).permute((0, 1, 4, 5, 2, 3))
    full = tuple(m + 2 * p for m, p in zip(space, padding, strict=True))
    return cropped(spread(columns, full, kernel, stride, dilation), padding, padding)


def fold(
    input: Any,
    output_size: Any,
    kernel_size: Any,
    dilation: Any = 1,
    padding: Any = 0,
    stride: Any = 1,
) -> Any:
    """Return [N, C, H, W] in which every column of input [N, C * KH * KW, windows] has been added
    where `unfold` takes it from.  Raises ShapeError if sizes do not fit."""
    check_tensors("fold", input)
    op = "fold"
    space, kernel = (
        sizes(op, "output_size", output_size, 2, 1),
        sizes(op, "kernel_size", kernel_size, 2, 1),
    )
    stride, padding = sizes(op, "stride", stride, 2, 1), sizes(op, "padding", padding, 2, 0)
    dilation = sizes(op, "dilation", dilation, 2, 1)
    axes = zip(space, kernel, stride, padding, dilation, strict=True)
    counts = tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes)
    single = input.ndim == 2
    x = input.unsqueeze(0) if single else input
    fits = x.ndim == 3 and min(counts) > 0
    fits = fits and same(x.shape[2], product(counts)) and same(x.shape[1] % product(kernel), 0)
    if not fits:
        raise ShapeError(
            "input does not fit",
            op=op,
            expect=f"[N, a multiple of {product(kernel)}, {product(counts)}]",
            actual=f"input {dim_text(input.shape)} for output_size {space}",
            hint="give it as unfold returns it for output_size, kernel_size and stride",
        )
    out = _fold(
        x,
        space=space,
        kernel=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        counts=counts,
    )
    return out.squeeze(0) if single else out


def _np_unfold(np: Any, x: Any) -> Any:
    """The columns [N, C * 2 * 2, L] of windows of 2 by 2 of x [N, C, ...] padded by 1."""
    x = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)])
    views = np.lib.stride_tricks.sliding_window_view(x, (2, 2), (2, 3))
    return np.moveaxis(views, (4, 5), (2, 3)).reshape(x.shape[0], 4 * x.shape[1], -1)


@samples_of(unfold)
def _unfold_samples() -> list[Sample]:
    return [Sample(lambda x: unfold(x, 2, padding=1), (Arg((1, 2, 3, 2)),), _np_unfold)]


@samples_of(fold)
def _fold_samples() -> list[Sample]:
    def reference(np: Any, columns: Any) -> Any:
        # the transpose of unfold, as a matrix whose columns are what it makes of each unit vector
        units = np.eye(6).reshape(6, 1, 2, 3)
        matrix = _np_unfold(np, units).reshape(6, -1)
        return (columns.reshape(1, -1) @ matrix.T).reshape(1, 1, 2, 3)

    good = formula(lambda x: fold(x, (2, 3), 2, padding=1), reference, Arg((1, 4, 12)))
    bad = Sample(lambda x: fold(x, (2, 3), 2), (Arg((1, 4, 12)),), error=ValueError, match="fold")
    return [good, bad]
