"""States of optimizers: to and from PyTorch's, after changes, and in optimizers of one's own."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import dualgrad as dg
from dualgrad import nn, optim
from dualgrad.creation import from_numpy, zeros
from dualgrad.runtime.errors import ArgumentError
from dualgrad.tensor import Tensor

Array = np.ndarray[Any, Any]

CASES: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "maximize": True}),
    ("RMSprop", {"momentum": 0.9, "centered": True}),
    ("RMSprop", {}),
    ("Adagrad", {"lr_decay": 0.1}),
    ("Adadelta", {"weight_decay": 0.1}),
    ("Adam", {"lr": 0.1, "amsgrad": True}),
    ("AdamW", {"lr": 0.1, "maximize": True}),
    ("Adamax", {"lr": 0.1}),
    ("NAdam", {"lr": 0.1}),
    ("RAdam", {"lr": 0.1, "betas": (0.9, 0.8)}),
]
each = pytest.mark.parametrize(("name", "arguments"), CASES, ids=[n for n, _ in CASES])
START = [np.arange(6.0).reshape(2, 3), np.ones(4), np.array(0.5)]
TOLERANCE = 1e-13  # float64, ten steps


def gradients(step: int) -> list[Array]:
    rng = np.random.default_rng(step)
    return [np.array(rng.standard_normal(a.shape)) for a in START]


def ours(name: str, arguments: dict[str, Any]) -> tuple[list[Any], Any]:
    params = [nn.Parameter(from_numpy(a.copy())) for a in START]
    return params, getattr(optim, name)(params, **arguments)


def theirs(torch: Any, name: str, arguments: dict[str, Any]) -> tuple[list[Any], Any]:
    params = [torch.from_numpy(a.copy()).requires_grad_() for a in START]
    return params, getattr(torch.optim, name)(params, **arguments)


def train(params: Sequence[Any], optimizer: Any, steps: range, make: Any) -> None:
    for step in steps:
        for param, gradient in zip(params, gradients(step), strict=True):
            param.grad = make(gradient)
        optimizer.step()


def assert_equal(mine: Sequence[Any], other: Sequence[Any]) -> None:
    for a, b in zip(mine, other, strict=True):
        np.testing.assert_allclose(
            a.detach().numpy(), b.detach().numpy(), rtol=TOLERANCE, atol=TOLERANCE
        )


@each
def test_a_state_of_pytorch_goes_on_here_and_back_there(
    name: str, arguments: dict[str, Any]
) -> None:
    torch = pytest.importorskip("torch")
    other, reference = theirs(torch, name, arguments)
    train(other, reference, range(4), torch.from_numpy)
    mine, optimizer = ours(name, {"lr": 9.0})
    optimizer.load_state_dict(reference.state_dict())
    for a, b in zip(mine, other, strict=True):
        dg.no_grad()(a.copy_)(from_numpy(b.detach().numpy().copy()))
    train(mine, optimizer, range(4, 7), from_numpy)
    train(other, reference, range(4, 7), torch.from_numpy)
    assert_equal(mine, other)

    saved = optimizer.state_dict()
    saved["state"] = {
        i: {k: torch.from_numpy(v.numpy().copy()) for k, v in s.items()}
        for i, s in saved["state"].items()
    }
    # PyTorch makes all numbers but `step` of the parameter's dtype when it loads them
    reference.load_state_dict(reference.state_dict())
    back, again = theirs(torch, name, {"lr": 9.0})
    again.load_state_dict(saved)
    with torch.no_grad():
        for a, b in zip(back, mine, strict=True):
            a.copy_(torch.from_numpy(b.detach().numpy()))
    train(back, again, range(7, 10), torch.from_numpy)
    train(other, reference, range(7, 10), torch.from_numpy)
    assert_equal(back, other)


@each
def test_state_and_groups_have_the_keys_of_pytorch(name: str, arguments: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    other, reference = theirs(torch, name, arguments)
    train(other, reference, range(1), torch.from_numpy)
    _, optimizer = ours(name, arguments)
    expected, found = reference.state_dict(), optimizer.state_dict()
    for i, state in expected["state"].items():
        kept = {key: tuple(v.shape) for key, v in state.items() if v is not None}
        own = {k: tuple(v.shape) for k, v in found["state"].get(i, {}).items() if k != "intake"}
        assert own == kept
    kernels = {"foreach", "fused", "capturable", "differentiable"}
    [group], [own_group] = expected["param_groups"], found["param_groups"]
    assert own_group == {key: value for key, value in group.items() if key not in kernels}


@pytest.mark.parametrize("name", sorted({name for name, _ in CASES}))
def test_arguments_are_those_of_pytorch(name: str) -> None:
    torch = pytest.importorskip("torch")
    mine, other = (
        {
            p.name: p.default
            for p in inspect.signature(getattr(m, name)).parameters.values()
            if p.name not in ("foreach", "fused", "capturable", "differentiable")
        }
        for m in (optim, torch.optim)
    )
    assert mine == other


def test_a_parameter_without_a_gradient_so_far_starts_anew() -> None:
    torch = pytest.importorskip("torch")
    param, unused = (torch.ones(2, requires_grad=True) for _ in range(2))
    reference = torch.optim.Adam([param, unused])
    param.grad = torch.ones(2)
    reference.step()
    optimizer = optim.Adam([zeros(2), zeros(2)])
    used, fresh = optimizer.state.values()
    fresh["step"].fill_(7.0)
    optimizer.load_state_dict(reference.state_dict())
    assert used["step"].item() == 1.0
    assert fresh["step"].item() == 0.0


def test_loading_follows_the_hyper_parameters_of_the_state() -> None:
    params, plain = ours("SGD", {"lr": 0.1})
    _, moving = ours("SGD", {"lr": 0.1, "momentum": 0.9})
    plain.load_state_dict(moving.state_dict())
    assert [list(s) for s in plain.state.values()] == [["momentum_buffer"]] * 3
    train(params, plain, range(2), from_numpy)
    moving.load_state_dict(ours("SGD", {"lr": 0.1})[1].state_dict())
    assert list(moving.state.values()) == [{}, {}, {}]
    assert moving.param_groups[0]["momentum"] == 0


def test_adamw_refuses_the_state_of_an_adam() -> None:
    _, adam = ours("Adam", {})
    _, adamw = ours("AdamW", {})
    with pytest.raises(ArgumentError, match="decays as in Adam"):
        adamw.load_state_dict(adam.state_dict())


def test_keys_may_be_texts() -> None:
    """As JSON writes them."""
    params, optimizer = ours("Adam", {})
    train(params, optimizer, range(2), from_numpy)
    saved = copy.deepcopy(optimizer.state_dict())
    saved["state"] = {str(i): s for i, s in saved["state"].items()}
    _, again = ours("Adam", {})
    again.load_state_dict(saved)
    assert [s["step"].item() for s in again.state.values()] == [2.0] * 3


def test_named_parameters_are_noted() -> None:
    model = nn.Linear(2, 3)
    optimizer = optim.SGD(model.named_parameters(), lr=0.1)
    assert optimizer.param_groups[0]["param_names"] == ["weight", "bias"]
    assert optimizer.param_groups[0]["params"] == [model.weight, model.bias]
    other = optim.SGD(nn.Linear(2, 3).parameters(), lr=0.2)
    other.load_state_dict(optimizer.state_dict())
    assert other.param_groups[0]["lr"] == 0.1


def test_a_closure_computes_the_loss_with_gradients() -> None:
    params, optimizer = ours("SGD", {"lr": 0.1})

    def closure() -> Any:
        optimizer.zero_grad()
        loss = sum((p * p).sum() for p in params)
        loss.backward()
        return loss

    with dg.no_grad():
        losses = [optimizer.step(closure).item() for _ in range(3)]
    exact = sum((a**2).sum() for a in START)
    np.testing.assert_allclose(losses, [exact * 0.64**k for k in range(3)], rtol=1e-12)
    assert optimizer.step() is None


def test_lion_by_its_paper() -> None:
    for decay in (0.0, 0.3):
        params, optimizer = ours("Lion", {"lr": 0.05, "betas": (0.8, 0.95), "weight_decay": decay})
        values, mean = [a.copy() for a in START], [np.zeros(a.shape) for a in START]
        for step in range(20):
            for k, g in enumerate(gradients(step)):
                values[k] = values[k] * (1 - 0.05 * decay)
                values[k] = values[k] - 0.05 * np.sign(0.8 * mean[k] + 0.2 * g)
                mean[k] = 0.95 * mean[k] + 0.05 * g
        train(params, optimizer, range(20), from_numpy)
        for param, value in zip(params, values, strict=True):
            np.testing.assert_allclose(param.detach().numpy(), value, rtol=TOLERANCE)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(("name", "arguments"), [*CASES, ("Lion", {})])
def test_low_floats_are_computed_in_float32_and_rounded_once(
    name: str, arguments: dict[str, Any], dtype: str
) -> None:
    """Against an optimizer of float32, whose parameters are rounded after each step."""
    low = getattr(dg, dtype)
    starts = [from_numpy(a.astype(np.float32)).to(low) for a in START]
    params = [nn.Parameter(t) for t in starts]
    wide = [nn.Parameter(t.to(dg.float32)) for t in starts]
    optimizers = [getattr(optim, name)(p, **arguments) for p in (params, wide)]
    for step in range(5):
        for k, gradient in enumerate(gradients(step)):
            params[k].grad = from_numpy(gradient.astype(np.float32)).to(low)
            wide[k].grad = params[k].grad.to(dg.float32)
        for optimizer in optimizers:
            optimizer.step()
        with dg.no_grad():
            for w in wide:
                w.copy_(w.to(low).to(dg.float32))
    for p, w in zip(params, wide, strict=True):
        assert p.dtype is low
        np.testing.assert_allclose(
            p.to(dg.float32).detach().numpy(),
            w.detach().numpy(),
            rtol=2.0 ** (-8 if dtype == "bfloat16" else -11),
        )
    assert all(t.dtype is dg.float32 for s in optimizers[0].state.values() for t in s.values())


class Momentum(optim.Optimizer):
    """Written as for PyTorch: the state comes with the first step."""

    def __init__(self, params: Any, lr: float = 0.1, momentum: float = 0.9) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    def step(self, closure: Any = None) -> Any:
        with dg.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is None:
                        continue
                    state = self.state[p]
                    if len(state) == 0:
                        state["step"] = 0
                        state["buffer"] = dg.zeros_like(p)
                    state["step"] += 1
                    state["buffer"].mul_(group["momentum"]).add_(p.grad)
                    p.sub_(group["lr"] * state["buffer"])


def run_own(compiled: bool) -> tuple[list[bytes], list[int], int]:
    dg.seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    optimizer = Momentum(model.parameters())

    def step(x: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = (model(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        return loss

    f = dg.function(step, strict=True) if compiled else step
    rng = np.random.default_rng(0)
    bits = [f(from_numpy(rng.standard_normal((5, 4)))).detach().numpy().tobytes() for _ in "12345"]
    bits += [p.detach().numpy().tobytes() for p in model.parameters()]
    bits += [s["buffer"].numpy().tobytes() for s in optimizer.state.values()]
    steps = [s["step"] for s in optimizer.state.values()]
    return bits, steps, f.n_traces if isinstance(f, dg.Function) else 0


def test_row50_an_optimizer_whose_state_comes_with_the_first_step() -> None:
    """A dict with tensors as keys; one program that makes the state, one that goes on."""
    eager, steps, _ = run_own(compiled=False)
    static, static_steps, traces = run_own(compiled=True)
    assert static == eager
    assert static_steps == steps == [5] * 4
    assert traces <= 3


def test_the_state_of_an_optimizer_of_ones_own_is_loaded() -> None:
    params, _ = ours("SGD", {})
    optimizer = Momentum(params)
    train(params, optimizer, range(3), from_numpy)
    saved = copy.deepcopy(optimizer.state_dict())
    train(params, optimizer, range(3, 5), from_numpy)
    again_params = [nn.Parameter(from_numpy(a.copy())) for a in START]
    again = Momentum(again_params)
    train(again_params, Momentum(again_params), range(3), from_numpy)
    again.load_state_dict(saved)
    train(again_params, again, range(3, 5), from_numpy)
    for a, b in zip(params, again_params, strict=True):
        assert a.detach().numpy().tobytes() == b.detach().numpy().tobytes()
    assert [s["step"] for s in again.state.values()] == [5] * 3


def test_an_optimizer_without_a_step() -> None:
    class Empty(optim.Optimizer):
        pass

    params, _ = ours("SGD", {})
    optimizer = Empty(params, {"lr": 0.1})
    optimizer.step()
    params[0].grad = dg.zeros_like(params[0])
    with pytest.raises(NotImplementedError, match=r"Empty defines neither update\(\) nor step\(\)"):
        optimizer.step()


def test_copies_go_with_their_model() -> None:
    model = nn.Linear(2, 3)
    optimizer = optim.Adam(model.parameters())
    other, copied = copy.deepcopy((model, optimizer))
    assert list(copied.state) == list(other.parameters())
    assert copied.state[other.weight]["exp_avg"] is not optimizer.state[model.weight]["exp_avg"]
