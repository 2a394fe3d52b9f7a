"""Channels last between convolutions: the bits of eager mode, and kernels that show the layout."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dualgrad as dg
from dualgrad import functional as F
from dualgrad import nn

X, MIDDLE, LAST = (3, 4, 12, 11), 18, 20


def weights(*shape: int) -> Any:
    rng = np.random.default_rng(shape[0])
    return dg.tensor(rng.standard_normal(shape).astype(np.float32), requires_grad=True)


def pooled(x: Any, w: Any, v: Any, b: Any) -> Any:
    return F.conv2d(F.max_pool2d(F.relu(F.conv2d(x, w, b)), 2), v)


def padded(x: Any, w: Any, v: Any, b: Any) -> Any:
    x = F.gelu(F.conv2d(x, w, b, padding=1))
    return F.avg_pool2d(F.relu(F.conv2d(x, v, stride=2, padding=2)), 3, 2, 1)


def residual(x: Any, w: Any, v: Any, b: Any) -> Any:
    x = F.conv2d(x, w, b, padding=1)
    y = F.conv2d(F.relu(x), v[:MIDDLE], padding="same")
    return F.relu(x + y * 0.5).mean((2, 3))


def flattened(x: Any, w: Any, v: Any, b: Any) -> Any:
    x = F.max_pool2d(F.conv2d(F.tanh(F.conv2d(x, w, b)), v), 3, 2, 1)
    return x.reshape(x.shape[0], -1) @ x.reshape(x.shape[0], -1).T


def mixed(x: Any, w: Any, v: Any, b: Any) -> Any:
    y = F.conv2d(F.relu(F.conv2d(x, w, b)), v)
    y = y + F.conv2d(x, w[:, :, :1, :1], stride=2)[:, :1, :1, :1]
    return F.softmax(y, 1) * y.std((0, 2, 3)).reshape(1, LAST, 1, 1)


NETWORKS: list[Callable[..., Any]] = [pooled, padded, residual, flattened, mixed]


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("channels", [4, 1])
def test_forward_and_gradients_have_the_bits_of_eager_mode(
    network: Callable[..., Any], channels: int
) -> None:
    rng = np.random.default_rng(channels)
    x = dg.tensor(rng.standard_normal((3, channels, 12, 11)).astype(np.float32), requires_grad=True)
    parameters = weights(MIDDLE, channels, 3, 3), weights(LAST, MIDDLE, 3, 3), weights(MIDDLE)

    def step(x: Any, *parameters: Any) -> tuple[Any, ...]:
        out = network(x, *parameters)
        return out, *dg.autograd.grad((out * out).sum(), (x, *parameters))

    compiled = dg.function(step)
    for ours, theirs in zip(compiled(x, *parameters), step(x, *parameters), strict=True):
        assert np.array_equal(ours.detach().numpy(), theirs.detach().numpy(), equal_nan=True)
        assert np.array_equal(
            np.signbit(ours.detach().numpy()), np.signbit(theirs.detach().numpy())
        )


def contractions(f: Any) -> list[tuple[str, str]]:
    return re.findall(r"contract b < \d+, i < (\d+), j < (\d+) over", f.ir())


def test_between_convolutions_channels_are_last() -> None:
    x, w, v = dg.ones(3, 4, 12, 11), dg.ones(MIDDLE, 4, 3, 3), dg.ones(LAST, MIDDLE, 3, 3)
    f = dg.function(lambda x, w, v: F.relu(F.conv2d(F.relu(F.conv2d(x, w)), v)).sum((0, 2, 3)))
    f(x, w, v)
    assert contractions(f) == [("90", "18"), ("56", "20")]


@pytest.mark.parametrize(
    ("channels", "outputs", "stride", "kernels"),
    [(32, 64, 1, "64, 1"), (128, 64, 2, "64, 1"), (64, 512, 1, "1, 576")],
)
def test_a_convolution_with_much_work_has_channels_last(
    channels: int, outputs: int, stride: int, kernels: str
) -> None:
    """Kernels that no cache holds are read in the order that they have."""
    rng = np.random.default_rng(outputs)
    x = rng.standard_normal((2, channels, 7, 6)).astype(np.float32)
    w = rng.standard_normal((outputs, channels, 3, 3)).astype(np.float32)

    def forward(x: Any, w: Any) -> Any:
        return F.conv2d(x, w, stride=stride, padding=1)

    def backward(x: Any, w: Any) -> Any:
        x.requires_grad = True
        y = forward(x, w)
        return dg.autograd.grad((y * y.detach()).sum(), [x])[0]

    f, g = dg.function(forward), dg.function(backward)
    y, dx = f(dg.tensor(x), dg.tensor(w)).numpy(), g(dg.tensor(x), dg.tensor(w)).numpy()
    assert np.array_equal(y, forward(dg.tensor(x), dg.tensor(w)).numpy())
    assert np.array_equal(dx, backward(dg.tensor(x), dg.tensor(w)).numpy())
    taps = np.lib.stride_tricks.sliding_window_view(
        np.pad(x.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1))), (3, 3), (2, 3)
    )[:, :, ::stride, ::stride]
    expected = np.einsum("nchwij,ocij->nohw", taps, w.astype(np.float64))
    assert np.abs(y - expected).max() < 1e-4 * np.abs(expected).max()
    assert contractions(f) == [(str(y[0, 0].size), str(outputs))]
    assert f"[0; 0, {kernels}]" in f.ir()


def test_a_convolution_with_little_work_stays_as_the_user_has_it() -> None:
    x, w = dg.ones(3, 4, 12, 11), dg.ones(MIDDLE, 4, 3, 3)
    f = dg.function(lambda x, w: F.relu(F.conv2d(x, w)))
    f(x, w)
    assert contractions(f) == [("18", "90")]


def test_where_most_would_be_copied_nothing_changes() -> None:
    x, w, v = dg.ones(3, 4, 12, 11), dg.ones(MIDDLE, 4, 3, 3), dg.ones(LAST, MIDDLE, 3, 3)

    def network(x: Any, w: Any, v: Any) -> Any:
        y = F.conv2d(x, w)
        return F.conv2d(y, v), y, y.sum(3)

    f = dg.function(network)
    f(x, w, v)
    assert contractions(f) == [("18", "90"), ("20", "56")]


def test_images_go_through_convolutions_one_by_one() -> None:
    rng = np.random.default_rng(0)
    x = dg.tensor(rng.standard_normal((4, 1, 20, 19)).astype(np.float32))
    w, v, b = weights(MIDDLE, 1, 3, 3), weights(LAST, MIDDLE, 3, 3), weights(MIDDLE)

    def step(x: Any, *parameters: Any) -> tuple[Any, ...]:
        w, v, b = parameters
        y = F.relu(F.conv2d(F.max_pool2d(F.relu(F.conv2d(x, w, b)), 2, 1), v))
        return y.sum(), *dg.autograd.grad((y * y).sum(), parameters)

    f = dg.function(step)
    for ours, theirs in zip(f(x, w, v, b), step(x, w, v, b), strict=True):
        assert np.array_equal(ours.detach().numpy(), theirs.detach().numpy())
    strips = re.findall(r"strip (\d+)\.\.(\d+) of 4 items: .*, tables of", f.ir())
    ((first, last),) = strips  # forwards and backwards
    assert int(last) - int(first) > 8


def test_training_of_layers_keeps_the_bits_at_any_number_of_images() -> None:
    def losses(compiled: bool) -> list[float]:
        dg.manual_seed(3)
        model = nn.Sequential(
            nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 16, 1), nn.ReLU(),
            nn.Conv2d(16, 8, 3), nn.Flatten(), nn.Linear(72, 3),
        )  # fmt: skip
        optimizer = dg.optim.SGD(model.parameters(), lr=0.1)

        def step(x: Any) -> Any:
            optimizer.zero_grad()
            loss = model(x).pow(2).mean()
            loss.backward()
            optimizer.step()
            return loss

        run = dg.function(step) if compiled else step
        images = dg.randn(6, 1, 12, 12)
        return [float(run(images[:count])) for count in (4, 6, 5, 4)]

    assert losses(True) == losses(False)
