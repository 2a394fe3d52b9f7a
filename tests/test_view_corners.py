"""Views and changes in place where eager and compiled functions once differed, or went wrong."""

import numpy as np
import pytest

import dualgrad as dg
from dualgrad.errors import GradientError

MODES = pytest.mark.parametrize("mode", [lambda f: f, dg.function], ids=["eager", "compiled"])


def numbers(*shape, requires_grad=False):
    values = np.arange(1.0, 1 + np.prod(shape)).reshape(shape)
    return dg.tensor(values.tolist(), dtype=dg.float64, requires_grad=requires_grad)


@MODES
def test_reversed_rows_are_a_copy(mode):
    @mode
    def f(x):
        y = x * 1
        v = y[::-1]
        v[1] = 9.0
        w = x[1:][::-1]
        w += 1
        return y, v, w

    x = numbers(4, 2)
    for _ in range(2):
        y, v, w = f(x)
        assert y.tolist() == x.tolist() == [[1, 2], [3, 4], [5, 6], [7, 8]]
        assert v.tolist() == [[7, 8], [9, 9], [3, 4], [1, 2]]
        assert w.tolist() == [[8, 9], [6, 7], [4, 5]]
        assert (x.version, y.version, v.version) == (0, 0, 1)


@MODES
def test_reversed_rows_can_be_assigned(mode):
    @mode
    def f(x, value):
        x[::-1] = value
        x[3:1:-1, 0] *= 2
        return x.sum()

    x = numbers(4, 2)
    f(x, numbers(4, 2) + 10)
    assert x.tolist() == [[17, 18], [15, 16], [26, 14], [22, 12]]
    f(x, x.clone())
    assert x.tolist() == [[22, 12], [26, 14], [30, 16], [34, 18]]


@MODES
@pytest.mark.parametrize("leaf", [True, False])
def test_views_made_under_no_grad_hide_no_change(mode, leaf):
    @mode
    def f(x):
        y = x if leaf else x * 2
        with dg.no_grad():
            v = y[0]
        v.mul_(2)
        return y.sum()

    x = numbers(2, 3, requires_grad=True)
    with pytest.raises(GradientError, match=r"made under dg\.no_grad\(\), and cannot be changed"):
        f(x)
    assert (x.detach() == numbers(2, 3)).all()
    assert x.version == 0


@MODES
def test_views_made_under_no_grad_change_there(mode):
    @mode
    def f(x, y):
        with dg.no_grad():
            x[0].mul_(2)
            v = y[0]
        v.mul_(2)

    x, y = numbers(2, 3, requires_grad=True), numbers(2, 3)
    f(x, y)
    assert x.tolist() == y.tolist() == [[2, 4, 6], [4, 5, 6]]


@MODES
def test_hooks_may_change_what_is_shown(mode):
    """The gradient of a sum repeats one number, that of a transposition is another view."""

    @mode
    def f(x):
        seen = []
        y = x * 2
        y.register_hook(lambda g: g.mul_(5))
        z = y.T
        z.register_hook(lambda g: seen.append(g))
        w = z * 3
        w.register_hook(lambda g: g.add_(1))
        w.sum().backward()
        return seen[0]

    x = numbers(2, 3, requires_grad=True)
    assert f(x).tolist() == [[6, 6]] * 3
    assert x.grad.tolist() == [[60] * 3] * 2


@MODES
def test_functions_may_change_their_gradients(mode):
    class Twice(dg.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, g):
            return g.mul_(2)

    @mode
    def f(x):
        Twice.apply(x).sum().backward()

    x = numbers(2, 3, requires_grad=True)
    f(x)
    assert x.grad.tolist() == [[2] * 3] * 2


@MODES
@pytest.mark.parametrize(
    "same",
    [
        lambda x: dg.flip(x, ()),
        lambda x: dg.flip(x, 0),
        lambda x: dg.diff(x, 0),
        lambda x: dg.rot90(x, 4),
        lambda x: dg.cat([x]),
        lambda x: dg.roll(x, 0),
        lambda x: dg.tile(x, (1, 1)),
        lambda x: dg.sum(x[None], 0),
        lambda x: dg.cumsum(x, 0),
        lambda x: x**1,
    ],
    ids=["flip_none", "flip_one", "diff", "rot90", "cat", "roll", "tile", "sum", "cumsum", "pow"],
)
def test_ops_that_copy_do_so_with_nothing_to_do(mode, same):
    @mode
    def f(x):
        y = same(x)
        y += 10
        return y

    x = numbers(1, 3)
    assert f(x).tolist() == [[11, 12, 13]]
    assert x.tolist() == [[1, 2, 3]]
