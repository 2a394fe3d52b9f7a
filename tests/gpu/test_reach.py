"""Indices of 32 bits are taken only where all places of all loops are below 2**31."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import dualgrad as dg
from dualgrad.backends.cuda import CudaCode
from dualgrad.compiler.ir.dims import ShapeEnv, shape_env, sym, symbol_of
from dualgrad.compiler.ir.node import Graph, input_node
from dualgrad.compiler.ir.types import Layouts, TensorType
from dualgrad.compiler.lower.cuda.module import module_of
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.pipeline import lower
from dualgrad.runtime.driver import Driver
from dualgrad.runtime.dtype import float32


@composite
def distances(x: Any, y: Any) -> Any:
    """The sum of all differences: the loops are longer than any array."""
    return dg.sum(dg.abs(dg.expand_dims(x, 1) - dg.expand_dims(y, 0)))


@composite
def total(x: Any) -> Any:
    return dg.sum(x)


@composite
def rows(x: Any) -> Any:
    return dg.argmax(x, axis=1)


N = sym("n0")


@pytest.mark.parametrize(
    ("function", "shapes", "layouts", "small", "large"),
    [
        (distances, [(N,), (N,)], (None, None), 30_000, 65_536),
        (total, [(N,)], ((0,),), 2_000_000_000, 3_000_000_000),
        (rows, [(N, 4096)], ((0, 0),), 500_000, 600_000),
    ],
)
def test_loops_longer_than_arrays(
    function: Callable[..., Any],
    shapes: list[tuple[Any, ...]],
    layouts: Layouts,
    small: int,
    large: int,
    gpu: Driver,
) -> None:
    inputs = tuple(input_node(k, TensorType(s, float32)) for k, s in enumerate(shapes))
    n = symbol_of(N)
    with shape_env(ShapeEnv({n: large})):
        program = lower(Graph(inputs, (), (function(*inputs),)), layouts, "long", 1, "cuda")
    steps = module_of(program).steps
    code = CudaCode(gpu, 0, gpu.compile(module_of(program).text), steps, wide=False)
    wide = CudaCode(gpu, 0, gpu.compile(module_of(program, True).text), steps, wide=True)
    assert not code.is_too_narrow(program.launch, {n: small})
    assert code.is_too_narrow(program.launch, {n: large})
    assert not wide.is_too_narrow(program.launch, {n: large})


def test_programs_without_kernels(gpu: Driver) -> None:
    x = dg.ones(3, device="cuda:0", requires_grad=True)
    f = dg.function(lambda x: x.sum().backward(), strict=True)
    f(x)
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 1.0, 1.0]
    dg.function(lambda x: None)(x)
