"""The loop IR: one kernel as loops, reductions, loads and stores.  Device-neutral.

    Kernel   ::= name  buffers  body
    Stmt     ::= Loop | If | Reduce | Store | Check | Contract | Pack | Call
    Loop     ::= kind var extent { Stmt* }
                 kind: serial, on a CPU also parallel | vector, on a GPU also grid | block
    If       ::= Scalar { Stmt* }                    on a GPU
    Reduce   ::= order var extent { Accumulator+  Store* }   order: lanes(n) | chain
    Store    ::= buffer[index] = Scalar    or    buffer[index + Scalar] = Scalar
    Check    ::= 0 <= Scalar < bound, else the program stops with an error
    Contract ::= c[i, j] = sum over k of a[i, k] * b[k, j], then Store* per element
    Pack     ::= packed[k, j] = b[k, j], for contractions          on a CPU
    Call     ::= output = routine(input*), by a function of the host

A store whose place is computed may hit one element in several iterations of a `serial` loop, in
their order; iterations of other loops must not.

Consecutive stores are one parallel assignment: all their values are taken before the first is
written.  So are the stores of a `Reduce` or an epilogue, for each element.  Those of a `chain`
may use its carries, which are there the values before the element's step: a scan stores the step
itself (inclusive) or the carry (exclusive).

Iterations of all loops but `serial` ones are independent.  `Reduce` carries values from one
element to the next and defines registers that hold their totals, for the statements after it in
the same body.

On a CPU there is at most one `parallel` loop, the outermost statement of a kernel, and `vector`
loops are innermost (a `chain` reduction may stand in one: every lane has its own).

On a GPU `grid` loops are outermost and perfectly nested; each iteration of the whole nest (the
kernel itself, if there is none) goes to a team of threads.  Iterations of a `block` loop are
spread over the threads of the team; what stands in it, chains and serial loops with it, is the
work of one thread.  A kernel is flat (`is_flat`) if its teams do nothing but one block loop, or
nothing that threads could share: then grid and block loops are one space of iterations, a thread
for each.  In any other kernel what stands beside block loops is the team's: a `lanes` reduction
is spread over its threads, all of which know its totals; a store is done once; a check that fails
stops the team; a serial loop holds one statement, another serial loop or a block loop, and its
iterations see what earlier ones have stored.  Apart from that no statement of a team touches what
another one stores: threads of a team wait for each other in reductions, and after each iteration
of a serial loop.

The order of a reduction is part of its meaning (same bits everywhere):

- `lanes(n)`: element i goes to lane i mod n, each lane takes its elements in order, starting
  from `init`; then lanes are combined by halves: lane l with lane l + n/2, then l + n/4, ...
  On a GPU combining with `init` changes nothing: lanes without elements may be left out.
- `chain`: one after another in index order, starting from `init`.

The order of `Contract` along K: ceil(K/512) blocks of equal length ceil(K/blocks) (the last may
be shorter); in a block one chain of fma from +0.0 (integers: multiply, add) in index order; the
block sums are added in index order (the first as it is).  `blocks_of` is their number.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Literal

from dualgrad.compiler.ir.dims import (
    Atom,
    Dim,
    Expr,
    ceil_div,
    free_atoms_of,
    substitute,
    symbol_of,
)
from dualgrad.compiler.kernel.scalar import Scalar, children_first
from dualgrad.runtime.dtype import DType
from dualgrad.runtime.program import HostCall, Param
from dualgrad.runtime.records import dataclass

K_BLOCK = 512
PACKED_ROWS = 8  # of a product from which on kernels are of one width on every vector unit
Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Buffer:
    """Memory that a kernel reads or writes: `size` elements (the bound of every index)."""

    name: str
    dtype: DType
    size: Dim


@dataclass(frozen=True)
class Store:
    buffer: Buffer
    index: Dim
    value: Scalar
    position: Scalar | None = None  # an int64 that is added to the index


@dataclass(frozen=True)
class Check:
    """0 <= value < bound (int64), else error number `code` with the value."""

    value: Scalar
    bound: Dim
    code: int


@dataclass(frozen=True)
class Accumulator:
    """Values carried through a reduction: `step` in terms of `carry` and the element,
    `combine` in terms of `left` and `right` (a chain needs none: all three may be empty there);
    the totals appear as `carry` afterwards."""

    carry: tuple[Scalar, ...]
    init: tuple[Scalar, ...]
    step: tuple[Scalar, ...]
    left: tuple[Scalar, ...] = ()
    right: tuple[Scalar, ...] = ()
    combine: tuple[Scalar, ...] = ()


@dataclass(frozen=True)
class Reduce:
    var: Expr
    extent: Dim
    order: Literal["lanes", "chain"]
    lanes: int  # 1 for chain
    accumulators: tuple[Accumulator, ...]
    stores: tuple[Store, ...] = ()  # executed for every element; those of lanes see no carries

    @property
    def is_scan(self) -> bool:
        """Whether stores use the carries."""
        carries = {c for a in self.accumulators for c in a.carry}
        return not carries.isdisjoint(children_first(tuple(s.value for s in self.stores)))


@dataclass(frozen=True)
class Loop:
    kind: Literal["parallel", "serial", "vector", "grid", "block"]
    var: Expr
    extent: Dim
    body: tuple[Stmt, ...]


@dataclass(frozen=True)
class If:
    """Statements that are run where a bool is true."""

    condition: Scalar
    body: tuple[Stmt, ...]


@dataclass(frozen=True)
class Walk:
    """A way through memory that no single stride describes: index `var` lies `place` elements
    from the start, an expression of `var` and of sizes."""

    var: Expr
    place: Dim

    def at(self, index: Dim) -> Dim:
        return substitute(self.place, {symbol_of(self.var): index})


@dataclass(frozen=True)
class Operand:
    """A matrix (or a batch of them) in memory: base + batch*b + row*r + column*c elements.

    On a CPU rows and columns of what is multiplied may be walks, as those of the windows of an
    image are: then the place of an element is the sum of theirs.
    """

    buffer: Buffer
    base: Dim
    batch: Dim
    row: Dim | Walk
    col: Dim | Walk

    @property
    def walks(self) -> bool:
        return isinstance(self.row, Walk) or isinstance(self.col, Walk)

    @property
    def strides(self) -> tuple[Dim, Dim]:
        """Those of rows and columns that do not walk."""
        assert not isinstance(self.row, Walk)
        assert not isinstance(self.col, Walk)
        return self.row, self.col

    def place(self, batch: Dim, row: Dim, col: Dim) -> Dim:
        """Where an element lies."""
        return self.base + self.batch * batch + along(self.row, row) + along(self.col, col)


def along(step: Dim | Walk, index: Dim) -> Dim:
    """How far an index lies from the start: by a stride or a walk."""
    return step.at(index) if isinstance(step, Walk) else step * index


@dataclass(frozen=True)
class Contract:
    """Batched matrix product, then an epilogue of stores for every element of C.

    `batch_var, row_var, col_var` are the indices that `epilogue` is written in, `result` its
    register for the finished sum.  The sums themselves pass through `c` (row-major, unit
    column stride), which the epilogue may store to again.  Without scratch memory on a GPU.

    On a CPU operands of a float32 product may both be float16, or bfloat16: their values count.

    `packed`: a `Pack` has made b, of this dtype; on a CPU, for at least `PACKED_ROWS` rows.

    With `parts`, the number of blocks along K, the block sums stay apart: matrix p * batch + b of
    `c` is block p of matrix b, and nothing is added.  Such a product has no epilogue.
    """

    a: Operand
    b: Operand
    c: Operand
    batch: Dim
    m: Dim
    n: Dim
    k: Dim
    workspace: Buffer | None
    batch_var: Expr
    row_var: Expr
    col_var: Expr
    result: Scalar
    epilogue: tuple[Store, ...]
    parts: Dim | None = None
    packed: bool = False

    @cached_property
    def after(self) -> Touched:
        """What the epilogue touches."""
        return Touched(self.epilogue)


@dataclass(frozen=True)
class Pack:
    """`packed` becomes the matrix `b` (k x n), row-major: the second operand of contractions.

    These are the only ones to read it.  So in memory it is what their kernels want: panels, with
    room for which it is larger than k n.
    """

    b: Operand
    packed: Buffer
    k: Dim
    n: Dim

    @property
    def operand(self) -> Operand:
        """What contractions read."""
        return Operand(self.packed, 0, 0, self.n, 1)


def blocks_of(k: Dim) -> Dim:
    """The number of blocks along K that a contraction is summed in."""
    return ceil_div(k, K_BLOCK)


@dataclass(frozen=True)
class Block:
    """A whole tensor in memory: row-major, from element `base` of a buffer on."""

    buffer: Buffer
    base: Dim
    shape: tuple[Dim, ...]


@dataclass(frozen=True)
class Call:
    """A function of the host fills `output` from `inputs`; it is all there is in its kernel.

    `sizes` are numbers that it is given when it runs, `params` (numbers, strings, tuples of them)
    are part of the program.  Error number `code` if the function raises an exception.
    """

    routine: str
    params: tuple[Param, ...]
    sizes: tuple[Dim, ...]
    inputs: tuple[Block, ...]
    output: Block
    code: int

    @property
    def host(self) -> HostCall:
        """What the device must provide."""
        arrays = (*self.inputs, self.output)
        types = tuple((x.buffer.dtype.name, len(x.shape)) for x in arrays)
        return HostCall(self.routine, self.params, types, len(self.sizes))


@dataclass(frozen=True)
class Touched:
    """What statements touch, looked up once."""

    body: tuple[Stmt, ...]

    @cached_property
    def accesses(self) -> tuple[tuple[Buffer, Dim], ...]:
        """Every place, as `accesses_of` has them."""
        return tuple(accesses_of(self.body))

    @cached_property
    def computed(self) -> frozenset[str]:
        """The names of buffers of which places are computed."""
        return frozenset(b.name for b in _computed_in(self.body))

    def indices(self, name: str) -> list[Dim]:
        """The places in a buffer."""
        return [index for b, index in self.accesses if b.name == name]


Stmt = Loop | If | Reduce | Store | Check | Contract | Pack | Call


@dataclass(frozen=True)
class Kernel:
    """One loop nest over named buffers."""

    name: str
    body: tuple[Stmt, ...]
    lines: tuple[tuple[str, int], ...] = ()  # the user's (file, line)s that it came from

    @cached_property
    def places(self) -> Touched:
        """What it touches."""
        return Touched(self.body)

    @cached_property
    def starts(self) -> dict[Buffer, int]:
        """The buffers that it touches, as `starts_of` has them."""
        return starts_of(self.places)

    @cached_property
    def origins(self) -> dict[Buffer, Dim]:
        """The same buffers, as `origins_of` has them."""
        return origins_of(self)

    @cached_property
    def touched(self) -> frozenset[str]:
        """The names of the buffers that it touches."""
        return frozenset(b.name for b in self.starts)

    @cached_property
    def stored(self) -> frozenset[str]:
        """The names of those that it writes to; scratch memory of a product does not count."""
        return frozenset(b.name for b in _written(self.body))

    @cached_property
    def kind(self) -> str:
        """What the kernel is, for reports: map, row, column, scan, contract, pack or call."""
        kinds = {type(s) for s in walk(self.body)}
        if Pack in kinds:
            return "pack"
        if Call in kinds:
            return "call"
        if Contract in kinds:
            return "contract"
        reductions = [s for s in walk(self.body) if isinstance(s, Reduce)]
        if any(r.order == "lanes" for r in reductions):
            return "row"
        if any(r.is_scan for r in reductions):
            return "scan"
        return "column" if reductions else "map"


def walk(body: tuple[Stmt, ...]) -> Iterator[Stmt]:
    """All statements, outer before inner."""
    for stmt in body:
        yield stmt
        if isinstance(stmt, Loop | If):
            yield from walk(stmt.body)
        elif isinstance(stmt, Reduce):
            yield from stmt.stores
        elif isinstance(stmt, Contract):
            yield from stmt.epilogue


def is_flat(kernel: Kernel) -> bool:
    """Whether a kernel for a GPU is one space of independent iterations, a thread for each."""
    body = team_of(kernel)
    if len(body) == 1 and isinstance(body[0], Loop) and body[0].kind == "block":
        body = body[0].body
    return not any(_is_shared(stmt) for stmt in walk(body))


def is_stepped(kernel: Kernel) -> bool:
    """Whether teams do nothing but go through serial loops around a block loop."""
    body = team_of(kernel)
    loop = body[0] if len(body) == 1 else None
    if not isinstance(loop, Loop) or loop.kind != "serial":
        return False
    while isinstance(loop, Loop) and loop.kind == "serial" and len(loop.body) == 1:
        loop = loop.body[0]
    return isinstance(loop, Loop) and loop.kind == "block"


def team_of(kernel: Kernel) -> tuple[Stmt, ...]:
    """What a kernel for a GPU does in each iteration of its grid loops."""
    body = kernel.body
    while len(body) == 1 and isinstance(body[0], Loop) and body[0].kind == "grid":
        body = body[0].body
    return body


def _is_shared(stmt: Stmt) -> bool:
    """Whether a statement is the work of several threads, or of none."""
    if isinstance(stmt, Loop):
        return stmt.kind == "block"
    if isinstance(stmt, Reduce):
        return stmt.order == "lanes"
    return isinstance(stmt, Contract | Call)


def scalars_of(stmt: Stmt) -> tuple[Scalar, ...]:
    """The scalar expressions that a statement itself evaluates (not its nested statements)."""
    if isinstance(stmt, Check) or (isinstance(stmt, Store) and stmt.position is None):
        return (stmt.value,)
    if isinstance(stmt, If):
        return (stmt.condition,)
    if isinstance(stmt, Store):
        assert stmt.position is not None
        return (stmt.value, stmt.position)
    if isinstance(stmt, Reduce):
        return tuple(x for a in stmt.accumulators for x in (*a.init, *a.step))
    return ()


def accesses_of(body: tuple[Stmt, ...]) -> Iterator[tuple[Buffer, Dim]]:
    """Every place that statements touch: (buffer, index or start), outer before inner; what
    several of them load, once."""
    known: set[Scalar] = set()
    for stmt in walk(body):
        if isinstance(stmt, Store):
            yield stmt.buffer, stmt.index
        elif isinstance(stmt, Contract):
            for operand in (stmt.a, stmt.b, stmt.c):
                yield operand.buffer, operand.base
            if stmt.workspace is not None:
                yield stmt.workspace, 0
        elif isinstance(stmt, Pack):
            yield stmt.b.buffer, stmt.b.base
            yield stmt.packed, 0
        elif isinstance(stmt, Call):
            for x in (*stmt.inputs, stmt.output):
                yield x.buffer, x.base
        below = children_first(scalars_of(stmt), known)
        known.update(below)
        for e in below:
            if e.op in ("load", "gather"):
                yield e.memory


def _written(body: tuple[Stmt, ...]) -> Iterator[Buffer]:
    """The buffers that statements store to."""
    for stmt in walk(body):
        if isinstance(stmt, Store):
            yield stmt.buffer
        elif isinstance(stmt, Contract):
            yield stmt.c.buffer
        elif isinstance(stmt, Pack):
            yield stmt.packed
        elif isinstance(stmt, Call):
            yield stmt.output.buffer


def _computed_in(body: tuple[Stmt, ...]) -> Iterator[Buffer]:
    """The buffers that statements touch at computed places."""
    known: set[Scalar] = set()
    for stmt in walk(body):
        if isinstance(stmt, Store) and stmt.position is not None:
            yield stmt.buffer
        below = children_first(scalars_of(stmt), known)
        known.update(below)
        for e in below:
            if e.op == "gather":
                yield e.memory[0]


def buffers_of(body: tuple[Stmt, ...]) -> list[Buffer]:
    """The buffers that statements touch, each once, in order of appearance."""
    out: dict[str, Buffer] = {}
    for b, _ in accesses_of(body):
        out.setdefault(b.name, b)
    return list(out.values())


def starts_of(places: Touched) -> dict[Buffer, int]:
    """For each buffer, in the order of `buffers_of`, the least number that is added to an index,
    but 0 instead of less: kernels that differ in these alone do the same from other places on."""
    out: dict[str, tuple[Buffer, int]] = {}
    for b, index in places.accesses:
        start = index if isinstance(index, int) else dict(index.terms).get((), 0)
        known = out.get(b.name)
        out[b.name] = (b, start if known is None else min(start, known[1]))
    return {b: max(start, 0) for b, start in out.values()}


def origins_of(kernel: Kernel) -> dict[Buffer, Dim]:
    """For each buffer, what is added to an index in every iteration: as `starts_of` says, or, where
    that depends on sizes, as the first index has it.  Kernels that differ in these alone do the
    same from other places on."""
    inside = _variables_of(kernel.body)
    first: dict[Buffer, Dim] = {}
    for b, index in kernel.places.accesses:
        if b in first or isinstance(index, int):
            continue
        fixed = {
            m: c
            for m, c in index.terms
            if m and all(inside.isdisjoint(free_atoms_of(a)) for a in m)
        }
        if fixed:
            first[b] = Expr.of({**fixed, (): dict(index.terms).get((), 0)})
    return {b: first.get(b, start) for b, start in kernel.starts.items()}


def _variables_of(body: tuple[Stmt, ...]) -> set[Atom]:
    """The variables of loops."""
    found: set[Atom] = set()
    for stmt in walk(body):
        if isinstance(stmt, Loop | Reduce):
            found.add(symbol_of(stmt.var))
        elif isinstance(stmt, Contract):
            found |= {symbol_of(v) for v in (stmt.batch_var, stmt.row_var, stmt.col_var)}
    return found
