"""Recurrent layers over sequences of several composites, against PyTorch, and eager against
compiled: the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import lowered

import dualgrad as dg
from dualgrad import nn
from dualgrad.compiler.kernel.ir import Contract
from dualgrad.compiler.ops import sequences

torch = pytest.importorskip("torch")

KINDS = {
    "LSTM": ("LSTM", {}),
    "projected": ("LSTM", {"proj_size": 2}),
    "GRU": ("GRU", {}),
    "tanh": ("RNN", {}),
    "relu": ("RNN", {"nonlinearity": "relu"}),
}


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Composites of at most four steps: short sequences have several."""
    monkeypatch.setattr(sequences, "LONGEST", 4)


def _layers(name: str, **more: Any) -> tuple[Any, Any]:
    """A layer of ours and one of PyTorch's with the same weights, in float64."""
    kind, options = KINDS[name]
    theirs = getattr(torch.nn, kind)(4, 3, dtype=torch.float64, **options, **more)
    ours = getattr(nn, kind)(4, 3, dtype=dg.float64, **options, **more)
    ours.load_state_dict({k: dg.from_numpy(v.numpy()) for k, v in theirs.state_dict().items()})
    return ours, theirs


def _input(length: int, batch: int = 5) -> Any:
    return np.random.default_rng(length).standard_normal((length, batch, 4))


def _last(states: Any) -> Any:
    return states if not isinstance(states, tuple) else states[0] + states[-1].sum()


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("length", [1, 7])
@pytest.mark.parametrize("name", KINDS)
def test_values_and_gradients(name: str, length: int) -> None:
    ours, theirs = _layers(name, bidirectional=True)
    x, y = dg.from_numpy(_input(length)), torch.from_numpy(_input(length))
    x.requires_grad, y.requires_grad = True, True
    found = []
    for layer, v in ((ours, x), (theirs, y)):
        outputs, states = layer(v)
        ((outputs**2).sum() + (_last(states) ** 3).sum()).backward()
        found.append([outputs, v.grad, *(p.grad for p in layer.parameters())])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-9, atol=1e-11)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("name", KINDS)
def test_second_gradients_cross_composites(name: str) -> None:
    ours, theirs = _layers(name)
    x, y = dg.from_numpy(_input(6, 2)), torch.from_numpy(_input(6, 2))
    x.requires_grad, y.requires_grad = True, True
    found = []
    for layer, v, grad in ((ours, x, dg.autograd.grad), (theirs, y, torch.autograd.grad)):
        (first,) = grad((layer(v)[0] ** 2).sum(), [v], create_graph=True)
        (first**2).sum().backward()
        found.append([first, v.grad, *(p.grad for p in layer.parameters())])
    for a, b in zip(*found, strict=True):
        if a is not None:  # a bias may have no second gradient
            np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-8, atol=1e-9)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("name", KINDS)
def test_eager_and_compiled_steps_have_the_same_bits(name: str) -> None:
    kind, options = KINDS[name]
    found = []
    for compiled in (False, True):
        dg.seed(3)
        layer = getattr(nn, kind)(4, 3, bidirectional=True, **options)

        def step(x: Any, layer: Any = layer) -> Any:
            outputs, _ = layer(x)
            loss = (outputs * outputs).mean()
            loss.backward()
            with dg.no_grad():
                for p in layer.parameters():
                    p -= 0.1 * p.grad
                    p.grad = None
            return loss.detach()

        run = dg.function(step, strict=True) if compiled else step
        x = dg.from_numpy(_input(7).astype(np.float32))
        losses = [run(x).numpy() for _ in range(3)]
        found.append([*losses, *(p.detach().numpy() for p in layer.parameters())])
    for a, b in zip(*found, strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("length", range(1, 40))
def test_five_lengths_of_composites_serve_all_sequences(length: int) -> None:
    found = sequences._lengths(length)
    assert sum(found) == length
    assert set(found) <= {16, 8, 4, 2, 1}
    assert len(found) <= length // 16 + 4


def test_weights_get_their_gradients_from_many_steps_at_once() -> None:
    layer = nn.LSTM(4, 3)

    def gradients(x: Any) -> Any:
        layer.zero_grad()
        layer(x)[0].sum().backward()
        return layer.weight_ih_l0.grad, layer.weight_hh_l0.grad

    compiled = dg.function(gradients, strict=True)
    compiled(dg.from_numpy(_input(16, 5).astype(np.float32)))
    kernels = lowered(compiled).kernels
    products = [k.body[0] for k in kernels if isinstance(k.body[0], Contract)]
    sizes = [(c.m, c.n, c.k) for c in products]
    assert sizes.count((12, 3, 15 * 5)) == 1  # of the weight of outputs: all steps but the first
    assert sizes.count((12, 4, 16 * 5)) + sizes.count((4, 12, 16 * 5)) == 1
    assert len(products) == 1 + 16 + 15 + 3  # forward, backward, weights
