"""Autocast against PyTorch's: dtypes of results on CUDA's rules, values on the CPU.

PyTorch's rules for CUDA hold on all devices here.  They are asked for without a device: on tensors
that have no values.  `pytest -m slow` asks for them with all of PyTorch's own samples.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from support import as_array

pytest.importorskip("torch", reason="PyTorch has the rules to compare with")

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import dualgrad as dg
from dualgrad import nn

F, TF = dg.functional, torch.nn.functional
DTYPES = {"float32": dg.float32, "float16": dg.float16}


@contextmanager
def cuda_rules() -> Iterator[None]:
    """PyTorch's autocast for CUDA, on tensors without values."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        torch.set_autocast_enabled("cuda", True)
        torch.set_autocast_dtype("cuda", torch.float16)
        torch.autocast_increment_nesting()
        try:
            yield
        finally:
            torch.autocast_decrement_nesting()
            torch.clear_autocast_cache()
            torch.set_autocast_enabled("cuda", False)


def names(result: Any) -> list[str]:
    """The dtypes of all tensors of a result."""
    if isinstance(result, list | tuple):
        return [n for x in result for n in names(x)]
    if isinstance(result, torch.Tensor):
        return [str(result.dtype).removeprefix("torch.")]
    return [result.dtype.name] if isinstance(result, dg.Tensor) else []


CALLS: dict[str, Callable[..., Any]] = {
    "matmul": lambda m, f, x: x @ x,
    "linear": lambda m, f, x: f.linear(x, x),
    "einsum": lambda m, f, x: m.einsum("ij,kj->ik", x, x),
    "conv2d": lambda m, f, x: f.conv2d(x.reshape((1, 1, 4, 4)), x.reshape((1, 1, 4, 4))),
    "conv_transpose2d": lambda m, f, x: f.conv_transpose2d(*[x.reshape((1, 1, 4, 4))] * 2),
    "addmm": lambda m, f, x: m.addmm(x, x, x),
    "baddbmm": lambda m, f, x: m.baddbmm(*[x.reshape((1, 4, 4))] * 3),
    "attention": lambda m, f, x: f.scaled_dot_product_attention(*[x.reshape((1, 1, 4, 4))] * 3),
    "sum": lambda m, f, x: x.sum(),
    "prod": lambda m, f, x: x.prod(),
    "cumsum": lambda m, f, x: x.cumsum(0),
    "cumprod": lambda m, f, x: x.cumprod(0),
    "norm": lambda m, f, x: x.norm(),
    "softmax": lambda m, f, x: f.softmax(x, 0),
    "log_softmax": lambda m, f, x: f.log_softmax(x, 0),
    "logsumexp": lambda m, f, x: x.logsumexp(0),
    "layer_norm": lambda m, f, x: f.layer_norm(x, (4,)),
    "group_norm": lambda m, f, x: f.group_norm(x, 2),
    "mse_loss": lambda m, f, x: f.mse_loss(x, x, reduction="none"),
    "l1_loss": lambda m, f, x: f.l1_loss(x, x),
    "kl_div": lambda m, f, x: f.kl_div(x, x, reduction="sum"),
    "cosine_similarity": lambda m, f, x: f.cosine_similarity(x, x),
    "softplus": lambda m, f, x: f.softplus(x),
    "exp": lambda m, f, x: x.exp(),
    "expm1": lambda m, f, x: x.expm1(),
    "log": lambda m, f, x: x.log(),
    "log1p": lambda m, f, x: x.log1p(),
    "pow": lambda m, f, x: x**2.5,
    "power of a number": lambda m, f, x: 2.0**x,
    "rsqrt": lambda m, f, x: x.rsqrt(),
    "reciprocal": lambda m, f, x: x.reciprocal(),
    "tan": lambda m, f, x: x.tan(),
    "acos": lambda m, f, x: x.acos(),
    "cosh": lambda m, f, x: x.cosh(),
    "erfinv": lambda m, f, x: x.erfinv(),
    "mean": lambda m, f, x: x.mean(),
    "var": lambda m, f, x: x.var(),
    "max": lambda m, f, x: x.max(),
    "sqrt": lambda m, f, x: x.sqrt(),
    "tanh": lambda m, f, x: x.tanh(),
    "sigmoid": lambda m, f, x: x.sigmoid(),
    "gelu": lambda m, f, x: f.gelu(x),
    "silu": lambda m, f, x: f.silu(x),
    "elu": lambda m, f, x: f.elu(x),
    "add": lambda m, f, x: x + x,
    "div": lambda m, f, x: x / 3.0,
    "avg_pool2d": lambda m, f, x: f.avg_pool2d(x.reshape((1, 1, 4, 4)), 2),
    "max_pool2d": lambda m, f, x: f.max_pool2d(x.reshape((1, 1, 4, 4)), 2),
    "interpolate": lambda m, f, x: f.interpolate(x.reshape((1, 1, 4, 4)), 8, mode="nearest"),
    "sort": lambda m, f, x: m.sort(x)[0],
    "two dtypes": lambda m, f, x: x + x.exp(),
    "cat": lambda m, f, x: m.cat([x, x.exp()]),
    "relu of a product": lambda m, f, x: f.relu(x @ x),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CALLS)
def test_dtypes_are_those_of_pytorch(name: str, dtype: str) -> None:
    call = CALLS[name]
    with cuda_rules():
        want = names(call(torch, TF, torch.empty(4, 4, dtype=getattr(torch, dtype), device="cuda")))
    with dg.autocast("cpu", dg.float16):
        got = names(call(dg, F, dg.full((4, 4), 0.5, dtype=DTYPES[dtype])))
    assert got == want


def networks() -> dict[str, Any]:
    def small(m: Any) -> Any:
        return m.Sequential(m.Linear(8, 32), m.GELU(), m.LayerNorm(32), m.Linear(32, 4))

    def convolutions(m: Any) -> Any:
        return m.Sequential(
            m.Unflatten(1, (1, 2, 4)), m.Conv2d(1, 6, 2), m.ReLU(), m.Flatten(), m.Linear(18, 4)
        )

    return {"mlp": small, "cnn": convolutions}


@pytest.mark.parametrize("name", networks())
def test_values_and_gradients_are_near_pytorchs(name: str) -> None:
    """Both round to bfloat16 at the same places; what lies between differs by few roundings."""
    make = networks()[name]
    torch.manual_seed(0)
    theirs, mine = make(torch.nn), make(nn)
    mine.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    x = np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32)
    labels = np.arange(16) % 4
    with torch.autocast("cpu", torch.bfloat16):
        scores = theirs(torch.from_numpy(x))
        loss = TF.cross_entropy(scores.float(), torch.from_numpy(labels))
    loss.backward()
    with dg.autocast("cpu", dg.bfloat16):
        found = mine(dg.tensor(x))
        own = F.cross_entropy(found, dg.tensor(labels))
    own.backward()
    assert names(found) == names(scores) == ["bfloat16"]
    rounding = 2.0**-8
    want = scores.detach().float().numpy()
    atol = 6 * rounding * abs(want).max()
    np.testing.assert_allclose(as_array(found.detach().float()), want, rtol=0, atol=atol)
    np.testing.assert_allclose(own.item(), loss.item(), rtol=4 * rounding)
    for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
        assert p.grad is not None
        assert p.grad.dtype is dg.float32
        want = q.grad.numpy()
        np.testing.assert_allclose(
            as_array(p.grad), want, rtol=0, atol=8 * rounding * abs(want).max()
        )


# -- PyTorch's own samples ------------------------------------------------------------------------

# op -> why its result has another dtype here
DIFFERENT: dict[str, str] = {
    **dict.fromkeys(
        ("dot", "inner", "linalg.vecdot", "nn.functional.bilinear", "vdot"),
        "products of vectors run as those of matrices",
    ),
    **dict.fromkeys(("logcumsumexp", "nansum"), "sums run in float32"),
    **dict.fromkeys(
        ("nn.functional.batch_norm", "nn.functional.instance_norm"), "all norms run in float32"
    ),
    **dict.fromkeys(("median", "nanmedian"), "the middle of two, without a position, as in NumPy"),
    "exp2": "as exp",
    "sort": "gives values without positions, as in NumPy",
    "square": "a product of two, in PyTorch a power",
    "tensordot": "as matmul, which PyTorch calls below autocast",
    "trace": "a sum",
}
ROUTINES = ("linalg.", "fft.")  # take no 16-bit floats: float32


def _converted(x: Any, low: bool, make: Callable[[Any, bool], Any]) -> Any:
    if isinstance(x, torch.Tensor):
        return make(x, low)
    if isinstance(x, list | tuple):
        return type(x)(_converted(v, low, make) for v in x)
    if isinstance(x, dict):
        return {k: _converted(v, low, make) for k, v in x.items()}
    return x


def _fake(x: Any, low: bool) -> Any:
    dtype = torch.float16 if low and x.dtype == torch.float32 else x.dtype
    return torch.empty(x.shape, dtype=dtype, device="cuda")


def _ours(x: Any, low: bool) -> Any:
    out = dg.tensor(x.detach().numpy().copy())
    return out.half() if low and out.dtype is dg.float32 else out


def _run(function: Any, sample: Any, low: bool, make: Any) -> Any:
    """The dtypes of a sample's results; None where it raises."""
    call = _converted((sample.input, *sample.args), low, make)
    named = _converted(sample.kwargs, low, make)
    try:
        return names(function(*call, **named))
    except Exception:
        return None


def _disagreements(op: Any, function: Any) -> Iterator[str]:
    samples = list(op.sample_inputs("cpu", torch.float32, requires_grad=False))
    for sample in samples[:: max(1, len(samples) // 4)]:
        for low in (False, True):
            with cuda_rules():
                want = _run(op, sample, low, _fake)
            if want is None or _run(function, sample, low, _ours) is None:
                continue
            with dg.autocast("cpu", dg.float16):
                got = _run(function, sample, low, _ours)
            if got != want:
                yield f"{op.name}: {got}, PyTorch {want} ({'float16' if low else 'float32'})"


@pytest.mark.slow
def test_dtypes_of_all_ops() -> None:
    pytest.importorskip("expecttest", reason="PyTorch's list of ops needs it")
    from torch_names import function_for
    from torch_samples import common_ops

    found: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for op in common_ops():
            listed = op.name in DIFFERENT or op.name.startswith(ROUTINES)
            if torch.float32 in op.dtypes and not listed:
                found += _disagreements(op, function_for(op.name))
    assert not found, "\n".join(found)
