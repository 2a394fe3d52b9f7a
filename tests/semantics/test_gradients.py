"""Gradients inside of compiled functions and out of them: rows 34, 35, 36, 39; needs 13, 26."""

import copy
import gc
import threading
import types
import weakref

import numpy as np
import pytest

import dualgrad as dg
from dualgrad import functional as F
from dualgrad import nn
from dualgrad.runtime.errors import GradientError
from semantics.support import compare


def leaf(*shape, seed=0, dtype=None, requires_grad=True):
    values = np.random.default_rng(seed).normal(size=shape)
    return dg.tensor(values, dtype=dtype or dg.float32, requires_grad=requires_grad)


def network():
    """A function of x with two layers, and its parameters."""
    p = {"w1": leaf(8, 16), "b1": leaf(16, seed=1), "w2": leaf(16, 4, seed=2)}

    def f(x):
        h = (x @ p["w1"] + p["b1"]).relu()
        return (h @ p["w2"]).tanh()

    return f, p


X = leaf(5, 8, seed=9, requires_grad=False)


def step(f, p):
    y = f(X)
    (y * y).sum().backward()
    return y


# -- row 35: backward() through a compiled function ----------------------------------------------


def test_row35_backward_through():
    compare(network, [step, step, step], traces=1)


def test_row35_result_prints_as_in_eager_mode():
    compare(network, [lambda f, p: print(f(X)), lambda f, p: print(f(X))])


def test_row35_several_calls_before_one_backward():
    def loop(f, p):
        total = sum(f(X * k).mean() for k in (1.0, 2.0, 3.0))
        total.backward()

    compare(network, [loop, loop], traces=1)


def test_row35_results_that_are_used_in_part():
    def make():
        w, v = leaf(4), leaf(4, seed=1)

        def f(x):
            h = x * w
            return h.exp(), h * v, (v * v).sin()

        return f, w, v

    x = leaf(4, seed=2, requires_grad=False)
    calls = [
        lambda f, w, v: f(x)[0].sum().backward(),
        lambda f, w, v: f(x)[1].sum().backward(),
        lambda f, w, v: f(x)[2].sum().backward(),
        lambda f, w, v: (lambda a, b, c: (a * c).sum().backward())(*f(x)),
        lambda f, w, v: (lambda a, b, c: (a * b * c).sum().backward())(*f(x)),
    ]
    compare(make, calls, traces=1)


def test_row35_results_that_share_nothing_are_freed_one_by_one():
    def make():
        w, v = leaf(4), leaf(4, seed=1)
        return lambda: (w.exp(), v.exp(), w * v), w, v

    def both(f, w, v):
        a, b, _ = f()
        a.sum().backward()
        b.sum().backward()

    def again(f, w, v):
        a, _, c = f()
        a.sum().backward()
        c.sum().backward()
        a.sum().backward()

    compare(make, [both, again, both])


def test_row35_second_backward_is_refused():
    def twice(f, p):
        y = f(X).sum()
        y.backward()
        y.backward()

    def from_two(f, p):
        y = f(X)
        y.sum().backward()
        (y * 2).sum().backward()

    def retained(f, p):
        y = f(X)
        y.sum().backward(retain_graph=True)
        (y * 2).sum().backward()

    compare(network, [twice, from_two, retained])


@pytest.mark.parametrize("name", ["w1", "b1", "w2"])
def test_row35_parameter_changed_between_forward_and_backward(name):
    def changed(f, p):
        y = f(X)
        with dg.no_grad():
            p[name].mul_(2.0)
        y.sum().backward()

    compare(network, [changed, step])


def test_row35_input_changed_between_forward_and_backward():
    def make():
        w = leaf(8, 4)
        return lambda x: x.reshape(-1, 8) @ w, w

    def changed(f, w):
        x = leaf(2, 3, 8, seed=4, requires_grad=False)
        y = f(x)
        x.zero_()
        y.sum().backward()

    compare(make, [changed, lambda f, w: f(X).sum().backward()])


def test_row35_input_that_no_gradient_reads_may_change():
    def make():
        w = leaf(4)
        return lambda x: ((x + w).relu() + x).tanh(), w

    def changed(f, w):
        x = leaf(4, seed=4, requires_grad=False)
        y = f(x)
        x.zero_()
        y.sum().backward()

    compare(make, [changed, changed])


def test_row35_result_changed_between_forward_and_backward():
    def make():
        w = leaf(4)
        return lambda x: ((x * w).exp(), (x * w).exp().sum(), x + w), w

    def changed(number):
        def call(f, w):
            out = f(X[0, :4])
            with dg.no_grad():
                out[number].detach().mul_(2.0)
            (out[0].sum() + out[1] + out[2].sum()).backward()

        return call

    compare(make, [changed(0), changed(1), changed(2)])


def test_row35_inputs_with_a_graph_of_their_own():
    def make():
        w, v, u = leaf(8, 8), leaf(8, 8, seed=1), leaf(8, 8, seed=2)
        return lambda h: (h @ v).tanh() * h, w, v, u

    def layers(f, w, v, u):
        h = (X @ w).tanh()
        ((f(h) @ u) * h).sum().backward()

    compare(make, [layers, layers, layers], traces=1)


def test_row35_tensor_used_inside_and_outside():
    def make():
        w = leaf(6)

        def f(x, h):
            return (x * w + h) * w.exp() + h * h * w

        return f, w

    def call(f, w):
        x = leaf(6, seed=3, requires_grad=False)
        h = w * 0.3
        before = (w * h).sin()
        y = f(x, h)
        after = y * h * w + before / w + h.exp()
        after.sum().backward()

    compare(make, [call, call], traces=1)


def test_row35_results_that_are_views():
    def make():
        w = leaf(4, 6)

        def f(x):
            h = x * w
            return h, h.T, h[1], w.reshape(6, 4), h.sum()

        return f, w

    def call(f, w):
        h, t, row, v, s = f(leaf(4, 6, seed=1, requires_grad=False))
        ((t @ h) * row.sum() * s).sum().backward()
        (v * 2).sum().backward()

    def written(f, w):
        h, t, row, *_ = f(leaf(4, 6, seed=1, requires_grad=False))
        with dg.no_grad():
            row.zero_()
        return h, t, row

    compare(make, [call, call, written, written])


def test_row35_detached_results_and_inputs():
    def make():
        w = leaf(4)

        def f(x):
            h = x * w
            return h.detach(), h * h.detach(), h.exp().detach() * w

        return f, w

    x = leaf(4, seed=2, requires_grad=False)
    compare(make, [lambda f, w: sum(t.sum() for t in f(x)).backward()] * 2)


def test_row35_leaf_made_inside():
    def make():
        w = leaf(4)

        def f(x):
            v = (x * w).detach().requires_grad_()
            return v, (v * w).sum()

        return f, w

    def call(f, w):
        v, s = f(leaf(4, seed=2, requires_grad=False))
        s.backward()
        return v.grad

    compare(make, [call, call])


def test_row35_backward_inside_and_outside():
    def make():
        w, v = leaf(4), leaf(4, seed=1)

        def f(x):
            h = x * w
            (h * v).sum().backward(retain_graph=True)
            return h.exp()

        return f, w, v

    x = leaf(4, seed=2, requires_grad=False)
    compare(make, [lambda f, w, v: f(x).sum().backward()] * 2)


def test_row35_part_of_the_graph_freed_inside():
    def make():
        w = leaf(4)

        def f(x):
            h = (x * w).exp()
            h.sum().backward()
            return h * w

        return f, w

    x = leaf(4, seed=2, requires_grad=False)
    compare(make, [lambda f, w: f(x).sum().backward()] * 2)


def test_row35_state_with_a_graph():
    def make():
        cell = types.SimpleNamespace(w=leaf(4, 4), h=dg.zeros(4))

        def f(x):
            cell.h = (x + cell.h @ cell.w).tanh()
            return cell.h.sum()

        return f, cell

    def unrolled(f, cell):
        total = f(X[0, :4]) + f(X[1, :4]) * f(X[2, :4])
        total.backward()
        cell.h = cell.h.detach()

    compare(make, [unrolled, unrolled, unrolled])


def test_row35_running_statistics():
    def make():
        w, gain, bias = leaf(8, 6), leaf(6, seed=1), leaf(6, seed=2)
        state = {"mean": dg.zeros(6), "var": dg.ones(6), "train": True}

        def f(x):
            return F.batch_norm(
                x @ w, state["mean"], state["var"], gain, bias, training=state["train"]
            ).relu()

        return f, w, gain, bias, state

    def call(f, *state):
        y = f(X)
        (y * y).sum().backward()
        return y

    def evaluate(f, w, gain, bias, state):
        state["train"] = False

    compare(make, [call, call, evaluate, call, call], traces=2)


def test_row35_dropout_and_loss_with_an_optimizer_outside():
    def make():
        model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 3))
        opt = dg.optim.Adam(model.parameters(), lr=0.01)

        def f(x, t):
            return F.cross_entropy(F.dropout(model(x), 0.3), t)

        return f, model, opt

    target = dg.tensor([0, 1, 2, 1, 0])

    def train(f, model, opt):
        opt.zero_grad()
        loss = f(X, target)
        loss.backward()
        opt.step()
        return loss

    compare(make, [train] * 5, traces=1)


def test_row35_shared_weights_used_many_times():
    def make():
        w, h0 = leaf(6, 6), leaf(6, seed=1)

        def f(x):
            h = h0
            for k in range(5):
                h = (h @ w + x[k]).tanh()
            return h

        return f, w, h0

    def call(f, w, h0):
        x = leaf(5, 6, seed=5, requires_grad=False)
        (f(x) * f(x * 2) @ w).sum().backward()

    compare(make, [call, call], traces=1)


def test_row35_seed_of_any_layout():
    def make():
        w = leaf(3, 4)
        return lambda x: (x * w).exp(), w

    x = leaf(3, 4, seed=2, requires_grad=False)
    seed = leaf(4, 3, seed=3, requires_grad=False)
    compare(
        make,
        [
            lambda f, w: f(x).backward(seed.T),
            lambda f, w: f(x).T.backward(seed),
            lambda f, w: f(x).sum(0).backward(seed[:, 0]),
            lambda f, w: f(x)[1].backward(dg.ones(4)),
        ],
    )


def test_row35_one_tensor_under_two_names():
    def make():
        w = leaf(4)
        return lambda a, b: (a * b).exp() * a, w

    def call(f, w):
        h = w * 2.0
        f(h, h * 1.0).sum().backward()
        f(h, copy.copy(h)).sum().backward()

    def make_call(f, w):
        h = w * 2.0
        (f(h, copy.copy(h)) * h).sum().backward()

    compare(make, [lambda f, w: f(w * 2.0, w * 3.0).sum().backward(), make_call], eager=None)


@pytest.mark.parametrize("dtype", [dg.float16, dg.bfloat16, dg.float64])
def test_row35_other_floats(dtype):
    def make():
        w, b = leaf(8, 8, dtype=dtype), leaf(8, seed=1, dtype=dtype)
        return lambda x: (((x @ w + b).relu() * w[0]).sum(-1) + b).sigmoid(), w, b

    x = leaf(8, 8, seed=4, dtype=dtype, requires_grad=False)
    compare(make, [lambda f, w, b: (f(x) * b).sum().backward()] * 2)


def test_row35_index_gather_scatter_convolution():
    def make():
        kernel, bias, table = leaf(3, 2, 3, 3), leaf(3, seed=1), leaf(10, 4, seed=2)

        def f(image, index):
            rows = table[index]
            y = F.conv2d(image, kernel, bias, padding=1).relu()
            y = F.max_pool2d(y, 2)
            return y.mean() + (rows.cumsum(0) @ rows.T).logsumexp(-1).sum()

        return f, kernel, bias, table

    image = leaf(2, 2, 6, 6, seed=4, requires_grad=False)
    index = dg.tensor([1, 5, 5, 0])
    compare(make, [lambda f, *state: f(image, index).backward()] * 2)


# -- row 39: gradients on and off ----------------------------------------------------------------


def test_row39_no_grad_around_and_inside():
    def make():
        w = leaf(4)

        def f(x):
            with dg.no_grad():
                k = (x * w).sum()
            return (x * w * k).exp()

        return f, w

    x = leaf(4, seed=2, requires_grad=False)

    def without(f, w):
        with dg.no_grad():
            return f(x)

    calls = [lambda f, w: f(x).sum().backward(), without] * 10
    compare(make, calls, traces=2)


@pytest.mark.parametrize("low", [dg.bfloat16, dg.float16], ids=lambda d: d.name)
def test_row39_autocast_around_and_inside(low):
    def make():
        model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))

        def f(x, mixed):
            with dg.autocast("cpu", low, enabled=mixed):
                y = model(x).softmax(-1)
                with dg.autocast("cpu", enabled=False):
                    z = x @ x.T
            loss = (y.sum() + z.sum()) + (x @ x.T).float().sum()
            model.zero_grad()
            loss.backward()
            return y, z, loss, [p.grad.clone() for p in model.parameters()]

        return f, model

    def around(f, model):
        with dg.autocast("cpu", low):
            return f(dg.tensor([[1.0, 2.0], [0.1, -3.0]]), True)

    x = dg.tensor([[1.0, 2.0], [0.1, -3.0]])
    found = compare(make, [(x, True), (x, False), around] * 3)
    assert found.n_traces == 3


def test_row39_enable_grad_inside_of_no_grad():
    def make():
        w = leaf(4)

        def f(x):
            with dg.enable_grad():
                return (x * w).exp()

        return f, w

    x = leaf(4, seed=2, requires_grad=False)

    def without(f, w):
        with dg.no_grad():
            y = f(x)
        y.sum().backward()

    compare(make, [without, lambda f, w: f(x).sum().backward(), without])


def test_need26_requires_grad_switched():
    def freeze(f, w, v):
        w.requires_grad_(not w.requires_grad)

    def make():
        w, v = leaf(4), leaf(4, seed=1)
        return lambda x: (x * w).exp() * v, w, v

    x = leaf(4, seed=2, requires_grad=False)

    def call(f, w, v):
        f(x).sum().backward()

    compare(make, [call, freeze, call, freeze, call, freeze, call], traces=2)


# -- row 34: gradients inside --------------------------------------------------------------------


def test_row34_gradient_penalty_inside_and_backward_outside():
    def make():
        w, v = leaf(4, 4), leaf(4, seed=1)

        def f(x):
            x = x.detach().requires_grad_()
            y = ((x @ w).tanh() * v).sum()
            y.backward(create_graph=True)
            return y + (x.grad * x.grad).sum()

        return f, w, v

    x = leaf(4, seed=2, requires_grad=False)
    compare(make, [lambda f, w, v: f(x).backward()] * 2, eager=None)


def test_row34_inner_gradients_of_parameters_stay_differentiable():
    def make():
        w, v = leaf(4), leaf(4, seed=1)

        def f(x):
            (x * w * v).exp().sum().backward(create_graph=True)
            return w.grad

        return f, w, v

    def call(f, w, v):
        w.grad = v.grad = None
        g = f(leaf(4, seed=2, requires_grad=False))
        w.grad = v.grad = None
        (g * g).sum().backward()

    compare(make, [call, call])


# -- row 36: higher derivatives ------------------------------------------------------------------


def gradient(y, x, create_graph=True):
    """dy/dx by backward(); x.grad is left as it was."""
    before, x.grad = x.grad, None
    y.backward(create_graph=create_graph, retain_graph=True)
    out, x.grad = x.grad, before
    return out


def test_row36_gradient_penalty_outside():
    def penalty(f, p):
        x = leaf(5, 8, seed=7)
        y = f(x)
        (y * y).sum().backward(create_graph=True)
        g = x.grad
        for t in p.values():
            t.grad = None
        loss = (g * g).sum() + y.sum()
        loss.backward()

    compare(network, [penalty, penalty], traces=1)


def test_row36_second_and_third_derivative_have_the_bits_of_eager_mode():
    def make():
        w = leaf(5, dtype=dg.float64)
        return lambda x: (x * w).sin().exp() * x + (x * x * w).tanh(), w

    def third(f, w):
        x = leaf(5, seed=3, dtype=dg.float64)
        y = (f(x) * x).sum()
        g = gradient(y, x)
        h = gradient((g * g.tanh() + f(x) * g).sum(), x)
        w.grad = None
        (h * h * x).sum().backward()
        return x.grad, w.grad, g.detach(), h.detach()

    compare(make, [third, third])


def test_row36_derivatives_match_finite_differences():
    w = leaf(3, 3, dtype=dg.float64)

    @dg.function(strict=True)
    def f(x):
        return ((x @ w).tanh() * x.exp()).sum() + (x * x * x).sum().sigmoid()

    def derivative(order, x):
        """Directional derivative: order 0 is f itself."""
        if order == 0:
            return f(x)
        return (gradient(derivative(order - 1, x), x) * direction).sum()

    direction = leaf(3, seed=5, dtype=dg.float64, requires_grad=False)
    start = leaf(3, seed=4, dtype=dg.float64).detach()
    for order in (1, 2, 3):
        exact = derivative(order, start.clone().requires_grad_()).item()
        h = 1e-5
        above, below = (
            derivative(order - 1, (start + s * h * direction).requires_grad_()).item()
            for s in (1, -1)
        )
        assert exact == pytest.approx((above - below) / (2 * h), rel=1e-7)
    assert f.n_traces == 1


def test_row36_seeds_that_require_gradients():
    def make():
        w, v = leaf(4), leaf(4, seed=1)
        return lambda x: (x * w).exp() + w, w, v

    def call(f, w, v):
        x = leaf(4, seed=2)
        f(x).backward(v, create_graph=True)
        loss = (x.grad * x.grad * w.grad).sum()
        x.grad = w.grad = v.grad = None
        loss.backward()
        return x.grad

    compare(make, [call, call])


def test_row36_accumulated_gradients_with_a_graph():
    def make():
        w = leaf(4)
        return lambda x: (x * w).exp() * w + w.sin(), w

    def call(f, w):
        x = leaf(4, seed=2)
        w.grad = None
        f(x).sum().backward(create_graph=True)
        (f(w * x) * w).sum().backward(create_graph=True)
        g = w.grad
        w.grad = None
        (g * g * x).sum().backward()
        return g.detach(), x.grad

    compare(make, [call, call])


# -- memory --------------------------------------------------------------------------------------


def test_row35_graph_is_freed_without_the_collector():
    f = dg.function(network()[0], strict=True)
    f(leaf(5, 8)).sum().backward()
    gc.collect()
    gc.disable()
    try:
        for backward in (True, False):
            x = leaf(5, 8, seed=8)
            held = weakref.ref(x)
            y = f(x)
            y.sum().backward(retain_graph=not backward)
            del x
            # Freed by backward, or kept for another one.
            assert (held() is None) is backward
            del y
            assert held() is None
    finally:
        gc.enable()


def test_row35_trace_keeps_nothing_of_the_first_call():
    f = dg.function(network()[0], strict=True)
    x = leaf(5, 8, seed=8)
    h = x * 2
    held = weakref.ref(x), weakref.ref(h)
    f(h).sum().backward()
    del x, h
    gc.collect()
    assert held[0]() is None
    assert held[1]() is None


def test_need13_error_without_a_graph():
    f = dg.function(lambda x: x * 2, strict=True)
    with pytest.raises(GradientError, match="nothing to differentiate"):
        f(X).sum().backward()


# -- sizes ---------------------------------------------------------------------------------------


def test_row35_sizes_that_change():
    def backward_of(n):
        def call(f, p):
            x = leaf(n, 8, seed=n, requires_grad=False)
            y = f(x)
            ((y * y).sum() + y.T[0].sum() * 2.0).backward()
            return y

        return call

    compare(network, [backward_of(n) for n in (5, 7, 3, 12, 1, 9, 0, 2)])


def test_row36_sizes_that_change():
    def penalty_of(n):
        def call(f, p):
            x = leaf(n, 8, seed=n)
            y = f(x)
            (y * y).sum().backward(create_graph=True)
            g = x.grad
            for t in p.values():
                t.grad = None
            ((g * g).sum() + y.mean()).backward()

        return call

    compare(network, [penalty_of(n) for n in (5, 7, 3, 12)])


def test_row35_part_is_freed_before_a_derivative_is_recorded():
    def make():
        w, v = leaf(4), leaf(4, seed=1)
        return lambda x: ((x * w).exp(), (x * v).sin()), w, v

    def call(f, w, v):
        x = leaf(4, seed=2)
        a, b = f(x)
        a.sum().backward()
        x.grad = None
        b.sum().backward(create_graph=True)
        g = x.grad
        x.grad = None
        (g * g).sum().backward()
        return x.grad

    compare(make, [call, call])


# -- numbers, aliases, changes in place ----------------------------------------------------------


def test_row35_numbers_that_change():
    def make():
        w = leaf(4)
        return lambda x, scale: (x * w * scale).exp() * (scale + 1) + w**scale, w

    def scaled(scale):
        def call(f, w):
            x = leaf(4, seed=2)
            f(x, scale).sum().backward(create_graph=True)
            g = x.grad
            x.grad = None
            (g * g).sum().backward()
            return x.grad

        return call

    compare(make, [scaled(s) for s in (2.0, 3.0, 0.5, 4.0, 1.5)])


def test_row35_changes_in_place_inside():
    def make():
        w, v = leaf(4, 4), leaf(4, seed=1)

        def f(x):
            h = x * w
            h.add_(v)
            k = h.clone()
            k[1] = v * 2.0
            k[2:].add_(x[0])
            h += k.exp_()
            part = h[:2]
            part *= 3.0
            return h, part.sum()

        return f, w, v

    x = leaf(4, 4, seed=2, requires_grad=False)

    def call(f, w, v):
        h, s = f(x)
        (h.T * s).sum().backward()
        return h

    compare(make, [call, call])


def test_row35_result_changed_in_place_with_its_graph():
    def make():
        w = leaf(4)
        return lambda x: (x * w).sigmoid() + x, w

    def call(f, w):
        y = f(leaf(4, seed=2, requires_grad=False))
        y.add_(w)
        y.add_(y.detach() * 2.0)
        y.sum().backward()
        return y

    compare(make, [call, call])


def test_row35_inputs_that_overlap_and_are_overwritten():
    def make():
        w, state = leaf(4), dg.zeros(8)

        def f(x, a, b):
            with dg.no_grad():
                a.add_(x)
            y = (b * w).tanh() * a.sum()
            return y + b * w

        return f, w, state

    def call(f, w, state):
        x = leaf(4, seed=2, requires_grad=False)
        y = f(x, state[:4], state[2:6])
        y.sum().backward()
        return y

    def changed(f, w, state):
        y = f(leaf(4, seed=2, requires_grad=False), state[:4], state[2:6])
        state[7] = 1.0
        y.sum().backward()

    compare(make, [call, call, changed])


def test_row35_the_same_tensor_twice():
    def make():
        w = leaf(4)
        return lambda a, b: (a * b).exp() * w - b, w

    def call(f, w):
        h = w * 0.5
        (f(h, h) * f(w, h) + f(w, w) * h).sum().backward()

    compare(make, [call, call])


def test_row33_compiled_calls_compiled_with_gradients():
    def make(decorate):
        w = leaf(4)

        @decorate
        def inner(x):
            return (x * w).tanh()

        @decorate
        def outer(x):
            return inner(x) * inner(x * 2.0) + w

        return outer, inner, w

    def call(f, inner, w):
        h = inner(w * 0.2)
        (f(h) * h).sum().backward()

    compare(make, [call, call])


def test_row35_functions_of_functions():
    """A compiled optimizer step on gradients that came out of another compiled function."""

    def make(decorate):
        w, x = leaf(4), leaf(4, seed=1, requires_grad=False)

        @decorate
        def loss():
            return ((x * w).exp() - x).square().mean()

        @decorate
        def update():
            with dg.no_grad():
                w.sub_(w.grad * 0.1)
            w.grad = None

        def step():
            out = loss()
            out.backward()
            update()
            return out

        return step, loss, update, w

    compare(make, [lambda step, *_: step()] * 5, traces=1)


def test_row35_training_in_threads():
    f, p = network()
    compiled = dg.function(f, strict=True)
    inputs = [leaf(5 + k % 3, 8, seed=k) for k in range(12)]
    wanted = []
    for x in inputs:
        f(x).sum().backward()
        wanted.append(x.grad.tolist())
        x.grad = None
    for t in p.values():
        t.requires_grad_(False)
        t.grad = None
    found = [None] * len(inputs)

    def work(k):
        compiled(inputs[k]).sum().backward()
        found[k] = inputs[k].grad.tolist()

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(inputs))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert found == wanted


# -- hooks on results ----------------------------------------------------------------------------


def test_row35_hooks_on_results_see_what_they_see_in_eager_mode():
    def make():
        w, v = leaf(4), leaf(4, seed=1)

        def f(x):
            a = (x * w).tanh()
            b = a * v + a.exp()
            c = (b * a).sigmoid()
            return a, b, c

        return f, w, v

    def hooked(create_graph):
        def call(f, w, v):
            x = leaf(4, seed=2)
            a, b, c = f(x)
            seen = []
            for t, factor in ((a, 0.5), (c, 2.0), (b, 3.0), (x, 1.5)):
                t.register_hook(lambda g, factor=factor: seen.append(g.tolist()) or g * factor)
            (c * b + a * w).sum().backward(create_graph=create_graph)
            g = x.grad
            if create_graph:
                x.grad = w.grad = v.grad = None
                (g * g).sum().backward()
            return seen, g.detach()

        return call

    compare(make, [hooked(False), hooked(False), hooked(True)])


def test_row35_hook_on_a_result_that_is_not_differentiated():
    def make():
        w = leaf(4)
        return lambda x: (x * w, (x * w).exp()), w

    def call(f, w):
        a, b = f(leaf(4, seed=2, requires_grad=False))
        b.register_hook(lambda g: print("never", g))
        a.register_hook(lambda g: print("once", g))
        a.sum().backward()

    compare(make, [call, call])


def test_row34_backward_inside_into_a_graph_from_outside():
    """It runs eagerly: the units outside are no part of the program."""

    def make():
        w, v = leaf(4), leaf(4, seed=1)

        def f(h):
            (h * v).exp().sum().backward()
            return v.grad * 2.0

        return f, w, v

    compare(make, [lambda f, w, v: f(w * 0.5)] * 2, eager=True)
