"""Kernels without a reduction that threads share: a thread for each element, or for some
neighbours.

The independent loops of a kernel are one index space, that threads go through in strides of the
grid; the innermost loop runs along neighbouring threads.  Where elements along that loop are
neighbours in memory too, a thread takes as many as fill 16 bytes of the widest of them.  Whether
the addresses allow that is asked once, when the kernel starts; what cannot be done so, and what
is left over at the end, is done one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

from dualgrad.compiler.ir.dims import (
    Dim,
    Expr,
    ceil_div,
    coefficient,
    free_atoms_of,
    product,
    symbol_of,
    terms_of,
)
from dualgrad.compiler.kernel.ir import Buffer, Check, Kernel, Loop, Stmt, Store
from dualgrad.compiler.kernel.scalar import Formula, Scalar, children_first, load
from dualgrad.compiler.lower.cuda.ctype import memory_type, register_type
from dualgrad.compiler.lower.cuda.kernel import (
    THREADS,
    KernelCode,
    KernelText,
    Signature,
    scalars_in,
)
from dualgrad.compiler.lower.cuda.scalars import Formulas

VECTOR_BYTES = 16  # the longest access of one thread
_LONGEST_BODY = 512  # primitives of a thread's elements; more of them would need too many registers


@dataclass(frozen=True)
class Space:
    """A kernel as independent loops, outermost first, and what is done at every place in them."""

    loops: tuple[Loop, ...]
    body: tuple[Stmt, ...]

    @classmethod
    def of(cls, kernel: Kernel) -> Space:
        """The loops around what a thread of a flat kernel does."""
        loops: list[Loop] = []
        body = kernel.body
        while len(body) == 1 and isinstance(body[0], Loop) and body[0].kind in ("grid", "block"):
            loops.append(body[0])
            body = body[0].body
        return cls(tuple(loops), body)

    @property
    def size(self) -> Dim:
        return product(x.extent for x in self.loops)


def flat_kernel(kernel: Kernel, signature: Signature, formulas: Formulas) -> KernelText:
    """The function of a map, column, scan or update kernel."""
    space = Space.of(kernel)
    code = FlatCode(space, signature, formulas)
    vector = Vector.of(space)
    lanes = 1 if vector is None else vector.lanes
    code.write(vector)
    return KernelText(code.finish(), ceil_div(space.size, lanes), THREADS, THREADS)


Access = tuple[Buffer, Dim]


@dataclass(frozen=True)
class Vector:
    """Accesses of neighbours along the innermost loop, by `lanes` elements at a time.

    fixed    what has to be aligned: places of accesses, without what loops add to them
    whole    what has to be a multiple of `lanes`; not known before the kernel runs
    """

    lanes: int
    loads: tuple[Access, ...]
    fixed: tuple[Access, ...]
    whole: tuple[Dim, ...]

    @classmethod
    def of(cls, space: Space) -> Vector | None:
        """How a thread of this space can take several elements; None if it cannot."""
        stores = [s for s in space.body if isinstance(s, Store)]
        if not space.loops or not stores or not is_assignment(space.body):
            return None
        inner = space.loops[-1]
        loads = tuple(
            e.memory
            for e in scalars_in(space.body)
            if e.op == "load" and step_along(e.memory[1], inner.var) == 1
        )
        if any(s.position or step_along(s.index, inner.var) != 1 for s in stores):
            return None
        accesses = loads + tuple((s.buffer, s.index) for s in stores)
        fixed, strides = split_places(accesses, space.loops)
        if len(space.loops) > 1:
            strides.add(inner.extent)
        lanes = VECTOR_BYTES // max(b.dtype.itemsize for b, _ in accesses)
        known = [n for n in strides if isinstance(n, int)]
        cost = cost_of(space.body)
        most = inner.extent if isinstance(inner.extent, int) else lanes
        while lanes > 1 and (
            any(n % lanes for n in known) or lanes * cost > _LONGEST_BODY or lanes > most
        ):
            lanes //= 2
        if lanes == 1:
            return None
        unknown = tuple(n for n in strides if not isinstance(n, int))
        return cls(lanes, tuple(dict.fromkeys(loads)), tuple(fixed), unknown)


class FlatCode(KernelCode):
    """Writes a flat kernel."""

    def __init__(self, space: Space, signature: Signature, formulas: Formulas) -> None:
        super().__init__(signature, formulas)
        self.space = space

    def write(self, vector: Vector | None) -> None:
        """The whole body of the function."""
        self.guard()
        space, w = self.space, self.w
        w.line(f"const dg_index thread = (dg_index)blockIdx.x * {THREADS} + threadIdx.x;")
        w.line(f"const dg_index threads = (dg_index)gridDim.x * {THREADS};")
        self.enter(space.body, {symbol_of(x.var) for x in space.loops})
        first = "thread"
        if vector is not None:
            first = f"first + {first}"
            w.line("dg_index first = 0;")
            with self.block(f"if ({self.condition(vector)})"):
                w.line(f"first = {self.dim(space.size)} / {vector.lanes} * {vector.lanes};")
                self.vectors(vector)
        with self.every(first, self.dim(space.size)) as place:
            self.decompose(place)
            self.run(space.body)

    @contextmanager
    def every(self, first: str, stop: str) -> Iterator[str]:
        """A loop of all threads of the grid over the places from `first` on."""
        name = self.w.new_name("at_")
        with self.block(f"for (dg_index {name} = {first}; {name} < {stop}; {name} += threads)"):
            yield name

    def decompose(self, place: str, lanes: int = 1) -> None:
        """Name the loop variables at a place of the index space, or of vectors of so many lanes
        along the innermost loop."""
        rest = place
        for k, loop in reversed(list(enumerate(self.space.loops))):
            inner, name = k + 1 == len(self.space.loops), rest
            if k > 0:
                extent = self.quotient(loop.extent, lanes if inner else 1)
                name = f"dg_mod({rest}, {extent})"
            if inner and lanes > 1:
                name = f"{name} * {lanes}"
            if name != rest:
                name = self.named(symbol_of(loop.var).name, name)
            if k > 0:
                rest = self.named("rest", f"dg_div({rest}, {extent})")
            self.atoms[symbol_of(loop.var)] = name

    def quotient(self, d: Dim, divisor: int) -> str:
        """A size, divided by what it is a multiple of."""
        if divisor == 1 or isinstance(d, int):
            return self.dim(d // divisor)
        return f"{self.dim(d)} / {divisor}"

    def named(self, what: str, value: str) -> str:
        """A name for a value of an index expression."""
        name = self.w.new_name(f"{what}_")
        self.w.line(f"const dg_index {name} = {value};")
        return name

    # -- several elements at a time -----------------------------------------------------------

    def condition(self, vector: Vector) -> str:
        """Whether all vectors will be at aligned addresses."""
        lanes = vector.lanes
        parts = [f"dg_aligned<{lanes}>({self.address(b, i)})" for b, i in vector.fixed]
        parts += [f"{self.dim(n)} % {lanes} == 0" for n in vector.whole]
        return " && ".join(dict.fromkeys(parts))

    def address(self, buffer: Buffer, index: Dim) -> str:
        """The address of an element."""
        pointer, start = self.places[buffer.name]
        return pointer if index == start else f"{pointer} + {self.dim(index - start)}"

    def vectors(self, vector: Vector) -> None:
        """The loop over vectors: loads, elements one by one in registers, stores."""
        space, lanes, w = self.space, vector.lanes, self.w
        inner = space.loops[-1].var
        stores = [s for s in space.body if isinstance(s, Store)]
        with self.every("thread", f"first / {lanes}") as place:
            self.decompose(place, lanes)
            start = self.atoms[symbol_of(inner)]
            self.enter(space.body, {symbol_of(inner)})
            read = {x: self.wide_load(*x, lanes) for x in vector.loads}
            written = [self.wide_store(s.buffer, lanes) for s in stores]
            w.line("#pragma unroll")
            with self.block(f"for (int k = 0; k < {lanes}; ++k)"):
                self.atoms[symbol_of(inner)] = self.named(symbol_of(inner).name, f"{start} + k")
                for (buffer, index), name in read.items():
                    nonzero = " != 0" if buffer.dtype.kind == "b" else ""
                    element = w.value(register_type(buffer.dtype), f"{name}.x[k]{nonzero}")
                    self.keep(load(buffer, index), element)
                self.run(tuple(s for s in space.body if not isinstance(s, Store)))
                for name, s in zip(written, stores, strict=True):
                    w.line(f"{name}.x[k] = {self.value(s.value)};")
            self.atoms[symbol_of(inner)] = start
            for name, s in zip(written, stores, strict=True):
                w.line(f"dg_store<{lanes}>({self.address(s.buffer, s.index)}, {name});")

    def wide_load(self, buffer: Buffer, index: Dim, lanes: int) -> str:
        """Neighbours in memory, from an element on."""
        kind = f"dg_vec<{memory_type(buffer.dtype)}, {lanes}>"
        name = self.w.new_name("x")
        self.w.line(f"const {kind} {name} = dg_load<{lanes}>({self.address(buffer, index)});")
        return name

    def wide_store(self, buffer: Buffer, lanes: int) -> str:
        """A name for neighbours that will be written."""
        name = self.w.new_name("y")
        self.w.line(f"dg_vec<{memory_type(buffer.dtype)}, {lanes}> {name};")
        return name


def is_assignment(body: tuple[Stmt, ...]) -> bool:
    """Whether a body is checks and then stores, nothing else."""
    kinds = [type(s) for s in body]
    checks = kinds.count(Check)
    return kinds == [Check] * checks + [Store] * (len(kinds) - checks)


def step_along(index: Dim, var: Expr) -> Dim | None:
    """The stride of an index along a loop; None where it has none."""
    split = coefficient(index, var)
    return None if split is None else split[0]


def split_places(
    accesses: Iterable[Access], loops: tuple[Loop, ...]
) -> tuple[list[Access], set[Dim]]:
    """Where accesses are when all loops are at their start, and all factors of what outer loops
    add to that."""
    bound = {symbol_of(x.var) for x in loops}
    inner = symbol_of(loops[-1].var)
    places: list[Access] = []
    factors: set[Dim] = set()
    for buffer, index in accesses:
        fixed: Dim = 0
        for monomial, c in terms_of(index):
            still = tuple(a for a in monomial if not free_atoms_of(a) & bound)
            factor = Expr.of({still: c})
            if still == monomial:
                fixed = fixed + factor
            elif monomial != (inner,):
                factors.add(factor)
        places.append((buffer, fixed))
    return list(dict.fromkeys(places)), factors


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
