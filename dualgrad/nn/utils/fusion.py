"""Batch norm folded into the layer before it, for evaluation."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from dualgrad.nn.batch_norm import BatchNorm
from dualgrad.nn.module import Module
from dualgrad.nn.parameter import Parameter
from dualgrad.runtime.errors import ArgumentError
from dualgrad.state import no_grad

M = TypeVar("M", bound=Module)


def fuse_conv_bn_eval(conv: M, bn: BatchNorm, transpose: bool = False) -> M:
    """A convolution that gives what `bn` gives of the output of `conv`.

    Its weight is that of `conv` times weight / sqrt(running_var + eps), for each output channel;
    `transpose` is for transposed convolutions, of one group, whose weight is [in, out, ...].
    Raises ArgumentError unless both evaluate and `bn` has statistics.
    """
    return _fused("fuse_conv_bn_eval", conv, bn, 1 if transpose else 0)


def fuse_linear_bn_eval(linear: M, bn: BatchNorm) -> M:
    """A linear layer that gives what `bn` gives of the output of `linear`; see
    `fuse_conv_bn_eval`."""
    return _fused("fuse_linear_bn_eval", linear, bn, 0)


def _fused(op: str, layer: M, bn: BatchNorm, channels: int) -> M:
    """A copy of a layer with new weight and bias; `channels` is the dimension of its outputs."""
    found: Any = copy.deepcopy(layer)
    mean, var, weight, bias = bn.running_mean, bn.running_var, found.weight, found.bias
    fits = mean is not None and tuple(mean.shape) == (weight.shape[channels],)
    if layer.training or bn.training or mean is None or var is None or not fits:
        raise ArgumentError(
            "the layers cannot be made one",
            op=op,
            expect="layers in evaluation, and statistics of each output channel",
            actual=f"training={layer.training} and {bn.training}, {bn!r} after {layer!r}",
            hint="call eval() on both first",
        )
    with no_grad():
        scale = (var + bn.eps).rsqrt()
        scale = scale if bn.weight is None else scale * bn.weight
        shift = -mean * scale if bias is None else (bias - mean) * scale
        shift = shift if bn.bias is None else shift + bn.bias
        shape = [1] * weight.ndim
        shape[channels] = -1
        new = weight * scale.reshape(shape)
    flag = weight.requires_grad
    found.weight = Parameter(new.to(weight.dtype), requires_grad=flag)
    found.bias = Parameter(shift.to(weight.dtype), requires_grad=flag)
    return found  # type: ignore[no-any-return]
