"""Views, histories and changes in place: PyTorch's rules, in both modes, with their errors."""

from __future__ import annotations

import gc
import operator
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dualgrad as dg
from dualgrad.runtime.errors import GradientError, ShapeError

Decorate = Callable[[Callable[..., Any]], Callable[..., Any]]


@pytest.fixture(params=["eager", "compiled"])
def decorate(request: pytest.FixtureRequest) -> Decorate:
    if request.param == "eager":
        return lambda f: f
    return lambda f: dg.function(f, strict=True)


def leaf(*values: float) -> dg.Tensor:
    return dg.tensor(values, dtype=dg.float32, requires_grad=True)


# -- other shapes of the same memory -------------------------------------------------------------

SOURCES: dict[str, Callable[[Any], Any]] = {
    "whole": lambda x: x,
    "transposed": lambda x: x.T,
    "rows": lambda x: x[1:3],
    "columns": lambda x: x[:, 1:4],
    "every other row": lambda x: x[::2],
    "every other column": lambda x: x[:, ::2],
    "one column": lambda x: x[:, 2],
    "expanded": lambda x: x[:, None].expand(4, 3, 6),
    "axes apart": lambda x: x.reshape(2, 2, 3, 2).permute(0, 2, 1, 3),
    "axes together": lambda x: x.reshape(2, 2, 3, 2).permute(2, 3, 0, 1),
    "empty": lambda x: x[:0].T,
}
SHAPES = ((-1,), (2, -1), (-1, 2), (4, 6), (6, 4), (3, 2, -1), (1, -1, 1), (2, 2, -1), (2, 3, 2, 2))


@pytest.mark.parametrize("name", SOURCES)
def test_memory_is_viewed_where_pytorch_views_it(name: str, decorate: Decorate) -> None:
    torch = pytest.importorskip("torch")
    data = np.arange(24, dtype=np.float32).reshape(4, 6)
    for shape in SHAPES:
        f = decorate(lambda x, shape=shape: SOURCES[name](x).view(shape))
        there = SOURCES[name](torch.from_numpy(data))
        x = dg.tensor(data)
        try:
            expected = there.view(shape).numpy()
        except RuntimeError:
            with pytest.raises(ShapeError):
                f(x)
            continue
        y = f(x)
        assert np.array_equal(y.numpy(), expected)
        if y.size:
            y[...] = -1.0
            assert (SOURCES[name](x).numpy() == -1.0).all() or name == "expanded"


def test_a_view_that_would_be_a_copy_is_refused(decorate: Decorate) -> None:
    x = dg.arange(6.0).reshape(2, 3)
    flat = decorate(lambda x: x.T.view(6))
    with pytest.raises(ShapeError, match="the memory cannot be viewed in this shape"):
        flat(x)
    assert decorate(lambda x: x.T.reshape(6))(x).tolist() == [0, 3, 1, 4, 2, 5]
    assert decorate(lambda x: x.T.contiguous().view(6))(x).tolist() == [0, 3, 1, 4, 2, 5]


# -- histories -----------------------------------------------------------------------------------


def test_all_views_follow_a_change(decorate: Decorate) -> None:
    w, c = leaf(1, 2, 3, 4), dg.tensor([2.0, 3.0, 4.0, 5.0])

    @decorate
    def f(w: dg.Tensor, c: dg.Tensor) -> dg.Tensor:
        y = w * 1.0
        square = y.reshape(2, 2)
        column = square[:, 1]
        tail = y[2:]
        tail.mul_(c[2:])
        y.mul_(w)
        column.add_(1.0)
        return (square * 10.0).sum() + column.sum() + (tail * tail).sum()

    f(w, c).backward()
    y = np.array([1.0, 4.0 + 1.0, 9.0 * 4, 16.0 * 5 + 1.0])
    outer = np.array([10.0, 11.0, 10.0 + 2 * y[2], 11.0 + 2 * y[3]])
    inner = np.array([2.0, 4.0, 4 * 6.0, 5 * 8.0])
    np.testing.assert_array_equal(w.grad.numpy(), (outer * inner).astype("f4"))


def test_views_of_a_buffer_get_a_history() -> None:
    w, buffer = leaf(1, 2), dg.zeros(4)
    first, last = buffer[:2], buffer[2:]
    last.copy_(w * 3.0)
    assert buffer.requires_grad
    assert first.requires_grad
    assert not first.is_leaf
    (buffer.sum() + first.sum()).backward()
    assert w.grad.tolist() == [3.0, 3.0]


def test_a_history_is_made_when_it_is_asked_for() -> None:
    """A thousand views, all changed: each change costs what one change costs."""
    rows = 300
    w = dg.ones(rows, 2, requires_grad=True)
    y = w * 1.0
    views = [y[k] for k in range(rows)]
    for k, v in enumerate(views):
        v.mul_(float(k))
    assert sum(v._grad_fn is views[0]._grad_fn for v in views) == rows  # none is made yet
    y.sum().backward()
    assert w.grad.numpy()[:, 0].tolist() == list(range(rows))


def test_dead_views_are_forgotten() -> None:
    x = dg.zeros(4)
    kept = x[1:]
    for _ in range(1000):
        x[:2]
    gc.collect()
    assert len(x.views) == 1
    assert len(x._version[1]) < 100
    del kept
    assert not x.views


def test_a_long_chain_of_views_needs_no_stack() -> None:
    w = dg.ones(5000, requires_grad=True)
    x = y = w * 1.0
    for _ in range(4000):
        x = x[1:]
    y.mul_(2.0)
    x.sum().backward()
    assert w.grad.numpy().sum() == 2.0 * 1000


def test_the_order_in_which_histories_are_asked_for_does_not_matter() -> None:
    """Contributions are added in the order in which views were made."""
    sums = []
    for order in ((0, 1, 2, 3), (3, 1, 0, 2)):
        w = dg.tensor([1e8, 1.0], requires_grad=True)
        y = w * 1.0
        views = [y[:1], y[0:1], y.reshape(2, 1)[:1], y[:2]]
        y.mul_(1.0)
        for k in order:
            assert views[k].grad_fn is not None
        total: Any = 0.0
        for v, factor in zip(views, (1e8, 1.0, -1e8, 0.5), strict=True):
            total = total + (v * factor).sum()
        total.backward()
        sums.append(w.grad.tolist())
    assert sums[0] == sums[1]


def test_a_detached_handle_has_its_own_history() -> None:
    w, y = leaf(1, 2), leaf(3, 4) * 1.0
    d = y.detach()
    d.mul_(w)
    assert d.requires_grad
    assert y.version == d.version == 1
    d.sum().backward()
    assert w.grad.tolist() == [3.0, 4.0]


def test_assignments_with_gradients(decorate: Decorate) -> None:
    w, v = leaf(1, 2, 3), leaf(10, 20)

    @decorate
    def f(w: dg.Tensor, v: dg.Tensor) -> dg.Tensor:
        out = w * 2.0
        view = out[:2]
        out[dg.tensor([0, 2])] = v
        out[1] *= v[1]
        out[..., :1] += w[2]
        return (out * dg.tensor([1.0, 10.0, 100.0])).sum() + view.sum()

    f(w, v).backward()
    assert w.grad.tolist() == [0.0, 2.0 * 11.0 * 20.0, 2.0]
    assert v.grad.tolist() == [2.0, 100.0 + 11.0 * 4.0]


def test_a_mask_with_gradients() -> None:
    w, v = leaf(1, -2, 3), leaf(5)
    y = w * 1.0
    view = y[1:]
    y[y > 0.0] = v[0] * 2.0
    view.sum().backward()
    assert w.grad.tolist() == [0.0, 1.0, 0.0]
    assert v.grad.tolist() == [2.0]


def test_integers_take_values_without_history() -> None:
    counts, w = dg.zeros(2, dtype=dg.int64), leaf(1, 2)
    counts.copy_(w)
    assert not counts.requires_grad
    assert counts.tolist() == [1, 2]


# -- what is saved -------------------------------------------------------------------------------


def test_only_what_a_gradient_reads_must_stay() -> None:
    x, w = dg.ones(3), leaf(1, 2, 3)
    y = x * w  # the gradient of w reads x alone
    with dg.no_grad():
        w.add_(1.0)
    y.sum().backward()
    assert w.grad.tolist() == [1.0] * 3


def test_the_old_value_is_kept_where_a_gradient_reads_it(decorate: Decorate) -> None:
    w = leaf(2, 3)

    @decorate
    def f(w: dg.Tensor) -> dg.Tensor:
        y = w * 1.0
        y.mul_(w)
        y.square_()
        y.mul_(y)
        return y.sum()

    f(w).backward()
    assert w.grad.tolist() == [8 * 2.0**7, 8 * 3.0**7]


@pytest.mark.parametrize("change", ["y.mul_(2.0)", "y[:1].zero_()", "y.detach().add_(1.0)"])
def test_a_changed_result_in_place_is_noticed(change: str) -> None:
    w = leaf(1, 2)
    y = w * 1.0
    y.exp_()
    exec(change, {"y": y})
    with pytest.raises(GradientError, match=r"\[exp\] a tensor that the gradient needs"):
        y.sum().backward()


def lines_of(error: Exception) -> list[str]:
    return [line.strip() for line in str(error).split("\n")]


def test_the_error_names_both_lines(decorate: Decorate) -> None:
    w = leaf(1, 2)
    state = dg.zeros(2)

    @decorate
    def f(w: dg.Tensor, state: dg.Tensor) -> dg.Tensor:
        state.add_(1.0)
        y = w * 3.0
        out = y * y + w * state  # used here
        return out, y

    out, y = f(w, state)
    with dg.no_grad():
        y.reshape(2, 1).add_(1.0)  # changed here
    with pytest.raises(GradientError) as caught:
        out.sum().backward()
    found = lines_of(caught.value)
    assert found[0] == "[mul] a tensor that the gradient needs has been changed in place"
    assert found[1:3][0].startswith("expect: the f32[2] tensor as it was when it was used")
    assert found[3] == "out = y * y + w * state  # used here"
    assert found[4] == "actual: 1 in-place change since, the last"
    assert found[6] == "y.reshape(2, 1).add_(1.0)  # changed here"
    assert found[-2] == "out.sum().backward()"


def test_the_error_names_a_line_inside_of_a_later_call(decorate: Decorate) -> None:
    w, state = leaf(1, 2), dg.ones(2)
    y = w * state

    @decorate
    def later(state: dg.Tensor) -> None:
        state.add_(1.0)
        state.mul_(2.0)  # the last

    for _ in range(2):
        later(state)
    with pytest.raises(GradientError) as caught:
        y.sum().backward()
    found = lines_of(caught.value)
    assert found[4] == "actual: 4 in-place changes since, the last"
    assert found[6] == "state.mul_(2.0)  # the last"


# -- refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["x.mul_(2.0)", "x += 1.0", "x[[0]] = 1.0", "x.zero_()"])
def test_leaves_are_changed_under_no_grad_only(change: str) -> None:
    x = leaf(1, 2)
    with pytest.raises(GradientError, match=r"\] a leaf that requires gradients cannot"):
        exec(change, {"x": x})
    assert x.tolist() == [1.0, 2.0]
    with dg.no_grad():
        exec(change, {"x": x})
    assert x.is_leaf


def test_views_of_leaves_are_changed_under_no_grad_only() -> None:
    x = leaf(1, 2)
    view = x.reshape(2, 1)[1:]
    with pytest.raises(GradientError, match="a view of a leaf that requires gradients"):
        view.add_(1.0)
    with dg.no_grad():
        view.add_(1.0)
    (view * 2.0).sum().backward()
    assert x.grad.tolist() == [0.0, 2.0]


SEVERAL = ["y.chunk(2)[0]", "y.split(1)[1]", "y.unbind(0)[0]", "next(iter(y))", "y.chunk(2)[0][:1]"]


@pytest.mark.parametrize("make", SEVERAL)
def test_one_of_several_views(make: str) -> None:
    y = leaf(1, 2, 3) * 1.0
    view = eval(make, {"y": y})
    with pytest.raises(GradientError, match="one of several that one function has made, and can"):
        view.mul_(2.0)
    y.mul_(2.0)
    assert view.requires_grad
    for _ in range(2):
        with pytest.raises(GradientError, match="what it shows has been changed in place since"):
            view.sum()
    with pytest.raises(GradientError, match="what it shows has been changed"):
        y.add_(view)
    assert y.tolist() == [2.0, 4.0, 6.0]
    with dg.no_grad():
        assert (view + 0.0).tolist() == view.tolist()


def test_a_change_under_no_grad_leaves_histories_as_they_are() -> None:
    w = leaf(1, 2)
    first = w.chunk(2)[0]
    with dg.no_grad():
        w.mul_(3.0)
    (first * first).sum().backward()
    assert w.grad.tolist() == [6.0, 0.0]


def test_tensor_split_makes_views_that_can_be_changed() -> None:
    w = leaf(1, 2)
    y = w * 1.0
    y.tensor_split(2)[0].mul_(5.0)
    y.sum().backward()
    assert w.grad.tolist() == [5.0, 1.0]


@pytest.mark.parametrize("grad", [True, False])
def test_views_made_under_no_grad(grad: bool) -> None:
    y, w = dg.tensor([1.0, 2.0], requires_grad=grad) * 1.0, leaf(3)
    with dg.no_grad():
        view = y[1:]
        view.add_(1.0)
    with pytest.raises(GradientError, match=r"made under dg.no_grad\(\), and cannot be changed"):
        view.mul_(w)
    assert not view.requires_grad
    y.mul_(w)
    with pytest.raises(GradientError, match=r"made under dg.no_grad\(\), and what it shows"):
        view * 2.0


def test_lost_views_out_of_a_compiled_function() -> None:
    @dg.function(strict=True)
    def f(w: dg.Tensor) -> tuple[dg.Tensor, dg.Tensor, dg.Tensor]:
        y = w * 1.0
        with dg.no_grad():
            hidden = y[1:]
        lost = y.unbind(0)[0]
        y.mul_(w)
        return y, hidden, lost

    w = leaf(1, 2)
    for _ in range(3):
        y, hidden, lost = f(w)
        y.sum().backward()
        for view in (hidden, lost):
            with pytest.raises(GradientError, match="what it shows has been changed"):
                view * 2.0
            assert view.requires_grad
    assert w.grad.tolist() == [6.0, 12.0]


def test_a_view_of_an_expanded_tensor_cannot_be_changed() -> None:
    y = leaf(1, 2) * 1.0
    with pytest.raises(ValueError, match="the memory cannot be written"):
        y.expand(3, 2).add_(1.0)
    with pytest.raises(GradientError, match="elements cannot be told apart"):
        y.expand(3, 2)[0].add_(1.0)


def test_a_mask_that_is_wider_than_the_tensor() -> None:
    with pytest.raises(ShapeError, match=r"\[masked_fill_?\] the result does not fit in place"):
        dg.zeros(3).masked_fill_(dg.ones(2, 3) > 0.0, 1.0)


# -- detach_, retain_grad, data ------------------------------------------------------------------


def test_detach_in_place() -> None:
    w = leaf(1, 2)
    y = w * 2.0
    view = y[1:]
    y.detach_()
    assert not y.requires_grad
    assert y.is_leaf
    view.sum().backward()
    assert w.grad.tolist() == [0.0, 2.0]
    with pytest.raises(GradientError, match="a view cannot be cut off"):
        view.detach_()


def test_a_leaf_that_does_not_want_its_gradient_any_more() -> None:
    w = leaf(1, 2)
    y = w * 2.0
    w.requires_grad_(False)
    y.sum().backward()
    assert w.grad is None


def test_retained_gradients() -> None:
    w = leaf(1, 2)
    y = w * 3.0
    y.retain_grad()
    y.register_hook(lambda g: g * 10.0)  # registered later, seen all the same
    assert y.retains_grad
    for times in (1.0, 2.0):
        (y * y).sum().backward(retain_graph=True)
        assert y.grad.tolist() == [60.0 * times, 120.0 * times]
    assert w.grad.tolist() == [360.0, 720.0]
    assert not w.retains_grad
    w.retain_grad()
    assert not w.retains_grad
    with pytest.raises(GradientError, match="there will be no gradient"):
        dg.ones(2).retain_grad()


def test_a_retained_gradient_is_that_of_the_tensor_as_it_is() -> None:
    w = leaf(1, 2)
    y = w * 3.0
    y.retain_grad()
    y.mul_(5.0)
    y.sum().backward()
    assert y.grad.tolist() == [1.0, 1.0]
    assert w.grad.tolist() == [15.0, 15.0]


CHANGES = {
    "the view": lambda y, v: v.mul_(3.0),
    "its base": lambda y, v: y.mul_(3.0),
    "another view": lambda y, v: y[:2].mul_(3.0),
    "both": lambda y, v: (v.mul_(3.0), y.mul_(2.0)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("compiled", [False, True])
def test_a_retained_gradient_of_a_view_is_that_of_the_view_as_it_is(
    change: str, compiled: bool
) -> None:
    def f(w: dg.Tensor, whole: bool) -> tuple[dg.Tensor, bool]:
        y = w * 2.0
        v = y[1:3]
        v.retain_grad()
        CHANGES[change](y, v)
        (y.sum() if whole else v.sum() * 5.0).backward()
        return v.grad, v.retains_grad

    run = dg.function(f, strict=True) if compiled else f
    grad, kept = run(leaf(1, 2, 3, 4), False)
    assert kept
    assert grad.tolist() == [5.0, 5.0]
    assert run(leaf(1, 2, 3, 4), True) == (None, True)  # the view is not behind the sum any more


def test_retained_gradients_that_are_asked_for_are_added_once() -> None:
    y = leaf(1, 2) * 3.0
    y.retain_grad()
    (y * y).sum().backward(inputs=[y])
    assert y.grad.tolist() == [6.0, 12.0]


def test_retained_gradients_inside_of_a_function() -> None:
    def f(w: dg.Tensor) -> dg.Tensor:
        y = w * 3.0
        y.retain_grad()
        (y * y).sum().backward()
        return y.grad

    expected, w = f(leaf(1, 2)), leaf(1, 2)
    assert dg.function(f, strict=True)(w).tolist() == expected.tolist() == [6.0, 12.0]


def test_retained_gradients_of_results() -> None:
    f = dg.function(lambda w: w * 3.0, strict=True)
    w = leaf(1, 2)
    y = f(w)
    y.retain_grad()
    (y * y).sum().backward()
    assert y.grad.tolist() == [6.0, 12.0]


def test_data_is_the_memory_without_history(decorate: Decorate) -> None:
    w = leaf(1, 2)

    @decorate
    def f(w: dg.Tensor) -> dg.Tensor:
        y = w * 1.0
        z = y * y
        y.data.mul_(3.0)
        return y, z

    y, z = f(w)
    assert y.tolist() == [3.0, 6.0]
    assert y.version == 0
    assert not y.data.requires_grad
    z.sum().backward()  # nobody has noticed
    assert w.grad.tolist() == [6.0, 12.0]


def test_data_can_be_set() -> None:
    w = leaf(1, 2)
    y = w * w
    new = dg.tensor([5.0, 6.0])
    w.data = new
    assert w.is_leaf
    assert w.requires_grad
    with dg.no_grad():
        w.add_(1.0)
    assert new.tolist() == [6.0, 7.0]
    with pytest.raises(GradientError, match="changed in place"):
        y.sum().backward()
    with pytest.raises(ShapeError, match="the data of a tensor have its type"):
        w.data = dg.zeros(3)


def test_an_old_training_step_runs() -> None:
    w = leaf(1, 2)

    def step() -> None:
        w.grad = None
        (w * w).sum().backward()
        w.data = w.data - 0.25 * w.grad

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = dg.function(step)
        for _ in range(3):
            compiled()
    assert w.tolist() == [0.125, 0.25]


# -- numbers of changes and of views --------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "count"),
    [
        (lambda x: x.__setitem__(..., x), 1),
        (lambda x: x[1:].__setitem__(..., x[1:]), 1),
        (lambda x: x.__setitem__(slice(1, None), x[1:]), 0),
        (lambda x: x.__setitem__(slice(1, 4), x[1:]), 0),
        (lambda x: x.__setitem__(slice(2), x[:3][:2]), 1),
        (lambda x: x.__setitem__(slice(2), x[:2].detach()), 1),
        (lambda x: x.__setitem__(0, x[0] * 1.0), 1),
        (lambda x: operator.iadd(x[1:], 1.0), 1),
    ],
)
@pytest.mark.parametrize("recorded", [False, True])
def test_only_the_end_of_an_operator_in_place_is_no_change(
    decorate: Decorate, change: Callable[[dg.Tensor], Any], count: int, recorded: bool
) -> None:
    """`x[key] += y` calls `x[key] = v` with the view v = x[key], which has been changed already."""

    @decorate
    def f(x: dg.Tensor) -> dg.Tensor:
        y = x * 1.0
        change(y)
        return y

    assert f(dg.ones(4, requires_grad=recorded)).version == count


def test_the_operator_in_place_on_a_part_is_one_change(decorate: Decorate) -> None:
    @decorate
    def f(x: dg.Tensor) -> dg.Tensor:
        x[1:] += 1.0
        x[0][...] *= 2.0
        return x

    x = f(dg.ones(4))
    assert x.version == 2
    assert x.tolist() == [2.0, 2.0, 2.0, 2.0]


@pytest.mark.parametrize("seed", range(6))
def test_views_of_a_compiled_function_add_their_gradients_in_eager_order(seed: int) -> None:
    """Views are returned in another order than they were made, then what they show is changed.

    Numbers of very different size: another order of three sums gives other bits.
    """
    rng = np.random.default_rng(seed)
    order, used = rng.permutation(6).tolist(), rng.permutation(5).tolist()
    values = (rng.normal(size=8) * 10.0 ** rng.normal(size=8)).astype("f4")
    weights = (rng.normal(size=(6, 8)) * 1000).astype("f4")

    def f(x: dg.Tensor) -> list[dg.Tensor]:
        y = x * 1.5
        inner = y[0:4]
        made = [inner, y[1:5], y[2:6], y[3:7], inner[1:3], y]
        return [made[k] for k in order]

    compiled = dg.function(f, strict=True)
    gradients = []
    for call in (f, compiled, compiled):
        x = dg.tensor(values, requires_grad=True)
        views = dict(zip(order, call(x), strict=True))
        views[5].mul_(1.1)
        loss: Any = 0.0
        for k in used:
            loss = loss + (views[k] * dg.tensor(weights[k, : len(views[k])])).sin().sum()
        loss.backward()
        gradients.append(x.grad.numpy().tobytes())
    assert gradients[0] == gradients[1] == gradients[2]
