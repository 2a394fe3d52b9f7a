"""Random kernels for a GPU: CUDA C on the shim and the reference interpreter give the same bits.

A failure prints the seed; `gpuloops.generate(seed)` gives the case.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from loopgen import Case
from support import Array
from test_fuzz_lowering import assert_same_bits, program_of

from dualgrad.compiler.kernel.printer import render
from dualgrad.compiler.kernel.verify import verify
from dualgrad.compiler.lower.reference import run
from dualgrad.runtime.errors import CompileError
from dualgrad.runtime.floats import decode
from gpu import shim
from gpu.gpuloops import generate
from gpu.running import NO_ERROR, Loaded, Run, load

pytestmark = pytest.mark.skipif(shim.available() is not None, reason=str(shim.available()))

QUICK, TOGETHER, MANY = 40, 20, 2000


@dataclass
class Expected:
    """A case, and what the interpreter says about it."""

    seed: int
    case: Case
    word: int
    memory: dict[str, Array]


def expected(seed: int) -> Expected | None:
    """None if statements of a team touch what others store: the generator does not see that."""
    case = generate(seed)
    case = replace(case, kernel=replace(case.kernel, name=f"seed{seed}"))
    verify(case.kernel, "cuda")
    memory = {name: x.copy() for name, x in case.arrays.items()}
    try:
        word = run([case.kernel], memory, case.params, case.sizes, seed, device="cuda")
    except CompileError as error:
        if "other statements of the team" in str(error):
            return None
        raise
    return Expected(seed, case, word, memory)


def check(want: Expected, loaded: Loaded) -> None:
    case = want.case
    inputs = [case.arrays[b.name] for b in case.inputs]
    on = Run(loaded, inputs, case.sizes, tuple(case.params.values()), seed=want.seed)
    for b in case.outputs:
        on.array(b.name)[:] = case.arrays[b.name]
    on()
    what = f"seed {want.seed}\n{render(case.kernel)}"
    word = int(on.error[0])
    assert (word != NO_ERROR) == (want.word != 0), what
    if want.word:
        assert word & 0xFFFF == want.word & 0xFFFF, what
        return
    for b in (*case.inputs, *case.outputs):
        pair = (decode(x, b.dtype) for x in (on.array(b.name), want.memory[b.name]))
        assert_same_bits(*pair, f"{b.name}: {what}")


def compare(seeds: range, wide: bool) -> None:
    cases = [x for x in map(expected, seeds) if x is not None]
    programs = [replace(program_of(x.case), device="cuda") for x in cases]
    for want, loaded in zip(cases, load(programs, wide), strict=True):
        check(want, loaded)


@pytest.mark.parametrize("start", range(0, QUICK, TOGETHER))
def test_random_kernels(start: int) -> None:
    compare(range(start, start + TOGETHER), wide=start > 0)


@pytest.mark.slow
@pytest.mark.parametrize("start", range(1000, 1000 + MANY, TOGETHER))
def test_many_random_kernels(start: int) -> None:
    compare(range(start, start + TOGETHER), wide=start % 200 == 0)
