"""16-bit floats on the host: conversion of NumPy arrays to and from how a dtype is stored.

NumPy has float16 but not bfloat16, which lies in memory as uint16: the upper half of a float32.
All conversions round once, to nearest, ties to even.  Numbers that float32 does not have go there
by rounding to odd first: the last bit then tells on which side the number was, so the second
rounding is right (S. Boldo and G. Melquiond, IEEE Transactions on Computers 57, 2008).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dualgrad.runtime.dtype import DType, bfloat16

Array = np.ndarray[Any, Any]


def encode(values: Any, dtype: DType) -> Array:
    """Numbers as `dtype` stores them, each rounded once; of a NumPy dtype of kind b, i, u, f."""
    x = np.asarray(values)
    if not dtype.is_low:
        return x.astype(dtype.numpy)
    with np.errstate(over="ignore"):
        if dtype is not bfloat16:
            # an integer that float64 does not have is infinite here
            return (x if x.dtype.kind == "f" else x.astype(np.float64)).astype(np.float16)
        return upper_half(_single(x))


def decode(stored: Array, dtype: DType) -> Array:
    """The numbers behind stored values: float32 for bfloat16, else the array itself."""
    if dtype is not bfloat16:
        return stored
    return np.asarray(stored.astype(np.uint32) << 16, np.uint32).view(np.float32)


def rounded(value: float, dtype: DType) -> float:
    """A number as a 16-bit float has it."""
    return float(decode(encode(value, dtype), dtype))


def upper_half(x: Array) -> Array:
    """float32 numbers rounded to bfloat16, as uint16; a NaN stays one and becomes quiet."""
    bits = x.view(np.uint32)
    near = (bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16
    return np.asarray(np.where(np.isnan(x), (bits >> 16) | 0x40, near)).astype(np.uint16)


def _single(x: Array) -> Array:
    """Numbers as float32, rounded to odd where they are not exact."""
    if x.dtype.kind in "iu" and x.dtype.itemsize == 8:
        x = _odd_integers(x)
    if x.dtype.kind in "biu" or x.dtype == np.longdouble:
        x = x.astype(np.float64)
    if x.dtype != np.float64:
        return x.astype(np.float32)
    near = x.astype(np.float32)
    bits = near.view(np.uint32)
    back = near.astype(np.float64)
    move = (back != x) & ~np.isnan(x) & (bits & 1 == 0)
    step = np.where(np.abs(x) > np.abs(back), 1, -1).astype(np.uint32)
    return np.asarray(np.where(move, bits + step, bits)).view(np.float32)


def _odd_integers(x: Array) -> Array:
    """64-bit integers rounded to odd where they have more than 53 bits."""
    down = (x >> 11) << 11
    odd = np.where(down == x, x, down | 2048)
    return np.where((x < 2**53) & (x.dtype.kind == "u" or x > -(2**53)), x, odd)
