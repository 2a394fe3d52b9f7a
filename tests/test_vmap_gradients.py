"""Gradients around and inside of vmap: of gradients, of modules, of the user's own functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import as_array, both, same_bits
from test_vmap import Fun, S, W, like_a_loop, loss, numbers

import dualgrad as dg
from dualgrad import nn
from dualgrad.runtime.errors import GradientError

# -- functions with gradients of the user's own ---------------------------------------------------


class Exponential(dg.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        y = x.exp()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        (y,) = ctx.saved_tensors
        return g * y


class Scaled(dg.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, w: Any, k: float) -> Any:
        ctx.save_for_backward(x, w)
        ctx.k = k
        positive = x > 0
        ctx.mark_non_differentiable(positive)
        return x * w * k, positive

    @staticmethod
    def backward(ctx: Any, g: Any, _: Any) -> Any:
        x, w = ctx.saved_tensors
        return g * w * ctx.k, g * x * ctx.k, None


def own(w: Any, x: Any) -> Any:
    y, _ = Scaled.apply(Exponential.apply(x), w, 2.0)
    return (y * y).sum()


def derived(w: Any, x: Any) -> Any:
    y = dg.exp(x) * w * 2.0
    return (y * y).sum()


ORDERS: dict[str, Callable[[Fun], Fun]] = {
    "value": lambda f: dg.vmap(f, (None, 0)),
    "inside": lambda f: dg.vmap(dg.grad(f), (None, 0)),
    "inside, mapped": lambda f: dg.vmap(dg.grad(f, 1), (None, 0)),
    "outside": lambda f: dg.grad(lambda w, x: dg.vmap(f, (None, 0))(w, x).sum()),
    "outside, mapped": lambda f: dg.grad(lambda w, x: dg.vmap(f, (None, 0))(w, x).sum(), 1),
    "twice inside": lambda f: dg.vmap(dg.hessian(f, 1), (None, 0)),
    "inside and outside": lambda f: dg.grad(
        lambda w, x: (dg.vmap(dg.grad(f, 1), (None, 0))(w, x) ** 2).sum()
    ),
    "pushed": lambda f: lambda w, x: dg.jvp(dg.vmap(f, (None, 0)), (w, x), (w, x))[1],
}


@pytest.mark.parametrize("name", ORDERS)
def test_gradients_of_the_users_own(name: str) -> None:
    make = lambda: (numbers(5, seed=6), S())  # noqa: E731
    transform = ORDERS[name]
    got, static = both(transform(own), make)
    same_bits(static, got)
    np.testing.assert_allclose(as_array(got), as_array(transform(derived)(*make())), rtol=1e-5)
    assert not got.requires_grad


class Shuffled(dg.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any, y: Any) -> Any:
        ctx.save_for_backward(x, y)
        return y, x, x * y * y

    @staticmethod
    def backward(ctx: Any, a: Any, b: Any, c: Any) -> Any:
        x, y = ctx.saved_tensors
        return b + c * y * y, a + 2 * c * x * y


def shuffled(x: Any) -> Any:
    a, b, c = Shuffled.apply(x, x.sin())
    return (a * b).sum() + c.sum()


@pytest.mark.parametrize("derivative", [dg.grad, dg.hessian, lambda f: dg.grad(sums_of(f))])
def test_saved_arguments_are_differentiated_again(derivative: Any) -> None:
    """What backward reads is an argument of forward: its second derivative needs that."""
    f = derivative(shuffled)
    got, static = both(dg.vmap(f), lambda: (S(),))
    same_bits(static, got)
    plain = derivative(lambda x: (x * x.sin() + x * x.sin() ** 2).sum())
    for row, x in zip(got, S(), strict=True):
        same_bits(row, f(x))
        np.testing.assert_allclose(as_array(row), as_array(plain(x)), rtol=1e-4, atol=1e-5)


def sums_of(f: Fun) -> Fun:
    return lambda x: (dg.grad(f)(x) ** 2).sum()


# -- products with a Jacobian, many at once -------------------------------------------------------

V = numbers(5, seed=3)
BODIES: dict[str, Fun] = {
    "ops": lambda x: x**2 * V * x[0],
    "own": lambda x: Exponential.apply(x * V),
    "checkpoint": lambda x: dg.checkpoint(lambda y: (y * V).sin() * y.exp(), x),
    "compiled": dg.function(lambda x: (x * x).sin() * V),
    "random": lambda x: dg.checkpoint(lambda y: y * dg.rand(5) * y, x),
}


@pytest.mark.parametrize("name", BODIES)
def test_slices_are_sent_back_into_a_graph_from_outside(name: str) -> None:
    x, rows = numbers(5, seed=1), numbers(4, 5, seed=2)
    _, back = dg.vjp(BODIES[name], x)
    want = dg.stack([back(r)[0] for r in rows])
    same_bits(dg.vmap(back)(rows)[0], want)
    same_bits(dg.vmap(dg.vmap(back))(dg.stack([rows, rows]))[0], dg.stack([want, want]))
    same_bits(dg.vmap(back, in_axes=1, out_axes=1)(rows.T)[0], want.T)


@pytest.mark.parametrize("name", ["ops", "own", "checkpoint", "compiled"])
def test_gradients_through_many_products(name: str) -> None:
    rows = numbers(4, 5, seed=2)

    def size(mapped: bool) -> Fun:
        def f(x: Any) -> Any:
            _, back = dg.vjp(BODIES[name], x)
            found = dg.vmap(back)(rows)[0] if mapped else dg.stack([back(r)[0] for r in rows])
            return (found**2).sum()

        return dg.grad(f)

    x = numbers(5, seed=1)
    np.testing.assert_allclose(size(True)(x).numpy(), size(False)(x).numpy(), rtol=1e-5)


def test_gradients_of_tensors_from_outside() -> None:
    x, rows = numbers(5, seed=1).requires_grad_(), numbers(4, 5, seed=2)
    y = x.sin() * x

    def send(v: Any) -> Any:
        return dg.autograd.grad(y, x, v, retain_graph=True)[0]

    same_bits(dg.vmap(send)(rows), dg.stack([send(r) for r in rows]))
    with pytest.raises(dg.errors.TraceError, match="from outside"):
        dg.vmap(lambda v: y.backward(v))(rows)
    y = dg.function(lambda x: x.sin() * x)(x)
    with pytest.raises(dg.errors.TraceError, match="differs between slices"):
        dg.vmap(send)(rows)
    _, back = dg.vjp(BODIES["compiled"], x.detach())
    with pytest.raises(dg.errors.GradientError, match="by what it multiplies"):
        dg.vmap(dg.grad(lambda v: back(v)[0].sum()))(rows)


# -- gradients of gradients, inside and outside ---------------------------------------------------


def test_gradients_through_gradients_of_slices() -> None:
    x = numbers(4, 3, 5)

    def penalty(mapped: Fun) -> Fun:
        return lambda w: (mapped(w, x) ** 2).sum()

    def loop(w: Any, x: Any) -> Any:
        return dg.stack([dg.grad(loss)(w, x[k]) for k in range(4)])

    inside = dg.vmap(dg.grad(loss), in_axes=(None, 0))
    got, want = dg.grad(penalty(inside))(W), dg.grad(penalty(loop))(W)
    np.testing.assert_allclose(as_array(got), as_array(want), rtol=1e-4, atol=1e-6)
    same_bits(dg.function(dg.grad(penalty(inside)), strict=True)(W), got)
    w = W.detach().requires_grad_()
    penalty(inside)(w).backward()
    same_bits(w.grad, got)


def test_gradients_of_a_module_for_each_slice() -> None:
    dg.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 1))
    x = numbers(4, 3, 5)

    def error(model: Any, x: Any) -> Any:
        return model(x).square().mean()

    with dg.no_grad():
        each = dg.vmap(dg.grad(error), in_axes=(None, 0))
        got, static = each(model, x), dg.function(each, strict=True)(model, x)
        for k in range(4):
            want = dg.grad(error)(model, x[k])
            assert list(got) == list(want) == ["0.weight", "0.bias", "2.weight", "2.bias"]
            for name, g in want.items():
                same_bits(got[name][k], g)
                same_bits(static[name][k], g)
    assert all(p.grad is None for p in model.parameters())


def test_no_grad_holds_inside() -> None:
    w = W.detach().requires_grad_()
    with dg.no_grad():
        value, g = dg.vmap(dg.value_and_grad(loss), in_axes=(None, 0))(w, numbers(4, 3, 5))
    assert not value.requires_grad
    assert not g.requires_grad
    value = dg.vmap(loss, in_axes=(None, 0))(w, numbers(4, 3, 5))
    assert value.requires_grad


# -- checkpoints, anomalies, gradients asked for by name ------------------------------------------


def _of_a_view(x: Any) -> Any:
    y = x.sin()
    v = y[:1]
    y.mul_(y.sum())
    return v.sum()


def _through_a_view(x: Any) -> Any:
    y = x * 1.5
    y[1:].mul_(y[:-1].sum())
    return (y * y).sum()


IN_PLACE: dict[str, Fun] = {
    "itself": lambda x: (x * 2.0).sin_().sum(),
    "squared": lambda x: (lambda y: y.mul_(y))(x * 2.0).sum(),
    "by a sum": lambda x: (lambda y: y.mul_(y.sum()))(x * 2.0).sum(),
    "by the argument": lambda x: (lambda y: y.mul_(x))(x.sin()).sum(),
    "the same for all slices": lambda x: (lambda y: y.exp_().mul_(x))(W[0, :5] * 0.5).sum(),
    "of a view": _of_a_view,
    "through a view": _through_a_view,
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_gradients_through_changes_in_place(name: str) -> None:
    f = IN_PLACE[name]
    like_a_loop(dg.grad(f), S)
    like_a_loop(dg.grad(lambda x: (dg.grad(f)(x) * x).sum()), S)
    like_a_loop(dg.vmap(dg.grad(f)), lambda: numbers(2, 3, 5))


def test_changes_that_gradients_notice() -> None:
    def f(x: Any) -> Any:
        y = x * 1.0
        v = y[:1]
        z = v.sin()
        v.mul_(v)
        return z.sum()

    with pytest.raises(GradientError, match="has been changed in place"):
        dg.vmap(dg.grad(f))(S())


def test_checkpoints() -> None:
    def body(w: Any, x: Any) -> Any:
        return dg.tanh(x @ w)

    def saved(w: Any, x: Any) -> Any:
        return dg.checkpoint(body, w, x).square().sum()

    def plain(w: Any, x: Any) -> Any:
        return body(w, x).square().sum()

    x = numbers(4, 3, 5)
    for transform in ("value", "inside", "inside, mapped", "outside"):
        wrapped = ORDERS[transform]
        same_bits(wrapped(saved)(W, x), wrapped(plain)(W, x))
    mapped = dg.vmap(body, (None, 0))
    around = dg.grad(lambda w: dg.checkpoint(mapped, w, x).square().sum())
    same_bits(around(W), dg.grad(lambda w: mapped(w, x).square().sum())(W))


def test_the_first_nan_is_found() -> None:
    with dg.detect_nan():
        with pytest.raises(FloatingPointError, match=r"\[log\] the first NaN of the forward pass"):
            dg.vmap(lambda x: dg.log(x - 100))(S())
        with pytest.raises(FloatingPointError, match="the first NaN on the way back"):
            dg.vmap(dg.grad(lambda x: dg.sqrt(x * 0).sum()))(S())


def test_gradients_by_name() -> None:
    def f(x: Any) -> Any:
        y = x.detach().requires_grad_()
        z = y * 2
        (g,) = dg.autograd.grad((z**3).sum(), z, create_graph=True)
        return dg.autograd.grad(g.sum(), y)[0]

    like_a_loop(f, S)


def test_gradients_are_those_of_finite_differences() -> None:
    x = dg.from_numpy(np.random.default_rng(0).standard_normal((3, 4))).requires_grad_()
    assert dg.gradcheck(dg.vmap(lambda x: dg.sin(x) * x.sum()), (x,))
    assert dg.gradgradcheck(dg.vmap(lambda x: dg.sin(x) * x.sum()), (x,))
