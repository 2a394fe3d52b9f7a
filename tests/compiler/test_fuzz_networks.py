"""Random networks: eager and compiled steps give the same bits, and so do the compiled program
on other instruction sets, in chunks, on any number of threads, and the interpreter."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest
from loopgen import fill
from machine import THREADS, How, agree
from netgen import generate
from support import same_bits

import dualgrad as dg
from dualgrad.compiler.ir.dims import evaluate
from dualgrad.compiler.pipeline import lower

QUICK, BATCH, BATCHES = 2, 10, 30


def compare(seed: int) -> None:
    rng, made = Random(seed), []

    def compile(step: Any) -> Any:
        made.append(dg.function(step, strict=True))
        return made[0]

    net = generate(seed)
    eager = net.steps(lambda step: step)
    dg.set_num_threads(rng.randrange(1, THREADS))
    compiled = net.steps(compile)
    for k, (x, y) in enumerate(zip(compiled, eager, strict=True)):
        assert (x is None) == (y is None)
        if x is not None:
            same_bits(x, y, f"result {k} of network {seed}")
    data = np.random.default_rng(seed)
    for path in made[0].paths:
        program = lower(path.graph, (None,) * len(path.graph.inputs), "net", THREADS)
        inputs = {b.name: fill(data, b.dtype, evaluate(b.size, {}), False) for b in program.inputs}
        numbers = [0.5 if d.is_float else 3 for d in program.scalars]
        hows = [How.drawn(rng, "host"), How.drawn(rng)]
        agree(program, inputs, {}, numbers, hows, f"network {seed}")


def test_random_networks() -> None:
    for seed in range(QUICK):
        compare(seed)


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(BATCHES))
def test_many_random_networks(batch: int) -> None:
    for seed in range(1000 + batch * BATCH, 1000 + (batch + 1) * BATCH):
        compare(seed)
