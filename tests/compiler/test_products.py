"""Which products a graph becomes: rows of all batches in one, transposes without copies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import lowered, same_bits

import dualgrad as dg
import dualgrad.functional as F
from dualgrad.compiler.kernel.ir import Contract, walk
from dualgrad.compiler.kernel.program import LoopProgram
from dualgrad.compiler.lower import reference
from dualgrad.compiler.lower.llvm.gemm import routine_of


def program_of(function: Callable[..., Any], *args: Any) -> LoopProgram:
    compiled = dg.function(function, strict=True)
    compiled(*args)
    return lowered(compiled)


def products_of(program: LoopProgram) -> list[tuple[Any, ...]]:
    stmts = (s for k in program.kernels for s in walk(k.body))
    return [(s.batch, s.m, s.n, s.k) for s in stmts if isinstance(s, Contract)]


def gradients(x: dg.Tensor, w: dg.Tensor) -> tuple[dg.Tensor, ...]:
    return dg.autograd.grad((dg.sin(x @ w)).sum(), (x, w))


def test_the_gradient_of_a_matrix_sums_over_all_batches() -> None:
    x = dg.randn(3, 5, 7).requires_grad_()
    w = dg.randn(7, 4).requires_grad_()
    products = products_of(program_of(gradients, x, w))
    assert len(products) == 3
    assert (1, 7, 4, 15) in products


def test_what_follows_a_product_of_batches_is_its_epilogue() -> None:
    args = [dg.randn(3, 5, 7), dg.randn(4, 7), dg.randn(4), dg.randn(3, 5, 4)]
    program = program_of(lambda x, w, b, y: dg.relu(F.linear(x, w, b)) + y, *args)
    assert [k.kind for k in program.kernels] == ["contract"]


@pytest.mark.parametrize("shape", [(3, 5, 7), (2, 3, 2, 7), (4, 1, 7), (1, 6, 7), (0, 5, 7)])
@pytest.mark.parametrize("columns", [4, 1])
def test_rows_of_all_batches_meet_one_matrix(shape: tuple[int, ...], columns: int) -> None:
    dg.seed(0)
    x, w = dg.randn(*shape).requires_grad_(), dg.randn(7, columns).requires_grad_()
    for found in (gradients(x, w), dg.function(gradients, strict=True)(x, w)):
        a, b = (t.detach().numpy().astype(np.longdouble) for t in (x, w))
        slope = np.cos(a @ b)
        want = slope @ b.T, a.reshape(-1, 7).T @ slope.reshape(-1, columns)
        for got, exact in zip(found, want, strict=True):
            np.testing.assert_allclose(got.numpy(), exact, rtol=1e-4, atol=1e-5)


def test_steps_seen_as_rows_are_no_walks() -> None:
    """Part of the steps of a sequence, all rows of which are summed over."""

    def product(x: dg.Tensor, y: dg.Tensor) -> dg.Tensor:
        return x[1:].reshape(20, 3).T @ y[:-1].reshape(20, 6)

    program = program_of(product, dg.randn(5, 5, 3), dg.randn(5, 5, 6))
    (c,) = (s for k in program.kernels for s in k.body if isinstance(s, Contract))
    assert (c.a.strides, c.b.strides) == ((1, 3), (6, 1))


@pytest.mark.parametrize("batch", [(2,), (2, 3)])
def test_attention_copies_no_operand(batch: tuple[int, ...]) -> None:
    def attention(q: dg.Tensor, k: dg.Tensor, v: dg.Tensor) -> tuple[dg.Tensor, ...]:
        weights = dg.softmax(q @ k.transpose(-2, -1), -1)
        return dg.autograd.grad((weights @ v).sum(), (q, k, v))

    args = [dg.randn(*batch, 9, 6).requires_grad_() for _ in range(3)]
    kinds = [k.kind for k in program_of(attention, *args).kernels]
    assert kinds.count("contract") == 5  # the result itself is not needed
    assert "map" not in kinds


def test_forward_attention_is_two_products_around_rows() -> None:
    args = [dg.randn(2, 3, 9, 6) for _ in range(3)]
    program = program_of(F.scaled_dot_product_attention, *args)
    assert [k.kind for k in program.kernels] == ["contract", "row", "contract"]


@pytest.mark.parametrize("dtype", [dg.float16, dg.bfloat16], ids=str)
@pytest.mark.parametrize("turned", [False, True])
def test_products_of_16_bit_floats_make_no_copies(dtype: dg.DType, turned: bool) -> None:
    dg.seed(1)
    x = dg.randn(5, 600).to(dtype)
    w = dg.randn(20, 600).to(dtype).T if turned else dg.randn(600, 20).to(dtype)
    exact = (x.to(dg.float32) @ w.to(dg.float32)).to(dtype)
    assert bool((x @ w == exact).all())

    def function(x: dg.Tensor, w: dg.Tensor) -> dg.Tensor:
        return x @ (w.T if turned else w)

    program = program_of(function, x, w.T if turned else w)
    assert [k.kind for k in program.kernels] == ["contract"]
    memory = {b.name: np.zeros(int(b.size), b.dtype.numpy) for b in program.outputs}
    memory |= {t.buffer.name: np.zeros(int(t.buffer.size), np.int64) for t in program.temporaries}
    arrays = {t.size: t.array.reshape(-1).copy() for t in (x, w.T if turned else w)}
    memory |= {b.name: arrays[int(b.size)] for b in program.inputs}
    for t in program.temporaries:
        memory[t.buffer.name] = memory[t.buffer.name].astype(t.buffer.dtype.numpy)
    reference.run(program.kernels, memory, {}, {})
    (out,) = program.outputs
    got = memory[out.name].reshape(5, 20)
    assert (got.view(np.uint16) == exact.array.view(np.uint16)).all()


@pytest.mark.parametrize(("rows", "routine"), [(3, "gemm_f32_thin"), (5, "gemm_f32")])
def test_few_rows_take_the_routine_for_thin_products(rows: int, routine: str) -> None:
    rng = np.random.default_rng(rows)
    x, w = (dg.tensor(rng.standard_normal((n, 600)).astype(np.float32)) for n in (rows, 70))
    f = dg.function(lambda x, w: x @ w.T)
    same_bits(f(x, w).numpy(), (x @ w.T).numpy())
    (product,) = (s for k in lowered(f).kernels for s in walk(k.body) if isinstance(s, Contract))
    assert routine_of(product) == routine
