"""The reference interpreter of the loop IR: what a kernel means, slowly and checked.

It follows `kernel/ir.py` word for word: NumPy evaluates the elements of a `vector` or `block`
loop or of a reduction together, everything else runs in Python, one statement after another.  It
checks what compiled code takes for granted, and raises a CompileError that names the kernel:

- every index of a load or a store lies in [0, size) of its buffer;
- iterations of all loops but `serial` ones are independent, and so are the elements of a reduction
  but for its carries: none touches an element of a buffer that another one stores to;
- on a GPU, neither do the statements of a team, and combining with the initial state of a lane
  changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from random import Random

import numpy as np

from dualgrad.compiler.ir.dims import Atom, Dim, Expr, symbol_of, symbols
from dualgrad.compiler.kernel.ir import (
    K_BLOCK,
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
    Operand,
    Pack,
    Reduce,
    Stmt,
    Store,
    Walk,
    is_flat,
    team_of,
    walk,
)
from dualgrad.compiler.kernel.scalar import Number, Scalar, children_first
from dualgrad.compiler.lower.reference_scalar import Array, constant, evaluate, fma
from dualgrad.runtime.dtype import DType, bfloat16
from dualgrad.runtime.errors import CompileError

Library = Mapping[str, Callable[..., None]]


def run(
    kernels: Sequence[Kernel],
    buffers: Mapping[str, Array],
    params: Mapping[str, Number],
    sizes: Mapping[Atom, int],
    seed: int | None = None,
    library: Library | None = None,
    device: Device = "cpu",
) -> int:
    """Run `kernels` in order on `buffers`, one-dimensional arrays that they write to.

    A failing `Check` stops everything; the result is then its error word, an int64 with
    1 + code in the low 16 bits and the value in the high 48, and otherwise 0.  With a `seed` the
    iterations of independent loops run in a random order.  Raises CompileError as said above.
    `library` holds the functions of the host that calls name; what they raise is not caught.
    """
    for kernel in kernels:
        interpreter = _Interpreter(kernel, buffers, params, sizes, seed, library or {})
        word = interpreter.run(device)
        if word:
            return word
    return 0


def dim_value(d: Dim, values: Mapping[Atom, int | Array]) -> int | Array:
    """The value of a dimension where some symbols stand for arrays of int64."""
    if isinstance(d, int):
        return d
    total: int | Array = 0
    for monomial, c in d.terms:
        term: int | Array = c
        for a in monomial:
            term = term * _atom_value(a, values)
        total = total + term
    return total


def _atom_value(a: Atom, values: Mapping[Atom, int | Array]) -> int | Array:
    if a.kind == "sym":
        return values[a]
    x, y = (dim_value(arg, values) for arg in a.args)
    if a.kind == "min":
        return np.minimum(x, y)
    return x // y if a.kind == "div" else x % y


class _Stopped(Exception):
    """A check failed; `word` says which."""

    def __init__(self, word: int) -> None:
        self.word = word


class _Accesses:
    """Which iteration touched which element, to find iterations that are not independent."""

    def __init__(self, what: str, iteration: int | Array) -> None:
        self.what = what
        self.iteration = iteration
        self.loads: dict[str, list[tuple[Array, Array]]] = {}
        self.stores: dict[str, list[tuple[Array, Array]]] = {}

    def note(self, log: dict[str, list[tuple[Array, Array]]], name: str, at: Array) -> None:
        at, owner = np.broadcast_arrays(at, self.iteration)
        log.setdefault(name, []).append((at.ravel(), owner.ravel()))

    def conflict(self) -> str | None:
        """The first buffer and element that one iteration stores to and another one touches."""
        for name, pairs in self.stores.items():
            at, owner = (np.concatenate(part) for part in zip(*pairs, strict=True))
            stored, first = np.unique(at, return_index=True)
            for x, who in (*pairs, *self.loads.get(name, ())):
                place = np.minimum(np.searchsorted(stored, x), len(stored) - 1)
                clash = (stored[place] == x) & (owner[first][place] != who)
                if clash.any():
                    return f"{name}[{x[clash][0]}]"
        return None


class _Interpreter:
    """The state of one kernel while it runs.

    Every enclosing vector axis is an axis of all values: the innermost one comes first.
    """

    def __init__(
        self,
        kernel: Kernel,
        buffers: Mapping[str, Array],
        params: Mapping[str, Number],
        sizes: Mapping[Atom, int],
        seed: int | None,
        library: Library,
    ) -> None:
        self.kernel = kernel
        self.library = library
        self.buffers = buffers
        self.params = params
        self.vars: dict[Atom, int | Array] = dict(sizes)
        self.regs: dict[Scalar, Array] = {}
        self.shape: tuple[int, ...] = ()
        self.random = None if seed is None else Random(seed)
        self.accesses: list[_Accesses] = []
        self.on_gpu = False
        self.team: tuple[Stmt, ...] = ()  # what threads share in each iteration of grid loops
        self.stored = {s.buffer.name for s in walk(kernel.body) if isinstance(s, Store)}

    def run(self, device: Device) -> int:
        """The error word."""
        self.on_gpu = device == "cuda"
        if self.on_gpu and not is_flat(self.kernel):
            self.team = team_of(self.kernel)
        try:
            self.body(self.kernel.body)
        except _Stopped as stopped:
            return stopped.word
        return 0

    def body(self, statements: tuple[Stmt, ...]) -> None:
        if not self.team or statements is not self.team:
            for part in _parts(statements):
                self.part(part)
            return
        with self.watched(_Accesses("other statements of the team", 0)) as accesses:
            for k, part in enumerate(_parts(statements)):
                accesses.iteration = k
                self.part(part)

    def part(self, part: tuple[Stmt, ...]) -> None:
        if isinstance(part[0], Store):
            self.assign(part)  # type: ignore[arg-type]
        else:
            self.statement(part[0])

    def statement(self, stmt: Stmt) -> None:
        if isinstance(stmt, Loop):
            self.loop(stmt)
        elif isinstance(stmt, If):
            if self.value(stmt.condition):
                self.body(stmt.body)
        elif isinstance(stmt, Reduce):
            self.reduce(stmt)
        elif isinstance(stmt, Check):
            self.check(stmt)
        elif isinstance(stmt, Contract):
            self.contract(stmt)
        elif isinstance(stmt, Pack):
            k, n = self.extent(stmt.k), self.extent(stmt.n)
            self.matrices(stmt.operand, 1, k, n, self.matrices(stmt.b, 1, k, n))
        elif isinstance(stmt, Call):
            self.call(stmt)
        else:
            raise self.error(f"{type(stmt).__name__} is no statement of the loop IR")

    # -- loops -------------------------------------------------------------------------------

    def loop(self, loop: Loop) -> None:
        extent = self.extent(loop.extent)
        if loop.kind == "vector" or (loop.kind == "block" and not _varies(loop)):
            with self.axis(loop.var, extent, independent=True):
                if extent:
                    self.body(loop.body)
            return
        order = list(range(extent))
        if loop.kind == "serial":
            self.iterations(loop, order)
            return
        if self.random is not None:
            self.random.shuffle(order)
        what = f"other iterations of {loop.kind} {loop.var}"
        with self.watched(_Accesses(what, 0)) as accesses:
            self.iterations(loop, order, accesses)

    def iterations(self, loop: Loop, order: list[int], accesses: _Accesses | None = None) -> None:
        for i in order:
            if accesses is not None:
                accesses.iteration = i
            self.vars[symbol_of(loop.var)] = i
            self.body(loop.body)

    @contextmanager
    def axis(self, var: Expr, extent: int, independent: bool) -> Iterator[None]:
        """A new innermost axis, along which `var` counts."""
        outer, self.shape = self.shape, (extent, *self.shape)
        numbers = np.arange(extent, dtype=np.int64).reshape((extent,) + (1,) * len(outer))
        self.vars[symbol_of(var)] = numbers
        if independent:
            with self.watched(_Accesses(f"other iterations of {var}", numbers)):
                yield
        else:
            yield
        self.shape = outer

    @contextmanager
    def watched(self, accesses: _Accesses) -> Iterator[_Accesses]:
        self.accesses.append(accesses)
        yield accesses
        self.accesses.pop()
        conflict = accesses.conflict()
        if conflict:
            raise self.error(f"{conflict} is stored to and touched again in {accesses.what}")

    # -- memory ------------------------------------------------------------------------------

    def error(self, what: str) -> CompileError:
        return CompileError(f"kernel {self.kernel.name}: {what}", op="reference")

    def extent(self, d: Dim) -> int:
        return int(dim_value(d, self.vars))

    def memory(self, buffer: Buffer) -> Array:
        found = self.buffers.get(buffer.name)
        size = self.extent(buffer.size)
        if found is None or found.dtype != buffer.dtype.numpy or found.shape != (size,):
            raise self.error(
                f"buffer {buffer.name} is not {buffer.dtype.short}[{size}]: "
                + ("missing" if found is None else f"{found.dtype}{list(found.shape)}")
            )
        return found

    def place(self, buffer: Buffer, index: Dim, shift: Array | None = None) -> tuple[Array, Array]:
        """The memory of a buffer and the checked positions that `index` (plus shift) takes."""
        memory = self.memory(buffer)
        at = np.asarray(dim_value(index, self.vars))
        if shift is not None:
            at = np.asarray(at + shift)
        wrong = (at < 0) | (at >= memory.size)
        if wrong.any():
            raise self.error(
                f"index {at[wrong].flat[0]} of {buffer.name}[{index}] is outside [0, {memory.size})"
            )
        return memory, at

    def leaf(self, e: Scalar, shift: Array | None = None) -> Array:
        if e.op in ("load", "gather"):
            buffer, index = e.memory
            memory, at = self.place(buffer, index, shift)
            if buffer.name in self.stored:
                for accesses in self.accesses:
                    accesses.note(accesses.loads, buffer.name, at)
            return np.asarray(memory[at])
        if e.op == "param":
            return constant(self.params[str(e.attr)], e.dtype)
        if e.op == "index":
            assert isinstance(e.attr, (int, Expr))
            return np.asarray(dim_value(e.attr, self.vars), dtype=np.int64)
        if e not in self.regs:
            raise self.error(f"register {e} has no value here")
        return self.regs[e]

    def value(self, e: Scalar) -> Array:
        return evaluate((e,), self.leaf, {})[0]

    def assign(self, stores: tuple[Store, ...]) -> None:
        """Stores as one parallel assignment: all values are taken before the first is written."""
        known: dict[Scalar, Array] = {}
        values = evaluate(tuple(s.value for s in stores), self.leaf, known)
        evaluate(tuple(s.position for s in stores if s.position is not None), self.leaf, known)
        for stmt, value in zip(stores, values, strict=True):
            shift = None if stmt.position is None else known[stmt.position]
            memory, at = self.place(stmt.buffer, stmt.index, shift)
            at, value = np.broadcast_arrays(at, value)
            for accesses in self.accesses:
                accesses.note(accesses.stores, stmt.buffer.name, at)
            memory[at] = value

    def check(self, stmt: Check) -> None:
        value, bound = np.broadcast_arrays(
            self.value(stmt.value), np.asarray(dim_value(stmt.bound, self.vars))
        )
        failed = (value < 0) | (value >= bound)
        if failed.any():
            word = np.asarray(value[failed].flat[0] << 16, dtype=np.int64)
            raise _Stopped(int(word | (1 + stmt.code)))

    # -- reductions --------------------------------------------------------------------------

    def reduce(self, stmt: Reduce) -> None:
        extent = self.extent(stmt.extent)
        totals: dict[Scalar, Array] = {}
        outer = self.shape
        inits = [evaluate(a.init, self.leaf, {}) for a in stmt.accumulators]
        with self.axis(stmt.var, extent, independent=True):
            for accumulator, init in zip(stmt.accumulators, inits, strict=True):
                carry = [np.broadcast_to(x, (stmt.lanes, *outer)).copy() for x in init]
                if extent:
                    before = self.steps(accumulator, carry, symbol_of(stmt.var))
                    if stmt.order == "chain":
                        self.regs.update(zip(accumulator.carry, before, strict=True))
                if self.on_gpu and stmt.order == "lanes":
                    self.check_neutral(accumulator, carry, init)
                carry = combine_halves(accumulator, carry)
                totals.update(zip(accumulator.carry, (x[0] for x in carry), strict=True))
            if extent:
                self.assign(stmt.stores)
        self.regs.update(totals)

    def steps(self, accumulator: Accumulator, carry: list[Array], var: Atom) -> list[Array]:
        """Take all elements into `carry`, `lanes` at a time; what it was before each step."""
        lanes = len(carry[0])
        fixed = self.carry_free(accumulator)
        before: list[list[Array]] = [[] for _ in carry]
        numbers = np.asarray(self.vars[var])
        for start in range(0, len(numbers), lanes):
            count = min(lanes, len(numbers) - start)
            # a gather whose place depends on a carry reads for the elements at hand alone
            self.vars[var] = self.accesses[-1].iteration = numbers[start : start + count]
            for old, x in zip(before, carry, strict=True):
                old.append(x[:count].copy())
            known = {
                e: x[start : start + count] if x.ndim == len(self.shape) and len(x) > 1 else x
                for e, x in fixed.items()
            }
            known.update((c, x[:count]) for c, x in zip(accumulator.carry, carry, strict=True))
            values = evaluate(accumulator.step, self.leaf, known)
            for x, new in zip(carry, values, strict=True):
                x[:count] = new
        self.vars[var] = self.accesses[-1].iteration = numbers
        return [np.concatenate(old) for old in before]

    def check_neutral(
        self, accumulator: Accumulator, carry: list[Array], init: Sequence[Array]
    ) -> None:
        """Refuse an initial state that is more than nothing: some lanes may be left out."""
        known = dict(zip(accumulator.left, carry, strict=True))
        known.update(zip(accumulator.right, init, strict=True))
        for old, new in zip(carry, evaluate(accumulator.combine, _no_leaf, known), strict=True):
            new = np.broadcast_to(new, old.shape)
            nan = (old != old) & (new != new)
            bits = [np.where(nan, 0, x).astype(old.dtype).tobytes() for x in (old, new)]
            if bits[0] != bits[1]:
                raise self.error(f"combining with the initial state changes {accumulator.carry}")

    def carry_free(self, accumulator: Accumulator) -> dict[Scalar, Array]:
        """The largest parts of the step that do not depend on the carries, for all elements."""
        carried = set(accumulator.carry)
        needed = set(accumulator.step)
        below = children_first(accumulator.step)
        for e in below:
            if carried.intersection(e.args):
                carried.add(e)
                needed.update(e.args)
        free = tuple(e for e in below if e in needed and e not in carried)
        values = evaluate(free, self.leaf, {})
        return dict(zip(free, values, strict=True))

    # -- contraction -------------------------------------------------------------------------

    def contract(self, stmt: Contract) -> None:
        batch, m, n, k = (self.extent(d) for d in (stmt.batch, stmt.m, stmt.n, stmt.k))
        a = self.matrices(stmt.a, batch, m, k)
        b = self.matrices(stmt.b, batch, k, n)
        dtype = stmt.result.dtype
        a, b = widened(a, stmt.a.buffer.dtype, dtype), widened(b, stmt.b.buffer.dtype, dtype)
        if stmt.parts is not None:
            parts = contract_parts(a, b)
            self.matrices(
                stmt.c, len(parts) * batch, m, n, parts.reshape((len(parts) * batch, m, n))
            )
            return
        total = contract_sums(a, b)
        self.matrices(stmt.c, batch, m, n, total)
        if 0 in (batch, m, n):
            return
        with (
            self.axis(stmt.col_var, n, independent=False),
            self.axis(stmt.row_var, m, independent=False),
            self.axis(stmt.batch_var, batch, independent=False),
        ):
            # axes stand innermost first: batch, row, column
            self.regs[stmt.result] = total
            self.assign(stmt.epilogue)

    def matrices(
        self, x: Operand, batch: int, rows: int, cols: int, new: Array | None = None
    ) -> Array:
        """The elements [batch, rows, cols] of an operand, after storing `new` to them."""
        base, step = self.extent(x.base), self.extent(x.batch)
        ways = (step * np.arange(batch), self.way(x.row, rows), self.way(x.col, cols))
        memory, at = self.memory(x.buffer), np.asarray(base + sum(np.ix_(*ways), np.int64(0)))
        wrong = (at < 0) | (at >= memory.size)
        if wrong.any():
            raise self.error(
                f"index {at[wrong].flat[0]} of operand {x.buffer.name} is outside "
                f"[0, {memory.size})"
            )
        if new is not None:
            memory[at] = new
        return np.asarray(memory[at])

    def way(self, step: Dim | Walk, count: int) -> Array:
        """Where `count` rows or columns of an operand lie, from its start on."""
        if isinstance(step, Walk):
            places = [self.extent(step.at(i)) for i in range(count)]
            return np.asarray(places, np.int64)
        return np.asarray(self.extent(step) * np.arange(count))

    # -- functions of the host ---------------------------------------------------------------

    def call(self, stmt: Call) -> None:
        if stmt.routine not in self.library:
            raise self.error(f"no function {stmt.routine} is in the library")
        sizes = [self.extent(d) for d in stmt.sizes]
        inputs = [self.block(x) for x in stmt.inputs]
        self.library[stmt.routine](self.block(stmt.output), *inputs, *sizes, *stmt.params)

    def block(self, x: Block) -> Array:
        """The array that a block is, as a view of its buffer."""
        shape = [self.extent(d) for d in x.shape]
        base, memory = self.extent(x.base), self.memory(x.buffer)
        end = base + int(np.prod(shape))
        if base < 0 or end > memory.size:
            raise self.error(f"{x.buffer.name}[{base}:{end}] is outside [0, {memory.size})")
        return memory[base:end].reshape(shape)


def _parts(statements: tuple[Stmt, ...]) -> Iterator[tuple[Stmt, ...]]:
    """Statements one by one, but consecutive stores together."""
    for is_store, group in groupby(statements, lambda stmt: isinstance(stmt, Store)):
        if is_store:
            yield tuple(group)
        else:
            yield from ((stmt,) for stmt in group)


def _varies(loop: Loop) -> bool:
    """Whether iterations of a loop may run different statements, or different numbers of
    iterations of a loop inside."""
    if any(isinstance(x, If) for x in walk(loop.body)):
        return True
    inside = (x.extent for x in walk(loop.body) if isinstance(x, Loop | Reduce))
    return any(symbol_of(loop.var) in symbols(extent) for extent in inside)


def combine_halves(accumulator: Accumulator, carry: list[Array]) -> list[Array]:
    """Combine lane l with lane l + n/2, then with l + n/4, and so on; one lane is left."""
    lanes = len(carry[0])
    while lanes > 1:
        lanes //= 2
        known = dict(zip(accumulator.left, (x[:lanes] for x in carry), strict=True))
        right = (x[lanes : 2 * lanes] for x in carry)
        known.update(zip(accumulator.right, right, strict=True))
        values = evaluate(accumulator.combine, _no_leaf, known)
        carry = [np.broadcast_to(v, x[:lanes].shape) for v, x in zip(values, carry, strict=True)]
    return carry


def _no_leaf(e: Scalar, *operands: Array) -> Array:
    raise CompileError(f"a combining formula uses {e!r}", op="reference")


def widened(x: Array, source: DType, dtype: DType) -> Array:
    """Elements as they are in memory, in the dtype of a product."""
    if source is bfloat16:
        return (x.astype(np.uint32) << 16).view(np.float32)
    return x if source is dtype else x.astype(dtype.numpy)


def contract_sums(a: Array, b: Array) -> Array:
    """a [batch, m, k] times b [batch, k, n] -> [batch, m, n], in the order of `Contract`."""
    parts = contract_parts(a, b)
    total = parts[0] if len(parts) else np.zeros(parts.shape[1:], a.dtype)
    with np.errstate(all="ignore"):
        for part in parts[1:]:
            total = total + part
    return total


def contract_parts(a: Array, b: Array) -> Array:
    """The block sums [blocks, batch, m, n] of a [batch, m, k] times b [batch, k, n]."""
    k = a.shape[2]
    blocks = -(-k // K_BLOCK)
    length = -(-k // blocks) if blocks else 0
    parts = np.zeros((blocks, a.shape[0], a.shape[1], b.shape[2]), a.dtype)
    with np.errstate(all="ignore"):
        for block in range(blocks):
            part = parts[block]
            for i in range(block * length, min(k, (block + 1) * length)):
                x, y = a[:, :, i, None], b[:, i, None, :]
                part = fma(x, y, part) if a.dtype.kind == "f" else part + x * y
            parts[block] = part
    return parts
