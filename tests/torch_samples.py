"""PyTorch's own list of ops and sample inputs, run through the functions of the same names here.

For every op of `op_db` that has a namesake, forward values, and gradients with random weights,
are compared with PyTorch's in float64 (integers where an op takes no floats).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.testing._internal.common_methods_invocations import op_db
from torch_names import function_for

import dualgrad as dg

SAMPLES = 24  # per op and dtype, evenly taken from PyTorch's
RTOL, ATOL = 1e-6, 1e-8
DTYPES = (torch.float64, torch.int64, torch.bool)
Array = np.ndarray[Any, Any]


# arguments that say where or how memory lies: there is one device and one format
PLACES = ("device", "layout", "memory_format", "pin_memory")
# ops whose vectors may have either sign: PyTorch's samples say what does not depend on it
SIGNS = ("linalg.eigh", "linalg.svd")


def common_ops() -> list[Any]:
    """The ops of `op_db` that have a namesake here, each once."""
    seen: dict[str, Any] = {}
    for op in op_db:
        if function_for(op.name) is not None and not op.variant_test_name:
            seen.setdefault(op.name, op)
    return sorted(seen.values(), key=lambda op: str(op.name))


def ours(x: Any, leaves: list[tuple[torch.Tensor, dg.Tensor]]) -> Any:
    """An argument of PyTorch's as one of ours; float tensors that want gradients are noted."""
    if isinstance(x, torch.Tensor):
        out = dg.tensor(x.detach().cpu().numpy().copy())
        if x.requires_grad:
            out.requires_grad_()
            x.grad = None  # samples may share their tensors
            leaves.append((x, out))
        return out
    if isinstance(x, torch.dtype):
        return str(x).removeprefix("torch.")
    if isinstance(x, list | tuple):
        return type(x)(ours(v, leaves) for v in x)
    return x


def outputs(result: Any) -> list[Any]:
    """The tensors and numbers of a result, in order."""
    if isinstance(result, list | tuple):
        return [y for x in result for y in outputs(x)]
    return [result]


def as_pairs(x: Any) -> Any:
    """A complex tensor of PyTorch's as a real one, anything else as it is."""
    is_complex = isinstance(x, torch.Tensor) and x.is_complex()
    return torch.view_as_real(x.resolve_conj()) if is_complex else x


def as_numpy(x: Any) -> Array:
    if isinstance(x, torch.Tensor):
        return x.detach().resolve_conj().numpy(force=True)
    if isinstance(x, dg.Tensor):
        return np.asarray(x.detach().numpy())
    return np.asarray(x)


def assert_close(got: Any, want: Any, what: str) -> None:
    a, b = as_numpy(got), as_numpy(want)
    assert a.shape == b.shape, f"{what}: shape {a.shape}, PyTorch {b.shape}"
    if a.dtype != b.dtype:
        kinds = {a.dtype.kind, b.dtype.kind}
        assert kinds in ({"i"}, {"u", "i"}, {"f"}), f"{what}: {a.dtype}, PyTorch {b.dtype}"
    x, y = a.astype(np.float64), b.astype(np.float64)
    atol = ATOL
    if a.dtype == np.float32:  # of integers: sums are as wrong as their largest terms
        atol = 4e-6 * np.abs(np.where(np.isfinite(y), y, 0)).max(initial=0)
    np.testing.assert_allclose(x, y, RTOL, atol, equal_nan=True, err_msg=what)


@dataclass
class Outcome:
    """What came of one op."""

    name: str
    passed: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        return self.passed + len(self.failures)


def samples(op: Any) -> Iterator[tuple[Any, bool]]:
    """(sample, whether to compare gradients) for the dtypes that an op takes."""
    for dtype in DTYPES:
        if dtype not in op.dtypes:
            continue
        grads = bool(op.supports_autograd and dtype.is_floating_point)
        found = list(op.sample_inputs("cpu", dtype, requires_grad=grads))
        step = max(1, -(-len(found) // SAMPLES))
        for sample in found[::step]:
            yield sample, grads


def run_sample(op: Any, function: Callable[..., Any], sample: Any, grads: bool) -> None:
    """Raise if our function does something else than PyTorch's op."""
    leaves: list[tuple[torch.Tensor, dg.Tensor]] = []
    mine = [ours(x, leaves) for x in (sample.input, *sample.args)]
    named = {k: ours(v, leaves) for k, v in sample.kwargs.items() if k not in PLACES}
    expected, found = op(sample.input, *sample.args, **sample.kwargs), function(*mine, **named)
    if op.name in SIGNS:
        expected, found = map(sample.output_process_fn_grad, (expected, found))
    want, got = [as_pairs(y) for y in outputs(expected)], outputs(found)
    assert len(got) == len(want), f"{len(got)} outputs, PyTorch {len(want)}"
    for k, (a, b) in enumerate(zip(got, want, strict=True)):
        assert_close(a, b, f"output {k}")
    if not (grads and leaves):
        return
    rng = np.random.default_rng(0)
    total, mirror = dg.zeros((), dtype="float64"), torch.zeros((), dtype=torch.float64)
    for a, b in zip(got, want, strict=True):
        if isinstance(b, torch.Tensor) and b.requires_grad:
            weight = rng.uniform(0.5, 1.5, tuple(b.shape))
            total = total + (a * dg.tensor(weight)).sum()
            mirror = mirror + (b * torch.from_numpy(np.asarray(weight))).sum()
    if not mirror.requires_grad:
        return
    mirror.backward()
    total.backward()
    for k, (b, a) in enumerate(leaves):
        if b.grad is not None:
            found = dg.zeros(a.shape, dtype=a.dtype) if a.grad is None else a.grad
            assert_close(found, b.grad, f"gradient {k}")


def run_op(op: Any) -> Outcome:
    """All samples of an op."""
    function = function_for(op.name)
    assert function is not None
    outcome = Outcome(op.name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for sample, grads in samples(op):
            try:
                run_sample(op, function, sample, grads)
                outcome.passed += 1
            except Exception as error:
                text = str(error).strip().splitlines() or [""]
                where = f"{_shape(sample.input)} {sample.args} {sample.kwargs}"[:160]
                outcome.failures.append(f"{type(error).__name__}: {text[0][:150]} | {where}")
    return outcome


def _shape(x: Any) -> Any:
    return tuple(x.shape) if isinstance(x, torch.Tensor) else type(x).__name__
