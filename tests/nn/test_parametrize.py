"""Weights computed from others: weight norm, spectral norm, and parametrizations of a user's."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import as_array, same_bits

import dualgrad as dg
from dualgrad import nn, optim
from dualgrad.nn.utils import parametrizations, parametrize, remove_weight_norm, weight_norm
from dualgrad.runtime.errors import ArgumentError, ShapeError

Build = Callable[[Any, Any], Any]


CASES: dict[str, tuple[Build, tuple[int, ...]]] = {
    "first names": (lambda nn, p: nn.utils.weight_norm(nn.Linear(3, 2)), (4, 3)),
    "first names, whole": (lambda nn, p: nn.utils.weight_norm(nn.Linear(3, 2), dim=None), (4, 3)),
    "weight norm": (lambda nn, p: p.weight_norm(nn.Linear(3, 2)), (4, 3)),
    "weight norm of columns": (lambda nn, p: p.weight_norm(nn.Linear(3, 2), dim=1), (4, 3)),
    "weight norm, whole": (lambda nn, p: p.weight_norm(nn.Conv2d(2, 3, 2), dim=None), (1, 2, 4, 4)),
    "weight norm of bias": (lambda nn, p: p.weight_norm(nn.Linear(3, 2), "bias"), (4, 3)),
    "both parameters": (
        lambda nn, p: p.weight_norm(p.weight_norm(nn.Linear(3, 2)), "bias", None),
        (4, 3),
    ),
    "spectral norm": (lambda nn, p: p.spectral_norm(nn.Linear(3, 2)), (4, 3)),
    "spectral norm, 3 steps": (
        lambda nn, p: p.spectral_norm(nn.ConvTranspose2d(2, 3, 2), n_power_iterations=3),
        (1, 2, 4, 4),
    ),
    "spectral norm of bias": (lambda nn, p: p.spectral_norm(nn.Linear(3, 2), "bias"), (4, 3)),
    "weight norm in a model": (
        lambda nn, p: nn.Sequential(nn.Linear(3, 4), nn.Tanh(), p.weight_norm(nn.Linear(4, 2))),
        (4, 3),
    ),
}
cases = pytest.mark.parametrize("name", list(CASES))


def steps(model: Any, opt: Any, x: Any, step: Callable[..., Any]) -> list[Any]:
    found = [step(x) for _ in range(4)]
    model.eval()
    return [*found, model(x)]


def training_step(model: Any, opt: Any) -> Callable[[Any], Any]:
    def step(x: Any) -> Any:
        opt.zero_grad()
        out = (model(x) ** 2).sum()
        out.backward()
        opt.step()
        return out.detach()

    return step


def built(name: str) -> tuple[Any, Any, Any]:
    build, shape = CASES[name]
    dg.seed(6)
    model = build(nn, parametrizations)
    x = dg.from_numpy(np.random.default_rng(1).standard_normal(shape).astype(np.float32))
    return model, optim.SGD(model.parameters(), lr=0.1), x


@pytest.mark.filterwarnings("ignore::FutureWarning")
@cases
def test_training_as_with_pytorch(name: str) -> None:
    torch = pytest.importorskip("torch")
    build, _ = CASES[name]
    model, opt, x = built(name)
    theirs = build(torch.nn, torch.nn.utils.parametrizations)
    assert repr(model) == repr(theirs)
    state = theirs.state_dict()
    assert [(n, tuple(t.shape)) for n, t in model.state_dict().items()] == [
        (n, tuple(t.shape)) for n, t in state.items()
    ]
    model.load_state_dict(state)
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    their_opt = torch.optim.SGD(theirs.parameters(), lr=0.1)
    want = steps(theirs, their_opt, torch.from_numpy(as_array(x)), training_step(theirs, their_opt))
    for g, w in zip(steps(model, opt, x, training_step(model, opt)), want, strict=True):
        np.testing.assert_allclose(as_array(g), w.detach().numpy(), rtol=2e-5, atol=2e-6)
    for key, t in theirs.state_dict().items():
        got = as_array(model.state_dict()[key])
        np.testing.assert_allclose(got, t.numpy(), rtol=2e-5, atol=2e-6)


@cases
def test_both_modes_give_the_same_bits(name: str) -> None:
    model, opt, x = built(name)
    other, other_opt, _ = built(name)
    compiled = dg.function(training_step(other, other_opt), strict=True)
    for e, s in zip(
        steps(model, opt, x, training_step(model, opt)),
        steps(other, other_opt, x, compiled),
        strict=True,
    ):
        same_bits(as_array(s), as_array(e))
    assert compiled.n_traces <= 2


@cases
def test_copies_are_independent(name: str) -> None:
    model, opt, x = built(name)
    model.eval()
    before = as_array(model(x)).tolist()
    twins = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    model.train()
    training_step(model, opt)(x)
    for twin in twins:
        assert repr(twin) == repr(model)
        assert as_array(twin(x)).tolist() == before
        assert list(twin.state_dict()) == list(model.state_dict())


# -- by their formulas


@pytest.mark.parametrize("dim", [0, 1, None])
def test_weight_norm_by_its_formula(dim: int | None) -> None:
    layer = nn.Linear(3, 2, dtype=dg.float64)
    weight = as_array(layer.weight).copy()
    parametrizations.weight_norm(layer, dim=dim)
    np.testing.assert_allclose(as_array(layer.weight), weight, rtol=1e-14)
    parts = layer.parametrizations.weight
    axis = None if dim is None else 1 - dim
    length = np.sqrt((weight**2).sum(axis, keepdims=dim is not None))
    np.testing.assert_allclose(as_array(parts.original0), length, rtol=1e-14)
    with dg.no_grad():
        parts.original1.mul_(7.0)
        parts.original0.mul_(2.0)
    np.testing.assert_allclose(as_array(layer.weight), 2 * weight, rtol=1e-14)
    layer.weight = nn.Parameter(dg.ones(2, 3, dtype=dg.float64))
    np.testing.assert_allclose(as_array(layer.weight), np.ones((2, 3)), rtol=1e-14)
    assert next(n for n, _ in layer.named_parameters()) == "bias"


def test_spectral_norm_is_the_largest_singular_value() -> None:
    dg.seed(1)
    layer = nn.Linear(5, 4, dtype=dg.float64)
    weight = as_array(layer.weight)
    parametrizations.spectral_norm(layer, n_power_iterations=200)
    want = weight / np.linalg.svd(weight)[1][0]
    np.testing.assert_allclose(as_array(layer.weight), want, rtol=1e-10)
    layer.eval()
    u = as_array(layer.parametrizations.weight[0]._u)
    assert as_array(layer.weight).tolist() == as_array(layer.weight).tolist()
    assert as_array(layer.parametrizations.weight[0]._u).tolist() == u.tolist()


def test_states_of_the_first_names_load_under_the_newer_ones() -> None:
    before = weight_norm(nn.Linear(3, 2))
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(3, 2)))
    model.load_state_dict({f"0.{n}": t for n, t in before.state_dict().items()})
    assert as_array(model[0].weight).tolist() == as_array(before.weight).tolist()


# -- removal


def unparametrized(layer: Any) -> Any:
    return parametrize.remove_parametrizations(layer, "weight")


def test_the_weight_stays_as_it_is() -> None:
    for wrap, unwrap in (
        (weight_norm, remove_weight_norm),
        (parametrizations.weight_norm, unparametrized),
        (parametrizations.spectral_norm, unparametrized),
    ):
        layer = wrap(nn.Linear(3, 2)).eval()
        twin = copy.deepcopy(layer)
        weight = as_array(layer.weight).tolist()
        assert unwrap(layer) is layer
        assert type(layer) is nn.Linear
        assert isinstance(layer.weight, nn.Parameter)
        assert as_array(layer.weight).tolist() == weight
        assert sorted(layer.state_dict()) == ["bias", "weight"]
        assert repr(layer) == repr(nn.Linear(3, 2))
        assert as_array(twin.weight).tolist() == weight
        assert "weight" not in twin.state_dict()
        wrap(layer)
        np.testing.assert_allclose(as_array(layer.weight).shape, (2, 3))


# -- a user's own


class Symmetric(nn.Module):
    def forward(self, x: Any) -> Any:
        return x.triu() + x.triu(1).T

    def right_inverse(self, x: Any) -> Any:
        return x.triu()


class Doubled(nn.Module):
    def forward(self, x: Any) -> Any:
        return x * 2


class Wider(nn.Module):
    def forward(self, x: Any) -> Any:
        return dg.cat([x, x])


def test_parametrizations_follow_each_other() -> None:
    layer = nn.Linear(3, 3)
    learnt = layer.weight
    assert parametrize.register_parametrization(layer, "weight", Symmetric()) is layer
    assert layer.parametrizations.weight.original is learnt
    first = as_array(layer.weight)
    np.testing.assert_array_equal(first, first.T)
    parametrize.register_parametrization(layer, "weight", Doubled())
    np.testing.assert_array_equal(as_array(layer.weight), 2 * first)
    assert parametrize.is_parametrized(layer)
    assert parametrize.is_parametrized(layer, "weight")
    assert not parametrize.is_parametrized(layer, "bias")
    assert len(layer.parametrizations.weight) == 2
    with pytest.raises(ArgumentError, match="Doubled"):
        layer.weight = dg.zeros(3, 3)
    parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
    assert layer.weight is learnt
    assert not parametrize.is_parametrized(layer)
    np.testing.assert_array_equal(as_array(learnt), np.triu(first))


def test_the_value_given_is_taken() -> None:
    layer = nn.Linear(2, 2)
    parametrize.register_parametrization(layer, "weight", Symmetric())
    layer.weight = dg.tensor([[1.0, 5.0], [5.0, 2.0]])
    assert as_array(layer.weight).tolist() == [[1, 5], [5, 2]]
    assert as_array(layer.parametrizations.weight.original).tolist() == [[1, 5], [0, 2]]
    layer(dg.ones(1, 2)).sum().backward()
    assert layer.parametrizations.weight.original.grad.tolist() == [[1, 2], [0, 1]]


def test_buffers_have_parametrizations_too() -> None:
    norm = nn.BatchNorm1d(2)
    parametrize.register_parametrization(norm, "running_var", Doubled())
    assert as_array(norm.running_var).tolist() == [2, 2]
    assert "parametrizations.running_var.original" in norm.state_dict()
    assert [n for n, _ in norm.named_parameters()] == ["weight", "bias"]
    parametrize.remove_parametrizations(norm, "running_var")
    assert as_array(norm.running_var).tolist() == [2, 2]
    assert [n for n, _ in norm.named_buffers()][-1] == "running_var"


def test_other_shapes_only_if_unsafe() -> None:
    layer = nn.Linear(2, 2)
    with pytest.raises(ShapeError, match="changes the shape"):
        parametrize.register_parametrization(layer, "weight", Wider())
    assert isinstance(layer.weight, nn.Parameter)
    parametrize.register_parametrization(layer, "weight", Wider(), unsafe=True)
    assert layer.weight.shape == (4, 2)
    parametrize.remove_parametrizations(layer, "weight")
    assert layer.weight.shape == (4, 2)
    assert isinstance(layer.weight, nn.Parameter)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda m: weight_norm(m, "gain"), "no such parameter"),
        (lambda m: weight_norm(weight_norm(m)), "computed already"),
        (lambda m: remove_weight_norm(m), "not normalised"),
        (lambda m: parametrizations.spectral_norm(m, "gain"), "no such parameter"),
        (lambda m: parametrizations.spectral_norm(m, dim=3), "no such dimension"),
        (lambda m: parametrizations.spectral_norm(m, n_power_iterations=0), "size does not fit"),
        (lambda m: parametrize.register_parametrization(m, "gain", Doubled()), "no such parameter"),
        (lambda m: parametrize.remove_parametrizations(m, "weight"), "no parametrizations"),
        (
            lambda m: parametrize.remove_parametrizations(
                parametrizations.weight_norm(m), "weight", leave_parametrized=False
            ),
            "several tensors",
        ),
    ],
)
def test_refused(call: Callable[[Any], Any], text: str) -> None:
    with pytest.raises(ArgumentError, match=text):
        call(nn.Linear(3, 2))
