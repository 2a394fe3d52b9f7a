"""Tensors over the memory of other libraries."""

from __future__ import annotations

from typing import Any

import numpy as np

from dualgrad.compiler.ir.types import TensorType
from dualgrad.runtime import cuda, dlpack
from dualgrad.runtime.device_array import DeviceArray, ForeignMemory, row_major, span_of
from dualgrad.runtime.devices import CPU, canonical
from dualgrad.runtime.dtype import DType, as_dtype
from dualgrad.runtime.errors import ArgumentError, ExchangeError, OperandError
from dualgrad.state import state
from dualgrad.tensor import Tensor

_NEWEST = (1, 1)  # version of DLPack


def from_dlpack(x: Any, /, *, device: Any = None, copy: bool | None = None) -> Tensor:
    """A tensor over the memory of another library's array, by DLPack.

    x        an object with `__dlpack__` and `__dlpack_device__` (arrays of NumPy, PyTorch, JAX,
             CuPy and others), or a capsule of DLPack
    device   where the tensor is wanted; None: where the array is
    copy     True for new memory; False to raise ExchangeError where a copy is needed; None to
             copy then

    Arrays that say they are read-only become tensors that cannot be written; those of JAX do not
    say so, but must not be written.  Raises OperandError for other
    objects, ExchangeError and DTypeError for arrays that dualgrad has no tensors for.

        >>> a = np.arange(3.0)
        >>> t = dg.from_dlpack(a)
        >>> t += 1  # a is [1., 2., 3.] now
    """
    place = None if device is None else canonical(device, "from_dlpack")
    found = dlpack.taken(_capsule(x, place))
    out = _tensor(found.array, found.dtype, found.device)
    shared = isinstance(found.array, DeviceArray) or out.array is found.array
    moved = place is not None and place != found.device
    if copy is False and (moved or not shared):
        raise ExchangeError(
            "a copy is needed",
            op="from_dlpack",
            expect="memory on the device, with strides that are not negative, or copy=None",
            actual=f"{out.type!r} with strides {found.array.strides} in bytes",
            hint="leave copy out: None copies where it must",
        )
    _note(out, "from_dlpack")
    if moved:
        return out.to(device=place)
    return out.clone() if copy and shared else out


def _capsule(x: Any, place: str | None) -> Any:
    """The capsule of an object, in the newest version that it speaks."""
    if type(x).__name__ == "PyCapsule":
        return x
    if not hasattr(x, "__dlpack__") or not hasattr(x, "__dlpack_device__"):
        raise OperandError(
            "an object that does not share its memory",
            op="from_dlpack",
            expect="an array with __dlpack__ and __dlpack_device__",
            actual=type(x).__name__,
            hint="dg.tensor(...) copies numbers and lists",
        )
    kind, number = map(int, x.__dlpack_device__())
    source = dlpack.device_of(kind, number)
    options: dict[str, Any] = {}
    if source is None:
        if place != CPU:
            raise dlpack.unknown_device(kind, number)
        options["dl_device"] = (1, 0)
    elif source != CPU:
        options["stream"] = cuda.driver(number).stream
    try:
        return x.__dlpack__(max_version=_NEWEST, **options)
    except TypeError:  # written before DLPack had versions
        return x.__dlpack__(**options)


def _tensor(array: Any, dtype: DType, device: str) -> Tensor:
    if not isinstance(array, DeviceArray):
        return Tensor.of_numpy(array, dtype)
    shape, size = array.shape, dtype.itemsize
    if any(s < 0 or s % size for s in array.strides):
        raise ExchangeError(
            "memory in an order that tensors on a device cannot have",
            op="from_dlpack",
            expect="strides that are multiples of the size of an element, none negative",
            actual=f"{array.strides} bytes",
            hint="make the array contiguous where it comes from",
        )
    layout = None if array.c_contiguous else tuple(s // size for s in array.strides)
    return Tensor.of_array(array, TensorType(shape, dtype, False, device), layout)


def _note(out: Tensor, how: str) -> None:
    if state.trace is not None:
        state.trace.note_created(out, how)


def frombuffer(
    buffer: Any,
    dtype: Any = None,
    count: int = -1,
    offset: int = 0,
    *,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor of one dimension over memory that has Python's buffer protocol (bytes, bytearray,
    memoryview, array.array, mmap), which it shares.

    dtype    of the elements, float32 by default; bfloat16 is possible
    count    how many elements; -1 for all that there are
    offset   bytes before the first of them

    Read-only memory, such as bytes, makes a tensor that cannot be written.  If `offset` is not a
    multiple of the element's size the values are copied.  Raises ArgumentError where the memory
    does not have the elements, OperandError for objects without the protocol.
    """
    kind = as_dtype(float if dtype is None else dtype)
    try:
        view = memoryview(buffer)
    except TypeError:
        raise OperandError(
            "an object without Python's buffer protocol",
            op="frombuffer",
            expect="bytes, bytearray, memoryview, array.array, mmap, ...",
            actual=type(buffer).__name__,
            hint="dg.tensor(...) copies numbers and lists",
        ) from None
    _check_extent(view.nbytes, kind, count, offset)
    count = (view.nbytes - offset) // kind.itemsize if count < 0 else count
    array = np.frombuffer(buffer, kind.numpy, count, offset)
    out = Tensor.of_numpy(array, kind)
    _note(out, "frombuffer")
    return out.requires_grad_(requires_grad)


def _check_extent(nbytes: int, dtype: DType, count: int, offset: int) -> None:
    """Refuse elements that memory of so many bytes does not have."""
    rest, size = nbytes - offset, dtype.itemsize
    fits = count * size <= rest if count >= 0 else rest % size == 0
    if offset < 0 or rest < 0 or not fits:
        wanted = f"{count} elements" if count >= 0 else "a whole number of elements"
        raise ArgumentError(
            "the memory does not have these elements",
            op="frombuffer",
            expect=f"{wanted} of {size} bytes from byte {offset} on",
            actual=f"{nbytes} bytes",
            hint="check dtype, count and offset",
        )


def values_of(x: Any) -> Tensor:
    """The values of a tensor or array of any library, of a number or of nested lists of them, as a
    tensor without a gradient, which may share their memory.

    Raises DTypeError, ExchangeError and what other libraries raise for what has no such values.
    """
    if isinstance(x, Tensor):
        return x.detach()
    if hasattr(x, "__dlpack__") and not isinstance(x, np.ndarray):
        return from_dlpack(x.detach() if hasattr(x, "detach") else x)
    out = Tensor.of_numpy(np.asarray(x))
    _note(out, "asarray")
    return out


def shared(x: Any) -> Tensor | None:
    """A tensor over the memory of an object of another library; None for one that has none.

    By DLPack, else by CUDA's array interface, else by Python's buffer protocol.
    """
    if hasattr(x, "__dlpack__") and hasattr(x, "__dlpack_device__"):
        return from_dlpack(x)
    described = getattr(x, "__cuda_array_interface__", None)
    if described is not None:
        return _of_cuda(x, described)
    if isinstance(x, bytes | bytearray | str | np.generic):
        return None
    try:
        view = memoryview(x)
    except TypeError:
        return None
    out = Tensor.of_numpy(np.asarray(view))
    _note(out, "asarray")
    return out


def _of_cuda(x: Any, described: dict[str, Any]) -> Tensor:
    """A tensor over memory that is described by version 2 or 3 of CUDA's array interface."""
    dtype = as_dtype(np.dtype(described["typestr"]))
    shape, (address, _) = tuple(described["shape"]), described["data"]
    strides = described.get("strides") or row_major(shape, dtype.itemsize)
    number = cuda.driver().device_of(address) if address else 0
    driver = cuda.driver(number)
    if described.get("stream") not in (None, driver.stream):
        driver.follow(described["stream"])
    memory = ForeignMemory(driver, address, span_of(shape, strides, dtype.itemsize), x)
    array = DeviceArray(driver, memory, 0, shape, tuple(strides), dtype.numpy)
    out = _tensor(array, dtype, f"cuda:{number}")
    _note(out, "asarray")
    return out
