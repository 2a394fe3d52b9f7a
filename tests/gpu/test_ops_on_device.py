"""Every sample of every op on a CUDA device: the bits of the CPU, of results and gradients."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np
import pytest
from support import Array, as_array, same_bits, tensors_in
from test_ops import BAD, GOOD, SMOOTH, Case, first_of_each

import dualgrad as dg
from dualgrad.compiler.ops.transfer import Transfer
from dualgrad.runtime.dtype import DType, float16, float64
from dualgrad.runtime.errors import IndexOutOfBounds

pytestmark = pytest.mark.usefixtures("gpu")
# the sample of a transfer goes to the CPU
ALL = [c for c in GOOD if c.op is not Transfer]
ALL_SMOOTH = [c for c in SMOOTH if c.op is not Transfer]
SIMPLE = first_of_each(ALL, 1)
SMOOTH_FIRST = first_of_each(ALL_SMOOTH, 1)


def operands(case: Case, device: str, dtype: DType | None = None) -> list[Any]:
    """The arguments of a case: tensors on a device in the layout of the sample, and numbers."""
    out = []
    for x in case.arrays(dtype):
        tensor = isinstance(x, np.ndarray)
        out.append(placed(x, device) if tensor else x)
    return out


def placed(x: Array, device: str) -> dg.Tensor:
    """An array on a device, with the array's strides."""
    if device == "cpu" or x.flags.c_contiguous:
        return dg.from_numpy(x).to(device)
    if 0 in x.strides and x.size:
        kept = x[tuple(slice(0, 1) if s == 0 else slice(None) for s in x.strides)]
        return placed(np.ascontiguousarray(kept), device).expand(x.shape)
    if x.T.flags.c_contiguous:
        return dg.from_numpy(np.ascontiguousarray(x.T)).to(device).T
    room = np.zeros(tuple(2 * n for n in x.shape), x.dtype)
    every_second = (slice(None, None, 2),) * x.ndim
    room[every_second] = x
    return dg.from_numpy(room).to(device)[every_second]


def quiet(function: Any) -> Any:
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function()


def results(
    case: Case, device: str, dtype: DType | None = None, static: bool = False
) -> list[Array]:
    dg.seed(3)
    function = dg.function(case.sample.function, strict=True) if static else case.sample.function
    out = quiet(lambda: function(*operands(case, device, dtype)))
    found = tensors_in(out)
    assert all(t.device == device for t in found)
    return [as_array(t.cpu()) for t in found]


def gradients(case: Case, device: str) -> list[Array]:
    dg.seed(3)
    xs = operands(case, device)
    leaves = [x for x in xs if isinstance(x, dg.Tensor) and x.dtype.is_float]
    for x in leaves:
        x.requires_grad_()
    out = tensors_in(quiet(lambda: case.sample.function(*xs)))[0]
    if not out.requires_grad:
        return []
    rng = np.random.default_rng(1)
    seed = dg.from_numpy(rng.uniform(0.5, 2.0, out.shape)).to(out.dtype)
    out.backward(seed.to(device))
    found = [x.grad for x in leaves if x.grad is not None]
    assert all(g.device == device for g in found)
    return [as_array(g.cpu()) for g in found]


def compare(got: list[Array], want: list[Array], case: Case) -> None:
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        same_bits(a, b, case)


@pytest.mark.parametrize("case", SIMPLE, ids=str)
def test_results(case: Case) -> None:
    compare(results(case, "cuda:0"), results(case, "cpu"), case)


@pytest.mark.parametrize("case", SIMPLE, ids=str)
def test_static_results(case: Case) -> None:
    compare(results(case, "cuda:0", static=True), results(case, "cpu"), case)


@pytest.mark.parametrize("case", SMOOTH_FIRST, ids=str)
def test_gradients(case: Case) -> None:
    compare(gradients(case, "cuda:0"), gradients(case, "cpu"), case)


def message(case: Case, device: str) -> str:
    """The error of a case, without the number that a run-time check has met: on a device any of
    several wrong ones may be the first."""
    assert case.sample.error is not None
    with pytest.raises(case.sample.error) as caught:
        quiet(lambda: case.sample.function(*operands(case, device)))
    text = str(caught.value).replace("@cuda:0", "").partition("\n  at ")[0]
    checked = isinstance(caught.value, IndexOutOfBounds)
    return re.sub(r"\n  actual: -?\d+", "", text) if checked else text


@pytest.mark.parametrize("case", first_of_each(BAD, 1), ids=str)
def test_refusals(case: Case) -> None:
    assert message(case, "cuda:0") == message(case, "cpu")


@pytest.mark.slow
@pytest.mark.parametrize("case", [c for c in ALL if c not in SIMPLE], ids=str)
def test_results_of_all_samples(case: Case) -> None:
    compare(results(case, "cuda:0"), results(case, "cpu"), case)


@pytest.mark.slow
@pytest.mark.parametrize("case", [c for c in ALL_SMOOTH if c not in SMOOTH_FIRST], ids=str)
def test_gradients_of_all_samples(case: Case) -> None:
    compare(gradients(case, "cuda:0"), gradients(case, "cpu"), case)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [float64, float16], ids=lambda d: d.name)
@pytest.mark.parametrize("case", SIMPLE, ids=str)
def test_results_of_other_floats(case: Case, dtype: DType) -> None:
    compare(results(case, "cuda:0", dtype), results(case, "cpu", dtype), case)
