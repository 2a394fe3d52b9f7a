"""Optimizers: PyTorch's numbers, state that stays in place, resuming, and argument checks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dualgrad as dg
from dualgrad import nn, optim
from dualgrad.creation import from_numpy, tensor, zeros
from dualgrad.optim.optimizer import Optimizer
from dualgrad.runtime.errors import ArgumentError
from dualgrad.tensor import Tensor

STORED = json.loads(
    (Path(__file__).parents[1] / "references" / "optimizers.json").read_text(encoding="utf-8")
)
IDS = [
    "-".join([case["name"], *(f"{k}={v}" for k, v in case["arguments"].items())])
    for case in STORED["cases"]
]
# 20 steps, each with a few roundings of numbers below 4
TOLERANCE = {"float32": 5e-6, "float64": 1e-13}
Array = np.ndarray[Any, Any]


def make(name: str, params: Any, **arguments: Any) -> Optimizer:
    optimizer: Optimizer = getattr(optim, name)(params, **arguments)
    return optimizer


def parameters(arrays: Sequence[Array]) -> list[nn.Parameter]:
    return [nn.Parameter(from_numpy(array.copy())) for array in arrays]


def give(params: Sequence[Tensor], gradients: Sequence[Array | None]) -> None:
    for param, gradient in zip(params, gradients, strict=True):
        param.grad = None if gradient is None else from_numpy(gradient.copy())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", STORED["cases"], ids=IDS)
def test_stored_references(case: dict[str, Any], dtype: str) -> None:
    params = parameters([np.array(STORED["start"], dtype)])
    optimizer = make(case["name"], params, **case["arguments"])
    for gradient in STORED["gradients"]:
        give(params, [np.array(gradient, dtype)])
        optimizer.step()
    tolerance = TOLERANCE[dtype]
    np.testing.assert_allclose(
        params[0].detach().numpy(), case["values"], rtol=tolerance, atol=tolerance
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", STORED["cases"], ids=IDS)
def test_as_pytorch(case: dict[str, Any], dtype: str) -> None:
    """Random gradients of all sizes, groups, steps without a gradient, and a schedule."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    shapes: list[tuple[int, ...]] = [(5, 3), (4,), (), (2, 1, 2)]
    arrays = [np.asarray(rng.standard_normal(shape), dtype) for shape in shapes]
    ours = parameters(arrays)
    theirs = [torch.from_numpy(array.copy()).requires_grad_() for array in arrays]
    optimizers = []
    for params, made in ((ours, make), (theirs, lambda n, p, **a: getattr(torch.optim, n)(p, **a))):
        groups = [{"params": params[:2]}, {"params": params[2:], "lr": 0.02, "weight_decay": 0.1}]
        optimizers.append(made(case["name"], groups, **case["arguments"]))
    for step in range(20):
        gradients: list[Array | None] = [
            np.asarray(rng.standard_normal(a.shape) * 10.0 ** rng.integers(-3, 2), dtype)
            for a in arrays
        ]
        if step % 5 < 2:
            gradients[step % 3] = None
        give(ours, gradients)
        for param, gradient in zip(theirs, gradients, strict=True):
            param.grad = None if gradient is None else torch.from_numpy(gradient.copy())
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = 0.03 / (step + 1)
            optimizer.step()
    tolerance = TOLERANCE[dtype]
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(
            mine.detach().numpy(), other.detach().numpy(), rtol=tolerance, atol=tolerance
        )


EVERY = [
    ("SGD", {"momentum": 0.9, "dampening": 0.1, "weight_decay": 0.1}),
    ("RMSprop", {"momentum": 0.9, "centered": True, "weight_decay": 0.1}),
    ("Adagrad", {"weight_decay": 0.1, "initial_accumulator_value": 0.1}),
    ("Adadelta", {"weight_decay": 0.1}),
    ("Adam", {"weight_decay": 0.1, "amsgrad": True}),
    ("AdamW", {"weight_decay": 0.1}),
    ("Adamax", {"weight_decay": 0.1}),
    ("NAdam", {"weight_decay": 0.1}),
    ("RAdam", {"weight_decay": 0.1}),
    ("Lion", {"weight_decay": 0.1}),
]
NAMES = {
    "SGD": ["momentum_buffer", "intake"],
    "RMSprop": ["step", "square_avg", "momentum_buffer", "grad_avg"],
    "Adagrad": ["step", "sum"],
    "Adadelta": ["step", "square_avg", "acc_delta"],
    "Adam": ["step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"],
    "AdamW": ["step", "exp_avg", "exp_avg_sq"],
    "Adamax": ["step", "exp_avg", "exp_inf"],
    "NAdam": ["step", "mu_product", "exp_avg", "exp_avg_sq"],
    "RAdam": ["step", "exp_avg", "exp_avg_sq"],
    "Lion": ["exp_avg"],
}
every = pytest.mark.parametrize(("name", "arguments"), EVERY, ids=[name for name, _ in EVERY])


def trained(name: str, arguments: dict[str, Any], steps: int) -> tuple[list[Any], Optimizer]:
    params = parameters([np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(2, np.float32)])
    optimizer = make(name, params, **arguments)
    train(params, optimizer, steps)
    return params, optimizer


def train(params: Sequence[Tensor], optimizer: Optimizer, steps: int, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        give(params, [rng.standard_normal(p.shape).astype(np.float32) for p in params])
        optimizer.step()


@every
def test_a_step_changes_tensors_in_place_and_nothing_else(
    name: str, arguments: dict[str, Any]
) -> None:
    """What compiled steps rely on: all state exists from the start and keeps its identity."""
    params, optimizer = trained(name, arguments, 0)
    groups = [dict(group) for group in optimizer.param_groups]
    tensors = [tensor for state in optimizer.state.values() for tensor in state.values()]
    before = [t.detach().numpy().copy() for t in tensors]
    assert [list(state) for state in optimizer.state.values()] == [NAMES[name]] * 2
    attributes = dict(vars(optimizer))
    train(params, optimizer, 2)
    assert vars(optimizer) == attributes
    assert [dict(group) for group in optimizer.param_groups] == groups
    after = [tensor for state in optimizer.state.values() for tensor in state.values()]
    assert all(new is old for new, old in zip(after, tensors, strict=True))
    assert all(
        not np.array_equal(t.detach().numpy(), b) for t, b in zip(tensors, before, strict=True)
    )
    assert not any(t.requires_grad for t in tensors)
    assert all(p.requires_grad for p in params)


def test_without_momentum_there_is_no_buffer() -> None:
    assert list(make("SGD", [zeros(2)]).state.values()) == [{}]
    [state] = make("RMSprop", [zeros(2)]).state.values()
    assert list(state) == ["step", "square_avg"]


@every
def test_resuming_gives_the_same_bits(name: str, arguments: dict[str, Any]) -> None:
    whole, optimizer = trained(name, arguments, 3)
    saved = optimizer.state_dict()
    saved["state"] = {
        i: {key: t.detach().numpy().copy() for key, t in state.items()}
        for i, state in saved["state"].items()
    }
    values = [p.detach().numpy().copy() for p in whole]
    train(whole, optimizer, 3, seed=1)

    params = parameters(values)
    resumed = make(name, params, **{**arguments, "lr": 99.0})
    tensors = [tensor for state in resumed.state.values() for tensor in state.values()]
    resumed.load_state_dict(saved)
    train(params, resumed, 3, seed=1)
    for mine, other in zip(params, whole, strict=True):
        assert mine.detach().numpy().tobytes() == other.detach().numpy().tobytes()
    loaded = [tensor for state in resumed.state.values() for tensor in state.values()]
    assert all(new is old for new, old in zip(loaded, tensors, strict=True))


def run_training(name: str, arguments: dict[str, Any], compiled: bool) -> tuple[list[bytes], int]:
    """Train a small model for six steps: bits of losses, parameters and state; number of traces."""
    dg.seed(3)
    rng = np.random.default_rng(2)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    criterion = nn.CrossEntropyLoss()
    optimizer = make(name, model.parameters(), **arguments)

    def train_step(inputs: Tensor, targets: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = criterion(model(inputs), targets)
        loss.backward()
        optimizer.step()
        return loss

    step = dg.function(train_step) if compiled else train_step
    bits = []
    for _ in range(6):
        inputs = from_numpy(rng.standard_normal((8, 6)).astype(np.float32))
        targets = from_numpy(rng.integers(0, 3, 8))
        bits.append(step(inputs, targets).detach().numpy().tobytes())
    tensors = [
        *model.parameters(),
        *(t for state in optimizer.state.values() for t in state.values()),
    ]
    bits += [t.detach().numpy().tobytes() for t in tensors]
    return bits, step.n_traces if isinstance(step, dg.Function) else 0


@pytest.mark.parametrize("case", STORED["cases"], ids=IDS)
def test_a_compiled_step_has_the_bits_of_an_eager_one(case: dict[str, Any]) -> None:
    eager, _ = run_training(case["name"], case["arguments"], compiled=False)
    static, traces = run_training(case["name"], case["arguments"], compiled=True)
    assert static == eager
    assert 1 <= traces <= 2


def test_state_dict_has_the_form_of_pytorch() -> None:
    torch = pytest.importorskip("torch")
    arguments = {"lr": 0.5, "betas": (0.5, 0.6)}
    params = [zeros(2), zeros(3), zeros(1)]
    groups = [{"params": params[:2]}, {"params": params[2:], "lr": 0.1}]
    mine = make("Adam", groups, **arguments).state_dict()
    other = [torch.zeros(2), torch.zeros(3), torch.zeros(1)]
    groups = [{"params": other[:2]}, {"params": other[2:], "lr": 0.1}]
    theirs = torch.optim.Adam(groups, **arguments).state_dict()
    assert mine.keys() == theirs.keys()
    for ours, group in zip(mine["param_groups"], theirs["param_groups"], strict=True):
        assert ours == {key: group[key] for key in ours}
    assert list(mine["state"]) == [0, 1, 2]


def test_load_refuses_what_does_not_fit() -> None:
    optimizer = make("SGD", [zeros(2), zeros(3)], momentum=0.9)
    fewer = make("SGD", [zeros(2)], momentum=0.9).state_dict()
    with pytest.raises(ArgumentError, match=r"groups of \[1\] parameters instead of \[2\]"):
        optimizer.load_state_dict(fewer)
    shaped = make("SGD", [zeros(2), zeros(4)], momentum=0.9).state_dict()
    with pytest.raises(ArgumentError, match="parameter 1"):
        optimizer.load_state_dict(shaped)
    without = optimizer.state_dict()
    without["state"][1] = {"velocity": zeros(3)}
    with pytest.raises(ArgumentError, match=r"parameter 1: .*velocity"):
        optimizer.load_state_dict(without)
    other = make("RMSprop", [zeros(2), zeros(3)]).state_dict()
    with pytest.raises(ArgumentError, match="hyper-parameters"):
        optimizer.load_state_dict(other)
    with pytest.raises(ArgumentError, match="no key 'param_groups'"):
        optimizer.load_state_dict({"state": {}})
    wrong = optimizer.state_dict()
    wrong["param_groups"][0]["lr"] = -1.0
    with pytest.raises(ArgumentError, match="lr has a value it cannot have"):
        optimizer.load_state_dict(wrong)
    assert optimizer.param_groups[0]["lr"] == 1e-3


@pytest.mark.parametrize("set_to_none", [True, False])
def test_zero_grad(set_to_none: bool) -> None:
    params = parameters([np.ones(2, np.float32), np.ones(3, np.float32)])
    optimizer = make("SGD", params)
    give(params, [np.full(2, 5, np.float32), None])
    optimizer.zero_grad(set_to_none)
    assert params[1].grad is None
    if set_to_none:
        assert params[0].grad is None
    else:
        assert params[0].grad is not None
        assert params[0].grad.detach().numpy().tolist() == [0, 0]


def test_training_reaches_the_least_squares_solution() -> None:
    """Through modules, tape and optimizer, against the normal equations."""
    rng = np.random.default_rng(0)
    x, noise = rng.standard_normal((64, 3)), rng.standard_normal((64, 1))
    y = x @ [[1.0], [-2.0], [0.5]] + 3.0 + 0.1 * noise
    layer = nn.Linear(3, 1)
    optimizer = optim.SGD(layer.parameters(), lr=0.2, momentum=0.5)
    inputs, targets = (from_numpy(a.astype(np.float32)) for a in (x, y))
    for _ in range(100):
        optimizer.zero_grad()
        error = layer(inputs) - targets
        (error * error).mean().backward()
        optimizer.step()
    design = np.concatenate([x, np.ones((64, 1))], axis=1)
    expect = np.linalg.lstsq(design, y, rcond=None)[0].ravel()
    assert layer.bias is not None
    found = np.concatenate([layer.weight.detach().numpy().ravel(), layer.bias.detach().numpy()])
    np.testing.assert_allclose(found, expect, atol=1e-5)


def test_printed_form_as_pytorch() -> None:
    text = """Adam (
Parameter Group 0
    amsgrad: False
    betas: (0.9, 0.999)
    decoupled_weight_decay: False
    eps: 1e-08
    lr: 0.001
    maximize: False
    weight_decay: 0.0
)"""
    assert repr(make("Adam", [zeros(1)])) == text


# -- argument checks


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("SGD", {"lr": -0.1}, "expect: lr >= 0"),
        ("SGD", {"lr": "fast"}, "actual: 'fast'"),
        ("SGD", {"lr": float("nan")}, "actual: nan"),
        ("SGD", {"momentum": -1}, "momentum has a value"),
        ("SGD", {"weight_decay": -1}, "weight_decay has a value"),
        ("SGD", {"nesterov": True}, "nesterov needs a momentum"),
        ("SGD", {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "no dampening"),
        ("RMSprop", {"alpha": -0.1}, "alpha has a value"),
        ("RMSprop", {"eps": -1e-8}, "eps has a value"),
        ("RMSprop", {"momentum": -1}, "momentum has a value"),
        ("Adam", {"betas": (1.0, 0.9)}, r"expect: 0 <= betas\[0\] < 1"),
        ("Adam", {"betas": (0.9, -0.1)}, r"betas\[1\] has a value"),
        ("Adam", {"betas": 0.9}, "betas is no pair"),
        ("Adam", {"eps": -1.0}, "eps has a value"),
        ("AdamW", {"betas": (0.9, 1.0)}, r"betas\[1\] has a value"),
        ("Adagrad", {"lr_decay": -1.0}, "lr_decay has a value"),
        ("Adagrad", {"initial_accumulator_value": -1.0}, "initial_accumulator_value has a value"),
        ("Adadelta", {"rho": 1.5}, "rho has a value"),
        ("Adamax", {"eps": -1.0}, "eps has a value"),
        ("NAdam", {"momentum_decay": -1.0}, "momentum_decay has a value"),
        ("RAdam", {"betas": (0.9, 0.99, 0.999)}, "betas is no pair"),
        ("Lion", {"lr": -1.0}, "lr has a value"),
    ],
)
def test_impossible_hyper_parameters(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        make(name, [zeros(2)], **arguments)
    with pytest.raises(ArgumentError, match=message):
        make(name, [{"params": [zeros(2)], **arguments}])


def test_impossible_parameters() -> None:
    leaf = tensor([1.0, 2.0], requires_grad=True)
    for params, message in [
        ([], "empty parameter list"),
        (leaf, "not in a list"),
        ({"params": [leaf]}, "not in a list"),
        ([leaf, 3.0], "parameter 1 is no tensor"),
        ([leaf * 2], "parameter 0 is the result of an operation"),
        ([leaf, leaf], "parameter 1, of shape .2,., is given more than once"),
        ([{"params": [leaf]}, {"params": leaf}], "given more than once"),
        ([{"lr": 1.0}], "parameter group 0 is not complete"),
        ([{"params": [leaf]}, zeros(1)], "parameter group 1 is not complete"),
        ([{"params": [leaf], "lrr": 1.0}], "actual: lrr"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            make("SGD", params)


def test_a_refused_group_leaves_the_optimizer_as_it_was() -> None:
    optimizer = make("SGD", [zeros(2)], momentum=0.5)
    with pytest.raises(ArgumentError):
        optimizer.add_param_group({"params": [zeros(1)], "lr": -1.0})
    assert len(optimizer.param_groups) == len(optimizer.state) == 1
    optimizer.add_param_group({"params": zeros(1), "lr": 1.0})
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3, 1.0]
    assert len(optimizer.state) == 2


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("SGD", {"momentum": 0.9}),
        ("SGD", {"dampening": 0.9}),
        ("RMSprop", {"centered": True}),
        ("RMSprop", {"momentum": 0.9}),
        ("Adam", {"amsgrad": True}),
    ],
)
def test_state_cannot_be_switched_on_later(name: str, change: dict[str, Any]) -> None:
    params = parameters([np.ones(2, np.float32)])
    optimizer = make(name, params, **({"momentum": 0.5} if "dampening" in change else {}))
    optimizer.param_groups[0].update(change)
    give(params, [np.ones(2, np.float32)])
    with pytest.raises(ArgumentError, match="switched on later"):
        optimizer.step()
