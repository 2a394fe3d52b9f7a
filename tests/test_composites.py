"""Composites against stored numbers, and with their gradients against PyTorch where installed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np
import pytest
from support import Array, as_array, both, same_bits, tensors_in

import dualgrad as dg
from dualgrad import functional as F
from dualgrad.compiler.ops.composite import composite, with_gradient
from dualgrad.runtime.errors import ArgumentError, DTypeError, ShapeError

LOGITS = np.array([[1.0, 2.0, 3.0], [0.5, -1.0, 0.0], [10.0, 10.0, -10.0]])
TARGET = np.array([2, 1, 0])

# -- known numbers, to 20 digits ------------------------------------------------------------------

SOFTMAX = [
    [0.09003057317038045799802, 0.24472847105479765247, 0.66524095577482188953],
    [0.54654938726617963771, 0.12195165230972885721, 0.33149896042409150507],
    [0.49999999948471159492, 0.49999999948471159492, 1.0305768101571903513e-9],
]
LOSSES = [0.40760596444438030448, 2.1041306053367282720, 0.69314718159052212011]


def test_known_numbers_are_right() -> None:
    with mpmath.workdps(40):
        for row, k, softmax, loss in zip(LOGITS, TARGET, SOFTMAX, LOSSES, strict=True):
            powers = [mpmath.exp(mpmath.mpf(v)) for v in row]
            np.testing.assert_allclose(
                softmax, [float(p / sum(powers)) for p in powers], rtol=4e-16
            )
            np.testing.assert_allclose(loss, float(mpmath.log(sum(powers)) - row[k]), rtol=4e-16)


@pytest.mark.parametrize(("dtype", "tolerance"), [(dg.float32, 2e-6), (dg.float64, 1e-14)])
def test_known_numbers(dtype: Any, tolerance: float) -> None:
    x = dg.tensor(LOGITS, dtype=dtype)
    y = dg.tensor(TARGET)

    def close(got: dg.Tensor, want: Any) -> None:
        np.testing.assert_allclose(as_array(got), want, rtol=tolerance)

    close(dg.softmax(x), SOFTMAX)
    close(x.transpose(0, 1).softmax(0).transpose(0, 1), SOFTMAX)
    close(dg.log_softmax(x), np.log(SOFTMAX))
    close(F.cross_entropy(x, y, reduction="none"), LOSSES)
    close(F.cross_entropy(x, y, reduction="sum"), sum(LOSSES))
    close(F.cross_entropy(x, y), sum(LOSSES) / 3)
    close(F.mse_loss(x, x * 0.5), (LOGITS**2).mean() / 4)
    close(F.linear(x, x, dg.tensor([1.0, 0.0, -1.0], dtype=dtype)), LOGITS @ LOGITS.T + [1, 0, -1])


def test_large_and_infinite_logits() -> None:
    x = dg.tensor([[1e4, 0.0], [-1e4, -1e4], [3e38, -3e38]])
    same_bits(dg.softmax(x), np.array([[1, 0], [0.5, 0.5], [1, 0]], np.float32))
    losses = F.cross_entropy(x, dg.tensor([0, 1, 0]), reduction="none")
    np.testing.assert_array_equal(as_array(losses), np.array([0, np.log(2), 0], np.float32))
    masked = dg.tensor([[float("-inf"), 0.0, 0.0]])
    same_bits(dg.softmax(masked), np.array([[0, 0.5, 0.5]], np.float32))
    assert np.isnan(as_array(dg.softmax(dg.tensor([[float("nan"), 0.0]])))).all()


def test_relu_at_its_corner() -> None:
    x = dg.tensor([-1.0, -0.0, 0.0, 2.0, float("nan")], requires_grad=True)
    y = dg.relu(x)
    same_bits(y, np.array([0, 0, 0, 2, np.nan], np.float32))
    y.backward(dg.ones(5))
    same_bits(x.grad, np.array([0, 0, 0, 1, 1], np.float32))


def test_ties_share_the_gradient() -> None:
    x = dg.tensor([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]], dtype=dg.float64, requires_grad=True)
    x.max(axis=1).sum().backward()
    np.testing.assert_allclose(as_array(x.grad), [[0, 0.5, 0.5], [1 / 3] * 3], rtol=1e-15)
    x.grad = None
    dg.maximum(x, 2.0).sum().backward()
    np.testing.assert_allclose(as_array(x.grad), [[0, 1, 1], [0.5] * 3])


def test_logcumsumexp_of_infinities() -> None:
    inf = float("inf")
    x = dg.tensor([-inf, -inf, 1000.0, -1000.0, 1000.0], requires_grad=True)
    y = x.logcumsumexp(0)
    same_bits(y, np.array([-inf, -inf, 1e3, 1e3, 1e3 + np.log(2)], np.float32))
    y.backward(dg.ones(5))
    np.testing.assert_allclose(as_array(x.grad), [0, 0, 2.5, 0, 0.5])
    same_bits(dg.tensor([1.0, inf, -inf]).logcumsumexp(), np.array([1, inf, inf], np.float32))
    assert np.isnan(as_array(dg.tensor([float("nan"), 1.0]).logcumsumexp())).all()


# -- PyTorch as the oracle ------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """One function of tensors, in dualgrad and in PyTorch (called with torch and the tensors)."""

    name: str
    ours: Callable[..., Any]
    theirs: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]
    classes: int = 0  # of an integer argument that comes last

    def __str__(self) -> str:
        return self.name


PAIRS = (
    Pair("relu", dg.relu, lambda t, x: t.relu(x), ((5, 7),)),
    Pair("softmax", dg.softmax, lambda t, x: t.softmax(x, -1), ((9, 65),)),
    Pair("softmax of columns", lambda x: dg.softmax(x, 0), lambda t, x: t.softmax(x, 0), ((33, 5),)),
    Pair("softmax of the middle", lambda x: x.softmax(dim=1), lambda t, x: t.softmax(x, 1), ((3, 7, 4),)),
    Pair("softmax of one", dg.softmax, lambda t, x: t.softmax(x, -1), ((4, 1),)),
    Pair("log_softmax", dg.log_softmax, lambda t, x: t.log_softmax(x, -1), ((6, 10),)),
    Pair("log_softmax of a row", lambda x: x.log_softmax(0), lambda t, x: t.log_softmax(x, 0), ((300,),)),
    Pair("linear", F.linear, lambda t, *a: t.nn.functional.linear(*a), ((17, 33), (9, 33), (9,))),
    Pair("linear in 3 dimensions", F.linear, lambda t, *a: t.nn.functional.linear(*a), ((2, 5, 8), (3, 8), (3,))),
    Pair("linear without bias", F.linear, lambda t, *a: t.nn.functional.linear(*a), ((8,), (3, 8))),
    Pair("mse", F.mse_loss, lambda t, *a: t.nn.functional.mse_loss(*a), ((6, 5), (6, 5))),
    Pair("mse, sum", lambda x, y: F.mse_loss(x, y, "sum"),
         lambda t, x, y: t.nn.functional.mse_loss(x, y, reduction="sum"), ((70,), (70,))),
    Pair("cross entropy", F.cross_entropy, lambda t, *a: t.nn.functional.cross_entropy(*a), ((32, 10),), 10),
    Pair("cross entropy, sum", lambda x, y: F.cross_entropy(x, y, reduction="sum"),
         lambda t, x, y: t.nn.functional.cross_entropy(x, y, reduction="sum"), ((5, 3),), 3),
    Pair("cross entropy of each", lambda x, y: F.cross_entropy(x, y, reduction="none"),
         lambda t, x, y: t.nn.functional.cross_entropy(x, y, reduction="none"), ((70, 129),), 129),
    Pair("matmul", dg.matmul, lambda t, a, b: a @ b, ((33, 70), (70, 18))),
    Pair("matmul, long", dg.matmul, lambda t, a, b: a @ b, ((3, 1500), (1500, 5))),
    Pair("matmul, batched", dg.matmul, lambda t, a, b: a @ b, ((4, 1, 5, 6), (3, 6, 2))),
    Pair("matrix by vector", dg.matmul, lambda t, a, b: a @ b, ((20, 65), (65,))),
    Pair("vector by matrix", dg.matmul, lambda t, a, b: a @ b, ((65,), (65, 20))),
    Pair("dot", dg.matmul, lambda t, a, b: a @ b, ((5000,), (5000,))),
    Pair("sum of columns", lambda x: x.sum(0), lambda t, x: x.sum(0), ((200, 7),)),
    Pair("sum, long", lambda x: x.sum(), lambda t, x: x.sum(), ((9001,),)),
    Pair("mean of two axes", lambda x: x.mean((0, 2), keepdim=True), lambda t, x: x.mean((0, 2), keepdim=True), ((5, 6, 7),)),
    Pair("max", lambda x: x.max(1), lambda t, x: x.amax(1), ((6, 70),)),
    Pair("min of all", lambda x: x.min(), lambda t, x: x.min(), ((60, 70),)),
    Pair("logcumsumexp", lambda x: x.logcumsumexp(1), lambda t, x: t.logcumsumexp(x, 1), ((5, 67),)),
    Pair("logcumsumexp of columns", lambda x: (x * 100).logcumsumexp(0), lambda t, x: t.logcumsumexp(x * 100, 0), ((30, 3),)),
    Pair("cumsum of exponentials", lambda x: dg.exp(x).cumsum(1) * 2, lambda t, x: t.exp(x).cumsum(1) * 2, ((9, 130),)),
    Pair("cumprod", lambda x: x.cumprod(-1), lambda t, x: t.cumprod(x, -1), ((5, 6),)),
    Pair("cummax", lambda x: x.cummax(dim=0)[0], lambda t, x: t.cummax(x, 0)[0], ((40, 5),)),
    Pair("cummin", lambda x: x.cummin(1)[0], lambda t, x: t.cummin(x, 1)[0], ((5, 40),)),
    Pair("clamped", lambda x: dg.minimum(dg.maximum(x, -0.5), 0.5), lambda t, x: x.clamp(-0.5, 0.5), ((40,),)),
    Pair("where", lambda x, y: dg.where(x > y, x * 2, y), lambda t, x, y: t.where(x > y, x * 2, y), ((7, 5), (5,))),
    Pair("two layers", lambda x, a, b: F.linear(dg.tanh(F.linear(x, a)), b).sum(),
         lambda t, x, a, b: t.nn.functional.linear(t.tanh(t.nn.functional.linear(x, a)), b).sum(),
         ((8, 13), (21, 13), (4, 21))),
    Pair("normalized", lambda x: (x - x.mean(-1, keepdims=True)) / dg.sqrt(((x - x.mean(-1, keepdims=True)).square()).mean(-1, keepdims=True) + 1e-5),
         lambda t, x: t.nn.functional.layer_norm(x, (64,)), ((5, 64),)),
)  # fmt: skip


def numbers(pair: Pair, dtype: str) -> tuple[list[Array], list[Array]]:
    """The float arguments and, where there is one, the integer argument."""
    rng = np.random.default_rng(5)
    floats = [rng.standard_normal(s).astype(dtype) for s in pair.shapes]
    return floats, [rng.integers(0, pair.classes, pair.shapes[0][0])] if pair.classes else []


def run_ours(pair: Pair, dtype: str) -> Callable[..., Any]:
    def call(weight: dg.Tensor, *xs: dg.Tensor) -> Any:
        out = pair.ours(*xs)
        (out * weight).sum().backward()
        return [out.detach(), *(x.grad for x in xs if x.dtype.is_float)]

    return call


@pytest.mark.parametrize("pair", PAIRS, ids=str)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 5e-6), ("float64", 1e-13)])
def test_against_torch(pair: Pair, dtype: str, tolerance: float) -> None:
    torch = pytest.importorskip("torch")
    floats, whole = numbers(pair, dtype)
    xs = [torch.tensor(a, dtype=torch.float64, requires_grad=True) for a in floats]
    want = pair.theirs(torch, *xs, *map(torch.tensor, whole))
    weight = np.random.default_rng(6).uniform(0.5, 1.5, tuple(want.shape)).astype(dtype)
    (want * torch.tensor(weight)).sum().backward()

    def make() -> tuple[dg.Tensor, ...]:
        return (
            dg.tensor(np.asarray(weight)),
            *(dg.tensor(a, requires_grad=True) for a in floats),
            *map(dg.tensor, whole),
        )

    eager, static = both(run_ours(pair, dtype), make)
    exact = [want.detach().numpy(), *(x.grad.numpy() for x in xs)]
    for e, s, w in zip(tensors_in(eager), tensors_in(static), exact, strict=True):
        assert e.dtype.name == dtype
        same_bits(s, e, pair)
        scale = max(1.0, np.abs(w).max())
        np.testing.assert_allclose(as_array(e), w, rtol=0, atol=tolerance * scale)


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: F.cross_entropy(dg.ones(3, 4), dg.ones(3)), DTypeError, "targets are class numbers"),
        (lambda: F.cross_entropy(dg.ones(3, 4), dg.zeros(4, dtype=int)), ShapeError, "do not fit"),
        (lambda: F.cross_entropy(dg.ones(3, 4), dg.tensor([0, 1, 4])), IndexError, "0 <= class < 4"),
        (lambda: F.cross_entropy(dg.ones(3, 4), dg.tensor([0, 1, 2]), reduction="max"), ArgumentError, "'mean' or"),
        (lambda: F.mse_loss(dg.ones(3), dg.ones(3, 1)), ShapeError, "different shapes"),
        (lambda: F.linear(dg.ones(3), dg.ones(2, 4)), ShapeError, "input and weight do not fit"),
        (lambda: F.linear(dg.ones(4), dg.ones(2, 4), dg.ones(3)), ShapeError, "bias and weight"),
        (lambda: dg.softmax(dg.ones(3), 1), ShapeError, "axis out of range"),
        (lambda: dg.ones(2, 0).max(1), ShapeError, "an empty run has no max"),
        (lambda: dg.ones(2) @ dg.ones(3), ShapeError, "2 != 3"),
    ],
)  # fmt: skip
def test_refused(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text) as caught:
        call()
    assert "test_composites.py" in str(caught.value)


# -- sizes computed inside of a composite ---------------------------------------------------------


@dg.composite
def _short(a: Any, b: Any, *, cut: int) -> Any:
    part = a.narrow(1, 0, a.shape[1] - cut)
    return dg.matmul(part.transpose(0, 1), b), part.sum(0)


@pytest.mark.parametrize("cut", [4, 3, 5])
def test_sizes_that_turn_out_to_be_one(cut: int) -> None:
    """0 and 1 are exact sizes in both modes, also where they are computed from others."""
    rng = np.random.default_rng(0)
    a, b = (dg.from_numpy(rng.normal(size=(700, n)).astype(np.float32)) for n in (5, 9))
    eager = _short(a, b, cut=cut)
    static = dg.function(lambda x, y: _short(x, y, cut=cut), strict=True)(a, b)
    for one, two in zip(eager, static, strict=True):
        same_bits(as_array(one), as_array(two))


def _stated(cotangents: tuple[Any, ...], x: Any, y: Any, *, factor: int) -> tuple[Any, ...]:
    first, second = cotangents
    total = x * 0.0 if first is None else first * x * factor
    return total, None if second is None else second * 10.0


@composite
@with_gradient(_stated)
def _with_stated(x: Any, y: Any, *, factor: int) -> Any:
    return x.round(), y + 1.0


@pytest.mark.parametrize("decorate", [lambda f: f, dg.function])
def test_a_stated_gradient_takes_the_place_of_the_derived_one(decorate: Any) -> None:
    def step(x: dg.Tensor, y: dg.Tensor) -> None:
        first, second = _with_stated(x, y, factor=3)
        (first * 2.0 + second).sum().backward()

    x, y = (dg.tensor([1.5, -2.5], requires_grad=True) for _ in range(2))
    decorate(step)(x, y)
    assert x.grad.tolist() == [9.0, -15.0]
    assert y.grad.tolist() == [10.0, 10.0]


def test_a_stated_gradient_of_one_result_and_its_own_gradient() -> None:
    x, y = (dg.tensor([1.5, -2.5], requires_grad=True) for _ in range(2))
    (slope,) = dg.autograd.grad(_with_stated(x, y, factor=4)[0].sum(), [x], create_graph=True)
    assert slope.tolist() == [6.0, -10.0]
    slope.sum().backward()
    assert x.grad.tolist() == [4.0, 4.0]
