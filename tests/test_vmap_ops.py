"""Every op under vmap: the samples that op classes state, three slices of each, against a loop.

Slices have the bits that they have on their own; so there is one reference for all kinds of op.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support import draw, same_bits
from test_ops import GOOD, Case

import dualgrad as dg
from dualgrad.compiler.batching import batched
from dualgrad.compiler.ops.base import OPS, Op
from dualgrad.compiler.ops.sample import Arg
from dualgrad.compiler.ops.transfer import Transfer

SLICES = 3
FIRST = [c for k, c in enumerate(GOOD) if k == 0 or GOOD[k - 1].name != c.name]
FEW = [c for c in FIRST if c.op is not None]
REST = [c for c in GOOD if c not in FEW]


def in_parts(x: Any) -> tuple[Any, ...]:
    return tuple(x) if isinstance(x, tuple | list) else (x,)


def slices_of(case: Case) -> list[list[Any]]:
    """The arguments of each slice."""
    out = []
    for k in range(SLICES):
        rng = np.random.default_rng(7 + k)
        arrays = [draw(a, rng) if isinstance(a, Arg) else a for a in case.sample.args]
        out.append([np.array(a) if isinstance(a, np.ndarray) else a for a in arrays])
    return out


def tensor(x: Any) -> Any:
    return dg.from_numpy(x) if isinstance(x, np.ndarray) else x


def check(case: Case, common: int | None = None) -> None:
    """Compare one run for all slices with a loop; argument `common` is the same for each."""
    arguments = slices_of(case)
    if common is not None:
        for row in arguments:
            row[common] = arguments[0][common]
    axes = [
        0 if isinstance(x, np.ndarray) and k != common else None for k, x in enumerate(arguments[0])
    ]
    if not any(a == 0 for a in axes):
        pytest.skip("no tensor to map over")
    function = case.sample.function
    want = [in_parts(function(*map(tensor, row))) for row in arguments]
    whole = [
        tensor(np.stack(column) if a == 0 else column[0])
        for column, a in zip(zip(*arguments, strict=True), axes, strict=True)
    ]
    got = in_parts(dg.vmap(function, in_axes=tuple(axes))(*whole))
    for k, x in enumerate(got):
        for n in range(SLICES):
            same_bits(x[n], want[n][k], f"{case}, slice {n} of result {k}")


@pytest.mark.parametrize("case", FEW, ids=str)
def test_each_op(case: Case) -> None:
    check(case)


@pytest.mark.slow
@pytest.mark.parametrize("case", REST, ids=str)
def test_all_samples(case: Case) -> None:
    check(case)


TWO = [c for c in FIRST if sum(isinstance(a, Arg) for a in c.sample.args) > 1]


@pytest.mark.slow
@pytest.mark.parametrize("case", TWO, ids=str)
def test_one_operand_for_all_slices(case: Case) -> None:
    tensors = [k for k, a in enumerate(case.sample.args) if isinstance(a, Arg)]
    check(case, tensors[0])
    check(case, tensors[-1])


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.__name__)
def test_each_op_has_a_rule(op: type[Op]) -> None:
    assert batched.dispatch(op) is not batched.dispatch(Op)


# -- gradients ------------------------------------------------------------------------------------


def total(function: Any, weights: Any) -> Any:
    """A number that depends on all elements of all float results."""

    def call(*args: Any) -> Any:
        parts = [x for x in in_parts(function(*args)) if isinstance(x, dg.Tensor)]
        floats = [x for x in parts if x.dtype.is_float]
        return sum((x * weights[: x.size].reshape(x.shape)).sum() for x in floats)

    return call


def check_gradient(case: Case) -> None:
    """The gradient of each slice, taken inside and outside of vmap, against a loop's."""
    arguments = slices_of(case)
    given = zip(case.sample.args, arguments[0], strict=True)
    by = tuple(
        k
        for k, (a, x) in enumerate(given)
        if isinstance(a, Arg) and a.differentiable and x.dtype.kind == "f"
    )
    if not by or case.op is Transfer:
        pytest.skip("nothing to differentiate")
    largest = max(
        x.size
        for row in arguments
        for x in in_parts(case.sample.function(*map(tensor, row)))
        if isinstance(x, dg.Tensor)
    )
    weights = dg.from_numpy(np.random.default_rng(3).uniform(0.5, 1.5, largest).astype(np.float32))
    function = total(case.sample.function, weights)
    want = [dg.grad(function, argnums=by)(*map(tensor, row)) for row in arguments]
    axes = tuple(0 if isinstance(x, np.ndarray) else None for x in arguments[0])
    whole = [
        tensor(np.stack(column) if a == 0 else column[0])
        for column, a in zip(zip(*arguments, strict=True), axes, strict=True)
    ]
    inside = dg.vmap(dg.grad(function, argnums=by), in_axes=axes)(*whole)
    outside = dg.grad(lambda *xs: dg.vmap(function, in_axes=axes)(*xs).sum(), argnums=by)(*whole)
    for k in range(len(by)):
        for n in range(SLICES):
            same_bits(inside[k][n], want[n][k], f"{case}, slice {n}, inside")
            same_bits(outside[k][n], want[n][k], f"{case}, slice {n}, outside")


SMOOTH = [c for c in FIRST if c.sample.gradient and not (c.op is not None and c.op.vjp is None)]


@pytest.mark.slow
@pytest.mark.parametrize("case", SMOOTH, ids=str)
def test_gradients_of_each_op(case: Case) -> None:
    check_gradient(case)
