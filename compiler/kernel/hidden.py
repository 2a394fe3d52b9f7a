"""Columns of a product that a mask hides: their sums are selected in no row, so nothing depends on
them, whatever they are.
"""

from __future__ import annotations

from dualgrad.compiler.ir.dims import Dim, coefficient
from dualgrad.compiler.kernel.ir import Contract
from dualgrad.compiler.kernel.scalar import Scalar, children_first
from dualgrad.runtime.dtype import int64


def visible_columns(c: Contract, row: Dim) -> Dim | None:
    """How many columns from the first on depend on their sums, in a row and those before it (it
    may be negative, or more than there are); None if that is not known."""
    place = c.c.place(c.batch_var, c.row_var, c.col_var)
    if not any(s.buffer == c.c.buffer and s.index == place for s in c.epilogue):
        return None  # sums are stored as they are
    found: Dim | None = None
    for store in c.epilogue:
        if not _depends(store.value, c):
            continue
        seen = _visible(store.value, c, row)
        if seen is None or found not in (None, seen):
            return None
        found = seen
    return found


def _depends(value: Scalar, c: Contract) -> bool:
    """Whether a value is computed from the sums."""
    return any(
        x is c.result or (x.op in ("load", "gather") and x.memory[0] == c.c.buffer)
        for x in children_first((value,))
    )


def _visible(value: Scalar, c: Contract, row: Dim) -> Dim | None:
    if value.op != "select":
        return None
    condition, yes, no = value.args
    if _depends(condition, c) or _depends(no, c):
        return None
    seen = _chosen(condition, c, row)
    return _visible(yes, c, row) if seen is None else seen


def _chosen(condition: Scalar, c: Contract, row: Dim) -> Dim | None:
    """From which column on a condition does not hold, in a row and those before it."""
    if condition.op == "and":
        found = (_chosen(x, c, row) for x in condition.args)
        return next((x for x in found if x is not None), None)
    if condition.op not in ("lt", "le", "gt", "ge"):
        return None
    low, high = map(_position, condition.args)
    if low is None or high is None:
        return None
    if condition.op in ("gt", "ge"):
        low, high = high, low
    room = high - low - (condition.op in ("lt", "gt"))  # not negative where it holds
    along = coefficient(room, c.col_var)
    if along is None or along[0] != -1:
        return None
    down, batch = coefficient(along[1], c.row_var), coefficient(along[1], c.batch_var)
    if down is None or batch is None or batch[0] != 0:
        return None
    return down[0] * row + down[1] + 1 if isinstance(down[0], int) and down[0] >= 0 else None


def _position(x: Scalar) -> Dim | None:
    """The integer that a scalar is, in terms of the places of an element."""
    if x.op == "index":
        return x.position
    if x.op in ("add", "sub") and x.dtype is int64:
        left, right = map(_position, x.args)
        if left is None or right is None:
            return None
        return left + right if x.op == "add" else left - right
    return x.attr if x.op == "const" and isinstance(x.attr, int) else None
