"""Tensors and numbers as facts of a call: what of them is structure, and what may vary."""

from __future__ import annotations

from typing import Any

from dualgrad.jit.places import SIZE, STRIDE
from dualgrad.tensor import Tensor

ShapeFacts = tuple[tuple[Any, ...], tuple[tuple[str, int], ...], tuple[int, ...]]
_shapes: dict[Any, ShapeFacts] = {}


def shape_facts(x: Tensor) -> ShapeFacts:
    """(structure, places, sizes): sizes and strides of 0 and 1 are structure, others facts."""
    known = _shapes.get(x.sig)
    if known is not None:
        return known
    type_, steps = x.type, x.layout
    shape: tuple[int, ...] = x.shape
    structure: list[Any] = [type_.dtype, type_.weak, type_.device, len(type_.shape)]
    structure += [n if n < 2 else -1 for n in shape]
    structure += [None] if steps is None else [n if n < 2 else -1 for n in steps]
    places = [(SIZE, d) for d, n in enumerate(shape) if n >= 2]
    places += [(STRIDE, d) for d, n in enumerate(steps or ()) if n >= 2]
    sizes = [n for n in (*shape, *(steps or ())) if n >= 2]
    known = _shapes[x.sig] = (tuple(structure), tuple(places), tuple(sizes))
    return known


def forget() -> None:
    """Let go of what is known about the forms of tensors."""
    _shapes.clear()


def fact_key(x: int | float) -> Any:
    """Equal for facts that mean the same."""
    return x.hex() if isinstance(x, float) else x
