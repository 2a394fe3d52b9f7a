"""Kernels of rows: each row is the work of a team of threads (see `teams`).

Teams take rows in strides of the grid.  A store that belongs to a row, not to its elements, is
done by the first thread.  A check that fails sets the error word; nothing more is done for that
row, by any of its threads, so no thread is missed at a barrier and nothing is read at a place that
was not let through.

Threads wait for each other in reductions.  Nothing else is needed: no statement touches what
another one stores, but for an element that is overwritten by the pass that reads it last; all
threads have then met in a reduction since the passes before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby

from dualgrad.compiler.ir.dims import symbol_of
from dualgrad.compiler.kernel import ir
from dualgrad.compiler.kernel.ir import Check, Kernel, Loop, Reduce, Stmt, Store, team_of
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.compiler.lower.cuda.ctype import register_type
from dualgrad.compiler.lower.cuda.kernel import KernelText, Signature
from dualgrad.compiler.lower.cuda.scalars import Formulas
from dualgrad.compiler.lower.cuda.sweep import SweepCode
from dualgrad.compiler.lower.cuda.teams import (
    BLOCK,
    WARP,
    Team,
    grid_of,
    kept_values,
    passes_of,
    rows_of,
)
from dualgrad.runtime.errors import CompileError


def team_kernel(kernel: Kernel, signature: Signature, formulas: Formulas) -> KernelText:
    """The function of a row kernel."""
    code = TeamCode(kernel, signature, formulas)
    code.write()
    threads = code.team.threads if code.team.is_wide else BLOCK
    return KernelText(code.finish(threads), rows_of(kernel), code.team.per_block, threads)


class TeamCode(SweepCode):
    """Writes a row kernel."""

    leave = "continue;"

    def __init__(self, kernel: Kernel, signature: Signature, formulas: Formulas) -> None:
        self.body = team_of(kernel)
        team = Team.of(kernel)
        super().__init__(signature, formulas, team, kept_values(passes_of(kernel), team))
        self.kernel = kernel
        self.failed = ""  # names what says whether a check has failed in this thread

    def write(self) -> None:
        """The whole body of the function."""
        w, team = self.w, self.team
        loops = grid_of(self.kernel)
        rank = "threadIdx.x" if team.is_wide else f"threadIdx.x & {team.threads - 1}"
        w.line(f"const int t = {rank if team.threads > 1 else 0};")
        if 1 < team.threads < WARP:
            ones = f"0x{(1 << team.threads) - 1:x}u"
            w.line(f"const unsigned team = {ones} << (threadIdx.x & {WARP - team.threads});")
        self.guard(self.body)
        self.enter(self.body, {symbol_of(x.var) for x in loops})
        first, step = "(dg_unsigned)blockIdx.x", "(dg_unsigned)gridDim.x"
        if team.per_block > 1:
            place = "threadIdx.x" if team.threads == 1 else f"threadIdx.x / {team.threads}"
            first = f"{first} * {team.per_block} + {place}"
            step = f"{step} * {team.per_block}"
        # without a sign: the sum of a row's number and the step may exceed the largest index
        w.line(f"const dg_unsigned rows = {self.dim(rows_of(self.kernel))};")
        with self.block(f"for (dg_unsigned row = {first}; row < rows; row += {step})"):
            self.decompose(loops)
            if self.team.is_wide and self.meets_rarely():
                w.line("__syncthreads();")
            self.statements()

    def meets_rarely(self) -> bool:
        """Whether a thread could write to shared memory for the next row before another has read
        what stands there: only if there is but one barrier from row to row, or a row is left."""
        checks = has_checks(self.body)
        reductions = sum(isinstance(s, Reduce) and s.order == "lanes" for s in self.body)
        return checks or reductions < 2

    def decompose(self, loops: list[Loop]) -> None:
        """Name the loop variables of a row."""
        rest = "row"
        for k, loop in reversed(list(enumerate(loops))):
            name, extent = self.loop_name(loop.var), self.dim(loop.extent)
            value = rest if k == 0 else f"dg_mod({rest}, {extent})"
            self.w.line(f"const dg_index {name} = {value};")
            self.atoms[symbol_of(loop.var)] = name
            if k > 0:
                following = self.w.new_name("rest_")
                self.w.line(f"const dg_index {following} = dg_div({rest}, {extent});")
                rest = following

    # -- statements of a team -----------------------------------------------------------------

    def statements(self) -> None:
        """All that is done for a row."""
        for is_store, group in groupby(self.body, lambda s: isinstance(s, Store)):
            stmts = tuple(group)
            if is_store:
                with self.block("if (t == 0)"):
                    self.assign(stmts)  # type: ignore[arg-type]
                self.forget_loads({s.buffer for s in stmts if isinstance(s, Store)})
                continue
            for stmt in stmts:
                self.team_statement(stmt)

    def team_statement(self, stmt: Stmt) -> None:
        if isinstance(stmt, Check):
            self.team_check(stmt)
        elif isinstance(stmt, Reduce) and stmt.order == "lanes":
            self.in_lanes(stmt)
        elif isinstance(stmt, Reduce) and not stmt.stores:
            self.chain(stmt)
        elif isinstance(stmt, Loop) and stmt.kind == "block":
            self.spread(stmt)
        else:
            raise CompileError(
                f"kernel {self.kernel.name}: a {type(stmt).__name__} is not for a team", op="cuda"
            )

    def team_check(self, check: Check) -> None:
        """A check that all threads ask, with the same answer."""
        value = self.value(check.value)
        bound = self.dim(check.bound)
        with self.w.block(f"if ((dg_word){value} >= (dg_word){bound})"):
            self.w.line(f"if (t == 0) dg_fail(error, {check.code}, {value});")
            self.w.line(self.leave)

    def spread(self, loop: Loop) -> None:
        """A loop whose iterations are spread over the threads."""
        if loop.extent == 0:
            return
        checks = has_checks(loop.body)
        if checks:
            self.failed = self.w.new_name("failed")
            self.w.line(f"int {self.failed} = 0;")
        self.sweep(loop, self.team.lanes, lambda: self.items(loop.body))
        if checks:
            self.w.line(f"if ({self.vote(self.failed)}) {self.leave}")

    def items(self, body: tuple[Stmt, ...]) -> None:
        """Statements for one element; none of them after a check of it that failed."""
        done = 0
        for is_store, group in groupby(body, lambda s: isinstance(s, Store)):
            stmts = tuple(group)
            done += len(stmts)
            if is_store:
                self.put(stmts)  # type: ignore[arg-type]
                continue
            for k, stmt in enumerate(stmts, done - len(stmts) + 1):
                if isinstance(stmt, Check):
                    with self.failing(stmt):
                        pass
                else:
                    self.run((stmt,))
                    if not has_checks((stmt,)):
                        continue
                if k < len(body):
                    with self.block("else" if isinstance(stmt, Check) else f"if (!{self.failed})"):
                        self.items(body[k:])
                return

    def check(self, check: Check) -> None:
        """A check in a loop of one thread, which goes on with the next iteration."""
        with self.failing(check):
            self.w.line("continue;")

    @contextmanager
    def failing(self, check: Check) -> Iterator[None]:
        """What a thread does where a check of it fails."""
        value, bound = self.value(check.value), self.dim(check.bound)
        with self.w.block(f"if ((dg_word){value} >= (dg_word){bound})"):
            self.w.line(f"dg_fail(error, {check.code}, {value});")
            self.w.line(f"{self.failed} = 1;")
            yield

    # -- reductions ---------------------------------------------------------------------------

    def in_lanes(self, r: Reduce) -> None:
        """A reduction by all threads, each with its own lanes."""
        share = self.team.share(r.lanes)
        state: list[tuple[Scalar, str]] = []
        for a in r.accumulators:
            for register, init in zip(a.carry, a.init, strict=True):
                start, name = self.value(init), self.w.new_name("c")
                kind = register_type(register.dtype)
                if share == 1:
                    self.w.line(f"{kind} {name} = {start};")
                else:
                    self.w.line(f"{kind} {name}[{share}];")
                    self.w.line("#pragma unroll")
                    self.w.line(f"for (int v = 0; v < {share}; ++v) {name}[v] = {start};")
                state.append((register, name))
        if r.extent != 0:
            self.sweep(r, r.lanes, lambda: self.step(r, state, "" if share == 1 else "[v]"))
        names = iter([[n] if share == 1 else [f"{n}[{k}]" for k in range(share)] for _, n in state])
        for a in r.accumulators:
            totals = self.combined(a, [next(names) for _ in a.carry])
            for register, total in zip(a.carry, totals, strict=True):
                self.keep(register, total)

    def step(self, r: Reduce, state: list[tuple[Scalar, str]], item: str) -> None:
        """One more element."""
        for register, name in state:
            self.keep(register, name + item)
        after = [self.value(x) for a in r.accumulators for x in a.step]
        self.put(r.stores)
        self.update([name + item for _, name in state], after)


def has_checks(body: tuple[Stmt, ...]) -> bool:
    return any(isinstance(s, Check) for s in ir.walk(body))
