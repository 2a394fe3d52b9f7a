"""Functions of the host that programs call, and how a program reaches them.

A function fills an array: `function(out, *inputs, *sizes, *params)`.  All arrays are row-major;
inputs are not to be written to.  The numbers are NumPy's own.

    address = callback(HostCall("solve", (), (("float64", 2),) * 3, 0))

A program calls the address with a pointer to 8-byte words (see `runtime.program`).  An exception
is kept, per thread, until `raise_failure`.
"""

from __future__ import annotations

import ctypes
import functools
import math
import threading
from collections.abc import Callable, Sequence
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.linalg import LinAlgError as NumpyLinAlgError

from dualgrad.runtime.errors import DualgradError, LibraryError
from dualgrad.runtime.program import HostCall
from dualgrad.runtime.srcinfo import Location

__all__ = ["FUNCTIONS", "LinAlgError", "callback", "raise_failure"]

Array = np.ndarray[Any, Any]
Function = Callable[..., None]
Norm = Literal["backward", "forward", "ortho"]
FUNCTIONS: dict[str, Function] = {}


class LinAlgError(LibraryError, NumpyLinAlgError):
    """A matrix that the algorithm cannot handle: singular, not positive definite, or one for
    which an iteration does not converge."""


# -- calls from programs --------------------------------------------------------------------------


class _Failure(threading.local):
    """The exception that stopped the program that runs in this thread."""

    error: BaseException | None = None


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)
_failure = _Failure()
_kept: list[Any] = []  # callbacks live as long as the process, as linked programs may


@functools.cache
def callback(call: HostCall) -> int:
    """The address of a function that makes this call."""
    extra = call.sizes
    types = [(np.dtype(name), rank) for name, rank in call.types]
    words = sum(1 + rank for _, rank in types) + extra
    record = ctypes.c_int64 * words

    def run(address: int) -> int:
        try:
            numbers = list(record.from_address(address))
            arrays, place = [], 0
            for dtype, rank in types:
                shape = numbers[place + 1 : place + 1 + rank]
                arrays.append(_array(numbers[place], dtype, shape))
                place += 1 + rank
            out = arrays.pop()
            run_call(call, out, arrays, numbers[place:])
        except BaseException as error:  # must not pass through machine code
            _failure.error = error
            return 0
        return 1  # an exception that strikes outside of `try` gives 0 too

    entry = _CALLBACK(run)
    _kept.append(entry)
    address = ctypes.cast(entry, ctypes.c_void_p).value
    assert address is not None
    return address


def run_call(call: HostCall, out: Array, inputs: Sequence[Array], sizes: Sequence[int]) -> None:
    """Make a call on arrays of this process."""
    for x in inputs:
        x.flags.writeable = False
    with np.errstate(all="ignore"):
        FUNCTIONS[call.routine](out, *inputs, *sizes, *call.params)


def _array(address: int, dtype: np.dtype[Any], shape: list[int]) -> Array:
    """Row-major memory as an array; one without elements has no memory."""
    size = math.prod(shape)
    if size == 0:
        return np.empty(shape, dtype)
    memory: Any = (ctypes.c_char * (size * dtype.itemsize)).from_address(address)
    return np.ndarray(shape, dtype, memory)


def raise_failure(op: str, location: Location | None) -> NoReturn:
    """Raise what a function of the host raised that stopped the last program of this thread."""
    error, _failure.error = _failure.error, None
    raise_as_failure(error, op, location)


def raise_as_failure(error: BaseException | None, op: str, location: Location | None) -> NoReturn:
    """Raise what a function of the host raised, as an error of an op; None is an interrupt.

    A numpy.linalg.LinAlgError becomes a LinAlgError, an exception that is no Exception (an
    interrupt) stays what it is, any other one becomes a LibraryError.
    """
    if error is None:
        raise LibraryError(
            "interrupted",
            op=op,
            location=location,
            hint="call it again",
        )
    if isinstance(error, DualgradError) or not isinstance(error, Exception):
        raise error
    singular = isinstance(error, NumpyLinAlgError)
    kind = LinAlgError if singular else LibraryError
    what = f"{error}" or type(error).__name__
    hint = "add a small multiple of the identity, or use lstsq" if singular else ""
    raise kind(what[0].lower() + what[1:], op=op, hint=hint, location=location) from error


# -- sorting --------------------------------------------------------------------------------------


def routine(function: Function) -> Function:
    """Enter a function into the table under its own name."""
    FUNCTIONS[function.__name__] = function
    return function


@routine
def argsort(out: Array, x: Array, axis: int, descending: int) -> None:
    """Positions in sorted order; equal elements stay in order, NaN comes last."""
    if not descending:
        out[...] = np.argsort(x, axis=axis, kind="stable")
        return
    # Sorted backwards, the last of equal elements comes first: turn the axis before and after.
    turned = np.flip(x, axis)
    order = np.flip(np.argsort(turned, axis=axis, kind="stable"), axis)
    np.subtract(x.shape[axis] - 1, order, out=out)
    if x.dtype.kind == "f":
        _nan_last(out, x, axis)


def _nan_last(order: Array, x: Array, axis: int) -> None:
    """Move positions of NaN from the front of a descending order to its end."""
    hit = np.isnan(x)
    if hit.any():
        ranks = np.take_along_axis(hit, order, axis)
        order[...] = np.take_along_axis(order, np.argsort(ranks, axis=axis, kind="stable"), axis)


@routine
def order_of_keys(out: Array, keys: Array) -> None:
    """The stable order of keys [..., n], uint64, fast if they are random.

    They are sorted with their positions in place of their low bits; where the high bits of two
    neighbours are equal, whole keys decide.
    """
    if keys.ndim > 1:
        for row, order in zip(keys, out, strict=True):
            order_of_keys(order, row)
        return
    low = np.uint64(max(len(keys) - 1, 0).bit_length())
    mask = (np.uint64(1) << low) - np.uint64(1)
    packed = (keys & ~mask) | np.arange(len(keys), dtype=np.uint64)
    packed.sort()
    high = packed >> low
    (ties,) = np.nonzero(high[1:] == high[:-1])
    if (np.diff(ties) == 1).any():  # more than two keys
        out[...] = np.argsort(keys, kind="stable")
        return
    out[...] = packed & mask
    first, second = out[ties], out[ties + 1]
    swap = keys[first] > keys[second]
    out[ties], out[ties + 1] = np.where(swap, second, first), np.where(swap, first, second)


# -- linear algebra -------------------------------------------------------------------------------


@routine
def solve(out: Array, a: Array, b: Array) -> None:
    """The matrices x [..., n, k] with a x = b for a [..., n, n]."""
    out[...] = np.linalg.solve(a, b)


@routine
def inv(out: Array, a: Array) -> None:
    out[...] = np.linalg.inv(a)


@routine
def det(out: Array, a: Array) -> None:
    out[...] = np.linalg.det(a)


@routine
def slogdet(out: Array, a: Array) -> None:
    """Sign and log |det| side by side."""
    out[..., 0], out[..., 1] = np.linalg.slogdet(a)


def _pack(out: Array, *parts: Array) -> None:
    """Arrays one after another along the last axis of `out`, whose other axes they share."""
    batch, place = out.ndim - 1, 0
    for x in parts:
        size = math.prod(x.shape[batch:])
        out[..., place : place + size] = x.reshape((*x.shape[:batch], size))
        place += size


@routine
def cholesky(out: Array, a: Array, upper: int) -> None:
    out[...] = np.linalg.cholesky(a, upper=bool(upper))


@routine
def qr(out: Array, a: Array, mode: Literal["reduced", "complete"]) -> None:
    """q, r in one row."""
    _pack(out, *np.linalg.qr(a, mode))


@routine
def eigh(out: Array, a: Array, triangle: Literal["L", "U"]) -> None:
    """Eigenvalues in ascending order, then eigenvectors as columns, in one row."""
    _pack(out, *np.linalg.eigh(a, triangle))


@routine
def eigvalsh(out: Array, a: Array, triangle: Literal["L", "U"]) -> None:
    out[...] = np.linalg.eigvalsh(a, triangle)


@routine
def svd(out: Array, a: Array, full: int) -> None:
    """u, singular values in descending order, v^T, in one row."""
    _pack(out, *np.linalg.svd(a, full_matrices=bool(full)))


@routine
def svdvals(out: Array, a: Array) -> None:
    out[...] = np.linalg.svd(a, compute_uv=False)


@routine
def pinv(out: Array, a: Array, atol: float, rtol: float, hermitian: int) -> None:
    """Moore-Penrose inverses: singular values above max(atol, rtol * largest) are inverted.

    rtol < 0 stands for max(m, n) * epsilon of the dtype.
    """
    if rtol < 0:
        rtol = max(a.shape[-2:]) * np.finfo(a.dtype).eps
    u, s, vt = np.linalg.svd(a, full_matrices=False, hermitian=bool(hermitian))
    limit = np.maximum(rtol * s.max(-1, keepdims=True, initial=0), atol)
    inverse = np.divide(1, s, where=s > limit, out=np.zeros_like(s))
    np.matmul(np.swapaxes(vt, -1, -2), inverse[..., None] * np.swapaxes(u, -1, -2), out=out)


@routine
def lstsq(out: Array, a: Array, b: Array, rcond: float) -> None:
    """For each matrix: solution, rank, singular values, in one row.  rcond as rtol of `pinv`."""
    for at in np.ndindex(out.shape[:-1]):
        x, _, rank, s = np.linalg.lstsq(a[at], b[at], None if rcond < 0 else rcond)
        _pack(out[at], x, np.asarray([rank], out.dtype), s)


# -- Fourier transforms ---------------------------------------------------------------------------


def _as_complex(x: Array) -> Array:
    """Pairs [..., 2] as complex numbers [...], sharing memory."""
    return x.view(np.result_type(x.dtype, np.complex64))[..., 0]


def _resized(x: Array, size: int, axis: int) -> Array:
    """x cut or padded with zeros to `size` along an axis."""
    n = x.shape[axis]
    if size <= n:
        return x[(slice(None),) * axis + (slice(size),)]
    return np.pad(x, [(0, size - n if k == axis else 0) for k in range(x.ndim)])


def _inner_scaled(x: Array, factor: float, n: int, axis: int) -> Array:
    """A half spectrum of n values with the elements scaled that stand for two."""
    x = x.copy()
    x[(slice(None),) * axis + (slice(1, (n + 1) // 2),)] *= factor
    return x


@routine
def fft(out: Array, x: Array, size: int, axis: int, inverse: int, norm: Norm, after: int) -> None:
    """Of pairs, cut or padded to `size` before or after; see `compiler.ops.fft.Fft`."""
    transform = np.fft.ifft if inverse else np.fft.fft
    y = transform(_as_complex(x), None if after else size, axis, norm)
    _as_complex(out)[...] = _resized(y, size, axis)


@routine
def rfft(out: Array, x: Array, n: int, size: int, axis: int, norm: Norm, doubled: int) -> None:
    y = np.fft.rfft(x, n, axis, norm)
    y = _inner_scaled(y, 2, n, axis) if doubled else y
    _as_complex(out)[...] = _resized(y, size, axis)


@routine
def irfft(out: Array, x: Array, n: int, size: int, axis: int, norm: Norm, halved: int) -> None:
    y = _resized(_as_complex(x), n // 2 + 1, axis)
    y = _inner_scaled(y, 0.5, n, axis) if halved else y
    out[...] = _resized(np.fft.irfft(y, n, axis, norm), size, axis)
