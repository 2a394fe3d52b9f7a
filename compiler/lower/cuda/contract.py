"""Matrix products in CUDA C: a block of threads per tile of C, in the order of `Contract`.

    for tile of C:                     one after another, `gridDim.x` apart
        for block of K:                512 steps at most, see `kernel.ir`
            for panel of the block:    fetch the next one from memory while this one is multiplied
            sums to shared memory, some rows at a time, and from there
                to c, or added to it    but for the last block of K
                through the epilogue    neighbours in a row by neighbouring threads

A step beyond the end of K multiplies +0.0 by -0.0: adding that changes no bit of any sum.
Lines beyond the edge of a matrix are not read, and their sums are dropped.  Of a product whose
block sums stay apart, each block of K is a tile's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dualgrad.compiler.ir.dims import Dim, ceil_div, evaluate, substitute, sym, symbol_of, symbols
from dualgrad.compiler.kernel.ir import K_BLOCK, Contract, Kernel, Operand, Store
from dualgrad.compiler.lower.cuda.ctype import memory_type, register_type, unsigned_type
from dualgrad.compiler.lower.cuda.kernel import (
    THREADS,
    KernelCode,
    KernelText,
    Signature,
    atom_name,
)
from dualgrad.compiler.lower.cuda.scalars import Formulas
from dualgrad.compiler.lower.cuda.tiles import TILES
from dualgrad.runtime.dtype import DType
from dualgrad.runtime.records import dataclass

_PROCESSORS = 132  # of the device that tiles are chosen for
_TYPICAL = 512  # what an unknown size is taken for in that choice
_TOGETHER = 4  # rows of a slab that a thread works on at the same time


@dataclass(frozen=True)
class Tile:
    """How a block of threads covers C.

    height, width   sums of a thread
    down, across    threads
    depth           steps of a panel
    rows            of a thread, that go through shared memory at a time
    resident        blocks that share the registers of a processor
    rate            of multiplication, relative to the fastest tile; an estimate
    """

    height: int
    width: int
    down: int
    across: int
    depth: int
    rows: int
    resident: int
    rate: float

    @property
    def m(self) -> int:
        return self.height * self.down

    @property
    def n(self) -> int:
        return self.width * self.across

    def count(self, c: Contract) -> Dim:
        """The number of tiles that C has."""
        matrices = c.batch if c.parts is None else c.parts * c.batch
        return matrices * ceil_div(c.m, self.m) * ceil_div(c.n, self.n)


_TILES = {
    4: (
        Tile(8, 8, 16, 16, 8, 2, 2, 1.0),
        Tile(8, 4, 16, 16, 16, 4, 2, 0.9),
        Tile(4, 4, 16, 16, 16, 4, 3, 0.75),
        Tile(2, 2, 16, 16, 32, 2, 3, 0.4),
    ),
    8: (
        Tile(4, 4, 16, 16, 8, 4, 2, 1.0),
        Tile(2, 2, 16, 16, 16, 2, 3, 0.5),
    ),
}


def tile_for(c: Contract) -> Tile:
    """The tile that takes the least time on a device with many processors."""
    sizes = {a: _TYPICAL for d in (c.batch, c.m, c.n, c.k) for a in symbols(d)}

    def cost(tile: Tile) -> float:
        turns = -(-evaluate(tile.count(c), sizes) // _PROCESSORS)
        return turns * tile.m * tile.n / tile.rate

    return min(tiles_of(c.result.dtype), key=cost)


def tiles_of(dtype: DType) -> tuple[Tile, ...]:
    """The tiles for sums of a dtype, the largest first."""
    return _TILES[_item(dtype)]


def contract_kernel(
    kernel: Kernel, signature: Signature, formulas: Formulas, tile: Tile | None = None
) -> KernelText:
    """The function of a kernel that is a contraction, with the best tile or with this one."""
    (c,) = kernel.body
    assert isinstance(c, Contract)
    tile = tile or tile_for(c)
    formulas.need(TILES)
    code = _Code(signature, formulas, c, tile)
    code.write()
    return KernelText(code.finish(THREADS, tile.resident), tile.count(c), 1, THREADS)


def _item(dtype: DType) -> int:
    """Bytes of a sum of products of this dtype in registers."""
    return 8 if dtype.bits == 64 else 4


def _sum_type(dtype: DType) -> str:
    """The C type of a sum: integers wrap."""
    return register_type(dtype) if dtype.is_float else unsigned_type(dtype)


@dataclass(frozen=True)
class _Side:
    """An operand as lines (rows of A, columns of B): strides from line to line and along K."""

    name: str
    operand: Operand
    line: Dim
    k: Dim
    size: int
    padding: str

    @property
    def along_k(self) -> bool:
        """Whether a thread takes neighbours along K: the stride is the lesser one there."""
        if 1 in (self.line, self.k):
            return self.line != 1
        return isinstance(self.k, int) and not (
            isinstance(self.line, int) and abs(self.line) <= abs(self.k)
        )


class _Code(KernelCode):
    """Writes the kernel of one contraction."""

    def __init__(self, signature: Signature, formulas: Formulas, c: Contract, tile: Tile) -> None:
        super().__init__(signature, formulas)
        self.c, self.tile = c, tile
        self.type = _sum_type(c.result.dtype)
        self.item = _item(c.result.dtype)
        self.one_block = isinstance(c.k, int) and c.k <= K_BLOCK
        # whether a tile is given up when one block of K has been summed
        self.at_once = self.one_block or c.parts is not None
        self.part = sym("part", c.parts)
        (a_row, a_col), (b_row, b_col) = c.a.strides, c.b.strides
        self.sides = (
            _Side("a", c.a, a_row, a_col, tile.m, f"({self.type})0"),
            _Side("b", c.b, b_col, b_row, tile.n, f"-({self.type})0"),
        )

    def write(self) -> None:
        c, w = self.c, self.w
        self.guard()
        self.shared()
        matrices = self.dim(c.batch)
        if c.parts is not None:
            matrices = f"dg_blocks({self.dim(c.k)}) * {matrices}"
        sizes = f"{self.dim(c.m)}, {self.dim(c.n)}"
        w.line(f"const dg_index tiles = {matrices} * dg_tiles<{self.shape}>({sizes});")
        with self.block("for (dg_index tile = blockIdx.x; tile < tiles; tile += gridDim.x)"):
            w.line("a_panel a;")
            w.line("b_panel b;")
            if not self.one_block:
                w.line("dg_index steps;")
            with self.phase():
                self.open()
            if self.at_once:
                self.sums(self.dim(c.k) if self.one_block else "steps")
                self.finish_sums()
            else:
                self.sum_blocks()

    def sum_blocks(self) -> None:
        """The blocks of K one after another; `again`: c has the sums of earlier ones."""
        w = self.w
        w.line(f"dg_index left = {self.dim(self.c.k)};")
        with self.block("for (bool again = false;; again = true)"):
            with self.phase():
                w.line(f"steps = dg_min(left, dg_length({self.dim(self.c.k)}));")
            w.line("left -= steps;")
            self.sums("steps")
            self.finish_sums()
            w.line("if (left == 0) break;")

    @property
    def shape(self) -> str:
        return f"{self.tile.m}, {self.tile.n}"

    @contextmanager
    def phase(self) -> Iterator[None]:
        """A block of the text that has nothing in common with others: what two of them need
        would take registers all the while between them."""
        atoms = dict(self.atoms)
        with self.block(""):
            for k, atom in self.signature.symbols:
                self.atoms[atom] = self.w.value("dg_index", f"dg_later({atom_name(k)})")
            yield
        self.atoms = atoms

    def place(self) -> None:
        """Names for where the tile is."""
        c, w = self.c, self.w
        w.line(f"const dg_index m = {self.dim(c.m)}, n = {self.dim(c.n)};")
        w.line(f"const dg_place<{self.shape}> place(dg_later(tile), m, n);")
        if c.parts is None:
            w.line("const dg_index batch = place.matrix;")
        else:
            w.line(f"const dg_index part = place.matrix / ({self.dim(c.batch)});")
            w.line(f"const dg_index batch = place.matrix % ({self.dim(c.batch)});")
            self.atoms[symbol_of(self.part)] = "part"
        self.atoms[symbol_of(c.batch_var)] = "batch"

    def open(self) -> None:
        """The panels at the beginning of the sums of a tile."""
        c, w = self.c, self.w
        self.place()
        if c.parts is not None:
            k = self.dim(c.k)
            w.line(f"const dg_index first = part * dg_length({k});")
            if not self.one_block:
                w.line(f"steps = dg_min(dg_length({k}), {k} - first);")
        for s, first, size in zip(self.sides, ("row", "column"), "mn", strict=True):
            x, line, k = s.operand, self.dim(s.line), self.dim(s.k)
            begin = f"&{self.element(x.buffer, x.base + x.batch * c.batch_var)}"
            begin += f" + place.{first} * {line}"
            if c.parts is not None:
                begin += f" + first * {k}"
            where = f"{begin}, {size} - place.{first}, {line}, {k}"
            w.line(f"{s.name}.open({where}, {self.vectors(s)});")

    # -- memory -------------------------------------------------------------------------------

    def shared(self) -> None:
        """Two panels of each operand, in turns; the sums pass through the same memory."""
        tile, w = self.tile, self.w
        for side in self.sides:
            kind = memory_type(side.operand.buffer.dtype)
            args = f"{kind}, {self.type}, {side.size}, {tile.depth}, {THREADS}"
            w.line(f"typedef dg_panel<{args}, {_flag(side.along_k)}> {side.name}_panel;")
            w.line(f"const int {side.name}_size = {tile.depth} * {side.name}_panel::PITCH;")
        vector = 16 // self.item
        panels = 2 * tile.depth * (tile.m + tile.n + 2 * vector)
        slab = tile.rows * tile.down * tile.n
        w.line(f"__shared__ __align__(16) {self.type} memory[{max(panels, slab)}];")

    def vectors(self, side: _Side) -> str:
        """Whether neighbours can be read as one access wherever no edge is near."""
        x, vector = side.operand, 16 // self.item
        near, far = (side.k, side.line) if side.along_k else (side.line, side.k)
        if near != 1:
            return "false"
        steps = [far] if self.c.batch == 1 else [far, x.batch]
        tests = [f"dg_aligned<{vector}>(&{self.element(x.buffer, x.base)})"]
        for step in steps:
            if isinstance(step, int):
                if step % vector:
                    return "false"
            elif any(factor % vector for _, factor in step.terms):
                tests.append(f"{self.dim(step)} % {vector} == 0")
        if side.along_k and not self.one_block:
            k = self.dim(self.c.k)
            tests.append(f"({k} <= {K_BLOCK} || dg_length({k}) % {vector} == 0)")
        return " && ".join(tests)

    # -- sums ---------------------------------------------------------------------------------

    def sums(self, steps: str) -> None:
        """The sums of a block of K: a panel is multiplied while the next one is under way."""
        tile, w = self.tile, self.w
        w.line(f"{self.type} sum[{tile.height}][{tile.width}] = {{}};")
        w.line("int stage = 0;")
        w.line("dg_index at = 0;")
        with self.block(f"for (;; at += {tile.depth})"):
            with self.block(f"if (at < {steps})"):
                self.fetch(steps)
            with self.block("if (at > 0)"):
                args = f"{self.type}, {tile.height}, {tile.width}, {tile.down}, {tile.across}"
                panels = ", ".join(
                    f"memory + {place}, {s.name}_panel::PITCH"
                    for s, place in zip(self.sides, self.panels("(stage ^ 1)"), strict=True)
                )
                w.line(f"dg_multiply<{args}, {tile.depth}>(sum, {panels});")
            w.line(f"if (at >= {steps}) break;")
            self.put("stage")
            w.line("stage ^= 1;")
            w.line("__syncthreads();")
        if not self.at_once:  # the last panel may have reached into the next block
            for s in self.sides:
                w.line(f"{s.name}.skip(({steps} - at) * {self.dim(s.k)});")

    def panels(self, stage: str) -> tuple[str, str]:
        return f"{stage} * a_size", f"2 * a_size + {stage} * b_size"

    def fetch(self, steps: str) -> None:
        for s in self.sides:
            strides = f"{self.dim(s.line)}, {self.dim(s.k)}"
            what = f"{strides}, {steps} - at, {s.padding}"
            self.w.line(f"{s.name}.fetch({what});")

    def put(self, stage: str) -> None:
        for s, place in zip(self.sides, self.panels(stage), strict=True):
            self.w.line(f"{s.name}.put(memory + {place});")

    # -- what happens to the sums -------------------------------------------------------------

    def finish_sums(self) -> None:
        """All sums of a tile, row by row: a thread stays in one column."""
        with self.phase():
            self.place()
            c = self.c
            self.enter(c.epilogue, {symbol_of(v) for v in (c.batch_var, c.row_var, c.col_var)})
            self.finish_rows()
        self.w.line("__syncthreads();")

    def finish_rows(self) -> None:
        tile, w = self.tile, self.w
        args = f"{self.type}, {tile.height}, {tile.width}, {tile.down}, {tile.across}, {tile.rows}"
        w.line("const unsigned thread = dg_later(threadIdx.x);")
        w.line(f"const int column = thread % {tile.n};")
        w.line("const dg_index j = place.column + column;")
        w.line("#pragma unroll 1")
        with self.block(f"for (int pass = 0; pass < {tile.height}; pass += {tile.rows})"):
            w.line("__syncthreads();")
            w.line(f"dg_spread<{args}>(memory, sum, thread, pass);")
            w.line("__syncthreads();")
            with self.block("if (j < n)"):
                self.finish_column()

    def finish_column(self) -> None:
        c, tile, w = self.c, self.tile, self.w
        step = THREADS // tile.n
        self.atoms[symbol_of(c.col_var)] = "j"
        self.enter(c.epilogue, {symbol_of(c.row_var)})
        self.atoms[symbol_of(c.row_var)] = "i"
        rows = tile.rows * tile.down
        w.line("#pragma unroll 1")
        head = f"int row = thread / {tile.n}; row < {rows}; row += {_TOGETHER * step}"
        with self.block(f"for ({head})"):
            w.line(f"{self.type} total[{_TOGETHER}];")
            with self.each_row(step):
                w.line(f"total[u] = memory[(row + u * {step}) * {tile.n} + column];")
                if not self.at_once:
                    w.line(f"if (again) total[u] = ({self.type}){self.c_place} + total[u];")
            if self.at_once:
                self.epilogue(step)
                return
            with self.block("if (left > 0)"), self.each_row(step):
                w.line(f"{self.c_place} = ({memory_type(c.c.buffer.dtype)})total[u];")
            with self.block("else"):
                self.epilogue(step)

    @property
    def c_index(self) -> Dim:
        x, c = self.c.c, self.c
        matrix = c.batch_var if c.parts is None else c.batch * self.part + c.batch_var
        return x.place(matrix, c.row_var, c.col_var)

    @property
    def c_place(self) -> str:
        return self.element(self.c.c.buffer, self.c_index)

    @contextmanager
    def each_row(self, step: int) -> Iterator[None]:
        """A loop over the rows that a thread works on together, of which those that exist."""
        tile, w = self.tile, self.w
        lines = f"dg_lines<{self.type}, {tile.height}, {tile.down}>"
        w.line("#pragma unroll")
        with self.block(f"for (int u = 0; u < {_TOGETHER}; ++u)"):
            w.line(f"const int r = row + u * {step};")
            number = f"r % {tile.down}, pass + r / {tile.down}"
            w.line(f"const dg_index i = place.row + {lines}::line({number});")
            with self.block("if (i < m)"):
                yield

    def epilogue(self, step: int) -> None:
        """The stores of the rows at hand, after all of their values have been computed."""
        c, w = self.c, self.w
        stores = c.epilogue
        if not any(self.is_home(s) for s in stores):
            stores = (Store(c.c.buffer, self.c_index, c.result), *stores)
        names = []
        for s in stores:
            assert s.position is None, s
            names.append(w.new_name("out"))
            w.line(f"{memory_type(s.buffer.dtype)} {names[-1]}[{_TOGETHER}];")
        with self.each_row(step):
            kind = register_type(c.result.dtype)
            self.keep(c.result, w.value(kind, f"({kind})total[u]"))
            for s, name in zip(stores, names, strict=True):
                w.line(f"{name}[u] = {self.value(s.value)};")
        with self.each_row(step):
            for s, name in zip(stores, names, strict=True):
                self.store(s.buffer, s.index, f"{name}[u]", None)
        self.forget_loads({s.buffer for s in stores})

    def is_home(self, s: Store) -> bool:
        """Whether a store writes the element of c itself."""
        return s.buffer == self.c.c.buffer and self.simple(s.index) == self.simple(self.c_index)

    def simple(self, index: Dim) -> Dim:
        """An index without the variables that are always 0."""
        c = self.c
        pairs = ((c.batch_var, c.batch), (c.row_var, c.m), (c.col_var, c.n))
        return substitute(index, {symbol_of(v): 0 for v, size in pairs if size == 1})


def _flag(x: bool) -> str:
    return "true" if x else "false"
