"""Scalar expressions evaluated on NumPy arrays, bit for bit as `kernel/scalar.py` says.

`evaluate` gives an expression its value for many elements at once; leaves (loads, registers,
parameters, indices) and gathers come from a function of the caller.  What the language forbids
(division by zero, a shift count out of range) is a CompileError here, so that tests meet it.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np

from dualgrad.compiler.kernel.scalar import Formula, Scalar, children_first
from dualgrad.runtime.dtype import DType
from dualgrad.runtime.errors import CompileError
from dualgrad.runtime.floats import decode, encode

Array = np.ndarray[Any, np.dtype[Any]]
Leaf = Callable[..., Array]  # of a scalar and the values of its operands

LEAVES = ("load", "gather", "reg", "param", "index")


def evaluate(roots: tuple[Scalar, ...], leaf: Leaf, known: dict[Scalar, Array]) -> list[Array]:
    """The values of `roots`; `known` holds values that are there already and receives all others.

    Values broadcast against each other.  Raises CompileError where an operand is forbidden.
    """
    with np.errstate(all="ignore"):
        for e in ordered(roots, frozenset(known)):
            if e.op in LEAVES:
                known[e] = leaf(e, *(known[a] for a in e.args))
            else:
                known[e] = _apply(e, known)
    return [known[r] for r in roots]


def ordered(roots: tuple[Scalar, ...], known: frozenset[Scalar]) -> tuple[Scalar, ...]:
    """The expressions to evaluate for `roots`, operands first, where `known` ones need no more."""
    return _ordered(roots, known) if known else _all_ordered(roots)


@lru_cache(maxsize=4096)
def _all_ordered(roots: tuple[Scalar, ...]) -> tuple[Scalar, ...]:
    return tuple(children_first(roots))


@lru_cache(maxsize=4096)
def _ordered(roots: tuple[Scalar, ...], known: frozenset[Scalar]) -> tuple[Scalar, ...]:
    needed: set[Scalar] = set()
    stack = [r for r in roots if r not in known]
    while stack:
        e = stack.pop()
        if e not in needed:
            needed.add(e)
            stack.extend(a for a in e.args if a not in known)
    return tuple(e for e in children_first(roots) if e in needed)


def constant(value: object, dtype: DType) -> Array:
    """`value` rounded to `dtype`, as an array without dimensions."""
    return encode(value, dtype)


def _apply(e: Scalar, known: dict[Scalar, Array]) -> Array:
    args = [known[a] for a in e.args]
    if e.op == "const":
        return constant(e.attr, e.dtype)
    if e.op == "table":
        return np.asarray(constant(e.numbers, e.dtype)[args[0] & (len(e.numbers) - 1)])
    if e.op == "formula":
        return _applied(e.formula, args)
    if e.op == "detour":
        return np.where(args[0], _applied(e.formula, args[2:]), args[1])
    if e.op == "cast":
        return _cast(decode(args[0], e.args[0].dtype), e.dtype)
    if e.op == "bitcast":
        return np.asarray(args[0]).view(e.dtype.numpy)
    found = _FLOAT_OPS.get(e.op) if e.args[0].dtype.is_float else _INT_OPS.get(e.op)
    found = found or _OPS.get(e.op)
    if found is None:
        raise CompileError(f"unknown scalar {e.op}", op="reference")
    return np.asarray(found(*args), dtype=e.dtype.numpy)


def _applied(formula: Formula, args: list[Array]) -> Array:
    operands = dict(zip(formula.params, args, strict=True))
    return evaluate((formula.body,), _no_leaf, operands)[0]


def _no_leaf(e: Scalar, *_: Array) -> Array:
    raise CompileError(f"{e!r} stands in a formula", op="reference")


def _cast(x: Array, dtype: DType) -> Array:
    if x.dtype.kind != "f" or not dtype.is_int:
        return encode(x, dtype)
    limits = np.iinfo(dtype.numpy)
    # the float nearest to a limit of 64 bits may lie beyond it
    low, high = x <= float(limits.min), x >= float(limits.max)
    inside = np.where(low | high | np.isnan(x), 0, np.trunc(x)).astype(dtype.numpy)
    return np.where(low, limits.min, np.where(high, limits.max, inside)).astype(dtype.numpy)


def _refuse_zero(b: Array) -> None:
    if not np.all(b):
        raise CompileError("an integer is divided by zero", op="reference")


def _divide(a: Array, b: Array) -> Array:
    """Integer division that truncates towards zero."""
    _refuse_zero(b)
    down = a // b
    inexact = down * b != a
    return np.asarray(down + (inexact & ((a < 0) != (b < 0))).astype(down.dtype))


def _remainder(a: Array, b: Array) -> Array:
    _refuse_zero(b)
    return np.fmod(a, b)


def _shift(shift: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    def checked(a: Array, count: Array) -> Array:
        bits = 8 * a.dtype.itemsize
        if np.any(count < 0) or np.any(count >= bits):
            raise CompileError(f"a shift count is outside [0, {bits})", op="reference")
        return shift(a, count)

    return checked


# Magnitudes between which every error term of a product and a sum of float64 is representable.
_SAFE_FACTOR = 2.0**450
_SAFE_ADDEND = 2.0**900


def fma(a: Array, b: Array, c: Array) -> Array:
    """a * b + c rounded once, for float32 or float64 operands of one dtype.

    float32: the product is exact in float64, the sum is rounded to odd there and then to
    float32 (53 >= 2 * 24 + 2 bits).  float64: S. Boldo and G. Melquiond, "Emulation of a FMA and
    correctly rounded sums: proved algorithms using rounding to odd", IEEE Transactions on
    Computers 57 (2008), algorithm 1; where that could overflow or lose bits, exact fractions.
    """
    a, b, c = np.broadcast_arrays(a, b, c)
    with np.errstate(all="ignore"):
        if a.dtype == np.float32:
            product = a.astype(np.float64) * b.astype(np.float64)
            return _add_to_odd(product, c.astype(np.float64)).astype(np.float32)
        return _fma64(a, b, c)


def _two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """(rounded sum, its exact error), D. Knuth, TAOCP volume 2, section 4.2.2."""
    total = np.asarray(a + b)
    part = total - a
    return total, np.asarray((a - (total - part)) + (b - part))


def _add_to_odd(a: Array, b: Array) -> Array:
    """a + b rounded to odd: if inexact, the neighbour whose last bit is one."""
    total, error = _two_sum(a, b)
    bits = total.view(np.int64)
    move = np.isfinite(total) & (error != 0) & (bits & 1 == 0)
    outward = (error > 0) == (total > 0)
    return np.where(move, bits + np.where(outward, 1, -1), bits).view(np.float64)


def _split(x: Array) -> tuple[Array, Array]:
    """x as a sum of two numbers of 26 bits, T. Dekker, Numerische Mathematik 18 (1971)."""
    big = x * 134217729.0
    high = big - (big - x)
    return high, x - high


def _fma64(a: Array, b: Array, c: Array) -> Array:
    safe = (np.abs(c) <= _SAFE_ADDEND) & _is_moderate(a) & _is_moderate(b)
    product = np.asarray(a * b)
    (ah, al), (bh, bl) = _split(a), _split(b)
    product_error = ((ah * bh - product) + ah * bl + al * bh) + al * bl
    low, low_error = _two_sum(c, product_error)
    high, high_error = _two_sum(product, low)
    result = np.asarray(high + _add_to_odd(low_error, high_error))
    # an exact zero takes its sign from the plain sum
    result = np.where(result == 0, product + c, result)
    result = np.where(safe, result, product + c)
    finite = np.isfinite(a) & np.isfinite(b)
    result = np.where(finite & ~np.isfinite(c), c, result)
    for i in np.argwhere(~safe & finite & np.isfinite(c)):
        at = tuple(i)
        result[at] = _fma_exact(float(a[at]), float(b[at]), float(c[at]))
    return result


def _is_moderate(x: Array) -> Array:
    size = np.abs(x)
    return np.asarray((size == 0) | ((size >= 1 / _SAFE_FACTOR) & (size <= _SAFE_FACTOR)))


def _fma_exact(a: float, b: float, c: float) -> float:
    if a == 0 or b == 0:
        return a * b + c
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:
        return 0.0
    try:
        size = float(abs(exact))
    except OverflowError:
        size = float("inf")
    return -size if exact < 0 else size


_FLOAT_OPS: dict[str, Callable[..., Any]] = {"div": np.true_divide}
_INT_OPS: dict[str, Callable[..., Any]] = {"div": _divide, "rem": _remainder}
_OPS: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "neg": np.negative,
    "fma": fma,
    "sqrt": np.sqrt,
    "abs": np.abs,
    "copysign": np.copysign,
    "floor": np.floor,
    "rint": np.rint,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.invert,
    "shl": _shift(np.left_shift),
    "shr": _shift(np.right_shift),
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "select": np.where,
}
