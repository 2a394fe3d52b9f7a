"""The functions whose arguments or results the standard fixes in another way than `dualgrad`.

Arguments before the slash are positional only; the others have the standard's names.
"""

from __future__ import annotations

from typing import Any

import dualgrad.compiler.ops.joining as joining
import dualgrad.compiler.ops.view as view
import dualgrad.creation as creation
import dualgrad.selection as selection
from dualgrad.compiler.ops.base import normalize_axis
from dualgrad.compiler.ops.convert import astype as converted
from dualgrad.runtime.errors import ArgumentError, ShapeError
from dualgrad.tensor import Tensor

Shape = int | tuple[int, ...]


def empty(shape: Shape, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Return a new tensor of a shape with values left undefined."""
    return creation.empty(shape, dtype=dtype, device=device)


def ones(shape: Shape, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Return a new tensor of ones."""
    return creation.ones(shape, dtype=dtype, device=device)


def zeros(shape: Shape, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Return a new tensor of zeros."""
    return creation.zeros(shape, dtype=dtype, device=device)


def astype(x: Tensor, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Tensor:
    """Return x in another dtype, and on a device if one is given: a new tensor, or with
    `copy=False` x itself where nothing changes."""
    there = x if device is None else x.to(device=device)
    out: Tensor = converted(there, dtype, copy=copy and there is x)
    return out


def broadcast_to(x: Tensor, /, shape: tuple[int, ...]) -> Tensor:
    """Return x repeated along new dimensions and those of size 1, sharing memory."""
    out: Tensor = view.expand(x, shape)
    return out


def expand_dims(x: Tensor, /, axis: int | tuple[int, ...] = 0) -> Tensor:
    """Return x with new dimensions of size 1 at these places of the result."""
    places = axis if isinstance(axis, tuple) else (axis,)
    ndim = x.ndim + len(places)
    found = sorted(normalize_axis("expand_dims", k, ndim) for k in places)
    if len(set(found)) < len(found):
        raise ArgumentError(
            "an axis is named twice",
            op="expand_dims",
            expect="different axes",
            actual=repr(axis),
            hint="axes count in the result: -1 and ndim - 1 are the same",
        )
    for place in found:
        x = view.unsqueeze(x, place)
    return x


def nonzero(x: Tensor, /) -> tuple[Tensor, ...]:
    """Return the positions of the elements that are not zero: one int64 [count] per dimension."""
    if not x.ndim:
        raise ShapeError(
            "a tensor without dimensions has no positions",
            op="nonzero",
            expect="at least one dimension",
            actual=f"{x.type!r}",
            hint="compare it: x != 0",
        )
    out: tuple[Tensor, ...] = selection.nonzero(x, as_tuple=True)
    return out


def permute_dims(x: Tensor, /, axes: tuple[int, ...]) -> Tensor:
    """Return x with its dimensions in another order, sharing memory."""
    out: Tensor = view.permute(x, axes)
    return out


def repeat(x: Tensor, repeats: int | Tensor, /, *, axis: int | None = None) -> Tensor:
    """Return x with each element along an axis, or of flat x, repeated so many times."""
    out: Tensor = joining.repeat_interleave(x, repeats, axis)
    return out


def reshape(x: Tensor, /, shape: tuple[int, ...], *, copy: bool | None = None) -> Tensor:
    """Return the elements of x in another shape; one size may be -1.

    copy: True for new memory, False for the memory of x (ShapeError where that cannot be).
    """
    out: Tensor = view.reshape(x, shape)
    if copy is False and out is not x and out.base is None:
        raise ShapeError(
            "a copy is needed",
            op="reshape",
            expect="a tensor whose memory can be seen in the new shape, or copy=None",
            actual=f"{x.type!r} to {out.shape}, not in row-major order",
            hint="leave copy out",
        )
    return out.clone() if copy else out


def roll(
    x: Tensor, /, shift: int | tuple[int, ...], *, axis: int | tuple[int, ...] | None = None
) -> Tensor:
    """Return x with its elements moved on by `shift` places along axes, or in flat x; what goes
    over the end comes in at the start."""
    out: Tensor = joining.roll(x, shift, axis)
    return out
