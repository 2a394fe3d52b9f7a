"""C types and constants for the dtypes."""

from __future__ import annotations

import math
import struct

import numpy as np

from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.runtime.dtype import DType
from dualgrad.runtime.floats import encode

_INTEGERS = {8: "char", 16: "short", 32: "int", 64: "long long"}
_SUFFIX = {32: "", 64: "ll"}


def register_type(dtype: DType) -> str:
    """The C type of one value in a register; 16-bit floats are held as their bits."""
    if dtype.kind == "b":
        return "bool"
    if dtype.is_low:
        return "unsigned short"
    if dtype.is_float:
        return "float" if dtype.bits == 32 else "double"
    name = _INTEGERS[dtype.bits]
    if dtype.is_signed:
        return "signed char" if dtype.bits == 8 else name
    return f"unsigned {name}"


def memory_type(dtype: DType) -> str:
    """The C type of one value in memory: bools take a byte."""
    return "unsigned char" if dtype.kind == "b" else register_type(dtype)


def unsigned_type(dtype: DType) -> str:
    """The type in which integers of this dtype are computed: it wraps, and nothing promotes it."""
    return "unsigned long long" if dtype.bits == 64 else "unsigned"


def literal(e: Scalar) -> str:
    """A constant, as a C expression that has its exact value."""
    dtype, value = e.dtype, e.attr
    if dtype.kind == "b":
        return "true" if value else "false"
    if dtype.is_float:
        return _float_literal(float(value), dtype)  # type: ignore[arg-type]
    number = int(value)  # type: ignore[arg-type]
    if dtype.bits < 32:
        return f"({register_type(dtype)}){number}"
    suffix = ("" if dtype.is_signed else "u") + _SUFFIX[dtype.bits]
    if number == -(2 ** (dtype.bits - 1)):  # C has no such literal
        return f"({number + 1}{suffix} - 1)"
    return f"{number}{suffix}" if number >= 0 else f"({number}{suffix})"


def _float_literal(number: float, dtype: DType) -> str:
    if dtype.is_low:
        return f"(unsigned short){int(encode(number, dtype).view(np.uint16))}"
    if dtype.bits == 32:
        with np.errstate(over="ignore"):
            (bits,) = struct.unpack("I", np.float32(number).tobytes())
        (number,) = struct.unpack("f", struct.pack("I", bits))
        if not math.isfinite(number):
            return f"__int_as_float(0x{bits:08x})"
        return _signed(f"{hexadecimal(number)}f")
    if not math.isfinite(number):
        (bits,) = struct.unpack("Q", struct.pack("d", number))
        return f"__longlong_as_double(0x{bits:016x}ll)"
    return _signed(hexadecimal(number))


def hexadecimal(number: float) -> str:
    """A finite number in C, without trailing zeros."""
    digits, _, exponent = number.hex().partition("p")
    return f"{digits.rstrip('0').removesuffix('.') if '.' in digits else digits}p{exponent}"


def _signed(text: str) -> str:
    return f"({text})" if text.startswith("-") else text
