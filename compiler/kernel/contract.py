"""Kernels of contractions: matrix products with a group's other nodes as epilogue."""

from __future__ import annotations

from functools import lru_cache

from dualgrad.compiler.ir.dims import (
    Dim,
    Expr,
    ceil_div,
    coefficient,
    evaluate,
    rejoined,
    sym,
    symbol_of,
    symbols,
    terms_of,
)
from dualgrad.compiler.ir.node import Node
from dualgrad.compiler.kernel.build import Place, stores_of
from dualgrad.compiler.kernel.evaluate import Access, Evaluator
from dualgrad.compiler.kernel.ir import (
    Accumulator,
    Buffer,
    Contract,
    Operand,
    Reduce,
    Stmt,
    Store,
    Walk,
    blocks_of,
)
from dualgrad.compiler.kernel.scalar import Scalar, const, load, reg
from dualgrad.compiler.kernel.walks import tables_of
from dualgrad.compiler.ops.contract import Contraction
from dualgrad.compiler.passes.fuse import Group
from dualgrad.runtime.errors import CompileError
from dualgrad.runtime.records import dataclass

# Of GPUs: tiles that keep one busy, their size, and what an unknown size is taken for.
_BUSY, _TILE, _TYPICAL = 128, 64, 512


@dataclass(frozen=True)
class _Product:
    """The contraction of a group, with names for its indices and its operands in memory."""

    node: Node
    sizes: tuple[Dim, Dim, Dim, Dim]  # batch, m, n, k
    at: tuple[Expr, Expr, Expr]
    first: Operand
    second: Operand
    total: Scalar
    evaluator: Evaluator  # which knows `total`

    @classmethod
    def of(cls, group: Group, place: Place) -> _Product:
        node = next(n for n in group.nodes if isinstance(n.op, Contraction))
        left, right = node.inputs
        sizes = _sizes(node)
        b, i, j, p = (sym(x, size) for x, size in zip("bijp", sizes, strict=True))
        evaluator = place.evaluator(False)
        first = _operand(evaluator.value(left, (b, i, p)), b, i, p)
        second = _operand(evaluator.value(right, (b, p, j)), b, p, j)
        total = reg("sum", node.dtype)
        evaluator.known[node] = total
        evaluator.forget()
        return cls(node, sizes, (b, i, j), first, second, total, evaluator)

    def stores(self, roots: list[Node], place: Place) -> list[Store]:
        """What is stored for each element."""
        at = tuple(v for v, size in zip(self.at, self.node.shape, strict=True) if size != 1)
        return [x for r in roots for x in stores_of(r, at, place, self.evaluator)]

    def contract(
        self, c: Operand, workspace: Buffer | None, epilogue: list[Store], parts: Dim | None = None
    ) -> Contract:
        names, result = (*self.at, self.total), tuple(epilogue)
        return Contract(self.first, self.second, c, *self.sizes, workspace, *names, result, parts)


def _sizes(node: Node) -> tuple[Dim, Dim, Dim, Dim]:
    """Batch, m, n and k of a contraction."""
    left, right = node.inputs
    (batch, m, k), n = left.shape, right.shape[2]
    return batch, m, n, k


def build_contract(group: Group, place: Place) -> tuple[Stmt, ...]:
    """One kernel: the product, and with its sums the group's other nodes."""
    product = _Product.of(group, place)
    node, (batch, m, n, k) = product.node, product.sizes
    home = home_of(node, place)
    if home is None:
        raise CompileError(f"{node!r} has no memory of its own", op="contract")
    roots = [r for r in place.roots if r is not node or place.destinations[r] != [home]]
    b, i, j = (0 if size == 1 else v for v, size in zip(product.at, node.shape, strict=True))
    own = home.start + b * (m * n) + i * n + j
    epilogue = [
        x
        for x in product.stores(roots, place)
        if x.value is not product.total or (x.buffer, x.index) != (home.buffer, own)
    ]
    c = Operand(home.buffer, home.start, m * n, n, 1)
    tables = tables_of(product.first, product.second, m, n, k)
    words = sum((t.words for t in tables), start=0)
    return (product.contract(c, place.workspace(batch, m, n, k, words), epilogue),)


def sums_apart(node: Node) -> bool:
    """Whether a GPU takes the blocks along K side by side: where C alone has too few tiles.

    Then C is small beside its operands, and so are its parts; of an unknown size it might not be.
    """
    batch, m, n, k = _sizes(node)
    tiles = batch * ceil_div(m, _TILE) * ceil_div(n, _TILE)
    if not isinstance(tiles, int) or 2 * tiles > _BUSY:
        return False
    is_positive = all(c > 0 for _, c in terms_of(k))  # else there might be no block at all
    return is_positive and evaluate(blocks_of(k), dict.fromkeys(symbols(k), _TYPICAL)) > 1


def build_parts(group: Group, place: Place) -> tuple[tuple[Stmt, ...], tuple[Stmt, ...]]:
    """Two kernels: the block sums, apart; their totals, and with those the group's other nodes."""
    product = _Product.of(group, place)
    batch, m, n, k = product.sizes
    blocks, size = blocks_of(k), batch * m * n
    memory = place.scratch(product.node.dtype, blocks * size)
    sums = product.contract(Operand(memory, 0, m * n, n, 1), None, [], blocks)
    loops = [(v, d) for v, d in zip(product.at, (batch, m, n), strict=True) if d != 1]
    b, i, j = (0 if d == 1 else v for v, d in zip(product.at, (batch, m, n), strict=True))
    p, total = sym("p", blocks), product.total
    # -0.0 changes no bit of what is added to it
    zero = const(-0.0 if total.dtype.is_float else 0, total.dtype)
    part = load(memory, p * size + b * (m * n) + i * n + j)
    reduce = Reduce(p, blocks, "chain", 1, (Accumulator((total,), (zero,), (total + part,)),))
    body: tuple[Stmt, ...] = (reduce, *product.stores(place.roots, place))
    return (sums,), place.loops.single(loops, body)


def _operand(value: Scalar, batch: Expr, row: Expr, col: Expr) -> Operand:
    """The load of an operand's element as strides, or as walks."""
    buffer, index = value.memory
    found = steps_of(index, batch, row, col)
    if found is None:
        raise CompileError(f"index {index} is not one place per row and column", op="contract")
    return Operand(buffer, *found)


@lru_cache(maxsize=4096)
def steps_of(
    index: Dim, batch: Expr, row: Expr, col: Expr
) -> tuple[Dim, Dim, Dim | Walk, Dim | Walk] | None:
    """The base of an operand whose elements lie at `index`, its stride along the batch, and how
    it goes along rows and columns; None if these are not apart, or the batch has no stride."""
    parts: dict[Expr, Dim] = {batch: 0, row: 0, col: 0}
    base: Dim = 0
    for monomial, c in terms_of(index):
        term = Expr.of({monomial: c})
        used = [v for v in parts if symbol_of(v) in symbols(term)]
        if len(used) > 1:
            return None
        if used:
            parts[used[0]] = parts[used[0]] + term
        else:
            base = base + term
    each = coefficient(parts[batch], batch)
    if each is None or each[1] != 0:
        return None
    return base, each[0], _step(parts[row], row), _step(parts[col], col)


def _step(place: Dim, v: Expr) -> Dim | Walk:
    """How elements lie along `v`: a stride if there is one."""
    place = rejoined(place)
    found = coefficient(place, v)
    return Walk(v, place) if found is None else found[0]


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
