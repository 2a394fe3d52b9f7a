"""What a message suggests when shapes do not fit: the change that would make them fit, if any."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

from dualgrad.compiler.ir.dims import Dim, product
from dualgrad.compiler.ir.value import dim_text

Shape = tuple[Dim, ...]


def _fits(a: Shape, b: Shape) -> bool:
    pairs = zip_longest(reversed(a), reversed(b), fillvalue=1)
    return all(n == m or 1 in (n, m) for n, m in pairs)


def broadcast_hint(shapes: list[Shape]) -> str:
    """For shapes that do not broadcast."""
    shorter, longer = min(shapes, key=len), max(shapes, key=len)
    grown = (*shorter, *(1,) * (len(longer) - len(shorter)))
    if len(shapes) == 2 and len(shorter) < len(longer) and _fits(grown, longer):
        return f"give {dim_text(shorter)} sizes of 1: .reshape{dim_text(grown)} broadcasts"
    return "transpose or reshape one operand, or take a part of it"


def product_hint(a: Any, b: Any) -> str:
    """For the operands of a matrix product whose inner dimensions differ."""
    if b.ndim > 1 and a.shape[-1] == b.shape[-1]:
        return "transpose the second operand: a @ b.transpose(-2, -1)"
    if a.ndim > 1 and a.shape[-2] == b.shape[-2 if b.ndim > 1 else 0]:
        return "transpose the first operand: a.transpose(-2, -1) @ b"
    return "check the sizes of the layer that made the first operand"


def size_hint(size: Dim, wanted: Shape) -> str:
    """For a tensor of `size` elements that is to have the shape `wanted`."""
    if wanted.count(-1) > 1:
        return "write -1 for one size only, and the others out"
    if -1 in wanted:
        known = product(n for n in wanted if n != -1)
        if known == 0:
            return "write the size out: beside a size of 0 it cannot be worked out"
        return f"{size} elements are no multiple of {known}"
    return "write -1 for one size, to have it worked out"
