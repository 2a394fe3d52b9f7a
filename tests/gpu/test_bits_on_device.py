"""Random programs on a CUDA device: eager and compiled give the bits of the CPU."""

from __future__ import annotations

import pytest
from hypothesis import Phase, given, settings
from test_bits import COMMON, LIMITS, Program, Run, assert_same, outcome, programs

from gpu.test_ops_on_device import placed

pytestmark = pytest.mark.usefixtures("gpu")


def compare(program: Program) -> None:
    here = Run(program, False)
    eager, static = (Run(program, mode, lambda x: placed(x, "cuda:0")) for mode in (False, True))
    want = outcome(here, 1)
    assert_same(outcome(eager, 1), want, "eager")
    first = outcome(static, 1)
    if first[0] not in LIMITS:
        assert_same(first, want, "static, while it is traced")
        assert_same(outcome(static, 1), want, "static")


@settings(max_examples=25, phases=(Phase.generate,), **COMMON)
@given(programs)
def test_random_programs(program: Program) -> None:
    compare(program)


@pytest.mark.slow
@settings(max_examples=500, phases=(Phase.generate, Phase.shrink), **COMMON)
@given(programs)
def test_many_random_programs(program: Program) -> None:
    compare(program)
