"""Simplification: rewrite rules that keep every bit.

Goal: graphs without views of views, double negation or multiplication by one, which derived
gradients produce.  Non-goal: anything that changes a number; x + 0 is not x (for -0).

A rule is one line, written with the op functions themselves on holes: a hole matches any node.
Rules on views, whose parameters have to be computed, are functions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from dualgrad.compiler.ir.dims import Dim, product, same
from dualgrad.compiler.ir.node import Graph, Leaf, Node, input_node, topological
from dualgrad.compiler.ir.types import TensorType
from dualgrad.compiler.ir.value import Number
from dualgrad.compiler.ops.arithmetic import absolute, neg
from dualgrad.compiler.ops.bitwise import invert
from dualgrad.compiler.ops.contract import MatMul
from dualgrad.compiler.ops.division import div
from dualgrad.compiler.ops.elementwise import Cast, Elementwise
from dualgrad.compiler.ops.logical import where
from dualgrad.compiler.ops.view import Expand, Permute, Reshape, behind_views, expand_to
from dualgrad.runtime.dtype import bool_, float32
from dualgrad.runtime.records import dataclass


@dataclass(frozen=True)
class Rule:
    """Nodes that match `pattern` become what `result` stands for."""

    pattern: Node
    result: Node


def holes(count: int) -> list[Node]:
    return [input_node(-1 - k, TensorType((), float32)) for k in range(count)]


x, y = holes(2)
c = input_node(-9, TensorType((), bool_))

RULES = (
    Rule(x * 1.0, x),  # x*1 -> x
    Rule(1.0 * x, x),  # 1*x -> x
    Rule(div(x, 1.0), x),  # x/1 -> x
    Rule(neg(neg(x)), x),  # --x -> x
    Rule(absolute(neg(x)), absolute(x)),  # |-x| -> |x|
    Rule(absolute(absolute(x)), absolute(x)),  # ||x|| -> |x|
    Rule(where(c, x, x), x),  # the condition does not matter
    Rule(where(invert(c), x, y), where(c, y, x)),  # not c ? x : y -> c ? y : x
)
_RULES_OF = {
    kind: [r for r in RULES if type(r.pattern.op) is kind]
    for kind in {type(r.pattern.op) for r in RULES}
}


def constant(node: Node) -> Number | None:
    """The number that every element of a node is, if it is written in the program."""
    while isinstance(node.op, Cast | Expand | Reshape):
        (node,) = node.inputs
    return node.op.value if isinstance(node.op, Leaf) and node.op.kind == "const" else None


def _match(pattern: Node, node: Node, found: dict[Node, Node]) -> bool:
    if isinstance(pattern.op, Leaf) and pattern.op.kind == "input":
        return found.setdefault(pattern, node) is node
    number = constant(pattern)
    if number is not None:
        value = constant(node)
        return value is not None and repr(float(value)) == repr(float(number))
    if pattern.op != node.op:
        return False
    return all(_match(p, n, found) for p, n in zip(pattern.inputs, node.inputs, strict=True))


def _instance(result: Node, found: dict[Node, Node]) -> Node:
    if result in found:
        return found[result]
    assert not isinstance(result.op, Leaf)
    return result.op.on(*(_instance(i, found) for i in result.inputs))


def _by_rules(node: Node) -> Node:
    for rule in _RULES_OF.get(type(node.op), ()):
        found: dict[Node, Node] = {}
        if _match(rule.pattern, node, found):
            new = _instance(rule.result, found)
            if new.type is node.type:
                return new
    return node


def merge_reshapes(node: Node) -> Node:
    """A reshape of a reshape is one reshape; one to the same shape is none."""
    if isinstance(node.op, Reshape):
        (source,) = node.inputs
        if isinstance(source.op, Reshape):
            (source,) = source.inputs
        if source.shape == node.shape:
            return source
        return node if source is node.inputs[0] else node.op.on(source)
    return node


def merge_permutes(node: Node) -> Node:
    """A permutation of a permutation is one permutation; the identity is none."""
    if isinstance(node.op, Permute):
        (source,) = node.inputs
        axes = node.op.axes
        if isinstance(source.op, Permute):
            axes = tuple(source.op.axes[a] for a in axes)
            (source,) = source.inputs
        if axes == tuple(range(len(axes))):
            return source
        return node if source is node.inputs[0] else Permute.of(axes).on(source)
    return node


def transposed_last(node: Node) -> Node:
    """A permutation after which the last two dimensions stand swapped, and only their batch is
    reshaped, ends with the swap: what comes before is often a plain view."""
    if not isinstance(node.op, Reshape) or node.ndim < 2:
        return node
    (source,) = node.inputs
    if not isinstance(source.op, Permute) or source.shape[-2:] != node.shape[-2:]:
        return node
    *batch, rows, columns = source.op.axes
    if rows < columns:
        return node
    inner = merge_permutes(Permute.of((*batch, columns, rows)).on(source.inputs[0]))
    *outer, m, n = node.shape
    reshaped = merge_reshapes(Reshape.of((*outer, n, m)).on(inner))
    return _swapped(reshaped)


def _swapped(x: Node) -> Node:
    """x with its last two dimensions swapped."""
    return merge_permutes(Permute.of((*range(x.ndim - 2), x.ndim - 1, x.ndim - 2)).on(x))


def transposed_product(node: Node) -> Node:
    """(A B)^T is B^T A^T: the same chains of products, stored the other way round.

    Only where the last two dimensions are swapped, the batch being reshaped or not.
    """
    if not isinstance(node.op, Permute):
        return node
    (source,) = node.inputs
    base = source
    if isinstance(source.op, Reshape) and source.shape[-2:] == source.inputs[0].shape[-2:]:
        (base,) = source.inputs
    swapped = (*range(source.ndim - 2), source.ndim - 1, source.ndim - 2)
    if not isinstance(base.op, MatMul) or node.op.axes != swapped:
        return node
    a, b = map(_swapped, base.inputs)
    other = base.op.on(b, a)
    return other if base is source else Reshape.of(node.shape).on(other)


_FURTHEST = 8  # ops after a product that are looked through


def reshape_last(node: Node) -> Node:
    """f(reshape(x)) is reshape(f(x)): what follows a product element by element has its shape then,
    and can be done where its sums are finished."""
    if not isinstance(node.op, Elementwise):
        return node
    sources = {x.inputs[0] for x in node.inputs if isinstance(x.op, Reshape)}
    shapes = {x.shape for x in sources}
    if len(shapes) != 1 or not any(_follows_product(x) for x in sources):
        return node
    (shape,) = shapes
    inputs = [y for x in node.inputs if (y := _in_shape(x, shape, sources)) is not None]
    if len(inputs) < len(node.inputs):
        return node
    return Reshape.of(node.shape).on(node.op.on(*inputs))


def _follows_product(node: Node) -> bool:
    """Whether a node is a product, or computed from one element by element."""
    shape, level = node.shape, [node]
    for _ in range(_FURTHEST):
        if any(isinstance(x.op, MatMul) for x in level):
            return True
        level = [i for x in level if isinstance(x.op, Elementwise) for i in x.inputs]
        level = [x for x in level if x.shape == shape]
    return False


def _in_shape(x: Node, shape: tuple[Dim, ...], sources: set[Node]) -> Node | None:
    """An operand before it was reshaped, or a number in the other shape."""
    if isinstance(x.op, Reshape) and x.inputs[0] in sources:
        return x.inputs[0]
    while isinstance(x.op, Expand | Reshape):
        (x,) = x.inputs
    return expand_to(Reshape.of(()).on(x), shape) if x.type.size == 1 else None


STEPS: tuple[Callable[[Node], Node], ...] = (
    _by_rules,
    merge_reshapes,
    merge_permutes,
    transposed_last,
    transposed_product,
    reshape_last,
)


def simplify(graph: Graph) -> Graph:
    """The graph with all rules applied, inputs before users."""
    graph = _rewritten(graph, lambda _, node: _simplified(node))
    batches = _batches(graph)
    return _rewritten(graph, partial(_unstacked, batches)) if batches else graph


def _simplified(node: Node) -> Node:
    for step in STEPS:
        node = step(node)
    return node


def _batches(graph: Graph) -> dict[Node, tuple[Dim, Dim]]:
    """Products of which somebody sees the rows as batches of rows: (batches, rows of each).

    Not those whose rows walk through memory, as windows of images do: a batch has one stride.
    """
    out: dict[Node, tuple[Dim, Dim]] = {}
    for node in topological(graph.roots):
        if not isinstance(node.op, Reshape) or node.ndim < 3:
            continue
        (source,) = node.inputs
        fits = isinstance(source.op, MatMul) and same(source.shape[0], 1)
        fits = fits and not _repeats(source.inputs[0])
        if fits and node.shape[-1] == source.shape[2] and node.shape[-2] not in (0, 1):
            out.setdefault(source, (product(node.shape[:-2]), node.shape[-2]))
    return {n: split for n, split in out.items() if split[0] not in (0, 1)}


def _repeats(x: Node) -> bool:
    """Whether elements of memory stand in a view more than once, as those of windows do."""
    return not same(x.type.size, behind_views(x).type.size)


def _unstacked(batches: dict[Node, tuple[Dim, Dim]], before: Node, node: Node) -> Node:
    """A product of stacked rows as a product for each batch: what is computed from it element by
    element then has the shape of its kernel."""
    if before not in batches:
        return merge_reshapes(node)
    a, b = node.inputs
    (count, rows), (_, k, n) = batches[before], b.shape
    left = merge_reshapes(Reshape.of((count, rows, k)).on(a))
    return Reshape.of(node.shape).on(MatMul.of().on(left, Expand.of((count, k, n)).on(b)))


def _rewritten(graph: Graph, rewrite: Callable[[Node, Node], Node]) -> Graph:
    """The graph in which `rewrite(before, node)` stands for every node; `node` is what became of
    it by the rewriting of its inputs."""
    done: dict[Node, Node] = {}
    for node in topological(graph.roots):
        new = node
        if not isinstance(node.op, Leaf):
            inputs = tuple(done[i] for i in node.inputs)
            new = node if inputs == node.inputs else Node.make(node.op, inputs, node.type)
            new = rewrite(node, new)
        done[node] = new
    return graph.with_roots(tuple(done[r] for r in graph.roots))
