"""Random programs of the whole compiler: machine code and the interpreter give the same bits.

Graphs go through the passes; what they become runs on several instruction sets, at any number of
threads, with and without checks, in guarded memory.  A failure prints the seed and the program.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from chaingen import generate as chain
from contractgen import generate as contraction
from graphgen import Case
from graphgen import generate as graph
from joingen import generate as join
from machine import THREADS, How, agree, targets

QUICK, BATCH, BATCHES = 10, 25, 40
GENERATORS: dict[str, Callable[[int, int], Case]] = {
    "ops": graph,
    "products": contraction,
    "chains": chain,
    "joins": join,
}


def compare(name: str, seed: int) -> None:
    rng = Random(seed)
    case = GENERATORS[name](seed, THREADS)
    hows = [How.drawn(rng, "host"), How.drawn(rng)]
    agree(case.program, case.inputs, case.values, case.numbers, hows, f"{name} {seed}")


@pytest.mark.parametrize("name", GENERATORS)
def test_random_programs(name: str) -> None:
    for seed in range(QUICK):
        compare(name, seed)


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(BATCHES))
@pytest.mark.parametrize("name", GENERATORS)
def test_many_random_programs(name: str, batch: int) -> None:
    for seed in range(1000 + batch * BATCH, 1000 + (batch + 1) * BATCH):
        compare(name, seed)


@pytest.mark.parametrize("target", targets())
@pytest.mark.parametrize("name", GENERATORS)
def test_instruction_sets(name: str, target: str) -> None:
    """What a CPU can do changes no bit."""
    for seed in range(100, 103):
        case = GENERATORS[name](seed, THREADS)
        hows = [How.drawn(Random(seed), target)]
        agree(case.program, case.inputs, case.values, case.numbers, hows, f"{name} {seed}")
