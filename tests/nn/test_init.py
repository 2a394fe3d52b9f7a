"""Initial values beyond the uniform and normal ones, by the laws that define them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import as_array

import dualgrad as dg
from dualgrad.nn import init
from dualgrad.random import Generator
from dualgrad.runtime.dtype import DType
from dualgrad.runtime.errors import ArgumentError, ShapeError

ROUNDING = {dg.float64: 1e-14, dg.float32: 2e-6, dg.float16: 5e-3, dg.bfloat16: 4e-2}


def flat(tensor: dg.Tensor) -> Any:
    array = as_array(tensor.to(dg.float64))
    return array.reshape(len(array), -1)


@pytest.mark.parametrize("dtype", list(ROUNDING), ids=str)
@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (4, 2, 3, 3), (1, 6)])
def test_orthogonal_rows_or_columns(shape: tuple[int, ...], dtype: DType) -> None:
    dg.seed(4)
    target = dg.empty(*shape, dtype=dtype)
    assert init.orthogonal_(target, gain=1.5) is target
    m = flat(target)
    product = m @ m.T if m.shape[0] <= m.shape[1] else m.T @ m
    np.testing.assert_allclose(product, 2.25 * np.eye(len(product)), atol=2.25 * ROUNDING[dtype])


def test_orthogonal_matrices_are_equally_likely() -> None:
    """Entries of a uniform orthogonal matrix have mean 0 and variance 1 / n, also the diagonal
    (where a bare QR factorization has one sign)."""
    dg.seed(4)
    drawn = np.array([flat(init.orthogonal_(dg.empty(3, 3))) for _ in range(400)])
    assert np.abs(drawn.mean(0)).max() < 5 * math.sqrt(1 / 3 / 400)
    assert np.abs((drawn**2).mean(0) - 1 / 3).max() < 5 * math.sqrt(4 / 45 / 400)


def moments(a: float, b: float) -> tuple[float, float]:
    """Mean and variance of the standard normal law on a <= x <= b, by its textbook formula."""

    def density(x: float) -> float:
        return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)

    mass = (math.erf(b / math.sqrt(2)) - math.erf(a / math.sqrt(2))) / 2
    mean = (density(a) - density(b)) / mass
    return mean, 1 + (a * density(a) - b * density(b)) / mass - mean**2


@pytest.mark.parametrize(
    ("mean", "std", "a", "b"), [(0.0, 1.0, -2.0, 2.0), (1.0, 2.0, -1.0, 2.0), (0.0, 1.0, 2.5, 4.0)]
)
def test_truncated_normal_numbers(mean: float, std: float, a: float, b: float) -> None:
    dg.seed(4)
    x = flat(init.trunc_normal_(dg.empty(300, 200), mean, std, a, b))
    assert a <= x.min() < x.max() <= b
    m, v = moments((a - mean) / std, (b - mean) / std)
    assert abs(x.mean() - (mean + std * m)) < 5 * std * math.sqrt(v / x.size)
    assert x.var() == pytest.approx(std**2 * v, rel=0.03)


def test_truncated_normal_numbers_of_16_bits_stay_inside() -> None:
    dg.seed(4)
    x = init.trunc_normal_(dg.empty(100, 100, dtype=dg.bfloat16), 0.0, 1.0, -0.5, 0.5)
    assert x.dtype is dg.bfloat16
    assert np.abs(flat(x)).max() <= 0.5


@pytest.mark.parametrize("shape", [(4, 3, 3), (4, 4, 2, 5), (6, 3, 3, 3, 3)])
@pytest.mark.parametrize("groups", [1, 2])
def test_dirac_kernels_give_channels_back(shape: tuple[int, ...], groups: int) -> None:
    """Convolved, output channel k of a group is input channel k of it, or 0."""
    kernel = init.dirac_(dg.empty(*shape), groups)
    outputs, inputs, *sizes = shape
    x = dg.randn(2, inputs * groups, *(7 for _ in sizes))
    conv = {3: dg.functional.conv1d, 4: dg.functional.conv2d, 5: dg.functional.conv3d}[len(shape)]
    padded = dg.functional.pad(x, [p for n in reversed(sizes) for p in (n // 2, n - 1 - n // 2)])
    out = as_array(conv(padded, kernel, groups=groups))
    each = outputs // groups
    for g in range(groups):
        for k in range(each):
            given = as_array(x)[:, g * inputs + k] if k < inputs else 0 * as_array(x)[:, 0]
            np.testing.assert_array_equal(out[:, g * each + k], given)


def test_dirac_and_eye_as_pytorch() -> None:
    theirs = pytest.importorskip("torch")
    for shape, groups in (((4, 3, 3), 1), ((4, 2, 3, 4), 2), ((6, 3, 2, 3, 3), 3)):
        want = theirs.nn.init.dirac_(theirs.empty(shape), groups).numpy()
        assert np.array_equal(as_array(init.dirac_(dg.empty(*shape), groups)), want)
    want = theirs.nn.init.eye_(theirs.empty(2, 3)).numpy()
    assert np.array_equal(as_array(init.eye_(dg.empty(2, 3))), want)


@pytest.mark.parametrize(("sparsity", "zeros"), [(0.0, 0), (0.25, 3), (0.9, 9), (1.0, 10)])
def test_sparse_columns(sparsity: float, zeros: int) -> None:
    dg.seed(4)
    x = flat(init.sparse_(dg.empty(10, 400), sparsity, std=0.5))
    assert ((x == 0).sum(0) == zeros).all()
    if zeros < 10:
        left = x[x != 0]
        assert abs(left.std() - 0.5) < 5 * 0.5 / math.sqrt(2 * left.size)
        share = (x == 0).mean(1)
        assert np.abs(share - zeros / 10).max() < 5 * math.sqrt(0.25 / 400)


@pytest.mark.parametrize(
    "fill",
    [
        init.uniform_,
        init.normal_,
        init.trunc_normal_,
        init.xavier_uniform_,
        init.xavier_normal_,
        init.kaiming_uniform_,
        init.kaiming_normal_,
        init.orthogonal_,
        lambda t, generator: init.sparse_(t, 0.5, generator=generator),
    ],
)
def test_a_generator_decides(fill: Callable[..., dg.Tensor]) -> None:
    def drawn(seed: int) -> list[Any]:
        found: list[Any] = flat(fill(dg.empty(4, 4), generator=Generator(seed))).tolist()
        return found

    before = dg.get_rng_state().tolist()
    assert drawn(1) == drawn(1) != drawn(2)
    assert dg.get_rng_state().tolist() == before


@pytest.mark.parametrize("name", ["conv1d", "conv2d", "conv3d", "conv_transpose2d"])
def test_gains_of_convolutions(name: str) -> None:
    assert init.calculate_gain(name) == 1.0


def test_filled_tensors_have_no_gradient_of_it() -> None:
    weight = dg.nn.Parameter(dg.empty(3, 3))
    for fill in (init.orthogonal_, init.eye_, init.trunc_normal_):
        fill(weight)
        assert weight.requires_grad
        assert weight.grad_fn is None


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: init.orthogonal_(dg.zeros(3)), ShapeError, "2 or more dimensions"),
        (lambda: init.eye_(dg.zeros(2, 2, 2)), ShapeError, "2 dimensions"),
        (lambda: init.dirac_(dg.zeros(2, 2)), ShapeError, "3 to 5 dimensions"),
        (lambda: init.dirac_(dg.zeros(3, 2, 2), groups=2), ShapeError, "groups=2"),
        (lambda: init.sparse_(dg.zeros(2, 2), 1.5), ArgumentError, "sparsity"),
        (lambda: init.trunc_normal_(dg.zeros(2), a=2.0, b=1.0), ArgumentError, "2.0 < b"),
        (lambda: init.trunc_normal_(dg.zeros(2), std=0.0), ArgumentError, "std"),
    ],
)
def test_refused(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()
