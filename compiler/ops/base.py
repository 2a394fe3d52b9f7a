"""The op protocol: an op is one frozen dataclass, its fields are its static parameters.

`__init_subclass__` checks that a class states everything its kind needs, so an incomplete op
fails at import, with an instruction.  What a class states:

- `infer(*types)`: the type rule.  It never turns a dimension into an int.
- the mathematics, by kind: see `Elementwise`, `View`, `Reduction`, `Index`, `Contraction`.
- `vjp(g, out, *inputs)`: the gradient of each input in the op language, None where there is none;
  an op without gradient says `vjp = None`.
- `samples()`: inputs that exercise it, with an independent reference, and inputs to be refused.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from dualgrad.compiler.ir.dims import Dim, same
from dualgrad.compiler.ir.node import Node
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import dim_text
from dualgrad.compiler.ops.sample import Sample
from dualgrad.runtime.dtype import DType, promote, promote_scalar
from dualgrad.runtime.errors import DTypeError, ShapeError

Self = TypeVar("Self", bound="Op")
OPS: list[type[Op]] = []


@dataclass(frozen=True, eq=False)
class Op:
    """Base of all ops.  Make instances with `of`, which returns the same object each time."""

    required: ClassVar[tuple[str, ...]] = ("infer", "vjp", "samples")
    abstract: ClassVar[bool] = True
    raw: ClassVar[bool] = False  # whether it, and its gradient, only move 16-bit floats
    vjp: ClassVar[Callable[..., tuple[Any, ...]] | None]
    samples: ClassVar[Callable[[], Iterable[Sample]]]
    _instances: ClassVar[dict[tuple[object, ...], Any]] = {}

    def __init_subclass__(cls, *, abstract: bool = False) -> None:
        cls.abstract = abstract
        if abstract:
            return
        for name in cls.required:
            if not hasattr(cls, name) or getattr(cls, name) is getattr(Op, name, object()):
                raise TypeError(
                    f"op {cls.__name__} states no `{name}`; write it in the class "
                    f"({inspect.getmodule(cls)}), or `vjp = None` for an op without gradient"
                )
        OPS.append(cls)

    @classmethod
    def of(cls: type[Self], *fields: Any) -> Self:
        key = (cls, *fields)
        found: Self | None = Op._instances.get(key)
        if found is None:
            found = Op._instances.setdefault(key, cls(*fields))
        return found

    @property
    def name(self) -> str:
        text = type(self).__name__
        return "".join("_" + c.lower() if c.isupper() else c for c in text).lstrip("_")

    @property
    def exact(self) -> bool:
        return any(f.name == "shape" for f in dataclasses.fields(self))

    def infer(self, *types: TensorType) -> TensorType:
        raise NotImplementedError

    def prepare(self, *nodes: Node) -> tuple[Node, ...]:
        """Operands made to fit: promoted, broadcast."""
        return nodes

    def trace(self, *nodes: Node) -> tuple[Node, ...]:
        """The op applied to nodes, as a graph of one output."""
        return (self.on(*self.prepare(*nodes)),)

    def on(self, *nodes: Node) -> Node:
        """The op applied to nodes that fit already."""
        return Node.make(self, nodes, self.infer(*(n.type for n in nodes)))

    def __str__(self) -> str:
        fields = [getattr(self, f.name) for f in dataclasses.fields(self)]
        text = ", ".join(dim_text(f) if isinstance(f, tuple) else str(f) for f in fields)
        return f"{self.name}[{text}]" if fields else self.name


def result_dtype(op: str, types: Iterable[TensorType]) -> DType:
    """Promotion: tensors among each other first, then Python numbers by their kind only."""
    types = list(types)
    strong = [t.dtype for t in types if not t.weak]
    if not strong:
        order = "biuf"
        return max((t.dtype for t in types), key=lambda d: order.index(d.kind))
    dtype = strong[0]
    for d in strong[1:]:
        try:
            dtype = promote(dtype, d)
        except DTypeError as error:
            raise DTypeError(
                "no common dtype", op=op, expect="dtypes that promote", actual=error.actual
            ) from None
    for t in types:
        if t.weak:
            dtype = promote_scalar(dtype, t.dtype.kind)
    return dtype


def broadcast_shapes(op: str, shapes: list[tuple[Dim, ...]]) -> tuple[Dim, ...]:
    """NumPy's rule: sizes from the right are equal or 1."""
    rank = max(map(len, shapes))
    padded = [(1,) * (rank - len(s)) + s for s in shapes]
    out: list[Dim] = []
    for axis, sizes in enumerate(zip(*padded, strict=True)):
        size: Dim = 1
        for d in sizes:
            if d == 1:
                continue
            if size != 1 and not same(size, d):
                raise ShapeError(
                    "shapes do not broadcast",
                    op=op,
                    expect="sizes, counted from the right, equal or 1",
                    actual=" and ".join(dim_text(s) for s in shapes)
                    + f": {size} and {d} in dimension {axis - rank}",
                )
            size = d
        out.append(size)
    return tuple(out)


def normalize_axis(op: str, axis: int, ndim: int) -> int:
    """axis as a number in [0, ndim)."""
    if not isinstance(axis, int) or isinstance(axis, bool):
        raise ShapeError("axis is no integer", op=op, expect="an int", actual=f"{axis!r}")
    if not -ndim <= axis < ndim:
        raise ShapeError(
            "axis out of range",
            op=op,
            expect=f"-{ndim} <= axis < {ndim}" if ndim else "a tensor with dimensions",
            actual=f"axis={axis} for a tensor of {ndim} dimensions",
        )
    return axis % ndim


def axis_argument(op: str, axis: Any, dim: dict[str, Any]) -> Any:
    """The axis, also under PyTorch's name `dim`."""
    unknown = set(dim) - {"dim"}
    if unknown:
        raise TypeError(f"{op}() got an unexpected keyword argument {sorted(unknown)[0]!r}")
    return dim.get("dim", axis)


def axes_of(op: str, axis: int | tuple[int, ...] | list[int], ndim: int) -> tuple[int, ...]:
    """The named axes in ascending order, each once."""
    named = axis if isinstance(axis, (tuple, list)) else (axis,)
    axes = [normalize_axis(op, a, ndim) for a in named]
    if len(set(axes)) != len(axes):
        raise ShapeError(
            "an axis is named twice", op=op, expect="distinct axes", actual=repr(tuple(named))
        )
    return tuple(sorted(axes))
