"""Norms of vectors and matrices, condition numbers, ranks."""

from __future__ import annotations

import math
from typing import Any

from dualgrad.compiler.ir.value import dim_text
from dualgrad.compiler.ops.arithmetic import absolute, maximum
from dualgrad.compiler.ops.axes import movedim
from dualgrad.compiler.ops.base import LAST_TWO, axes_of, axis_argument, keep_argument
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.create import count
from dualgrad.compiler.ops.elementwise import cast_node
from dualgrad.compiler.ops.linalg_base import (
    as_floats,
    case,
    epsilon,
    need_matrix,
    need_square,
    np_shifted,
    refused,
    shifted,
    shorter,
)
from dualgrad.compiler.ops.linalg_solve import inv
from dualgrad.compiler.ops.linalg_spectral import Eigvalsh, Svdvals
from dualgrad.compiler.ops.operands import check_tensors
from dualgrad.compiler.ops.precision import single
from dualgrad.compiler.ops.sample import Sample, samples_of
from dualgrad.compiler.ops.statistics import root, vector_norm
from dualgrad.runtime.dtype import int64
from dualgrad.runtime.errors import ArgumentError, ShapeError

MATRIX_NORMS = ("fro", "nuc", 1, -1, 2, -2, math.inf, -math.inf)


def _need_elements(op: str, x: Any, axes: tuple[int, ...]) -> None:
    if any(x.shape[a] == 0 for a in axes):
        raise ShapeError(
            "this norm needs elements",
            op=op,
            expect="no size 0",
            actual=dim_text(x.shape),
            hint="look where a size of 0 comes from",
        )


@composite
@single
def _matrix_norm(x: Any, *, ord: Any, axes: tuple[int, ...], keepdims: bool) -> Any:
    (x,) = as_floats("matrix_norm", x)
    if ord == "fro":
        return root((x * x).sum(axes, keepdims))
    moved = movedim(x, axes, (-2, -1))
    if ord in ("nuc", 2, -2):
        s = Svdvals.of().on(moved)
        out = s.sum(-1) if ord == "nuc" else s.max(-1) if ord == 2 else s.min(-1)
    else:
        sums = absolute(moved).sum(-2 if abs(ord) == 1 else -1)
        out = sums.max(-1) if ord > 0 else sums.min(-1)
    if not keepdims:
        return out
    return out.reshape(tuple(1 if k in axes else n for k, n in enumerate(x.shape)))


def matrix_norm(
    x: Any, ord: Any = "fro", axis: Any = LAST_TWO, keepdims: bool = False, **dim: Any
) -> Any:
    """Return the norm of the matrices of x over two axes.

    "fro": root of the sum of squares; "nuc": sum of singular values; 2, -2: largest, smallest
    singular value; 1, -1: largest, smallest sum of magnitudes of a column; inf, -inf: of a row.
    """
    keep = keep_argument("matrix_norm", axis, keepdims, dim)
    axis = axis_argument("matrix_norm", axis, dim)
    need_matrix("matrix_norm", x)
    if isinstance(ord, bool) or ord not in MATRIX_NORMS:
        raise ArgumentError(
            "no such norm",
            op="matrix_norm",
            expect=", ".join(map(repr, MATRIX_NORMS)),
            actual=repr(ord),
            hint="leave ord out for 'fro'",
        )
    if not isinstance(axis, tuple | list) or len(axis) != 2:
        raise ShapeError(
            "needs two axes",
            op="matrix_norm",
            expect="(a, b)",
            actual=repr(axis),
            hint="give two different axes, or use vector_norm for one",
        )
    axes_of("matrix_norm", axis, x.ndim)  # refuses axes that are no axes
    axes = tuple(a % x.ndim for a in axis)
    kind = ord if isinstance(ord, str) else float(ord)
    reduced = {1.0: axes[1:], math.inf: axes[:1], 2.0: axes}
    _need_elements("matrix_norm", x, () if isinstance(kind, str) else reduced[abs(kind)])
    return _matrix_norm(x, ord=kind, axes=axes, keepdims=keep)


def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False, **dim: Any) -> Any:
    """Return the norm of vectors (one axis), matrices (two axes), or of all elements.

    Without `ord` the root of the sum of squares; see `vector_norm` and `matrix_norm`.
    """
    keep = keep_argument("norm", axis, keepdims, dim)
    axis = axis_argument("norm", axis, dim)
    if axis is None and ord is not None:
        if x.ndim > 2:
            raise ShapeError(
                "which axes?",
                op="norm",
                expect="an axis",
                actual=dim_text(x.shape),
                hint="name them: axis=-1 for vectors, axis=(-2, -1) for matrices",
            )
        axis = tuple(range(x.ndim))
    two = isinstance(axis, tuple | list) and len(axis) == 2
    if two and ord is not None:
        return matrix_norm(x, ord, axis, keep)
    return vector_norm(x, 2 if ord is None else ord, axis, keep)


@composite
@single
def _ratio(x: Any, *, smallest_first: bool) -> Any:
    s = Svdvals.of().on(*as_floats("cond", x))
    low, high = s.min(-1), s.max(-1)
    return low / high if smallest_first else high / low


def cond(x: Any, p: Any = None) -> Any:
    """Return the condition numbers of matrices: norm(x) * norm(inv(x)), in the norm `p`.

    p None or 2: largest by smallest singular value, for [..., M, N]; -2 the inverse of that.
    Raises LinAlgError for other norms of a singular matrix.
    """
    need_matrix("cond", x)
    if p in (None, 2, -2):
        _need_elements("cond", x, (x.ndim - 2, x.ndim - 1))
        return _ratio(x, smallest_first=p == -2)
    need_square("cond", x)
    return matrix_norm(x, p) * matrix_norm(inv(x), p)


@composite
@single
def _matrix_rank(x: Any, atol: Any, rtol: Any, *, usual: bool, hermitian: bool) -> Any:
    (x,) = as_floats("matrix_rank", x)
    if usual:
        m, n = x.shape[-2:]
        rtol = count(m + n - shorter(m, n), x.dtype) * epsilon(x.dtype)
    s = absolute(Eigvalsh.of("L").on(x)) if hermitian else Svdvals.of().on(x)
    limit = maximum(s.max(-1) * rtol, atol)
    return cast_node(s > limit.unsqueeze(-1), int64).sum(-1)


def matrix_rank(
    x: Any,
    tol: Any = None,
    hermitian: bool = False,
    *,
    atol: Any = None,
    rtol: Any = None,
) -> Any:
    """Return the int64 numbers of singular values above max(atol, rtol * the largest).

    Unless one of them is given, rtol is max(M, N) * epsilon of the dtype; they are numbers or
    tensors [...].  `tol` is another name of `atol`.  A vector has rank 1 unless it is zero.
    """
    check_tensors("matrix_rank", x)
    if x.ndim < 2:
        return _vector_rank(x)
    absolute_limit = tol if atol is None else atol
    if x.shape[-1] == 0 or x.shape[-2] == 0:
        return _no_rank(x)
    return _matrix_rank(
        x,
        0.0 if absolute_limit is None else absolute_limit,
        0.0 if rtol is None else rtol,
        usual=absolute_limit is None and rtol is None,
        hermitian=bool(hermitian),
    )


@composite
def _vector_rank(x: Any) -> Any:
    return cast_node(x.ne(0), int64).max()


@composite
def _no_rank(x: Any) -> Any:
    return cast_node(x, int64).sum((-2, -1))


# -- samples --------------------------------------------------------------------------------------


@samples_of(matrix_norm)
def _matrix_norm_samples() -> list[Sample]:
    def good(ord: Any, shape: tuple[int, ...], axis: Any = (-2, -1), keep: bool = False) -> Sample:
        return case(
            lambda x: matrix_norm(x, ord, axis, keep),
            lambda np, x: np.linalg.norm(x, ord, axis, keep),
            shape,
        )

    return [
        *(good(p, (3, 4)) for p in MATRIX_NORMS),
        good("fro", (2, 3, 4), (0, 2), True),
        good("nuc", (2, 3, 4), (2, 0), True),
        good(1, (2, 3, 4), (2, 1)),
        good(math.inf, (2, 3, 4), (0, 1)),
        good("nuc", (0, 3)),
        refused(lambda x: matrix_norm(x, 3), "no such norm", (3, 3)),
        refused(lambda x: matrix_norm(x, "fro", (0,)), "needs two axes", (3, 3)),
    ]


@samples_of(norm)
def _norm_samples() -> list[Sample]:
    def good(shape: tuple[int, ...], ord: Any = None, axis: Any = None) -> Sample:
        return case(lambda x: norm(x, ord, axis), lambda np, x: np.linalg.norm(x, ord, axis), shape)

    return [
        good((2, 3, 4)),
        good((4,), 3),
        good((3, 4), "nuc"),
        good((2, 3, 4), 1, (1, 2)),
        good((2, 3, 4), None, (1, 2)),
        good((3, 4), 1, 1),
        refused(lambda x: norm(x, 2), "which axes", (2, 2, 2)),
    ]


@samples_of(cond)
def _cond_samples() -> list[Sample]:
    def good(p: Any, shape: tuple[int, ...]) -> Sample:
        return case(
            lambda x: cond(shifted(x), p), lambda np, x: np.linalg.cond(np_shifted(np, x), p), shape
        )

    tall = case(cond, lambda np, x: np.linalg.cond(x), (4, 2), relative=1e-5)
    return [*(good(p, (3, 3)) for p in (None, 2, -2, 1, "fro", math.inf)), good(1, (2, 3, 3)), tall]


@samples_of(matrix_rank)
def _matrix_rank_samples() -> list[Sample]:
    def good(shape: tuple[int, ...], **more: Any) -> Sample:
        return Sample(
            matrix_rank,
            case(matrix_rank, matrix_rank, shape, **more).args,
            lambda np, x: np.int64(np.linalg.matrix_rank(np.asarray(x, np.float64))),
            gradient=False,
        )

    def limited(**limits: Any) -> Sample:
        return Sample(
            lambda x: matrix_rank(x, **limits),
            case(matrix_rank, matrix_rank, (3, 3), values=(3.0, 0, 0, 0, 0.5, 0, 0, 0, 0)).args,
            lambda np, x: np.int64(np.linalg.matrix_rank(np.asarray(x, np.float64), **limits)),
            gradient=False,
        )

    return [
        good((3, 4)),
        good((2, 3, 3), values=(1.0, 2.0, 3.0)),
        good((3, 3), values=(0.0,)),
        good((5,)),
        good((2, 0, 3)),
        limited(tol=1.0),
        limited(rtol=0.3),
        limited(hermitian=True),
    ]
