"""Comparisons, selection, and bitwise logic, element by element."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dualgrad.compiler.build.mathlib import Math
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import Operand, apply, public
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.compiler.ops.elementwise import (
    Elementwise,
)
from dualgrad.compiler.ops.sample import SPECIAL, Arg, Sample, binary
from dualgrad.runtime.dtype import (
    DType,
    bool_,
    int64,
)
from dualgrad.runtime.errors import DTypeError


@dataclass(frozen=True, eq=False)
class Where(Elementwise):
    """x where the condition holds, else y."""

    accepts = "biuf"
    raw = True

    def scalar(self, b: Math, c: Scalar, x: Scalar, y: Scalar) -> Scalar:  # type: ignore[override]
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
        return [bool_, *super().operand_dtypes(types[1:])]

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
            Sample(
                where,
                (Arg((10,), bool_, values=(0, 1)), special, Arg((1,))),
                reference,
                gradient=False,
            ),
            bad,
        ]


@dataclass(frozen=True, eq=False)
class Compare(Elementwise, abstract=True):
    """A comparison: bool for each pair of elements, false where either is NaN (but `ne`)."""

    result = bool_
    vjp = None

    def operand_dtypes(self, types: list[TensorType]) -> list[DType]:
        dtypes = super().operand_dtypes(types)
        numbers = any(t.weak and t.dtype.is_int for t in types)
        if numbers and dtypes[0].is_int and dtypes[0].bits < 64:
            # A Python number may lie outside of a narrow dtype: compare what it is, not what fits.
            return [int64] * len(types)
        return dtypes

    def infer(self, *types: TensorType) -> TensorType:
        return TensorType(types[-1].shape, bool_, False, types[-1].device)


@dataclass(frozen=True, eq=False)
class Eq(Compare):
    """x == y."""

    accepts = "biuf"

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:  # type: ignore[override]
        return b.eq(x, y)

    @staticmethod
    def samples() -> list[Sample]:
        return compare_samples(eq, operator.eq)


@dataclass(frozen=True, eq=False)
class Ne(Compare):
    """x != y."""

    accepts = "biuf"

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:  # type: ignore[override]
        return b.ne(x, y)

    @staticmethod
    def samples() -> list[Sample]:
        return compare_samples(ne, operator.ne)


@dataclass(frozen=True, eq=False)
class Lt(Compare):
    """x < y."""

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:  # type: ignore[override]
        return x < y

    @staticmethod
    def samples() -> list[Sample]:
        return compare_samples(lt, operator.lt)


@dataclass(frozen=True, eq=False)
class Le(Compare):
    """x <= y."""

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:  # type: ignore[override]
        return x <= y

    @staticmethod
    def samples() -> list[Sample]:
        return compare_samples(le, operator.le)


@dataclass(frozen=True, eq=False)
class Logical(Elementwise, abstract=True):
    """Bitwise on integers, logical on bools."""

    accepts = "biu"
    vjp = None


@dataclass(frozen=True, eq=False)
class BitAnd(Logical):
    """x & y."""

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:  # type: ignore[override]
        return x & y

    @staticmethod
    def samples() -> list[Sample]:
        return bit_samples(bit_and, operator.and_)


@dataclass(frozen=True, eq=False)
class BitOr(Logical):
    """x | y."""

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:  # type: ignore[override]
        return x | y

    @staticmethod
    def samples() -> list[Sample]:
        return bit_samples(bit_or, operator.or_)


@dataclass(frozen=True, eq=False)
class BitXor(Logical):
    """x ^ y."""

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:  # type: ignore[override]
        return x ^ y

    @staticmethod
    def samples() -> list[Sample]:
        return bit_samples(bit_xor, operator.xor)


@dataclass(frozen=True, eq=False)
class Invert(Logical):
    """~x: `not` on bools, all bits flipped on integers."""

    def scalar(self, b: Math, x: Scalar) -> Scalar:  # type: ignore[override]
        return ~x

    @staticmethod
    def samples() -> list[Sample]:
        arg = Arg((7,), int64, -9, 9)
        flags = Arg((7,), bool_, values=(1, 0, 0))
        return [Sample(invert, (a,), lambda np, x: ~x, gradient=False) for a in (arg, flags)]


# Ops without parameters, made once: the functions below are on the path of every eager call.
_WHERE = Where.of()
_EQ = Eq.of()
_NE = Ne.of()
_LT = Lt.of()
_LE = Le.of()
_BITAND = BitAnd.of()
_BITOR = BitOr.of()
_BITXOR = BitXor.of()
_INVERT = Invert.of()


def compare_samples(function: Callable[..., Any], reference: Any) -> list[Sample]:
    def on_arrays(np: Any, x: Any, y: Any) -> Any:
        return reference(np.asarray(x), np.asarray(y))

    equal = (Arg((6,), int64, values=(1, 2, 3)), Arg((6,), int64, values=(1, 3, 2)))
    return [
        *binary(function, on_arrays, gradient=False),
        Sample(function, equal, on_arrays, gradient=False),
    ]


def bit_samples(function: Callable[..., Any], reference: Any) -> list[Sample]:
    def on_arrays(np: Any, x: Any, y: Any) -> Any:
        return reference(x, y)

    flags = (Arg((4,), bool_, values=(0, 0, 1, 1)), Arg((4,), bool_, values=(0, 1)))
    numbers = (Arg((3, 5), int64, -99, 99), Arg((5,), int64, -99, 99))
    bad = Sample(function, (Arg((2,)), Arg((2,))), error=TypeError, match="does not take float32")
    good = [Sample(function, a, on_arrays, gradient=False) for a in (flags, numbers)]
    return [*good, bad]


def where(condition: Operand, x: Operand, y: Operand) -> Any:
    """Return x where `condition` (bool) holds, else y; all three broadcast."""
    return apply(_WHERE, condition, x, y)[0]


@public("eq")
def eq(x: Operand, y: Operand) -> Any:
    """Return x == y element by element, as bool."""
    return apply(_EQ, x, y)[0]


@public("ne")
def ne(x: Operand, y: Operand) -> Any:
    """Return x != y element by element, as bool."""
    return apply(_NE, x, y)[0]


@public("__lt__", "lt")
def lt(x: Operand, y: Operand) -> Any:
    """Return x < y element by element, as bool."""
    return apply(_LT, x, y)[0]


@public("__le__", "le")
def le(x: Operand, y: Operand) -> Any:
    """Return x <= y element by element, as bool."""
    return apply(_LE, x, y)[0]


@public("__gt__", "gt")
def gt(x: Operand, y: Operand) -> Any:
    """Return x > y element by element, as bool."""
    return apply(_LT, y, x)[0]


@public("__ge__", "ge")
def ge(x: Operand, y: Operand) -> Any:
    """Return x >= y element by element, as bool."""
    return apply(_LE, y, x)[0]


@public("__and__")
def bit_and(x: Operand, y: Operand) -> Any:
    """Return x & y: logical on bools, bitwise on integers."""
    return apply(_BITAND, x, y)[0]


@public("__or__")
def bit_or(x: Operand, y: Operand) -> Any:
    """Return x | y: logical on bools, bitwise on integers."""
    return apply(_BITOR, x, y)[0]


@public("__xor__")
def bit_xor(x: Operand, y: Operand) -> Any:
    """Return x ^ y: logical on bools, bitwise on integers."""
    return apply(_BITXOR, x, y)[0]


@public("__invert__")
def invert(x: Operand) -> Any:
    """Return ~x: logical on bools, bitwise on integers."""
    return apply(_INVERT, x)[0]
