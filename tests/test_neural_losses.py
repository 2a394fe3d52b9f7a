"""Losses and distances against NumPy formulas, PyTorch, and finite differences."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from functions import (
    F,
    Function,
    I,
    check_gradients,
    check_modes,
    check_reference,
    check_torch,
    constant,
)
from support import as_array

import dualgrad as dg
from dualgrad import functional as nf
from dualgrad.compiler.ops.sample import Arg
from dualgrad.runtime.dtype import DType, float32, float64
from dualgrad.runtime.errors import ArgumentError, DTypeError, ShapeError

SIGNS = constant(Arg((5, 7), values=(1.0, -1.0, -1.0)))
PAIR = (F(5, 7), F(5, 7))
SHARES = F(5, 7, low=0.05, high=0.95)


def loss(
    name: str,
    args: tuple[Arg, ...],
    reference: Callable[..., Any],
    label: str = "",
    **options: Any,
) -> Function:
    """A loss under its name, the same in PyTorch; the reference gives it for each element."""
    reduction = options.get("reduction", "mean")
    reduce = {"mean": np.mean, "sum": np.sum, "none": np.asarray}.get(reduction)

    def whole(np: Any, *xs: Any) -> Any:
        out = reference(np, *xs)
        return out if reduce is None else reduce(out)

    return Function(
        f"{name} {label or ', '.join(f'{k}={v}' for k, v in options.items())}".strip(),
        lambda *xs: getattr(nf, name)(*xs, **options),
        args,
        whole,
        lambda t, *xs: getattr(t.nn.functional, name)(*xs, **options),
        weighted=label == "weight",
    )


def huber(delta: float, scale: float = 1.0) -> Callable[..., Any]:
    def reference(np: Any, x: Any, y: Any) -> Any:
        d = abs(x - y)
        return np.where(d < delta, d * d / 2, delta * (d - delta / 2)) * scale

    return reference


def bce(np: Any, x: Any, y: Any, w: Any = 1.0) -> Any:
    return -w * (y * np.log(x) + (1 - y) * np.log1p(-x))


def bce_logits(np: Any, x: Any, y: Any, w: Any = 1.0, p: Any = 1.0) -> Any:
    s = 1 / (1 + np.exp(-x))
    return -w * (p * y * np.log(s) + (1 - y) * np.log(1 - s))


def kl(np: Any, x: Any, y: Any) -> Any:
    return y * (np.log(y) - x)


def poisson(np: Any, x: Any, y: Any, log: bool = True, full: bool = False) -> Any:
    out = np.exp(x) - y * x if log else x - y * np.log(x + 1e-8)
    t = np.maximum(y, 1)
    extra = np.where(y > 1, t * np.log(t) - t + np.log(2 * np.pi * t) / 2, 0)
    return out + extra if full else out


def gaussian(np: Any, x: Any, y: Any, v: Any, full: bool = False) -> Any:
    return (np.log(v) + (x - y) ** 2 / v + full * np.log(2 * np.pi)) / 2


def rank(np: Any, x: Any, y: Any, s: Any, margin: float = 0.0) -> Any:
    return np.maximum(0, margin - s * (x - y))


ELEMENTWISE = (
    loss("mse_loss", PAIR, lambda np, x, y: (x - y) ** 2),
    loss("mse_loss", PAIR, lambda np, x, y: (x - y) ** 2, reduction="none"),
    loss("l1_loss", PAIR, lambda np, x, y: abs(x - y)),
    loss("l1_loss", (F(70), F(70)), lambda np, x, y: abs(x - y), reduction="sum"),
    loss("huber_loss", PAIR, huber(1.0)),
    loss("huber_loss", PAIR, huber(0.7), delta=0.7, reduction="none"),
    loss("smooth_l1_loss", PAIR, huber(1.0)),
    loss("smooth_l1_loss", PAIR, huber(0.5, 2.0), beta=0.5),
    loss("smooth_l1_loss", PAIR, lambda np, x, y: abs(x - y), beta=0.0),
    loss("binary_cross_entropy", (SHARES, SHARES), bce),
    loss("binary_cross_entropy", (SHARES, SHARES, F(7)), bce, "weight"),
    loss("binary_cross_entropy_with_logits", (F(5, 7), SHARES), bce_logits),
    loss("binary_cross_entropy_with_logits", (F(5, 7), SHARES, F(5, 1)), bce_logits, "weight"),
    dataclasses.replace(
        loss("binary_cross_entropy_with_logits", (F(5, 7), SHARES, F(7, low=0.5)), bce_logits),
        name="binary_cross_entropy_with_logits pos_weight",
        ours=lambda x, y, p: nf.binary_cross_entropy_with_logits(x, y, pos_weight=p),
        reference=lambda np, x, y, p: bce_logits(np, x, y, 1.0, p).mean(),
        theirs=lambda t, x, y, p: t.nn.functional.binary_cross_entropy_with_logits(
            x, y, pos_weight=p
        ),
        weighted=True,
    ),
    loss("soft_margin_loss", (F(5, 7), SIGNS), lambda np, x, y: np.log1p(np.exp(-y * x))),
    loss("hinge_embedding_loss", (F(5, 7), SIGNS),
         lambda np, x, y: np.where(y == 1, x, np.maximum(0, 1 - x))),
    loss("hinge_embedding_loss", (F(5, 7), SIGNS),
         lambda np, x, y: np.where(y == 1, x, np.maximum(0, 0.3 - x)), margin=0.3, reduction="none"),
    loss("margin_ranking_loss", (*PAIR, SIGNS), rank),
    loss("margin_ranking_loss", (*PAIR, SIGNS), lambda np, *a: rank(np, *a, 0.5), margin=0.5),
    loss("kl_div", (F(5, 7), SHARES), kl),
    loss("kl_div", (F(5, 7), SHARES), kl, reduction="sum"),
    loss("kl_div", (F(5, 7), SHARES), lambda np, x, y: kl(np, x, y).sum() / 5, reduction="batchmean"),
    loss("kl_div", PAIR, lambda np, x, y: np.exp(y) * (y - x), log_target=True),
    loss("poisson_nll_loss", (F(5, 7), F(5, 7, low=0.2, high=4)), poisson),
    loss("poisson_nll_loss", (F(5, 7), F(5, 7, low=0.2, high=4)),
         lambda np, x, y: poisson(np, x, y, full=True), full=True, reduction="none"),
    loss("poisson_nll_loss", (SHARES, F(5, 7, low=0.2, high=4)),
         lambda np, x, y: poisson(np, x, y, False), log_input=False),
    loss("gaussian_nll_loss", (*PAIR, F(5, 7, low=0.3)), gaussian),
    loss("gaussian_nll_loss", (*PAIR, F(5, 1, low=0.3)), gaussian, "one variance per row"),
    loss("gaussian_nll_loss", (*PAIR, F(1, 7, low=0.3)), gaussian, "one variance per column"),
    loss("gaussian_nll_loss", (*PAIR, F(5, low=0.3)),
         lambda np, x, y, v: gaussian(np, x, y, v[:, None], True), full=True),
)  # fmt: skip


# -- classes --------------------------------------------------------------------------------------


def log_softmax(np: Any, x: Any) -> Any:
    axis = 0 if x.ndim == 1 else 1
    top = x.max(axis, keepdims=True)
    return x - top - np.log(np.exp(x - top).sum(axis, keepdims=True))


def one_by_one(
    np: Any, scores: Any, y: Any, w: Any = None, ignore: int = -100, smoothing: float = 0.0
) -> tuple[list[float], list[float]]:
    """The losses of all targets in order, and their weights, by loops."""
    if y.ndim == 0:
        scores, y = scores[None], y[None]
    classes = scores.shape[1]
    w = np.ones(classes) if w is None else w
    losses, own = [], []
    for at in np.ndindex(y.shape):
        row = scores[(at[0], slice(None), *at[1:])]
        counts = y[at] != ignore
        c = y[at] if counts else 0
        nll = -w[c] * row[c]
        even = -(w * row).sum() / classes
        losses.append(float(counts * ((1 - smoothing) * nll + smoothing * even)))
        own.append(float(counts * w[c]))
    return losses, own


def by_class(name: str, reduction: str = "mean", smoothing: float = 0.0, ignore: int = -100) -> Any:
    def reference(np: Any, x: Any, y: Any, w: Any = None) -> Any:
        scores = log_softmax(np, x) if name == "cross_entropy" else x
        losses, own = one_by_one(np, scores, y, w, ignore, smoothing)
        if reduction == "none":
            return np.array(losses).reshape(y.shape)
        return np.sum(losses) / (np.sum(own) if reduction == "mean" else 1.0)

    return reference


def class_case(name: str, *args: Arg, label: str = "", **options: Any) -> Function:
    names = {"label_smoothing": "smoothing", "ignore_index": "ignore"}
    return Function(
        f"{name} {label} {', '.join(f'{k}={v}' for k, v in options.items())}".strip(),
        lambda *xs: getattr(nf, name)(*xs, **options),
        args,
        by_class(name, **{names.get(k, k): v for k, v in options.items()}),
        lambda t, *xs: getattr(t.nn.functional, name)(*xs, **options),
        weighted=len(args) == 3,
    )


def soft_reference(np: Any, x: Any, y: Any, w: Any = None) -> Any:
    scores = log_softmax(np, x) * y
    return -(scores if w is None else scores * w).sum() / x.shape[0]


def margins(np: Any, x: Any, y: Any, w: Any = None, p: int = 1, margin: float = 1.0) -> Any:
    rows = []
    for row, c in zip(x, y, strict=True):
        short = np.maximum(0, margin - row[c] + np.delete(row, c)) ** p
        rows.append(short.sum() / len(row) * (1.0 if w is None else w[c]))
    return np.mean(rows)


POSITIVE = F(6, low=0.3)
CLASSES = (
    class_case("nll_loss", F(9, 6), I(9, high=6)),
    class_case("nll_loss", F(9, 6), I(9, high=6), POSITIVE, label="weight"),
    class_case("nll_loss", F(4, 6, 3), I(4, 3, high=6), POSITIVE, label="map", reduction="none"),
    class_case("nll_loss", F(6), I(high=6), label="one"),
    class_case("nll_loss", F(9, 6), I(9, high=6), ignore_index=2),
    class_case("cross_entropy", F(9, 6), I(9, high=6)),
    class_case("cross_entropy", F(9, 6), I(9, high=6), POSITIVE, label="weight"),
    class_case("cross_entropy", F(9, 6), I(9, high=6), POSITIVE, reduction="none"),
    class_case("cross_entropy", F(4, 6, 3), I(4, 3, high=6), label="map"),
    class_case("cross_entropy", F(2, 6, 3, 4), I(2, 3, 4, high=6), POSITIVE, reduction="sum"),
    class_case("cross_entropy", F(6), I(high=6), label="one"),
    class_case("cross_entropy", F(9, 6), I(9, high=6), ignore_index=2),
    class_case("cross_entropy", F(9, 6), I(9, high=6), POSITIVE, ignore_index=2),
    class_case("cross_entropy", F(9, 6), I(9, high=6), label_smoothing=0.2),
    class_case("cross_entropy", F(3, 6, 4), I(3, 4, high=6), POSITIVE, ignore_index=1,
               label_smoothing=0.3),
    Function("cross_entropy probabilities", nf.cross_entropy,
             (F(9, 6), F(9, 6, low=0, high=0.4)), soft_reference,
             lambda t, *a: t.nn.functional.cross_entropy(*a)),
    Function("cross_entropy probabilities, weight", nf.cross_entropy,
             (F(9, 6), F(9, 6, low=0, high=0.4), POSITIVE), soft_reference,
             lambda t, *a: t.nn.functional.cross_entropy(*a)),
    Function("cross_entropy probabilities, smoothing",
             lambda *a: nf.cross_entropy(*a, label_smoothing=0.25),
             (F(9, 6), F(9, 6, low=0, high=0.4)),
             lambda np, x, y: soft_reference(np, x, y * 0.75 + 0.25 / 6),
             lambda t, *a: t.nn.functional.cross_entropy(*a, label_smoothing=0.25)),
    Function("multi_margin_loss", nf.multi_margin_loss, (F(9, 6), I(9, high=6)), margins,
             lambda t, *a: t.nn.functional.multi_margin_loss(*a)),
    Function("multi_margin_loss, squared", lambda x, y, w: nf.multi_margin_loss(x, y, 2, 0.7, w),
             (F(9, 6), I(9, high=6), constant(POSITIVE)),
             lambda np, x, y, w: margins(np, x, y, 1.0, 2, 0.7) if w is None
             else np.mean([margins(np, x[k:k + 1], y[k:k + 1], w**0, 2, 0.7) * w[y[k]] for k in range(9)]),
             None),
    Function("multilabel_soft_margin_loss", nf.multilabel_soft_margin_loss,
             (F(9, 6), constant(F(9, 6, low=0, high=1)), constant(POSITIVE)),
             lambda np, x, y, w: bce_logits(np, x, y, w).mean(),
             lambda t, *a: t.nn.functional.multilabel_soft_margin_loss(*a)),
)  # fmt: skip


# -- distances ------------------------------------------------------------------------------------


def length(np: Any, x: Any, p: float, axis: int = -1) -> Any:
    return np.linalg.norm(x, p, axis)


def cosine(np: Any, x: Any, y: Any, axis: int = 1) -> Any:
    lengths = [np.linalg.norm(v, axis=axis) for v in (x, y)]
    return (x * y).sum(axis) / (lengths[0] * lengths[1])


def triplet(np: Any, a: Any, p: Any, n: Any, swap: bool = False) -> Any:
    near, far = length(np, a - p + 1e-6, 2), length(np, a - n + 1e-6, 2)
    if swap:
        far = np.minimum(far, length(np, p - n + 1e-6, 2))
    return np.maximum(0, near - far + 1)


def distances(p: float) -> tuple[Function, ...]:
    return (
        Function(f"normalize, p={p}", lambda x: nf.normalize(x, p),
                 (F(5, 7, 2),),
                 lambda np, x: x / np.linalg.norm(x, p, 1, keepdims=True),
                 lambda t, x: t.nn.functional.normalize(x, p)),
        Function(f"pairwise_distance, p={p}", lambda x, y: nf.pairwise_distance(x, y, p),
                 PAIR, lambda np, x, y: length(np, x - y + 1e-6, p),
                 lambda t, x, y: t.nn.functional.pairwise_distance(x, y, p)),
        Function(f"cdist, p={p}", lambda x, y: nf.cdist(x, y, p),
                 (F(2, 5, 3), F(2, 4, 3)),
                 lambda np, x, y: length(np, x[:, :, None] - y[:, None], p),
                 lambda t, x, y: t.cdist(x, y, p)),
    )  # fmt: skip


ROW_SIGNS = constant(Arg((5,), values=(1.0, -1.0, -1.0)))
DISTANCES = (
    *distances(1.0),
    *distances(2.0),
    *distances(math.inf),
    *distances(3.0),
    *distances(0.5),
    Function("normalize, two axes", lambda x: nf.normalize(x, dim=(0, 2)), (F(3, 4, 5),),
             lambda np, x: x / np.sqrt((x * x).sum((0, 2), keepdims=True)), None),
    Function("cosine_similarity", nf.cosine_similarity, PAIR, cosine,
             lambda t, *a: t.nn.functional.cosine_similarity(*a)),
    Function("cosine_similarity, broadcast", lambda x, y: nf.cosine_similarity(x, y, dim=0),
             (F(5, 7), F(5, 1)), lambda np, x, y: cosine(np, x, y, 0),
             lambda t, x, y: t.nn.functional.cosine_similarity(x, y, 0)),
    loss("cosine_embedding_loss", (*PAIR, ROW_SIGNS),
         lambda np, x, y, s: np.where(s == 1, 1 - cosine(np, x, y), np.maximum(0, cosine(np, x, y)))),
    loss("cosine_embedding_loss", (*PAIR, ROW_SIGNS),
         lambda np, x, y, s: np.where(s == 1, 1 - cosine(np, x, y), np.maximum(0, cosine(np, x, y) + 0.4)),
         margin=-0.4, reduction="none"),
    loss("triplet_margin_loss", (*PAIR, F(5, 7)), triplet),
    loss("triplet_margin_loss", (*PAIR, F(5, 7)), lambda np, *a: triplet(np, *a, True), swap=True,
         reduction="none"),
)  # fmt: skip

CASES = (*ELEMENTWISE, *CLASSES, *DISTANCES)


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("dtype", [float32, float64], ids=str)
def test_reference(case: Function, dtype: DType) -> None:
    check_reference(case, dtype)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_modes(case: Function) -> None:
    check_modes(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradients(case: Function) -> None:
    check_gradients(case)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_torch(case: Function) -> None:
    check_torch(case, float64)


# -- corners --------------------------------------------------------------------------------------


def test_probabilities_of_0_and_1() -> None:
    x = dg.tensor([0.0, 1.0, 0.0, 1.0], requires_grad=True)
    out = nf.binary_cross_entropy(x, dg.tensor([0.0, 1.0, 1.0, 0.0]), reduction="none")
    np.testing.assert_array_equal(as_array(out), [0, 0, 100, 100])
    out.sum().backward()
    np.testing.assert_allclose(as_array(x.grad), [0, 0, -1e12, 1e12])


def test_large_logits() -> None:
    x = dg.tensor([1e4, -1e4, 3e38, 0.0], requires_grad=True)
    out = nf.binary_cross_entropy_with_logits(x, dg.tensor([1.0, 1.0, 0.0, 0.5]), reduction="none")
    np.testing.assert_array_equal(as_array(out), np.array([0, 1e4, 3e38, np.log(2)], np.float32))
    out.sum().backward()
    np.testing.assert_array_equal(as_array(x.grad), [0, -1, 1, 0])


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_ignored_targets_have_no_gradient(reduction: str) -> None:
    x = dg.tensor(np.eye(3, 4), requires_grad=True)
    y = dg.tensor([1, -100, 3])
    loss = nf.cross_entropy(x, y, reduction=reduction)
    loss.sum().backward()
    kept = nf.cross_entropy(dg.tensor(np.eye(3, 4)[[0, 2]]), dg.tensor([1, 3]), reduction=reduction)
    np.testing.assert_allclose(as_array(loss.sum()), as_array(kept.sum()), rtol=1e-15)
    assert (as_array(x.grad)[1] == 0).all()
    assert (as_array(x.grad)[[0, 2]] != 0).all()


def test_all_targets_ignored() -> None:
    assert math.isnan(nf.cross_entropy(dg.zeros(2, 3), dg.tensor([-100, -100])).item())


def test_impossible_class_that_is_not_the_target() -> None:
    x = dg.tensor([[0.0, 0.0, -math.inf]], requires_grad=True)
    loss = nf.cross_entropy(x, dg.tensor([0]))
    assert loss.item() == pytest.approx(math.log(2))
    loss.backward()
    np.testing.assert_allclose(as_array(x.grad), [[-0.5, 0.5, 0.0]])


def test_infinite_distance() -> None:
    x = dg.tensor([math.inf, 0.0], requires_grad=True)
    nf.huber_loss(x, dg.zeros(2), "sum").backward()
    np.testing.assert_array_equal(as_array(x.grad), [1, 0])


@pytest.mark.parametrize("p", [1.0, 2.0, math.inf])
def test_equal_points(p: float) -> None:
    x = dg.zeros(3, 4, requires_grad=True)
    nf.cdist(x, x.detach(), p).sum().backward()
    np.testing.assert_array_equal(as_array(x.grad), np.zeros((3, 4)))
    x.grad = None
    nf.normalize(x, p).sum().backward()
    np.testing.assert_allclose(as_array(x.grad), np.full((3, 4), 1e12), rtol=1e-6)


def test_divergence_of_probability_0() -> None:
    x = dg.tensor([-1.0, -2.0], requires_grad=True)
    out = nf.kl_div(x, dg.tensor([0.0, 1.0]), "none")
    np.testing.assert_array_equal(as_array(out), [0, 2])
    out.sum().backward()
    np.testing.assert_array_equal(as_array(x.grad), [0, -1])


def test_small_variance() -> None:
    v = dg.tensor([1e-9], requires_grad=True)
    out = nf.gaussian_nll_loss(dg.zeros(1), dg.zeros(1), v)
    assert out.item() == pytest.approx(math.log(1e-6) / 2)
    out.backward()
    np.testing.assert_allclose(as_array(v.grad), [0.5e6], rtol=1e-6)


def test_integers_become_floats() -> None:
    x, y = dg.tensor([1, 2, 3]), dg.tensor([1, 1, 1])
    out = nf.mse_loss(x, y)
    assert out.dtype is float32
    assert out.item() == pytest.approx(5 / 3)


ones = dg.ones(3, 4)
whole = dg.tensor([0, 1, 2])


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: nf.l1_loss(ones, dg.ones(3, 1)), ShapeError, "different shapes"),
        (lambda: nf.l1_loss(ones, ones, "max"), ArgumentError, "no such reduction"),
        (lambda: nf.huber_loss(ones, ones, delta=0), ArgumentError, "delta is no distance"),
        (lambda: nf.smooth_l1_loss(ones, ones, beta=-1), ArgumentError, "beta is no distance"),
        (lambda: nf.binary_cross_entropy(ones, ones, dg.ones(3)), ShapeError, "do not broadcast"),
        (lambda: nf.binary_cross_entropy(ones, ones, dg.ones(2, 3, 4)), ShapeError, "weight"),
        (lambda: nf.kl_div(dg.tensor(1.0), dg.tensor(1.0), "batchmean"), ShapeError, "no batch"),
        (lambda: nf.gaussian_nll_loss(ones, ones, dg.ones(4, 1)), ShapeError, "var has another"),
        (lambda: nf.nll_loss(ones, dg.ones(3)), DTypeError, "class numbers"),
        (lambda: nf.nll_loss(ones, dg.tensor([0, 1])), ShapeError, "do not fit"),
        (lambda: nf.nll_loss(ones, whole, dg.ones(3)), ShapeError, r"weight \(4,\)"),
        (lambda: nf.cross_entropy(ones, dg.tensor([0, 1, -1])), IndexError, "0 <= class < 4"),
        (lambda: nf.cross_entropy(ones, whole, label_smoothing=2.0), ArgumentError, "no share"),
        (lambda: nf.cross_entropy(dg.tensor([[1, 2]]), dg.tensor([0])), DTypeError, "no floats"),
        (lambda: nf.multi_margin_loss(ones, whole, p=3), ArgumentError, "no such power"),
        (lambda: nf.multi_margin_loss(dg.ones(2, 2, 2), whole), ShapeError, "too many dimensions"),
        (lambda: nf.cosine_embedding_loss(ones, ones, dg.ones(2)), ShapeError, "target"),
        (lambda: nf.triplet_margin_loss(ones, ones, dg.ones(3, 5)), ShapeError, "negative"),
        (lambda: nf.pairwise_distance(ones, dg.tensor(1.0)), ShapeError, "need a dimension"),
        (lambda: nf.cdist(ones, dg.ones(3, 5)), ShapeError, "points do not fit"),
        (lambda: nf.normalize(ones, dim=2), ShapeError, "axis out of range"),
    ],
)  # fmt: skip
def test_refused(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text) as caught:
        call()
    assert "test_neural_losses.py" in str(caught.value)
