"""Activations as layers: PyTorch's, in both modes, and in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from nn_layers import Build, check_layer, check_modes, check_signature, drawn
from support import same_bits

import dualgrad as dg
from dualgrad import nn
from dualgrad.runtime.errors import ArgumentError, GradientError, ShapeError

PLAIN: list[Build] = [
    lambda nn: nn.ReLU(),
    lambda nn: nn.SiLU(),
    lambda nn: nn.Mish(),
    lambda nn: nn.SELU(),
    lambda nn: nn.Hardsigmoid(),
    lambda nn: nn.Hardswish(),
    lambda nn: nn.Sigmoid(),
    lambda nn: nn.LogSigmoid(),
    lambda nn: nn.Tanh(),
    lambda nn: nn.Tanhshrink(),
    lambda nn: nn.Softsign(),
    lambda nn: nn.ELU(),
    lambda nn: nn.ELU(0.7),
    lambda nn: nn.CELU(1.3),
    lambda nn: nn.LeakyReLU(),
    lambda nn: nn.LeakyReLU(0.3),
    lambda nn: nn.RReLU(0.2, 0.4).eval(),
    lambda nn: nn.Hardtanh(-0.5, 1.5),
    lambda nn: nn.ReLU6(),
    lambda nn: nn.Threshold(0.1, -0.7),
    lambda nn: nn.GELU(),
    lambda nn: nn.GELU("tanh"),
    lambda nn: nn.Softplus(),
    lambda nn: nn.Softplus(2.0, 1.0),
    lambda nn: nn.Hardshrink(),
    lambda nn: nn.Softshrink(0.3),
    lambda nn: nn.PReLU(),
    lambda nn: nn.PReLU(3, 0.1),
    lambda nn: nn.GLU(),
    lambda nn: nn.GLU(0),
    lambda nn: nn.Softmax(-1),
    lambda nn: nn.Softmin(1),
    lambda nn: nn.LogSoftmax(0),
]

IN_PLACE: list[Build] = [
    lambda nn: nn.ReLU(True),
    lambda nn: nn.ReLU6(True),
    lambda nn: nn.SiLU(True),
    lambda nn: nn.Mish(True),
    lambda nn: nn.SELU(True),
    lambda nn: nn.ELU(0.7, True),
    lambda nn: nn.CELU(0.7, True),
    lambda nn: nn.LeakyReLU(0.2, True),
    lambda nn: nn.RReLU(inplace=True).eval(),
    lambda nn: nn.Hardtanh(inplace=True),
    lambda nn: nn.Hardsigmoid(True),
    lambda nn: nn.Hardswish(True),
    lambda nn: nn.Threshold(0.1, 0.2, True),
]

NAMES = [
    "CELU", "ELU", "GELU", "GLU", "Hardshrink", "Hardsigmoid", "Hardswish", "LeakyReLU",
    "LogSoftmax", "Mish", "PReLU", "RReLU", "ReLU", "ReLU6", "SELU", "SiLU", "Softmax", "Softmin",
    "Softplus", "Softshrink", "Threshold",
]  # fmt: skip


@pytest.mark.parametrize("build", PLAIN, ids=lambda build: repr(build(nn)))
def test_as_pytorch(build: Build) -> None:
    check_layer(build, 3 * drawn(4, 3, 6))


@pytest.mark.filterwarnings("ignore:Implicit dimension choice")
@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 4), (2, 3, 2, 2)])
def test_softmax_chooses_its_axis_as_pytorch(shape: tuple[int, ...]) -> None:
    check_layer(lambda nn: nn.Softmax(), drawn(*shape))


@pytest.mark.parametrize("shape", [(2, 3, 2, 4), (3, 2, 4)])
def test_softmax_over_channels(shape: tuple[int, ...]) -> None:
    check_layer(lambda nn: nn.Softmax2d(), drawn(*shape))
    with pytest.raises(ShapeError, match="Softmax2d"):
        nn.Softmax2d()(dg.zeros(2, 3))


def over_a_result(nn: Any, layer: Any) -> Any:
    """A model whose layer gets a result of another op, which it may overwrite."""

    class Model(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, x: Any) -> Any:
            y = x * 2.0
            return self.layer(y), y

    return Model()


@pytest.mark.parametrize("build", IN_PLACE, ids=lambda build: repr(build(nn)))
def test_in_place_as_pytorch(build: Build) -> None:
    """The input itself changes, and the gradient is that of the new value."""

    x = dg.tensor(drawn(4, 5))
    assert build(nn)(x) is x
    check_layer(lambda nn: over_a_result(nn, build(nn)), drawn(4, 5))


def test_in_place_refuses_leaves() -> None:
    with pytest.raises(GradientError):
        nn.ReLU(inplace=True)(dg.zeros(2, requires_grad=True))


@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_pytorchs(name: str) -> None:
    check_signature(name)


@pytest.mark.parametrize("in_place", [False, True])
def test_random_slopes(in_place: bool) -> None:
    layer = nn.RReLU(0.2, 0.6, in_place)
    x = dg.full(10000, -1.0)
    slopes = -layer(x).numpy()
    assert (slopes >= 0.2).all()
    assert (slopes < 0.6).all()
    # the mean of 10000 uniform numbers of width 0.4 has a deviation of 0.0012
    assert abs(slopes.mean() - 0.4) < 0.006
    again = -layer(dg.full(10000, -1.0)).numpy()
    assert (again != slopes).any()


def test_random_slopes_have_the_same_bits_in_both_modes() -> None:
    layer, x = nn.RReLU(), dg.tensor(drawn(50))
    dg.seed(3)
    eager = layer(x)
    dg.seed(3)
    same_bits(dg.function(lambda x: layer(x), strict=True)(x), eager)


@pytest.mark.parametrize("dtype", [dg.float16, dg.bfloat16, dg.float64])
@pytest.mark.parametrize("build", PLAIN[::3], ids=lambda build: repr(build(nn)))
def test_other_floats(build: Build, dtype: dg.DType) -> None:
    """Rounded to the dtype, the result is that of float64."""
    layer, x = build(nn), dg.tensor(drawn(4, 3, 6))
    layer.to(dtype)
    exact = build(nn).to(dg.float64)(x.to(dtype).to(dg.float64))
    found = layer(x.to(dtype))
    assert found.dtype is dtype
    precision = {dg.float16: 2**-11, dg.bfloat16: 2**-8, dg.float64: 1e-15}[dtype]
    np.testing.assert_allclose(
        found.to(dg.float64).detach().numpy(),
        exact.detach().numpy(),
        rtol=3 * precision,
        atol=precision / 4,
    )


def test_known_values() -> None:
    x = np.array([-4.0, -0.25, 0.0, 0.75, 7.0], np.float32)
    formulas = {
        nn.ReLU6(): np.clip(x, 0, 6),
        nn.Hardtanh(): np.clip(x, -1, 1),
        nn.Softsign(): x / (1 + np.abs(x)),
        nn.Threshold(0.5, -3.0): np.where(x > 0.5, x, -3),
        nn.Softshrink(): np.sign(x) * np.maximum(np.abs(x) - 0.5, 0),
        nn.Hardshrink(): np.where(np.abs(x) > 0.5, x, 0),
        nn.SiLU(): x / (1 + np.exp(-x)),
        nn.LeakyReLU(0.5): np.where(x > 0, x, x / 2),
        nn.PReLU(init=0.5): np.where(x > 0, x, x / 2),
        nn.Tanhshrink(): x - np.tanh(x),
    }
    for layer, want in formulas.items():
        found = check_modes(layer, x)["output 0"].numpy()
        np.testing.assert_allclose(found, want, rtol=1e-6, atol=2e-7, err_msg=repr(layer))


def test_slopes_start_anew() -> None:
    layer = nn.PReLU(2, init=0.1)
    layer.weight.detach().fill_(3.0)
    layer.reset_parameters()
    assert layer.weight.tolist() == pytest.approx([0.1, 0.1])
    assert layer.weight.requires_grad


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: nn.GELU("sigmoid"), "no such approximation"),
        (lambda: nn.Hardtanh(1.0, 1.0), "max_val"),
        (lambda: nn.Softshrink(-0.1), "0 <= lambd"),
        (lambda: nn.PReLU(0), "num_parameters=0"),
        (lambda: nn.RReLU(0.5, 0.2), "upper"),
        (lambda: nn.ELU("0.5"), "alpha"),  # type: ignore[arg-type]
    ],
)
def test_refused_arguments(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        build()
