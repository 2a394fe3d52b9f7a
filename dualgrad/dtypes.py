"""Questions about dtypes, with the names of the array API standard (2024.12)."""

from __future__ import annotations

from typing import Any

from dualgrad.compiler.ir.node import number_type
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ops.base import result_dtype
from dualgrad.runtime.dtype import DType, as_dtype, promote
from dualgrad.runtime.errors import ArgumentError, DTypeError
from dualgrad.runtime.records import dataclass
from dualgrad.tensor import Tensor

_KINDS = {
    "bool": "b",
    "signed integer": "i",
    "unsigned integer": "u",
    "integral": "iu",
    "real floating": "f",
    "complex floating": "c",
    "numeric": "iufc",
}
_DIGITS = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}  # bits of a significand
_LEAST = {"float16": -14, "bfloat16": -126, "float32": -126, "float64": -1022}


@dataclass(frozen=True)
class FloatInfo:
    """Limits of a float dtype: `eps` is the distance from 1 to the next number,
    `smallest_normal` (also `tiny`) the smallest positive number of full precision."""

    dtype: DType
    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float

    @property
    def tiny(self) -> float:
        return self.smallest_normal


@dataclass(frozen=True)
class IntegerInfo:
    """Limits of an integer dtype."""

    dtype: DType
    bits: int
    max: int
    min: int


def finfo(type: Any) -> FloatInfo:
    """The limits of a float dtype, given as a dtype or a tensor.  DTypeError for others."""
    dtype = _dtype_of(type)
    if not dtype.is_float:
        raise DTypeError(
            "no float",
            op="finfo",
            expect="a float dtype",
            actual=dtype.name,
            hint="dg.iinfo knows the integer dtypes",
        )
    digits, least = _DIGITS[dtype.name], _LEAST[dtype.name]
    largest = (2.0 - 2.0 ** (1 - digits)) * 2.0 ** (1 - least)
    return FloatInfo(dtype, dtype.bits, 2.0 ** (1 - digits), largest, -largest, 2.0**least)


def iinfo(type: Any) -> IntegerInfo:
    """The limits of an integer dtype, given as a dtype or a tensor.  DTypeError for others."""
    dtype = _dtype_of(type)
    if not dtype.is_int:
        raise DTypeError(
            "no integer",
            op="iinfo",
            expect="an integer dtype",
            actual=dtype.name,
            hint="dg.finfo knows the float dtypes",
        )
    values = dtype.bits - dtype.is_signed
    return IntegerInfo(dtype, dtype.bits, 2**values - 1, -(2**values) if dtype.is_signed else 0)


def promote_types(type1: Any, type2: Any) -> DType:
    """The dtype that an op on operands of these two computes in; DTypeError if there is none."""
    return promote(as_dtype(type1), as_dtype(type2))


def result_type(*arrays_and_dtypes: Any) -> DType:
    """The dtype of an op on these tensors, dtypes and Python numbers (which are weak).

    Raises DTypeError if there is none, ArgumentError without arguments.
    """
    if not arrays_and_dtypes:
        raise ArgumentError(
            "nothing to promote",
            op="result_type",
            expect="one argument or more",
            hint="pass tensors, dtypes or numbers",
        )
    types = [
        number_type(x.__class__)
        if isinstance(x, bool | int | float)
        else TensorType((), _dtype_of(x))
        for x in arrays_and_dtypes
    ]
    if all(t.weak for t in types):
        types = [TensorType((), as_dtype(x.__class__)) for x in arrays_and_dtypes]
    return result_dtype("result_type", types)


def can_cast(from_: Any, to: Any) -> bool:
    """Whether promotion of a dtype (or a tensor's) with `to` gives `to`."""
    source, target = _dtype_of(from_), as_dtype(to)
    try:
        return promote(source, target) is target
    except DTypeError:
        return False


def isdtype(dtype: Any, kind: Any) -> bool:
    """Whether a dtype is of a kind: a dtype itself, "bool", "signed integer", "unsigned integer",
    "integral", "real floating", "complex floating", "numeric", or one of a tuple of these."""
    found = as_dtype(dtype)
    if isinstance(kind, tuple):
        return any(isdtype(found, k) for k in kind)
    if isinstance(kind, str) and kind in _KINDS:
        return found.kind in _KINDS[kind]
    if isinstance(kind, str):
        raise ArgumentError(
            "no kind of dtype",
            op="isdtype",
            expect=", ".join(_KINDS),
            actual=repr(kind),
            hint="give one of these names, a dtype, or a tuple of them",
        )
    return found is as_dtype(kind)


def _dtype_of(x: Any) -> DType:
    return x.dtype if isinstance(x, Tensor) else as_dtype(x)
