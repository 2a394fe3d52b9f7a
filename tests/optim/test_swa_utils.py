"""Averaged models against PyTorch's and against the formulas, in both modes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dualgrad as dg
from dualgrad import nn, optim
from dualgrad.creation import from_numpy
from dualgrad.optim import swa_utils
from dualgrad.runtime.errors import ArgumentError

TOLERANCE = {"float32": 2e-6, "float64": 1e-7}  # PyTorch's share 1 / (n + 1) is a float32

CASES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "mean": lambda m: {},
    "mean, with buffers": lambda m: {"use_buffers": True},
    "mean by name": lambda m: {"multi_avg_fn": m.get_swa_multi_avg_fn()},
    "mean one by one": lambda m: {"avg_fn": m.get_swa_avg_fn()},
    "exponential": lambda m: {"multi_avg_fn": m.get_ema_multi_avg_fn(0.9)},
    "exponential, with buffers": lambda m: {
        "multi_avg_fn": m.get_ema_multi_avg_fn(0.9),
        "use_buffers": True,
    },
    "exponential one by one": lambda m: {"avg_fn": m.get_ema_avg_fn(0.8)},
    "own": lambda m: {"avg_fn": lambda average, value, n: average * 0.5 + value * 0.5},
}


def model_of(library: Any) -> Any:
    return library.Sequential(library.Linear(3, 4), library.BatchNorm1d(4), library.Linear(4, 2))


def values_of(step: int, template: dict[str, Any], dtype: str) -> dict[str, Any]:
    rng = np.random.default_rng(step)
    return {
        k: np.array(3 * step)
        if k.endswith("tracked")
        else rng.uniform(0.5, 2.0, tuple(v.shape)).astype(dtype)
        for k, v in template.items()
    }


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_as_pytorch(name: str, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    theirs = model_of(torch.nn).to(getattr(torch, dtype))
    ours = model_of(nn).to(getattr(dg, dtype))
    expected = torch.optim.swa_utils.AveragedModel(theirs, **CASES[name](torch.optim.swa_utils))
    average = swa_utils.AveragedModel(ours, **CASES[name](swa_utils))
    assert list(average.state_dict()) == list(expected.state_dict())
    for step in range(8):
        values = values_of(step, ours.state_dict(), dtype)
        ours.load_state_dict(values)
        theirs.load_state_dict({k: torch.from_numpy(v) for k, v in values.items()})
        average.update_parameters(ours)
        expected.update_parameters(theirs)
        for key, value in average.state_dict().items():
            np.testing.assert_allclose(
                value.numpy(),
                expected.state_dict()[key].numpy(),
                rtol=TOLERANCE[dtype],
                err_msg=key,
            )
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(dtype)
    average.eval()
    expected.eval()
    np.testing.assert_allclose(
        average(from_numpy(x)).detach().numpy(),
        expected(torch.from_numpy(x)).detach().numpy(),
        rtol=1e-5,
        atol=1e-6,
    )


def test_the_mean_of_all_steps() -> None:
    model = nn.Linear(2, 3).to(dg.float64)
    average = swa_utils.AveragedModel(model)
    steps = [values_of(step, model.state_dict(), "float64") for step in range(10)]
    for values in steps:
        model.load_state_dict(values)
        average.update_parameters(model)
    assert average.n_averaged.item() == 10
    for name, param in average.module.named_parameters():
        expected = np.mean([values[name] for values in steps], axis=0)
        np.testing.assert_allclose(param.detach().numpy(), expected, rtol=1e-14)


def run(name: str, compiled: bool) -> tuple[list[bytes], int]:
    """Bits of loss and averages of a training step that keeps an average."""
    dg.seed(1)
    model = model_of(nn)
    average = swa_utils.AveragedModel(model, **CASES[name](swa_utils))
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    schedule = swa_utils.SWALR(optimizer, 0.05, 4)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = (model(x) ** 2).mean()
        loss.backward()
        optimizer.step()
        schedule.step()
        average.update_parameters(model)
        return loss

    f = dg.function(step, strict=True) if compiled else step
    rng = np.random.default_rng(0)
    batches = [from_numpy(rng.standard_normal((6, 3)).astype(np.float32)) for _ in range(6)]
    bits = [f(x).detach().numpy().tobytes() for x in batches]
    bits += [t.numpy().tobytes() for t in average.state_dict().values()]
    return bits, f.n_traces if isinstance(f, dg.Function) else 0


@pytest.mark.parametrize("name", CASES)
def test_a_compiled_step_keeps_the_same_average(name: str) -> None:
    eager, _ = run(name, compiled=False)
    static, traces = run(name, compiled=True)
    assert static == eager
    assert traces <= 2


def test_batch_norm_gets_the_statistics_of_all_batches() -> None:
    rng = np.random.default_rng(3)
    batches = [rng.standard_normal((8, 4)) * 3 + 1 for _ in range(5)]
    model = nn.Sequential(nn.BatchNorm1d(4, momentum=0.3)).to(dg.float64)
    model.eval()
    swa_utils.update_bn([(from_numpy(b), None) for b in batches], model)
    layer = model[0]
    mean = np.mean([b.mean(0) for b in batches], axis=0)
    var = np.mean([b.var(0, ddof=1) for b in batches], axis=0)
    np.testing.assert_allclose(layer.running_mean.numpy(), mean, rtol=1e-12)
    np.testing.assert_allclose(layer.running_var.numpy(), var, rtol=1e-12)
    assert layer.momentum == 0.3
    assert not layer.training


@pytest.mark.parametrize(
    "make",
    [
        lambda model: swa_utils.AveragedModel(
            model,
            avg_fn=swa_utils.get_ema_avg_fn(),
            multi_avg_fn=swa_utils.get_ema_multi_avg_fn(),
        ),
        lambda model: swa_utils.get_ema_multi_avg_fn(1.5),
        lambda model: swa_utils.get_ema_avg_fn(-0.5),
        lambda model: swa_utils.SWALR(optim.SGD(model.parameters()), 0.1, -1),
        lambda model: swa_utils.SWALR(optim.SGD(model.parameters()), 0.1, 3, "square"),
    ],
)
def test_impossible_arguments_are_refused(make: Callable[[Any], Any]) -> None:
    with pytest.raises(ArgumentError):
        make(nn.Linear(2, 2))
