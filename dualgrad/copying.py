"""Tensors under Python's `copy` and `pickle`: memory that is shared stays shared.

What is copied is the memory of a tensor, once for all tensors of one object that share it (a
tensor, its views, `detach()`, a `Parameter` of it), as a `Storage`; each of them then says which
elements of it it shows.  A small view of a large tensor therefore brings all of it along:
`x[0].clone()` does not.
"""

from __future__ import annotations

import copyreg
import math
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np

from dualgrad.backends.transfers import moved
from dualgrad.compiler.ir.types import TensorType, contiguous_strides
from dualgrad.runtime import memory
from dualgrad.runtime.device_array import DeviceArray, address_of, span_of
from dualgrad.runtime.devices import CPU
from dualgrad.runtime.dtype import DType
from dualgrad.runtime.errors import GradientError
from dualgrad.state import state

if TYPE_CHECKING:
    from dualgrad.tensor import Tensor

Array = np.ndarray[Any, Any]
_COPIED = "copying"


class Storage:
    """Elements in a row, in memory of a tensor, with what tensors over it share.

    array     of one dimension
    owner     the array that it was made of, so that another one cannot get its id
    version   see `Viewing`
    """

    __slots__ = ("__weakref__", "array", "device", "dtype", "owner", "version")

    def __init__(
        self, array: Array | DeviceArray, dtype: DType, device: str, owner: object = None
    ) -> None:
        self.array, self.dtype, self.device, self.owner = array, dtype, device, owner
        self.version: list[Any] = [0, None, None]

    def __deepcopy__(self, memo: dict[int, Any]) -> Storage:
        if isinstance(self.array, DeviceArray):
            return Storage(self.array.copy(), self.dtype, self.device)
        return stored(self.array, self.dtype, CPU)

    def __reduce__(self) -> tuple[Any, ...]:
        array = self.array
        values = array.to_host() if isinstance(array, DeviceArray) else array
        return stored, (values, self.dtype, self.device)


def stored(values: Array, dtype: DType, device: str) -> Storage:
    """New memory with these values.  Raises DeviceError if the device is not there."""
    if device != CPU:
        return Storage(moved(values, device), dtype, device)
    array = memory.empty(values.shape, dtype)
    np.copyto(array, values)
    return Storage(array, dtype, device)


# By id of an array and dtype: those that are being copied right now.
_storages: WeakValueDictionary[tuple[int, str], Storage] = WeakValueDictionary()


class Copying:
    """The part of `Tensor` that makes second ones of it."""

    __slots__ = ()

    def __copy__(self: Tensor) -> Tensor:  # type: ignore[misc]
        """The same memory and history under a second name: a change in place of either shows in
        the gradients of both."""
        if type(self) is _tensor_class(type(self)) and (self.origin or self.grad_fn) is not None:
            return self[...]
        out = as_kind(type(self), self.detached())
        out.base, out._grad = self.base, self._grad
        out.requires_grad, out.grad_fn = self.requires_grad, self.grad_fn
        out.output_number = getattr(self, "output_number", 0)
        fields, slots = _attributes(self) or ({}, {})
        for name, value in {**fields, **slots}.items():
            object.__setattr__(out, name, value)
        if state.trace is not None:
            state.trace.note_copied(self, out)
        return out

    def __reduce_ex__(self: Tensor, protocol: Any) -> tuple[Any, ...]:  # type: ignore[misc]
        """For `deepcopy` and `pickle`: memory, `requires_grad` and gradient of a leaf, and the
        attributes of a subclass.  Hooks are not copied."""
        if self.grad_fn is not None:
            raise GradientError(
                "a computed tensor cannot be copied with its graph",
                op="copy",
                expect="a leaf",
                actual=f"a result of {self.grad_fn.name}",
                hint="copy x.detach(), or call x.clone()",
            )
        self.concrete(_COPIED)
        storage, offset, strides = _storage_of(self)
        place = (offset, tuple(map(int, self.shape)), strides, self.base is not None)
        args = (type(self), storage, place, self.requires_grad, self._grad)
        own = type(self).__getstate__ is not object.__getstate__
        return restored, args, self.__getstate__() if own else _attributes(self)


def _storage_of(x: Tensor) -> tuple[Storage, int, tuple[int, ...]]:
    """The memory of a tensor that is copied with it; its first element there, and its strides."""
    key, owner = _owner_of((x if x.base is None else x.base).array)
    flat, start = _row(owner)
    if flat is not None:
        size = x.type.dtype.itemsize
        offset, rest = divmod(address_of(x.array) - start, size) if x.size else (0, 0)  # type: ignore[arg-type]
        ends = offset + span_of(tuple(x.shape), x.strides_in_elements, 1)
        if not rest and flat.itemsize == size and offset >= 0 and ends <= flat.size:
            return _known(key, flat, x), offset, x.strides_in_elements
    flat = _values(x.array)
    return _known(x.array, flat, x), 0, contiguous_strides(tuple(x.shape))  # type: ignore[return-value]


def _owner_of(array: Any) -> tuple[Any, Any]:
    """What tells an array's memory from that of others, and the largest array known there."""
    top = array
    while (below := getattr(top, "base", None)) is not None:
        if isinstance(below, memoryview):
            below = below.obj
        if type(below) in memory.BLOCK_TYPES:
            return below, top
        top = below
    return (top, top) if memory.is_pooled(top) else (array, array)


def _known(owner: Any, flat: Array | DeviceArray, x: Tensor) -> Storage:
    """The storage of an array: the same one as long as somebody copies it."""
    dtype = x.type.dtype
    key = (id(owner), dtype.name)
    found = _storages.get(key)
    if found is None:
        found = _storages[key] = Storage(flat, dtype, x.type.device, owner)
    return found


def _row(array: Any) -> tuple[Any, int]:
    """(the elements of an array in the order of memory, the address of the first one); None for
    an array with gaps, or that shows an element twice."""
    size, step = array.size, array.itemsize
    axes = sorted(zip(array.strides, array.shape, strict=True))
    for stride, n in axes:
        if n != 1 and stride != step and size:
            return None, 0
        step *= n
    address = address_of(array)
    if isinstance(array, DeviceArray):
        return array.view((size,), (array.itemsize,)), address
    order = sorted(range(array.ndim), key=lambda k: -array.strides[k])
    return array.transpose(order).reshape(-1), address


def _values(array: Any) -> Array | DeviceArray:
    """The elements of an array in row-major order."""
    if isinstance(array, DeviceArray):
        whole = array.copy()
        return whole.view((whole.size,), (whole.itemsize,))
    return np.ascontiguousarray(array).reshape(-1)


def _tensor_class(kind: type) -> type[Tensor]:
    return next(c for c in kind.__mro__ if Copying in c.__bases__)


def _attributes(x: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """What subclasses add to a tensor: (its `__dict__`, its slots); None for nothing."""
    kind = type(x)
    own = _tensor_class(kind)
    if kind is own:
        return None
    names = set(copyreg._slotnames(kind)) - set(copyreg._slotnames(own))  # type: ignore[attr-defined]
    slots = {name: getattr(x, name) for name in names if hasattr(x, name)}
    fields = dict(getattr(x, "__dict__", {}))
    return (fields, slots) if fields or slots else None


def as_kind(kind: type[Tensor], x: Tensor) -> Tensor:
    """A tensor as one of a subclass, whose `__init__` does not run."""
    own = type(x)
    if kind is own:
        return x
    out = object.__new__(kind)
    for name in own.__slots__:
        if name != "__weakref__" and hasattr(x, name):
            setattr(out, name, getattr(x, name))
    return out


def _over(kind: type[Tensor], s: Storage, offset: int, shape: Any, strides: Any) -> Tensor:
    """A tensor that shows elements of a storage."""
    step = s.dtype.itemsize
    steps = tuple(n * step for n in strides)
    array: Array | DeviceArray
    if isinstance(s.array, DeviceArray):
        array = s.array.view(shape, steps, offset * step)
    else:
        # a whole one lies on the pool's block itself: by these, tracing tells arrays apart
        whole = math.prod(shape) == span_of(shape, strides, 1) == s.array.size
        place = s.array.base if whole and type(s.array.base) in memory.BLOCK_TYPES else s.array
        array = np.ndarray(shape, s.array.dtype, place, offset * step, steps)
    layout = None if strides == contiguous_strides(shape) else strides
    out = kind.of_array(array, TensorType(shape, s.dtype, False, s.device), layout)
    out._version = s.version
    return out


def restored(
    kind: type[Tensor],
    storage: Storage,
    place: tuple[int, tuple[int, ...], tuple[int, ...], bool],
    requires_grad: bool,
    grad: Tensor | None,
) -> Tensor:
    """A leaf as `__reduce_ex__` describes it.

    place   first element in the storage, shape, strides in elements, whether it is a view
    """
    offset, shape, strides, is_view = place
    out = as_kind(kind, _over(kind, storage, offset, shape, strides))
    if is_view:
        out.base = _over(kind, storage, 0, (storage.array.size,), (1,))
    out.requires_grad, out._grad = requires_grad, grad
    return out
