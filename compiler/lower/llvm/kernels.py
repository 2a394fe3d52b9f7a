"""Kernels of the loop IR as LLVM functions.

A kernel becomes `void @name(ptr %frame, i64 %chunk, i64 %tid)`.  The frame is an array of 8-byte
slots (see `Frame`).  The iterations of an outermost parallel loop are cut into the number of
chunks that stands in the frame; `chunk` says which one to run.

Vector loops run on vectors of four registers while they can, then on single masked registers.
What does not depend on a loop's variable is computed before the loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby

from dualgrad.compiler.ir.dims import (
    Atom,
    Dim,
    Expr,
    coefficient,
    symbol_of,
    symbols,
    terms_of,
)
from dualgrad.compiler.kernel import ir
from dualgrad.compiler.kernel.ir import Accumulator, Buffer, Check, Loop, Reduce, Stmt, Store
from dualgrad.compiler.kernel.scalar import Scalar, children_first
from dualgrad.compiler.lower.llvm.emit import Function, Value
from dualgrad.compiler.lower.llvm.frame import CHUNKS, ERROR, Frame
from dualgrad.compiler.lower.llvm.lanes import (
    Declarations,
    Lanes,
    apply,
    constant,
    element,
    in_memory,
    iota,
    splat,
    vector,
)
from dualgrad.runtime.dtype import DType
from dualgrad.runtime.program import Target

UNROLL = 4  # registers that a vector in a main loop spans


class KernelCode:
    """Writes one function; scopes remember what has been computed where."""

    def __init__(
        self, signature: str, frame: Frame, names: Declarations, target: Target, checked: bool
    ) -> None:
        self.f = Function(signature)
        self.frame, self.names, self.target, self.checked = frame, names, target, checked
        self.lanes = Lanes()
        self.atoms: dict[Atom, Value] = {}
        self.scopes: list[dict[object, str]] = [{}]
        self.exit = self.f.new_block()
        self.atoms.update(frame.load_symbols(self.f))

    def open_buffers(self, buffers: Iterable[Buffer]) -> None:
        """Read the addresses of buffers from the frame, before any loop."""
        for b in buffers:
            self.keep(("base", b.name), self.frame.load_buffer(self.f, b))

    # -- scopes -------------------------------------------------------------------------------

    @contextmanager
    def scope(self, lanes: Lanes | None = None) -> Iterator[None]:
        """Names given inside are not used after it: the code may not have run."""
        before = self.lanes
        self.lanes = lanes or before
        self.scopes.append({})
        yield
        self.scopes.pop()
        self.lanes = before

    def find(self, key: object) -> str | None:
        for names in reversed(self.scopes):
            found = names.get(key)
            if found is not None:
                return found
        return None

    def keep(self, key: object, name: str) -> str:
        self.scopes[-1][key] = name
        return name

    # -- integers -----------------------------------------------------------------------------

    def dim(self, d: Dim) -> Value:
        """The value of an integer expression, the same in all lanes."""
        if isinstance(d, int):
            return d
        found = self.find(("dim", d))
        if found is not None:
            return found
        total: Value | None = None
        for monomial, c in d.terms:
            term: Value = c
            for k, atom in enumerate(monomial):
                value = self.atom(atom)
                term = value if k == 0 and c == 1 else self.f.mul(term, value)
            total = term if total is None else self.f.add(total, term)
        assert total is not None
        return self.keep(("dim", d), str(total))

    def atom(self, atom: Atom) -> Value:
        if atom.kind == "sym":
            return self.atoms[atom]
        a, b = (self.dim(x) for x in atom.args)
        if atom.kind == "min":
            smallest = self.names.intrinsic("llvm.smin.i64", "i64", "i64", "i64")
            return self.f.result("i64", smallest, ("i64", a), ("i64", b))
        return self.f.value(f"{'udiv' if atom.kind == 'div' else 'urem'} i64 {a}, {b}")

    def positions(self, d: Dim) -> str:
        """The values of an integer expression in all lanes, as <width x i64>."""
        width, atom = self.lanes.width, self.lanes.atom
        assert atom is not None
        found = self.find(("positions", d, width))
        if found is not None:
            return found
        split = coefficient(d, _variable(atom))
        if split is not None:
            k, rest = split
            start = self.dim(rest + k * _variable(atom))
            steps = self.f.value(
                f"mul <{width} x i64> {splat(self.f, str(self.dim(k)), 'i64', width)}, {iota(width)}"
            )
            whole = splat(self.f, str(start), "i64", width)
            out = self.f.value(f"add <{width} x i64> {whole}, {steps}")
        else:
            out = self._nonlinear(d)
        return self.keep(("positions", d, width), out)

    def _nonlinear(self, d: Dim) -> str:
        """Quotients and remainders lane by lane."""
        width, kind = self.lanes.width, f"<{self.lanes.width} x i64>"
        total = "zeroinitializer"
        for monomial, c in terms_of(d):
            term = splat(self.f, str(c), "i64", width)
            for atom in monomial:
                term = self.f.value(f"mul {kind} {term}, {self._atom_positions(atom)}")
            total = self.f.value(f"add {kind} {total}, {term}")
        return total

    def _atom_positions(self, atom: Atom) -> str:
        if atom.kind == "sym":
            return self.positions(_variable(atom))
        a, b = (self.positions(x) for x in atom.args)
        kind = f"<{self.lanes.width} x i64>"
        if atom.kind == "min":
            less = self.f.value(f"icmp slt {kind} {a}, {b}")
            return self.f.value(f"select <{self.lanes.width} x i1> {less}, {kind} {a}, {kind} {b}")
        return self.f.value(f"{'udiv' if atom.kind == 'div' else 'urem'} {kind} {a}, {b}")

    # -- memory -------------------------------------------------------------------------------

    def pointer(self, buffer: Buffer, index: Dim) -> str:
        """The address of an element; the part outside of the innermost loop is shared."""
        base = self.find(("base", buffer.name))
        assert base is not None
        if index == 0:
            return base
        found = self.find(("pointer", buffer, index))
        if found is not None:
            return found
        fixed, moving = self._split_moving(index)
        if moving != 0 and fixed != 0:
            base = self.pointer(buffer, fixed)
            index = moving
        return self.keep(
            ("pointer", buffer, fixed + moving),
            self.f.at(base, self.dim(index), in_memory(buffer.dtype)),
        )

    def _split_moving(self, index: Dim) -> tuple[Dim, Dim]:
        """index as (part without the innermost variable, part with it)."""
        atom = self.lanes.atom
        split = None if atom is None else coefficient(index, _variable(atom))
        if split is None or atom is None:
            return index, 0
        return split[1], split[0] * _variable(atom)

    def step_of(self, index: Dim) -> Dim | None:
        """The stride of an index along the lanes; None where it has none."""
        if self.lanes.atom is None:
            return 0
        split = coefficient(index, _variable(self.lanes.atom))
        return None if split is None else split[0]

    def load(self, buffer: Buffer, index: Dim) -> str:
        """Elements of a buffer: one per lane, or one for all lanes where the index is fixed."""
        step = self.step_of(index)
        kind, width = in_memory(buffer.dtype), self.lanes.width
        align = buffer.dtype.itemsize
        self.guard(buffer, index)
        if width == 1 or step == 0:
            value = self.f.load(kind, self.pointer(buffer, index), align)
            value = self._from_memory(value, buffer.dtype, 1)
            return splat(self.f, value, element(buffer.dtype), width)
        whole = vector(kind, width)
        mask = self.lanes.mask
        if step == 1 and mask is None:
            value = self.f.load(whole, self.pointer(buffer, index), align)
        elif step == 1:
            name = f"llvm.masked.load.{suffix_of(kind, width)}.p0"
            read = self.names.intrinsic(name, whole, "ptr", "i32", f"<{width} x i1>", whole)
            value = self.f.result(
                whole, read, ("ptr", self.pointer(buffer, index)), ("i32", align),
                (f"<{width} x i1>", mask or ""), (whole, "zeroinitializer"),
            )
        else:
            value = self._gather(buffer, index, whole)
        return self._from_memory(value, buffer.dtype, width)

    def _addresses(self, buffer: Buffer, index: Dim) -> str:
        kind, width = in_memory(buffer.dtype), self.lanes.width
        return self.f.value(
            f"getelementptr {kind}, ptr {self.pointer(buffer, 0)}, "
            f"<{width} x i64> {self.positions(index)}"
        )

    def _mask(self) -> str:
        return self.lanes.mask or "splat (i1 true)"

    def _gather(self, buffer: Buffer, index: Dim, whole: str) -> str:
        width = self.lanes.width
        name = f"llvm.masked.gather.{suffix_of(in_memory(buffer.dtype), width)}.v{width}p0"
        flags = f"<{width} x i1>"
        read = self.names.intrinsic(name, whole, f"<{width} x ptr>", "i32", flags, whole)
        return self.f.result(
            whole, read, (f"<{width} x ptr>", self._addresses(buffer, index)),
            ("i32", buffer.dtype.itemsize), (flags, self._mask()), (whole, "zeroinitializer"),
        )

    def _from_memory(self, value: str, dtype: DType, width: int) -> str:
        if dtype.kind != "b":
            return value
        zero = "0" if width == 1 else "zeroinitializer"
        return self.f.value(f"icmp ne {vector('i8', width)} {value}, {zero}")

    def store(self, buffer: Buffer, index: Dim, value: str) -> None:
        step = self.step_of(index)
        kind, width = in_memory(buffer.dtype), self.lanes.width
        align = buffer.dtype.itemsize
        self.guard(buffer, index)
        if buffer.dtype.kind == "b":
            value = self.f.value(f"zext {vector('i1', width)} {value} to {vector('i8', width)}")
        whole = vector(kind, width)
        if width == 1 or (step == 1 and self.lanes.mask is None):
            self.f.store(whole, value, self.pointer(buffer, index), align)
            return
        flags = f"<{width} x i1>"
        if step == 1:
            name = f"llvm.masked.store.{suffix_of(kind, width)}.p0"
            write = self.names.intrinsic(name, "void", whole, "ptr", "i32", flags)
            target = ("ptr", self.pointer(buffer, index))
        else:
            name = f"llvm.masked.scatter.{suffix_of(kind, width)}.v{width}p0"
            write = self.names.intrinsic(name, "void", whole, f"<{width} x ptr>", "i32", flags)
            target = (f"<{width} x ptr>", self._addresses(buffer, index))
        self.f.call(write, (whole, value), target, ("i32", align), (flags, self._mask()))

    # -- checks -------------------------------------------------------------------------------

    def guard(self, buffer: Buffer, index: Dim) -> None:
        """In checked mode: every access lies inside of its buffer."""
        if not self.checked:
            return
        code = self.frame.access_code(buffer)
        key = ("guard", buffer, index, self.lanes)
        if self.find(key) is not None:
            return
        self.keep(key, "done")
        size = self.dim(buffer.size)
        if self.lanes.width == 1 or self.step_of(index) == 0:
            position = str(self.dim(index))
            self.stop_if(self.f.value(f"icmp uge i64 {position}, {size}"), position, code)
        else:
            self.stop_if_any(self.positions(index), size, code)

    def check(self, check: Check) -> None:
        """Stop unless 0 <= value < bound in every lane that counts."""
        value, bound = self.value(check.value), self.dim(check.bound)
        if self.lanes.width == 1:
            self.stop_if(self.f.value(f"icmp uge i64 {value}, {bound}"), value, check.code)
        else:
            self.stop_if_any(value, bound, check.code)

    def stop_if_any(self, values: str, bound: Value, code: int) -> None:
        """Stop with the first value of the lanes that is out of bounds, if there is one."""
        f, width = self.f, self.lanes.width
        limit = splat(f, str(bound), "i64", width)
        wrong = f.value(f"icmp uge <{width} x i64> {values}, {limit}")
        if self.lanes.mask is not None:
            wrong = f.value(f"and <{width} x i1> {wrong}, {self.lanes.mask}")
        bits = f.value(f"bitcast <{width} x i1> {wrong} to i{width}")
        count = self.names.intrinsic(f"llvm.cttz.i{width}", f"i{width}", f"i{width}", "i1")
        first = f.result(f"i{width}", count, (f"i{width}", bits), ("i1", "false"))
        lane = f.value(f"urem i{width} {first}, {width}")
        value = f.value(f"extractelement <{width} x i64> {values}, i{width} {lane}")
        self.stop_if(f.value(f"icmp ne i{width} {bits}, 0"), value, code)

    def stop_if(self, condition: str, value: Value, code: int) -> None:
        stop, on = self.f.new_block(), self.f.new_block()
        self.f.branch(condition, stop, on)
        self.f.start(stop)
        word = self.f.value(f"shl i64 {value}, 16")
        word = self.f.value(f"or i64 {word}, {code + 1}")
        self.f.store("i64", word, self.f.at("%frame", ERROR, "i64"))
        self.f.jump(self.exit)
        self.f.start(on)

    # -- scalars ------------------------------------------------------------------------------

    def value(self, e: Scalar) -> str:
        """The value of an expression in all lanes."""
        width = self.lanes.width
        stack = [e]
        while stack:
            x = stack[-1]
            if self.find((x, width)) is not None:
                stack.pop()
                continue
            waiting = [] if self.find((x, 1)) else [a for a in x.args if not self.find((a, width))]
            if waiting:
                stack.extend(waiting)
            else:
                stack.pop()
                self.keep((x, width), self._compute(x))
        return self.value_of(e)

    def _compute(self, e: Scalar) -> str:
        width = self.lanes.width
        if e.op == "const":
            return constant(e, width)
        if width > 1:
            outside = self.find((e, 1))
            if outside is not None:
                return splat(self.f, outside, element(e.dtype), width)
        if e.op == "load":
            return self.load(*e.attr)  # type: ignore[misc]
        if e.op == "index":
            if width > 1:
                return self.positions(e.attr)  # type: ignore[arg-type]
            return str(self.dim(e.attr))  # type: ignore[arg-type]
        if e.op == "param":
            one = self.frame.load_scalar(self.f, e)
            return splat(self.f, one, element(e.dtype), width)
        xs = [self.value_of(x) for x in e.args]
        return apply(self.f, self.names, e, xs, width)

    def value_of(self, e: Scalar) -> str:
        found = self.find((e, self.lanes.width))
        assert found is not None, e
        return found

    def hoist(self, body: Iterable[Stmt], inside: set[Atom]) -> None:
        """Compute now, as scalars, what `body` uses but its loop (over `inside`) does not change."""
        body = tuple(body)
        written = {s.buffer for s in ir.walk(body) if isinstance(s, Store)}
        bound = inside | {symbol_of(s.var) for s in ir.walk(body) if isinstance(s, Loop | Reduce)}
        roots = tuple(x for s in ir.walk(body) for x in ir.scalars_of(s))
        fixed: set[Scalar] = set()
        for e in children_first(roots):
            if e.op == "const":
                fixed.add(e)
                continue
            if e.op == "reg" and self.find((e, self.lanes.width)) is None:
                continue
            if e.op == "load" and (e.attr[0] in written or symbols(e.attr[1]) & bound):  # type: ignore[index,arg-type]
                continue
            if e.op == "index" and symbols(e.attr) & bound:  # type: ignore[arg-type]
                continue
            if all(x in fixed for x in e.args):
                fixed.add(e)
                self.value(e)
        self._hoist_pointers(body, roots, bound)

    def _hoist_pointers(
        self, body: tuple[Stmt, ...], roots: tuple[Scalar, ...], bound: set[Atom]
    ) -> None:
        """Addresses, up to the terms that the loop changes."""
        accesses = [(s.buffer, s.index) for s in ir.walk(body) if isinstance(s, Store)]
        accesses += [e.attr for e in children_first(roots) if e.op == "load"]  # type: ignore[misc]
        for buffer, index in accesses:
            fixed = Expr.of(
                {m: c for m, c in terms_of(index) if not symbols(Expr.of({m: 1})) & bound}
            )
            self.pointer(buffer, fixed)

    # -- statements ---------------------------------------------------------------------------

    def run(self, body: tuple[Stmt, ...]) -> None:
        for is_store, group in groupby(body, lambda s: isinstance(s, Store)):
            stmts = tuple(group)
            if is_store:
                self.assign(stmts)  # type: ignore[arg-type]
                if stmts[-1] is not body[-1]:
                    self.forget_loads({s.buffer for s in stmts})  # type: ignore[union-attr]
                continue
            for stmt in stmts:
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
        values = [self.value(s.value) for s in stores]
        for s, value in zip(stores, values, strict=True):
            self.store(s.buffer, s.index, value)

    def forget_loads(self, buffers: set[Buffer]) -> None:
        """What was read from memory that has been written since is no longer what stands there."""
        stale: set[Scalar] = set()
        for names in self.scopes:
            held = [key[0] for key in names if isinstance(key, tuple) and isinstance(key[0], Scalar)]
            for e in children_first(tuple(held)):
                if e.op == "load" and e.attr[0] in buffers:  # type: ignore[index]
                    stale.add(e)
                elif any(x in stale for x in e.args):
                    stale.add(e)
            for key in [k for k in names if isinstance(k, tuple) and k[0] in stale]:
                del names[key]

    def counted(self, loop: Loop, first: Value, stop: Value) -> None:
        with self.f.loop(first, stop) as i, self.scope():
            self.atoms[symbol_of(loop.var)] = i
            self.run(loop.body)

    def parallel(self, loop: Loop) -> None:
        """The iterations of one chunk of a parallel loop."""
        extent = self.dim(loop.extent)
        chunks = self.f.load("i64", self.f.at("%frame", CHUNKS, "i64"))
        first = self.f.quotient(self.f.mul("%chunk", extent), chunks)
        stop = self.f.quotient(self.f.mul(self.f.add("%chunk", 1), extent), chunks)
        self.hoist(loop.body, {symbol_of(loop.var)})
        self.counted(loop, first, stop)

    def vector_loop(self, loop: Loop) -> None:
        """A main loop on wide vectors, then one on single registers under a mask."""
        atom = symbol_of(loop.var)
        self.hoist(loop.body, {atom})
        self.lanes_over(loop.var, 0, self.dim(loop.extent), loop.body, loop.extent)

    def lanes_over(
        self, var: Expr, first: Value, stop: Value, body: tuple[Stmt, ...], extent: Dim | None
    ) -> None:
        """body for var in first..stop; `extent` is their distance where it is known."""
        atom = symbol_of(var)
        register = register_lanes(body, self.target)
        wide = register * UNROLL
        known = extent if isinstance(extent, int) else None
        main: Value = first
        if known is None or known >= wide:
            length = self.f.sub(stop, first)
            whole = self.f.value(f"and i64 {length}, {-wide}")
            main = self.f.add(first, whole)
            with self.f.loop(first, main, wide) as i, self.scope(Lanes(wide, atom)):
                self.atoms[atom] = i
                self.run(body)
        if known is None or known % wide:
            with self.f.loop(main, stop, register) as i:
                mask = self.mask(self.f.sub(stop, i), register)
                with self.scope(Lanes(register, atom, mask)):
                    self.atoms[atom] = i
                    self.run(body)

    def mask(self, left: Value, width: int) -> str:
        """The lanes below `left`."""
        limit = splat(self.f, str(left), "i64", width)
        return self.f.value(f"icmp slt <{width} x i64> {iota(width)}, {limit}")

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
            [turn.carry(vector(element(x.dtype), width), v) for x, v in zip(a.init, vs, strict=True)]
            for a, vs in zip(r.accumulators, start, strict=True)
        ]
        with self.scope():
            self.atoms[symbol_of(r.var)] = i
            after = self.step(r.accumulators, state)
            self.assign(r.stores)
        following = self.f.add(i, 1)
        more = self.f.compare("slt", following, self.dim(r.extent))
        turn.close(more, [following, *(v for vs in after for v in vs)])
        return after

    def step(self, accumulators: tuple[Accumulator, ...], state: list[list[str]]) -> list[list[str]]:
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
        with self.scope(Lanes(r.lanes, atom)):
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
        merged = iter([
            self.f.value(f"phi {k} [ {v}, %{before} ], [ {w}, %{last} ]")
            for k, v, w in zip(kinds, flat, (v for vs in stepped for v in vs), strict=True)
        ])
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
        return self.f.value(f"shufflevector {whole} {name}, {whole} poison, <{half} x i32> <{picks}>")

    def finish(self) -> str:
        """The text of the function."""
        self.f.jump(self.exit)
        self.f.start(self.exit)
        return self.f.text()


def suffix_of(kind: str, width: int) -> str:
    """Intrinsic name part of a type in memory."""
    short = {"float": "f32", "double": "f64"}.get(kind, kind)
    return f"v{width}{short}"


def register_lanes(body: Iterable[Stmt], target: Target) -> int:
    """Lanes of one register for the widest dtype that a body computes with."""
    bits = 32
    for stmt in ir.walk(tuple(body)):
        for e in children_first(ir.scalars_of(stmt)):
            if e.op not in ("const", "param", "index"):
                bits = max(bits, e.dtype.bits)
    return max(2, target.vector_bits // bits)


def _variable(atom: Atom) -> Expr:
    out = Expr.of({(atom,): 1})
    assert isinstance(out, Expr)
    return out


def kernel_function(
    kernel: ir.Kernel, frame: Frame, names: Declarations, target: Target, checked: bool
) -> str:
    """The function of a map, row or column kernel."""
    signature = f"internal void @{kernel.name}(ptr %frame, i64 %chunk, i64 %tid)"
    code = KernelCode(signature, frame, names, target, checked)
    code.open_buffers(ir.buffers_of(kernel.body))
    if is_parallel(kernel):
        (loop,) = kernel.body
        assert isinstance(loop, Loop)
        code.parallel(loop)
    else:
        code.run(kernel.body)
    return code.finish()


def is_parallel(kernel: ir.Kernel) -> bool:
    first = kernel.body[0] if len(kernel.body) == 1 else None
    return isinstance(first, Loop) and first.kind == "parallel" and first.extent != 0

