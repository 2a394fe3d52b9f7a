"""What a well-formed kernel is, as a program.

    loops       extent and variable agree; the kind is one of the device
                cpu: at most one `parallel` loop, a statement of the kernel itself; a `vector`
                loop holds stores, checks and `chain` reductions
                cuda: a `grid` loop is all there is in the kernel or in a `grid` loop; a `block`
                loop holds what one thread does: stores, checks, ifs, `chain` reductions, serial
                loops; beside what threads share no chain and no if, and a serial loop only with
                a block loop as all there is inside
    names       loop variables and registers are used inside their scope and defined once in it;
                one definition per buffer and per parameter
    scalars     primitives with the operands that they take; no cast or bitcast to bool
    memory      a store has the dtype of its buffer; an index that provably leaves it is refused;
                computed positions are int64
    checks      int64 values, codes that fit an error word
    reductions  order and lanes agree; carries, initial values, steps and combining formulas fit;
                combining uses left, right and constants only, and may be left out in a chain;
                stores of lanes see no carries
    contracts   one dtype; unit column stride of c; variables in the epilogue only
    calls       alone in their kernel; all arrays inside of their buffers

What depends on values (bounds at run time, independent iterations) is checked by the
interpreter, `lower/reference.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from dualgrad.compiler.ir.dims import Atom, Dim, Expr, largest, product, symbols, terms_of
from dualgrad.compiler.kernel.ir import (
    PACKED_ROWS,
    Accumulator,
    Block,
    Buffer,
    Call,
    Check,
    Contract,
    Device,
    If,
    Kernel,
    Loop,
    Pack,
    Reduce,
    Stmt,
    Store,
    Walk,
    blocks_of,
    is_flat,
)
from dualgrad.compiler.kernel.printer import Line, lines_of
from dualgrad.compiler.kernel.scalar import PARAM_DTYPES, PRIMITIVES, Scalar, children_first, takes
from dualgrad.runtime.dtype import bool_, float32, int64
from dualgrad.runtime.errors import CompileError
from dualgrad.runtime.srcinfo import Location

LARGEST_CODE = 0xFFFE
KINDS: dict[Device, tuple[str, ...]] = {
    "cpu": ("parallel", "serial", "vector"),
    "cuda": ("grid", "block", "serial"),
}
_CONTEXT = 10


def verify(kernel: Kernel, device: Device = "cpu") -> None:
    """Refuse a kernel that breaks a rule above: CompileError with the lines around it."""
    _Verifier(kernel, device).body(kernel.body, inside="kernel")


def _holds_block(stmt: Stmt) -> bool:
    """Whether all there is in a serial loop, or in serial loops in it, is a block loop."""
    while isinstance(stmt, Loop) and stmt.kind == "serial" and len(stmt.body) == 1:
        (stmt,) = stmt.body
    return isinstance(stmt, Loop) and stmt.kind == "block"


def _excerpt(lines: list[Line], stmt: Stmt) -> str:
    """The lines around the first line of `stmt`, which is marked."""
    at = next((i for i, (owner, _) in enumerate(lines) if owner is stmt), 0)
    first = max(0, at - _CONTEXT)
    shown = lines[first : at + _CONTEXT + 1]
    return "\n".join(
        ("  > " if first + i == at else "    ") + text for i, (_, text) in enumerate(shown)
    )


class _Verifier:
    def __init__(self, kernel: Kernel, device: Device) -> None:
        self.kernel = kernel
        self.device = device
        self.shared = device == "cuda" and not is_flat(kernel)
        self.in_block = False
        self.stmt: Stmt | None = None
        self.vars: dict[str, Atom] = {}
        self.regs: dict[str, Scalar] = {}
        self.buffers: dict[str, Buffer] = {}
        self.params: dict[str, Scalar] = {}
        self.parallel_loops = 0

    def refuse(self, what: str, expect: str = "") -> NoReturn:
        assert self.stmt is not None
        lines = self.kernel.lines
        raise CompileError(
            f"kernel {self.kernel.name}: {what}",
            op="verify",
            expect=expect,
            actual="\n" + _excerpt(lines_of(self.kernel), self.stmt),
            location=Location(*lines[0], f"kernel {self.kernel.name}") if lines else None,
        )

    # -- statements --------------------------------------------------------------------------

    def body(self, statements: tuple[Stmt, ...], inside: str) -> None:
        outer = dict(self.regs)
        for stmt in statements:
            self.stmt = stmt
            self.statement(stmt, inside)
        self.regs = outer

    def statement(self, stmt: Stmt, inside: str) -> None:
        self.placed(stmt, inside)
        if isinstance(stmt, Loop):
            self.loop(stmt, inside)
        elif isinstance(stmt, If):
            self.when(stmt)
        elif isinstance(stmt, Reduce):
            self.reduce(stmt)
        elif isinstance(stmt, Store):
            self.store(stmt)
        elif isinstance(stmt, Check):
            self.check(stmt)
        elif isinstance(stmt, Contract):
            self.contract(stmt)
        elif isinstance(stmt, Pack):
            self.pack(stmt)
        elif isinstance(stmt, Call):
            self.call(stmt)
        else:
            self.refuse(f"{type(stmt).__name__} is no statement of the loop IR")

    def placed(self, stmt: Stmt, inside: str) -> None:
        """Refuse a statement that may not stand there."""
        if isinstance(stmt, Store | Check):
            return
        name = f"{stmt.kind} loop" if isinstance(stmt, Loop) else type(stmt).__name__
        chain = isinstance(stmt, Reduce) and stmt.order == "chain"
        if inside == "epilogue" or (inside == "vector" and not chain):
            where = "an epilogue" if inside == "epilogue" else "a vector loop"
            self.refuse(f"a {type(stmt).__name__} stands in {where}")
        serial = isinstance(stmt, Loop) and stmt.kind == "serial"
        if self.in_block and not (chain or serial or isinstance(stmt, If)):
            self.refuse(f"a {name} stands in a block loop")
        if self.shared and not self.in_block:
            if chain or isinstance(stmt, If):
                self.refuse(f"a {name} stands beside what threads share")
            if serial and not _holds_block(stmt):
                self.refuse("a serial loop of a team", "a block loop as all there is inside")

    def loop(self, loop: Loop, inside: str) -> None:
        kinds = KINDS[self.device]
        if loop.kind not in kinds:
            self.refuse(f"unknown loop kind {loop.kind!r}", ", ".join(kinds))
        if loop.kind == "parallel":
            self.parallel_loops += 1
            if inside != "kernel":
                self.refuse(f"the parallel loop {loop.var} stands inside of another statement")
            if self.parallel_loops > 1:
                self.refuse("a second parallel loop", "at most one in a kernel")
        if loop.kind == "grid" and not self.nested(loop):
            self.refuse(f"the grid loop {loop.var} does not stand alone in a grid loop")
        outer, self.in_block = self.in_block, self.in_block or loop.kind == "block"
        with self.variables((loop.var, loop.extent)):
            self.body(loop.body, loop.kind)
        self.in_block = outer

    def nested(self, loop: Loop) -> bool:
        """Whether a loop is found by going into grid loops that hold one statement each."""
        body = self.kernel.body
        while len(body) == 1 and body[0] is not loop:
            (stmt,) = body
            body = stmt.body if isinstance(stmt, Loop) and stmt.kind == "grid" else ()
        return len(body) == 1

    @contextmanager
    def variables(self, *ranges: tuple[Expr, Dim]) -> Iterator[None]:
        """New loop variables, in scope for the block."""
        outer = dict(self.vars)
        for var, extent in ranges:
            self.dim(extent, "extent")
            if isinstance(extent, int) and extent < 0:
                self.refuse(f"the extent of {var} is {extent}", "0 or more")
            atoms = symbols(var)
            atom = next(iter(atoms)) if len(atoms) == 1 else None
            if atom is None or var.terms != (((atom,), 1),):
                self.refuse(f"{var} is no loop variable", "a symbol with an extent")
            if atom.extent != extent:
                self.refuse(f"{var} counts to {atom.extent}, its loop to {extent}")
            if atom.name in self.vars:
                self.refuse(f"the loop variable {var} is already in use here")
            self.vars[atom.name] = atom
        yield
        self.vars = outer

    def when(self, stmt: If) -> None:
        if self.device == "cpu":
            self.refuse("an if", "a program for a GPU")
        self.scalar(stmt.condition)
        if stmt.condition.dtype is not bool_:
            self.refuse(f"a condition of {stmt.condition.dtype.name}", "bool")
        self.body(stmt.body, "if")

    def store(self, stmt: Store) -> None:
        self.stmt = stmt
        self.scalar(stmt.value)
        if stmt.position is None:
            self.access(stmt.buffer, stmt.index)
        else:
            self.scalar(stmt.position)
            self.computed_access(stmt.buffer, stmt.index, stmt.position)
        if stmt.value.dtype is not stmt.buffer.dtype:
            self.refuse(
                f"a {stmt.value.dtype.name} is stored to {stmt.buffer.name}",
                stmt.buffer.dtype.name,
            )

    def check(self, stmt: Check) -> None:
        self.scalar(stmt.value)
        self.dim(stmt.bound, "bound")
        if stmt.value.dtype is not int64:
            self.refuse(f"a check of a {stmt.value.dtype.name}", "int64")
        self.code(stmt.code)

    def code(self, code: int) -> None:
        if not 0 <= code <= LARGEST_CODE:
            self.refuse(f"error code {code}", f"0 to {LARGEST_CODE}")

    # -- reductions --------------------------------------------------------------------------

    def reduce(self, stmt: Reduce) -> None:
        if stmt.order not in ("lanes", "chain"):
            self.refuse(f"unknown order {stmt.order!r}", "lanes or chain")
        lanes_fit = stmt.lanes > 0 and stmt.lanes & (stmt.lanes - 1) == 0
        if not lanes_fit or (stmt.order == "chain" and stmt.lanes != 1):
            self.refuse(f"{stmt.order} of {stmt.lanes}", "a power of two, 1 for chain")
        if not stmt.accumulators:
            self.refuse("a reduction without accumulators")
        carries = [c for a in stmt.accumulators for c in a.carry]
        for carry in carries:
            self.new_register(carry)
        if len({c.attr for c in carries}) < len(carries):
            self.refuse("two carries of one name")
        for a in stmt.accumulators:
            self.accumulator(a, stmt)
        seen = tuple(carries) if stmt.order == "chain" else ()
        with self.variables((stmt.var, stmt.extent)), self.registers(seen):
            for store in stmt.stores:
                self.store(store)
        self.stmt = stmt
        self.regs.update((str(c.attr), c) for c in carries)

    def accumulator(self, a: Accumulator, stmt: Reduce) -> None:
        parts = {"init": a.init, "step": a.step}
        if stmt.order == "lanes" or a.left or a.right or a.combine:
            parts |= {"left": a.left, "right": a.right, "combine": a.combine}
        for name, values in parts.items():
            if [x.dtype for x in values] != [c.dtype for c in a.carry]:
                self.refuse(
                    f"{name} is ({', '.join(x.dtype.name for x in values)})",
                    f"({', '.join(c.dtype.name for c in a.carry)}), as the carries",
                )
        for x in a.init:
            self.scalar(x)
        for x in (*a.left, *a.right):
            self.new_register(x)
        with self.variables((stmt.var, stmt.extent)), self.registers(a.carry):
            for x in a.step:
                self.scalar(x)
        allowed = {*a.left, *a.right}
        for x in a.combine:
            for e in children_first((x,)):
                if not e.args and e.op != "const" and e not in allowed:
                    self.refuse(f"a combining formula uses {e!r}", "left, right and constants")
        with self.registers((*a.left, *a.right)):
            for x in a.combine:
                self.scalar(x)

    def new_register(self, x: Scalar) -> None:
        if x.op != "reg":
            self.refuse(f"{x!r} is no register")
        if str(x.attr) in self.regs:
            self.refuse(f"the register {x!r} is already defined here")

    @contextmanager
    def registers(self, names: tuple[Scalar, ...]) -> Iterator[None]:
        """Registers that are in scope for the block."""
        outer = dict(self.regs)
        for x in names:
            if self.regs.setdefault(str(x.attr), x) is not x or names.count(x) > 1:
                self.refuse(f"two registers of one name: {x!r}")
        yield
        self.regs = outer

    # -- contraction -------------------------------------------------------------------------

    def contract(self, stmt: Contract) -> None:
        dtype = stmt.c.buffer.dtype
        for x, rows, cols in (
            (stmt.a, stmt.m, stmt.k), (stmt.b, stmt.k, stmt.n), (stmt.c, stmt.m, stmt.n),
        ):  # fmt: skip
            what = f"operand {x.buffer.name}"
            self.dim(x.base, what)
            self.dim(x.batch, what)
            self.step(x.row, rows, what)
            self.step(x.col, cols, what)
            self.buffer(x.buffer)
            if x.walks and (x is stmt.c or self.device != "cpu"):
                self.refuse(f"a walk through {x.buffer.name}", "one of an operand, on a CPU")
        used = (stmt.a.buffer.dtype, stmt.b.buffer.dtype, stmt.result.dtype)
        widens = self.device == "cpu" and used[0].is_low and dtype is float32
        wanted = (used[0], used[0], dtype) if widens else (dtype, dtype, dtype)
        if used != wanted or dtype is bool_:
            names = ", ".join(t.name for t in (*used, dtype))
            what = "one dtype, not bool, or on a CPU products of 16-bit floats in float32"
            self.refuse(f"a, b, result and c are ({names})", what)
        if stmt.c.col != 1:
            self.refuse(f"the column stride of c is {stmt.c.col}", "1")
        if stmt.workspace is not None:
            self.buffer(stmt.workspace)
        if (stmt.workspace is None) == (self.device == "cpu"):
            self.refuse("scratch memory", "on a CPU, and only there")
        if stmt.parts is not None and (stmt.parts != blocks_of(stmt.k) or stmt.epilogue):
            self.refuse(f"{stmt.parts} block sums", f"{blocks_of(stmt.k)}, and no epilogue")
        if stmt.parts is not None and self.device == "cpu":
            self.refuse("block sums that stay apart", "those of a GPU")
        if stmt.packed and (self.device != "cpu" or stmt.batch != 1 or not _is_packed(stmt)):
            self.refuse("a packed operand", "one whole matrix of enough rows, on a CPU")
        self.dim(stmt.k, "extent")
        self.new_register(stmt.result)
        ranges = zip(
            (stmt.batch_var, stmt.row_var, stmt.col_var),
            (stmt.batch, stmt.m, stmt.n),
            strict=True,
        )
        with self.variables(*ranges), self.registers((stmt.result,)):
            self.body(stmt.epilogue, "epilogue")
        self.stmt = stmt

    def pack(self, stmt: Pack) -> None:
        what = f"operand {stmt.b.buffer.name}"
        for d in (stmt.b.base, stmt.b.batch, stmt.k, stmt.n):
            self.dim(d, what)
        self.buffer(stmt.b.buffer)
        self.buffer(stmt.packed)
        if stmt.b.walks or self.device != "cpu":
            self.refuse(f"packing of {stmt.b.buffer.name}", "strides, on a CPU")
        if stmt.packed.dtype is not stmt.b.buffer.dtype:
            self.refuse(f"packed {stmt.packed.dtype.name}", stmt.b.buffer.dtype.name)

    def step(self, step: Dim | Walk, extent: Dim, what: str) -> None:
        if not isinstance(step, Walk):
            self.dim(step, what)
            return
        with self.variables((step.var, extent)):
            self.dim(step.place, what)

    def call(self, stmt: Call) -> None:
        if self.kernel.body != (stmt,):
            self.refuse("a call stands beside other statements", "a kernel of its own")
        for x in (*stmt.inputs, stmt.output):
            self.block(x)
        if any(x.buffer.name == stmt.output.buffer.name for x in stmt.inputs):
            self.refuse("a call overwrites what it reads")
        for size in stmt.sizes:
            self.dim(size, "size")
        self.code(stmt.code)

    def block(self, x: Block) -> None:
        self.buffer(x.buffer)
        for d in (x.base, *x.shape):
            self.dim(d, f"array {x.buffer.name}")
        end = x.base + product(x.shape)
        if isinstance(end, int) and isinstance(x.buffer.size, int) and end > x.buffer.size:
            self.refuse(f"an array ends at {end} of {x.buffer.name}", f"{x.buffer.size} at most")

    # -- expressions -------------------------------------------------------------------------

    def dim(self, d: Dim, what: str) -> None:
        """All loop variables of d are in scope."""
        for atom in symbols(d):
            if atom.extent is not None and self.vars.get(atom.name) is not atom:
                self.refuse(f"{what} {d}: {atom} is not a variable of a loop around it")

    def buffer(self, buffer: Buffer) -> None:
        known = self.buffers.setdefault(buffer.name, buffer)
        if known != buffer:
            self.refuse(
                f"two buffers are named {buffer.name}: {_spell(known)} and {_spell(buffer)}"
            )
        if any(atom.extent is not None for atom in symbols(buffer.size)):
            self.refuse(f"the size of buffer {_spell(buffer)} contains a loop variable")

    def access(self, buffer: Buffer, index: Dim) -> None:
        self.buffer(buffer)
        self.dim(index, "index")
        top = _largest_reached(index)
        runs = all(v.extent != 0 for v in self.vars.values())
        if runs and top is not None and isinstance(buffer.size, int) and top >= buffer.size:
            self.refuse(f"index {index} of {buffer.name} reaches {top}", f"below {buffer.size}")

    def computed_access(self, buffer: Buffer, index: Dim, position: Scalar) -> None:
        self.buffer(buffer)
        self.dim(index, "index")
        if position.dtype is not int64:
            self.refuse(f"a place in {buffer.name} is a {position.dtype.name}", "int64")

    def scalar(self, root: Scalar) -> None:
        for e in children_first((root,)):
            if e.op in ("load", "gather"):
                self.load(e)
            elif e.op == "reg":
                self.register(e)
            elif e.op == "param":
                self.param(e)
            elif e.op == "index":
                assert isinstance(e.attr, (int, Expr))
                self.dim(e.attr, "index value")
            elif e.op != "const":
                self.operation(e)

    def load(self, e: Scalar) -> None:
        buffer, index = e.memory
        if e.op == "load":
            self.access(buffer, index)
        else:
            self.computed_access(buffer, index, e.args[0])
        if e.dtype is not buffer.dtype:
            self.refuse(f"{e!r} is read as {e.dtype.name}", buffer.dtype.name)

    def register(self, e: Scalar) -> None:
        known = self.regs.get(str(e.attr))
        if known is None:
            self.refuse(f"the register {e!r} is not defined here")
        if known is not e:
            self.refuse(f"the register {e!r} is read as {e.dtype.name}", known.dtype.name)

    def param(self, e: Scalar) -> None:
        if e.dtype not in PARAM_DTYPES:
            self.refuse(
                f"the parameter {e!r} is a {e.dtype.name}",
                " or ".join(t.name for t in PARAM_DTYPES),
            )
        if self.params.setdefault(str(e.attr), e) is not e:
            self.refuse(f"two parameters are named {e!r}")

    def operation(self, e: Scalar) -> None:
        dtypes = [a.dtype for a in e.args]
        if e.op in ("cast", "bitcast"):
            fits = len(dtypes) == 1 and e.dtype is not bool_
            fits = fits and (e.op == "cast" or dtypes[0].bits == e.dtype.bits)
        elif e.op == "select":
            fits = len(dtypes) == 3 and dtypes[0] is bool_
            fits = fits and dtypes[1] is e.dtype and dtypes[2] is e.dtype
        elif e.op == "table":
            count = len(e.numbers)
            fits = dtypes[0].is_int and dtypes[0].bits == e.dtype.bits and e.dtype.is_float
            fits = fits and len(dtypes) == 1 and count > 0 and count & (count - 1) == 0
        elif e.op == "formula":
            params = [x.dtype for x in e.formula.params]
            fits = dtypes == params and e.dtype is e.formula.body.dtype
        elif e.op == "detour":
            params = [bool_, e.formula.body.dtype, *(x.dtype for x in e.formula.params)]
            fits = dtypes == params and e.dtype is e.formula.body.dtype
        elif e.op in PRIMITIVES:
            count, kinds, result = PRIMITIVES[e.op]
            fits = len(dtypes) == count and all(t is dtypes[0] for t in dtypes)
            fits = fits and takes(kinds, dtypes[0])
            fits = fits and e.dtype is (dtypes[0] if result == "same" else bool_)
        else:
            self.refuse(f"unknown primitive {e.op!r}")
        if not fits:
            names = ", ".join(t.name for t in dtypes)
            self.refuse(f"{e.op}({names}) -> {e.dtype.name} is no operation of the language")


def _spell(b: Buffer) -> str:
    return f"{b.name}: {b.dtype.short}[{b.size}]"


def _largest_reached(index: Dim) -> int | None:
    """The value of `index` at the last iteration of every loop, where none can be larger."""
    exact = all(
        c >= 0 and all(a.kind == "sym" and isinstance(a.extent, int) for a in m)
        for m, c in terms_of(index)
    )
    top = largest(index) if exact else None
    return top if isinstance(top, int) else None


def _is_packed(c: Contract) -> bool:
    """Whether the second operand is one that a `Pack` makes."""
    whole = (c.b.base, c.b.batch, c.b.row, c.b.col) == (0, 0, c.n, 1)
    return whole and isinstance(c.m, int) and c.m >= PACKED_ROWS
