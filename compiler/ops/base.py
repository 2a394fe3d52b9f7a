"""The op protocol: an op is one class, its annotated fields are its static parameters.

A subclass of `Op` is what a frozen dataclass is, without a decorator: `Op` reads the fields off
the class and sets them itself, since `dataclass` writes and compiles code for each of hundreds of
classes at import.  `__init_subclass__` also checks that a class states everything its kind needs,
so an incomplete op fails at import, with an instruction.  What a class states:

- `infer(*types)`: the type rule.  It never turns a dimension into an int.
- the mathematics, by kind: see `Elementwise`, `View`, `Reduction`, `Index`, `Contraction`.
- `vjp(g, out, *inputs)`: the gradient of each input in the op language, None where there is none;
  an op without gradient says `vjp = None`.
- `samples()`: inputs that exercise it, with an independent reference, and inputs to be refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, ClassVar, TypeVar, dataclass_transform

from dualgrad.compiler.ir.dims import Dim, current_env, same, settled
from dualgrad.compiler.ir.interned import Interned
from dualgrad.compiler.ir.node import Node
from dualgrad.compiler.ir.refusal import kind_text
from dualgrad.compiler.ir.size import parameter
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import Rename, dim_text, plain_number
from dualgrad.compiler.ops.hints import broadcast_hint
from dualgrad.compiler.ops.precision import KEPT
from dualgrad.compiler.ops.sample import Sample
from dualgrad.runtime.dtype import DType, promote, promote_scalar
from dualgrad.runtime.errors import DTypeError, OperandError, ShapeError, unit_names

Self = TypeVar("Self", bound="Op")
OPS: list[type[Op]] = []


@dataclass_transform(eq_default=False, frozen_default=True)
class Op:
    """Base of all ops.  Make instances with `of`, which returns the same object each time."""

    parameters: ClassVar[dict[str, str]] = {}  # the annotation of each field

    required: ClassVar[tuple[str, ...]] = ("infer", "vjp", "samples")
    abstract: ClassVar[bool] = True
    exact: ClassVar[bool] = False
    checked: ClassVar[bool] = False  # whether a run may stop there: at an index, in a routine
    precision: ClassVar[str] = KEPT  # under autocast, see `precision`
    vjp: ClassVar[Callable[..., tuple[Any, ...]] | None]
    samples: ClassVar[Callable[[], Iterable[Sample]]]
    _instances: ClassVar[Interned[Any]] = Interned()

    def __init_subclass__(cls, *, abstract: bool = False) -> None:
        own = {k: a for k, a in cls.__annotations__.items() if not a.startswith("ClassVar")}
        cls.parameters = {**cls.parameters, **own}
        cls.abstract = abstract
        if abstract:
            return
        for name in cls.required:
            if not hasattr(cls, name) or getattr(cls, name) is getattr(Op, name, object()):
                raise TypeError(
                    f"op {cls.__name__} states no `{name}`; write it in the class "
                    f"({cls.__module__}), or `vjp = None` for an op without gradient"
                )
        OPS.append(cls)
        unit_names.add(_snake(cls.__name__))

    def __init__(self, *values: Any) -> None:
        """An op with these static parameters; those at the end may be left to their defaults."""
        if len(values) > len(self.parameters):
            raise TypeError(f"{self.name} has {len(self.parameters)} fields, not {len(values)}")
        for k, name in enumerate(self.parameters):
            value = values[k] if k < len(values) else getattr(self, name)
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"an op does not change: {self.name}.{name}")

    @classmethod
    def of(cls: type[Self], *fields: Any) -> Self:
        if current_env() is not None:
            fields = tuple(map(parameter, fields, cls.parameters.values()))
        key = (cls, *fields)
        found: Self | None = Op._instances.find(key)
        if found is None:
            fields = tuple(map(plain_number, fields))
            key = (cls, *fields)
            found = Op._instances.keep(key, cls(*fields))
        return found

    @property
    def name(self) -> str:
        return _snake(type(self).__name__)

    def precision_on(self, *nodes: Node) -> str:
        return self.precision

    def generalized(self: Self, rename: Rename) -> Self:
        """The op with its sizes and offsets renamed: fields annotated with Dim and Offset."""
        values = [renamed(getattr(self, k), kind, rename) for k, kind in self.parameters.items()]
        return self.of(*values)

    @property
    def values(self) -> list[Any]:
        """The static parameters."""
        return [getattr(self, k) for k in self.parameters]

    @property
    def dims(self) -> list[Dim]:
        """All sizes and offsets among the fields."""
        found: list[Dim] = []

        def note(n: Dim, offset: bool = False) -> Dim:
            found.append(n)
            return n

        self.generalized(note)
        return found

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
        return Node.make(self, nodes, self.output_type(*(n.type for n in nodes)))

    def output_type(self, *types: TensorType) -> TensorType:
        """What `infer` says, with computed sizes of 0 and 1 settled, on the operands' device.

        Numbers, and what is computed from none but numbers, count as on the CPU.
        """
        found = self.infer(*types)
        shape = tuple(settled(d) for d in found.shape)
        for t in types:
            if t.device != "cpu":
                return TensorType(shape, found.dtype, found.weak, t.device)
        return found if shape == found.shape else found.with_shape(shape)

    def __str__(self) -> str:
        fields = self.values
        text = ", ".join(dim_text(f) if isinstance(f, tuple) else str(f) for f in fields)
        return f"{self.name}[{text}]" if fields else self.name


@lru_cache(maxsize=1024)
def _snake(name: str) -> str:
    return "".join("_" + c.lower() if c.isupper() else c for c in name).lstrip("_")


def renamed(value: Any, annotation: str, rename: Rename) -> Any:
    """A static parameter with its sizes and offsets renamed, as its annotation says."""
    if isinstance(value, Op):
        return value.generalized(rename)
    offset = "Offset" in annotation
    if value is None or not (offset or "Dim" in annotation):
        return value
    if isinstance(value, tuple):
        return tuple(rename(n, offset) for n in value)
    return rename(value, offset)


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
                "no common dtype",
                op=op,
                expect="dtypes that promote",
                actual=error.actual,
                hint="convert one operand with .astype(...)",
            ) from None
    for t in types:
        if t.weak:
            dtype = promote_scalar(dtype, t.dtype.kind)
    return dtype


def broadcast_shapes(op: str, shapes: list[tuple[Dim, ...]]) -> tuple[Dim, ...]:
    """NumPy's rule: sizes from the right are equal or 1."""
    first = shapes[0]
    if all(s == first for s in shapes):
        return first
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
                    hint=broadcast_hint(shapes),
                )
            size = d
        out.append(size)
    return tuple(out)


def normalize_axis(op: str, axis: int, ndim: int) -> int:
    """axis as a number in [0, ndim)."""
    if not isinstance(axis, int) or isinstance(axis, bool):
        raise ShapeError(
            "axis is no integer",
            op=op,
            expect="an int",
            actual=repr(axis) if isinstance(axis, bool | int | float | str) else kind_text(axis),
            hint="give a Python int, such as axis=-1; tensors to join stand in one list"
            if op in ("cat", "stack")
            else "give a Python int, such as axis=-1",
        )
    if not -ndim <= axis < ndim:
        raise ShapeError(
            "axis out of range",
            op=op,
            expect=f"-{ndim} <= axis < {ndim}" if ndim else "a tensor with dimensions",
            actual=f"axis={axis} for a tensor of {ndim} dimensions",
            hint="count axes from 0, or from the end with -1",
        )
    return axis % ndim


def axis_of(op: str, axis: int, ndim: int) -> int:
    """axis as a number in [0, ndim); of a number, which has one axis to say so, 0."""
    return 0 if ndim == 0 and axis in (0, -1) else normalize_axis(op, axis, ndim)


class Default(int):
    """A default, to be told from the same number that a caller has given."""

    __slots__ = ()


FIRST, SECOND, LAST, LAST_BUT_ONE = map(Default, (0, 1, -1, -2))
LAST_TWO = (-2, -1)


def axis_argument(op: str, axis: Any, dim: dict[str, Any]) -> Any:
    """The axis, also under PyTorch's name `dim`."""
    if dim:
        axis = other_name(op, "axis", axis, "dim", dim)
        no_more_names(op, dim)
    return int(axis) if type(axis) is Default else axis


def no_more_names(op: str, names: dict[str, Any]) -> None:
    """Refuse keyword arguments that are left over."""
    if names:
        raise OperandError(
            f"unexpected keyword argument {min(names)!r}",
            op=op,
            expect="axis= or dim=",
            actual=", ".join(f"{name}=" for name in names),
            hint="write axis=...",
        )


def other_name(op: str, name: str, value: Any, other: str, names: dict[str, Any]) -> Any:
    """The value of the argument `name`, or what is among `names` under another framework's name
    for it, and is taken out.  Raises OperandError if both are given."""
    if other not in names:
        return int(value) if type(value) is Default else value
    found = names.pop(other)
    is_default = value is None or value is False or type(value) is Default or value is LAST_TWO
    if not is_default:
        raise OperandError(
            "one argument is given under two names",
            op=op,
            expect=f"{name}= or {other}=, not both",
            actual=f"{name}={_shown(value)}, {other}={_shown(found)}",
            hint=f"leave {other}= out",
        )
    return found


def axis_pair(op: str, axis1: int, axis2: int, dims: dict[str, Any]) -> tuple[Any, Any]:
    """Two axes, also under PyTorch's names `dim1` and `dim2`."""
    first = other_name(op, "axis1", axis1, "dim1", dims)
    second = other_name(op, "axis2", axis2, "dim2", dims)
    no_more_names(op, dims)
    return first, second


def keep_argument(op: str, axis: Any, keepdims: Any, names: dict[str, Any]) -> bool:
    """Whether reduced axes stay with size 1, also under PyTorch's name `keepdim`."""
    keep = other_name(op, "keepdims", keepdims, "keepdim", names) if names else keepdims
    if keep is True or keep is False:
        return keep
    if type(keep).__name__ not in ("bool", "bool_"):  # of Python's or NumPy's
        axes = isinstance(keep, int) and isinstance(axis, int)
        raise OperandError(
            "keepdims is no bool",
            op=op,
            expect="True or False",
            actual=_shown(keep),
            hint="write keepdims=True or keepdims=False"
            + f"; several axes stand in one tuple: axis=({axis}, {keep})" * axes,
        )
    return bool(keep)


def _shown(value: Any) -> str:
    plain = isinstance(value, bool | int | float | str | tuple | list | None)
    return repr(value) if plain else kind_text(value)


def axes_of(op: str, axis: int | tuple[int, ...] | list[int], ndim: int) -> tuple[int, ...]:
    """The named axes in ascending order, each once.  A number has an axis 0, to say so."""
    named = axis if isinstance(axis, (tuple, list)) else (axis,)
    if ndim == 0 and all(a in (0, -1) for a in named):
        return ()
    axes = [normalize_axis(op, a, ndim) for a in named]
    if len(set(axes)) != len(axes):
        raise ShapeError(
            "an axis is named twice",
            op=op,
            expect="distinct axes",
            actual=repr(tuple(named)),
            hint="name each axis once; -1 is the last one",
        )
    return tuple(sorted(axes))
