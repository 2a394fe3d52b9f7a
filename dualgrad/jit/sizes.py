"""Symbolic sizes of a trace: which dimensions are symbols, and what that makes of types."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dualgrad.compiler.ir.dims import (
    Atom,
    Dim,
    Expr,
    Guard,
    ShapeEnv,
    evaluate,
    shape_env,
    sym,
    symbol_of,
    terms_of,
)
from dualgrad.compiler.ir.size import traced_size
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import Unit
from dualgrad.jit.places import SIZE, STRIDE, Place
from dualgrad.runtime.records import dataclass, field

if TYPE_CHECKING:
    from dualgrad.jit.survey import Survey

Shape = tuple[Dim, ...]


@dataclass
class Symbols:
    """The symbols of one trace: types and layouts of the tensors that have some, by id."""

    values: dict[Atom, int] = field(default_factory=dict)
    types: dict[int, TensorType] = field(default_factory=dict)
    layouts: dict[int, Shape] = field(default_factory=dict)
    places: list[tuple[Atom, Place]] = field(default_factory=list)
    env: ShapeEnv = field(init=False)
    _known: dict[int, Expr] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.env = ShapeEnv(self.values)

    @classmethod
    def of(cls, places: list[Place]) -> Symbols:
        """Symbols for the sizes and strides among these places."""
        out = cls()
        for place in places:
            if place.kind == SIZE:
                x, d = place.owner, place.key
                shape = list(out.types.get(id(x), x._type).shape)
                shape[d] = out._size(x._type.shape[d], place)
                out.types[id(x)] = x._type.with_shape(tuple(shape))
            elif place.kind == STRIDE:
                x, d = place.owner, place.key
                layout = list(out.layouts.get(id(x), x.layout))
                layout[d] = out._new(x.layout[d], place)
                out.layouts[id(x)] = tuple(layout)
        return out

    def _new(self, value: int, place: Place) -> Expr:
        symbol = sym(f"s{len(self.values)}")
        self.values[symbol_of(symbol)] = value
        self.places.append((symbol_of(symbol), place))
        return symbol

    def _size(self, value: int, place: Place) -> Expr:
        """The symbol of a size; equal sizes share one."""
        symbol = self._known.get(value)
        if symbol is None:
            symbol = self._known[value] = self._new(value, place)
        else:
            self.places.append((symbol_of(symbol), place))
        return symbol

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Let questions about the symbols be answered inside the block."""
        if not self.values:
            yield
            return
        with shape_env(self.env):
            yield

    def read(self, found: Survey) -> SizeFacts:
        """Which facts of a survey the symbols stand for."""
        numbers = {place.identity: k for k, place in enumerate(found.places)}
        facts = [(atom, numbers[place.identity]) for atom, place in self.places]
        return SizeFacts(tuple(facts), tuple(self.env.guards))

    @property
    def pinned(self) -> list[Place]:
        """Places of sizes that have to be what they are in this call."""
        fixed = set(self.env.pinned())
        return [place for atom, place in self.places if atom in fixed]

    def shown(self, shape: Shape) -> tuple[Any, ...]:
        """A shape as the user sees it."""
        return tuple([traced_size(d, self.env) for d in shape])


class SizeFacts:
    """Where a path finds the values of its symbols: pairs of a symbol and the number of a fact.

    `holds(facts)` says whether equal ones are equal and the guards hold.
    """

    def __init__(self, facts: tuple[tuple[Atom, int], ...], guards: tuple[Guard, ...]) -> None:
        self.facts, self.guards = facts, guards
        self.numbers = tuple([k for _, k in facts])
        self.holds = self._check()

    def values(self, facts: list[Any]) -> dict[Atom, int]:
        return {atom: facts[k] for atom, k in self.facts}

    def _check(self) -> Callable[[list[Any]], bool]:
        first: dict[Atom, int] = {}
        terms = []
        for atom, k in self.facts:
            if first.setdefault(atom, k) != k:
                terms.append(f"f[{first[atom]}] == f[{k}]")
        names = {atom: f"f[{k}]" for atom, k in first.items()}
        for g in self.guards:
            yes, no = ("==", "!=") if g.equal else ("<=", ">")
            order = yes if g.outcome else no
            terms.append(f"{python_text(g.expr, names)} {order} {g.limit}")
        text = f"lambda f: {' and '.join(terms) or 'True'}"
        return eval(text, {"__builtins__": {}, "min": min})  # type: ignore[no-any-return]


def python_text(d: Dim, names: dict[Atom, str]) -> str:
    """A dimension as a Python expression."""
    parts = []
    for m, c in terms_of(d):
        parts.append(" * ".join([str(c), *(_atom_text(a, names) for a in m)]))
    return f"({' + '.join(parts) or '0'})"


def _atom_text(a: Atom, names: dict[Atom, str]) -> str:
    if a.kind == "sym":
        return names[a]
    x, y = (python_text(arg, names) for arg in a.args)
    if a.kind == "min":
        return f"min({x}, {y})"
    return f"({x} {'//' if a.kind == 'div' else '%'} {y})"


def concrete_unit(unit: Any, values: dict[Atom, int]) -> Any:
    """A unit with numbers for the sizes among its static parameters."""

    def number(n: Dim, offset: bool = False) -> Dim:
        return evaluate(n, values)

    out: Unit = unit.generalized(number)
    return out
