"""Kernels of region ops: one per part, in the order of the parts."""

from __future__ import annotations

from dualgrad.compiler.ir.dims import Dim, Expr, coefficient, sym
from dualgrad.compiler.ir.node import Node
from dualgrad.compiler.ir.types import contiguous_strides
from dualgrad.compiler.kernel import scalar as s
from dualgrad.compiler.kernel.build import Place, indices_in, map_loops, variables
from dualgrad.compiler.kernel.collapse import collapsible, extent_of, renamed
from dualgrad.compiler.kernel.evaluate import Access, At, Evaluator
from dualgrad.compiler.kernel.ir import Stmt, Store
from dualgrad.compiler.kernel.loops import at_of
from dualgrad.compiler.ops.joining import Concat
from dualgrad.compiler.ops.region import Part, Region
from dualgrad.compiler.passes.fuse import index_in, producers, squeezed


def build_region(node: Node, place: Place) -> list[tuple[Stmt, ...]]:
    """The bodies of a region op's kernels."""
    op = node.op
    assert isinstance(op, Region)
    bodies = []
    placed = {
        k
        for k, (part, slots) in parts_in(node, place.destinations[node]).items()
        if set(slots) <= set(place.destinations.get(part, ()))
    }
    for part in op.parts(*(x.shape for x in node.inputs)):
        if part.operand == 0 and is_there(node, place):
            continue  # the base is overwritten where it lies
        if part.operand in placed:
            continue  # it has been computed where it belongs
        build = _adding if part.adds else _storing
        bodies.append(build(node, part, place))
    return bodies


def is_there(node: Node, place: Place) -> bool:
    """Whether the only destination is the memory of the first operand."""
    base = place.evaluator(True).access_of(node.inputs[0])
    return place.destinations[node] == [base]


def parts_in(node: Node, homes: list[Access]) -> dict[int, tuple[Node, list[Access]]]:
    """Where the parts of a joined tensor lie in its memory: by number of the operand, the node
    that is this operand but for dimensions of size 1, and its places in all homes."""
    found: dict[int, tuple[Node, list[Access]]] = {}
    if not isinstance(node.op, Concat):
        return found
    parts = node.op.parts(*(x.shape for x in node.inputs))
    for k, (part, (x, index, at)) in enumerate(zip(parts, producers(node), strict=True)):
        here = tuple(i for i, n in zip(index, x.shape, strict=True) if n != 1)
        if here != at or squeezed(x.shape) != squeezed(part.shape) or x.dtype is not node.dtype:
            continue
        slots = [_slot(home, part, x.shape, at) for home in homes]
        if all(slots):
            found[k] = x, [slot for slot in slots if slot is not None]
    return found


def _slot(home: Access, part: Part, shape: tuple[Dim, ...], at: tuple[Expr, ...]) -> Access | None:
    """A part's place in memory, seen under a shape that has its elements at `at`."""
    start = home.index(part.at(index_in(part.shape, at)))
    strides: list[Dim] = []
    rest = iter(at)
    for n, step in zip(shape, contiguous_strides(shape), strict=True):
        if n == 1:
            strides.append(step)
            continue
        split = coefficient(start, next(rest))
        if split is None:
            return None
        strides.append(split[0])
        start = split[1]
    return Access(home.buffer, tuple(strides), start)


def _storing(node: Node, part: Part, place: Place) -> tuple[Stmt, ...]:
    def stores(at: At, evaluator: Evaluator) -> list[Store]:
        full = index_in(part.shape, at)
        return _stores(node, part, full, place, evaluator)

    return map_loops(squeezed(part.shape), stores, place)


def _stores(node: Node, part: Part, at: At, place: Place, evaluator: Evaluator) -> list[Store]:
    """Element `at` of a part into all destinations."""
    value = s.const(0, node.dtype)
    if part.operand is not None:
        value = evaluator.value(node.inputs[part.operand], at)
    out = []
    for access in place.destinations[node]:
        index = evaluator.place(access.index(part.at(at)))
        out.append(Store(access.buffer, index, _sum(access, index, value) if part.adds else value))
    return out


def _sum(access: Access, index: Dim, value: s.Scalar) -> s.Scalar:
    """What stands in memory and a value; 16-bit floats are added in float32."""
    parts = (s.load(access.buffer, index), value)
    left, right = (s.cast(x, x.dtype.compute) for x in parts)
    return s.cast(left + right, value.dtype)


def _adding(node: Node, part: Part, place: Place) -> tuple[Stmt, ...]:
    """Shared axes are counted through one by one, around those on which elements do not meet."""
    own = part.shape[: len(part.shape) - part.shared]
    kept = [k for k in range(len(own)) if k not in part.swept]
    each = variables("i", part.shape)
    segments = [
        [each[k] for k in axes if each[k][1] != 1]
        for axes in (kept, range(len(own), len(each)), part.swept)
    ]
    at = tuple(0 if n == 1 else v for v, n in each)
    probe = place.evaluator(True)
    indices = indices_in(_stores(node, part, at, place, probe), probe)
    runs = [collapsible(segment, indices) for segment in segments]
    loops = [
        [(sym(f"{p}{k}", extent_of(run)), extent_of(run)) for k, run in enumerate(group)]
        for p, group in zip("msw", runs, strict=True)
    ]

    def stores(swept: At) -> tuple[Stmt, ...]:
        final = place.evaluator(False)
        for group, positions in zip(runs, (*map(at_of, loops[:2]), swept), strict=True):
            final.change |= renamed(group, positions)
        return tuple(_stores(node, part, at, place, final))

    return place.loops.meeting(loops[0], loops[1], loops[2], stores)
