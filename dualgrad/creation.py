"""Making tensors: from numbers, lists and arrays, or filled with one value."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from dualgrad.backends.transfers import new_array
from dualgrad.compiler.ir.refusal import kind_text, operand_hint
from dualgrad.compiler.ir.size import TracedSize
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ops.elementwise import copy
from dualgrad.compiler.ops.transfer import transfer
from dualgrad.compiler.ops.view import expand, reshape
from dualgrad.jit.numbers import Number
from dualgrad.runtime import memory
from dualgrad.runtime.devices import CPU, canonical, find
from dualgrad.runtime.dtype import DType, as_dtype, float64
from dualgrad.runtime.errors import ArgumentError, DTypeError, ShapeError
from dualgrad.runtime.floats import encode
from dualgrad.runtime.lazy import LazyModule
from dualgrad.runtime.srcinfo import called_name
from dualgrad.state import state
from dualgrad.tensor import Tensor

if TYPE_CHECKING:
    from dualgrad import interop
else:
    interop = LazyModule("dualgrad.interop")

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


def tensor(
    data: Any, dtype: Any = None, requires_grad: bool = False, *, device: Any = None
) -> Tensor:
    """A new tensor from numbers, nested lists, arrays or tensors (copied).

    Python floats become float32, ints int64, bools bool; arrays keep their dtype.  Without
    `device` it is on the CPU, or where the tensor is.  Raises ShapeError for ragged lists,
    DTypeError for what is no number, DeviceError for a device that is not there.
    """
    if not isinstance(data, Number | list | tuple | np.ndarray | np.generic | Tensor):
        found = interop.shared(data)
        data = data if found is None else found
    if isinstance(data, Tensor):
        out = data.detach().clone()
        if dtype is not None or device is not None:
            out = out.to(dtype=dtype, device=device)
        return out.requires_grad_(requires_grad)
    place = device_named("tensor", device)
    if isinstance(data, Number):
        return full((), data, dtype=dtype, device=place, requires_grad=requires_grad)
    wanted = None if dtype is None else as_dtype(dtype)
    out = _of_numbers(data, wanted)
    if state.trace is not None:
        # Python numbers are guarded by the trace; what stands in an array is not.
        foreign = isinstance(data, np.ndarray | np.generic)
        state.trace.note_created(out, "tensor(array)" if foreign else "")
    return _moved(out, place).requires_grad_(requires_grad)


def _moved(x: Tensor, device: str) -> Tensor:
    """x on a device."""
    out: Tensor = transfer(x, device)
    return out


def _of_numbers(data: Any, wanted: DType | None) -> Tensor:
    try:
        array = np.array(data)
    except ValueError:
        raise ShapeError(
            "lists of different lengths make no tensor",
            op="tensor",
            expect="nested lists of equal lengths",
            actual=_ragged_part(data, ""),
            hint="pad the shorter lists, or make a list of tensors",
        ) from None
    if array.dtype.kind not in "biufc" and not isinstance(data, np.ndarray | np.generic):
        _refuse_values(data)
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


def _ragged_part(data: Any, path: str) -> str:
    """The first list whose entries have different lengths."""
    kinds = dict.fromkeys(_length_text(row) for row in data)
    if len(kinds) > 1:
        return f"data{path} holds {' and '.join(kinds)}"
    for k, row in enumerate(data):
        found = _ragged_part(row, f"{path}[{k}]") if isinstance(row, list | tuple) else ""
        if found:
            return found
    return "" if path else "lists of different lengths"


def _length_text(row: Any) -> str:
    if isinstance(row, list | tuple):
        return f"a row of length {len(row)}"
    shape = getattr(row, "shape", ())
    return f"a row of shape {tuple(shape)}" if shape else "a number"


def _refuse_values(data: Any, path: str = "data") -> None:
    """Raise for the first value that is no number, or none that a tensor holds."""
    if isinstance(data, list | tuple):
        for k, value in enumerate(data):
            _refuse_values(value, f"{path}[{k}]")
    elif isinstance(data, int):
        if not -(2**63) <= data < 2**64:
            raise ArgumentError(
                "a number does not fit the dtype",
                op=called_name() or "tensor",
                expect="-2**63 to 2**64 - 1 for integers",
                actual=f"{path} is {data}",
                hint="write it as a float",
            )
    elif not isinstance(data, float | np.ndarray | np.generic | Tensor):
        raise DTypeError(
            "a value is no number",
            op=called_name() or "tensor",
            expect="numbers, nested lists of numbers, or arrays",
            actual=f"{path} is {kind_text(data)}",
            hint=operand_hint("tensor", data) if data is not None else "leave it out, or use nan",
        )


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

    dtype: None means the default float.  device: "cuda" or "cuda:N", None means "cpu".
    """
    sizes = as_shape("empty", shape)
    kind = as_dtype(float if dtype is None else dtype)
    place = device_named("empty", device)
    if is_traced(sizes):
        value = zeros((), dtype=kind, device=place)
        return _full_of_tensor(sizes, value, None).requires_grad_(requires_grad)
    out = _undefined(sizes, kind, place)
    return out.requires_grad_() if requires_grad else out


def _undefined(sizes: tuple[int, ...], kind: DType, place: str) -> Tensor:
    """A new tensor with values left undefined."""
    type = TensorType(sizes, kind, False, place)
    out = Tensor.of_array(new_array(place, sizes, kind), type, None)
    if state.trace is not None:
        state.trace.note_created(out, "")
    return out


def full(
    shape: Any,
    fill_value: Any,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """A new tensor of a shape with one value, a number or a tensor of one element.

    The dtype follows the value unless given, the device a tensor's.  Raises ArgumentError for an
    integer that the dtype does not have, ShapeError for a tensor of more elements.
    """
    if isinstance(fill_value, Tensor):
        fill_value = fill_value if device is None else fill_value.to(device=device)
        filled = _full_of_tensor(shape, fill_value, dtype)
        return filled.requires_grad_() if requires_grad else filled
    if not isinstance(fill_value, Number | np.generic):
        _refuse_values(fill_value, "fill_value")
    sizes = as_shape("full", (shape,))
    kind = as_dtype(fill_value.__class__ if dtype is None else dtype)
    out = _filled(sizes, fill_value, kind, device_named("full", device))
    return out.requires_grad_() if requires_grad else out


def _filled(sizes: tuple[int, ...], fill_value: Any, kind: DType, place: str) -> Tensor:
    """A new tensor filled with a number."""
    if isinstance(fill_value, Number) and state.trace is not None:
        traced = state.trace.filled(sizes, fill_value, kind)
        if traced is not None:
            return _moved(traced, place)
    if is_traced(sizes):
        value = full((), fill_value, dtype=kind, device=place)
        return _full_of_tensor(sizes, value, None)
    out = _undefined(sizes, kind, place)
    if isinstance(fill_value, int) and kind.is_int:
        check_range("full", np.array(fill_value), kind)
    out.fill_array(fill_value)
    return out


def _full_of_tensor(shape: Any, value: Tensor, dtype: Any) -> Tensor:
    if value.size != 1:
        raise ShapeError(
            "one value fills a tensor",
            op="full",
            expect="a number or a tensor of one element",
            actual=f"shape {value.shape}",
            hint="use value.expand(shape) for several values",
        )
    out = copy(expand(reshape(value, ()), as_shape("full", (shape,))))
    return out if dtype is None else out.to(dtype)  # type: ignore[no-any-return]


def zeros(
    *shape: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A new tensor of zeros; arguments as those of `empty`."""
    sizes = as_shape("zeros", shape)
    kind = as_dtype(float if dtype is None else dtype)
    out = _filled(sizes, 0, kind, device_named("full", device))
    return out.requires_grad_() if requires_grad else out


def ones(*shape: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A new tensor of ones; arguments as those of `empty`."""
    sizes = as_shape("ones", shape)
    kind = as_dtype(float if dtype is None else dtype)
    out = _filled(sizes, 1, kind, device_named("full", device))
    return out.requires_grad_() if requires_grad else out


def empty_like(
    x: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A tensor of the shape of x and, unless given, its dtype and device, with values left
    undefined."""
    kind, place = dtype or x.dtype, x.device if device is None else device
    return empty(x.shape, dtype=kind, device=place, requires_grad=requires_grad)


def full_like(
    x: Tensor,
    fill_value: Any,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor of the shape of x and, unless given, its dtype and device, with one value."""
    kind, place = dtype or x.dtype, x.device if device is None else device
    return full(x.shape, fill_value, dtype=kind, device=place, requires_grad=requires_grad)


def zeros_like(
    x: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Zeros of the shape of x and, unless given, its dtype and device."""
    return full_like(x, 0, dtype=dtype, device=device, requires_grad=requires_grad)


def ones_like(
    x: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """Ones of the shape of x and, unless given, its dtype and device."""
    return full_like(x, 1, dtype=dtype, device=device, requires_grad=requires_grad)


def constant(array: Array, dtype: Any = None, device: str = CPU) -> Tensor:
    """A tensor of numbers that follow from Python numbers alone: in a trace it is a constant."""
    kind = as_dtype(array.dtype if dtype is None else dtype)
    stored = float64 if kind.is_float and kind.bits < 32 else kind
    check_range("constant", array, stored)
    out = empty(array.shape, dtype=stored)
    assert isinstance(out.array, np.ndarray)
    out.array[...] = array
    return out.to(kind, device=device)


def asarray(obj: Any, dtype: Any = None, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """obj as a tensor: tensors, NumPy arrays and others that can (see `from_dlpack`; buffers of
    Python) share memory if they have the dtype already.

    copy: True for new memory in any case, False to raise ArgumentError where a copy is needed.
    Everything else becomes a new tensor as by `tensor`.  Without `device` a tensor stays where it
    is, and everything else is on the CPU.
    """
    place = None if device is None else device_named("asarray", device)
    found = obj if isinstance(obj, Tensor) else None
    if isinstance(obj, np.ndarray):
        found = from_numpy(obj)
    elif found is None:
        found = interop.shared(obj)
    fits = found is not None and (dtype is None or found.dtype is as_dtype(dtype))
    if found is not None and place is not None:
        fits = fits and found.device == place
    if copy is False and not fits:
        raise ArgumentError(
            "a copy is needed",
            op="asarray",
            expect="a tensor or array of the dtype and on the device, or copy=None",
            actual=type(obj).__name__ if found is None else f"{found.type!r}",
            hint="leave copy out: None copies where it must",
        )
    if found is None:
        return tensor(obj, dtype, device=place)
    out = found.clone() if fits and copy else found
    return out if fits else out.to(dtype=dtype, device=place)


def device_named(op: str, device: Any) -> str:
    """The canonical name of a device; None is the CPU.  Raises DeviceError."""
    if device is None:
        return CPU
    return find(device) or canonical(device, called_name() or op)


def is_traced(sizes: tuple[Any, ...]) -> bool:
    """Whether any of the sizes is known to a trace only."""
    return any(type(n) is TracedSize for n in sizes)


def as_shape(op: str, shape: tuple[Any, ...]) -> tuple[int, ...]:
    """Sizes given as integers or as one sequence."""
    if len(shape) == 1 and isinstance(shape[0], tuple | list):
        shape = tuple(shape[0])
    for n in shape:
        if n.__class__ is not int or n < 0:
            break
    else:
        return shape
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
