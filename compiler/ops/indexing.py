"""Indexing: x[key] and x[key] = value by NumPy's rules, in terms of views, `Take` and `Put`.

A key has basic parts (ints, slices, None, Ellipsis) and advanced ones (integer tensors, bool
masks).  The basic parts are one view, `Item`.  Advanced indices broadcast together; their axes
become one axis, along which elements are taken or put.  Their dimensions stand where the first
of them stood if no slice, None or Ellipsis comes between them, else in front.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dualgrad.compiler.ir.dims import Dim, Offset, product, same
from dualgrad.compiler.ir.node import Node
from dualgrad.compiler.ir.size import slice_bounds
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import Value, apply, dim_text
from dualgrad.compiler.kernel.scalar import Scalar
from dualgrad.compiler.ops.base import broadcast_shapes
from dualgrad.compiler.ops.composite import Composite, composite, raw
from dualgrad.compiler.ops.create import count
from dualgrad.compiler.ops.elementwise import cast_node
from dualgrad.compiler.ops.index import Index, Loads
from dualgrad.compiler.ops.logical import where
from dualgrad.compiler.ops.region import accumulate, overwrite
from dualgrad.compiler.ops.sample import Arg, Sample
from dualgrad.compiler.ops.take_put import Put, Take, position_of
from dualgrad.compiler.ops.view import Index as At
from dualgrad.compiler.ops.view import View, expand_to
from dualgrad.runtime.dtype import bool_, int64
from dualgrad.runtime.errors import ArgumentError, DTypeError, IndexOutOfBounds, ShapeError
from dualgrad.runtime.records import dataclass, field

if TYPE_CHECKING:
    from dualgrad.compiler.build.builder import Builder

NEW = -1  # in `places`: an axis of size 1 that comes from none


class BadIndex(DTypeError, IndexError):
    """Something that cannot index."""


class Item(View):
    """Along axis a of the operand `sizes[a]` elements, from `starts[a]` in steps of `steps[a]`;
    axis k of the result is axis `places[k]`, or new.  Axes without a place have size 1."""

    starts: tuple[Offset, ...]
    steps: tuple[int, ...]
    sizes: tuple[Dim, ...]
    places: tuple[int, ...]

    def infer(self, *types: TensorType) -> TensorType:
        return types[0].with_shape(tuple(1 if a == NEW else self.sizes[a] for a in self.places))

    def source(self, index: At, shape: tuple[Dim, ...]) -> At:
        at = list(self.starts)
        for a, i in zip(self.places, index, strict=True):
            if a != NEW:
                at[a] = at[a] + self.steps[a] * i
        return tuple(at)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (accumulate(g, self, x.shape),)

    def is_whole(self, shape: tuple[Dim, ...]) -> bool:
        """Whether it shows an operand of this shape as it is."""
        steps = all(s == 1 for s in self.steps)
        return self.sizes == shape and steps and self.places == tuple(range(len(shape)))

    @staticmethod
    def samples() -> list[Sample]:
        keys: list[tuple[tuple[int, ...], Any]] = [
            ((5,), (2,)),
            ((5, 4), (-1,)),
            ((5, 4), (slice(None), 1)),
            ((5, 4), (slice(None, None, -2), None, slice(1, 3))),
            ((5, 4, 3), (1, ..., None, -2)),
            ((5, 4), (slice(3, 1), slice(None))),
            ((), (None, ...)),
        ]
        good = [
            Sample(lambda x, k=k: getitem(x, k), (Arg(s, layout=way),), lambda np, x, k=k: x[k])
            for s, k in keys
            for way in ("contiguous", "strided")
        ]
        bad = [
            ((slice(None), 7), r"\[getitem\] index along axis 1 out of range\n  expect: -4 <= "),
            ((0, 0, 0), r"\[getitem\] too many indices"),
            ((..., ...), r"one Ellipsis"),
        ]
        refused = [
            Sample(lambda x, k=k: getitem(x, k), (Arg((5, 4)),), error=IndexError, match=text)
            for k, text in bad
        ]
        return [*good, *refused]


class Wrapped(Index):
    """Integer positions as int64 in [0, size): negative ones count from the end.

    Stops with IndexOutOfBounds for a position outside of [-size, size).
    """

    size: Dim
    axis: int
    vjp = None
    checked = True

    def infer(self, *types: TensorType) -> TensorType:
        return TensorType(types[0].shape, int64, False, types[0].device)

    def value(self, b: Builder, loads: Loads, at: tuple[Dim, ...]) -> Scalar:
        return position_of(b, loads, at, self.axis, self.size, operand=0)

    @staticmethod
    def samples() -> list[Sample]:
        def wrap(i: Any) -> Any:
            return apply(Wrapped.of(5, 0), i)[0]

        bad = Sample(
            wrap,
            (Arg((2,), int64, values=(1, -6)),),
            error=IndexError,
            match=r"index along axis 0 out of range\n  expect: -5 <= .* < 5\n  actual: -6\n",
        )
        good = Arg((2, 3), int64, values=(0, -1, 4, -5))
        return [Sample(wrap, (good,), lambda np, i: i % 5, gradient=False), bad]


@dataclass
class Subscript:
    """A key, read for a tensor of some shape."""

    view: Item
    basic: tuple[Any, ...]  # the key of the view alone
    indices: list[Any] = field(default_factory=list)  # integer tensors, one per advanced axis
    axes: list[int] = field(default_factory=list)  # of the view's result, that they index
    names: list[int] = field(default_factory=list)  # of the tensor's axes, for errors
    front: int = 0  # how many other axes stand before the indices' dimensions


Positions = Callable[[Any], tuple[Any, ...]]  # of the true elements of a mask, per dimension


def subscript(shape: tuple[Dim, ...], key: tuple[Any, ...], positions: Positions) -> Subscript:
    """Read a key; `positions` gives those of the true elements of a mask."""
    parts = _filled(shape, key)
    return _Reader(shape, positions).read(parts)


def _consumed(part: Any) -> int:
    """How many axes of the tensor a part of a key stands for."""
    if part is None or isinstance(part, bool):
        return 0
    return part.ndim if isinstance(part, Value) and part.dtype is bool_ else 1


def _filled(shape: tuple[Dim, ...], key: tuple[Any, ...]) -> list[Any]:
    """The parts of a key with Ellipsis, or the missing rest, written as slices."""
    dots = [k for k, part in enumerate(key) if part is ...]
    if len(dots) > 1:
        raise IndexOutOfBounds(
            "an index has more than one Ellipsis",
            op="getitem",
            expect="at most one Ellipsis",
            actual=str(len(dots)),
            hint="write : for single axes",
        )
    used = sum(_consumed(p) for p in key if p is not ...)
    if used > len(shape):
        raise IndexOutOfBounds(
            "too many indices",
            op="getitem",
            expect=f"at most {len(shape)} for shape {dim_text(shape)}",
            actual=str(used),
            hint="drop an index, or add a dimension with unsqueeze",
        )
    at = dots[0] if dots else len(key)
    rest = [slice(None)] * (len(shape) - used)
    return [*key[:at], *rest, *key[at + 1 :]]


class _Reader:
    """Reads the parts of a key from left to right."""

    def __init__(self, shape: tuple[Dim, ...], positions: Positions) -> None:
        self.shape, self.positions = shape, positions
        self.starts: list[Dim] = []
        self.steps: list[int] = []
        self.sizes: list[Dim] = []
        self.places: list[int] = []
        self.basic: list[Any] = []
        self.advanced: list[tuple[int, Any, int]] = []  # axis of the view, index, axis
        self.spots: list[int] = []  # numbers of the parts that count as advanced
        self.before: list[int] = []  # other axes of the view before each of them

    def read(self, parts: list[Any]) -> Subscript:
        for number, part in enumerate(parts):
            if isinstance(part, bool):
                self.flag(number, part)
            elif isinstance(part, int):
                self.number(number, part)
            elif isinstance(part, Value):
                self.tensor(number, part)
            elif part is None:
                self.new_axis()
            elif isinstance(part, slice):
                self.slice(part)
            else:
                raise refused(part)
        view = Item.of(tuple(self.starts), tuple(self.steps), tuple(self.sizes), tuple(self.places))
        basic = tuple(self.basic)
        if not self.advanced:
            return Subscript(view, basic)
        adjacent = self.spots[-1] - self.spots[0] + 1 == len(set(self.spots))
        axes, indices, names = (list(x) for x in zip(*self.advanced, strict=True))
        return Subscript(view, basic, indices, axes, names, self.before[0] if adjacent else 0)

    def new_axis(self) -> None:
        self.basic.append(None)
        self.places.append(NEW)

    def axis(self, part: Any, start: Dim, step: int, size: Dim) -> int:
        """Note the next axis of the tensor and the part that reads it; returns its number."""
        self.basic.append(part)
        self.starts.append(start)
        self.steps.append(step)
        self.sizes.append(size)
        return len(self.sizes) - 1

    def counts(self, number: int) -> None:
        """Part `number` is one of the advanced ones, should there be any."""
        self.spots.append(number)
        self.before.append(len(self.places) - len(self.advanced))

    def number(self, number: int, i: int) -> None:
        n = self.shape[len(self.sizes)]
        if isinstance(n, int) and not -n <= i < n:
            name = f"index along axis {len(self.sizes)}"
            raise IndexOutOfBounds(
                f"{name} out of range",
                op="getitem",
                expect=f"-{n} <= {name} < {n}",
                actual=str(i),
                hint="count from 0; negative indices count from the end",
            )
        self.counts(number)
        self.axis(i, i + n if i < 0 else i, 1, 1)

    def slice(self, part: slice) -> None:
        n = self.shape[len(self.sizes)]
        if part.start is None and part.stop is None and part.step is None:
            self.places.append(self.axis(part, 0, 1, n))
            return
        if not isinstance(n, int):
            raise ShapeError(
                "a slice of an axis of unknown size",
                op="getitem",
                expect="a size that is known; use narrow(x, axis, start, length)",
                actual=f"{n}",
                hint="narrow(x, axis, start, length) takes a part of an axis of any size",
            )
        if part.step == 0:
            raise ArgumentError(
                "the step is zero",
                op="getitem",
                expect="step != 0",
                actual="0",
                hint="leave the step out for 1",
            )
        try:
            start, step, size = slice_bounds(part, n)
        except TypeError:
            raise refused(next(v for v in _bounds(part) if not hasattr(v, "__index__"))) from None
        self.places.append(self.axis(part, start if size else 0, step, size))

    def tensor(self, number: int, part: Any) -> None:
        if part.dtype is bool_:
            self.mask(number, part)
        elif part.dtype.is_int:
            self.advance(number, part)
        else:
            raise refused(part)

    def advance(self, number: int, part: Any) -> None:
        """An integer tensor that indexes the next axis."""
        self.counts(number)
        axis = self.axis(slice(None), 0, 1, self.shape[len(self.sizes)])
        self.advanced.append((len(self.places), part, axis))
        self.places.append(axis)

    def mask(self, number: int, part: Any) -> None:
        first = len(self.sizes)
        wanted = self.shape[first : first + part.ndim]
        if not all(same(n, m) for n, m in zip(wanted, part.shape, strict=True)):
            raise IndexOutOfBounds(
                "a mask does not fit",
                op="getitem",
                expect=f"a mask of shape {dim_text(wanted)}",
                actual=dim_text(part.shape),
                hint="compute the mask from the tensor that is indexed",
            )
        found = self.positions(part)
        if part.ndim == 0:
            self.extra(number, found[0])
        for index in found[: part.ndim]:
            self.advance(number, index)

    def flag(self, number: int, part: bool) -> None:
        self.extra(number, self.positions(part)[0])

    def extra(self, number: int, index: Any) -> None:
        """A mask without dimensions: an axis of size 1 of which one element or none is taken."""
        self.counts(number)
        self.advanced.append((len(self.places), index, len(self.sizes)))
        self.new_axis()


def _bounds(part: slice) -> tuple[Any, ...]:
    return tuple(v for v in (part.start, part.stop, part.step) if v is not None)


def refused(part: Any) -> DTypeError:
    """The IndexError of a part that is no index."""
    kind = part.dtype.name + " tensor" if isinstance(part, Value) else type(part).__name__
    return BadIndex(
        "no index",
        op="getitem",
        expect="ints, slices, None, ..., integer or bool tensors, arrays and lists",
        actual=kind,
        hint="a tensor has no names: count positions from 0"
        if isinstance(part, str)
        else "convert it with int(...) or .astype(dg.int64)",
    )


def no_positions(mask: Any) -> tuple[Any, ...]:
    raise ShapeError(
        "the size of the result depends on values",
        op="getitem",
        expect="integer indices, or where(mask, ...)",
        actual="a bool mask",
        hint="use where(mask, ...), whose result has a known size",
    )


# -- reading ---------------------------------------------------------------------------------------


def getitem(x: Any, key: Any, positions: Positions = no_positions) -> Any:
    """Return x[key]; see the module.  A view for basic keys, a copy for others."""
    return look_up(x, subscript(x.shape, key if isinstance(key, tuple) else (key,), positions))


def look_up(x: Any, found: Subscript, part: Any = None) -> Any:
    """Return x at a key; `part` is what the key's view shows, where that is known."""
    if part is None:
        whole = bool(found.indices) and found.view.is_whole(x.shape)
        part = x if whole else apply(found.view, x)[0]
    if not found.indices:
        return part
    return _lookup(
        part,
        *found.indices,
        axes=tuple(found.axes),
        front=found.front,
        names=tuple(found.names),
    )


def rows(x: Any, idx: Any) -> Any:
    """Return x[idx] for a tensor of integers."""
    return _lookup(x, idx, axes=(0,), front=0, names=(0,))


@dataclass
class Layout:
    """How advanced axes of a tensor become the middle axis of [outer, n, inner]."""

    shape: tuple[Dim, ...]
    axes: tuple[int, ...]
    front: int
    indices: tuple[Dim, ...]  # the shape that all indices broadcast to

    @property
    def order(self) -> tuple[int, ...]:
        rest = [k for k in range(len(self.shape)) if k not in self.axes]
        return (*rest[: self.front], *self.axes, *rest[self.front :])

    @property
    def parts(self) -> tuple[tuple[Dim, ...], tuple[Dim, ...], tuple[Dim, ...]]:
        """Sizes before, at and after the indexed axes, in the new order."""
        moved = [self.shape[k] for k in self.order]
        end = self.front + len(self.axes)
        return tuple(moved[: self.front]), tuple(moved[self.front : end]), tuple(moved[end:])

    @property
    def result(self) -> tuple[Dim, ...]:
        before, _, after = self.parts
        return (*before, *self.indices, *after)

    def folded(self, x: Any) -> Any:
        before, middle, after = self.parts
        if self.order != tuple(range(len(self.shape))):
            x = x.permute(self.order)
        return x.reshape((product(before), product(middle), product(after)))

    def unfolded(self, x: Any) -> Any:
        x = x.reshape(tuple(self.shape[k] for k in self.order))
        back = tuple(sorted(range(len(self.order)), key=self.order.__getitem__))
        return x if back == tuple(range(len(back))) else x.permute(back)


def _layout(
    shape: tuple[Dim, ...], indices: tuple[Node, ...], axes: tuple[int, ...], front: int
) -> Layout:
    together = broadcast_shapes("getitem", [i.shape for i in indices])
    return Layout(shape, axes, front, together)


def _flat(layout: Layout, indices: tuple[Node, ...], names: tuple[int, ...]) -> Any:
    """The positions along the middle axis, as [1, k, 1]."""
    number = product(layout.indices)
    if len(indices) == 1:
        return indices[0].reshape((1, number, 1))
    total: Any = None
    for i, axis, name in zip(indices, layout.axes, names, strict=True):
        size = layout.shape[axis]
        place = Wrapped.of(size, name).on(i)
        total = place if total is None else total * count(size, int64) + place
    return expand_to(total, layout.indices).reshape((1, number, 1))


@composite
@raw
def _lookup(
    x: Node, *indices: Node, axes: tuple[int, ...], front: int, names: tuple[int, ...]
) -> Any:
    layout = _layout(x.shape, indices, axes, front)
    out = Take.of(names[0]).on(layout.folded(x), _flat(layout, indices, names))
    return out.reshape(layout.result)


# -- writing ---------------------------------------------------------------------------------------


@composite
@raw
def _assign(
    x: Node,
    value: Node,
    *indices: Node,
    view: Item | None,
    axes: tuple[int, ...],
    front: int,
    names: tuple[int, ...],
) -> Any:
    part = x if view is None else view.on(x)
    if indices:
        layout = _layout(part.shape, indices, axes, front)
        before, _, after = layout.parts
        updates = _fitted(value, layout.result, x)
        updates = updates.reshape((product(before), product(layout.indices), product(after)))
        flat = _flat(layout, indices, names)
        new = layout.unfolded(Put.of(names[0], "set").on(layout.folded(part), flat, updates))
    else:
        new = _fitted(value, part.shape, x)
    return new if view is None else overwrite(x, view, new)


def _fitted(value: Node, shape: tuple[Dim, ...], x: Node) -> Any:
    """A value cast to the dtype of x and broadcast; leading axes of size 1 may be too many."""
    extra = value.ndim - len(shape)
    if extra > 0 and all(n == 1 for n in value.shape[:extra]):
        value = value.reshape(value.shape[extra:])
    pairs = zip(reversed(value.shape), reversed(shape), strict=False)
    if value.ndim > len(shape) or not all(n == 1 or same(n, m) for n, m in pairs):
        raise ShapeError(
            "the value does not fit",
            op="setitem",
            expect=f"a shape that broadcasts to {dim_text(shape)}",
            actual=dim_text(value.shape),
            hint="reshape the value, or index fewer elements",
        )
    return expand_to(cast_node(value, x.dtype), shape)


def assignment(found: Subscript, shape: tuple[Dim, ...], whole: bool) -> Composite:
    """What x[key] = value does, for x of this shape: a unit of x, the value and the indices.

    With `whole`, x is what the key's view shows.
    """
    static = {
        "view": None if whole or found.view.is_whole(shape) else found.view,
        "axes": tuple(found.axes),
        "front": found.front,
        "names": tuple(found.names),
    }
    body = _assign.unit.body  # type: ignore[attr-defined]
    return Composite.of(body, tuple(static.items()))


ASSIGN_WHOLE = Composite.of(
    _assign.unit.body,  # type: ignore[attr-defined]
    (("view", None), ("axes", ()), ("front", 0), ("names", ())),
)


@composite
@raw
def _assign_where(x: Node, value: Node, mask: Node) -> Any:
    full = mask.reshape((*mask.shape, *(1,) * (x.ndim - mask.ndim)))
    new = expand_to(_fitted(value, x.shape[mask.ndim :], x), x.shape)
    return where(expand_to(full, x.shape), new, x)


ASSIGN_WHERE: Composite = _assign_where.unit  # type: ignore[attr-defined]
