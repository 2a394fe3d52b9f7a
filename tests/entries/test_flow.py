"""Gradients that native code sends back over the tape, against those that Python sends."""

from __future__ import annotations

import gc
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dualgrad as dg
from dualgrad.gradients import flow
from dualgrad.gradients.hooks import on_leaves, on_nodes
from dualgrad.nn import Parameter
from dualgrad.runtime.errors import GradientError
from dualgrad.runtime.native import library

pytestmark = pytest.mark.skipif(not library.load(), reason="native entries are off here")

BINARY = [lambda a, b: a + b, lambda a, b: a * b, lambda a, b: a - b, dg.maximum]
UNARY = [
    lambda a: a * 2.0, lambda a: a.tanh(), lambda a: 1 - a, lambda a: a.reshape(2, 2).T.reshape(4),
    lambda a: a[:, None].expand(4, 3).sum(1), lambda a: a.sum().expand(4), lambda a: a.sort(),
    lambda a: dg.cat(a.chunk(2)), lambda a: a.detach(), lambda a: a.clone(),
]  # fmt: skip


@pytest.fixture
def by_python(monkeypatch):
    """Lets gradients be sent back by Python."""

    def switch():
        monkeypatch.setattr(flow, "flow_back", flow.flowing.slow)

    return switch


def leaves(kind="float32"):
    rng = np.random.default_rng(3)
    return [dg.tensor(rng.normal(size=4).astype(kind), requires_grad=True) for _ in range(3)]


def graph(program, inputs):
    """The last of many values, and all of them."""
    made = list(inputs)
    for op, i, j in program:
        a, b = made[i % len(made)], made[j % len(made)]
        made.append(BINARY[op](a, b) if op < len(BINARY) else UNARY[op - len(BINARY)](a))
    return made


def bits(inputs):
    return [None if x.grad is None else x.grad.numpy().tobytes() for x in inputs]


def share(inputs):
    arrays = [x.grad.array for x in inputs if x.grad is not None]
    return any(np.shares_memory(a, b) for k, a in enumerate(arrays) for b in arrays[:k])


steps = st.tuples(
    st.integers(0, len(BINARY) + len(UNARY) - 1), st.integers(0, 40), st.integers(0, 40)
)


@settings(max_examples=60, deadline=None)
@given(program=st.lists(steps, min_size=1, max_size=14), twice=st.booleans(), several=st.booleans())
def test_gradients_have_the_bits_of_python(program, twice, several):
    found = []
    for send in (flow.flowing.slow, flow.flowing.call):
        inputs = leaves()
        made = graph(program, inputs)
        roots = [x for x in made[-3:] if x.requires_grad] if several else [made[-1]]
        if not all(x.requires_grad for x in roots):
            return
        seeds = tuple(dg.tensor(np.arange(1, 5, dtype="float32")) for _ in roots)
        with dg.no_grad():
            if twice:
                send(tuple(roots), seeds, True)
            send(tuple(roots), seeds, False)
        assert not share([*inputs, *[x for x in seeds if x.grad is not None]])
        assert all(g.array is not x.grad.array for g in seeds for x in inputs if x.grad is not None)
        assert all(not hasattr(x.grad, "output_number") for x in inputs if x.grad is not None)
        found.append((bits(inputs), [x.grad_fn.released for x in roots if x.grad_fn is not None]))
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", ["float64", "float16", "bfloat16"])
def test_other_floats(kind, by_python):
    found = []
    for python in (False, True):
        if python:
            by_python()
        inputs = [x.detach().astype(getattr(dg, kind)).requires_grad_() for x in leaves()]
        a, b, c = inputs
        ((a * b).exp() * c + a * 3.0).sum().backward()
        found.append([x.grad.astype(dg.float64).numpy().tobytes() for x in inputs])
    assert found[0] == found[1]


def test_gradients_add_up_over_passes():
    w = Parameter(dg.tensor([1.0, 2.0]))
    for k in range(1, 4):
        (w * w).sum().backward()
        np.testing.assert_array_equal(w.grad.numpy(), [2.0 * k, 4.0 * k])


def test_wide_and_deep_graphs():
    x = dg.tensor([1.0, -1.0], requires_grad=True)
    total = x * 0.0
    for k in range(200):
        total = total + x * float(k)
    parts = [x * float(k) for k in range(200)]
    dg.cat([total, *parts]).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [2 * 199 * 100.0] * 2)
    y = x.detach().requires_grad_()
    out = y
    for _ in range(3000):
        out = out * 1.0
    out.sum().backward()
    np.testing.assert_array_equal(y.grad.numpy(), [1.0, 1.0])


def test_thousands_of_nodes_that_wait():
    """Nodes join and leave in an order that no pattern rules."""
    found = []
    for send in (flow.flowing.slow, flow.flowing.call):
        rng = np.random.default_rng(5)
        x = dg.tensor(rng.normal(size=3), requires_grad=True)
        ends = [x * float(k) for k in range(300)]
        for _ in range(2000):
            i, j = rng.integers(len(ends), size=2)
            ends[i] = ends[i] * 0.5 + ends[j] * 0.25 if i != j else ends[i].tanh()
        seeds = tuple(dg.tensor(rng.normal(size=3)) for _ in ends)
        with dg.no_grad():
            send(tuple(ends), seeds, False)
        found.append(x.grad.numpy().tobytes())
    assert found[0] == found[1]


def test_a_leaf_as_root():
    x = dg.tensor([2.0, 3.0], requires_grad=True)
    seed = dg.tensor([5.0, 7.0])
    x.backward(seed)
    x.backward(seed)
    np.testing.assert_array_equal(x.grad.numpy(), [10.0, 14.0])
    np.testing.assert_array_equal(seed.numpy(), [5.0, 7.0])


def test_the_seed_stays_the_callers():
    x = dg.tensor([2.0, 3.0], requires_grad=True)
    seed = dg.tensor([5.0, 7.0])
    (x + 0.0).backward(seed)
    x.grad.mul_(0.0)
    np.testing.assert_array_equal(seed.numpy(), [5.0, 7.0])


def test_errors_are_those_of_python(by_python):
    def second():
        x = dg.tensor([2.0], requires_grad=True)
        y = (x * x).exp()
        y.backward()
        y.backward()

    def changed():
        x = dg.tensor([2.0], requires_grad=True)
        y = x * 1.0
        z = y * y
        y.mul_(2.0)
        z.backward()

    def changed_after_visits():
        for _ in range(3):
            x = dg.tensor([2.0], requires_grad=True)
            y = x * 1.0
            (y * y).sum().backward()
        changed()

    for action in (second, changed, changed_after_visits):
        with pytest.raises(GradientError) as error:
            action()
        native = str(error.value)
        by_python()
        with pytest.raises(GradientError) as error:
            action()
        assert native == str(error.value)


class Doubling(dg.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 1.0

    @staticmethod
    def backward(ctx, g):
        return g * 2.0


@dg.function
def compiled(x):
    return (x * x).tanh()


def test_nodes_of_other_kinds_go_on_in_python(by_python):
    found = []
    for python in (False, False, True):
        if python:
            by_python()
        inputs = leaves()
        a, b, c = inputs
        out = compiled(Doubling.apply(a * b) + c) * b + a * Doubling.apply(a)
        (out.exp() + a).sum().backward()
        found.append(bits(inputs))
    assert found[0] == found[1] == found[2]


def test_an_error_in_a_node_of_the_users():
    class Failing(Doubling):
        @staticmethod
        def backward(ctx, g):
            raise ValueError("mine")

    x = dg.tensor([1.0], requires_grad=True)
    with pytest.raises(ValueError, match="mine"):
        (Failing.apply(x * 2.0) * 3.0).backward()
    assert x.grad is None


def test_hooks_that_are_there_and_hooks_that_come():
    seen = []
    x = dg.tensor([1.0, 2.0], requires_grad=True)

    class Hooking(Doubling):
        @staticmethod
        def backward(ctx, g):
            held[0].register_hook(lambda g: seen.append(g.numpy().copy()))
            return g * 2.0

    held = [x]
    (Hooking.apply(x * 3.0) * 1.0).sum().backward()
    np.testing.assert_array_equal(seen, [[6.0, 6.0]])
    y = x * 2.0
    y.retain_grad()
    (y * y).sum().backward()
    np.testing.assert_array_equal(y.grad.numpy(), [4.0, 8.0])
    assert len(seen) == 2
    del x, y
    held.clear()
    gc.collect()
    assert not on_leaves
    assert not on_nodes


def test_a_leaf_that_does_not_want_its_gradient_any_more():
    x, y = leaves()[:2]
    out = (x * y).exp()
    x.requires_grad_(False)
    out.sum().backward()
    assert x.grad is None
    assert y.grad is not None


def test_references_are_given_back():
    x, y = leaves()[:2]

    def work():
        x.grad = y.grad = None
        z = x * y + x
        (z.tanh() * z + y).sum().backward()

    work()
    work()
    gc.collect()
    things = [x, y, x._type, x._version, flow.flowing.slow, None, True, False, ()]
    before = [sys.getrefcount(t) for t in things]
    blocks = sys.getallocatedblocks()
    for _ in range(100):
        work()
    gc.collect()
    after = [sys.getrefcount(t) for t in things]
    assert all(abs(a - b) < 30 for a, b in zip(after, before, strict=True)), (before, after)
    assert sys.getallocatedblocks() - blocks < 200


def test_several_threads_at_once():
    results = {}

    def work(number):
        x = dg.tensor(np.full(4, float(number)), requires_grad=True)
        for _ in range(50):
            x.grad = None
            ((x * x) * x).sum().backward()
        results[number] = x.grad.numpy().tolist()

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == {k: [3.0 * k * k] * 4 for k in range(4)}


def test_one_graph_from_several_threads():
    x = dg.tensor(np.ones(50_000), requires_grad=True)
    out = ((x * x) * x).sum()
    errors = []

    def work():
        try:
            for _ in range(10):
                out.backward(retain_graph=True)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors
    assert x.grad is not None
