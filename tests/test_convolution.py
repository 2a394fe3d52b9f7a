"""Convolution and pooling, with gradients: PyTorch in float64, and equal bits in both modes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dualgrad as dg
import dualgrad.nn.functional as F

torch = pytest.importorskip("torch")

Array = np.ndarray[Any, Any]

# images, channels, height, width, outputs, kernel, stride, padding, dilation, groups
CONVOLUTIONS = [
    (2, 4, 20, 21, 33, 3, 1, 0, 1, 1),  # several panels of filters, two blocks of K
    (2, 5, 9, 8, 3, 3, 2, 1, 1, 1),
    (1, 60, 6, 5, 4, 3, 1, 1, 1, 1),  # more than one block of K in the forward sum
    (2, 3, 7, 7, 1, 3, 1, 3, 1, 1),  # padding beyond the kernel
    (2, 3, 5, 5, 2, 1, 1, 0, 1, 1),
    (2, 6, 9, 8, 12, 3, 1, 2, 2, 3),
    (2, 6, 9, 8, 12, 3, 2, 1, 1, 6),
]
# with an output padding before the dilation
TRANSPOSED = [
    (2, 4, 5, 6, 3, 3, 1, 1, 0, 1, 1),
    (2, 4, 5, 6, 6, 3, 1, 2, 1, 2, 2),
    (2, 4, 5, 6, 3, 3, 2, 0, 1, 1, 1),
]
# height, width, kernel, stride, padding, ceil mode
POOLS = [
    (11, 7, 2, 2, 0, False),
    (9, 9, 3, 2, 1, True),
    (8, 9, 3, 1, 1, False),
    (9, 10, 2, 3, 1, False),
    (20, 15, 5, 5, 0, False),  # too many places for a formula
]


def check(function: Callable[..., Any], reference: Callable[..., Any], *arrays: Array) -> None:
    """Values and gradients of a sum of cubes, against a reference; static against eager."""

    def step(*xs: Any) -> tuple[Any, ...]:
        leaves = [x.detach().requires_grad_() for x in xs]
        y = function(*leaves)
        (y * y * y).sum().backward()
        return (y.detach(), *(x.grad for x in leaves))

    given = [dg.tensor(x) for x in arrays]
    eager = [x.numpy() for x in step(*given)]
    static = [x.numpy() for x in dg.function(step)(*given)]
    leaves = [torch.tensor(x).double().requires_grad_() for x in arrays]
    y = reference(*leaves)
    (y * y * y).sum().backward()
    for found, same, exact in zip(eager, static, [y, *(x.grad for x in leaves)], strict=True):
        assert np.array_equal(found.view(np.int32), same.view(np.int32))
        wanted = exact.detach().numpy()
        assert np.allclose(found, wanted, rtol=0, atol=3e-6 * max(abs(wanted).max(), 1.0))


def normal(*shapes: tuple[int, ...]) -> list[Array]:
    rng = np.random.default_rng(sum(map(sum, shapes)))
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_convolution(case: tuple[int, ...]) -> None:
    n, c, h, w, outputs, k, stride, padding, dilation, groups = case
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    check(
        lambda x, w, b: F.conv2d(x, w, b, **options),
        lambda x, w, b: torch.nn.functional.conv2d(x, w, b, **options),
        *normal((n, c, h, w), (outputs, c // groups, k, k), (outputs,)),
    )


@pytest.mark.parametrize("case", TRANSPOSED, ids=str)
def test_transposed_convolution(case: tuple[int, ...]) -> None:
    n, c, h, w, outputs, k, *rest = case
    names = ("stride", "padding", "output_padding", "dilation", "groups")
    options = dict(zip(names, rest, strict=True))
    check(
        lambda x, w, b: F.conv_transpose2d(x, w, b, **options),
        lambda x, w, b: torch.nn.functional.conv_transpose2d(x, w, b, **options),
        *normal((n, c, h, w), (c, outputs // options["groups"], k, k), (outputs,)),
    )


@pytest.mark.parametrize("case", POOLS, ids=str)
@pytest.mark.parametrize("name", ["max_pool2d", "avg_pool2d"])
def test_pooling(name: str, case: tuple[int, ...]) -> None:
    h, w, kernel, stride, padding, ceil = case
    options = {"stride": stride, "padding": padding, "ceil_mode": ceil}
    check(
        lambda x: getattr(F, name)(x, kernel, **options),
        lambda x: getattr(torch.nn.functional, name)(x, kernel, **options),
        *normal((2, 3, h, w)),
    )


def test_the_first_of_equal_elements_takes_the_gradient() -> None:
    x = dg.tensor(np.ones((1, 1, 4, 5), np.float32)).requires_grad_()
    F.max_pool2d(x, 2).sum().backward()
    expected = np.zeros((4, 5), np.float32)
    expected[::2, :4:2] = 1
    assert np.array_equal(x.grad.numpy()[0, 0], expected)
    again = dg.tensor(np.full((1, 1, 4, 5), np.nan, np.float32)).requires_grad_()
    F.max_pool2d(again, 2).sum().backward()
    assert np.array_equal(again.grad.numpy()[0, 0], expected)
