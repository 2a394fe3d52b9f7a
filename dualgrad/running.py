"""Normalisation by statistics that training moves: functions that change tensors in place."""

from __future__ import annotations

from typing import Any

from dualgrad.compiler.ops.normalization import (
    channel_norm,
    check_channels,
    fixed_norm,
    moved,
    np_standard,
)
from dualgrad.compiler.ops.operands import check_tensors
from dualgrad.compiler.ops.sample import Arg, Sample, formula, samples_of
from dualgrad.creation import zeros
from dualgrad.runtime.errors import ArgumentError
from dualgrad.state import no_grad
from dualgrad.tensor import Tensor


def _move(running: Tensor | None, new: Tensor, momentum: Any) -> None:
    """running = (1 - momentum) * running + momentum * new, in place, rounded once."""
    if running is not None:
        with no_grad():
            running.copy_(moved(running, new.detach(), momentum, 1.0 - momentum))


def _check(op: str, running_mean: Any, running_var: Any) -> None:
    if running_mean is None or running_var is None:
        raise ArgumentError(
            "there are no statistics to normalise with",
            op=op,
            expect="running_mean and running_var",
            actual="None",
            hint="pass training=True, or running_mean and running_var",
        )


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Return (x - mean) / sqrt(var + eps) * weight + bias per channel of x [N, C, ...].

    In training mean and var are those of the batch, and the running ones, if given, move towards
    them by `momentum` (the variance with N - 1 in place of N); else the running ones are used.
    All vectors are [C]; an input (0,) is given back, and one without elements moves no statistics.
    Raises ShapeError if shapes do not fit or a channel has one number only.
    """
    check_tensors("batch_norm", input)
    if tuple(input.shape) == (0,):
        return input.clone()
    check_channels(
        "batch_norm",
        input,
        2,
        running_mean=running_mean,
        running_var=running_var,
        weight=weight,
        bias=bias,
    )
    if not training:
        _check("batch_norm", running_mean, running_var)
        return fixed_norm(input, running_mean, running_var, weight, bias, eps)  # type: ignore[no-any-return]
    if 0 in input.shape:  # nothing to normalise, nothing that statistics could learn
        none = zeros(input.shape[1], dtype=input.dtype, device=input.device)
        return fixed_norm(input, none, none, weight, bias, eps)  # type: ignore[no-any-return]
    axes = (0, *range(2, input.ndim))
    out, mean, var = channel_norm("batch_norm", input, weight, bias, eps, axes)
    _move(running_mean, mean, momentum)
    _move(running_var, var, momentum)
    return out  # type: ignore[no-any-return]


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Return x [N, C, L, ...] normalised over L, ... for each sample and channel.

    With `use_input_stats` the running statistics, if given, move towards the means over the
    batch; without it they are used instead; see `batch_norm`.
    """
    check_channels(
        "instance_norm",
        input,
        3 if use_input_stats else 2,
        running_mean=running_mean,
        running_var=running_var,
        weight=weight,
        bias=bias,
    )
    if not use_input_stats:
        _check("instance_norm", running_mean, running_var)
        return fixed_norm(input, running_mean, running_var, weight, bias, eps)  # type: ignore[no-any-return]
    axes = tuple(range(2, input.ndim))
    out, mean, var = channel_norm("instance_norm", input, weight, bias, eps, axes)
    if running_mean is not None:
        _move(running_mean, mean.detach().mean(0), momentum)
    if running_var is not None:
        _move(running_var, var.detach().mean(0), momentum)
    return out  # type: ignore[no-any-return]


def _standard_samples(function: Any, np_axes: tuple[int, ...]) -> list[Sample]:
    """Of statistics of the input over the axes, and of given ones."""
    x, vector, positive = Arg((2, 3, 4)), Arg((3,)), Arg((3,), low=0.5)

    def own(np: Any, x: Any, w: Any, b: Any) -> Any:
        return np_standard(np, x, np_axes) * w[:, None] + b[:, None]

    def given(np: Any, x: Any, m: Any, v: Any) -> Any:
        return (x - m[:, None]) / np.sqrt(v[:, None] + 1e-5)

    training = function is batch_norm
    return [
        formula(
            lambda x, w, b: (
                function(x, None, None, w, b, True) if training else function(x, None, None, w, b)
            ),
            own,
            x,
            vector,
            vector,
            relative=1e-5,
        ),
        formula(
            lambda x, m, v: (
                function(x, m, v) if training else function(x, m, v, use_input_stats=False)
            ),
            given,
            x,
            vector,
            positive,
            relative=1e-5,
        ),
    ]


@samples_of(batch_norm)
def _batch_norm_samples() -> list[Sample]:
    bad = Sample(
        lambda x: batch_norm(x, None, None), (Arg((2, 3)),), error=ValueError, match="no statistics"
    )
    return [*_standard_samples(batch_norm, (0, 2)), bad]


@samples_of(instance_norm)
def _instance_norm_samples() -> list[Sample]:
    return _standard_samples(instance_norm, (2,))
