"""Units under one more axis: what a unit does to each slice of its operands, as a unit itself.

`Batched` traces a unit on the slices and rewrites the graph node by node, so that it takes all
slices at once, along a new axis 0.  There is one rule for each kind of op, none for single ops;
operands that have no such axis are the same for all slices and stay as they are for as long as
they meet nothing that differs between slices.

Each slice has the bits that it has on its own: sums run over the same elements in the same order,
and whether a product is a matrix-vector one is a question to the slice.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from dualgrad.compiler.grad import Vjp, fresh_leaf
from dualgrad.compiler.ir.dims import Dim
from dualgrad.compiler.ir.interned import Interned
from dualgrad.compiler.ir.node import Leaf, Node, as_node, topological
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import Rename, Unit, apply
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.compiler.ops.base import Op
from dualgrad.compiler.ops.contract import MatMul
from dualgrad.compiler.ops.elementwise import Elementwise
from dualgrad.compiler.ops.index import Index, Loads, Update
from dualgrad.compiler.ops.library import Library
from dualgrad.compiler.ops.precision import KEPT
from dualgrad.compiler.ops.reduce import Reduction, Sum, reduce_axes
from dualgrad.compiler.ops.region import Region
from dualgrad.compiler.ops.sample import Arg, Sample
from dualgrad.compiler.ops.scan import Scan
from dualgrad.compiler.ops.slicing import Diagonal
from dualgrad.compiler.ops.take_put import Take
from dualgrad.compiler.ops.transfer import Transfer
from dualgrad.compiler.ops.view import Expand, Permute, Reshape, View, expand_to
from dualgrad.compiler.ops.view import Index as At
from dualgrad.runtime.dtype import int64
from dualgrad.runtime.errors import CompileError
from dualgrad.runtime.records import dataclass

if TYPE_CHECKING:
    from dualgrad.compiler.build.builder import Builder

AnyOp = TypeVar("AnyOp", bound=Op)
Flags = tuple[bool, ...]


@dataclass(frozen=True, eq=False)
class Batched:
    """`unit` on each slice along axis 0 of the operands that `flags` marks; so are all results."""

    unit: Unit
    flags: Flags
    _instances: ClassVar[Interned[Batched]] = Interned()

    @classmethod
    def of(cls, unit: Unit, flags: Flags) -> Batched:
        key = (unit, flags)
        found = cls._instances.find(key)
        return found or cls._instances.keep(key, cls(unit, flags))

    @property
    def name(self) -> str:
        return self.unit.name

    @property
    def exact(self) -> bool:
        return self.unit.exact

    def generalized(self, rename: Rename) -> Batched:
        return Batched.of(self.unit.generalized(rename), self.flags)

    def precision_on(self, *nodes: Node) -> str:
        return KEPT  # what it does is in the dtypes that the slices have

    def trace(self, *nodes: Node) -> tuple[Node, ...]:
        slices = Slices(nodes, self.flags)
        return slices.whole(self.unit.trace(*slices.leaves))

    def __str__(self) -> str:
        marks = ", ".join("0" if f else "-" for f in self.flags)
        return f"{self.unit} under ({marks})"


def is_gradient(unit: Unit) -> bool:
    """Whether a unit may return an operand as it is: gradients do, those of slices too."""
    return isinstance(unit.unit if isinstance(unit, Batched) else unit, Vjp)


class Slices:
    """Leaves that stand for one slice of nodes, and what is computed from them for all slices."""

    def __init__(self, nodes: tuple[Node, ...], flags: Flags) -> None:
        self.size: Dim = next(x.shape[0] for x, f in zip(nodes, flags, strict=True) if f)
        self.values: dict[Node, tuple[Node, bool]] = {}
        made: dict[tuple[Node, bool], Node] = {}
        for x, flag in zip(nodes, flags, strict=True):
            if (x, flag) not in made:
                made[x, flag] = self._leaf(x, flag)
        self.leaves = tuple(made[x, flag] for x, flag in zip(nodes, flags, strict=True))

    def _leaf(self, x: Node, flag: bool) -> Node:
        if not flag and isinstance(x.op, Leaf):
            return x
        leaf = fresh_leaf(x.type.with_shape(x.shape[1:]) if flag else x.type)
        self.values[leaf] = (x, flag)
        return leaf

    def lifted(self, results: Iterable[Node]) -> list[tuple[Node, bool]]:
        """For each result its node, and whether that has the new axis."""
        done, results = self.values, tuple(results)
        for node in topological(results):
            if node in done:
                continue
            if isinstance(node.op, Leaf):
                done[node] = (node, False)
                continue
            nodes = tuple(done[x][0] for x in node.inputs)
            flags = tuple(done[x][1] for x in node.inputs)
            if any(flags):
                done[node] = (batched(node.op, self.size, nodes, flags), True)
            else:
                done[node] = (Node.make(node.op, nodes, node.type), False)
        return [done[r] for r in results]

    def whole(self, results: Iterable[Node]) -> tuple[Node, ...]:
        """Each result for all slices."""
        return tuple(x if flag else spread(x, self.size) for x, flag in self.lifted(results))


def spread(x: Node, size: Dim) -> Node:
    """x [...] as [size, ...], the same for each slice."""
    return expand_to(x, (size, *x.shape))


def spread_all(size: Dim, nodes: tuple[Node, ...], flags: Flags) -> tuple[Node, ...]:
    return tuple(x if f else spread(x, size) for x, f in zip(nodes, flags, strict=True))


# -- the rules: one for each kind of op -----------------------------------------------------------


@functools.singledispatch
def batched(op: Op, size: Dim, nodes: tuple[Node, ...], flags: Flags) -> Node:
    """op on each of `size` slices of the nodes that `flags` marks, of which there is one."""
    raise CompileError(
        "an op without a rule for slices",
        op=op.name,
        expect="one of the kinds of op that compiler.batching lists",
        actual=type(op).__name__,
    )


@batched.register(Elementwise)
@batched.register(Transfer)
def _unchanged(op: Op, size: Dim, nodes: tuple[Node, ...], flags: Flags) -> Node:
    """One formula for each element, whatever the shape."""
    return op.on(*spread_all(size, nodes, flags))


@batched.register(Reduction)
@batched.register(Scan)
@batched.register(Region)
@batched.register(Library)
def _moved(op: Op, size: Dim, nodes: tuple[Node, ...], flags: Flags) -> Node:
    """Along the same axes, which have moved by one; functions of the host take more dimensions
    in front."""
    return moved(op, size).on(*spread_all(size, nodes, flags))


@batched.register(View)
def _viewed(op: View, size: Dim, nodes: tuple[Node, ...], flags: Flags) -> Node:
    return under(op, size).on(*nodes)


@batched.register(Index)
def _indexed(op: Index, size: Dim, nodes: tuple[Node, ...], flags: Flags) -> Node:
    return UnderIndex.of(op, flags).on(*nodes)


@batched.register(Update)
def _updated(op: Update, size: Dim, nodes: tuple[Node, ...], flags: Flags) -> Node:
    """Updates of [outer, n, inner] count slices among the outer places."""
    outer = nodes[0].shape[1] if flags[0] else nodes[0].shape[0]

    def folded(x: Node, flag: bool) -> Node:
        if not flag and x.shape[0] == 1 and outer == 1:
            return spread(x, size).reshape((size, *x.shape[1:]))
        if not flag and x.shape[0] == 1:
            return x
        x = x if flag else spread(x, size)
        x = expand_to(x, (size, outer, *x.shape[2:]))
        return x.reshape((size * outer, *x.shape[2:]))

    base, places, updates = (folded(x, f) for x, f in zip(nodes, flags, strict=True))
    out: Node = op.on(base, places, updates)
    return out.reshape((size, outer, *out.shape[1:]))


@batched.register(MatMul)
def _multiplied(op: MatMul, size: Dim, nodes: tuple[Node, ...], flags: Flags) -> Node:
    """A batch of batches; slices of one matrix times a common one are one product of all rows."""
    a, b = nodes
    if flags == (True, False) and b.shape[0] == 1:
        _, _, m, k = a.shape
        rows = op.on(a.reshape((1, size * m, k)), b)
        return rows.reshape((size, 1, m, b.shape[2]))
    a, b = spread_all(size, nodes, flags)
    out = op.on(*(x.reshape((size * x.shape[1], *x.shape[2:])) for x in (a, b)))
    return out.reshape((size, a.shape[1], *out.shape[1:]))


def moved(op: AnyOp, size: Dim) -> AnyOp:
    """An op on tensors with one more axis in front: its fields that name axes, views or the shape
    of the result, for these."""
    changes: dict[str, Callable[[Any], Any]] = {
        **dict.fromkeys(("axis", "start", "stop"), lambda a: a + 1),
        "shape": lambda shape: (size, *shape),
        "view": lambda view: under(view, size),
    }
    values = zip(op.parameters, op.values, strict=True)
    return op.of(*(changes[k](v) if k in changes else v for k, v in values))


def under(view: View, size: Dim) -> View:
    """A view of each slice; those that the compiler knows by their classes stay what they are."""
    if isinstance(view, Reshape | Expand):
        return view.of((size, *view.shape))
    if isinstance(view, Permute):
        return view.of((0, *(a + 1 for a in view.axes)))
    return UnderView.of(view)


# -- ops of a slice as ops of all -----------------------------------------------------------------


def _gradients(op: Op, flags: Flags, g: Node, out: Node, xs: tuple[Node, ...]) -> tuple[Any, ...]:
    """The gradients of a batched op from the rule of the op itself."""
    assert op.vjp is not None
    slices = Slices((g, out, *xs), (True, True, *flags))
    found = op.vjp(*slices.leaves)
    given = [k for k, gx in enumerate(found) if gx is not None]
    results: list[Any] = [None] * len(found)
    for k, (gx, flag) in zip(given, slices.lifted(as_node(found[k]) for k in given), strict=True):
        if flags[k]:
            results[k] = gx if flag else spread(gx, slices.size)
        else:  # one operand for all slices
            results[k] = reduce_axes(Sum, gx, (0,), False) if flag else gx * slices.size
    return tuple(results)


def _front(type: TensorType, size: Dim) -> TensorType:
    return type.with_shape((size, *type.shape))


def _slice_of(type: TensorType) -> TensorType:
    return type.with_shape(type.shape[1:])


class UnderView(View):
    """out[n, i] = x[n, source(i)]: a view of each slice along the first axis."""

    view: View

    @property
    def name(self) -> str:
        return self.view.name

    @property
    def exact(self) -> bool:  # type: ignore[override]
        return self.view.exact

    @property
    def shared(self) -> int:
        return self.view.shared

    @property
    def swept(self) -> tuple[int, ...]:
        return tuple(a + 1 for a in self.view.swept)

    def infer(self, *types: TensorType) -> TensorType:
        (x,) = types
        return _front(self.view.infer(_slice_of(x)), x.shape[0])

    def source(self, index: At, shape: tuple[Dim, ...]) -> At:
        return (index[0], *self.view.source(index[1:], shape[1:]))

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return _gradients(self.view, (True,), g, out, (x,))

    @staticmethod
    def samples() -> list[Sample]:
        view = UnderView.of(Diagonal.of(0, 1, 0, 0, 3))
        return [
            Sample(
                lambda x: apply(view, x)[0],
                (Arg((2, 4, 3), layout=way),),
                lambda np, x: np.diagonal(x, 0, 1, 2),
            )
            for way in ("contiguous", "transposed")
        ]


class UnderIndex(Index):
    """out[n, i] = value(i) of the slices n of the operands that `flags` marks."""

    inner: Index
    flags: Flags

    @property
    def name(self) -> str:
        return self.inner.name

    @property
    def exact(self) -> bool:  # type: ignore[override]
        return self.inner.exact

    @property
    def checked(self) -> bool:  # type: ignore[override]
        return self.inner.checked

    @property
    def gathers(self) -> dict[int, tuple[int, ...]]:  # type: ignore[override]
        found = self.inner.gathers.items()
        return {k: tuple(a + 1 for a in axes) if self.flags[k] else axes for k, axes in found}

    def infer(self, *types: TensorType) -> TensorType:
        pairs = list(zip(types, self.flags, strict=True))
        size = next(t.shape[0] for t, f in pairs if f)
        return _front(self.inner.infer(*(_slice_of(t) if f else t for t, f in pairs)), size)

    def value(self, b: Builder, loads: Loads, at: tuple[Dim, ...]) -> Scalar:
        return self.inner.value(b, _LoadsOfSlice(loads, self.flags, at[0]), at[1:])

    @property
    def vjp(self) -> Any:  # type: ignore[override]
        if self.inner.vjp is None:
            return None
        return lambda g, out, *xs: _gradients(self.inner, self.flags, g, out, xs)

    @staticmethod
    def samples() -> list[Sample]:
        places = {
            (True, True): Arg((3, 1, 4, 1), int64, values=(0, -1, 3, 3, 1)),
            (True, False): Arg((1, 4, 1), int64, values=(0, -1, 3, 3)),
        }

        def taken(np: Any, x: Any, i: Any) -> Any:
            i = np.broadcast_to(i % 5, (3, 2, 4, 2))
            return np.take_along_axis(x, i, 2)

        return [
            Sample(
                lambda x, i, f=flags: apply(UnderIndex.of(Take.of(0), f), x, i)[0],
                (Arg((3, 2, 5, 2)), where),
                taken,
            )
            for flags, where in places.items()
        ]


@dataclass
class _LoadsOfSlice:
    """What an index op sees of one slice of its inputs."""

    loads: Loads
    flags: Flags
    slice: Dim

    def _at(self, k: int, at: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self.slice, *at) if self.flags[k] else at

    def __call__(self, k: int, at: tuple[Dim, ...]) -> Scalar:
        return self.loads(k, self._at(k, at))

    def shape(self, k: int) -> tuple[Dim, ...]:
        shape = self.loads.shape(k)
        return shape[1:] if self.flags[k] else shape

    def gather(self, k: int, at: tuple[Dim | Scalar, ...]) -> Scalar:
        return self.loads.gather(k, self._at(k, at))

    def check(self, position: Scalar, bound: Dim, what: str, low: Dim = 0) -> None:
        self.loads.check(position, bound, what, low)
