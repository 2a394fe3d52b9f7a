"""Convolution of one to three spatial axes, and its transpose.

The sums and their order: `correlation`.  Padded elements are multiplied like others.  Inputs are
[N, C, L1, ...] or, without a batch, [C, L1, ...].
"""

from __future__ import annotations

from typing import Any

from dualgrad.compiler.ir.dims import product, same
from dualgrad.compiler.ir.value import dim_text
from dualgrad.compiler.ops.arguments import check_shape, given
from dualgrad.compiler.ops.composite import composite, with_gradient
from dualgrad.compiler.ops.correlation import (
    Ints,
    Shape,
    correlate,
    input_adjoint,
    resized,
    weight_adjoint,
)
from dualgrad.compiler.ops.operands import check_tensors
from dualgrad.compiler.ops.padding import zero_padded
from dualgrad.compiler.ops.precision import low
from dualgrad.compiler.ops.sample import Arg, Sample, formula, samples_of
from dualgrad.runtime.errors import ArgumentError, ShapeError


def sizes(op: str, what: str, value: Any, rank: int, least: int) -> Ints:
    """An int or ints as one number per spatial axis; ArgumentError for one below `least`."""
    full = tuple(value) if isinstance(value, (tuple, list)) else (value,) * rank
    full = full * rank if len(full) == 1 else full
    whole = all(isinstance(n, int) and not isinstance(n, bool) and n >= least for n in full)
    if len(full) != rank or not whole:
        raise ArgumentError(
            f"{what} does not fit",
            op=op,
            expect=f"an int or {rank} ints, at least {least}",
            actual=repr(value),
            hint="one number counts for all axes",
        )
    return full


def batched(op: str, x: Any, rank: int) -> tuple[Any, bool]:
    """x as [N, C, ...], and whether it came without a batch."""
    check_tensors(op, x)
    if x.ndim not in (rank + 1, rank + 2):
        axes = ", ".join(("L", "H, W", "D, H, W")[rank - 1].split(", "))
        raise ShapeError(
            "input has a wrong number of dimensions",
            op=op,
            expect=f"input [N, C, {axes}] or [C, {axes}]",
            actual=f"input {dim_text(x.shape)}",
            hint="add missing dimensions with unsqueeze, one of size 1 for the channels",
        )
    return (x, False) if x.ndim == rank + 2 else (x.unsqueeze(0), True)


# -- convolution ----------------------------------------------------------------------------------


def _conv_gradient(
    cotangents: tuple[Any, ...],
    x: Any,
    weight: Any,
    *bias: Any,
    stride: Ints,
    before: Ints,
    after: Ints,
    dilation: Ints,
    groups: int,
) -> tuple[Any, ...]:
    (g,) = cotangents
    space, kernel = x.shape[2:], weight.shape[2:]
    dx = input_adjoint(g, weight, None, space, before, after, stride, dilation, groups)
    dw = weight_adjoint(zero_padded(x, before, after), g, kernel, stride, dilation, groups)
    return dx, dw, *(_channel_sums(g) for _ in bias)


def _channel_sums(g: Any) -> Any:
    """Sums [C] over the places of each image of [N, C, ...], then over the images."""
    n, channels, *space = g.shape
    places = g.permute((0, *range(2, g.ndim), 1)).reshape((n, product(space), channels))
    return places.sum(1).sum(0)


@composite
@low
@with_gradient(_conv_gradient)
def _conv(
    x: Any,
    weight: Any,
    *bias: Any,
    stride: Ints,
    before: Ints,
    after: Ints,
    dilation: Ints,
    groups: int,
) -> Any:
    added = bias[0] if bias else None
    return correlate(zero_padded(x, before, after), weight, added, stride, dilation, groups)


def _conv_padding(op: str, padding: Any, kernel: Shape, stride: Ints, dilation: Ints) -> Any:
    """Elements added before and after each spatial axis."""
    rank = len(kernel)
    if padding == "valid":
        return (0,) * rank, (0,) * rank
    if padding == "same":
        if any(s != 1 for s in stride):
            raise ArgumentError(
                "'same' has no meaning with strides",
                op=op,
                expect="stride=1",
                actual=f"{stride}",
                hint="give padding as numbers, (kernel_size - 1) // 2 for odd kernels",
            )
        whole = tuple(d * (int(k) - 1) for d, k in zip(dilation, kernel, strict=True))  # type: ignore[arg-type]
        return tuple(n // 2 for n in whole), tuple(n - n // 2 for n in whole)
    both = sizes(op, "padding", padding, rank, 0)
    return both, both


def _check_conv(op: str, x: Any, weight: Any, bias: Any, rank: int, groups: int) -> None:
    check_tensors(op, weight)
    fits = weight.ndim == rank + 2 and same(x.shape[1], weight.shape[1] * groups)
    if not fits or not same(weight.shape[0] % groups, 0):
        axes = "k" if rank == 1 else ", ".join(f"k{i}" for i in range(1, rank + 1))
        raise ShapeError(
            "input and weight do not fit",
            op=op,
            expect=f"weight [outputs, C / groups, {axes}], outputs a multiple of groups",
            actual=f"input {dim_text(x.shape)}, weight {dim_text(weight.shape)}, groups={groups}",
            hint="axis 1 of the input must have groups * weight.shape[1] channels",
        )
    check_shape(op, "bias", bias, (weight.shape[0],))


def _convolve(
    op: str,
    rank: int,
    input: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> Any:
    x, single = batched(op, input, rank)
    if groups < 1:
        raise ArgumentError(
            "there must be a group",
            op=op,
            expect="groups >= 1",
            actual=f"{groups}",
            hint="leave groups out for 1",
        )
    _check_conv(op, x, weight, bias, rank, groups)
    stride = sizes(op, "stride", stride, rank, 1)
    dilation = sizes(op, "dilation", dilation, rank, 1)
    before, after = _conv_padding(op, padding, weight.shape[2:], stride, dilation)
    biases, _ = given(bias)
    out = _conv(
        x, weight, *biases,
        stride=stride, before=before, after=after, dilation=dilation, groups=groups,
    )  # fmt: skip
    return out.squeeze(0) if single else out


def conv1d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """Return the convolution of [N, C, L] with weight [outputs, C / groups, K]; see `conv2d`."""
    return _convolve("conv1d", 1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """Return the convolution of input [N, C, H, W] (or [C, H, W]) with a kernel.

    weight [outputs, C / groups, KH, KW]; bias [outputs]; the result is [N, outputs, OH, OW] with
    OH = (H + padding before and after - dilation * (KH - 1) - 1) // stride + 1.  `stride`,
    `padding` (of zeros, on both sides) and `dilation` are ints or one per axis; padding may be
    "valid" (none) or "same" (as much as keeps the size, the odd one at the end; stride 1).
    `groups` splits channels: outputs of a group see its inputs only.  Raises ShapeError if shapes
    do not fit or the kernel is larger than the padded input.
    """
    return _convolve("conv2d", 2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    """Return the convolution of [N, C, D, H, W] with weight [outputs, C / groups, KD, KH, KW]; see
    `conv2d`."""
    return _convolve("conv3d", 3, input, weight, bias, stride, padding, dilation, groups)


# -- transposed convolution -----------------------------------------------------------------------


def _conv_transpose_gradient(
    cotangents: tuple[Any, ...],
    x: Any,
    weight: Any,
    *bias: Any,
    stride: Ints,
    padding: Ints,
    more: Ints,
    dilation: Ints,
    groups: int,
) -> tuple[Any, ...]:
    (g,) = cotangents
    after = tuple(p - m for p, m in zip(padding, more, strict=True))
    whole = resized(g, padding, after)
    # The windows of both are the same with sizes that are symbols too, as the order asks for in
    # which a gradient of higher order adds up.
    dx = correlate(whole, weight, None, stride, dilation, groups, x.shape[2:])
    dw = weight_adjoint(whole, x, weight.shape[2:], stride, dilation, groups)
    return dx, dw, *(_channel_sums(g) for _ in bias)


@composite
@low
@with_gradient(_conv_transpose_gradient)
def _conv_transpose(
    x: Any,
    weight: Any,
    *bias: Any,
    stride: Ints,
    padding: Ints,
    more: Ints,
    dilation: Ints,
    groups: int,
) -> Any:
    axes = zip(x.shape[2:], weight.shape[2:], stride, padding, more, dilation, strict=True)
    space = tuple((n - 1) * s + d * (k - 1) + 1 + m - 2 * p for n, k, s, p, m, d in axes)
    after = tuple(p - m for p, m in zip(padding, more, strict=True))
    added = bias[0] if bias else None
    return input_adjoint(x, weight, added, space, padding, after, stride, dilation, groups)


def _transpose(
    op: str,
    rank: int,
    input: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: int,
    dilation: Any,
) -> Any:
    check_tensors(op, weight)
    x, single = batched(op, input, rank)
    fits = weight.ndim == rank + 2 and same(x.shape[1], weight.shape[0])
    if groups < 1 or not fits or not same(x.shape[1] % groups, 0):
        raise ShapeError(
            "input and weight do not fit",
            op=op,
            expect="weight [C, outputs / groups, ...], C a multiple of groups",
            actual=f"input {dim_text(x.shape)}, weight {dim_text(weight.shape)}, groups={groups}",
            hint="axis 1 of the input and axis 0 of the weight have the same size",
        )
    check_shape(op, "bias", bias, (weight.shape[1] * groups,))
    stride = sizes(op, "stride", stride, rank, 1)
    padding = sizes(op, "padding", padding, rank, 0)
    dilation = sizes(op, "dilation", dilation, rank, 1)
    more = sizes(op, "output_padding", output_padding, rank, 0)
    if any(m >= max(s, d) for m, s, d in zip(more, stride, dilation, strict=True)):
        raise ArgumentError(
            "output_padding is too large",
            op=op,
            expect="less than stride or dilation",
            actual=f"output_padding={more}, stride={stride}, dilation={dilation}",
            hint="it only chooses among the sizes that a stride maps to one",
        )
    _check_output(op, x, weight, stride, padding, more, dilation)
    biases, _ = given(bias)
    out = _conv_transpose(
        x, weight, *biases,
        stride=stride, padding=padding, more=more, dilation=dilation, groups=groups,
    )  # fmt: skip
    return out.squeeze(0) if single else out


def _check_output(
    op: str, x: Any, weight: Any, stride: Ints, padding: Ints, more: Ints, dilation: Ints
) -> None:
    """Raise ShapeError where padding cuts off all of the result."""
    axes = zip(x.shape[2:], weight.shape[2:], stride, padding, more, dilation, strict=True)
    found = [(n - 1) * s + d * (k - 1) + 1 + m - 2 * p for n, k, s, p, m, d in axes]
    if any(isinstance(n, int) and n < 1 for n in found):
        raise ShapeError(
            "nothing is left of the result",
            op=op,
            expect="a smaller padding",
            actual=f"spatial sizes {dim_text(tuple(found))}",
            hint="make padding smaller, or the input larger",
        )


def conv_transpose1d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Any:
    """Return the transposed convolution of [N, C, L] with [C, outputs / groups, K]; see
    `conv_transpose2d`."""
    return _transpose(
        "conv_transpose1d",
        1,
        input,
        weight,
        bias,
        stride,
        padding,
        output_padding,
        groups,
        dilation,
    )


def conv_transpose2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Any:
    """Return the adjoint of `conv2d`: every element of input adds its multiple of the kernel.

    input [N, C, H, W] (or [C, H, W]), weight [C, outputs / groups, KH, KW], bias [outputs]; the
    result is [N, outputs, OH, OW] with OH = (H - 1) * stride - 2 * padding + dilation * (KH - 1)
    + 1 + output_padding.  Raises ShapeError if shapes do not fit.
    """
    return _transpose(
        "conv_transpose2d",
        2,
        input,
        weight,
        bias,
        stride,
        padding,
        output_padding,
        groups,
        dilation,
    )


def conv_transpose3d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Any:
    """Return the transposed convolution of [N, C, D, H, W] with [C, outputs / groups, KD, KH, KW];
    see `conv_transpose2d`."""
    return _transpose(
        "conv_transpose3d",
        3,
        input,
        weight,
        bias,
        stride,
        padding,
        output_padding,
        groups,
        dilation,
    )


# -- samples --------------------------------------------------------------------------------------


def _np_conv(np: Any, x: Any, w: Any, stride: int = 1, padding: int = 0) -> Any:
    """Windows of x [N, C, ...], by each kernel of w [O, C, ...], summed."""
    rank = w.ndim - 2
    x = np.pad(x, [(0, 0), (0, 0), *[(padding, padding)] * rank])
    axes = tuple(range(2, 2 + rank))
    views = np.lib.stride_tricks.sliding_window_view(x, w.shape[2:], axes)
    views = views[(slice(None), slice(None), *[slice(None, None, stride)] * rank)]
    own = (1, *range(2 + rank, 2 + 2 * rank))
    return np.moveaxis(np.tensordot(views, w, (own, (1, *axes))), -1, 1)


def _np_transposed(np: Any, x: Any, w: Any, stride: int) -> Any:
    """x [N, C, ...] with zeros between its elements, around which kernels w [C, O, ...] turn."""
    rank = w.ndim - 2
    apart = np.zeros((*x.shape[:2], *((n - 1) * stride + 1 for n in x.shape[2:])), x.dtype)
    apart[(slice(None), slice(None), *[slice(None, None, stride)] * rank)] = x
    apart = np.pad(apart, [(0, 0), (0, 0), *((k - 1, k - 1) for k in w.shape[2:])])
    return _np_conv(np, apart, np.swapaxes(np.flip(w, tuple(range(2, 2 + rank))), 0, 1))


def _by_channel(b: Any, rank: int) -> Any:
    return b.reshape((-1, *(1,) * rank))


CONVOLVED: tuple[tuple[int, ...], ...] = ((2, 2, 5), (1, 2, 4, 3), (1, 1, 2, 3, 3))
KERNELS: tuple[tuple[int, ...], ...] = ((2, 2, 3), (3, 2, 2, 2), (2, 1, 2, 2, 1))


def _conv_samples(function: Any, rank: int) -> list[Sample]:
    x, w = Arg(CONVOLVED[rank - 1]), Arg(KERNELS[rank - 1])
    return [
        formula(
            function,
            lambda np, x, w, b: _np_conv(np, x, w) + _by_channel(b, rank),
            x,
            w,
            Arg(w.shape[:1]),
        ),
        formula(
            lambda x, w: function(x, w, stride=2, padding=1),
            lambda np, x, w: _np_conv(np, x, w, 2, 1),
            x,
            w,
        ),
        Sample(function, (Arg((1, 7, *x.shape[2:])), w), error=ValueError, match="fit|channels"),
    ]


def _transposed_samples(function: Any, rank: int) -> list[Sample]:
    w = Arg(KERNELS[rank - 1])
    x = Arg((1, w.shape[0], *(2,) * rank))
    return [
        formula(
            lambda x, w, b, stride=stride: function(x, w, b, stride=stride),
            lambda np, x, w, b, stride=stride: (
                _np_transposed(np, x, w, stride) + _by_channel(b, rank)
            ),
            x,
            w,
            Arg(w.shape[1:2]),
        )
        for stride in ((2,) if rank == 3 else (1, 2))
    ]


@samples_of(conv1d)
def _conv1d_samples() -> list[Sample]:
    return _conv_samples(conv1d, 1)


@samples_of(conv_transpose1d)
def _conv_transpose1d_samples() -> list[Sample]:
    return _transposed_samples(conv_transpose1d, 1)


@samples_of(conv2d)
def _conv2d_samples() -> list[Sample]:
    return _conv_samples(conv2d, 2)


@samples_of(conv_transpose2d)
def _conv_transpose2d_samples() -> list[Sample]:
    return _transposed_samples(conv_transpose2d, 2)


@samples_of(conv3d)
def _conv3d_samples() -> list[Sample]:
    return _conv_samples(conv3d, 3)


@samples_of(conv_transpose3d)
def _conv_transpose3d_samples() -> list[Sample]:
    return _transposed_samples(conv_transpose3d, 3)
