"""Products of vectors, matrices and tensors under NumPy's and PyTorch's names."""

from __future__ import annotations

from typing import Any

from dualgrad.compiler.ir.dims import Dim, same
from dualgrad.compiler.ir.value import dim_text, public
from dualgrad.compiler.ops.arguments import refuse_bools
from dualgrad.compiler.ops.base import (
    LAST,
    Default,
    axis_argument,
    broadcast_shapes,
    no_more_names,
    normalize_axis,
    other_name,
    result_dtype,
)
from dualgrad.compiler.ops.composite import composite
from dualgrad.compiler.ops.contract import matmul
from dualgrad.compiler.ops.einsum import contract_pair
from dualgrad.compiler.ops.elementwise import cast_node
from dualgrad.compiler.ops.linalg_base import case, refused
from dualgrad.compiler.ops.logical import where
from dualgrad.compiler.ops.operands import check_tensors
from dualgrad.compiler.ops.precision import low
from dualgrad.compiler.ops.sample import Sample, samples_of
from dualgrad.compiler.ops.slicing import diagonal
from dualgrad.compiler.ops.view import expand
from dualgrad.runtime.dtype import bool_
from dualgrad.runtime.errors import ShapeError

TWO_AXES = Default(2)


def _promoted(op: str, a: Any, b: Any) -> tuple[Any, Any]:
    dtype = result_dtype(op, [a.type, b.type])
    refuse_bools(op, dtype)
    return cast_node(a, dtype), cast_node(b, dtype)


def _need_rank(op: str, *pairs: tuple[Any, int]) -> None:
    """Refuse operands with another number of dimensions."""
    check_tensors(op, *(x for x, _ in pairs))
    if any(x.ndim != n for x, n in pairs):
        raise ShapeError(
            "operands have other numbers of dimensions",
            op=op,
            expect=", ".join(str(n) for _, n in pairs),
            actual=" and ".join(dim_text(x.shape) for x, _ in pairs),
            hint="use dg.matmul, which takes any numbers of dimensions",
        )


@composite
@low
def _tensordot(a: Any, b: Any, *, first: tuple[int, ...], second: tuple[int, ...]) -> Any:
    a, b = _promoted("tensordot", a, b)
    pairs = {j: i for i, j in zip(first, second, strict=True)}
    left = tuple(f"a{i}" for i in range(a.ndim))
    right = tuple(f"a{pairs[j]}" if j in pairs else f"b{j}" for j in range(b.ndim))
    shared = {left[i] for i in first}
    return contract_pair(a, left, b, right, {*left, *right} - shared)[0]


def _paired(a: Any, b: Any, first: list[int], second: list[int]) -> Any:
    """a with axes of size 1 repeated to the sizes of b's axes."""
    sizes = list(a.shape)
    for i, j in zip(first, second, strict=True):
        sizes[i] = b.shape[j] if sizes[i] == 1 else sizes[i]
    return a if tuple(sizes) == a.shape else expand(a, tuple(sizes))


def tensordot(a: Any, b: Any, axes: Any = TWO_AXES, **dims: Any) -> Any:
    """Return the sum of products over pairs of axes; the other axes of a, then of b, remain.

    `axes` is a number n (the last n axes of a with the first n of b) or a pair of axes or of
    lists of axes.  Raises ShapeError if sizes differ; one of 1 fits any.
    """
    check_tensors("tensordot", a, b)
    axes = other_name("tensordot", "axes", axes, "dims", dims)
    no_more_names("tensordot", dims)
    if isinstance(axes, int):
        first, second = list(range(a.ndim - axes, a.ndim)), list(range(axes))
    else:
        first, second = ([x] if isinstance(x, int) else list(x) for x in axes)
    first = [normalize_axis("tensordot", k, a.ndim) for k in first]
    second = [normalize_axis("tensordot", k, b.ndim) for k in second]
    if len(first) == len(second):
        a, b = _paired(a, b, first, second), _paired(b, a, second, first)
    fits = len(first) == len(second) and all(
        same(a.shape[i], b.shape[j]) for i, j in zip(first, second, strict=True)
    )
    if not fits or len(set(first)) < len(first) or len(set(second)) < len(second):
        raise ShapeError(
            "axes do not fit",
            op="tensordot",
            expect="distinct axes, in pairs of equal size",
            actual=f"axes {first} of {dim_text(a.shape)} and {second} of {dim_text(b.shape)}",
            hint="the summed axes have equal sizes; a.T turns a matrix",
        )
    return _tensordot(a, b, first=tuple(first), second=tuple(second))


@public("dot")
def dot(a: Any, b: Any) -> Any:
    """Return the sum of products over the last axis of a and the last but one of b (the only one
    of a vector), or the product with a tensor without dimensions."""
    check_tensors("dot", a, b)
    if a.ndim == 0 or b.ndim == 0:
        return a * b
    return tensordot(a, b, (a.ndim - 1, max(b.ndim - 2, 0)))


@public("inner")
def inner(a: Any, b: Any) -> Any:
    """Return the sum of products over the last axes of both operands."""
    check_tensors("inner", a, b)
    if a.ndim == 0 or b.ndim == 0:
        return a * b
    return tensordot(a, b, (-1, -1))


@public("vdot")
def vdot(a: Any, b: Any) -> Any:
    """Return the sum of products of all elements, in row-major order."""
    check_tensors("vdot", a, b)
    return tensordot(a.reshape((a.size,)), b.reshape((b.size,)), 1)


@public("outer")
def outer(a: Any, b: Any) -> Any:
    """Return all products of an element of a and one of b: [a.size, b.size]."""
    check_tensors("outer", a, b)
    return a.reshape((a.size, 1)) * b.reshape((1, b.size))


@composite
@low
def _vecdot(a: Any, b: Any, *, axis: int) -> Any:
    a, b = _promoted("vecdot", a, b)
    return cast_node((a * b).sum(axis), a.dtype)


def vecdot(a: Any, b: Any, axis: int = LAST, **dim: Any) -> Any:
    """Return the sums of products along `axis` of operands that broadcast to each other."""
    check_tensors("vecdot", a, b)
    axis = axis_argument("vecdot", axis, dim)
    ndim = len(broadcast_shapes("vecdot", [a.shape, b.shape]))
    return _vecdot(a, b, axis=normalize_axis("vecdot", axis, ndim))


@composite
def _kron(a: Any, b: Any) -> Any:
    rank = max(a.ndim, b.ndim)
    xs = (1,) * (rank - a.ndim) + a.shape
    ys = (1,) * (rank - b.ndim) + b.shape
    left: list[Dim] = [n for x in xs for n in (x, 1)]
    right: list[Dim] = [n for y in ys for n in (1, y)]
    blocks = a.reshape(tuple(left)) * b.reshape(tuple(right))
    return blocks.reshape(tuple(x * y for x, y in zip(xs, ys, strict=True)))


@public("kron")
def kron(a: Any, b: Any) -> Any:
    """Return the Kronecker product: b times each element of a, as blocks of one tensor."""
    return _kron(a, b)


@public("trace")
def trace(x: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """Return the sum along the diagonal of two axes; integers are summed in 64 bits."""
    return diagonal(x, offset, axis1, axis2).sum(-1)


def matrix_trace(x: Any, offset: int = 0) -> Any:
    """Return the sums along the diagonals of matrices [..., M, N]."""
    return trace(x, offset, -2, -1)


# -- PyTorch's names ------------------------------------------------------------------------------


@public("mm")
def mm(a: Any, b: Any) -> Any:
    """Return the product of two matrices."""
    _need_rank("mm", (a, 2), (b, 2))
    return matmul(a, b)


@public("bmm")
def bmm(a: Any, b: Any) -> Any:
    """Return the products of two batches [B, M, K] and [B, K, N] of matrices."""
    _need_rank("bmm", (a, 3), (b, 3))
    if not same(a.shape[0], b.shape[0]):
        raise ShapeError(
            "batches differ",
            op="bmm",
            expect=f"{a.shape[0]}",
            actual=f"{b.shape[0]}",
            hint="use dg.matmul, which broadcasts batches of size 1",
        )
    return matmul(a, b)


@public("mv")
def mv(a: Any, b: Any) -> Any:
    """Return the product of a matrix and a vector."""
    _need_rank("mv", (a, 2), (b, 1))
    return matmul(a, b)


@composite
@low
def _add_product(x: Any, a: Any, b: Any, beta: Any, alpha: Any, *, batched: bool) -> Any:
    product = matmul(a, b)
    product = cast_node(product.sum(0), product.dtype) if batched else product
    return x * beta + product * alpha


@composite
@low
def _plus_product(x: Any, a: Any, b: Any, *, batched: bool) -> Any:
    product = matmul(a, b)
    return x + (cast_node(product.sum(0), product.dtype) if batched else product)


@composite
@low
def _scaled_product(x: Any, a: Any, b: Any, alpha: Any, *, batched: bool) -> Any:
    product = matmul(a, b)
    product = cast_node(product.sum(0), product.dtype) if batched else product
    return where(False, x, product * alpha)  # of the shape and dtype that x asks for


def _added(x: Any, a: Any, b: Any, beta: Any, alpha: Any, batched: bool = False) -> Any:
    if beta == 0:  # what x holds does not matter then, NaN neither
        return _scaled_product(x, a, b, alpha, batched=batched)
    if beta == 1 and alpha == 1:
        return _plus_product(x, a, b, batched=batched)
    return _add_product(x, a, b, beta, alpha, batched=batched)


@public("addmm")
def addmm(x: Any, a: Any, b: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    """Return beta * x + alpha * (a @ b) for matrices a and b; x broadcasts."""
    _need_rank("addmm", (a, 2), (b, 2))
    return _added(x, a, b, beta, alpha)


@public("addmv")
def addmv(x: Any, a: Any, b: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    """Return beta * x + alpha * (a @ b) for a matrix a and a vector b; x broadcasts."""
    _need_rank("addmv", (a, 2), (b, 1))
    return _added(x, a, b, beta, alpha)


@public("baddbmm")
def baddbmm(x: Any, a: Any, b: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    """Return beta * x + alpha * (a @ b) for batches of matrices; x broadcasts."""
    _need_rank("baddbmm", (a, 3), (b, 3))
    return _added(x, a, b, beta, alpha)


@public("addbmm")
def addbmm(x: Any, a: Any, b: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    """Return beta * x + alpha * (the sum of a @ b over the batch); x broadcasts."""
    _need_rank("addbmm", (a, 3), (b, 3))
    return _added(x, a, b, beta, alpha, batched=True)


@composite
@low
def _addr(x: Any, a: Any, b: Any, beta: Any, alpha: Any) -> Any:
    return x * beta + outer(a, b) * alpha


@composite
@low
def _outer_only(x: Any, a: Any, b: Any, alpha: Any) -> Any:
    return where(False, x, outer(a, b) * alpha)


@public("addr")
def addr(x: Any, a: Any, b: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    """Return beta * x + alpha * outer(a, b) for vectors a and b; x broadcasts.

    Of bools the product is `and`, the sum `or`; beta and alpha count as bools too.
    """
    check_tensors("addr", x)
    _need_rank("addr", (a, 1), (b, 1))
    if all(v.dtype is bool_ for v in (x, a, b)):  # so are the numbers
        beta, alpha = bool(beta), bool(alpha)
    if beta == 0:
        return _outer_only(x, a, b, alpha)
    return _addr(x, a, b, beta, alpha)


# -- samples --------------------------------------------------------------------------------------


def _pairs(function: Any, name: str, *shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> Any:
    return [case(function, lambda np, x, y: getattr(np, name)(x, y), *pair) for pair in shapes]


@samples_of(tensordot)
def _tensordot_samples() -> list[Sample]:
    def good(a: tuple[int, ...], b: tuple[int, ...], axes: Any) -> Sample:
        return case(
            lambda x, y: tensordot(x, y, axes), lambda np, x, y: np.tensordot(x, y, axes), a, b
        )

    return [
        good((2, 3, 4), (3, 4, 5), 2),
        good((2, 3), (4,), 0),
        good((2, 3, 4), (4, 3, 2), ((0, 2), (2, 0))),
        good((2, 3), (5, 3), (1, 1)),
        good((2, 3), (2, 3), ((0, 1), (0, 1))),
        refused(lambda x, y: tensordot(x, y, 1), "axes do not fit", (2, 3), (4, 3)),
    ]


@samples_of(dot)
def _dot_samples() -> list[Sample]:
    shapes = [((3,), (3,)), ((2, 3), (3,)), ((2, 3), (3, 4)), ((2, 3), (5, 3, 4)), ((), (3,))]
    return _pairs(dot, "dot", *shapes)  # type: ignore[no-any-return]


@samples_of(inner)
def _inner_samples() -> list[Sample]:
    shapes = (((3,), (3,)), ((2, 3), (4, 3)), ((2, 3), ()))
    return _pairs(inner, "inner", *shapes)  # type: ignore[no-any-return]


@samples_of(vdot)
def _vdot_samples() -> list[Sample]:
    return _pairs(vdot, "vdot", ((3,), (3,)), ((2, 3), (2, 3)))  # type: ignore[no-any-return]


@samples_of(outer)
def _outer_samples() -> list[Sample]:
    return _pairs(outer, "outer", ((3,), (4,)), ((2, 2), (0,)))  # type: ignore[no-any-return]


@samples_of(kron)
def _kron_samples() -> list[Sample]:
    shapes = (((2, 3), (4, 2)), ((3,), (2, 2)), ((2, 1, 3), (2,)), ((), (3,)), ((0, 2), (2, 2)))
    return _pairs(kron, "kron", *shapes)  # type: ignore[no-any-return]


@samples_of(vecdot)
def _vecdot_samples() -> list[Sample]:
    def good(a: tuple[int, ...], b: tuple[int, ...], axis: int) -> Sample:
        return case(
            lambda x, y: vecdot(x, y, axis),
            lambda np, x, y: (x * y).sum(axis),
            a,
            b,
        )

    return [good((3, 4), (3, 4), -1), good((3, 4), (3, 1), 0), good((2, 3, 4), (4,), -1)]


@samples_of(trace)
def _trace_samples() -> list[Sample]:
    def good(shape: tuple[int, ...], *rest: int) -> Sample:
        return case(lambda x: trace(x, *rest), lambda np, x: np.trace(x, *rest), shape)

    last = case(matrix_trace, lambda np, x: np.trace(x, 0, -2, -1), (2, 3, 4))
    bad = refused(lambda x: trace(x, 0, 1, 1), "needs two axes", (2, 2))
    return [good((3, 3)), good((3, 4), 1), good((2, 3, 4), -1, 2, 0), good((0, 3)), last, bad]


@samples_of(addmm)
def _addmm_samples() -> list[Sample]:
    def good(function: Any, formula: Any, *shapes: tuple[int, ...], **scale: float) -> Sample:
        def reference(np: Any, x: Any, a: Any, b: Any) -> Any:
            return scale.get("beta", 1) * x + scale.get("alpha", 1) * formula(np, a, b)

        return case(lambda x, a, b: function(x, a, b, **scale), reference, *shapes)

    def product(np: Any, a: Any, b: Any) -> Any:
        return a @ b

    both = {"beta": 0.5, "alpha": 2.0}
    return [
        good(addmm, product, (2, 4), (2, 3), (3, 4)),
        good(addmm, product, (4,), (2, 3), (3, 4), **both),
        good(addmm, product, (2, 4), (2, 3), (3, 4), beta=0, alpha=3.0),
        good(addmv, product, (2,), (2, 3), (3,), **both),
        good(baddbmm, product, (2, 2, 4), (2, 2, 3), (2, 3, 4), **both),
        good(addbmm, lambda np, a, b: (a @ b).sum(0), (2, 4), (3, 2, 5), (3, 5, 4), **both),
        good(addr, lambda np, a, b: np.outer(a, b), (2, 3), (2,), (3,), **both),
        refused(addmm, "other numbers of dimensions", (2, 2), (2, 2, 2), (2, 2)),
        refused(lambda x, y: mm(x, y), "other numbers of dimensions", (2,), (2, 2)),
        refused(lambda x, y: bmm(x, y), "batches differ", (2, 2, 2), (3, 2, 2)),
        refused(lambda x, y: mv(x, y), "other numbers of dimensions", (2, 2), (2, 2)),
    ]


@samples_of(mm)
def _mm_samples() -> list[Sample]:
    bad = refused(mm, "other numbers of dimensions", (2,), (2, 2))
    return [case(mm, lambda np, a, b: a @ b, (2, 3), (3, 4)), bad]


@samples_of(bmm)
def _bmm_samples() -> list[Sample]:
    bad = refused(bmm, "batches differ", (2, 2, 2), (3, 2, 2))
    return [case(bmm, lambda np, a, b: a @ b, (2, 2, 3), (2, 3, 4)), bad]


@samples_of(mv)
def _mv_samples() -> list[Sample]:
    bad = refused(mv, "other numbers of dimensions", (2, 2), (2, 2))
    return [case(mv, lambda np, a, b: a @ b, (2, 3), (3,)), bad]
