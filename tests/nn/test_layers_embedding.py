"""Embedding, bilinear and linear layers: PyTorch's, in both modes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from nn_layers import Build, check_layer, check_modes, check_signature, drawn
from support import same_bits

import dualgrad as dg
from dualgrad import nn
from dualgrad.runtime.errors import ArgumentError, ShapeError

INDICES = np.array([[0, 3, 3, 1], [4, 0, 3, 2]])

TABLES: list[Build] = [
    lambda nn: nn.Embedding(6, 3),
    lambda nn: nn.Embedding(6, 3, padding_idx=3),
    lambda nn: nn.Embedding(6, 3, padding_idx=-1, scale_grad_by_freq=True),
    lambda nn: nn.Embedding(6, 3, max_norm=1.0),
    lambda nn: nn.Embedding(6, 3, padding_idx=0, max_norm=0.5, norm_type=1.0),
    lambda nn: nn.Embedding(6, 3, max_norm=0.7, norm_type=3.5, scale_grad_by_freq=True),
]


@pytest.mark.parametrize("build", TABLES, ids=lambda build: repr(build(nn)))
def test_as_pytorch(build: Build) -> None:
    for indices in (INDICES, INDICES[0].astype(np.int32), np.array(2), np.zeros((0, 2), np.int64)):
        check_layer(build, indices)


def test_as_pytorch_after_shortening_once() -> None:
    """The table itself is changed, in both modes."""
    torch = pytest.importorskip("torch")
    theirs, ours = (m.Embedding(6, 3, max_norm=1.0) for m in (torch.nn, nn))
    ours.load_state_dict({"weight": 3 * theirs.weight.detach().numpy()})
    theirs.weight.data.mul_(3)
    theirs(torch.tensor(INDICES))
    start = ours.weight.detach().clone()
    ours(dg.tensor(INDICES))
    eager = ours.weight.detach().clone()
    np.testing.assert_allclose(eager.numpy(), theirs.weight.detach().numpy(), rtol=1e-6)
    np.testing.assert_array_equal(eager.numpy()[5], start.numpy()[5])  # not shown
    ours.load_state_dict({"weight": start})
    dg.function(lambda i: ours(i), strict=True)(dg.tensor(INDICES))
    same_bits(ours.weight.detach(), eager)


def test_a_training_step_compiles() -> None:
    layer, start = nn.Embedding(6, 3, 0, max_norm=1.0, scale_grad_by_freq=True), None
    optimizer = dg.optim.SGD(layer.parameters(), lr=0.5)

    def step(indices: dg.Tensor) -> dg.Tensor:
        optimizer.zero_grad()
        loss = (layer(indices) ** 2).sum()
        loss.backward()
        optimizer.step()
        return loss

    found = []
    start = layer.weight.detach().clone()
    compiled = dg.function(step, strict=True)
    for run in (step, compiled):
        layer.load_state_dict({"weight": start})
        losses = [run(dg.tensor(INDICES)) for _ in range(3)]
        found.append([*losses, layer.weight.detach().clone()])
    for eager, static in zip(*found, strict=True):
        same_bits(static, eager)
    assert compiled.n_traces == 1


def test_known_gradients() -> None:
    layer = nn.Embedding(6, 2, padding_idx=0, scale_grad_by_freq=True)
    found = check_modes(layer, INDICES)
    weights = drawn(*INDICES.shape, 2, seed=50, low=0.5, high=1.5)
    want = np.zeros((6, 2))
    for place, row in np.ndenumerate(INDICES):
        if row:
            want[row] += weights[place] / (row == INDICES).sum()
    np.testing.assert_allclose(found["gradient of weight"].numpy(), want, rtol=1e-6)
    rows = layer.weight.detach().numpy()[INDICES]
    np.testing.assert_array_equal(found["output 0"].numpy(), rows)


def test_initial_values() -> None:
    layer = nn.Embedding(200, 50, padding_idx=-200)
    weight = layer.weight.detach().numpy()
    assert layer.padding_idx == 0
    np.testing.assert_array_equal(weight[0], 0)
    assert weight[1:].std() == pytest.approx(1.0, abs=0.03)  # of 9950 numbers: 4 deviations
    assert weight[1:].mean() == pytest.approx(0.0, abs=0.04)


def test_pretrained_tables() -> None:
    table = dg.tensor(drawn(4, 3))
    layer = nn.Embedding.from_pretrained(table, padding_idx=1)
    assert not layer.weight.requires_grad
    same_bits(layer(dg.tensor([1, 3])), table[dg.tensor([1, 3])])
    assert repr(layer) == "Embedding(4, 3, padding_idx=1)"
    assert nn.Embedding.from_pretrained(table, freeze=False).weight.requires_grad


@pytest.mark.parametrize("name", ["Embedding", "Bilinear", "Linear"])
def test_signatures_are_pytorchs(name: str) -> None:
    check_signature(name)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.Embedding(-1, 3), ArgumentError, "num_embeddings=-1"),
        (lambda: nn.Embedding(4, 3, padding_idx=4), ArgumentError, "names no row"),
        (lambda: nn.Embedding(4, 3, sparse=True), ArgumentError, "no sparse gradients"),
        (lambda: nn.Embedding(4, 3, max_norm=-1.0), ArgumentError, "max_norm"),
        (lambda: nn.Embedding(4, 3, _weight=dg.zeros(3, 4)), ShapeError, "another size"),
        (lambda: nn.Embedding.from_pretrained(dg.zeros(3)), ShapeError, "rows and columns"),
        (lambda: nn.Embedding(4, 3)(dg.tensor([4])), IndexError, "actual: 4"),
        (lambda: nn.Bilinear(0, 3, 2), ArgumentError, "in1_features=0"),
    ],
)
def test_refused(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("bias", [True, False])
def test_linear_layers_as_pytorch(bias: bool) -> None:
    check_layer(lambda nn: nn.Linear(5, 3, bias), drawn(2, 4, 5))
    check_layer(lambda nn: nn.Linear(5, 3, bias), drawn(5))
    check_layer(lambda nn: nn.Bilinear(5, 2, 3, bias), drawn(4, 5), drawn(4, 2, seed=3))


def test_bilinear_values() -> None:
    layer, x, y = nn.Bilinear(4, 3, 2), drawn(6, 4), drawn(6, 3, seed=9)
    weight, bias = (p.detach().numpy().astype(np.float64) for p in layer.parameters())
    assert abs(weight).max() <= 0.5  # 1 / sqrt(4)
    want = np.einsum("ni,oij,nj->no", x, weight, y) + bias
    found = check_modes(layer, x, y)["output 0"].numpy()
    np.testing.assert_allclose(found, want, rtol=0, atol=3e-6)


def test_identity() -> None:
    check_layer(lambda nn: nn.Identity(5, some="thing"), drawn(2, 3))
    x = dg.zeros(2)
    assert nn.Identity()(x) is x
