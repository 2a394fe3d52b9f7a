"""Linear algebra beyond the samples of its ops: identities, empty and batched operands, errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import Array, as_array, both, same_bits, tensors_in

import dualgrad as dg
from dualgrad import linalg
from dualgrad.compiler.ops.einsum import plan
from dualgrad.compiler.ops.linalg_more import chain_order
from dualgrad.runtime.errors import ArgumentError, DTypeError, GradientError, ShapeError

F = ("float32", "float64")
NAN = float("nan")


def drawn(*shape: int, dtype: str = "float64", seed: int = 3) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def positive(n: int, dtype: str = "float64") -> Array:
    a = drawn(n, n, dtype=dtype)
    return (a @ a.T + n * np.eye(n)).astype(dtype)


# -- the same numbers in both modes, for sizes at which libraries block and use threads -----------

LARGE: tuple[Callable[..., Any], ...] = (
    linalg.inv,
    linalg.det,
    linalg.slogdet,
    linalg.cholesky,
    linalg.qr,
    linalg.eigh,
    linalg.svd,
    linalg.svdvals,
    linalg.pinv,
    lambda x: linalg.solve(x, x.narrow(1, 0, 7)),
    lambda x: linalg.lstsq(x.narrow(1, 0, 20), x),
)


@pytest.mark.parametrize("function", LARGE)
@pytest.mark.parametrize("dtype", F)
def test_large_matrices(function: Callable[..., Any], dtype: str) -> None:
    eager, static = both(function, lambda: (dg.tensor(positive(65, dtype)),))
    for got, want in zip(tensors_in(static), tensors_in(eager), strict=True):
        assert as_array(want).dtype == (dtype if want.dtype.is_float else np.int64)
        same_bits(got, want)


def test_gradients_of_large_matrices_in_both_modes() -> None:
    def f(x: dg.Tensor) -> Any:
        (linalg.slogdet(x)[1] + linalg.svdvals(x).sum() + linalg.inv(x).sum()).backward()
        return x.grad

    eager, static = both(f, lambda: (dg.tensor(positive(40), requires_grad=True),))
    same_bits(static, eager)
    a = positive(40)
    u, _, vt = np.linalg.svd(a)
    inverse = np.linalg.inv(a)
    want = inverse.T + u @ vt - inverse.T @ np.ones((40, 40)) @ inverse.T
    np.testing.assert_allclose(as_array(eager), want, atol=1e-12)


# -- identities -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 5), (3, 7, 4), (2, 3, 4, 6), (1, 1)])
def test_factors_multiply_to_the_matrix(shape: tuple[int, ...]) -> None:
    a = drawn(*shape)
    x = dg.tensor(a)
    for mode in ("reduced", "complete"):
        q, r = linalg.qr(x, mode)
        np.testing.assert_allclose(as_array(q @ r), a, atol=1e-13)
        np.testing.assert_allclose(as_array(q.mT @ q) - np.eye(q.shape[-1]), 0, atol=1e-13)
    u, s, vh = linalg.svd(x, full_matrices=False)
    np.testing.assert_allclose(as_array(u * s.unsqueeze(-2) @ vh), a, atol=1e-13)
    gram = x @ x.mT + dg.tensor(np.eye(shape[-2]))
    low = linalg.cholesky(gram)
    np.testing.assert_allclose(as_array(low @ low.mT), as_array(gram), atol=1e-12)
    w, v = linalg.eigh(gram)
    np.testing.assert_allclose(as_array(v * w.unsqueeze(-2) @ v.mT), as_array(gram), atol=1e-12)


def test_numpys_own_bits() -> None:
    a, b = positive(6), drawn(6, 2)
    x, y = dg.tensor(a), dg.tensor(b)
    same_bits(linalg.solve(x, y), np.linalg.solve(a, b))
    same_bits(linalg.cholesky(x), np.linalg.cholesky(a))
    for got, want in zip(linalg.svd(x), np.linalg.svd(a), strict=True):
        same_bits(got, want)
    for got, want in zip(linalg.eigh(x), np.linalg.eigh(a), strict=True):
        same_bits(got, want)
    for got, want in zip(linalg.qr(x), np.linalg.qr(a), strict=True):
        same_bits(got, want)


def test_solve_triangular() -> None:
    a, b = drawn(4, 4) + 5 * np.eye(4), drawn(4, 3)
    x, y = dg.tensor(a), dg.tensor(b)
    for upper in (False, True):
        part = np.triu(a) if upper else np.tril(a)
        got = linalg.solve_triangular(x, y, upper=upper)
        np.testing.assert_allclose(as_array(got), np.linalg.solve(part, b), atol=1e-14)
        unit = part - np.diag(np.diag(part)) + np.eye(4)
        got = linalg.solve_triangular(x, y, upper=upper, unitriangular=True)
        np.testing.assert_allclose(as_array(got), np.linalg.solve(unit, b), atol=1e-11)
        got = linalg.solve_triangular(x, y.T, upper=upper, left=False)
        np.testing.assert_allclose(as_array(got @ dg.tensor(part)), b.T, atol=1e-13)


@pytest.mark.parametrize("n", [-2, -1, 0, 1, 2, 3, 5, 10])
def test_matrix_power(n: int) -> None:
    a = drawn(2, 3, 3) + 3 * np.eye(3)
    got = linalg.matrix_power(dg.tensor(a), n)
    np.testing.assert_allclose(as_array(got), np.linalg.matrix_power(a, n), rtol=1e-9)
    eager, static = both(lambda x: linalg.matrix_power(x, n) + 1, lambda: (dg.tensor(a),))
    same_bits(static, eager)


def test_inside_of_a_composite_for_sizes_that_are_symbols() -> None:
    @dg.composite
    def everything(x: Any) -> Any:
        gram = x @ x.mT
        parts = [linalg.pinv(x), linalg.lstsq(x, x)[0], linalg.cholesky(gram), *linalg.qr(x)]
        parts += [linalg.svdvals(x), linalg.solve(gram, x), linalg.matrix_rank(x) * 1.0]
        parts += [*linalg.eigh(gram), linalg.det(gram), dg.einsum("ij,kj->", x, gram @ x)]
        return sum((p.abs().sum() for p in parts), x.sum())

    for m, n in ((2, 4), (3, 5), (4, 2), (3, 3), (2, 4)):
        x = dg.tensor(drawn(m, n) if m <= n else drawn(n, n + 1))
        want = everything.__wrapped__(x)  # type: ignore[attr-defined]
        np.testing.assert_allclose(as_array(everything(x)), as_array(want), rtol=1e-11)


# -- least squares --------------------------------------------------------------------------------


def test_least_squares_of_deficient_rank() -> None:
    a = drawn(6, 2) @ drawn(2, 4, seed=4)
    b = drawn(6, 3)
    x, residuals, rank, s = linalg.lstsq(dg.tensor(a), dg.tensor(b))
    want, _, r, sv = np.linalg.lstsq(a, b)
    np.testing.assert_allclose(as_array(x), want, atol=1e-12)
    assert as_array(rank) == r == 2
    assert rank.dtype is dg.int64
    np.testing.assert_allclose(as_array(s), sv, atol=1e-14)
    np.testing.assert_allclose(as_array(residuals), ((a @ want - b) ** 2).sum(0))


def test_least_squares_in_batches() -> None:
    a, b = drawn(2, 1, 5, 3), drawn(3, 5, 2)
    x, residuals, rank, s = linalg.lstsq(dg.tensor(a), dg.tensor(b), rcond=1e-9)
    assert (x.shape, residuals.shape, rank.shape, s.shape) == (
        (2, 3, 3, 2), (2, 3, 2), (2, 3), (2, 3, 3),
    )  # fmt: skip
    want = np.linalg.lstsq(a[1, 0], b[2])[0]
    np.testing.assert_allclose(as_array(x)[1, 2], want, atol=1e-13)


# -- gradients where matrices are special ---------------------------------------------------------


def test_equal_values_have_a_gradient_if_their_vectors_do_not_matter() -> None:
    x = dg.tensor(np.eye(3) * 2, requires_grad=True)
    w, v = linalg.eigh(x)
    (w * w).sum().backward()
    np.testing.assert_allclose(as_array(x.grad), np.eye(3) * 4, atol=1e-13)
    x.grad = None
    _, s, _ = linalg.svd(x)
    (s * s).sum().backward()
    np.testing.assert_allclose(as_array(x.grad), np.eye(3) * 4, atol=1e-13)
    x.grad = None
    w, v = linalg.eigh(x)
    (v * dg.tensor(drawn(3, 3))).sum().backward()
    assert not np.isfinite(as_array(x.grad)).all()  # no wrong number pretends to be right


def test_singular_values_of_a_singular_matrix_have_a_gradient() -> None:
    x = dg.tensor(np.diag([3.0, 1.0, 0.0]), requires_grad=True)
    linalg.svdvals(x).narrow(0, 0, 2).sum().backward()
    np.testing.assert_allclose(as_array(x.grad), np.diag([1.0, 1.0, 0.0]), atol=1e-14)


def test_complete_qr_of_a_tall_matrix_has_no_gradient() -> None:
    with pytest.raises(GradientError, match=r"columns of q beyond those of x"):
        linalg.qr(dg.tensor(drawn(4, 2), requires_grad=True), "complete")


def test_norm_at_zero() -> None:
    x = dg.zeros(2, 2, requires_grad=True)
    linalg.matrix_norm(x).backward()
    same_bits(x.grad, np.zeros((2, 2), np.float32))


# -- nothing, and too little ----------------------------------------------------------------------


def test_empty_operands() -> None:
    none, wide = dg.zeros(0, 0), dg.zeros(2, 0, 3)
    assert as_array(linalg.det(none)) == 1
    assert as_array(linalg.slogdet(none)[0]) == 1
    assert linalg.inv(none).shape == (0, 0)
    assert linalg.solve(none, dg.zeros(0, 4)).shape == (0, 4)
    assert linalg.cholesky(dg.zeros(3, 0, 0)).shape == (3, 0, 0)
    assert [y.shape for y in linalg.qr(wide)] == [(2, 0, 0), (2, 0, 3)]
    assert [y.shape for y in linalg.svd(wide)] == [(2, 0, 0), (2, 0), (2, 3, 3)]
    same_bits(linalg.svd(wide)[2], np.broadcast_to(np.eye(3, dtype=np.float32), (2, 3, 3)))
    assert linalg.pinv(wide).shape == (2, 3, 0)
    same_bits(linalg.matrix_rank(wide), np.zeros(2, np.int64))
    assert [y.shape for y in linalg.eigh(dg.zeros(0, 3, 3))] == [(0, 3), (0, 3, 3)]
    same_bits(dg.einsum("ij,jk", dg.zeros(2, 0), dg.zeros(0, 3)), np.zeros((2, 3), np.float32))


def test_integers_become_floats() -> None:
    x = dg.tensor([[2, 1], [1, 3]])
    for y in (linalg.det(x), linalg.inv(x), linalg.svdvals(x), linalg.norm(x), *linalg.qr(x)):
        assert y.dtype is dg.float32
    assert dg.einsum("ij,jk", x, x).dtype is dg.int64
    assert dg.tensordot(x, x.to(dg.int32)).dtype is dg.int64
    assert dg.einsum("ij->", x.to(dg.int32)).dtype is dg.int32


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: linalg.inv(dg.ones(2, 3)), ShapeError, r"\[inv\] takes square matrices"),
        (lambda: linalg.svd(dg.ones(3)), ShapeError, r"\[svd\] takes a matrix or a batch"),
        (lambda: linalg.inv(dg.ones(3, 3)), linalg.LinAlgError, r"\[inv\] singular matrix"),
        (lambda: linalg.cholesky(-dg.ones(1, 1)), np.linalg.LinAlgError, "not positive definite"),
        (lambda: linalg.svd(dg.full((2, 2), NAN)), linalg.LinAlgError, "did not converge"),
        (lambda: linalg.multi_dot([dg.ones(2, 2)]), ArgumentError, "nothing to multiply"),
        (lambda: linalg.matrix_norm(dg.ones(2, 2), "max"), ArgumentError, "'fro', 'nuc', 1"),
        (lambda: linalg.cross(dg.ones(2), dg.ones(2)), ShapeError, "3 elements"),
        (lambda: dg.einsum("ij", dg.ones(2, 2) > 0), DTypeError, "bools"),
    ],
)  # fmt: skip
def test_refused(call: Callable[[], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text) as caught:
        call()
    assert "test_linalg.py" in str(caught.value)


# -- orders of contraction ------------------------------------------------------------------------


def test_the_cheapest_order_is_taken() -> None:
    # the example of Cormen et al., "Introduction to Algorithms", section 15.2
    assert chain_order((30, 35, 15, 5, 10, 20, 25)) == ((0, (1, 2)), ((3, 4), 5))
    sizes = (("a", 2), ("b", 100), ("c", 3), ("d", 100), ("e", 2))
    terms = (("a", "b"), ("b", "c"), ("c", "d"), ("d", "e"))
    assert set(plan(terms, ("a", "e"), sizes)[:2]) == {(0, 1)}
    seven = tuple((x, y) for x, y in zip("abcdefg", "bcdefgh", strict=True))
    small = tuple((x, 1000 if x in "ah" else 2) for x in "abcdefgh")
    path = plan(seven, ("a", "h"), small)
    assert len(path) == 6
    assert path[0] != (0, 1)  # the long axes wait


def test_all_orders_give_the_same_sums() -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-3, 4, s) for s in ((2, 3), (3, 4), (4, 2, 3), (3,), (2,))]
    equation = "ab,bc,cad,d,a->bd"
    want = np.einsum(equation, *arrays)
    xs = [dg.tensor(a) for a in arrays]
    same_bits(dg.einsum(equation, *xs), want)
    same_bits(dg.einsum(equation, *xs, optimize=False), want)
    same_bits(dg.einsum(equation, xs), want)
    many = "ab,bc,ca,ab,bc,ca,a->c"
    picks = [rng.integers(-2, 3, (3, 3)) for _ in range(6)] + [rng.integers(-2, 3, 3)]
    same_bits(dg.einsum(many, *map(dg.tensor, picks)), np.einsum(many, *picks))


def test_einsum_with_gradient_in_both_modes() -> None:
    def f(q: dg.Tensor, k: dg.Tensor, v: dg.Tensor) -> Any:
        scores = dg.einsum("bqhd,bkhd->bhqk", q, k).softmax()
        dg.einsum("bhqk,bkhd->bqhd", scores, v).square().sum().backward()
        return q.grad, k.grad, v.grad

    def make() -> tuple[dg.Tensor, ...]:
        arrays = (drawn(2, n, 3, 4, dtype="float32", seed=n) for n in (5, 6, 6))
        return tuple(dg.tensor(a, requires_grad=True) for a in arrays)

    eager, static = both(f, make)
    for got, want in zip(static, eager, strict=True):
        same_bits(got, want)
