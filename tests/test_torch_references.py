"""Stored results of PyTorch's, values and gradients, for small samples of every op in common.

tests/references/make_torch_references.py made the file; nothing here needs PyTorch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import as_array
from torch_names import function_for

import dualgrad as dg

FILE = Path(__file__).parent / "references" / "torch_references.json"
STORED: dict[str, list[dict[str, Any]]] = json.loads(FILE.read_text())


def tensor_of(x: Any, leaves: list[dg.Tensor]) -> Any:
    """A stored argument; tensors that want gradients are noted."""
    if isinstance(x, list):
        return [tensor_of(v, leaves) for v in x]
    if not isinstance(x, dict):
        return x
    out = dg.tensor(array_of(x))
    if x["grad"]:
        leaves.append(out.requires_grad_())
    return out


def array_of(x: dict[str, Any]) -> np.ndarray[Any, Any]:
    return np.array(x["tensor"], dtype=x["dtype"]).reshape(x["shape"])


def tensors(result: Any) -> list[Any]:
    if isinstance(result, list | tuple):
        return [y for x in result for y in tensors(x)]
    return [result]


@pytest.mark.parametrize("name", STORED)
def test_as_stored(name: str) -> None:
    function = function_for(name)
    assert function is not None
    for record in STORED[name]:
        leaves: list[dg.Tensor] = []
        args = [tensor_of(v, leaves) for v in record["args"]]
        named = {k: tensor_of(v, leaves) for k, v in record["kwargs"].items()}
        results = tensors(function(*args, **named))
        for got, want in zip(results, record["results"], strict=True):
            np.testing.assert_allclose(as_array(got), array_of(want), 1e-6, 1e-8)
        if "gradients" not in record:
            continue
        total = dg.zeros((), dtype="float64")
        for r in results:
            total = total + r.sum() if r.requires_grad else total
        total.backward()
        for leaf, want in zip(leaves, record["gradients"], strict=True):
            if want is not None:
                found = np.zeros(leaf.shape) if leaf.grad is None else as_array(leaf.grad)
                np.testing.assert_allclose(found, array_of(want), 1e-6, 1e-8)
