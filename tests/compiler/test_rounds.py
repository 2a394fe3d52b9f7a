"""Kernels that run in one pass of the threads: which these are, and that they do what they do one
after another."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support import lowered

import dualgrad as dg
from dualgrad import nn, optim
from dualgrad.compiler.kernel.ir import buffers_of
from dualgrad.compiler.kernel.program import LoopProgram
from dualgrad.compiler.kernel.rounds import is_parallel, rounds_of
from dualgrad.compiler.launch import plan_arena
from dualgrad.compiler.lower.llvm.module import module_of
from dualgrad.compiler.lower.reference import run
from dualgrad.runtime.cpu import host_target
from dualgrad.runtime.profile import counters

SHAPES = [(70, 300)] * 4 + [(33, 500), (17,), (4000,), (90, 7)]


def program_of(function: Callable[..., Any], *args: Any) -> LoopProgram:
    compiled = dg.function(function, strict=True)
    compiled(*args)
    return lowered(compiled)


def parameters(seed: int) -> list[nn.Parameter]:
    dg.seed(seed)
    found = [nn.Parameter(dg.randn(*shape)) for shape in SHAPES]
    for p in found:
        p.grad = dg.randn(*p.shape)
    return found


OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "SGD": lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
    "Adam": lambda p: optim.Adam(p, lr=0.1),
    "AdamW": lambda p: optim.AdamW(p, lr=0.1),
    "RMSprop": lambda p: optim.RMSprop(p, lr=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_updates_of_all_parameters_are_one_pass(name: str) -> None:
    optimizer = OPTIMIZERS[name](parameters(0))
    program = program_of(optimizer.step)
    longest = max(rounds_of(program.kernels), key=len)
    assert {k for k, kernel in enumerate(program.kernels) if is_parallel(kernel)} <= {*longest}
    assert len(longest) >= len(SHAPES)
    text = module_of(program, host_target(), False).text
    assert len(re.findall(r"^define .*@pass_", text, re.MULTILINE)) == 1


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_pass_does_what_eager_updates_do(name: str, threads: int) -> None:
    found = []
    for compile in (lambda f: f, lambda f: dg.function(f, strict=True)):
        values = parameters(1)
        step = compile(OPTIMIZERS[name](values).step)
        for _ in range(4):
            step()
        found.append([p.detach().numpy().tobytes() for p in values])
    assert found[0] == found[1]


@pytest.mark.parametrize("count", [3, 40, 500, 3000, 100_000])
def test_sizes_that_change_decide_whether_threads_share(count: int, threads: int) -> None:
    def update(x: dg.Tensor, y: dg.Tensor, z: dg.Tensor) -> None:
        x.mul_(0.5).add_(1.0)
        y.sub_(y * y)
        z.copy_(dg.tanh(z))

    compiled = dg.function(update, strict=True, dynamic=["x", "y", "z"])
    for n in (count + 7, count, 2 * count):
        rows = [dg.linspace(-1.0, 1.0, m) for m in (n, n + 1, 2 * n)]
        same = [r.clone() for r in rows]
        update(*rows)
        compiled(*same)
        for a, b in zip(rows, same, strict=True):
            assert a.numpy().tobytes() == b.numpy().tobytes()
    assert compiled.n_traces == 1


def random_update(seed: int) -> tuple[Callable[..., None], list[dg.Tensor]]:
    """A function that overwrites some tensors with values made of others."""
    rng = random.Random(seed)
    shapes = [rng.choice([(40, 60), (60,), (40, 1), (40, 60)]) for _ in range(6)]
    steps = [(rng.randrange(5), rng.randrange(100), rng.randrange(100)) for _ in range(14)]
    written = rng.sample(range(6), 4)

    def update(*given: dg.Tensor) -> None:
        values = list(given)
        for kind, a, b in steps:
            x, y = values[a % len(values)], values[b % len(values)]
            makers = (
                lambda x=x, y=y: x + y,
                lambda x=x, y=y: x * y - x,
                lambda x=x: dg.tanh(x),
                lambda x=x: x.sum(0, keepdims=True),
                lambda x=x: x.mean(-1, keepdims=True),
            )
            values.append(makers[kind]())
        for k in written:
            made = [v for v in values[6:] if dg.broadcast_shapes(v.shape, given[k].shape)
                    == given[k].shape]  # fmt: skip
            if made:
                given[k].copy_(made[k % len(made)])

    return update, [dg.randn(*shape) for shape in shapes]


def as_program(seed: int) -> LoopProgram:
    dg.seed(seed)
    update, tensors = random_update(seed)
    return program_of(update, *tensors)


@pytest.mark.parametrize("seed", range(12))
def test_kernels_of_a_round_may_run_in_any_order(seed: int) -> None:
    program = as_program(seed)
    rng, shuffled = random.Random(seed), []
    for numbers in rounds_of(program.kernels):
        shuffled += [program.kernels[k] for k in rng.sample([*numbers], len(numbers))]
    buffers = program.buffers
    found = []
    for kernels in (program.kernels, shuffled):
        draw = np.random.default_rng(seed)
        memory = {b.name: draw.normal(size=b.size).astype(b.dtype.numpy) for b in buffers}
        assert run(kernels, memory, {}, {}) == 0
        found.append({b.name: memory[b.name].tobytes() for b in program.inputs})
    assert found[0] == found[1]


@pytest.mark.parametrize("seed", range(12))
def test_temporaries_of_a_round_share_no_memory(seed: int) -> None:
    program = as_program(seed)
    spaces = program.launch.spaces
    offsets, _ = plan_arena(spaces, {})
    places = {
        t.buffer.name: range(offset, offset + t.buffer.size * t.buffer.dtype.itemsize)
        for t, offset in zip(program.temporaries, offsets, strict=True)
    }
    for numbers in rounds_of(program.kernels):
        names = {b.name for k in numbers for b in buffers_of(program.kernels[k].body)}
        used = sorted((places[n] for n in names if n in places), key=lambda r: r.start)
        assert all(a.stop <= b.start for a, b in itertools.pairwise(used))


def test_random_programs_have_rounds() -> None:
    """The tests above compare nothing otherwise."""
    assert sum(len(r) > 1 for seed in range(12) for r in rounds_of(as_program(seed).kernels)) >= 6


def test_a_pass_counts_as_the_kernels_that_it_runs() -> None:
    step = dg.function(optim.SGD(parameters(2), lr=0.1).step, strict=True)
    step()
    before = counters.snapshot()
    step()
    since = counters.since(before)
    assert (since.launches, since.kernels) == (1, len(SHAPES))
