"""Recurrent layers and cells against torch, in both modes."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from module_pairs import check_pair, random

import dualgrad as dg
from dualgrad import nn
from dualgrad.runtime.errors import ArgumentError, ShapeError

T, N, INPUT, H = 4, 3, 5, 6
NAMES = ["RNN", "LSTM", "GRU"]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"bias": False, "batch_first": True},
    {"num_layers": 2, "bidirectional": True},
    {"num_layers": 3, "batch_first": True},
]
SPECIAL: list[tuple[str, dict[str, Any]]] = [
    ("RNN", {"nonlinearity": "relu", "num_layers": 2}),
    ("LSTM", {"proj_size": 4, "num_layers": 2, "bidirectional": True}),
    ("LSTM", {"proj_size": 2, "bias": False}),
]
CASES = [*itertools.product(NAMES, OPTIONS), *SPECIAL]


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch")


def pair(torch: Any, name: str, *sizes: int, dtype: str = "float64", **options: Any) -> Any:
    make = getattr(nn, name), getattr(torch.nn, name)
    dtypes = getattr(dg, dtype), getattr(torch, dtype)
    return [m(*sizes, **options, dtype=d) for m, d in zip(make, dtypes, strict=True)]


def states(name: str, options: dict[str, Any], batch: tuple[int, ...]) -> list[Any]:
    count = options.get("num_layers", 1) * (1 + options.get("bidirectional", False))
    sizes = (options.get("proj_size", 0) or H, H)[: 1 + (name == "LSTM")]
    return [random(count, *batch, size, seed=k) for k, size in enumerate(sizes)]


def call(module: Any, x: Any, *hx: Any) -> Any:
    """Run with the states that are given, if any."""
    return module(x, (hx if len(hx) > 1 else hx[0]) if hx else None)


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize(("name", "options"), CASES)
def test_layers(torch: Any, name: str, options: dict[str, Any], given: bool) -> None:
    ours, theirs = pair(torch, name, INPUT, H, **options)
    x = random(N, T, INPUT) if options.get("batch_first") else random(T, N, INPUT)
    hx = states(name, options, (N,)) if given else []
    check_pair(torch, ours, theirs, [x, *hx], call, "float64")


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_one_sequence(torch: Any, name: str, batch_first: bool) -> None:
    options = {"bidirectional": True, "batch_first": batch_first}
    ours, theirs = pair(torch, name, INPUT, H, dtype="float32", **options)
    check_pair(torch, ours, theirs, [random(T, INPUT), *states(name, options, ())], call)


@pytest.mark.parametrize("batch", [(), (N,)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_cells(torch: Any, name: str, given: bool, bias: bool, batch: tuple[int, ...]) -> None:
    ours, theirs = pair(torch, f"{name}Cell", INPUT, H, bias, dtype="float32")
    hx = [random(*batch, H, seed=k) for k in range(1 + (name == "LSTM"))] if given else []
    check_pair(torch, ours, theirs, [random(*batch, INPUT), *hx], call)


def test_cell_with_relu(torch: Any) -> None:
    ours, theirs = pair(torch, "RNNCell", INPUT, H, nonlinearity="relu", dtype="float32")
    check_pair(torch, ours, theirs, [random(N, INPUT), random(N, H)], call)


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_is_its_cell_step_by_step(name: str) -> None:
    layer, cell = getattr(nn, name)(INPUT, H), getattr(nn, f"{name}Cell")(INPUT, H)
    cell.load_state_dict({k[:-3]: v for k, v in layer.state_dict().items()})
    x, hx = dg.randn(T, N, INPUT), None
    outputs = []
    for step in x:
        hx = cell(step, hx)
        outputs.append(hx[0] if name == "LSTM" else hx)
    whole, last = layer(x)
    alone = dg.stack(outputs).detach().numpy()
    np.testing.assert_allclose(whole.detach().numpy(), alone, rtol=1e-5, atol=1e-6)
    last = last[0] if name == "LSTM" else last
    assert np.array_equal(last[0].detach().numpy(), whole[-1].detach().numpy())


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def test_lstm_by_its_formula() -> None:
    layer = nn.LSTM(INPUT, H, dtype=dg.float64)
    w, u, b, d = (p.detach().numpy() for p in layer.parameters())
    x = random(T, N, INPUT)
    h, c = np.zeros((N, H)), np.zeros((N, H))
    for step in x:
        i, f, g, o = np.split(step @ w.T + b + h @ u.T + d, 4, -1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
    _, (hidden, cell) = layer(dg.tensor(x))
    np.testing.assert_allclose(hidden[0].detach().numpy(), h, rtol=1e-12)
    np.testing.assert_allclose(cell[0].detach().numpy(), c, rtol=1e-12)


def test_gru_by_its_formula() -> None:
    layer = nn.GRU(INPUT, H, dtype=dg.float64, bidirectional=True)
    w, u, b, d = (p.detach().numpy() for p in layer.all_weights[1])
    x = random(T, N, INPUT)
    h = np.zeros((N, H))
    for step in x[::-1]:
        (xr, xz, xn), (hr, hz, hn) = (np.split(v, 3, -1) for v in (step @ w.T + b, h @ u.T + d))
        z = sigmoid(xz + hz)
        h = (1 - z) * np.tanh(xn + sigmoid(xr + hr) * hn) + z * h
    output, hidden = layer(dg.tensor(x))
    np.testing.assert_allclose(hidden[1].detach().numpy(), h, rtol=1e-12)
    np.testing.assert_allclose(output[0, :, H:].detach().numpy(), h, rtol=1e-12)


def test_dropout_between_layers() -> None:
    layer = nn.LSTM(INPUT, H, num_layers=2, dropout=0.5)
    x = dg.randn(T, N, INPUT)
    run = dg.function(lambda x: layer(x)[0], strict=True)
    dg.seed(3)
    eager = layer(x)[0].detach().numpy()
    dg.seed(3)
    assert np.array_equal(run(x).detach().numpy(), eager)
    assert not np.array_equal(layer(x)[0].detach().numpy(), eager)
    layer.eval()
    still = layer(x)[0].detach().numpy()
    assert np.array_equal(layer(x)[0].detach().numpy(), still)
    assert np.array_equal(run(x).detach().numpy(), still)
    with pytest.warns(UserWarning, match="there is one layer"):
        nn.GRU(INPUT, H, dropout=0.5)


def test_second_derivatives() -> None:
    layer = nn.GRU(2, 3, dtype=dg.float64)

    def value(x: dg.Tensor) -> dg.Tensor:
        return layer(x)[0]

    x = dg.tensor(random(3, 2, 2), requires_grad=True)
    assert dg.gradcheck(value, (x,))
    assert dg.gradgradcheck(value, (x,))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", NAMES)
def test_low_floats(name: str, dtype: str) -> None:
    layer = getattr(nn, name)(INPUT, H)
    x = dg.randn(T, N, INPUT)
    exact = layer(x)[0].detach().numpy()
    layer.to(getattr(dg, dtype))
    low = layer(x.to(getattr(dg, dtype)))[0]
    assert low.dtype is getattr(dg, dtype)
    np.testing.assert_allclose(low.detach().float().numpy(), exact, atol=0.02)


def test_lengths_each_compile_once() -> None:
    layer = nn.LSTM(INPUT, H)
    run = dg.function(lambda x: layer(x)[0], strict=True)
    for length in (2, 3, 2, 3):
        x = dg.randn(length, N, INPUT)
        assert np.array_equal(run(x).detach().numpy(), layer(x)[0].detach().numpy())
    assert run.n_traces == 2


def test_initial_values() -> None:
    layer = nn.LSTM(3, 100)
    for p in layer.parameters():
        assert 0.08 < p.abs().max().item() <= 0.1


def test_refusals() -> None:
    for sizes in ((0, 3), (3, 0), (3, 3, 0)):
        with pytest.raises(ArgumentError, match="a size does not fit"):
            nn.RNN(*sizes)
    with pytest.raises(ArgumentError, match="no such nonlinearity"):
        nn.RNN(2, 3, nonlinearity="sin")
    with pytest.raises(ArgumentError, match="p does not fit"):
        nn.GRU(2, 3, 2, dropout=1.5)
    with pytest.raises(ArgumentError, match="a projection makes the output smaller"):
        nn.LSTM(2, 3, proj_size=3)
    layer = nn.LSTM(2, 3)
    with pytest.raises(ShapeError, match="the input does not fit"):
        layer(dg.randn(4, 1, 3))
    with pytest.raises(ShapeError, match="the sequence is empty"):
        layer(dg.zeros(0, 1, 2))
    with pytest.raises(ShapeError, match="the states do not fit"):
        layer(dg.randn(4, 1, 2), (dg.zeros(1, 1, 3), dg.zeros(1, 2, 3)))
    with pytest.raises(ShapeError, match="the states do not fit"):
        layer(dg.randn(4, 1, 2), (dg.zeros(1, 1, 3),))
    with pytest.raises(ShapeError, match="the state does not fit the input"):
        nn.GRUCell(2, 3)(dg.zeros(4, 2), dg.zeros(3, 3))
    with pytest.raises(ShapeError, match="the input does not fit"):
        nn.GRUCell(2, 3)(dg.zeros(4, 4, 2))
