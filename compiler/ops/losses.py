"""Losses: how far predictions are from targets, per element or class, reduced to one number.

Unless said otherwise input and target have the same shape (losses do not broadcast), and
`reduction` is "mean", "sum" or "none".  Integers become the default float.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from dualgrad.compiler.ir.dims import same
from dualgrad.compiler.ir.value import apply, dim_text
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.compiler.ops.arguments import (
    as_float,
    check_choice,
    check_equal_shapes,
    check_reduction,
    check_shape,
    equal,
    given,
    reduced,
    restored,
)
from dualgrad.compiler.ops.base import broadcast_shapes
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.create import count
from dualgrad.compiler.ops.distance import at_least
from dualgrad.compiler.ops.elementwise import Elementwise, stop_gradient
from dualgrad.compiler.ops.exponential import log_sigmoid
from dualgrad.compiler.ops.logical import where
from dualgrad.compiler.ops.operands import check_tensors
from dualgrad.compiler.ops.precision import single
from dualgrad.compiler.ops.sample import Arg, Sample, formula, samples_of
from dualgrad.runtime.errors import ArgumentError, ShapeError

if TYPE_CHECKING:
    from dualgrad.compiler.build.mathlib import Math

LEAST_LOG = -100.0  # what binary_cross_entropy takes for the logarithm of 0, as PyTorch does
LEAST_VARIANCE = 1e-12  # of a probability: bounds its gradient, as PyTorch does


# -- distances ------------------------------------------------------------------------------------


@composite
@single
def _mse_loss(x: Any, target: Any, *, reduction: str) -> Any:
    difference = as_float(x - target)
    return reduced(difference * difference, reduction)


def mse_loss(input: Any, target: Any, reduction: str = "mean") -> Any:
    """Return (input - target)**2."""
    check_reduction("mse_loss", reduction)
    check_equal_shapes("mse_loss", input, target)
    return _mse_loss(input, target, reduction=reduction)


@composite
@single
def _l1_loss(x: Any, target: Any, *, reduction: str) -> Any:
    return reduced(abs(as_float(x - target)), reduction)


def l1_loss(input: Any, target: Any, reduction: str = "mean") -> Any:
    """Return |input - target|; the gradient at 0 is 0."""
    check_reduction("l1_loss", reduction)
    check_equal_shapes("l1_loss", input, target)
    return _l1_loss(input, target, reduction=reduction)


@composite
@single
def _huber_loss(x: Any, target: Any, delta: Any, scale: Any, *, reduction: str) -> Any:
    """scale * (d**2 / 2 for |d| < delta, else delta * (|d| - delta / 2))."""
    difference = as_float(x - target)
    distance = abs(difference)
    near = distance < delta
    # Each branch is 0 where the other counts, so that an infinite distance makes no NaN.
    inner = where(near, difference, 0.0)
    outer = where(near, 0.0, delta * (distance - 0.5 * delta))
    return reduced((0.5 * (inner * inner) + outer) * scale, reduction)


def huber_loss(input: Any, target: Any, reduction: str = "mean", delta: float = 1.0) -> Any:
    """Return d**2 / 2 for |d| < delta, else delta * (|d| - delta / 2), of d = input - target."""
    check_reduction("huber_loss", reduction)
    check_equal_shapes("huber_loss", input, target)
    if delta <= 0:
        raise ArgumentError(
            "delta is no distance",
            op="huber_loss",
            expect="> 0",
            actual=str(delta),
            hint="delta is where the loss turns from square to linear",
        )
    return _huber_loss(input, target, delta, 1.0, reduction=reduction)


def smooth_l1_loss(input: Any, target: Any, reduction: str = "mean", beta: float = 1.0) -> Any:
    """Return d**2 / (2 beta) for |d| < beta, else |d| - beta / 2, of d = input - target."""
    check_reduction("smooth_l1_loss", reduction)
    check_equal_shapes("smooth_l1_loss", input, target)
    if beta < 0:
        raise ArgumentError(
            "beta is no distance",
            op="smooth_l1_loss",
            expect=">= 0",
            actual=f"{beta}",
            hint="beta is where the loss turns from square to linear",
        )
    if beta == 0:
        return _l1_loss(input, target, reduction=reduction)
    return _huber_loss(input, target, beta, 1.0 / beta, reduction=reduction)


# -- probabilities of two classes -----------------------------------------------------------------


class BinaryCrossEntropy(Elementwise):
    """-(y log x + (1 - y) log(1 - x)) for a probability x, with logarithms not below -100.

    The gradient of x is that of the formula without this bound, (x - y) / (x (1 - x)), with
    a divisor of at least 1e-12.
    """

    accepts = "f"
    floats = True

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:
        least = b.const(LEAST_LOG, x.dtype)
        yes, no = b.maximum(b.log(x), least), b.maximum(b.log1p(-x), least)
        return (y - 1.0) * no - y * yes

    def vjp(self, g: Any, out: Any, x: Any, y: Any) -> tuple[Any, ...]:
        rest = 1.0 - x
        slope = (x - y) / at_least(x * rest, LEAST_VARIANCE)
        return (g * slope, g * (at_least(rest.log(), LEAST_LOG) - at_least(x.log(), LEAST_LOG)))

    @staticmethod
    def samples() -> list[Sample]:
        def reference(np: Any, x: Any, y: Any) -> Any:
            yes, no = np.maximum(np.log(x), -100), np.maximum(np.log1p(-x), -100)
            return (y - 1) * no - y * yes

        def call(x: Any, y: Any) -> Any:
            return apply(BinaryCrossEntropy.of(), x, y)[0]

        inside = Arg((5, 7), low=0.05, high=0.95)
        ends = Arg((6,), values=(0.0, 1.0))
        targets = Arg((6,), values=(0.0, 1.0, 1.0, 0.0, 0.5, 0.5))
        return [
            Sample(call, (inside, inside), reference, relative=1e-6),
            Sample(call, (inside, Arg((7,), low=0, high=1)), reference, relative=1e-6),
            Sample(call, (ends, targets), reference, relative=1e-6, gradient=False),
        ]


@composite
@single
def _binary_cross_entropy(x: Any, target: Any, *weight: Any, reduction: str) -> Any:
    losses = apply(BinaryCrossEntropy.of(), x, target)[0]
    for w in weight:
        losses = losses * w
    return reduced(losses, reduction)


def binary_cross_entropy(
    input: Any, target: Any, weight: Any = None, reduction: str = "mean"
) -> Any:
    """Return -weight * (target log(input) + (1 - target) log(1 - input)) for probabilities.

    Logarithms count as at least -100; weight broadcasts.  A probability outside of [0, 1] gives
    NaN.  At 0 and 1 the gradient is bounded: its divisor input * (1 - input) is at least 1e-12.
    """
    check_reduction("binary_cross_entropy", reduction)
    check_equal_shapes("binary_cross_entropy", input, target)
    check_weight("binary_cross_entropy", "weight", weight, input)
    weights, _ = given(weight)
    return _binary_cross_entropy(input, target, *weights, reduction=reduction)


def check_weight(op: str, what: str, weight: Any, input: Any) -> None:
    if weight is None:
        return
    whole = broadcast_shapes(op, [input.shape, weight.shape])
    if len(whole) != input.ndim or not all(map(same, whole, input.shape)):
        raise ShapeError(
            f"{what} does not broadcast to the input",
            op=op,
            expect=f"{what} that broadcasts to {dim_text(input.shape)}",
            actual=f"{what} {dim_text(weight.shape)}",
            hint=f"reshape {what}; sizes of 1 broadcast",
        )


@composite
@single
def _bce_with_logits(
    x: Any, target: Any, *weights: Any, which: tuple[bool, ...], reduction: str
) -> Any:
    x = as_float(x)
    weight, pos_weight = restored(weights, which)
    losses = (1.0 - target) * x
    if pos_weight is None:
        losses = losses - log_sigmoid(x)
    else:
        losses = losses - (1.0 + (pos_weight - 1.0) * target) * log_sigmoid(x)
    return reduced(losses if weight is None else losses * weight, reduction)


def binary_cross_entropy_with_logits(
    input: Any, target: Any, weight: Any = None, reduction: str = "mean", pos_weight: Any = None
) -> Any:
    """Return binary_cross_entropy(sigmoid(input), target) without overflow.

    The term of positive targets is multiplied by `pos_weight`, the loss by `weight`; both
    broadcast to the input.
    """
    op = "binary_cross_entropy_with_logits"
    check_reduction(op, reduction)
    check_equal_shapes(op, input, target)
    check_weight(op, "weight", weight, input)
    check_weight(op, "pos_weight", pos_weight, input)
    weights, which = given(weight, pos_weight)
    return _bce_with_logits(input, target, *weights, which=which, reduction=reduction)


@composite
@single
def _soft_margin_loss(x: Any, target: Any, *, reduction: str) -> Any:
    return reduced(-log_sigmoid(as_float(x * target)), reduction)


def soft_margin_loss(input: Any, target: Any, reduction: str = "mean") -> Any:
    """Return log(1 + exp(-target * input)) for targets 1 and -1."""
    check_reduction("soft_margin_loss", reduction)
    check_equal_shapes("soft_margin_loss", input, target)
    return _soft_margin_loss(input, target, reduction=reduction)


@composite
@single
def _hinge_embedding_loss(x: Any, target: Any, margin: Any, *, reduction: str) -> Any:
    x = as_float(x)
    near = where(target.eq(-1), 0.0, x)
    return reduced(near + where(target.eq(1), 0.0, at_least(margin - x, 0.0)), reduction)


def hinge_embedding_loss(
    input: Any, target: Any, margin: float = 1.0, reduction: str = "mean"
) -> Any:
    """Return input where target is 1, max(0, margin - input) where it is -1."""
    check_reduction("hinge_embedding_loss", reduction)
    check_equal_shapes("hinge_embedding_loss", input, target)
    return _hinge_embedding_loss(input, target, margin, reduction=reduction)


@composite
@single
def _margin_ranking_loss(x: Any, y: Any, target: Any, margin: Any, *, reduction: str) -> Any:
    return reduced(at_least(as_float(target * (y - x)) + margin, 0.0), reduction)


def margin_ranking_loss(
    input1: Any, input2: Any, target: Any, margin: float = 0.0, reduction: str = "mean"
) -> Any:
    """Return max(0, margin - target * (input1 - input2)): 1 ranks input1 higher, -1 input2."""
    check_reduction("margin_ranking_loss", reduction)
    check_equal_shapes("margin_ranking_loss", input1, input2)
    check_equal_shapes("margin_ranking_loss", input1, target)
    return _margin_ranking_loss(input1, input2, target, margin, reduction=reduction)


# -- distributions --------------------------------------------------------------------------------


@composite
@single
def _kl_div(x: Any, target: Any, *, reduction: str, log_target: bool) -> Any:
    x, target = as_float(x), as_float(target)
    if log_target:
        losses = target.exp() * (target - x)
    else:
        zero = target.eq(0)
        losses = target * (where(zero, 1.0, target).log() - where(zero, 0.0, x))
    if reduction != "batchmean":
        return reduced(losses, reduction)
    return losses.sum() / count(x.shape[0], losses.dtype)


def kl_div(input: Any, target: Any, reduction: str = "mean", log_target: bool = False) -> Any:
    """Return target * (log(target) - input): the divergence of exp(input) from target.

    input holds log-probabilities, target probabilities, or their logarithms with `log_target`.
    0 log 0 is 0.  `reduction` may also be "batchmean": the sum over the size of dimension 0.
    """
    check_choice("kl_div", "reduction", reduction, ("mean", "sum", "none", "batchmean"))
    check_equal_shapes("kl_div", input, target)
    if reduction == "batchmean" and input.ndim == 0:
        raise ShapeError(
            "there is no batch",
            op="kl_div",
            expect="input [N, ...]",
            actual="()",
            hint="use reduction='sum', or add a batch with unsqueeze(0)",
        )
    return _kl_div(input, target, reduction=reduction, log_target=bool(log_target))


@composite
@single
def _poisson_nll_loss(
    x: Any, target: Any, eps: Any, *, log_input: bool, full: bool, reduction: str
) -> Any:
    x, target = as_float(x), as_float(target)
    losses = x.exp() - target * x if log_input else x - target * (x + eps).log()
    if full:
        large = target > 1.0
        t = where(large, target, 1.0)
        stirling = t * t.log() - t + 0.5 * (t * (2.0 * math.pi)).log()
        losses = losses + where(large, stirling, 0.0)
    return reduced(losses, reduction)


def poisson_nll_loss(
    input: Any,
    target: Any,
    log_input: bool = True,
    full: bool = False,
    eps: float = 1e-8,
    reduction: str = "mean",
) -> Any:
    """Return the negative log-likelihood of counts under a Poisson distribution.

    exp(input) - target * input, or input - target * log(input + eps) without `log_input`.
    `full` adds Stirling's formula for log(target!) where target > 1.
    """
    check_reduction("poisson_nll_loss", reduction)
    check_equal_shapes("poisson_nll_loss", input, target)
    return _poisson_nll_loss(
        input, target, eps, log_input=bool(log_input), full=bool(full), reduction=reduction
    )


@composite
@single
def _gaussian_nll_loss(
    x: Any, target: Any, var: Any, eps: Any, *, full: bool, reduction: str
) -> Any:
    difference = as_float(x - target)
    variance = where(var < eps, eps + (var - stop_gradient(var)), var)
    losses = 0.5 * (variance.log() + difference * difference / variance)
    return reduced(losses + 0.5 * math.log(2.0 * math.pi) if full else losses, reduction)


def _shared_along_one(shape: tuple[Any, ...], whole: tuple[Any, ...]) -> bool:
    """Whether a shape differs from `whole` in at most one dimension, which is 1."""
    if len(shape) != len(whole):
        return False
    differing = [size for size, n in zip(shape, whole, strict=True) if not same(size, n)]
    return not differing or (len(differing) == 1 and same(differing[0], 1))


def gaussian_nll_loss(
    input: Any,
    target: Any,
    var: Any,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Any:
    """Return (log(var) + (input - target)**2 / var) / 2, plus log(2 pi) / 2 if `full`.

    input and target broadcast.  var is a number or has the input's shape, but for one dimension
    of size 1, or no last dimension.  Variances below eps count as eps; the gradient does not see
    this bound.
    """
    check_tensors("gaussian_nll_loss", input, target, var)
    op = "gaussian_nll_loss"
    check_reduction(op, reduction)
    broadcast_shapes(op, [input.shape, target.shape])
    if not isinstance(var, (int, float)):
        shape = tuple(var.shape)
        if input.ndim and equal(shape, input.shape[:-1]):
            var = var.unsqueeze(-1)
        elif not _shared_along_one(shape, input.shape):
            check_shape(op, "var", var, input.shape)
    return _gaussian_nll_loss(input, target, var, eps, full=bool(full), reduction=reduction)


# -- samples --------------------------------------------------------------------------------------

X = Arg((3, 4))
SHARES = Arg((3, 4), low=0.05, high=0.95)
SIGNS = Arg((3, 4), values=(1.0, -1.0, -1.0), differentiable=False)
COUNTS = Arg((3, 4), low=0.2, high=4.0)


def loss_samples(function: Any, reference: Any, *args: Arg, **options: Any) -> list[Sample]:
    """The mean, the losses themselves with `options`, and what is refused."""

    def mean(np: Any, *xs: Any) -> Any:
        return reference(np, *xs).mean()

    def other(np: Any, *xs: Any) -> Any:
        return reference(np, *xs, **options)

    return [
        formula(function, mean, *args),
        formula(lambda *xs: function(*xs, reduction="none", **options), other, *args),
        Sample(
            lambda *xs: function(*xs, reduction="max"),
            args,
            error=ValueError,
            match="no such reduction",
        ),
    ]


@samples_of(mse_loss)
def _mse_loss_samples() -> list[Sample]:
    return loss_samples(mse_loss, lambda np, x, y: (x - y) ** 2, X, X)


@samples_of(l1_loss)
def _l1_loss_samples() -> list[Sample]:
    return loss_samples(l1_loss, lambda np, x, y: abs(x - y), X, X)


@samples_of(huber_loss)
def _huber_loss_samples() -> list[Sample]:
    def reference(np: Any, x: Any, y: Any, delta: float = 1.0) -> Any:
        d = abs(x - y)
        return np.where(d < delta, d * d / 2, delta * (d - delta / 2))

    return loss_samples(huber_loss, reference, X, X, delta=0.7)


@samples_of(smooth_l1_loss)
def _smooth_l1_loss_samples() -> list[Sample]:
    def reference(np: Any, x: Any, y: Any, beta: float = 1.0) -> Any:
        d = abs(x - y)
        return np.where(d < beta, d * d / (2 * beta), d - beta / 2)

    return loss_samples(smooth_l1_loss, reference, X, X, beta=0.5)


@samples_of(binary_cross_entropy)
def _binary_cross_entropy_samples() -> list[Sample]:
    def reference(np: Any, x: Any, y: Any, w: Any = 1.0) -> Any:
        return -w * (y * np.log(x) + (1 - y) * np.log1p(-x))

    weight = Arg((4,), low=0.1)
    return loss_samples(binary_cross_entropy, reference, SHARES, SHARES) + loss_samples(
        binary_cross_entropy, reference, SHARES, SHARES, weight
    )


@samples_of(binary_cross_entropy_with_logits)
def _bce_with_logits_samples() -> list[Sample]:
    def reference(np: Any, x: Any, y: Any, w: Any = 1.0, p: Any = 1.0) -> Any:
        s = 1 / (1 + np.exp(-x))
        return -w * (p * y * np.log(s) + (1 - y) * np.log(1 - s))

    positive = formula(
        lambda x, y, p: binary_cross_entropy_with_logits(x, y, reduction="sum", pos_weight=p),
        lambda np, x, y, p: reference(np, x, y, 1.0, p).sum(),
        X,
        SHARES,
        Arg((4,), low=0.1),
    )
    return [*loss_samples(binary_cross_entropy_with_logits, reference, X, SHARES), positive]


@samples_of(soft_margin_loss)
def _soft_margin_loss_samples() -> list[Sample]:
    return loss_samples(soft_margin_loss, lambda np, x, y: np.log1p(np.exp(-y * x)), X, SIGNS)


@samples_of(hinge_embedding_loss)
def _hinge_embedding_loss_samples() -> list[Sample]:
    def reference(np: Any, x: Any, y: Any, margin: float = 1.0) -> Any:
        return np.where(y == 1, x, np.maximum(0, margin - x))

    return loss_samples(hinge_embedding_loss, reference, X, SIGNS, margin=0.3)


@samples_of(margin_ranking_loss)
def _margin_ranking_loss_samples() -> list[Sample]:
    def reference(np: Any, x: Any, y: Any, s: Any, margin: float = 0.0) -> Any:
        return np.maximum(0, margin - s * (x - y))

    return loss_samples(margin_ranking_loss, reference, X, X, SIGNS, margin=0.5)


@samples_of(kl_div)
def _kl_div_samples() -> list[Sample]:
    def reference(np: Any, x: Any, y: Any, log_target: bool = False) -> Any:
        return np.exp(y) * (y - x) if log_target else y * (np.log(y) - x)

    batch = formula(
        lambda x, y: kl_div(x, y, "batchmean"),
        lambda np, x, y: reference(np, x, y).sum() / 3,
        X,
        SHARES,
    )
    return [*loss_samples(kl_div, reference, X, SHARES, log_target=True), batch]


@samples_of(poisson_nll_loss)
def _poisson_nll_loss_samples() -> list[Sample]:
    def reference(np: Any, x: Any, y: Any, full: bool = False) -> Any:
        t = np.maximum(y, 1)
        extra = np.where(y > 1, t * np.log(t) - t + np.log(2 * np.pi * t) / 2, 0)
        return np.exp(x) - y * x + full * extra

    return loss_samples(poisson_nll_loss, reference, X, COUNTS, full=True)


@samples_of(gaussian_nll_loss)
def _gaussian_nll_loss_samples() -> list[Sample]:
    def reference(np: Any, x: Any, y: Any, v: Any, full: bool = False) -> Any:
        return (np.log(v) + (x - y) ** 2 / v + full * np.log(2 * np.pi)) / 2

    return loss_samples(gaussian_nll_loss, reference, X, X, Arg((3, 1), low=0.3), full=True)
