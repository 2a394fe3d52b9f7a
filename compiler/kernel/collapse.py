"""Collapsing adjacent loops into one where every access allows it.

Loops i < n and j < m collapse if in every index expression the coefficient of i is m times that
of j: then one variable that takes j's place counts through both.  Fewer, longer loops.
"""

from __future__ import annotations

from collections.abc import Iterable

from dualgrad.compiler.ir.dims import (
    Atom,
    Dim,
    Expr,
    coefficient,
    product,
    substitute,
    sym,
    symbol_of,
    terms_of,
)
from dualgrad.compiler.kernel.scalar import Scalar, children_first

Var = tuple[Expr, Dim]  # a loop variable and its extent
Run = list[Var]
SHORTEST = 16  # iterations of the innermost loop for which others are split


def indices_of(values: Iterable[Scalar]) -> set[Dim]:
    """All index expressions below some scalars."""
    out: set[Dim] = set()
    for e in children_first(tuple(values)):
        if e.op in ("load", "gather"):
            out.add(e.memory[1])
        elif e.op == "index":
            out.add(e.position)
    return out


def refined(variables: list[Var], indices: set[Dim]) -> tuple[list[Var], dict[Atom, Dim]]:
    """Variables of which index expressions take quotients, as their digits, and what these make
    of the variables: then no index is computed by division.

    The last digit of the last variable has to be long enough for vectors.
    """
    out: list[Var] = []
    change: dict[Atom, Dim] = {}
    for k, (var, extent) in enumerate(variables):
        shortest = SHORTEST if k == len(variables) - 1 else 2
        digits: list[Var] = []
        rest: Var = (var, extent)
        while (size := _divisor(rest, indices)) >= (2 if digits else shortest):
            low = sym(f"{var}.{len(digits)}", size)
            high = sym(f"{var}.{len(digits) + 1}", rest[1] // size)
            moved: dict[Atom, Dim] = {symbol_of(rest[0]): high * size + low}
            change = {a: substitute(d, moved) for a, d in change.items()} | moved
            indices = {substitute(i, moved) for i in indices}
            digits.insert(0, (low, size))
            rest = (high, rest[1] // size)
        out += [rest, *digits]
    return out, change


def _divisor(variable: Var, indices: set[Dim]) -> int:
    """The smallest number that an index divides a variable by and that divides its extent, or
    0."""
    var, extent = variable
    if not isinstance(extent, int):
        return 0
    found = {
        size
        for index in indices
        for monomial, _ in terms_of(index)
        for atom in monomial
        for size in _divisors(atom, var)
    }
    return min((n for n in found if 1 < n < extent and extent % n == 0), default=0)


def _divisors(atom: Atom, var: Expr) -> set[int]:
    """The numbers that a variable is divided by, somewhere in an atom."""
    out: set[int] = set()
    if atom.kind in ("div", "mod") and atom.args[0] == var and isinstance(atom.args[1], int):
        out.add(atom.args[1])
    for arg in atom.args:
        for monomial, _ in terms_of(arg):
            for inner in monomial:
                out |= _divisors(inner, var)
    return out


def collapsible(variables: list[Var], indices: Iterable[Dim]) -> list[Run]:
    """Runs of adjacent variables that can become one loop each."""
    indices = [i for i in indices if not isinstance(i, int)]
    runs: list[Run] = []
    for var in reversed(variables):
        if runs and all(_follows(i, var, runs[0]) for i in indices):
            runs[0].insert(0, var)
        else:
            runs.insert(0, [var])
    return runs


def _follows(index: Dim, var: Var, run: Run) -> bool:
    outer = coefficient(index, var[0])
    inner = coefficient(index, run[-1][0])
    if outer is None or inner is None:
        return False
    return outer[0] == inner[0] * extent_of(run)


def extent_of(run: Run) -> Dim:
    return product(n for _, n in run)


def renamed(runs: list[Run], positions: Iterable[Dim]) -> dict[Atom, Dim]:
    """The change of variables that collapses runs: a run's innermost variable counts through all
    of it, the others stand still.  For index expressions that `collapsible` has seen, only."""
    change: dict[Atom, Dim] = {}
    for run, position in zip(runs, positions, strict=True):
        change.update({symbol_of(v): 0 for v, _ in run[:-1]})
        change[symbol_of(run[-1][0])] = position
    return change
