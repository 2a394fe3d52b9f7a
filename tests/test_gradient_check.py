"""gradcheck and gradgradcheck: what they accept, what they find, and how they say it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dualgrad as dg
from dualgrad.runtime.errors import ArgumentError, DTypeError, GradientError, OperandError


def f64(*values: float) -> dg.Tensor:
    return dg.tensor(list(values), dtype=dg.float64)


def drawn(*shape: int) -> dg.Tensor:
    return dg.tensor(np.random.default_rng(3).standard_normal(shape))


def softened(p: Any, x: Any) -> Any:
    y = dg.softmax(x @ p["w"] + p["b"], axis=-1)
    return {"logs": y.log(), "parts": [y[:, :1] * x[0, 0], (y * y).sum()]}


def network() -> tuple[Any, ...]:
    return {"w": drawn(3, 4), "b": drawn(4)}, drawn(2, 3)


def test_right_gradients_pass() -> None:
    assert dg.gradcheck(softened, network())
    assert dg.gradgradcheck(softened, network())
    assert dg.gradcheck(dg.function(softened), network())
    assert dg.gradgradcheck(dg.function(softened), network())
    assert dg.gradcheck(lambda x: x.sum(), drawn(2, 0))
    assert dg.gradcheck(lambda x, n: x**n, [f64(1.5, 2.0), 3])


def half(x: Any) -> Any:
    return x * x.detach()


def test_wrong_gradients_are_named() -> None:
    with pytest.raises(GradientError) as found:
        dg.gradcheck(lambda p: (p["a"] * 2.0, half(p["b"][0])), ({"a": drawn(2), "b": [f64(3.0)]},))
    text = str(found.value)
    assert "expect: 6, the derivative of output[1][0] by inputs[0]['b'][0][0]" in text.replace(
        "6.00000000", "6"
    ).replace("5.99999999", "6")
    assert "actual: 3\n" in text
    assert "1 of 9 entries differ by more than 1e-05 + 0.001 * |expected|" in text
    assert "in test_wrong_gradients_are_named" in text
    assert not dg.gradcheck(half, f64(1.0), raise_exception=False)


@pytest.mark.parametrize(
    ("function", "hint"),
    [
        (lambda x: (x * x).detach() + x * 0.0, "detached, or run under dg.no_grad"),
        (lambda x: 2.0 * (x * x).detach() - x * x, "the sign is wrong"),
        (lambda x: dg.where(x > 0, x, dg.sqrt(x - 1.5)), r"dg\.detect_nan\(\)"),
    ],
)
def test_hints(function: Callable[[Any], Any], hint: str) -> None:
    with pytest.raises(GradientError, match=hint):
        dg.gradcheck(function, f64(1.0, 2.0))


def test_one_wrong_entry_among_many() -> None:
    at = np.zeros((20, 50))
    at[7, 31] = 1.0
    wrong = dg.tensor(at)

    def f(x: Any) -> Any:
        y = dg.sin(x)
        return y * (1.0 - wrong) + (y * wrong).detach()

    with pytest.raises(GradientError):
        dg.gradcheck(f, drawn(20, 50))
    assert dg.gradcheck(dg.sin, drawn(20, 50))


def test_second_derivatives() -> None:
    def f(x: Any) -> Any:
        y = x * x
        return (y * x).detach() + 3.0 * y.detach() * (x - x.detach())  # value x^3, gradient 3 x^2

    assert dg.gradcheck(f, f64(1.0, -2.0))
    with pytest.raises(
        GradientError, match=r"\[gradgradcheck\] second derivatives differ"
    ) as found:
        dg.gradgradcheck(f, (f64(1.0, -2.0),), f64(1.0, 1.0))
    assert "the derivative of the gradient by inputs[0][" in str(found.value)
    assert "] by inputs[0][" in str(found.value)


def test_kinks_are_left() -> None:
    zeros = f64(0.0, 1.0, -1.0, 0.0)
    for f in (dg.relu, dg.abs, lambda x: dg.maximum(x, -x), lambda x: dg.sqrt(x * x)):
        assert dg.gradcheck(f, zeros)
        assert dg.gradgradcheck(f, zeros)
    assert dg.gradcheck(lambda x: dg.sort(x)[0] * f64(1.0, 2.0, 3.0, 4.0), zeros)
    with pytest.raises(GradientError, match="a kink, a jump or NaN wherever one looks"):
        dg.gradcheck(lambda x: dg.floor(x * 1e9), zeros)
    with pytest.raises(GradientError):
        dg.gradcheck(lambda x: dg.relu(x).detach() + x * 0.0, zeros)


def test_only_what_requires_gradients_is_checked() -> None:
    a, b = f64(1.0, 2.0), f64(3.0, 4.0)
    assert not dg.gradcheck(lambda a, b: a * half(b), (a, b), raise_exception=False)
    assert dg.gradcheck(lambda a, b: a * half(b), (a.requires_grad_(), b))
    assert a.grad is None


def test_mistakes() -> None:
    x = f64(1.0)
    with pytest.raises(DTypeError, match=r"inputs\[1\] of dtype float64[\s\S]*actual: float32"):
        dg.gradcheck(lambda a, b: a * b, (x, dg.tensor([1.0])))
    with pytest.raises(DTypeError, match="output of dtype float64"):
        dg.gradcheck(lambda a: a.astype(dg.float32), x)
    with pytest.raises(ArgumentError, match="nothing to check"):
        dg.gradcheck(lambda n: x * n, (3,))
    with pytest.raises(ArgumentError, match="a function that returns float64 tensors"):
        dg.gradcheck(lambda x: None, x)
    with pytest.raises(OperandError, match="gradcheck takes a function"):
        dg.gradcheck(x, x)
    with pytest.raises(GradientError, match=r"another result each time[\s\S]*dg\.manual_seed"):
        dg.gradcheck(lambda x: x * dg.rand(1, dtype=dg.float64), x)


def test_random_state_of_the_caller_stays() -> None:
    dg.manual_seed(5)
    want = dg.rand(3).tolist()
    dg.manual_seed(5)
    dg.gradcheck(dg.sin, f64(1.0))
    assert dg.rand(3).tolist() == want
