"""x[key] and x[key] = value on tensors, by NumPy's rules.

Basic keys (ints, slices, None, Ellipsis) give views that share memory, others copies.  Lists and
arrays count as tensors, a bool mask as the positions of its true elements.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from types import EllipsisType, NoneType
from typing import TYPE_CHECKING, Any

import numpy as np

from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import Value, apply
from dualgrad.compiler.ops.indexing import (
    ASSIGN_WHERE,
    ASSIGN_WHOLE,
    Item,
    Subscript,
    assignment,
    look_up,
    rows,
    subscript,
)
from dualgrad.compiler.ops.transfer import transfer
from dualgrad.dispatch import seen
from dualgrad.gradients.history import NOTHING
from dualgrad.gradients.tape import record_eagerly
from dualgrad.runtime.dtype import bool_
from dualgrad.runtime.errors import OperandError
from dualgrad.state import state

if TYPE_CHECKING:
    from dualgrad.tensor import Tensor

Array = np.ndarray[Any, Any]
BASIC = frozenset((int, slice, NoneType, EllipsisType))


class Indexable(Value):
    """The part of `Tensor` that reads and writes elements."""

    __slots__ = ()

    def __getitem__(self: Tensor, key: Any) -> Tensor:  # type: ignore[misc]
        """Return the elements at `key`, as NumPy does: a view for ints, slices, None and
        Ellipsis, a copy for integer or bool tensors, arrays and lists.

        Raises IndexOutOfBounds (an IndexError) for a position that does not exist.
        """
        view = shared(self, key)
        if view is not None:
            return view
        if isinstance(key, Value) and key.dtype.is_int and self.ndim:
            return rows(self, key)  # type: ignore[no-any-return]
        found = read_key(self, key)
        part = shared(self, found.basic)
        out: Tensor = look_up(self, found, part)
        return out

    def __setitem__(self: Tensor, key: Any, value: Any) -> None:  # type: ignore[misc]
        """Overwrite the elements at `key` with `value`, broadcast and converted.

        Of several values for one element the last stays.  Raises IndexOutOfBounds for a position
        that does not exist, ShapeError if the value does not broadcast.
        """
        if isinstance(value, list | tuple | np.ndarray | np.generic):
            value = new_tensor(self, value)
        recorded = state.grad_enabled and (
            self.requires_grad or getattr(value, "requires_grad", False)
        )
        part = None if recorded else shared(self, key)
        if part is not None:
            if not came_from(value, self, key):
                part._write(ASSIGN_WHOLE, value)
            return
        mask = only_mask(self, key)
        if mask is not None and getattr(value, "ndim", 0) <= self.ndim - mask.ndim:
            self._write(ASSIGN_WHERE, value, mask)
            return
        found = read_key(self, key)
        part = None if recorded else shared(self, found.basic)
        if not found.indices and came_from(value, self, None, found.view):
            return
        unit = assignment(found, self.shape, whole=part is not None)
        (self if part is None else part)._write(unit, value, *found.indices)

    def __iter__(self: Tensor) -> Iterator[Tensor]:  # type: ignore[misc]
        """The slices along the first axis, as views."""
        if not self.ndim:
            raise OperandError(
                "a tensor without dimensions has no rows",
                op="iter",
                expect="at least one dimension",
                actual=f"{self.type!r}",
                hint="call .item() for its number",
            )
        return (self[k].one_of_several() for k in range(len(self)))


def shared(x: Tensor, key: Any) -> Tensor | None:
    """x[key] as a view of the same memory; None if it is none, in a trace, or an error.

    NumPy makes it, but for those who look on: they see the unit that makes it as well.
    """
    kind = key.__class__
    if kind is tuple:
        for part in key:
            if part.__class__ not in BASIC:
                return None
        key = key if Ellipsis in key else (*key, ...)
    elif kind is int:
        key = (key, ...)
    elif kind not in BASIC:
        return None
    array = x.array
    if array is None or state.trace is not None:
        return None
    try:
        array = array[key]
    except (IndexError, ValueError, TypeError):
        return None
    layout = None
    if not array.flags.c_contiguous:
        size = array.itemsize
        layout = tuple([s // size for s in array.strides])
        if min(layout) < 0:
            return None
    if seen:
        found: Tensor = apply(read_key(x, key).view, x)[0]
        if found is not x and found.layout == layout:
            return found
    type = x.type
    out = x.view_over(
        array, TensorType(array.shape, type.dtype, False, type.device), layout, Key(key)
    )
    if x.requires_grad and state.grad_enabled:
        record_eagerly(read_key(x, key).view, (x,), (out,), NOTHING)
    return out


class Key:
    """The view that a basic key shows, worked out when it is asked for."""

    __slots__ = ("key",)

    def __init__(self, key: Any) -> None:
        self.key = key

    def __call__(self, source: Tensor) -> Item:
        return read_key(source, self.key).view


def came_from(value: Any, x: Tensor, key: Any, view: Item | None = None) -> bool:
    """Whether a value is x[key], or this view of x: `x[key] += y` has changed it already."""
    origin = getattr(value, "origin", None)
    if origin is None or origin[0] is not x:
        return False
    how = origin[1]
    if view is None:
        if how.__class__ is Key and how.key == key:
            return True
        view = read_key(x, key).view
    return (how(x) if how.__class__ is Key else how) is view


def read_key(x: Tensor, key: Any) -> Subscript:
    """What a key means for x."""
    parts = key if isinstance(key, tuple) else (key,)

    def positions(mask: Any) -> tuple[Tensor, ...]:
        array = np.asarray(mask) if isinstance(mask, bool) else mask.on_host("a bool mask")
        found = np.nonzero(np.atleast_1d(array))
        return tuple(transfer(type(x).of_numpy(p), x.device) for p in found)

    return subscript(x.shape, tuple(part_of(x, p) for p in parts), positions)


def part_of(x: Tensor, part: Any) -> Any:
    """A part of a key as an int, bool, slice, None, Ellipsis or tensor."""
    if part.__class__ in BASIC or isinstance(part, Value | bool):
        return part
    if isinstance(part, np.bool_):
        return bool(part)
    if isinstance(part, list | np.ndarray):
        array = np.asarray(part)
        empty = isinstance(part, list) and not array.size
        return new_tensor(x, array.astype(np.int64) if empty else part)
    return operator.index(part) if hasattr(part, "__index__") else part


def new_tensor(x: Tensor, data: Any) -> Tensor:
    """A new tensor of numbers that stand in a key or are assigned."""
    out = type(x).of_numpy(np.array(data))
    if state.trace is not None:
        foreign = isinstance(data, np.ndarray | np.generic)
        state.trace.note_created(out, "indexing with an array" if foreign else "")
    moved: Tensor = transfer(out, x.device)
    return moved


def only_mask(x: Tensor, key: Any) -> Any:
    """The key, if it is one bool mask of leading axes of x."""
    if isinstance(key, tuple) and len(key) == 1:
        (key,) = key
    if isinstance(key, list | np.ndarray):
        key = part_of(x, key)
    fits = isinstance(key, Value) and key.dtype is bool_ and 0 < key.ndim <= x.ndim
    return key if fits and key.shape == x.shape[: key.ndim] else None
