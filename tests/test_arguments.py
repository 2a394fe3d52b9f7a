"""Arguments that functions share: axes of numbers, bools in sums, PyTorch's optional ones."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import Array, as_array, same_bits

import dualgrad as dg
import dualgrad.functional as F
from dualgrad.runtime.errors import (
    ArgumentError,
    DeviceError,
    DualgradError,
    OperandError,
    ShapeError,
)

RNG = np.random.default_rng(7)


def both_modes(function: Callable[..., Any], *args: Any) -> Array:
    """What a function gives in eager mode, checked to be what it gives under `@function`."""
    eager = as_array(function(*args))
    same_bits(as_array(dg.function(function, strict=True)(*args)), eager)
    return eager


# -- one argument under two names -----------------------------------------------------------------

X = dg.arange(24.0).reshape(2, 3, 4)
TWICE: dict[str, Callable[[dg.Tensor], Any]] = {
    "sum": lambda x: x.sum(dim=0, axis=1),
    "sum by place": lambda x: x.sum(1, dim=0),
    "a default": lambda x: dg.softmax(x, axis=-1, dim=0),
    "the first axis": lambda x: dg.cat([x, x], 0, dim=1),
    "an axis to make": lambda x: x.unsqueeze(0, dim=1),
    "argmax": lambda x: x.argmax(axis=0, dim=1),
    "roll": lambda x: dg.roll(x, 1, 0, dims=1),
    "flip": lambda x: x.flip(0, dims=(1,)),
    "diagonal": lambda x: x.diagonal(0, 0, 1, dim1=2),
    "diagonal of matrices": lambda x: dg.linalg.diagonal(x, axis1=-2, dim1=0),
    "tensordot": lambda x: dg.tensordot(x, x, 2, dims=3),
    "keepdims": lambda x: x.mean(0, keepdims=True, keepdim=False),
}


@pytest.mark.parametrize("name", TWICE)
def test_one_argument_under_two_names(name: str) -> None:
    for call in (TWICE[name], dg.function(TWICE[name])):
        with pytest.raises(OperandError, match="one argument is given under two names"):
            call(X)


def test_every_default_axis_differs_from_a_given_one() -> None:
    found = 0
    for space in (dg, dg.functional, dg.linalg, dg.fft):
        for function in filter(inspect.isfunction, map(space.__dict__.get, space.__all__)):
            parameters = inspect.signature(function).parameters.values()
            if any(p.kind is p.VAR_KEYWORD for p in parameters):
                axes = [p for p in parameters if p.name in ("axis", "axes", "axis1", "axis2")]
                assert all(type(p.default) is not int for p in axes), function
                found += len(axes)
    assert found > 50


@pytest.mark.parametrize("keep", [1, 0, None, "yes", 2.0])
def test_keepdims_is_a_bool(keep: Any) -> None:
    for name in ("sum", "max", "argmin", "std", "logsumexp", "any"):
        with pytest.raises(OperandError, match="keepdims is no bool"):
            getattr(X, name)(0, keep)
        with pytest.raises(OperandError, match="keepdims is no bool"):
            getattr(X, name)(0, keepdim=keep)
    assert X.sum(0, np.True_).shape == (1, 3, 4)


def test_names_of_pytorch() -> None:
    assert (X.numel(), X.dim(), X[0].t().shape, X[0, 0].t().shape) == (24, 3, (4, 3), (4,))
    with pytest.raises(ShapeError, match="at most two dimensions"):
        X.t()


# -- axes of numbers ------------------------------------------------------------------------------

ONE_AXIS: dict[str, tuple[Callable[..., Any], float]] = {
    "softmax": (dg.softmax, 1.0),
    "log_softmax": (dg.log_softmax, 0.0),
    "softmin": (F.softmin, 1.0),
    "cumsum": (dg.cumsum, 0.5),
    "cumprod": (dg.cumprod, 0.5),
    "cummax": (lambda x, axis: dg.cummax(x, axis)[0], 0.5),
    "logcumsumexp": (dg.logcumsumexp, 0.5),
    "index_select": (lambda x, axis: dg.index_select(x, axis, dg.tensor([0])), 0.5),
    "gather": (lambda x, axis: dg.gather(x, axis, dg.tensor(0)), 0.5),
    "scatter": (lambda x, axis: dg.scatter(x, axis, dg.tensor(0), 2.5), 2.5),
    "scatter_add": (lambda x, axis: dg.scatter_add(x, axis, dg.tensor([0]), dg.tensor(1.0)), 1.5),
    "index_add": (lambda x, axis: dg.index_add(x, axis, dg.tensor([0]), dg.tensor(2.0)), 2.5),
    "index_copy": (lambda x, axis: dg.index_copy(x, axis, dg.tensor([0]), dg.tensor(2.0)), 2.0),
    "index_fill": (lambda x, axis: dg.index_fill(x, axis, dg.tensor([0]), 3.0), 3.0),
}


@pytest.mark.parametrize("name", ONE_AXIS)
@pytest.mark.parametrize("axis", [0, -1])
def test_a_number_has_one_axis(name: str, axis: int) -> None:
    function, want = ONE_AXIS[name]
    got = both_modes(lambda x: function(x, axis), dg.tensor(0.5))
    assert got.shape == ()
    assert got == np.float32(want)


@pytest.mark.parametrize("name", ONE_AXIS)
def test_a_number_has_no_second_axis(name: str) -> None:
    with pytest.raises(DualgradError, match="axis out of range"):
        ONE_AXIS[name][0](dg.tensor(0.5), 1)


@pytest.mark.parametrize("function", [dg.softmax, dg.log_softmax, F.softmin])
def test_a_softmax_of_nothing_is_empty(function: Callable[..., Any]) -> None:
    x = dg.zeros(3, 0, requires_grad=True)
    y = function(x, -1)
    assert y.shape == (3, 0)
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == (3, 0)


# -- bools ----------------------------------------------------------------------------------------


def test_sums_and_products_of_bools_at_positions() -> None:
    x, at = dg.tensor([True, False, False, True]), dg.tensor([0, 1, 1, 3])
    source = dg.tensor([False, False, True, False])
    added = both_modes(lambda x: dg.scatter_add(x, 0, at, source), x)
    assert added.tolist() == [True, True, False, True]
    assert both_modes(lambda x: dg.index_add(x, 0, at, source), x).tolist() == added.tolist()
    product = both_modes(lambda x: dg.scatter(x, 0, at, source, reduce="multiply"), x)
    assert product.tolist() == [False, False, False, False]


def test_scatter_adds_or_multiplies() -> None:
    x, at = dg.tensor([1.0, 2.0, 3.0]), dg.tensor([0, 0, 2])
    source = dg.tensor([2.0, 3.0, 4.0])
    assert dg.scatter(x, 0, at, source, reduce="add").tolist() == [6.0, 2.0, 7.0]
    assert dg.scatter(x, 0, at, source, reduce="multiply").tolist() == [6.0, 2.0, 12.0]
    with pytest.raises(ArgumentError, match="no such reduction"):
        dg.scatter(x, 0, at, source, reduce="mean")


def test_masks_may_be_larger_than_the_tensor() -> None:
    x, mask = dg.tensor([1.0, 2.0]), dg.tensor([[True, False], [False, True], [False, False]])
    want = np.where(mask.numpy(), np.float32(9), x.numpy())
    same_bits(both_modes(lambda x: dg.masked_fill(x, mask, 9.0), x), want)
    source = dg.tensor([7.0, 8.0])
    found = both_modes(lambda x: dg.masked_scatter(x, mask, source), x)
    assert found.tolist() == [[7.0, 2.0], [1.0, 8.0], [1.0, 2.0]]


# -- optional arguments of PyTorch's --------------------------------------------------------------


def test_to_takes_a_dtype_a_device_or_a_tensor() -> None:
    x = dg.tensor([1.5, -2.5])
    double = x.to("cpu", "float64", True)
    assert double.dtype is dg.float64
    assert x.to(device="cpu") is x
    assert x.to("cpu") is x
    assert x.to(double).dtype is dg.float64
    assert x.to(dtype="int32").tolist() == [1, -2]
    other = x.to("float32", copy=True)
    assert other is not x
    assert x.to("float32", False, True) is not x
    same_bits(other.numpy(), x.numpy())
    with pytest.raises(DeviceError, match="unknown device"):
        x.to(device="tpu")
    with pytest.raises(ArgumentError, match="too many arguments"):
        x.to("float32", False, True, None)


def test_arange_truncates_for_an_integer_dtype() -> None:
    assert dg.arange(-1.9, 3.9, 1.5, dtype="int64").tolist() == [-1, 0, 1, 2]
    with pytest.raises(ArgumentError, match="step is zero"):
        dg.arange(0, 5, 0.5, dtype="int64")


def test_repeats_of_each_element() -> None:
    x, counts = RNG.standard_normal((3, 4)).astype(np.float32), np.array([2, 0, 1, 3])
    tensor = dg.tensor(x, requires_grad=True)
    y = dg.repeat_interleave(tensor, dg.tensor(counts), 1)
    same_bits(y.detach().numpy(), np.repeat(x, counts, 1))
    y.sum().backward()
    assert tensor.grad is not None
    assert tensor.grad.tolist() == [counts.tolist()] * 3
    flat = dg.repeat_interleave(tensor.detach(), dg.tensor([2]))
    same_bits(flat.numpy(), np.repeat(x, 2))


DRIVERS = {"gels": (3, 0, 0), "gelsy": (3, 1, 0), "gelss": (3, 1, 3), "gelsd": (3, 1, 3)}


@pytest.mark.parametrize("driver", DRIVERS)
def test_least_squares_by_driver(driver: str) -> None:
    a, b = (dg.tensor(RNG.standard_normal(s)) for s in ((5, 3), (5, 3)))
    whole, named = dg.linalg.lstsq(a, b), dg.linalg.lstsq(a, b, driver=driver)
    same_bits(named[0].numpy(), whole[0].numpy())
    assert tuple(x.size for x in named[1:]) == DRIVERS[driver]
    square = dg.linalg.lstsq(a[:3], b[:3], driver=driver)
    assert square[1].shape == (0,)


def test_no_such_driver() -> None:
    with pytest.raises(ArgumentError, match="no such driver"):
        dg.linalg.lstsq(dg.ones(2, 2), dg.ones(2), driver="qr")


def test_dropped_weights_of_attention() -> None:
    attention = F.scaled_dot_product_attention
    query, key = (dg.tensor(RNG.standard_normal((2, 40, 8))) for _ in range(2))
    value = dg.eye(40, dtype="float64").expand(2, 40, 40)  # the result is the weights
    plain = attention(query, key, value).numpy()
    dg.random.seed(5)
    dropped = attention(query, key, value, dropout_p=0.25).numpy()
    gone = dropped == 0
    assert 0.2 < gone.mean() < 0.3
    np.testing.assert_allclose(dropped[~gone], plain[~gone] / 0.75, 1e-12)
    dg.random.seed(5)
    compiled = dg.function(lambda q, k, v: attention(q, k, v, dropout_p=0.25), strict=True)
    same_bits(compiled(query, key, value).numpy(), dropped)
    assert not attention(query, key, value, dropout_p=1.0).numpy().any()
    with pytest.raises(ArgumentError, match="0 <= p <= 1"):
        attention(query, key, value, dropout_p=1.5)
