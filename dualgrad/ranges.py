"""Tensors of numbers in steps, and of ones below a diagonal."""

from __future__ import annotations

from typing import Any

import numpy as np

from dualgrad.compiler.ir.refusal import not_a_tensor
from dualgrad.compiler.ir.size import TracedSize
from dualgrad.compiler.ops.create import Iota
from dualgrad.creation import as_shape, constant, device_named, is_traced
from dualgrad.runtime.dtype import as_dtype, float64
from dualgrad.runtime.errors import ArgumentError
from dualgrad.state import state
from dualgrad.tensor import Tensor


def arange(
    start: float,
    stop: float | None = None,
    step: float = 1,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Numbers from start (0 if only one argument is given) to below stop, in steps.

    Computed as NumPy does, in float64 or int64, and converted then; the dtype follows the
    arguments unless given.  For an integer dtype they are truncated first, as in PyTorch, so that
    steps are equal.
    """
    place = device_named("arange", device)
    first, last = (0, start) if stop is None else (start, stop)
    if dtype is not None and as_dtype(dtype).is_int:
        first, last, step = map(_whole_number, (first, last, step))
    for value in (first, last, step):
        if isinstance(value, str | list | tuple) or value is None:
            raise not_a_tensor("arange", value, "Tensor, bool, int or float")
    if step == 0:
        raise ArgumentError(
            "the step is zero",
            op="arange",
            expect="step != 0",
            actual="0",
            hint="leave the step out for 1",
        )
    kind = int if all(isinstance(v, int) for v in (first, last, step)) else float
    if kind is int and is_traced((first, last, step)):
        out = _traced_range(first, last, step, dtype or int)
        return out.to(place).requires_grad_(requires_grad)
    numbers = np.arange(first, last, step)
    return constant(numbers, dtype or kind, place).requires_grad_(requires_grad)


def _traced_range(first: Any, last: Any, step: Any, dtype: Any) -> Tensor:
    """A range of integers of which the trace at hand does not know how many there are."""
    room, stride = (last - first, step) if step > 0 else (first - last, -step)
    count = (room + stride - 1) // stride if room > 0 else 0
    out = positions((count,), 0) * step + first
    kind = as_dtype(dtype)
    if kind.is_float and kind.bits < 32:
        out = out.to(float64)
    return out.to(kind)  # type: ignore[no-any-return]


def _whole_number(v: Any) -> Any:
    return v if type(v) is TracedSize else int(v)


def linspace(
    start: float,
    stop: float,
    num: int = 50,
    *,
    steps: int | None = None,
    endpoint: bool = True,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """`num` numbers in equal steps from start to stop, which is left out without `endpoint`.

    `steps` is PyTorch's name of `num`.  Computed as NumPy does, in float64, and converted then;
    integers are rounded down.
    """
    place = device_named("linspace", device)
    (count,) = as_shape("linspace", (num if steps is None else steps,))
    kind = float if dtype is None else dtype
    numbers = np.linspace(start, stop, count, endpoint=endpoint)
    return constant(_whole(numbers, kind), kind, place).requires_grad_(requires_grad)


def logspace(
    start: float,
    stop: float,
    num: int = 50,
    base: float = 10.0,
    *,
    steps: int | None = None,
    endpoint: bool = True,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """`base` to the powers of `linspace(start, stop, num)`, computed in float64."""
    place = device_named("logspace", device)
    (count,) = as_shape("logspace", (num if steps is None else steps,))
    kind = float if dtype is None else dtype
    numbers = np.logspace(start, stop, count, endpoint=endpoint, base=base)
    return constant(_whole(numbers, kind), kind, place).requires_grad_(requires_grad)


def _whole(numbers: Any, dtype: Any) -> Any:
    """Numbers rounded down if an integer dtype is to hold them."""
    return np.floor(numbers).astype(np.int64) if as_dtype(dtype).is_int else numbers


def positions(shape: tuple[Any, ...], axis: int) -> Tensor:
    """Each element's place along an axis, int64, in the trace at hand."""
    trace = state.trace
    assert trace is not None
    return trace.trace_node(Iota.of(shape, axis).on())


def eye(
    n_rows: int,
    n_cols: int | None = None,
    *,
    k: int = 0,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Ones on diagonal k of a matrix (above the main one if k > 0), zeros elsewhere."""
    place = device_named("eye", device)
    rows, columns = as_shape("eye", (n_rows, n_rows if n_cols is None else n_cols))
    if is_traced((rows, columns)):
        across, down = positions((rows, columns), 1), positions((rows, columns), 0)
        on = across - down == k
        kind = float if dtype is None else dtype
        return on.to(kind, device=place).requires_grad_(requires_grad)
    numbers = np.eye(rows, columns, k)
    return constant(numbers, float if dtype is None else dtype, place).requires_grad_(requires_grad)


def tri(
    n_rows: int,
    n_cols: int | None = None,
    k: int = 0,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Ones on and below diagonal k of a matrix, zeros above."""
    place = device_named("tri", device)
    rows, columns = as_shape("tri", (n_rows, n_rows if n_cols is None else n_cols))
    if is_traced((rows, columns)):
        across, down = positions((rows, columns), 1), positions((rows, columns), 0)
        below = across - down <= k
        kind = float if dtype is None else dtype
        return below.to(kind, device=place).requires_grad_(requires_grad)
    numbers = np.tri(rows, columns, k)
    return constant(numbers, float if dtype is None else dtype, place).requires_grad_(requires_grad)
