"""Operands of matrix products whose rows and columns follow no stride: the same bits as copies."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from machine import How, agree, native, poisoned

import dualgrad as dg
from dualgrad.compiler.ir.dims import evaluate, sym, symbol_of
from dualgrad.compiler.ir.node import Graph, input_node
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.kernel.ir import Contract, Walk
from dualgrad.compiler.kernel.program import LoopProgram
from dualgrad.compiler.lower.llvm.module import module_of
from dualgrad.compiler.lower.llvm.walks import divisions_of
from dualgrad.compiler.pipeline import lower
from dualgrad.functional import conv2d
from dualgrad.runtime.cpu import host_target
from dualgrad.runtime.dtype import float32
from dualgrad.runtime.program import decode_error

WAYS = {
    "whole": lambda x: x,
    "columns": lambda x: x.permute(1, 0, 2).reshape(x.shape[1], -1),
    "rows": lambda x: x.permute(0, 2, 1).reshape(-1, x.shape[1]),
    "both": lambda x: x.permute(1, 3, 0, 2).reshape(x.shape[1] * x.shape[3], -1),
    "every second": lambda x: x[:, :, ::2].permute(1, 0, 2).reshape(x.shape[1], -1),
}


def _whole(rng: np.random.Generator, way: str, rows: int, cols: int) -> np.ndarray[Any, Any]:
    """An array that is a matrix of so many rows and columns, seen the named way."""
    shape = {
        "whole": (rows, cols),
        "columns": (3, rows, cols // 3),
        "rows": (rows // 5, cols, 5),
        "both": (2, rows // 5, cols // 2, 5),
        "every second": (3, rows, cols // 3 * 2 - 1),  # ends with an element that is read
    }[way]
    return rng.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("first", WAYS)
@pytest.mark.parametrize("second", WAYS)
@pytest.mark.parametrize("turned", [False, True], ids=["AB", "ABt"])
@pytest.mark.parametrize(
    ("m", "n", "k"), [(5, 10, 6), (180, 50, 36), (20, 65, 540), (300, 5, 1038)]
)
def test_walks_have_the_bits_of_copies(
    first: str, second: str, turned: bool, m: int, n: int, k: int
) -> None:
    rng = np.random.default_rng(m + n + k)
    n = n // 30 * 30 + 30 if not turned and second != "whole" else n
    k = k // 30 * 30 + 30
    a = dg.tensor(_whole(rng, first, m, k))
    b = dg.tensor(_whole(rng, second, n, k) if turned else _whole(rng, second, k, n))

    def product(a: Any, b: Any, copies: bool = False) -> Any:
        x, y = WAYS[first](a), WAYS[second](b)
        if copies:
            x, y = x.contiguous() + 0.0, y.contiguous() + 0.0
        return x @ (y.T if turned else y)

    expected = product(a, b, copies=True).numpy()
    found = dg.function(product)(a, b).numpy()
    assert np.array_equal(found.view(np.int32), expected.view(np.int32))
    exact = WAYS[first](a).numpy().astype(float) @ (
        WAYS[second](b).numpy().T if turned else WAYS[second](b).numpy()
    ).astype(float)
    assert np.allclose(found, exact, rtol=0, atol=1e-4)


def test_divisions_count_what_is_divided() -> None:
    n, p = sym("n"), sym("p", 4096)
    column, row = p % n, p // n
    walk = Walk(p, 100 * (row // 3) + 10 * (row % 3) + column + 7 * p)
    place, divisions = divisions_of(walk)
    assert len(divisions) == 2
    for index in (0, 1, 5, 17, 18, 1000):
        values = {symbol_of(n): 6, symbol_of(p): index}
        assert "//" not in str(place)
        assert "%" not in str(place)
        number = index
        for division in divisions:
            divisor = evaluate(division.divisor, values)
            values[symbol_of(division.quotient)] = number // divisor
            values[symbol_of(division.remainder)] = number % divisor
            number //= divisor
        assert evaluate(place, values) == evaluate(walk.place, values)


def test_convolutions_hold_no_matrix_of_windows() -> None:
    rng = np.random.default_rng(0)
    shapes = (8, 16, 12, 12), (32, 16, 3, 3), (8, 32, 10, 10)
    x, w, g = (dg.from_numpy(rng.standard_normal(s, np.float32)) for s in shapes)

    @dg.function
    def step(x: Any, w: Any, g: Any) -> tuple[Any, ...]:
        leaves = [t.detach().requires_grad_() for t in (x, w)]
        y = conv2d(*leaves)
        y.backward(g)
        return y, *(t.grad for t in leaves)

    step(x, w, g)
    held = [int(n) for n in re.findall(r"temporary t\d+: f32\[(\d+)\]", step.ir())]
    assert len(held) > 0
    assert max(held) < 8 * 16 * 9 * 100


def _with_place(program: LoopProgram, name: str, way: str, place: Any) -> LoopProgram:
    """The program with its product's operand walking, or standing, elsewhere."""
    kernels = []
    for kernel in program.kernels:
        (c,) = kernel.body
        if isinstance(c, Contract):
            operand = replace(getattr(c, name), **{way: place})
            kernel = replace(kernel, body=(replace(c, **{name: operand}),))
        kernels.append(kernel)
    return replace(program, kernels=tuple(kernels))


def _stopped(program: LoopProgram) -> str:
    """The buffer that checked code stops at; none: ''."""
    inputs = {b.name: np.ones(evaluate(b.size, {}), np.float32) for b in program.inputs}
    memory = inputs | {b.name: poisoned(b, {}) for b in program.outputs}
    word = native(program, memory, {}, (), How(checked=True))
    if not word:
        return ""
    return module_of(program, host_target(), True).accesses[decode_error(word)[0]]


P = sym("p", 6)
Q = sym("q", 5)


@pytest.mark.parametrize(
    ("name", "way", "place", "stops"),
    [
        ("a", "col", Walk(P, 15 * (P // 3) + P % 3), ""),
        ("a", "col", Walk(P, 15 * (P // 3) + P % 3 + 1), "i0"),
        ("a", "col", Walk(P, 18 * (P % 3)), "i0"),  # only in the middle
        ("a", "col", Walk(P, 0 - P % 3), "i0"),  # before the buffer, but for the last
        ("b", "row", Walk(P, 9 * (P // 3)), ""),
        ("b", "row", Walk(P, 18 * (P % 3)), "i1"),
        ("b", "col", Walk(Q, 18 * (Q % 4)), "i1"),
        ("b", "col", -1, "i1"),
        ("b", "col", 0, ""),
        ("c", "row", 7, "o0"),
        ("a", "batch", 100, ""),  # a single matrix
    ],
)
def test_checked_code_sees_all_that_an_operand_reaches(
    name: str, way: str, place: Any, stops: str
) -> None:
    x, y = (input_node(k, TensorType((2, 5, 3), float32)) for k in range(2))
    product = x.permute(1, 0, 2).reshape(5, 6) @ y.permute(0, 2, 1).reshape(6, 5)
    program = lower(Graph((x, y), (), (product,)), (None, None), "product", 1)
    assert _stopped(_with_place(program, name, way, place)) == stops


def test_checked_products_of_nothing() -> None:
    """Where there is no element, no place is outside."""
    m, n, k = (sym(s, None) for s in "mnk")
    x, y = (input_node(i, TensorType(s, float32)) for i, s in enumerate([(m, k), (k, n)]))
    graph = Graph((x, y), (), (dg.flip(x, 1) @ y,))
    program = lower(graph, (None, None), "product", 1)
    for sizes in [(0, 3, 4), (3, 0, 4), (3, 4, 0), (3, 4, 5)]:
        values = {symbol_of(d): size for d, size in zip((m, n, k), sizes, strict=True)}
        inputs = {b.name: np.ones(evaluate(b.size, values), np.float32) for b in program.inputs}
        agree(program, inputs, values, (), [How(checked=True)])
