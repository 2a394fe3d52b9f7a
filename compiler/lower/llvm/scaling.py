"""Products with powers of two by the one instruction that AVX-512 has for them.

Formulas write y * 2**n as two products (`Exponential.scale`), which take eight instructions to
prepare; `vscalef` rounds once, too, and takes n as the float that it comes from.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

from dualgrad.compiler.build.formats import FORMATS
from dualgrad.compiler.build.mathlib import Math
from dualgrad.compiler.kernel.scalar import Scalar, const
from dualgrad.compiler.lower.llvm.emit import Function
from dualgrad.compiler.lower.llvm.lanes import Declarations, element, vector
from dualgrad.compiler.lower.llvm.registers import REGISTER, by_registers

_AS_SET = 4  # the rounding mode that is set


_scaled: WeakKeyDictionary[Scalar, tuple[Scalar, Scalar] | None] = WeakKeyDictionary()


def scaled(e: Scalar) -> tuple[Scalar, Scalar] | None:
    """(y, n) if e is y * 2**n as formulas write it, n a float; else None."""
    if e.op != "mul" or e.dtype not in FORMATS or e.args[0].op != "mul":
        return None
    if e not in _scaled:
        _scaled[e] = _as_scaled(e)
    return _scaled[e]


def _as_scaled(e: Scalar) -> tuple[Scalar, Scalar] | None:
    y, path = e.args[0].args[0], e.args[1]
    for op in ("bitcast", "add", "sub", "shl", "bitcast"):
        if path.op != op:
            return None
        path, count = path.args[0], path
    f = FORMATS[e.dtype]
    magic = 1.5 * 2.0**f.fraction_bits  # whose sum with n has n in its low bits
    rounded = path.op in ("fma", "add") and path.args[-1] is const(magic, e.dtype)
    if not rounded or path.dtype is not e.dtype or Math().scale(y, count, f) is not e:
        return None
    return y, path - magic


def scale(f: Function, names: Declarations, e: Scalar, xs: Sequence[str], width: int) -> str:
    """y * 2**n in all lanes, register by register, given y and n."""
    kind, lanes = element(e.dtype), REGISTER // e.dtype.bits
    register = vector(kind, lanes)
    suffix = "ps" if e.dtype.bits == 32 else "pd"
    instruction = names.intrinsic(
        f"llvm.x86.avx512.mask.scalef.{suffix}.512",
        register, register, register, register, f"i{lanes}", "i32",
    )  # fmt: skip

    def scaled_part(y: str, n: str) -> str:
        operands = ((register, y), (register, n), (register, "zeroinitializer"))
        return f.result(register, instruction, *operands, (f"i{lanes}", -1), ("i32", _AS_SET))

    return by_registers(f, [(kind, x) for x in xs], kind, width, lanes, scaled_part)
