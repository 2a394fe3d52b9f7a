"""Layout: images of convolutions lie in memory with their channels last.

Goal: what convolutions read and hand to each other, through activations and poolings, is stored as
[N, ..., C].  Then windows are rows of long runs, which products pack by copying them; places of
a pooling are whole vectors of channels; a cotangent is a matrix as it stands.  Non-goals: changing
any number (a product and its transpose are the same chains); convolutions too small to win back
the copies of their operands and results, which lie as the user has them.

Marked nodes are those that are computed as [N, ..., C]; for every other node they look as before,
through a permutation.  Marks begin at products of windows, and at padded images that these show,
and spread through what goes element by element, also to operands; a consumer of another kind gets
a copy in the old order, unless it reads rows of channels anyway.  Where copies would be many,
nothing is changed.
"""

from __future__ import annotations

import math

from dualgrad.compiler.ir.dims import Dim, coefficient, same, smallest, sym
from dualgrad.compiler.ir.node import Graph, Leaf, Node, topological
from dualgrad.compiler.ops.contract import MatMul
from dualgrad.compiler.ops.elementwise import Copy, Elementwise
from dualgrad.compiler.ops.reduce import Reduction
from dualgrad.compiler.ops.region import Overwrite
from dualgrad.compiler.ops.slicing import Slice, Windows
from dualgrad.compiler.ops.view import (
    Expand,
    Permute,
    Reshape,
    View,
    behind_views,
    flatten_index,
    through_views,
)
from dualgrad.compiler.ops.window_terms import Stretch
from dualgrad.compiler.passes.simplify import constant, merge_permutes, merge_reshapes

_PRICE = 128  # multiply-adds of products for each element that is copied: what that wins back
_CACHED = 1 << 18  # elements of kernels that stay in a second-level cache


def channels_last(graph: Graph) -> Graph:
    """The graph with images between convolutions as [N, ..., C]; the same if there are none."""
    order = topological(graph.roots)
    products = [n for n in order if _is_correlation(n)]
    if not products:
        return graph
    marked = _marked(order, products)
    rewriting = _Rewriting(marked)
    roots = rewriting.run(graph.roots, order)
    work = sum(_size(n) * _known(n.inputs[0].shape[2]) for n in products)
    return graph.with_roots(roots) if rewriting.copied * _PRICE <= work else graph


def _is_correlation(node: Node) -> bool:
    """Whether a node is the product of one matrix with the windows of each image."""
    if not isinstance(node.op, MatMul) or same(node.shape[0], 1):
        return False
    x = node.inputs[1]
    while isinstance(x.op, Reshape | Permute):
        (x,) = x.inputs
    return _is_for_all(node.inputs[0]) and isinstance(x.op, Windows)


def _is_for_all(x: Node) -> bool:
    """Whether a batch of matrices is one, repeated."""
    return isinstance(x.op, Expand) and same(x.inputs[0].shape[0], 1)


def _size(node: Node) -> int:
    """Elements of a node, with 1 for sizes that are not known."""
    return math.prod(map(_known, node.shape))


def _known(n: Dim) -> int:
    return n if isinstance(n, int) else 1


def _keeps_channels(node: Node) -> bool:
    """Whether images and channels stay the first axes of what a node is computed from."""
    op = node.op
    if node.ndim < 3 or same(node.shape[1], 1):
        return False
    if isinstance(op, Reshape):
        source = node.inputs[0]
        return source.ndim > 2 and source.shape[:2] == node.shape[:2]
    return _is_padded(node) or isinstance(op, Elementwise | Slice | Stretch)


def _is_padded(node: Node) -> bool:
    """Whether a node is an image within a number that is the same everywhere."""
    op = node.op
    if not isinstance(op, Overwrite) or node.ndim < 3 or same(node.shape[1], 1):
        return False
    return isinstance(op.view, Slice) and constant(node.inputs[0]) is not None


def _marked(order: list[Node], products: list[Node]) -> set[Node]:
    """The nodes to compute with channels last."""
    marked = set(products)
    users: dict[Node, list[Node]] = {}
    for node in order:
        for x in node.inputs:
            users.setdefault(x, []).append(node)
    images = {behind_views(n.inputs[1]) for n in products}
    stack = [n for n in order if n in products or (n in images and _is_padded(n))]
    marked.update(stack)
    while stack:
        node = stack.pop()
        near = [u for u in users.get(node, ()) if _keeps_channels(u) or _goes_on(u, node)]
        if not isinstance(node.op, MatMul):
            near += [x for x in node.inputs if _keeps_channels(x) and x.ndim == node.ndim]
        fresh = [x for x in near if x not in marked and not _is_number(x)]
        marked.update(fresh)
        stack += fresh
    return marked


def _goes_on(user: Node, node: Node) -> bool:
    """Whether a node is the channels that a product, a convolution with a kernel of one place,
    takes from each image."""
    if not isinstance(user.op, MatMul) or same(user.shape[0], 1):
        return False
    return user.inputs[1] is node and _is_for_all(user.inputs[0])


def _is_number(x: Node) -> bool:
    while isinstance(x.op, View):
        (x,) = x.inputs
    return isinstance(x.op, Leaf) and x.op.kind != "input"


def to_last(x: Node) -> Node:
    """x [N, C, ...] as [N, ..., C]."""
    return merge_permutes(Permute.of((0, *range(2, x.ndim), 1)).on(x))


def to_second(x: Node) -> Node:
    """x [N, ..., C] as [N, C, ...]."""
    return merge_permutes(Permute.of((0, x.ndim - 1, *range(1, x.ndim - 1))).on(x))


def _turned(axes: tuple[Dim, ...]) -> tuple[Dim, ...]:
    return (axes[0], *axes[2:], axes[1])


class _Rewriting:
    """The graph anew; `copied` counts the elements that change their order."""

    def __init__(self, marked: set[Node]) -> None:
        self.marked = marked
        self.done: dict[Node, Node] = {}
        self.copied = 0

    def run(self, roots: tuple[Node, ...], order: list[Node]) -> tuple[Node, ...]:
        for node in order:
            self.done[node] = self._rewritten(node)
        self.copied += sum(_size(r) for r in roots if r in self.marked)
        return tuple(self.done[r] for r in roots)

    def _rewritten(self, node: Node) -> Node:
        op = node.op
        if isinstance(op, Leaf):
            return node
        inputs = tuple(self.done[x] for x in node.inputs)
        if node in self.marked:
            return to_second(self._last(node, inputs))
        if not isinstance(op, View):
            inputs = tuple(self._operand(node, k, x) for k, x in enumerate(inputs))
        if isinstance(op, MatMul) and self._lies_last(node.inputs[0]):
            a, b = inputs
            return _transposed(op.on(_transposed(b), _transposed(a)))
        new = node if inputs == node.inputs else Node.make(op, inputs, node.type)
        return merge_reshapes(merge_permutes(new))

    def _lies_last(self, x: Node) -> bool:
        """Whether an operand shows windows of a marked image: they are best read as rows of the
        second operand, which are copied by whole vectors."""
        return _shows_windows(x) and _first_marked(x, self.marked) is not None

    def _last(self, node: Node, inputs: tuple[Node, ...]) -> Node:
        """A marked node with its channels last."""
        op = node.op
        if isinstance(op, MatMul):
            a, b = inputs
            return op.on(_transposed(self._lying_last(node, b)), _rows_of(a))
        if isinstance(op, Reshape):
            return merge_reshapes(Reshape.of(_turned(node.shape)).on(to_last(inputs[0])))
        if isinstance(op, Overwrite):
            assert isinstance(op.view, Slice)
            view = op.view
            self.copied += 0 if node.inputs[1] in self.marked else _size(node.inputs[1])
            turned = Slice.of(*(_turned(x) for x in (view.starts, view.steps, view.sizes)))
            return Overwrite.of(turned).on(*map(to_last, inputs))
        if isinstance(op, Elementwise):
            type = node.type.with_shape(_turned(node.shape))
            return Node.make(op, tuple(map(to_last, inputs)), type)
        assert isinstance(op, View)
        return to_last(op.on(*inputs))

    def _lying_last(self, node: Node, windows: Node) -> Node:
        """The windows of an image that lies with its channels last."""
        base = behind_views(node.inputs[1])
        if base in self.marked or base.ndim < 3 or same(base.shape[1], 1):
            return windows
        self.copied += _size(base)
        copied = to_second(Copy.of().on(to_last(self.done[base])))
        return _on(node.inputs[1], base, copied)

    def _operand(self, node: Node, k: int, x: Node) -> Node:
        """An operand of a node that is not marked: a copy, if it is not read along channels."""
        base = _first_marked(node.inputs[k], self.marked)
        if base is None or isinstance(node.op, Elementwise):
            return x
        if isinstance(node.op, MatMul) and any(_shows_windows(i) for i in node.inputs):
            return x
        if isinstance(node.op, Reduction) and _is_row_major(x):
            return x
        self.copied += _size(base)
        return _on(node.inputs[k], base, Copy.of().on(self.done[base]))


def _first_marked(x: Node, marked: set[Node]) -> Node | None:
    """The marked node behind views."""
    while x not in marked and isinstance(x.op, View):
        (x,) = x.inputs
    return x if x in marked else None


def _shows_windows(x: Node) -> bool:
    while isinstance(x.op, View):
        if isinstance(x.op, Windows):
            return True
        (x,) = x.inputs
    return False


def _on(x: Node, base: Node, other: Node) -> Node:
    """Views of `base`, of another node instead."""
    if x is base:
        return other
    assert isinstance(x.op, View)
    return merge_reshapes(merge_permutes(x.op.on(_on(x.inputs[0], base, other))))


def _rows_of(x: Node) -> Node:
    """Kernels [N, outputs, K], the same for all images, as [N, K, outputs]; they lie so, unless
    that would take each element from another part of memory."""
    (kernels,) = x.inputs
    base = behind_views(kernels)
    if isinstance(base.op, Copy):
        if _size(base) > _CACHED and _goes_by_rows(base.inputs[0]):
            return _transposed(x)
        kernels = _on(kernels, base, base.inputs[0])
    rows = Copy.of().on(_transposed(kernels))
    return Expand.of((x.shape[0], *rows.shape[1:])).on(rows)


def _goes_by_rows(x: Node) -> bool:
    """Whether elements along the last axis are nearer to each other than along the first."""
    at = tuple(sym(f"i{k}", n) for k, n in enumerate(x.shape))
    leaf, index = through_views(x, at)
    place = flatten_index(index, leaf.shape)
    first, last = (coefficient(place, at[k]) for k in (0, -1))
    if first is None or last is None:
        return False
    least = smallest(first[0] - last[0])
    return least is not None and least > 0


def _transposed(x: Node) -> Node:
    return merge_permutes(Permute.of((0, 2, 1)).on(x))


def _is_row_major(x: Node) -> bool:
    """Whether a node is another one in its own order."""
    while isinstance(x.op, Reshape):
        (x,) = x.inputs
    return not isinstance(x.op, View)
