"""Integer expressions: dimensions of tensors and indices of loops, in one language.

    Dim  ::= int | Expr
    Expr ::= sum of  coefficient * atom * atom * ...          (a polynomial, canonical)
    Atom ::= Sym(name, extent?) | Quotient(Dim, Dim) | Remainder(Dim, Dim) | Minimum(Dim, Dim)

Expressions are immutable and interned, so structural equality is identity.  All values are
non-negative except coefficients of strides; division rounds down.  A `Sym` with an extent is a
loop variable and lies in [0, extent); a `Sym` without one is a size of at least 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from math import gcd
from operator import attrgetter, index
from typing import TYPE_CHECKING, Any, ClassVar, Union

from dualgrad.compiler.ir.interned import Interned
from dualgrad.runtime.records import dataclass, field

if TYPE_CHECKING:
    from collections.abc import Iterator

Dim = Union[int, "Expr"]
Offset = Dim  # a position inside of a dimension, not a size
Monomial = tuple["Atom", ...]

LONGEST_DIVISION = 64  # steps of the division of polynomials
_REMEMBERED = 20_000  # answers of each function that programs ask for again and again


class Atom:
    """A factor that cannot be taken apart: a symbol or a division, remainder or minimum."""

    __slots__ = ("__weakref__", "args", "extent", "kind", "name", "sort_key")

    _interned: ClassVar[Interned[Atom]] = Interned()

    kind: str
    name: str
    args: tuple[Dim, ...]
    extent: Dim | None
    sort_key: tuple[str, str]

    @classmethod
    def make(
        cls, kind: str, name: str, args: tuple[Dim, ...] = (), extent: Dim | None = None
    ) -> Atom:
        key = (kind, name, args, extent)
        found = cls._interned.find(key)
        if found is None:
            found = object.__new__(cls)
            found.kind, found.name, found.args, found.extent = key
            found.sort_key = (kind, repr(found))
            found = cls._interned.keep(key, found)
        return found

    def __repr__(self) -> str:
        if self.kind == "sym":
            return self.name
        a, b = self.args
        if self.kind == "min":
            return f"min({a}, {b})"
        left = f"({a})" if len(terms_of(a)) > 1 else str(a)
        return f"({left} {'//' if self.kind == 'div' else '%'} {b})"


_sort_key = attrgetter("sort_key")


def _in_order(term: tuple[Monomial, int]) -> list[tuple[str, str]]:
    """What terms of an expression are sorted by."""
    return [a.sort_key for a in term[0]]


class Expr:
    """A polynomial over atoms; use `+ - * // %`, `minimum` and `evaluate`."""

    __slots__ = ("__weakref__", "terms")

    _interned: ClassVar[Interned[Expr]] = Interned()

    terms: tuple[tuple[Monomial, int], ...]

    @classmethod
    def of(cls, terms: Mapping[Monomial, int]) -> Dim:
        """The expression with these terms; a plain int if it is constant."""
        kept = {m: c for m, c in terms.items() if c}
        if not kept:
            return 0
        if len(kept) == 1 and () in kept:
            return kept[()]
        key = tuple(kept.items())
        if len(key) > 1:
            key = tuple(sorted(key, key=_in_order))
        found = cls._interned.find(key)
        if found is None:
            found = object.__new__(cls)
            found.terms = key
            found = cls._interned.keep(key, found)
        return found

    def __add__(self, other: Dim) -> Dim:
        return _sum(self, other if isinstance(other, Expr) else int(index(other)))

    __radd__ = __add__

    def __neg__(self) -> Dim:
        return _product(self, -1)

    def __sub__(self, other: Dim) -> Dim:
        return self + -other

    def __rsub__(self, other: Dim) -> Dim:
        return -self + other

    def __mul__(self, other: Dim) -> Dim:
        return _product(self, other if isinstance(other, Expr) else int(index(other)))

    __rmul__ = __mul__

    def __floordiv__(self, other: Dim) -> Dim:
        return divide(self, other)[0]

    def __rfloordiv__(self, other: Dim) -> Dim:
        return divide(other, self)[0]

    def __mod__(self, other: Dim) -> Dim:
        return divide(self, other)[1]

    def __rmod__(self, other: Dim) -> Dim:
        return divide(other, self)[1]

    def __repr__(self) -> str:
        parts = []
        for m, c in self.terms:
            factors = ([str(c)] if c != 1 or not m else []) + [repr(a) for a in m]
            parts.append("*".join(factors))
        return " + ".join(parts)


@lru_cache(maxsize=_REMEMBERED)
def _sum(a: Expr, b: Dim) -> Dim:
    out = dict(a.terms)
    for m, c in terms_of(b):
        out[m] = out.get(m, 0) + c
    return Expr.of(out)


@lru_cache(maxsize=_REMEMBERED)
def _product(a: Expr, b: Dim) -> Dim:
    out: dict[Monomial, int] = {}
    for m, c in a.terms:
        for n, d in terms_of(b):
            key = tuple(sorted(m + n, key=_sort_key))
            out[key] = out.get(key, 0) + c * d
    return Expr.of(out)


def terms_of(d: Dim) -> tuple[tuple[Monomial, int], ...]:
    """The terms of a dimension: (monomial, coefficient) pairs."""
    if isinstance(d, Expr):
        return d.terms
    n = index(d)
    return (((), n),) if n else ()


@lru_cache(maxsize=_REMEMBERED)
def sym(name: str, extent: Dim | None = None) -> Expr:
    """The symbol `name`; with an extent it is a loop variable in [0, extent)."""
    out = Expr.of({(Atom.make("sym", name, (), extent),): 1})
    assert isinstance(out, Expr)
    return out


def is_symbol(e: Expr) -> bool:
    """Whether an expression is a symbol and nothing else."""
    (monomial, c), *more = e.terms
    return not more and c == 1 and len(monomial) == 1 and monomial[0].kind == "sym"


def symbol_of(e: Expr) -> Atom:
    """The one atom that a symbol expression consists of."""
    ((monomial, _),) = e.terms
    (atom,) = monomial
    return atom


def minimum(a: Dim, b: Dim) -> Dim:
    """min(a, b); neither is negative."""
    if isinstance(a, int) and isinstance(b, int):
        return min(a, b)
    if a == b:
        return a
    if a == 0 or b == 0:
        return 0
    return Expr.of({(Atom.make("min", "", (a, b)),): 1})


def maximum(a: Dim, b: Dim) -> Dim:
    """max(a, b); neither is negative."""
    return a + b - minimum(a, b)


def ceil_div(a: Dim, b: Dim) -> Dim:
    """a / b rounded up."""
    return (a + (b - 1)) // b


def product(dims: Iterable[Dim]) -> Dim:
    out: Dim = 1
    for d in dims:
        out = d * out
    return out


@lru_cache(maxsize=_REMEMBERED)
def divide(a: Dim, b: Dim) -> tuple[Dim, Dim]:
    """(a // b, a % b), simplified as far as extents of loop variables allow."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b, a % b
    if b == 1:
        return a, 0
    if a == b:
        return 1, 0
    whole, rest = _long_division(a, b)
    if rest == 0:
        return whole, 0
    times = _only_quotient(rest, b)
    if times is not None:
        return whole + times, rest - times * b
    if not _is_natural(rest):
        whole, rest = 0, a  # 63 - i stays whole: target code divides natural numbers only
    if _is_below(rest, b):
        return whole, rest
    return (
        whole + Expr.of({(Atom.make("div", "", (rest, b)),): 1}),
        Expr.of({(Atom.make("mod", "", (rest, b)),): 1}),
    )


def _is_natural(a: Dim) -> bool:
    """Whether a >= 0 is certain: its constant outweighs the terms that are subtracted."""
    top = largest(_subtracted(a))
    return isinstance(top, int) and top <= dict(terms_of(a)).get((), 0)


def _subtracted(a: Dim) -> Dim:
    return Expr.of({m: -c for m, c in terms_of(a) if c < 0})


def _only_quotient(a: Dim, b: Dim) -> int | None:
    """a // b, if it is one number for all values of loop variables: 2 for (8 - i) // 3, i < 3."""
    start = dict(terms_of(a)).get((), 0)
    less = _subtracted(a - start)
    under, over = largest(less), largest(a - start + less)
    if not (isinstance(b, int) and b > 0 and isinstance(under, int) and isinstance(over, int)):
        return None
    found = (start - under) // b
    return found if (start + over) // b == found else None


def _long_division(a: Dim, b: Dim) -> tuple[Dim, Dim]:
    """(q, r) with a = q * b + r, and no term of r a multiple of the leading term of b."""
    if b == 0:
        return 0, a
    lead, factor = max(terms_of(b), key=lambda t: len(t[0]))
    whole: Dim = 0
    rest: Dim = 0
    left = a
    for _ in range(LONGEST_DIVISION):
        # the highest first: what is left of them may make lower ones multiples
        for m, c in sorted(terms_of(left), key=lambda t: -len(t[0])):
            q = _exact_quotient(m, c, lead, factor)
            if q is not None:
                whole, left = whole + q, left - q * b
                break
            rest = rest + Expr.of({m: c})
            left = left - Expr.of({m: c})
        if left == 0:
            return whole, rest
    return whole, rest + left


def _exact_quotient(m: Monomial, c: int, lead: Monomial, factor: int) -> Dim | None:
    """(c * m) / (factor * lead) where the division leaves nothing, else None."""
    if c % factor:
        return None
    left = list(m)
    for atom in lead:
        if atom not in left:
            return None
        left.remove(atom)
    return Expr.of({tuple(left): c // factor})


def _is_below(a: Dim, b: Dim) -> bool:
    """Whether 0 <= a < b is certain."""
    top = largest(a)
    if isinstance(top, int) and isinstance(b, int):
        return top < b
    return top is not None and top + 1 == b


def largest(a: Dim) -> Dim | None:
    """The largest value that a sum of loop variables can take; None if unknown or negative."""
    total: Dim = 0
    for m, c in terms_of(a):
        if c < 0:
            return None
        bound: Dim = c
        for atom in m:
            top = _largest_atom(atom)
            if top is None:
                return None
            bound = bound * top
        total = total + bound
    return total


def _largest_atom(a: Atom) -> Dim | None:
    if a.extent is not None:
        return a.extent - 1
    if a.kind == "mod":
        return a.args[1] - 1
    if all(s.extent is None for s in free_atoms_of(a)):
        return Expr.of({(a,): 1})  # a size
    top = largest(a.args[0]) if a.kind == "div" else None
    if top is None:
        return None
    divisor = a.args[1]
    if isinstance(top, int) and isinstance(divisor, int):
        return top // divisor
    whole, rest = _long_division(top + 1, divisor)
    return whole - 1 if rest == 0 else None


@lru_cache(maxsize=_REMEMBERED)
def coefficient(e: Dim, v: Expr) -> tuple[Dim, Dim] | None:
    """(k, rest) with e = k * v + rest and v in neither; None where e is not linear in v."""
    atom = symbol_of(v)
    k: Dim = 0
    rest: Dim = 0
    for m, c in terms_of(e):
        count = m.count(atom)
        if any(atom in free_atoms_of(a) for a in m if a is not atom) or count > 1:
            return None
        if count:
            left = list(m)
            left.remove(atom)
            k = k + Expr.of({tuple(left): c})
        else:
            rest = rest + Expr.of({m: c})
    return k, rest


def rejoined(d: Dim) -> Dim:
    """d with  c * n * (x // n) + c * (x % n)  as  c * x."""
    terms = dict(terms_of(d))
    for m, c in terms.items():
        if len(m) == 1 and m[0].kind == "mod":
            x, n = m[0].args
            quotient = Expr.of({(Atom.make("div", "", (x, n)),): c}) * n
            if terms.items() >= dict(terms_of(quotient)).items():
                return rejoined(d - quotient - Expr.of({m: c}) + c * x)
    return d


def free_atoms_of(a: Atom) -> set[Atom]:
    if a.kind == "sym":
        return {a}
    return {s for arg in a.args for s in symbols(arg)}


@lru_cache(maxsize=_REMEMBERED)
def symbols(d: Dim) -> frozenset[Atom]:
    """All symbols that occur in d."""
    return frozenset(s for m, _ in terms_of(d) for a in m for s in free_atoms_of(a))


def substitute(d: Dim, values: Mapping[Atom, Dim]) -> Dim:
    """d with symbols replaced."""
    if isinstance(d, int):
        return d
    total: Dim = 0
    for m, c in d.terms:
        term: Dim = c
        for a in m:
            term = term * _substitute_atom(a, values)
        total = total + term
    return total


def _substitute_atom(a: Atom, values: Mapping[Atom, Dim]) -> Dim:
    if a.kind == "sym":
        found = values.get(a)
        return Expr.of({(a,): 1}) if found is None else found
    x, y = (substitute(arg, values) for arg in a.args)
    if a.kind == "min":
        return minimum(x, y)
    return divide(x, y)[0 if a.kind == "div" else 1]


def evaluate(d: Dim, values: Mapping[Atom, int]) -> int:
    """The value of d; a missing symbol is a KeyError."""
    if isinstance(d, int):
        return d
    total = 0
    for m, c in d.terms:
        for a in m:
            c *= _evaluate_atom(a, values)
        total += c
    return total


def _evaluate_atom(a: Atom, values: Mapping[Atom, int]) -> int:
    if a.kind == "sym":
        return values[a]
    x, y = (evaluate(arg, values) for arg in a.args)
    if a.kind == "min":
        return min(x, y)
    return x // y if a.kind == "div" else x % y


@dataclass(frozen=True)
class Guard:
    """A question that was asked about a symbolic size, and its answer."""

    expr: Dim
    limit: int
    outcome: bool  # of  expr <= limit
    equal: bool = False  # or of  expr == limit

    def holds(self, values: Mapping[Atom, int]) -> bool:
        value = evaluate(self.expr, values)
        return (value == self.limit if self.equal else value <= self.limit) == self.outcome


@dataclass
class ShapeEnv:
    """The sizes behind the symbols of one trace; questions about them become guards."""

    hints: dict[Atom, int]
    guards: list[Guard] = field(default_factory=list)
    number: Callable[[Atom], Any] | None = None  # gives what stands for a symbol as a number
    closed: bool = False  # the trace is over: its sizes are plain numbers, without guards

    def value(self, d: Dim) -> int:
        """The number behind a dimension."""
        return evaluate(d, self.hints)

    def at_most(self, d: Dim, limit: int) -> bool:
        """Whether d <= limit; a guard, unless it is so for all sizes of at least 2."""
        outcome = self.value(d) <= limit
        if outcome:
            top = smallest(-d)
            certain = top is not None and -top <= limit
        else:
            low = smallest(d)
            certain = low is not None and low > limit
        if not certain:
            d, limit, factor = _normal(d, limit)
            self._note(Guard(d, limit // factor, outcome))
        return outcome

    def equal(self, a: Dim, b: Dim) -> bool:
        """Whether two dimensions are equal; a guard, unless that is certain."""
        difference = a - b
        outcome = self.value(difference) == 0
        if not outcome and any((smallest(d) or 0) > 0 for d in (difference, -difference)):
            return False
        d, limit, factor = _normal(difference, 0)
        if limit % factor == 0:
            self._note(Guard(d, limit // factor, outcome, equal=True))
        return outcome

    def _note(self, guard: Guard) -> None:
        if not self.closed and not isinstance(guard.expr, int) and guard not in self.guards:
            self.guards.append(guard)

    def pinned(self) -> list[Atom]:
        """Symbols of which the guards leave one value."""
        out = []
        for atom in self.hints:
            own = [g for g in self.guards if is_symbol_of(g.expr, atom)]
            low = max((g.limit + 1 for g in own if not (g.outcome or g.equal)), default=2)
            tops = [g.limit for g in own if g.outcome]
            if any(g.equal and g.outcome for g in own) or low in tops:
                out.append(atom)
        return out

    def pin(self, d: Dim) -> int:
        """The number behind a dimension, which it has to be from now on."""
        value = self.value(d)
        self.equal(d, value)
        return value


def _normal(d: Dim, limit: int) -> tuple[Dim, int, int]:
    """(e, k, f) with d <= limit as f * e <= k: no constant, no common factor on the left."""
    terms = dict(terms_of(d))
    limit -= terms.pop((), 0)
    factor = gcd(*terms.values()) or 1
    return Expr.of({m: c // factor for m, c in terms.items()}), limit, factor


def is_symbol_of(d: Dim, atom: Atom) -> bool:
    """Whether a dimension is this symbol and nothing else."""
    return isinstance(d, Expr) and d.terms == (((atom,), 1),)


def smallest(d: Dim) -> int | None:
    """A number that d is never below, for sizes of at least 2; None if there is none to see."""
    total = 0
    for m, c in terms_of(d):
        if m and c < 0:
            return None
        low = c
        for atom in m:
            low *= 2 if atom.kind == "sym" and atom.extent is None else 0
        total += low
    return total


_env: ContextVar[ShapeEnv | None] = ContextVar("dualgrad_shape_env", default=None)


@contextmanager
def shape_env(env: ShapeEnv) -> Iterator[ShapeEnv]:
    """Answer questions about symbolic sizes from `env` inside the block."""
    token = _env.set(env)
    try:
        yield env
    finally:
        _env.reset(token)


def current_env() -> ShapeEnv | None:
    """What answers questions about symbolic sizes right now."""
    return _env.get()


def at_most(d: Dim, limit: int) -> bool:
    """Whether d <= limit; about a symbolic size the answer is recorded as a guard."""
    if isinstance(d, int):
        return d <= limit
    env = _env.get()
    if env is None:
        raise LookupError(f"the size {d} is symbolic and no trace is under way to decide it")
    return env.at_most(d, limit)


def settled(d: Dim) -> Dim:
    """d, or 0 or 1 if that is what a size computed from others is.

    Sizes of 0 and 1 are always known (dimensions of one element broadcast, and orders of
    summation look at them), so whether a computed one is so becomes a guard.
    """
    if isinstance(d, int) or is_symbol(d) or _env.get() is None or not at_most(d, 1):
        return d
    return 0 if at_most(d, 0) else 1


def same(a: Dim, b: Dim) -> bool:
    """Whether two dimensions are equal; about symbolic sizes the answer becomes a guard."""
    if a is b or a == b:
        return True
    if isinstance(a, int) and isinstance(b, int):
        return False
    env = _env.get()
    if env is None:
        raise LookupError(f"the sizes {a} and {b} are symbolic and no trace is to decide")
    return env.equal(a, b)
