"""Kernels of the loop IR as LLVM functions.

A kernel becomes `void @name(ptr %frame, i64 %chunk, i64 %tid)`.  The frame is an array of 8-byte
slots (see `Frame`).  The iterations of an outermost parallel loop are cut into the number of
chunks that stands in the frame; `chunk` says which one to run.

Vector loops run on vectors of four registers while they can, then on single masked registers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import groupby

from dualgrad.compiler.ir.dims import Atom, Dim, Expr, symbol_of
from dualgrad.compiler.kernel import ir
from dualgrad.compiler.kernel.ir import Accumulator, Buffer, Check, Loop, Reduce, Stmt, Store
from dualgrad.compiler.kernel.rounds import is_parallel
from dualgrad.compiler.kernel.scalar import Formula, children_first
from dualgrad.compiler.lower.llvm.advance import NO_PITCH, Pitch, pitches_of, streams_of
from dualgrad.compiler.lower.llvm.emit import Value
from dualgrad.compiler.lower.llvm.frame import CHUNKS, START, STOP, Parts
from dualgrad.compiler.lower.llvm.kept_rows import KeptRow, kept_apart
from dualgrad.compiler.lower.llvm.lanes import (
    Lanes,
    constant,
    element,
    in_memory,
    iota,
    splat,
    vector,
)
from dualgrad.compiler.lower.llvm.past_caches import LEAST, finish_stores, written_only
from dualgrad.compiler.lower.llvm.scalars import ScalarCode
from dualgrad.runtime.program import Target

UNROLL = 4  # registers that a vector in a main loop spans


class KernelCode(ScalarCode):
    """Writes one function: loops and reductions on top of scalar expressions."""

    def __init__(
        self, signature: str, slots: Mapping[str, int], parts: Parts, rare: bool = False
    ) -> None:
        super().__init__(signature, slots, parts, rare)
        self.kept: tuple[KeptRow, ...] = ()
        self._rows: dict[Buffer, str] = {}  # where those that go past the caches are kept

    # -- statements ---------------------------------------------------------------------------

    def run(self, body: tuple[Stmt, ...], pitches: Sequence[Pitch] = ()) -> None:
        """Statements in order; `pitches` says what is asked for in advance in each of them."""
        done = 0
        for is_store, group in groupby(body, lambda s: isinstance(s, Store)):
            stmts = tuple(group)
            done += len(stmts)
            if is_store:
                self.assign(stmts)  # type: ignore[arg-type]
                if stmts[-1] is not body[-1]:
                    self.forget_loads({s.buffer for s in stmts})  # type: ignore[union-attr]
                continue
            for k, stmt in enumerate(stmts, done - len(stmts)):
                self.next_row = pitches[k] if pitches else NO_PITCH
                self.statement(stmt)

    def statement(self, stmt: Stmt) -> None:
        if isinstance(stmt, Check):
            self.check(stmt)
        elif isinstance(stmt, Reduce):
            self.reduce(stmt)
        elif isinstance(stmt, Loop) and stmt.extent != 0:
            if stmt.kind == "vector":
                self.vector_loop(stmt)
            else:
                self.hoist(stmt.body, {symbol_of(stmt.var)})
                self.counted(stmt, 0, self.dim(stmt.extent))

    def assign(self, stores: tuple[Store, ...]) -> None:
        """Stores as one parallel assignment: all values before the first is written."""
        values = [(self.value(s.value), self.shift(s.position)) for s in stores]
        for s, (value, shift) in zip(stores, values, strict=True):
            self.store(s.buffer, s.index, value, shift)

    def counted(self, loop: Loop, first: Value, stop: Value) -> None:
        with self.f.loop(first, stop) as i, self.scope():
            self.atoms[symbol_of(loop.var)] = i
            for kept in self.kept:
                if kept.rows is loop:
                    self._open_row(kept)
            self.run(loop.body, pitches_of(loop))

    def parallel(self, loop: Loop) -> None:
        """The iterations of one chunk of a parallel loop, or those that the frame names."""
        f, extent = self.f, self.dim(loop.extent)
        chunks, start, end = (
            f.load("i64", f.at("%frame", slot, "i64")) for slot in (CHUNKS, START, STOP)
        )
        named = f.compare("eq", chunks, 0)
        chunks = f.select(named, 1, chunks)
        first = f.quotient(f.mul("%chunk", extent), chunks)
        stop = f.quotient(f.mul(f.add("%chunk", 1), extent), chunks)
        self.hoist(loop.body, {symbol_of(loop.var)})
        self.counted(loop, f.select(named, start, first), f.select(named, end, stop))

    def vector_loop(self, loop: Loop) -> None:
        """A main loop on wide vectors, then one on single registers under a mask."""
        atom = symbol_of(loop.var)
        self.hoist(loop.body, {atom})
        self.lanes_over(loop.var, 0, self.dim(loop.extent), loop.body, loop.extent)

    def lanes_over(
        self,
        var: Expr,
        first: Value,
        stop: Value,
        body: tuple[Stmt, ...],
        extent: Dim | None,
        most: Dim | None = None,
        unroll: int = UNROLL,
    ) -> None:
        """body for var in first..stop; `extent` is their distance where it is known, `most` what
        that is never above.  The main loop's vectors are `unroll` registers wide."""
        atom = symbol_of(var)
        register = register_lanes(body, self.target)
        wide = register * unroll
        known = extent if isinstance(extent, int) else None
        main: Value = first
        few = isinstance(most, int) and most < wide
        if not few and (known is None or known >= wide):
            length = self.f.sub(stop, first)
            whole = self.f.value(f"and i64 {length}, {-wide}")
            main = self.f.add(first, whole)
            with self.f.loop(first, main, wide) as i, self.scope(Lanes(wide, atom, ahead=True)):
                self.atoms[atom] = i
                self.run(body)
        if main is first or known is None or known % wide:
            with self.f.loop(main, stop, register) as i:
                mask = self.mask(self.f.sub(stop, i), register)
                with self.scope(Lanes(register, atom, mask)):
                    self.atoms[atom] = i
                    self.run(body)

    def mask(self, left: Value, width: int) -> str:
        """The lanes below `left`."""
        limit = splat(self.f, str(left), "i64", width)
        return self.f.value(f"icmp slt <{width} x i64> {iota(width)}, {limit}")

    def find_large(self, body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
        """Which buffers are stored past the caches, and what is kept elsewhere for that; the body
        with this."""
        body, self.kept = kept_apart(body, self._may_be_large)
        self.streams = streams_of(body)
        kept = {k.result: k for k in self.kept}
        for b in filter(self._may_be_large, written_only(body, self.streams)):
            if isinstance(b.size, int):
                self.smalls[b.name] = 0
                continue
            small = self.f.compare("slt", self.dim(b.size), LEAST // b.dtype.itemsize)
            if b in kept:
                long = self.f.compare("sgt", self.dim(kept[b].row.size), kept[b].room)
                small = self.f.value(f"or i1 {small}, {long}")
            self.smalls[b.name] = self.f.value(f"zext i1 {small} to i64")
        for row, room in ((k.row, k.room) for k in self.kept):
            kind = in_memory(row.dtype)
            self._rows[row] = self.f.early(f"alloca [{room} x {kind}], align 64")
            self.keep(("base", row.name), self._rows[row])
        return body

    def _may_be_large(self, b: Buffer) -> bool:
        """The private buffers of a strip lie in the caches, whatever their size."""
        large = not isinstance(b.size, int) or b.size * b.dtype.itemsize >= LEAST
        return large and b not in self.frame.program.privates

    def _open_row(self, kept: KeptRow) -> None:
        """Where the row at hand is kept."""
        apart, small = self._rows[kept.row], self.smalls.get(kept.result.name, 1)
        if small != 0:
            inside = self.pointer(kept.result, kept.first)
            is_small = self.f.compare("ne", small, 0)
            apart = self.f.select(is_small, inside, apart, "ptr")
        self.keep(("base", kept.row.name), apart)

    # -- reductions ---------------------------------------------------------------------------

    def reduce(self, r: Reduce) -> None:
        self.hoist((r,), {symbol_of(r.var)})
        totals = self.chain(r) if r.order == "chain" else self.in_lanes(r)
        for a, names in zip(r.accumulators, totals, strict=True):
            for register, name in zip(a.carry, names, strict=True):
                self.keep((register, self.lanes.width), name)

    def chain(self, r: Reduce) -> list[list[str]]:
        """One element after another, in every lane on its own."""
        width = self.lanes.width
        start = [[self.value(x) for x in a.init] for a in r.accumulators]
        if r.extent == 0:
            return start
        turn = self.f.repeat()
        i = turn.carry("i64", 0)
        state = [
            [
                turn.carry(vector(element(x.dtype), width), v)
                for x, v in zip(a.init, vs, strict=True)
            ]
            for a, vs in zip(r.accumulators, start, strict=True)
        ]
        with self.scope(replace(self.lanes, ahead=False)):
            self.atoms[symbol_of(r.var)] = i
            after = self.step(r.accumulators, state)
            self.assign(r.stores)
        following = self.f.add(i, 1)
        more = self.f.compare("slt", following, self.dim(r.extent))
        turn.close(more, [following, *(v for vs in after for v in vs)])
        return after

    def step(
        self, accumulators: tuple[Accumulator, ...], state: list[list[str]]
    ) -> list[list[str]]:
        """The carried values after one more element in each lane."""
        width, out = self.lanes.width, []
        for a, names in zip(accumulators, state, strict=True):
            for register, name in zip(a.carry, names, strict=True):
                self.keep((register, width), name)
        for a in accumulators:
            out.append([self.value(x) for x in a.step])
        return out

    def in_lanes(self, r: Reduce) -> list[list[str]]:
        """Lanes side by side, a masked step for the rest, then the tree of halves."""
        atom, lanes = symbol_of(r.var), r.lanes
        start = [[constant(x, lanes) for x in a.init] for a in r.accumulators]
        state = start
        if r.extent == 0:
            return self.combined(r, state)
        known = r.extent if isinstance(r.extent, int) else None
        extent = self.dim(r.extent)
        whole: Value = 0
        if known is None or known >= lanes:
            whole = self.f.value(f"and i64 {extent}, {-lanes}")
            state = self._whole_lanes(r, atom, whole, start, skip=known is None)
        if known is None or known % lanes:
            state = self._masked_lanes(r, atom, whole, extent, state)
        return self.combined(r, state)

    def _whole_lanes(
        self, r: Reduce, atom: Atom, stop: Value, start: list[list[str]], skip: bool
    ) -> list[list[str]]:
        """All full rounds of the lanes; `skip` where there may be none."""
        kinds = [vector(element(x.dtype), r.lanes) for a in r.accumulators for x in a.init]
        flat = [v for vs in start for v in vs]
        before, after = self.f.block, self.f.new_block()
        if skip:
            body = self.f.new_block()
            self.f.branch(self.f.compare("sgt", stop, 0), body, after)
            self.f.start(body)
        turn = self.f.repeat()
        i = turn.carry("i64", 0)
        carried = iter([turn.carry(k, v) for k, v in zip(kinds, flat, strict=True)])
        state = [[next(carried) for _ in vs] for vs in start]
        with self.scope(Lanes(r.lanes, atom, ahead=True)):
            self.atoms[atom] = i
            stepped = self.step(r.accumulators, state)
            self.assign(r.stores)
        following = self.f.add(i, r.lanes)
        turn.close(
            self.f.compare("slt", following, stop), [following, *(v for vs in stepped for v in vs)]
        )
        if not skip:
            return stepped
        last = self.f.block
        self.f.jump(after)
        self.f.start(after)
        merged = iter(
            [
                self.f.value(f"phi {k} [ {v}, %{before} ], [ {w}, %{last} ]")
                for k, v, w in zip(kinds, flat, (v for vs in stepped for v in vs), strict=True)
            ]
        )
        return [[next(merged) for _ in vs] for vs in start]

    def _masked_lanes(
        self, r: Reduce, atom: Atom, first: Value, stop: Value, state: list[list[str]]
    ) -> list[list[str]]:
        """One step for the elements that do not fill all lanes; the other lanes stay."""
        mask = self.mask(self.f.sub(stop, first), r.lanes)
        with self.scope(Lanes(r.lanes, atom, mask)):
            self.atoms[atom] = first
            stepped = self.step(r.accumulators, state)
            self.assign(r.stores)
            flags = f"<{r.lanes} x i1>"
            return [
                [
                    self.f.value(f"select {flags} {mask}, {kind} {new}, {kind} {old}")
                    for x, new, old in zip(a.init, news, olds, strict=True)
                    for kind in [vector(element(x.dtype), r.lanes)]
                ]
                for a, news, olds in zip(r.accumulators, stepped, state, strict=True)
            ]

    def combined(self, r: Reduce, state: list[list[str]]) -> list[list[str]]:
        """The lanes as one value: lane l with lane l + n/2, and so on."""
        out = []
        for a, names in zip(r.accumulators, state, strict=True):
            width = r.lanes
            while width > 1:
                names = self._halved(a, names, width)
                width //= 2
            out.append(names)
        return out

    def _halved(self, a: Accumulator, names: list[str], width: int) -> list[str]:
        half = width // 2
        with self.scope(Lanes(half)):
            for sides, first in ((a.left, 0), (a.right, half)):
                for register, name in zip(sides, names, strict=True):
                    part = self._part(name, element(register.dtype), width, first, half)
                    self.keep((register, half), part)
            return [self.value(x) for x in a.combine]

    def _part(self, name: str, kind: str, width: int, first: int, half: int) -> str:
        whole = vector(kind, width)
        if half == 1:
            return self.f.value(f"extractelement {whole} {name}, i64 {first}")
        picks = ", ".join(f"i32 {first + k}" for k in range(half))
        return self.f.value(
            f"shufflevector {whole} {name}, {whole} poison, <{half} x i32> <{picks}>"
        )

    def finish(self) -> str:
        """The text of the function."""
        self.f.jump(self.exit)
        self.f.start(self.exit)
        return self.f.text()


@lru_cache(maxsize=1024)
def _widest(formula: Formula) -> int:
    """Bits of the widest dtype that a formula computes with."""
    return max(x.dtype.bits for x in children_first((formula.body,)))


def register_lanes(body: Iterable[Stmt], target: Target) -> int:
    """Lanes of one register for the widest dtype that a body computes with."""
    bits = 32
    for stmt in ir.walk(tuple(body)):
        for e in children_first(ir.scalars_of(stmt)):
            if e.op not in ("const", "param", "index"):
                bits = max(bits, e.dtype.bits)
            if e.op == "formula":
                bits = max(bits, _widest(e.formula))
    return max(2, target.vector_bits // bits)


def kernel_function(
    function: str, kernel: ir.Kernel, slots: Mapping[str, int], parts: Parts
) -> str:
    """The function of a map, row or column kernel."""
    signature = f"internal void {function}(ptr %frame, i64 %chunk, i64 %tid)"
    code = KernelCode(signature, slots, parts)
    code.open_buffers(kernel.starts)
    body = code.find_large(kernel.body)
    if is_parallel(kernel):
        (loop,) = body
        assert isinstance(loop, Loop)
        code.parallel(loop)
    else:
        code.run(body)
    finish_stores(code.f, code.smalls)
    return code.finish()
