"""Collapsing adjacent loops into one where every access allows it.

Loops i < n and j < m collapse if in every index expression the coefficient of i is m times that
of j: then one variable that takes j's place counts through both.  Fewer, longer loops.
"""

from __future__ import annotations

from collections.abc import Iterable

from dualgrad.compiler.ir.dims import Atom, Dim, Expr, coefficient, product, symbol_of
from dualgrad.compiler.kernel.scalar import Scalar, children_first

Var = tuple[Expr, Dim]  # a loop variable and its extent
Run = list[Var]


def indices_of(values: Iterable[Scalar]) -> set[Dim]:
    """All index expressions below some scalars."""
    out: set[Dim] = set()
    for e in children_first(tuple(values)):
        if e.op in ("load", "gather"):
            out.add(e.memory[1])
        elif e.op == "index":
            out.add(e.position)
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
