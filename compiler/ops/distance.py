"""Lengths, distances and angles between vectors, and the losses that compare them."""

from __future__ import annotations

import math
from typing import Any

from dualgrad.compiler.ir.dims import same
from dualgrad.compiler.ir.value import dim_text
from dualgrad.compiler.ops.arguments import as_float, check_reduction, check_shape, reduced
from dualgrad.compiler.ops.base import SECOND, axes_of, axis_argument, broadcast_shapes
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.elementwise import stop_gradient
from dualgrad.compiler.ops.logical import where
from dualgrad.compiler.ops.operands import check_tensors
from dualgrad.compiler.ops.precision import single
from dualgrad.compiler.ops.sample import Arg, Sample, formula, samples_of
from dualgrad.runtime.errors import ShapeError

COSINE_EPSILON = 1e-12  # PyTorch's, added to squared lengths in cosine_embedding_loss


def at_least(x: Any, low: Any) -> Any:
    """max(x, low) whose gradient is that of x where x >= low, else 0; NaN stays."""
    return where(x < low, low, x)


def norm(x: Any, p: float, axes: tuple[int, ...], keepdims: bool = False) -> Any:
    """(sum |x|**p)**(1/p) over axes, for p = inf the maximum, for p = 0 the number of elements
    that are not 0.  The gradient is 0 for a norm of 0, and for elements of 0 (unless p is 1 or
    2, where the formula gives it)."""
    if p == 1:
        return abs(x).sum(axes, keepdims)
    if p == math.inf:
        return abs(x).max(axes, keepdims)
    if p == -math.inf:
        return abs(x).min(axes, keepdims)
    if p == 0:
        return where(x.eq(0), stop_gradient(x), 1.0).sum(axes, keepdims)
    if p == 2:
        return _root((x * x).sum(axes, keepdims), 0.5)
    zero = x.eq(0)
    powers = where(zero, 1.0, abs(x)) ** p
    return _root(where(zero, 0.0 if p > 0 else math.inf, powers).sum(axes, keepdims), 1.0 / p)


def _root(total: Any, exponent: float) -> Any:
    """total**exponent, whose gradient at 0 is 0."""
    zero = total.eq(0)
    safe = where(zero, 1.0, total)
    return where(zero, 0.0, safe.sqrt() if exponent == 0.5 else safe**exponent)


@composite
@single
def _normalize(x: Any, eps: Any, *, p: float, axes: tuple[int, ...]) -> Any:
    x = as_float(x)
    return x / at_least(norm(x, p, axes, keepdims=True), eps)


def normalize(
    input: Any, p: float = 2.0, axis: Any = SECOND, eps: float = 1e-12, **dim: Any
) -> Any:
    """Return x / max(norm_p(x), eps) along `axis` (an int or several; also named `dim`).

    Where the norm is less than eps it is a constant to the gradient.
    """
    check_tensors("normalize", input)
    axes = axes_of("normalize", axis_argument("normalize", axis, dim), input.ndim)
    return _normalize(input, eps, p=float(p), axes=axes)


@composite
@single
def _pairwise_distance(x: Any, y: Any, eps: Any, *, p: float, keepdim: bool) -> Any:
    difference = as_float(x - y) + eps
    return norm(difference, p, (difference.ndim - 1,), keepdim)


def pairwise_distance(
    x1: Any, x2: Any, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Any:
    """Return norm_p(x1 - x2 + eps) over the last dimension; the others broadcast.

    The gradient of a distance of 0 is 0.
    """
    check_tensors("pairwise_distance", x1, x2)
    if x1.ndim == 0 or x2.ndim == 0:
        raise ShapeError(
            "vectors need a dimension",
            op="pairwise_distance",
            expect="x1 and x2 [..., D]",
            actual=f"{dim_text(x1.shape)} and {dim_text(x2.shape)}",
            hint="make a vector of a number with .reshape(1)",
        )
    return _pairwise_distance(x1, x2, eps, p=float(p), keepdim=bool(keepdim))


@composite
@single
def _cdist(x: Any, y: Any, *, p: float) -> Any:
    difference = as_float(x.unsqueeze(-2) - y.unsqueeze(-3))
    return norm(difference, p, (difference.ndim - 1,))


def cdist(x1: Any, x2: Any, p: float = 2.0, compute_mode: str | None = None) -> Any:
    """Return the distances norm_p(x1[..., i, :] - x2[..., j, :]) as [..., P, R].

    x1 [..., P, D] and x2 [..., R, D]; the other dimensions broadcast.  Every distance is a sum of
    its own differences, so those of close points are accurate; `compute_mode`, which asks for
    other ways in PyTorch, changes nothing.
    """
    check_tensors("cdist", x1, x2)
    if x1.ndim < 2 or x2.ndim < 2 or not same(x1.shape[-1], x2.shape[-1]):
        raise ShapeError(
            "points do not fit",
            op="cdist",
            expect="x1 [..., P, D] and x2 [..., R, D]",
            actual=f"{dim_text(x1.shape)} and {dim_text(x2.shape)}",
            hint="the last sizes are equal: the coordinates of a point",
        )
    return _cdist(x1, x2, p=float(p))


@composite
@single
def _cosine_similarity(x: Any, y: Any, eps: Any, *, axis: int) -> Any:
    x, y = as_float(x), as_float(y)

    def direction(v: Any) -> Any:
        length = norm(v, 2.0, (axis + v.ndim,), keepdims=True)
        return v / at_least(length, eps)

    return (direction(x) * direction(y)).sum(axis)


def cosine_similarity(x1: Any, x2: Any, axis: int = SECOND, eps: float = 1e-8, **dim: Any) -> Any:
    """Return the cosine of the angle between x1 and x2 along `axis` (also named `dim`).

    The sum of x1 / max(|x1|, eps) * x2 / max(|x2|, eps); x1 and x2 broadcast.
    """
    check_tensors("cosine_similarity", x1, x2)
    if x1.ndim == x2.ndim == 0:
        x1, x2 = x1.reshape((1,)), x2.reshape((1,))
    shape = broadcast_shapes("cosine_similarity", [x1.shape, x2.shape])
    rank = len(shape)
    axis = axis_argument("cosine_similarity", axis, dim)
    (axis,) = axes_of("cosine_similarity", axis, rank)
    return _cosine_similarity(x1.expand(shape), x2.expand(shape), eps, axis=axis - rank)


@composite
@single
def _cosine_embedding_loss(x: Any, y: Any, target: Any, margin: Any, *, reduction: str) -> Any:
    x, y = as_float(x), as_float(y)
    squares = ((x * x).sum(-1) + COSINE_EPSILON) * ((y * y).sum(-1) + COSINE_EPSILON)
    cosine = (x * y).sum(-1) / squares.sqrt()
    alike = where(target.eq(1), 1.0 - cosine, 0.0)
    return reduced(alike + where(target.eq(-1), at_least(cosine - margin, 0.0), 0.0), reduction)


def cosine_embedding_loss(
    input1: Any, input2: Any, target: Any, margin: float = 0.0, reduction: str = "mean"
) -> Any:
    """Return 1 - cos(input1, input2) where target is 1, max(0, cos - margin) where it is -1.

    input1 and input2 [N, D] (or [D]), target [N] (or []).
    """
    check_tensors("cosine_embedding_loss", input1)
    op = "cosine_embedding_loss"
    check_reduction(op, reduction)
    if input1.ndim not in (1, 2):
        raise ShapeError(
            "inputs are vectors",
            op=op,
            expect="[N, D] or [D]",
            actual=dim_text(input1.shape),
            hint="merge other dimensions into the first with reshape(-1, D)",
        )
    check_shape(op, "input2", input2, input1.shape)
    check_shape(op, "target", target, input1.shape[:-1])
    return _cosine_embedding_loss(input1, input2, target, margin, reduction=reduction)


@composite
@single
def _triplet_margin_loss(
    anchor: Any,
    positive: Any,
    negative: Any,
    margin: Any,
    eps: Any,
    *,
    p: float,
    swap: bool,
    reduction: str,
) -> Any:
    def distance(x: Any, y: Any) -> Any:
        return norm(as_float(x - y) + eps, p, (x.ndim - 1,))

    near, far = distance(anchor, positive), distance(anchor, negative)
    if swap:
        other = distance(positive, negative)
        far = where(other < far, other, far)
    return reduced(at_least(near - far + margin, 0.0), reduction)


def triplet_margin_loss(
    anchor: Any,
    positive: Any,
    negative: Any,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    reduction: str = "mean",
) -> Any:
    """Return max(0, d(anchor, positive) - d(anchor, negative) + margin), d = pairwise_distance.

    All [N, D] (or [D]).  With `swap`, the smaller of d(anchor, negative) and
    d(positive, negative) counts.
    """
    check_tensors("triplet_margin_loss", anchor)
    op = "triplet_margin_loss"
    check_reduction(op, reduction)
    if anchor.ndim == 0:
        raise ShapeError(
            "inputs are vectors",
            op=op,
            expect="[N, D] or [D]",
            actual="()",
            hint="merge other dimensions into the first with reshape(-1, D)",
        )
    check_shape(op, "positive", positive, anchor.shape)
    check_shape(op, "negative", negative, anchor.shape)
    return _triplet_margin_loss(
        anchor, positive, negative, margin, eps, p=float(p), swap=swap, reduction=reduction
    )


# -- samples --------------------------------------------------------------------------------------

POINTS = Arg((3, 4))


def _cosine(np: Any, x: Any, y: Any, axis: int = 1) -> Any:
    lengths = np.linalg.norm(x, axis=axis) * np.linalg.norm(y, axis=axis)
    return (x * y).sum(axis) / lengths


@samples_of(normalize)
def _normalize_samples() -> list[Sample]:
    def good(p: float) -> Sample:
        return formula(
            lambda x: normalize(x, p),
            lambda np, x: x / np.linalg.norm(x, p, 1, keepdims=True),
            POINTS,
        )

    bad = Sample(
        lambda x: normalize(x, axis=2), (POINTS,), error=ValueError, match="axis out of range"
    )
    return [good(2.0), good(1.0), good(3.0), good(float("inf")), bad]


@samples_of(pairwise_distance)
def _pairwise_distance_samples() -> list[Sample]:
    def good(p: float) -> Sample:
        return formula(
            lambda x, y: pairwise_distance(x, y, p),
            lambda np, x, y: np.linalg.norm(x - y + 1e-6, p, -1),
            POINTS,
            POINTS,
            relative=1e-5,
        )

    return [good(2.0), good(1.0)]


@samples_of(cdist)
def _cdist_samples() -> list[Sample]:
    def good(p: float) -> Sample:
        return formula(
            lambda x, y: cdist(x, y, p),
            lambda np, x, y: np.linalg.norm(x[:, :, None] - y[:, None], p, -1),
            Arg((1, 3, 2)),
            Arg((2, 2, 2)),
            relative=1e-5,
        )

    bad = Sample(cdist, (POINTS, Arg((3, 5))), error=ValueError, match="points do not fit")
    return [good(2.0), good(1.0), bad]


@samples_of(cosine_similarity)
def _cosine_similarity_samples() -> list[Sample]:
    return [
        formula(cosine_similarity, _cosine, POINTS, POINTS),
        formula(
            lambda x, y: cosine_similarity(x, y, 0),
            lambda np, x, y: _cosine(np, x, y, 0),
            POINTS,
            Arg((3, 1)),
        ),
    ]


@samples_of(cosine_embedding_loss)
def _cosine_embedding_loss_samples() -> list[Sample]:
    def reference(np: Any, x: Any, y: Any, s: Any) -> Any:
        c = _cosine(np, x, y)
        return np.where(s == 1, 1 - c, np.maximum(0, c + 0.4)).mean()

    signs = Arg((3,), values=(1.0, -1.0, -1.0), differentiable=False)
    return [
        formula(
            lambda x, y, s: cosine_embedding_loss(x, y, s, -0.4), reference, POINTS, POINTS, signs
        )
    ]


@samples_of(triplet_margin_loss)
def _triplet_margin_loss_samples() -> list[Sample]:
    def reference(np: Any, a: Any, p: Any, n: Any, swap: bool) -> Any:
        near, far = (np.linalg.norm(a - x + 1e-6, axis=-1) for x in (p, n))
        if swap:
            far = np.minimum(far, np.linalg.norm(p - n + 1e-6, axis=-1))
        return np.maximum(0, near - far + 1).mean()

    return [
        formula(
            lambda a, p, n, swap=swap: triplet_margin_loss(a, p, n, swap=swap),
            lambda np, a, p, n, swap=swap: reference(np, a, p, n, swap),
            POINTS,
            POINTS,
            POINTS,
            relative=1e-5,
        )
        for swap in (False, True)
    ]
