"""Elementwise ops: one formula per element; operands promote and broadcast.

Each class states `scalar(b, *xs)`, a formula on operands of one dtype.  `accepts` lists the
kinds of dtype it takes, `floats` turns integers into the default float first, `result` names the
dtype of the result where it is not that of the operands.

On 16-bit floats a formula is evaluated in float32 and its result rounded once, unless the class
says `raw = True`: then it gets them as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from dualgrad.compiler.ir.node import Node
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import Value, apply, public
from dualgrad.compiler.kernel.scalar import Scalar, cast
from dualgrad.compiler.ops.base import Op, broadcast_shapes, result_dtype
from dualgrad.compiler.ops.sample import Arg, Sample, unary
from dualgrad.compiler.ops.transfer import transfer
from dualgrad.compiler.ops.view import View, expand_to
from dualgrad.runtime.devices import canonical, is_device
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
from dualgrad.runtime.errors import ArgumentError, DTypeError

if TYPE_CHECKING:
    from dualgrad.compiler.build.mathlib import Math

KINDS = {"b": "bool", "i": "int", "u": "uint", "f": "float"}


class Elementwise(Op, abstract=True):
    """out[i] = scalar(x[i], y[i], ...)."""

    required = (*Op.required, "scalar")
    scalar: ClassVar[Callable[..., Scalar]]
    accepts: ClassVar[str] = "iuf"
    floats: ClassVar[bool] = False
    result: ClassVar[DType | None] = None
    raw: ClassVar[bool] = False

    def element(self, b: Math, dtype: DType, *xs: Scalar) -> Scalar:
        """The formula's value, of the result dtype: 16-bit floats go through float32."""
        if self.raw:
            return self.scalar(b, *xs)
        out = self.scalar(b, *(cast(x, x.dtype.compute) for x in xs))
        return cast(out, dtype) if dtype.is_low else out

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
                hint="~x is the opposite of bools; convert them with .astype(...) to compute"
                if dtype.kind == "b"
                else "convert the operands with .astype(...)",
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
        return TensorType(types[-1].shape, self.result or types[-1].dtype, weak, types[-1].device)


class FloatFunction(Elementwise, abstract=True):
    """A function of floats; integers and bools become the default float first."""

    accepts = "f"
    floats = True


def cast_node(x: Node, dtype: DType, weak: bool = False) -> Node:
    """x as a tensor of this dtype; it stays a weak number only if `weak`."""
    if x.dtype is dtype and x.type.weak == weak:
        return x
    return Cast.of(dtype, weak).on(x)


class Cast(Elementwise):
    """Conversion of dtype, rounded once.  Floats are truncated to integers, out of range to the
    nearest one there is, NaN to 0.  To bool it asks for x != 0; between integers it wraps."""

    dtype: DType
    weak: bool = False
    accepts = "biuf"
    raw = True

    def scalar(self, b: Math, x: Scalar) -> Scalar:
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
def to(
    x: Any,
    dtype: Any = None,
    *others: Any,
    device: Any = None,
    non_blocking: bool = False,
    copy: bool = False,
) -> Any:
    """Return x converted to `dtype` and moved to `device` (x itself if nothing is to be done, a
    copy with `copy`).

    Takes what PyTorch's takes: (dtype, non_blocking, copy), (device, dtype, non_blocking, copy) or
    (tensor, non_blocking, copy), where the tensor names dtype and device.  Gradients come back to
    where x is.  `non_blocking` changes nothing.  Raises DeviceError for a device that there is
    not, DTypeError if `dtype` names no dtype.  Floats turn into integers by truncation, out of
    range into the nearest integer there is, NaN into 0; anything into bool by x != 0.
    """
    if device is not None or others or dtype is None or not isinstance(dtype, DType):
        target, place, copy = _destination(x, dtype, others, device, copy)
        if place != x.device:
            # the smaller of the two goes from one device to the other
            first = target.itemsize < x.dtype.itemsize
            return transfer(to(x, target), place) if first else to(transfer(x, place), target)
    else:
        target = dtype
    if x.dtype is target:
        return apply(Copy.of(), x)[0] if copy else x
    return apply(Cast.of(target), x)[0]


def _destination(
    x: Any, dtype: Any, others: tuple[Any, ...], device: Any, copy: bool
) -> tuple[DType, str, bool]:
    """The dtype and the device that are asked for, and whether a copy is."""
    if is_device(dtype):
        device, dtype, others = dtype, others[0] if others else None, others[1:]
    if len(others) > 2:
        raise ArgumentError(
            "too many arguments",
            op="to",
            expect="dtype, non_blocking, copy",
            actual=f"{others}",
            hint="name them: x.to(device=..., dtype=...)",
        )
    place = x.device if device is None else canonical(device, "to")
    copy = bool(others[1]) if len(others) > 1 else copy
    if isinstance(dtype, Value):
        return dtype.dtype, dtype.device if device is None else place, copy
    return x.dtype if dtype is None else as_dtype(dtype), place, copy


def widened(x: Node) -> Node:
    """x in the dtype that is computed in: float32 for the 16-bit floats."""
    return cast_node(x, x.dtype.compute) if x.dtype.is_low else x


def narrowed(x: Node, dtype: DType) -> Node:
    """A float32 result as a 16-bit float; what was only widened before is taken as it was."""
    views: list[Node] = []
    source = x
    while isinstance(source.op, View):
        views.append(source)
        source = source.inputs[0]
    if not isinstance(source.op, Cast) or source.inputs[0].dtype is not dtype:
        return cast_node(x, dtype)
    source = source.inputs[0]
    for view in reversed(views):
        source = view.op.on(source)  # type: ignore[union-attr]
    return source


class Copy(Elementwise):
    """The same values in new, contiguous memory."""

    accepts = "biuf"
    raw = True

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return x

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (g,)

    @staticmethod
    def samples() -> list[Sample]:
        return unary(copy, lambda np, x: x)


def copy(x: Any) -> Any:
    """Return a contiguous copy of x."""
    return apply(Copy.of(), x)[0]


class Stop(Elementwise):
    """The same values, through which no gradient flows.  For composites: what a shift by a
    maximum does to a softmax has no derivative, though each part of the formula has one."""

    accepts = "biuf"
    raw = True
    vjp = None

    def scalar(self, b: Math, x: Scalar) -> Scalar:
        return x

    @staticmethod
    def samples() -> list[Sample]:
        return unary(stop_gradient, lambda np, x: x, gradient=False)


def stop_gradient(x: Any) -> Any:
    """Return x as a constant: no gradient flows through."""
    return apply(Stop.of(), x)[0]


def operator_reference(name: str) -> Callable[..., Any]:
    """NumPy's function of this name as an independent reference."""
    return lambda np, *xs: getattr(np, name)(*xs)
