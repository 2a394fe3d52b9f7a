"""Composites for neural networks: activations, softmax, losses, the linear layer."""

from __future__ import annotations

from typing import Any

from dualgrad.compiler.ir.dims import same
from dualgrad.compiler.ir.value import dim_text, public
from dualgrad.compiler.ops.base import axis_argument, normalize_axis
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.contract import matmul
from dualgrad.compiler.ops.elementwise import cast_node, stop_gradient
from dualgrad.compiler.ops.index import one_hot
from dualgrad.compiler.ops.logical import where
from dualgrad.compiler.ops.sample import Sample, samples_of, unary
from dualgrad.runtime.dtype import DEFAULT_FLOAT
from dualgrad.runtime.errors import ArgumentError, DTypeError, ShapeError

REDUCTIONS = ("mean", "sum", "none")


@composite
def _relu(x: Any) -> Any:
    return where((x > 0) | x.ne(x), x, 0)


@public("relu")
def relu(x: Any) -> Any:
    """Return x where x > 0, else 0; NaN stays.  The gradient at 0 is 0."""
    return _relu(x)


@samples_of(relu)
def _relu_samples() -> list[Sample]:
    return unary(relu, lambda np, x: np.maximum(x, 0), low=0.5)


@composite
def _softmax(x: Any, *, axis: int) -> Any:
    x = x if x.dtype.is_float else cast_node(x, DEFAULT_FLOAT)
    e = (x - stop_gradient(x.max(axis, keepdims=True))).exp()
    return e * (1.0 / e.sum(axis, keepdims=True))


@public("softmax")
def softmax(x: Any, axis: int = -1, **dim: Any) -> Any:
    """Return exp(x - max x) times the reciprocal of its sum along `axis`."""
    axis = normalize_axis("softmax", axis_argument("softmax", axis, dim), x.ndim)
    return _softmax(x, axis=axis)


@composite
def _log_softmax(x: Any, *, axis: int) -> Any:
    x = x if x.dtype.is_float else cast_node(x, DEFAULT_FLOAT)
    shifted = x - stop_gradient(x.max(axis, keepdims=True))
    return shifted - shifted.exp().sum(axis, keepdims=True).log()


@public("log_softmax")
def log_softmax(x: Any, axis: int = -1, **dim: Any) -> Any:
    """Return x - max x - log(sum of exp(x - max x)) along `axis`."""
    axis = normalize_axis("log_softmax", axis_argument("log_softmax", axis, dim), x.ndim)
    return _log_softmax(x, axis=axis)


@composite
def _linear(x: Any, weight: Any, bias: Any) -> Any:
    return matmul(x, weight.transpose(0, 1)) + bias


@composite
def _linear_without_bias(x: Any, weight: Any) -> Any:
    return matmul(x, weight.transpose(0, 1))


def linear(x: Any, weight: Any, bias: Any = None) -> Any:
    """Return x @ weight.T + bias for x [..., in], weight [out, in], bias [out]."""
    if weight.ndim != 2 or x.ndim == 0 or not same(x.shape[-1], weight.shape[1]):
        raise ShapeError(
            "input and weight do not fit",
            op="linear",
            expect="input [..., in] and weight [out, in]",
            actual=f"input {dim_text(x.shape)}, weight {dim_text(weight.shape)}",
        )
    if bias is None:
        return _linear_without_bias(x, weight)
    if bias.ndim != 1 or not same(bias.shape[0], weight.shape[0]):
        raise ShapeError(
            "bias and weight do not fit",
            op="linear",
            expect=f"bias ({weight.shape[0]},)",
            actual=f"bias {dim_text(bias.shape)}",
        )
    return _linear(x, weight, bias)


def _reduced(losses: Any, reduction: str) -> Any:
    if reduction == "none":
        return losses
    return losses.mean() if reduction == "mean" else losses.sum()


def _check_reduction(op: str, reduction: str) -> None:
    if reduction not in REDUCTIONS:
        raise ArgumentError(
            "no such reduction",
            op=op,
            expect=" or ".join(map(repr, REDUCTIONS)),
            actual=repr(reduction),
        )


@composite
def _cross_entropy(logits: Any, target: Any, *, reduction: str) -> Any:
    chosen = one_hot(target, logits.shape[-1])
    losses = -where(chosen, log_softmax(logits, -1), 0.0).sum(-1)
    return _reduced(losses, reduction)


def cross_entropy(logits: Any, target: Any, reduction: str = "mean") -> Any:
    """Return -log softmax(logits)[target], reduced by "mean", "sum" or "none".

    logits: floats [N, classes] (or [classes]), target: integers [N] (or []).  Raises ShapeError
    if they do not fit, DTypeError unless targets are integers, IndexOutOfBounds if a target is
    no class.
    """
    _check_reduction("cross_entropy", reduction)
    if not target.dtype.is_int:
        raise DTypeError(
            "targets are class numbers",
            op="cross_entropy",
            expect="an integer dtype",
            actual=target.dtype.name,
        )
    fits = logits.ndim in (1, 2) and logits.ndim == target.ndim + 1
    if not fits or (target.ndim and not same(logits.shape[0], target.shape[0])):
        raise ShapeError(
            "logits and targets do not fit",
            op="cross_entropy",
            expect="logits [N, classes] and targets [N]",
            actual=f"logits {dim_text(logits.shape)}, targets {dim_text(target.shape)}",
        )
    return _cross_entropy(logits, target, reduction=reduction)


@composite
def _mse_loss(x: Any, target: Any, *, reduction: str) -> Any:
    difference = x - target
    return _reduced(difference * difference, reduction)


def mse_loss(x: Any, target: Any, reduction: str = "mean") -> Any:
    """Return (x - target)**2, reduced by "mean", "sum" or "none"; shapes must be equal."""
    _check_reduction("mse_loss", reduction)
    if x.shape != target.shape:
        raise ShapeError(
            "input and target have different shapes",
            op="mse_loss",
            expect=f"target {dim_text(x.shape)}",
            actual=f"target {dim_text(target.shape)}",
        )
    return _mse_loss(x, target, reduction=reduction)
