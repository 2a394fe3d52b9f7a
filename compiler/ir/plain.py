"""Dimensions and types as numbers, strings and lists, for files.

    Dim  ::= int | [[coefficient, Atom*]*]
    Atom ::= "name" | [kind, Dim, Dim]
    Type ::= [Dim*, dtype, weak, device]

What is read back is interned again, so it equals what was written.  Loop variables are refused
(ValueError): outside of a program they mean nothing.
"""

from __future__ import annotations

from typing import Any

from dualgrad.compiler.ir.dims import Atom, Dim, Expr, Guard
from dualgrad.compiler.ir.types import TensorType
from dualgrad.runtime.dtype import as_dtype

Plain = Any  # int, float, str, bool, or lists of them


def plain_dim(d: Dim) -> Plain:
    if isinstance(d, int):
        return d
    return [[c, *map(plain_atom, m)] for m, c in d.terms]


def plain_atom(a: Atom) -> Plain:
    if a.extent is not None:
        raise ValueError(f"a loop variable: {a}")
    return a.name if a.kind == "sym" else [a.kind, *map(plain_dim, a.args)]


def read_dim(plain: Plain) -> Dim:
    if isinstance(plain, int):
        return plain
    return Expr.of({tuple(map(read_atom, m)): c for c, *m in plain})


def read_atom(plain: Plain) -> Atom:
    if isinstance(plain, str):
        return Atom.make("sym", plain)
    kind, a, b = plain
    return Atom.make(kind, "", (read_dim(a), read_dim(b)))


def plain_type(t: TensorType) -> Plain:
    return [[plain_dim(n) for n in t.shape], t.dtype.name, t.weak, t.device]


def read_type(plain: Plain) -> TensorType:
    shape, dtype, weak, device = plain
    return TensorType(tuple(map(read_dim, shape)), as_dtype(dtype), weak, device)


def plain_guard(g: Guard) -> Plain:
    return [plain_dim(g.expr), g.limit, g.outcome, g.equal]


def read_guard(plain: Plain) -> Guard:
    expr, limit, outcome, equal = plain
    return Guard(read_dim(expr), limit, outcome, equal)
