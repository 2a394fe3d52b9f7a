"""Checks of a differentiable function against references: numbers, modes, gradients, PyTorch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from support import Array, as_array, both, draw, same_bits, tensors_in

import dualgrad as dg
from dualgrad.compiler.ops.sample import Arg
from dualgrad.runtime.dtype import DType, bool_, float32, float64, int64

SEED = 11
STEP = 1e-6  # of finite differences in float64
TOLERANCE = {float32: 4e-6, float64: 1e-13}


@dataclass(frozen=True)
class Function:
    """One call: of dualgrad, of a reference with NumPy, and of PyTorch.

    `reference` and `theirs` are called with the module and then the arguments.
    """

    name: str
    ours: Callable[..., Any]
    args: tuple[Arg, ...]
    reference: Callable[..., Any] | None = None
    theirs: Callable[..., Any] | None = None
    gradient: bool = True
    tolerance: float = 1.0  # in units of TOLERANCE
    weighted: bool = False  # the last argument is a weight, without gradient in PyTorch

    def __str__(self) -> str:
        return self.name

    def arrays(self, dtype: DType) -> list[Array]:
        """The arguments; floats are drawn in `dtype`."""
        rng = np.random.default_rng(SEED)
        return [draw(a, rng, dtype if a.dtype.is_float else None) for a in self.args]

    @property
    def places(self) -> list[int]:
        """Numbers of the arguments that have a gradient."""
        return [k for k, a in enumerate(self.args) if a.dtype.is_float and a.differentiable]


def F(*shape: int, low: float = -2.0, high: float = 2.0) -> Arg:
    """A float argument."""
    return Arg(shape, low=low, high=high)


def I(*shape: int, high: int, low: int = 0) -> Arg:  # noqa: E743
    """An integer argument."""
    return Arg(shape, int64, low, high)


def B(*shape: int) -> Arg:
    """A bool argument."""
    return Arg(shape, bool_)


def constant(arg: Arg) -> Arg:
    """The argument without a gradient."""
    return Arg(arg.shape, arg.dtype, arg.low, arg.high, arg.values, arg.layout, False)


def weights(shape: tuple[int, ...], dtype: DType) -> Array:
    return np.random.default_rng(6).uniform(0.5, 1.5, shape).astype(dtype.numpy)


def close(got: Any, want: Any, case: Function, dtype: DType) -> None:
    got, want = as_array(got), np.asarray(want)
    assert got.shape == want.shape
    assert got.dtype == dtype.numpy
    scale = max(1.0, np.abs(want[np.isfinite(want)]).max(initial=0.0))
    tolerance = TOLERANCE[dtype] * case.tolerance * scale
    np.testing.assert_allclose(got, want, rtol=0, atol=tolerance, err_msg=str(case))


def check_reference(case: Function, dtype: DType) -> None:
    """The numbers are those of the reference, worked out in float64."""
    if case.reference is None:
        pytest.skip("PyTorch is the reference")
    arrays = case.arrays(dtype)
    exact = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays]
    with np.errstate(all="ignore"):
        want = case.reference(np, *exact)
    close(case.ours(*map(dg.from_numpy, arrays)), want, case, dtype)


def leaves(case: Function, arrays: list[Array]) -> list[dg.Tensor]:
    xs = [dg.from_numpy(np.array(a)) for a in arrays]
    for k in case.places if case.gradient else ():
        xs[k].requires_grad_()
    return xs


def check_modes(case: Function) -> None:
    """Eager and compiled calls give the same bits, gradients included."""
    ours = case.ours
    places = case.places if case.gradient else []

    def call(weight: dg.Tensor, *xs: dg.Tensor) -> Any:
        out = ours(*xs)
        if places:
            (out * weight).sum().backward()
        return [out.detach(), *(xs[k].grad for k in places)]

    arrays = case.arrays(float32)
    shape = case.ours(*map(dg.from_numpy, arrays)).shape
    weight = dg.from_numpy(weights(shape, float32))
    eager, static = both(call, lambda: (weight, *leaves(case, arrays)))
    for e, s in zip(tensors_in(eager), tensors_in(static), strict=True):
        same_bits(s, e, case)


def total(case: Function, xs: list[dg.Tensor], weight: Array) -> dg.Tensor:
    out: dg.Tensor = (case.ours(*xs) * dg.from_numpy(weight)).sum()
    return out


def gradients(case: Function, arrays: list[Array], weight: Array) -> list[Array]:
    xs = leaves(case, arrays)
    total(case, xs, weight).backward()
    return [
        np.zeros(xs[k].shape) if xs[k].grad is None else as_array(xs[k].grad) for k in case.places
    ]


def moved(case: Function, arrays: list[Array], way: list[Array], step: float) -> list[Array]:
    out = list(arrays)
    for k, d in zip(case.places, way, strict=True):
        out[k] = np.asarray(arrays[k] + step * d)
    return out


def along(parts: list[Array], way: list[Array]) -> float:
    return float(sum((p * d).sum() for p, d in zip(parts, way, strict=True)))


def check_gradients(case: Function) -> None:
    """First and second derivatives along random directions, by central differences."""
    arrays = case.arrays(float64)
    weight = weights(case.ours(*map(dg.from_numpy, arrays)).shape, float64)
    rng = np.random.default_rng(SEED)
    way, other = (
        [np.asarray(rng.uniform(-1, 1, arrays[k].shape)) for k in case.places] for _ in "12"
    )
    ahead, behind = (moved(case, arrays, way, s) for s in (STEP, -STEP))

    def value(xs: list[Array]) -> float:
        return float(total(case, [dg.from_numpy(x) for x in xs], weight).item())

    found = along(gradients(case, arrays, weight), way)
    measured = (value(ahead) - value(behind)) / (2 * STEP)
    assert abs(found - measured) <= 1e-7 * max(1.0, abs(value(arrays)) + abs(found))

    xs = leaves(case, arrays)
    total(case, xs, weight).backward(create_graph=True)
    firsts = [xs[k].grad for k in case.places]
    for x in xs:
        x.grad = None
    inner = dg.zeros((), dtype=float64)
    for g, d in zip(firsts, other, strict=True):
        inner = inner + (g * dg.from_numpy(d)).sum()
    if inner.requires_grad:
        inner.backward()
    second = [
        np.zeros(xs[k].shape) if xs[k].grad is None else as_array(xs[k].grad) for k in case.places
    ]
    found = along(second, way)
    up, down = (along(gradients(case, a, weight), other) for a in (ahead, behind))
    size = max(1.0, abs(up) + abs(found))
    assert abs(found - (up - down) / (2 * STEP)) <= 1e-6 * size, case


def check_torch(case: Function, dtype: DType) -> None:
    """Numbers and gradients are those of PyTorch in float64."""
    if case.theirs is None:
        pytest.skip("PyTorch has no such function")
    torch = pytest.importorskip("torch")
    arrays = case.arrays(dtype)
    wide = [torch.tensor(a.astype(np.float64) if a.dtype.kind == "f" else a) for a in arrays]
    places = case.places[: -1 if case.weighted else None] if case.gradient else []
    for k in places:
        wide[k].requires_grad_()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        want = case.theirs(torch, *wide)
    if case.gradient:
        (want * torch.tensor(weights(tuple(want.shape), dtype))).sum().backward()
    xs = leaves(case, arrays)
    got = case.ours(*xs)
    close(got.detach(), want.detach().numpy(), case, dtype)
    if case.gradient:
        (got * dg.from_numpy(weights(got.shape, dtype))).sum().backward()
        for k in places:
            theirs = np.zeros(xs[k].shape) if wide[k].grad is None else wide[k].grad.numpy()
            close(xs[k].grad, theirs, case, dtype)
