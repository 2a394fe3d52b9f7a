"""Python numbers that later calls have others for.

While a function is traced, a `Number` stands for an int or float.  Arithmetic with it is recorded
in the trace's `Ledger`.  Comparisons and `bool` answer for this call, and the ledger keeps the
answer as a guard; whatever else asks for the value (`float(n)`, hash, format, an index) guards the
value itself.  A tensor op takes the number as a scalar of its program.

`isinstance(n, float)` holds, since `n.__class__` is float; `type(n) is float` does not, which is
the one difference that code can see.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from dualgrad.compiler.ir.dims import Expr
from dualgrad.compiler.ir.value import Value
from dualgrad.state import state

if TYPE_CHECKING:
    from dualgrad.jit.ledger import Ledger

EXACT = (bool, int, float)
_UNLIKE = (type(None), str, bytes, tuple, list, dict, set)  # no number equals one of these
Method = Callable[..., Any]


def plain(x: Any) -> Any:
    """The number that x stands for; x itself where it is no `Number`."""
    return x._value if isinstance(x, Number) else x


def _binary(text: str, compute: Method) -> tuple[Method, Method]:
    """A dunder and its reflected one."""

    def left(self: Number, other: Any) -> Any:
        return _combined(text, compute, self, other, self, other)

    def right(self: Number, other: Any) -> Any:
        return _combined(text, compute, self, other, other, self)

    return left, right


def _combined(text: str, compute: Method, own: Number, other: Any, *operands: Any) -> Any:
    if type(other) in EXACT or isinstance(other, Number):
        return own._ledger.operate(text, compute, *operands)
    if isinstance(other, Value | Expr):
        return NotImplemented  # they take numbers as operands
    own._ledger.pin(own)
    return compute(*map(plain, operands))


def _unary(text: str, compute: Method) -> Method:
    def method(self: Number) -> Any:
        return self._ledger.operate(text, compute, self)

    return method


def _asking(ask: Method) -> Method:
    """A method whose result is no number, or must be a real one."""

    def method(self: Number, *args: Any) -> Any:
        self._ledger.pin(self)
        return ask(self._value, *map(plain, args))

    return method


def _showing(show: Method) -> Method:
    """A method that makes text: recorded where the text goes straight into a recorded call."""

    def method(self: Number, *args: Any) -> str:
        trace = state.trace
        if trace is not None and self._ledger.live and self._ledger.is_open(self):
            found = trace.calls.mark_number(self, lambda x: show(x, *args), sys._getframe(1))
            if found is not None:
                return found
        self._ledger.pin(self)
        return show(self._value, *map(plain, args))  # type: ignore[no-any-return]

    return method


class Number:
    """Stands for an int or float of this call."""

    __slots__ = ("__weakref__", "_ledger", "_name", "_value")

    def __init__(self, ledger: Ledger, name: str, value: Any) -> None:
        self._ledger, self._name, self._value = ledger, name, value

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self._value)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._value, name)
        self._ledger.pin(self)
        return found

    __add__, __radd__ = _binary("{} + {}", operator.add)
    __sub__, __rsub__ = _binary("{} - {}", operator.sub)
    __mul__, __rmul__ = _binary("{} * {}", operator.mul)
    __truediv__, __rtruediv__ = _binary("{} / {}", operator.truediv)
    __floordiv__, __rfloordiv__ = _binary("{} // {}", operator.floordiv)
    __mod__, __rmod__ = _binary("{} % {}", operator.mod)
    __lt__, _ = _binary("{} < {}", operator.lt)
    __le__, _ = _binary("{} <= {}", operator.le)
    __gt__, _ = _binary("{} > {}", operator.gt)
    __ge__, _ = _binary("{} >= {}", operator.ge)
    __neg__ = _unary("-{}", operator.neg)
    __pos__ = _unary("+{}", operator.pos)
    __abs__ = _unary("abs({})", abs)
    __trunc__ = _unary("trunc({})", math.trunc)
    __floor__ = _unary("floor({})", math.floor)
    __ceil__ = _unary("ceil({})", math.ceil)
    __bool__ = _unary("{} != 0", bool)
    _equal, _ = _binary("{} == {}", operator.eq)
    _unequal, _ = _binary("{} != {}", operator.ne)
    del _

    def __eq__(self, other: object) -> Any:
        return False if type(other) in _UNLIKE else self._equal(other)

    def __ne__(self, other: object) -> Any:
        return True if type(other) in _UNLIKE else self._unequal(other)

    def __pow__(self, other: Any, modulus: Any = None) -> Any:
        if modulus is None:
            return _combined("{} ** {}", pow, self, other, self, other)
        self._ledger.pin(self, other, modulus)
        return pow(*map(plain, (self, other, modulus)))

    def __rpow__(self, other: Any) -> Any:
        return _combined("{} ** {}", pow, self, other, other, self)

    def __divmod__(self, other: Any) -> Any:
        return (self // other, self % other)

    def __rdivmod__(self, other: Any) -> Any:
        return (other // self, other % self)

    def __round__(self, digits: Any = None) -> Any:
        if digits is None:
            return self._ledger.operate("round({})", round, self)
        return self._ledger.operate("round({}, {})", round, self, operator.index(digits))

    __float__ = _asking(float)
    __int__ = _asking(int)
    __complex__ = _asking(complex)
    __hash__ = _asking(hash)
    __str__ = _showing(str)
    __repr__ = _showing(repr)
    __format__ = _showing(format)

    def __copy__(self) -> Number:
        return self

    def __deepcopy__(self, memo: object) -> Number:
        return self

    def __reduce_ex__(self, protocol: Any) -> Any:
        self._ledger.pin(self)
        self._ledger.pickled = True
        return type(self._value), (self._value,)

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        self._ledger.pin(self)
        return np.array(self._value, dtype=dtype)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **how: Any) -> Any:
        self._ledger.pin(*(x for x in inputs if isinstance(x, Number)))
        return getattr(ufunc, method)(*map(plain, inputs), **how)


class Real(Number):
    """Stands for a float."""

    __slots__ = ()


class Whole(Number):
    """Stands for an int."""

    __slots__ = ()

    __and__, __rand__ = _binary("{} & {}", operator.and_)
    __or__, __ror__ = _binary("{} | {}", operator.or_)
    __xor__, __rxor__ = _binary("{} ^ {}", operator.xor)
    __lshift__, __rlshift__ = _binary("{} << {}", operator.lshift)
    __rshift__, __rrshift__ = _binary("{} >> {}", operator.rshift)
    __invert__ = _unary("~{}", operator.invert)
    __index__ = _asking(operator.index)
