"""How long kernels take, roughly: enough to decide whether threads pay."""

from __future__ import annotations

from functools import lru_cache

from dualgrad.compiler.ir.dims import Dim, substitute, symbol_of
from dualgrad.compiler.kernel import ir
from dualgrad.compiler.kernel.ir import Check, Kernel, Loop, Reduce, Store
from dualgrad.compiler.kernel.scalar import Formula, Scalar, children_first

# of one element, in units of 1/16 ns
UNITS = 16
_COST_MEMORY, _COST_DIVIDE, _COST_PRIMITIVE = 4, 8, 1


def work_of(kernel: Kernel) -> Dim:
    """What running a kernel costs."""
    return cost(kernel.body)


def cost(body: tuple[ir.Stmt, ...]) -> Dim:
    """Cost of running statements once; an upper bound where extents vary."""
    total: Dim = 0
    for stmt in body:
        if isinstance(stmt, Loop):
            total = total + substitute(cost(stmt.body), {symbol_of(stmt.var): 0}) * stmt.extent
        elif isinstance(stmt, Reduce):
            stores = sum(_cost_of(s.value) + _COST_MEMORY for s in stmt.stores)
            each = sum(_cost_of(x) for a in stmt.accumulators for x in a.step) + stores
            total = total + stmt.extent * each + 16 * stmt.lanes
        elif isinstance(stmt, Store):
            total = total + _cost_of(stmt.value) + _COST_MEMORY
            if stmt.position is not None:
                total = total + _cost_of(stmt.position) + _COST_MEMORY
        elif isinstance(stmt, Check):
            total = total + _COST_MEMORY
    return total


@lru_cache(maxsize=1024)
def _formula_cost(formula: Formula) -> int:
    return _cost_of(formula.body)


def _cost_of(value: Scalar) -> int:
    total = 0
    for e in children_first((value,)):
        if e.op == "load":
            total += _COST_MEMORY
        elif e.op == "gather":
            total += 2 * _COST_MEMORY
        elif e.op in ("div", "rem", "sqrt"):
            total += _COST_DIVIDE
        elif e.op == "formula":
            total += _formula_cost(e.formula)
        elif e.op not in ("const", "reg", "param", "index"):
            total += _COST_PRIMITIVE
    return total
