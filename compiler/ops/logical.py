"""Comparisons, selection, and the logic of truth values, element by element."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import Operand, apply, public
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.elementwise import Elementwise
from dualgrad.compiler.ops.sample import SPECIAL, Arg, Sample, binary, samples_of
from dualgrad.runtime.dtype import DEFAULT_FLOAT, DType, bool_, int64
from dualgrad.runtime.errors import DTypeError

if TYPE_CHECKING:
    from dualgrad.compiler.build.mathlib import Math


class Where(Elementwise):
    """x where the condition holds, else y."""

    accepts = "biuf"
    raw = True

    def scalar(self, b: Math, c: Scalar, x: Scalar, y: Scalar) -> Scalar:
        return b.select(c, x, y)

    def operand_dtypes(self, types: list[TensorType]) -> list[DType]:
        if types[0].dtype is not bool_:
            raise DTypeError(
                "the condition is no bool tensor",
                op=self.name,
                expect="bool",
                actual=types[0].dtype.name,
                hint="compare first, for example where(x > 0, x, y)",
            )
        dtypes = super().operand_dtypes(types[1:])
        if dtypes[0].is_float and all(t.weak for t in types[1:]) and not types[0].weak:
            dtypes = [DEFAULT_FLOAT] * 2  # two Python numbers under a tensor make a tensor
        return [bool_, *dtypes]

    def vjp(self, g: Any, out: Any, c: Any, x: Any, y: Any) -> tuple[Any, ...]:
        return (None, where(c, g, 0.0), where(c, 0.0, g))

    @staticmethod
    def samples() -> list[Sample]:
        def reference(np: Any, c: Any, x: Any, y: Any) -> Any:
            return np.where(c, x, y)

        condition = Arg((3, 4), bool_, values=(1, 0, 0, 1, 1), differentiable=False)
        bad = Sample(
            where, (Arg((2,)), Arg((2,)), Arg((2,))), error=TypeError, match="no bool tensor"
        )
        special = Arg((10,), values=SPECIAL)
        return [
            Sample(where, (condition, Arg((3, 4)), Arg((4,))), reference),
            Sample(where, (condition, Arg((3, 4)), 0.0), reference),
            Sample(where, (condition, 1.5, 0.0), lambda np, c, x, y: np.where(c, x, y).astype("f")),
            Sample(
                where,
                (Arg((10,), bool_, values=(0, 1)), special, Arg((1,))),
                reference,
                gradient=False,
            ),
            bad,
        ]


class Compare(Elementwise, abstract=True):
    """A comparison: bool for each pair of elements, false where either is NaN (but `ne`)."""

    accepts = "biuf"
    result = bool_
    vjp = None

    def operand_dtypes(self, types: list[TensorType]) -> list[DType]:
        dtypes = super().operand_dtypes(types)
        numbers = any(t.weak and t.dtype.is_int for t in types)
        if numbers and dtypes[0].is_int and dtypes[0].bits < 64:
            # A Python number may lie outside of a narrow dtype: compare what it is, not what fits.
            return [int64] * len(types)
        return dtypes


class Eq(Compare):
    """x == y."""

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:
        return b.eq(x, y)

    @staticmethod
    def samples() -> list[Sample]:
        return compare_samples(eq, operator.eq)


class Ne(Compare):
    """x != y."""

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:
        return b.ne(x, y)

    @staticmethod
    def samples() -> list[Sample]:
        return compare_samples(ne, operator.ne)


class Lt(Compare):
    """x < y; false is less than true."""

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:
        return ~x & y if x.dtype is bool_ else x < y

    @staticmethod
    def samples() -> list[Sample]:
        return compare_samples(lt, operator.lt)


class Le(Compare):
    """x <= y; false is less than true."""

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:
        return ~x | y if x.dtype is bool_ else x <= y

    @staticmethod
    def samples() -> list[Sample]:
        return compare_samples(le, operator.le)


# Ops without parameters, made once: the functions below are on the path of every eager call.
_WHERE = Where.of()
_EQ = Eq.of()
_NE = Ne.of()
_LT = Lt.of()
_LE = Le.of()


def compare_samples(function: Callable[..., Any], reference: Any) -> list[Sample]:
    def on_arrays(np: Any, x: Any, y: Any) -> Any:
        return reference(np.asarray(x), np.asarray(y))

    equal = (Arg((6,), int64, values=(1, 2, 3)), Arg((6,), int64, values=(1, 3, 2)))
    return [
        *binary(function, on_arrays, gradient=False, few=function is not eq),
        Sample(function, equal, on_arrays, gradient=False),
    ]


def where(condition: Operand, x: Operand, y: Operand) -> Any:
    """Return x where `condition` (bool) holds, else y; all three broadcast."""
    return apply(_WHERE, condition, x, y)[0]


@public("eq", "equal")
def eq(x: Operand, y: Operand) -> Any:
    """Return x == y element by element, as bool."""
    return apply(_EQ, x, y)[0]


@public("ne", "not_equal")
def ne(x: Operand, y: Operand) -> Any:
    """Return x != y element by element, as bool."""
    return apply(_NE, x, y)[0]


@public("__lt__", "lt", "less")
def lt(x: Operand, y: Operand) -> Any:
    """Return x < y element by element, as bool."""
    return apply(_LT, x, y)[0]


@public("__le__", "le", "less_equal")
def le(x: Operand, y: Operand) -> Any:
    """Return x <= y element by element, as bool."""
    return apply(_LE, x, y)[0]


@public("__gt__", "gt", "greater")
def gt(x: Operand, y: Operand) -> Any:
    """Return x > y element by element, as bool."""
    return apply(_LT, y, x)[0]


@public("__ge__", "ge", "greater_equal")
def ge(x: Operand, y: Operand) -> Any:
    """Return x >= y element by element, as bool."""
    return apply(_LE, y, x)[0]


@composite
def _logical_and(x: Any, y: Any) -> Any:
    return x.ne(0) & y.ne(0)


@public("logical_and")
def logical_and(x: Operand, y: Operand) -> Any:
    """Return whether both x and y are true (not 0), as bool."""
    return _logical_and(x, y)


@composite
def _logical_or(x: Any, y: Any) -> Any:
    return x.ne(0) | y.ne(0)


@public("logical_or")
def logical_or(x: Operand, y: Operand) -> Any:
    """Return whether x or y is true (not 0), as bool."""
    return _logical_or(x, y)


@composite
def _logical_xor(x: Any, y: Any) -> Any:
    return x.ne(0) ^ y.ne(0)


@public("logical_xor")
def logical_xor(x: Operand, y: Operand) -> Any:
    """Return whether just one of x and y is true (not 0), as bool."""
    return _logical_xor(x, y)


@public("logical_not")
def logical_not(x: Operand) -> Any:
    """Return whether x is false (0), as bool."""
    return apply(_EQ, x, 0)[0]


equal = eq
not_equal = ne
less = lt
less_equal = le
greater = gt
greater_equal = ge


def _of_truth(function: Callable[..., Any]) -> Callable[[], list[Sample]]:
    name = function.__name__

    def reference(np: Any, *xs: Any) -> Any:
        return getattr(np, name)(*xs)

    def make() -> list[Sample]:
        flags = (Arg((4,), bool_, values=(0, 0, 1, 1)), Arg((4,), bool_, values=(0, 1)))
        mixed = (Arg((5,), int64, -1, 2), Arg((5,), values=(0.0, -0.0, 2.0, float("nan"), 0.5)))
        count = 1 if name == "logical_not" else 2
        return [Sample(function, a[:count], reference, gradient=False) for a in (flags, mixed)]

    return samples_of(function)(make)


for _function in (logical_and, logical_or, logical_xor, logical_not):
    _of_truth(_function)
