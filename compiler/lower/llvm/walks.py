"""Filling the tables of walks before a matrix product."""

from __future__ import annotations

from collections.abc import Mapping

from dualgrad.compiler.ir.dims import Atom, Dim, Expr, sym, symbol_of, terms_of
from dualgrad.compiler.kernel.ir import Contract, Kernel, Walk, along
from dualgrad.compiler.kernel.walks import ENTRY_WORDS, Table, tables_of
from dualgrad.compiler.lower.llvm.emit import Function
from dualgrad.compiler.lower.llvm.frame import Parts
from dualgrad.compiler.lower.llvm.gemm_walk import entry
from dualgrad.compiler.lower.llvm.kernels import KernelCode
from dualgrad.runtime.records import dataclass


@dataclass(frozen=True)
class Division:
    """What counts along while a walk goes on: a number, its quotient and its remainder by
    `divisor`.  The number of the first division is the walk's index, of others the quotient of the
    one before."""

    divisor: Dim
    quotient: Expr
    remainder: Expr


def divisions_of(walk: Walk) -> tuple[Dim, list[Division]]:
    """The place of a walk in terms of its index and of what divisions carry along: nothing is left
    to divide, as long as every quotient is divided by one number only."""
    place, number = walk.place, walk.var
    divisions: list[Division] = []
    while True:
        divisor = _divisor_of(place, number)
        if divisor is None:
            return place, divisions
        level = len(divisions)
        division = Division(divisor, sym(f"q{level}", None), sym(f"r{level}", None))
        divisions.append(division)
        place = _replaced(place, number, division)
        number = division.quotient


def _divisor_of(d: Dim, number: Expr) -> Dim | None:
    """A number that `number` is divided by, somewhere in d."""
    for monomial, _ in terms_of(d):
        for atom in monomial:
            if atom.kind not in ("div", "mod"):
                continue
            if atom.args[0] == number:
                return atom.args[1]
            inner = _divisor_of(atom.args[0], number)
            if inner is not None:
                return inner
    return None


def _replaced(d: Dim, number: Expr, division: Division) -> Dim:
    """d with the quotient and the remainder of a number as those of a division."""
    total: Dim = 0
    for monomial, c in terms_of(d):
        term: Dim = c
        for atom in monomial:
            term = term * _replaced_atom(atom, number, division)
        total = total + term
    return total


def _replaced_atom(atom: Atom, number: Expr, division: Division) -> Dim:
    if atom.kind not in ("div", "mod"):
        return Expr.of({(atom,): 1})
    if atom.args == (number, division.divisor):
        return division.quotient if atom.kind == "div" else division.remainder
    x = _replaced(atom.args[0], number, division)
    return x // atom.args[1] if atom.kind == "div" else x % atom.args[1]


def walk_function(function: str, kernel: Kernel, slots: Mapping[str, int], parts: Parts) -> str:
    """`function`(frame, tables) fills the tables of a contraction."""
    (c,) = kernel.body
    assert isinstance(c, Contract)
    signature = f"internal void {function}(ptr %frame, ptr %tables)"
    code = KernelCode(signature, slots, parts)
    start: Dim = 0
    for table in tables_of(c.a, c.b, c.m, c.n, c.k):
        _fill(code, table, code.f.at("%tables", code.dim(start), "i64"))
        start = start + table.words
    return code.finish()


def _fill(code: KernelCode, table: Table, memory: str) -> None:
    f = code.f
    count = code.dim(table.extent)
    with f.when(f.compare("sgt", count, 0)), code.scope():
        _places(code, table, memory)
        _runs(f, memory, str(count))


def _places(code: KernelCode, table: Table, memory: str) -> None:
    f, step = code.f, table.step
    index = sym("walk", table.extent) if not isinstance(step, Walk) else step.var
    place, divisions = divisions_of(step) if isinstance(step, Walk) else (along(step, index), [])
    known = [code.dim(d.divisor) for d in divisions]
    turn = f.repeat()
    i = turn.carry("i64", 0)
    carried = [(turn.carry("i64", 0), turn.carry("i64", 0)) for _ in divisions]
    with code.scope():
        code.atoms[symbol_of(index)] = i
        for division, (quotient, remainder) in zip(divisions, carried, strict=True):
            code.atoms[symbol_of(division.quotient)] = quotient
            code.atoms[symbol_of(division.remainder)] = remainder
        f.store("i64", code.dim(place), entry(f, memory, i))
    following = []
    carry: str | int = 1
    for divisor, (quotient, remainder) in zip(known, carried, strict=True):
        more = f.add(remainder, carry)
        full = f.compare("eq", more, divisor)
        carry = f.value(f"zext i1 {full} to i64")
        following += [f.add(quotient, carry), f.select(full, 0, more)]
    i = f.add(i, 1)
    turn.close(f.compare("slt", i, code.dim(table.extent)), [i, *following])


def _runs(f: Function, memory: str, count: str) -> None:
    """The lengths of runs, from the last index on."""
    last = f.sub(count, 1)
    f.store("i64", 1, f.at(entry(f, memory, last), 1, "i64"))
    with f.loop(1, count) as back:
        here = entry(f, memory, f.sub(last, back))
        after = f.at(here, ENTRY_WORDS, "i64")
        distance = f.sub(f.load("i64", after), f.load("i64", here))
        longer = f.add(f.load("i64", f.at(after, 1, "i64")), 1)
        run = f.select(f.compare("eq", distance, 1), longer, 1)
        f.store("i64", run, f.at(here, 1, "i64"))
