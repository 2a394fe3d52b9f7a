"""Rows 6 and 50: tensors are found by the place where they stand, not by identity.

What a function puts there is a new object at each call, and no reason to trace again.
"""

from __future__ import annotations

import numpy as np
import pytest

import dualgrad as dg
from dualgrad import nn, optim
from semantics.support import compare

X = dg.tensor([1.0, -2.0, 3.0])
# Each `make` returns the function and one that gives the state.
CALLS = [lambda f, look, k=k: (f(X * float(k)), look()) for k in range(1, 6)]


class Slots:
    __slots__ = ("h", "seen")

    def __init__(self):
        self.h = dg.zeros(3)
        self.seen = None


def rnn_state():
    class Cell(nn.Module):
        def __init__(self):
            super().__init__()
            dg.seed(1)
            self.inner = nn.Linear(3, 3)
            self.h = dg.zeros(3)

        def forward(self, x):
            h = dg.tanh(self.inner(x) + self.h).detach()
            self.h = h
            return h.sum()

    cell = Cell()
    return lambda x: cell(x), lambda: cell


def list_element():
    state = [dg.zeros(3), "text"]

    def f(x):
        state[0] = state[0] * 0.5 + x
        return state[0].sum()

    return f, lambda: state


def dict_entry():
    state = {"h": dg.zeros(3), 3: dg.ones(3)}

    def f(x):
        state["h"], state[3] = state[3] + x, state["h"] * 0.5
        return state["h"].sum()

    return f, lambda: state


def nonlocal_name():
    h = dg.zeros(3)

    def f(x):
        nonlocal h
        h = dg.tanh(h + x)
        return h * 2.0

    return f, lambda: h


def global_name():
    space = {"h": dg.zeros(3)}
    exec("def f(x):\n    global h\n    h = h * 0.5 + x\n    return h.sum()", space)
    return space["f"], lambda: space["h"]


def slot():
    state = Slots()

    def f(x):
        state.h = state.h + x
        return state.h * 2.0

    return f, lambda: state.h


def class_attribute():
    class Holder:
        h = dg.zeros(3)

    def f(x):
        Holder.h = Holder.h * 0.5 + x
        return Holder.h.sum()

    return f, lambda: Holder.h


def attribute_of_an_argument():
    class Bag:
        pass

    bag = Bag()
    bag.h = dg.zeros(3)

    def f(x):
        bag.h = bag.h + x
        bag.last = bag.h[1:]
        return bag.last

    bag.last = bag.h[1:]
    return f, lambda: (bag.h, bag.last)


def argument_kept():
    state = {"last": dg.zeros(3)}

    def f(x):
        out = x - state["last"]
        state["last"] = x
        return out

    return f, lambda: state


def nested():
    class Layer:
        def __init__(self):
            self.caches = [{"k": dg.zeros(3)} for _ in range(2)]

    layer = Layer()

    def f(x):
        for cache in layer.caches:
            cache["k"] = cache["k"] + x
            x = cache["k"]
        return x

    return f, lambda: [c["k"] for c in layer.caches]


def swapped():
    state = [dg.ones(3), dg.zeros(3)]

    def f(x):
        state[0], state[1] = state[1], state[0]
        state[0].add_(x)
        return state[0] * 1.0

    return f, lambda: state


PLACES = [
    rnn_state, list_element, dict_entry, nonlocal_name, global_name, slot, class_attribute,
    attribute_of_an_argument, argument_kept, nested, swapped,
]  # fmt: skip


@pytest.mark.parametrize("make", PLACES, ids=lambda make: make.__name__)
def test_row06_bound_anew_at_each_call(make):
    f = compare(make, CALLS)
    assert f.n_traces == 1
    assert f.report().count("runs eagerly") == 0


def lazy_attribute():
    class Buffered:
        def __init__(self):
            self.buf = None

        def step(self, x):
            if self.buf is None:
                self.buf = dg.zeros(3)
            self.buf.mul_(0.9).add_(x)
            return self.buf * 2.0

    owner = Buffered()
    return owner.step, lambda: owner


def lazy_entry():
    state = {}

    def f(x):
        for name in ("a", "b"):
            if name not in state:
                state[name] = dg.zeros(3)
            state[name] = state[name] * 0.5 + x
        return state["a"] + state["b"]

    return f, lambda: state


def lazy_attribute_that_was_not_there():
    class Lazy:
        pass

    owner = Lazy()

    def f(x):
        if not hasattr(owner, "buf"):
            owner.buf = dg.ones(3)
        owner.buf.add_(x)
        return owner.buf.sum()

    return f, lambda: owner


def lazy_slot():
    owner = Slots()

    def f(x):
        if owner.seen is None:
            owner.seen = x * 0.0
        owner.seen = owner.seen + x
        return owner.seen.sum()

    return f, lambda: owner.seen


def lazy_global():
    space = {"dg": dg}
    text = """
def f(x):
    global cache
    try:
        cache
    except NameError:
        cache = dg.zeros(3)
    cache.add_(x)
    return cache.sum()
"""
    exec(text, space)
    return space["f"], lambda: space.get("cache")


def lazy_optimizer_state():
    dg.seed(0)
    model = nn.Linear(3, 1)
    opt = optim.Adam(model.parameters(), lr=0.1)

    def f(x):
        opt.zero_grad()
        loss = (model(x) ** 2).sum()
        loss.backward()
        opt.step()
        return loss.detach()

    return f, lambda: [*model.parameters(), *(p.grad for p in model.parameters())]


LAZY = [
    lazy_attribute, lazy_entry, lazy_attribute_that_was_not_there, lazy_slot, lazy_global,
    lazy_optimizer_state,
]  # fmt: skip


@pytest.mark.parametrize("make", LAZY, ids=lambda make: make.__name__)
def test_row50_state_made_by_the_first_call(make):
    f = compare(make, CALLS)
    assert f.n_traces <= 2


def test_row50_state_made_for_each_of_several_objects():
    """One program that makes it, one that goes on, whatever the number of objects."""

    class Buffered:
        def __init__(self):
            self.buf = None

        @dg.function(strict=True)
        def step(self, x):
            if self.buf is None:
                self.buf = dg.zeros(3)
            self.buf.add_(x)
            return self.buf * 2.0

    owners = [Buffered() for _ in range(6)]
    for k in range(3):
        for n, owner in enumerate(owners):
            out = owner.step(dg.full((3,), float(n)))
            np.testing.assert_array_equal(out.numpy(), np.full(3, 2.0 * n * (k + 1), "f4"))
            np.testing.assert_array_equal(owner.buf.numpy(), np.full(3, n * (k + 1.0), "f4"))
    assert len({id(owner.buf) for owner in owners}) == 6
    assert Buffered.step.n_traces <= 2


def test_row50_parameters_made_inside():
    class Lazy(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = None

        def forward(self, x):
            if self.weight is None:
                self.weight = nn.Parameter(dg.full((x.shape[-1],), 0.5))
            return (x * self.weight).sum()

    def make():
        model = Lazy()

        def f(x):
            loss = model(x)
            loss.backward()
            with dg.no_grad():
                model.weight.sub_(0.1 * model.weight.grad)
            model.weight.grad = None
            return loss.detach()

        return f, lambda: model.weight

    f = compare(make, CALLS)
    assert f.n_traces <= 2


def test_row06_grad_set_to_none_and_made_again():
    def make():
        w = dg.ones(3, requires_grad=True)

        def f(x):
            w.grad = None
            ((w * x) ** 2).sum().backward()
            with dg.no_grad():
                w.sub_(0.01 * w.grad)
            return w.grad

        return f, lambda: (w, w.grad)

    f = compare(make, CALLS)
    assert f.n_traces <= 2  # without a gradient at first, then with one


def test_row06_parameters_replaced_from_outside():
    model = nn.Linear(3, 2)

    @dg.function(strict=True)
    def f(x):
        return model(x)

    for k in range(4):
        model.weight = nn.Parameter(dg.full((2, 3), float(k)))
        expected = model.weight.detach().numpy() @ X.numpy() + model.bias.detach().numpy()
        with dg.no_grad():
            np.testing.assert_allclose(f(X).numpy(), expected, rtol=1e-6)
    assert f.n_traces == 1
