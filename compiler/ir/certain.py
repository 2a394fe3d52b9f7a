"""What is certain of integer expressions, whatever their sizes and loop variables are."""

from __future__ import annotations

from operator import attrgetter

from dualgrad.compiler.ir.dims import Atom, Dim, Expr, coefficient, substitute, symbols, terms_of


def is_natural(d: Dim) -> bool:
    """Whether d >= 0 is certain, for all values of loop variables and all sizes of at least 2."""
    loops = [a for a in symbols(d) if a.extent is not None]
    while loops:
        for a in sorted(loops, key=attrgetter("sort_key")):
            least = _least(d, a)
            if least is not None:
                d = least
                break
        else:
            return False
        loops = [a for a in symbols(d) if a.extent is not None]
    beyond: dict[Atom, Dim] = {a: Expr.of({(a,): 1, (): 2}) for a in symbols(d)}
    return all(c >= 0 for _, c in terms_of(substitute(d, beyond)))  # of what sizes are beyond 2


def _least(d: Dim, loop: Atom) -> Dim | None:
    """What d is at least, without this loop variable; None if that is not to be seen."""
    assert loop.extent is not None
    split = coefficient(d, Expr.of({(loop,): 1}))
    if split is None:
        return None
    step, rest = split
    if is_natural(step):
        return rest
    return rest + step * (loop.extent - 1) if is_natural(-step) else None
