"""Products by a matrix that another call has packed, and which kernels of a program share one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gemm_calls
import numpy as np
import pytest
from gemm_calls import CANARY, LAYOUTS, UNITS, Array, Call, assert_same_bits, canonical, matrix
from support import lowered

import dualgrad as dg
from dualgrad.compiler.kernel.ir import PACKED_ROWS, Contract, Kernel, Pack
from dualgrad.compiler.kernel.program import LoopProgram
from dualgrad.compiler.lower.llvm.gemm import packed_size
from dualgrad.runtime.config import config
from dualgrad.runtime.dtype import DType, float32, float64, int32


def packed_product(
    a: Array, b: Array, dtype: DType, unit: tuple[int, int] | None = None, threads: int = 0
) -> Array:
    """a b by two calls, of which only the first one is told where b lies."""
    size = packed_size(b.shape[1], b.shape[0])
    memory = np.full((size + 2) * dtype.itemsize, CANARY, np.uint8)
    place = memory.ctypes.data + dtype.itemsize
    parallel_for = gemm_calls.concurrent_address()
    packing = Call(a, b, dtype)
    packing.more = {"pack_to": place, "m": 0, "batches": 0}
    packing.run(unit, threads=threads, parallel_for=parallel_for)
    packing.assert_frame_untouched()
    ends = memory[: dtype.itemsize], memory[-dtype.itemsize :]
    assert all((x == CANARY).all() for x in ends)
    call = Call(a, b, dtype)
    call.more = {"b": 0, "b_row": 0, "b_col": 0, "b_packed": place}
    found = call.run(unit, threads=threads, parallel_for=parallel_for).copy()
    call.assert_frame_untouched()
    return found


@pytest.mark.parametrize("unit", UNITS, ids=str)
@pytest.mark.parametrize("rows", [*range(PACKED_ROWS, 31), 64])
def test_every_height_of_panels(rows: int, unit: tuple[int, int] | None) -> None:
    rng = np.random.default_rng(rows)
    for n in (1, 7, 16, 33, 70):
        a = matrix(rng, rows, 21, float32, "rows")
        b = matrix(rng, 21, n, float32, LAYOUTS[(rows + n) % len(LAYOUTS)])
        assert_same_bits(packed_product(a, b, float32, unit), canonical(a, b))


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("layout", ["rows", "columns", "spread"])
@pytest.mark.parametrize(("m", "k", "n"), [(9, 1030, 40), (40, 513, 300), (250, 600, 600)])
def test_blocks_of_k_and_of_columns(m: int, k: int, n: int, layout: str, threads: int) -> None:
    rng = np.random.default_rng(k)
    a = matrix(rng, m, k, float32, "rows")
    b = matrix(rng, k, n, float32, layout)
    want = Call(a, b, float32).run()
    assert_same_bits(packed_product(a, b, float32, None, threads), want)


@pytest.mark.parametrize("dtype", [float64, int32], ids=str)
def test_other_dtypes(dtype: DType) -> None:
    rng = np.random.default_rng(0)
    a, b = matrix(rng, 12, 30, dtype, "rows"), matrix(rng, 30, 21, dtype, "columns")
    assert_same_bits(packed_product(a, b, dtype), canonical(a, b))


# -- kernels that share one -----------------------------------------------------------------------


def program_of(function: Callable[..., Any], *args: Any) -> LoopProgram:
    compiled = dg.function(function, strict=True)
    compiled(*args)
    return lowered(compiled)


def packs_of(program: LoopProgram) -> tuple[list[Pack], list[Contract]]:
    stmts = [s for k in program.kernels for s in k.body]
    packed = [s for s in stmts if isinstance(s, Contract) and s.packed]
    return [s for s in stmts if isinstance(s, Pack)], packed


def repeated(x: dg.Tensor, w: dg.Tensor) -> dg.Tensor:
    for _ in range(3):
        x = dg.tanh(x @ w)
    return x


def test_a_repeated_matrix_is_packed_once() -> None:
    packs, products = packs_of(program_of(repeated, dg.randn(9, 5), dg.randn(5, 5)))
    assert (len(packs), len(products)) == (1, 3)


def test_forward_and_backward_pack_a_matrix_each_way() -> None:
    def gradients(x: dg.Tensor, w: dg.Tensor) -> tuple[dg.Tensor, ...]:
        return dg.autograd.grad(repeated(x, w).sum(), (x, w))

    args = [dg.randn(9, 5).requires_grad_(), dg.randn(5, 5).requires_grad_()]
    packs, products = packs_of(program_of(gradients, *args))
    assert {(p.b.row, p.b.col) for p in packs} == {(5, 1), (1, 5)}
    assert (len(packs), len(products)) == (2, 6)


def test_a_matrix_that_changes_is_packed_again() -> None:
    def steps(x: dg.Tensor, w: dg.Tensor) -> dg.Tensor:
        for _ in range(3):
            x = x @ w @ w
            w = dg.tanh(w)
        return x

    w = dg.randn(5, 5)
    packs, products = packs_of(program_of(steps, dg.randn(9, 5), w))
    assert (len(packs), len(products)) == (3, 6)

    def written(x: dg.Tensor, w: dg.Tensor) -> dg.Tensor:
        x = x @ w @ w
        w.mul_(0.5)
        return x @ w @ w

    args = [dg.randn(9, 5), dg.randn(5, 5)]
    copies = [x.clone() for x in args]
    assert_same_bits(dg.function(written)(*args).numpy(), written(*copies).numpy())


@pytest.mark.parametrize(("rows", "count"), [(PACKED_ROWS - 1, 0), (PACKED_ROWS, 1), (300, 0)])
def test_few_rows_and_many_are_not_packed(rows: int, count: int) -> None:
    packs, _ = packs_of(program_of(repeated, dg.randn(rows, 5), dg.randn(5, 5)))
    assert len(packs) == count


@pytest.mark.parametrize("rows", [9, 16, 40])
def test_packed_products_have_the_bits_of_eager_mode(rows: int, threads: int) -> None:
    x, w = dg.randn(rows, 70), dg.randn(70, 70)
    want = repeated(x, w).numpy()
    assert_same_bits(dg.function(repeated)(x, w).numpy(), want)
    with config.scope(check=True):
        assert_same_bits(dg.function(repeated)(x, w).numpy(), want)


def test_kernels_say_what_they_pack() -> None:
    program = program_of(repeated, dg.randn(9, 5), dg.randn(5, 5))
    kernel = next(k for k in program.kernels if k.kind == "pack")
    assert isinstance(kernel, Kernel)
    assert "pack 5 x 5: " in program.text
    assert program.text.count("b packed") == 3
