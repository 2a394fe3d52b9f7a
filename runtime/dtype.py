"""Element types, and the rules by which they mix.

Promotion follows the array API standard 2024.12, section "Type Promotion Rules"; where the
standard is silent it does what PyTorch does:

    bool with anything      -> the other
    integer with float      -> that float
    uint64 with a signed    -> DTypeError (no integer holds both)
    float16 with bfloat16   -> float32
    Python scalar           -> weak: the tensor's dtype, unless the scalar's kind is higher
                               (bool < integer < float)

float16 and bfloat16 are formats to store numbers in: every op on them computes in float32 and
rounds its result once.  bfloat16 is the upper half of a float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from sys import intern
from typing import TYPE_CHECKING, Any

import numpy as np

from dualgrad.runtime.errors import ArgumentError, DTypeError
from dualgrad.runtime.lazy import LazyModule
from dualgrad.runtime.srcinfo import called_name

if TYPE_CHECKING:
    import difflib
else:
    difflib = LazyModule("difflib")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class DType:
    """An element type.  There is one object per type, compared by identity.

    name      "float32", as NumPy calls it
    short     "f32"
    kind      "b" bool, "i" signed, "u" unsigned integer, "f" float
    bits      width of the value (8 for bool, which is stored in a byte)
    itemsize  bytes per element
    numpy     the NumPy dtype of its memory: the same type, or uint16 for bfloat16
    """

    name: str
    short: str
    kind: str
    bits: int
    itemsize: int
    numpy: np.dtype[Any]

    @property
    def is_float(self) -> bool:
        return self.kind == "f"

    @property
    def is_int(self) -> bool:
        """True for signed and unsigned integers, not for bool."""
        return self.kind in "iu"

    @property
    def is_signed(self) -> bool:
        return self.kind in "if"

    @property
    def is_low(self) -> bool:
        """True for the 16-bit floats, which are computed with in float32."""
        return self.kind == "f" and self.bits == 16

    @property
    def compute(self) -> DType:
        """The dtype that formulas on this one are evaluated in."""
        return float32 if self.is_low else self

    def __repr__(self) -> str:
        return f"dualgrad.{self.name}"

    def __reduce__(self) -> str:
        # a string names a global of this module: pickle and copy then keep the identity
        return "bool_" if self.kind == "b" else self.name


def _make(name: str) -> DType:
    numpy = np.dtype(name)
    bits = 8 * numpy.itemsize
    short = "b1" if numpy.kind == "b" else f"{numpy.kind}{bits}"
    return DType(name, short, intern(numpy.kind), bits, numpy.itemsize, numpy)


bool_ = _make("bool")
int8 = _make("int8")
int16 = _make("int16")
int32 = _make("int32")
int64 = _make("int64")
uint8 = _make("uint8")
uint16 = _make("uint16")
uint32 = _make("uint32")
uint64 = _make("uint64")
float16 = _make("float16")
bfloat16 = DType("bfloat16", "bf16", "f", 16, 2, np.dtype("uint16"))
float32 = _make("float32")
float64 = _make("float64")

INTS = (int8, int16, int32, int64, uint8, uint16, uint32, uint64)
NATIVE = (bool_, *INTS, float16, float32, float64)  # those that NumPy has
ALL = (*NATIVE, bfloat16)
DEFAULT_FLOAT = float32
DEFAULT_INT = int64

_KNOWN: dict[object, DType] = {
    **{t.name: t for t in ALL},
    **{t.numpy: t for t in NATIVE},
    **{t.numpy.type: t for t in NATIVE},
    "bool_": bool_,
    bool: bool_,
    int: DEFAULT_INT,
    float: DEFAULT_FLOAT,
}


def as_dtype(x: object) -> DType:
    """The DType that `x` names: a DType, its name, a NumPy dtype or scalar type, or a Python
    type (`bool`, `int` -> int64, `float` -> float32).

    Raises DTypeError for anything else, byte-swapped and structured NumPy dtypes included.
    """
    if type(x) is DType:
        return x
    try:
        found = _KNOWN.get(x)
    except TypeError:  # not hashable
        found = None
    if found is None:
        if "complex" in str(x):
            raise DTypeError(
                "there are no complex tensors",
                expect="a real dtype",
                actual=repr(x),
                hint="keep (real, imaginary) side by side in a last dimension of size 2, as the "
                "functions of dg.fft take and give them",
            )
        names = ", ".join(t.name for t in ALL)
        raise DTypeError(
            "not a dtype of dualgrad",
            op=called_name(),
            expect=f"{names}; a NumPy dtype of that kind; or bool, int, float",
            actual=repr(x),
            hint=_spelling(x),
        )
    return found


def _spelling(x: object) -> str:
    """Which dtype may have been meant."""
    name = str(x).rpartition(".")[2].strip("'<>")
    name = {"float": "float32", "int": "int64", "double": "float64", "half": "float16"}.get(
        name, name
    )
    near = difflib.get_close_matches(name, [t.name for t in ALL], 1)
    return f"write dg.{near[0]}" if near else "check the spelling, or pass dg.float32"


def _promote_rule(a: DType, b: DType) -> DType | None:
    """The promotion table, from its rules; None where there is no common dtype."""
    wide, narrow = (a, b) if a.bits >= b.bits else (b, a)
    if a.kind == b.kind:
        return wide if a is b or a.bits != b.bits else float32
    for first, second in ((a, b), (b, a)):
        if first.kind == "b" or second.kind == "f":
            return second
    if wide.kind == "i" and wide.bits > narrow.bits:
        return wide
    # an unsigned integer needs the signed one of twice its width
    unsigned = a if a.kind == "u" else b
    return next((t for t in ALL if t.kind == "i" and t.bits == 2 * unsigned.bits), None)


_PROMOTED = {(a, b): _promote_rule(a, b) for a in ALL for b in ALL}


def promote(a: DType, b: DType) -> DType:
    """The dtype in which an op on `a` and `b` computes.  Raises DTypeError if there is none."""
    found = _PROMOTED[a, b]
    if found is None:
        raise DTypeError(
            "no dtype holds all values of both operands",
            expect="two dtypes with a common one",
            actual=f"{a.name} and {b.name}",
            hint="cast one of them, for instance with .astype(int64)",
        )
    return found


_SCALAR_DEFAULT = {"b": bool_, "i": DEFAULT_INT, "f": DEFAULT_FLOAT}
_KIND_ORDER = {"b": 0, "i": 1, "u": 1, "f": 2}


def promote_scalar(dtype: DType, kind: str) -> DType:
    """The dtype of an op on a tensor of `dtype` and a Python scalar of `kind` "b", "i" or "f"."""
    if kind not in _SCALAR_DEFAULT:
        raise ArgumentError(
            "unknown kind of Python scalar",
            expect="b, i or f",
            actual=repr(kind),
            hint="give a bool, an int or a float",
        )
    higher = _KIND_ORDER[kind] > _KIND_ORDER[dtype.kind]
    return _SCALAR_DEFAULT[kind] if higher else dtype
