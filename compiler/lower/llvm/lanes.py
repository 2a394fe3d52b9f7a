"""Scalar expressions as LLVM values, one or many lanes at a time.

`Lanes` says how wide the code at hand is: a scalar (width 1), or a vector whose lane l stands for
iteration base + l of one loop variable, perhaps under a mask.  Constants and values that do not
depend on that variable are computed once, as scalars, and repeated into all lanes where needed.
"""

from __future__ import annotations

import struct

import numpy as np

from dualgrad.compiler.ir.dims import Atom
from dualgrad.compiler.kernel.scalar import Formula, Scalar
from dualgrad.compiler.lower.llvm.emit import Function
from dualgrad.runtime.dtype import DType
from dualgrad.runtime.errors import CompileError
from dualgrad.runtime.floats import encode
from dualgrad.runtime.records import dataclass


@dataclass(frozen=True)
class Lanes:
    """How wide code is, what its lanes stand for, and which of them count."""

    width: int = 1
    atom: Atom | None = None  # the loop variable that the lanes run through
    mask: str | None = None  # an <width x i1>, or None: all lanes count
    ahead: bool = False  # whether what comes next in memory is read next


def element(dtype: DType) -> str:
    """The LLVM type of one value in a register; 16-bit floats are held as their bits."""
    if dtype.kind == "b":
        return "i1"
    if dtype.is_float and not dtype.is_low:
        return "float" if dtype.bits == 32 else "double"
    return f"i{dtype.bits}"


def in_memory(dtype: DType) -> str:
    """The LLVM type of one value in memory: bools take a byte."""
    return "i8" if dtype.kind == "b" else element(dtype)


def vector(kind: str, width: int) -> str:
    return kind if width == 1 else f"<{width} x {kind}>"


def suffix(dtype: DType, width: int) -> str:
    """The part of an intrinsic's name that gives its type."""
    kind = f"f{dtype.bits}" if dtype.is_float else f"i{1 if dtype.kind == 'b' else dtype.bits}"
    return kind if width == 1 else f"v{width}{kind}"


def literal(value: object, dtype: DType) -> str:
    """A constant; floats as the bits of the double that LLVM wants, rounded to dtype first."""
    if dtype.kind == "b":
        return "true" if value else "false"
    if not dtype.is_float:
        return str(value)
    number = float(value)  # type: ignore[arg-type]
    if dtype.is_low:
        return str(int(encode(number, dtype).view(np.uint16)))
    if dtype.bits == 32:
        try:
            number = struct.unpack("f", struct.pack("f", number))[0]
        except OverflowError:
            number = float("inf") if number > 0 else float("-inf")
    return f"0x{struct.unpack('Q', struct.pack('d', number))[0]:016X}"


def constant(e: Scalar, width: int) -> str:
    """A constant expression in `width` lanes."""
    text = literal(e.attr, e.dtype)
    return text if width == 1 else f"splat ({element(e.dtype)} {text})"


def splat(f: Function, value: str, kind: str, width: int) -> str:
    """A scalar repeated into all lanes."""
    if width == 1:
        return value
    one = f.value(f"insertelement {vector(kind, width)} poison, {kind} {value}, i64 0")
    mask = f"<{width} x i32> zeroinitializer"
    whole = vector(kind, width)
    return f.value(f"shufflevector {whole} {one}, {whole} poison, {mask}")


def reversed_lanes(f: Function, value: str, kind: str, width: int) -> str:
    """The lanes of a vector, the last one first."""
    whole = vector(kind, width)
    order = ", ".join(f"i32 {k}" for k in reversed(range(width)))
    return f.value(f"shufflevector {whole} {value}, {whole} poison, <{width} x i32> <{order}>")


def iota(width: int) -> str:
    return f"<{', '.join(f'i64 {k}' for k in range(width))}>"


_FLOAT = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_INTEGER = {
    "add": "add", "sub": "sub", "mul": "mul", "and": "and", "or": "or", "xor": "xor", "shl": "shl",
}  # fmt: skip
_SIGNED = {"div": "sdiv", "rem": "srem", "shr": "ashr"}
_UNSIGNED = {"div": "udiv", "rem": "urem", "shr": "lshr"}
_FCMP = {"eq": "oeq", "ne": "une", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge"}
_INTRINSIC = {
    "fma": "fma", "sqrt": "sqrt", "abs": "fabs", "copysign": "copysign", "floor": "floor",
    "rint": "roundeven",
}  # fmt: skip


class Declarations:
    """Intrinsics, formulas and metadata of a module, each declared or defined once."""

    def __init__(self) -> None:
        self._lines: dict[str, None] = {}
        self._metadata: dict[str, int] = {}
        # (formula, lanes) -> (name of its function, text)
        self.formulas: dict[tuple[Formula, int], tuple[str, str]] = {}

    def intrinsic(self, name: str, result: str, *arguments: str) -> str:
        self._lines[f"declare {result} @{name}({', '.join(arguments)})"] = None
        return f"@{name}"

    def metadata(self, name: str, text: str) -> str:
        """What marks an instruction with metadata of this name and content."""
        number = self._metadata.setdefault(text, len(self._metadata))
        return f"!{name} !{number}"

    def text(self) -> str:
        nodes = [f"!{number} = !{{{text}}}" for text, number in self._metadata.items()]
        return "\n".join([*self._lines, *nodes]) + "\n"


def apply(f: Function, names: Declarations, e: Scalar, xs: list[str], width: int) -> str:
    """The value of primitive, cast, bitcast or select `e` on operand values."""
    dtype = e.args[-1].dtype
    kind = vector(element(dtype), width)
    op = e.op
    if op == "select":
        test = vector("i1", width)
        return f.value(f"select {test} {xs[0]}, {kind} {xs[1]}, {kind} {xs[2]}")
    if op == "bitcast":
        return f.value(f"bitcast {kind} {xs[0]} to {vector(element(e.dtype), width)}")
    if op == "cast":
        return convert(f, names, xs[0], dtype, e.dtype, width)
    if op in _INTRINSIC:
        name = f"llvm.{_INTRINSIC[op]}.{suffix(dtype, width)}"
        function = names.intrinsic(name, kind, *[kind] * len(xs))
        return f.result(kind, function, *((kind, x) for x in xs))
    if op in _FCMP:
        return f.value(f"{_comparison(op, dtype)} {kind} {xs[0]}, {xs[1]}")
    if op == "neg":
        return f.value(
            f"fneg {kind} {xs[0]}"
            if dtype.is_float
            else f"sub {kind} zeroinitializer, {xs[0]}"
            if width > 1
            else f"sub {kind} 0, {xs[0]}"
        )
    if op == "not":
        ones = "true" if dtype.kind == "b" else "-1"
        every = ones if width == 1 else f"splat ({element(dtype)} {ones})"
        return f.value(f"xor {kind} {xs[0]}, {every}")
    if dtype.is_float:
        return f.value(f"{_FLOAT[op]} {kind} {xs[0]}, {xs[1]}")
    signs = _SIGNED if dtype.is_signed else _UNSIGNED
    return f.value(f"{_INTEGER.get(op) or signs[op]} {kind} {xs[0]}, {xs[1]}")


def _comparison(op: str, dtype: DType) -> str:
    if dtype.is_float:
        return f"fcmp {_FCMP[op]}"
    if op in ("eq", "ne"):
        return f"icmp {op}"
    return f"icmp {'s' if dtype.is_signed else 'u'}{op}"


def convert(
    f: Function, names: Declarations, x: str, source: DType, target: DType, width: int
) -> str:
    """x from one dtype to another (never to bool); of 16-bit floats only what targets do best,
    float16 from and to float32."""
    a, b = vector(element(source), width), vector(element(target), width)
    if target.kind == "b":
        raise CompileError("a cast to bool is a comparison", op="llvm")
    if source.is_low:
        half = vector("half", width)
        return f.value(f"fpext {half} {f.value(f'bitcast {a} {x} to {half}')} to {b}")
    if target.is_low:
        half = vector("half", width)
        return f.value(f"bitcast {half} {f.value(f'fptrunc {a} {x} to {half}')} to {b}")
    if source.is_float and target.is_float:
        return f.value(f"{'fpext' if target.bits > source.bits else 'fptrunc'} {a} {x} to {b}")
    if source.is_float:
        kind = "fptosi" if target.is_signed else "fptoui"
        name = f"llvm.{kind}.sat.{suffix(target, width)}.{suffix(source, width)}"
        return f.result(b, names.intrinsic(name, b, a), (a, x))
    if target.is_float:
        return f.value(f"{'sitofp' if source.is_signed else 'uitofp'} {a} {x} to {b}")
    bits = 1 if source.kind == "b" else source.bits
    if target.bits == bits:
        return x
    if target.bits < bits:
        return f.value(f"trunc {a} {x} to {b}")
    return f.value(f"{'sext' if source.is_signed else 'zext'} {a} {x} to {b}")
