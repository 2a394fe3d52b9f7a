"""Elementwise ops: one formula per element; operands promote and broadcast.

Each class states `scalar(b, *xs)` on operands of one dtype.  `accepts` lists the kinds of dtype
it takes, `floats` turns integers into the default float first, `result` names the dtype of
the result where it is not that of the operands.
"""

from __future__ import annotations

import operator
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from dualgrad.compiler.build.mathlib import Math
from dualgrad.compiler.ir.node import Node
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import Operand, apply, public
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.compiler.ops.base import Op, broadcast_shapes, result_dtype
from dualgrad.compiler.ops.sample import SPECIAL, Arg, Sample, binary, unary
from dualgrad.compiler.ops.view import expand_to
from dualgrad.runtime.dtype import (
    DEFAULT_FLOAT,
    DType,
    as_dtype,
    bool_,
    float32,
    float64,
    int32,
    int64,
    uint8,
)
from dualgrad.runtime.errors import DTypeError

KINDS = {"b": "bool", "i": "int", "u": "uint", "f": "float"}


@dataclass(frozen=True, eq=False)
class Elementwise(Op, abstract=True):
    """out[i] = scalar(x[i], y[i], ...)."""

    required = (*Op.required, "scalar")
    accepts: ClassVar[str] = "iuf"
    floats: ClassVar[bool] = False
    result: ClassVar[DType | None] = None

    @abstractmethod
    def scalar(self, b: Math, *xs: Scalar) -> Scalar:
        """The formula on operands of one dtype."""

    def operand_dtypes(self, types: list[TensorType]) -> list[DType]:
        dtype = result_dtype(self.name, types)
        if self.floats and not dtype.is_float:
            dtype = DEFAULT_FLOAT
        if dtype.kind not in self.accepts:
            raise DTypeError(
                f"does not take {dtype.name}",
                op=self.name,
                expect=" or ".join(KINDS[k] for k in self.accepts),
                actual=", ".join(t.dtype.name for t in types),
            )
        return [dtype] * len(types)

    def prepare(self, *nodes: Node) -> tuple[Node, ...]:
        dtypes = self.operand_dtypes([n.type for n in nodes])
        weak = all(n.type.weak for n in nodes)
        shape = broadcast_shapes(self.name, [n.shape for n in nodes])
        return tuple(
            expand_to(cast_node(n, d, weak), shape) for n, d in zip(nodes, dtypes, strict=True)
        )

    def infer(self, *types: TensorType) -> TensorType:
        weak = all(t.weak for t in types)
        dtype = self.result or types[-1].dtype
        return TensorType(types[-1].shape, dtype, weak and self.result is None, types[-1].device)


def cast_node(x: Node, dtype: DType, weak: bool = False) -> Node:
    """x as a tensor of this dtype; it stays a weak number only if `weak`."""
    if x.dtype is dtype and x.type.weak == weak:
        return x
    return Cast.of(dtype, weak).on(x)


@dataclass(frozen=True, eq=False)
class Cast(Elementwise):
    """Conversion of dtype, as NumPy's astype; to bool it asks for x != 0."""

    dtype: DType
    weak: bool = False
    accepts = "biuf"

    def scalar(self, b: Math, x: Scalar) -> Scalar:  # type: ignore[override]
        return b.cast(x, self.dtype)

    def operand_dtypes(self, types: list[TensorType]) -> list[DType]:
        return [types[0].dtype]

    def infer(self, *types: TensorType) -> TensorType:
        return TensorType(types[0].shape, self.dtype, self.weak, types[0].device)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (to(g, x.dtype) if x.dtype.is_float else None,)

    @staticmethod
    def samples() -> list[Sample]:
        pairs = [(float32, float64), (float64, float32), (float32, int64), (int64, float32)]
        pairs += [(float32, bool_), (bool_, float32), (int64, uint8), (int32, int64)]
        out = []
        for source, target in pairs:
            values: tuple[float, ...] = (0.0, 1.0)
            if source is not bool_:
                values = (0.0, 1.0, -1.0, 2.5, 100.0, 7.0)
            if not target.is_float and not target.is_signed:
                values = tuple(abs(v) for v in values)
            arg = Arg((3, 4), source, values=values)
            out.append(_cast_sample(arg, target))
        return out


def _cast_sample(arg: Arg, target: DType) -> Sample:
    return Sample(
        lambda x: to(x, target),
        (arg,),
        lambda np, x: np.asarray(x).astype(target.numpy),
        gradient=arg.dtype.is_float and target.is_float,
    )


@public("to")
def to(x: Any, dtype: Any) -> Any:
    """Return x converted to `dtype` (x itself if it has it already).

    Raises DTypeError if `dtype` names no dtype.  Floats turn into integers by truncation; into
    bool by x != 0.
    """
    target = as_dtype(dtype)
    return x if x.dtype is target else apply(Cast.of(target), x)[0]


@dataclass(frozen=True, eq=False)
class Copy(Elementwise):
    """The same values in new, contiguous memory."""

    accepts = "biuf"

    def scalar(self, b: Math, x: Scalar) -> Scalar:  # type: ignore[override]
        return x

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g,)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(copy, lambda np, x: x)


def copy(x: Any) -> Any:
    """Return a contiguous copy of x."""
    return apply(_COPY, x)[0]


@dataclass(frozen=True, eq=False)
class Stop(Elementwise):
    """The same values, through which no gradient flows.  For composites: what a shift by a
    maximum does to a softmax has no derivative, though each part of the formula has one."""

    accepts = "biuf"
    vjp = None

    def scalar(self, b: Math, x: Scalar) -> Scalar:  # type: ignore[override]
        return x

    @staticmethod
    def samples() -> list[Sample]:
        return unary(stop_gradient, lambda np, x: x, gradient=False)


def stop_gradient(x: Any) -> Any:
    """Return x as a constant: no gradient flows through."""
    return apply(_STOP, x)[0]


@dataclass(frozen=True, eq=False)
class Add(Elementwise):
    """x + y; integers wrap."""

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:  # type: ignore[override]
        return x + y

    def vjp(self, g: Any, out: Any, x: Any, y: Any) -> tuple[Any, ...]:
        return (g, g)

    @staticmethod
    def samples() -> list[Sample]:
        bad = Sample(
            add,
            (Arg((3,)), Arg((4,))),
            error=ValueError,
            match=r"\[add\] shapes do not broadcast\n  expect: .*\n  actual: \(3,\) and \(4,\)",
        )
        whole = binary(add, operator_reference("add"), dtype=int64, low=-9, high=9, gradient=False)
        return [*binary(add, operator_reference("add")), *whole, bad]


@dataclass(frozen=True, eq=False)
class Sub(Elementwise):
    """x - y; integers wrap."""

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:  # type: ignore[override]
        return x - y

    def vjp(self, g: Any, out: Any, x: Any, y: Any) -> tuple[Any, ...]:
        return (g, -g)

    @staticmethod
    def samples() -> list[Sample]:
        return binary(sub, operator_reference("subtract"))


@dataclass(frozen=True, eq=False)
class Mul(Elementwise):
    """x * y; integers wrap."""

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:  # type: ignore[override]
        return x * y

    def vjp(self, g: Any, out: Any, x: Any, y: Any) -> tuple[Any, ...]:
        return (g * y, g * x)

    @staticmethod
    def samples() -> list[Sample]:
        return binary(mul, operator_reference("multiply"))


@dataclass(frozen=True, eq=False)
class Div(Elementwise):
    """x / y of floats; integers are converted to the default float."""

    accepts = "f"
    floats = True

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:  # type: ignore[override]
        return x / y

    def vjp(self, g: Any, out: Any, x: Any, y: Any) -> tuple[Any, ...]:
        return (g / y, -g * out / y)

    @staticmethod
    def samples() -> list[Sample]:
        return binary(div, operator_reference("divide"), low=0.5, high=2.0)


@dataclass(frozen=True, eq=False)
class Neg(Elementwise):
    """-x."""

    accepts = "if"

    def scalar(self, b: Math, x: Scalar) -> Scalar:  # type: ignore[override]
        return -x

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (-g,)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(neg, lambda np, x: -x)


@dataclass(frozen=True, eq=False)
class Abs(Elementwise):
    """|x|; the gradient at 0 is 0."""

    def scalar(self, b: Math, x: Scalar) -> Scalar:  # type: ignore[override]
        return b.abs(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (where(x > 0, g, where(x < 0, -g, 0.0)),)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(absolute, lambda np, x: np.abs(x))


@dataclass(frozen=True, eq=False)
class Exp(Elementwise):
    """e**x; error bound: see `Math.exp`."""

    accepts = "f"
    floats = True

    def scalar(self, b: Math, x: Scalar) -> Scalar:  # type: ignore[override]
        return b.exp(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g * out,)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(exp, lambda np, x: np.exp(x), low=-4, high=4, ulps=2)


@dataclass(frozen=True, eq=False)
class Log(Elementwise):
    """Natural logarithm; -inf at 0, NaN below.  Error bound: see `Math.log`."""

    accepts = "f"
    floats = True

    def scalar(self, b: Math, x: Scalar) -> Scalar:  # type: ignore[override]
        return b.log(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g / x,)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(log, lambda np, x: np.log(x), low=0.1, high=4, ulps=2)


@dataclass(frozen=True, eq=False)
class Tanh(Elementwise):
    """Hyperbolic tangent; error bound: see `Math.tanh`."""

    accepts = "f"
    floats = True

    def scalar(self, b: Math, x: Scalar) -> Scalar:  # type: ignore[override]
        return b.tanh(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g * (1.0 - out * out),)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(tanh, lambda np, x: np.tanh(x), low=-4, high=4, ulps=2)


@dataclass(frozen=True, eq=False)
class Sigmoid(Elementwise):
    """1 / (1 + exp(-x)); error bound: see `Math.sigmoid`."""

    accepts = "f"
    floats = True

    def scalar(self, b: Math, x: Scalar) -> Scalar:  # type: ignore[override]
        return b.sigmoid(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g * (out * (1.0 - out)),)

    @staticmethod
    def samples() -> list[Sample]:
        def reference(np: Any, x: Any) -> Any:
            return 1 / (1 + np.exp(-x))

        return unary(sigmoid, reference, low=-6, high=6, ulps=3)


@dataclass(frozen=True, eq=False)
class Sqrt(Elementwise):
    """Square root, correctly rounded; NaN below 0."""

    accepts = "f"
    floats = True

    def scalar(self, b: Math, x: Scalar) -> Scalar:  # type: ignore[override]
        return b.sqrt(x)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g / (2.0 * out),)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(sqrt, lambda np, x: np.sqrt(x), low=0.1, high=4)


@dataclass(frozen=True, eq=False)
class Maximum(Elementwise):
    """The larger of two; NaN if either is.  Equal operands share the gradient by halves."""

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:  # type: ignore[override]
        return b.maximum(x, y)

    def vjp(self, g: Any, out: Any, x: Any, y: Any) -> tuple[Any, ...]:
        half = 0.5 * g
        return (
            where(x > y, g, where(x.eq(y), half, 0.0)),
            where(y > x, g, where(x.eq(y), half, 0.0)),
        )

    @staticmethod
    def samples() -> list[Sample]:
        def reference(np: Any, x: Any, y: Any) -> Any:
            return np.where(x == y, x, np.maximum(x, y))  # of +0 and -0 the first

        return binary(maximum, reference)


@dataclass(frozen=True, eq=False)
class Minimum(Elementwise):
    """The smaller of two; NaN if either is.  Equal operands share the gradient by halves."""

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:  # type: ignore[override]
        return b.minimum(x, y)

    def vjp(self, g: Any, out: Any, x: Any, y: Any) -> tuple[Any, ...]:
        half = 0.5 * g
        return (
            where(x < y, g, where(x.eq(y), half, 0.0)),
            where(y < x, g, where(x.eq(y), half, 0.0)),
        )

    @staticmethod
    def samples() -> list[Sample]:
        def reference(np: Any, x: Any, y: Any) -> Any:
            return np.where(x == y, x, np.minimum(x, y))  # of +0 and -0 the first

        return binary(minimum, reference)


@dataclass(frozen=True, eq=False)
class Where(Elementwise):
    """x where the condition holds, else y."""

    accepts = "biuf"

    def scalar(self, b: Math, c: Scalar, x: Scalar, y: Scalar) -> Scalar:  # type: ignore[override]
        return b.select(c, x, y)

    def operand_dtypes(self, types: list[TensorType]) -> list[DType]:
        if types[0].dtype is not bool_:
            raise DTypeError(
                "the condition is no bool tensor",
                op=self.name,
                expect="bool",
                actual=types[0].dtype.name,
                hint="compare first, for example where(x > 0, x, y)",
            )
        return [bool_, *super().operand_dtypes(types[1:])]

    def vjp(self, g: Any, out: Any, c: Any, x: Any, y: Any) -> tuple[Any, ...]:
        return (None, where(c, g, 0.0), where(c, 0.0, g))

    @staticmethod
    def samples() -> list[Sample]:
        def reference(np: Any, c: Any, x: Any, y: Any) -> Any:
            return np.where(c, x, y)

        condition = Arg((3, 4), bool_, values=(1, 0, 0, 1, 1), differentiable=False)
        bad = Sample(
            where, (Arg((2,)), Arg((2,)), Arg((2,))), error=TypeError, match="no bool tensor"
        )
        special = Arg((10,), values=SPECIAL)
        return [
            Sample(where, (condition, Arg((3, 4)), Arg((4,))), reference),
            Sample(where, (condition, Arg((3, 4)), 0.0), reference),
            Sample(
                where,
                (Arg((10,), bool_, values=(0, 1)), special, Arg((1,))),
                reference,
                gradient=False,
            ),
            bad,
        ]


@dataclass(frozen=True, eq=False)
class Compare(Elementwise, abstract=True):
    """A comparison: bool for each pair of elements, false where either is NaN (but `ne`)."""

    result = bool_
    vjp = None

    def infer(self, *types: TensorType) -> TensorType:
        return TensorType(types[-1].shape, bool_, False, types[-1].device)


@dataclass(frozen=True, eq=False)
class Eq(Compare):
    """x == y."""

    accepts = "biuf"

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:  # type: ignore[override]
        return b.eq(x, y)

    @staticmethod
    def samples() -> list[Sample]:
        return compare_samples(eq, operator.eq)


@dataclass(frozen=True, eq=False)
class Ne(Compare):
    """x != y."""

    accepts = "biuf"

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:  # type: ignore[override]
        return b.ne(x, y)

    @staticmethod
    def samples() -> list[Sample]:
        return compare_samples(ne, operator.ne)


@dataclass(frozen=True, eq=False)
class Lt(Compare):
    """x < y."""

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:  # type: ignore[override]
        return x < y

    @staticmethod
    def samples() -> list[Sample]:
        return compare_samples(lt, operator.lt)


@dataclass(frozen=True, eq=False)
class Le(Compare):
    """x <= y."""

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:  # type: ignore[override]
        return x <= y

    @staticmethod
    def samples() -> list[Sample]:
        return compare_samples(le, operator.le)


@dataclass(frozen=True, eq=False)
class Logical(Elementwise, abstract=True):
    """Bitwise on integers, logical on bools."""

    accepts = "biu"
    vjp = None


@dataclass(frozen=True, eq=False)
class BitAnd(Logical):
    """x & y."""

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:  # type: ignore[override]
        return x & y

    @staticmethod
    def samples() -> list[Sample]:
        return bit_samples(bit_and, operator.and_)


@dataclass(frozen=True, eq=False)
class BitOr(Logical):
    """x | y."""

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:  # type: ignore[override]
        return x | y

    @staticmethod
    def samples() -> list[Sample]:
        return bit_samples(bit_or, operator.or_)


@dataclass(frozen=True, eq=False)
class BitXor(Logical):
    """x ^ y."""

    def scalar(self, b: Math, x: Scalar, y: Scalar) -> Scalar:  # type: ignore[override]
        return x ^ y

    @staticmethod
    def samples() -> list[Sample]:
        return bit_samples(bit_xor, operator.xor)


@dataclass(frozen=True, eq=False)
class Invert(Logical):
    """~x: `not` on bools, all bits flipped on integers."""

    def scalar(self, b: Math, x: Scalar) -> Scalar:  # type: ignore[override]
        return ~x

    @staticmethod
    def samples() -> list[Sample]:
        arg = Arg((7,), int64, -9, 9)
        flags = Arg((7,), bool_, values=(1, 0, 0))
        return [Sample(invert, (a,), lambda np, x: ~x, gradient=False) for a in (arg, flags)]


# Ops without parameters, made once: the functions below are on the path of every eager call.
_COPY = Copy.of()
_STOP = Stop.of()
_ADD = Add.of()
_SUB = Sub.of()
_MUL = Mul.of()
_DIV = Div.of()
_NEG = Neg.of()
_ABS = Abs.of()
_EXP = Exp.of()
_LOG = Log.of()
_TANH = Tanh.of()
_SIGMOID = Sigmoid.of()
_SQRT = Sqrt.of()
_MAXIMUM = Maximum.of()
_MINIMUM = Minimum.of()
_WHERE = Where.of()
_EQ = Eq.of()
_NE = Ne.of()
_LT = Lt.of()
_LE = Le.of()
_BITAND = BitAnd.of()
_BITOR = BitOr.of()
_BITXOR = BitXor.of()
_INVERT = Invert.of()


def operator_reference(name: str) -> Callable[..., Any]:
    """NumPy's function of this name as an independent reference."""
    return lambda np, *xs: getattr(np, name)(*xs)


def compare_samples(function: Callable[..., Any], reference: Any) -> list[Sample]:
    def on_arrays(np: Any, x: Any, y: Any) -> Any:
        return reference(np.asarray(x), np.asarray(y))

    equal = (Arg((6,), int64, values=(1, 2, 3)), Arg((6,), int64, values=(1, 3, 2)))
    return [
        *binary(function, on_arrays, gradient=False),
        Sample(function, equal, on_arrays, gradient=False),
    ]


def bit_samples(function: Callable[..., Any], reference: Any) -> list[Sample]:
    def on_arrays(np: Any, x: Any, y: Any) -> Any:
        return reference(x, y)

    flags = (Arg((4,), bool_, values=(0, 0, 1, 1)), Arg((4,), bool_, values=(0, 1)))
    numbers = (Arg((3, 5), int64, -99, 99), Arg((5,), int64, -99, 99))
    bad = Sample(function, (Arg((2,)), Arg((2,))), error=TypeError, match="does not take float32")
    good = [Sample(function, a, on_arrays, gradient=False) for a in (flags, numbers)]
    return [*good, bad]


@public("__add__", "add")
def add(x: Operand, y: Operand) -> Any:
    """Return x + y element by element; operands promote and broadcast, integers wrap."""
    return apply(_ADD, x, y)[0]


@public("__radd__")
def radd(x: Operand, y: Operand) -> Any:
    """Return y + x."""
    return apply(_ADD, y, x)[0]


@public("__sub__", "sub")
def sub(x: Operand, y: Operand) -> Any:
    """Return x - y element by element."""
    return apply(_SUB, x, y)[0]


@public("__rsub__")
def rsub(x: Operand, y: Operand) -> Any:
    """Return y - x."""
    return apply(_SUB, y, x)[0]


@public("__mul__", "mul")
def mul(x: Operand, y: Operand) -> Any:
    """Return x * y element by element."""
    return apply(_MUL, x, y)[0]


@public("__rmul__")
def rmul(x: Operand, y: Operand) -> Any:
    """Return y * x."""
    return apply(_MUL, y, x)[0]


@public("__truediv__", "div")
def div(x: Operand, y: Operand) -> Any:
    """Return x / y element by element; integers become the default float first."""
    return apply(_DIV, x, y)[0]


@public("__rtruediv__")
def rdiv(x: Operand, y: Operand) -> Any:
    """Return y / x."""
    return apply(_DIV, y, x)[0]


@public("__neg__", "neg")
def neg(x: Operand) -> Any:
    """Return -x."""
    return apply(_NEG, x)[0]


@public("__abs__", "abs")
def absolute(x: Operand) -> Any:
    """Return |x|."""
    return apply(_ABS, x)[0]


@public("exp")
def exp(x: Operand) -> Any:
    """Return e**x, within 1.5 ulp in float32 and 2 ulp in float64."""
    return apply(_EXP, x)[0]


@public("log")
def log(x: Operand) -> Any:
    """Return the natural logarithm, within 1.5 ulp in float32 and 2 ulp in float64."""
    return apply(_LOG, x)[0]


@public("tanh")
def tanh(x: Operand) -> Any:
    """Return the hyperbolic tangent, within 1.5 ulp in float32 and 2 ulp in float64."""
    return apply(_TANH, x)[0]


@public("sigmoid")
def sigmoid(x: Operand) -> Any:
    """Return 1 / (1 + exp(-x))."""
    return apply(_SIGMOID, x)[0]


@public("sqrt")
def sqrt(x: Operand) -> Any:
    """Return the square root, correctly rounded."""
    return apply(_SQRT, x)[0]


@public("square")
def square(x: Any) -> Any:
    """Return x * x."""
    return apply(_MUL, x, x)[0]


@public("maximum")
def maximum(x: Operand, y: Operand) -> Any:
    """Return the larger of x and y element by element; NaN where either is NaN."""
    return apply(_MAXIMUM, x, y)[0]


@public("minimum")
def minimum(x: Operand, y: Operand) -> Any:
    """Return the smaller of x and y element by element; NaN where either is NaN."""
    return apply(_MINIMUM, x, y)[0]


def where(condition: Operand, x: Operand, y: Operand) -> Any:
    """Return x where `condition` (bool) holds, else y; all three broadcast."""
    return apply(_WHERE, condition, x, y)[0]


@public("eq")
def eq(x: Operand, y: Operand) -> Any:
    """Return x == y element by element, as bool."""
    return apply(_EQ, x, y)[0]


@public("ne")
def ne(x: Operand, y: Operand) -> Any:
    """Return x != y element by element, as bool."""
    return apply(_NE, x, y)[0]


@public("__lt__", "lt")
def lt(x: Operand, y: Operand) -> Any:
    """Return x < y element by element, as bool."""
    return apply(_LT, x, y)[0]


@public("__le__", "le")
def le(x: Operand, y: Operand) -> Any:
    """Return x <= y element by element, as bool."""
    return apply(_LE, x, y)[0]


@public("__gt__", "gt")
def gt(x: Operand, y: Operand) -> Any:
    """Return x > y element by element, as bool."""
    return apply(_LT, y, x)[0]


@public("__ge__", "ge")
def ge(x: Operand, y: Operand) -> Any:
    """Return x >= y element by element, as bool."""
    return apply(_LE, y, x)[0]


@public("__and__")
def bit_and(x: Operand, y: Operand) -> Any:
    """Return x & y: logical on bools, bitwise on integers."""
    return apply(_BITAND, x, y)[0]


@public("__or__")
def bit_or(x: Operand, y: Operand) -> Any:
    """Return x | y: logical on bools, bitwise on integers."""
    return apply(_BITOR, x, y)[0]


@public("__xor__")
def bit_xor(x: Operand, y: Operand) -> Any:
    """Return x ^ y: logical on bools, bitwise on integers."""
    return apply(_BITXOR, x, y)[0]


@public("__invert__")
def invert(x: Operand) -> Any:
    """Return ~x: logical on bools, bitwise on integers."""
    return apply(_INVERT, x)[0]
