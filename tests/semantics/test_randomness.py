"""Random numbers: dualgrad's own with the same bits in both modes, those of others at each call."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable
from itertools import starmap
from typing import Any

import numpy as np
import pytest

import dualgrad as dg
from dualgrad import nn
from dualgrad.functional import dropout
from semantics.support import compare

X = dg.tensor(np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8))
CALLS = [(X,), (X * 2,), (X,)]


def test_need09_fifty_steps_with_dropout() -> None:
    def make() -> Any:
        dg.seed(3)
        w = dg.randn(8, 8, requires_grad=True)

        def f(x: Any) -> Any:
            w.grad = None
            loss = (dropout(x @ w, 0.3) ** 2).mean()
            loss.backward()
            with dg.no_grad():
                w.sub_(0.1 * w.grad)  # type: ignore[operator]
            return loss.detach()

        return f, w

    f = compare(make, [(X,)] * 50)
    assert f.n_traces <= 2


OWN: dict[str, Callable[[Any], Any]] = {
    "rand": lambda x: x + dg.rand(8),
    "randn": lambda x: x + dg.randn(8, 8),
    "randint": lambda x: dg.randint(0, 10, (4,)),
    "randperm": lambda x: x[dg.randperm(8)],
    "like": lambda x: dg.rand_like(x) * dg.randn_like(x),
    "in place": lambda x: x.clone().normal_() + x.clone().uniform_(),
    "bernoulli": lambda x: dg.bernoulli(dg.sigmoid(x)),
    "two": lambda x: (dg.rand(3), dg.rand(3)),
    "seed inside": lambda x: (dg.manual_seed(5), dg.rand(3))[1],
}


@pytest.mark.parametrize("name", OWN)
def test_need09_own_numbers(name: str) -> None:
    f = OWN[name]
    compare(lambda: f, CALLS * 2, eager=None)


def test_need09_seeds_between_calls() -> None:
    def make() -> Any:
        return lambda x: x * dg.rand(8)

    def seeded(f: Any) -> Any:
        dg.manual_seed(11)
        return f(X)

    f = compare(make, [seeded, (X,), seeded, (X,)], eager=False)
    assert seeded(f).tolist() == seeded(f).tolist()
    assert f(X).tolist() != f(X).tolist()


def test_need09_generators_as_arguments() -> None:
    def f(x: Any, g: Any) -> Any:
        return x * dg.rand(8, generator=g) + dg.randn(8, generator=g)

    compare(lambda: f, [(X, dg.Generator(4)), (X, dg.Generator(4)), (X, dg.Generator(9))])


def test_need09_a_generator_held_by_the_function() -> None:
    def make() -> Any:
        g = dg.Generator(4)
        return lambda x: x * dg.rand(8, generator=g)

    compare(make, CALLS * 2)


# -- random numbers of others -------------------------------------------------------------------

held = np.random.default_rng(0)
python = random.Random(0)

FOREIGN: dict[str, Callable[[Any], Any]] = {
    "random": lambda x: x * random.random(),
    "randint": lambda x: x * random.randint(1, 100),
    "shuffled": lambda x: x[random.sample(range(8), 4)],
    "choice": lambda x: x * random.choice([1.0, 2.0, 3.0]),
    "gauss": lambda x: x * random.gauss(0, 1),
    "a generator of Python": lambda x: x * python.random(),
    "through map": lambda x: x * sum(map(random.uniform, [0, 1], [2, 3])),
    "unseen": lambda x: x * next(starmap(random.random, [()])),
    "np.random.rand": lambda x: x * np.random.rand(),
    "np.random.randn": lambda x: x * float(np.random.randn(1)[0]),
    "np.random.randint": lambda x: x * int(np.random.randint(1, 100)),
    "a generator of NumPy": lambda x: x * held.random(),
    "its integers": lambda x: x[held.permutation(8)[:4].tolist()],
    "seeded anew": lambda x: x * np.random.default_rng(3).random(),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_row16_drawn_at_each_call(name: str) -> None:
    f = FOREIGN[name]

    def make() -> Any:
        random.seed(2)
        np.random.seed(2)
        python.seed(2)
        held.bit_generator.state = np.random.default_rng(2).bit_generator.state
        return f

    compiled = compare(make, CALLS * 2, eager=None if name == "seeded anew" else True)
    if compiled.eager_reason is not None:
        assert "test_randomness.py" in compiled.eager_reason


def test_row16_secrets() -> None:
    f = dg.function(lambda x: x * secrets.randbelow(10**6))
    with pytest.warns(dg.EagerFallback, match="test_randomness"):
        seen = {f(dg.tensor(1.0)).item() for _ in range(4)}
    assert len(seen) > 1


def test_row16_drawn_once_for_the_first_call() -> None:
    def f(x: Any) -> Any:
        return x * random.random(), dg.rand(2)

    random.seed(4)
    want = [random.random(), random.random()]
    random.seed(4)
    compiled = dg.function(f)
    with pytest.warns(dg.EagerFallback):
        got = [compiled(dg.tensor(1.0, dtype=dg.float64))[0].item() for _ in range(2)]
    assert got == want


def test_row15_dropout_of_modules() -> None:
    def make() -> Any:
        dg.seed(0)
        m = nn.Dropout(0.4) if hasattr(nn, "Dropout") else (lambda x: dropout(x, 0.4))
        return lambda x: m(x)

    compare(make, CALLS * 2)
