"""Arguments that many functions take alike: optional tensors, reductions, equal shapes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dualgrad.compiler.ir.dims import Dim, same
from dualgrad.compiler.ir.value import Value, dim_text
from dualgrad.compiler.ops.elementwise import to
from dualgrad.compiler.ops.operands import check_tensors
from dualgrad.runtime.dtype import DEFAULT_FLOAT, DType
from dualgrad.runtime.errors import ArgumentError, DTypeError, ShapeError

REDUCTIONS = ("mean", "sum", "none")
Given = tuple[bool, ...]


def given(*optional: Any) -> tuple[tuple[Any, ...], Given]:
    """The operands that are not None, as a composite takes them, and which ones they are."""
    return tuple(x for x in optional if x is not None), tuple(x is not None for x in optional)


def restored(operands: tuple[Any, ...], which: Given) -> tuple[Any, ...]:
    """What `given` was called with, in the body of the composite."""
    rest = iter(operands)
    return tuple(next(rest) if g else None for g in which)


def as_float(x: Any) -> Any:
    """x, or x as the default float where it holds integers or bools."""
    return x if x.dtype.is_float else to(x, DEFAULT_FLOAT)


def equal(a: Iterable[Dim], b: Iterable[Dim]) -> bool:
    """Whether two shapes are the same."""
    a, b = tuple(a), tuple(b)
    return len(a) == len(b) and all(map(same, a, b))


def check_shape(op: str, what: str, x: Any, shape: tuple[Dim, ...]) -> None:
    """Raise ShapeError unless x is None or has this shape."""
    if x is None:
        return
    if not isinstance(x, Value):  # in line, as each layer with a bias comes here
        check_tensors(op, x)
    if not equal(x.shape, shape):
        raise ShapeError(
            f"{what} has another shape than it should",
            op=op,
            expect=f"{what} {dim_text(shape)}",
            actual=f"{what} {dim_text(x.shape)}",
            hint=f"reshape {what} to {dim_text(shape)}",
        )


def check_equal_shapes(op: str, input: Any, target: Any) -> None:
    """Raise ShapeError unless both have the same shape: losses do not broadcast."""
    check_tensors(op, input, target)
    if not equal(input.shape, target.shape):
        raise ShapeError(
            "input and target have different shapes",
            op=op,
            expect=f"target {dim_text(input.shape)}",
            actual=f"target {dim_text(target.shape)}",
            hint="reshape one of them; a target (n,) for an input (n, 1) needs unsqueeze(1)",
        )


def check_float(op: str, what: str, x: Any) -> None:
    """Raise DTypeError unless x holds floats."""
    check_tensors(op, x)
    if not x.dtype.is_float:
        raise DTypeError(
            f"{what} holds no floats",
            op=op,
            expect="a float dtype",
            actual=x.dtype.name,
            hint="convert it with .astype(dg.float32)",
        )


def refuse_bools(op: str, dtype: DType) -> None:
    """Raise DTypeError for bool."""
    if dtype.kind == "b":
        raise DTypeError(
            "does not take bools",
            op=op,
            expect="numbers",
            actual="bool",
            hint="convert with .astype(dg.int64)",
        )


def check_choice(op: str, what: str, value: Any, choices: tuple[str, ...]) -> None:
    """Raise ArgumentError unless the value is one of the choices."""
    if value not in choices:
        raise ArgumentError(
            f"no such {what}",
            op=op,
            expect=" or ".join(map(repr, choices)),
            actual=repr(value),
            hint="use one of these names",
        )


def check_reduction(op: str, reduction: Any) -> None:
    """Raise ArgumentError unless the reduction is "mean", "sum" or "none"."""
    check_choice(op, "reduction", reduction, REDUCTIONS)


def reduced(losses: Any, reduction: str) -> Any:
    """The mean or sum of the losses, or the losses themselves."""
    if reduction == "none":
        return losses
    return losses.mean() if reduction == "mean" else losses.sum()
