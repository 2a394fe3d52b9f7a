"""How rows are spread over threads, and which values of a row stay in registers.

A kernel's rows go to teams of T threads, T a power of two.  With n lanes, lane l belongs to
thread l // (n / T): neighbouring lanes to one thread, so that it reads and writes them at once.

The rule: a row of at most 16 elements is the work of one thread, as most threads of a team would
have nothing to do; lanes without an element are left out there, for combining with them changes
nothing (see `Reduction.init`).  Otherwise T is the least for which

- an access of a thread is 16 bytes of the widest elements or less,
- a row of known length has at most 32 elements per thread, or 8 where fewer than 1024 rows are
  known to be all (a GPU runs some 200 thousand threads), and a row of unknown length a warp,
- there are lanes for all threads in every reduction; a thread has 8 of one at most, and 64 values
  of all those of a pass.

Where not the elements of a row but those of neighbouring rows are neighbours in memory, T is 16 at
most: the 8 rows of a block use all 32 bytes that memory hands out at once.

Without reductions in lanes there is a thread for each element of a row, up to a block of them.

A team of up to 32 threads is *narrow*: several share a block and none waits for another.  A larger
one is *wide*: a block of its own.

A value of an element that several passes over the row need is computed, or read from memory, in
the first of them and kept in a register, if it is a load or expensive.  Registers have no index,
so the loops over such a row are unrolled; hence the length must be known, and such values take at
most 64 of the 255 registers of a thread at any time: the rest is for the work itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from dualgrad.compiler.ir.dims import Atom, Dim, coefficient, product, symbol_of, symbols, terms_of
from dualgrad.compiler.kernel.ir import (
    Buffer,
    Check,
    Kernel,
    Loop,
    Reduce,
    Stmt,
    Store,
    accesses_of,
    scalars_of,
    team_of,
    walk,
)
from dualgrad.compiler.kernel.scalar import Formula, Scalar, children_first
from dualgrad.compiler.passes.fuse import EXPENSIVE
from dualgrad.runtime.records import dataclass

WARP = 32
BLOCK = 128  # threads of a block of narrow teams
REGISTERS = 64  # that values of a row may take
_ACCESS_BYTES = 16
_MOST_LANES = 8  # of one reduction in one thread
_LARGEST_TEAM = 64
_FEW_ROWS = 1024
_MOST_EXCHANGED = 64  # values that warps exchange, each in 512 bytes of a block's 48 KiB at most
_ACROSS = 16  # threads at most where neighbours in memory belong to different rows
_SHORT = 16  # elements of a row that one thread takes on its own
_ELEMENTS, _ELEMENTS_OF_FEW = 32, 8  # per thread


@dataclass(frozen=True)
class Team:
    """Threads that work on a row together."""

    threads: int
    lanes: int  # the most of a reduction; block loops are spread in the same way

    @classmethod
    def of(cls, kernel: Kernel) -> Team:
        """The team for a kernel."""
        passes = passes_of(kernel)
        lanes = [s.lanes for s in passes if isinstance(s, Reduce)]
        if not lanes:
            return cls._without_lanes(passes)
        most, limit = max(lanes), min(*lanes, _LARGEST_TEAM)
        longest = max((_bound(s.extent) or _SHORT + 1 for s in passes if s.extent != 0), default=1)
        if longest <= _SHORT:
            return cls(1, min(most, 1 << (longest - 1).bit_length()))
        widest = max((b.dtype.itemsize for b in _along(passes)), default=_ACCESS_BYTES)
        threads = max(1, most // min(_MOST_LANES, _ACCESS_BYTES // widest))
        if _runs_across(kernel, passes):
            limit = min(limit, _ACROSS)
        carries = _carries(passes)
        if sum(carries) > _MOST_EXCHANGED:
            limit = min(limit, WARP)
        while threads < limit and (
            not _is_enough(threads, passes, rows_of(kernel))
            or max(carries) * most // threads > REGISTERS
        ):
            threads *= 2
        return cls(min(threads, limit), most)

    @classmethod
    def _without_lanes(cls, passes: list[Pass]) -> Team:
        """As many threads as there are elements, up to a whole block."""
        lengths = [_bound(s.extent) for s in passes]
        threads = 1
        while threads < BLOCK and any(n is None or n > threads for n in lengths):
            threads *= 2
        return cls(threads, threads)

    @property
    def is_wide(self) -> bool:
        return self.threads > WARP

    @property
    def per_block(self) -> int:
        """Teams of a block."""
        return 1 if self.is_wide else BLOCK // self.threads

    def share(self, lanes: int) -> int:
        """Lanes of one thread."""
        return min(lanes, self.lanes) // self.threads


Pass = Loop | Reduce


def is_pass(stmt: Stmt) -> bool:
    """Whether a statement of a team goes through the elements of a row with all threads."""
    if isinstance(stmt, Loop):
        return stmt.kind == "block"
    return isinstance(stmt, Reduce) and stmt.order == "lanes"


def passes_of(kernel: Kernel) -> list[Pass]:
    """The passes of a team over its row, in order."""
    return [s for s in team_of(kernel) if isinstance(s, Loop | Reduce) and is_pass(s)]


def _is_enough(threads: int, passes: list[Pass], rows: Dim) -> bool:
    """Whether a thread of so many has few enough elements of a row."""
    lengths = [_bound(s.extent) for s in passes]
    known = [n for n in lengths if n is not None]
    if len(known) < len(lengths):
        return threads >= WARP
    few = isinstance(rows, int) and rows < _FEW_ROWS
    return max(known, default=0) <= threads * (_ELEMENTS_OF_FEW if few else _ELEMENTS)


def _carries(passes: list[Pass]) -> list[int]:
    """How many values each reduction carries."""
    reductions = [s for s in passes if isinstance(s, Reduce)]
    return [sum(len(a.carry) for a in s.accumulators) for s in reductions]


def _runs_across(kernel: Kernel, passes: list[Pass]) -> bool:
    """Whether something is read whose neighbours in memory belong to the next row."""
    grid = grid_of(kernel)
    if not grid:
        return False
    for stmt in passes:
        for _, index in accesses_of((stmt,)):
            along, across = coefficient(index, stmt.var), coefficient(index, grid[-1].var)
            if along and across and along[0] not in (0, 1) and across[0] == 1:
                return True
    return False


def grid_of(kernel: Kernel) -> list[Loop]:
    """The grid loops, outermost first."""
    out: list[Loop] = []
    body = kernel.body
    while len(body) == 1 and isinstance(body[0], Loop) and body[0].kind == "grid":
        out.append(body[0])
        body = body[0].body
    return out


def rows_of(kernel: Kernel) -> Dim:
    """The number of iterations of the grid loops."""
    return product(x.extent for x in grid_of(kernel))


def _bound(extent: Dim) -> int | None:
    """A number that an extent does not exceed, where there is one to see."""
    if isinstance(extent, int):
        return extent
    ((monomial, c), *more) = terms_of(extent)
    if more or c != 1 or len(monomial) != 1 or monomial[0].kind != "min":
        return None
    return min((n for n in monomial[0].args if isinstance(n, int)), default=None)


def _along(passes: Iterable[Pass]) -> set[Buffer]:
    """The buffers that passes touch at every element."""
    found = set()
    for stmt in passes:
        atom = symbol_of(stmt.var)
        found |= {b for b, index in accesses_of((stmt,)) if atom in symbols(index)}
    return found


# -- values in registers ----------------------------------------------------------------------


@dataclass(frozen=True)
class Kept:
    """A value of every element that passes `first` .. `last` have in a register."""

    value: Scalar
    first: int
    last: int


def kept_values(passes: list[Pass], team: Team) -> list[Kept]:
    """Which values stay in registers from pass to pass, where all passes are alike."""
    passes = [s for s in passes if s.extent != 0]
    per_thread = elements_per_thread(passes, team)
    if per_thread is None:
        return []
    atom = symbol_of(passes[0].var)
    first: dict[Scalar, int] = {}
    last: dict[Scalar, int] = {}
    stale: set[Buffer] = set()
    for k, stmt in enumerate(passes):
        met: list[Scalar] = []
        stack = list(roots_of(stmt))
        seen = set(stack)
        while stack:
            e = stack.pop()
            if e in first and _is_worth_it(e) and not _reads(e, stale):
                last[e] = k
                continue
            met.append(e)
            stack += [x for x in e.args if x not in seen]
            seen.update(e.args)
        for e in met:
            if atom in _symbols_of(e):
                first.setdefault(e, k)
        stale |= {s.buffer for s in walk((stmt,)) if isinstance(s, Store)}
    wanted = [Kept(e, first[e], k) for e, k in last.items()]
    wanted.sort(key=lambda x: size_of(x.value), reverse=True)
    return _within_budget(wanted, per_thread, len(passes))


def elements_per_thread(passes: list[Pass], team: Team) -> int | None:
    """Elements of a row that one thread has, if all passes go through the same known number of
    them, in the same lanes."""
    if not passes or any(s.var != passes[0].var or not is_plain(s) for s in passes):
        return None
    if any(isinstance(s, Reduce) and s.lanes < team.lanes for s in passes):
        return None
    extent = passes[0].extent
    if not isinstance(extent, int):
        return None
    return min(extent, -(-extent // team.lanes) * team.share(team.lanes))


def is_plain(stmt: Pass) -> bool:
    """Whether a pass does nothing but steps and stores, or nothing but checks."""
    if isinstance(stmt, Reduce):
        return True
    return len({type(s) for s in stmt.body}) == 1 and isinstance(stmt.body[0], Store | Check)


def _within_budget(wanted: list[Kept], per_thread: int, passes: int) -> list[Kept]:
    used = [0] * passes  # registers between a pass and the next
    out = []
    for x in wanted:
        registers = per_thread * (2 if x.value.dtype.bits == 64 else 1)
        between = range(x.first, x.last)
        if all(used[k] + registers <= REGISTERS for k in between):
            out.append(x)
            for k in between:
                used[k] += registers
    return out


def roots_of(stmt: Stmt) -> tuple[Scalar, ...]:
    """All scalars that a statement and those inside of it evaluate."""
    return tuple(x for s in walk((stmt,)) for x in scalars_of(s))


def _is_worth_it(e: Scalar) -> bool:
    return e.op in ("load", "gather") or size_of(e) >= EXPENSIVE


def _reads(e: Scalar, buffers: set[Buffer]) -> bool:
    return any(x.op in ("load", "gather") and x.memory[0] in buffers for x in children_first((e,)))


def _symbols_of(e: Scalar) -> set[Atom]:
    """The symbols that a value depends on."""
    out: set[Atom] = set()
    for x in children_first((e,)):
        if x.op in ("load", "gather"):
            out |= symbols(x.memory[1])
        elif x.op == "index":
            out |= symbols(x.position)
    return out


def size_of(e: Scalar) -> int:
    """Number of primitives below a value."""
    return sum(_primitives(x) for x in children_first((e,)))


def _primitives(e: Scalar) -> int:
    if e.op == "formula":
        return _formula_size(e.formula)
    return e.op not in ("const", "reg", "param", "index", "load", "gather")


@lru_cache(maxsize=1024)
def _formula_size(formula: Formula) -> int:
    return size_of(formula.body)
