"""Reductions and scans: accuracy, NumPy's edge cases, sizes that change, gradients at corners."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import Array, as_array, same_bits

import dualgrad as dg
from dualgrad.runtime.errors import DTypeError, ShapeError

INF, NAN = float("inf"), float("nan")
RNG = np.random.default_rng(3)


# -- accuracy -------------------------------------------------------------------------------------


def test_sums_of_many_numbers_are_accurate() -> None:
    x = RNG.standard_normal(10_000_000).astype(np.float32)
    exact, size = x.sum(dtype=np.float64), np.abs(x).sum(dtype=np.float64)
    for axis, shape in ((None, (10_000_000,)), (0, (2_500_000, 4))):
        got = as_array(dg.from_numpy(x.reshape(shape)).sum(axis)).astype(np.float64)
        assert abs(got.sum() - exact) < 1e-6 * size
    assert abs(float(dg.from_numpy(x).mean().item()) * x.size - exact) < 1e-6 * size


def test_running_sums_are_rounded_once() -> None:
    x = RNG.standard_normal((3, 100_000)).astype(np.float32)
    exact = np.cumsum(x.astype(np.longdouble), 1)
    got = as_array(dg.from_numpy(x).cumsum(1))
    assert (np.abs(got - exact) <= 0.5001 * np.spacing(np.abs(got))).all()


def test_variance_of_numbers_far_from_zero() -> None:
    x = (RNG.standard_normal(100_000) + 1e4).astype(np.float32)
    exact = x.astype(np.float64).var()
    assert abs(dg.from_numpy(x).var().item() / exact - 1) < 1e-4


# -- NumPy's edge cases ---------------------------------------------------------------------------

REDUCTIONS = ("sum", "prod", "mean", "max", "min", "any", "all", "var", "std", "count_nonzero")


def outcome(call: Callable[[], Any]) -> Any:
    """The result as an array, or the kind of error."""
    with np.errstate(all="ignore"):
        try:
            return np.asarray(as_array(call()))
        except (ValueError, TypeError):
            return "refused"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (3, 0), (1,), (2, 1, 3)], ids=str)
def test_empty_and_small_inputs(name: str, shape: tuple[int, ...]) -> None:
    x = np.ones(shape, np.float32) * 2
    for axis in (None, *range(len(shape)), -1, (), tuple(range(len(shape))), (0, -1), 5):
        if shape == () and axis in (-1, (0, -1)):
            continue
        for keep in (False, True):
            want = outcome(lambda a=axis, k=keep: getattr(np, name)(x, axis=a, keepdims=k))
            got = outcome(
                lambda a=axis, k=keep: getattr(dg, name)(dg.tensor(x), axis=a, keepdims=k)
            )
            if isinstance(want, str) or isinstance(got, str):
                assert isinstance(got, str), (axis, want)
                assert isinstance(want, str), (axis, want)
            else:
                assert got.dtype == want.dtype
                np.testing.assert_array_equal(got, want, err_msg=f"axis {axis}")


def test_both_frameworks_names() -> None:
    x = dg.tensor(RNG.standard_normal((4, 5)).astype(np.float32))
    for name in ("sum", "prod", "amax", "logsumexp", "var", "norm", "any", "argmax"):
        one = getattr(x, name)(axis=1, keepdims=True)
        two = getattr(x, name)(dim=1, keepdim=True)
        same_bits(one, two, name)
    same_bits(x.cumsum(axis=1), x.cumsum(dim=1))
    same_bits(x.var(ddof=1), x.var(unbiased=True))
    same_bits(x.norm(p=3), x.norm(3))
    same_bits(x.max(1), x.amax(1))


def test_dtypes_of_results() -> None:
    small = dg.tensor([100, 100, 100], dtype=dg.int8)
    assert (small.sum().item(), small.sum().dtype) == (300, dg.int64)
    assert (small.prod().item(), small.prod().dtype) == (1_000_000, dg.int64)
    assert small.cumsum().tolist() == [100, 200, 300]
    assert small.cumsum(dtype=dg.int8).tolist() == [100, -56, 44]
    assert small.sum(dtype=dg.float64).dtype is dg.float64
    assert dg.tensor([3, 4], dtype=dg.uint8).sum().dtype is dg.uint64
    assert small.mean().dtype is dg.float32
    assert dg.tensor([True, False]).any().dtype is dg.bool_
    assert dg.tensor([True, True, False]).cumsum().tolist() == [1, 2, 2]
    assert dg.tensor([2**62, 2**62, 2**62, 2**62]).cumsum().tolist()[-1] == 0
    with pytest.raises(DTypeError, match="result is a float"):
        small.mean(dtype=dg.int32)


def test_results_do_not_share_memory() -> None:
    x = dg.ones(3)
    for y in (x.sum(axis=()), x.max(axis=()), dg.prod(x, axis=())):
        y += 1
    assert x.tolist() == [1, 1, 1]


# -- special values -------------------------------------------------------------------------------


def test_logsumexp_of_infinities() -> None:
    x = dg.tensor([[-INF, -INF], [INF, 0.0], [1e3, -1e3], [NAN, INF]], requires_grad=True)
    y = x.logsumexp(1)
    np.testing.assert_array_equal(as_array(y), np.array([-INF, INF, 1e3, NAN], np.float32))
    y.backward(dg.ones(4))
    np.testing.assert_array_equal(as_array(x.grad)[[0, 2]], [[0, 0], [1, 0]])


def test_quantiles_between_infinities() -> None:
    x = dg.tensor([[-INF, -INF, 0.0, 2.0], [1.0, INF, INF, INF], [-INF, -INF, -INF, INF]])
    got = as_array(x.quantile([0.0, 0.4, 0.5, 0.9], 1)).T
    np.testing.assert_allclose(got[0], [-INF, -INF, -INF, 1.4], rtol=1e-6)
    np.testing.assert_array_equal(got[1], [1, INF, INF, INF])
    np.testing.assert_array_equal(got[2], [-INF, -INF, -INF, NAN])


@pytest.mark.parametrize("p", [0, 1, 2, 3, 1.5, INF])
def test_gradient_of_norms_at_zero(p: float) -> None:
    x = dg.zeros(4, requires_grad=True)
    y = x.norm(p)
    assert y.item() == 0
    if p != 0:
        y.backward()
        assert as_array(x.grad).tolist() == [0, 0, 0, 0]


def test_gradient_of_std_without_spread() -> None:
    x = dg.full((5,), 3.0, requires_grad=True)
    x.std().backward()
    assert as_array(x.grad).tolist() == [0] * 5


def test_gradient_of_prod_at_zeros() -> None:
    for numbers, want in (
        ([2.0, 0.0, 3.0], [0, 6, 0]),
        ([0.0, 0.0, 3.0], [0, 0, 0]),
        ([2.0, 5.0, 3.0], [15, 6, 10]),
    ):
        x = dg.tensor(numbers, requires_grad=True)
        x.prod().backward()
        assert as_array(x.grad).tolist() == want


def test_second_gradient_of_prod_at_zeros() -> None:
    """d2(xyz)/dxdy = z, whatever is zero."""
    x = dg.tensor([0.0, 0.0, 3.0], dtype=dg.float64, requires_grad=True)
    x.prod().backward(create_graph=True)
    first = x.grad
    assert first is not None
    x.grad = None
    first.narrow(0, 0, 1).sum().backward()
    assert as_array(x.grad).tolist() == [0, 3, 0]


def test_cumulative_gradients_at_zeros_and_ties() -> None:
    x = dg.tensor([2.0, 0.0, 3.0, 0.0, 5.0], dtype=dg.float64, requires_grad=True)
    dg.cumprod(x).sum().backward()
    # products without one factor: d(x0 x1)/dx1 = 2, d(x0 x1 x2)/dx1 = 6, later ones are 0
    np.testing.assert_array_equal(as_array(x.grad), [1, 2 + 6, 0, 0, 0])
    y = dg.tensor([1.0, 3.0, 3.0, 2.0, 4.0], requires_grad=True)
    values, places = dg.cummax(y)
    values.sum().backward()
    assert places.tolist() == [0, 1, 2, 2, 4]
    assert as_array(y.grad).tolist() == [1, 1, 2, 0, 1]


# -- sizes that change ----------------------------------------------------------------------------

SIZED: dict[str, Callable[[dg.Tensor], Any]] = {
    "cumsum of rows": lambda x: x.cumsum(1),
    "cumsum of columns": lambda x: x.cumsum(0, reverse=True),
    "cumsum of all": lambda x: dg.cumsum(dg.exp(x), exclusive=True),
    "cummax": lambda x: dg.cummax(x, 1),
    "logcumsumexp": lambda x: x.logcumsumexp(0),
    "argmax": lambda x: (x.argmax(), x.argmax(0), x.argmin(1)),
    "var": lambda x: (x.var(1, ddof=1), x.std(), x.var_mean(0)),
    "prod": lambda x: x.prod(1),
    "any": lambda x: ((x > 2.5).any(0), (x > -9).all()),
    "quantiles": lambda x: (x.quantile((0.1, 0.7), 1), x.nanmedian(0)),
    "diff": lambda x: x.diff(2),
}


@pytest.mark.parametrize("name", SIZED)
def test_sizes_that_change(name: str) -> None:
    """Eager programs serve many sizes, those of a first trace only one."""
    compiled = dg.function(SIZED[name], strict=True)
    for shape in ((3, 5), (7, 4), (6, 1), (2, 300), (130, 33), (1, 9)):
        x = dg.from_numpy(RNG.standard_normal(shape).astype(np.float32))
        same = zip(flat(compiled(x)), flat(SIZED[name](x)), strict=True)
        for static, eager in same:
            same_bits(static, eager, (name, shape))


def flat(x: Any) -> list[Array]:
    return (
        [as_array(t) for part in x for t in flat(part)] if isinstance(x, tuple) else [as_array(x)]
    )


def test_gradients_of_scans_in_a_compiled_function() -> None:
    def step(x: dg.Tensor) -> Any:
        y = (x.cumprod(1) * dg.cummax(x, 0)[0]).logcumsumexp(1) + dg.linear_recurrence(x, x, 1)
        y.sum().backward()
        return x.grad

    for shape in ((4, 9), (5, 6)):
        array = RNG.standard_normal(shape).astype(np.float32)
        results = [
            f(dg.tensor(array, requires_grad=True)) for f in (step, dg.function(step, strict=True))
        ]
        same_bits(*results)


# -- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda x: x.max(1), ShapeError, "an empty run has no max"),
        (lambda x: x.argmin(), ShapeError, "an empty run has no argmin"),
        (lambda x: x.sum(2), ShapeError, r"\[sum\] axis out of range"),
        (lambda x: x.var(dim=0, axes=1), TypeError, "unexpected keyword argument 'axes'"),
        (lambda x: x.argmax((0, 1)), ShapeError, "takes one axis"),
        (lambda x: x.norm("nuc"), ValueError, "no such norm"),
        (lambda x: x.cumsum(3), ShapeError, r"\[cumsum\] axis out of range"),
    ],
)
def test_refused(call: Callable[[Any], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call(dg.ones(3, 0))
