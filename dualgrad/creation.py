"""Making tensors: from numbers, lists and arrays, or filled with one value."""

from __future__ import annotations

from typing import Any

import numpy as np

from dualgrad.compiler.ir.types import TensorType
from dualgrad.runtime import memory
from dualgrad.runtime.dtype import DType, as_dtype
from dualgrad.runtime.errors import ArgumentError, ShapeError
from dualgrad.runtime.floats import encode
from dualgrad.state import state
from dualgrad.tensor import Tensor

Array = np.ndarray[Any, Any]


def from_numpy(array: Array) -> Tensor:
    """A tensor that shares memory with a NumPy array.

    Arrays with negative or unaligned strides, or foreign byte order, are copied.  Raises
    DTypeError for dtypes that dualgrad does not have.
    """
    if not isinstance(array, np.ndarray):
        raise ArgumentError(
            "no NumPy array", op="from_numpy", expect="numpy.ndarray", actual=type(array).__name__
        )
    return from_storage(array, as_dtype(array.dtype))


def from_storage(array: Array, dtype: DType) -> Tensor:
    """A tensor over an array that holds what `Tensor.storage` gives: bits for bfloat16."""
    out = Tensor.of_numpy(array, dtype)
    if state.trace is not None:
        state.trace.note_created(out, "from_numpy")
    return out


def tensor(data: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """A new tensor from numbers, nested lists, arrays or tensors (copied).

    Python floats become float32, ints int64, bools bool; arrays keep their dtype.  Raises
    ShapeError for ragged lists, DTypeError for what is no number.
    """
    if isinstance(data, Tensor):
        out = data.detach().clone()
        out = out.to(dtype) if dtype is not None else out
        return out.requires_grad_(requires_grad)
    wanted = None if dtype is None else as_dtype(dtype)
    out = _of_numbers(data, wanted)
    if state.trace is not None:
        # Python numbers are guarded by the trace; what stands in an array is not.
        foreign = isinstance(data, np.ndarray | np.generic)
        state.trace.note_created(out, "tensor(array)" if foreign else "")
    return out.requires_grad_(requires_grad)


def _of_numbers(data: Any, wanted: DType | None) -> Tensor:
    try:
        array = np.array(data)
    except ValueError as error:
        raise ShapeError(
            "lists of different lengths make no tensor",
            op="tensor",
            expect="nested lists of equal lengths",
            actual=str(error),
        ) from None
    if wanted is None:
        wanted = as_dtype(array.dtype)
        if not isinstance(data, np.ndarray | np.generic):
            wanted = as_dtype({"f": float, "i": int, "u": int, "b": bool}[wanted.kind])
            if array.size == 0 and array.dtype == np.float64:
                wanted = as_dtype(float)
    elif array.dtype.kind not in "biuf":
        as_dtype(array.dtype)
    check_range("tensor", array, wanted)
    out = memory.empty(array.shape, wanted)
    out[...] = encode(array, wanted) if wanted.is_low else array
    return Tensor.of_numpy(out, wanted)


def check_range(op: str, array: Array, dtype: DType) -> None:
    """Refuse numbers that an integer dtype does not have."""
    if not dtype.is_int or array.dtype.kind not in "iu" or not array.size:
        return
    limits = np.iinfo(dtype.numpy)
    low, high = int(array.min()), int(array.max())
    if low < limits.min or high > limits.max:
        raise ArgumentError(
            "a number does not fit the dtype",
            op=op,
            expect=f"{limits.min} to {limits.max} for {dtype.name}",
            actual=f"{low if low < limits.min else high}",
        )


def empty(*shape: Any, dtype: Any = float, requires_grad: bool = False) -> Tensor:
    """A new tensor of a shape (ints or one tuple) with values left undefined."""
    sizes = as_shape("empty", shape)
    kind = as_dtype(dtype)
    out = Tensor.of_array(memory.empty(sizes, kind), TensorType(sizes, kind), None)
    if state.trace is not None:
        state.trace.note_created(out, "")
    return out.requires_grad_(requires_grad)


def full(shape: Any, value: float, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """A new tensor of a shape with one value; its dtype follows the value unless given."""
    out = empty(shape, dtype=type(value) if dtype is None else dtype)
    assert out.array is not None
    if isinstance(value, int):
        check_range("full", np.array(value), out.type.dtype)
    out.array.fill(encode(value, out.type.dtype) if out.type.dtype.is_low else value)
    return out.requires_grad_(requires_grad)


def zeros(*shape: Any, dtype: Any = float, requires_grad: bool = False) -> Tensor:
    """A new tensor of zeros."""
    return full(as_shape("zeros", shape), 0, dtype, requires_grad)


def ones(*shape: Any, dtype: Any = float, requires_grad: bool = False) -> Tensor:
    """A new tensor of ones."""
    return full(as_shape("ones", shape), 1, dtype, requires_grad)


def zeros_like(x: Tensor, dtype: Any = None) -> Tensor:
    """Zeros of the shape and dtype of x."""
    return full(x.shape, 0, x.dtype if dtype is None else dtype)


def ones_like(x: Tensor, dtype: Any = None) -> Tensor:
    """Ones of the shape and dtype of x."""
    return full(x.shape, 1, x.dtype if dtype is None else dtype)


def arange(start: float, stop: float | None = None, step: float = 1, dtype: Any = None) -> Tensor:
    """Numbers from start (0 if only one argument is given) to below stop, in steps."""
    first, last = (0, start) if stop is None else (start, stop)
    if step == 0:
        raise ArgumentError("the step is zero", op="arange", expect="step != 0", actual="0")
    return tensor(
        np.arange(first, last, step).tolist() or np.zeros(0),
        dtype=dtype or (int if all(isinstance(v, int) for v in (first, last, step)) else float),
    )


def as_shape(op: str, shape: tuple[Any, ...]) -> tuple[int, ...]:
    """Sizes given as ints or as one sequence."""
    if len(shape) == 1 and isinstance(shape[0], tuple | list):
        shape = tuple(shape[0])
    for n in shape:
        if isinstance(n, bool) or not isinstance(n, int) or n < 0:
            raise ArgumentError(
                "a size is no natural number", op=op, expect="ints >= 0", actual=repr(shape)
            )
    return shape
