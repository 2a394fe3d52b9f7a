"""Views: the same elements under other indices.  A class states where element i comes from.

On concrete tensors views share memory; in a program they dissolve into index arithmetic.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from dualgrad.compiler.ir.dims import Dim, product, same
from dualgrad.compiler.ir.node import Node
from dualgrad.compiler.ir.refusal import kind_text, not_a_tensor
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import Value, apply, dim_text, public
from dualgrad.compiler.ops.base import Op, axes_of, axis_argument, normalize_axis
from dualgrad.compiler.ops.hints import size_hint
from dualgrad.compiler.ops.sample import Arg, Sample
from dualgrad.runtime.errors import ArgumentError, ShapeError

Index = tuple[Dim, ...]


class View(Op, abstract=True):
    """out[i] = x[source(i)]."""

    required = (*Op.required, "source")

    @property
    def shared(self) -> int:
        """How many of the last axes show elements that others show too."""
        return 0

    @property
    def swept(self) -> tuple[int, ...]:
        """The axes along which the shared ones move."""
        return ()

    def source(self, index: Index, shape: tuple[Dim, ...]) -> Index:
        """The index into an operand of `shape` that element `index` of the result shows."""
        raise NotImplementedError


class Reshape(View):
    """Another shape of the same size, elements in row-major order."""

    shape: tuple[Dim, ...]
    exact = True

    def infer(self, *types: TensorType) -> TensorType:
        return types[0].with_shape(self.shape)

    def source(self, index: Index, shape: tuple[Dim, ...]) -> Index:
        return _reshaped(index, self.shape, shape)

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (reshape(g, x.shape),)

    @staticmethod
    def samples() -> list[Sample]:
        def case(shape: tuple[int, ...], new: tuple[int, ...], layout: str) -> Sample:
            full = tuple(-(-_size(shape) // -_size(new)) if n == -1 else n for n in new)
            return Sample(
                lambda x: reshape(x, new),
                (Arg(shape, layout=layout),),
                lambda np, x: x.reshape(full),
            )

        bad = Sample(
            lambda x: reshape(x, (4, 2)),
            (Arg((2, 3)),),
            error=ValueError,
            match=r"\[reshape\] sizes differ",
        )
        unknown = Sample(
            lambda x: reshape(x, (0, 1, -1)),
            (Arg((0, 3)),),
            error=ValueError,
            match=r"\[reshape\] any size would do",
        )
        return [
            case((2, 6), (3, 4), "contiguous"),
            case((2, 6), (3, -1), "transposed"),
            case((4, 6), (24,), "strided"),
            case((), (1, 1), "contiguous"),
            case((0, 3), (3, 0), "contiguous"),
            case((2, 3, 4), (6, 4), "transposed"),
            bad,
            unknown,
        ]


class Permute(View):
    """Dimensions in another order: dimension k of the result is dimension axes[k]."""

    axes: tuple[int, ...]

    def infer(self, *types: TensorType) -> TensorType:
        return types[0].with_shape(tuple(types[0].shape[a] for a in self.axes))

    def source(self, index: Index, shape: tuple[Dim, ...]) -> Index:
        return tuple(index[k] for k in self.inverse)

    @property
    def inverse(self) -> tuple[int, ...]:
        return tuple(sorted(range(len(self.axes)), key=self.axes.__getitem__))

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        return (permute(g, self.inverse),)

    @staticmethod
    def samples() -> list[Sample]:
        def case(shape: tuple[int, ...], axes: tuple[int, ...]) -> Sample:
            return Sample(
                lambda x: permute(x, axes), (Arg(shape),), lambda np, x: x.transpose(axes)
            )

        bad = Sample(
            lambda x: permute(x, (0, 0)),
            (Arg((2, 3)),),
            error=ValueError,
            match=r"each dimension once",
        )
        return [case((3, 4), (1, 0)), case((2, 3, 4), (2, 0, 1)), case((), ()), bad]


class Expand(View):
    """Dimensions of size 1 repeated without copying (the rank stays)."""

    shape: tuple[Dim, ...]

    def infer(self, *types: TensorType) -> TensorType:
        return types[0].with_shape(self.shape)

    def source(self, index: Index, shape: tuple[Dim, ...]) -> Index:
        return tuple(
            0 if d == 1 and n != 1 else i for i, d, n in zip(index, shape, self.shape, strict=True)
        )

    def vjp(self, g: Any, out: Any, x: Any) -> tuple[Any, ...]:
        axes = tuple(
            k for k, (d, n) in enumerate(zip(x.shape, self.shape, strict=True)) if d == 1 != n
        )
        return (g.sum(axis=axes).reshape(x.shape) if axes else g,)

    @staticmethod
    def samples() -> list[Sample]:
        def case(shape: tuple[int, ...], new: tuple[int, ...]) -> Sample:
            full = tuple(
                s if n == -1 else n
                for s, n in zip((1,) * (len(new) - len(shape)) + shape, new, strict=True)
            )
            return Sample(
                lambda x: expand(x, new), (Arg(shape),), lambda np, x: np.broadcast_to(x, full)
            )

        bad = Sample(
            lambda x: expand(x, (3, 4)),
            (Arg((3, 2)),),
            error=ValueError,
            match=r"\[expand\] only dimensions of size 1",
        )
        return [
            case((3, 1), (3, 4)),
            case((4,), (2, 3, 4)),
            case((1, 3, 1), (5, -1, 2)),
            case((), (2, 2)),
            bad,
        ]


def _size(shape: tuple[int, ...]) -> int:
    out = 1
    for n in shape:
        out *= n
    return out


def flatten_index(index: Index, shape: tuple[Dim, ...]) -> Dim:
    """Row-major position of an index."""
    position: Dim = 0
    for i, n in zip(index, shape, strict=True):
        position = position * n + i
    return position


@lru_cache(maxsize=4096)
def _reshaped(index: Index, shape: tuple[Dim, ...], other: tuple[Dim, ...]) -> Index:
    """The index into a tensor of another shape at the same row-major position."""
    return unflatten(flatten_index(index, shape), other)


def through_views(node: Node, at: tuple[Dim, ...]) -> tuple[Node, tuple[Dim, ...]]:
    """The node behind a chain of views, and the index into it that `at` stands for."""
    while isinstance(node.op, View):
        (source,) = node.inputs
        at = node.op.source(at, source.shape)
        node = source
    return node, at


def behind_views(node: Node) -> Node:
    """The node that a chain of views shows."""
    while isinstance(node.op, View):
        (node,) = node.inputs
    return node


def unflatten(position: Dim, shape: tuple[Dim, ...]) -> Index:
    """The index of a row-major position."""
    out: list[Dim] = []
    for k, n in enumerate(reversed(shape)):
        if n == 1 or n == 0:  # of an empty tensor no element is ever asked for
            out.append(0)
        elif all(m == 1 for m in tuple(reversed(shape))[k + 1 :]):
            out.append(position)
            position = 0
        else:
            out.append(position % n)
            position = position // n
    return tuple(reversed(out))


def expand_to(x: Node, shape: tuple[Dim, ...]) -> Node:
    """x broadcast to `shape`, which it fits."""
    if x.shape == shape:
        return x
    if x.ndim < len(shape):
        x = Reshape.of((1,) * (len(shape) - x.ndim) + x.shape).on(x)
    return x if x.shape == shape else Expand.of(shape).on(x)


def _as_shape(op: str, shape: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
        shape = tuple(shape[0])
    for n in shape:
        if type(n) is not int and isinstance(n, bool | float | str | Value | list | tuple):
            raise ArgumentError(
                "a size is no integer",
                op=op,
                expect="ints",
                actual=kind_text(n) if isinstance(n, Value) else repr(shape),
                hint="call .item() for the number in a tensor"
                if isinstance(n, Value)
                else "divide sizes with //, which gives an int",
            )
    return shape


@public("reshape")
def reshape(x: Any, *shape: Any) -> Any:
    """Return x in another shape of the same number of elements; one size may be -1.

    Shares memory where the strides allow, else copies.  Raises ShapeError if the sizes differ.
    """
    new = _as_shape("reshape", shape)
    if not isinstance(x, Value):
        raise not_a_tensor("reshape", x)
    size = x.size
    if -1 in new:
        known = product(n for n in new if n != -1)
        if new.count(-1) == 1 and known != 0:
            new = tuple(size // known if n == -1 else n for n in new)
    if -1 in new or not same(product(new), size):
        raise ShapeError(
            "any size would do" if -1 in new and same(size, 0) else "sizes differ",
            op="reshape",
            expect=f"a shape of {x.size} elements, at most one size -1",
            actual=f"{dim_text(x.shape)} -> {dim_text(_as_shape('reshape', shape))}",
            hint=size_hint(x.size, _as_shape("reshape", shape)),
        )
    return whole(x) if x.shape == new else apply(Reshape.of(new), x)[0]


@public("view")
def view(x: Any, *shape: Any) -> Any:
    """Return x in another shape over the same memory; one size may be -1.

    Raises ShapeError if the sizes differ, or if the elements do not lie in memory as a view needs
    them: `reshape` copies them then.
    """
    out = reshape(x, *shape)
    if getattr(out, "base", out) is None:
        raise ShapeError(
            "the memory cannot be viewed in this shape",
            op="view",
            expect="axes to merge that follow each other in memory without gaps",
            actual=f"{dim_text(x.shape)} -> {dim_text(out.shape)}, and x is not contiguous",
            why="a view shares memory, and an axis of it has one step from element to element",
            hint="use reshape, which copies where it has to",
        )
    return out


def whole(x: Any) -> Any:
    """All of x, for view ops that have nothing to do.

    Of a tensor it is a view, as in PyTorch: under `no_grad` it has no history, and its flags and
    its gradient are its own.
    """
    return apply(Reshape.of(x.shape), x)[0] if hasattr(x, "requires_grad") else x


@public("flatten")
def flatten(x: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    """Return x with dimensions start_dim..end_dim (inclusive) merged into one; x itself if that is
    one already."""
    if x.ndim == 0:
        return reshape(x, (1,))
    first = normalize_axis("flatten", start_dim, x.ndim)
    last = normalize_axis("flatten", end_dim, x.ndim)
    if first > last:
        raise ShapeError(
            "start_dim lies behind end_dim",
            op="flatten",
            expect="start_dim <= end_dim",
            actual=f"start_dim={start_dim}, end_dim={end_dim} for {x.ndim} dimensions",
            hint="give the first dimension to merge, then the last",
        )
    if first == last:
        return x
    merged = product(x.shape[first : last + 1])
    return reshape(x, (*x.shape[:first], merged, *x.shape[last + 1 :]))


@public("permute")
def permute(x: Any, *axes: Any) -> Any:
    """Return x with its dimensions in the order `axes`, sharing memory."""
    order = _as_shape("permute", axes)
    try:
        rank = x.ndim
    except AttributeError:
        raise not_a_tensor("permute", x) from None
    full = tuple(normalize_axis("permute", a, rank) for a in order)
    if sorted(full) != list(range(rank)):
        raise ShapeError(
            "the order must name each dimension once",
            op="permute",
            expect=f"a permutation of 0..{rank - 1}",
            actual=repr(tuple(order)),
            hint=f"give {rank} numbers, or use transpose(a, b) to swap two dimensions",
        )
    return whole(x) if full == tuple(range(rank)) else apply(Permute.of(full), x)[0]


@public("transpose", "swapaxes")
def transpose(x: Any, a: int, b: int) -> Any:
    """Return x with dimensions a and b swapped, sharing memory."""
    if x.ndim == 0 and {a, b} <= {0, -1}:
        return whole(x)
    axes = list(range(x.ndim))
    i, j = (normalize_axis("transpose", k, x.ndim) for k in (a, b))
    axes[i], axes[j] = axes[j], axes[i]
    return permute(x, tuple(axes))


@public("expand", "broadcast_to")
def expand(x: Any, *shape: Any) -> Any:
    """Return x with dimensions of size 1 repeated to `shape` (-1 keeps a size), sharing memory."""
    new = _as_shape("expand", shape)
    try:
        lead = len(new) - x.ndim
    except AttributeError:
        raise not_a_tensor("expand", x) from None
    old = (1,) * lead + x.shape
    full = tuple(o if n == -1 else n for o, n in zip(old, new, strict=False))
    fits = lead >= 0 and all(o == 1 or same(o, n) for o, n in zip(old, full, strict=True))
    if not fits:
        raise ShapeError(
            "only dimensions of size 1 can be expanded",
            op="expand",
            expect="sizes, counted from the right, equal or 1",
            actual=f"{dim_text(x.shape)} -> {dim_text(new)}",
            hint="add a dimension of size 1 with unsqueeze, or repeat with dg.tile",
        )
    if lead:
        x = reshape(x, old)
    return whole(x) if x.shape == full else apply(Expand.of(full), x)[0]


@public("squeeze")
def squeeze(x: Any, axis: Any = None, **dim: Any) -> Any:
    """Return x without dimensions of size 1: all of them, or those named by `axis`."""
    axes = axis_argument("squeeze", axis, dim)
    chosen = range(x.ndim) if axes is None else axes_of("squeeze", axes, x.ndim)
    return reshape(x, tuple(n for k, n in enumerate(x.shape) if k not in chosen or n != 1))


@public("unsqueeze")
def unsqueeze(x: Any, axis: Any = None, **dim: Any) -> Any:
    """Return x with a dimension of size 1 inserted at `axis`."""
    place = normalize_axis("unsqueeze", axis_argument("unsqueeze", axis, dim), x.ndim + 1)
    return reshape(x, (*x.shape[:place], 1, *x.shape[place:]))
