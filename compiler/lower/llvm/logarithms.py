"""Parts of logarithms by the instructions that AVX-512 has for them.

Formulas take a number apart by its bits, with a detour for those below the normal range, and then
select the results for what is no positive finite number (`Logarithm`).  `vgetexp` and `vgetmant`
take any number apart; `vfixupimm` puts the special results in their place.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from dualgrad.compiler.build.formats import FORMATS, INF
from dualgrad.compiler.build.mathlib import Math
from dualgrad.compiler.kernel.scalar import Scalar, const
from dualgrad.compiler.lower.llvm.emit import Function
from dualgrad.compiler.lower.llvm.lanes import Declarations, element, literal, vector
from dualgrad.compiler.lower.llvm.registers import REGISTER, by_registers
from dualgrad.runtime.dtype import float32
from dualgrad.runtime.records import dataclass

_NO_EXCEPTIONS = 8  # rounding is of no account
_MOST = 4.0 / 3.0  # a mantissa from here on is halved, see `Format.mantissa_low`
# what `vfixupimm` puts in place, four bits for each kind of number from the lowest on: NaN (2) for
# the two kinds of NaN, -inf (4) for zero, the given result (0) for one, NaN (3) for -inf, inf (5)
# for inf, NaN for negative numbers, the given result for positive ones
_FIXES = 0x03530422


@dataclass(frozen=True)
class Part:
    """A part of a logarithm of x: its `domain` around a result, or exponent or mantissa of x."""

    kind: str
    operands: tuple[Scalar, ...]  # x last


_parts: WeakKeyDictionary[Scalar, Part | None] = WeakKeyDictionary()
_MATCHED = {"select", "add", "sub"}


def part_of(e: Scalar) -> Part | None:
    """The part of a logarithm that an expression is, if it is one."""
    if e.op not in _MATCHED or e.dtype not in FORMATS:
        return None
    if e not in _parts:
        _parts[e] = _domain(e) if e.op == "select" else _split(e)
    return _parts[e]


def _domain(e: Scalar) -> Part | None:
    test = e.args[0]
    if test.op != "eq" or e.args[1] is not const(-INF, e.dtype):
        return None
    x, inner = test.args[0], e.args[2]
    if inner.op != "select" or inner.args[2].op != "select":
        return None
    result = inner.args[2].args[1]
    matches = Math()._log_domain(x, result) is e
    return Part("domain", (result, x)) if matches else None


def _split(e: Scalar) -> Part | None:
    """Of float32 only: float64 numbers are also taken apart where they are not finite."""
    if e.dtype is not float32 or e.args[0].op not in ("cast", "bitcast"):
        return None
    f = FORMATS[e.dtype]
    if e.op == "add":
        shift = e.args[1]
        if shift.op != "select" or shift.args[0].op != "lt":
            return None
        x = shift.args[0].args[0]
        return Part("exponent", (x,)) if Math()._split_any(x, f)[0] is e else None
    bits = e.args[0].args[0]
    if bits.op != "sub" or bits.args[0].op != "bitcast" or bits.args[0].args[0].op != "select":
        return None
    x = bits.args[0].args[0].args[2]
    return Part("mantissa", (x,)) if Math()._split_any(x, f)[1] is e else None


def logarithm_part(
    f: Function, names: Declarations, e: Scalar, part: Part, xs: Sequence[str], width: int
) -> str:
    """A part in all lanes, register by register, given its operands."""
    kind, lanes = element(e.dtype), REGISTER // e.dtype.bits

    def instructions(*registers: str) -> str:
        if part.kind == "domain":
            return _fixed(f, names, e, *registers)
        write = _exponent if part.kind == "exponent" else _mantissa
        return write(f, names, *registers)

    return by_registers(f, [(kind, x) for x in xs], kind, width, lanes, instructions)


def _fixed(f: Function, names: Declarations, e: Scalar, result: str, x: str) -> str:
    lanes, bits = REGISTER // e.dtype.bits, e.dtype.bits
    register, integers = vector(element(e.dtype), lanes), vector(f"i{bits}", lanes)
    suffix = "ps" if bits == 32 else "pd"
    fix = names.intrinsic(
        f"llvm.x86.avx512.mask.fixupimm.{suffix}.512",
        register, register, register, integers, "i32", f"i{lanes}", "i32",
    )  # fmt: skip
    table = (integers, f"splat (i{bits} {_FIXES})")
    how = (("i32", 0), (f"i{lanes}", -1), ("i32", _NO_EXCEPTIONS))
    return f.result(register, fix, (register, result), (register, x), table, *how)


def _exponent(f: Function, names: Declarations, x: str) -> str:
    register = vector("float", 16)
    exponent_of = names.intrinsic(
        "llvm.x86.avx512.mask.getexp.ps.512", register, register, register, "i16", "i32"
    )
    how = ((register, "zeroinitializer"), ("i16", -1), ("i32", _NO_EXCEPTIONS))
    exponent = f.result(register, exponent_of, (register, x), *how)
    _, halved = _whole_mantissa(f, names, x)
    more = f.value(f"fadd {register} {exponent}, splat (float 1.0)")
    return f.value(f"select <16 x i1> {halved}, {register} {more}, {register} {exponent}")


def _mantissa(f: Function, names: Declarations, x: str) -> str:
    register = vector("float", 16)
    mantissa, halved = _whole_mantissa(f, names, x)
    half = f.value(f"fmul {register} {mantissa}, splat (float 0.5)")
    chosen = f.value(f"select <16 x i1> {halved}, {register} {half}, {register} {mantissa}")
    return f.value(f"fadd {register} {chosen}, splat (float -1.0)")


def _whole_mantissa(f: Function, names: Declarations, x: str) -> tuple[str, str]:
    """The mantissa in [1, 2) of a register of float32, and whether it is to be halved."""
    register = vector("float", 16)
    mantissa_of = names.intrinsic(
        "llvm.x86.avx512.mask.getmant.ps.512", register, register, "i32", register, "i16", "i32"
    )
    how = ((register, "zeroinitializer"), ("i16", -1), ("i32", _NO_EXCEPTIONS))
    mantissa = f.result(register, mantissa_of, (register, x), ("i32", 0), *how)
    most = f"splat (float {literal(_MOST, float32)})"
    return mantissa, f.value(f"fcmp oge {register} {mantissa}, {most}")
