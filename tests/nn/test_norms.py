"""Layers that normalise: values, gradients, state and printed form as PyTorch's, in both modes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import as_array, same_bits

import dualgrad as dg
from dualgrad import nn
from dualgrad.runtime.dtype import DType
from dualgrad.runtime.errors import ArgumentError, ShapeError

Make = Callable[[Any], Any]
TOLERANCE = {dg.float32: 4e-6, dg.float64: 1e-13, dg.float16: 6e-3, dg.bfloat16: 4e-2}

CASES: list[tuple[Make, tuple[int, ...]]] = [
    (lambda nn: nn.BatchNorm1d(6), (5, 6)),
    (lambda nn: nn.BatchNorm1d(6, momentum=None), (5, 6, 4)),
    (lambda nn: nn.BatchNorm1d(6, affine=False, eps=0.1), (5, 6)),
    (lambda nn: nn.BatchNorm1d(6, track_running_stats=False), (5, 6, 3)),
    (lambda nn: nn.BatchNorm2d(6, 1e-3, 0.3), (2, 6, 3, 4)),
    (lambda nn: nn.BatchNorm2d(6, bias=False), (2, 6, 3, 4)),
    (lambda nn: nn.BatchNorm3d(6), (2, 6, 2, 3, 2)),
    (lambda nn: nn.InstanceNorm1d(6), (3, 6, 5)),
    (lambda nn: nn.InstanceNorm1d(6, affine=True, track_running_stats=True), (3, 6, 5)),
    (lambda nn: nn.InstanceNorm2d(6, affine=True, bias=False), (2, 6, 3, 4)),
    (lambda nn: nn.InstanceNorm2d(6, momentum=None, track_running_stats=True), (2, 6, 3, 4)),
    (lambda nn: nn.InstanceNorm2d(6, affine=True), (6, 3, 4)),
    (lambda nn: nn.InstanceNorm3d(6, momentum=0.4, track_running_stats=True), (2, 6, 2, 3, 2)),
    (lambda nn: nn.LayerNorm(6), (4, 6)),
    (lambda nn: nn.LayerNorm([3, 4], eps=0.01), (2, 5, 3, 4)),
    (lambda nn: nn.LayerNorm((6,), bias=False), (4, 6)),
    (lambda nn: nn.LayerNorm(6, elementwise_affine=False), (2, 3, 6)),
    (lambda nn: nn.RMSNorm(6), (4, 6)),
    (lambda nn: nn.RMSNorm((3, 4), 1e-6, elementwise_affine=False), (2, 5, 3, 4)),
    (lambda nn: nn.GroupNorm(3, 6), (2, 6, 5)),
    (lambda nn: nn.GroupNorm(2, 6, bias=False), (2, 6, 3, 4)),
    (lambda nn: nn.GroupNorm(1, 6, 0.1, affine=False), (4, 6)),
    (lambda nn: nn.LocalResponseNorm(3, 0.3, 0.6, 1.2), (2, 7, 5)),
    (lambda nn: nn.LocalResponseNorm(4), (2, 7, 5, 2)),
]
NAMES = [f"{k}-{make(nn)!r}" for k, (make, _) in enumerate(CASES)]
cases = pytest.mark.parametrize(("make", "shape"), CASES, ids=NAMES)


def draw(shape: tuple[int, ...], k: int) -> Any:
    """Numbers whose mean is not 0."""
    return np.random.default_rng(k).normal(0.5, 2.0, shape)


def prepared(layer: Any, dtype: DType) -> Any:
    """The layer in a dtype, with drawn weights and biases."""
    layer.to(dtype)
    with dg.no_grad():
        for k, p in enumerate(layer.parameters()):
            p.copy_(dg.from_numpy(1.0 + 0.2 * draw(tuple(p.shape), 90 + k)).to(dtype))
    return layer


def run(layer: Any, dtype: DType, shape: tuple[int, ...], call: Callable[..., Any]) -> list[Any]:
    """Outputs, gradients and buffers of four batches: training, evaluation, and both again."""
    found = []
    for k, training in enumerate([True, True, False, True, False]):
        layer.train(training)
        layer.zero_grad()
        x = dg.from_numpy(draw(shape, k)).to(dtype).requires_grad_()
        out = call(x)
        (out * dg.from_numpy(draw(shape, 40 + k)).to(dtype)).sum().backward()
        assert out.dtype is dtype
        grads = [p.grad for p in layer.parameters()]
        found += [out, x.grad, *grads, *(b.clone() for b in layer.buffers())]
    return [as_array(t) for t in found]


def torch_run(torch: Any, layer: Any, dtype: DType, shape: tuple[int, ...]) -> list[Any]:
    """The same with PyTorch, computed in float64 from numbers rounded to the dtype."""

    def rounded(a: Any) -> Any:
        return torch.from_numpy(as_array(dg.from_numpy(a).to(dtype).to(dg.float64)))

    layer.double()
    found = []
    for k, training in enumerate([True, True, False, True, False]):
        layer.train(training)
        layer.zero_grad()
        x = rounded(draw(shape, k)).requires_grad_()
        out = layer(x)
        (out * rounded(draw(shape, 40 + k))).sum().backward()
        grads = [p.grad for p in layer.parameters()]
        found += [out, x.grad, *grads, *(b.clone() for b in layer.buffers())]
    return [t.detach().numpy() for t in found]


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@cases
def test_as_pytorch(make: Make, shape: tuple[int, ...], dtype: DType) -> None:
    torch = pytest.importorskip("torch")
    layer = prepared(make(nn), dtype)
    theirs = make(torch.nn)
    state = {name: as_array(t.to(dg.float64)) for name, t in layer.state_dict().items()}
    theirs.double().load_state_dict({name: torch.from_numpy(a) for name, a in state.items()})
    if isinstance(layer, nn.RMSNorm) and layer.eps is None:
        theirs.eps = float(np.finfo(np.float64 if dtype is dg.float64 else np.float32).eps)
        if dtype.is_low:
            pytest.skip("the default epsilon of 16-bit floats is that of their computation")
    got = run(layer, dtype, shape, layer)
    want = torch_run(torch, theirs, dtype, shape)
    for g, w in zip(got, want, strict=True):
        scale = max(1.0, float(np.abs(w).max()))
        np.testing.assert_allclose(g.astype(np.float64), w, rtol=0, atol=TOLERANCE[dtype] * scale)


@cases
def test_text_and_state_as_pytorch(make: Make, shape: tuple[int, ...]) -> None:
    torch_nn = pytest.importorskip("torch.nn")
    layer, theirs = make(nn), make(torch_nn)
    assert repr(layer) == repr(theirs)
    ours = [(name, tuple(t.shape), as_array(t).tolist()) for name, t in layer.state_dict().items()]
    assert ours == [(n, tuple(t.shape), t.tolist()) for n, t in theirs.state_dict().items()]
    assert [n for n, _ in layer.named_parameters()] == [n for n, _ in theirs.named_parameters()]


@pytest.mark.parametrize("dtype", [dg.float32, dg.bfloat16], ids=str)
@cases
def test_both_modes_give_the_same_bits(make: Make, shape: tuple[int, ...], dtype: DType) -> None:
    """Training and evaluation alternate; each is traced once."""
    eager, static = prepared(make(nn), dtype), prepared(make(nn), dtype)
    compiled = dg.function(static, strict=True)
    for g, w in zip(
        run(static, dtype, shape, compiled), run(eager, dtype, shape, eager), strict=True
    ):
        same_bits(g, w)
    assert compiled.n_traces <= 2


# -- by hand


@pytest.mark.parametrize("momentum", [0.1, 0.25, None])
def test_running_statistics_by_their_formula(momentum: float | None) -> None:
    layer = nn.BatchNorm1d(3, momentum=momentum, dtype=dg.float64)
    mean, var = np.zeros(3), np.ones(3)
    for k in range(5):
        x = draw((4, 3, 2), k)
        layer(dg.from_numpy(x))
        share = 1 / (k + 1) if momentum is None else momentum
        mean = (1 - share) * mean + share * x.mean((0, 2))
        var = (1 - share) * var + share * x.var((0, 2), ddof=1)
    np.testing.assert_allclose(as_array(layer.running_mean), mean, rtol=1e-13)
    np.testing.assert_allclose(as_array(layer.running_var), var, rtol=1e-13)
    assert layer.num_batches_tracked is not None
    assert layer.num_batches_tracked.item() == 5
    x = draw((4, 3), 9)
    expect = (x - mean) / np.sqrt(var + 1e-5)
    np.testing.assert_allclose(as_array(layer.eval()(dg.from_numpy(x))), expect, rtol=1e-12)
    assert layer.num_batches_tracked.item() == 5
    layer.reset_running_stats()
    assert [as_array(b).tolist() for b in layer.buffers()] == [[0, 0, 0], [1, 1, 1], 0]


def test_layer_norm_by_its_formula() -> None:
    x = draw((4, 6), 1)
    layer = prepared(nn.LayerNorm(6), dg.float64)
    w, b = (as_array(p) for p in layer.parameters())
    expect = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5) * w + b
    np.testing.assert_allclose(as_array(layer(dg.from_numpy(x))), expect, rtol=1e-12, atol=1e-13)
    layer = prepared(nn.RMSNorm(6, eps=0.01), dg.float64)
    (w,) = (as_array(p) for p in layer.parameters())
    expect = x / np.sqrt((x * x).mean(1, keepdims=True) + 0.01) * w
    np.testing.assert_allclose(as_array(layer(dg.from_numpy(x))), expect, rtol=1e-12)


def test_the_counter_keeps_its_dtype() -> None:
    layer = nn.BatchNorm2d(3).to(dg.bfloat16)
    assert layer.running_mean is not None
    assert layer.num_batches_tracked is not None
    assert layer.running_mean.dtype is dg.bfloat16
    assert layer.num_batches_tracked.dtype is dg.int64


def test_refused() -> None:
    with pytest.raises(ShapeError, match="BatchNorm2d"):
        nn.BatchNorm2d(3)(dg.zeros(2, 3, 4))
    with pytest.raises(ShapeError, match=r"2 or 3 dimensions"):
        nn.BatchNorm1d(3)(dg.zeros(2, 3, 4, 5))
    with pytest.raises(ShapeError, match="batch_norm"):
        nn.BatchNorm1d(3)(dg.zeros(2, 4))
    with pytest.raises(ShapeError, match="at least two numbers"):
        nn.BatchNorm1d(3)(dg.zeros(1, 3))
    with pytest.raises(ShapeError, match="4 channels"):
        nn.InstanceNorm1d(4, affine=True)(dg.zeros(2, 3, 5))
    with pytest.raises(ShapeError, match="normalized"):
        nn.LayerNorm(4)(dg.zeros(2, 3))
    for make in (
        lambda: nn.GroupNorm(4, 6),
        lambda: nn.GroupNorm(0, 6),
        lambda: nn.BatchNorm1d(-1),
        lambda: nn.InstanceNorm2d(2.0),  # type: ignore[arg-type]
        lambda: nn.LayerNorm((3, -1)),
        lambda: nn.RMSNorm(-1),
        lambda: nn.LocalResponseNorm(0),
    ):
        with pytest.raises(ArgumentError, match="Norm"):
            make()


def test_instance_norm_warns_of_a_number_of_channels_that_it_does_not_use() -> None:
    layer = nn.InstanceNorm1d(4)
    with pytest.warns(UserWarning, match="not used, as affine=False") as caught:
        layer(dg.zeros(2, 3, 5))
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(dg.zeros(2, 4, 5))


# -- folded into the layer before


def fused_cases() -> list[tuple[Any, Any, Callable[[Any, Any], Any], tuple[int, ...]]]:
    conv, linear = nn.utils.fuse_conv_bn_eval, nn.utils.fuse_linear_bn_eval
    return [
        (nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), conv, (2, 3, 6, 5)),
        (nn.Conv1d(4, 6, 2, groups=2, bias=False), nn.BatchNorm1d(6), conv, (2, 4, 7)),
        (nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, affine=False), conv, (2, 3, 6, 5)),
        (
            nn.ConvTranspose2d(3, 4, 2),
            nn.BatchNorm2d(4, bias=False),
            lambda a, b: conv(a, b, transpose=True),
            (2, 3, 4, 4),
        ),
        (nn.Linear(3, 4), nn.BatchNorm1d(4), linear, (5, 3)),
    ]


@pytest.mark.parametrize("k", range(5))
def test_folded_into_the_layer_before(k: int) -> None:
    dg.seed(k)
    layer, norm, fuse, shape = fused_cases()[k]
    prepared(norm, dg.float64)
    layer.to(dg.float64)
    x = dg.from_numpy(draw(shape, 5))
    norm(layer(x))
    with pytest.raises(ArgumentError, match="cannot be made one"):
        fuse(layer, norm)
    layer.eval()
    norm.eval()
    weight = as_array(layer.weight).copy()
    one = fuse(layer, norm)
    assert type(one) is type(layer)
    np.testing.assert_allclose(as_array(one(x)), as_array(norm(layer(x))), rtol=1e-11, atol=1e-12)
    np.testing.assert_array_equal(as_array(layer.weight), weight)
    with pytest.raises(ArgumentError, match="statistics"):
        fuse(layer, type(norm)(norm.num_features, track_running_stats=False).eval())
