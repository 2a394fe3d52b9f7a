"""Losses as modules against PyTorch's: values, gradients, state, printed form, both modes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dualgrad as dg
from dualgrad import nn
from dualgrad.creation import from_numpy
from dualgrad.nn import loss as losses
from dualgrad.runtime.errors import ArgumentError

rng = np.random.default_rng(7)
Array = np.ndarray[Any, Any]


def normal(*shape: int) -> Array:
    return rng.standard_normal(shape)


X, Y, Z = normal(5, 4), normal(5, 4), normal(5, 4)
SHARES = rng.uniform(0.05, 0.95, (5, 4))
BITS = rng.integers(0, 2, (5, 4)).astype(float)
SIGNS = 2.0 * BITS - 1.0
COUNTS = rng.poisson(2.0, (5, 4)).astype(float)
LOGS = np.log(rng.dirichlet(np.ones(4), 5))
PARTS = rng.dirichlet(np.ones(4), 5)
CLASSES = np.array([0, 3, 1, 1, 2])
IMAGE, PIXELS = normal(2, 3, 4, 2), rng.integers(0, 3, (2, 4, 2))
W4, W3 = rng.uniform(0.5, 2.0, 4), rng.uniform(0.5, 2.0, 3)

# class, arguments, prediction, other inputs
CASES: list[tuple[str, dict[str, Any], Array, tuple[Array, ...]]] = [
    ("L1Loss", {}, X, (Y,)),
    ("MSELoss", {}, X, (Y,)),
    ("HuberLoss", {"delta": 0.7}, X, (Y,)),
    ("HuberLoss", {}, X, (Y,)),
    ("SmoothL1Loss", {}, X, (Y,)),
    ("SmoothL1Loss", {"beta": 0.4}, X, (Y,)),
    ("SmoothL1Loss", {"beta": 0.0}, X, (Y,)),
    ("BCELoss", {}, SHARES, (BITS,)),
    ("BCELoss", {"weight": W4}, SHARES, (PARTS,)),
    ("BCEWithLogitsLoss", {}, X, (BITS,)),
    ("BCEWithLogitsLoss", {"weight": W4, "pos_weight": W4[::-1].copy()}, X, (SHARES,)),
    ("SoftMarginLoss", {}, X, (SIGNS,)),
    ("HingeEmbeddingLoss", {}, X, (SIGNS,)),
    ("HingeEmbeddingLoss", {"margin": 0.5}, X, (SIGNS,)),
    ("MarginRankingLoss", {"margin": 0.3}, X, (Y, SIGNS)),
    ("PoissonNLLLoss", {}, X, (COUNTS,)),
    ("PoissonNLLLoss", {"log_input": False, "full": True, "eps": 1e-3}, abs(X), (COUNTS,)),
    ("GaussianNLLLoss", {}, X, (Y, abs(Z))),
    ("GaussianNLLLoss", {"full": True, "eps": 0.5}, X, (Y, abs(Z[:, :1]))),
    ("NLLLoss", {}, LOGS, (CLASSES,)),
    ("NLLLoss", {"weight": W4, "ignore_index": 1}, LOGS, (CLASSES,)),
    ("CrossEntropyLoss", {}, X, (CLASSES,)),
    ("CrossEntropyLoss", {}, X[0], (CLASSES[1],)),
    ("CrossEntropyLoss", {"ignore_index": 1, "label_smoothing": 0.1}, X, (CLASSES,)),
    ("CrossEntropyLoss", {"weight": W4, "label_smoothing": 0.2}, X, (CLASSES,)),
    ("CrossEntropyLoss", {"weight": W4, "label_smoothing": 0.2}, X, (PARTS,)),
    ("CrossEntropyLoss", {"weight": W3, "ignore_index": 2}, IMAGE, (PIXELS,)),
    ("KLDivLoss", {}, LOGS, (PARTS,)),
    ("KLDivLoss", {"reduction": "batchmean"}, LOGS, (PARTS,)),
    ("KLDivLoss", {"log_target": True}, LOGS, (np.log(PARTS),)),
    ("MultiMarginLoss", {}, X, (CLASSES,)),
    ("MultiMarginLoss", {"p": 2, "margin": 0.5, "weight": W4}, X, (CLASSES,)),
    ("MultiLabelSoftMarginLoss", {"weight": W4}, X, (BITS,)),
    ("CosineEmbeddingLoss", {"margin": 0.2}, X, (Y, SIGNS[:, 0])),
    ("TripletMarginLoss", {}, X, (Y, Z)),
    ("TripletMarginLoss", {"margin": 0.5, "p": 1.0, "swap": True}, X, (Y, Z)),
    ("TripletMarginWithDistanceLoss", {"margin": 0.5, "swap": True}, X, (Y, Z)),
]
IDS = [f"{n}-{k}-{'-'.join(a)}" for k, (n, a, _, _) in enumerate(CASES)]
TOLERANCE = {"float64": 1e-12, "float32": 2e-5}
each = pytest.mark.parametrize(("name", "arguments", "input", "others"), CASES, ids=IDS)


def build(module: Any, name: str, arguments: dict[str, Any], to: Callable[[Array], Any]) -> Any:
    return getattr(module, name)(
        **{k: to(v) if isinstance(v, np.ndarray) else v for k, v in arguments.items()}
    )


def ours(
    name: str, arguments: dict[str, Any], arrays: list[Array], dtype: str, compiled: bool
) -> list[Array]:
    """The loss, then the gradients of all float inputs."""

    def to(a: Array) -> Any:
        return from_numpy(np.asarray(a, dtype if a.dtype.kind == "f" else a.dtype))

    criterion = build(nn, name, arguments, to)
    inputs = [to(a) for a in arrays]
    inputs[0].requires_grad_()

    def run(*inputs: Any) -> Any:
        loss = criterion(*inputs)
        loss.sum().backward()
        return loss

    loss = (dg.function(run, strict=True) if compiled else run)(*inputs)
    return [t.detach().numpy() for t in (loss, inputs[0].grad)]


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@each
def test_values_and_gradients_as_pytorch(
    name: str, arguments: dict[str, Any], input: Array, others: tuple[Array, ...], dtype: str
) -> None:
    torch = pytest.importorskip("torch")

    def to(a: Array) -> Any:
        return torch.from_numpy(np.array(a, dtype if a.dtype.kind == "f" else a.dtype))

    for reduction in ["mean", "sum", "none"]:
        chosen = {"reduction": reduction, **arguments}
        theirs = [to(a) for a in (input, *others)]
        theirs[0].requires_grad_()
        loss = build(torch.nn, name, chosen, to)(*theirs)
        loss.sum().backward()
        found = ours(name, chosen, [input, *others], dtype, compiled=False)
        tolerance = TOLERANCE[dtype]
        for mine, other in zip(found, (loss, theirs[0].grad), strict=True):
            expected = other.detach().numpy()
            assert mine.dtype == expected.dtype
            assert mine.shape == expected.shape
            np.testing.assert_allclose(mine, expected, rtol=tolerance, atol=tolerance)


@each
def test_a_compiled_loss_has_the_bits_of_an_eager_one(
    name: str, arguments: dict[str, Any], input: Array, others: tuple[Array, ...]
) -> None:
    arrays = [input, *others]
    eager = ours(name, arguments, arrays, "float32", compiled=False)
    static = ours(name, arguments, arrays, "float32", compiled=True)
    assert [a.tobytes() for a in static] == [a.tobytes() for a in eager]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@each
def test_low_floats(
    name: str, arguments: dict[str, Any], input: Array, others: tuple[Array, ...], dtype: str
) -> None:
    """Near the loss of the rounded numbers in float64: the loss is rounded once."""
    low = getattr(dg, dtype)

    def rounded(a: Array) -> Any:
        given = from_numpy(np.array(a))
        return given.to(low) if a.dtype.kind == "f" else given

    def exact(a: Array) -> Any:
        given = rounded(a)
        return given.to(dg.float64) if a.dtype.kind == "f" else given

    found = build(nn, name, arguments, rounded)(*map(rounded, (input, *others)))
    expected = build(nn, name, arguments, exact)(*map(exact, (input, *others)))
    assert found.dtype is low
    step = 2.0 ** (-8 if dtype == "bfloat16" else -10)
    np.testing.assert_allclose(
        found.to(dg.float64).numpy(), expected.numpy(), rtol=2 * step, atol=step
    )


@pytest.mark.parametrize("name", sorted(set(losses.__all__) - {"Loss"}))
def test_arguments_and_printed_form_are_those_of_pytorch(name: str) -> None:
    torch = pytest.importorskip("torch")
    mine, theirs = (
        {
            p.name: p.default
            for p in inspect.signature(getattr(m, name)).parameters.values()
            if p.name not in ("size_average", "reduce")
        }
        for m in (nn, torch.nn)
    )
    assert mine == theirs
    assert repr(getattr(nn, name)()) == repr(getattr(torch.nn, name)())


def test_every_loss_is_among_the_cases() -> None:
    assert {name for name, *_ in CASES} | {"Loss"} == set(losses.__all__)


def test_weights_are_state_and_move_with_the_module() -> None:
    loss = nn.BCEWithLogitsLoss(weight=dg.ones(3), pos_weight=dg.full((3,), 2.0))
    assert list(loss.state_dict()) == ["weight", "pos_weight"]
    loss.to(dg.float64)
    assert loss.pos_weight.dtype is dg.float64
    loss.load_state_dict({"weight": np.full(3, 5.0), "pos_weight": np.full(3, 4.0)})
    assert loss.weight.numpy().tolist() == [5.0] * 3
    assert list(nn.NLLLoss().state_dict()) == []


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("PairwiseDistance", {}),
        ("PairwiseDistance", {"p": 1.0, "eps": 1e-3, "keepdim": True}),
        ("CosineSimilarity", {}),
        ("CosineSimilarity", {"dim": 0, "eps": 3.0}),
    ],
)
def test_distances_as_pytorch(name: str, arguments: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    mine, theirs = (getattr(m, name)(**arguments) for m in (nn, torch.nn))
    assert repr(mine) == repr(theirs)
    assert inspect.signature(type(mine)).parameters.keys() == (
        inspect.signature(type(theirs)).parameters.keys()
    )
    x, y = normal(3, 5), normal(3, 5)
    expected = theirs(torch.from_numpy(x), torch.from_numpy(y)).numpy()
    for call in (mine, dg.function(mine, strict=True)):
        found = call(from_numpy(x), from_numpy(y)).numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_a_distance_of_ones_own() -> None:
    def distance(x: Any, y: Any) -> Any:
        return (x - y).abs().sum(-1)

    loss = nn.TripletMarginWithDistanceLoss(distance_function=distance, margin=2.0)
    x, y, z = (dg.tensor([[a, 0.0]]) for a in (1.0, 2.0, 1.5))
    assert loss(x, y, z).item() == 2.5


@pytest.mark.parametrize("name", sorted(set(losses.__all__) - {"Loss"}))
def test_an_unknown_reduction_is_refused(name: str) -> None:
    with pytest.raises(ArgumentError, match="no such reduction"):
        getattr(nn, name)(reduction="avg")
