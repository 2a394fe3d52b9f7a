"""Kernels of contractions: the packed matrix product with a group's other nodes as epilogue."""

from __future__ import annotations

from dualgrad.compiler.ir.dims import Dim, Expr, coefficient, sym
from dualgrad.compiler.ir.node import Node
from dualgrad.compiler.kernel.build import Place, stores_of
from dualgrad.compiler.kernel.evaluate import Access
from dualgrad.compiler.kernel.ir import Contract, Operand, Stmt
from dualgrad.compiler.kernel.scalar import Scalar, reg
from dualgrad.compiler.ops.contract import Contraction
from dualgrad.compiler.passes.fuse import Group
from dualgrad.runtime.errors import CompileError


def build_contract(group: Group, place: Place) -> tuple[Stmt, ...]:
    node = next(n for n in group.nodes if isinstance(n.op, Contraction))
    left, right = node.inputs
    (batch, m, k), n = left.shape, right.shape[2]
    b, i, j, p = (sym(name, size) for name, size in zip("bijp", (batch, m, n, k), strict=True))
    evaluator = place.evaluator(False)
    first = _operand(evaluator.value(left, (b, i, p)), b, i, p)
    second = _operand(evaluator.value(right, (b, p, j)), b, p, j)
    home = home_of(node, place)
    if home is None:
        raise CompileError(f"{node!r} has no memory of its own", op="contract")
    total = reg("sum", node.dtype)
    evaluator.known[node] = total
    evaluator.forget()
    at = tuple(v for v, size in zip((b, i, j), node.shape, strict=True) if size != 1)
    roots = [r for r in place.roots if r is not node or len(place.destinations[r]) > 1]
    epilogue = [x for r in roots for x in stores_of(r, at, place, evaluator)]
    epilogue = [x for x in epilogue if x.value is not total or x.buffer is not home.buffer]
    c = Operand(home.buffer, 0, m * n, n, 1)
    return (
        Contract(
            first,
            second,
            c,
            batch,
            m,
            n,
            k,
            place.workspace(m, n, k),
            b,
            i,
            j,
            total,
            tuple(epilogue),
        ),
    )


def _operand(value: Scalar, batch: Expr, row: Expr, col: Expr) -> Operand:
    """The load of an operand's element as strides."""
    buffer, index = value.memory
    strides = []
    for v in (batch, row, col):
        found = coefficient(index, v)
        if found is None:
            raise CompileError(f"index {index} is not affine", op="contract")
        strides.append(found[0])
        index = found[1]
    return Operand(buffer, index, *strides)


def home_of(node: Node, place: Place) -> Access | None:
    """Memory that the finished sums can pass through: row-major, of the contraction's dtype."""
    for r in [node, *place.roots]:
        for access in place.destinations.get(r, ()):
            if r.dtype is node.dtype and place.fresh(access) and is_row_major(access, r.shape):
                return access
    return None


def is_row_major(access: Access, shape: tuple[Dim, ...]) -> bool:
    step: Dim = 1
    for n, stride in reversed(list(zip(shape, access.strides, strict=True))):
        if n != 1 and stride != step:
            return False
        step = step * n
    return True
