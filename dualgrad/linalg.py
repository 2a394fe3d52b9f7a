"""Linear algebra of matrices [..., M, N], batched over leading dimensions, under NumPy's names.

The numbers come from NumPy's LAPACK; what it cannot do is a LinAlgError, which is also a
numpy.linalg.LinAlgError.
"""

from dualgrad.compiler.ops.linalg_factor import cholesky, qr
from dualgrad.compiler.ops.linalg_solve import (
    det,
    inv,
    matrix_power,
    slogdet,
    solve,
    solve_triangular,
)
from dualgrad.compiler.ops.linalg_spectral import eigh, eigvalsh, pinv, svd, svdvals
from dualgrad.runtime.library import LinAlgError

__all__ = [
    "LinAlgError",
    "cholesky",
    "det",
    "eigh",
    "eigvalsh",
    "inv",
    "matrix_power",
    "pinv",
    "qr",
    "slogdet",
    "solve",
    "solve_triangular",
    "svd",
    "svdvals",
]
