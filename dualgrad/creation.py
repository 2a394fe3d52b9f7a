"""Making tensors: from numbers, lists and arrays, or filled with one value."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from dualgrad.compiler.ir.size import TracedSize
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ops.elementwise import copy
from dualgrad.compiler.ops.view import expand, reshape
from dualgrad.jit.numbers import Number
from dualgrad.runtime import memory
from dualgrad.runtime.dtype import DType, as_dtype, float64
from dualgrad.runtime.errors import ArgumentError, ShapeError
from dualgrad.runtime.floats import encode
from dualgrad.runtime.srcinfo import called_name
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
            "no NumPy array",
            op="from_numpy",
            expect="numpy.ndarray",
            actual=type(array).__name__,
            hint="use dg.tensor(...) for numbers and lists",
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
    if isinstance(data, Number):
        return full((), data, dtype=dtype, requires_grad=requires_grad)
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
            hint="pad the shorter lists, or make a list of tensors",
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
            hint="choose a wider dtype",
        )


def empty(
    *shape: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A new tensor of a shape (ints or one tuple) with values left undefined.

    dtype: None means the default float.  device: None or "cpu".
    """
    sizes = as_shape("empty", shape)
    kind = as_dtype(float if dtype is None else dtype)
    check_device("empty", device)
    if is_traced(sizes):
        return _full_of_tensor(sizes, zeros((), dtype=kind), None).requires_grad_(requires_grad)
    out = Tensor.of_array(memory.empty(sizes, kind), TensorType(sizes, kind), None)
    if state.trace is not None:
        state.trace.note_created(out, "")
    return out.requires_grad_(requires_grad)


def full(
    shape: Any,
    fill_value: Any,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """A new tensor of a shape with one value, a number or a tensor of one element.

    The dtype follows the value unless given.  Raises ArgumentError for an integer that the dtype
    does not have, ShapeError for a tensor of more elements.
    """
    if isinstance(fill_value, Tensor):
        filled = _full_of_tensor(shape, fill_value, dtype)
        return filled.requires_grad_() if requires_grad else filled
    sizes = as_shape("full", (shape,))
    kind = as_dtype(fill_value.__class__ if dtype is None else dtype)
    if isinstance(fill_value, Number) and state.trace is not None:
        traced = state.trace.filled(sizes, fill_value, kind)
        if traced is not None:
            return traced.requires_grad_(requires_grad)
    if is_traced(sizes):
        value = full((), fill_value, dtype=dtype, device=device)
        return _full_of_tensor(sizes, value, None).requires_grad_(requires_grad)
    out = empty(sizes, dtype=kind, device=device)
    assert out.array is not None
    low = out.type.dtype.is_low
    if isinstance(fill_value, int):
        check_range("full", np.array(fill_value), out.type.dtype)
    out.array.fill(encode(fill_value, out.type.dtype) if low else fill_value)
    return out.requires_grad_(requires_grad)


def _full_of_tensor(shape: Any, value: Tensor, dtype: Any) -> Tensor:
    if value.size != 1:
        raise ShapeError(
            "one value fills a tensor",
            op="full",
            expect="a number or a tensor of one element",
            actual=f"shape {value.shape}",
        )
    out = copy(expand(reshape(value, ()), as_shape("full", (shape,))))
    return out if dtype is None else out.to(dtype)  # type: ignore[no-any-return]


def zeros(
    *shape: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A new tensor of zeros; arguments as those of `empty`."""
    kind = float if dtype is None else dtype
    return full(as_shape("zeros", shape), 0, dtype=kind, device=device, requires_grad=requires_grad)


def ones(*shape: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A new tensor of ones; arguments as those of `empty`."""
    kind = float if dtype is None else dtype
    return full(as_shape("ones", shape), 1, dtype=kind, device=device, requires_grad=requires_grad)


def empty_like(
    x: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A tensor of the shape of x and, unless given, its dtype, with values left undefined."""
    return empty(x.shape, dtype=dtype or x.dtype, device=device, requires_grad=requires_grad)


def full_like(
    x: Tensor,
    fill_value: Any,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor of the shape of x and, unless given, its dtype, with one value."""
    kind = dtype or x.dtype
    return full(x.shape, fill_value, dtype=kind, device=device, requires_grad=requires_grad)


def zeros_like(
    x: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Zeros of the shape of x and, unless given, its dtype."""
    return full_like(x, 0, dtype=dtype, device=device, requires_grad=requires_grad)


def ones_like(
    x: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Ones of the shape of x and, unless given, its dtype."""
    return full_like(x, 1, dtype=dtype, device=device, requires_grad=requires_grad)


def constant(array: Array, dtype: Any = None) -> Tensor:
    """A tensor of numbers that follow from Python numbers alone: in a trace it is a constant."""
    kind = as_dtype(array.dtype if dtype is None else dtype)
    stored = float64 if kind.is_float and kind.bits < 32 else kind
    check_range("constant", array, stored)
    out = empty(array.shape, dtype=stored)
    assert out.array is not None
    out.array[...] = array
    return out.to(kind)  # type: ignore[no-any-return]


def asarray(obj: Any, dtype: Any = None, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """obj as a tensor: tensors and NumPy arrays share memory if they have the dtype already.

    copy: True for new memory in any case, False to raise ArgumentError where a copy is needed.
    Everything else becomes a new tensor as by `tensor`.
    """
    check_device("asarray", device)
    found = obj if isinstance(obj, Tensor) else None
    if isinstance(obj, np.ndarray):
        found = from_numpy(obj)
    fits = found is not None and (dtype is None or found.dtype is as_dtype(dtype))
    if copy is False and not fits:
        raise ArgumentError(
            "a copy is needed",
            op="asarray",
            expect="a tensor or array of the dtype, or copy=None",
            actual=type(obj).__name__ if found is None else found.dtype.name,
        )
    if found is None:
        return tensor(obj, dtype)
    out = found.clone() if fits and copy else found
    return out if fits else out.to(dtype)


def check_device(op: str, device: Any) -> None:
    """Refuse places that there are no tensors in."""
    if device not in (None, "cpu"):
        raise ArgumentError(
            "no such device",
            op=called_name() or op,
            expect="None or 'cpu'",
            actual=repr(device),
            hint="leave the device out: dualgrad computes on the CPU",
        )


def is_traced(sizes: tuple[Any, ...]) -> bool:
    """Whether any of the sizes is known to a trace only."""
    return any(type(n) is TracedSize for n in sizes)


def as_shape(op: str, shape: tuple[Any, ...]) -> tuple[int, ...]:
    """Sizes given as integers or as one sequence."""
    if len(shape) == 1 and isinstance(shape[0], tuple | list):
        shape = tuple(shape[0])
    sizes = [_size(n) for n in shape]
    if None in sizes:
        raise ArgumentError(
            "a size is no natural number",
            op=op,
            expect="ints >= 0",
            actual=repr(shape),
            hint="compute sizes with // and check that they are not negative",
        )
    return tuple(n for n in sizes if n is not None)


def _size(n: Any) -> int | None:
    if type(n) is TracedSize:
        return None if n < 0 else n  # type: ignore[return-value]
    try:
        size = operator.index(n)
    except TypeError:
        return None
    return None if size < 0 or isinstance(n, bool) else size
