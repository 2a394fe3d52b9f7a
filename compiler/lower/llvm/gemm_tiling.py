"""How C is cut into tiles for a vector unit, and the vector instructions of one element type.

A tile is `height` rows by `vectors(height)` vectors of columns, and lives in registers while one
block of K is summed: height * vectors accumulators, one row of B, one broadcast element of A.
"""

from __future__ import annotations

from dualgrad.compiler.kernel.ir import K_BLOCK
from dualgrad.compiler.lower.llvm.emit import Function, Value
from dualgrad.compiler.lower.llvm.scalars import converts_half
from dualgrad.runtime.dtype import DType, bfloat16
from dualgrad.runtime.errors import DTypeError
from dualgrad.runtime.program import Target
from dualgrad.runtime.records import dataclass

_FLOATS = {32: "float", 64: "double"}
_WIDEST = 8
THIN_ROWS = 4  # of A that do not pay for transposing panels of B first
LINE_BYTES = 64


@dataclass(frozen=True)
class Tiling:
    """One element type on one vector unit.

    element    LLVM type of an element
    suffix     its name in intrinsics, "f32"
    itemsize   bytes per element
    lanes      elements per vector register
    registers  vector registers
    stored     LLVM type of the operands' elements in memory: `element`, or that of a 16-bit float
               which packing widens, "bfloat" or "half" (or "i16": float16 without instructions)
    thin       whether products have few rows and a B whose columns are consecutive in memory
    """

    element: str
    suffix: str
    itemsize: int
    lanes: int
    registers: int
    stored: str
    thin: bool = False

    @property
    def widens(self) -> bool:
        """Whether operands are 16-bit floats."""
        return self.stored != self.element

    @property
    def stored_size(self) -> int:
        """Bytes of an operand's element in memory."""
        return 2 if self.widens else self.itemsize

    @property
    def vector(self) -> str:
        return f"<{self.lanes} x {self.element}>"

    @property
    def is_float(self) -> bool:
        return self.suffix.startswith("f")

    @property
    def masks(self) -> bool:
        """Whether the vector unit loads and stores some lanes of a vector as one instruction."""
        return self.lanes * self.itemsize > 16

    @property
    def height(self) -> int:
        """The most rows of a tile: what two vectors of columns leave room for."""
        return THIN_ROWS if self.thin else (self.registers - 3) // 2

    @property
    def row_pitch(self) -> int:
        """Elements from row to row of packed A: a block of K and one cache line, so that the
        rows of a panel start in different sets of a cache."""
        return K_BLOCK + LINE_BYTES // self.itemsize

    @property
    def column_pitch(self) -> int:
        """Elements from column to column of packed A^T: whole vectors."""
        return -(-self.height // self.lanes) * self.lanes

    @property
    def panel_size(self) -> int:
        """Elements of a packed panel of A, of either kind."""
        return self.column_pitch * self.row_pitch

    def vectors(self, height: int) -> int:
        """Vectors of columns in a tile of `height` rows: a power of two that fits."""
        count = _WIDEST
        while (height + 1) * count + 1 > self.registers:
            count //= 2
        return count

    @property
    def thin_vectors(self) -> int:
        """Vectors of columns in a tile of a thin product: enough chains of multiply-adds to hide
        their latency, few enough that a square of B has place in registers beside them."""
        return 2

    def load(self, f: Function, pointer: str) -> str:
        return f.load(self.vector, pointer, self.itemsize)

    def store(self, f: Function, value: str, pointer: str) -> None:
        f.store(self.vector, value, pointer, self.itemsize)

    def at(self, f: Function, pointer: str, index: Value) -> str:
        return f.at(pointer, index, self.element)

    def take(self, f: Function, pointer: str, lanes: int | None = None) -> str:
        """Elements of an operand, as many as a vector has unless said otherwise."""
        count = lanes or self.lanes
        kind = f"<{count} x {'i16' if self.widens else self.element}>"
        return self._widened(f, f.load(kind, pointer, self.stored_size), count)

    def take_masked(self, f: Function, pointer: str, mask: str) -> str:
        """`take` for the lanes of a mask; the others are zero and their memory is not read."""
        return self._widened(f, self.stored_masked(f, pointer, mask)[1], self.lanes)

    def stored_masked(self, f: Function, pointer: str, mask: str) -> tuple[str, str]:
        """The same lanes as they are in memory: their type and value."""
        if not self.widens:
            return self.vector, self.load_masked(f, pointer, mask)
        kind = f"<{self.lanes} x i16>"
        bits = f.value(
            f"call {kind} @llvm.masked.load.v{self.lanes}i16.p0(ptr {pointer}, i32 2, "
            f"{self._mask} {mask}, {kind} zeroinitializer)"
        )
        return kind, bits

    def blend(self, f: Function, mask: str, yes: str, no: str) -> str:
        """The lanes of `yes` where the mask has them, else those of `no`."""
        v = self.vector
        return f.value(f"select {self._mask} {mask}, {v} {yes}, {v} {no}")

    def from_at(self, f: Function, pointer: str, index: Value) -> str:
        """The address of an operand's element."""
        return f.at(pointer, index, "i16" if self.widens else self.element)

    def _widened(self, f: Function, x: str, lanes: int) -> str:
        """Elements as they are in memory, in the precision of the product."""
        if not self.widens:
            return x
        bits, floats = f"<{lanes} x i16>", f"<{lanes} x float>"
        if self.stored == "half":
            half = f.value(f"bitcast {bits} {x} to <{lanes} x half>")
            return f.value(f"fpext <{lanes} x half> {half} to {floats}")
        wide = f"<{lanes} x i32>"
        x = f.value(f"zext {bits} {x} to {wide}")
        if self.stored == "bfloat":
            return f.value(f"bitcast {wide} {_shifted(f, x, 16, lanes)} to {floats}")
        return _from_half(f, x, lanes)

    def splat(self, f: Function, scalar: str) -> str:
        one = f.value(f"insertelement {self.vector} poison, {self.element} {scalar}, i32 0")
        return self.shuffle(f, one, one, [0] * self.lanes)

    def shuffle(self, f: Function, x: str, y: str, lanes: list[int]) -> str:
        """A vector of the lanes of x (0, 1, ...) and y (counted on)."""
        picks = ", ".join(f"i32 {lane}" for lane in lanes)
        return f.value(
            f"shufflevector {self.vector} {x}, {self.vector} {y}, <{len(lanes)} x i32> <{picks}>"
        )

    def add(self, f: Function, x: str, y: str) -> str:
        return f.value(f"{'fadd' if self.is_float else 'add'} {self.vector} {x}, {y}")

    def multiply_add(self, f: Function, x: str, y: str, total: str) -> str:
        """x * y + total: rounded once, or wrapping."""
        if self.is_float:
            v = self.vector
            return f.result(v, f"@llvm.fma.{self._vector_suffix}", (v, x), (v, y), (v, total))
        return self.add(f, f.value(f"mul {self.vector} {x}, {y}"), total)

    def mask(self, f: Function, count: Value) -> str:
        """Lanes 0 .. count - 1."""
        wide = f"<{self.lanes} x i32>"
        bound = f.value(f"trunc i64 {f.min(count, self.lanes)} to i32")
        one = f.value(f"insertelement {wide} poison, i32 {bound}, i32 0")
        bounds = f.value(f"shufflevector {wide} {one}, {wide} poison, {wide} zeroinitializer")
        lanes = ", ".join(f"i32 {lane}" for lane in range(self.lanes))
        return f.value(f"icmp sgt {wide} {bounds}, <{lanes}>")

    def load_masked(self, f: Function, pointer: str, mask: str) -> str:
        """Lanes outside the mask are zero and their memory is not read."""
        return f.value(
            f"call {self.vector} @llvm.masked.load.{self._vector_suffix}.p0(ptr {pointer}, "
            f"i32 {self.itemsize}, {self._mask} {mask}, {self.vector} zeroinitializer)"
        )

    def store_masked(self, f: Function, value: str, pointer: str, mask: str) -> None:
        f.do(
            f"call void @llvm.masked.store.{self._vector_suffix}.p0({self.vector} {value}, "
            f"ptr {pointer}, i32 {self.itemsize}, {self._mask} {mask})"
        )

    def prefetch(self, f: Function, place: str, to_write: bool, far: bool = False) -> None:
        """Into the first-level cache, or, from far, the second."""
        near = 2 if far else 3
        f.do(f"call void @llvm.prefetch.p0(ptr {place}, i32 {int(to_write)}, i32 {near}, i32 1)")

    def declarations(self) -> str:
        """The intrinsics that the methods above use."""
        v, mask, suffix = self.vector, self._mask, self._vector_suffix
        some = f"declare {v} @llvm.fma.{suffix}({v}, {v}, {v})\n" if self.is_float else ""
        if self.widens:
            narrow, name = f"<{self.lanes} x i16>", f"@llvm.masked.load.v{self.lanes}i16.p0"
            some += f"declare {narrow} {name}(ptr, i32, {mask}, {narrow})\n"
        return some + (
            f"declare {v} @llvm.masked.load.{suffix}.p0(ptr, i32, {mask}, {v})\n"
            f"declare void @llvm.masked.store.{suffix}.p0({v}, ptr, i32, {mask})\n"
            "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)\n"
            "declare i64 @llvm.smin.i64(i64, i64)\n"
            "declare i64 @llvm.smax.i64(i64, i64)\n"
        )

    @property
    def _vector_suffix(self) -> str:
        return f"v{self.lanes}{self.suffix}"

    @property
    def _mask(self) -> str:
        return f"<{self.lanes} x i1>"


def _from_half(f: Function, x: str, lanes: int) -> str:
    """float16 in 32-bit integers as float32, as `build.float16.from_half` says it."""
    wide, floats = f"<{lanes} x i32>", f"<{lanes} x float>"

    def all_of(number: int) -> str:
        return f"<{', '.join([f'i32 {number}'] * lanes)}>"

    size = f.value(f"and {wide} {x}, {all_of(0x7FFF)}")
    size = _shifted(f, size, 13, lanes)
    scale = f"<{', '.join(['float 0x46F0000000000000'] * lanes)}>"  # 2**112
    near = f.value(f"bitcast {wide} {size} to {floats}")
    scaled = f.value(f"bitcast {floats} {f.value(f'fmul {floats} {near}, {scale}')} to {wide}")
    exponent = f.value(f"and {wide} {x}, {all_of(0x7C00)}")
    special = f.value(f"icmp eq {wide} {exponent}, {all_of(0x7C00)}")
    beyond = f.value(f"or {wide} {size}, {all_of(0x7F80_0000)}")
    whole = f.value(f"select <{lanes} x i1> {special}, {wide} {beyond}, {wide} {scaled}")
    sign = _shifted(f, f.value(f"and {wide} {x}, {all_of(0x8000)}"), 16, lanes)
    return f.value(f"bitcast {wide} {f.value(f'or {wide} {whole}, {sign}')} to {floats}")


def _shifted(f: Function, x: str, by: int, lanes: int) -> str:
    places = ", ".join([f"i32 {by}"] * lanes)
    return f.value(f"shl <{lanes} x i32> {x}, <{places}>")


def tiling(dtype: DType, operands: DType, target: Target, thin: bool = False) -> Tiling:
    """The tiling of products of `dtype` on `target`; `operands` is their dtype in memory, the same
    or, of float32, a float of 16 bits; `thin` as in Tiling.

    Raises DTypeError unless dtype is a float or an integer of 32 or 64 bits.
    """
    if dtype.kind not in "fiu" or dtype.bits not in _FLOATS:
        raise DTypeError(
            "no matrix product of this dtype",
            expect="a float or an integer of 32 or 64 bits",
            actual=dtype.name,
            hint="convert the operands with .astype(dg.float32)",
        )
    is_float = dtype.kind == "f"
    element = _FLOATS[dtype.bits] if is_float else f"i{dtype.bits}"
    suffix = f"{'f' if is_float else 'i'}{dtype.bits}"
    lanes = target.vector_bits // dtype.bits
    stored = element
    if operands.is_low:
        native = "half" if converts_half(target) else "i16"
        stored = "bfloat" if operands is bfloat16 else native
    return Tiling(element, suffix, dtype.itemsize, lanes, target.registers, stored, thin)
