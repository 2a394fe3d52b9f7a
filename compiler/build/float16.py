"""Conversions of 16-bit floats as formulas, for targets without an instruction for them.

A number goes to float32 first, rounded to odd where that is not exact, and from there to 16 bits:
the result is as if it had been rounded once (S. Boldo and G. Melquiond, "Emulation of a FMA and
correctly rounded sums: proved algorithms using rounding to odd", IEEE Transactions on Computers
57, 2008).
"""

from __future__ import annotations

from dualgrad.compiler.build.builder import Builder
from dualgrad.compiler.kernel.scalar import Scalar, bitcast, cast, const
from dualgrad.runtime.dtype import (
    DType,
    bfloat16,
    float16,
    float32,
    float64,
    uint16,
    uint32,
    uint64,
)

_B = Builder()
_INFINITY = 0x7F80_0000  # bits of float32
_BEYOND_HALF = 0x4780_0000  # 2**16
_LEAST_NORMAL_HALF = 0x3880_0000  # 2**-14
_HALF_INFINITY, _HALF_NAN = 0x7C00, 0x7E00


def conversion(x: Scalar, dtype: DType, native: bool) -> Scalar | None:
    """`cast(x, dtype)` with simpler casts, where it has to do with 16-bit floats; else None.

    `native` says whether the target itself converts between float16 and float32.
    """
    source = x.dtype
    if not (source.is_low or dtype.is_low):
        return None
    if source.is_low and dtype is not float32:
        return cast(cast(x, float32), dtype)
    if source is bfloat16:
        return bitcast(cast(bitcast(x, uint16), uint32) << 16, float32)
    if not source.is_low and source is not float32:
        return cast(single(x), dtype)
    if dtype is bfloat16:
        return upper_half(x)
    if native:
        return None
    return to_half(x) if dtype is float16 else from_half(x)


def single(x: Scalar) -> Scalar:
    """x as float32, rounded to odd where it is not exact."""
    if x.dtype.kind == "b" or (x.dtype.is_int and x.dtype.bits <= 16):
        return cast(x, float32)
    if x.dtype.is_int:
        return single(cast(_odd_integer(x) if x.dtype.bits == 64 else x, float64))
    near = cast(x, float32)
    back, bits = cast(near, float64), bitcast(near, uint32)
    short = _B.abs(back) < _B.abs(x)
    long = _B.abs(back) > _B.abs(x)  # neither is so for NaN
    even = _B.eq(bits & 1, 0)
    moved = _B.select(short & even, bits + 1, _B.select(long & even, bits - 1, bits))
    return bitcast(moved, float32)


def _odd_integer(x: Scalar) -> Scalar:
    """A 64-bit integer rounded to odd where it has more than 53 bits."""
    down = (x >> 11) << 11
    odd = _B.select(_B.eq(down, x), x, down | 2048)
    bits = cast(x, uint64)
    small = (bits + (1 << 53)) < (1 << 54) if x.dtype.is_signed else bits < (1 << 53)
    return _B.select(small, x, odd)


def upper_half(x: Scalar) -> Scalar:
    """A float32 as bfloat16."""
    bits = bitcast(x, uint32)
    near = (bits + ((bits >> 16) & 1) + 0x7FFF) >> 16
    quiet = (bits >> 16) | 0x40
    return bitcast(cast(_B.select(_B.isnan(x), quiet, near), uint16), bfloat16)


def to_half(x: Scalar) -> Scalar:
    """A float32 as float16.

    Method: F. Giesen, "float->half variants" (2012): denormal results by a float32 addition that
    puts their last bit at the end of the sum, others by a carry in the bits.
    """
    bits = bitcast(x, uint32)
    size = bits & 0x7FFF_FFFF
    rebias = const(((15 - 127) << 23) + 0xFFF, uint32)
    normal = (size + ((size >> 13) & 1) + rebias) >> 13
    small = bitcast(bitcast(size, float32) + 0.5, uint32) - 0x3F00_0000
    special = _B.select(size > _INFINITY, const(_HALF_NAN, uint32), _HALF_INFINITY)
    finite = _B.select(size < _LEAST_NORMAL_HALF, small, normal)
    whole = _B.select(size >= _BEYOND_HALF, special, finite) | ((bits >> 16) & 0x8000)
    return bitcast(cast(whole, uint16), float16)


def from_half(x: Scalar) -> Scalar:
    """A float16 as float32: its bits moved, then the exponent's bias by a multiplication."""
    bits = cast(bitcast(x, uint16), uint32)
    size = (bits & 0x7FFF) << 13
    scaled = bitcast(bitcast(size, float32) * 2.0**112, uint32)
    special = _B.eq(bits & _HALF_INFINITY, _HALF_INFINITY)
    whole = _B.select(special, size | _INFINITY, scaled) | ((bits & 0x8000) << 16)
    return bitcast(whole, float32)
