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
from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

from dualgrad.compiler.ir.node import Node, const_node, scalar_node
from dualgrad.compiler.ir.size import TracedSize
from dualgrad.jit.errors import Unsupported
from dualgrad.jit.numbers import EXACT, Number, Real, Whole, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

Evaluate = Callable[[Any], tuple[Any, ...] | None]
F = TypeVar("F", bound=Callable[..., Any])
_WORD = 2**63  # programs take integers of 64 bits

# Functions of module `math` that return numbers or answers; those that `int` and `float` have
# methods for (floor, ceil, trunc) need no help.
_REAL: dict[str, Callable[..., Any]] = {
    name: function
    for name, function in vars(math).items()
    if callable(function) and name[0] != "_" and name not in ("floor", "ceil", "trunc")
}
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
        self.facts: set[int] = set()  # which numbers of a call are used
        self.scalars: dict[str, Node] = {}  # names of values that the program takes, in order
        self.pickled = False  # some number was, in a longer form than plain ones have
        self._kinds: dict[int, str] = {}  # of the numbers of a call
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
        self._kinds[k] = type(value).__name__
        return self._number(f"n{k}", value)

    def _named(self, text: str, value: int | float) -> Number:
        name = self._names.get(text)
        if name is None:
            name = self._names[text] = f"v{len(self._names)}"
            self.lines.append(f"{name} = {text}")
        return self._number(name, value)

    def _number(self, name: str, value: int | float) -> Number:
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
            name, value = self._used(x), x._value
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
        return self._used(x) if self.is_open(x) else _literal(plain(x))

    def _used(self, x: Number) -> str:
        if x._name.startswith("n"):
            self.facts.add(int(x._name[1:]))
        return x._name

    def node(self, x: Number) -> Node:
        """The node that stands for a number in the program."""
        value = x._value
        if self.live and self.is_open(x) and isinstance(value, int):
            self.operate(f"-{_WORD} <= {{}} < {_WORD}", fits, x)
        if not self.is_open(x):
            return const_node(value)
        found = self.scalars.get(x._name)
        if found is None:
            if not self.live:
                raise Unsupported("a number of a trace is used for the first time after it")
            found = scalar_node(len(self.scalars), type(value))
            self.scalars[self._used(x)] = found
        return found

    def evaluator(self, results: Iterable[Number], places: Mapping[int, int]) -> Evaluate | None:
        """A function from the facts of a call to the values of the program's scalars and, after
        these, of `results`; it returns None where a guard does not hold.  Its attribute `results`
        is how many there are; `facts` says which facts they are, where nothing is computed.

        `places` says for each number in `facts` which fact it is.  None where there is nothing
        to compute or to guard.
        """
        names = [*self.scalars, *(self._text(x) for x in results)]
        # A fact may be what stands for it in the trace of another thread.
        types = {f"n{k}": kind for k, kind in self._kinds.items()}
        sources = names
        names = [f"{types[n]}({n})" if n in types else n for n in names]
        if not names and not self.lines:
            return None
        lines = [f"n{k} = f[{places[k]}]" for k in sorted(self.facts)] + self.lines
        body = "".join(f"        {line}\n" for line in lines)
        source = (
            "def evaluate(f):\n    try:\n"
            f"{body}        return ({''.join(f'{n}, ' for n in names)})\n"
            "    except Exception:\n        return None\n"
        )
        exec(compile(source, "<numbers of a compiled function>", "exec"), self._space)
        evaluate: Any = self._space.pop("evaluate")
        evaluate.results = len(names)
        if not self.lines and types.keys() >= set(sources):
            evaluate.facts = [places[int(n[1:])] for n in sources]
        return evaluate  # type: ignore[no-any-return]

    def held(self) -> list[Number]:
        """The numbers that something still refers to."""
        return [x for ref in self._made if (x := ref()) is not None]


def fits(n: int) -> bool:
    """Whether programs can take an integer."""
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
        if ledger is not None:
            args = tuple(x.number() if type(x) is TracedSize else x for x in args)
        if ledger is None or not any(map(ledger.is_open, args)):
            return real(*map(plain, args), **{k: plain(x) for k, x in how.items()})
        return ledger.call(f"math_{name}", real, *args, **how)

    return call


_real_sum = sum


@wraps(sum)
def _sum(items: Any, /, start: Any = 0) -> Any:
    """`sum`, which adds floats in a way of its own since Python 3.12."""
    ledger = _tracing.get(threading.get_ident())
    if ledger is None:
        return _real_sum(items, start)
    items = list(items)
    if not all(type(x) in EXACT or isinstance(x, Number) for x in (start, *items)):
        return _real_sum(items, start)
    text = f"sum([{', '.join('{}' for _ in items)}], {{}})"
    return ledger.operate(text, lambda *values: _real_sum(values[:-1], values[-1]), *items, start)


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
                builtins.sum = _real_sum
