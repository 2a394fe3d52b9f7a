"""Maps in which some accesses run along another loop than the others: by square tiles.

Blocks of threads take tiles of the two loops.  What runs along the other loop goes through shared
memory, so that neighbouring threads touch neighbours in global memory on both sides.  Rows of a
tile in shared memory are one element longer: a warp reads a column of it from 32 banks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dualgrad.compiler.ir.dims import Dim, ceil_div, product, symbol_of
from dualgrad.compiler.kernel.ir import Buffer, Loop, Store
from dualgrad.compiler.kernel.scalar import load
from dualgrad.compiler.lower.cuda.ctype import memory_type, register_type
from dualgrad.compiler.lower.cuda.kernel import THREADS, KernelText, scalars_in
from dualgrad.compiler.lower.cuda.space import Access, Space, SpaceCode, name_of, step_along
from dualgrad.runtime.records import dataclass

TILE = 32  # a warp goes along one side
_ROWS = THREADS // TILE  # that a block takes at once
_LEAST = 16  # a shorter side is not worth it
_SHARED_BYTES = 48 * 1024


@dataclass(frozen=True)
class Tiling:
    """The number of the loop that some accesses run along, and these accesses."""

    across: int
    loads: tuple[Access, ...]
    stores: tuple[Store, ...]

    @classmethod
    def of(cls, space: Space) -> Tiling | None:
        """The tiles of a space, if it has accesses that are better done so."""
        if not space.stores or len(space.stores) != len(space.body) or len(space.loops) < 2:
            return None
        options = [cls._along(space, k) for k in reversed(range(len(space.loops) - 1))]
        best = max(options, key=lambda t: len(t.loads) + len(t.stores))
        moved = (*best.loads, *((s.buffer, s.index) for s in best.stores))
        nbytes = TILE * (TILE + 1) * sum(b.dtype.itemsize for b, _ in moved)
        return best if 0 < nbytes <= _SHARED_BYTES else None

    @classmethod
    def _along(cls, space: Space, across: int) -> Tiling:
        """The accesses that run along one of the outer loops."""
        side, inner = space.loops[across], space.loops[-1]

        def turned(index: Dim) -> bool:
            step = step_along(index, inner.var)
            return step_along(index, side.var) == 1 and step is not None and step not in (0, 1)

        if any(isinstance(x.extent, int) and x.extent < _LEAST for x in (side, inner)):
            return cls(across, (), ())
        loads = (e.memory for e in scalars_in(space.body) if e.op == "load")
        return cls(
            across,
            tuple(x for x in loads if turned(x[1])),
            tuple(s for s in space.stores if s.position is None and turned(s.index)),
        )


class TransposeCode(SpaceCode):
    """Writes a map by tiles."""

    def write(self, tiling: Tiling) -> KernelText:
        """The whole function."""
        self.guard(self.space.body)
        space, w = self.space, self.w
        side, inner = space.loops[tiling.across], space.loops[-1]
        read = {x: self.tile(x[0]) for x in tiling.loads}
        written = {s: self.tile(s.buffer) for s in tiling.stores}
        w.line(f"const int lane = threadIdx.x % {TILE}, row = threadIdx.x / {TILE};")
        self.enter(space.body, {symbol_of(x.var) for x in space.loops})
        counts = [ceil_div(x.extent, TILE) if x in (side, inner) else x.extent for x in space.loops]
        with self.every("blockIdx.x", self.dim(product(counts)), "gridDim.x") as place:
            names = [name_of(x) for x in space.loops]
            corner = self.coordinates(place, names, [self.dim(n) for n in counts])
            self.place_at(space.loops, corner)
            ends = corner[tiling.across], corner[-1]
            if read:
                with self.elements((inner, ends[1]), (side, ends[0])):
                    for (buffer, index), name in read.items():
                        w.line(f"{name}[row + k][lane] = {self.element(buffer, index)};")
                w.line("__syncthreads();")
            with self.elements((side, ends[0]), (inner, ends[1])):
                self.compute(read, written)
            if written:
                w.line("__syncthreads();")
                with self.elements((inner, ends[1]), (side, ends[0])):
                    for s, name in written.items():
                        self.store(s.buffer, s.index, f"{name}[row + k][lane]", None)
            w.line("__syncthreads();")
        return KernelText(self.finish(), product(counts), 1, THREADS)

    def tile(self, buffer: Buffer) -> str:
        """Shared memory for a tile of a buffer's elements."""
        name = self.w.new_name("tile_")
        kind = memory_type(buffer.dtype)
        self.w.line(f"__shared__ {kind} {name}[{TILE}][{TILE + 1}];")
        return name

    @contextmanager
    def elements(self, down: tuple[Loop, str], along: tuple[Loop, str]) -> Iterator[None]:
        """What each thread does with its elements of a tile: every eighth one down a column;
        `down` and `along` are loops with the numbers of their tiles."""
        inside = []
        self.w.line("#pragma unroll")
        with self.block(f"for (int k = 0; k < {TILE}; k += {_ROWS})"):
            for (loop, corner), place in ((down, "row + k"), (along, "lane")):
                name = self.named(name_of(loop), f"{corner} * {TILE} + {place}")
                self.atoms[symbol_of(loop.var)] = name
                if not isinstance(loop.extent, int) or loop.extent % TILE:
                    inside.append(f"{name} < {self.dim(loop.extent)}")
            if inside:
                with self.block(f"if ({' && '.join(inside)})"):
                    yield
            else:
                yield

    def compute(self, read: dict[Access, str], written: dict[Store, str]) -> None:
        """The values of one element, and what is stored of them directly."""
        for (buffer, index), name in read.items():
            nonzero = " != 0" if buffer.dtype.kind == "b" else ""
            value = f"{name}[lane][row + k]{nonzero}"
            self.keep(load(buffer, index), self.w.value(register_type(buffer.dtype), value))
        values = [self.value(s.value) for s in self.space.stores]
        places = [None if s.position is None else self.value(s.position) for s in self.space.stores]
        for s, value, shift in zip(self.space.stores, values, places, strict=True):
            if s in written:
                self.w.line(f"{written[s]}[lane][row + k] = {value};")
            else:
                self.store(s.buffer, s.index, value, shift)
