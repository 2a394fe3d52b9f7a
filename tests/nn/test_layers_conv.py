"""Convolutions as layers: PyTorch's, in both modes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from nn_layers import Build, check_layer, check_modes, check_signature, drawn

import dualgrad as dg
from dualgrad import nn
from dualgrad.runtime.errors import ArgumentError

SHAPES = {1: (2, 4, 9), 2: (2, 4, 7, 6), 3: (1, 4, 5, 4, 5)}

CONVOLUTIONS: list[tuple[int, Build]] = [
    (1, lambda nn: nn.Conv1d(4, 6, 3)),
    (1, lambda nn: nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2)),
    (1, lambda nn: nn.Conv1d(4, 5, 4, padding="same", dilation=2)),
    (1, lambda nn: nn.Conv1d(4, 5, 4, padding="same", padding_mode="circular")),
    (1, lambda nn: nn.Conv1d(4, 5, 2, padding="valid", padding_mode="reflect")),
    (2, lambda nn: nn.Conv2d(4, 6, 3, bias=False)),
    (2, lambda nn: nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2))),
    (2, lambda nn: nn.Conv2d(4, 8, 3, padding="same", groups=4)),
    (2, lambda nn: nn.Conv2d(4, 3, 3, padding=(2, 1), padding_mode="reflect")),
    (2, lambda nn: nn.Conv2d(4, 3, (2, 3), padding=1, padding_mode="replicate", stride=2)),
    (2, lambda nn: nn.Conv2d(4, 3, (2, 3), padding="same", padding_mode="circular")),
    (3, lambda nn: nn.Conv3d(4, 2, 3, padding=1)),
    (3, lambda nn: nn.Conv3d(4, 2, (1, 2, 3), stride=(1, 2, 1), groups=2)),
    (3, lambda nn: nn.Conv3d(4, 2, 2, padding="same", padding_mode="replicate")),
    (1, lambda nn: nn.ConvTranspose1d(4, 6, 3)),
    (1, lambda nn: nn.ConvTranspose1d(4, 6, 3, stride=2, output_padding=1, groups=2)),
    (2, lambda nn: nn.ConvTranspose2d(4, 6, 3, padding=1, bias=False)),
    (2, lambda nn: nn.ConvTranspose2d(4, 6, (2, 3), (3, 2), (1, 0), (1, 0), dilation=2)),
    (3, lambda nn: nn.ConvTranspose3d(4, 2, (1, 2, 3), stride=2, groups=2)),
]

NAMES = [f"Conv{kind}{rank}d" for kind in ("", "Transpose") for rank in (1, 2, 3)]


@pytest.mark.parametrize(
    ("rank", "build"), CONVOLUTIONS, ids=[repr(build(nn)) for _, build in CONVOLUTIONS]
)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_as_pytorch(rank: int, build: Build) -> None:
    check_layer(build, drawn(*SHAPES[rank]))


@pytest.mark.parametrize(("rank", "build"), [CONVOLUTIONS[k] for k in (3, 8, 13, 15, 18)])
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_without_a_batch(rank: int, build: Build) -> None:
    check_layer(build, drawn(*SHAPES[rank][1:]))


@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_pytorchs(name: str) -> None:
    check_signature(name)


def windows(x: Any, weight: Any) -> Any:
    """The convolution of x [N, C, H, W] with weight [O, C, KH, KW], in float64."""
    views = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], (2, 3))
    return np.einsum("nchwij,ocij->nohw", views, weight)


def test_known_values() -> None:
    layer, x = nn.Conv2d(3, 4, 3, padding=1, padding_mode="replicate"), drawn(2, 3, 5, 4)
    weight, bias = (p.detach().numpy().astype(np.float64) for p in layer.parameters())
    padded = np.pad(x, [(0, 0), (0, 0), (1, 1), (1, 1)], "edge").astype(np.float64)
    want = windows(padded, weight) + bias[:, None, None]
    found = check_modes(layer, x)["output 0"].numpy()
    np.testing.assert_allclose(found, want, rtol=0, atol=2e-6)


def test_a_transpose_is_the_adjoint() -> None:
    """<conv(x), y> == <x, transpose(y)> for the same weight."""
    conv = nn.Conv2d(3, 4, (3, 2), stride=2, padding=1, bias=False)
    back = nn.ConvTranspose2d(4, 3, (3, 2), stride=2, padding=1, output_padding=(0, 1), bias=False)
    back.load_state_dict(conv.state_dict())
    x, y = dg.tensor(drawn(2, 3, 7, 5)), dg.tensor(drawn(2, 4, 4, 3))
    left, right = (conv(x) * y).sum(), (x * back(y)[..., :7, :5]).sum()
    assert left.item() == pytest.approx(right.item(), rel=1e-5)


@pytest.mark.parametrize("size", [(9, 11), (10, 12), (2, 6, 10, 11)])
def test_chosen_output_size(size: tuple[int, ...]) -> None:
    torch = pytest.importorskip("torch")
    theirs, ours = (m.ConvTranspose2d(4, 6, 3, stride=2, padding=1) for m in (torch.nn, nn))
    ours.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    x = drawn(2, 4, 5, 6)
    want = theirs(torch.tensor(x), output_size=size).detach().numpy()
    forward = dg.function(lambda x: ours(x, output_size=size), strict=True)
    np.testing.assert_allclose(forward(dg.tensor(x)).detach().numpy(), want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(8, 10), (10, 13), (10,), (4, 10, 11)])
def test_impossible_output_size(size: tuple[int, ...]) -> None:
    layer = nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1)
    with pytest.raises(ArgumentError, match=r"from \(9, 11\) to \(10, 12\)"):
        layer(dg.zeros(2, 4, 5, 6), output_size=size)


@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [
        (lambda: nn.Conv2d(32, 64, 5), 32 * 25),
        (lambda: nn.Conv2d(32, 64, 5, groups=4), 8 * 25),
        (lambda: nn.ConvTranspose2d(64, 32, 5), 32 * 25),
    ],
)
def test_initial_values(layer: Callable[[], Any], fan_in: int) -> None:
    """Uniform in +-1 / sqrt(fan_in): by its ends and its variance."""
    made = layer()
    bound = 1 / math.sqrt(fan_in)
    weight = made.weight.detach().numpy()
    assert abs(weight).max() <= bound
    assert abs(weight).max() > 0.99 * bound
    assert weight.var() == pytest.approx(bound**2 / 3, rel=0.05)
    assert abs(made.bias.detach().numpy()).max() <= bound
    before = weight.copy()
    made.reset_parameters()
    assert (made.weight.detach().numpy() != before).mean() > 0.99


@pytest.mark.parametrize("dtype", [dg.float16, dg.bfloat16, dg.float64])
def test_other_floats(dtype: dg.DType) -> None:
    layer = nn.Conv2d(3, 2, 3, padding=1, padding_mode="circular", dtype=dtype)
    x = dg.tensor(drawn(1, 3, 4, 4)).to(dtype)
    found = layer(x)
    assert found.dtype is dtype
    exact = layer.to(dg.float64)(x.to(dg.float64)).detach().numpy()
    precision = {dg.float16: 2**-10, dg.bfloat16: 2**-7, dg.float64: 1e-15}[dtype]
    np.testing.assert_allclose(
        found.to(dg.float64).detach().numpy(), exact, rtol=0, atol=2 * precision * abs(exact).max()
    )


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: nn.Conv2d(3, 4, 3, groups=2), "groups does not divide"),
        (lambda: nn.Conv2d(3, 4, 3, groups=0), "groups=0"),
        (lambda: nn.Conv2d(-1, 4, 3), "in_channels=-1"),
        (lambda: nn.Conv2d(3, 4, (3, 3, 3)), "kernel_size does not fit"),
        (lambda: nn.Conv2d(3, 4, 3, padding=-1), "padding does not fit"),
        (lambda: nn.Conv2d(3, 4, 3, padding="full"), "no such padding"),
        (lambda: nn.Conv2d(3, 4, 3, padding="same", stride=2), "'same' has no meaning"),
        (lambda: nn.Conv2d(3, 4, 3, padding_mode="mirror"), "no such padding mode"),
        (lambda: nn.ConvTranspose2d(3, 4, 3, padding_mode="reflect"), "no such padding mode"),
    ],
)
def test_refused_arguments(build: Callable[[], Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        build()


def test_sizes_may_vary_without_more_than_one_more_trace() -> None:
    layer = nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")
    forward = dg.function(lambda x: layer(x), strict=True)
    for n in (1, 2, 3, 5):
        x = dg.tensor(drawn(n, 3, 4 + n, 6))
        np.testing.assert_array_equal(forward(x).detach().numpy(), layer(x).detach().numpy())
    assert forward.n_traces <= 3
