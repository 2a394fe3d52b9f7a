"""Layers with state that changes as they run: batch norm in training steps, both modes equal."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import dualgrad as dg
from dualgrad import functional as F
from dualgrad import nn, optim
from semantics.support import compare

_rng = np.random.default_rng(8)
X = dg.from_numpy(_rng.standard_normal((8, 6)).astype(np.float32))
Y = dg.from_numpy(_rng.integers(0, 3, 8))
IMAGES = dg.from_numpy(_rng.standard_normal((4, 3, 5, 5)).astype(np.float32))


def network(momentum: float | None = 0.1) -> nn.Sequential:
    dg.seed(2)
    return nn.Sequential(
        nn.Linear(6, 5), nn.BatchNorm1d(5, momentum=momentum), nn.ReLU(), nn.Linear(5, 3)
    )


@pytest.mark.parametrize("momentum", [0.1, None])
def test_row09_training_and_evaluation_alternate(momentum: float | None) -> None:
    """Whole steps with statistics, counter, gradients and updates; one trace for each of both."""

    def make() -> Any:
        model = network(momentum)
        opt = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

        def step(x: Any, y: Any, training: bool) -> Any:
            model.train(training)
            out = model(x)
            loss = F.cross_entropy(out, y)
            if training:
                opt.zero_grad()
                loss.backward()
                opt.step()
            return loss.detach(), out.detach()

        return step, model, opt

    f = compare(make, [(X * (k + 1), Y, k % 4 != 3) for k in range(16)])
    # the first call makes the optimizer's state
    assert f.n_traces <= 3


def test_row39_modes_set_between_calls_cost_no_retrace() -> None:
    model = network()
    f = dg.function(model, strict=True)
    seen = set()
    for k in range(12):
        model.train(k % 3 == 0)
        twin = copy.deepcopy(model)
        assert f(X).tolist() == twin(X).tolist()
        assert [b.tolist() for b in model.buffers()] == [b.tolist() for b in twin.buffers()]
        seen.add(f.n_traces)
    assert max(seen) == 2
    assert model[1].num_batches_tracked.item() == 4


def test_row39_a_frozen_layer_in_a_model_that_trains() -> None:
    def make() -> Any:
        model = nn.Sequential(nn.BatchNorm2d(3), nn.InstanceNorm2d(3, track_running_stats=True))

        def f(x: Any, frozen: bool) -> Any:
            model.train()
            if frozen:
                model[0].eval()
            return model(x).detach()

        return f, model

    compare(make, [(IMAGES * (k + 1), k > 2) for k in range(6)], traces=3)


def test_row09_one_layer_twice_in_a_call() -> None:
    """The second use sees the statistics that the first has moved, also in evaluation."""

    def make() -> Any:
        layer = nn.BatchNorm1d(6)

        def f(x: Any) -> Any:
            layer.train()
            first = layer(layer(x) * 2 + 1)
            layer.eval()
            return first.detach(), layer(x).detach(), layer.running_mean.clone()

        return f, layer

    # a call leaves the layer in another mode than the first one has met
    compare(make, [(X,), (X * 3,), (X * 2,)], traces=2)


def test_row09_a_momentum_that_changes() -> None:
    def make() -> Any:
        layer = nn.BatchNorm1d(6)

        def f(x: Any, k: int) -> Any:
            layer.momentum = 0.5 / (k + 1)
            return layer(x).detach()

        return f, layer

    f = compare(make, [(X, k) for k in range(8)])
    assert f.n_traces <= 3


def test_row09_statistics_reset_and_replaced() -> None:
    def make() -> Any:
        layer = nn.BatchNorm1d(6)

        def f(x: Any, what: str) -> Any:
            if what == "reset":
                layer.reset_running_stats()
            elif what == "replace":
                layer.running_mean = x.mean(0)
            return layer(x).detach(), layer.running_mean.clone()

        return f, layer

    compare(make, [(X, "use"), (X, "reset"), (X * 2, "use"), (X, "replace"), (X * 3, "use")])


def test_row09_statistics_are_no_part_of_gradients() -> None:
    """Also of second ones, and through two batches with one layer between."""

    def make() -> Any:
        layer = nn.BatchNorm1d(6)

        def f(x: Any) -> Any:
            x = x.detach().requires_grad_()
            out = (layer(x) ** 3).mean() + (layer(x * x) ** 2 * layer.running_var).mean()
            (g,) = dg.autograd.grad(out, [x], create_graph=True)
            (g * g).sum().backward()
            return out.detach(), g.detach(), x.grad

        return f, layer

    # the first call makes the gradients of weight and bias
    compare(make, [(X,), (X + 1,), (X * 2,)], traces=2)


def test_row25_batches_of_other_sizes() -> None:
    def make() -> Any:
        model = network()

        def f(x: Any) -> Any:
            return model(x).detach()

        return f, model

    f = compare(make, [(X[:n],) for n in (8, 5, 3, 7, 2)])
    assert f.n_traces <= 2


def test_row26_a_module_cast_between_calls() -> None:
    seen = []

    def make() -> Any:
        model = network()

        def f(x: Any) -> Any:
            return model(x).detach()

        return f, model

    def cast(f: Any, model: Any) -> Any:
        model.double()
        out = f(X.double())
        seen.append(out.dtype)
        return out

    compare(make, [(X,), cast, (X.double(),)], traces=2)
    assert seen == [dg.float64] * 2


@pytest.mark.parametrize("assign", [False, True])
def test_row06_states_loaded_between_calls(assign: bool) -> None:
    """Also by tensors that take the place of parameters and buffers."""
    seen = []

    def make() -> Any:
        model, other = network(), network()
        other[0].weight.detach().mul_(3.0)

        def f(x: Any) -> Any:
            return model(x).detach()

        return f, model, other

    def load(f: Any, model: Any, other: Any) -> Any:
        state = {name: t.clone() for name, t in other.state_dict().items()}
        model.load_state_dict(state, assign=assign)
        seen.append(str(model(X).detach().numpy()) == str(other(X).detach().numpy()))
        return f(X)

    compare(make, [(X,), load, (X * 2,), load], traces=1)
    assert seen == [True] * 4


def test_row06_a_state_loaded_inside() -> None:
    def make() -> Any:
        model, other = network(), network()

        def f(x: Any) -> Any:
            first = model(x).detach()
            model.load_state_dict(other.state_dict())
            return first, model.eval()(x).detach(), model.train()(x).detach()

        return f, model

    compare(make, [(X,), (X * 2,)], traces=1)
