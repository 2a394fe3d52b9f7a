"""Normalisation: elements shifted and scaled by statistics of the group that they belong to.

All of it is float; integers become the default float first.  Variances are means of squared
distances from the mean (two passes, no cancellation), and the biased ones unless said otherwise.
"""

from __future__ import annotations

import sys
from typing import Any

from dualgrad.compiler.ir.dims import Dim, product, same
from dualgrad.compiler.ir.value import dim_text
from dualgrad.compiler.ops.arguments import (
    Given,
    as_float,
    check_shape,
    equal,
    given,
    restored,
)
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.create import count
from dualgrad.compiler.ops.operands import check_tensors
from dualgrad.compiler.ops.padding import pad
from dualgrad.compiler.ops.precision import single
from dualgrad.compiler.ops.sample import Arg, Sample, formula, samples_of
from dualgrad.compiler.ops.slicing import windows
from dualgrad.runtime.dtype import float32
from dualgrad.runtime.errors import ArgumentError, ShapeError

Shape = tuple[Dim, ...]
EPSILON = {float32: 2.0**-23}  # the distance from 1 to the next number


def _centered(x: Any, axes: tuple[int, ...]) -> tuple[Any, Any, Any]:
    """x - mean, mean and variance over axes, which stay with size 1."""
    mean = x.mean(axes, keepdims=True)
    centered = x - mean
    return centered, mean, (centered * centered).mean(axes, keepdims=True)


def _affine(x: Any, weight: Any, bias: Any) -> Any:
    """x * weight + bias, either of them optional."""
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


@composite
@single
def _layer_norm(x: Any, eps: Any, *affine: Any, axes: tuple[int, ...], which: Given) -> Any:
    centered, _, variance = _centered(as_float(x), axes)
    return _affine(centered * (variance + eps).rsqrt(), *restored(affine, which))


@composite
@single
def _rms_norm(x: Any, eps: Any, *weight: Any, axes: tuple[int, ...], which: Given) -> Any:
    x = as_float(x)
    scale = ((x * x).mean(axes, keepdims=True) + eps).rsqrt()
    (w,) = restored(weight, which)
    return _affine(x * scale, w, None)


def _trailing(op: str, x: Any, normalized_shape: Any) -> tuple[tuple[int, ...], Shape]:
    """The axes that a shape names, which x must end with, and the shape."""
    check_tensors(op, x)
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not shape or not equal(x.shape[max(x.ndim - len(shape), 0) :], shape):
        raise ShapeError(
            "input does not end with the normalized shape",
            op=op,
            expect=f"input (..., {', '.join(map(str, shape))})" if shape else "at least one size",
            actual=f"input {dim_text(x.shape)}, normalized_shape {dim_text(shape)}",
            hint="give the last sizes of the input as the normalized shape",
        )
    return tuple(range(x.ndim - len(shape), x.ndim)), shape


def layer_norm(
    input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Any:
    """Return (x - mean) / sqrt(var + eps) * weight + bias over the last dimensions.

    `normalized_shape` (an int or sizes) names the dimensions and is the shape of weight and bias.
    Raises ShapeError if input, weight or bias do not fit it.
    """
    axes, shape = _trailing("layer_norm", input, normalized_shape)
    check_shape("layer_norm", "weight", weight, shape)
    check_shape("layer_norm", "bias", bias, shape)
    affine, which = given(weight, bias)
    return _layer_norm(input, eps, *affine, axes=axes, which=which)


def rms_norm(
    input: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None
) -> Any:
    """Return x / sqrt(mean x**2 + eps) * weight over the last dimensions; see `layer_norm`.

    `eps` is by default the distance from 1 to the next number of the input's dtype.
    """
    axes, shape = _trailing("rms_norm", input, normalized_shape)
    check_shape("rms_norm", "weight", weight, shape)
    if eps is None:
        eps = EPSILON.get(input.dtype, sys.float_info.epsilon)
    weights, which = given(weight)
    return _rms_norm(input, eps, *weights, axes=axes, which=which)


# -- normalisation of channels --------------------------------------------------------------------


def _per_channel(x: Any, ndim: int) -> Any:
    """Numbers of channels [C] or [N, C] as a tensor that broadcasts to [N, C, ...]."""
    lead = (1,) if x.ndim == 1 else ()
    return x.reshape((*lead, *x.shape, *(1,) * (ndim - 2)))


def _channel_affine(x: Any, weight: Any, bias: Any) -> Any:
    weight, bias = (v if v is None else _per_channel(v, x.ndim) for v in (weight, bias))
    return _affine(x, weight, bias)


def check_channels(op: str, x: Any, least: int, **vectors: Any) -> None:
    """Raise ShapeError unless x is [N, C, ...] of enough dimensions, vectors None or [C]."""
    check_tensors(op, x)
    if x.ndim < least:
        raise ShapeError(
            "input has too few dimensions",
            op=op,
            expect="input [N, C, ...]" if least == 2 else "input [N, C, L, ...]",
            actual=f"input {dim_text(x.shape)}",
            hint="add a dimension for the batch with unsqueeze(0)",
        )
    for what, v in vectors.items():
        check_shape(op, what, v, (x.shape[1],))


@composite
@single
def _group_norm(x: Any, eps: Any, *affine: Any, groups: int, which: Given) -> Any:
    x = as_float(x)
    shape = x.shape
    grouped = x.reshape((shape[0], groups, shape[1] // groups, *shape[2:]))
    centered, _, variance = _centered(grouped, tuple(range(2, grouped.ndim)))
    y = (centered * (variance + eps).rsqrt()).reshape(shape)
    return _channel_affine(y, *restored(affine, which))


def group_norm(
    input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Any:
    """Return x [N, C, ...] normalised over groups of C / num_groups channels, times weight [C],
    plus bias [C].  Raises ShapeError if sizes do not fit, ArgumentError for num_groups < 1."""
    check_channels("group_norm", input, 2, weight=weight, bias=bias)
    if num_groups < 1:
        raise ArgumentError(
            "there must be a group",
            op="group_norm",
            expect="num_groups >= 1",
            actual=str(num_groups),
            hint="num_groups=1 normalises all channels together",
        )
    if not same(input.shape[1] % num_groups, 0):
        raise ShapeError(
            "groups must have equal sizes",
            op="group_norm",
            expect="a number of channels that num_groups divides",
            actual=f"{input.shape[1]} channels, num_groups={num_groups}",
            hint="choose a divisor of the number of channels",
        )
    affine, which = given(weight, bias)
    return _group_norm(input, eps, *affine, groups=num_groups, which=which)


@composite
@single
def _channel_norm(
    x: Any, eps: Any, *affine: Any, axes: tuple[int, ...], which: Given
) -> tuple[Any, Any, Any]:
    """x normalised over axes; mean and unbiased variance without these axes."""
    x = as_float(x)
    centered, mean, variance = _centered(x, axes)
    y = _channel_affine(centered * (variance + eps).rsqrt(), *restored(affine, which))
    n = product(x.shape[a] for a in axes)
    unbiased = variance * (count(n, x.dtype) / count(n - 1, x.dtype))
    return y, mean.squeeze(axes), unbiased.squeeze(axes)


def channel_norm(
    op: str, input: Any, weight: Any, bias: Any, eps: Any, axes: tuple[int, ...]
) -> tuple[Any, Any, Any]:
    """x [N, C, ...] normalised over axes; mean and unbiased variance without these axes.

    Raises ShapeError where a group has less than two elements: it has no variance.
    """
    if product(input.shape[a] for a in axes) in (0, 1):
        raise ShapeError(
            "a group has less than two elements",
            op=op,
            expect="at least two numbers per channel",
            actual=f"input {dim_text(input.shape)}",
            hint="use a larger batch, or training=False",
        )
    affine, which = given(weight, bias)
    y, mean, variance = _channel_norm(input, eps, *affine, axes=axes, which=which)
    return y, mean, variance


@composite
@single
def _fixed_norm(x: Any, mean: Any, variance: Any, eps: Any, *affine: Any, which: Given) -> Any:
    x = as_float(x)
    scale = (variance + eps).rsqrt()
    y = (x - _per_channel(mean, x.ndim)) * _per_channel(scale, x.ndim)
    return _channel_affine(y, *restored(affine, which))


def fixed_norm(input: Any, mean: Any, variance: Any, weight: Any, bias: Any, eps: Any) -> Any:
    """x [N, C, ...] normalised with given statistics [C]."""
    affine, which = given(weight, bias)
    return _fixed_norm(input, mean, variance, eps, *affine, which=which)


@composite
def moved(running: Any, new: Any, momentum: Any, rest: Any) -> Any:
    """running * rest + new * momentum: a running statistic after one more batch."""
    return running * rest + new * momentum


@composite
@single
def _local_response_norm(x: Any, alpha: Any, beta: Any, k: Any, *, size: int) -> Any:
    x = as_float(x)
    n, c, *space = x.shape
    squares = (x * x).reshape((n, c, product(space)))
    near = windows(pad(squares, (0, 0, size // 2, (size - 1) // 2)), (1,), (size,), (1,), (1,))
    mean = near.sum(-1) / float(size)
    return x * ((mean * alpha + k) ** -beta).reshape(x.shape)


def local_response_norm(
    input: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Any:
    """Return x / (k + alpha * mean of x**2 over `size` neighbouring channels)**beta.

    input [N, C, L, ...]; channels outside count as 0.
    """
    op = "local_response_norm"
    check_channels(op, input, 3)
    if size < 1:
        raise ArgumentError(
            "no channels",
            op=op,
            expect="size >= 1",
            actual=str(size),
            hint="size is how many neighbouring channels count",
        )
    return _local_response_norm(input, alpha, beta, k, size=int(size))


# -- samples --------------------------------------------------------------------------------------


def np_standard(np: Any, x: Any, axes: tuple[int, ...]) -> Any:
    """x less its mean over the axes, divided by the square root of its variance + 1e-5."""
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-5)


def by_channel(v: Any, ndim: int) -> Any:
    return v.reshape((-1, *(1,) * (ndim - 2)))


@samples_of(layer_norm)
def _layer_norm_samples() -> list[Sample]:
    return [
        formula(
            lambda x, w, b: layer_norm(x, 5, w, b),
            lambda np, x, w, b: np_standard(np, x, (-1,)) * w + b,
            Arg((3, 5)),
            Arg((5,)),
            Arg((5,)),
            relative=1e-5,
        ),
        formula(
            lambda x: layer_norm(x, (2, 3)),
            lambda np, x: np_standard(np, x, (-2, -1)),
            Arg((3, 2, 3)),
            relative=1e-5,
        ),
        Sample(lambda x: layer_norm(x, 4), (Arg((3, 5)),), error=ValueError, match="layer_norm"),
    ]


@samples_of(rms_norm)
def _rms_norm_samples() -> list[Sample]:
    return [
        formula(
            lambda x, w: rms_norm(x, 5, w, 1e-6),
            lambda np, x, w: x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * w,
            Arg((3, 5)),
            Arg((5,)),
        )
    ]


@samples_of(group_norm)
def _group_norm_samples() -> list[Sample]:
    def reference(np: Any, x: Any, w: Any, b: Any) -> Any:
        parts = np.split(x, 2, 1)
        out = np.concatenate([np_standard(np, p, (1, 2)) for p in parts], 1)
        return out * by_channel(w, 3) + by_channel(b, 3)

    good = formula(
        lambda x, w, b: group_norm(x, 2, w, b),
        reference,
        Arg((2, 4, 3)),
        Arg((4,)),
        Arg((4,)),
        relative=1e-5,
    )
    bad = Sample(
        lambda x: group_norm(x, 3), (Arg((2, 4, 3)),), error=ValueError, match="group_norm"
    )
    return [good, bad]


@samples_of(local_response_norm)
def _local_response_norm_samples() -> list[Sample]:
    def reference(np: Any, x: Any) -> Any:
        near = [x[:, max(0, c - 1) : c + 2] for c in range(x.shape[1])]
        means = np.stack([(part**2).sum(1) / 3 for part in near], 1)
        return x / (1.2 + 0.3 * means) ** 0.6

    return [formula(lambda x: local_response_norm(x, 3, 0.3, 0.6, 1.2), reference, Arg((2, 5, 3)))]
