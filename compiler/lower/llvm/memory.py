"""Addresses, loads, stores and run-time checks of one function, in lanes.

An access is a plain (masked) vector where its index moves by one from lane to lane, a scalar
repeated where it does not move, and a gather or scatter otherwise.  A computed position is a
`Shift` that the index is counted from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from dualgrad.compiler.ir.dims import Atom, Dim, Expr, coefficient, symbols, terms_of
from dualgrad.compiler.kernel.ir import Buffer
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.compiler.lower.llvm.emit import Function, Value
from dualgrad.compiler.lower.llvm.frame import ERROR, NUMBERS, Parts
from dualgrad.compiler.lower.llvm.lanes import (
    Lanes,
    element,
    in_memory,
    iota,
    reversed_lanes,
    splat,
    vector,
)
from dualgrad.compiler.lower.llvm.past_caches import store_past
from dualgrad.compiler.lower.llvm.spaced import Load, every, is_short, several, shared_by
from dualgrad.runtime.dtype import DType
from dualgrad.runtime.records import dataclass

# Bytes: how far ahead of a loop memory is asked for, and how much of it comes at a time.  Without
# it, exp and negation of 4e6 numbers take 1.2 and 1.4 times as long.
_AHEAD, _LINE = 1024, 64
_ROW = 1 << 16  # bytes of a row up to which the next row is asked for as a whole


@dataclass(frozen=True)
class Shift:
    """A computed number of elements that an index is counted from: one, or one per lane."""

    value: str
    per_lane: bool


class MemoryCode:
    """Writes one function: integers, loads, stores and checks.

    Scopes remember what has been computed where.
    """

    def __init__(
        self,
        signature: str,
        slots: Mapping[str, int],
        parts: Parts,
        rare: bool = False,
    ) -> None:
        """`slots` says where in the frame the addresses of buffers stand, by name."""
        self.f = Function(signature, rare)
        self.slots = slots
        self.parts = parts
        self.frame, self.names = parts.frame, parts.names
        self.target, self.checked = parts.target, parts.checked
        self.lanes = Lanes()
        self.atoms: dict[Atom, Value] = {}
        self._numbers: dict[object, str] = {}
        self.scopes: list[dict[object, str]] = [{}]
        self.streams: frozenset[str] = frozenset()  # buffers that one loop alone touches
        self.smalls: dict[str, Value] = {}  # those that it only writes: 0 where it is large
        self.next_row: Mapping[tuple[Buffer, Dim, bool], Dim] = {}  # see `advance.Pitch`
        self.exit = self.f.new_block()

    def open_buffers(self, buffers: Iterable[Buffer]) -> None:
        """Read the addresses of buffers from the frame, before any loop."""
        for b in buffers:
            place = self.f.at("%frame", self.slots[b.name], "i64")
            self.keep(("base", b.name), self.f.load("ptr", place))

    def numbers(self) -> str:
        """The address of the program's numbers, read before all else."""
        place = self.f.early(f"getelementptr i64, ptr %frame, i64 {NUMBERS}")
        return self.f.early(f"load ptr, ptr {place}, align 8")

    def number(self, k: int, kind: str) -> str:
        """The program's k-th number, read before all else."""
        if not self._numbers:
            self._numbers[""] = self.numbers()
        if (k, kind) not in self._numbers:
            place = self.f.early(f"getelementptr i64, ptr {self._numbers['']}, i64 {k}")
            self._numbers[k, kind] = self.f.early(f"load {kind}, ptr {place}, align 8")
        return self._numbers[k, kind]

    def scalar(self, e: Scalar) -> str:
        """A Python number: a double, an int64, or a bool as 0 or 1."""
        k = self.frame.number_of_scalar(e)
        if e.dtype.is_float:
            return self.number(k, "double")
        value = self.number(k, "i64")
        return self.f.early(f"trunc i64 {value} to i1") if e.dtype.kind == "b" else value

    # -- scopes -------------------------------------------------------------------------------

    @contextmanager
    def scope(self, lanes: Lanes | None = None) -> Iterator[None]:
        """Names given inside are not used after it: the code may not have run."""
        before = self.lanes
        self.lanes = lanes or before
        self.scopes.append({})
        yield
        self.scopes.pop()
        self.lanes = before

    def find(self, key: object) -> str | None:
        for names in reversed(self.scopes):
            found = names.get(key)
            if found is not None:
                return found
        return None

    def keep(self, key: object, name: str) -> str:
        self.scopes[-1][key] = name
        return name

    # -- integers -----------------------------------------------------------------------------

    def dim(self, d: Dim) -> Value:
        """The value of an integer expression, the same in all lanes."""
        if isinstance(d, int):
            return d
        found = self.find(("dim", d))
        if found is not None:
            return found
        total: Value | None = None
        for monomial, c in d.terms:
            term: Value = c
            for k, atom in enumerate(monomial):
                value = self.atom(atom)
                term = value if k == 0 and c == 1 else self.f.mul(term, value)
            total = term if total is None else self.f.add(total, term)
        assert total is not None
        return self.keep(("dim", d), str(total))

    def atom(self, atom: Atom) -> Value:
        if atom.kind == "sym":
            if atom not in self.atoms:
                self.atoms[atom] = self.number(self.frame.number_of(atom), "i64")
            return self.atoms[atom]
        a, b = (self.dim(x) for x in atom.args)
        if atom.kind == "min":
            smallest = self.names.intrinsic("llvm.smin.i64", "i64", "i64", "i64")
            return self.f.result("i64", smallest, ("i64", a), ("i64", b))
        return self.f.value(f"{'udiv' if atom.kind == 'div' else 'urem'} i64 {a}, {b}")

    def positions(self, d: Dim) -> str:
        """The values of an integer expression in all lanes, as <width x i64>."""
        width, atom = self.lanes.width, self.lanes.atom
        assert atom is not None
        found = self.find(("positions", d, width))
        if found is not None:
            return found
        split = coefficient(d, variable_of(atom))
        if split is not None:
            k, rest = split
            start = self.dim(rest + k * variable_of(atom))
            stride = splat(self.f, str(self.dim(k)), "i64", width)
            steps = self.f.value(f"mul <{width} x i64> {stride}, {iota(width)}")
            whole = splat(self.f, str(start), "i64", width)
            out = self.f.value(f"add <{width} x i64> {whole}, {steps}")
        else:
            out = self._nonlinear(d)
        return self.keep(("positions", d, width), out)

    def _nonlinear(self, d: Dim) -> str:
        """Quotients and remainders lane by lane."""
        width, kind = self.lanes.width, f"<{self.lanes.width} x i64>"
        total = "zeroinitializer"
        for monomial, c in terms_of(d):
            term = splat(self.f, str(c), "i64", width)
            for atom in monomial:
                term = self.f.value(f"mul {kind} {term}, {self._atom_positions(atom)}")
            total = self.f.value(f"add {kind} {total}, {term}")
        return total

    def _atom_positions(self, atom: Atom) -> str:
        if atom.kind == "sym":
            return self.positions(variable_of(atom))
        a, b = (self.positions(x) for x in atom.args)
        kind = f"<{self.lanes.width} x i64>"
        if atom.kind == "min":
            less = self.f.value(f"icmp slt {kind} {a}, {b}")
            return self.f.value(f"select <{self.lanes.width} x i1> {less}, {kind} {a}, {kind} {b}")
        return self.f.value(f"{'udiv' if atom.kind == 'div' else 'urem'} {kind} {a}, {b}")

    # -- memory -------------------------------------------------------------------------------

    def pointer(self, buffer: Buffer, index: Dim, shift: Shift | None = None) -> str:
        """The address of an element; the part outside of the innermost loop is shared."""
        if shift is not None:
            fixed, moving = self._split_moving(index)
            kind = in_memory(buffer.dtype)
            start = self.f.at(self.pointer(buffer, fixed), shift.value, kind)
            return start if moving == 0 else self.f.at(start, self.dim(moving), kind)
        base = self.find(("base", buffer.name))
        assert base is not None
        if index == 0:
            return base
        found = self.find(("pointer", buffer, index))
        if found is not None:
            return found
        fixed, moving = self._split_moving(index)
        if moving != 0 and fixed != 0:
            base = self.pointer(buffer, fixed)
            index = moving
        return self.keep(
            ("pointer", buffer, fixed + moving),
            self.f.at(base, self.dim(index), in_memory(buffer.dtype)),
        )

    def _split_moving(self, index: Dim) -> tuple[Dim, Dim]:
        """index as (part without the innermost variable, part with it)."""
        atom = self.lanes.atom
        split = None if atom is None else coefficient(index, variable_of(atom))
        if split is None or atom is None:
            return index, 0
        return split[1], split[0] * variable_of(atom)

    def step_of(self, index: Dim, shift: Shift | None = None) -> Dim | None:
        """The stride of an index along the lanes; None where it has none."""
        if shift is not None and shift.per_lane:
            return None
        if self.lanes.atom is None:
            return 0
        split = coefficient(index, variable_of(self.lanes.atom))
        return None if split is None else split[0]

    def load(self, buffer: Buffer, index: Dim, shift: Shift | None = None) -> str:
        """Elements of a buffer: one per lane, or one for all lanes where the index is fixed."""
        step = self.step_of(index, shift)
        kind, width = in_memory(buffer.dtype), self.lanes.width
        align = buffer.dtype.itemsize
        self.guard(buffer, index, shift)
        if width == 1 or (step == 0 and shift is None):
            value = self.f.load(kind, self.pointer(buffer, index, shift), align)
            value = self._from_memory(value, buffer.dtype, 1)
            return splat(self.f, value, element(buffer.dtype), width)
        whole = vector(kind, width)
        mask = self.lanes.mask
        if step == 1 and mask is None:
            address = self.pointer(buffer, index, shift)
            value = self.f.load(whole, address, align)
            self.prefetch(buffer, index, address)
        elif step == -1 and mask is None:
            address = self.f.at(self.pointer(buffer, index, shift), 1 - width, kind)
            value = reversed_lanes(self.f, self.f.load(whole, address, align), kind, width)
        elif step == 1:
            name = f"llvm.masked.load.{suffix_of(kind, width)}.p0"
            read = self.names.intrinsic(name, whole, "ptr", "i32", f"<{width} x i1>", whole)
            value = self.f.result(
                whole,
                read,
                ("ptr", self.pointer(buffer, index, shift)),
                ("i32", align),
                (f"<{width} x i1>", mask or ""),
                (whole, "zeroinitializer"),
            )
        else:
            value = self._spaced(buffer, index, shift, step) or self._gather(
                buffer, index, shift, whole
            )
        return self._from_memory(value, buffer.dtype, width)

    def _spaced(
        self, buffer: Buffer, index: Dim, shift: Shift | None, step: Dim | None
    ) -> str | None:
        """Elements that lie near to each other, by loads of neighbours; None for others."""
        atom = self.lanes.atom
        if shift is not None or atom is None:
            return None
        shared = None if step is not None else shared_by(index, variable_of(atom))
        if shared is None and not is_short(step):
            return None
        kind = in_memory(buffer.dtype)
        load = Load(
            self.names,
            kind,
            suffix_of(kind, 1).removeprefix("v1"),
            buffer.dtype.itemsize,
            self.f.at(self.pointer(buffer, 0), self.dim(index), kind),
            self.lanes.width,
            self._mask(),
        )
        if shared is None:
            assert isinstance(step, int)
            return every(self.f, load, step)
        return several(self.f, load, shared.lanes, str(self.dim(shared.number % shared.lanes)))

    def prefetch(self, buffer: Buffer, index: Dim, address: str, write: bool = False) -> None:
        """Ask for the memory that is reached soon: further on in a loop that the buffer streams
        through, or in the next row."""
        ahead = self._ahead(buffer, index, write)
        if ahead is None:
            return
        kinds = ("ptr", "i32", "i32", "i32")
        fetch = self.names.intrinsic("llvm.prefetch.p0", "void", *kinds)
        start = self.f.at(address, ahead, "i8")
        for line in range(0, self.lanes.width * buffer.dtype.itemsize, _LINE):
            place = self.f.at(start, line, "i8") if line else start
            self.f.call(fetch, ("ptr", place), ("i32", int(write)), ("i32", 3), ("i32", 1))

    def _ahead(self, buffer: Buffer, index: Dim, write: bool) -> Value | None:
        """How many bytes after an access the memory lies that is asked for, if any is."""
        pitch = self.next_row.get((buffer, index, write))
        if pitch is not None:
            return None if pitch == 0 else self._rows_ahead(pitch * buffer.dtype.itemsize)
        if not self.lanes.ahead or buffer.name not in self.streams:
            return None
        # not the same memory each time the loop runs
        return None if symbols(index) <= {self.lanes.atom} else _AHEAD

    def _rows_ahead(self, size: Dim) -> Value:
        """The size of a row, or of some if they are short; less where a row is so long that the
        next one would not stay."""
        if isinstance(size, int):
            return _AHEAD if size > _ROW else size * max(1, -(-_AHEAD // size))
        found = self.find(("row", size))
        if found is not None:
            return found
        value = self.dim(size)
        short = self.f.compare("sle", value, _ROW)
        return self.keep(("row", size), self.f.select(short, value, _AHEAD))

    def _addresses(self, buffer: Buffer, index: Dim, shift: Shift | None) -> str:
        kind, width = in_memory(buffer.dtype), self.lanes.width
        return self.f.value(
            f"getelementptr {kind}, ptr {self.pointer(buffer, 0)}, "
            f"<{width} x i64> {self.places(index, shift)}"
        )

    def places(self, index: Dim, shift: Shift | None) -> str:
        """index plus shift in all lanes."""
        width = self.lanes.width
        if shift is None:
            return self.positions(index)
        moved = shift.value if shift.per_lane else splat(self.f, shift.value, "i64", width)
        if index == 0:
            return moved
        return self.f.value(f"add <{width} x i64> {self.positions(index)}, {moved}")

    def _mask(self) -> str:
        return self.lanes.mask or "splat (i1 true)"

    def _gather(self, buffer: Buffer, index: Dim, shift: Shift | None, whole: str) -> str:
        width = self.lanes.width
        name = f"llvm.masked.gather.{suffix_of(in_memory(buffer.dtype), width)}.v{width}p0"
        flags = f"<{width} x i1>"
        read = self.names.intrinsic(name, whole, f"<{width} x ptr>", "i32", flags, whole)
        return self.f.result(
            whole,
            read,
            (f"<{width} x ptr>", self._addresses(buffer, index, shift)),
            ("i32", buffer.dtype.itemsize),
            (flags, self._mask()),
            (whole, "zeroinitializer"),
        )

    def _from_memory(self, value: str, dtype: DType, width: int) -> str:
        if dtype.kind != "b":
            return value
        zero = "0" if width == 1 else "zeroinitializer"
        return self.f.value(f"icmp ne {vector('i8', width)} {value}, {zero}")

    def store(self, buffer: Buffer, index: Dim, value: str, shift: Shift | None = None) -> None:
        step = self.step_of(index, shift)
        kind, width = in_memory(buffer.dtype), self.lanes.width
        align = buffer.dtype.itemsize
        self.guard(buffer, index, shift)
        if buffer.dtype.kind == "b":
            value = self.f.value(f"zext {vector('i1', width)} {value} to {vector('i8', width)}")
        whole = vector(kind, width)
        if width == 1 or (step == 1 and self.lanes.mask is None):
            self._store_whole(buffer, index, (whole, value, self.pointer(buffer, index, shift)))
            return
        flags = f"<{width} x i1>"
        if step == 1:
            name = f"llvm.masked.store.{suffix_of(kind, width)}.p0"
            write = self.names.intrinsic(name, "void", whole, "ptr", "i32", flags)
            target = ("ptr", self.pointer(buffer, index, shift))
        else:
            name = f"llvm.masked.scatter.{suffix_of(kind, width)}.v{width}p0"
            write = self.names.intrinsic(name, "void", whole, f"<{width} x ptr>", "i32", flags)
            target = (f"<{width} x ptr>", self._addresses(buffer, index, shift))
        self.f.call(write, (whole, value), target, ("i32", align), (flags, self._mask()))

    def _store_whole(self, buffer: Buffer, index: Dim, store: tuple[str, str, str]) -> None:
        """(type, value, address), past the caches if the buffer is large."""
        kind, value, address = store
        width, after = self.lanes.width * buffer.dtype.itemsize, ""
        if self.lanes.ahead and buffer.name in self.smalls:
            lines = min(width, self.target.vector_bits // 8)
            after = store_past(self.f, self.names, store, lines, self.smalls[buffer.name])
        with self.scope():
            self.f.store(kind, value, address, buffer.dtype.itemsize)
            self.prefetch(buffer, index, address, write=True)
        if after:
            self.f.jump(after)
            self.f.start(after)

    # -- checks -------------------------------------------------------------------------------

    def guard(self, buffer: Buffer, index: Dim, shift: Shift | None = None) -> None:
        """In checked mode: every access lies inside of its buffer."""
        if not self.checked:
            return
        code = self.frame.access_code(buffer)
        key = ("guard", buffer, index, shift, self.lanes)
        if self.find(key) is not None:
            return
        self.keep(key, "done")
        size = self.dim(buffer.size)
        if self.lanes.width == 1 or (self.step_of(index) == 0 and shift is None):
            position = str(self.dim(index))
            if shift is not None:
                position = self.f.add(position, shift.value)
            self.stop_if(self.f.value(f"icmp uge i64 {position}, {size}"), position, code)
        else:
            self.stop_if_any(self.places(index, shift), size, code)

    def stop_if_any(self, values: str, bound: Value, code: int) -> None:
        """Stop with the first value of the lanes that is out of bounds, if there is one."""
        f, width = self.f, self.lanes.width
        limit = splat(f, str(bound), "i64", width)
        wrong = f.value(f"icmp uge <{width} x i64> {values}, {limit}")
        if self.lanes.mask is not None:
            wrong = f.value(f"and <{width} x i1> {wrong}, {self.lanes.mask}")
        bits = f.value(f"bitcast <{width} x i1> {wrong} to i{width}")
        count = self.names.intrinsic(f"llvm.cttz.i{width}", f"i{width}", f"i{width}", "i1")

        def culprit() -> str:
            first = f.result(f"i{width}", count, (f"i{width}", bits), ("i1", "true"))
            return f.value(f"extractelement <{width} x i64> {values}, i{width} {first}")

        self._stop(f.value(f"icmp ne i{width} {bits}, 0"), culprit, code)

    def stop_if(self, condition: str, value: Value, code: int) -> None:
        self._stop(condition, lambda: value, code)

    def _stop(self, condition: str, culprit: Callable[[], Value], code: int) -> None:
        """Leave with the value that `culprit` writes the code of, where the condition holds."""
        stop, on = self.f.new_block(), self.f.new_block()
        self.f.branch(condition, stop, on)
        self.f.start(stop)
        value = culprit()
        word = self.f.value(f"shl i64 {value}, 16")
        word = self.f.value(f"or i64 {word}, {code + 1}")
        self.f.store("i64", word, self.f.at("%frame", ERROR, "i64"))
        self.f.jump(self.exit)
        self.f.start(on)


def suffix_of(kind: str, width: int) -> str:
    """Intrinsic name part of a type in memory."""
    short = {"float": "f32", "double": "f64"}.get(kind, kind)
    return f"v{width}{short}"


def variable_of(atom: Atom) -> Expr:
    out = Expr.of({(atom,): 1})
    assert isinstance(out, Expr)
    return out
