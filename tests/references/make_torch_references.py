"""Stores small samples of PyTorch's with their results and gradients in torch_references.json.

    python tests/references/make_torch_references.py

Needs torch and expecttest; tests/test_torch_references.py replays the file without them.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from test_torch_samples import DIFFERENT  # noqa: E402
from torch_samples import PLACES, SIGNS, as_numpy, common_ops, outputs  # noqa: E402

LARGEST = 40  # elements of any tensor of a stored sample
STORED = 1  # samples per op


def packed(x: Any) -> Any:
    """An argument as JSON; raises TypeError for what has no such form."""
    if isinstance(x, torch.Tensor):
        if x.numel() > LARGEST or x.is_complex():
            raise TypeError("too large")
        array = as_numpy(x)
        return {
            "tensor": array.ravel().tolist(),
            "shape": list(array.shape),
            "dtype": str(array.dtype),
            "grad": x.requires_grad,
        }
    if isinstance(x, torch.dtype):
        return str(x).removeprefix("torch.")
    if isinstance(x, list | tuple):
        return [packed(v) for v in x]
    if x is None or isinstance(x, bool | int | float | str):
        return x
    raise TypeError(type(x).__name__)


def leaves(x: Any) -> list[torch.Tensor]:
    if isinstance(x, list | tuple):
        return [t for v in x for t in leaves(v)]
    return [x] if isinstance(x, torch.Tensor) and x.requires_grad else []


def stored(op: Any, sample: Any) -> dict[str, Any]:
    """One call: arguments, results, and gradients of the sum of results."""
    args = (sample.input, *sample.args)
    named = {k: v for k, v in sample.kwargs.items() if k not in PLACES}
    record = {"args": packed(args), "kwargs": {k: packed(v) for k, v in named.items()}}
    results = outputs(op(*args, **sample.kwargs))
    if not all(isinstance(r, torch.Tensor) for r in results):
        raise TypeError("no tensors")
    record["results"] = [packed(r.detach()) for r in results]
    inputs = leaves([*args, *named.values()])
    total = sum((r.sum() for r in results if r.requires_grad), torch.zeros((), dtype=torch.float64))
    if inputs and total.requires_grad:
        found = torch.autograd.grad(total, inputs, allow_unused=True)
        record["gradients"] = [None if g is None else packed(g) for g in found]
    return record


def main() -> None:
    out: dict[str, list[dict[str, Any]]] = {}
    for op in common_ops():
        if op.name in DIFFERENT or op.name in SIGNS or torch.float64 not in op.dtypes:
            continue
        for sample in op.sample_inputs("cpu", torch.float64, requires_grad=op.supports_autograd):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    record = stored(op, sample)
                except (TypeError, RuntimeError, np.exceptions.ComplexWarning):
                    continue
            if len(out.setdefault(op.name, [])) < STORED:
                out[op.name].append(record)
    lines = [f"{json.dumps(k)}: {json.dumps(v)}" for k, v in out.items() if v]
    (HERE / "torch_references.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
