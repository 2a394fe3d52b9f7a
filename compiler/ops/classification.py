"""Losses of class scores: the class dimension is 1 (0 without a batch), as in PyTorch.

Targets are class numbers, integers [N, d1, ...] for scores [N, C, d1, ...], or probabilities of
the shape of the scores.  A class number outside of [0, C) raises IndexOutOfBounds when the
program runs.
"""

from __future__ import annotations

from typing import Any

from dualgrad.compiler.ir.dims import product
from dualgrad.compiler.ir.value import dim_text
from dualgrad.compiler.ops.arguments import (
    Given,
    as_float,
    check_equal_shapes,
    check_float,
    check_reduction,
    check_shape,
    equal,
    given,
    reduced,
    restored,
)
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.create import count
from dualgrad.compiler.ops.distance import at_least
from dualgrad.compiler.ops.elementwise import stop_gradient, to
from dualgrad.compiler.ops.exponential import log_sigmoid
from dualgrad.compiler.ops.index import one_hot
from dualgrad.compiler.ops.logical import where
from dualgrad.compiler.ops.losses import check_weight
from dualgrad.compiler.ops.operands import check_tensors
from dualgrad.compiler.ops.precision import single
from dualgrad.compiler.ops.sample import Arg, Sample, formula, samples_of
from dualgrad.runtime.dtype import int64
from dualgrad.runtime.errors import ArgumentError, DTypeError, ShapeError

IGNORED = -100  # PyTorch's class number of elements that do not count


def _class_axis(scores: Any) -> int:
    return 0 if scores.ndim == 1 else 1


def _chosen(scores: Any, target: Any, ignored: Any) -> tuple[Any, Any]:
    """Where a score is that of the target, and which targets count."""
    axis = _class_axis(scores)
    counts = target.ne(ignored)
    hot = one_hot(where(counts, target, 0), scores.shape[axis])
    order = (*range(axis), hot.ndim - 1, *range(axis, hot.ndim - 1))
    return hot.permute(order), counts


def _shifted(logits: Any, axis: int) -> tuple[Any, Any]:
    """logits minus their maximum, and the logarithm of the sum of its exponentials."""
    shifted = logits - stop_gradient(logits.max(axis, keepdims=True))
    return shifted, shifted.exp().sum(axis).log()


def _class_weights(weight: Any, scores: Any) -> Any:
    shape = [1] * scores.ndim
    axis = _class_axis(scores)
    shape[axis] = scores.shape[axis]
    return weight.reshape(tuple(shape))


def _weighted(losses: Any, weights: Any, reduction: str) -> Any:
    """Losses (weighted already) reduced; the mean divides by the sum of their weights."""
    return losses.sum() / weights.sum() if reduction == "mean" else reduced(losses, reduction)


@composite
@single
def _nll_loss(
    scores: Any, target: Any, ignored: Any, *weight: Any, which: Given, reduction: str
) -> Any:
    axis = _class_axis(scores)
    hot, counts = _chosen(scores, target, ignored)
    losses = where(counts, -where(hot, scores, 0.0).sum(axis), 0.0)
    (w,) = restored(weight, which)
    if w is None:
        return _weighted(losses, to(counts, scores.dtype), reduction)
    own = where(hot, _class_weights(w, scores), 0.0).sum(axis)
    return _weighted(losses * own, where(counts, own, 0.0), reduction)


@composite
@single
def _cross_entropy(
    logits: Any,
    target: Any,
    ignored: Any,
    smoothing: Any,
    *weight: Any,
    which: Given,
    smooth: bool,
    reduction: str,
) -> Any:
    axis = _class_axis(logits)
    hot, counts = _chosen(logits, target, ignored)
    shifted, log = _shifted(logits, axis)
    (w,) = restored(weight, which)
    w = None if w is None else _class_weights(w, logits)
    losses = log - where(hot, shifted, 0.0).sum(axis)
    own = to(counts, logits.dtype)
    if w is not None:
        own = where(hot, w, 0.0).sum(axis)
        losses, own = losses * own, where(counts, own, 0.0)
    if smooth:
        rest = log.unsqueeze(axis) - shifted
        even = (rest if w is None else rest * w).sum(axis)
        classes = count(logits.shape[axis], logits.dtype)
        losses = losses * (1.0 - smoothing) + even * (smoothing / classes)
    return _weighted(where(counts, losses, 0.0), own, reduction)


@composite
@single
def _soft_cross_entropy(
    logits: Any,
    target: Any,
    smoothing: Any,
    *weight: Any,
    which: Given,
    smooth: bool,
    reduction: str,
) -> Any:
    axis = _class_axis(logits)
    shifted, log = _shifted(logits, axis)
    classes = count(logits.shape[axis], logits.dtype)
    if smooth:
        target = target * (1.0 - smoothing) + smoothing / classes
    (w,) = restored(weight, which)
    if w is not None:
        target = target * _class_weights(w, logits)
    losses = ((log.unsqueeze(axis) - shifted) * target).sum(axis)
    if reduction != "mean":
        return reduced(losses, reduction)
    batch = product(n for k, n in enumerate(logits.shape) if k != axis)
    return losses.sum() / count(batch, losses.dtype)


def _check_classes(op: str, scores: Any, target: Any, weight: Any) -> None:
    """Raise unless target holds class numbers that fit the scores, and weight a number of each."""
    check_tensors(op, target)
    check_float(op, "input", scores)
    if not target.dtype.is_int:
        raise DTypeError(
            "targets are class numbers",
            op=op,
            expect="an integer dtype",
            actual=target.dtype.name,
            hint="convert them with .astype(dg.int64)",
        )
    axis = _class_axis(scores)
    fits = scores.ndim > 0 and equal(
        target.shape, (*scores.shape[:axis], *scores.shape[axis + 1 :])
    )
    if not fits:
        raise ShapeError(
            "input and target do not fit",
            op=op,
            expect="input [N, C, d1, ...] and target [N, d1, ...], or [C] and []",
            actual=f"input {dim_text(scores.shape)}, target {dim_text(target.shape)}",
            hint="give one class per row of the input; drop a last size of 1 with squeeze(-1)",
        )
    check_shape(op, "weight", weight, (scores.shape[axis],))


def nll_loss(
    input: Any,
    target: Any,
    weight: Any = None,
    ignore_index: int = IGNORED,
    reduction: str = "mean",
) -> Any:
    """Return -weight[target] * input[target] for log-probabilities [N, C, d1, ...].

    Targets are integers [N, d1, ...]; those equal to ignore_index give 0 and no gradient.
    "mean" divides by the sum of the weights of all targets that count.
    """
    check_reduction("nll_loss", reduction)
    _check_classes("nll_loss", input, target, weight)
    weights, which = given(weight)
    return _nll_loss(input, target, ignore_index, *weights, which=which, reduction=reduction)


def cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    ignore_index: int = IGNORED,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    """Return -log softmax(input)[target], reduced by "mean", "sum" or "none".

    input: logits [N, C, d1, ...] (or [C]).  target: class numbers, integers [N, d1, ...] (or []),
    or probabilities, floats of the shape of input.  `weight` [C] multiplies the loss of each
    class.  Targets equal to ignore_index give 0 and no gradient; "mean" divides by the sum of the
    weights of those that count, for probabilities by the size of the batch.  `label_smoothing`
    mixes the target with equal probabilities.  Raises ShapeError if shapes do not fit, DTypeError
    if dtypes do not, IndexOutOfBounds if a target is no class.
    """
    check_tensors("cross_entropy", target)
    op = "cross_entropy"
    check_reduction(op, reduction)
    if not 0.0 <= label_smoothing <= 1.0:
        raise ArgumentError(
            "label_smoothing is no share",
            op=op,
            expect="0 to 1",
            actual=f"{label_smoothing}",
            hint="give a share: 0.1 for 10 percent",
        )
    weights, which = given(weight)
    smooth = label_smoothing != 0
    if target.dtype.is_float and equal(input.shape, target.shape) and input.ndim:
        check_float(op, "input", input)
        check_shape(op, "weight", weight, (input.shape[_class_axis(input)],))
        return _soft_cross_entropy(
            input, target, label_smoothing, *weights,
            which=which, smooth=smooth, reduction=reduction,
        )  # fmt: skip
    _check_classes(op, input, target, weight)
    return _cross_entropy(
        input, target, ignore_index, label_smoothing, *weights,
        which=which, smooth=smooth, reduction=reduction,
    )  # fmt: skip


# -- margins --------------------------------------------------------------------------------------


@composite
@single
def _multi_margin_loss(
    x: Any, target: Any, margin: Any, *weight: Any, p: int, which: Given, reduction: str
) -> Any:
    axis = x.ndim - 1
    hot = one_hot(target, x.shape[axis])
    own = where(hot, x, 0.0).sum(axis, keepdims=True)
    short = where(hot, 0.0, at_least(margin - own + x, 0.0))
    losses = short if p == 1 else short * short
    (w,) = restored(weight, which)
    if w is not None:
        losses = losses * where(hot, w, 0.0).sum(axis, keepdims=True)
    return reduced(losses.sum(axis) / count(x.shape[axis], x.dtype), reduction)


def multi_margin_loss(
    input: Any,
    target: Any,
    p: int = 1,
    margin: float = 1.0,
    weight: Any = None,
    reduction: str = "mean",
) -> Any:
    """Return sum over c != y of weight[y] * max(0, margin - x[y] + x[c])**p / C, p 1 or 2.

    input [N, C] (or [C], or one score []), target y: integers [N] (or []), weight [C].
    """
    check_tensors("multi_margin_loss", input)
    op = "multi_margin_loss"
    check_reduction(op, reduction)
    if p not in (1, 2):
        raise ArgumentError(
            "no such power",
            op=op,
            expect="p = 1 or 2",
            actual=f"{p!r}",
            hint="use 1 for the margin itself, 2 for its square",
        )
    if input.ndim > 2:
        raise ShapeError(
            "input has too many dimensions",
            op=op,
            expect="[N, C] or [C]",
            actual=dim_text(input.shape),
            hint="merge the others into the first with reshape(-1, C)",
        )
    if input.ndim == 0:
        input = input.reshape((1,))
    if input.ndim == 1 and target.ndim == 1:  # a batch of one
        input = input.reshape((1, input.shape[0]))
    _check_classes(op, input, target, weight)
    weights, which = given(weight)
    return _multi_margin_loss(
        input, target, margin, *weights, p=int(p), which=which, reduction=reduction
    )


@composite
@single
def _multilabel_soft_margin_loss(x: Any, target: Any, *weight: Any, reduction: str) -> Any:
    x = as_float(x)
    losses = -(target * log_sigmoid(x) + (1.0 - target) * log_sigmoid(-x))
    for w in weight:
        losses = losses * w
    return reduced(losses.mean(-1), reduction)


def multilabel_soft_margin_loss(
    input: Any, target: Any, weight: Any = None, reduction: str = "mean"
) -> Any:
    """Return the mean over classes of weight * binary_cross_entropy_with_logits(input, target).

    input and target [N, C] (or [C]); weight broadcasts.
    """
    op = "multilabel_soft_margin_loss"
    check_reduction(op, reduction)
    check_equal_shapes(op, input, target)
    if input.ndim == 0:
        raise ShapeError(
            "there are no classes",
            op=op,
            expect="input [N, C]",
            actual="()",
            hint="give one score per class along axis 1",
        )
    check_weight(op, "weight", weight, input)
    weights, _ = given(weight)
    return _multilabel_soft_margin_loss(input, target, *weights, reduction=reduction)


# -- samples --------------------------------------------------------------------------------------

SCORES = Arg((4, 3))
CLASSES = Arg((4,), int64, values=(2, 0, 1, 2))
WEIGHT = Arg((3,), low=0.3)


def _log_softmax(np: Any, x: Any) -> Any:
    return x - np.log(np.exp(x).sum(1, keepdims=True))


def _nll(np: Any, scores: Any, y: Any, w: Any) -> tuple[Any, Any]:
    """The losses of rows of scores, and their weights."""
    own = w[y]
    return -own * np.take_along_axis(scores, y[:, None], 1)[:, 0], own


def _class_samples(function: Any, scores: Any) -> list[Sample]:
    def mean(np: Any, x: Any, y: Any) -> Any:
        return _nll(np, scores(np, x), y, np.ones(3))[0].mean()

    def weighted(np: Any, x: Any, y: Any, w: Any) -> Any:
        losses, own = _nll(np, scores(np, x), y, w)
        return losses.sum() / own.sum()

    def ignoring(np: Any, x: Any, y: Any) -> Any:
        return np.where(y == 2, 0.0, _nll(np, scores(np, x), y, np.ones(3))[0])

    return [
        formula(function, mean, SCORES, CLASSES),
        formula(function, weighted, SCORES, CLASSES, WEIGHT),
        formula(
            lambda x, y: function(x, y, ignore_index=2, reduction="none"), ignoring, SCORES, CLASSES
        ),
        Sample(function, (SCORES, Arg((3,), int64, 0, 3)), error=ValueError, match="do not fit"),
    ]


@samples_of(nll_loss)
def _nll_loss_samples() -> list[Sample]:
    return _class_samples(nll_loss, lambda np, x: x)


@samples_of(cross_entropy)
def _cross_entropy_samples() -> list[Sample]:
    def smooth(np: Any, x: Any, y: Any) -> Any:
        shares = 0.8 * np.eye(3)[y] + 0.2 / 3
        return -(shares * _log_softmax(np, x)).sum(1).mean()

    def soft(np: Any, x: Any, y: Any) -> Any:
        return -(y * _log_softmax(np, x)).sum(1).mean()

    return [
        *_class_samples(cross_entropy, _log_softmax),
        formula(lambda x, y: cross_entropy(x, y, label_smoothing=0.2), smooth, SCORES, CLASSES),
        formula(cross_entropy, soft, SCORES, Arg((4, 3), low=0.0, high=0.4)),
    ]


@samples_of(multi_margin_loss)
def _multi_margin_loss_samples() -> list[Sample]:
    def reference(np: Any, x: Any, y: Any, p: int, margin: float) -> Any:
        own = np.take_along_axis(x, y[:, None], 1)
        short = np.maximum(0, margin - own + x) ** p * (1 - np.eye(3)[y])
        return short.sum(1).mean() / 3

    def good(p: int, margin: float) -> Sample:
        return formula(
            lambda x, y: multi_margin_loss(x, y, p, margin),
            lambda np, x, y: reference(np, x, y, p, margin),
            SCORES,
            CLASSES,
        )

    bad = Sample(
        lambda x, y: multi_margin_loss(x, y, 3),
        (SCORES, CLASSES),
        error=ValueError,
        match="no such power",
    )
    return [good(1, 1.0), good(2, 0.7), bad]


@samples_of(multilabel_soft_margin_loss)
def _multilabel_samples() -> list[Sample]:
    def reference(np: Any, x: Any, y: Any, w: Any = 1.0) -> Any:
        s = 1 / (1 + np.exp(-x))
        return -(w * (y * np.log(s) + (1 - y) * np.log(1 - s))).mean()

    shares = Arg((4, 3), low=0.0, high=1.0)
    return [
        formula(multilabel_soft_margin_loss, reference, SCORES, shares),
        formula(multilabel_soft_margin_loss, reference, SCORES, shares, WEIGHT),
    ]
