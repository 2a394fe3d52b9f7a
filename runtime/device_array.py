"""Arrays in the memory of a device: what a NumPy array is to a tensor on the CPU.

A `DeviceArray` is a shape, strides and a place in memory of a driver.  It computes nothing: values
come from programs, from copies of NumPy arrays, and from `fill`.  Views share the memory, which
goes back when the last of them dies.  That may be before the work queued on it has run: a driver
hands memory out again in the order of its queue (see `runtime.driver`).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np

from dualgrad.runtime.errors import DeviceError

if TYPE_CHECKING:
    from dualgrad.runtime.driver import Driver, Memory

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
_FEW = 1024  # bytes that are sent as fast as a kernel is launched
_GAPS = 4  # times the bytes of a view from which on it is fetched in at most
_PARTS = 16  # parts along an axis
_held: list[object] = []  # owners of foreign memory that work may still use


class Flags(NamedTuple):
    """Facts about memory, under NumPy's names."""

    c_contiguous: bool
    writeable: bool


class DeviceArray:
    """Elements of a dtype at `memory.address + offset` and on.

    offset    bytes from the start of the memory
    strides   bytes from one element to the next along each dimension, none negative
    """

    __slots__ = ("address", "driver", "dtype", "memory", "shape", "strides")

    def __init__(
        self,
        driver: Driver,
        memory: Memory,
        offset: int,
        shape: Shape,
        strides: Shape,
        dtype: np.dtype[Any],
    ) -> None:
        self.driver, self.memory = driver, memory
        self.address = memory.address + offset
        self.shape, self.strides, self.dtype = shape, strides, dtype

    @classmethod
    def empty(cls, driver: Driver, shape: Shape, dtype: np.dtype[Any]) -> DeviceArray:
        """A new row-major array with values left undefined.  Raises OutOfMemory."""
        memory = driver.allocate(math.prod(shape) * dtype.itemsize)
        return cls(driver, memory, 0, shape, row_major(shape, dtype.itemsize), dtype)

    @classmethod
    def from_host(cls, driver: Driver, array: Array) -> DeviceArray:
        """A new row-major array with the values of a NumPy array."""
        out = cls.empty(driver, array.shape, array.dtype)
        out.assign(array)
        return out

    # -- facts --------------------------------------------------------------------------------

    @property
    def offset(self) -> int:
        """Bytes from the start of the memory to the first element."""
        return self.address - self.memory.address

    @property
    def base(self) -> Memory:
        """What keeps the memory; no two of these share any, but `ForeignMemory` may."""
        return self.memory

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of the elements, each counted once."""
        return self.size * self.dtype.itemsize

    @property
    def span(self) -> int:
        """Bytes from the start of the first element to the end of the last one."""
        return span_of(self.shape, self.strides, self.dtype.itemsize)

    @property
    def c_contiguous(self) -> bool:
        """Whether the elements lie in row-major order without gaps."""
        step = self.dtype.itemsize
        for n, s in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if n != 1 and s != step:
                return self.size == 0
            step *= n
        return True

    @property
    def flags(self) -> Flags:
        """What NumPy's arrays say of their memory."""
        return Flags(self.c_contiguous, True)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """How CuPy, Numba and PyTorch see the array: version 3 of their protocol, whose `stream`
        lets them order their work after ours."""
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "strides": None if self.c_contiguous else self.strides,
            "stream": self.driver.stream,
            "version": 3,
        }

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NoReturn:
        raise DeviceError(
            "values on a device are no NumPy array",
            op="numpy",
            expect="a tensor on the CPU",
            actual="one on a CUDA device",
            hint="copy it with .cpu() first",
        )

    def __repr__(self) -> str:
        return f"DeviceArray({self.dtype.name}{list(self.shape)} at {self.address:#x})"

    # -- views --------------------------------------------------------------------------------

    def view(self, shape: Shape, strides: Shape, offset: int = 0) -> DeviceArray:
        """Other elements of the same memory, beginning `offset` bytes behind the first one."""
        start = self.offset + offset
        return DeviceArray(self.driver, self.memory, start, shape, strides, self.dtype)

    def __getitem__(self, key: Any) -> DeviceArray:
        """The view that a key of ints, slices, None and one Ellipsis shows, as in NumPy.

        Raises IndexError for an int out of range and for too many of them.
        """
        shape, strides, offset = [], [], 0
        axis = 0
        for part in _spelled_out(key if isinstance(key, tuple) else (key,), len(self.shape)):
            if part is None:
                shape.append(1)
                strides.append(0)
                continue
            n, step = self.shape[axis], self.strides[axis]
            axis += 1
            if isinstance(part, slice):
                start, stop, stride = part.indices(n)
                count = len(range(start, stop, stride))
                offset += start * step if count else 0
                shape.append(count)
                strides.append(step * stride)
            elif -n <= part < n:
                offset += part % n * step
            else:
                raise IndexError(f"index {part} of {n}")
        return self.view(tuple(shape), tuple(strides), offset)

    # -- values -------------------------------------------------------------------------------

    def to_host(self) -> Array:
        """The values as a new NumPy array, after all queued work."""
        if self.span > max(_GAPS * self.nbytes, _FEW):
            axis = max(range(self.ndim), key=lambda k: (self.shape[k] > 1) * self.strides[k])
            if self.shape[axis] <= _PARTS:
                before = (slice(None),) * axis
                parts = [self[(*before, k)].to_host() for k in range(self.shape[axis])]
                return np.stack(parts, axis)
        flat = np.empty(self.span, np.uint8)
        download(self.driver, flat, self.address)
        if self.c_contiguous:
            return flat.view(self.dtype).reshape(self.shape)
        return np.ndarray(self.shape, self.dtype, flat.data, 0, self.strides).copy()

    def assign(self, array: Array) -> None:
        """Overwrite a row-major array with the values of a NumPy array of its shape and dtype."""
        upload(self.driver, self.address, array)

    def fills_fast(self, value: Any) -> bool:
        """Whether `fill` does not have to send as many bytes as the array has, or only a few."""
        return self.nbytes <= _FEW or len(set(np.array(value, self.dtype).tobytes())) == 1

    def fill(self, value: Any) -> None:
        """Overwrite a row-major array with one value of its dtype."""
        pattern = np.array(value, self.dtype).tobytes()
        if len(set(pattern)) == 1:
            self.driver.fill(self.address, pattern[0], self.nbytes)
        else:
            self.assign(np.full(self.shape, value, self.dtype))

    def copy(self) -> DeviceArray:
        """The same values in new, row-major memory."""
        if not self.c_contiguous:
            return DeviceArray.from_host(self.driver, self.to_host())
        out = DeviceArray.empty(self.driver, self.shape, self.dtype)
        if self.nbytes:
            self.driver.copy(out.address, self.address, self.nbytes)
        return out


class ForeignMemory:
    """Memory of another library, which `owner` keeps; arrays that do not know of each other may
    share it.  It is given back when the work queued on it has run; during a capture, which forbids
    to wait for that, not before the next one is."""

    __slots__ = ("_driver", "_owner", "address", "nbytes")

    def __init__(self, driver: Driver, address: int, nbytes: int, owner: object) -> None:
        self.address, self.nbytes = address, nbytes
        self._driver, self._owner = driver, owner

    def __del__(self) -> None:
        try:
            self._driver.synchronize()
        except DeviceError:
            _held.append(self._owner)
        else:
            _held.clear()


def download(driver: Driver, out: Array, address: int) -> None:
    """Fill a row-major NumPy array from a device, after all queued work."""
    if out.nbytes:
        driver.download(out.reshape(-1).view(np.uint8).data, address)


def upload(driver: Driver, address: int, array: Array) -> None:
    """Copy a NumPy array to a device, where it is row-major."""
    if array.nbytes:
        whole = np.ascontiguousarray(array)
        driver.upload(address, whole.reshape(-1).view(np.uint8).data)


@lru_cache(maxsize=1024)
def row_major(shape: Shape, itemsize: int) -> Shape:
    """Row-major strides in bytes."""
    strides = []
    for n in reversed(shape):
        strides.append(itemsize)
        itemsize *= n
    return tuple(reversed(strides))


def span_of(shape: Shape, strides: Shape, itemsize: int) -> int:
    """Bytes from the start of the first element to the end of the last one."""
    if 0 in shape:
        return 0
    return sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) + itemsize


def _spelled_out(key: tuple[Any, ...], ndim: int) -> tuple[Any, ...]:
    """A key with one part for each dimension, its Ellipsis written as slices."""
    missing = ndim - sum(part is not None and part is not Ellipsis for part in key)
    if missing < 0:
        raise IndexError(f"too many indices for {ndim} dimensions")
    if Ellipsis not in key:
        return (*key, *(slice(None),) * missing)
    place = key.index(Ellipsis)
    return (*key[:place], *(slice(None),) * missing, *key[place + 1 :])


def overlaps(a: Array | DeviceArray, b: Array | DeviceArray) -> bool:
    """Whether two arrays may share memory: whether the ranges of their bytes meet.

    Exact for views in one dimension without gaps; else it may say yes for elements in between.
    """
    if isinstance(a, DeviceArray):
        if not isinstance(b, DeviceArray) or a.driver is not b.driver:
            return False
        first, second = a.span, b.span
        return bool(
            first and second and a.address < b.address + second and b.address < a.address + first
        )
    return not isinstance(b, DeviceArray) and bool(np.may_share_memory(a, b))


def address_of(array: Array | DeviceArray) -> int:
    """Address of the first element."""
    return array.address if isinstance(array, DeviceArray) else int(array.ctypes.data)
