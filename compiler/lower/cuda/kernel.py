"""What all kernels in CUDA C have in common: parameters, and statements inside of one thread.

Every parameter takes 8 bytes: pointers, sizes, the caller's numbers, and last the error word.
A pointer is to the first element that the kernel may touch, so that kernels which differ in their
buffers and places alone are one function.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import groupby

from dualgrad.compiler.ir.dims import Atom, Dim, Expr, symbol_of, symbols
from dualgrad.compiler.kernel import ir
from dualgrad.compiler.kernel.ir import (
    Buffer,
    Check,
    Contract,
    If,
    Kernel,
    Loop,
    Reduce,
    Stmt,
    Store,
)
from dualgrad.compiler.kernel.scalar import Formula, Scalar, children_first
from dualgrad.compiler.lower.cuda.ctype import memory_type, register_type
from dualgrad.compiler.lower.cuda.scalars import Formulas, ScalarCode
from dualgrad.runtime.dtype import DType
from dualgrad.runtime.errors import CompileError
from dualgrad.runtime.records import dataclass

THREADS = 256  # of a block
UNROLL = 8  # turns of a loop side by side
LONGEST_BODY = 512  # primitives in a row: more of them take long to compile


@dataclass(frozen=True)
class Signature:
    """Name and parameters of a kernel: buffers with the places where they start, then numbers of
    the program's symbols and scalars, then, if `guarded`, the error word."""

    function: str
    starts: tuple[tuple[Buffer, int], ...]
    symbols: tuple[tuple[int, Atom], ...]
    scalars: tuple[tuple[int, DType], ...]
    guarded: bool
    apart: frozenset[str] = frozenset()  # buffers that share no memory which the kernel writes

    @classmethod
    def of(
        cls,
        kernel: Kernel,
        function: str,
        names: Sequence[Atom],
        numbers: Sequence[DType],
        guarded: bool,
    ) -> Signature:
        """The signature of a kernel in a program with these symbols and scalars."""
        used = sizes_of(kernel.body)
        params = {e.attr for e in scalars_in(kernel.body) if e.op == "param"}
        return cls(
            function,
            pointers_of(kernel),
            tuple((k, a) for k, a in enumerate(names) if a in used),
            tuple((k, d) for k, d in enumerate(numbers) if f"s{k}" in params),
            guarded,
            apart_in(kernel),
        )

    def variant(self, kernel: Kernel) -> tuple[object, ...]:
        """What kernels of one text must have in common besides, to share a function."""
        before = tuple(min(start, 0) for start in kernel.starts.values())
        return self.guarded, before, tuple(b.name in self.apart for b, _ in self.starts)

    @property
    def text(self) -> str:
        """The head of the function, without what stands between `void` and its name."""
        params = [
            f"{memory_type(b.dtype)}* {'__restrict__ ' if b.name in self.apart else ''}p{k}"
            for k, (b, _) in enumerate(self.starts)
        ]
        params += [f"long long n{k}" for k, _ in self.symbols]
        params += [f"{'double' if d.is_float else 'long long'} s{k}" for k, d in self.scalars]
        if self.guarded:
            params.append("dg_word* error")
        return f"{self.function}({', '.join(params)})"


@dataclass(frozen=True)
class KernelText:
    """A kernel's function, and how it is launched (see `KernelLaunch`)."""

    text: str
    work: Dim
    per_block: int
    threads: int


def pointers_of(kernel: Kernel) -> tuple[tuple[Buffer, int], ...]:
    """The buffers of a kernel, and to which element its pointers lead: the first that its indices
    name, if that is one of the buffer's."""
    return tuple((b, max(start, 0)) for b, start in kernel.starts.items())


def apart_in(kernel: Kernel) -> frozenset[str]:
    """The buffers of a kernel that share no memory with others, or none that is written: inputs
    may be views of one tensor, outputs and temporaries have memory of their own.  What a thread
    reads there, none but itself may have changed since: not so if a team works step by step."""
    stmts = list(ir.walk(kernel.body))
    written = {s.buffer.name for s in stmts if isinstance(s, Store)}
    written |= {s.c.buffer.name for s in stmts if isinstance(s, Contract)}
    inputs_change = any(name[0] == "i" for name in written)
    names = {b.name for b in kernel.starts}
    if ir.is_stepped(kernel):
        names -= written
    return frozenset(n for n in names if n[0] != "i" or not inputs_change)


class KernelCode(ScalarCode):
    """Writes one kernel: statements that a thread runs, on top of scalar expressions.

    `leave` is what a thread does after a check that failed.
    """

    leave = "return;"

    def __init__(self, signature: Signature, formulas: Formulas) -> None:
        super().__init__(formulas)
        self.signature = signature
        self.places = {b.name: (f"p{k}", start) for k, (b, start) in enumerate(signature.starts)}
        for k, atom in signature.symbols:
            self.w.line(f"const dg_index {atom_name(k)} = (dg_index)n{k};")
            self.atoms[atom] = atom_name(k)

    def guard(self, body: tuple[Stmt, ...] = ()) -> None:
        """Leave at once if a check has failed before this kernel, of which `body` holds all
        checks: another thread's failure is no reason to leave, so that the error does not depend
        on who is first."""
        if not self.signature.guarded:
            return
        codes = sorted({s.code for s in ir.walk(body) if isinstance(s, Check)})
        failed = "dg_failed(error)"
        if codes:
            self.w.line("int failed_code;")
            failed = "dg_failed(error, failed_code)"
        others = [f" && failed_code != {code}" for code in codes]
        self.w.line(f"if ({failed}{''.join(others)}) return;")

    def finish(self, threads: int = THREADS, blocks: int = 1) -> str:
        """The text of the function, for blocks of so many threads, so many of them at a time on
        one processor."""
        bounds = f"{threads}, {blocks}" if blocks > 1 else f"{threads}"
        head = f'extern "C" __global__ void __launch_bounds__({bounds}) {self.signature.text}'
        return self.w.text(head)

    def address(self, buffer: Buffer, index: Dim) -> str:
        """The address of an element."""
        pointer, start = self.places[buffer.name]
        return pointer if index == start else f"{pointer} + {self.dim(index - start)}"

    # -- statements of one thread -------------------------------------------------------------

    def run(self, body: tuple[Stmt, ...]) -> None:
        """Statements one after another; what a reduction leaves is known to those after it."""
        for is_store, group in groupby(body, lambda s: isinstance(s, Store)):
            stmts = tuple(group)
            if is_store:
                self.assign(stmts)  # type: ignore[arg-type]
                continue
            for stmt in stmts:
                self.statement(stmt)

    def statement(self, stmt: Stmt) -> None:
        if isinstance(stmt, Check):
            self.check(stmt)
        elif isinstance(stmt, Reduce):
            self.chain(stmt)
        elif isinstance(stmt, If):
            with self.block(f"if ({self.value(stmt.condition)})"):
                self.run(stmt.body)
        elif isinstance(stmt, Loop):
            if is_sieve(stmt):
                self.sieve(stmt)
            elif stmt.extent != 0:
                with self.counted(stmt.var, stmt.extent, stmt.body):
                    self.run(stmt.body)
        else:
            raise CompileError(f"a thread cannot run {stmt!r}", op="cuda")

    @contextmanager
    def counted(
        self, var: Expr, extent: Dim, body: tuple[Stmt, ...], unroll: bool = False
    ) -> Iterator[None]:
        """A loop of one thread; `body` is what will run in it.  Unrolled, it has loads of several
        turns on their way at the same time."""
        self.enter(body, {symbol_of(var)})
        name = self.loop_name(var)
        turns = min(UNROLL, LONGEST_BODY // max(1, cost_of(body))) if unroll else 1
        if turns > 1:
            self.w.line(f"#pragma unroll {turns}")
        head = f"for (dg_index {name} = 0; {name} < {self.dim(extent)}; ++{name})"
        with self.block(head):
            self.atoms[symbol_of(var)] = name
            yield

    def sieve(self, loop: Loop) -> None:
        """A loop of which a thread runs a few turns only: what decides is computed for several
        turns at a time, so that their loads do not wait for each other."""
        (test,) = loop.body
        assert isinstance(test, If)
        self.enter(loop.body, {symbol_of(loop.var)})
        first, taken, w = self.loop_name(loop.var), self.w.new_name("taken_"), self.w
        extent, each = self.dim(loop.extent), f"for (int k = 0; k < {UNROLL}; ++k)"
        with self.block(f"for (dg_index {first} = 0; {first} < {extent}; {first} += {UNROLL})"):
            w.line(f"bool {taken}[{UNROLL}];")
            w.line("#pragma unroll")
            with self.block(each):
                self.atoms[symbol_of(loop.var)] = f"dg_min({first} + k, {extent} - 1)"
                condition = self.value(test.condition)
                w.line(f"{taken}[k] = {condition} && {first} + k < {extent};")
            w.line("#pragma unroll")
            with self.block(each), self.block(f"if ({taken}[k])"):
                self.atoms[symbol_of(loop.var)] = f"({first} + k)"
                self.run(test.body)

    def loop_name(self, var: Expr) -> str:
        """A name for a loop variable."""
        return self.w.new_name(f"{symbol_of(var).name}_")

    def chain(self, r: Reduce) -> None:
        """A reduction by one thread, one element after another."""
        state = []
        for a in r.accumulators:
            for register, start in zip(a.carry, a.init, strict=True):
                first, name = self.value(start), self.w.new_name("c")
                self.w.line(f"{register_type(register.dtype)} {name} = {first};")
                state.append((register, name))
        if r.extent != 0:
            with self.counted(r.var, r.extent, (r,), unroll=self.can_look_ahead(r)):
                for register, name in state:
                    self.keep(register, name)
                after = [self.value(x) for a in r.accumulators for x in a.step]
                self.assign(r.stores)
                self.update([name for _, name in state], after)
        for register, name in state:
            self.keep(register, name)

    def can_look_ahead(self, r: Reduce) -> bool:
        """Whether nothing that a reduction loads can be what it stores."""
        written = {s.buffer.name for s in r.stores}
        read = {e.memory[0].name for e in scalars_in((r,)) if e.op in ("load", "gather")}
        return not written or (written.isdisjoint(read) and written | read <= self.signature.apart)

    def update(self, names: list[str], values: list[str]) -> None:
        """Variables take new values, all at the same time."""
        held = [
            self.w.value("auto", v) if v in names and v != n else v
            for n, v in zip(names, values, strict=True)
        ]
        for name, value in zip(names, held, strict=True):
            if name != value:
                self.w.line(f"{name} = {value};")

    def check(self, check: Check) -> None:
        """0 <= value < bound, else the error word is set and the thread leaves."""
        value = self.value(check.value)
        bound = self.dim(check.bound)
        with self.w.block(f"if ((dg_word){value} >= (dg_word){bound})"):
            self.w.line(f"dg_fail(error, {check.code}, {value});")
            self.w.line(self.leave)

    # -- what a loop leaves alone -------------------------------------------------------------

    def enter(self, body: tuple[Stmt, ...], inside: set[Atom]) -> None:
        """Before a loop over the variables `inside`: forget what its body writes, and compute
        what the body uses but does not change."""
        written = {s.buffer for s in ir.walk(body) if isinstance(s, Store)}
        self.forget_loads(written)
        self.hoist(scalars_in(body), inside | bound_in(body), written)

    def hoist(self, values: Iterable[Scalar], bound: set[Atom], written: set[Buffer]) -> None:
        """Compute those of the values (operands first) that depend neither on the variables
        `bound` nor on memory that is written."""
        fixed: set[Scalar] = set()
        for e in values:
            if e.op == "const" or self.find(e) is not None:
                fixed.add(e)
                continue
            if e.op in ("gather", "reg"):  # a gather stays behind the check that lets it through
                continue
            if e.op == "load" and (e.memory[0] in written or symbols(e.memory[1]) & bound):
                continue
            if e.op == "index" and symbols(e.position) & bound:
                continue
            if all(x in fixed for x in e.args):
                fixed.add(e)
                self.value(e)


def is_sieve(loop: Loop) -> bool:
    """Whether a loop's turns do nothing where a condition fails, and none changes it for others."""
    if loop.extent == 0 or len(loop.body) != 1 or not isinstance(loop.body[0], If):
        return False
    written = {s.buffer for s in ir.walk(loop.body) if isinstance(s, Store)}
    below = children_first((loop.body[0].condition,))
    return not any(e.op == "gather" or (e.op == "load" and e.memory[0] in written) for e in below)


def cost_of(body: tuple[Stmt, ...]) -> int:
    """Number of primitives that a body computes."""
    return sum(_cost_of(e) for e in scalars_in(body))


def _cost_of(e: Scalar) -> int:
    if e.op == "formula":
        return _formula_cost(e.formula)
    return e.op not in ("const", "reg", "param", "index")


@lru_cache(maxsize=1024)
def _formula_cost(formula: Formula) -> int:
    return sum(_cost_of(e) for e in children_first((formula.body,)))


def atom_name(number: int) -> str:
    """The variable that holds a symbol of the program."""
    return f"d{number}"


def scalars_in(body: tuple[Stmt, ...]) -> list[Scalar]:
    """All scalar expressions of some statements, operands first."""
    roots = tuple(x for s in ir.walk(body) for x in ir.scalars_of(s))
    return children_first(roots)


def bound_in(body: tuple[Stmt, ...]) -> set[Atom]:
    """The variables of loops and reductions among some statements."""
    return {symbol_of(s.var) for s in ir.walk(body) if isinstance(s, Loop | Reduce)}


def sizes_of(body: tuple[Stmt, ...]) -> set[Atom]:
    """The symbols that some statements' index expressions use, and their loop variables."""
    dims: list[Dim] = [index for _, index in ir.accesses_of(body)]
    for stmt in ir.walk(body):
        if isinstance(stmt, Loop | Reduce):
            dims.append(stmt.extent)
        elif isinstance(stmt, Check):
            dims.append(stmt.bound)
        elif isinstance(stmt, Contract):
            dims += [stmt.batch, stmt.m, stmt.n, stmt.k]
            for x in (stmt.a, stmt.b, stmt.c):
                dims += [x.base, x.batch, *x.strides]
    dims += [e.position for e in scalars_in(body) if e.op == "index"]
    return {a for d in dims for a in symbols(d)}
