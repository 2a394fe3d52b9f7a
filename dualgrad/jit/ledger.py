"""What a trace computes with Python numbers, as a Python function that later calls run.

A `Ledger` keeps one line of Python per operation on `Number`s, and one per guard, in the order in
which the traced program met them.  Later calls run these lines on their own numbers, with Python's
own ints and floats: the bits, and the errors, are those of the eager program.
"""

from __future__ import annotations

import builtins
import math
import threading
import weakref
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

from dualgrad.compiler.ir.node import Node, const_node, scalar_node
from dualgrad.jit.numbers import EXACT, Number, Real, Whole, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

Evaluate = Callable[[list[Any]], tuple[Any, ...] | None]
F = TypeVar("F", bound=Callable[..., Any])
_WORD = 2**63  # programs take integers of 64 bits

# Functions of numbers that return numbers or answers; `math` has no other state.
_MATH = (
    "acos acosh asin asinh atan atan2 atanh cbrt comb copysign cos cosh degrees erf erfc exp exp2 "
    "expm1 fabs factorial fmod gamma gcd hypot isclose isfinite isinf isnan isqrt lcm ldexp lgamma "
    "log log10 log1p log2 perm pow radians remainder sin sinh sqrt tan tanh"
).split()
_REAL: dict[str, Callable[..., Any]] = {n: getattr(math, n) for n in _MATH if hasattr(math, n)}
_SPACE: dict[str, Any] = {
    "__builtins__": {},
    "Exception": Exception,
    "abs": abs,
    "ceil": math.ceil,
    "floor": math.floor,
    "inf": math.inf,
    "float": float,
    "int": int,
    "kind": type,
    "nan": math.nan,
    "round": round,
    "sum": sum,
    "trunc": math.trunc,
    "math_copysign": math.copysign,
}


class Ledger:
    """The numbers of one trace.

    Each value has the name of a local variable of the function that `evaluator` makes.  A line
    that raises at a later call means that the traced path does not hold there.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.scalars: dict[str, Node] = {}  # names of values that the program takes, in order
        self._names: dict[str, str] = {}  # of expressions
        self._pinned: set[str] = set()
        self._asked: set[str] = set()
        self._space = dict(_SPACE)  # what the lines may call
        self._made: list[weakref.ref[Number]] = []
        self._thread = threading.get_ident()
        self._open = True

    @property
    def live(self) -> bool:
        """Whether code that runs now belongs to the trace."""
        return self._open and threading.get_ident() == self._thread

    def close(self) -> None:
        """From now on all numbers are what they stand for."""
        self._open = False

    def fact(self, k: int, value: int | float) -> Number:
        """What stands for number k of a call."""
        return self._named(f"f[{k}]", value)

    def _named(self, text: str, value: int | float) -> Number:
        name = self._names.get(text)
        if name is None:
            name = self._names[text] = f"v{len(self._names)}"
            self.lines.append(f"{name} = {text}")
        number = (Whole if isinstance(value, int) else Real)(self, name, value)
        self._made.append(weakref.ref(number))
        return number

    def is_open(self, x: object) -> bool:
        """Whether x is a number of this trace whose value is not guarded."""
        return isinstance(x, Number) and x._ledger is self and x._name not in self._pinned

    def operate(self, text: str, compute: Callable[..., Any], *operands: Any) -> Any:
        """The result of `compute`; `text` says the same in Python, with a {} per operand."""
        values = [plain(x) for x in operands]
        if not self.live or not any(map(self.is_open, operands)):
            return compute(*values)
        try:
            value = compute(*values)
        except Exception:
            self.pin(*operands)  # other values might not raise
            raise
        text = text.format(*map(self._text, operands))
        if type(value) is bool:
            self._ask(text, value)
            return value
        if type(value) not in EXACT:
            self.pin(*operands)
            return value
        result = self._named(text, value)
        if compute is pow:  # the one operation whose type depends on values
            self._ask(f"kind({result._name}) is {type(value).__name__}", True)
        return result

    def call(self, name: str, real: Callable[..., Any], *args: Any, **how: Any) -> Any:
        """The result of a function of numbers that has no effects, as one operation."""
        if how or not all(type(x) in EXACT or isinstance(x, Number) for x in args):
            self.pin(*args, *how.values())
            return real(*map(plain, args), **{k: plain(x) for k, x in how.items()})
        self._space.setdefault(name, real)
        return self.operate(f"{name}({', '.join('{}' for _ in args)})", real, *args)

    def pin(self, *operands: Any) -> None:
        """Guard the values of numbers."""
        if not self.live:
            return
        for x in filter(self.is_open, operands):
            name, value = x._name, x._value
            self._ask(f"{name} == {_literal(value)}", value == value)  # False for NaN
            if value != value:
                self._ask(f"{name} == {name}", False)
            if value == 0 and isinstance(value, float):
                self._ask(f"math_copysign(1.0, {name}) == {math.copysign(1.0, value)}", True)
            self._pinned.add(name)

    def _ask(self, text: str, answer: bool) -> None:
        if text not in self._asked:
            self._asked.add(text)
            self.lines.append(f"if ({text}) is not {answer}: return None")

    def _text(self, x: Any) -> str:
        return x._name if self.is_open(x) else _literal(plain(x))

    def node(self, x: Number) -> Node:
        """The node that stands for a number in the program."""
        value = x._value
        if self.live and self.is_open(x) and isinstance(value, int):
            fits = self.operate(f"-{_WORD} <= {{}} < {_WORD}", _fits, x)
            if not fits:
                self.pin(x)
        if not self.live or not self.is_open(x):
            return const_node(value)
        found = self.scalars.get(x._name)
        if found is None:
            found = scalar_node(len(self.scalars), type(value))
            self.scalars[x._name] = found
        return found

    def evaluator(self, results: Iterable[Number]) -> Evaluate | None:
        """A function from the numbers of a call to the values of the program's scalars and, after
        these, of `results`; it returns None where a guard does not hold.

        None where there is nothing to compute or to guard.
        """
        names = [*self.scalars, *(x._name for x in results)]
        if not self.lines:
            return None
        body = "".join(f"        {line}\n" for line in self.lines)
        source = (
            "def evaluate(f):\n    try:\n"
            f"{body}        return ({''.join(f'{n}, ' for n in names)})\n"
            "    except Exception:\n        return None\n"
        )
        exec(compile(source, "<numbers of a compiled function>", "exec"), self._space)
        return self._space.pop("evaluate")  # type: ignore[no-any-return]

    def held(self) -> list[Number]:
        """The numbers that something still refers to."""
        return [x for ref in self._made if (x := ref()) is not None]


def _fits(n: int) -> bool:
    return -_WORD <= n < _WORD


def _literal(x: bool | int | float) -> str:
    """The Python text of a number."""
    if isinstance(x, bool):
        return repr(x)
    return f"({x!r})" if isinstance(x, float) else f"({x:#x})"


# -- functions written in C, which would ask for the value ---------------------------------------


def _recording(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    """A function of module `math`, recorded where it is called with the numbers of a trace."""

    @wraps(real)
    def call(*args: Any, **how: Any) -> Any:
        ledger = _tracing.get(threading.get_ident())
        if ledger is None or not any(map(ledger.is_open, args)):
            return real(*map(plain, args), **{k: plain(x) for k, x in how.items()})
        return ledger.call(f"math_{name}", real, *args, **how)

    return call


@wraps(sum)
def _sum(items: Any, /, start: Any = 0) -> Any:
    """`sum`, which adds floats in a way of its own since Python 3.12."""
    ledger = _tracing.get(threading.get_ident())
    if ledger is None:
        return sum(items, start)
    items = list(items)
    if not all(type(x) in EXACT or isinstance(x, Number) for x in (start, *items)):
        return sum(items, start)
    text = f"sum([{', '.join('{}' for _ in items)}], {{}})"
    return ledger.operate(text, lambda *values: sum(values[:-1], values[-1]), *items, start)


def on_numbers(function: F) -> F:
    """Let a function be one operation of a trace, whatever it asks its numbers.

    It takes numbers by position, returns one, and has no effects.
    """
    name = f"{function.__name__}_{len(_SPACE)}"
    _SPACE[name] = function

    @wraps(function)
    def call(*args: Any) -> Any:
        ledger = _tracing.get(threading.get_ident())
        return function(*args) if ledger is None else ledger.call(name, function, *args)

    return call  # type: ignore[return-value]


_SWAPPED = {name: _recording(name, real) for name, real in _REAL.items()}
_lock = threading.Lock()
_tracing: dict[int, Ledger] = {}  # by thread


@contextmanager
def recording(ledger: Ledger) -> Iterator[None]:
    """Let `sum` and the functions of module `math` take numbers of the ledger's trace.

    Other threads and other arguments get what the real functions return.
    """
    me = threading.get_ident()
    with _lock:
        if not _tracing:
            math.__dict__.update(_SWAPPED)
            builtins.sum = _sum
        _tracing[me] = ledger
    try:
        yield
    finally:
        ledger.close()
        with _lock:
            del _tracing[me]
            if not _tracing:
                math.__dict__.update(_REAL)
                builtins.sum = sum
