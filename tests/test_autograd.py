"""The tape: what backward computes, when it refuses, and that it frees what it no longer needs."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
import weakref
from typing import Any

import numpy as np
import pytest
from support import as_array, same_bits

import dualgrad as dg
from dualgrad.gradients import hooks
from dualgrad.runtime.errors import DTypeError, GradientError, ShapeError


def leaf(*values: float, dtype: object = dg.float64) -> dg.Tensor:
    return dg.tensor(list(values), dtype=dtype, requires_grad=True)


def grads(*xs: dg.Tensor) -> list[list[float]]:
    return [as_array(x.grad).tolist() for x in xs]


# -- what is computed -----------------------------------------------------------------------------


def test_square_of_one_tensor() -> None:
    x = leaf(1.0, 2.0, -3.0)
    (x * x).sum().backward()
    assert grads(x) == [[2.0, 4.0, -6.0]]


def test_same_tensor_as_both_operands() -> None:
    x = leaf(2.0, 5.0)
    ((x - x) + x / x + dg.maximum(x, x)).sum().backward()
    assert grads(x) == [[1.0, 1.0]]


def test_matrix_times_itself() -> None:
    x = dg.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=dg.float64, requires_grad=True)
    (x @ x).sum().backward()
    # d/dx of 1' x x 1 is 1 (x 1)' + (x' 1) 1'
    assert grads(x) == [[[7.0, 11.0], [9.0, 13.0]]]


def test_shared_subexpression() -> None:
    x = leaf(0.5, 1.5)
    y = x * x
    z = (y + 1.0) * y
    z.sum().backward()
    np.testing.assert_allclose(as_array(x.grad), [4 * v**3 + 2 * v for v in (0.5, 1.5)], rtol=1e-14)


def test_diamond() -> None:
    x = leaf(3.0)
    a, b = x * 2.0, x * 5.0
    (a * b + a).sum().backward()
    assert grads(x) == [[2 * 10 * 3 + 2.0]]


def test_contributions_add_up_over_calls() -> None:
    x = leaf(1.0, 2.0)
    for _ in range(3):
        (x * 2.0).sum().backward()
    assert grads(x) == [[6.0, 6.0]]
    x.grad = None
    (x * 2.0).sum().backward()
    assert grads(x) == [[2.0, 2.0]]


def test_broadcast_operands_get_sums() -> None:
    x = dg.ones(3, 1, dtype=dg.float64, requires_grad=True)
    y = dg.full((4,), 2.0, dtype=dg.float64, requires_grad=True)
    (x * y).sum().backward()
    assert grads(x, y) == [[[8.0]] * 3, [3.0] * 4]


def test_seed_weights_the_elements() -> None:
    x = leaf(1.0, 2.0, 3.0)
    (x * x).backward(dg.tensor([1.0, 0.0, -1.0], dtype=dg.float64))
    assert grads(x) == [[2.0, 0.0, -6.0]]


def test_one_element_needs_no_seed() -> None:
    x = leaf(4.0)
    (x * x).backward()
    assert grads(x) == [[8.0]]


def test_only_leaves_keep_gradients() -> None:
    x = leaf(1.0)
    y = x * 2.0
    (y * y).sum().backward()
    assert x.is_leaf
    assert not y.is_leaf
    assert y.grad is None


def test_leaf_itself_can_be_the_root() -> None:
    x = dg.tensor(3.0, requires_grad=True)
    x.backward()
    assert as_array(x.grad) == 1.0


def test_ops_without_gradient_stop_it() -> None:
    x = leaf(1.0, -2.0)
    assert not (x > 0).requires_grad
    assert not x.argmax().requires_grad
    dg.where(x > 0, x, 0.0).sum().backward()
    assert grads(x) == [[1.0, 0.0]]


def test_gradient_through_casts() -> None:
    x = dg.tensor([1.0, 2.0], requires_grad=True)
    (x.to(dg.float64) * 3.0).sum().backward()
    assert x.grad is not None
    assert x.grad.dtype is dg.float32
    assert grads(x) == [[3.0, 3.0]]


def test_gradient_has_shape_and_dtype_of_its_tensor() -> None:
    for shape in ((), (1,), (0,), (2, 3), (0, 3)):
        x = dg.ones(*shape, requires_grad=True)
        (x * 2.0).sum().backward()
        assert x.grad is not None
        assert x.grad.type is x.type
        assert as_array(x.grad).shape == shape


# -- higher order ---------------------------------------------------------------------------------


def test_third_derivative() -> None:
    x = leaf(0.5, -1.5)
    derivatives = []
    y = x * x * x * x
    for _ in range(3):
        y.sum().backward(create_graph=True)
        y = x.grad
        x.grad = None
        derivatives.append(as_array(y))
    v = np.array([0.5, -1.5])
    np.testing.assert_allclose(derivatives, [4 * v**3, 12 * v**2, 24 * v], rtol=1e-14)


def test_second_derivative_of_softmax_and_log() -> None:
    torch = pytest.importorskip("torch")
    start = np.array([[0.3, -1.2, 0.7], [2.0, 0.1, -0.4]])
    x = dg.tensor(start, requires_grad=True)
    (dg.softmax(x) * dg.log(x * x)).sum().backward(create_graph=True)
    first, x.grad = x.grad, None
    (first * first).sum().backward()
    t = torch.tensor(start, requires_grad=True)
    total = (torch.softmax(t, -1) * torch.log(t * t)).sum()
    (one,) = torch.autograd.grad(total, t, create_graph=True)
    (two,) = torch.autograd.grad((one * one).sum(), t)
    np.testing.assert_allclose(as_array(first), one.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(as_array(x.grad), two.numpy(), rtol=1e-11)


def test_create_graph_keeps_the_graph() -> None:
    x = leaf(2.0)
    y = x * x
    y.backward(create_graph=True)
    y.backward()
    assert x.grad is not None
    assert as_array(x.grad).tolist() == [8.0]


def test_gradients_without_create_graph_have_no_history() -> None:
    x = leaf(2.0)
    (x * x).backward()
    assert x.grad is not None
    assert not x.grad.requires_grad
    assert x.grad.is_leaf


# -- the life of a graph --------------------------------------------------------------------------


def test_second_backward_is_refused() -> None:
    x = leaf(1.0, 2.0)
    y = (x * x).sum()
    y.backward()
    with pytest.raises(GradientError) as caught:
        y.backward()
    text = str(caught.value)
    assert "the graph has been freed by an earlier backward" in text
    assert "hint: pass retain_graph=True to the first" in text
    assert "test_autograd.py" in text
    assert grads(x) == [[2.0, 4.0]]


def test_retain_graph() -> None:
    x = leaf(1.0, 2.0)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward(retain_graph=True)
    y.backward()
    assert grads(x) == [[6.0, 12.0]]


def test_part_of_a_graph_can_be_used_again() -> None:
    x = leaf(3.0)
    y = x * x
    y.sum().backward(retain_graph=True)
    (y * 2.0).sum().backward()
    assert grads(x) == [[6.0 + 12.0]]


def test_backward_frees_saved_tensors() -> None:
    x = leaf(*range(64))
    y = dg.exp(x)
    z = y * y
    alive = weakref.ref(y)
    total = z.sum()
    del y, z
    gc.collect()
    assert alive() is not None or total.grad_fn is not None
    total.backward()
    assert alive() is None


def test_graph_dies_with_its_root_without_garbage_collection() -> None:
    gc.disable()
    try:
        x = leaf(1.0, 2.0)
        y = dg.exp(x * x)
        alive = weakref.ref(y)
        total = y.sum()
        del y
        del total
        assert alive() is None
    finally:
        gc.enable()


def test_deep_chain() -> None:
    depth = 20_000
    assert depth > 10 * sys.getrecursionlimit()
    x = dg.ones(4, requires_grad=True)
    y = x
    for _ in range(depth):
        y = y + 1.0
    middle = weakref.ref(y)
    y.sum().backward()
    assert as_array(x.grad).tolist() == [1.0] * 4
    del y
    assert middle() is None


def test_deep_chain_without_backward_is_freed() -> None:
    x = dg.ones(2, requires_grad=True)
    y = x
    first = weakref.ref(x)
    for _ in range(20_000):
        y = y * 1.5
    del x, y
    gc.collect()
    assert first() is None


def test_leaves_never_share_gradient_memory() -> None:
    a, b = leaf(1.0, 2.0), leaf(3.0, 4.0)
    (a + b).sum().backward()
    assert a.grad is not None
    assert b.grad is not None
    assert not np.shares_memory(as_array(a.grad), as_array(b.grad))
    a.grad.add_(1.0)
    assert grads(a, b) == [[2.0, 2.0], [1.0, 1.0]]


def test_gradient_never_shares_memory_with_the_seed() -> None:
    x = leaf(1.0, 2.0)
    seed = dg.tensor([5.0, 7.0], dtype=dg.float64)
    x.backward(seed)
    assert x.grad is not None
    assert not np.shares_memory(as_array(x.grad), as_array(seed))
    y = leaf(1.0, 2.0)
    y.reshape(2, 1).reshape(2).backward(seed)
    seed.zero_()
    assert grads(x, y) == [[5.0, 7.0]] * 2


def test_gradient_is_contiguous_memory_of_its_own() -> None:
    x = dg.ones(3, 4, requires_grad=True)
    y = dg.ones(4, 3, requires_grad=True)
    (x.transpose(0, 1) + y).sum().backward()
    for p in (x, y):
        assert p.grad is not None
        assert as_array(p.grad).flags.c_contiguous
    z = dg.ones(5, requires_grad=True)
    z.sum().backward()  # an expanded scalar on its way
    assert z.grad is not None
    assert z.grad.add_(1.0).tolist() == [2.0] * 5


# -- what is refused ------------------------------------------------------------------------------


def test_several_elements_need_a_seed() -> None:
    x = leaf(1.0, 2.0)
    with pytest.raises(GradientError, match="only a single number has a gradient without a seed"):
        (x * 2.0).backward()
    assert x.grad is None


def test_seed_of_another_shape() -> None:
    x = leaf(1.0, 2.0)
    with pytest.raises(ShapeError, match="the seed has another shape"):
        (x * 2.0).backward(dg.ones(3, dtype=dg.float64))


def test_nothing_to_differentiate() -> None:
    with pytest.raises(GradientError, match="nothing to differentiate"):
        dg.ones(()).backward()


def test_integers_have_no_gradients() -> None:
    with pytest.raises(DTypeError, match="only floats have gradients"):
        dg.arange(3).requires_grad_()


def test_leaf_cannot_be_changed_in_place() -> None:
    x = leaf(1.0, 2.0)
    with pytest.raises(GradientError, match="a leaf that requires gradients"):
        x.add_(1.0)
    with dg.no_grad():
        x.add_(1.0)
    assert x.tolist() == [2.0, 3.0]
    assert x.is_leaf


def test_changed_tensor_is_noticed() -> None:
    x = leaf(1.0, 2.0)
    y = dg.exp(x)
    z = y * y
    with dg.no_grad():
        y.mul_(2.0)
    with pytest.raises(GradientError) as caught:
        z.sum().backward()
    assert "a tensor that the gradient needs has been changed in place" in str(caught.value)
    assert "1 in-place change since, the last" in str(caught.value)


def test_change_through_a_view_is_noticed() -> None:
    x = leaf(1.0, 2.0)
    y = dg.exp(x)
    z = y * y
    with dg.no_grad():
        y.reshape(2, 1).mul_(2.0)
    with pytest.raises(GradientError, match="changed in place"):
        z.sum().backward()


def test_change_of_what_the_gradient_does_not_need_is_allowed() -> None:
    x = leaf(1.0, 2.0)
    y = x * 3.0
    z = y + 1.0
    with dg.no_grad():
        y.mul_(100.0)
    z.sum().backward()
    assert grads(x) == [[3.0, 3.0]]


def test_recorded_change_in_place() -> None:
    x = leaf(1.0, 2.0)
    y = x * 1.0
    y.mul_(3.0)
    y.add_(x)
    y.sum().backward()
    assert grads(x) == [[4.0, 4.0]]


def test_recorded_change_of_what_its_own_gradient_needs() -> None:
    x = leaf(1.0, 2.0)
    y = x * 1.0
    y.mul_(x)  # the gradient of x is the old y, which is kept
    y.sum().backward()
    assert grads(x) == [[2.0, 4.0]]


def test_change_in_place_makes_a_constant_depend() -> None:
    x = leaf(1.0, 2.0)
    y = dg.zeros(2, dtype=dg.float64)
    y.add_(x)
    assert y.requires_grad
    (y * y).sum().backward()
    assert grads(x) == [[2.0, 4.0]]


def test_numpy_of_a_tensor_with_gradients() -> None:
    with pytest.raises(GradientError, match="detach"):
        leaf(1.0).numpy()


def test_gradient_of_another_type_cannot_be_set() -> None:
    x = leaf(1.0, 2.0)
    with pytest.raises(ShapeError):
        x.grad = dg.ones(3, dtype=dg.float64)


# -- modes ----------------------------------------------------------------------------------------


def test_no_grad() -> None:
    x = leaf(1.0)
    with dg.no_grad():
        y = x * 2.0
        with dg.enable_grad():
            z = x * 3.0
        assert not dg.is_grad_enabled()
    assert dg.is_grad_enabled()
    assert not y.requires_grad
    z.backward()
    assert grads(x) == [[3.0]]


def test_no_grad_ends_with_an_exception() -> None:
    with pytest.raises(KeyError), dg.no_grad():
        raise KeyError
    assert dg.is_grad_enabled()


def test_no_grad_as_decorator() -> None:
    @dg.no_grad()
    def double(x: dg.Tensor) -> dg.Tensor:
        return x * 2.0

    assert not double(leaf(1.0)).requires_grad


def test_detach() -> None:
    x = leaf(2.0)
    y = x * x
    (y.detach() * x).backward()
    assert grads(x) == [[4.0]]
    assert np.shares_memory(as_array(y), as_array(y.detach()))


def test_detached_shares_the_version() -> None:
    x = leaf(1.0, 2.0)
    y = dg.exp(x)
    y.detach().zero_()
    with pytest.raises(GradientError, match="changed in place"):
        (y * 1.0).sum().backward()


def test_order_of_contributions_is_that_of_creation() -> None:
    # In float32 the sum of three numbers depends on the order; the latest consumer comes first.
    x = dg.tensor([1.0], requires_grad=True)
    factors = (1e8, 1.0, -1e8)
    total = sum((x * f for f in factors[1:]), x * factors[0])
    total.sum().backward()
    late_first = np.float32(0.0)
    for f in reversed(factors):
        late_first = np.float32(late_first + np.float32(f))
    same_bits(x.grad, np.array([late_first], np.float32))


def test_leaves_are_copied_and_pickled():
    x = dg.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    view = x.detach()[1:]
    (x * x).sum().backward()
    for twin in (copy.deepcopy(x), pickle.loads(pickle.dumps(x)), copy.copy(x)):
        assert twin.requires_grad
        assert twin.tolist() == x.tolist()
        assert twin.grad.tolist() == [[2.0, 4.0], [6.0, 8.0]]
    for twin in (copy.deepcopy(view), pickle.loads(pickle.dumps(view.transpose(0, 1)))):
        assert sorted(twin.flatten().tolist()) == [3.0, 4.0]
        twin.zero_()
    assert x.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    parameter = copy.deepcopy(dg.nn.Parameter(view))
    assert type(parameter) is dg.nn.Parameter
    with pytest.raises(RuntimeError, match="cannot be copied with its graph"):
        copy.deepcopy(x * 2)


@pytest.mark.parametrize("leaf", [True, False])
def test_hooks_that_refer_to_their_tensor_go_with_it(leaf: bool) -> None:
    def hooked() -> tuple[Any, int]:
        x = dg.ones(3, requires_grad=True)
        y = x if leaf else x * 2.0
        seen: list[Any] = []
        y.register_hook(lambda g: seen.append((y, g)))
        if leaf:
            y.register_post_accumulate_grad_hook(lambda t: seen.append(y))
        (y * y).sum().backward()
        assert len(seen) == 1 + leaf
        return weakref.ref(y), id(y if leaf else y.grad_fn)

    gone, key = hooked()
    table = hooks.on_leaves if leaf else hooks.on_nodes
    assert key in table
    gc.collect()
    assert gone() is None
    assert key not in table


def test_tables_of_hooks_hold_what_has_some() -> None:
    x = dg.ones(3, requires_grad=True)
    y = x * 2.0
    before, other = x.register_hook(lambda g: g * 2.0), x.register_hook(lambda g: g * 3.0)
    after = x.register_post_accumulate_grad_hook(lambda t: None)
    on_y = y.register_hook(lambda g: None)
    y.retain_grad()
    before.remove()
    before.remove()
    after.remove()
    assert id(x) in hooks.on_leaves
    other.remove()
    assert id(x) not in hooks.on_leaves
    on_y.remove()
    assert id(y.grad_fn) in hooks.on_nodes
    with x.register_hook(lambda g: g * 5.0):
        y.sum().backward()
    assert x.grad.tolist() == [10.0] * 3
    assert y.grad.tolist() == [1.0] * 3
    assert id(x) not in hooks.on_leaves
