"""Passes of a team over the elements of a row.

With n lanes, thread t has elements  e + v,  e = r*n + t*V,  v < V  of round r, where V is its share
of the lanes.  All threads go through the same rounds; the last is masked where n does not divide
the length of the row.

Elements that are neighbours in memory are read and written V at a time, where the address allows
it (`dg_read`).  All are read before any is written; iterations are independent, so that is right.

Rounds are a loop, or, if values of elements stay in registers (see `teams`), unrolled.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

from dualgrad.compiler.ir.dims import Dim, coefficient, symbol_of
from dualgrad.compiler.kernel.ir import Buffer, Loop, Stmt, Store
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.compiler.lower.cuda.combine import CombineCode
from dualgrad.compiler.lower.cuda.ctype import memory_type, register_type
from dualgrad.compiler.lower.cuda.kernel import Signature
from dualgrad.compiler.lower.cuda.scalars import Formulas
from dualgrad.compiler.lower.cuda.space import step_along
from dualgrad.compiler.lower.cuda.teams import (
    Kept,
    Pass,
    Team,
    is_plain,
    roots_of,
    size_of,
)
from dualgrad.runtime.records import dataclass

_IN_FLIGHT = 16  # elements of a thread whose loads are under way at the same time
_LONGEST_BODY = 512  # primitives in the body of a loop that is unrolled for that

Element = Callable[[], None]


@dataclass(frozen=True)
class Sweep:
    """One pass, as its rounds need it."""

    stmt: Pass
    share: int  # elements of a thread in a round
    reads: tuple[Scalar, ...]  # loads of neighbours
    writes: tuple[Store, ...]  # stores of neighbours
    known: dict[Scalar, str]  # what is in registers: arrays with an item for each round
    new: dict[Scalar, str]  # what this pass puts there
    element: Element

    @property
    def first(self) -> str:
        """A thread's first element of the first round."""
        return "t" if self.share == 1 else f"t * {self.share}"


class SweepCode(CombineCode):
    """Writes one kernel: passes over the elements of a row."""

    def __init__(
        self, signature: Signature, formulas: Formulas, team: Team, kept: list[Kept]
    ) -> None:
        super().__init__(signature, formulas, team)
        self.kept = kept
        self.number = 0  # of the next pass
        self.arrays: dict[Scalar, str] = {}
        self.aligned: dict[tuple[str, Dim, int], str] = {}
        self.written: dict[Store, str] = {}  # what holds the neighbours that will be stored

    def sweep(self, stmt: Pass, lanes: int, element: Element) -> None:
        """Run `element` for every element of a row, in the thread that it belongs to."""
        self.enter(_body_of(stmt), {symbol_of(stmt.var)})
        sweep = self.prepared(stmt, self.team.share(lanes), element)
        if self.kept:
            self.unrolled(sweep, min(lanes, self.team.lanes))
        else:
            self.rolled(sweep, min(lanes, self.team.lanes))

    def prepared(self, stmt: Pass, share: int, element: Element) -> Sweep:
        """What the rounds of a pass need; asks which addresses are aligned."""
        k = self.number
        self.number += 1
        known = {x.value: self.arrays[x.value] for x in self.kept if x.first < k <= x.last}
        new = {x.value: self.w.new_name("k") for x in self.kept if x.first == k}
        self.arrays.update(new)
        reads: list[Scalar] = []
        writes: list[Store] = []
        if is_plain(stmt) and share > 1:
            reads = [e for e in self.needed(stmt, known) if e.op == "load"]
            reads = [e for e in reads if _is_step(e.memory[1], stmt)]
            writes = [s for s in stores_of(stmt) if s.position is None and _is_step(s.index, stmt)]
        for buffer, index in [e.memory for e in reads] + [(s.buffer, s.index) for s in writes]:
            self.alignment(buffer, index, stmt, share)
        return Sweep(stmt, share, tuple(reads), tuple(writes), known, new, element)

    def needed(self, stmt: Pass, known: dict[Scalar, str]) -> list[Scalar]:
        """What a pass computes or reads, given what is known."""
        met: dict[Scalar, None] = {}
        stack = list(roots_of(stmt))
        while stack:
            e = stack.pop()
            if e not in met and e not in known and self.find(e) is None:
                met[e] = None
                stack += reversed(e.args)
        return list(met)

    # -- rounds -------------------------------------------------------------------------------

    def rolled(self, sweep: Sweep, lanes: int) -> None:
        """The rounds as a loop."""
        length = sweep.stmt.extent
        extent = self.dim(length)
        if isinstance(length, int):
            whole = str(length - length % lanes)
        else:
            extent, whole = self.w.new_name("length"), self.w.new_name("whole")
            self.w.line(f"const dg_index {extent} = {self.dim(length)};")
            self.w.line(f"const dg_index {whole} = {extent} - ({extent} & {lanes - 1});")
        if whole != "0":
            turns = self.turns(sweep)
            if turns > 1:
                self.w.line(f"#pragma unroll {turns}")
            with self.block(f"for (dg_index e = {sweep.first}; e < {whole}; e += {lanes})"):
                self.round(sweep, None)
        if whole != extent:
            with self.block("" if isinstance(length, int) else f"if ({whole} < {extent})"):
                start = sweep.first if whole == "0" else f"{whole} + {sweep.first}"
                self.w.line(f"const dg_index e = {start};")
                self.round(sweep, extent)

    def turns(self, sweep: Sweep) -> int:
        """How many rounds should be under way at the same time."""
        size = sum(size_of(e) for e in roots_of(sweep.stmt))
        turns = _IN_FLIGHT // sweep.share
        while turns > 1 and turns * sweep.share * size > _LONGEST_BODY:
            turns //= 2
        return turns

    def unrolled(self, sweep: Sweep, lanes: int) -> None:
        """All rounds side by side.  What they keep of memory is read before anything else, so
        that all of it is on its way at the same time."""
        length, share = sweep.stmt.extent, sweep.share
        assert isinstance(length, int)
        early = [e for e in sweep.new if e.op == "load" and _is_step(e.memory[1], sweep.stmt)]
        for e, name in sweep.new.items():
            item = memory_type(e.dtype) if e in early else register_type(e.dtype)
            kind = item if share == 1 else f"dg_vec<{item}, {share}>"
            self.w.line(f"{kind} {name}[{-(-length // lanes)}];")
        if early:
            self.rounds(sweep, lanes, lambda length: self.read_early(sweep, early, length))
        known = sweep.known | {e: sweep.new[e] for e in early}
        new = {e: name for e, name in sweep.new.items() if e not in early}
        reads = tuple(e for e in sweep.reads if e not in early)
        rest = replace(sweep, known=known, new=new, reads=reads)
        self.rounds(rest, lanes, lambda length: self.round(rest, length))

    def read_early(self, sweep: Sweep, loads: list[Scalar], length: str | None) -> None:
        """Loads of one round, for registers; masked if the length of the row is given."""
        left = None if length is None else f"(int)({length} - e)"
        for e in loads:
            self.w.line(f"{sweep.new[e]}[r] = {self.neighbours(e, sweep, left)};")

    def rounds(self, sweep: Sweep, lanes: int, body: Callable[[str | None], None]) -> None:
        """`body` in each round; it is given the length of the row in one that is masked."""
        assert isinstance(sweep.stmt.extent, int)
        whole, rest = divmod(sweep.stmt.extent, lanes)
        start = f"const dg_index e = r * {lanes} + {sweep.first};"
        if whole:
            self.w.line("#pragma unroll")
            with self.block(f"for (int r = 0; r < {whole}; ++r)"):
                self.w.line(start)
                body(None)
        if rest:
            with self.block(""):
                self.w.line(f"const int r = {whole};")
                self.w.line(start)
                body(str(sweep.stmt.extent))

    def round(self, sweep: Sweep, length: str | None) -> None:
        """One round, from element e on; masked if the length of the row is given."""
        share = sweep.share
        self.atoms[symbol_of(sweep.stmt.var)] = "e"
        if length is None:
            self.items_of(sweep, None)
        elif share == 1 or (isinstance(sweep.stmt.extent, int) and sweep.stmt.extent % share == 0):
            with self.block(f"if (e < {length})"):  # a thread has all of its share, or none
                self.items_of(sweep, None)
        else:
            left = self.w.new_name("left")
            self.w.line(f"const int {left} = (int)({length} - e);")
            self.items_of(sweep, left)

    def items_of(self, sweep: Sweep, left: str | None) -> None:
        """A thread's elements of a round; the first `left` of them if that is given."""
        share = sweep.share
        if share == 1:
            self.one(sweep, {})
            return
        names = {}
        for x in sweep.reads:
            kind = f"const dg_vec<{memory_type(x.dtype)}, {share}>"
            names[x] = self.w.new_name("x")
            self.w.line(f"{kind} {names[x]} = {self.neighbours(x, sweep, left)};")
        self.written = {s: self.w.new_name("y") for s in sweep.writes}
        for s, name in self.written.items():
            self.w.line(f"dg_vec<{memory_type(s.buffer.dtype)}, {share}> {name};")
        self.w.line("#pragma unroll")
        mask = self.block(f"if (v < {left})") if left else nullcontext()
        with self.block(f"for (int v = 0; v < {share}; ++v)"), mask:
            self.neighbour(sweep, names)
        self.atoms[symbol_of(sweep.stmt.var)] = "e"
        for s, name in self.written.items():
            address, aligned = self.address(s.buffer, s.index), self.flag(s.buffer, s.index, sweep)
            self.w.line(f"dg_write<{share}>({address}, {name}, {aligned}, {left or share});")
        self.written = {}

    def neighbour(self, sweep: Sweep, names: dict[Scalar, str]) -> None:
        """One of neighbouring elements."""
        self.w.line("const dg_index i = e + v;")
        self.atoms[symbol_of(sweep.stmt.var)] = "i"
        self.one(sweep, names)

    def one(self, sweep: Sweep, names: dict[Scalar, str]) -> None:
        """One element; `names` are what was read with its neighbours."""
        item = "" if sweep.share == 1 else ".x[v]"
        for x, name in names.items():
            self.keep(x, _as_value(x, f"{name}.x[v]"))
        for x, name in sweep.known.items():
            self.keep(x, _as_value(x, f"{name}[r]{item}"))
        for x, name in sweep.new.items():
            self.w.line(f"{name}[r]{item} = {self.value(x)};")
        sweep.element()

    # -- memory -------------------------------------------------------------------------------

    def alignment(self, buffer: Buffer, index: Dim, stmt: Pass, share: int) -> str:
        """The name of whether the elements of a row start at an address that is good for accesses
        of so many; in the text from where it is first asked for, which must not be in a loop."""
        split = coefficient(index, stmt.var)
        assert split is not None
        key = (buffer.name, split[1], share)
        if key not in self.aligned:
            self.aligned[key] = name = self.w.new_name("aligned")
            test = f"dg_aligned<{share}>({self.address(buffer, split[1])})"
            self.w.line(f"const bool {name} = {test};")
        return self.aligned[key]

    def flag(self, buffer: Buffer, index: Dim, sweep: Sweep) -> str:
        return self.alignment(buffer, index, sweep.stmt, sweep.share)

    def neighbours(self, e: Scalar, sweep: Sweep, left: str | None) -> str:
        """The elements that a thread reads in a round, from e on: all of its share, or `left`."""
        buffer, index = e.memory
        self.atoms[symbol_of(sweep.stmt.var)] = "e"
        if sweep.share == 1:
            element, zero = self.element(buffer, index), f"({memory_type(e.dtype)})0"
            return element if left is None else f"{left} > 0 ? {element} : {zero}"
        return (
            f"dg_read<{sweep.share}>({self.address(buffer, index)}, "
            f"{self.flag(buffer, index, sweep)}, {left or sweep.share})"
        )

    def put(self, stores: tuple[Store, ...]) -> None:
        """Stores of an element, as one parallel assignment; neighbours are collected."""
        values = [self.value(s.value) for s in stores]
        self.assign(tuple(s for s in stores if s not in self.written))
        for s, value in zip(stores, values, strict=True):
            if s in self.written:
                self.w.line(f"{self.written[s]}.x[v] = {value};")
        self.forget_loads({s.buffer for s in stores})


def _body_of(stmt: Pass) -> tuple[Stmt, ...]:
    return stmt.body if isinstance(stmt, Loop) else (stmt,)


def stores_of(stmt: Pass) -> tuple[Store, ...]:
    """What a plain pass stores for an element."""
    if isinstance(stmt, Loop):
        return tuple(s for s in stmt.body if isinstance(s, Store))
    return stmt.stores


def _is_step(index: Dim, stmt: Pass) -> bool:
    """Whether elements that follow one another are neighbours in memory."""
    return step_along(index, stmt.var) == 1


def _as_value(e: Scalar, text: str) -> str:
    """A value that may have come from memory, where bools are bytes."""
    return f"({text} != 0)" if e.dtype.kind == "b" else text
