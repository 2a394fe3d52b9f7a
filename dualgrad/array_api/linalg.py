"""The extension `linalg` of the array API standard.

`eig` and `eigvals` are missing: their results are complex.
"""

from __future__ import annotations

from typing import Any

from dualgrad.compiler.ops import linalg_norms, linalg_spectral
from dualgrad.compiler.ops.axes import matrix_transpose
from dualgrad.compiler.ops.contract import matmul
from dualgrad.compiler.ops.linalg_factor import cholesky, qr
from dualgrad.compiler.ops.linalg_more import cross
from dualgrad.compiler.ops.linalg_norms import matrix_norm
from dualgrad.compiler.ops.linalg_solve import det, inv, matrix_power, slogdet, solve
from dualgrad.compiler.ops.linalg_spectral import eigh, eigvalsh, svd, svdvals
from dualgrad.compiler.ops.logical import where
from dualgrad.compiler.ops.products import outer, tensordot, vecdot
from dualgrad.compiler.ops.statistics import vector_norm
from dualgrad.linalg import diagonal
from dualgrad.tensor import Tensor

__all__ = [
    "cholesky",
    "cross",
    "det",
    "diagonal",
    "eigh",
    "eigvalsh",
    "inv",
    "matmul",
    "matrix_norm",
    "matrix_power",
    "matrix_rank",
    "matrix_transpose",
    "outer",
    "pinv",
    "qr",
    "slogdet",
    "solve",
    "svd",
    "svdvals",
    "tensordot",
    "trace",
    "vecdot",
    "vector_norm",
]


def matrix_rank(x: Tensor, /, *, rtol: float | Tensor | None = None) -> Tensor:
    """Return the int64 numbers [...] of singular values above rtol * the largest of x [..., M, N].

    rtol is a number or a tensor [...]; by default max(M, N) * epsilon of the dtype.
    """
    out: Tensor = linalg_norms.matrix_rank(x, rtol=rtol)
    return out


def pinv(x: Tensor, /, *, rtol: float | Tensor | None = None) -> Tensor:
    """Return the Moore-Penrose inverses [..., N, M] of x [..., M, N].

    Singular values up to rtol * the largest count as zero; rtol is a number or a tensor [...], by
    default max(M, N) * epsilon of the dtype.
    """
    if not isinstance(rtol, Tensor) or not rtol.ndim:
        whole: Tensor = linalg_spectral.pinv(x, rtol=rtol)  # type: ignore[arg-type]
        return whole
    u, s, vh = svd(x, full_matrices=False)
    kept = s > rtol[..., None] * s[..., :1]
    inverse = where(kept, 1.0 / where(kept, s, 1.0), 0.0)
    out: Tensor = (vh.mT * inverse[..., None, :]) @ u.mT
    return out


def trace(x: Tensor, /, *, offset: int = 0, dtype: Any = None) -> Tensor:
    """Return the sums along a diagonal of matrices [..., M, N]; integers are summed in 64 bits
    unless a dtype is given."""
    out: Tensor = diagonal(x, offset).sum(-1, dtype=dtype)
    return out
