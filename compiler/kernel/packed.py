"""Matrices that several products multiply by: packed once, by a kernel of its own.

A product puts its second operand in panels before it multiplies.  In the loop over time of a
recurrent layer that is the same matrix in every step, and much work beside that for a few rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from dualgrad.compiler.kernel.ir import PACKED_ROWS, Buffer, Contract, Kernel, Operand, Pack
from dualgrad.runtime.dtype import DType

MOST_ROWS = 256  # of a product: with more, packing is little beside multiplying
Matrix = tuple[Operand, int, int]  # and its rows and columns


def share_packed(
    kernels: Sequence[Kernel], buffer_of: Callable[[DType, int, int], Buffer]
) -> list[Kernel]:
    """The kernels, where those that multiply by the same matrix read it packed; `buffer_of` makes
    memory for one."""
    users: dict[Matrix, list[int]] = {}
    open: dict[str, list[Matrix]] = {}  # matrices by the buffers where they lie unchanged
    runs: list[list[int]] = []
    for k, kernel in enumerate(kernels):
        matrix = _matrix_of(kernel)
        if matrix is not None:
            if matrix not in users:
                users[matrix] = []
                runs.append(users[matrix])
                open.setdefault(matrix[0].buffer.name, []).append(matrix)
            users[matrix].append(k)
        for name in kernel.stored & open.keys():
            for changed in open.pop(name):
                del users[changed]
    out = list(kernels)
    packs: dict[int, list[Kernel]] = {}
    for numbers in runs:
        if len(numbers) > 1:
            pack = _packing(kernels[numbers[0]], buffer_of)
            packs.setdefault(numbers[0], []).append(pack)
            for k in numbers:
                out[k] = _multiplying(kernels[k], pack)
    return [x for k, kernel in enumerate(out) for x in (*packs.get(k, ()), kernel)]


def _matrix_of(kernel: Kernel) -> Matrix | None:
    """The second operand of a product, if that is worth packing once for several."""
    c = kernel.body[0]
    if not isinstance(c, Contract) or c.b.walks or c.batch != 1:
        return None
    if c.a.buffer.dtype is not c.result.dtype:
        return None  # packing widens: it would take another routine
    m, n, k = c.m, c.n, c.k
    if not (isinstance(m, int) and isinstance(n, int) and isinstance(k, int)) or 0 in (n, k):
        return None
    return (replace(c.b, batch=0), k, n) if PACKED_ROWS <= m <= MOST_ROWS else None


def _packing(kernel: Kernel, buffer_of: Callable[[DType, int, int], Buffer]) -> Kernel:
    """The kernel that packs the second operand of a product."""
    (c,) = kernel.body
    assert isinstance(c, Contract)
    assert isinstance(c.n, int)
    assert isinstance(c.k, int)
    b = replace(c.b, batch=0)
    packed = buffer_of(c.result.dtype, c.n, c.k)
    return Kernel(f"{kernel.name}_pack", (Pack(b, packed, c.k, c.n),), kernel.lines)


def _multiplying(kernel: Kernel, pack: Kernel) -> Kernel:
    """A product with its second operand packed."""
    (c,), (p,) = kernel.body, pack.body
    assert isinstance(c, Contract)
    assert isinstance(p, Pack)
    return replace(kernel, body=(replace(c, b=p.operand, packed=True),))
