"""Random programs with a compiled function in the middle: gradients have the bits of eager mode.

A program makes tensors outside, calls the function (once or twice) on leaves and on computed
tensors, uses the same tensors outside as well, and calls backward in one of several ways, to the
second order in some.  The function draws on its arguments and on parameters that the outside
uses too, and returns several results.
"""

import contextlib
import random
import warnings

import numpy as np
import pytest

import dualgrad as dg
from dualgrad import EagerFallback
from dualgrad.runtime.errors import GradientError
from semantics.support import bits

N = 4
UNARY = [
    lambda a: a.tanh(),
    lambda a: (a * 0.3).exp(),
    lambda a: a.relu(),
    lambda a: a.sigmoid(),
    lambda a: a * 0.5,
    lambda a: -a,
    lambda a: a.T,
    lambda a: a.softmax(-1),
    lambda a: a.sum(0) + a * 0.1,
    lambda a: a[1] * a,
    lambda a: a.reshape(2, 8).sum(0).reshape(2, 4).sum(0) + a,
    lambda a: dg.cat([a[2:], a[:2]]),
    lambda a: a.flip(0),
    lambda a: a.detach() * a,
    lambda a: a.clone(),
    lambda a: (a - a.mean(-1, keepdims=True)) * (a.var(-1, keepdims=True) + 1.0).rsqrt(),
    lambda a: a.cumsum(0) * 0.5,
    lambda a: a.amax(0) + a,
]


def added(a, b):
    a = a * 1.0
    a.add_(b)
    return a


def part_written(a, b):
    a = a.clone()
    a[1] = b[0] * 2.0
    return a


def view_scaled(a, b):
    a = a + b
    part = a[1:3]
    part *= 0.5
    return a + b


def written_below_view(a, b):
    a = a * 0.5
    view = a.T
    with dg.no_grad():
        a.add_(b)
    return a + view


BINARY = [
    added,
    part_written,
    view_scaled,
    written_below_view,
    lambda a, b: a + b,
    lambda a, b: a * b,
    lambda a, b: a - b * 0.7,
    lambda a, b: (a @ b) * 0.4,
    lambda a, b: a @ b.T * 0.3,
    lambda a, b: dg.where(a > b, a, b * 0.9),
    lambda a, b: a / (b * b + 1.0),
    lambda a, b: dg.maximum(a, b),
]
WAYS = ["plain", "plain", "accumulate", "part", "second", "second", "twice", "changed"]
Step = tuple[int, int, int]  # an op, and the two tensors of the pool that it takes


def steps_of(draw, count):
    return [
        (draw.randrange(len(UNARY) + len(BINARY)), draw.random(), draw.random())
        for _ in range(count)
    ]


def run_steps(steps, pool):
    """Each step adds a tensor to the pool, those made last being taken more often."""
    for op, first, second in steps:
        a, b = (pool[int(len(pool) * (1 - r * r))] if r else pool[-1] for r in (first, second))
        if op < len(UNARY):
            pool.append(UNARY[op](a))
        else:
            pool.append(BINARY[op - len(UNARY)](a, b))
    return pool


def tensor(numbers, dtype, device):
    return dg.tensor(numbers.normal(size=(N, N)), dtype=dtype, device=device)


class Program:
    """One drawn program; `run` goes through it with the function decorated in some way."""

    def __init__(self, seed, device="cpu"):
        self.seed, self.device = seed, device
        draw = random.Random(seed)
        self.dtype = draw.choice([dg.float32, dg.float32, dg.float64, dg.bfloat16])
        self.inside = steps_of(draw, draw.randint(2, 9))
        self.before = steps_of(draw, draw.randint(0, 4))
        self.after = steps_of(draw, draw.randint(1, 6))
        self.n_leaves = draw.randint(1, 3)
        self.n_parameters = draw.randint(1, 2)
        self.takes = [draw.random() for _ in range(draw.randint(1, 3))]
        self.results = [draw.random() for _ in range(draw.randint(1, 3))]
        self.calls = draw.choice([1, 1, 2])
        self.keep = draw.random()
        self.how = draw.choice(WAYS)
        self.changes = draw.random()

    def run(self, decorate):
        numbers = np.random.default_rng(self.seed)
        kind = (self.dtype, self.device)
        leaves = [tensor(numbers, *kind).requires_grad_() for _ in range(self.n_leaves)]
        parameters = [tensor(numbers, *kind).requires_grad_() for _ in range(self.n_parameters)]
        inside, results = self.inside, self.results

        @decorate
        def f(*args):
            pool = run_steps(inside, [*parameters, *args])
            new = pool[len(parameters) + len(args) :]
            return [new[int(len(new) * r)] for r in results]

        out = []
        for _ in range(2):
            try:
                out += self.once(f, leaves, parameters)
            except GradientError as error:  # of a drawn change in place that eager mode refuses
                out.append(str(error).splitlines()[0])
        return out

    def once(self, f, leaves, parameters):
        constant = dg.full((N, N), 0.5, dtype=self.dtype, device=self.device)
        pool = run_steps(self.before, [constant, *parameters, *leaves])
        for _ in range(self.calls):
            pool += f(*[pool[int(len(pool) * r)] for r in self.takes])
        pool = run_steps(self.after, pool)
        kept = [t for t in pool[1:] if t.requires_grad]
        whole = pool[-1] * 1.0
        for t in kept[int(self.keep * len(kept)) :]:
            whole = whole + t * 0.5
        self.differentiate(whole, kept, leaves + parameters)
        grads = [None if t.grad is None else bits(t.grad) for t in leaves + parameters]
        if self.how != "accumulate":
            for t in leaves + parameters:
                t.grad = None
        return [*map(bits, pool), *grads]

    def differentiate(self, whole, kept, leaves):
        if not whole.requires_grad:
            return
        if self.how == "part":
            (kept[-1] * 1.0).sum().backward()
        elif self.how == "changed":
            with dg.no_grad():
                kept[int(self.changes * len(kept))].mul_(2.0)
            with contextlib.suppress(GradientError):
                whole.sum().backward()
        elif self.how == "twice":
            whole.sum().backward(retain_graph=True)
            (whole * 2.0).mean().backward()
        elif self.how == "second":
            whole.sum().backward(create_graph=True)
            grads = [t.grad for t in leaves if t.grad is not None]
            for t in leaves:
                t.grad = None
            total = sum((g * g).sum() for g in grads) + whole.mean()
            total.backward()
        else:
            whole.sum().backward()


def check(seed):
    program = Program(seed)
    agree(compiled(program), program.run(lambda f: f), seed)


def compiled(program):
    with warnings.catch_warnings():
        warnings.simplefilter("error", EagerFallback)
        return program.run(dg.function)


def agree(got, want, seed):
    assert len(got) == len(want)
    for k, (a, b) in enumerate(zip(want, got, strict=True)):
        assert a == b, f"seed {seed}, value {k}"


@pytest.mark.parametrize("seed", range(24))
def test_row35_random_programs(seed):
    check(seed)
