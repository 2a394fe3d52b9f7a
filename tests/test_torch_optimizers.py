"""Optimizers with the arguments that PyTorch tests its own with (optional: needs torch).

For every optimizer of `optim_db` with a namesake here: 20 steps, the last ten of them with the
state that PyTorch's optimizer had after the first ten; each as it is and compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import as_array

import dualgrad as dg
from dualgrad import nn, optim

pytest.importorskip("torch", reason="PyTorch lists the samples")
pytest.importorskip("expecttest", reason="PyTorch's lists need it")

import torch
from torch.testing._internal.common_optimizers import optim_db

STEPS = 20
SHAPES = ((3, 2), (4,), ())
TOLERANCE = {"float64": 1e-12, "float32": 1e-5}  # 20 steps, each with a few roundings
CASES = [
    (info.optim_cls.__name__, sample.kwargs)
    for info in optim_db
    if hasattr(optim, info.optim_cls.__name__)
    for sample in info.optim_inputs_func("cpu", torch.float64)
    # a tensor as rate is for graphs of CUDA in PyTorch; here any number may change between steps
    if not any(isinstance(value, torch.Tensor) for value in sample.kwargs.values())
]
IDS = ["-".join([name, *(f"{k}={v}" for k, v in named.items())]) for name, named in CASES]
Array = np.ndarray[Any, Any]


class Problem:
    """Parameters and gradients of all steps, from a seed."""

    def __init__(self, dtype: str) -> None:
        rng = np.random.default_rng(3)
        self.start = [np.asarray(rng.uniform(-2, 2, shape), dtype) for shape in SHAPES]
        self.gradients = [
            [np.asarray(rng.standard_normal(shape), dtype) for shape in SHAPES]
            for _ in range(STEPS)
        ]

    def theirs(self, name: str, named: dict[str, Any]) -> tuple[list[list[Array]], Any]:
        """Parameters after each of PyTorch's steps, and the state dict half-way."""
        params = [torch.from_numpy(x.copy()).requires_grad_() for x in self.start]
        optimizer = getattr(torch.optim, name)(params, **named)
        values: list[list[Array]] = []
        state = None
        for step, gradients in enumerate(self.gradients):
            if step == STEPS // 2:
                state = optimizer.state_dict()
                # a copy: the next steps change the tensors
                state["state"] = {
                    i: {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in s.items()}
                    for i, s in state["state"].items()
                }
            for param, gradient in zip(params, gradients, strict=True):
                param.grad = torch.from_numpy(gradient)
            optimizer.step()
            values.append([p.detach().numpy().copy() for p in params])
        return values, state

    def ours(
        self, optimizer: Any, params: list[nn.Parameter], steps: range, decorate: Callable[..., Any]
    ) -> list[list[Array]]:
        """Parameters after each step."""

        def step(*gradients: dg.Tensor) -> None:
            for param, gradient in zip(params, gradients, strict=True):
                param.grad = gradient
            optimizer.step()

        call, values = decorate(step), []
        for i in steps:
            call(*map(dg.tensor, self.gradients[i]))
            values.append([as_array(p).copy() for p in params])
        return values


def plain(function: Any) -> Any:
    return function


def strict(function: Any) -> Any:
    return dg.function(function, strict=True)


def numpy_state(state: Any) -> Any:
    """A state dict with arrays in place of PyTorch's tensors."""
    if isinstance(state, dict):
        return {k: numpy_state(v) for k, v in state.items()}
    return state.numpy() if isinstance(state, torch.Tensor) else state


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("name", "named"), CASES, ids=IDS)
def test_steps(name: str, named: dict[str, Any], dtype: str) -> None:
    problem, tolerance = Problem(dtype), TOLERANCE[dtype]
    want, state = problem.theirs(name, named)
    runs = []
    for decorate in (plain, strict):
        params = [nn.Parameter(dg.tensor(x)) for x in problem.start]
        optimizer = getattr(optim, name)(params, **named)
        runs.append(problem.ours(optimizer, params, range(STEPS), decorate))
    for eager, static in zip(*runs, strict=True):
        assert [x.tobytes() for x in eager] == [x.tobytes() for x in static]
    params = [nn.Parameter(dg.tensor(x)) for x in want[STEPS // 2 - 1]]
    optimizer = getattr(optim, name)(params)
    optimizer.load_state_dict(numpy_state(state))
    rest = problem.ours(optimizer, params, range(STEPS // 2, STEPS), plain)
    for got, expected in [
        *zip(runs[0], want, strict=True),
        *zip(rest, want[STEPS // 2 :], strict=True),
    ]:
        for x, y in zip(got, expected, strict=True):
            assert x.dtype == y.dtype
            np.testing.assert_allclose(x, y, tolerance, tolerance)


def test_all_are_here() -> None:
    """Every optimizer that a user of PyTorch reaches for has samples above."""
    names = {name for name, _ in CASES}
    assert names >= {"SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adamax"}
