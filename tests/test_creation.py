"""Making tensors: ranges with NumPy's bits, values, dtypes, sharing, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import as_array, both, same_bits, values

import dualgrad as dg
from dualgrad.runtime.errors import ArgumentError, DeviceError, DTypeError, ShapeError

# -- ranges ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [(5,), (2, 7), (7, 2, -2), (0, 1, 0.1), (1.0, 2.0, 0.1), (5, 5), (3, 1), (0.5, -3.0, -0.75),
     (-(2**62), -(2**62) + 5)],
)  # fmt: skip
def test_arange_is_that_of_numpy(arguments: tuple[Any, ...]) -> None:
    want = np.arange(*arguments)
    whole = want.dtype == np.int64
    same_bits(dg.arange(*arguments, dtype=dg.int64 if whole else dg.float64), want)
    same_bits(dg.arange(*arguments), want if whole else want.astype(np.float32))


@pytest.mark.parametrize("arguments", [(0, 1, 5), (-2.5, 7.0, 11), (3, 3, 4), (1, 0, 1), (0, 1, 0)])
@pytest.mark.parametrize("endpoint", [True, False])
def test_linspace_and_logspace_are_those_of_numpy(arguments: Any, endpoint: bool) -> None:
    for name in ("linspace", "logspace"):
        want = getattr(np, name)(*arguments, endpoint=endpoint)
        ours = getattr(dg, name)
        same_bits(ours(*arguments, endpoint=endpoint, dtype=dg.float64), want)
        same_bits(ours(*arguments, endpoint=endpoint), want.astype(np.float32))
    same_bits(dg.linspace(0, 9, 4, dtype=int), np.linspace(0, 9, 4, dtype=np.int64))
    same_bits(dg.logspace(0, 3, 4, base=2.0), np.array([1, 2, 4, 8], np.float32))


@pytest.mark.parametrize("k", [-2, 0, 1])
def test_matrices_with_a_diagonal(k: int) -> None:
    same_bits(dg.eye(3, 4, k=k), np.eye(3, 4, k, np.float32))
    same_bits(dg.eye(3, k=k, dtype=bool), np.eye(3, k=k, dtype=bool))
    same_bits(dg.tri(4, 3, k), np.tri(4, 3, k, np.float32))


def test_numbers_that_a_dtype_does_not_have() -> None:
    same_bits(dg.arange(250, 255, dtype=dg.uint8), np.arange(250, 255, dtype=np.uint8))
    with pytest.raises(ArgumentError, match="does not fit the dtype"):
        dg.arange(250, 257, dtype=dg.uint8)


# -- one value ------------------------------------------------------------------------------------


def test_dtypes_follow_the_value() -> None:
    assert dg.full((2,), 1.5).dtype is dg.float32
    assert dg.full((2,), 3).dtype is dg.int64
    assert dg.full((2,), True).dtype is dg.bool_
    assert dg.full(2, 3, dtype=dg.uint8).dtype is dg.uint8
    assert dg.zeros(2).dtype is dg.ones((2,)).dtype is dg.empty(2).dtype is dg.float32
    assert dg.zeros((2, 3), dtype=int).shape == (2, 3)


@pytest.mark.parametrize("name", ["zeros_like", "ones_like", "empty_like"])
def test_likeness(name: str) -> None:
    x = dg.tensor([[1, 2], [3, 4]], dtype=dg.int16)
    y = getattr(dg, name)(x)
    assert (y.shape, y.dtype) == ((2, 2), dg.int16)
    assert getattr(dg, name)(x, dtype=dg.float64, requires_grad=True).requires_grad
    assert values(dg.full_like(x, 7)) == [[7, 7], [7, 7]]


def test_a_tensor_fills_with_its_gradient() -> None:
    x = dg.tensor(3.0, requires_grad=True)
    y = dg.full((2, 3), x)
    assert values(y) == [[3.0] * 3] * 2
    y.sum().backward()
    assert values(x.grad) == 6.0
    assert dg.full((2,), dg.tensor([5]), dtype=dg.float64).dtype is dg.float64


def test_in_a_compiled_function() -> None:
    def combine(x: Any) -> Any:
        grid = dg.meshgrid(dg.arange(2.0), x, indexing="ij")
        return [
            grid[0] + grid[1],
            dg.full((3,), x.sum()),
            dg.eye(3) @ x,
            dg.full_like(x, 2) + dg.linspace(0, 1, 3),
            (dg.ones(3, 3) * x).tril(),
        ]

    eager, static = both(combine, lambda: (dg.tensor([1.0, 2.0, 4.0]),))
    for one, two in zip(eager, static, strict=True):
        same_bits(two, one)
    assert values(eager[1]) == [7.0] * 3


# -- sharing --------------------------------------------------------------------------------------


def test_asarray_shares_what_it_can() -> None:
    array = np.arange(3.0)
    x = dg.asarray(array)
    array[0] = 9
    assert values(x) == [9.0, 1.0, 2.0]
    assert dg.asarray(x) is x
    assert dg.asarray(x, dtype=dg.float64, copy=False) is x
    alone = dg.asarray(x, copy=True)
    array[0] = 0
    assert values(alone)[0] == 9.0
    assert dg.asarray(x, dtype=dg.float32).dtype is dg.float32
    assert dg.asarray([1, 2]).dtype is dg.int64
    for obj, dtype in (([1], None), (x, dg.float32), (array, dg.int64)):
        with pytest.raises(ArgumentError, match="a copy is needed"):
            dg.asarray(obj, dtype=dtype, copy=False)


def test_grids_are_views() -> None:
    x = dg.tensor([1.0, 2.0])
    rows, columns = dg.meshgrid(x, dg.arange(3.0))
    assert rows.shape == columns.shape == (3, 2)
    x.mul_(2)
    assert as_array(rows).tolist() == [[2.0, 4.0]] * 3


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: dg.arange(0, 1, 0), ArgumentError, "the step is zero"),
        (lambda: dg.zeros(-1), ArgumentError, "no natural number"),
        (lambda: dg.zeros(2.0), ArgumentError, "no natural number"),
        (lambda: dg.zeros(True), ArgumentError, "no natural number"),
        (lambda: dg.linspace(0, 1, -1), ArgumentError, "no natural number"),
        (lambda: dg.full((2,), dg.ones(2)), ShapeError, "one value fills"),
        (lambda: dg.full((2,), 300, dtype=dg.int8), ArgumentError, "does not fit"),
        (lambda: dg.ones(2, device="tpu"), DeviceError, "unknown device"),
        (lambda: dg.zeros(2, dtype="float8"), DTypeError, "not a dtype"),
    ],
)
def test_refused(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call()
