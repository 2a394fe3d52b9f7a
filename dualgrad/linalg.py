"""Linear algebra of matrices [..., M, N], batched over leading dimensions, under NumPy's names.

The numbers come from NumPy's LAPACK; what it cannot do is a LinAlgError, which is also a
numpy.linalg.LinAlgError.
"""

from sys import modules as _modules
from typing import Any

from dualgrad.compiler.ops.axes import matrix_transpose
from dualgrad.compiler.ops.base import LAST, LAST_BUT_ONE
from dualgrad.compiler.ops.contract import matmul
from dualgrad.compiler.ops.linalg_factor import cholesky, qr
from dualgrad.compiler.ops.linalg_more import cross, lstsq, multi_dot, tensorinv, tensorsolve
from dualgrad.compiler.ops.linalg_norms import cond, matrix_norm, matrix_rank, norm
from dualgrad.compiler.ops.linalg_solve import (
    det,
    inv,
    matrix_power,
    slogdet,
    solve,
    solve_triangular,
)
from dualgrad.compiler.ops.linalg_spectral import eigh, eigvalsh, pinv, svd, svdvals
from dualgrad.compiler.ops.products import matrix_trace as trace
from dualgrad.compiler.ops.products import outer, tensordot, vecdot
from dualgrad.compiler.ops.sample import Arg, Sample, samples_of
from dualgrad.compiler.ops.slicing import diagonal as _diagonal
from dualgrad.compiler.ops.statistics import vector_norm
from dualgrad.runtime.library import LinAlgError
from dualgrad.runtime.tracebacks import passes_on as _passes_on

__all__ = [
    "LinAlgError",
    "cholesky",
    "cond",
    "cross",
    "det",
    "diagonal",
    "eigh",
    "eigvalsh",
    "inv",
    "lstsq",
    "matmul",
    "matrix_norm",
    "matrix_power",
    "matrix_rank",
    "matrix_transpose",
    "multi_dot",
    "norm",
    "outer",
    "pinv",
    "qr",
    "slogdet",
    "solve",
    "solve_triangular",
    "svd",
    "svdvals",
    "tensordot",
    "tensorinv",
    "tensorsolve",
    "trace",
    "vecdot",
    "vector_norm",
]


def diagonal(
    x: Any, offset: int = 0, axis1: int = LAST_BUT_ONE, axis2: int = LAST, **dims: Any
) -> Any:
    """Return the diagonals of matrices [..., M, N], or of two other axes, sharing memory."""
    return _diagonal(x, offset, axis1, axis2, **dims)


@samples_of(diagonal)
def _diagonal_samples() -> list[Sample]:
    def good(shape: tuple[int, ...], *places: int) -> Sample:
        offset, *axes = places if len(places) > 1 else (*places, -2, -1)
        return Sample(
            lambda x: diagonal(x, *places),
            (Arg(shape),),
            lambda np, x: np.diagonal(x, offset, *axes),
        )

    return [good((2, 3, 4), 0), good((2, 3, 4), -1), good((2, 3, 4), 1, 0, 2)]


def __getattr__(name: str) -> Any:
    if name in ("eig", "eigvals"):
        raise AttributeError(
            f"dualgrad.linalg has no {name!r}: eigenvalues of a matrix that is not symmetric are "
            "complex, and there are no complex tensors; for a symmetric one use eigh"
        )
    text = f"module 'dualgrad.linalg' has no attribute {name!r}"
    raise AttributeError(text, name=name, obj=_modules[__name__])


_passes_on(__getattr__)
