"""Tables that stand in registers: one instruction picks all lanes from up to 16 numbers."""

from __future__ import annotations

from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.compiler.lower.llvm.emit import Function
from dualgrad.compiler.lower.llvm.lanes import Declarations, element, literal, vector
from dualgrad.compiler.lower.llvm.registers import by_registers, has, has_registers
from dualgrad.runtime.dtype import float32
from dualgrad.runtime.program import Target


def lookup(
    f: Function, names: Declarations, target: Target, e: Scalar, index: str, width: int
) -> str:
    """The numbers of a table at the indices of all lanes."""
    count = len(e.numbers)
    if e.dtype is float32 and count == 16 and has_registers(target, width, 32):
        return _permuted(f, names, e, index, width)
    if e.dtype is float32 and count == 16 and has(target, "avx2") and width % 8 == 0:
        return _in_halves(f, names, e, index, width)
    return _one_by_one(f, e, index, width)


def _numbers(e: Scalar, first: int, count: int) -> str:
    kind = element(e.dtype)
    texts = (f"{kind} {literal(x, e.dtype)}" for x in e.numbers[first : first + count])
    return f"<{', '.join(texts)}>"


def _permuted(f: Function, names: Declarations, e: Scalar, index: str, width: int) -> str:
    """16 numbers by `vpermps` of AVX-512, which looks at four bits of an index."""
    kinds = vector("float", 16), vector("i32", 16)
    permute = names.intrinsic("llvm.x86.avx512.permvar.sf.512", kinds[0], *kinds)

    def pick(at: str) -> str:
        return f.result(kinds[0], permute, (kinds[0], _numbers(e, 0, 16)), (kinds[1], at))

    return by_registers(f, [("i32", index)], "float", width, 16, pick)


def _in_halves(f: Function, names: Declarations, e: Scalar, index: str, width: int) -> str:
    """16 numbers by `vpermps` of AVX2, which looks at three bits: from both halves."""
    kinds = vector("float", 8), vector("i32", 8)
    permute = names.intrinsic("llvm.x86.avx2.permps", kinds[0], *kinds)

    def pick(at: str) -> str:
        low, high = (
            f.result(kinds[0], permute, (kinds[0], _numbers(e, first, 8)), (kinds[1], at))
            for first in (0, 8)
        )
        bit = f.value(f"and {kinds[1]} {at}, splat (i32 8)")
        test = f.value(f"icmp eq {kinds[1]} {bit}, zeroinitializer")
        return f.value(f"select <8 x i1> {test}, {kinds[0]} {low}, {kinds[0]} {high}")

    return by_registers(f, [("i32", index)], "float", width, 8, pick)


def _one_by_one(f: Function, e: Scalar, index: str, width: int) -> str:
    """Lane by lane."""
    kind, count = element(e.dtype), len(e.numbers)
    integer, table = f"i{e.dtype.bits}", f"<{count} x {kind}> {_numbers(e, 0, count)}"
    out = "poison"
    for lane in range(width):
        at = index
        if width > 1:
            at = f.value(f"extractelement <{width} x {integer}> {index}, i64 {lane}")
        at = f.value(f"and {integer} {at}, {count - 1}")
        number = f.value(f"extractelement {table}, {integer} {at}")
        if width == 1:
            return number
        whole = vector(kind, width)
        out = f.value(f"insertelement {whole} {out}, {kind} {number}, i64 {lane}")
    return out
