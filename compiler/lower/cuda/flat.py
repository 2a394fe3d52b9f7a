"""Kernels without a reduction that threads share: a thread for each element, or for some
neighbours.

The independent loops of a kernel are one index space, that threads go through in strides of the
grid; the innermost loop runs along neighbouring threads.  Where elements along that loop are
neighbours in memory too, a thread takes as many as fill 16 bytes of the widest of them.  Whether
the addresses allow that is asked once, when the kernel starts; what cannot be done so, and what
is left over at the end, is done one by one.
"""

from __future__ import annotations

from collections.abc import Iterable

from dualgrad.compiler.ir.dims import (
    Atom,
    Dim,
    Expr,
    ceil_div,
    free_atoms_of,
    symbol_of,
    symbols,
    terms_of,
)
from dualgrad.compiler.kernel.collapse import indices_of
from dualgrad.compiler.kernel.ir import Buffer, Check, Kernel, Loop, Reduce
from dualgrad.compiler.kernel.scalar import Scalar, load
from dualgrad.compiler.lower.cuda.ctype import memory_type, register_type
from dualgrad.compiler.lower.cuda.kernel import (
    LONGEST_BODY,
    THREADS,
    KernelText,
    Signature,
    cost_of,
    scalars_in,
)
from dualgrad.compiler.lower.cuda.scalars import Formulas
from dualgrad.compiler.lower.cuda.space import Access, Space, SpaceCode, name_of, step_along
from dualgrad.compiler.lower.cuda.transpose import Tiling, TransposeCode
from dualgrad.runtime.records import dataclass

VECTOR_BYTES = 16  # the longest access of one thread
_FEW = 16384  # threads that no device is filled with
_WORDS_HELD = 64  # 32-bit registers that hold what a thread has loaded


def flat_kernel(kernel: Kernel, signature: Signature, formulas: Formulas) -> KernelText:
    """The function of a map, column, scan or update kernel."""
    space = Space.of(kernel).along_memory()
    tiling = Tiling.of(space)
    if tiling is not None:
        return TransposeCode(space, signature, formulas).write(tiling)
    return FlatCode(space, signature, formulas).write(Vector.of(space))


@dataclass(frozen=True)
class Vector:
    """Accesses of neighbours along the innermost loop, by `lanes` elements at a time.

    gathers  from places that the loop does not change but for a step of 1
    fixed    what has to be aligned: places of accesses, without what loops add to them
    whole    what has to be a multiple of `lanes`; not known before the kernel runs
    """

    lanes: int
    loads: tuple[Access, ...]
    gathers: tuple[Scalar, ...]
    fixed: tuple[Access, ...]
    whole: tuple[Dim, ...]

    @classmethod
    def of(cls, space: Space) -> Vector | None:
        """How a thread of this space can take several elements; None if it cannot."""
        if not space.loops or not space.stores or not space.is_assignment:
            return None
        inner = space.loops[-1]
        if any(s.position is not None or step_along(s.index, inner.var) != 1 for s in space.stores):
            return None
        loads = tuple(
            e.memory
            for e in scalars_in(space.body)
            if e.op == "load" and step_along(e.memory[1], inner.var) == 1
        )
        accesses = loads + tuple((s.buffer, s.index) for s in space.stores)
        fixed, factors = split_places(accesses, space.loops)
        if len(space.loops) > 1:
            factors.add(inner.extent)
        gathers = neighbours(space)
        buffers = [b for b, _ in accesses] + [e.memory[0] for e in gathers]
        lanes = VECTOR_BYTES // max(b.dtype.itemsize for b in buffers)
        most = inner.extent if isinstance(inner.extent, int) else lanes
        most = min(most, LONGEST_BODY // max(1, cost_of(space.body)))
        words = sum(max(4, b.dtype.itemsize) for b in buffers) // 4
        most = min(most, _WORDS_HELD // max(1, words))
        known = [n for n in factors if isinstance(n, int)]
        while lanes > 1 and (lanes > most or any(n % lanes for n in known)):
            lanes //= 2
        unknown = tuple(n for n in factors if not isinstance(n, int))
        return None if lanes == 1 else cls(lanes, loads, gathers, fixed, unknown)


class FlatCode(SpaceCode):
    """Writes a kernel of a thread for each element."""

    def write(self, vector: Vector | None) -> KernelText:
        """The whole function."""
        self.guard(self.space.body)
        space, w, threads = self.space, self.w, threads_for(self.space)
        w.line(f"const dg_index thread = (dg_index)blockIdx.x * {threads} + threadIdx.x;")
        w.line(f"const dg_index threads = (dg_index)gridDim.x * {threads};")
        self.enter(space.body, {symbol_of(x.var) for x in space.loops})
        first = "thread"
        if vector is not None:
            first = "first + thread"
            w.line("dg_index first = 0;")
            with self.block(f"if ({self.condition(vector)})"):
                w.line(f"first = {self.whole(space.size, vector.lanes)};")
                self.vectors(vector)
        with self.every(first, self.dim(space.size), "threads") as place:
            extents = [self.dim(x.extent) for x in space.loops]
            self.place_at(space.loops, self.coordinates(place, self.names, extents))
            self.run(space.body)
        work = ceil_div(space.size, 1 if vector is None else vector.lanes)
        return KernelText(self.finish(threads), work, threads, threads)

    @property
    def names(self) -> list[str]:
        return [name_of(x) for x in self.space.loops]

    # -- several elements at a time -----------------------------------------------------------

    def condition(self, vector: Vector) -> str:
        """Whether all vectors will be at aligned addresses."""
        lanes = vector.lanes
        parts = [f"dg_aligned<{lanes}>({self.address(b, i)})" for b, i in vector.fixed]
        parts += [f"{self.dim(n)} % {lanes} == 0" for n in vector.whole]
        return " && ".join(dict.fromkeys(parts))

    def vectors(self, vector: Vector) -> None:
        """The loop over vectors: loads, elements one by one in registers, stores."""
        space, lanes, w = self.space, vector.lanes, self.w
        inner = symbol_of(space.loops[-1].var)
        with self.every("thread", f"first / {lanes}", "threads") as place:
            extents = [self.dim(x.extent) for x in space.loops]
            extents[-1] = self.quotient(space.loops[-1].extent, lanes)
            values = self.coordinates(place, self.names, extents)
            values[-1] = start = self.named(inner.name, f"{values[-1]} * {lanes}")
            self.place_at(space.loops, values)
            self.enter(space.body, {inner})
            read = {load(*x): self.wide_load(*x, lanes) for x in vector.loads}
            checks = tuple(s for s in space.body if isinstance(s, Check))
            if vector.gathers:  # they stay behind their checks
                self.run(checks)
                checks = ()
                read |= {e: self.wide_gather(e, lanes) for e in vector.gathers}
            written = [self.wide_store(s.buffer, lanes) for s in space.stores]
            w.line("#pragma unroll")
            with self.block(f"for (int k = 0; k < {lanes}; ++k)"):
                self.atoms[inner] = f"({start} + k)"
                for e, name in read.items():
                    nonzero = " != 0" if e.dtype.kind == "b" else ""
                    self.keep(e, w.value(register_type(e.dtype), f"{name}.x[k]{nonzero}"))
                self.run(checks)
                for name, s in zip(written, space.stores, strict=True):
                    w.line(f"{name}.x[k] = {self.value(s.value)};")
            self.atoms[inner] = start
            for name, s in zip(written, space.stores, strict=True):
                w.line(f"dg_store<{lanes}>({self.address(s.buffer, s.index)}, {name});")

    def wide_load(self, buffer: Buffer, index: Dim, lanes: int) -> str:
        """Neighbours in memory, from an element on."""
        kind = f"dg_vec<{memory_type(buffer.dtype)}, {lanes}>"
        name = self.w.new_name("x")
        self.w.line(f"const {kind} {name} = dg_load<{lanes}>({self.address(buffer, index)});")
        return name

    def wide_gather(self, e: Scalar, lanes: int) -> str:
        """Neighbours in memory, from a computed place on, which may not be aligned."""
        buffer, index = e.memory
        kind, name = memory_type(buffer.dtype), self.w.new_name("x")
        place = f"{self.address(buffer, index)} + {self.value(e.args[0])}"
        self.w.line(f"const {kind}* const from_{name} = {place};")
        text = f"dg_read<{lanes}>(from_{name}, dg_aligned<{lanes}>(from_{name}), {lanes})"
        self.w.line(f"const dg_vec<{kind}, {lanes}> {name} = {text};")
        return name

    def wide_store(self, buffer: Buffer, lanes: int) -> str:
        """A name for neighbours that will be written."""
        name = self.w.new_name("y")
        self.w.line(f"dg_vec<{memory_type(buffer.dtype)}, {lanes}> {name};")
        return name

    def quotient(self, d: Dim, lanes: int) -> str:
        """How many vectors a multiple of their length is."""
        return str(d // lanes) if isinstance(d, int) else f"{self.dim(d)} / {lanes}"

    def whole(self, d: Dim, lanes: int) -> str:
        """A number of elements without those that do not fill a vector."""
        if isinstance(d, int):
            return str(d // lanes * lanes)
        return f"{self.dim(d)} / {lanes} * {lanes}"


def threads_for(space: Space) -> int:
    """Threads of a block: few where each has much to do, so that all processors get some."""
    if not any(isinstance(s, Loop | Reduce) for s in space.body):
        return THREADS
    few = isinstance(space.size, int) and space.size < _FEW
    return THREADS // 8 if few else THREADS // 4


def neighbours(space: Space) -> tuple[Scalar, ...]:
    """The gathers that read neighbours along the innermost loop, if no check asks about single
    ones of its elements."""
    inner = space.loops[-1].var
    atom = symbol_of(inner)
    if any(changes(s.value, atom) for s in space.body if isinstance(s, Check)):
        return ()
    return tuple(
        e
        for e in scalars_in(space.body)
        if e.op == "gather" and step_along(e.memory[1], inner) == 1 and not changes(e.args[0], atom)
    )


def changes(value: Scalar, atom: Atom) -> bool:
    """Whether a value may depend on a loop variable."""
    return any(atom in symbols(d) for d in indices_of([value]))


def split_places(
    accesses: Iterable[Access], loops: tuple[Loop, ...]
) -> tuple[tuple[Access, ...], set[Dim]]:
    """Where accesses are when all loops are at their start, and all factors of what outer loops
    add to that."""
    bound = {symbol_of(x.var) for x in loops}
    inner = symbol_of(loops[-1].var)
    places: dict[Access, None] = {}
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
        places[buffer, fixed] = None
    return tuple(places), factors
