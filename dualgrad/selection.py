"""Functions whose results have sizes that depend on values: positions of what holds, sets.

They read the values of a tensor, so in a function under `@function` they make it run eagerly.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, overload

import numpy as np

from dualgrad.compiler.ir.value import public
from dualgrad.compiler.ops.axes import broadcast_shape
from dualgrad.compiler.ops.base import axis_argument, normalize_axis
from dualgrad.compiler.ops.gather import take
from dualgrad.compiler.ops.transfer import transfer
from dualgrad.compiler.ops.view import expand
from dualgrad.runtime.dtype import bool_
from dualgrad.runtime.errors import DTypeError
from dualgrad.runtime.floats import decode, encode
from dualgrad.tensor import Tensor

Array = np.ndarray[Any, Any]


def _new(array: Array, source: Tensor) -> Tensor:
    """A tensor of an array, where `source` is."""
    out: Tensor = transfer(Tensor.of_numpy(np.asarray(array, order="C")), source.device)
    return out


@overload
def nonzero(x: Tensor, as_tuple: Literal[False] = False) -> Tensor: ...
@overload
def nonzero(x: Tensor, as_tuple: Literal[True]) -> tuple[Tensor, ...]: ...
@public("nonzero")
def nonzero(x: Tensor, as_tuple: bool = False) -> Any:
    """Return the positions of the elements that are not zero, in row-major order: int64
    [count, ndim], or with `as_tuple` one tensor [count] per dimension, as NumPy does."""
    found = np.nonzero(np.atleast_1d(decode(x.on_host("nonzero()"), x.dtype)))
    if as_tuple:
        return tuple(_new(p, x) for p in found)
    none = np.zeros((len(found[0]), 0), np.int64)
    return _new(np.stack(found[: x.ndim], 1) if x.ndim else none, x)


@public("argwhere")
def argwhere(x: Tensor) -> Tensor:
    """Return the positions of the elements that are not zero as int64 [count, ndim]."""
    return nonzero(x)


def flatnonzero(x: Tensor) -> Tensor:
    """Return the positions in flat x of the elements that are not zero, int64 [count]."""
    out: Tensor = nonzero(x.reshape((x.size,)))[:, 0]
    return out


@public("masked_select")
def masked_select(x: Tensor, mask: Tensor) -> Tensor:
    """Return the elements of x where `mask` (bool) holds, in row-major order, as [count].

    Both broadcast.  The gradient goes back to the elements that were selected.
    """
    if mask.dtype is not bool_:
        raise DTypeError(
            "a mask is bool",
            op="masked_select",
            expect="bool",
            actual=mask.dtype.name,
            hint="compare: mask != 0",
        )
    shape = broadcast_shape(x.shape, mask.shape)
    places = np.flatnonzero(expand(mask, shape).on_host("masked_select()"))
    out: Tensor = take(expand(x, shape), _new(places, x))
    return out


# -- sets -----------------------------------------------------------------------------------------


class UniqueAll(NamedTuple):
    """The array API's result of `unique_all`."""

    values: Tensor
    indices: Tensor
    inverse_indices: Tensor
    counts: Tensor


class UniqueCounts(NamedTuple):
    """The array API's result of `unique_counts`."""

    values: Tensor
    counts: Tensor


class UniqueInverse(NamedTuple):
    """The array API's result of `unique_inverse`."""

    values: Tensor
    inverse_indices: Tensor


def unique_all(x: Tensor) -> UniqueAll:
    """Return the sorted distinct elements of x, the first position of each in flat x, the number
    of each element's value (of x's shape), and how often each occurs.  NaNs are distinct."""
    values, first, inverse, counts = _unique(x, None)
    inverse = inverse.reshape(x.shape)
    return UniqueAll(values, _new(first, x), _new(inverse, x), _new(counts, x))


def unique_counts(x: Tensor) -> UniqueCounts:
    """Return the sorted distinct elements of x and how often each occurs."""
    values, _, _, counts = _unique(x, None)
    return UniqueCounts(values, _new(counts, x))


def unique_inverse(x: Tensor) -> UniqueInverse:
    """Return the sorted distinct elements of x, and the number of each element's value."""
    values, _, inverse, _ = _unique(x, None)
    return UniqueInverse(values, _new(inverse.reshape(x.shape), x))


def unique_values(x: Tensor) -> Tensor:
    """Return the sorted distinct elements of x."""
    return _unique(x, None)[0]


def _unique(x: Tensor, axis: int | None) -> tuple[Tensor, Array, Array, Array]:
    array = decode(x.on_host("unique()"), x.dtype)
    values, first, inverse, counts = np.unique(array, True, True, True, axis=axis, equal_nan=False)
    stored = np.asarray(encode(values, x.dtype), order="C")
    found: Tensor = transfer(Tensor.of_numpy(stored, x.dtype), x.device)
    return found, first, inverse, counts


@public("unique")
def unique(
    x: Tensor,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
    axis: Any = None,
    **dim: Any,
) -> Any:
    """Return the distinct elements of x in ascending order, or the distinct slices along `axis`.

    Optionally followed by the int64 number of each element's value (of x's shape, or [n] along
    an axis) and by how often each occurs.  They are sorted whether `sorted` asks for it or not;
    NaNs are distinct.  No gradient.
    """
    chosen = axis_argument("unique", axis, dim)
    place = None if chosen is None else normalize_axis("unique", chosen, x.ndim)
    values, _, inverse, counts = _unique(x, place)
    inverse = inverse.reshape(x.shape if place is None else (x.shape[place],))
    extra = [
        _new(a, x) for a, wanted in ((inverse, return_inverse), (counts, return_counts)) if wanted
    ]
    return (values, *extra) if extra else values
