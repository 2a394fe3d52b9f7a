"""Sizes of traced tensors as the user's code sees them: ints of which some questions are noted.

A `TracedSize` is a symbolic dimension together with the sizes behind its symbols.  To Python it
is an int (`isinstance(n, int)` holds).  Sums, products and integer divisions with ints stay
symbolic; a comparison answers for the sizes at hand and its outcome becomes a guard; whatever
else needs the number itself gets it, and the program is then for that number only.

It is a class of its own, not `Expr`, because the compiler tells a known dimension from a symbolic
one by `isinstance(n, int)`, while functions of the user and argument checks are to take both
alike.  Ops unwrap it where they take their static parameters (see `parameter`).
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable
from numbers import Integral
from typing import Any

from dualgrad.compiler.ir.dims import (
    Atom,
    Dim,
    Expr,
    ShapeEnv,
    current_env,
    divide,
    terms_of,
)

LARGEST_POWER = 4


class TracedSize:
    """A size that is known to the trace as an expression; never made of a plain int."""

    __slots__ = ("__weakref__", "env", "expr")

    expr: Expr
    env: ShapeEnv

    def __init__(self, expr: Expr, env: ShapeEnv) -> None:
        self.expr, self.env = expr, env

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return int

    @property
    def dim(self) -> Dim:
        """The dimension; outside of its trace a plain int."""
        return self.expr if current_env() is self.env else self.env.value(self.expr)

    def pinned(self) -> int:
        """The number itself; the program is for this number only."""
        return self.env.pin(self.expr)

    def number(self) -> Any:
        """The number itself, or, where the trace keeps account of numbers, what stands for it."""
        if self.env.number is None or self.env.closed:
            return self.pinned()
        return _number(self.expr, self.env.number)

    # -- arithmetic ---------------------------------------------------------------------------

    def __add__(self, other: Any) -> Any:
        return _calculate(operator.add, self, other)

    def __radd__(self, other: Any) -> Any:
        return _calculate(operator.add, other, self)

    def __sub__(self, other: Any) -> Any:
        return _calculate(operator.sub, self, other)

    def __rsub__(self, other: Any) -> Any:
        return _calculate(operator.sub, other, self)

    def __mul__(self, other: Any) -> Any:
        return _calculate(operator.mul, self, other)

    def __rmul__(self, other: Any) -> Any:
        return _calculate(operator.mul, other, self)

    def __floordiv__(self, other: Any) -> Any:
        return _calculate(operator.floordiv, self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return _calculate(operator.floordiv, other, self)

    def __mod__(self, other: Any) -> Any:
        return _calculate(operator.mod, self, other)

    def __rmod__(self, other: Any) -> Any:
        return _calculate(operator.mod, other, self)

    def __divmod__(self, other: Any) -> Any:
        return _calculate(divmod, self, other)

    def __rdivmod__(self, other: Any) -> Any:
        return _calculate(divmod, other, self)

    def __pow__(self, other: Any, modulo: Any = None) -> Any:
        if modulo is None and type(other) is int and 0 < other <= LARGEST_POWER:
            out: Any = self
            for _ in range(other - 1):
                out = out * self
            return out
        if modulo is None and _other(other) is not None:
            return self.number() ** _opened(other)
        return NotImplemented if _other(other) is None else pow(self.pinned(), other, modulo)

    def __neg__(self) -> Any:
        return traced_size(-self.dim, self.env)

    def __pos__(self) -> TracedSize:
        return self

    def __abs__(self) -> Any:
        return self if self >= 0 else -self

    # -- comparisons --------------------------------------------------------------------------

    def __eq__(self, other: object) -> Any:
        if self is other:
            return True
        if isinstance(other, float):
            return other.is_integer() and self == int(other)
        n = _integer(other)
        return NotImplemented if n is None else self.env.equal(self.dim, n)

    def __ne__(self, other: object) -> Any:
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    def __le__(self, other: Any) -> Any:
        n = _bound(other, math.floor)
        return NotImplemented if n is None else self.env.at_most(self.dim - n, 0)

    def __lt__(self, other: Any) -> Any:
        n = _bound(other, math.ceil)
        return NotImplemented if n is None else self.env.at_most(self.dim - n, -1)

    def __ge__(self, other: Any) -> Any:
        below = self.__lt__(other)
        return below if below is NotImplemented else not below

    def __gt__(self, other: Any) -> Any:
        below = self.__le__(other)
        return below if below is NotImplemented else not below

    def __bool__(self) -> bool:
        return bool(self != 0)

    # -- what asks for the number -------------------------------------------------------------

    def __hash__(self) -> int:
        return hash(self.pinned())

    def __index__(self) -> int:
        return self.pinned()

    __int__ = __trunc__ = __floor__ = __ceil__ = __index__

    def __round__(self, digits: Any = None) -> Any:
        return self if digits is None else round(self.pinned(), digits)

    def __float__(self) -> float:
        return float(self.pinned())

    def __complex__(self) -> complex:
        return complex(self.pinned())

    def __repr__(self) -> str:
        return repr(self.pinned())

    def __format__(self, spec: str) -> str:
        return format(self.pinned(), spec)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return sys.modules["numpy"].array(self.pinned(), dtype=dtype)  # NumPy calls this

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return int, (self.pinned(),)

    def __copy__(self) -> TracedSize:
        return self

    def __deepcopy__(self, memo: Any) -> TracedSize:
        return self

    def __getattr__(self, name: str) -> Any:
        if not hasattr(int, name):
            raise AttributeError(f"'int' object has no attribute '{name}'")
        return getattr(self.pinned(), name)


def _pinning(name: str) -> tuple[Any, Any]:
    """An operator of ints, and its reflection, that needs the number itself."""
    function: Callable[[Any, Any], Any] = getattr(operator, name)

    def forward(self: TracedSize, other: Any) -> Any:
        return NotImplemented if _other(other) is None else function(self.number(), _opened(other))

    def reflected(self: TracedSize, other: Any) -> Any:
        return NotImplemented if _other(other) is None else function(_opened(other), self.number())

    return forward, reflected


for _name in ("truediv", "lshift", "rshift", "and_", "or_", "xor", "pow"):
    _forward, _reflected = _pinning(_name)
    _plain = _name.strip("_")
    if _plain != "pow":
        setattr(TracedSize, f"__{_plain}__", _forward)
    setattr(TracedSize, f"__r{_plain}__", _reflected)
setattr(TracedSize, "__invert__", lambda self: ~self.pinned())  # noqa: B010


def traced_size(dim: Dim, env: ShapeEnv) -> Any:
    """A dimension as the user sees it: an int, or something that behaves like one."""
    return dim if isinstance(dim, int) else TracedSize(dim, env)


def _integer(x: Any) -> Dim | None:
    """An integer as a dimension; None for anything else."""
    if type(x) is TracedSize:
        return x.dim
    return int(x) if isinstance(x, Integral) else None


def _other(x: Any) -> Any:
    """A number of Python; None for what knows itself how to calculate with numbers."""
    return x if isinstance(x, int | float | complex) else None


def _opened(x: Any) -> Any:
    """x, a traced size as a number."""
    return x.number() if type(x) is TracedSize else x


def _number(d: Dim, number: Callable[[Atom], Any]) -> Any:
    """A dimension worked out in numbers that stand for its symbols."""
    total: Any = 0
    for monomial, factor in terms_of(d):
        term: Any = factor
        for atom in monomial:
            term = term * _atom_number(atom, number)
        total = total + term
    return total


def _atom_number(atom: Atom, number: Callable[[Atom], Any]) -> Any:
    if atom.kind == "sym":
        return number(atom)
    a, b = (_number(d, number) for d in atom.args)
    if atom.kind == "min":
        return min(a, b)
    return a // b if atom.kind == "div" else a % b


def _bound(x: Any, rounded: Callable[[Any], int]) -> Dim | None:
    """The integer that a comparison with x is one with."""
    if isinstance(x, float) and math.isfinite(x):
        return rounded(x)
    return _integer(x)


def _calculate(function: Callable[[Any, Any], Any], a: Any, b: Any) -> Any:
    """A sum, product or integer division of two numbers of which one is traced."""
    env = (a if type(a) is TracedSize else b).env
    x, y = (_integer(v) if isinstance(v, int) else None for v in (a, b))
    if x is None or y is None:
        if _other(a) is None or _other(b) is None:
            return NotImplemented
        return function(_opened(a), _opened(b))
    if isinstance(x, int) and isinstance(y, int):
        return function(x, y)
    if function in (operator.add, operator.sub, operator.mul):
        return traced_size(function(x, y), env)
    if not env.at_most(-y, -1):
        return function(env.pin(x), env.pin(y))
    parts = _floor_divided(x, y, env)
    if function is divmod:
        return tuple(traced_size(p, env) for p in parts)
    return traced_size(parts[0] if function is operator.floordiv else parts[1], env)


def _floor_divided(a: Dim, b: Dim, env: ShapeEnv) -> tuple[Dim, Dim]:
    """Quotient, rounded down, and remainder for b > 0: dimensions divide natural numbers only."""
    if env.at_most(-a, 0):
        return divide(a, b)
    quotient = -divide(b - 1 - a, b)[0]
    return quotient, a - quotient * b


def slice_bounds(part: slice, n: Any) -> tuple[Any, int, Any]:
    """(start, step, number of elements) of a slice of an axis of n elements."""
    if not any(type(v) is TracedSize for v in (n, part.start, part.stop)):
        start, stop, step = part.indices(n)
        return start, step, len(range(start, stop, step))
    step = 1 if part.step is None else operator.index(part.step)
    first, last = (0, n) if step > 0 else (n - 1, -1)
    low, high = (0, n) if step > 0 else (-1, n - 1)

    def clipped(i: Any, default: Any) -> Any:
        if i is None:
            return default
        i = i if type(i) is TracedSize else operator.index(i)
        i = i + n if i < 0 else i
        return low if i < low else high if i > high else i

    start, stop = clipped(part.start, first), clipped(part.stop, last)
    room = stop - start if step > 0 else start - stop
    size = 0 if room <= 0 else (room - 1) // abs(step) + 1
    return start, step, size


def parameter(value: Any, annotation: str) -> Any:
    """A static parameter of an op: traced sizes as dimensions where the op takes these (its
    annotation says Dim or Offset), else as the numbers that they are."""
    if type(value) is TracedSize:
        symbolic = "Dim" in annotation or "Offset" in annotation
        return value.dim if symbolic else value.pinned()
    if type(value) is tuple:
        return tuple([parameter(v, annotation) for v in value])
    return value


def number_of(x: Any) -> Any:
    """x, a traced size as the number that it stands for, without a guard."""
    return x.env.value(x.expr) if type(x) is TracedSize else x
