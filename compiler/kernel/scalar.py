"""Scalar expressions: what one element of a kernel computes, on any target.

    Scalar ::= const(number) | load(buffer, index) | reg(name) | param(name) | index(Dim)
             | gather(buffer, index + Scalar)          a load whose place is computed
             | primitive(Scalar, ...)                  the primitives are listed in PRIMITIVES
             | table(Scalar, numbers)                  the number at an index
             | formula(Scalar, ...)                    a `Formula`, which stands for its body
             | detour(bool, Scalar, Scalar, ...)       a `Formula` of the last ones where the
                                                       condition holds, which is rare, else the
                                                       second one

Every expression has one dtype; operands of a primitive have equal dtypes (`select` has a bool
condition first, shifts count in the dtype of the value).  There is no implicit conversion.
Expressions are immutable and interned, so a common subexpression is one object.

Primitives round as IEEE 754 says (round to nearest, no flush to zero); integers wrap; a shift
count lies in [0, bits).  Integer division truncates towards zero and must neither be by zero nor
overflow; `cast` from float to integer truncates, saturates out of range and makes NaN 0;
`shr` is arithmetic for signed and logical for unsigned integers.  A `table` has a power of two
of numbers, as wide as its index, of which the low bits count: it stands in a register.

16-bit floats are loaded, stored, selected and converted, nothing else: a `cast` to one rounds
once, whatever it converts from, and one from it is exact.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable
from typing import TYPE_CHECKING, ClassVar, Union

from dualgrad.compiler.ir.interned import Interned
from dualgrad.runtime.dtype import DType, bool_, float64, int64
from dualgrad.runtime.errors import CompileError
from dualgrad.runtime.floats import rounded
from dualgrad.runtime.records import dataclass

if TYPE_CHECKING:
    from dualgrad.compiler.ir.dims import Dim
    from dualgrad.compiler.kernel.ir import Buffer

Number = bool | int | float
Attr = Union[None, str, int, float, "Dim", tuple["Buffer", "Dim"], tuple[float, ...], "Formula"]

# name -> (number of operands, kinds of dtype it takes, result: "same" or "bool")
PRIMITIVES: dict[str, tuple[int, str, str]] = {
    "add": (2, "iuf", "same"),
    "sub": (2, "iuf", "same"),
    "mul": (2, "iuf", "same"),
    "div": (2, "iuf", "same"),
    "rem": (2, "iu", "same"),
    "neg": (1, "if", "same"),
    "fma": (3, "f", "same"),
    "sqrt": (1, "f", "same"),
    "abs": (1, "f", "same"),
    "copysign": (2, "f", "same"),
    "floor": (1, "f", "same"),
    "rint": (1, "f", "same"),
    "and": (2, "biu", "same"),
    "or": (2, "biu", "same"),
    "xor": (2, "biu", "same"),
    "not": (1, "biu", "same"),
    "shl": (2, "iu", "same"),
    "shr": (2, "iu", "same"),
    "eq": (2, "biuf", "bool"),
    "ne": (2, "biuf", "bool"),
    "lt": (2, "iuf", "bool"),
    "le": (2, "iuf", "bool"),
    "gt": (2, "iuf", "bool"),
    "ge": (2, "iuf", "bool"),
}


@dataclass(frozen=True)
class Formula:
    """A function of registers, for programs in which it occurs too often to be written out."""

    name: str
    params: tuple[Scalar, ...]
    body: Scalar

    def on(self, *args: Scalar) -> Scalar:
        """The formula's value, of the body's dtype."""
        return Scalar.make("formula", args, self.body.dtype, self)

    def where(self, rare: Scalar, usual: Scalar, *args: Scalar) -> Scalar:
        """The formula's value where a condition holds that hardly ever does, else `usual`: code
        looks whether it holds anywhere."""
        return Scalar.make("detour", (rare, usual, *args), usual.dtype, self)


_CONSTANTS = ("const", "table")


class Scalar:
    """One scalar expression; `+ - * / < <= > >= & | ^ ~ << >>` build larger ones.

    A Python number beside a `Scalar` becomes a constant of its dtype.
    """

    __slots__ = ("__weakref__", "args", "attr", "dtype", "op")

    _interned: ClassVar[Interned[Scalar]] = Interned()

    op: str
    args: tuple[Scalar, ...]
    dtype: DType
    attr: Attr

    @classmethod
    def make(cls, op: str, args: tuple[Scalar, ...], dtype: DType, attr: Attr = None) -> Scalar:
        # 0.0 == -0.0 and 1 == 1.0 == True, so constants are keyed by their text.
        key = (op, args, dtype, repr(attr) if op in _CONSTANTS else attr)
        held = _known(key)  # as `find` does, without its call
        found = None if held is None else held()
        if found is None:
            found = object.__new__(cls)
            found.op, found.args, found.dtype, found.attr = op, args, dtype, attr
            found = cls._interned.keep(key, found)
        return found

    @property
    def memory(self) -> tuple[Buffer, Dim]:
        """What a load or gather reads: (buffer, index); a gather adds its operand to the index."""
        assert self.op in ("load", "gather"), self.op
        return self.attr  # type: ignore[return-value]

    @property
    def numbers(self) -> tuple[float, ...]:
        """What a `table` holds."""
        assert self.op == "table", self.op
        return self.attr  # type: ignore[return-value]

    @property
    def position(self) -> Dim:
        """The integer expression of an `index`."""
        assert self.op == "index"
        return cast_dim(self.attr)

    @property
    def formula(self) -> Formula:
        """What a `formula` applies to its operands, a `detour` to those from the third on."""
        assert isinstance(self.attr, Formula), self.op
        return self.attr

    def _coerce(self, x: Scalar | Number) -> Scalar:
        return x if isinstance(x, Scalar) else const(x, self.dtype)

    def __add__(self, x: Scalar | Number) -> Scalar:
        return primitive("add", self, self._coerce(x))

    def __radd__(self, x: Number) -> Scalar:
        return primitive("add", self._coerce(x), self)

    def __sub__(self, x: Scalar | Number) -> Scalar:
        return primitive("sub", self, self._coerce(x))

    def __rsub__(self, x: Number) -> Scalar:
        return primitive("sub", self._coerce(x), self)

    def __mul__(self, x: Scalar | Number) -> Scalar:
        return primitive("mul", self, self._coerce(x))

    def __rmul__(self, x: Number) -> Scalar:
        return primitive("mul", self._coerce(x), self)

    def __truediv__(self, x: Scalar | Number) -> Scalar:
        return primitive("div", self, self._coerce(x))

    def __rtruediv__(self, x: Number) -> Scalar:
        return primitive("div", self._coerce(x), self)

    def __neg__(self) -> Scalar:
        return primitive("neg", self)

    def __and__(self, x: Scalar | Number) -> Scalar:
        return primitive("and", self, self._coerce(x))

    def __or__(self, x: Scalar | Number) -> Scalar:
        return primitive("or", self, self._coerce(x))

    def __xor__(self, x: Scalar | Number) -> Scalar:
        return primitive("xor", self, self._coerce(x))

    def __invert__(self) -> Scalar:
        return primitive("not", self)

    def __lshift__(self, x: Scalar | Number) -> Scalar:
        return primitive("shl", self, self._coerce(x))

    def __rshift__(self, x: Scalar | Number) -> Scalar:
        return primitive("shr", self, self._coerce(x))

    def __lt__(self, x: Scalar | Number) -> Scalar:
        return primitive("lt", self, self._coerce(x))

    def __le__(self, x: Scalar | Number) -> Scalar:
        return primitive("le", self, self._coerce(x))

    def __gt__(self, x: Scalar | Number) -> Scalar:
        return primitive("gt", self, self._coerce(x))

    def __ge__(self, x: Scalar | Number) -> Scalar:
        return primitive("ge", self, self._coerce(x))

    def __bool__(self) -> bool:
        raise CompileError(f"a scalar expression has no truth value: {self!r}", op="scalar")

    def __repr__(self) -> str:
        if self.op == "const":
            return f"{self.attr}:{self.dtype.short}"
        if self.op == "load":
            return f"{self.memory[0].name}[{self.memory[1]}]"
        if self.op == "gather":
            return f"{self.memory[0].name}[{self.memory[1]} + {self.args[0]}]"
        if self.op in ("reg", "param"):
            return str(self.attr)
        if self.op == "index":
            return f"index({self.attr})"
        if self.op == "table":
            return f"{self.numbers}[{self.args[0]!r}]"
        if self.op in ("formula", "detour"):
            return f"{self.formula.name}({', '.join(map(repr, self.args))})"
        suffix = f":{self.dtype.short}" if self.op in ("cast", "bitcast") else ""
        return f"{self.op}{suffix}({', '.join(map(repr, self.args))})"


_known = Scalar._interned.data.get


def cast_dim(attr: Attr) -> Dim:
    """An attribute that is known to be an integer expression."""
    return attr  # type: ignore[return-value]


def const(value: Number, dtype: DType) -> Scalar:
    """A constant; it is rounded to float32 when it is lowered, to a 16-bit float at once."""
    exact: Number
    if dtype.is_float:
        exact = rounded(float(value), dtype) if dtype.is_low else float(value)
    elif dtype.kind == "b":
        exact = bool(value)
    else:
        if isinstance(value, float) and (not math.isfinite(value) or value != int(value)):
            raise CompileError(f"{value} is no {dtype.name}", op="scalar")
        exact = int(value) & ((1 << dtype.bits) - 1)
        if dtype.is_signed and exact >> (dtype.bits - 1):
            exact -= 1 << dtype.bits
    return Scalar.make("const", (), dtype, exact)


def load(buffer: Buffer, index: Dim) -> Scalar:
    return Scalar.make("load", (), buffer.dtype, (buffer, index))


def gather(buffer: Buffer, index: Dim, position: Scalar) -> Scalar:
    """The element at index + position (int64).  A `Check` before it must keep it inside of the
    buffer: unlike a load it is never moved to an earlier place."""
    return Scalar.make("gather", (position,), buffer.dtype, (buffer, index))


def reg(name: str, dtype: DType) -> Scalar:
    """A named value: the result of a reduction, or an operand of its combining formula."""
    return Scalar.make("reg", (), dtype, name)


def param(name: str, dtype: DType) -> Scalar:
    """A Python number that is passed at each launch (float64, int64 or bool)."""
    return Scalar.make("param", (), dtype, name)


def index(d: Dim) -> Scalar:
    """The value of an integer expression of loop variables and sizes, as an int64."""
    return const(d, int64) if isinstance(d, int) else Scalar.make("index", (), int64, d)


def cast(x: Scalar, dtype: DType) -> Scalar:
    """x converted to dtype; a constant that stays exact until then is folded."""
    if x.dtype is dtype:
        return x
    if x.op == "const" and dtype.is_float and _is_exact(x):
        return const(x.attr, dtype)  # type: ignore[arg-type]
    return Scalar.make("cast", (x,), dtype)


def _is_exact(x: Scalar) -> bool:
    """Whether a constant's Python number is its value and survives `float`."""
    if x.dtype is float64 or x.dtype.is_low:
        return True
    return not x.dtype.is_float and abs(int(x.attr)) <= 2**53  # type: ignore[arg-type]


def bitcast(x: Scalar, dtype: DType) -> Scalar:
    """The bits of x read as another dtype of the same width."""
    if x.dtype.bits != dtype.bits:
        raise CompileError(f"bitcast {x.dtype.name} -> {dtype.name} changes width", op="scalar")
    return x if x.dtype is dtype else Scalar.make("bitcast", (x,), dtype)


def select(condition: Scalar, yes: Scalar, no: Scalar) -> Scalar:
    """yes where condition holds, else no; both are evaluated."""
    if condition.dtype is not bool_ or yes.dtype is not no.dtype:
        raise CompileError(
            f"select({condition.dtype.name}, {yes.dtype.name}, {no.dtype.name})",
            op="scalar",
            expect="select(bool, T, T)",
        )
    return Scalar.make("select", (condition, yes, no), yes.dtype)


def table(index: Scalar, numbers: tuple[float, ...], dtype: DType) -> Scalar:
    """The number at an index of which only the bits count that it takes."""
    count = len(numbers)
    if not index.dtype.is_int or index.dtype.bits != dtype.bits or count & (count - 1):
        raise CompileError(f"a table of {count} at {index.dtype.name}", op="scalar")
    return Scalar.make("table", (index,), dtype, numbers)


def primitive(name: str, *args: Scalar) -> Scalar:
    """The application of a primitive; operands that do not fit are a CompileError."""
    count, kinds, result = PRIMITIVES[name]
    dtype = args[0].dtype
    fits = len(args) == count and takes(kinds, dtype)
    if not fits or any(a.dtype is not dtype for a in args):
        raise CompileError(
            f"{name}({', '.join(a.dtype.name for a in args)})",
            op="scalar",
            expect=f"{count} operands of one dtype of kind {'/'.join(kinds)}",
        )
    return Scalar.make(name, args, dtype if result == "same" else bool_)


def takes(kinds: str, dtype: DType) -> bool:
    """Whether a primitive of these kinds computes with a dtype."""
    return dtype.kind in kinds and not dtype.is_low


def children_first(roots: Iterable[Scalar], known: Container[Scalar] = frozenset()) -> list[Scalar]:
    """All expressions below the roots, operands before their users; without those that are known,
    and what is only below them."""
    done: dict[Scalar, None] = {}  # in order
    opened: set[Scalar] = set()
    stack = [*roots]
    stack.reverse()
    while stack:
        e = stack.pop()
        if e in done or e in known:
            continue
        if not e.args or e in opened:
            done[e] = None
        else:
            opened.add(e)
            stack.append(e)
            stack += e.args[::-1]
    return list(done)


def substitute(e: Scalar, values: dict[Scalar, Scalar]) -> Scalar:
    """e with some of its subexpressions replaced."""
    done = dict(values)
    for x in children_first((e,)):
        if x not in done:
            args = tuple(done[a] for a in x.args)
            done[x] = x if args == x.args else Scalar.make(x.op, args, x.dtype, x.attr)
    return done[e]


PARAM_DTYPES = (float64, int64, bool_)
