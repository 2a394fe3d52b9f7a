"""One layer built from our `nn` and from torch's, compared: for tests of single layers."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from support import same_bits

import dualgrad as dg
from dualgrad import nn
from dualgrad.jit.function import EagerFallback

Build = Callable[[Any], Any]  # of a module named nn
Array = np.ndarray[Any, Any]


def drawn(*shape: int, seed: int = 7, low: float = -2.0, high: float = 2.0) -> Array:
    """Numbers in which no two are equal, so that pooling has no ties."""
    values = np.random.default_rng(seed).permutation(np.linspace(low, high, int(np.prod(shape))))
    return values.reshape(shape).astype(np.float32)


def outputs_of(result: Any) -> tuple[Any, ...]:
    return tuple(result) if isinstance(result, (tuple, list)) else (result,)


def weighted(results: Sequence[Any], ones: Callable[..., Any]) -> Any:
    """A number that depends on each element of each float result."""
    total: Any = 0.0
    for k, y in enumerate(results):
        if "float" in str(y.dtype):
            total = total + (y * ones(y, k)).sum()
    return total


def weights(y: Any, k: int) -> Array:
    return drawn(*y.shape, seed=50 + k, low=0.5, high=1.5)


def load(module: Any, state: dict[str, Any]) -> None:
    """Values of a state dict of the other framework, by name."""
    module.load_state_dict({name: value.detach().numpy() for name, value in state.items()})


def run(module: Any, inputs: Sequence[Any], compiled: bool = False) -> dict[str, Any]:
    """Outputs, and the gradients of inputs and parameters, under names."""
    xs = [dg.tensor(x, requires_grad=x.dtype.kind == "f") for x in inputs]

    def forward(*xs: Any) -> Any:
        return module(*xs)

    for p in module.parameters():
        p.grad = None
    results = outputs_of((dg.function(forward, strict=True) if compiled else forward)(*xs))
    found = {f"output {k}": y.detach() for k, y in enumerate(results)}
    total = weighted(results, lambda y, k: dg.tensor(weights(y, k)).to(y.dtype))
    if isinstance(total, dg.Tensor) and total.requires_grad:
        total.backward()
    leaves = [(f"input {k}", x) for k, x in enumerate(xs)] + list(module.named_parameters())
    for name, x in leaves:
        if x.grad is not None:
            found[f"gradient of {name}"] = x.grad
    return found


def run_torch(torch: Any, module: Any, inputs: Sequence[Any]) -> dict[str, Any]:
    xs = [torch.tensor(x, requires_grad=x.dtype.kind == "f") for x in inputs]
    results = outputs_of(module(*xs))
    found = {f"output {k}": y.detach() for k, y in enumerate(results)}
    total = weighted(results, lambda y, k: torch.tensor(weights(y, k)))
    if total.requires_grad:
        total.backward()
    leaves = [(f"input {k}", x) for k, x in enumerate(xs)] + list(module.named_parameters())
    for name, x in leaves:
        if x.grad is not None:
            found[f"gradient of {name}"] = x.grad
    return found


def check_modes(module: Any, *inputs: Array) -> dict[str, Any]:
    """The eager results, after asserting that compiled ones have the same bits."""
    state = {name: value.clone() for name, value in module.state_dict().items()}
    eager = run(module, inputs)
    after = {name: value.clone() for name, value in module.state_dict().items()}
    module.load_state_dict(state)
    with warnings.catch_warnings():
        warnings.simplefilter("error", EagerFallback)
        compiled = run(module, inputs, compiled=True)
    assert list(compiled) == list(eager)
    for name in eager:
        same_bits(compiled[name], eager[name], name)
    for name, value in module.state_dict().items():
        same_bits(value, after[name], name)
    return eager


def check_layer(build: Build, *inputs: Array, relative: float = 2e-5) -> None:
    """Same printed form, signature, state and numbers as torch's layer with the same state.

    Differences count relative to the largest element of each result.
    """
    torch = pytest.importorskip("torch")
    ours, theirs = build(nn), build(torch.nn)
    assert repr(ours) == repr(theirs)
    names = [(name, tuple(value.shape)) for name, value in ours.state_dict().items()]
    assert names == [(name, tuple(value.shape)) for name, value in theirs.state_dict().items()]
    load(ours, theirs.state_dict())
    found = check_modes(ours, *inputs)
    want = run_torch(torch, theirs, inputs)
    assert found.keys() == want.keys()
    for name, value in want.items():
        got, value = found[name].numpy(), value.numpy()
        assert got.shape == value.shape, name
        assert got.dtype == value.dtype, name
        scale = np.abs(value[np.isfinite(value)]).max(initial=1e-3)
        np.testing.assert_allclose(got, value, rtol=0, atol=relative * scale, err_msg=name)


def check_signature(name: str, but: Sequence[str] = ()) -> None:
    """Parameters, their order and their defaults are those of torch's class, but for some that are
    left out."""
    theirs = inspect.signature(getattr(pytest.importorskip("torch.nn"), name).__init__)
    ours = inspect.signature(getattr(nn, name).__init__)
    want = [(p.name, p.kind, p.default) for p in theirs.parameters.values() if p.name not in but]
    assert [(p.name, p.kind, p.default) for p in ours.parameters.values()] == want
