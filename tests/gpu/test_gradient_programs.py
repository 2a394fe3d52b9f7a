"""Random programs with a compiled function in the middle, on a CUDA device: gradients have the bits
of eager mode and of the CPU."""

from __future__ import annotations

import pytest
from semantics.test_gradient_programs import Program, agree, compiled

pytestmark = pytest.mark.usefixtures("gpu")


@pytest.mark.parametrize("seed", range(100, 106))
def test_random_programs(seed: int) -> None:
    want = Program(seed).run(lambda f: f)
    there = Program(seed, "cuda")
    agree(there.run(lambda f: f), want, seed)
    agree(compiled(there), want, seed)
