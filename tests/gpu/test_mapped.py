"""vmap on a CUDA device: the bits of the CPU, in both modes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import same_bits

import dualgrad as dg
from dualgrad.runtime.driver import Driver

W = dg.from_numpy(np.random.default_rng(1).standard_normal((5, 6)).astype(np.float32))
X = dg.from_numpy(np.random.default_rng(0).standard_normal((3, 4, 5)).astype(np.float32))


def filled(w: Any, x: Any) -> Any:
    out = dg.zeros(6, device=x.device)
    for row in x:
        out += row @ w
    out[0] = x[0, 0]
    return out


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "dense": lambda w, x: dg.softmax(dg.tanh(x @ w), 0),
    "positions": lambda w, x: w[(x[:, 0] > 0).long()].sum(0),
    "changes": filled,
    "gradient": dg.grad(lambda w, x: (x @ w).square().mean()),
    "moved": lambda w, x: (x @ w).cpu().sum() + 1,
    "random": lambda w, x: x + dg.rand(4, 5, device=x.device),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_bits_of_the_cpu(gpu: Driver, name: str) -> None:
    mapped = dg.vmap(FUNCTIONS[name], in_axes=(None, 0), randomness="different")
    dg.manual_seed(3)
    want = mapped(W, X)
    for call in (mapped, dg.function(mapped, strict=True)):
        dg.manual_seed(3)
        got = call(W.cuda(), X.cuda())
        assert got.is_cuda == (name != "moved")
        same_bits(got.cpu(), want)
